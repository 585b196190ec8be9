"""The server's end of an encrypted session, in memory: it reads what a session sends, and says what a test wants."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from dataclasses import dataclass
from hashlib import sha1, sha256
from typing import Any

from supervisor.core.failure import Evidence
from supervisor.telegram.dial import Route
from supervisor.telegram.session import Credentials, MtprotoSession, Timings
from supervisor.telegram.wire import WireClosed

KEY = bytes(range(256))
KEY_ID = sha1(KEY).digest()[-8:]
CREDENTIALS = Credentials(KEY, api_id=1, authorized=True)
ROUTE = Route("direct", "127.0.0.1", 443)
CONTAINER, GZIP, RESULT, VECTOR = (
    struct.pack("<I", number) for number in (0x73F1F8DC, 0x3072CFA1, 0xF35C6D01, 0x1CB5C415)
)


def tl_bytes(data: bytes) -> bytes:
    """A TL string, of any length that one can have."""
    if len(data) < 254:
        head = bytes((len(data),))
    else:
        head = b"\xfe" + len(data).to_bytes(3, "little")
    return head + data + bytes(-(len(head) + len(data)) % 4)


def inner(msg_id: int, seq_no: int, body: bytes) -> bytes:
    """A message as it stands in a container."""
    return struct.pack("<qii", msg_id, seq_no, len(body)) + body


def container(*messages: bytes) -> bytes:
    """A container of messages."""
    return CONTAINER + struct.pack("<I", len(messages)) + b"".join(messages)


@dataclass(frozen=True)
class Asked:
    """A message of the client's."""

    msg_id: int
    seq_no: int
    body: bytes


class Server:
    """Seals and opens packets; the wire's other end. What the session sends is in `asked`."""

    def __init__(self) -> None:
        from pyrogram.crypto import aes, mtproto

        self._aes: Any = aes
        self._kdf: Any = mtproto.kdf
        self.session_id = b""
        self.asked: list[Asked] = []
        self._last = 0

    # --- the wire, as far as a session knows it ---------------------------------------------------------

    closed = False
    write_buffer_size = 0

    @property
    def last_received(self) -> float:
        return asyncio.get_running_loop().time()

    def taken(self) -> int:
        return 0

    def abort(self, _evidence: Evidence | None = None) -> None:
        self.closed = True

    def send(self, packet: bytes) -> None:
        if self.closed:
            raise WireClosed("closed")
        assert packet[:8] == KEY_ID
        plain = self._aes.ige256_decrypt(packet[24:], *self._kdf(KEY, packet[8:24], True))
        assert sha256(KEY[88:120] + plain).digest()[8:24] == packet[8:24]
        self.session_id = plain[8:16]
        msg_id, seq_no, length = struct.unpack_from("<qii", plain, 16)
        self.asked.append(Asked(msg_id, seq_no, plain[32 : 32 + length]))

    # --- what the server says ---------------------------------------------------------------------------

    def msg_id(self, *, answer: bool = True) -> int:
        """The server's next msg_id."""
        self._last = max((int(time.time() * 2**32) & ~3) | (1 if answer else 3), self._last + 4)
        return self._last

    def seal(self, body: bytes, *, msg_id: int | None = None, seq_no: int = 1) -> bytes:
        """A packet with one message."""
        return self.sealed(inner(self.msg_id() if msg_id is None else msg_id, seq_no, body))

    def sealed(self, message: bytes) -> bytes:
        """A packet with whatever stands for a message."""
        plain = bytes(8) + self.session_id + message
        plain += os.urandom(-(len(plain) + 12) % 16 + 12)
        msg_key = sha256(KEY[96:128] + plain).digest()[8:24]
        return KEY_ID + msg_key + bytes(self._aes.ige256_encrypt(plain, *self._kdf(KEY, msg_key, False)))

    def answers(self, asked: Asked) -> bytes | None:
        """What an honest server answers to the greeting, and to what proves the link; None to anything else."""
        from pyrogram import raw

        constructor = int.from_bytes(asked.body[:4], "little")
        if constructor == raw.functions.Ping.ID:
            return bytes(raw.types.Pong(msg_id=asked.msg_id, ping_id=0).write())
        if constructor == raw.functions.InvokeWithLayer.ID:
            return (
                RESULT
                + struct.pack("<q", asked.msg_id)
                + bytes(raw.types.NearestDc(country="", this_dc=2, nearest_dc=2).write())
            )
        if constructor == raw.functions.updates.GetState.ID:
            state = raw.types.updates.State(pts=1, qts=1, date=1, seq=1, unread_count=0)
            return RESULT + struct.pack("<q", asked.msg_id) + bytes(state.write())
        return None


class Owner:
    """Stands behind a session, and holds what it tells."""

    def __init__(self) -> None:
        self.lost: list[Evidence] = []
        self.updates: list[Any] = []

    def link_lost(self, evidence: Evidence) -> None:
        self.lost.append(evidence)

    def link_overdue(self) -> None: ...

    def link_answers(self, outstanding: int) -> None: ...


def new_session(owner: Owner, timings: Timings) -> MtprotoSession:
    """A session that wraps its first query as short as can be."""
    from pyrogram import raw

    def wrap(query: Any, *_: Any) -> Any:
        return raw.functions.InvokeWithLayer(layer=1, query=query)

    return MtprotoSession(owner, owner.updates.append, wrap, timings)


async def greeted(session: MtprotoSession, server: Server) -> None:
    """Open the session with an honest server."""
    wire: Any = server
    opening = asyncio.create_task(session.open(wire, ROUTE, CREDENTIALS))
    told = 0
    while not opening.done():
        await asyncio.sleep(0)
        for asked in server.asked[told:]:
            told += 1
            if (answer := server.answers(asked)) is not None:
                session.packet_received(server.seal(answer))
    await opening
