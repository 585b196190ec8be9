"""A row of the recovery log as the line that an operator reads."""

from __future__ import annotations

from datetime import datetime

from supervisor.core.codes import CODES
from supervisor.core.failure import Action, Kind, Result, Row, Scope

_DOES = {
    Action.WAIT: "next",
    Action.RECONNECT: "connects again",
    Action.ROTATE_PROXY: "changes its proxy",
    Action.RELOGIN: "signs in again",
    Action.RETRY: "tries again",
    Action.FAIL: "gives up",
}
_CALLER = "its caller got the error"


def sentence(row: Row) -> str:
    """What happened, and what is done about it: ``flood wait 35 s on messages.SendMessage, attempt 1 of 5, next 14:03:22``.

    Args:
        row: the row. Its times are said in this machine's own time zone.
    """
    seen = _seen(row)
    if row.outcome is Result.RECOVERED:
        return f"recovered after {row.duration or 0.0:.1f} s from {seen}"
    if row.outcome is Result.RETRYING:
        return f"{seen}{_attempt(row)}, {_then(row)}"
    if row.outcome is Result.SUSPENDED:
        return f"{seen}; suspended, {_then(row)}"
    if row.outcome is Result.RAISED and row.traceback is not None:
        return f"{seen}{_times(row)}; tg-supervisor log --json has its traceback"
    return f"{seen}{_times(row)}; {_end(row)}"


def _seen(row: Row) -> str:
    """The failure, without what the rest of the line says."""
    on = f" on {row.method}" if row.method else ""
    if row.kind is Kind.FLOOD_WAIT and row.outcome is Result.RETRYING and row.delay:
        return f"flood wait {int(row.delay)} s{on}"  # what is added so that nothing leaves early is no news
    kind = row.kind.value.replace("_", " ")
    return f"{kind}: {row.message}{on if row.method and row.method not in row.message else ''}"


def _attempt(row: Row) -> str:
    if not row.attempt:
        return ""
    return f", attempt {row.attempt} of {row.of}" if row.of else f", attempt {row.attempt}"


def _then(row: Row) -> str:
    if row.outcome is Result.SUSPENDED:
        return f"next {_clock(row.at + row.delay)}"
    does = _DOES[row.action]
    if row.delay:
        at = _clock(row.at + row.delay)
        return f"next {at}" if row.action is Action.WAIT else f"{does} {at}"
    return f"{does} now"


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%H:%M:%S}"


def _times(row: Row) -> str:
    return f" ({row.count} times)" if row.count > 1 else ""


def _end(row: Row) -> str:
    """What has become of it, and what a person can do."""
    if row.outcome is Result.RAISED or row.scope is Scope.CALL:
        return _CALLER
    code = CODES.get(row.code)
    end = "it needs a login" if row.outcome is Result.NEEDS_LOGIN else "it has failed"
    return f"{end}: {code.advice.replace('NAME', row.account)}" if code and row.account else end
