"""What the demo does to its accounts. A longer demo is a longer list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from supervisor.cli.demo.cast import NAMES
from supervisor.core.failure import Action, Kind, Result, State
from supervisor.datacenter import Account, Datacenter, Fault, FaultKind


class Place(Protocol):
    """Where things are broken."""

    @property
    def dc(self) -> Datacenter: ...

    async def kill_proxy_of(self, name: str) -> None:
        """Kill the proxy that an account goes through."""

    async def revive_proxies(self) -> None:
        """Start what `kill_proxy_of` has killed."""

    async def login(self, user: Account) -> None:
        """Sign a user account in, as a person does."""


Hand = Callable[[Place, Account | None], Awaitable[None]]
"""Does something; the account is the one that it is done to, None stands for all."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be seen of each account that a step concerns, before the next step.

    Args:
        kind: the failure.
        action: what is done about it.
        outcome: how it ends.
        state: the account's, then.
        or_else: another failure and action, of those to whom it looks like that.
    """

    kind: Kind
    action: Action
    outcome: Result = Result.RECOVERED
    state: State = State.ONLINE
    or_else: tuple[Kind, Action] | None = None

    def is_met_by(self, row: dict[str, Any]) -> bool:
        """Whether this row of the log is what must be seen."""
        seen = (row["kind"], row["action"])
        return row["outcome"] == self.outcome and seen in ((self.kind, self.action), self.or_else)

    @property
    def is_down(self) -> bool:
        """Whether the account is to stay down until a person does something."""
        return self.state is not State.ONLINE

    @property
    def in_words(self) -> str:
        """What the account is to do."""
        return f"become {self.state}" if self.is_down else "recover"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done, most often to break something.

    Args:
        name: it, in a few words, at most 17 characters.
        begin: does it.
        expected: what must come of that.
        account: to whom it is done; None for all.
        lasts: seconds until `end`.
        end: mends it again; None where nothing has to be mended.
        takes: seconds until it is over, about; for planning.
        within: seconds from its end, after which what was expected will not come any more.
        mends: it breaks nothing, but mends what an earlier step broke.
    """

    name: str
    begin: Hand
    expected: Expected
    account: str | None = None
    lasts: float = 0.0
    end: Hand | None = None
    takes: float = 0.5
    within: float = 20.0
    mends: bool = False

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that it concerns."""
        return (self.account,) if self.account else NAMES


def _answer_with(code: int, error: str, count: int = 1) -> Hand:
    """The next messages are answered with an error."""

    async def begin(place: Place, account: Account | None) -> None:
        fault = Fault(FaultKind.RPC_ERROR, _id(account), "messages.SendMessage", count, code, error)
        place.dc.faults.add(fault)

    return begin


async def _reset(place: Place, account: Account | None) -> None:
    place.dc.reset_links(account)


async def _lose_an_answer(place: Place, account: Account | None) -> None:
    """The next message is delivered, and the connection reset before its answer is sent."""
    place.dc.faults.add(Fault(FaultKind.DROP_AFTER, _id(account), "messages.SendMessage"))


async def _go_away(place: Place, _: Account | None) -> None:
    await place.dc.go_away()


async def _come_back(place: Place, _: Account | None) -> None:
    await place.dc.come_back()


async def _kill_proxy(place: Place, account: Account | None) -> None:
    await place.kill_proxy_of(_one(account).first_name)


async def _revive_proxies(place: Place, _: Account | None) -> None:
    await place.revive_proxies()


async def _forget_key(place: Place, account: Account | None) -> None:
    """The key is unknown from now on: -404 to whoever uses it."""
    place.dc.forget_keys(_one(account))


async def _kill_token(place: Place, account: Account | None) -> None:
    place.dc.kill_token(_one(account))


async def _revoke(place: Place, account: Account | None) -> None:
    place.dc.revoke(_one(account))


async def _login(place: Place, account: Account | None) -> None:
    await place.login(_one(account))


def _id(account: Account | None) -> int | None:
    return None if account is None else account.user_id


def _one(account: Account | None) -> Account:
    """The account of a step that is not for all."""
    assert account is not None
    return account


_RECONNECTED = Expected(Kind.CONNECTION, Action.RECONNECT)
# Two proxies that cannot reach the server are no better than broken ones.
_RECONNECTED_SOMEHOW = replace(_RECONNECTED, or_else=(Kind.PROXY, Action.ROTATE_PROXY))
_SIGNED_IN = Expected(Kind.AUTH, Action.RELOGIN)

STEPS = (
    Step("connections reset", _reset, _RECONNECTED),
    Step("server gone 5 s", _go_away, _RECONNECTED_SOMEHOW, lasts=5.0, end=_come_back, takes=6.0),
    Step(
        "FLOOD_WAIT_3",
        _answer_with(420, "FLOOD_WAIT_3"),
        Expected(Kind.FLOOD_WAIT, Action.WAIT),
        account="news-bot",
        takes=4.0,
    ),
    Step(
        "500 RPC_CALL_FAIL",
        _answer_with(500, "RPC_CALL_FAIL", count=2),
        Expected(Kind.TEMPORARY, Action.RETRY),
        account="orders-bot",
        takes=2.0,
    ),
    Step("answer lost", _lose_an_answer, _RECONNECTED, account="support-bot"),
    Step(
        "proxy dead",
        _kill_proxy,
        Expected(Kind.PROXY, Action.ROTATE_PROXY),
        account="shop-bot",
        lasts=3.0,
        end=_revive_proxies,
        takes=3.5,
    ),
    Step("key lost", _forget_key, _SIGNED_IN, account="news-bot", takes=5.0),
    Step(
        "token replaced",
        _kill_token,
        Expected(Kind.AUTH, Action.FAIL, Result.FAILED, State.FAILED),
        account="promo-bot",
        takes=2.0,
    ),
    Step(
        "session revoked",
        _revoke,
        Expected(Kind.AUTH, Action.FAIL, Result.NEEDS_LOGIN, State.NEEDS_LOGIN),
        account="sales-user",
        takes=2.0,
    ),
    Step("login by a person", _login, _SIGNED_IN, account="sales-user", takes=2.0, mends=True),
)
