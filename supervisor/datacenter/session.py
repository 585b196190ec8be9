"""MTProto sessions: message identifiers, sequence numbers, and the answers a client hasn't acknowledged yet.

core.telegram.org/mtproto/description (msg_id, seq_no) and core.telegram.org/mtproto/service_messages_about_messages
(acknowledgements, bad_msg_notification). No I/O and no clock here.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import Connection
    from .keys import AuthKey

PAST, FUTURE = (
    300,
    30,
)  # seconds a msg_id may be off, core.telegram.org/mtproto/description#message-identifier-msg-id
MAX_KNOWN = 8192  # messages of the client that a session remembers
MAX_UNACKED = 4096  # messages to the client that it keeps for sending again

TOO_LOW, TOO_HIGH, WRONG_PARITY, CONTAINER_REPEATED, TOO_OLD = 16, 17, 18, 19, 20
SEQ_TOO_LOW, SEQ_TOO_HIGH, SEQ_NOT_EVEN, SEQ_NOT_ODD = 32, 33, 34, 35
WRONG_SALT, BAD_CONTAINER = 48, 64


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message to the client. `query` is the msg_id that an answer belongs to, `names` the method's and its wrappers'."""

    msg_id: int
    seq_no: int
    body: bytes
    query: int = 0
    names: tuple[str, ...] = ()

    def __bytes__(self) -> bytes:
        head = self.msg_id.to_bytes(8, "little", signed=True) + self.seq_no.to_bytes(4, "little")
        return head + len(self.body).to_bytes(4, "little") + self.body


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message of the client, alone in its packet or out of a container, received at `tick`."""

    msg_id: int
    seq_no: int
    body: bytes
    tick: int


@dataclass(slots=True)
class Received:
    """A message of the client that was accepted: its seq_no, its answer while that is kept, and how it ended."""

    seq_no: int
    is_query: bool = False
    answer: Outgoing | None = None
    failed: bool = False


@dataclass(slots=True, eq=False)
class Session:
    """One MTProto session of a key. It outlives its connections."""

    id: bytes
    key: AuthKey
    connection: Connection | None = None
    wants_updates: bool = False
    unique_id: bytes = field(default_factory=lambda: os.urandom(8))
    unacked: dict[int, Outgoing] = field(default_factory=dict)
    known: dict[int, Received] = field(default_factory=dict)
    _order: list[int] = field(default_factory=list)
    _floor: int = 0
    _last_msg_id: int = 0
    _content_sent: int = 0

    def judge(self, msg_id: int, seq_no: int, needs_ack: bool | None) -> int:
        """The bad_msg code for a new message, or 0. `needs_ack` is None where the client may have it either way."""
        if needs_ack is not None and seq_no % 2 != needs_ack:
            return SEQ_NOT_ODD if needs_ack else SEQ_NOT_EVEN
        if msg_id <= self._floor:
            return TOO_OLD
        return self._judge_order(msg_id, seq_no)

    def _judge_order(self, msg_id: int, seq_no: int) -> int:
        place = bisect_left(self._order, msg_id)
        if place:
            before = self.known[self._order[place - 1]].seq_no
            if before > seq_no or (before == seq_no and seq_no % 2):
                return SEQ_TOO_LOW
        if place < len(self._order):
            after = self.known[self._order[place]].seq_no
            if after < seq_no or (after == seq_no and seq_no % 2):
                return SEQ_TOO_HIGH
        return 0

    def remember(self, msg_id: int, seq_no: int, *, is_query: bool = False) -> Received:
        """Take a message as received."""
        received = self.known[msg_id] = Received(seq_no, is_query)
        if not self._order or msg_id > self._order[-1]:
            self._order.append(msg_id)
        else:
            self._order.insert(bisect_left(self._order, msg_id), msg_id)
        if len(self._order) > MAX_KNOWN:
            self._forget_oldest(MAX_KNOWN // 4)
        return received

    def _forget_oldest(self, count: int) -> None:
        self._floor = self._order[count - 1]
        for msg_id in self._order[:count]:
            del self.known[msg_id]
        del self._order[:count]

    def make(self, body: bytes, now: float, *, content: bool, answer: bool) -> Outgoing:
        """Number a message to the client; `now` is the server's time in seconds."""
        msg_id = int(now * 2**32) & ~3 | (1 if answer else 3)
        if msg_id <= self._last_msg_id:
            msg_id = (self._last_msg_id & ~3) + 4 | (1 if answer else 3)
        self._last_msg_id = msg_id
        seq_no = self._content_sent * 2 + content
        self._content_sent += content
        return Outgoing(msg_id, seq_no, body)

    def keep(self, outgoing: Outgoing) -> None:
        """Hold a message for sending again until it is acknowledged."""
        self.unacked[outgoing.msg_id] = outgoing
        if len(self.unacked) > MAX_UNACKED:
            self.acknowledge(next(iter(self.unacked)))

    def acknowledge(self, msg_id: int) -> None:
        """The client has message `msg_id`."""
        outgoing = self.unacked.pop(msg_id, None)
        if outgoing is not None and (received := self.known.get(outgoing.query)) is not None:
            received.answer = None

    def is_below_floor(self, msg_id: int) -> bool:
        return msg_id <= self._floor


def judge_identifier(msg_id: int, now: float) -> int:
    """The bad_msg code for a msg_id whatever the session, or 0. `now` is the server's time in seconds."""
    if msg_id % 4:
        return WRONG_PARITY
    seconds = msg_id / 2**32
    if seconds < now - PAST:
        return TOO_LOW
    if seconds > now + FUTURE:
        return TOO_HIGH
    return 0
