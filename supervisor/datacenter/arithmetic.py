"""Arithmetic with large numbers: gmpy2 where it is installed, plain integers otherwise."""

from __future__ import annotations

import random
from typing import Any

try:
    import gmpy2 as _gmpy2
except ImportError:  # pragma: no cover - gmpy2 is a base dependency; this keeps a bare checkout working
    _gmpy2 = None

_gmp: Any = _gmpy2
_SMALL_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71)


def powmod(base: int, exponent: int, modulus: int) -> int:
    """base ** exponent % modulus."""
    if _gmp is not None:
        return int(_gmp.powmod(base, exponent, modulus))
    return pow(base, exponent, modulus)


def is_prime(number: int) -> bool:
    """Whether `number` is prime, with an error probability below 4**-25."""
    if _gmp is not None:
        return bool(_gmp.is_prime(number, 25))
    if number < 2:
        return False
    for prime in _SMALL_PRIMES:
        if number % prime == 0:
            return number == prime
    return _miller_rabin(number, 25)


def _miller_rabin(number: int, rounds: int) -> bool:
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(rounds):
        witness = pow(random.randrange(2, number - 1), odd, number)
        if witness in (1, number - 1):
            continue
        for _ in range(twos - 1):
            witness = witness * witness % number
            if witness == number - 1:
                break
        else:
            return False
    return True


def random_prime(bits: int, source: random.Random) -> int:
    """A prime of exactly `bits` bits whose two highest bits are set."""
    top = 3 << (bits - 2)
    while True:
        candidate = source.getrandbits(bits) | top | 1
        if is_prime(candidate):
            return candidate
