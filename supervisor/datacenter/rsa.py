"""The datacenter's own RSA key: made here, written as PEM, used to open `p_q_inner_data`."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1

from . import tl
from .arithmetic import powmod, random_prime

EXPONENT = 65537
KEY_BITS = 2048
_INTEGER, _SEQUENCE = 0x02, 0x30


@dataclass(frozen=True)
class RsaKey:
    """A 2048-bit RSA key, given by its two primes."""

    p: int
    q: int

    @cached_property
    def modulus(self) -> int:
        return self.p * self.q

    @cached_property
    def fingerprint(self) -> int:
        """The key's name in MTProto: the low 64 bits of the SHA1 of its bare TL form, signed.

        core.telegram.org/mtproto/auth_key, "Presenting proof of work".
        """
        bare = tl.string(_unsigned(self.modulus)) + tl.string(_unsigned(EXPONENT))
        return int.from_bytes(sha1(bare).digest()[-8:], "little", signed=True)

    @cached_property
    def pem(self) -> str:
        """The public half as PKCS#1 PEM."""
        body = _der(_INTEGER, _signed(self.modulus)) + _der(_INTEGER, _signed(EXPONENT))
        text = base64.b64encode(_der(_SEQUENCE, body)).decode("ascii")
        lines = [text[start : start + 64] for start in range(0, len(text), 64)]
        return "\n".join(["-----BEGIN RSA PUBLIC KEY-----", *lines, "-----END RSA PUBLIC KEY-----", ""])

    @cached_property
    def _chinese(self) -> tuple[int, int, int]:
        d = pow(EXPONENT, -1, (self.p - 1) * (self.q - 1))
        return d % (self.p - 1), d % (self.q - 1), pow(self.q, -1, self.p)

    def decrypt(self, encrypted: bytes) -> bytes:
        """Undo raw RSA (no padding scheme) and give the 256 bytes inside.

        Raises `ValueError` where `encrypted` is no number below the modulus in 256 bytes.
        """
        number = int.from_bytes(encrypted, "big")
        if len(encrypted) != KEY_BITS // 8 or number >= self.modulus:
            raise ValueError("not encrypted with this key")
        dp, dq, q_inverse = self._chinese
        mp, mq = powmod(number, dp, self.p), powmod(number, dq, self.q)
        return (mq + (mp - mq) * q_inverse % self.p * self.q).to_bytes(KEY_BITS // 8, "big")


def generate(source: random.Random) -> RsaKey:
    """Make a key. Takes about 0.1 s with gmpy2."""
    while True:
        p, q = random_prime(KEY_BITS // 2, source), random_prime(KEY_BITS // 2, source)
        if p != q and (p - 1) % EXPONENT and (q - 1) % EXPONENT:
            return RsaKey(p, q)


def _unsigned(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _signed(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def _der(tag: int, body: bytes) -> bytes:
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    size = _unsigned(len(body))
    return bytes([tag, 0x80 | len(size)]) + size + body
