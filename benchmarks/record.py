"""The recovery log under its load: how fast it is written, how long `stats` and `log` take, and a flood of failures.

    python -m benchmarks.record [--quick] [--rows N] [--accounts N]

Failures of thirty days are made up, written by the store's own transactions into a temporary file, and counted. There is
no bare client to compare with: what counts is that reading does not grow with the rows, and that the event loop goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import aiosqlite

from supervisor.core.failure import DEFAULT_POLICIES, Action, Kind, Result, Row, Scope
from supervisor.ports import IncidentRow
from supervisor.record import queries, rollups
from supervisor.record.buffer import Batch
from supervisor.record.counting import Asked, Log
from supervisor.record.files import PRAGMAS, prepare
from supervisor.record.queries import LogFilter
from supervisor.record.store import Store
from supervisor.record.writing import write
from supervisor.report.stats import stats

DAYS = 30
COPIES = 10
BATCH = 10_000
KINDS = {
    Kind.FLOOD_WAIT: 40,
    Kind.CONNECTION: 25,
    Kind.TEMPORARY: 15,
    Kind.PROXY: 8,
    Kind.RATE_LIMIT: 5,
    Kind.UNKNOWN: 4,
    Kind.PERMANENT: 2.9,
    Kind.AUTH: 0.1,
}
ERRORS = {
    Kind.FLOOD_WAIT: ("FLOOD_WAIT_X", 420, "messages.SendMessage"),
    Kind.TEMPORARY: ("RPC_CALL_FAIL", 500, "messages.GetHistory"),
    Kind.PERMANENT: ("CHAT_WRITE_FORBIDDEN", 403, "messages.SendMessage"),
    Kind.AUTH: ("AUTH_KEY_UNREGISTERED", 401, None),
}

_Step = tuple[Result, Action, float | None]


def _story(kind: Kind, draw: random.Random) -> list[_Step]:
    """What became of one failure: most recover, some take longer, a few fail or are raised."""
    action, fate = DEFAULT_POLICIES[kind].action, draw.random()
    if kind is Kind.PERMANENT or fate < 0.05:
        return [(Result.RAISED, Action.FAIL, None)]
    if kind is Kind.AUTH and fate < 0.3:
        return [(Result.RETRYING, action, None), (Result.NEEDS_LOGIN, Action.FAIL, None)]
    if fate < 0.07:
        return [(Result.RETRYING, action, None), (Result.FAILED, Action.FAIL, None)]
    if fate < 0.08:
        return [(Result.RETRYING, action, None), (Result.SUSPENDED, action, None)]
    tries = 1 + (fate > 0.7) + (fate > 0.9)
    steps: list[_Step] = [(Result.RETRYING, action, None)] * tries
    return [*steps, (Result.RECOVERED, action, draw.lognormvariate(0.5, 1.5))]


def made_up(rows: int, accounts: int, begin: float, days: float) -> Iterator[Row]:
    """Failures in the order of their time. A tenth of the accounts have most of them, as it is in life."""
    draw = random.Random(7)
    names = [f"bot-{number:04}" for number in range(accounts)]
    often = list(accumulate(draw.lognormvariate(0.0, 1.5) for _ in names))
    step, done = days * rollups.DAY / rows, 0
    while True:
        for kind, name in zip(
            draw.choices(list(KINDS), list(KINDS.values()), k=1000),
            draw.choices(names, cum_weights=often, k=1000),
            strict=True,
        ):
            incident = f"{draw.getrandbits(48):012x}"
            error_id, code, method = ERRORS.get(kind, (None, None, None))
            scope = Scope.CALL if code else Scope.SESSION
            for attempt, (outcome, action, duration) in enumerate(_story(kind, draw), 1):
                if done >= rows:
                    return
                yield Row(
                    begin + done * step, name, "direct", scope, kind, action, outcome,
                    f"{kind.value}: the link to Telegram was lost after {attempt} attempts",
                    None if outcome is Result.RAISED else incident, error_id, code, method, attempt, 35.0, duration,
                )  # fmt: skip
                done += 1


async def fill(path: Path, rows: int, accounts: int, now: float) -> float:
    """Make a log of thirty days that ends now; give the rows a second that the store's own transactions write.

    A tenth of it is written so. The nine before it are copies, made in SQL, with whole days between them.
    """
    prepare(path)
    block, begin = rows // COPIES, now - DAYS / COPIES * rollups.DAY
    source, number, spent = made_up(block, accounts, begin, DAYS / COPIES), rows - block + 1, 0.0
    lanes = rollups.Lanes()
    async with aiosqlite.connect(path, isolation_level=None) as db:
        for pragma in PRAGMAS:
            await db.execute_fetchall(pragma)
        await db.create_function("added", 2, rollups.added, deterministic=True)
        while batch := list(islice(source, BATCH)):
            recovered = {
                row.incident: row.at for row in batch if row.incident and row.outcome is Result.RECOVERED
            }
            begun = time.perf_counter()
            number = (await write(db, Batch(rows=batch, recovered=recovered), {}, number, lanes)).next_id
            spent += time.perf_counter() - begun
    with closing(sqlite3.connect(path)) as copy:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -200000"):
            copy.execute(f"PRAGMA {pragma}")
        _copy(copy, block)
        copy.execute("PRAGMA journal_mode = WAL")
    return block / spent


def _copy(db: sqlite3.Connection, block: int) -> None:
    """Put nine copies of all that there is before it; roll-ups are moved by whole days like the rows that they count."""
    rollups.teach(db)
    columns = [name for _, name, *_ in db.execute("PRAGMA table_info(failures)")]
    moved = {"id": "id - :n * :block", "incident": "incident || :n"}
    moved |= {name: f"{name} - :n * :days" for name in ("at", "last_at", "resolved_at")}
    values = ", ".join(moved.get(name, name) for name in columns)
    days, first = DAYS // COPIES * rollups.DAY, db.execute("SELECT min(id) FROM failures").fetchone()[0]
    # Indexes are made faster at once than row by row, and nobody needs a file that a power cut spared.
    indexes = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'failures'"
    dropped = db.execute(indexes).fetchall()
    for name, _ in dropped:
        db.execute(f"DROP INDEX {name}")
    hours = db.execute("SELECT * FROM rollups").fetchall()
    totals = db.execute("SELECT * FROM totals WHERE step = ?", (rollups.DAY,)).fetchall()
    for n in range(COPIES - 1, 0, -1):
        asked = {"n": n, "block": block, "days": days, "first": first}
        db.execute(
            f"INSERT INTO failures SELECT {values} FROM failures WHERE id >= :first ORDER BY id", asked
        )
        for write_them, found in ((rollups.WRITE, hours), (rollups.WRITE_TOTALS, totals)):
            db.executemany(write_them, ((step, start - n * days, *more) for step, start, *more in found))
    db.execute("DELETE FROM totals WHERE step = ?", (rollups.SPAN,))
    db.execute(
        "INSERT INTO totals SELECT ?1, start / ?1 * ?1, account, merged(ended), merged(counts) FROM totals "
        "WHERE step = ?2 GROUP BY 2, 3",
        (rollups.SPAN, rollups.DAY),
    )
    for _, statement in dropped:
        db.execute(statement)
    db.commit()


def _resident() -> int:
    """The memory that this process has, in bytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


async def flood(path: Path, rate: int, seconds: float, accounts: int) -> Flood:
    """Record so many failures a second, of which three in eight close an incident, and watch the event loop."""
    lags: list[float] = []
    recorded, incidents = 0, 0
    rss = peak = _resident()
    draw = random.Random(7)
    begun = time.perf_counter()
    async with Store.open(path) as store:
        while (elapsed := time.perf_counter() - begun) < seconds:
            for _ in range(recorded, int(elapsed * rate)):
                step, name = recorded % 8, f"bot-{draw.randrange(accounts):04}"
                incident = f"i-{recorded // 2}"
                outcome = (Result.RETRYING, Result.RECOVERED)[step % 2] if step < 6 else Result.RAISED
                duration = draw.lognormvariate(0.5, 1.5) if outcome is Result.RECOVERED else None
                now = time.time()
                row = Row(
                    now, name, "direct", Scope.CALL, Kind.TEMPORARY, Action.RETRY, outcome, f"error {recorded}",
                    incident if step < 6 else None, "RPC_CALL_FAIL", 500, "messages.SendMessage", duration=duration,
                )  # fmt: skip
                store.record(row)
                if step < 6:
                    closed = now if outcome is Result.RECOVERED else None
                    store.incident(
                        IncidentRow(incident, name, "direct", Scope.CALL, Kind.TEMPORARY, now, closed)
                    )
                    incidents += outcome is Result.RECOVERED
                recorded += 1
            asked = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - asked - 0.005)
            peak = max(peak, _resident())
    lags.sort()
    return Flood(recorded, incidents, lags[len(lags) // 2], lags[len(lags) * 99 // 100], lags[-1], peak - rss)


@dataclass(frozen=True, slots=True)
class Flood:
    """What was recorded, how late the event loop was (seconds), and how much memory was taken (bytes)."""

    recorded: int
    recovered: int
    lag_p50: float
    lag_p99: float
    lag_max: float
    memory: int


def timed(work: Callable[[], object], *, best: bool = False) -> float:
    """The median of five in milliseconds; or the best of them, of the processor's time: what a busy machine can measure."""
    clock = time.thread_time if best else time.perf_counter
    took = []
    for _ in range(5):
        begun = clock()
        work()
        took.append(1000 * (clock() - begun))
    return sorted(took)[0 if best else 2]


# What `stats` and `log` are asked.
STATS: tuple[tuple[str, float, str | None, Kind | None], ...] = (
    ("stats", 7, None, None),
    ("stats --since 30d", 30, None, None),
    ("stats --since 24h", 1, None, None),
    ("stats --since 1h", 1 / 24, None, None),
    ("stats --account bot-0001", 7, "bot-0001", None),
    ("stats --account 'bot-00*'", 7, "bot-00*", None),
    ("stats --account '*'", 7, "*", None),
    ("stats --account '*' --since 24h", 1, "*", None),
    ("stats --account '*' --since 30d", 30, "*", None),
    ("stats --kind connection", 7, None, Kind.CONNECTION),
    ("stats --kind auth --since 30d", 30, None, Kind.AUTH),
    ("stats --account 'bot-1*' --kind proxy", 7, "bot-1*", Kind.PROXY),
)
LOGS: tuple[tuple[str, LogFilter], ...] = (
    ("log", LogFilter()),
    ("log --unresolved", LogFilter(unresolved=True)),
    ("log --account bot-0001", LogFilter("bot-0001")),
    ("log --account bot-0001 --kind auth", LogFilter("bot-0001", Kind.AUTH)),
    ("log --account 'bot-1*'", LogFilter("bot-1*")),
    ("log --account 'nobody*'", LogFilter("nobody*")),
    ("log --account '*7' --kind auth", LogFilter("*7", Kind.AUTH)),
    ("log --account '*7' --kind auth --unresolved", LogFilter("*7", Kind.AUTH, unresolved=True)),
    ("log --kind auth", LogFilter(kind=Kind.AUTH)),
    ("log --kind proxy --unresolved", LogFilter(kind=Kind.PROXY, unresolved=True)),
    ("log --kind migrate", LogFilter(kind=Kind.MIGRATE)),
)


def read(path: Path, now: float, *, best: bool = False) -> Iterator[tuple[str, float]]:
    """What the commands ask, and how many milliseconds each takes (`timed`)."""

    def count(days: float, account: str | None, kind: Kind | None) -> None:
        with queries.opened(path) as db:
            assert db is not None
            stats(Log(db), Asked(now - days * rollups.DAY, account, kind), now)

    def log(wanted: LogFilter) -> None:
        with queries.opened(path) as db:
            assert db is not None
            queries.log_rows(db, wanted)

    for what, days, account, kind in STATS:
        yield what, timed(partial(count, days, account, kind), best=best)
    for what, wanted in LOGS:
        yield what, timed(partial(log, wanted), best=best)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=3_000)
    given = parser.parse_args()
    rows = given.rows // 10 if given.quick else given.rows
    now = time.time()
    with tempfile.TemporaryDirectory(prefix="tg-record-") as folder:
        path = Path(folder, "recovery.db")
        speed = asyncio.run(fill(path, rows, given.accounts, now))
        size = path.stat().st_size
        print(f"The log of {given.accounts:,} accounts, {rows:,} rows in {DAYS} days")
        print(f"  written          {speed:10,.0f} rows/s")
        print(f"  file             {size / (1 << 20):10,.0f} MiB, {size / rows:.0f} bytes a row")
        for what, milliseconds in read(path, now):
            print(f"  {what:<44} {milliseconds:8.1f} ms")
        seconds = 2.0 if given.quick else 10.0
        found = asyncio.run(flood(Path(folder, "flood.db"), 10_000, seconds, given.accounts))
        print(f"10,000 failures a second for {seconds:g} s, {found.recorded:,} in all")
        print(f"  loop lag p50     {1000 * found.lag_p50:10,.1f} ms")
        print(f"  loop lag p99     {1000 * found.lag_p99:10,.1f} ms")
        print(f"  loop lag max     {1000 * found.lag_max:10,.1f} ms")
        print(f"  memory           {found.memory / (1 << 20):10,.1f} MiB more at its most")


if __name__ == "__main__":
    main()
