"""JSON commands for a datacenter that runs as a process of its own: ``{"do": "fault", "kind": "silence", …}``.

`do` names one of `COMMANDS`; the other members are its arguments. Accounts are given by user id. The answer is
``{"ok": true, "result": …}`` or ``{"ok": false, "error": "…"}``.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .faults import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from .server import Datacenter
    from .world import Account, Channel

_SETTINGS = ("latency", "clock_offset", "send_limit")


class Commands:
    """Carries out commands on one datacenter."""

    def __init__(self, dc: Datacenter) -> None:
        self._dc = dc

    async def line(self, line: str) -> str:
        """Carry out one line; the answer is a line too, without its end."""
        try:
            command = json.loads(line)
            answer = {"ok": True, "result": await self.run(command)}
        except Exception as error:  # noqa: BLE001 - whatever was wrong with a command is its sender's to know
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        return json.dumps(answer)

    async def run(self, command: dict[str, Any]) -> Any:
        """Carry out one command; raises `ValueError` or `TypeError` where it is none."""
        arguments = dict(command)
        name = arguments.pop("do", None)
        if name not in COMMANDS:
            raise ValueError(f"do is one of {', '.join(sorted(COMMANDS))}")
        result = COMMANDS[name](self, **arguments)
        return await result if inspect.isawaitable(result) else result

    def _account(self, user_id: int) -> Account:
        account = self._dc.engine.world.accounts.get(user_id)
        if account is None:
            raise ValueError(f"there is no account {user_id}")
        return account

    async def go_away(self) -> None:
        await self._dc.go_away()

    async def come_back(self) -> None:
        await self._dc.come_back()

    def fault(self, kind: str, **fields: Any) -> None:
        self._dc.faults.add(Fault(FaultKind(kind), **fields))

    def clear_faults(self) -> None:
        self._dc.faults.clear()

    def transport_error(self, code: int, account: int | None = None, count: int | None = None) -> None:
        self._dc.transport_error(code, account, count)

    def endless_salts(self, account: int | None = None) -> None:
        self._dc.endless_salts(account)

    def ban(self, account: int) -> None:
        self._dc.ban(self._account(account))

    def kill_token(self, account: int, revoke: bool = True) -> None:
        self._dc.kill_token(self._account(account), revoke=revoke)

    def issue_key(self, account: int) -> str:
        return self._dc.issue_key(self._account(account)).hex()

    def add_bot(self, token: str | None = None) -> dict[str, Any]:
        bot = self._dc.add_bot(token)
        return {"token": bot.token, "user_id": bot.user_id}

    def add_supergroup(self, title: str, members: list[int]) -> int:
        """Answered with the marked id, by which both client libraries know it."""
        return self._dc.add_supergroup(title, [self._account(user_id) for user_id in members]).peer_id

    def _group(self, peer_id: int) -> Channel:
        for channel in self._dc.engine.world.channels.values():
            if channel.peer_id == peer_id:
                return channel
        raise ValueError(f"there is no supergroup {peer_id}")

    def _chat(self, peer_id: int | None) -> Channel | None:
        return None if peer_id is None else self._group(peer_id)

    def push(
        self,
        account: int,
        text: str,
        from_user: int | None = None,
        *,
        chat: int | None = None,
        form: str = "updates",
    ) -> int:
        group = self._chat(chat)
        return self._dc.push_message(self._account(account), text, from_user, chat=group, form=form)

    def edit_message(self, account: int, message_id: int, text: str, chat: int | None = None) -> None:
        self._dc.edit_message(self._account(account), message_id, text, self._chat(chat))

    def delete_messages(self, account: int, ids: list[int], chat: int | None = None) -> None:
        self._dc.delete_messages(self._account(account), ids, self._chat(chat))

    def updates_too_long(self, account: int) -> int:
        return self._dc.updates_too_long(self._account(account))

    def channel_too_long(self, account: int, chat: int) -> int:
        return self._dc.channel_too_long(self._account(account), self._group(chat))

    def forget_updates(self, account: int) -> None:
        self._dc.forget_updates(self._account(account))

    def push_undecryptable(self, account: int) -> int:
        return self._dc.push_undecryptable(self._account(account))

    def push_unknown(self, account: int) -> int:
        return self._dc.push_unknown(self._account(account))

    def settings(self, **values: float) -> dict[str, float]:
        for name, value in values.items():
            if name not in _SETTINGS:
                raise ValueError(f"settings are {', '.join(_SETTINGS)}")
            setattr(self._dc, name, value)
        return {name: getattr(self._dc, name) for name in _SETTINGS}

    def seen(self) -> dict[str, Any]:
        return self._dc.seen.summary()

    def sends(self, account: int) -> list[dict[str, Any]]:
        return [asdict(sent) for sent in self._dc.seen.sends.get(account, [])]

    def pushed(self, account: int) -> list[dict[str, Any]]:
        return [asdict(pushed) for pushed in self._dc.seen.pushed.get(account, [])]

    def connections(self) -> list[dict[str, Any]]:
        return [asdict(connection) for connection in self._dc.seen.connections]

    def reset_seen(self) -> None:
        self._dc.seen.reset()


def _through(name: str) -> Callable[..., Any]:
    """A command that is a method of the datacenter as it is."""

    def run(commands: Commands, **arguments: Any) -> Any:
        return getattr(commands._dc, name)(**arguments)  # noqa: SLF001 - part of the class above

    return run


_AS_IT_IS = (
    "reset_links",
    "close_links",
    "silent",
    "speak",
    "receive_new",
    "stop_reading",
    "read_again",
    "stop_updates",
    "resume_updates",
    "drop_updates",
    "refuse_handshakes",
    "revoke",
    "expire",
    "forget_keys",
    "rotate_salts",
    "forget_sessions",
)
COMMANDS: dict[str, Callable[..., Any]] = {
    "go_away": Commands.go_away,
    "come_back": Commands.come_back,
    "fault": Commands.fault,
    "clear_faults": Commands.clear_faults,
    "transport_error": Commands.transport_error,
    "endless_salts": Commands.endless_salts,
    "ban": Commands.ban,
    "kill_token": Commands.kill_token,
    "issue_key": Commands.issue_key,
    "add_bot": Commands.add_bot,
    "add_supergroup": Commands.add_supergroup,
    "push": Commands.push,
    "edit_message": Commands.edit_message,
    "delete_messages": Commands.delete_messages,
    "channel_too_long": Commands.channel_too_long,
    "forget_updates": Commands.forget_updates,
    "updates_too_long": Commands.updates_too_long,
    "push_undecryptable": Commands.push_undecryptable,
    "push_unknown": Commands.push_unknown,
    "settings": Commands.settings,
    "seen": Commands.seen,
    "sends": Commands.sends,
    "pushed": Commands.pushed,
    "connections": Commands.connections,
    "reset_seen": Commands.reset_seen,
    **{name: _through(name) for name in _AS_IT_IS},
}
