"""Incidents as they stand in the log: the newest, one with all that happened in it, and who was away when.

Plain sqlite3, read-only: the connection is one of `queries.opened`.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from supervisor.core.failure import Kind, Result
from supervisor.ports import IncidentRow
from supervisor.record import rows
from supervisor.record.queries import account_condition

_ROWS = 1_000  # of one incident that are shown, the newest
_SLACK = 1.0  # s; an incident ends a little before its recovery is written
_BEFORE = 86_400.0  # s; one that came back within `stable_after` opened anew, and has rows from before


@dataclass(frozen=True, slots=True)
class Before:
    """An incident's place among the others: whether it is open, when it opened or else ended (Unix time), its id."""

    is_open: bool
    at: float
    id: str

    @classmethod
    def of(cls, found: IncidentRow) -> Before:
        """The place of an incident."""
        if found.closed_at is None:
            return cls(True, found.opened_at, found.id)
        return cls(False, found.closed_at, found.id)


@dataclass(frozen=True, slots=True)
class IncidentFilter:
    """Which incidents are asked for; what is None does not matter.

    Args:
        account: a name or a pattern, as ``support-*``; an outage that touched the account counts.
        kind: of the first failure.
        is_open: whether nothing has ended them yet.
        since: Unix time; those that were over by then are left out.
        before: the last of the page before this one.
    """

    account: str | None = None
    kind: Kind | None = None
    is_open: bool | None = None
    since: float | None = None
    before: Before | None = None


def incidents(db: sqlite3.Connection, wanted: IncidentFilter, limit: int) -> list[IncidentRow]:
    """The open ones, the latest first, then those that ended, the last that did first; at most so many in all."""
    before = wanted.before
    found: list[IncidentRow] = []
    if wanted.is_open is not False and (before is None or before.is_open):
        found += _page(db, wanted, "closed_at IS NULL", order="opened_at", before=before, limit=limit)
        before = None
    if wanted.is_open is not True and len(found) < limit:
        over = "closed_at IS NOT NULL" if wanted.since is None else "closed_at >= :since"
        found += _page(db, wanted, over, order="closed_at", before=before, limit=limit - len(found))
    return found


def _page(
    db: sqlite3.Connection,
    wanted: IncidentFilter,
    which: str,
    *,
    order: str,
    before: Before | None,
    limit: int,
) -> list[IncidentRow]:
    conditions, values = _conditions(wanted)
    if before is not None:
        conditions += f" AND ({order}, id) < (:at, :id)"
        values |= {"at": before.at, "id": before.id}
    statement = (
        f"SELECT * FROM incidents WHERE {which}{conditions} ORDER BY {order} DESC, id DESC LIMIT :limit"
    )
    return list(
        map(rows.incident_row, db.execute(statement, {"since": wanted.since, "limit": limit, **values}))
    )


def incident(db: sqlite3.Connection, incident_id: str) -> IncidentRow | None:
    """One incident; None where the log has none of this name (any more)."""
    found = db.execute("SELECT * FROM incidents WHERE id = ?", (incident_id,)).fetchone()
    return None if found is None else rows.incident_row(found)


def rows_of(db: sqlite3.Connection, found: IncidentRow) -> list[rows.LogRow]:
    """What happened in an incident, oldest first: its failures, and the recovery that ended it."""
    # By the times of its account (or, for an outage, of all): no index leads from an incident to its rows once it is over.
    whose, values = ("account = ? AND ", [found.account]) if found.account is not None else ("", [])
    until = "" if found.closed_at is None else " AND at <= ?"
    times = [found.opened_at - _BEFORE, *([] if found.closed_at is None else [found.closed_at + _SLACK])]
    statement = f"SELECT * FROM failures WHERE {whose}at >= ?{until} AND incident = ? ORDER BY at DESC, id DESC LIMIT ?"
    shown = db.execute(statement, (*values, *times, found.id, _ROWS))
    return sorted(map(rows.failure_row, shown), key=lambda row: row.id)


Mark = tuple[str, str, float, float]
"""Id and kind of an incident, its begin and its end as far as they lie in the span that was asked for (Unix times)."""


@dataclass(frozen=True, slots=True)
class Lane:
    """An account's incidents in a span of time, those of single calls left out.

    Args:
        account: whose.
        down: how many seconds they took in all.
        count: how many they were.
        marks: the longest of them.
    """

    account: str
    down: float
    count: int
    marks: Sequence[Mark]


_MARKS = 200  # of one lane
_SPANNED = (
    "FROM incidents WHERE account IS NOT NULL AND scope <> 'call' AND opened_at < :until "
    "AND (closed_at IS NULL OR closed_at > :since)"
)
_SECONDS = "min(coalesce(closed_at, :until), :until) - max(opened_at, :since)"


def lanes(
    db: sqlite3.Connection, since: float, until: float, *, most: int, accounts: Iterable[str] = ()
) -> list[Lane]:
    """Who was away when.

    Args:
        db: recovery.db.
        since: Unix time.
        until: Unix time.
        most: how many accounts, those with the longest incidents first.
        accounts: only these, if any are named.
    """
    names = list(accounts)
    asked: dict[str, object] = {"since": since, "until": until, "most": most}
    asked |= {f"n{number}": name for number, name in enumerate(names)}
    chosen = f" AND account IN ({', '.join(f':n{number}' for number in range(len(names)))})" if names else ""
    worst = db.execute(
        f"SELECT account, sum({_SECONDS}) AS down, count(*) {_SPANNED}{chosen} "
        "GROUP BY account ORDER BY down DESC, account LIMIT :most",
        asked,
    ).fetchall()
    chosen = ", ".join(f":w{number}" for number in range(len(worst)))
    asked |= {f"w{number}": row[0] for number, row in enumerate(worst)}
    marks: dict[str, list[Mark]] = {row[0]: [] for row in worst}
    for account, *mark in db.execute(
        "SELECT account, id, kind, max(opened_at, :since), min(coalesce(closed_at, :until), :until) "
        f"{_SPANNED} AND account IN ({chosen})",
        asked,
    ):
        marks[account].append(tuple(mark))
    return [
        Lane(account, down, count, heapq.nlargest(_MARKS, marks[account], key=lambda mark: mark[3] - mark[2]))
        for account, down, count in worst
    ]


def open_incidents(db: sqlite3.Connection) -> dict[str, int]:
    """How many incidents nothing has ended yet, by kind."""
    found = db.execute("SELECT kind, count(*) FROM incidents WHERE closed_at IS NULL GROUP BY kind")
    return dict(map(tuple, found))


@dataclass(slots=True)
class Since:
    """What the log has gained after a row.

    Args:
        newest: the number of its newest row now.
        seen: failures by kind and outcome, recoveries left out.
        recovered: recoveries: kind, action, how long it took in seconds (None: not known), how many.
    """

    newest: int
    seen: dict[tuple[str, str], int]
    recovered: list[tuple[str, str, float | None, int]]


def gained(db: sqlite3.Connection, after: int, newest: int) -> Since:
    """Count the rows from one number (exclusive) to another."""
    span = (after, newest)
    seen = db.execute(
        "SELECT kind, outcome, sum(count) FROM failures WHERE id > ? AND id <= ? AND outcome <> 'recovered' GROUP BY 1, 2",
        span,
    )
    recovered = db.execute(
        "SELECT kind, action, duration, count FROM failures WHERE id > ? AND id <= ? AND outcome = ?",
        (*span, Result.RECOVERED.value),
    )
    return Since(
        newest, {(kind, outcome): count for kind, outcome, count in seen}, list(map(tuple, recovered))
    )


def _conditions(wanted: IncidentFilter) -> tuple[str, dict[str, object]]:
    text, values = "", dict[str, object]()
    if wanted.account is not None:
        condition = account_condition(wanted.account).replace("?", ":account")
        touched = condition.replace("account ", "value ", 1)
        text = (
            f" AND ({condition} OR accounts IS NOT NULL"
            f" AND EXISTS (SELECT 1 FROM json_each(incidents.accounts) WHERE {touched}))"
        )
        values["account"] = wanted.account
    if wanted.kind is not None:
        text, values = f"{text} AND kind = :kind", {**values, "kind": wanted.kind.value}
    return text, values
