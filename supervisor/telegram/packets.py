"""Packets: sealed for the server, and opened: decrypted, checked, and cut into messages, each read within bounds.

The library's own unpack() reads a packet before it knows that the packet is the server's, takes what is missing
for zeros, unpacks whatever it is told to, and gives up a whole packet for one object in it that it does not know.
Here the check of the key comes first (https://core.telegram.org/mtproto/security_guidelines), nothing grows
without end, and what cannot be read spoils only itself.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import Any, NamedTuple

from supervisor import randomness

# Bytes that the messages of one packet may come to when they are unpacked; a packet itself may have as many.
MAX_UNPACKED = 16 * 1024 * 1024
# Messages in a container; the protocol allows 1,020.
MAX_MESSAGES = 4096

_CONTAINER, _GZIP, _RESULT = (struct.pack("<I", number) for number in (0x73F1F8DC, 0x3072CFA1, 0xF35C6D01))
_ENVELOPE = struct.Struct("<8s8sqii")  # salt, session_id, msg_id, seq_no, length
_MESSAGE = struct.Struct("<qii")  # msg_id, seq_no, length
_RESULT_HEAD = struct.Struct("<4sq")  # constructor, req_msg_id
_GZIP_MAGIC = b"\x1f\x8b"
_PADDING = range(12, 1025)
_AES_BLOCK = 16


class BadPacket(Exception):
    """The packet is not the server's, or came to harm on its way."""


class BadObject(ValueError):
    """An object that cannot be read."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where an object stood that cannot be read."""

    why: str


class Received(NamedTuple):
    """One message of the server's; what is unreadable in it is an `Unreadable`."""

    msg_id: int
    seq_no: int
    body: Any


def envelope(salt: int, session_id: bytes, message: bytes) -> bytes:
    """A message as it is sealed (https://core.telegram.org/mtproto/description#encrypted-message-encrypted-data)."""
    return salt.to_bytes(8, "little", signed=True) + session_id + message


class Crypt:
    """Seals and opens packets; one serves any number of keys and sessions."""

    def __init__(self) -> None:
        """Take what is needed of the library."""
        from pyrogram.crypto import aes, mtproto
        from pyrogram.raw.core import TLObject
        from pyrogram.raw.types import RpcResult

        self._encrypt: Callable[[bytes, bytes, bytes], bytes] = aes.ige256_encrypt
        self._decrypt: Callable[[bytes, bytes, bytes], bytes] = aes.ige256_decrypt
        self._kdf: Callable[[bytes, bytes, bool], tuple[bytes, bytes]] = mtproto.kdf
        self._read: Callable[[BytesIO], Any] = TLObject.read
        self._result: Any = RpcResult

    def seal(self, plain: bytes, auth_key: bytes, auth_key_id: bytes) -> bytes:
        """Encrypt for the server (https://core.telegram.org/mtproto/description#protocol-description).

        Args:
            plain: the envelope.
            auth_key: under which key.
            auth_key_id: that key's number.
        """
        plain += randomness.take(-(len(plain) + _PADDING.start) % _AES_BLOCK + _PADDING.start)
        msg_key = sha256(auth_key[88:120] + plain).digest()[8:24]
        return auth_key_id + msg_key + self._encrypt(plain, *self._kdf(auth_key, msg_key, True))

    def open(self, packet: bytes, auth_key: bytes, auth_key_id: bytes) -> tuple[bytes, list[Received]]:
        """Give the session_id that a packet is for, and its messages.

        Raises:
            BadPacket: it is not the server's.
        """
        plain = self._plain(packet, auth_key, auth_key_id)
        _salt, session_id, msg_id, seq_no, length = _ENVELOPE.unpack_from(plain)
        if length < 4 or length % 4 or len(plain) - _ENVELOPE.size - length not in _PADDING:
            raise BadPacket(f"a message of {length} bytes in {len(plain)}")
        if not msg_id % 2:
            raise BadPacket("a client's msg_id")
        body = plain[_ENVELOPE.size : _ENVELOPE.size + length]
        return session_id, list(self._messages(msg_id, seq_no, body))

    def _plain(self, packet: bytes, auth_key: bytes, auth_key_id: bytes) -> bytes:
        if packet[:8] != auth_key_id:
            raise BadPacket("it is under another key")
        msg_key, encrypted = packet[8:24], packet[24:]
        if len(encrypted) % _AES_BLOCK or len(encrypted) < _ENVELOPE.size:
            raise BadPacket(f"{len(encrypted)} encrypted bytes")
        plain = self._decrypt(encrypted, *self._kdf(auth_key, msg_key, False))
        if sha256(auth_key[96:128] + plain).digest()[8:24] != msg_key:
            raise BadPacket("its msg_key does not fit its contents")
        return plain

    # --- messages -------------------------------------------------------------------------------------

    def _messages(self, msg_id: int, seq_no: int, body: bytes) -> Iterator[Received]:
        room = _Room()
        try:
            body = room.unpacked(body)
            parts = _contents(body) if body[:4] == _CONTAINER else [(msg_id, seq_no, body)]
        except BadObject as error:
            yield Received(msg_id, seq_no, Unreadable(str(error)))
            return
        for inner_id, inner_seq_no, inner in parts:
            yield Received(inner_id, inner_seq_no, self._body(inner, room))

    def _body(self, body: bytes, room: _Room) -> Any:
        """The object in a message; of an unreadable answer at least which query it answers."""
        if body[:4] != _RESULT or len(body) < _RESULT_HEAD.size:
            return self._object(body, room)
        _, req_msg_id = _RESULT_HEAD.unpack_from(body)
        return self._result(req_msg_id=req_msg_id, result=self._object(body[_RESULT_HEAD.size :], room))

    def _object(self, body: bytes, room: _Room) -> Any:
        try:
            body = room.unpacked(body)
            if body[:4] == _CONTAINER:
                raise BadObject("a container in a container")
            return read_object(self._read, Reader(body))
        except BadObject as error:
            return Unreadable(str(error))


class _Room:
    """What may still be unpacked of one packet."""

    def __init__(self) -> None:
        self._left = MAX_UNPACKED

    def unpacked(self, body: bytes) -> bytes:
        """The object, out of its gzip_packed if it is in one."""
        while body[:4] == _GZIP:
            if self._left < 0:
                raise BadObject(f"gzip_packed beyond {MAX_UNPACKED} bytes")
            body = self._inflated(_string(body))
        return body

    def _inflated(self, data: bytes) -> bytes:
        inflating = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            inflated = inflating.decompress(data, self._left + 1)
        except zlib.error as error:
            raise BadObject(f"gzip_packed: {error}") from error
        self._left -= len(inflated)
        if self._left < 0:
            raise BadObject(f"gzip_packed of over {MAX_UNPACKED} bytes")
        if not inflating.eof:
            raise BadObject("gzip_packed ends early")
        return inflated


class Reader(BytesIO):
    """The bytes of one object, for the library to read.

    A read beyond their end fails: the library would go on with zeros, for as often as a count in them says.
    """

    def read(self, size: int | None = -1, /) -> Any:
        """As `BytesIO.read`; what is left is given without being copied, for the library asks for its length only."""
        if size is None or size < 0:
            rest = self.getbuffer()[self.tell() :]
            self.seek(0, 2)
            return rest
        data = super().read(size)
        if len(data) < size:
            raise BadObject("it ends early")
        if data == _GZIP and self._holds_gzip():
            raise BadObject("gzip_packed inside an object")
        return data

    def _holds_gzip(self) -> bool:
        """Whether what comes next is what gzip_packed has in it; the four bytes before may be any number's."""
        at = self.tell()
        head = bytes(self.getbuffer()[at : at + 6])
        return (head[4:6] if head[:1] == b"\xfe" else head[1:3]) == _GZIP_MAGIC


def read_object(read: Callable[[BytesIO], Any], stream: Reader) -> Any:
    """Have the library read an object.

    Raises:
        BadObject: it cannot.
    """
    try:
        return read(stream)
    except BadObject:
        raise
    except KeyError as error:
        raise BadObject(f"unknown constructor {_hexadecimal(error)}") from error
    except Exception as error:  # whatever the bytes make the parser raise, they are bad bytes
        raise BadObject(f"{type(error).__name__} at byte {stream.tell()}") from error


def _contents(body: bytes) -> list[tuple[int, int, bytes]]:
    """The messages of a container."""
    if len(body) < 8 or (count := int.from_bytes(body[4:8], "little")) > MAX_MESSAGES:
        raise BadObject("a container of too many messages, or cut off")
    messages, at = [], 8
    for _ in range(count):
        if at + _MESSAGE.size > len(body):
            raise BadObject("a container that ends early")
        msg_id, seq_no, length = _MESSAGE.unpack_from(body, at)
        at += _MESSAGE.size
        if not 0 <= length <= len(body) - at:
            raise BadObject("a container that ends early")
        messages.append((msg_id, seq_no, body[at : at + length]))
        at += length
    return messages


def _string(body: bytes) -> bytes:
    """The TL string behind a constructor."""
    head, size = (
        (8, int.from_bytes(body[5:8], "little")) if body[4:5] == b"\xfe" else (5, body[4] if body[4:] else 0)
    )
    if head + size > len(body):
        raise BadObject("gzip_packed ends early")
    return body[head : head + size]


def _hexadecimal(error: KeyError) -> str:
    number = error.args[0] if error.args else None
    return f"{number:#010x}" if isinstance(number, int) else repr(number)
