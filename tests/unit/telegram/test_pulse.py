"""When a link is tested, overdue, and lost. Seconds; the silence time-out is 10."""

from __future__ import annotations

import pytest

from supervisor.telegram.pulse import Pulse, Verdict


def test_a_quiet_link_is_tested_once_and_then_given_up() -> None:
    """A ping after 5 s of silence, no second one, lost after 8.5 s."""
    pulse = Pulse(10.0)
    assert pulse.judge(4.9, 0.0, None) is Verdict.NOTHING
    assert pulse.next_check(4.9, 0.0, None) == 5.0
    assert pulse.judge(5.0, 0.0, None) is Verdict.PING
    assert pulse.next_check(5.0, 0.0, None) == 8.5
    assert pulse.judge(8.0, 0.0, None) is Verdict.NOTHING
    assert pulse.judge(8.5, 0.0, None) is Verdict.LOST


def test_an_overdue_link_is_tested_at_once() -> None:
    """An answer owed for a second, and nothing else coming, makes the link overdue: it is asked there and then."""
    pulse = Pulse(10.0)
    assert pulse.next_check(0.1, 0.0, 0.1) == pytest.approx(1.1)
    assert pulse.judge(1.1, 0.0, 0.1) is Verdict.OVERDUE_AND_PING
    assert pulse.judge(2.0, 0.0, 0.1) is Verdict.NOTHING
    assert pulse.judge(8.5, 0.0, 0.1) is Verdict.LOST


def test_a_link_that_moves_is_not_overdue() -> None:
    """What is owed may take its time while other things come."""
    pulse = Pulse(10.0)
    assert pulse.judge(5.0, 4.5, 0.1) is Verdict.NOTHING


def test_a_slow_link_is_given_three_round_trips() -> None:
    """A greeting of 2 s makes an answer overdue after 6."""
    pulse = Pulse(60.0, 2.0)
    assert pulse.patience == 6.0
    assert pulse.judge(5.9, 0.0, 0.0) is Verdict.NOTHING
    assert pulse.judge(6.0, 0.0, 0.0) is Verdict.OVERDUE_AND_PING


def test_checks_are_not_repeated_without_a_pause() -> None:
    """A check that is due already is made a little later, not in a tight loop."""
    assert Pulse(10.0).next_check(9.0, 0.0, None) == pytest.approx(9.05)
