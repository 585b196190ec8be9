"""What an account goes on from after a restart, what the log says of it then, and what it leaves to the next run."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from supervisor.core.failure import Evidence, Failure, Remedy, Row, Source, State
from supervisor.core.incident import Incident
from supervisor.core.lifecycle import Life, Rules
from supervisor.core.standing import Standing, taken_up
from supervisor.ports import AccountSnapshot, Clock

# States that outlive the daemon.
_AWAITED = frozenset({State.SUSPENDED, State.PAUSED, State.FAILED, State.NEEDS_LOGIN})
_WAY_ON = {
    State.FAILED: "`tg-supervisor retry {0}` tries it again",
    State.NEEDS_LOGIN: "`tg-supervisor login {0}` signs it in",
    State.PAUSED: "`tg-supervisor resume {0}` brings it back",
}


def life_after(
    before: AccountSnapshot | None,
    incident: Incident | None,
    *,
    rules: Rules,
    path: str,
    configured: str | None,
    clock: Clock,
) -> Life:
    """The life of an account that an earlier run knew, or of a new one; `Start` is what comes next.

    Args:
        before: how the earlier run left it.
        incident: the one that it left open.
        rules: those of now.
        path: the path of now.
        configured: what is configured now, as `marks` tells it.
        clock: both clocks.
    """
    life = Life(rules=rules, path=path, incident=incident)
    if before is None:
        return life
    was = before.standing
    if was is None:
        was = Standing(before.state if before.state is State.PAUSED else State.STOPPED, before.since)
    life = taken_up(life, was, configured, clock.now(), clock.monotonic())
    if life.state is State.STOPPED or before.last_failure is None:
        return life
    return replace(life, last_failure=remembered(incident, before.last_failure))


def remembered(incident: Incident | None, row: Row | None) -> Failure:
    """The failure that an earlier run has seen last, as far as it is known; kind and scope are the open incident's."""
    message = row.message if row is not None else "before the restart"
    error_id, code = (row.error_id, row.error_code) if row is not None else (None, None)
    about = incident or row
    assert about is not None, "there is nothing to remember"
    evidence = Evidence(Source.CODE, message, error_id, code, path=about.path)
    return Failure(about.kind, about.scope, Remedy.RETRY, evidence, error_id)


def as_left(before: AccountSnapshot, stopped: AccountSnapshot) -> AccountSnapshot:
    """What awaits a person, or a time, still does when the daemon has stopped: `status` and the next run say so."""
    stopped = replace(stopped, standing=before.standing)
    if before.state not in _AWAITED:
        return stopped
    return replace(stopped, state=before.state, since=before.since, retry_at=before.retry_at)


def told(found: AccountSnapshot) -> str | None:
    """What the log says of an account that a start does not bring online; None where it does."""
    if found.state not in _AWAITED:
        return None
    if found.state is State.SUSPENDED:
        way_on = (
            f"it is tried again at {_time(found.retry_at)}" if found.retry_at else "it is tried again now"
        )
    else:
        way_on = _WAY_ON[found.state].format(found.name)
    failure = found.last_failure if found.state is not State.PAUSED else None
    cause = f": {failure.kind.value}: {failure.message}" if failure is not None else ""
    return f"{found.name} is {found.state.value} since {_time(found.since)}{cause}; {way_on}"


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
