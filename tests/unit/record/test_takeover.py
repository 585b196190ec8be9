from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.core.failure import Kind, Result, Row, Scope
from supervisor.ports import IncidentRow, SignIn
from supervisor.record import queries, takeover
from supervisor.record.migrations import MIGRATIONS, SCHEMA, put_aside
from supervisor.record.rollups import DAY, HOUR, PART, SPAN, Histogram
from supervisor.record.store import Store, StoreSettings
from tests.unit.record.conftest import NOW, MakeRow
from tests.unit.record.test_rollups import query, totals

FAST = StoreSettings(batch_seconds=0.001)
ALL = "SELECT * FROM failures ORDER BY id"


async def older(path: Path, step: int, rows: Sequence[Row]) -> Path:
    """A recovery.db as a release of that step left it; beside it what this release makes of the same rows."""
    new = path.with_name("new.db")
    async with Store.open(new) as store:
        for row in rows:
            store.record(row)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript("".join(MIGRATIONS[:step]))
        db.execute("ATTACH ? AS new", (str(new),))
        db.execute("BEGIN")
        db.execute("INSERT INTO failures SELECT * FROM new.failures")
        if step > 1:
            db.create_function("packed", 2, _packed)
            db.execute(f"INSERT INTO rollups SELECT * FROM new.rollups WHERE step = {HOUR}")
            db.execute(
                "INSERT INTO rollups SELECT 86400, CAST(at / 86400 AS INTEGER) * 86400 AS day, coalesce(account, ''), "
                "kind, action, outcome, sum(count), coalesce(max(duration), 0.0), packed(duration, sum(count)) "
                "FROM failures GROUP BY day, account, kind, action, outcome, duration"
            )
            db.execute(
                "INSERT INTO rollups SELECT step, start, account, '*', '*', outcome, sum(count), max(longest), lengths "
                "FROM rollups WHERE step = 86400 AND outcome <> 'retrying' GROUP BY start, account, outcome"
            )
        db.execute("COMMIT")
        db.execute(f"PRAGMA user_version = {step}")
    return new


def _packed(duration: float | None, count: int) -> bytes:
    histogram = Histogram()
    if duration is not None:
        histogram.add(duration, count)
    return histogram.packed()


def many(make_row: MakeRow, number: int) -> list[Row]:
    """Rows of the last two weeks; those of one day, account and sort took equally long."""
    rows = []
    for n in range(number):
        at = NOW - (number - n) * 14 * DAY / number
        result = (Result.RETRYING, Result.RECOVERED, Result.FAILED, Result.RAISED)[n % 4]
        duration = 1.0 + at // DAY % 5 if result is Result.RECOVERED else None
        account = None if n % 11 == 0 else f"bot-{n % 7}"
        kind = (Kind.CONNECTION, Kind.PROXY)[n // 4 % 2]
        rows.append(
            make_row(
                at, account, result, kind=kind, duration=duration, incident=f"i-{n // 4}", count=1 + n % 3
            )
        )
    return rows


def left(path: Path) -> int:
    """How many rows an older release's table still has."""
    with closing(sqlite3.connect(path)) as db:
        table = put_aside(db)
        found: int = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] if table else 0
        return found


async def taken_over(path: Path) -> None:
    async with Store.open(path, FAST) as store:
        while store._takeover is None or not store._takeover.is_done:
            await asyncio.sleep(0.005)


def check_counts(path: Path, new: Path) -> None:
    """All is counted as this release would have: accounts by the hour only from now on, by three hours only of late."""
    assert query(path, ALL) == query(new, ALL)
    of_all = (
        f"SELECT * FROM rollups WHERE account = '*' AND step IN ({HOUR}, {DAY}) ORDER BY 1, 2, 3, 4, 5, 6"
    )
    assert query(path, of_all) == query(new, of_all)
    assert query(path, "SELECT count(*) FROM rollups") == query(new, "SELECT count(*) FROM rollups")
    for step in (DAY, SPAN):
        assert totals(path, step) == totals(new, step)
    recent = {key: counts for key, counts in totals(path, PART).items() if key[0] >= NOW - 3 * DAY}
    assert recent == {key: counts for key, counts in totals(new, PART).items() if key[0] >= NOW - 3 * DAY}


@pytest.mark.parametrize("step", [1, 2])
async def test_an_older_log_is_taken_over_whole(
    db: Path, make_row: MakeRow, step: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Bit by bit, every row under its number, and every count as if this release had written it; it is said in the log."""
    monkeypatch.setattr(takeover, "_SLICE", 97)
    monkeypatch.setattr(takeover, "_TOLD_EVERY", 0.0)
    caplog.set_level(logging.INFO, "supervisor.record.takeover")
    new = await older(db, step, many(make_row, 1200))
    await taken_over(db)
    check_counts(db, new)
    assert query(db, "PRAGMA user_version") == [(SCHEMA,)]
    assert query(db, "PRAGMA integrity_check") == [("ok",)]
    names = query(db, "SELECT name FROM sqlite_master WHERE name LIKE '%failures%' ORDER BY 1")
    assert names == query(new, "SELECT name FROM sqlite_master WHERE name LIKE '%failures%' ORDER BY 1")
    told = [record.getMessage() for record in caplog.records]
    assert f"about {1200 if step == 2 else 1103} of them are left" in told[0]
    assert told[-1] == "the log of the older release is taken over"


@pytest.mark.parametrize("step", [1, 2])
async def test_the_daemon_works_while_it_takes_over(
    db: Path, make_row: MakeRow, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes meanwhile is written with the next numbers, and a recovery resolves its rows on either side."""
    monkeypatch.setattr(takeover, "_SLICE", 10)
    await older(db, step, [make_row(at=NOW - 100 + n, incident=f"i-{n}") for n in range(60)])
    async with Store.open(db, FAST) as store:
        recovery = make_row(outcome=Result.RECOVERED, incident="i-0", duration=1.0)
        store.record(recovery)
        store.incident(
            IncidentRow(
                "i-0", "support-bot", "direct", Scope.SESSION, Kind.CONNECTION, NOW, NOW, Result.RECOVERED
            )
        )
        await store.save_sign_in(SignIn("a", NOW))
        with queries.opened(db) as reader:
            assert reader is not None
            assert queries.not_taken_over(reader) is not None
            assert queries.newest_id(reader) == 61
        assert left(db) > 0
    await taken_over(db)
    found = query(db, "SELECT id, incident, resolved_at IS NOT NULL FROM failures ORDER BY id")
    assert found == [(n + 1, f"i-{n}", n == 0) for n in range(60)] + [(61, "i-0", 1)]
    assert query(db, f"SELECT sum(count) FROM rollups WHERE step = {HOUR}") == [(61,)]
    with queries.opened(db) as reader:
        assert reader is not None
        assert queries.not_taken_over(reader) is None


async def test_a_slice_that_cannot_be_written_is_tried_again(
    db: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another holds the file nothing is lost or taken twice."""
    monkeypatch.setattr(takeover, "_SLICE", 10)
    monkeypatch.setattr(takeover, "_BUSY", 0.01)
    new = await older(db, 2, many(make_row, 100))
    settings = StoreSettings(batch_seconds=0.001, retry_seconds=0.02)
    async with Store.open(db, settings) as store:
        with closing(sqlite3.connect(db, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.1)
            other.execute("ROLLBACK")
        while store._takeover is None or not store._takeover.is_done:
            await asyncio.sleep(0.005)
    check_counts(db, new)


# It says so before each slice.
TAKING = """
import asyncio, sys
from pathlib import Path
from supervisor.record import takeover
from supervisor.record.store import Store, StoreSettings

take = takeover._take

def told(*arguments):
    print("slice", flush=True)
    return take(*arguments)

async def main(path):
    takeover._take, takeover._SLICE = told, 200
    async with Store.open(path, StoreSettings(batch_seconds=0.001)) as store:
        while store._takeover is None or not store._takeover.is_done:
            await asyncio.sleep(0.005)

asyncio.run(main(Path(sys.argv[1])))
print("done", flush=True)
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("step", [1, 2])
async def test_kill_9_at_any_moment_neither_loses_nor_doubles_a_row(
    db: Path, make_row: MakeRow, step: int
) -> None:
    """Killed again and again while it takes over: the file is whole each time, and in the end every count is exact."""
    rows = 6_000
    new = await older(db, step, many(make_row, rows))
    draw = random.Random()
    amid, said = 0, ""
    for kill in range(7):
        with subprocess.Popen(
            [sys.executable, "-c", TAKING, str(db)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        ) as taking:
            assert taking.stdout is not None
            if (
                kill < 6
            ):  # the first at any moment, while it opens the file, too; then in one of the next slices
                for _ in range(draw.randrange(1, 6) if kill else 0):
                    taking.stdout.readline()
                time.sleep(draw.uniform(0.0, 0.02 if kill else 0.6))
                taking.send_signal(signal.SIGKILL)
            said = taking.stdout.read()
        assert query(db, "PRAGMA integrity_check") == [("ok",)]
        there = query(db, "SELECT count(*) FROM failures")[0][0]
        assert isinstance(there, int)
        assert there + left(db) == rows
        amid += 0 < there < rows and left(db) > 0
    assert "done" in said
    assert amid > 0
    check_counts(db, new)
