"""What the demo breaks. A longer demo is a longer list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from supervisor.core.failure import Action, Kind, Result, State
from supervisor.datacenter import Datacenter, Fault, FaultKind

BOTS = ("support-bot", "news-bot", "orders-bot")

Hand = Callable[[Datacenter, int | None], Awaitable[None]]
"""Does something to the datacenter; the number is the bot it is done to, None stands for all."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be seen of each account that a step concerns, before the next step."""

    kind: Kind
    action: Action
    outcome: Result = Result.RECOVERED
    state: State = State.ONLINE


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is broken.

    Args:
        name: it, in a few words.
        begin: breaks it.
        expected: what must come of that.
        account: to whom it is done; None for all.
        lasts: seconds until `end`.
        end: mends it again; None where nothing has to be mended.
        takes: seconds until it is over, about; for planning.
        within: seconds from its end, after which what was expected will not come any more.
    """

    name: str
    begin: Hand
    expected: Expected
    account: str | None = None
    lasts: float = 0.0
    end: Hand | None = None
    takes: float = 0.5
    within: float = 20.0

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that it concerns."""
        return (self.account,) if self.account else BOTS


def whose(names: Sequence[str]) -> str:
    """Accounts in a few words."""
    return f"all {len(BOTS)}" if set(names) == set(BOTS) else ", ".join(dict.fromkeys(names))


def _answer_with(code: int, error: str) -> Hand:
    """The next message is answered with an error."""

    async def begin(dc: Datacenter, bot: int | None) -> None:
        dc.faults.add(Fault(FaultKind.RPC_ERROR, bot, "messages.SendMessage", code=code, error=error))

    return begin


async def _reset(dc: Datacenter, bot: int | None) -> None:
    dc.reset_links(bot)


async def _lose_an_answer(dc: Datacenter, bot: int | None) -> None:
    """The next message is delivered, and the connection reset before its answer is sent."""
    dc.faults.add(Fault(FaultKind.DROP_AFTER, bot, "messages.SendMessage"))


async def _go_away(dc: Datacenter, _: int | None) -> None:
    await dc.go_away()


async def _come_back(dc: Datacenter, _: int | None) -> None:
    await dc.come_back()


_RECONNECTED = Expected(Kind.CONNECTION, Action.RECONNECT)

STEPS = (
    Step("connections reset", _reset, _RECONNECTED),
    Step("server gone 5 s", _go_away, _RECONNECTED, lasts=5.0, end=_come_back, takes=6.0),
    Step(
        "FLOOD_WAIT_3",
        _answer_with(420, "FLOOD_WAIT_3"),
        Expected(Kind.FLOOD_WAIT, Action.WAIT),
        account="news-bot",
        takes=4.0,
    ),
    Step(
        "500 RPC_CALL_FAIL",
        _answer_with(500, "RPC_CALL_FAIL"),
        Expected(Kind.TEMPORARY, Action.RETRY),
        account="orders-bot",
        takes=1.5,
    ),
    Step("answer lost", _lose_an_answer, _RECONNECTED, account="support-bot"),
)
