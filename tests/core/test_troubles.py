"""What rows and states say is wrong, and that it is over. Times are monotonic seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from supervisor.core.codes import NAMES
from supervisor.core.failure import Action, Kind, Level, Result, Row, Scope, State
from supervisor.core.troubles import CALM, FLAPS, WITHIN, Began, Ended, Happened, News, Troubles

BOT = "support-bot"


def row(code: str, outcome: Result = Result.RETRYING, **more: Any) -> Row:
    """A row of the log, of an account's incident."""
    values: dict[str, Any] = {
        "account": BOT,
        "path": "direct",
        "scope": Scope.SESSION,
        "kind": Kind.CONNECTION,
        "incident": "i-1",
        "message": f"seen: {code}",
    }
    return Row(at=0.0, action=Action.RECONNECT, outcome=outcome, code=NAMES[code].number, **values | more)


def state(troubles: Troubles, state: State, now: float = 0.0, name: str = BOT, **more: Any) -> list[News]:
    return troubles.account(name, state, more.pop("path", "direct"), now, **more)


def began(news: list[News]) -> tuple[str, str, str]:
    """Subject, group and code of the only trouble that has begun."""
    (only,) = news
    assert isinstance(only, Began)
    return only.subject, only.group, only.code.name


def down(troubles: Troubles, code: str, to: State, now: float = 0.0, **more: Any) -> list[News]:
    """An account is online, and is not any more."""
    state(troubles, State.ONLINE, now)
    outcome = {State.RECOVERING: Result.RETRYING, State.FAILED: Result.FAILED}.get(to, Result.SUSPENDED)
    return [*troubles.row(row(code, outcome, **more), now), *state(troubles, to, now)]


# --- accounts ---


def test_a_lost_link_is_a_trouble_of_its_path_until_the_account_is_online() -> None:
    """The state decides, the row says why; starting over says nothing."""
    troubles = Troubles()
    assert state(troubles, State.STARTING) == state(troubles, State.ONLINE) == []
    assert troubles.row(row("connection_lost", path="de1"), 1.0) == []
    news = state(troubles, State.RECOVERING, 1.0, path="de1")
    assert began(news) == ("account:support-bot", "path:de1", "connection_lost")
    assert isinstance(news[0], Began)
    assert (news[0].who, news[0].what) == (BOT, "seen: connection_lost")
    assert state(troubles, State.RECOVERING, 2.0) == state(troubles, State.STOPPED, 3.0) == []
    assert troubles.row(row("connection_lost", Result.RECOVERED), 4.0) == []
    assert state(troubles, State.ONLINE, 4.0) == [Ended("account:support-bot", "online again")]


def test_a_trouble_turns_into_another_when_a_row_or_a_state_says_so() -> None:
    """A session that is lost, then a token that is refused: one subject, told with others of its number."""
    troubles = Troubles()
    first = down(troubles, "session_lost", State.RECOVERING, kind=Kind.AUTH)
    assert began(first) == ("account:support-bot", "code:1010", "session_lost")
    second = troubles.row(row("token_refused", Result.FAILED, kind=Kind.AUTH), 1.0)
    assert began(second) == ("account:support-bot", "code:1012", "token_refused")
    assert state(troubles, State.FAILED, 1.0) == []
    assert state(troubles, State.PAUSED, 2.0) == [Ended("account:support-bot", "paused by a person")]


def test_a_suspended_account_is_told_by_its_number_whatever_its_path() -> None:
    """It is more than trouble on the way."""
    assert began(down(Troubles(), "suspended", State.SUSPENDED, scope=Scope.CALL))[1] == "code:5010"


def test_without_a_row_of_its_own_the_last_failure_or_the_path_says_why() -> None:
    """What an earlier run left, or nothing at all."""
    troubles = Troubles()
    last = row("server_error", kind=Kind.TEMPORARY)
    assert began(state(troubles, State.RECOVERING, last=last))[2] == "server_error"
    assert began(state(troubles, State.RECOVERING, name="b", path="de1"))[1:] == ("path:de1", "proxy_failed")
    stored = replace(last, kind=Kind.CONNECTION, code=0)
    assert began(state(troubles, State.RECOVERING, name="c", last=stored))[2] == "connection_lost"


def test_a_limited_account_is_in_trouble_beside_its_state() -> None:
    """Frozen is another trouble than limited; rows of the same say nothing more."""
    troubles = Troubles()
    assert began(state(troubles, State.ONLINE, limited="PEER_FLOOD"))[::2] == (
        "limited:support-bot",
        "limited",
    )
    assert troubles.row(row("limited", Result.RAISED, scope=Scope.CALL), 0.0) == []
    assert began(state(troubles, State.ONLINE, limited="FROZEN_METHOD_INVALID", frozen=True))[2] == "frozen"
    assert state(troubles, State.ONLINE) == [Ended("limited:support-bot", "no longer limited")]


def test_who_is_no_longer_configured_is_in_no_trouble() -> None:
    """Removed; the others stay."""
    troubles = Troubles()
    down(troubles, "connection_lost", State.RECOVERING)
    state(troubles, State.FAILED, name="b", limited="PEER_FLOOD")
    troubles.path("de1", "dead", 0.0)
    assert troubles.configured([BOT], ["direct"]) == [
        Ended("account:b", "removed"),
        Ended("limited:b", "removed"),
        Ended("path:de1", "removed"),
    ]
    assert troubles.configured([BOT], ["direct"]) == []


# --- flapping ---


def fall(troubles: Troubles, now: float, to: State = State.RECOVERING) -> list[News]:
    """Online, and not any more."""
    return [*state(troubles, State.ONLINE, now), *state(troubles, to, now)]


def test_a_link_that_is_lost_again_and_again_is_one_trouble() -> None:
    """Until none has been lost for a while, and then the next loss is one like any other."""
    troubles = Troubles()
    for n in range(FLAPS - 1):
        fall(troubles, 10.0 * n)
    last = 10.0 * (FLAPS - 1)
    online, flapping = fall(troubles, last)
    assert isinstance(online, Ended)
    assert began([flapping]) == ("account:support-bot", "flapping:direct", "flapping")
    assert fall(troubles, last + 1, State.SUSPENDED) == state(troubles, State.ONLINE, last + 2) == []
    assert troubles.tick(last + 1 + CALM) == []
    assert troubles.tick(last + 2 + CALM) == [Ended("account:support-bot", "steady again")]
    assert troubles.tick(last + 2 + CALM) == []
    assert began(fall(troubles, last + 3 + CALM))[2] == "connection_failed"


def test_losses_far_apart_are_no_flapping() -> None:
    """One every two minutes is."""
    troubles = Troubles()
    assert all(len(fall(troubles, n * (WITHIN / (FLAPS - 1)))) <= 2 for n in range(3 * FLAPS))
    assert troubles.tick(1e6) == []


@pytest.mark.parametrize("end", [State.FAILED, State.PAUSED])
def test_what_ends_a_flapping_account_is_told_all_the_same(end: State) -> None:
    """A link that flaps is no reason to hide a refused token; and who is back after that has a clean slate."""
    troubles = Troubles()
    for n in range(FLAPS + 1):
        fall(troubles, float(n))
    troubles.row(row("token_refused", Result.FAILED), 10.0)
    news = state(troubles, end, 10.0)
    if end is State.FAILED:
        assert began(news)[2] == "token_refused"
    else:
        assert news == [Ended("account:support-bot", "paused by a person")]
    state(troubles, State.STARTING, 11.0)
    assert all(isinstance(each, Ended) for each in state(troubles, State.ONLINE, 12.0))


def test_a_path_that_breaks_again_and_again_is_one_trouble() -> None:
    """Whether it answers at the moment or not."""
    troubles = Troubles()
    for n in range(FLAPS - 1):
        troubles.path("de1", "dead", 10.0 * n)
        troubles.path("de1", None, 10.0 * n + 5)
    news = troubles.path("de1", "dead", 10.0 * FLAPS - 5)
    assert began(news) == ("path:de1", "path:de1", "flapping")
    assert troubles.path("de1", None, 60.0) == troubles.tick(60.0 + CALM - 1) == []
    assert troubles.tick(60.0 + CALM) == [Ended("path:de1", "steady again")]


# --- paths ---


def outage(troubles: Troubles, *accounts: str, everywhere: bool = False, over: bool = False) -> list[News]:
    return troubles.outage("i-9", "de1", accounts, 1.0, everywhere=everywhere, over=over)


def test_a_broken_path_is_a_trouble_of_its_own() -> None:
    """Its last row says what it is; who recovers on it is told with it, whatever its own row said."""
    troubles = Troubles()
    troubles.row(row("proxy_refused_us", account=None, scope=Scope.PATH, path="de1"), 0.0)
    news = troubles.path("de1", "it refuses", 0.0)
    assert began(news) == ("path:de1", "path:de1", "proxy_refused_us")
    assert troubles.path("de1", "it refuses still", 1.0) == []
    troubles.row(row("session_lost", kind=Kind.AUTH, path="de1"), 0.0)
    assert began(state(troubles, State.RECOVERING, path="de1"))[1] == "path:de1"
    assert troubles.path("de1", None, 2.0) == [Ended("path:de1", "it answers again")]
    assert troubles.path("de1", None, 3.0) == []
    assert began(troubles.path("nl3", "dead", 0.0))[2] == "proxy_failed"
    assert began(troubles.path("direct", "dead", 0.0))[2] == "connection_failed"


def test_an_outage_is_told_with_its_path_and_its_accounts() -> None:
    """It may be over while the path is still broken: they have moved."""
    troubles = Troubles()
    troubles.row(row("proxy_failed", account=None, scope=Scope.PATH, path="de1"), 0.0)
    news = outage(troubles, "a", "b")
    assert began(news) == ("outage:i-9", "path:de1", "proxy_failed")
    assert isinstance(news[0], Began)
    assert (news[0].accounts, news[0].what) == (("a", "b"), "seen: proxy_failed")
    assert outage(troubles, "a", "b") == []
    assert began(outage(troubles, "a", "b", "c"))[0] == "outage:i-9"
    assert outage(troubles, "a", "b", "c", over=True) == [Ended("outage:i-9", "its accounts are back")]


def test_when_the_only_proxy_is_dead_it_is_the_proxy_that_is_told() -> None:
    """That nothing else works either, nobody can know."""
    troubles = Troubles()
    state(troubles, State.ONLINE, path="de1")
    assert began(outage(troubles, BOT, everywhere=True)) == ("outage:i-9", "path:de1", "proxy_failed")


def test_when_no_path_works_all_of_it_is_one_trouble() -> None:
    """And the paths are again by themselves when one works."""
    troubles = Troubles()
    state(troubles, State.ONLINE, name="other", path="de1")
    troubles.path("de1", "dead", 0.0)
    down(troubles, "connection_lost", State.RECOVERING)
    began_, account, path = outage(troubles, BOT, everywhere=True)
    assert began([began_]) == ("outage:i-9", "fleet", "unreachable")
    assert (began([account])[1], began([path])[1]) == ("fleet", "fleet")
    assert began(troubles.path("nl3", "dead", 0.0))[1] == "fleet"
    other = troubles.outage("i-1", "nl3", ("x",), 1.0, everywhere=False, over=False)
    assert began(other)[1] == "fleet"
    assert troubles.outage("i-1", "nl3", ("x",), 1.0, everywhere=False, over=True) == [
        Ended("outage:i-1", "its accounts are back")
    ]
    over, *news = outage(troubles, BOT, everywhere=True, over=True)
    assert over == Ended("outage:i-9", "its accounts are back")
    assert [each.group for each in news if isinstance(each, Began)] == [
        "path:direct",
        "path:de1",
        "path:nl3",
    ]


# --- what has no end ---


def test_what_only_a_call_has_met_happens() -> None:
    """What was raised is as loud as its number says; what is tried again, nobody has noticed yet."""
    troubles = Troubles()
    raised = troubles.row(row("code_failed", Result.RAISED, scope=Scope.CALL, count=7), 0.0)
    assert raised == [Happened(NAMES["code_failed"], BOT, "seen: code_failed", 7)]
    (again,) = troubles.row(row("server_error", scope=Scope.CALL), 0.0)
    assert isinstance(again, Happened)
    assert (again.code.number, again.code.level) == (NAMES["server_error"].number, Level.INFO)
    (stall,) = troubles.row(
        row("loop_stalled", Result.RAISED, account=None, incident=None, scope=Scope.FLEET), 0.0
    )
    assert isinstance(stall, Happened)
    assert stall.who == ""


def test_a_condition_holds_until_it_does_not() -> None:
    """The disk, the configuration."""
    troubles = Troubles()
    news = troubles.condition("record", "storage_full", "the disk is full")
    assert began(news) == ("record", "code:2002", "storage_full")
    assert troubles.present == news
    assert troubles.condition("record", "storage_full", None, how="written again") == [
        Ended("record", "written again")
    ]
