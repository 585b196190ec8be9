"""An incident: what is counted, what ends it, what a second coming keeps of the first."""

from __future__ import annotations

import dataclasses

import pytest

from supervisor.core.failure import Action, Evidence, Failure, Kind, Remedy, Result, Scope, Source
from supervisor.core.incident import Incident, opened

LOST = Failure(Kind.CONNECTION, Scope.SESSION, Remedy.RECONNECT, Evidence(Source.SOCKET, "reset"))


def new() -> Incident:
    return opened("i1", LOST, "de1", now=1000.0, mono=5.0)


def test_it_opens_with_its_first_failure() -> None:
    """Kind, scope and path are the first failure's; both clocks are remembered; nothing is counted yet."""
    incident = new()
    assert incident == Incident("i1", Kind.CONNECTION, Scope.SESSION, "de1", opened_at=1000.0, began=5.0)
    assert incident.is_open
    assert (incident.failures, incident.spent(Kind.CONNECTION), incident.last_action) == (0, 0, None)


def test_failures_are_counted() -> None:
    """Each that belongs to it."""
    assert new().seen().seen().failures == 2


def test_actions_are_counted_for_each_kind_alone() -> None:
    """The cap of one kind is not spent by another."""
    incident = new().acted(Kind.CONNECTION, Action.RECONNECT).acted(Kind.PROXY, Action.ROTATE_PROXY)
    incident = incident.acted(Kind.CONNECTION, Action.RECONNECT)
    assert (incident.spent(Kind.CONNECTION), incident.spent(Kind.PROXY), incident.spent(Kind.AUTH)) == (
        2,
        1,
        0,
    )
    assert incident.last_action is Action.RECONNECT


def test_an_action_may_be_free() -> None:
    """On a broken path it is remembered and not counted."""
    incident = new().acted(Kind.PROXY, Action.ROTATE_PROXY, counted=False)
    assert (incident.spent(Kind.PROXY), incident.last_action) == (0, Action.ROTATE_PROXY)


def test_failed_attempts_lengthen_the_delay_of_their_kind() -> None:
    """And of no other."""
    assert new().delayed(Kind.CONNECTION).delayed(Kind.CONNECTION).delayed(Kind.AUTH).backoff == {
        Kind.CONNECTION: 2,
        Kind.AUTH: 1,
    }


def test_it_closes_with_an_outcome_and_both_clocks() -> None:
    """Wall time for people, monotonic time for `stable_after`."""
    incident = new().closed(Result.RECOVERED, 1060.0, 65.0)
    assert not incident.is_open
    assert (incident.outcome, incident.closed_at, incident.ended) == (Result.RECOVERED, 1060.0, 65.0)


def test_reopened_it_keeps_its_delays_and_forgets_its_caps() -> None:
    """The same id and its failures go on; the duration is measured anew."""
    before = new().seen().acted(Kind.CONNECTION, Action.RECONNECT).delayed(Kind.CONNECTION)
    incident = before.closed(Result.RECOVERED, 1060.0, 65.0).reopened(1070.0, 75.0)
    assert incident.is_open
    assert (incident.id, incident.failures, incident.backoff) == ("i1", 1, {Kind.CONNECTION: 1})
    assert (incident.attempts, incident.last_action, incident.outcome, incident.ended) == (
        {},
        None,
        None,
        None,
    )
    assert (incident.opened_at, incident.began) == (1070.0, 75.0)


def test_it_is_a_value() -> None:
    """Whatever happens to it makes another one."""
    incident = new()
    for other in (
        incident.seen(),
        incident.acted(Kind.AUTH, Action.RELOGIN),
        incident.delayed(Kind.AUTH),
        incident.closed(Result.FAILED, 1.0, 1.0),
    ):
        assert other != incident
    assert incident == new()
    with pytest.raises(dataclasses.FrozenInstanceError):
        incident.failures = 3  # type: ignore[misc]
