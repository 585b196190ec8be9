"""MTProto 2.0 encryption, the server's side (core.telegram.org/mtproto/description)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha1, sha256

from .library import aes

_HEADER = 32  # salt, session_id, msg_id, seq_no, length
_FROM_CLIENT, _FROM_SERVER = 0, 8  # "x" of the key derivation


class Undecryptable(Exception):
    """An encrypted packet that was not made with this key, or not as the protocol says."""


@dataclass(frozen=True, slots=True)
class Plain:
    """What a packet of the client says before anything in it is judged."""

    salt: bytes
    session_id: bytes
    msg_id: int
    seq_no: int
    body: bytes


def key_id(auth_key: bytes) -> bytes:
    """The eight bytes by which packets name their key."""
    return sha1(auth_key).digest()[-8:]


def _derive(auth_key: bytes, msg_key: bytes, x: int) -> tuple[bytes, bytes]:
    a = sha256(msg_key + auth_key[x : x + 36]).digest()
    b = sha256(auth_key[x + 40 : x + 76] + msg_key).digest()
    return a[:8] + b[8:24] + a[24:], b[:8] + a[8:24] + b[24:]


def _msg_key(auth_key: bytes, plain: bytes, x: int) -> bytes:
    return sha256(auth_key[88 + x : 120 + x] + plain).digest()[8:24]


def open_packet(auth_key: bytes, packet: bytes) -> Plain:
    """Decrypt a client's packet (key id included) and check its hash, its length and its padding."""
    msg_key, encrypted = packet[8:24], packet[24:]
    if len(encrypted) < _HEADER + 16 or len(encrypted) % 16:
        raise Undecryptable("not whole blocks")
    key, iv = _derive(auth_key, msg_key, _FROM_CLIENT)
    plain = aes.ige256_decrypt(encrypted, key, iv)
    if _msg_key(auth_key, plain, _FROM_CLIENT) != msg_key:
        raise Undecryptable("msg_key doesn't match")
    length = int.from_bytes(plain[28:32], "little", signed=True)
    if length < 4 or length % 4 or not 12 <= len(plain) - _HEADER - length <= 1024:
        raise Undecryptable("wrong length or padding")
    return Plain(
        salt=plain[:8],
        session_id=plain[8:16],
        msg_id=int.from_bytes(plain[16:24], "little", signed=True),
        seq_no=int.from_bytes(plain[24:28], "little", signed=True),
        body=plain[_HEADER : _HEADER + length],
    )


def seal_packet(auth_key: bytes, salt: bytes, session_id: bytes, message: bytes) -> bytes:
    """Encrypt one message (msg_id, seq_no, length, body) for the client."""
    plain = salt + session_id + message
    plain += os.urandom(12 + -(len(plain) + 12) % 16)
    msg_key = _msg_key(auth_key, plain, _FROM_SERVER)
    key, iv = _derive(auth_key, msg_key, _FROM_SERVER)
    encrypted: bytes = aes.ige256_encrypt(plain, key, iv)
    return key_id(auth_key) + msg_key + encrypted
