"""The life of an account as scripts: events in, effects out. Seconds; jitter is 0 unless told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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
    Evidence,
    Failure,
    Kind,
    Remedy,
    Result,
    Scope,
    Source,
    State,
)
from supervisor.core.lifecycle import TABLE, Life, Moment, Rules, UnknownTransition, step

NOW = 1_700_000_000.0  # the wall clock at monotonic 0
USER = Rules(DEFAULT_POLICIES, can_relogin=False)
OFF = (State.STOPPED, State.PAUSED, State.FAILED, State.NEEDS_LOGIN)


def failure(
    kind: Kind = Kind.CONNECTION,
    remedy: Remedy = Remedy.RECONNECT,
    *,
    wait: float | None = None,
    method: str | None = None,
) -> Failure:
    evidence = Evidence(Source.SOCKET, f"{kind.value} failed", method=method)
    return Failure(kind, Scope.SESSION, remedy, evidence, wait=wait)


LOST = failure()
DEAD_PROXY = failure(Kind.PROXY, Remedy.ROTATE_PROXY)
REVOKED = failure(Kind.AUTH, Remedy.RELOGIN, method="updates.GetState")
REVOKED_SAYS_A_CALL = failure(Kind.AUTH, Remedy.RELOGIN, method="upload.GetFile")
BANNED = failure(Kind.AUTH, Remedy.FAIL)
BUDGET_SPENT = failure(Kind.AUTH, Remedy.WAIT, wait=900.0)
SERVER_DOWN = failure(Kind.TEMPORARY, Remedy.RETRY)


class Script:
    """One life, told event after event; it remembers every effect."""

    def __init__(self, rules: Rules = Rules(DEFAULT_POLICIES), *, jitter: float = 0.0) -> None:  # noqa: B008 - frozen
        self.life = Life(rules=rules)
        self.mono = 0.0
        self.jitter = jitter
        self.opened = 0

    def __call__(self, event: Event, after: float = 0.0) -> tuple[Effect, ...]:
        self.mono += after
        self.opened += 1
        moment = Moment(NOW + self.mono, self.mono, self.jitter, f"i{self.opened}")
        self.life, effects = step(self.life, event, moment)
        return effects

    def do(self, *events: Event) -> Script:
        for event in events:
            self(event)
        return self

    @property
    def state(self) -> State:
        return self.life.state


def online(rules: Rules = Rules(DEFAULT_POLICIES)) -> Script:  # noqa: B008 - frozen
    return Script(rules).do(Start(), Proved("direct"))


def suspended() -> Script:
    """The link is lost, and four attempts fail."""
    return online().do(Failed(LOST), Failed(LOST), Failed(LOST), Failed(LOST))


def shape(effects: tuple[Effect, ...]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def logged(effects: tuple[Effect, ...]) -> Log:
    (found,) = (effect for effect in effects if isinstance(effect, Log))
    return found


# --- The table ------------------------------------------------------------------------------------------

# What each state makes of each event: "acts", "-" where it may ignore it, "!" where it cannot happen.
WALK = """
               Start Proved Failed DelayOver PathBack Pause Retry Stop Rotate Excused
    starting   !     acts   acts   -         -        acts  -     acts    acts    -
    online     !     acts   acts   -         -        acts  -     acts    acts    -
    recovering acts  acts   acts   acts      acts     acts  acts  acts    acts    -
    suspended  acts  acts   acts   acts      acts     acts  acts  acts    acts    -
    needs_login acts -      -      -         -        acts  acts  acts    acts    -
    failed     acts  -      -      -         -        acts  acts  acts    acts    -
    paused     acts  -      -      -         -        -     acts  acts    acts    -
    stopped    acts  -      -      -         -        !     acts  -       acts    -
"""
EVENTS: dict[str, Event] = {
    "Start": Start(),
    "Proved": Proved("de1"),
    "Failed": Failed(LOST),
    "DelayOver": DelayOver(),
    "PathBack": PathBack(),
    "Pause": Pause(),
    "Retry": Retry(),
    "Rotate": Rotate("de2"),
    "Stop": Stop(),
    "Excused": Excused(),
}


def walk() -> list[tuple[State, str, str]]:
    header, *lines = (line.split() for line in WALK.strip().splitlines())
    return [
        (State(state), event, word)
        for state, *words in lines
        for event, word in zip(header, words, strict=True)
    ]


def lives_in(state: State) -> Life:
    ready = {
        State.STARTING: Script().do(Start()),
        State.ONLINE: online(),
        State.RECOVERING: online().do(Failed(LOST)),
        State.SUSPENDED: suspended(),
        State.NEEDS_LOGIN: online(USER).do(Failed(REVOKED)),
        State.FAILED: online().do(Failed(BANNED)),
        State.PAUSED: online().do(Pause()),
        State.STOPPED: Script(),
    }
    assert ready[state].state is state
    return ready[state].life


def test_every_state_and_every_event_is_walked() -> None:
    """The table above is complete, and the program's has no row besides."""
    walked = {(state, type(EVENTS[event])) for state, event, _ in walk()}
    assert len(walked) == len(State) * len(EVENTS)
    assert {pair for pair in walked if pair in TABLE} == set(TABLE)


@pytest.mark.parametrize(("state", "event", "word"), walk(), ids=str)
def test_the_table(state: State, event: str, word: str) -> None:
    """Each pair acts, is ignored without a trace, or raises and says so."""
    life, moment = lives_in(state), Moment(NOW + 9.0, 9.0, 0.0, "new")
    if word == "!":
        with pytest.raises(UnknownTransition, match=f"{event} while {state.value}"):
            step(life, EVENTS[event], moment)
        return
    after, effects = step(life, EVENTS[event], moment)
    if word == "-":
        assert (after, effects) == (life, ())
    else:
        assert (after, effects) != (life, ())


# --- Coming online --------------------------------------------------------------------------------------


def test_a_start_is_an_attempt_and_calls_wait_for_it() -> None:
    """Nothing is said to be online before an RPC was answered."""
    script = Script()
    assert script(Start()) == (HoldCalls(), Attempt(Action.RECONNECT))
    assert script.state is State.STARTING
    assert script(Proved("de1"), after=2.0) == (ReleaseCalls(),)
    assert (script.state, script.life.path, script.life.since) == (State.ONLINE, "de1", NOW + 2.0)
    assert script.life.incident is None


def test_a_proof_while_online_changes_nothing_but_the_path() -> None:
    """Since when it is online stays."""
    script = online()
    before = script.life
    assert script(Proved("de2"), after=5.0) == (ReleaseCalls(),)
    assert script.life == replace(before, path="de2")


# --- An incident ----------------------------------------------------------------------------------------


def test_a_lost_link_is_tried_anew_at_once_and_then_after_growing_delays() -> None:
    """0, 1 and 2 s; each failure is a row."""
    script = online()
    effects = script(Failed(LOST), after=10.0)
    assert shape(effects) == ["HoldCalls", "Log", "CloseLink", "Attempt"]
    first = logged(effects)
    assert (first.result, first.action, first.failure) == (Result.RETRYING, Action.RECONNECT, LOST)
    assert (first.attempt, first.delay, first.incident.failures) == (1, 0.0, 1)
    assert (script.state, script.life.retry_at) == (State.RECOVERING, None)
    for attempt, delay in ((2, 1.0), (3, 2.0)):
        effects = script(Failed(LOST))
        assert effects[-1] == Delay(delay)
        assert (logged(effects).attempt, logged(effects).delay) == (attempt, delay)
        assert script.life.retry_at == NOW + script.mono + delay
        assert script(DelayOver(), after=delay) == (Attempt(Action.RECONNECT),)
        assert script.life.retry_at is None


def test_an_answered_rpc_closes_it_as_recovered() -> None:
    """Its duration runs from the first failure; the action that helped is named; calls go out."""
    script = online()
    script(Failed(LOST), after=10.0)
    script(Failed(LOST), after=1.0)
    script(DelayOver(), after=1.0)
    closing, release = script(Proved("direct"), after=0.5)
    assert release == ReleaseCalls()
    assert isinstance(closing, Log)
    assert (closing.result, closing.action, closing.failure) == (Result.RECOVERED, Action.RECONNECT, None)
    assert closing.duration == 2.5
    assert (closing.incident.outcome, closing.incident.failures) == (Result.RECOVERED, 2)
    assert script.state is State.ONLINE


def test_an_incident_of_an_earlier_run_is_closed_by_the_first_proof() -> None:
    """No action of this run is known yet: the start itself was one."""
    left = online().do(Failed(LOST)).life.incident
    assert left is not None
    script = Script()
    script.life = replace(script.life, incident=replace(left, last_action=None))
    script(Start())
    assert logged(script(Proved("direct"))).action is Action.RECONNECT


def test_an_incident_of_an_earlier_run_goes_on_counting() -> None:
    """A restart forgets neither caps nor delays."""
    left = online().do(Failed(LOST), Failed(LOST)).life.incident
    script = Script()
    script.life = replace(script.life, incident=left)
    effects = script.do(Start())(Failed(LOST))
    assert (logged(effects).attempt, effects[-1]) == (3, Delay(2.0))


def test_a_failure_soon_after_reopens_it() -> None:
    """Within `stable_after`: the same incident, caps anew; the delays after the first grow from where they were."""
    script = online().do(Failed(LOST), Failed(LOST), Proved("direct"))
    effects = script(Failed(LOST), after=60.0)
    again = logged(effects)
    assert (again.incident.id, again.attempt, again.incident.failures) == ("i3", 1, 3)
    assert effects[-1] == Attempt(Action.RECONNECT)
    assert script(Failed(LOST))[-1] == Delay(2.0)


def test_a_failure_later_is_another_incident() -> None:
    """After `stable_after` everything begins anew."""
    script = online().do(Failed(LOST), Failed(LOST), Proved("direct"))
    effects = script(Failed(LOST), after=60.1)
    assert (logged(effects).incident.id, logged(effects).incident.failures) == ("i6", 1)
    assert effects[-1] == Attempt(Action.RECONNECT)


def test_each_kind_has_its_own_cap_and_delays() -> None:
    """The first relogin of an incident starts at once, whatever was tried before it."""
    script = online().do(Failed(LOST), Failed(LOST))
    effects = script(Failed(REVOKED))
    assert effects[-1] == Attempt(Action.RELOGIN)
    assert logged(effects).attempt == 1


def test_a_first_failure_while_starting_opens_an_incident() -> None:
    """The start was no recovery: the first reconnect is free of delay."""
    effects = Script().do(Start())(Failed(LOST))
    assert (effects[-1], logged(effects).attempt) == (Attempt(Action.RECONNECT), 1)


# --- Caps -----------------------------------------------------------------------------------------------


def test_at_the_cap_the_account_is_suspended() -> None:
    """Three reconnects, no more: calls fail fast, the incident stays open, a probe comes after 60 s."""
    script = online().do(Failed(LOST), Failed(LOST), Failed(LOST))
    effects = script(Failed(LOST))
    assert shape(effects) == ["Log", "CloseLink", "RefuseCalls", "Delay"]
    assert effects[-1] == Delay(60.0)
    row = logged(effects)
    assert (row.result, row.action, row.attempt, row.delay) == (Result.SUSPENDED, Action.RECONNECT, 3, 60.0)
    assert row.incident.is_open
    assert (script.state, script.life.retry_at) == (State.SUSPENDED, NOW + 60.0)


def test_half_open_probes_come_after_60_seconds_doubling_to_300() -> None:
    """Each is one attempt; its failure is a row and lengthens the pause."""
    script, pauses = suspended(), []
    for _ in range(4):
        assert script(DelayOver()) == (Attempt(Action.RECONNECT),)
        effects = script(Failed(LOST))
        assert shape(effects) == ["Log", "CloseLink", "RefuseCalls", "Delay"]
        pauses.append(logged(effects).delay)
    assert pauses == [120.0, 240.0, 300.0, 300.0]


def test_a_probe_that_works_brings_it_back() -> None:
    """By itself; the incident ends as recovered, and the next suspension begins at 60 s."""
    script = suspended().do(DelayOver())
    effects = script(Proved("direct"), after=60.0)
    assert (shape(effects), logged(effects).result) == (["Log", "ReleaseCalls"], Result.RECOVERED)
    assert (script.state, script.life.probes, script.life.retry_at) == (State.ONLINE, 0, None)


def test_a_probe_does_what_the_failure_asks_for() -> None:
    """A dead proxy is probed by moving to another."""
    script = online().do(*[Failed(DEAD_PROXY)] * 4)
    assert script(DelayOver()) == (Attempt(Action.ROTATE_PROXY),)


def test_a_probe_waits_as_long_as_telegram_says() -> None:
    """A flood wait met by the probe is its next pause."""
    script = suspended().do(DelayOver())
    assert script(Failed(failure(Kind.FLOOD_WAIT, Remedy.WAIT, wait=1800.0)))[-1] == Delay(1800.0)
    assert script(DelayOver()) == (Attempt(Action.WAIT),)


def test_a_probe_can_find_the_end() -> None:
    """A ban, or a session that needs a person, met by the probe is final."""
    script = suspended().do(DelayOver(), Failed(BANNED))
    assert script.state is State.FAILED
    user = online(USER).do(*[Failed(LOST)] * 4, DelayOver(), Failed(REVOKED))
    assert user.state is State.NEEDS_LOGIN


def test_auth_at_the_cap_fails() -> None:
    """Two relogins, no more; a person must act."""
    script = online().do(Failed(REVOKED), Failed(REVOKED))
    effects = script(Failed(REVOKED))
    assert shape(effects) == ["Log", "CloseLink", "RefuseCalls"]
    assert (logged(effects).result, logged(effects).attempt) == (Result.FAILED, 2)
    assert (script.state, script.life.retry_at) == (State.FAILED, None)
    assert script.life.incident is not None
    assert script.life.incident.outcome is Result.FAILED


def test_a_ban_is_final_at_once() -> None:
    """Nothing is tried."""
    script = online()
    effects = script(Failed(BANNED))
    assert shape(effects) == ["Log", "CloseLink", "RefuseCalls"]
    assert (logged(effects).action, logged(effects).attempt) == (Action.FAIL, 0)
    assert script.state is State.FAILED


def test_a_spent_sign_in_budget_suspends_until_it_allows_again() -> None:
    """`retry_at` is when; the attempt after it is an ordinary one."""
    script = online().do(Failed(REVOKED))
    assert script(Failed(BUDGET_SPENT))[-1] == Delay(900.0)
    assert (script.state, script.life.retry_at) == (State.SUSPENDED, NOW + 900.0)
    assert script(DelayOver()) == (Attempt(Action.WAIT),)


def test_what_is_suspended_without_an_action_says_so() -> None:
    """A cap of nothing: the row names no recovery, the probe is a reconnect."""
    policies = DEFAULT_POLICIES | {Kind.UNKNOWN: replace(DEFAULT_POLICIES[Kind.UNKNOWN], max_retries=0)}
    script = online(Rules(policies))
    effects = script(Failed(failure(Kind.UNKNOWN, Remedy.RAISE)))
    assert (logged(effects).result, logged(effects).action) == (Result.SUSPENDED, Action.FAIL)
    assert script(DelayOver()) == (Attempt(Action.RECONNECT),)


def test_a_kind_without_a_policy_is_treated_as_unknown() -> None:
    """USER_MIGRATE_X on an attempt: the account does not end by it."""
    script = online()
    effects = script(Failed(failure(Kind.MIGRATE, Remedy.NONE)))
    assert (script.state, effects[-1]) == (State.RECOVERING, Delay(1.0))


# --- Auth -----------------------------------------------------------------------------------------------


def test_a_calls_401_is_verified_before_the_session_is_given_up() -> None:
    """The link stays open for updates.getState; only calls are held."""
    script = online()
    effects = script(Failed(REVOKED_SAYS_A_CALL))
    assert shape(effects) == ["HoldCalls", "Log", "Attempt"]
    assert effects[-1] == Attempt(Action.RELOGIN, verify=True)
    assert shape(script(Proved("direct"))) == ["Log", "ReleaseCalls"]
    assert not script.life.verify


def test_a_users_session_is_verified_too() -> None:
    """A call's word does not make it need a login; updates.getState's does."""
    script = online(USER)
    assert script(Failed(REVOKED_SAYS_A_CALL))[-1] == Attempt(Action.RELOGIN, verify=True)
    effects = script(Failed(failure(Kind.AUTH, Remedy.RELOGIN, method="updates.GetState")))
    assert shape(effects) == ["Log", "CloseLink", "RefuseCalls"]
    assert (script.state, logged(effects).result) == (State.NEEDS_LOGIN, Result.NEEDS_LOGIN)
    assert logged(effects).incident.is_open


def test_an_attempts_own_401_needs_no_second_proof() -> None:
    """The link that could be asked is the one that was just refused."""
    script = online().do(Failed(LOST))
    refused = failure(Kind.AUTH, Remedy.RELOGIN, method="InitConnection")
    effects = script(Failed(refused))
    assert (effects[-2], effects[-1]) == (CloseLink(), Attempt(Action.RELOGIN))
    user = online(USER).do(Failed(LOST), Failed(refused))
    assert user.state is State.NEEDS_LOGIN


# --- Paths ----------------------------------------------------------------------------------------------


def test_on_a_broken_path_the_account_waits_and_spends_nothing() -> None:
    """However often: it stays recovering, at its path, with its caps whole."""
    script = online()
    for _ in range(10):
        effects = script(Failed(LOST, path_broken=True))
        assert effects[-1] == AwaitPath()
        assert (script.state, script.life.retry_at) == (State.RECOVERING, None)
        assert script.life.incident is not None
        assert script.life.incident.attempts == {}
        assert script(PathBack()) == (Attempt(Action.RECONNECT),)
    assert logged(script(Proved("direct"))).action is Action.RECONNECT


def test_what_was_tried_before_the_path_was_found_broken_is_given_back() -> None:
    """Two attempts of three, then the path is asked: afterwards there are three again."""
    script = online().do(Failed(LOST), Failed(LOST), Failed(LOST, path_broken=True), PathBack())
    for _ in range(3):
        assert isinstance(script(Failed(LOST))[-1], Attempt | Delay)
    script(Failed(LOST))
    assert script.state is State.SUSPENDED


def test_with_another_path_it_moves_there_at_once() -> None:
    """No waiting, and no cap."""
    script = online()
    effects = script(Failed(DEAD_PROXY, path_broken=True, elsewhere=True))
    assert effects[-1] == Attempt(Action.ROTATE_PROXY)
    assert logged(effects).action is Action.ROTATE_PROXY
    assert script.life.incident is not None
    assert script.life.incident.spent(Kind.PROXY) == 0


def test_a_suspended_account_whose_path_breaks_stays_suspended() -> None:
    """Its probes go on at their own pace."""
    script = suspended().do(DelayOver())
    assert script(Failed(LOST, path_broken=True))[-1] == Delay(120.0)
    assert script.state is State.SUSPENDED


# --- Flapping -------------------------------------------------------------------------------------------


LOSS = Failed(LOST)


def flap(script: Script, times: int, event: Event = LOSS, *, apart: float = 1.0) -> tuple[Effect, ...]:
    """Lose the link and get it back, so often; what the last loss brought."""
    effects: tuple[Effect, ...] = ()
    for _ in range(times):
        if script.state is not State.ONLINE:
            script(Proved("direct"))
        effects = script(event, after=apart)
    return effects


def test_a_link_that_is_lost_for_the_sixth_time_in_ten_minutes_is_damped() -> None:
    """Five times it is reconnected at once; then calls fail fast, and a probe comes after a minute. The record says why."""
    script = online()
    assert flap(script, 5)[-1] == Attempt(Action.RECONNECT)
    effects = flap(script, 1)
    assert shape(effects) == ["Log", "CloseLink", "RefuseCalls", "Delay"]
    row = logged(effects)
    assert (row.result, row.delay, effects[-1]) == (Result.SUSPENDED, 60.0, Delay(60.0))
    assert row.failure is not None
    assert row.failure.evidence.message == (
        "flapping: 6 losses in 10 minutes, pauses left out: connection failed"
    )
    assert str(script.life.last_failure) == f"connection: {row.failure.evidence.message}"
    assert (script.state, script.life.retry_at) == (State.SUSPENDED, NOW + script.mono + 60.0)
    assert script(DelayOver(), after=60.0) == (Attempt(Action.RECONNECT),)
    assert logged(script(Proved("direct"))).result is Result.RECOVERED


def test_who_goes_on_flapping_waits_longer_each_time() -> None:
    """A pause is no time in which the link has lasted, so it heals nothing."""
    script, pauses = online(), []
    flap(script, 5)
    for _ in range(5):
        (*_, delay) = flap(script, 1)
        assert isinstance(delay, Delay)
        pauses.append(delay.seconds)
        script(DelayOver(), after=delay.seconds)
    assert pauses == [60.0, 120.0, 240.0, 300.0, 300.0]


def test_ten_minutes_online_heal_it() -> None:
    """Whoever is lost every two minutes and a bit has never flapped; after a damped time it counts from the beginning."""
    script = online()
    assert flap(script, 50, apart=121.0)[-1] == Attempt(Action.RECONNECT)
    script = online()
    flap(script, 6)
    script(DelayOver(), after=60.0)
    script(Proved("direct"))
    assert flap(script, 1, apart=600.0)[-1] == Attempt(Action.RECONNECT)
    assert len(script.life.losses) == 1


def test_a_probe_of_a_flapping_account_that_fails_doubles_its_pause() -> None:
    """As of any that is suspended."""
    script = online()
    flap(script, 6)
    script(DelayOver(), after=60.0)
    assert script(Failed(LOST))[-1] == Delay(120.0)


def test_losses_that_are_the_paths_make_nobody_flap() -> None:
    """Told so at once, or found out by the first attempt: neither counts, however often it happens."""
    script = online()
    assert flap(script, 20, Failed(LOST, path_broken=True))[-1] == AwaitPath()
    assert script.life.losses == ()
    for _ in range(20):
        script(Proved("direct"))
        script(Failed(LOST), after=1.0)
        assert script(Failed(LOST, path_broken=True))[-1] == AwaitPath()
        assert script.life.losses == ()


def test_a_link_that_turns_out_to_be_good_was_not_lost() -> None:
    """A bot that asks a foreign datacenter for what it may not have goes on; updates.getState answers each time."""
    script = online()
    assert flap(script, 20, Failed(REVOKED_SAYS_A_CALL))[-1] == Attempt(Action.RELOGIN, verify=True)


def test_losses_that_many_shared_make_nobody_flap() -> None:
    """Whoever is excused within seconds has not lost that link; what was lost before counts on."""
    script = online()
    flap(script, 4, apart=30.0)
    for _ in range(8):
        assert flap(script, 1, apart=30.0)[-1] == Attempt(Action.RECONNECT)
        script.do(Excused())
    flap(script, 1, apart=30.0)
    assert flap(script, 1, apart=1.0)[-1] != Attempt(Action.RECONNECT)


def test_whoever_was_damped_for_a_loss_that_is_excused_goes_on_at_once() -> None:
    """As if it had not been lost; a probe's failure long after has nothing to do with it."""
    script = online()
    flap(script, 5, apart=30.0)
    before = script.life.losses
    flap(script, 1, apart=30.0)
    assert script.state is State.SUSPENDED
    assert script(Excused(), after=1.0) == (HoldCalls(), Attempt(Action.RECONNECT))
    assert (script.state, script.life.retry_at, script.life.losses) == (State.RECOVERING, None, before)
    assert logged(script(Proved("direct"))).result is Result.RECOVERED
    flap(script, 1, apart=30.0)
    script(DelayOver(), after=60.0)
    damped = script.life
    assert script(Excused()) == ()
    assert script.life == damped


def test_a_flapping_account_waits_as_long_as_telegram_says() -> None:
    """A pause is no shorter than what was demanded."""
    script = online()
    flap(script, 5)
    flooded = failure(Kind.RATE_LIMIT, Remedy.WAIT, wait=500.0)
    assert flap(script, 1, Failed(flooded))[-1] == Delay(500.0)


@pytest.mark.parametrize(
    ("event", "state"), [(Failed(BANNED), State.FAILED), (Failed(BUDGET_SPENT), State.SUSPENDED)]
)
def test_what_is_worse_than_flapping_comes_first(event: Failed, state: State) -> None:
    """A ban is one, whenever it is told; what suspends by itself does so under its own name."""
    script = online()
    flap(script, 5)
    effects = flap(script, 1, event)
    assert (script.state, logged(effects).failure) == (state, event.failure)


def test_a_persons_retry_forgets_that_it_flapped() -> None:
    """Whoever has mended something gets the five again."""
    script = online()
    flap(script, 6)
    script(Retry())
    script(Proved("direct"))
    assert flap(script, 5)[-1] == Attempt(Action.RECONNECT)


def test_how_much_flapping_is_too_much_can_be_configured() -> None:
    """Two losses in 90 s, say."""
    script = online(Rules(DEFAULT_POLICIES, flap_limit=1, flap_window=90.0))
    flap(script, 1)
    row = logged(flap(script, 1))
    assert row.failure is not None
    assert row.failure.evidence.message.startswith("flapping: 2 losses in 90 s, ")


# --- A person -------------------------------------------------------------------------------------------


def test_a_paused_account_leaves_the_network_until_it_is_resumed() -> None:
    """Late news is ignored; resuming is a start."""
    script = online()
    assert script(Pause()) == (CloseLink(), RefuseCalls())
    assert (script.state, script.life.retry_at) == (State.PAUSED, None)
    for late in (Proved("direct"), Failed(LOST), DelayOver(), PathBack()):
        assert script(late) == ()
    assert script(Retry()) == (HoldCalls(), Attempt(Action.RECONNECT))
    assert script.state is State.STARTING


def test_a_pause_closes_the_incident_that_is_open() -> None:
    """By a person's word: it counts as neither recovered nor failed, and what comes after it is another."""
    script = online().do(Failed(LOST), Failed(LOST), Failed(LOST))
    before = script.life.incident
    *_, given_up = script(Pause(), after=5.0)
    assert isinstance(given_up, GiveUp)
    assert before is not None
    assert given_up.incident.id == before.id
    assert (given_up.incident.outcome, given_up.incident.is_open) == (None, False)
    assert given_up.incident.closed_at is not None
    assert script(Retry(), after=3600.0) == (HoldCalls(), Attempt(Action.RECONNECT))
    assert script(Proved("direct")) == (ReleaseCalls(),)
    log = logged(script(Failed(LOST)))
    assert (log.attempt, log.incident.failures, log.incident.backoff) == (1, 1, {})
    assert log.incident.id != before.id


@pytest.mark.parametrize("state", [State.FAILED, State.NEEDS_LOGIN, State.SUSPENDED, State.RECOVERING])
def test_a_persons_retry_starts_it_at_once(state: State) -> None:
    """Whatever ended it, and without waiting out a pause."""
    life, effects = step(lives_in(state), Retry(), Moment(NOW, 1.0, 0.0, "new"))
    assert effects == (HoldCalls(), Attempt(Action.RECONNECT))
    assert (life.state, life.retry_at, life.probes) == (State.STARTING, None, 0)


@pytest.mark.parametrize("state", [State.STARTING, State.ONLINE, State.RECOVERING, State.SUSPENDED])
def test_whoever_is_put_on_another_path_connects_there_at_once(state: State) -> None:
    """Its calls are held meanwhile; where nothing had failed no incident opens."""
    before = lives_in(state)
    life, effects = step(before, Rotate("de2"), Moment(NOW, 1.0, 0.0, "new"))
    assert effects == (HoldCalls(), CloseLink(), Attempt(Action.RECONNECT))
    assert (life.state, life.path, life.retry_at) == (State.STARTING, "de2", None)
    assert (life.incident is None) == (before.incident is None)


def test_an_incident_that_another_path_ends_was_recovered_by_it() -> None:
    """What was tried on the path of before is not held against the new one."""
    script = online().do(Failed(DEAD_PROXY), Failed(DEAD_PROXY), Rotate("de2"))
    assert script.life.incident is not None
    assert script.life.incident.attempts == {}
    assert logged(script(Proved("de2"))).action is Action.ROTATE_PROXY
    assert script.life.path == "de2"


@pytest.mark.parametrize("state", OFF)
def test_whoever_is_off_stays_so_on_the_other_path(state: State) -> None:
    """Only the path has changed when it comes back."""
    before = lives_in(state)
    after = step(before, Rotate("de2"), Moment(NOW, 1.0, 0.0, "new"))
    assert after == (replace(before, path="de2"), ())


def test_a_login_by_a_person_closes_the_incident() -> None:
    """`needs_login` leaves it open until then."""
    script = online(USER).do(Failed(REVOKED), Retry())
    assert logged(script(Proved("direct"), after=3600.0)).duration == 3600.0


@pytest.mark.parametrize("state", [state for state in State if state is not State.STOPPED])
def test_a_stop_ends_every_state(state: State) -> None:
    """Nothing stays on the network; an open incident is left to the next run."""
    before = lives_in(state)
    life, effects = step(before, Stop(), Moment(NOW + 5.0, 5.0, 0.0, "new"))
    assert effects == (CloseLink(), RefuseCalls())
    paused = state is State.PAUSED  # as a person wanted it: also when the daemon starts again
    expected = (State.PAUSED, before.since) if paused else (State.STOPPED, NOW + 5.0)
    assert (life.state, life.since, life.incident) == (*expected, before.incident)


# --- Whatever happens -----------------------------------------------------------------------------------

FAILURES = [
    LOST,
    DEAD_PROXY,
    REVOKED,
    REVOKED_SAYS_A_CALL,
    BANNED,
    BUDGET_SPENT,
    SERVER_DOWN,
    failure(Kind.FLOOD_WAIT, Remedy.WAIT, wait=35.0),
    failure(Kind.RATE_LIMIT, Remedy.WAIT),
    failure(Kind.UNKNOWN, Remedy.RETRY),
    failure(Kind.PERMANENT, Remedy.FAIL),
    failure(Kind.MIGRATE, Remedy.NONE),
]
DOORS = {
    State.STARTING: HoldCalls,
    State.RECOVERING: HoldCalls,
    State.ONLINE: ReleaseCalls,
    State.SUSPENDED: RefuseCalls,
    **dict.fromkeys(OFF, RefuseCalls),
}
WORK = (Attempt, Delay, AwaitPath)


class Lives(RuleBasedStateMachine):
    """Any order of events, late and early ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.script = Script()
        self.work: Effect | None = None
        self.door: type[Effect] = RefuseCalls

    def happens(self, event: Event, after: float = 0.0, jitter: float = 0.0) -> tuple[Effect, ...]:
        self.script.jitter = jitter
        effects = self.script(event, after)
        begun = [effect for effect in effects if isinstance(effect, WORK)]
        assert len(begun) <= 1
        assert not begun or effects[-1] is begun[0]
        for effect in effects:
            if isinstance(effect, (CloseLink, *WORK)):
                self.work = effect if isinstance(effect, WORK) else None
            if isinstance(effect, HoldCalls | ReleaseCalls | RefuseCalls):
                self.door = type(effect)
        if self.script.state in OFF:
            assert not begun
        return effects

    @precondition(lambda self: self.script.state is State.STOPPED)
    @rule(can_relogin=st.booleans())
    def starts(self, can_relogin: bool) -> None:
        self.script.life = replace(self.script.life, rules=Rules(DEFAULT_POLICIES, can_relogin=can_relogin))
        self.happens(Start())

    @rule(after=st.floats(0, 400))
    def is_proved(self, after: float) -> None:
        live = self.script.state not in OFF
        effects = self.happens(Proved("direct"), after)
        if not live:
            assert effects == ()
            return
        self.work = None
        assert self.script.state is State.ONLINE
        incident = self.script.life.incident
        assert incident is None or not incident.is_open
        assert all(log.duration is not None and log.duration >= 0 for log in effects if isinstance(log, Log))

    @rule(
        seen=st.sampled_from(FAILURES),
        broken=st.booleans(),
        elsewhere=st.booleans(),
        after=st.floats(0, 400),
        jitter=st.floats(0, 1),
    )
    def fails(self, seen: Failure, broken: bool, elsewhere: bool, after: float, jitter: float) -> None:
        before = self.script.state
        effects = self.happens(Failed(seen, broken, elsewhere), after, jitter)
        if before in OFF:
            assert effects == ()
            return
        row = logged(effects)
        assert row.failure == seen
        if seen.remedy is Remedy.FAIL:
            assert self.script.state is State.FAILED
        if broken and self.script.state is State.RECOVERING:
            assert row.incident.attempts == {}
        self.check_delay(seen, effects)

    @staticmethod
    def check_delay(seen: Failure, effects: tuple[Effect, ...]) -> None:
        for delay in effects:
            if isinstance(delay, Delay):
                assert 0 < delay.seconds <= max(375.0, (seen.wait or 0.0) + 1.0)
                if seen.wait is not None and logged(effects).result is Result.RETRYING:
                    assert delay.seconds >= seen.wait

    @precondition(lambda self: isinstance(self.work, Delay))
    @rule()
    def delay_passes(self) -> None:
        assert isinstance(self.happens(DelayOver())[-1], Attempt)

    @precondition(lambda self: isinstance(self.work, AwaitPath))
    @rule()
    def path_answers(self) -> None:
        assert self.happens(PathBack()) == (Attempt(Action.RECONNECT),)

    @precondition(lambda self: self.script.state is not State.STOPPED)
    @rule(event=st.sampled_from([Pause(), Retry(), Rotate("de2"), Stop()]))
    def person_acts(self, event: Event) -> None:
        self.happens(event)

    @rule(event=st.sampled_from([DelayOver(), PathBack()]))
    def late_news_comes(self, event: Event) -> None:
        self.happens(event)

    @invariant()
    def caps_are_never_exceeded(self) -> None:
        incident = self.script.life.incident
        if incident is not None:
            for kind, spent in incident.attempts.items():
                policy = DEFAULT_POLICIES.get(kind, DEFAULT_POLICIES[Kind.UNKNOWN])
                assert spent <= policy.max_retries

    @invariant()
    def calls_are_held_let_out_or_refused_as_the_state_says(self) -> None:
        assert self.door is DOORS[self.script.state]

    @invariant()
    def what_is_not_online_has_something_to_wait_for(self) -> None:
        if self.script.state in (State.STARTING, State.RECOVERING, State.SUSPENDED):
            assert self.work is not None
        elif self.script.state in OFF:
            assert self.work is None
            assert self.script.life.retry_at is None


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=30)


def test_another_path_that_answers_is_moved_to() -> None:
    """An account that waits for its dead proxy goes to another of its pool that is back first."""
    waiting = online().do(Failed(LOST), Failed(LOST, path_broken=True))
    assert waiting(PathBack(elsewhere=True)) == (Attempt(Action.ROTATE_PROXY),)


def test_a_flood_wait_that_names_no_seconds_is_not_tried_again_at_once() -> None:
    """An attempt that meets one waits as for a rate limit, longer each time."""
    script = online().do(Failed(LOST))
    unnamed = failure(Kind.FLOOD_WAIT, Remedy.RAISE)
    for delay in (30.0, 60.0, 120.0, 240.0, 300.0):
        assert script(Failed(unnamed))[-1] == Delay(delay)
        script(DelayOver(), after=delay)
    script(Failed(unnamed))
    assert script.state is State.SUSPENDED


def test_an_account_suspended_under_a_flood_wait_is_not_probed_before_it_is_over() -> None:
    """At the cap too what Telegram demands comes before the schedule of the probes."""
    script = online().do(Failed(LOST))
    flooded = failure(Kind.FLOOD_WAIT, Remedy.WAIT, wait=500.0)
    for _ in range(5):
        script(Failed(flooded))
        script(DelayOver(), after=500.0)
    assert script(Failed(flooded))[-1] == Delay(500.0)
    assert script.state is State.SUSPENDED
