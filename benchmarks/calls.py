"""Calls: how long one takes, and how many a second there are with a hundred under way.

Both clients are online in one process, and take turns: a round of the one, a round of the other. What is shown is the
middle of the rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import script
from benchmarks.local import LocalDatacenter, bare, supervised
from benchmarks.table import Row, Table

WIDTH = 100
Make = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Rounds:
    """How much is measured: rounds, and calls in each."""

    rounds: int
    sequential: int
    concurrent: int


FULL = Rounds(rounds=7, sequential=1500, concurrent=6000)
QUICK = Rounds(rounds=3, sequential=300, concurrent=1500)


async def one_by_one(call: Make, count: int) -> list[float]:
    """The milliseconds that each call took."""
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        await call()
        took.append((time.perf_counter() - begun) * 1000)
    return took


async def side_by_side(call: Make, count: int) -> tuple[float, float]:
    """Calls a second with `WIDTH` of them under way, and the microseconds of this process's CPU for each."""
    numbers = iter(range(count))

    async def take_turns() -> None:
        for _ in numbers:
            await call()

    begun, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(WIDTH):
            group.create_task(take_turns())
    return count / (time.perf_counter() - begun), (time.process_time() - cpu) / count * 1e6


class Measured:
    """What one client did."""

    def __init__(self, client: Any, person: int) -> None:
        from pyrogram import raw

        texts = itertools.count()
        self._state: Make = lambda: client.invoke(raw.functions.updates.GetState())
        self._send: Make = lambda: client.send_message(person, f"message {next(texts)}")
        self.latencies: list[float] = []
        self.rates: dict[str, list[float]] = {"state": [], "send": [], "state cpu": [], "send cpu": []}

    async def warm_up(self) -> None:
        for call in (self._state, self._send):
            await call()
            await side_by_side(call, 2 * WIDTH)

    async def round(self, size: Rounds) -> None:
        self.latencies += await one_by_one(self._state, size.sequential)
        for name, call in (("state", self._state), ("send", self._send)):
            rate, cpu = await side_by_side(call, size.concurrent)
            self.rates[name].append(rate)
            self.rates[f"{name} cpu"].append(cpu)

    @property
    def figures(self) -> dict[str, float]:
        percentiles = quantiles(self.latencies, n=100)
        middles = {name: median(rates) for name, rates in self.rates.items()}
        return {"p50": percentiles[49], "p99": percentiles[98], **middles}


async def measure(size: Rounds, directory: Path) -> dict[str, dict[str, float]]:
    """Let both clients take turns."""
    async with LocalDatacenter.running(send_limit=0) as dc:
        address = dc.address
        mine, theirs = await dc.bot("ours", directory), await dc.bot("bare", directory)
        async with bare(address, [theirs]) as bares, supervised(address, [mine], directory / "state") as ours:
            a, b = Measured(bares["bare"], address.person), Measured(ours["ours"], address.person)
            for measured in (a, b):
                await measured.warm_up()
            for _ in range(size.rounds):
                for measured in (a, b):
                    await measured.round(size)
    return {"bare": a.figures, "supervised": b.figures}


def table(result: dict[str, dict[str, float]], rounds: int) -> Table:
    def row(what: str, name: str, unit: str, *, more_is_better: bool = False) -> Row:
        return Row(what, result["bare"][name], result["supervised"][name], unit, more_is_better)

    one, many = "GetState, one at a time", f"{WIDTH} at once"
    return Table(
        f"Calls, {rounds} rounds",
        [
            row(f"{one}: p50", "p50", "ms"),
            row(f"{one}: p99", "p99", "ms"),
            row(f"GetState, {many}", "state", "calls/s", more_is_better=True),
            row("  CPU of the client's process", "state cpu", "µs a call"),
            row(f"send_message, {many}", "send", "calls/s", more_is_better=True),
            row("  CPU of the client's process", "send cpu", "µs a call"),
        ],
    )


async def main(quick: bool) -> None:
    result = await script.worker("calls", quick=quick)
    print(table(result, (QUICK if quick else FULL).rounds), flush=True)


async def work(quick: bool) -> None:
    logging.disable(logging.CRITICAL)
    with TemporaryDirectory(prefix="bench-") as directory:
        print(json.dumps(await measure(QUICK if quick else FULL, Path(directory))))


if __name__ == "__main__":
    options = script.arguments(__doc__).parse_args()
    script.run(lambda: work(**options.worker) if options.worker else main(options.quick))
