"""A row of the recovery log in its three forms: the record in memory, the columns of the table, the JSON of `log`."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Protocol

from supervisor.core.failure import Action, Kind, Result, Row, Scope, State
from supervisor.core.standing import Standing
from supervisor.ports import AccountSnapshot, FloodRow, IncidentRow, Limited, PathSnapshot, SignIn

Columns = tuple[Any, ...]

OUTAGES = frozenset({Scope.PATH, Scope.FLEET})
"""The scopes of trouble that many accounts share: an incident of theirs tells which it touched."""


class Found(Protocol):
    """A row that SQLite found: a sqlite3.Row, or a dict."""

    def __getitem__(self, column: str, /) -> Any: ...

    def keys(self) -> Collection[str]: ...


FAILURE_COLUMNS = (
    "at",
    "last_at",
    "incident",
    "account",
    "path",
    "scope",
    "kind",
    "error_id",
    "error_code",
    "message",
    "method",
    "action",
    "attempt",
    "delay",
    "outcome",
    "duration",
    "cause",
    "traceback",
    "context",
    "count",
    "resolved_at",
)


@dataclass(frozen=True, slots=True)
class LogRow:
    """A row as it stands in the log.

    Args:
        id: its number; later rows have higher ones.
        row: what was recorded.
        last_at: when the last of the failures merged into it happened; else equal to `row.at`. Unix time.
        resolved_at: when it was dealt with, by a recovery or by a person. Unix time.
        accounts: those that an outage has touched by now, where the row tells of one.
    """

    id: int
    row: Row
    last_at: float
    resolved_at: float | None = None
    accounts: tuple[str, ...] = ()

    @property
    def is_outage(self) -> bool:
        """Whether it tells of a path's or the fleet's trouble, and not of one account's."""
        return self.row.account is None and self.row.scope in OUTAGES

    def json(self) -> dict[str, Any]:
        """As `log --json` prints it: `row_json`, and the accounts of an outage."""
        shown = row_json(self.row, self.id)
        return shown | {"accounts": list(self.accounts)} if self.is_outage else shown


def rfc3339(at: float) -> str:
    """A Unix time as RFC 3339, UTC, with milliseconds: ``2026-01-31T14:03:22.125Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def row_json(row: Row, row_id: int | None) -> dict[str, Any]:
    """A row as `log --json` prints it: keys and their order are a contract (PRODUCT.md).

    Args:
        row: what was recorded.
        row_id: its number; None while it waits to be written.
    """
    shown = {
        "id": row_id,
        "incident": row.incident,
        "at": rfc3339(row.at),
        "account": row.account,
        "path": row.path,
        "scope": row.scope.value,
        "kind": row.kind.value,
        "error_id": row.error_id,
        "error_code": row.error_code,
        "message": row.message,
        "method": row.method,
        "action": row.action.value,
        "attempt": row.attempt,
        "delay_s": round(row.delay, 3),
        "outcome": row.outcome.value,
        "duration_s": None if row.duration is None else round(row.duration, 3),
        "cause": list(row.cause),
    }
    if row.count > 1:
        shown["count"] = row.count
    return shown


def failure_columns(row: Row, last_at: float) -> Columns:
    """A row as the values of `FAILURE_COLUMNS`. A recovery needs nobody: it is resolved from the start."""
    return (
        row.at,
        last_at,
        row.incident,
        row.account,
        row.path,
        row.scope.value,
        row.kind.value,
        row.error_id,
        row.error_code,
        _text(row.message),
        row.method,
        row.action.value,
        row.attempt,
        row.delay,
        row.outcome.value,
        row.duration,
        _dump(row.cause) if row.cause else None,
        _text(row.traceback) if row.traceback else None,
        _dump(row.context) if row.context else None,
        row.count,
        row.at if row.outcome is Result.RECOVERED else None,
    )


def failure_row(columns: Found) -> LogRow:
    """The reverse of `failure_columns`, for a row of ``SELECT * FROM failures``."""
    row = Row(
        at=columns["at"],
        account=columns["account"],
        path=columns["path"],
        scope=Scope(columns["scope"]),
        kind=Kind(columns["kind"]),
        action=Action(columns["action"]),
        outcome=Result(columns["outcome"]),
        message=columns["message"],
        incident=columns["incident"],
        error_id=columns["error_id"],
        error_code=columns["error_code"],
        method=columns["method"],
        attempt=columns["attempt"],
        delay=columns["delay"],
        duration=columns["duration"],
        cause=tuple(_load(columns["cause"])),
        traceback=columns["traceback"],
        context=tuple((key, value) for key, value in _load(columns["context"])),
        count=columns["count"],
    )
    return LogRow(columns["id"], row, columns["last_at"], columns["resolved_at"])


def account_columns(snapshot: AccountSnapshot) -> Columns:
    """The columns of `accounts`, in the order of the table."""
    limited, failure = snapshot.limited, snapshot.last_failure
    return (
        snapshot.name,
        snapshot.state.value,
        snapshot.since,
        snapshot.path,
        snapshot.user_id,
        snapshot.is_bot,
        _dump([limited.error_id, limited.frozen, limited.since, limited.seen_at]) if limited else None,
        snapshot.retry_at,
        snapshot.incident,
        _dump(failure_columns(failure, failure.at)) if failure else None,
        _dump(astuple(snapshot.standing)) if snapshot.standing else None,
    )


def account_snapshot(columns: Found) -> AccountSnapshot:
    """The reverse of `account_columns`."""
    limited, failure, is_bot = columns["limited"], columns["last_failure"], columns["is_bot"]
    return AccountSnapshot(
        name=columns["name"],
        state=State(columns["state"]),
        since=columns["since"],
        path=columns["path"],
        user_id=columns["user_id"],
        is_bot=None if is_bot is None else bool(is_bot),
        limited=Limited(*_load(limited)) if limited else None,
        retry_at=columns["retry_at"],
        incident=columns["incident"],
        last_failure=_stored_failure(failure) if failure else None,
        standing=_stored_standing(columns["standing"]) if "standing" in columns.keys() else None,  # noqa: SIM118 - a Row looks at values
    )


def _stored_standing(text: str | None) -> Standing | None:
    if text is None:
        return None
    state, since, told_at, delay, probes, action, losses, configured = _load(text)
    return Standing(State(state), since, told_at, delay, probes, Action(action), tuple(losses), configured)


def _stored_failure(text: str) -> Row:
    values = dict(zip(FAILURE_COLUMNS, _load(text), strict=True))
    return failure_row(values | {"id": 0}).row


def incident_columns(row: IncidentRow) -> Columns:
    """The columns of `incidents`, in the order of the table."""
    return (
        row.id,
        row.account,
        row.path,
        row.scope.value,
        row.kind.value,
        row.opened_at,
        row.closed_at,
        row.outcome.value if row.outcome else None,
        row.last_action.value if row.last_action else None,
        row.failures,
        _dump(dict(row.attempts)),
        _dump(dict(row.backoff)),
        _dump(row.accounts) if row.account is None and row.scope in OUTAGES else None,
    )


def incident_row(columns: Found) -> IncidentRow:
    """The reverse of `incident_columns`."""
    outcome, action = columns["outcome"], columns["last_action"]
    return IncidentRow(
        id=columns["id"],
        account=columns["account"],
        path=columns["path"],
        scope=Scope(columns["scope"]),
        kind=Kind(columns["kind"]),
        opened_at=columns["opened_at"],
        closed_at=columns["closed_at"],
        outcome=Result(outcome) if outcome else None,
        last_action=Action(action) if action else None,
        failures=columns["failures"],
        attempts=json.loads(columns["attempts"]),
        backoff=json.loads(columns["backoff"]),
        accounts=tuple(_load(columns["accounts"])),
    )


def path_columns(snapshot: PathSnapshot) -> Columns:
    """The columns of `paths`, in the order of the table."""
    return astuple(snapshot)


def path_snapshot(columns: Found) -> PathSnapshot:
    """The reverse of `path_columns`."""
    return PathSnapshot(**{field.name: columns[field.name] for field in fields(PathSnapshot)})


def flood_columns(row: FloodRow) -> Columns:
    """The columns of `floods`. No peer is '': SQLite holds two NULLs of a key to be different."""
    return (row.account, row.method, row.peer or "", row.seen_at, row.seconds, row.until)


def flood_row(columns: Found) -> FloodRow:
    """The reverse of `flood_columns`."""
    return FloodRow(
        account=columns["account"],
        method=columns["method"],
        peer=columns["peer"] or None,
        seen_at=columns["seen_at"],
        seconds=columns["seconds"],
    )


def sign_in_columns(row: SignIn) -> Columns:
    """The columns of `sign_ins`, in the order of the table."""
    return (row.account, row.at)


def sign_in_row(columns: Found) -> SignIn:
    """The reverse of `sign_in_columns`."""
    return SignIn(account=columns["account"], at=columns["at"])


def _dump(value: object) -> str:
    return _text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _text(text: str) -> str:
    """Without lone surrogates, as the names of files may have them: SQLite takes none."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _load(text: str | None) -> list[Any]:
    loaded: list[Any] = json.loads(text) if text else []
    return loaded
