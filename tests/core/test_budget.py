"""How many connections a second, how many sign-ins an hour. Times are seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.budget import DAY, HOUR, SignInBudget, TokenBucket, Window

NOW = 1_700_000_000.0


def waits(bucket: TokenBucket, times: list[float]) -> list[float]:
    """Take one token at each time; give the wait of each."""
    found = []
    for now in times:
        bucket, wait = bucket.take(now)
        found.append(wait)
    return found


# --- Connections ---


def test_the_burst_leaves_at_once_and_the_rest_at_the_rate() -> None:
    """Three at once, then one each half second."""
    assert waits(TokenBucket(rate=2.0, burst=3.0), [100.0] * 6) == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]


def test_a_bucket_fills_again_with_time_and_never_beyond_its_burst() -> None:
    """After an hour of rest it is as full as it was, and no fuller."""
    times = [0.0] * 3 + [3600.0] * 4
    assert waits(TokenBucket(rate=2.0, burst=3.0), times) == [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5]


def test_less_than_one_a_second_still_lets_the_first_out_at_once() -> None:
    """A rate of one in ten seconds."""
    assert waits(TokenBucket(rate=0.1, burst=1.0), [5.0, 5.0]) == pytest.approx([0.0, 10.0])


@given(st.floats(0.1, 100), st.integers(1, 50), st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_never_more_than_burst_and_rate_allow(rate: float, burst: int, gaps: list[float]) -> None:
    """In any stretch of time at most burst + rate x length connections begin, however they are asked for."""
    bucket, now, begun = TokenBucket(rate, float(burst)), 0.0, []
    for gap in gaps:
        now += gap
        bucket, wait = bucket.take(now)
        assert wait >= 0.0
        begun.append(now + wait)
    assert begun == sorted(begun)
    for i, first in enumerate(begun):
        for j, last in enumerate(begun[i:], 1):
            assert j <= burst + rate * (last - first) + 1e-6


# --- Sign-ins ---


def test_sign_ins_within_both_budgets_go_at_once() -> None:
    """Two of three in the hour."""
    assert SignInBudget(3, 10).wait([NOW - 10, NOW - 20], NOW) == 0.0
    assert SignInBudget(3, 10).wait([], NOW) == 0.0


def test_the_hour_is_waited_out_from_the_oldest_that_counts() -> None:
    """The third last of this hour must be an hour old."""
    past = [NOW - 600, NOW - 1200, NOW - 1800, NOW - 3599, NOW - 7200]
    assert SignInBudget(3, 10).wait(past, NOW) == HOUR - 1800


def test_the_order_of_the_past_does_not_matter() -> None:
    """It is read from a database."""
    past = [NOW - 1800, NOW - 600, NOW - 1200]
    assert SignInBudget(3, 10).wait(past, NOW) == SignInBudget(3, 10).wait(past[::-1], NOW) == HOUR - 1800


def test_the_day_counts_where_the_hour_does_not() -> None:
    """Ten in a day, none of them in the last hour."""
    past = [NOW - HOUR * hours for hours in range(2, 12)]
    assert SignInBudget(3, 10).wait(past, NOW) == DAY - 11 * HOUR
    assert SignInBudget(3, 11).wait(past, NOW) == 0.0


def test_after_the_wait_the_sign_in_is_allowed() -> None:
    """What is told as the wait is enough, and no less is."""
    past = [NOW - 600, NOW - 1200, NOW - 1800]
    wait = SignInBudget(3, 10).wait(past, NOW)
    assert SignInBudget(3, 10).wait(past, NOW + wait) == 0.0
    assert SignInBudget(3, 10).wait(past, NOW + wait - 1) == 1.0


# --- Emptied buckets and windows ------------------------------------------------------------------------


def test_a_drained_bucket_has_no_burst() -> None:
    """One token at once, and the next at the rate; a bucket that is in debt stays so."""
    bucket = TokenBucket(rate=10.0, burst=20.0).drained(100.0)
    waits = []
    for _ in range(4):
        bucket, wait = bucket.take(100.0)
        waits.append(round(wait, 9))
    assert waits == [0.0, 0.1, 0.2, 0.3]
    assert bucket.drained(100.0) == bucket


@given(gaps=st.lists(st.floats(0.0, 2.0), max_size=60), most=st.integers(1, 5))
def test_a_window_never_holds_more(gaps: list[float], most: int) -> None:
    """In any second, however they ask; and whoever waits as told need not wait again."""
    window, now, sent = Window(most), 50.0, []
    for gap in gaps:
        now += gap
        now += window.due(now)
        assert window.due(now) <= 1e-9
        window = window.take(now)
        sent.append(now)
    for at in sent:
        assert sum(at <= other < at + 1.0 - 1e-9 for other in sent) <= most
