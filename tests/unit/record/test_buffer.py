from __future__ import annotations

import pytest

from supervisor.core.failure import Kind, Result, Scope
from supervisor.ports import FloodRow, IncidentRow
from supervisor.record.buffer import Buffer
from tests.unit.record.conftest import MakeRow


def incident(name: str, *, closed: float | None = None) -> IncidentRow:
    return IncidentRow(name, "a", "direct", Scope.CALL, Kind.TEMPORARY, 1.0, closed)


def test_rows_are_kept_one_by_one_up_to_the_bound(make_row: MakeRow) -> None:
    """Below the bound nothing is merged, equal rows included."""
    buffer = Buffer(10)
    for _ in range(10):
        buffer.add(make_row())
    assert [entry.row.count for entry in buffer.take().entries()] == [1] * 10


def test_counts_stay_exact_however_many_rows_come(make_row: MakeRow) -> None:
    """A hundred thousand rows past both bounds take the room of a few, and their counts add up."""
    buffer = Buffer(10)
    for number in range(100_000):
        buffer.add(make_row(account=f"bot{number % 50}", count=2))
    assert buffer.rows <= 10 + 10 + 1
    assert sum(entry.row.count for entry in buffer.take().entries()) == 200_000


def test_merged_rows_differ_in_nothing_that_is_counted(make_row: MakeRow) -> None:
    """Past the bound, rows of other accounts, kinds, errors or outcomes stay apart."""
    buffer = Buffer(1)
    different = [
        make_row(),
        make_row(account="b"),
        make_row(kind=Kind.PROXY),
        make_row(error_id="X"),
        make_row(outcome=Result.FAILED),
    ]
    buffer = Buffer(len(different))
    for row in different * 3:
        buffer.add(row)
    assert sorted(entry.row.count for entry in buffer.take().entries()) == [1] * 5 + [2] * 5


def test_a_merged_row_tells_from_when_to_when(make_row: MakeRow) -> None:
    """A merged row begins with its first failure, ends with its last, and names an incident only if it is one."""
    buffer = Buffer(1)
    for row in (
        make_row(),
        make_row(at=5.0, incident="i-1"),
        make_row(at=9.0, incident="i-1"),
        make_row(at=5.0, account="b", incident="i-2"),
        make_row(at=6.0, account="b", incident="i-3"),
    ):
        buffer.add(row)
    _, *merged = buffer.take().entries()
    assert [(entry.row.at, entry.last_at, entry.row.incident) for entry in merged[:1]] == [(5.0, 9.0, "i-1")]
    assert merged[1].row.account is None or merged[1].row.incident is None


def test_durations_are_merged_with_their_like(make_row: MakeRow) -> None:
    """Short and long recoveries never share a row, and a row's duration is their mean."""
    buffer = Buffer(2)
    for duration in (1.0, 1.0, 1.0, 1.1, 60.0, 62.0):
        buffer.add(make_row(outcome=Result.RECOVERED, duration=duration))
    _, _, short, long = buffer.take().entries()
    assert (short.row.count, long.row.count) == (2, 2)
    assert [short.row.duration, long.row.duration] == pytest.approx([1.05, 61.0])


def test_an_open_incident_is_never_left_out() -> None:
    """Past the bound, open incidents are kept, and so is the closing of one that is on disk."""
    buffer = Buffer(2)
    buffer.hold_open(["on-disk"])
    for name in ("a", "b", "c", "d"):
        buffer.add_incident(incident(name))
    buffer.add_incident(incident("on-disk", closed=2.0))
    assert set(buffer.take().incidents) == {"a", "b", "c", "d", "on-disk"}
    buffer.add_incident(incident("a", closed=2.0))
    assert buffer.take().incidents["a"].closed_at == 2.0


def test_incidents_that_opened_and_closed_unwritten_are_bounded() -> None:
    """A storm of calls that each recover at once does not fill the memory."""
    buffer = Buffer(5)
    for number in range(1000):
        buffer.add_incident(incident(str(number)))
        buffer.add_incident(incident(str(number), closed=2.0))
    assert len(buffer.take().incidents) <= 5


def test_waits_that_have_ended_make_room() -> None:
    """Past the bound, ended waits go first, then the one that ends soonest; the longest stay."""
    buffer = Buffer(2)
    for number, seconds in enumerate((1.0, 500.0, 600.0, 700.0)):
        buffer.add_flood(FloodRow("a", str(number), None, 0.0, seconds), now=100.0)
    assert {flood.seconds for flood in buffer.take().floods.values()} == {600.0, 700.0}
