"""What is decided about a failure: remedy, delay, attempt. Seconds; jitter is 0 unless told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.decide import backoff, confined, for_call, for_incident, needs_proof
from supervisor.core.failure import (
    DEFAULT_POLICIES,
    Action,
    Decision,
    Evidence,
    Failure,
    Kind,
    Policy,
    Remedy,
    Result,
    Scope,
    Source,
)
from supervisor.core.incident import Incident, opened

CONNECTION = DEFAULT_POLICIES[Kind.CONNECTION]
GET_STATE = "updates.GetState"


def failure(
    kind: Kind = Kind.CONNECTION,
    remedy: Remedy = Remedy.RECONNECT,
    *,
    wait: float | None = None,
    method: str | None = None,
) -> Failure:
    return Failure(kind, Scope.SESSION, remedy, Evidence(Source.RPC, "it failed", method=method), wait=wait)


def incident(kind: Kind = Kind.CONNECTION, *, spent: int = 0, failed: int = 0) -> Incident:
    new = opened("i1", failure(kind), "direct", 0.0, 0.0).seen()
    for _ in range(spent):
        new = new.acted(kind, DEFAULT_POLICIES[kind].action)
    for _ in range(failed):
        new = new.delayed(kind)
    return new


# --- Delays ---


def test_delays_double_up_to_the_ceiling() -> None:
    """base x 2^n, at most 300 s."""
    assert [backoff(CONNECTION, n, 0.0) for n in range(10)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


def test_jitter_adds_at_most_its_share() -> None:
    """0-25 %."""
    assert [backoff(CONNECTION, 2, jitter) for jitter in (0.0, 0.5, 1.0)] == [4.0, 4.5, 5.0]


@given(st.floats(0, 1000), st.integers(0, 10**6), st.floats(0, 1))
def test_every_delay_is_within_bounds(base: float, n: int, jitter: float) -> None:
    """However often it failed, the delay is no number gone wild."""
    policy = Policy(Action.RETRY, 3, base)
    assert min(base, 300.0) <= backoff(policy, n, jitter) <= 300.0 * 1.25


# --- A call's own failure ---


@pytest.mark.parametrize("remedy", [Remedy.RAISE, Remedy.NONE, Remedy.FAIL])
def test_what_must_not_be_repeated_is_raised_at_once(remedy: Remedy) -> None:
    """A wrong request is wrong however often it is made."""
    made = for_call(failure(Kind.PERMANENT, remedy), 0, DEFAULT_POLICIES[Kind.PERMANENT], 1.0)
    assert made == Decision(remedy, 0.0, 0, 0, Result.RAISED)


def test_a_call_is_sent_again_as_often_as_its_cap_says() -> None:
    """Each time after a longer delay; then its caller gets the error."""
    temporary = failure(Kind.TEMPORARY, Remedy.RETRY)
    made = [for_call(temporary, n, DEFAULT_POLICIES[Kind.TEMPORARY], 0.0) for n in range(4)]
    assert made == [
        Decision(Remedy.RETRY, 1.0, 1, 3, Result.RETRYING),
        Decision(Remedy.RETRY, 2.0, 2, 3, Result.RETRYING),
        Decision(Remedy.RETRY, 4.0, 3, 3, Result.RETRYING),
        Decision(Remedy.RAISE, 0.0, 3, 3, Result.RAISED),
    ]


def test_a_flood_wait_is_waited_in_full_and_does_not_grow() -> None:
    """What Telegram said, plus up to 1 s, however often."""
    flood = failure(Kind.FLOOD_WAIT, Remedy.WAIT, wait=35.0)
    policy = DEFAULT_POLICIES[Kind.FLOOD_WAIT]
    assert [for_call(flood, n, policy, 0.0).delay for n in range(3)] == [35.0, 35.0, 35.0]
    assert for_call(flood, 0, policy, 1.0).delay == 36.0
    assert for_call(flood, 5, policy, 0.0).remedy is Remedy.RAISE


def test_a_limit_without_a_number_waits_the_default_and_grows() -> None:
    """30 s, then 60."""
    limited = failure(Kind.RATE_LIMIT, Remedy.WAIT)
    policy = DEFAULT_POLICIES[Kind.RATE_LIMIT]
    assert [for_call(limited, n, policy, 0.0).delay for n in range(2)] == [30.0, 60.0]


# --- Everything that reaches further ---


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (Kind.CONNECTION, Remedy.RECONNECT),
        (Kind.PROXY, Remedy.ROTATE_PROXY),
        (Kind.AUTH, Remedy.RELOGIN),
    ],
)
def test_the_first_attempt_starts_at_once_and_the_next_wait(kind: Kind, remedy: Remedy) -> None:
    """After failure n (from 0): base x 2^n."""
    policy = DEFAULT_POLICIES[kind]
    first = for_incident(failure(kind, remedy), incident(kind), policy, 0.0)
    assert first == Decision(remedy, 0.0, 1, policy.max_retries, Result.RETRYING)
    second = for_incident(failure(kind, remedy), incident(kind, spent=1, failed=1), policy, 0.0)
    assert second == Decision(remedy, policy.base_delay, 2, policy.max_retries, Result.RETRYING)


def test_what_is_no_new_link_waits_before_the_first_attempt_too() -> None:
    """A retry and a wait."""
    for kind, remedy, delays in (
        (Kind.TEMPORARY, Remedy.RETRY, [1.0, 2.0]),
        (Kind.RATE_LIMIT, Remedy.WAIT, [30.0, 60.0]),
    ):
        made = [
            for_incident(failure(kind, remedy), incident(kind, failed=n), DEFAULT_POLICIES[kind], 0.0)
            for n in range(2)
        ]
        assert [decision.delay for decision in made] == delays


def test_seconds_that_telegram_named_are_the_delay() -> None:
    """A flood wait on signing in, plus up to 1 s."""
    flood = failure(Kind.FLOOD_WAIT, Remedy.WAIT, wait=1800.0)
    made = for_incident(flood, incident(Kind.FLOOD_WAIT, failed=3), DEFAULT_POLICIES[Kind.FLOOD_WAIT], 0.5)
    assert (made.delay, made.remedy) == (1800.5, Remedy.WAIT)


@pytest.mark.parametrize(
    ("kind", "remedy", "result"),
    [
        (Kind.CONNECTION, Remedy.RECONNECT, Result.SUSPENDED),
        (Kind.PROXY, Remedy.ROTATE_PROXY, Result.SUSPENDED),
        (Kind.TEMPORARY, Remedy.RETRY, Result.SUSPENDED),
        (Kind.AUTH, Remedy.RELOGIN, Result.FAILED),
    ],
)
def test_at_the_cap_it_ends(kind: Kind, remedy: Remedy, result: Result) -> None:
    """Auth fails for good; everything else is suspended."""
    cap = DEFAULT_POLICIES[kind].max_retries
    last = for_incident(failure(kind, remedy), incident(kind, spent=cap - 1), DEFAULT_POLICIES[kind], 0.0)
    assert last.result is Result.RETRYING
    over = for_incident(failure(kind, remedy), incident(kind, spent=cap), DEFAULT_POLICIES[kind], 0.0)
    assert over == Decision(Remedy.FAIL, 0.0, cap, cap, result)


def test_what_is_final_is_final_at_once() -> None:
    """A ban is not tried again, whatever the cap; nor because the path is broken as well."""
    banned = failure(Kind.AUTH, Remedy.FAIL)
    for broken in (False, True):
        made = for_incident(banned, incident(Kind.AUTH), DEFAULT_POLICIES[Kind.AUTH], 0.0, path_broken=broken)
        assert (made.remedy, made.result) == (Remedy.FAIL, Result.FAILED)


def test_a_spent_sign_in_budget_suspends_for_as_long_as_it_says() -> None:
    """To the second, without jitter: it is our own number."""
    spent = failure(Kind.AUTH, Remedy.WAIT, wait=1234.5)
    made = for_incident(spent, incident(Kind.AUTH), DEFAULT_POLICIES[Kind.AUTH], 1.0)
    assert (made.delay, made.result) == (1234.5, Result.SUSPENDED)


def test_a_broken_path_spends_nothing_and_waits_for_no_clock() -> None:
    """Even at the cap the account goes on waiting for its path."""
    made = for_incident(
        failure(), incident(spent=3, failed=3), CONNECTION, 1.0, path_broken=True, verify=True
    )
    assert made == Decision(Remedy.RECONNECT, 0.0, 3, 3, Result.RETRYING, verify=False)


@pytest.mark.parametrize("remedy", [Remedy.RAISE, Remedy.NONE])
def test_where_nobody_called_a_callers_error_is_tried_again(remedy: Remedy) -> None:
    """An attempt that is answered with a wrong request is repeated under the cap of its kind."""
    made = for_incident(failure(Kind.TEMPORARY, remedy), incident(Kind.TEMPORARY), CONNECTION, 0.0)
    assert (made.remedy, made.result) == (Remedy.RETRY, Result.RETRYING)


def test_verify_is_passed_on() -> None:
    """First ask, then act."""
    lost = failure(Kind.AUTH, Remedy.RELOGIN, method="messages.SendMessage")
    policy = DEFAULT_POLICIES[Kind.AUTH]
    assert for_incident(lost, incident(Kind.AUTH), policy, 0.0, verify=True).verify
    assert not for_incident(lost, incident(Kind.AUTH), policy, 0.0).verify


@pytest.mark.parametrize(
    ("remedy", "method", "doubtful"),
    [
        (Remedy.RELOGIN, "upload.GetFile", True),
        (Remedy.RELOGIN, GET_STATE, False),
        (Remedy.RELOGIN, None, True),
        (Remedy.RECONNECT, "upload.GetFile", False),
    ],
)
def test_only_a_calls_401_is_doubted(remedy: Remedy, method: str | None, doubtful: bool) -> None:
    """It may be another datacenter's key that is unknown; updates.getState and the transport know better."""
    assert needs_proof(failure(Kind.AUTH, remedy, method=method)) is doubtful


def test_a_failure_shows_itself_by_kind_and_id() -> None:
    """As it was sent; by its message where there is no id. This is what AccountUnavailable tells."""
    flood = Failure(Kind.FLOOD_WAIT, Scope.CALL, Remedy.WAIT, Evidence(Source.RPC, "wait", "FLOOD_WAIT_35"))
    assert (str(flood), str(failure())) == ("flood_wait: FLOOD_WAIT_35", "connection: it failed")


@pytest.mark.parametrize(
    ("scope", "remedy", "confined_to"),
    [
        (Scope.SESSION, Remedy.RECONNECT, Remedy.RETRY),
        (Scope.PATH, Remedy.ROTATE_PROXY, Remedy.RETRY),
        (Scope.SESSION, Remedy.RELOGIN, Remedy.RETRY),
        (Scope.ACCOUNT, Remedy.FAIL, Remedy.RAISE),
        (Scope.SESSION, Remedy.WAIT, Remedy.WAIT),
        (Scope.SESSION, Remedy.RAISE, Remedy.RAISE),
        (Scope.CALL, Remedy.FAIL, Remedy.FAIL),
    ],
)
def test_a_failure_elsewhere_is_confined_to_its_call(
    scope: Scope, remedy: Remedy, confined_to: Remedy
) -> None:
    """What would have the account reconnect, rotate or sign in becomes a repeat; what would end it is raised."""
    failure = Failure(Kind.CONNECTION, scope, remedy, Evidence(Source.SOCKET, "lost"))
    assert confined(failure) == replace(failure, scope=Scope.CALL, remedy=confined_to)
