"""What of an account's life outlives its process: where it stands, for what it waits, how often it was lost of late.

Only the wall clock goes on between two processes. So a wait is kept with its length: of one that seems to begin in
the future, because that clock was set back, all is left, and never more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from supervisor.core.failure import Action, State
from supervisor.core.ledger import left
from supervisor.core.lifecycle import Life


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a life stood. Times are Unix times, in seconds.

    Args:
        state: the state.
        since: since when.
        told_at: when its delay began; None: it waits for no time.
        delay: how long that is.
        probes: how many half-open probes had failed in a row.
        next_action: what comes after the delay.
        losses: when it lost links of late.
        configured: what was configured then, as `marks` tells it.
    """

    state: State
    since: float
    told_at: float | None = None
    delay: float = 0.0
    probes: int = 0
    next_action: Action = Action.RECONNECT
    losses: tuple[float, ...] = ()
    configured: str | None = None


# What goes on in the next process; whatever else there is begins with a start.
_GOES_ON = (State.PAUSED, State.FAILED, State.NEEDS_LOGIN, State.SUSPENDED)


def standing(life: Life, now: float, mono: float, configured: str | None = None) -> Standing:
    """Where a life stands, to be saved."""
    return Standing(
        state=life.state,
        since=life.since,
        told_at=None if life.retry_at is None else life.retry_at - life.delay,
        delay=life.delay,
        probes=life.probes,
        next_action=life.next_action,
        losses=tuple(now + (at - mono) for at in life.losses),
        configured=configured,
    )


def taken_up(life: Life, was: Standing, configured: str | None, now: float, mono: float) -> Life:
    """A life that goes on where another stood; `Start` is what comes next.

    What a changed configuration may have mended is tried anew; what a person has paused stays so.

    Args:
        life: the new one, stopped.
        was: where the one before stood.
        configured: what is configured now.
        now: Unix time.
        mono: monotonic time.
    """
    if was.configured != configured and was.state is not State.PAUSED:
        return life
    wait = 0.0 if was.told_at is None else left(was.told_at, was.delay, now)
    life = replace(life, losses=tuple(mono + min(at - now, wait) for at in was.losses))
    if wait > 0:
        life = replace(life, retry_at=now + wait, delay=wait)
    if was.state in _GOES_ON:
        return replace(life, state=was.state, since=was.since, probes=was.probes, next_action=was.next_action)
    if wait > 0:
        return replace(life, state=State.RECOVERING, since=was.since, next_action=was.next_action)
    return life
