"""A small MTProto client that does exactly what a test tells it: no retry, no acknowledgement, no reconnect.

It packs, unpacks and encrypts with the client library's own code, so that the datacenter is judged by a third party.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from hashlib import sha1, sha256
from io import BytesIO
from types import TracebackType
from typing import Any

from supervisor.datacenter import Account, Datacenter

WAIT = 5.0  # seconds, for anything that is expected to come
QUIET = 0.15  # seconds of silence that count as "nothing comes"


def raw() -> Any:
    from pyrogram import raw

    return raw


class Link:
    """One TCP connection in one of the transports."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, transport: str = "abridged"
    ) -> None:
        self._reader, self._writer, self._transport = reader, writer, transport

    @classmethod
    async def open(cls, dc: Datacenter, transport: str = "abridged") -> Link:
        reader, writer = await asyncio.open_connection(dc.host, dc.port)
        first = {"abridged": b"\xef", "intermediate": b"\xee" * 4, "padded": b"\xdd" * 4, "none": b""}
        writer.write(first[transport])
        return cls(reader, writer, transport)

    async def __aenter__(self) -> Link:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def transport(self) -> asyncio.WriteTransport:
        return self._writer.transport

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def send(self, packet: bytes) -> None:
        if self._transport == "abridged":
            words = len(packet) // 4
            head = bytes([words]) if words < 127 else b"\x7f" + words.to_bytes(3, "little")
            self._writer.write(head + packet)
            return
        if self._transport == "padded":
            packet += os.urandom(7)
        self._writer.write(len(packet).to_bytes(4, "little") + packet)

    async def receive(self, wait: float = WAIT) -> bytes | None:
        """The next packet; None where the connection ends, in order or by reset."""
        try:
            async with asyncio.timeout(wait):
                return await self._receive()
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def _receive(self) -> bytes:
        if self._transport != "abridged":
            size = int.from_bytes(await self._reader.readexactly(4), "little")
            packet = await self._reader.readexactly(size)
            encrypted = self._transport == "padded" and any(packet[:8])
            return packet[: size - (size - 24) % 16] if encrypted else packet
        head = (await self._reader.readexactly(1))[0]
        words = head if head != 127 else int.from_bytes(await self._reader.readexactly(3), "little")
        return await self._reader.readexactly(words * 4)

    async def is_reset(self) -> bool:
        """Wait for the end of the connection; whether it was a reset."""
        try:
            async with asyncio.timeout(WAIT):
                while await self._reader.read(65536):
                    pass
        except ConnectionResetError:
            return True
        return False

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


class Peer:
    """One MTProto session of one key, over one link at a time."""

    def __init__(
        self, dc: Datacenter, key: bytes, salt: bytes = bytes(8), session_id: bytes | None = None
    ) -> None:
        self.dc, self.key, self.salt = dc, key, salt
        self.session_id = session_id or os.urandom(8)
        self.link: Link | None = None
        self._content = 0
        self._last = 0
        self.received: list[Any] = []

    @classmethod
    async def signed_in(cls, dc: Datacenter, account: Account, *, transport: str = "abridged") -> Peer:
        """A session of an account that has said hello: key, salt and InitConnection are done."""
        key = dc.issue_key(account)
        peer = cls(dc, key, next(found.salt for found in dc.engine.keys.of(None) if found.key == key))
        await peer.connect(transport)
        await peer.hello()
        return peer

    async def connect(self, transport: str = "abridged") -> Link:
        self.link = await Link.open(self.dc, transport)
        return self.link

    async def close(self) -> None:
        if self.link is not None:
            await self.link.close()
            self.link = None

    async def hello(self, query: Any = None) -> Any:
        return await self.ask(hello(query))

    def next_id(self, offset: float = 0.0) -> int:
        msg_id = int((time.time() + self.dc.clock_offset + offset) * 2**32) & ~3
        if not offset:
            msg_id = self._last = max(msg_id, self._last + 4)
        return msg_id

    def next_seq(self, content: bool = True) -> int:
        seq_no = 2 * self._content + content
        self._content += content
        return seq_no

    def say(
        self, body: Any, *, content: bool = True, msg_id: int | None = None, seq_no: int | None = None
    ) -> int:
        """Send one message; give its msg_id."""
        msg_id = self.next_id() if msg_id is None else msg_id
        seq_no = self.next_seq(content) if seq_no is None else seq_no
        self.say_message(self.message(body, msg_id, seq_no))
        return msg_id

    @staticmethod
    def message(body: Any, msg_id: int, seq_no: int) -> Any:
        from pyrogram.raw.core import Message

        return Message(body, msg_id, seq_no, len(body.write()))

    def say_message(self, message: Any) -> None:
        from pyrogram.crypto import mtproto

        assert self.link is not None
        salt = int.from_bytes(self.salt, "little", signed=True)
        self.link.send(mtproto.pack(message, salt, self.session_id, self.key, sha1(self.key).digest()[-8:]))

    async def packet(self, wait: float = WAIT) -> list[Any] | None:
        """The messages of the next packet; None at the end of the connection."""
        from pyrogram.crypto import mtproto
        from pyrogram.raw.core import MsgContainer

        assert self.link is not None
        packet = await self.link.receive(wait)
        if packet is None:
            return None
        if len(packet) == 4:
            raise TransportError(int.from_bytes(packet, "little", signed=True))
        message = mtproto.unpack(BytesIO(packet), self.session_id, self.key, sha1(self.key).digest()[-8:])
        messages = message.body.messages if isinstance(message.body, MsgContainer) else [message]
        self.received += messages
        return list(messages)

    async def until(self, wanted: Callable[[Any], bool], wait: float = WAIT) -> Any:
        """The first message that is wanted, those received before included once."""
        async with asyncio.timeout(wait):
            while True:
                for message in self.received:
                    if wanted(message):
                        self.received.remove(message)
                        return message
                if await self.packet(wait) is None:
                    raise ConnectionError("the server closed")

    async def answer_message(self, msg_id: int, wait: float = WAIT) -> Any:
        """The message in which the answer to `msg_id` comes, whatever kind of answer."""

        def concerns(message: Any) -> bool:
            body = message.body
            return msg_id in (
                getattr(body, "req_msg_id", None),
                getattr(body, "bad_msg_id", None),
                getattr(body, "msg_id", None),
            )

        return await self.until(concerns, wait)

    async def answer(self, msg_id: int, wait: float = WAIT) -> Any:
        body = (await self.answer_message(msg_id, wait)).body
        return getattr(body, "result", body)

    async def ask(self, query: Any, **how: Any) -> Any:
        return await self.answer(self.say(query, **how))

    async def error(self, query: Any) -> str:
        """Ask, and expect an error: ``"400 PEER_ID_INVALID"``."""
        answer = await self.ask(query)
        assert isinstance(answer, raw().types.RpcError), answer
        return f"{answer.error_code} {answer.error_message}"

    async def is_quiet(self, wait: float = QUIET) -> bool:
        try:
            return await self.packet(wait) is not None and False
        except TimeoutError:
            return True

    def ack(self, *messages: Any) -> None:
        acked = raw().types.MsgsAck(msg_ids=[message.msg_id for message in messages])
        self.say(acked, content=False)


class TransportError(Exception):
    """The server answered with a transport error."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def hello(query: Any = None) -> Any:
    """InvokeWithLayer(InitConnection(query)), help.getConfig if nothing else."""
    functions = raw().functions
    from pyrogram.raw.all import layer

    init = functions.InitConnection(
        api_id=1,
        device_model="test",
        system_version="1",
        app_version="1",
        system_lang_code="en",
        lang_pack="",
        lang_code="en",
        query=query or functions.help.GetConfig(),
    )
    return functions.InvokeWithLayer(layer=layer, query=init)


def send_message(
    dc: Datacenter, account: Account, text: str, random_id: int | None = None, **other: Any
) -> Any:
    """messages.sendMessage to the default person, as a raw query."""
    peer = raw().types.InputPeerUser(
        user_id=dc.person.user_id, access_hash=dc.access_hash(account, dc.person)
    )
    random_id = int.from_bytes(os.urandom(7), "big") + 1 if random_id is None else random_id
    fields = {"peer": peer, "message": text, "random_id": random_id, **other}
    return raw().functions.messages.SendMessage(**fields)


class Exchange:
    """The client's side of the key exchange, a step at a time, so that a test can spoil any of them."""

    def __init__(self, dc: Datacenter, link: Link) -> None:
        self.dc, self.link = dc, link
        self.nonce = int.from_bytes(os.urandom(16), "little", signed=True)
        self.new_nonce = os.urandom(32)
        self.res_pq: Any = None
        self.inner: Any = None
        self.key = b""

    async def ask(self, query: Any) -> Any:
        body = query.write()
        msg_id = int(time.time() * 2**32) & ~3
        self.link.send(bytes(8) + msg_id.to_bytes(8, "little") + len(body).to_bytes(4, "little") + body)
        return await self.read()

    async def read(self) -> Any:
        from pyrogram.raw.core import TLObject

        packet = await self.link.receive()
        if packet is None:
            raise ConnectionError("the server closed")
        if len(packet) == 4:
            raise TransportError(int.from_bytes(packet, "little", signed=True))
        assert packet[:8] == bytes(8)
        assert int.from_bytes(packet[8:16], "little") % 4 == 1
        return TLObject.read(BytesIO(packet[20:]))

    async def run(self, *, padded: bool = False) -> Any:
        """All three steps; the last answer."""
        await self.start()
        await self.prove(padded=padded)
        return await self.finish()

    async def start(self) -> None:
        self.res_pq = await self.ask(raw().functions.ReqPqMulti(nonce=self.nonce))
        assert self.res_pq.nonce == self.nonce

    def factors(self) -> tuple[bytes, bytes]:
        from pyrogram.crypto import prime

        pq = int.from_bytes(self.res_pq.pq, "big")
        factor = prime.decompose(pq)
        p, q = sorted((factor, pq // factor))
        return p.to_bytes(4, "big"), q.to_bytes(4, "big")

    def inner_data(self, **spoilt: Any) -> Any:
        p, q = self.factors()
        fields = {
            "pq": self.res_pq.pq,
            "p": p,
            "q": q,
            "nonce": self.nonce,
            "server_nonce": self.res_pq.server_nonce,
            "new_nonce": int.from_bytes(self.new_nonce, "little", signed=True),
            **spoilt,
        }
        types = raw().types
        return types.PQInnerDataDc(**fields) if "dc" in spoilt else types.PQInnerData(**fields)

    async def prove(self, *, padded: bool = False, data: bytes | None = None, **spoilt: Any) -> None:
        """req_DH_params. `spoilt` replaces fields of the query."""
        from pyrogram.crypto import aes
        from pyrogram.raw.core import TLObject

        data = self.inner_data().write() if data is None else data
        p, q = self.factors()
        fields = {
            "nonce": self.nonce,
            "server_nonce": self.res_pq.server_nonce,
            "p": p,
            "q": q,
            "public_key_fingerprint": self.res_pq.server_public_key_fingerprints[0],
            "encrypted_data": self._rsa_pad(data) if padded else self._rsa_hash(data),
            **spoilt,
        }
        answer = await self.ask(raw().functions.ReqDHParams(**fields))
        plain = aes.ige256_decrypt(answer.encrypted_answer, *self._temporary())
        self.inner = TLObject.read(BytesIO(plain[20:]))
        assert sha1(self.inner.write()).digest() == plain[:20]

    async def finish(self, *, g_b: int | None = None, retry_id: int = 0, spoil_hash: bool = False) -> Any:
        """set_client_DH_params."""
        from pyrogram.crypto import aes

        modulus = int.from_bytes(self.inner.dh_prime, "big")
        secret = int.from_bytes(os.urandom(256), "big")
        g_b = pow(self.inner.g, secret, modulus) if g_b is None else g_b
        data = raw().types.ClientDHInnerData(
            nonce=self.nonce,
            server_nonce=self.res_pq.server_nonce,
            retry_id=retry_id,
            g_b=g_b.to_bytes(256, "big"),
        )
        body = data.write()
        plain = (bytes(20) if spoil_hash else sha1(body).digest()) + body
        plain += os.urandom(-len(plain) % 16)
        self.key = pow(int.from_bytes(self.inner.g_a, "big"), secret, modulus).to_bytes(256, "big")
        return await self.ask(
            raw().functions.SetClientDHParams(
                nonce=self.nonce,
                server_nonce=self.res_pq.server_nonce,
                encrypted_data=aes.ige256_encrypt(plain, *self._temporary()),
            )
        )

    @property
    def salt(self) -> bytes:
        server = self.res_pq.server_nonce.to_bytes(16, "little", signed=True)
        return bytes(a ^ b for a, b in zip(self.new_nonce[:8], server[:8], strict=True))

    def _rsa(self, number: bytes) -> bytes:
        return pow(int.from_bytes(number, "big"), 65537, self.dc.rsa_modulus).to_bytes(256, "big")

    def _rsa_hash(self, data: bytes) -> bytes:
        hashed = sha1(data).digest() + data
        return self._rsa(hashed + os.urandom(255 - len(hashed)))

    def _rsa_pad(self, data: bytes) -> bytes:
        """core.telegram.org/mtproto/auth_key, step 4.1."""
        from pyrogram.crypto import aes

        padded = data + os.urandom(192 - len(data))
        while True:
            key = os.urandom(32)
            encrypted = aes.ige256_encrypt(padded[::-1] + sha256(key + padded).digest(), key, bytes(32))
            whole = aes.xor(key, sha256(encrypted).digest()) + encrypted
            if int.from_bytes(whole, "big") < self.dc.rsa_modulus:
                return self._rsa(whole)

    def _temporary(self) -> tuple[bytes, bytes]:
        server = self.res_pq.server_nonce.to_bytes(16, "little", signed=True)
        middle = sha1(server + self.new_nonce).digest()
        key = sha1(self.new_nonce + server).digest() + middle[:12]
        return key, middle[12:] + sha1(self.new_nonce + self.new_nonce).digest() + self.new_nonce[:4]
