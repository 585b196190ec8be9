"""Bots on a datacenter that answers their calls with errors, and what must come of that, for `test_every_id`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyrogram import raw
from pyrogram.errors import RPCError
from pyrogram.errors.exceptions.all import exceptions

from supervisor.core.failure import DEFAULT_POLICIES
from supervisor.datacenter import Datacenter, Fault, FaultKind
from tests.integration.conftest import PERSON, Fleet
from tests.integration.every_id import Line

TYPING, SEND, IMPORT = "messages.SetTyping", "messages.SendMessage", "auth.ImportBotAuthorization"
# Nothing is waited for that Telegram does not demand, and whatever happens next is another incident.
SETTINGS: dict[str, Any] = {
    "stable_after": 0.0,
    "sign_ins_per_hour": 1000,
    "sign_ins_per_day": 1000,
    "max_wait": 5.0,
}
QUICK = {
    kind: replace(policy, base_delay=policy.base_delay / 1000) for kind, policy in DEFAULT_POLICIES.items()
}
Row = tuple[Any, ...]


class Bench:
    """Bots whose calls Telegram answers with errors; what does not agree with the table is collected."""

    def __init__(self, dc: Datacenter, directory: Path, bots: int = 1) -> None:
        self.dc = dc
        self.fleet = Fleet(dc, directory, bots, **SETTINGS)
        self.fleet.config = replace(self.fleet.config, policies=QUICK)
        self.wrong: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the bots; at the end nothing may have been wrong."""
        async with self.fleet.running():
            yield
        assert not self.wrong

    def fault(self, line: Line, method: str | None = TYPING, bot: int = 0, count: int | None = 1) -> Fault:
        user_id = self.fleet.bots[bot].user_id
        return self.dc.faults.add(
            Fault(FaultKind.RPC_ERROR, user_id, method, count, code=line.code, error=line.sent)
        )

    def check(self, line: Line, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            self.wrong.append(f"{line.code} {line.sent}: {what}: {found!r}, not {expected!r}")

    async def client(self, name: str = "bot-0") -> Any:
        return await self.fleet.sup.client(name)

    async def type(self, name: str = "bot-0") -> Any:
        """An ordinary call that acts, carries no random_id, and answers with a Bool."""
        fleet = self.fleet
        bot = fleet.bots[fleet.names.index(name)]
        peer = raw.types.InputPeerUser(user_id=PERSON, access_hash=self.dc.access_hash(bot, fleet.person))
        query = raw.functions.messages.SetTyping(peer=peer, action=raw.types.SendMessageTypingAction())
        return await outcome((await self.client(name)).invoke(query))

    def calls(self, method: str = TYPING, bot: int = 0) -> int:
        return self.dc.seen.count(method, self.fleet.bots[bot].user_id)

    async def rows(self, name: str) -> list[dict[str, Any]]:
        return [row for row in await self.fleet.rows() if row["account"] == name]


async def outcome(call: Any) -> Any:
    """What a call gives, or what it raises."""
    try:
        return await call
    except Exception as error:
        return error


def is_the_librarys(line: Line, error: Any) -> bool:
    """Whether it is the exception that the installed library has for this id, or its generic one with the text."""
    known = exceptions.get(line.code, {}).get(
        line.error_id.replace("PART_0", "PART_X")
    )  # both rewrite that one
    if not isinstance(error, RPCError):
        return False
    return type(error).__name__ == known if known else str(error.value) == f"[{line.code} {line.sent}]"


def told(line: Line, *, kind: str | None = None, scope: str | None = None) -> Callable[[str, str], Row]:
    """Make a row as the record must have it: action, outcome."""
    return lambda action, result: (
        line.error_id, line.code, kind or line.kind, scope or line.scope, action, result,
    )  # fmt: skip


def shown(rows: Iterable[dict[str, Any]]) -> list[Row]:
    """The rows of the record in the same form."""
    keys = ("error_id", "error_code", "kind", "scope", "action", "outcome")
    return [tuple(row[key] for key in keys) for row in rows]


def compare(found: Sequence[Row], expected: Sequence[Row]) -> None:
    """Two records, row for row."""
    different = [pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]]
    assert not different, different[:5]
    assert len(found) == len(expected)
