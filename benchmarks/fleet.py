"""Fleet: what an account costs where there are many, and how fast they start again.

Each kind runs in fresh processes, in turns. Sessions exist, handlers and message caches are at their defaults, nobody
calls anything. An account counts as started when its first RPCs are answered and it knows who it is. Memory is what the
process (not the datacenter's) holds above what it held when one account had started and stopped in it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import threading
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import script
from benchmarks.local import Address, Bot, LocalDatacenter, as_json, bare, from_json, supervised
from benchmarks.table import Row, Table

ACCOUNTS = 200
ROUNDS = 5
KINDS = "bare", "supervised"


def resident() -> float:
    """MiB of this process in memory (Linux)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def online(kind: str, address: Address, bots: list[Bot], directory: Path) -> Any:
    return bare(address, bots) if kind == "bare" else supervised(address, bots, directory)


async def work(kind: str, directory: str, given: dict[str, Any]) -> None:
    """Measure one kind in this process, which has done nothing else."""
    logging.disable(logging.CRITICAL)
    address, (first, *bots) = from_json(given)
    async with online(kind, address, [first], Path(directory, "first")):
        pass
    base = resident()
    begun = time.perf_counter()
    async with online(kind, address, bots, Path(directory, "state")):
        took = time.perf_counter() - begun
        await asyncio.sleep(1.0)  # acknowledgements and commits of the start are over
        figures = {
            "mib": (resident() - base) / len(bots),
            "threads": threading.active_count(),
            "tasks": (len(asyncio.all_tasks()) - 1) / len(bots),
            "starts": len(bots) / took,
        }
    print(json.dumps(figures))


async def measure(accounts: int, rounds: int, directory: Path) -> Table:
    async with LocalDatacenter.running() as dc:
        sets = {kind: [await dc.bot(f"{kind}-{n}", directory) for n in range(accounts + 1)] for kind in KINDS}
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        # The first supervised start takes the session files over; it is not counted.
        for kind in ("supervised", *KINDS * rounds):
            given = as_json(dc.address, sets[kind])
            found[kind].append(await script.worker("fleet", kind=kind, directory=str(directory), given=given))
        del found["supervised"][0]

    def row(what: str, name: str, unit: str, *, more_is_better: bool | None = False) -> Row:
        a, b = (median(result[name] for result in found[kind]) for kind in KINDS)
        return Row(what, a, b, unit, more_is_better)

    return Table(
        f"Fleet, {accounts} accounts, {rounds} rounds",
        [
            row("memory", "mib", "MiB each"),
            row("threads", "threads", "in all", more_is_better=None),
            row("tasks", "tasks", "each", more_is_better=None),
            row("starts, sessions exist", "starts", "a second", more_is_better=True),
        ],
    )


async def main(quick: bool, accounts: int) -> None:
    with TemporaryDirectory(prefix="bench-") as directory:
        print(await measure(accounts, 1 if quick else ROUNDS, Path(directory)), flush=True)


if __name__ == "__main__":
    parser = script.arguments(__doc__)
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    options = parser.parse_args()
    script.run(lambda: work(**options.worker) if options.worker else main(options.quick, options.accounts))
