"""What a session sends: queries that wait for an answer, service messages, and the numbers they carry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from supervisor import randomness

# Acknowledgements are gathered, at most so many. After `ACKS_AFTER` they go with the next message
# (https://core.telegram.org/mtproto/service_messages_about_messages), after `ACKS_ALONE` by themselves. Seconds.
ACKS_AT_ONCE = 16
ACKS_AFTER, ACKS_ALONE = 1.0, 10.0


@dataclass(slots=True, eq=False, repr=False)
class Pending:
    """A query without an answer.

    `link` numbers the connection that last carried it, 0 for none; `refusals` counts the sendings that the
    server refused unread.
    """

    name: str
    body: bytes
    future: asyncio.Future[Any]
    msg_id: int = 0
    seq_no: int = 0
    link: int = 0
    sent_at: float = 0.0
    sends: int = 0
    refusals: int = 0

    @property
    def may_be_done(self) -> bool:
        """Whether some sending of it may have been accepted."""
        return self.sends > self.refusals

    def write(self) -> bytes:
        """The inner message as it goes over the wire, the same at each repeat."""
        return inner_message(self.msg_id, self.seq_no, self.body)


def inner_message(msg_id: int, seq_no: int, body: bytes) -> bytes:
    """A message inside its envelope (core.telegram.org/mtproto/description#encrypted-message-encrypted-data)."""
    return (
        msg_id.to_bytes(8, "little") + seq_no.to_bytes(4, "little") + len(body).to_bytes(4, "little") + body
    )


class Numbers:
    """The numbers of one MTProto session: its id, its msg_ids by the server's clock, its seq_nos."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._offset = (
            time.time() - loop.time()
        )  # server time minus the loop's: a changed wall clock does no harm
        self.session_id = b""
        self.renew()

    def renew(self) -> None:
        """Begin another session; the clock stays."""
        self.session_id = randomness.take(8)
        self._content = 0
        self._last = 0

    def server_time(self) -> float:
        """The server's clock, as far as it is known. Unix seconds."""
        return self._loop.time() + self._offset

    def learn(self, server_msg_id: int) -> None:
        """Set the clock by a message of the server, whose msg_id carries its time."""
        offset = server_msg_id / (1 << 32) - self._loop.time()
        if abs(offset - self._offset) > 1.0:
            self._offset = offset

    def msg_id(self) -> int:
        """The next msg_id: server time in 2^-32 s, divisible by 4, growing."""
        self._last = max(int(self.server_time() * (1 << 32)) & ~3, self._last + 4)
        return self._last

    def seq_no(self, *, content: bool) -> int:
        """The next seq_no: twice the content-related messages so far, plus one for another of them."""
        number = self._content * 2 + content
        self._content += content
        return number

    def oldest(self, lifetime: float) -> int:
        """The msg_id of so many seconds ago."""
        return int((self.server_time() - lifetime) * (1 << 32))


class Acks:
    """Acknowledgements that are gathered before they are sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[list[int]], None]) -> None:
        """Begin with none; `send` acknowledges messages of the server over the present link."""
        self._loop = loop
        self._send = send
        self._msg_ids: list[int] = []
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, msg_id: int) -> None:
        """Acknowledge a message, soon."""
        self._msg_ids.append(msg_id)
        if len(self._msg_ids) >= ACKS_AT_ONCE:
            self.flush()
        elif self._timer is None:
            self._since = self._loop.time()
            self._timer = self._loop.call_later(ACKS_ALONE, self.flush)

    def ride(self) -> None:
        """A message has just left: what has waited long enough goes in its company."""
        if self._msg_ids and self._loop.time() - self._since >= ACKS_AFTER:
            self.flush()

    def flush(self) -> None:
        """Acknowledge what has been gathered, now."""
        self.stop()
        if self._msg_ids:
            msg_ids, self._msg_ids = self._msg_ids, []
            self._send(msg_ids)

    def stop(self) -> None:
        """The link is gone: what has been gathered waits for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def clear(self) -> None:
        """The session is gone, and with it what was to be acknowledged in it."""
        self._msg_ids.clear()
