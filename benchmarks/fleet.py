"""Fleet: what an account costs where there are many, how fast they start, and what they do to the event loop.

Each kind runs in fresh processes, in turns. Handlers and message caches are at their defaults, nobody calls anything. An
account counts as started when its first RPCs are answered and it knows who it is. Memory is what the process (not the
datacenter's) holds above what it held when one account had started and stopped in it. Lag is how much longer than asked
for the loop sleeps. A cold start makes a new key and signs in; a warm one has a session. 20 accounts start at once,
the bare client's as the supervisor's own (`start_limit`): with more of them many a bare start fails.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import script
from benchmarks.local import Address, Bot, LocalDatacenter, as_json, bare, from_json, supervised
from benchmarks.table import Row, Table

KINDS = "bare", "supervised"
PERCENTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}
SETTLED = 2.0  # seconds after the start until acknowledgements and commits are over
START_LIMIT = 20  # the supervisor's default, and what bare clients bear
TICK = 0.01  # seconds that the loop is asked to sleep


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. Bare clients are fewer where as many would take minutes; `idle` is in seconds."""

    accounts: int = 1000
    bare: int = 1000
    cold: int = 100
    idle: float = 10.0
    rounds: int = 2


QUICK = Plan(accounts=200, bare=200, cold=30, idle=4.0, rounds=1)


# --- one process ----------------------------------------------------------------------------------------


def resident() -> float:
    """MiB of this process in memory (Linux)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@dataclass
class Lag:
    """How late the event loop was, in milliseconds."""

    seen: list[float] = field(default_factory=list)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look at it for as long as the body takes."""
        looking = asyncio.create_task(self._look(), name="lag")
        try:
            yield
        finally:
            looking.cancel()

    async def _look(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK)
            self.seen.append((time.perf_counter() - begun - TICK) * 1000)

    def figures(self, when: str) -> dict[str, float]:
        """Its percentiles."""
        ordered = sorted(self.seen)
        last = len(ordered) - 1
        return {f"lag {when} {name}": ordered[round(last * share)] for name, share in PERCENTILES.items()}


def online(kind: str, address: Address, bots: Sequence[Bot], directory: Path) -> Any:
    """All of them, as an async context manager; `directory` is theirs."""
    directory.mkdir(exist_ok=True)
    if kind == "bare":
        return bare(address, bots, directory=directory)
    return supervised(address, bots, directory, start_limit=START_LIMIT)


async def work(kind: str, directory: str, given: dict[str, Any], idle: float) -> None:
    """Measure one kind in this process, which has done nothing else; cold where `idle` is 0."""
    logging.disable(logging.CRITICAL)
    address, (first, *bots) = from_json(given)
    async with online(kind, address, [first], Path(directory, "first")):
        pass
    base = resident()
    starting, cpu = Lag(), time.process_time()
    async with starting.watched():
        begun = time.perf_counter()
        running = online(kind, address, bots, Path(directory, "state"))
        await running.__aenter__()
        took = time.perf_counter() - begun
    figures = {
        "starts": len(bots) / took,
        "start cpu": (time.process_time() - cpu) / len(bots) * 1000,
        **starting.figures("starting"),
    }
    if idle:
        await asyncio.sleep(SETTLED)
        figures |= {
            "mib": (resident() - base) / len(bots),
            "threads": threading.active_count(),
            "tasks": (len(asyncio.all_tasks()) - 1) / len(bots),
            **await _idle(idle, len(bots)),
        }
    begun = time.perf_counter()
    await running.__aexit__(None, None, None)
    figures["stop"] = time.perf_counter() - begun
    print(json.dumps(figures))


async def _idle(seconds: float, accounts: int) -> dict[str, float]:
    # A watch on the loop uses CPU itself: not in the same seconds.
    cpu = time.process_time()
    await asyncio.sleep(seconds)
    used = (time.process_time() - cpu) * 60 / seconds * 1000 / accounts
    lag = Lag()
    async with lag.watched():
        await asyncio.sleep(seconds / 2)
    return {"idle cpu": used, **lag.figures("idle")}


# --- all of them ----------------------------------------------------------------------------------------

Figures = dict[str, list[dict[str, float]]]


async def _warm(dc: LocalDatacenter, plan: Plan, directory: Path) -> Figures:
    many = {"bare": plan.bare, "supervised": plan.accounts}
    sets = {kind: [await dc.bot(f"{kind}-{n}", directory) for n in range(many[kind] + 1)] for kind in KINDS}
    found: Figures = {kind: [] for kind in KINDS}
    # The first supervised start takes the session files over; it is not counted.
    for kind in ("supervised", *KINDS * plan.rounds):
        given = as_json(dc.address, sets[kind])
        idle = plan.idle if found["supervised"] or kind == "bare" else 0.0
        found[kind].append(
            await script.worker("fleet", kind=kind, directory=str(directory), given=given, idle=idle)
        )
    del found["supervised"][0]
    return found


async def _cold(dc: LocalDatacenter, plan: Plan, directory: Path) -> Figures:
    found: Figures = {kind: [] for kind in KINDS}
    for number in range(plan.rounds):
        for kind in KINDS:
            name = f"cold-{kind}-{number}"
            bots = [await dc.new_bot(f"{name}-{n}") for n in range(plan.cold + 1)]
            where = directory / name
            where.mkdir()
            given = as_json(dc.address, bots)
            found[kind].append(
                await script.worker("fleet", kind=kind, directory=str(where), given=given, idle=0.0)
            )
    return found


def _row(found: Figures, what: str, name: str, unit: str = "", *, more_is_better: bool | None = False) -> Row:
    a, b = (median(result[name] for result in found[kind]) for kind in KINDS)
    return Row(what, a, b, unit, more_is_better)


async def measure(plan: Plan, directory: Path) -> list[Table]:
    """Both tables: warm and cold."""
    async with LocalDatacenter.running() as dc:
        warm, cold = await _warm(dc, plan, directory), await _cold(dc, plan, directory)
    many = f"{plan.accounts:,} accounts" + (f" ({plan.bare:,} bare)" if plan.bare < plan.accounts else "")
    rounds = f"{plan.rounds} round{'s' if plan.rounds > 1 else ''}"
    return [
        Table(
            f"Fleet, {many}, {rounds}",
            [
                _row(warm, "memory", "mib", "MiB each"),
                _row(warm, "threads", "threads", "in all", more_is_better=None),
                _row(warm, "tasks", "tasks", "each", more_is_better=None),
                _row(warm, "starts, sessions exist", "starts", "a second", more_is_better=True),
                _row(warm, "CPU of such a start", "start cpu", "ms"),
                *(
                    _row(warm, f"loop lag while starting, {p}", f"lag starting {p}", "ms")
                    for p in PERCENTILES
                ),
                _row(warm, "idle CPU, 1,000 accounts", "idle cpu", "s a minute"),
                *(_row(warm, f"loop lag while idle, {p}", f"lag idle {p}", "ms") for p in PERCENTILES),
                _row(warm, "all stopped", "stop", "s"),
            ],
        ),
        Table(
            f"Fleet, {plan.cold} accounts without sessions, {rounds}",
            [
                _row(cold, "starts, key and sign-in", "starts", "a second", more_is_better=True),
                _row(cold, "CPU of such a start", "start cpu", "ms"),
                *(
                    _row(cold, f"loop lag while starting, {p}", f"lag starting {p}", "ms")
                    for p in PERCENTILES
                ),
            ],
        ),
    ]


async def main(plan: Plan) -> None:
    """Measure and print."""
    with TemporaryDirectory(prefix="bench-") as directory:
        for table in await measure(plan, Path(directory)):
            print(table, flush=True)


def plan_of(options: Any) -> Plan:
    """What the command line asks for."""
    usual = QUICK if options.quick else Plan()
    accounts = options.accounts or usual.accounts
    bare = usual.bare if options.bare is None else options.bare
    return Plan(accounts, min(accounts, bare), min(accounts, usual.cold), usual.idle, usual.rounds)


if __name__ == "__main__":
    parser = script.arguments(__doc__)
    parser.add_argument("--accounts", type=int, help="how many")
    parser.add_argument("--bare", type=int, help="how many of them bare: as many, but at most 1,000")
    given = parser.parse_args()
    script.run(lambda: work(**given.worker) if given.worker else main(plan_of(given)))
