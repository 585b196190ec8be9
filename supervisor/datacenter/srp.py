"""Two-factor passwords, the server's side (core.telegram.org/api/srp)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import pbkdf2_hmac, sha256

from .arithmetic import powmod
from .handshake import GENERATOR, PRIME

_ROUNDS = 100_000
_SIZE = 256


def _number(value: int) -> bytes:
    return value.to_bytes(_SIZE, "big")


def _hash(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()


def _salted(data: bytes, salt: bytes) -> bytes:
    return _hash(salt, data, salt)


@dataclass(frozen=True, slots=True)
class Password:
    """What the server keeps of a password: two salts and the verifier."""

    salt1: bytes
    salt2: bytes
    verifier: int

    @classmethod
    def of(cls, password: str) -> Password:
        """Take a password. Costs some 50 ms, as it should."""
        salt1, salt2 = os.urandom(40), os.urandom(16)
        first = _salted(_salted(password.encode(), salt1), salt2)
        stretched = pbkdf2_hmac("sha512", first, salt1, _ROUNDS)
        secret = int.from_bytes(_salted(stretched, salt2), "big")
        return cls(salt1, salt2, powmod(GENERATOR, secret, PRIME))


class Challenge:
    """One question for a password, which one answer may meet."""

    def __init__(self, password: Password) -> None:
        self._password = password
        self._secret = int.from_bytes(os.urandom(_SIZE), "big")
        self.id = int.from_bytes(os.urandom(7), "big")
        multiplier = int.from_bytes(_hash(_number(PRIME), _number(GENERATOR)), "big")
        self._b = (multiplier * password.verifier + powmod(GENERATOR, self._secret, PRIME)) % PRIME

    @property
    def b(self) -> bytes:
        """srp_B."""
        return _number(self._b)

    def is_met_by(self, a: bytes, proof: bytes) -> bool:
        """Whether the client's A and M1 show that it knows the password."""
        a_number = int.from_bytes(a, "big")
        if not 0 < a_number < PRIME:
            return False
        mixed = int.from_bytes(_hash(_number(a_number), self.b), "big")
        base = a_number * powmod(self._password.verifier, mixed, PRIME) % PRIME
        key = _hash(_number(powmod(base, self._secret, PRIME)))
        group = bytes(x ^ y for x, y in zip(_hash(_number(PRIME)), _hash(_number(GENERATOR)), strict=True))
        salts = _hash(self._password.salt1), _hash(self._password.salt2)
        return proof == _hash(group, *salts, _number(a_number), self.b, key)
