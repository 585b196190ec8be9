from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.failure import Action, Result, Row
from supervisor.record import rollups
from supervisor.record.rollups import (
    DAY,
    HOUR,
    PART,
    SPAN,
    STEPS,
    UNTIMED,
    Histogram,
    class_length,
    length_class,
    unpacked,
)
from supervisor.record.store import Store
from tests.unit.record.conftest import NOW, MakeRow

ENDED = {"recovered", "failed"}


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


def totals(path: Path, step: int) -> dict[tuple[int, str], dict[tuple[str, str, int], int]]:
    """Start and account -> kind, outcome and length class -> how many."""
    lanes = query(path, "SELECT kind, outcome, length FROM lanes ORDER BY number")
    found = {}
    for start, account, ended, counts in query(
        path, f"SELECT start, account, ended, counts FROM totals WHERE step = {step}"
    ):
        assert isinstance(ended, bytes)
        assert isinstance(counts, bytes)
        many = unpacked(int.from_bytes(counts, "little"))
        found[start, account] = {lane: n for lane, n in zip(lanes, many, strict=False) if n}
        incidents = sum(n for (_, outcome, _), n in found[start, account].items() if outcome in ENDED)
        assert sum(unpacked(int.from_bytes(ended, "little"))) == incidents
    return found  # type: ignore[return-value]


async def test_rows_are_counted_by_hour_and_by_account(db: Path, make_row: MakeRow) -> None:
    """In the transaction that writes them, merged counts and all; each account's for four lengths of time."""
    day = int(NOW // DAY * DAY)
    await write(
        db,
        [
            make_row(at=day + 1),
            make_row(at=day + 2, count=5),
            make_row(at=day + HOUR, account="sales", outcome=Result.RECOVERED, duration=2.0),
            make_row(at=day + PART, account="sales", outcome=Result.FAILED),
            make_row(at=day + HOUR, account=None, outcome=Result.RAISED, action=Action.FAIL),
        ],
    )
    columns = "start, account, kind, action, outcome, count, longest"
    assert query(db, f"SELECT {columns} FROM rollups WHERE step = {DAY} ORDER BY outcome") == [
        (day, "*", "connection", "reconnect", "failed", 1, 0.0),
        (day, "*", "connection", "fail", "raised", 1, 0.0),
        (day, "*", "connection", "reconnect", "recovered", 1, 2.0),
        (day, "*", "connection", "reconnect", "retrying", 6, 0.0),
    ]
    assert query(db, f"SELECT {columns} FROM rollups WHERE step = {HOUR} ORDER BY start, outcome") == [
        (day, "*", "connection", "reconnect", "retrying", 6, 0.0),
        (day + HOUR, "*", "connection", "fail", "raised", 1, 0.0),
        (day + HOUR, "*", "connection", "reconnect", "recovered", 1, 2.0),
        (day + PART, "*", "connection", "reconnect", "failed", 1, 0.0),
    ]
    retrying = {("connection", "retrying", UNTIMED): 6}
    recovered = {("connection", "recovered", length_class(2.0)): 1}
    raised, failed = {("connection", "raised", UNTIMED): 1}, {("connection", "failed", UNTIMED): 1}
    assert totals(db, HOUR) == {
        (day, "support-bot"): retrying,
        (day + HOUR, "sales"): recovered,
        (day + HOUR, ""): raised,
        (day + PART, "sales"): failed,
    }
    assert totals(db, PART) == {
        (day, "support-bot"): retrying,
        (day, "sales"): recovered,
        (day, ""): raised,
        (day + PART, "sales"): failed,
    }
    for step in (DAY, SPAN):
        start = day // step * step
        assert totals(db, step) == {
            (start, "support-bot"): retrying,
            (start, "sales"): recovered | failed,
            (start, ""): raised,
        }


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
    ages = (10, 40, 360, 390)
    await write(db, [make_row(at=NOW - age * DAY) for age in ages])
    async with Store.open(db) as store:
        store._trim_at = 0.0
        await store._trim()
    assert query(db, "SELECT count(*) FROM failures") == [(1,)]
    assert query(db, f"SELECT count(*) FROM rollups WHERE step = {HOUR}") == [(3,)]
    assert {step: len(totals(db, step)) for step in STEPS} == {HOUR: 0, PART: 0, DAY: 2, SPAN: 3}
