"""The API's objects. Called in threads: what a thousand accounts make of it would hold the loop up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from supervisor.dashboard.desk import Desk, Live
from supervisor.ports import AccountSnapshot, IncidentRow, PathSnapshot
from supervisor.record import incidents, series
from supervisor.record.incidents import Lane
from supervisor.record.rows import LogRow, rfc3339, row_json
from supervisor.report.status import path_json, status

SCHEMA = 1


def dumps(value: object) -> str:
    """JSON on one line, as short as it can be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def status_json(desk: Desk, live: Live) -> dict[str, Any]:
    """The object of `status --json`."""
    found = status(
        live.accounts,
        live.paths,
        running=True,
        pid=os.getpid(),
        uptime_s=live.uptime_s,
        row_id=desk.row_id,
    )
    return {**found, "config": dict(live.config)}


def accounts_json(desk: Desk, accounts: Iterable[AccountSnapshot]) -> list[dict[str, Any]]:
    """``accounts`` of `status --json`."""
    found = status(accounts, (), running=True, pid=None, uptime_s=None, row_id=desk.row_id)["accounts"]
    return list(found)


def chosen(
    accounts: Iterable[AccountSnapshot], *, state: str | None, pattern: str | None
) -> list[AccountSnapshot]:
    """Those in a state, and of a name or pattern."""
    return [
        account
        for account in accounts
        if (state is None or account.state.value == state)
        and (pattern is None or fnmatchcase(account.name, pattern))
    ]


def paths_json(
    live: Iterable[PathSnapshot], failures: Iterable[tuple[str, str, int]]
) -> list[dict[str, Any]]:
    """The paths, each with its failures: path, kind, how many."""
    by_path: dict[str, dict[str, int]] = {}
    for path, kind, count in failures:
        by_path.setdefault(path, {})[kind] = count
    return [{**path_json(path), "failures": by_path.get(path.name, {})} for path in live]


def incident_json(found: IncidentRow) -> dict[str, Any]:
    """An incident."""
    took = None if found.closed_at is None else round(max(0.0, found.closed_at - found.opened_at), 3)
    return {
        "id": found.id,
        "account": found.account,
        "path": found.path,
        "scope": found.scope.value,
        "kind": found.kind.value,
        "opened_at": rfc3339(found.opened_at),
        "closed_at": None if found.closed_at is None else rfc3339(found.closed_at),
        "duration_s": took,
        "outcome": None if found.outcome is None else found.outcome.value,
        "last_action": None if found.last_action is None else found.last_action.value,
        "failures": found.failures,
        "attempts": dict(found.attempts),
        "accounts": list(found.accounts),
    }


def log_json(found: LogRow) -> dict[str, Any]:
    """A row of the log, with what only the drill-down shows."""
    shown = row_json(found.row, found.id)
    shown["resolved_at"] = None if found.resolved_at is None else rfc3339(found.resolved_at)
    if found.row.traceback is not None:
        shown["traceback"] = found.row.traceback
    if found.row.context:
        shown["context"] = dict(found.row.context)
    return shown


def drill_down(db: Any, incident_id: str) -> dict[str, Any] | None:
    """An incident with all that happened in it; None where there is none of this name."""
    found = incidents.incident(db, incident_id)
    if found is None:
        return None
    rows = [log_json(row) for row in incidents.rows_of(db, found)]
    return {"schema": SCHEMA, "incident": incident_json(found), "rows": rows}


def failures_json(db: Any, since: float, until: float) -> dict[str, Any]:
    """Failures by kind, and how fast was recovered, over time."""
    found = series.series(db, since, until)
    return {
        "schema": SCHEMA,
        "since": rfc3339(since),
        "until": rfc3339(until),
        "step_s": found.step,
        "by_kind": found.failures,
        "time_to_recover": [
            {"start": one.start, "count": one.count, "p50_s": _short(one.p50), "p99_s": _short(one.p99)}
            for one in found.recovered
        ],
    }


def timeline_json(lanes: Iterable[Lane], since: float, until: float) -> dict[str, Any]:
    """Who was away when."""
    return {
        "schema": SCHEMA,
        "since": rfc3339(since),
        "until": rfc3339(until),
        "accounts": [
            {
                "name": lane.account,
                "down_s": round(lane.down, 3),
                "incidents": lane.count,
                "marks": [
                    {"incident": incident, "kind": kind, "from": round(begun, 3), "until": round(ended, 3)}
                    for incident, kind, begun, ended in lane.marks
                ],
            }
            for lane in lanes
        ],
    }


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
