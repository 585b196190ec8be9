"""The life of one account as a state table: `step(life, event, moment) -> life, effects`.

    starting ──proved──> online ──failure──> recovering ──proved──> online
        └──failure──> recovering ──cap──> suspended ──half-open probe proved──> online
                          ├──auth, cap──> failed | needs_login      (until a person acts)
    online ──failure, the sixth in ten minutes──> suspended
    any ──pause──> paused ──resume──> starting          any ──stop──> stopped

`account` performs the effects and feeds back what came of them. An event that a state does not know
raises `UnknownTransition`; what a state may ignore is written down as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from supervisor.core import incident as incidents
from supervisor.core.decide import backoff, for_incident, needs_proof
from supervisor.core.events import (
    Attempt,
    AwaitPath,
    CloseLink,
    Delay,
    DelayOver,
    Effect,
    Event,
    Excused,
    Failed,
    GiveUp,
    HoldCalls,
    Log,
    PathBack,
    Pause,
    Proved,
    RefuseCalls,
    ReleaseCalls,
    Retry,
    Rotate,
    Start,
    Stop,
)
from supervisor.core.failure import (
    DEFAULT_POLICIES,
    Action,
    Decision,
    Failure,
    Kind,
    Policy,
    Remedy,
    Result,
    State,
)
from supervisor.core.incident import Incident
from supervisor.core.outage import TOGETHER

# What the record calls an account that is suspended because its link does not last.
FLAPPING = "FLAPPING"
# PRODUCT "Incidents and caps": a half-open probe after 60 s, doubling to 300 s.
HALF_OPEN = Policy(Action.RECONNECT, 0, 60.0, 300.0, 0.25)


class UnknownTransition(Exception):
    """An event came that the state table has no row for: a fault in this program."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a step may know of the world. `jitter` is from 0 to 1; `incident_id` is used if one opens."""

    now: float
    mono: float
    jitter: float
    incident_id: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What does not change during a life."""

    policies: Mapping[Kind, Policy]
    stable_after: float = 60.0
    can_relogin: bool = True  # a bot signs in by its token; a user needs a person
    flap_limit: int = 5  # how many losses of its link in `flap_window` seconds are no reason to damp it
    flap_window: float = 600.0


@dataclass(frozen=True, slots=True)
class Life:
    """The state of one account.

    `retry_at` is when the present delay, of `delay` seconds, is over; `probes` counts the half-open probes that failed
    in a row; `losses` are the monotonic times at which it lost links of late, and `doubtful` says that the last of them
    may turn out to be its path's.
    """

    rules: Rules = Rules(DEFAULT_POLICIES)
    state: State = State.STOPPED
    since: float = 0.0
    path: str = "direct"
    incident: Incident | None = None
    last_failure: Failure | None = None
    next_action: Action = Action.RECONNECT
    verify: bool = False
    retry_at: float | None = None
    delay: float = 0.0
    probes: int = 0
    losses: tuple[float, ...] = ()
    doubtful: bool = False


Step = tuple[Life, tuple[Effect, ...]]

# --- transitions --------------------------------------------------------------------------------------


def _enter(life: Life, state: State, moment: Moment) -> Life:
    return life if life.state is state else replace(life, state=state, since=moment.now)


def _start(life: Life, _event: Event, moment: Moment) -> Step:
    life = replace(_enter(life, State.STARTING, moment), retry_at=None, probes=0)
    return life, (HoldCalls(), Attempt(Action.RECONNECT))


def _go_on(life: Life, _event: Event, _moment: Moment) -> Step:
    """An earlier run left it waiting for a time (`standing`): before that nothing is tried."""
    door = HoldCalls() if life.state is State.RECOVERING else RefuseCalls()
    then = Attempt(life.next_action) if life.retry_at is None else Delay(life.delay)
    return life, (door, then)


def _stay(life: Life, _event: Event, _moment: Moment) -> Step:
    """An earlier run left it so, and only a person changes that."""
    return life, (RefuseCalls(),)


def _proved(life: Life, event: Event, moment: Moment) -> Step:
    assert isinstance(event, Proved)
    effects: list[Effect] = []
    current = life.incident
    if current is not None and current.is_open:
        action = event.by or current.last_action or Action.RECONNECT
        duration = max(0.0, moment.mono - current.began)
        current = current.closed(Result.RECOVERED, moment.now, moment.mono)
        effects.append(Log(current, Result.RECOVERED, action, duration=duration))
    life = _enter(life, State.ONLINE, moment)
    life = replace(life, path=event.path, incident=current, retry_at=None, probes=0, verify=False)
    return replace(life, doubtful=False), (*effects, ReleaseCalls())


def _current_incident(life: Life, failure: Failure, moment: Moment) -> Incident:
    last = life.incident
    if last is None or last.outcome is Result.FAILED or _is_past(last, life, moment):
        return incidents.opened(moment.incident_id, failure, life.path, moment.now, moment.mono)
    return last if last.is_open else last.reopened(moment.now, moment.mono)


def _is_past(incident: Incident, life: Life, moment: Moment) -> bool:
    return incident.ended is not None and moment.mono - incident.ended > life.rules.stable_after


def _lost(life: Life, event: Event, moment: Moment) -> Step:
    """A failure while online: the link was lost, or a call met a failure wider than itself."""
    assert isinstance(event, Failed)
    incident = _current_incident(life, event.failure, moment).seen()
    life = replace(life, incident=incident)
    if not event.path_broken and not needs_proof(event.failure):  # a link that may still be good is not lost
        recent = [at for at in life.losses if moment.mono - at < life.rules.flap_window]
        life = replace(life, losses=(*recent, moment.mono), doubtful=True)
        if len(life.losses) > life.rules.flap_limit:
            return _flaps(life, event, moment)
    return _act(life, event, moment)


def _attempt_failed(life: Life, event: Event, moment: Moment) -> Step:
    assert isinstance(event, Failed)
    incident = _current_incident(life, event.failure, moment).seen()
    if not event.path_broken and incident.spent(event.failure.kind):
        incident = incident.delayed(event.failure.kind)
    return _act(replace(life, incident=incident), event, moment)


def _flaps(life: Life, event: Failed, moment: Moment) -> Step:
    """It comes and goes: what would be tried anew at once is suspended instead, longer with each loss too many."""
    acted, effects = _act(life, event, moment)
    if acted.state is not State.RECOVERING:  # worse has come of it
        return acted, effects
    rules, failure, n = life.rules, event.failure, len(life.losses)
    said = f"flapping: {n} losses in {_span(rules.flap_window)}, pauses left out: {failure.evidence.message}"
    failure = replace(
        failure, error_id=FLAPPING, evidence=replace(failure.evidence, message=said, error_id=None)
    )
    excess = n - rules.flap_limit - 1
    delay = max(acted.delay, backoff(HALF_OPEN, excess, moment.jitter))
    decision = Decision(Remedy.FAIL, delay, 0, 0, Result.SUSPENDED)
    life = replace(life, last_failure=failure, probes=excess)
    return _suspend(life, replace(event, failure=failure), decision, moment)


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds > 60 and seconds % 60 == 0 else f"{seconds:g} s"


def _act(life: Life, event: Failed, moment: Moment) -> Step:
    """Decide about a failure of the open incident, and order what is decided."""
    failure, incident = event.failure, life.incident
    assert incident is not None
    # A flood wait that names no seconds is a rate limit: nobody knows how long, and at once makes it worse.
    unnamed = failure.kind is Kind.FLOOD_WAIT and failure.wait is None
    kind = Kind.RATE_LIMIT if unnamed else failure.kind
    policy = life.rules.policies.get(kind, life.rules.policies[Kind.UNKNOWN])
    verify = life.state is State.ONLINE and needs_proof(failure)  # an attempt's own failure is proof enough
    life = replace(life, last_failure=failure)
    if failure.remedy is Remedy.RELOGIN and not life.rules.can_relogin and not verify:
        return _end(life, event, Result.NEEDS_LOGIN, moment)
    decision = for_incident(
        failure, incident, policy, moment.jitter, path_broken=event.path_broken, verify=verify
    )
    if decision.result is Result.SUSPENDED:
        return _suspend(life, event, decision, moment)
    if decision.result is not Result.RETRYING:
        return _end(life, event, decision.result, moment)
    return _carry_on(life, event, decision, moment)


def _carry_on(life: Life, event: Failed, decision: Decision, moment: Moment) -> Step:
    failure, incident = event.failure, life.incident
    assert incident is not None
    action = decision.remedy.action
    moving = event.path_broken and event.elsewhere
    if moving:
        action = Action.ROTATE_PROXY
    if event.path_broken:
        incident = replace(incident, attempts={})  # what was tried on a broken path is not held against it
        if life.doubtful:  # nor is it that the path broke
            life = replace(life, losses=life.losses[:-1], doubtful=False)
    incident = incident.acted(failure.kind, action, counted=not event.path_broken)
    waiting = event.path_broken and not moving
    delay = event.retry_in if waiting else decision.delay
    life = replace(
        _enter(life, State.RECOVERING, moment),
        incident=incident,
        next_action=action,
        verify=decision.verify,
        retry_at=moment.now + delay if delay else None,
        delay=decision.delay,
    )
    log = Log(incident, Result.RETRYING, action, failure, decision.attempt, delay, of=decision.of)
    then: Effect
    if waiting:
        then = AwaitPath()
    elif delay:
        then = Delay(delay)
    else:
        then = Attempt(action, decision.verify)
    close = () if decision.verify else (CloseLink(),)
    return life, (HoldCalls(), log, *close, then)


def _suspend(life: Life, event: Failed, decision: Decision, moment: Moment) -> Step:
    incident = life.incident
    assert incident is not None
    due = backoff(HALF_OPEN, life.probes, moment.jitter)
    delay = decision.delay or max(event.failure.wait or 0.0, due)  # a demanded wait is honoured in full
    life = replace(
        _enter(life, State.SUSPENDED, moment),
        retry_at=moment.now + delay,
        delay=delay,
        losses=tuple(at + delay for at in life.losses),  # a pause is no time in which it has lasted
        probes=life.probes + 1,
        next_action=event.failure.action if event.failure.action is not Action.FAIL else Action.RECONNECT,
        verify=False,
    )
    action = incident.last_action or Action.FAIL
    log = Log(incident, Result.SUSPENDED, action, event.failure, decision.attempt, delay, of=decision.of)
    return life, (log, CloseLink(), RefuseCalls(), Delay(delay))


def _probe_failed(life: Life, event: Event, moment: Moment) -> Step:
    """The half-open probe of a suspended account failed: only what ends it for good is judged anew."""
    assert isinstance(event, Failed)
    incident = _current_incident(life, event.failure, moment).seen()
    life = replace(life, incident=incident, last_failure=event.failure)
    if event.failure.remedy is Remedy.FAIL:
        return _end(life, event, Result.FAILED, moment)
    if event.failure.remedy is Remedy.RELOGIN and not life.rules.can_relogin:
        return _end(life, event, Result.NEEDS_LOGIN, moment)
    decision = Decision(Remedy.FAIL, 0.0, life.probes, 0, Result.SUSPENDED)
    return _suspend(life, event, decision, moment)


def _end(life: Life, event: Failed, result: Result, moment: Moment) -> Step:
    incident = life.incident
    assert incident is not None
    attempt = incident.spent(event.failure.kind)
    incident = incident.closed(result, moment.now, moment.mono) if result is Result.FAILED else incident
    state = State.NEEDS_LOGIN if result is Result.NEEDS_LOGIN else State.FAILED
    life = replace(_enter(life, state, moment), incident=incident, retry_at=None)
    return life, (Log(incident, result, Action.FAIL, event.failure, attempt), CloseLink(), RefuseCalls())


def _next_attempt(life: Life, _event: Event, _moment: Moment) -> Step:
    return replace(life, retry_at=None), (Attempt(life.next_action, life.verify),)


def _path_back(life: Life, event: Event, _moment: Moment) -> Step:
    assert isinstance(event, PathBack)
    action = Action.ROTATE_PROXY if event.elsewhere else Action.RECONNECT
    return replace(life, retry_at=None), (Attempt(action),)


def _pause(life: Life, _event: Event, moment: Moment) -> Step:
    """A person's word ends the incident: how long they leave it paused is no time to recover."""
    effects: list[Effect] = [CloseLink(), RefuseCalls()]
    if life.incident is not None and life.incident.is_open:
        effects.append(GiveUp(life.incident.closed(None, moment.now, moment.mono)))
    return replace(_enter(life, State.PAUSED, moment), incident=None, retry_at=None), tuple(effects)


def _retry(life: Life, _event: Event, moment: Moment) -> Step:
    incident = life.incident
    if incident is not None and incident.is_open:
        incident = replace(incident, attempts={})
    return _start(replace(life, incident=incident, losses=()), _event, moment)


def _rotate(life: Life, event: Event, moment: Moment) -> Step:
    """It connects anew, there. Nothing has failed, so no incident opens; one that is open has this for its action."""
    assert isinstance(event, Rotate)
    incident = life.incident
    if incident is not None and incident.is_open:
        incident = replace(incident, last_action=Action.ROTATE_PROXY)
    life, (hold, attempt) = _retry(replace(life, path=event.path, incident=incident), event, moment)
    return life, (hold, CloseLink(), attempt)


def _moved(life: Life, event: Event, _moment: Moment) -> Step:
    """It is off, and stays so; whoever brings it back finds it there."""
    assert isinstance(event, Rotate)
    return replace(life, path=event.path), ()


def _excused(life: Life, _event: Event, moment: Moment) -> Step:
    incident, failure = life.incident, life.last_failure
    fresh = incident is not None and moment.mono - incident.began <= TOGETHER
    if life.state is State.SUSPENDED and fresh and failure is not None and failure.error_id == FLAPPING:
        # It was damped for this very loss: it goes on as if that were the first.
        losses = tuple(at - life.delay for at in life.losses[:-1])
        life = replace(_enter(life, State.RECOVERING, moment), losses=losses, retry_at=None, probes=0)
        return replace(life, doubtful=False), (HoldCalls(), Attempt(life.next_action))
    if fresh and incident is not None and life.losses[-1:] == (incident.began,):
        life = replace(life, losses=life.losses[:-1], doubtful=False)
    return life, ()


def _stop(life: Life, _event: Event, moment: Moment) -> Step:
    # What a person has paused is so still when the daemon starts again.
    state = State.PAUSED if life.state is State.PAUSED else State.STOPPED
    return replace(_enter(life, state, moment), retry_at=None), (CloseLink(), RefuseCalls())


def _ignore(life: Life, _event: Event, _moment: Moment) -> Step:
    return life, ()


Transition = Callable[[Life, Event, Moment], Step]

_LIVE = (State.STARTING, State.ONLINE, State.RECOVERING, State.SUSPENDED)
_OFF = (State.STOPPED, State.PAUSED, State.FAILED, State.NEEDS_LOGIN)

TABLE: dict[tuple[State, type], Transition] = {
    # a person, or the daemon
    **{(state, Stop): _stop for state in State},
    (State.STOPPED, Stop): _ignore,
    **{(state, Pause): _pause for state in State if state is not State.STOPPED},
    (State.PAUSED, Pause): _ignore,
    **{(state, Retry): _retry for state in (*_OFF, State.SUSPENDED, State.RECOVERING)},
    (State.STARTING, Retry): _ignore,
    (State.ONLINE, Retry): _ignore,
    **{(state, Rotate): _rotate for state in _LIVE},
    **{(state, Rotate): _moved for state in _OFF},
    **{(state, Excused): _excused for state in _LIVE},
    (State.STOPPED, Start): _start,
    # what an earlier run has left
    **{(state, Start): _go_on for state in (State.RECOVERING, State.SUSPENDED)},
    **{(state, Start): _stay for state in (State.PAUSED, State.FAILED, State.NEEDS_LOGIN)},
    # the network
    **{(state, Proved): _proved for state in _LIVE},
    (State.STARTING, Failed): _attempt_failed,
    (State.ONLINE, Failed): _lost,
    (State.RECOVERING, Failed): _attempt_failed,
    (State.SUSPENDED, Failed): _probe_failed,
    **{(state, DelayOver): _next_attempt for state in (State.RECOVERING, State.SUSPENDED)},
    (State.RECOVERING, PathBack): _path_back,
    (State.SUSPENDED, PathBack): _path_back,
    # news that comes too late to matter: the work it tells of was called off
    **{(state, event): _ignore for state in _OFF for event in (Proved, Failed, DelayOver, PathBack, Excused)},
    **{
        (state, event): _ignore for state in (State.STARTING, State.ONLINE) for event in (DelayOver, PathBack)
    },
}


def step(life: Life, event: Event, moment: Moment) -> Step:
    """Advance a life by one event.

    Raises:
        UnknownTransition: the table has no row for this event in this state.
    """
    transition = TABLE.get((life.state, type(event)))
    if transition is None:
        raise UnknownTransition(f"{type(event).__name__} while {life.state.value}")
    return transition(life, event, moment)
