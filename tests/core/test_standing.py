"""What an account goes on from after a restart. Jitter is 0; the second process begins at monotonic 5,000."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.core.events import (
    Attempt,
    Delay,
    DelayOver,
    Failed,
    HoldCalls,
    Pause,
    Proved,
    RefuseCalls,
    Start,
)
from supervisor.core.failure import Action, Kind, Remedy, State
from supervisor.core.lifecycle import Life, Moment, step
from supervisor.core.standing import Standing, standing, taken_up
from tests.core.test_lifecycle import (
    BANNED,
    DEAD_PROXY,
    LOST,
    NOW,
    REVOKED,
    USER,
    Script,
    failure,
    flap,
    logged,
    online,
    suspended,
)

BASE = 5000.0


def saved(script: Script) -> Standing:
    return standing(script.life, NOW + script.mono, script.mono, "as it was")


def next_run(script: Script, *, down: float, clock: float = 0.0, configured: str = "as it was") -> Script:
    """The next process, after so many seconds in which somebody has set the clock."""
    was, now = saved(script), NOW + script.mono + down + clock
    after = Script(script.life.rules)
    life = Life(rules=script.life.rules, incident=script.life.incident)
    after.life = taken_up(life, was, configured, now, BASE)
    after.mono = BASE
    return after


def test_a_suspended_account_waits_out_the_rest_of_its_pause() -> None:
    """20 of 60 s have passed: 40 are left, calls are refused, and the doubling goes on where it was."""
    after = next_run(suspended(), down=20.0)
    assert (after.state, after.life.since, after.life.retry_at) == (State.SUSPENDED, NOW, NOW + 60.0)
    assert after(Start()) == (RefuseCalls(), Delay(40.0))
    assert after.state is State.SUSPENDED
    assert after(DelayOver(), after=40.0) == (Attempt(Action.RECONNECT),)
    effects = after(Failed(LOST))
    assert (effects[-1], logged(effects).incident.id) == (Delay(120.0), "i3")


def test_a_suspended_account_whose_time_has_come_is_probed_at_once() -> None:
    """By one attempt of the kind that was due, and without another pause."""
    down = online().do(*[Failed(DEAD_PROXY)] * 4)
    after = next_run(down, down=3600.0)
    assert after(Start()) == (RefuseCalls(), Attempt(Action.ROTATE_PROXY))
    assert after.state is State.SUSPENDED


@pytest.mark.parametrize(("set_by", "left"), [(-3600.0, 60.0), (3600.0, 0.0), (-10.0, 50.0)])
def test_no_clock_makes_a_pause_longer_than_it_was(set_by: float, left: float) -> None:
    """One that was set back behind its beginning gives all of it, and no more."""
    after = next_run(suspended(), down=20.0, clock=set_by)
    _, effect = after(Start())
    assert effect == (Delay(left) if left else Attempt(Action.RECONNECT))


@pytest.mark.parametrize(
    ("script", "state"),
    [
        (online().do(Failed(BANNED)), State.FAILED),
        (online(USER).do(Failed(REVOKED)), State.NEEDS_LOGIN),
        (online().do(Pause()), State.PAUSED),
    ],
)
def test_what_only_a_person_ends_is_not_ended_by_a_restart(script: Script, state: State) -> None:
    """Nothing is tried, however long ago it was."""
    after = next_run(script, down=1e6)
    assert after(Start()) == (RefuseCalls(),)
    assert (after.state, after.life.since, after.life.retry_at) == (state, NOW, None)


@pytest.mark.parametrize(
    "script", [online().do(Failed(BANNED)), online(USER).do(Failed(REVOKED)), suspended()]
)
def test_a_changed_configuration_is_tried_at_once(script: Script) -> None:
    """Another token, say: what was found out about the one before says nothing of it."""
    after = next_run(script, down=1.0, configured="otherwise")
    assert after(Start()) == (HoldCalls(), Attempt(Action.RECONNECT))
    assert after.state is State.STARTING


def test_a_paused_account_stays_so_whatever_is_configured() -> None:
    """Somebody wants it offline, not the one token that it had."""
    after = next_run(online().do(Pause()), down=1.0, configured="otherwise")
    assert after(Start()) == (RefuseCalls(),)


def test_a_wait_of_an_incident_goes_on() -> None:
    """Limited without a number: 25 s of the 30 are left; calls are held meanwhile."""
    script = online()
    script(Failed(failure(Kind.RATE_LIMIT, Remedy.WAIT)))
    after = next_run(script, down=5.0)
    assert after(Start()) == (HoldCalls(), Delay(25.0))
    assert after.state is State.RECOVERING
    assert after(DelayOver(), after=25.0) == (Attempt(Action.WAIT),)


@pytest.mark.parametrize(
    "script",
    [Script(), Script().do(Start()), online(), online().do(Failed(LOST))],
    ids=["stopped", "starting", "online", "recovering"],
)
def test_whoever_waited_for_no_time_begins_with_a_start(script: Script) -> None:
    """Whether it was online or in the middle of an attempt."""
    after = next_run(script, down=1.0)
    assert after(Start()) == (HoldCalls(), Attempt(Action.RECONNECT))
    assert (after.state, after.life.retry_at) == (State.STARTING, None)


def test_who_flapped_does_not_begin_anew_with_the_process() -> None:
    """Five losses before it, and the next one is the sixth; after ten minutes they are forgotten."""
    script = online()
    flap(script, 5)
    after = next_run(script, down=300.0).do(Start(), Proved("direct"))
    assert flap(after, 1)[-1] == Delay(60.0)
    late = next_run(script, down=601.0).do(Start(), Proved("direct"))
    assert flap(late, 1)[-1] == Attempt(Action.RECONNECT)


def test_a_damped_account_goes_on_being_damped() -> None:
    """Its pause is no time in which its link has lasted, in the next process neither."""
    script = online()
    flap(script, 6)
    after = next_run(script, down=10.0)
    assert after(Start())[-1] == Delay(50.0)
    after(DelayOver(), after=50.0)
    after(Proved("direct"))
    assert flap(after, 1)[-1] == Delay(120.0)


def test_a_clock_that_was_set_back_brings_no_losses_of_the_future() -> None:
    """They would count for as long as it went back."""
    script = online()
    flap(script, 5)
    after = next_run(script, down=0.0, clock=-1e6).do(Start(), Proved("direct"))
    assert max(after.life.losses) <= BASE
    assert flap(after, 1, apart=601.0)[-1] == Attempt(Action.RECONNECT)


def test_only_the_wall_clock_is_kept() -> None:
    """Nothing of the monotonic clock outlives its process."""
    script = online()
    flap(script, 2, apart=10.0)
    assert saved(script).losses == (NOW + 10.0, NOW + 20.0)
    moved = replace(script.life, losses=tuple(at + 777.0 for at in script.life.losses))
    assert standing(moved, NOW + script.mono, script.mono + 777.0) == replace(saved(script), configured=None)


def test_whoever_goes_on_knows_its_table() -> None:
    """A life that was taken up takes every event that any other takes in its state."""
    after = next_run(suspended(), down=20.0)
    life, effects = step(after.life, Proved("direct"), Moment(NOW, BASE, 0.0, "new"))
    assert (life.state, logged(effects).incident.id) == (State.ONLINE, "i3")
