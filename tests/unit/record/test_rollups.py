from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.failure import Action, Kind, Result, Row
from supervisor.record import files, migrations, queries, rollups
from supervisor.record.rollups import DAY, HOUR, Histogram, class_length, length_class
from supervisor.record.store import Store
from tests.unit.record.conftest import NOW, MakeRow


def query(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(statement).fetchall()


async def write(path: Path, rows: Iterable[Row]) -> None:
    async with Store.open(path) as store:
        for row in rows:
            store.record(row)


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0, 2.5, 35.0, 600.0, 90_000.0])
def test_a_duration_is_kept_within_nine_percent(seconds: float) -> None:
    """Whatever a class is asked for, what was put in was about that long."""
    assert class_length(length_class(seconds)) == pytest.approx(seconds, rel=0.091)


def test_a_duration_of_nothing_and_one_of_years_have_classes() -> None:
    """The first and the last: nothing is left out."""
    assert (length_class(0.0), length_class(1e12)) == (0, 127)


def test_histograms_add_up_however_they_are_merged() -> None:
    """One after the other, packed in between, or all at once: the same."""
    one, other, both = Histogram(), Histogram(), Histogram()
    for histogram in (one, both):
        histogram.add(1.0, 3)
    for histogram in (other, both):
        histogram.add(1.0, 4)
        histogram.add(1e9, 1)
    assert rollups.added(one.packed(), other.packed()) == both.packed()
    assert [count for _, count in Histogram(both.packed())] == [7, 1]
    assert Histogram().packed() == b""
    assert list(Histogram(b"")) == []


async def test_rows_are_counted_by_hour_and_by_account_and_day(db: Path, make_row: MakeRow) -> None:
    """In the transaction that writes them, merged counts and all; how incidents end a second time for all kinds."""
    day = NOW // DAY * DAY
    await write(
        db,
        [
            make_row(at=day + 1),
            make_row(at=day + 2, count=5),
            make_row(at=day + HOUR, account="sales", outcome=Result.RECOVERED, duration=2.0),
            make_row(at=day + HOUR, account=None, outcome=Result.RAISED, action=Action.FAIL),
        ],
    )
    columns = "start, account, kind, action, outcome, count, longest"
    day, hour = int(day), int(day) + HOUR
    assert query(db, f"SELECT {columns} FROM rollups WHERE step = {HOUR} ORDER BY start, outcome") == [
        (day, "*", "connection", "reconnect", "retrying", 6, 0.0),
        (hour, "*", "connection", "fail", "raised", 1, 0.0),
        (hour, "*", "connection", "reconnect", "recovered", 1, 2.0),
    ]
    assert query(db, f"SELECT {columns} FROM rollups WHERE step = {DAY} ORDER BY account, kind") == [
        (day, "", "connection", "fail", "raised", 1, 0.0),
        (day, "sales", "*", "*", "recovered", 1, 2.0),
        (day, "sales", "connection", "reconnect", "recovered", 1, 2.0),
        (day, "support-bot", "connection", "reconnect", "retrying", 6, 0.0),
    ]


async def test_later_batches_add_to_what_is_there(db: Path, make_row: MakeRow) -> None:
    """The counts of two runs are their sum, and the longest is the longer."""
    for duration in (3.0, 1.0):
        await write(db, [make_row(outcome=Result.RECOVERED, duration=duration)])
    ((count, longest, lengths),) = query(
        db, f"SELECT count, longest, lengths FROM rollups WHERE step = {HOUR}"
    )
    assert (count, longest) == (2, 3.0)
    assert isinstance(lengths, bytes)
    assert [many for _, many in Histogram(lengths)] == [1, 1]


async def test_a_row_that_sqlite_refuses_is_not_counted(db: Path, make_row: MakeRow) -> None:
    """The rows and their roll-ups always agree."""
    impossible = replace(make_row(), message="no text")
    object.__setattr__(impossible, "error_code", object())
    await write(db, [make_row(), impossible, make_row()])
    assert query(db, "SELECT sum(count) FROM failures") == [(2,)]
    assert query(db, f"SELECT sum(count) FROM rollups WHERE step = {HOUR}") == [(2,)]


async def test_roll_ups_outlive_their_rows(db: Path, make_row: MakeRow) -> None:
    """Thirty days of rows, a year of roll-ups."""
    ages = (10, 40, 360, 370)
    await write(db, [make_row(at=NOW - age * DAY) for age in ages])
    async with Store.open(db) as store:
        store._trim_at = 0.0
        await store._trim()
    assert query(db, "SELECT count(*) FROM failures") == [(1,)]
    assert query(db, f"SELECT count(*) FROM rollups WHERE step = {HOUR}") == [(3,)]
    assert query(db, f"SELECT count(*) FROM rollups WHERE step = {DAY}") == [(3,)]


async def test_a_file_from_before_roll_ups_is_counted_once(db: Path, make_row: MakeRow) -> None:
    """Its rows get theirs when it is brought up to date, the same as if they had been written then."""
    rows = [
        make_row(count=3),
        make_row(account=None, outcome=Result.RAISED),
        make_row(account="a", kind=Kind.PROXY, outcome=Result.RECOVERED, duration=2.0),
        make_row(account="a", outcome=Result.RECOVERED, duration=5.0),
    ]
    await write(db, rows)
    columns = "SELECT step, start, account, kind, action, outcome, count, longest FROM rollups ORDER BY 1, 2, 3, 4, 5, 6"
    expected = query(db, columns)
    with closing(sqlite3.connect(db, isolation_level=None)) as old:
        old.execute("DROP TABLE rollups")
        old.execute("DROP INDEX failures_ended")
        old.execute("PRAGMA user_version = 1")
    files.prepare(db)
    assert query(db, "PRAGMA user_version") == [(migrations.SCHEMA,)]
    assert query(db, columns) == expected
    with queries.opened(db) as reader:
        assert reader is not None
