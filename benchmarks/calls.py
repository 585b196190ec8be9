"""Calls: how long one takes, and how many a second there are: a hundred at once on one account, and one of each of many.

One account: both clients are online in one process, and take turns, a round of the one and a round of the other. Many
accounts: each kind runs in fresh processes, in turns, since bare Kurigram has a thread for each account. What is shown is
the middle of the rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import script
from benchmarks.local import Address, Bot, LocalDatacenter, as_json, bare, from_json, supervised
from benchmarks.table import Row, Table

WIDTH = 100
Make = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Rounds:
    """How much is measured: rounds, and calls in each."""

    rounds: int
    sequential: int
    concurrent: int
    accounts: int  # that call at once, each once in a round
    turns: int  # of each kind's process


FULL = Rounds(rounds=7, sequential=1500, concurrent=6000, accounts=1000, turns=2)
QUICK = Rounds(rounds=3, sequential=300, concurrent=1500, accounts=200, turns=1)
KINDS = "bare", "supervised"


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


def get_state(client: Any) -> Make:
    from pyrogram import raw

    return lambda: client.invoke(raw.functions.updates.GetState())


def send_message(client: Any, person: int) -> Make:
    texts = itertools.count()
    return lambda: client.send_message(person, f"message {next(texts)}")


async def all_at_once(calls: Iterable[Make]) -> tuple[float, float]:
    """Calls a second when all of these are made at once, and the microseconds of this process's CPU for each."""
    begun, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_awaited(call)) for call in calls]
    count = len(tasks)
    return count / (time.perf_counter() - begun), (time.process_time() - cpu) / count * 1e6


async def _awaited(call: Make) -> None:
    await call()


class Measured:
    """What one client did."""

    def __init__(self, client: Any, person: int) -> None:
        self._state, self._send = get_state(client), send_message(client, person)
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


async def measure_many(size: Rounds, directory: Path) -> Table:
    """Let many accounts of either kind call at once, each kind in processes of its own."""
    async with LocalDatacenter.running(send_limit=0) as dc:
        sets = {
            kind: [await dc.bot(f"{kind}-{n}", directory) for n in range(size.accounts)] for kind in KINDS
        }
        figures: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}
        for kind in KINDS * size.turns:
            given = as_json(dc.address, sets[kind])
            many = {"kind": kind, "directory": str(directory), "given": given, "rounds": size.rounds}
            for name, values in (await script.worker("calls", many=many)).items():
                figures[kind].setdefault(name, []).extend(values)

    def row(what: str, name: str, unit: str, *, more_is_better: bool | None = False) -> Row:
        a, b = (median(figures[kind][name]) for kind in KINDS)
        return Row(what, a, b, unit, more_is_better)

    return Table(
        f"Calls, {size.accounts} accounts at once, {size.rounds * size.turns} rounds",
        [
            row("threads", "threads", "in all", more_is_better=None),
            row("GetState, one of each account", "state", "calls/s", more_is_better=True),
            row("  CPU of the client's process", "state cpu", "µs a call"),
            row("send_message, one of each account", "send", "calls/s", more_is_better=True),
            row("  CPU of the client's process", "send cpu", "µs a call"),
        ],
    )


async def many_at_once(
    kind: str, directory: str, given: dict[str, Any], rounds: int
) -> dict[str, list[float]]:
    """What one kind's accounts do in this process, which has done nothing else."""
    address, bots = from_json(given)
    figures: dict[str, list[float]] = {name: [] for name in ("state", "state cpu", "send", "send cpu")}
    async with online(kind, address, bots, Path(directory, "state")) as clients:
        ways = {
            "state": [get_state(client) for client in clients.values()],
            "send": [send_message(client, address.person) for client in clients.values()],
        }
        for n in range(rounds + 1):
            for name, calls in ways.items():
                rate, cpu = await all_at_once(calls)
                if n > 0:  # the first warms up
                    figures[name].append(rate)
                    figures[f"{name} cpu"].append(cpu)
        return {**figures, "threads": [threading.active_count()]}


def online(kind: str, address: Address, bots: list[Bot], state: Path) -> Any:
    return bare(address, bots) if kind == "bare" else supervised(address, bots, state)


async def main(quick: bool) -> None:
    size = QUICK if quick else FULL
    print(table(await script.worker("calls", quick=quick), size.rounds), flush=True)
    with TemporaryDirectory(prefix="bench-") as directory:
        print(await measure_many(size, Path(directory)), flush=True)


async def work(quick: bool = False, many: dict[str, Any] | None = None) -> None:
    logging.disable(logging.CRITICAL)
    if many is not None:
        print(json.dumps(await many_at_once(**many)))
        return
    with TemporaryDirectory(prefix="bench-") as directory:
        print(json.dumps(await measure(QUICK if quick else FULL, Path(directory))))


if __name__ == "__main__":
    options = script.arguments(__doc__).parse_args()
    script.run(lambda: work(**options.worker) if options.worker else main(options.quick))
