"""The key exchange, the server's side (core.telegram.org/mtproto/auth_key).

Takes unencrypted messages, gives unencrypted answers; no I/O. A message that fails any check of the protocol raises
`Refused` with the transport code that the client gets.
"""

from __future__ import annotations

import os
import random
from hashlib import sha1, sha256
from typing import TYPE_CHECKING

from . import tl
from .arithmetic import powmod, random_prime
from .library import aes

if TYPE_CHECKING:
    from collections.abc import Callable

    from .rsa import RsaKey

REQ_PQ, REQ_PQ_MULTI, REQ_DH_PARAMS, SET_CLIENT_DH = 0x60469778, 0xBE7E8EF1, 0xD712E4BE, 0xF5045F1F
RES_PQ, DH_PARAMS_OK, DH_INNER, CLIENT_DH_INNER = 0x05162463, 0xD0E8075C, 0xB5890DBA, 0x6643B654
DH_GEN_OK, DH_GEN_RETRY = 0x3BCBF734, 0x46DC1FB9
PQ_INNER, PQ_INNER_DC = 0x83C95AEC, 0xA9F55F95
NOT_FOUND, INVALID_DC = -404, -444

STEPS = {
    REQ_PQ: "req_pq",
    REQ_PQ_MULTI: "req_pq_multi",
    REQ_DH_PARAMS: "req_DH_params",
    SET_CLIENT_DH: "set_client_DH_params",
}

GENERATOR = 3
# The 2048-bit safe prime that Telegram's servers use and clients know: core.telegram.org/mtproto/auth_key.
PRIME = int(
    "C71CAEB9C6B1C9048E6C522F70F13F73980D40238E3E21C14934D037563D930F"
    "48198A0AA7C14058229493D22530F4DBFA336F6E0AC925139543AED44CCE7C37"
    "20FD51F69458705AC68CD4FE6B6B13ABDC9746512969328454F18FAF8C595F64"
    "2477FE96BB2A941D5BCD1D4AC8CC49880708FA9B378E3C4F3A9060BEE67CF9A4"
    "A4A695811051907E162753B56B0F6B410DBA74D8A84B2A14B3144E0EF1284754"
    "FD17ED950D5965B4B9DD46582DB1178D169C6BC465B0D6FF9CA3928FEF5B9AE4"
    "E418FC15E83EBEA0F87FA9FF5EED70050DED2849F47BF959D956850CE929851F"
    "0D8115F635B105EE2E4E15D04B2454BF6F4FADF034B10403119CD8E3B92FCC5B",
    16,
)
_MARGIN = 2 ** (
    2048 - 64
)  # g_a and g_b keep this distance from both ends: core.telegram.org/mtproto/security_guidelines
_EXPONENT_BYTES = 32  # 256 bits are as strong as the 2048-bit group and eight times as fast


class Refused(Exception):
    """The client's message fails a check; `code` is the transport error it gets."""

    def __init__(self, reason: str, code: int = NOT_FOUND) -> None:
        super().__init__(reason)
        self.code = code


class Handshake:
    """One connection's key exchange. The message that completes it calls `finish` with the key and its first salt."""

    def __init__(
        self,
        rsa: RsaKey,
        dc_id: int,
        source: random.Random,
        is_taken: Callable[[bytes], bool],
        finish: Callable[[bytes, bytes], None],
    ) -> None:
        self._rsa = rsa
        self._dc_id = dc_id
        self._source = source
        self._is_taken = is_taken
        self._finish = finish
        self._nonce = b""
        self._server_nonce = b""
        self._new_nonce = b""
        self._pq = (0, 0)
        self._secret = 0
        self._retries: list[bytes] = []
        self._forge = False

    def receive(self, body: bytes, now: float, *, forge: bool = False) -> bytes:
        """Answer one message of the exchange; `now` is the server's time in seconds.

        With `forge` the answer is what an impostor could give: another RSA key's fingerprint, an answer under another
        key, a wrong proof.
        """
        self._forge = forge
        reader = tl.Reader(body)
        try:
            constructor = reader.uint()
            if constructor in (REQ_PQ, REQ_PQ_MULTI):
                return self._res_pq(reader)
            if constructor == REQ_DH_PARAMS and self._server_nonce:
                return self._server_dh_params(reader, int(now))
            if constructor == SET_CLIENT_DH and self._secret:
                return self._dh_gen(reader)
        except tl.Truncated as error:
            raise Refused(str(error)) from error
        raise Refused(f"{constructor:#010x} is no step of the exchange, or comes too early")

    def _res_pq(self, reader: tl.Reader) -> bytes:
        self._nonce, self._server_nonce = reader.take(16), os.urandom(16)
        self._secret, self._retries = 0, []
        p, q = sorted((random_prime(31, self._source), random_prime(31, self._source)))
        if p == q:
            q = random_prime(30, self._source)
            p, q = q, p
        self._pq = p, q
        product = tl.string((p * q).to_bytes(8, "big"))
        fingerprint = self._rsa.fingerprint ^ self._forge
        return tl.uint(RES_PQ) + self._nonce + self._server_nonce + product + tl.longs([fingerprint])

    def _server_dh_params(self, reader: tl.Reader, now: int) -> bytes:
        self._check_nonces(reader)
        if (reader.string(), reader.string()) != self._factors():
            raise Refused("p and q are not the factors of pq")
        if reader.long() != self._rsa.fingerprint:
            raise Refused("an unknown RSA key")
        self._read_inner(self._open_rsa(reader.string()))
        self._secret, g_a = self._new_secret()
        inner = (
            tl.uint(DH_INNER)
            + self._nonce
            + self._server_nonce
            + tl.uint(GENERATOR)
            + tl.string(PRIME.to_bytes(256, "big"))
            + tl.string(g_a.to_bytes(256, "big"))
            + tl.uint(now)
        )
        plain = sha1(inner).digest() + inner
        plain += os.urandom(-len(plain) % 16)
        key = (os.urandom(32), os.urandom(32)) if self._forge else self._temporary_key()
        encrypted = aes.ige256_encrypt(plain, *key)
        return tl.uint(DH_PARAMS_OK) + self._nonce + self._server_nonce + tl.string(encrypted)

    def _dh_gen(self, reader: tl.Reader) -> bytes:
        self._check_nonces(reader)
        encrypted = reader.string()
        if not encrypted or len(encrypted) % 16:
            raise Refused("client_DH_inner_data is not in whole blocks")
        plain = aes.ige256_decrypt(encrypted, *self._temporary_key())
        inner = tl.Reader(plain, 20)
        if inner.uint() != CLIENT_DH_INNER:
            raise Refused("no client_DH_inner_data")
        self._check_nonces(inner)
        retry_id, g_b = inner.long(), int.from_bytes(inner.string(), "big")
        _check_hash(plain, inner, 15)
        if retry_id != (int.from_bytes(self._retries[-1], "little", signed=True) if self._retries else 0):
            raise Refused("a wrong retry_id")
        if not _MARGIN <= g_b <= PRIME - _MARGIN:
            raise Refused("g_b is out of its range")
        return self._settle(powmod(g_b, self._secret, PRIME).to_bytes(256, "big"))

    def _settle(self, key: bytes) -> bytes:
        hashed = sha1(key).digest()
        retry = self._is_taken(hashed[-8:])
        if retry:
            self._retries.append(hashed[:8])
        else:
            salt = bytes(a ^ b for a, b in zip(self._new_nonce[:8], self._server_nonce[:8], strict=True))
            self._finish(key, salt)
            self._secret = 0
        number = b"\x02" if retry else b"\x01"
        proof = os.urandom(16) if self._forge else sha1(self._new_nonce + number + hashed[:8]).digest()[-16:]
        return tl.uint(DH_GEN_RETRY if retry else DH_GEN_OK) + self._nonce + self._server_nonce + proof

    def _check_nonces(self, reader: tl.Reader) -> None:
        if reader.take(16) != self._nonce or reader.take(16) != self._server_nonce:
            raise Refused("a nonce differs")

    def _factors(self) -> tuple[bytes, bytes]:
        p, q = self._pq
        return p.to_bytes(4, "big"), q.to_bytes(4, "big")

    def _open_rsa(self, encrypted: bytes) -> tl.Reader:
        try:
            plain = self._rsa.decrypt(encrypted)
        except ValueError as error:
            raise Refused(str(error)) from error
        return _open_padded(plain) or _open_hashed(plain)

    def _read_inner(self, inner: tl.Reader) -> None:
        constructor = inner.uint()
        if constructor not in (PQ_INNER, PQ_INNER_DC):
            raise Refused("no p_q_inner_data of a permanent key")
        p, q = self._pq
        if int.from_bytes(inner.string(), "big") != p * q:
            raise Refused("pq differs")
        if (inner.string(), inner.string()) != self._factors():
            raise Refused("p and q differ")
        self._check_nonces(inner)
        self._new_nonce = inner.take(32)
        if constructor == PQ_INNER_DC and inner.sint() != self._dc_id:
            raise Refused("a key for another datacenter", INVALID_DC)

    def _new_secret(self) -> tuple[int, int]:
        while True:
            secret = int.from_bytes(os.urandom(_EXPONENT_BYTES), "big")
            g_a = powmod(GENERATOR, secret, PRIME)
            if _MARGIN <= g_a <= PRIME - _MARGIN:
                return secret, g_a

    def _temporary_key(self) -> tuple[bytes, bytes]:
        new, server = self._new_nonce, self._server_nonce
        middle = sha1(server + new).digest()
        key = sha1(new + server).digest() + middle[:12]
        return key, middle[12:] + sha1(new + new).digest() + new[:4]


def _open_padded(plain: bytes) -> tl.Reader | None:
    """RSA_PAD: the scheme of core.telegram.org/mtproto/auth_key since 2021; None where it isn't that."""
    xored, encrypted = plain[:32], plain[32:]
    key = bytes(a ^ b for a, b in zip(xored, sha256(encrypted).digest(), strict=True))
    inside = aes.ige256_decrypt(encrypted, key, bytes(32))
    padded = inside[:192][::-1]
    return tl.Reader(padded) if sha256(key + padded).digest() == inside[192:] else None


def _open_hashed(plain: bytes) -> tl.Reader:
    """SHA1, data, padding up to 255 bytes: the scheme from before RSA_PAD, which the client libraries still use."""
    if plain[0]:
        raise Refused("p_q_inner_data is in no known scheme")
    inner = tl.Reader(plain[1:], 20)
    constructor = inner.uint()
    for _ in range(3):
        inner.string()
    inner.take(64 + 4 * (constructor == PQ_INNER_DC))
    _check_hash(plain[1:], inner, 255)
    return tl.Reader(plain[1:], 20)


def _check_hash(plain: bytes, inner: tl.Reader, longest_padding: int) -> None:
    if sha1(plain[20 : inner.offset]).digest() != plain[:20]:
        raise Refused("the SHA1 of the inner data differs")
    if len(plain) - inner.offset > longest_padding:
        raise Refused("too much padding")
