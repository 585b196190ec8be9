"""The recovery log under its load: how fast it is written, and how long `stats` and `log` take to read it.

    python -m benchmarks.record [--quick] [--rows N] [--accounts N]

Failures of thirty days are made up, written by the store's own transactions into a temporary file, and counted. There is
no bare client to compare with: what counts is that reading does not grow with the rows.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import aiosqlite

from supervisor.core.failure import DEFAULT_POLICIES, Action, Kind, Result, Row, Scope
from supervisor.record import queries, rollups
from supervisor.record.buffer import Batch
from supervisor.record.counting import Asked, Log
from supervisor.record.files import PRAGMAS, prepare
from supervisor.record.queries import LogFilter
from supervisor.record.writing import write
from supervisor.report.stats import stats

DAYS = 30
BATCH = 5_000
KINDS = {
    Kind.FLOOD_WAIT: 40,
    Kind.CONNECTION: 25,
    Kind.TEMPORARY: 15,
    Kind.PROXY: 8,
    Kind.RATE_LIMIT: 5,
    Kind.UNKNOWN: 4,
}


def made_up(rows: int, accounts: int, now: float) -> Iterator[Row]:
    """Failures in the order of their time: most recover, some take longer, a few fail or are raised."""
    draw = random.Random(7)
    kinds, weights = list(KINDS), list(KINDS.values())
    at, step = now - DAYS * rollups.DAY, DAYS * rollups.DAY / rows
    done = 0
    while done < rows:
        kind = draw.choices(kinds, weights)[0]
        account, incident = f"bot-{draw.randrange(accounts):04}", f"{draw.getrandbits(48):012x}"
        action, took = DEFAULT_POLICIES[kind].action, draw.lognormvariate(0.5, 1.5)
        fate = draw.random()
        story: list[tuple[Result, Action, float | None]]
        if fate < 0.08:
            story = [(Result.RAISED, Action.FAIL, None)]
        elif fate < 0.1:
            story = [(Result.RETRYING, action, None), (Result.FAILED, Action.FAIL, None)]
        else:
            story = [(Result.RETRYING, action, None), (Result.RECOVERED, action, took)]
        for outcome, taken, duration in story:
            at, done = at + step, done + 1
            yield Row(
                at, account, "direct", Scope.CALL, kind, taken, outcome, "[420 FLOOD_WAIT_35] messages.SendMessage",
                None if outcome is Result.RAISED else incident, "FLOOD_WAIT_X", 420, "messages.SendMessage", 1, 35.0,
                duration,
            )  # fmt: skip


async def fill(path: Path, rows: int, accounts: int, now: float) -> float:
    """Write them; give the rows a second."""
    prepare(path)
    source, number, spent = made_up(rows, accounts, now), 1, 0.0
    async with aiosqlite.connect(path, isolation_level=None) as db:
        for pragma in PRAGMAS:
            await db.execute_fetchall(pragma)
        await db.create_function("added", 2, rollups.added, deterministic=True)
        while batch := list(islice(source, BATCH)):
            begun = time.perf_counter()
            number = (await write(db, Batch(rows=batch), {}, number)).next_id
            spent += time.perf_counter() - begun
    return rows / spent


def timed(work: Callable[[], object]) -> float:
    """The median of five, in milliseconds."""
    took = []
    for _ in range(5):
        begun = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - begun))
    return sorted(took)[2]


def read(path: Path, now: float) -> Iterator[tuple[str, float]]:
    """What the commands ask, and how long each takes."""

    def count(days: float, account: str | None = None) -> float:
        def ask() -> None:
            with queries.opened(path) as db:
                assert db is not None
                stats(Log(db), Asked(now - days * rollups.DAY, account), now)

        return timed(ask)

    def log() -> None:
        with queries.opened(path) as db:
            assert db is not None
            queries.log_rows(db, LogFilter(account="bot-0001"))

    yield "stats", count(7)
    yield "stats --since 30d", count(30)
    yield "stats --since 24h", count(1)
    yield "stats --since 1h", count(1 / 24)
    yield "stats --account bot-0001", count(7, "bot-0001")
    yield "stats --account 'bot-00*'", count(7, "bot-00*")
    yield "log --account bot-0001", timed(log)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=1_000)
    given = parser.parse_args()
    rows = given.rows // 10 if given.quick else given.rows
    now = time.time()
    with tempfile.TemporaryDirectory(prefix="tg-record-") as folder:
        path = Path(folder, "recovery.db")
        speed = asyncio.run(fill(path, rows, given.accounts, now))
        size = path.stat().st_size / (1 << 20)
        print(f"The log of {given.accounts:,} accounts, {rows:,} rows in {DAYS} days")
        print(f"  written          {speed:10,.0f} rows/s")
        print(f"  file             {size:10,.0f} MiB")
        with queries.opened(path) as db:
            assert db is not None
            with closing(db.execute("SELECT count(*) FROM rollups")) as found:
                print(f"  roll-ups         {found.fetchone()[0]:10,}")
        for what, milliseconds in read(path, now):
            print(f"  {what:<28} {milliseconds:8.1f} ms")


if __name__ == "__main__":
    main()
