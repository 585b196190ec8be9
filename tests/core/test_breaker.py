"""The circuit breaker, as a script of what happens to it. Times are seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.breaker import (
    BROKEN_PATH,
    REFUSING_PATH,
    SUSPENDED,
    Breaker,
    Position,
    ProbeSchedule,
)


def probes(breaker: Breaker, count: int) -> list[float]:
    """Let `count` probes fail at the moment they are due; give the times of all that were due, from 0."""
    times = []
    for _ in range(count):
        assert breaker.probe_at is not None
        times.append(breaker.probe_at)
        breaker = breaker.try_out(breaker.probe_at).failed(breaker.probe_at)
    return times


# --- Schedules ---


def test_a_suspended_account_is_probed_after_60_seconds_doubling_to_300() -> None:
    """60, 120, 240, then 300 s apart for ever."""
    assert probes(Breaker(SUSPENDED).trip(0.0), 6) == [60.0, 180.0, 420.0, 720.0, 1020.0, 1320.0]


def test_a_refusing_path_is_probed_as_seldom() -> None:
    """After an authentication failure or -429: 60, 120, 240, then 300 s apart."""
    assert probes(Breaker(REFUSING_PATH).trip(0.0), 5) == [60.0, 180.0, 420.0, 720.0, 1020.0]


def test_a_broken_path_is_probed_each_second_for_five_minutes_then_every_five() -> None:
    """300 probes in the first 300 s, then one every 5 s."""
    times = probes(Breaker(BROKEN_PATH).trip(0.0), 303)
    assert times == [*map(float, range(1, 301)), 305.0, 310.0, 315.0]


@given(st.integers(0, 10**9), st.floats(0, 1e9))
def test_every_delay_is_bounded(count: int, open_for: float) -> None:
    """However long something is broken, its next probe comes."""
    for schedule in (SUSPENDED, BROKEN_PATH, REFUSING_PATH, ProbeSchedule(1.0, growth=10.0)):
        assert schedule.first <= schedule.delay(count, open_for) <= 300.0


# --- Closed ---


def test_a_closed_breaker_lets_everything_through() -> None:
    """Nothing is held, and nothing is probed."""
    breaker = Breaker()
    assert breaker.position is Position.CLOSED
    assert breaker.allows(0.0)
    assert not breaker.probe_due(0.0)


def test_it_opens_at_the_failure_that_fills_its_count() -> None:
    """Two in a row are not three."""
    breaker = Breaker(failures_to_open=3).failed(0.0).failed(1.0)
    assert breaker.allows(1.0)
    breaker = breaker.failed(2.0)
    assert (breaker.position, breaker.opened_at, breaker.probe_at) == (Position.OPEN, 2.0, 62.0)
    assert not breaker.allows(2.0)


def test_a_success_between_begins_the_count_anew() -> None:
    """Failures count in a row."""
    breaker = Breaker(failures_to_open=2).failed(0.0).succeeded().failed(1.0)
    assert breaker.position is Position.CLOSED


def test_a_path_breaks_with_the_first_failed_probe() -> None:
    """A count of one is no count."""
    breaker = Breaker(BROKEN_PATH, failures_to_open=1).failed(10.0)
    assert (breaker.position, breaker.probe_at) == (Position.OPEN, 11.0)


def test_it_opens_with_the_schedule_of_the_failure_that_opened_it() -> None:
    """A proxy that refuses the password is not asked again within the minute."""
    breaker = Breaker(BROKEN_PATH, failures_to_open=1).failed(10.0, REFUSING_PATH)
    assert breaker.probe_at == 70.0
    assert Breaker(BROKEN_PATH).trip(10.0, REFUSING_PATH).probe_at == 70.0


# --- Open ---


def test_an_open_breaker_holds_everything_until_its_probe_is_due() -> None:
    """Not a moment early."""
    breaker = Breaker().trip(0.0)
    assert not breaker.allows(59.9)
    assert breaker.allows(60.0)
    assert breaker.probe_due(60.0)


def test_late_failures_of_what_is_open_change_nothing() -> None:
    """Calls that were under way when it opened fail one after the other: the probe stays where it was."""
    breaker = Breaker().trip(0.0)
    assert breaker.failed(1.0) == breaker
    assert breaker.failed(1.0, SUSPENDED) == breaker


def test_a_late_refusal_slows_the_probes() -> None:
    """-429 that arrives while the path is probed every second: leave it alone for a minute."""
    breaker = Breaker(BROKEN_PATH).trip(0.0).failed(0.5, REFUSING_PATH)
    assert (breaker.probe_at, breaker.probes, breaker.opened_at) == (60.5, 0, 0.0)


def test_a_late_success_closes_it() -> None:
    """Proof of life is proof, whoever brings it."""
    assert Breaker(failures_to_open=1).trip(0.0).succeeded() == Breaker(failures_to_open=1)


def test_a_probe_before_its_time_is_refused() -> None:
    """Neither while closed, nor early, nor twice."""
    due = Breaker().trip(0.0)
    for breaker, now in ((Breaker(), 99.0), (due, 59.0), (due.try_out(60.0), 61.0)):
        with pytest.raises(ValueError, match="no probe is due"):
            breaker.try_out(now)


# --- Half-open ---


def test_one_probe_at_a_time() -> None:
    """While it is out nothing else passes."""
    breaker = Breaker().trip(0.0).try_out(60.0)
    assert breaker.position is Position.HALF_OPEN
    assert not breaker.allows(999.0)


def test_a_probe_that_works_closes_it_and_forgets() -> None:
    """The next time it opens, the schedule begins at its beginning."""
    breaker = Breaker().trip(0.0).try_out(60.0).failed(60.0).try_out(180.0).succeeded()
    assert breaker == Breaker()
    assert breaker.trip(200.0).probe_at == 260.0


def test_the_next_delay_runs_from_the_probes_failure() -> None:
    """A probe that took 10 s to fail does not eat into the pause."""
    assert Breaker().trip(0.0).try_out(60.0).failed(70.0).probe_at == 190.0


def test_a_refused_probe_goes_over_to_the_slow_schedule_and_back() -> None:
    """Each failed probe says when the next is worth while; a change of schedule begins it anew."""
    breaker = Breaker(BROKEN_PATH, failures_to_open=1).failed(0.0)
    breaker = breaker.try_out(1.0).failed(1.0, REFUSING_PATH)
    assert breaker.probe_at == 61.0
    breaker = breaker.try_out(61.0).failed(61.0, REFUSING_PATH)
    assert breaker.probe_at == 181.0
    breaker = breaker.try_out(181.0).failed(181.0)
    assert breaker.probe_at == 182.0
    assert breaker.succeeded().schedule == BROKEN_PATH
