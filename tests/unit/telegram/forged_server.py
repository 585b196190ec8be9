"""The server's side of the key exchange, each of whose answers a test may forge before it is sent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from hashlib import sha1
from io import BytesIO
from typing import Any

import gmpy2

from supervisor.telegram.keyexchange import PublicKey

MARGIN = 1 << (2048 - 64)
Forge = Callable[[str, Any], Any]


@cache
def rsa_key() -> tuple[PublicKey, int]:
    """A server's key and its private exponent."""
    while True:
        p, q = (int(gmpy2.next_prime(int.from_bytes(os.urandom(128), "big") | 3 << 1022)) for _ in range(2))
        if (p * q).bit_length() == 2048 and (p - 1) % 65537 and (q - 1) % 65537:
            return PublicKey(p * q, 65537), pow(65537, -1, (p - 1) * (q - 1))


class ForgedServer:
    """Answers bodies with bodies. `forge(name, value)` sees every object, and every plaintext, before it goes."""

    def __init__(self, forge: Forge = lambda _, value: value, ends: tuple[str, ...] = ("ok",)) -> None:
        from pyrogram import raw
        from pyrogram.crypto import aes, prime

        self._raw: Any = raw
        self._aes: Any = aes
        self.prime: int = prime.CURRENT_DH_PRIME
        self.forge = forge
        self._ends = list(ends)
        self.retry_ids: list[int] = []
        self.key = b""
        self.p, self.q = (
            1_229_739_323,
            1_402_015_859,
        )  # the example of core.telegram.org/mtproto/samples-auth_key
        self._a = int.from_bytes(os.urandom(256), "big")
        self._nonce = self._new_nonce = 0
        self._server_nonce = int.from_bytes(os.urandom(16), "little", signed=True)

    def answer(self, body: bytes) -> bytes:
        asked = self._raw.core.TLObject.read(BytesIO(body))
        return bytes(getattr(self, f"_{type(asked).__name__}")(asked))

    def _send(self, name: str, **fields: Any) -> bytes:
        obj = getattr(self._raw.types, name)(nonce=self._nonce, server_nonce=self._server_nonce, **fields)
        forged = self.forge(name, obj)
        return forged if isinstance(forged, bytes) else bytes(forged.write())

    def _ReqPqMulti(self, asked: Any) -> bytes:  # noqa: N802 - TL's names
        self._nonce = asked.nonce
        pq = (self.p * self.q).to_bytes(8, "big")
        return self._send("ResPQ", pq=pq, server_public_key_fingerprints=[1, rsa_key()[0].fingerprint])

    def _ReqDHParams(self, asked: Any) -> bytes:  # noqa: N802
        public, secret = rsa_key()
        plain = pow(int.from_bytes(asked.encrypted_data, "big"), secret, public.n).to_bytes(255, "big")
        inner = self._raw.core.TLObject.read(BytesIO(plain[20:]))
        assert sha1(inner.write()).digest() == plain[:20]
        assert (inner.nonce, inner.server_nonce) == (self._nonce, self._server_nonce)
        assert [int.from_bytes(part, "big") for part in (inner.p, inner.q)] == [self.p, self.q]
        self._new_nonce = inner.new_nonce
        if self.forge("fail", False):
            digest = sha1(self._bytes(self._new_nonce, 32)).digest()[4:]
            return self._send(
                "ServerDHParamsFail", new_nonce_hash=int.from_bytes(digest, "little", signed=True)
            )
        answer = self._send(
            "ServerDHInnerData",
            g=3,
            dh_prime=self.prime.to_bytes(256, "big"),
            g_a=pow(3, self._a, self.prime).to_bytes(256, "big"),
            server_time=int(time.time()) + 1000,
        )
        plain = sha1(answer).digest() + answer
        plain = self.forge("plain", plain + os.urandom(-len(plain) % 16))
        encrypted = self._aes.ige256_encrypt(plain, *self._temporary())
        return self._send("ServerDHParamsOk", encrypted_answer=encrypted)

    def _SetClientDHParams(self, asked: Any) -> bytes:  # noqa: N802
        plain = self._aes.ige256_decrypt(asked.encrypted_data, *self._temporary())
        inner = self._raw.core.TLObject.read(BytesIO(plain[20:]))
        assert sha1(inner.write()).digest() == plain[:20]
        self.retry_ids.append(inner.retry_id)
        g_b = int.from_bytes(inner.g_b, "big")
        assert MARGIN <= g_b <= self.prime - MARGIN
        self.key = pow(g_b, self._a, self.prime).to_bytes(256, "big")
        end = self._ends.pop(0)
        number = ("ok", "retry", "fail").index(end) + 1
        proof = sha1(
            self._bytes(self._new_nonce, 32) + bytes((number,)) + sha1(self.key).digest()[:8]
        ).digest()[4:]
        fields = {f"new_nonce_hash{number}": int.from_bytes(proof, "little", signed=True)}
        return self._send(f"DhGen{end.title()}", **fields)

    def _temporary(self) -> tuple[bytes, bytes]:
        new, server = self._bytes(self._new_nonce, 32), self._bytes(self._server_nonce, 16)
        middle = sha1(server + new).digest()
        return sha1(new + server).digest() + middle[:12], middle[12:] + sha1(new + new).digest() + new[:4]

    @staticmethod
    def _bytes(number: int, size: int) -> bytes:
        return number.to_bytes(size, "little", signed=True)
