"""What `explain` says: the same that the classifier and the decisions would do."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.core.classify import known_ids
from supervisor.core.failure import DEFAULT_POLICIES, Action, Kind, Override, Policy, Remedy, Scope
from supervisor.report.explain import explain

KEYS = (
    "schema error known did_you_mean error_id error_code kind scope action remedy max_retries delays_s limited caller "
    "account why override code advice while_signing_in"
).split()


def said(text: str, **more: Any) -> dict[str, Any]:
    return explain(text, more.get("policies", DEFAULT_POLICIES), more.get("overrides", {}))


def test_a_flood_wait_is_waited_out_in_full() -> None:
    """As many seconds as it names, up to one more, each time; the account stays online."""
    found = said("FLOOD_WAIT_35")
    assert list(found) == KEYS
    assert (found["error"], found["error_id"], found["known"]) == ("FLOOD_WAIT_35", "FLOOD_WAIT_X", True)
    assert (found["kind"], found["scope"], found["action"]) == ("flood_wait", "call", "wait")
    assert (found["max_retries"], found["delays_s"]) == (5, [[35.0, 36.0]] * 5)
    assert "stays online" in found["account"]
    assert found["while_signing_in"]["scope"] == "session"


def test_an_id_as_the_table_spells_it_has_no_seconds() -> None:
    """FLOOD_WAIT_X is known, and how long it waits is not."""
    found = said("FLOOD_WAIT_X")
    assert (found["action"], found["delays_s"]) == ("wait", [[]] * 5)


@pytest.mark.parametrize(
    ("text", "kind", "action", "cap", "delays"),
    [
        ("AUTH_KEY_DUPLICATED", "auth", "relogin", 2, [[0.0, 0.0], [1.0, 1.25]]),
        ("500", "temporary", "retry", 3, [[1.0, 1.25], [2.0, 2.5], [4.0, 5.0]]),
        ("-404", "auth", "relogin", 2, [[0.0, 0.0], [1.0, 1.25]]),
        ("PEER_ID_INVALID", "permanent", "fail", 0, []),
        ("USER_DEACTIVATED_BAN", "auth", "fail", 0, []),
        ("PEER_FLOOD", "rate_limit", "fail", 0, []),
        ("MESSAGE_NOT_MODIFIED", "already_done", "fail", 0, []),
        ("SQLITE_CORRUPT", "permanent", "fail", 0, []),
        ("proxy", "proxy", "rotate_proxy", 3, [[0.0, 0.0], [5.0, 6.25], [10.0, 12.5]]),
        ("silence", "connection", "reconnect", 3, [[0.0, 0.0], [1.0, 1.25], [2.0, 2.5]]),
        ("SOCKS5: host unreachable", "proxy", "rotate_proxy", 3, [[0.0, 0.0], [5.0, 6.25], [10.0, 12.5]]),
    ],
)
def test_what_would_be_done(text: str, kind: str, action: str, cap: int, delays: list[list[float]]) -> None:
    """The kind, the action, how often, and after how long, without and with all of the jitter."""
    found = said(text)
    assert found["known"]
    assert (found["kind"], found["action"], found["max_retries"], found["delays_s"]) == (
        kind,
        action,
        cap,
        delays,
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("flood_wait_35", "FLOOD_WAIT_35"),
        ("[420 FLOOD_WAIT_35]", "420 FLOOD_WAIT_35"),
        ("Telegram says: [400 PEER_ID_INVALID] - The id is invalid (caused by x)", "400 PEER_ID_INVALID"),
        ("420  FLOOD_WAIT_35 ", "420 FLOOD_WAIT_35"),
    ],
)
def test_an_error_may_be_pasted_as_it_was_met(text: str, name: str) -> None:
    """In small letters, in brackets, or in the line that the client library printed."""
    found = said(text)
    assert (found["error"], found["known"]) == (name, True)


@pytest.mark.parametrize("text", ["4102", "NO_SUCH_THING", "400 NO_SUCH_THING"])
def test_an_unknown_error_is_said_to_be_one(text: str) -> None:
    """With what is done all the same."""
    found = said(text)
    assert (found["known"], found["did_you_mean"]) == (False, [])
    assert found["caller"]


def test_a_number_is_looked_up() -> None:
    """One of our own numbers is said with what it means and what to do."""
    found = said("4011")
    assert (found["known"], found["name"], found["level"]) == (True, "proxy_refused_us", "error")
    assert "url" in found["advice"]


def test_a_misspelt_error_is_recognised() -> None:
    """The known ids that are like it are offered."""
    assert said("FLOD_WAIT_3")["did_you_mean"][0] == "FLOOD_WAIT_X"


def test_what_is_configured_counts() -> None:
    """[classify] decides the judgement and is named; [recovery] the caps and delays."""
    overrides = {"PEER_ID_INVALID": Override(Kind.TEMPORARY, Remedy.RETRY, Scope.CALL)}
    policies = DEFAULT_POLICIES | {Kind.TEMPORARY: Policy(Action.RETRY, 1, 7.0, jitter=0.0)}
    found = said("PEER_ID_INVALID", overrides=overrides, policies=policies)
    assert (found["kind"], found["override"], found["delays_s"]) == (
        "temporary",
        "PEER_ID_INVALID",
        [[7.0, 7.0]],
    )
    assert said("NO_SUCH_THING", overrides={"NO_SUCH_THING": overrides["PEER_ID_INVALID"]})["known"]


def test_a_limited_account_is_told_how_it_ends() -> None:
    """By itself after a day, or, frozen, by a person's word."""
    assert "24 h" in said("PEER_FLOOD")["account"]
    assert "retry" in said("FROZEN_METHOD_INVALID")["account"]


def test_every_error_of_the_table_can_be_explained() -> None:
    """All of them, with words for the caller and for the account."""
    for error_id in known_ids():
        found = said(error_id)
        assert found["known"], error_id
        assert found["caller"]
        assert found["account"]
        assert found["why"]
