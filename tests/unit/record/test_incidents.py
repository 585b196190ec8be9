"""Incidents as the dashboard asks for them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisor.core.failure import Action, Kind, Result, Row, Scope
from supervisor.ports import IncidentRow
from supervisor.record import incidents, queries
from supervisor.record.incidents import Before, IncidentFilter
from supervisor.record.series import series
from supervisor.record.store import Store

NOW = 1_700_000_000.0


def one(name: str, opened: float, closed: float | None = None, **other: object) -> IncidentRow:
    values: dict[str, object] = {"account": "a", "path": "p", "scope": Scope.SESSION, "kind": Kind.CONNECTION}
    return IncidentRow(name, opened_at=NOW + opened, closed_at=None if closed is None else NOW + closed,
                       **{**values, **other})  # type: ignore[arg-type]  # fmt: skip


def row(at: float, incident: str | None, account: str | None = "a", **other: object) -> Row:
    values: dict[str, object] = {
        "path": "p", "scope": Scope.SESSION, "kind": Kind.CONNECTION, "action": Action.RECONNECT,
        "outcome": Result.RETRYING, "message": "m", "incident": incident,
    }  # fmt: skip
    return Row(NOW + at, account, **{**values, **other})  # type: ignore[arg-type]


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[sqlite3.Connection]:
    """A log with incidents of two accounts, a call's, and an outage of a path that touched both."""
    path = tmp_path / "recovery.db"
    outage = {"account": None, "scope": Scope.PATH, "kind": Kind.PROXY, "accounts": ("a", "bee")}
    async with Store.open(path, now=lambda: NOW) as store:
        for found in (
            one("over", -100, -90, outcome=Result.RECOVERED), one("before", -500, -400), one("open", -50),
            one("call", -80, -70, scope=Scope.CALL, kind=Kind.FLOOD_WAIT), one("bee", -300, -100, account="bee"),
            one("outage", -60, -20, **outage),
        ):  # fmt: skip
            store.incident(found)
        for number in range(3):
            store.record(row(-100 + number, "over", attempt=number))
            store.record(row(-60 + number, "outage", None, scope=Scope.PATH, kind=Kind.PROXY))
        store.record(row(-90, "over", outcome=Result.RECOVERED, duration=10.0))
        store.record(row(-150, "bee", "bee"))
        store.record(row(-40, None, outcome=Result.RAISED, count=4))
        store.record(row(-600, "open"))  # it was over for a while
    with queries.opened(path) as opened:
        assert opened is not None
        yield opened


def names(db: sqlite3.Connection, limit: int = 10, **wanted: object) -> list[str]:
    found = incidents.incidents(db, IncidentFilter(**wanted), limit)  # type: ignore[arg-type]
    return [incident.id for incident in found]


def test_the_open_come_first_then_the_last_that_ended(db: sqlite3.Connection) -> None:
    """What still goes on comes first; filters and limits hold across both."""
    assert names(db) == ["open", "outage", "call", "over", "bee", "before"]
    assert names(db, 2) == ["open", "outage"]
    assert names(db, is_open=True) == ["open"]
    assert names(db, is_open=False, since=NOW - 95) == ["outage", "call", "over"]
    assert names(db, kind=Kind.FLOOD_WAIT) == ["call"]
    assert names(db, before=Before(False, NOW - 70, "call")) == ["over", "bee", "before"]
    assert names(db, 2, before=Before(True, NOW - 50, "open")) == ["outage", "call"]
    assert names(db, before=Before(True, NOW, "")) == names(db)


def test_an_outage_is_everybodys_whom_it_touched(db: sqlite3.Connection) -> None:
    """A path's incident shows with each account that it touched, by name and by pattern."""
    assert names(db, account="bee") == ["outage", "bee"]
    assert names(db, account="b*") == ["outage", "bee"]
    assert names(db, account="a", kind=Kind.PROXY) == ["outage"]
    assert names(db, account="nobody") == []


@pytest.mark.parametrize(
    ("name", "rows"),
    [("over", [1, 3, 5, 7]), ("outage", [2, 4, 6]), ("bee", [8]), ("open", [10]), ("before", [])],
)
def test_an_incident_has_its_rows(db: sqlite3.Connection, name: str, rows: list[int]) -> None:
    """Each row of an incident is found, an account's by the account and an outage's by the time; no other is."""
    found = incidents.incident(db, name)
    assert found is not None
    assert [each.id for each in incidents.rows_of(db, found)] == rows


def test_there_is_no_other(db: sqlite3.Connection) -> None:
    """What is not there is None."""
    assert incidents.incident(db, "nothing") is None


def test_lanes_are_of_who_was_away_longest(db: sqlite3.Connection) -> None:
    """Calls' incidents are left out, what lies outside the span is cut off, an open one goes on to its end."""
    (bee, a) = incidents.lanes(db, NOW - 200, NOW, most=5)
    assert (bee.account, bee.down, bee.count, list(bee.marks)) == (
        "bee", 100, 1, [("bee", "connection", NOW - 200, NOW - 100)]
    )  # fmt: skip
    assert (a.account, a.down, a.count) == ("a", 60, 2)
    assert [mark[0] for mark in a.marks] == ["open", "over"]
    assert [lane.account for lane in incidents.lanes(db, NOW - 200, NOW, most=1)] == ["bee"]
    assert [lane.account for lane in incidents.lanes(db, NOW - 200, NOW, most=5, accounts=["a"])] == ["a"]
    assert incidents.lanes(db, NOW - 5, NOW, most=5, accounts=["nobody"]) == []


def test_what_is_gained_is_counted(db: sqlite3.Connection) -> None:
    """Rows after a number are counted with all that was merged into them; recoveries tell how long they took."""
    found = incidents.gained(db, 3, queries.newest_id(db))
    assert found.seen == {
        ("connection", "retrying"): 3,
        ("proxy", "retrying"): 2,
        ("connection", "raised"): 4,
    }
    assert found.recovered == [("connection", "reconnect", 10.0, 1)]
    assert incidents.gained(db, found.newest, found.newest).seen == {}
    assert incidents.open_incidents(db) == {"connection": 1}


@pytest.mark.parametrize("length", [700, 86_400])
def test_a_series_has_every_failure_once(db: sqlite3.Connection, length: float) -> None:
    """By the minute and by the hour the same is counted; a recovery's time is known to 9 %."""
    found = series(db, NOW - length, NOW)
    assert {kind: sum(many for _, many in counts) for kind, counts in found.failures.items()} == {
        "connection": 9, "proxy": 3,
    }  # fmt: skip
    (recovered,) = found.recovered
    assert recovered.count == 1
    assert recovered.p50 == pytest.approx(10.0, rel=0.1)
    assert recovered.start % found.step == 0
