"""The key exchange's arithmetic: pure functions over gmpy2, and the threads that they run in."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import gmpy2

MARGIN = 1 << (2048 - 64)  # g_a and g_b keep this distance from 0 and from the prime: security guidelines
MAX_SEEDS = 8  # of the factorisation
MAX_STEPS = 1 << 19  # of one seed; the factor of a 64-bit pq takes some 2^16
THREADS = 2
_BATCH = 1024  # steps between two gcds
_PAUSE = 1e-5  # seconds; lets the event loop have the GIL


@cache
def workshop() -> ThreadPoolExecutor:
    """The threads for all exchanges of the process. gmpy2's context belongs to the thread that sets it.

    Two make twice as many keys as one, for their powers are computed without the GIL; a third would take the loop's core.
    """

    def let_go() -> None:
        gmpy2.get_context().allow_release_gil = True

    return ThreadPoolExecutor(THREADS, thread_name_prefix="key-exchange", initializer=let_go)


def factorise(pq: int) -> tuple[int, int]:
    """Two primes p < q out of their product of at most 63 bits.

    Pollard's p - 1 first: half of all pq fall to one power that gmpy2 computes without the GIL (0.3 ms).
    His rho, as Brent runs it, for the rest (5 ms).

    Raises:
        ValueError: it is not such a product.
    """
    if pq < 15 or pq.bit_length() > 63 or gmpy2.is_prime(pq) or gmpy2.is_square(pq):
        raise ValueError("pq is not the product of two different primes")
    found = int(gmpy2.gcd(gmpy2.powmod(2, _smooth(), pq) - 1, pq)) if pq % 2 else 2
    seeds = iter(range(MAX_SEEDS))
    while found in (1, pq) and next(seeds, None) is not None:
        found = _rho(pq, 1 + secrets.randbelow(pq - 1), 1 + secrets.randbelow(pq - 1))
    p, q = sorted((found, pq // found))
    if not (gmpy2.is_prime(p) and gmpy2.is_prime(q)):
        raise ValueError("pq is not the product of two different primes")
    return p, q


@cache
def _smooth() -> Any:
    """A number that every p - 1 divides whose prime powers stay below 50,000, nearly."""
    return gmpy2.primorial(50_000) * gmpy2.primorial(223) * gmpy2.primorial(36) ** 8


def _rho(pq: int, start: int, constant: int) -> int:
    """A factor of pq; 1 or pq: this start found none."""
    n, y, c = gmpy2.mpz(pq), gmpy2.mpz(start), gmpy2.mpz(constant)
    x, steps, r = y, 0, 1
    # Each of these operations is too short to be worth letting go of the GIL; a pause for each batch is.
    with gmpy2.context(gmpy2.get_context(), allow_release_gil=False):
        while steps < MAX_STEPS:
            x = y
            for batch in _batches(r):
                for _ in range(batch):
                    y = (y * y + c) % n
            for batch in _batches(r):
                before, product = y, gmpy2.mpz(1)
                for _ in range(batch):
                    y = (y * y + c) % n
                    product = product * (x - y) % n
                factor = gmpy2.gcd(product, n)
                if factor != 1:
                    return int(_retrace(n, x, before, c) if factor == n else factor)
            steps += 2 * r
            r *= 2
    return 1


def _batches(count: int) -> Iterator[int]:
    for done in range(0, count, _BATCH):
        yield min(_BATCH, count - done)
        time.sleep(_PAUSE)


def _retrace(n: Any, x: Any, y: Any, c: Any) -> Any:
    """Both factors fell into one batch: go through it one by one."""
    while True:
        y = (y * y + c) % n
        factor = gmpy2.gcd(x - y, n)
        if factor != 1:
            return factor


def dh_client(g: int, g_a: int, prime: int) -> tuple[bytes, bytes]:
    """Our g_b and the auth key (g_a to the b), for a fresh secret b of 2048 bits."""
    while True:
        b = secrets.randbits(2048)
        g_b = int(gmpy2.powmod(g, b, prime))
        if MARGIN <= g_b <= prime - MARGIN:
            return g_b.to_bytes(256, "big"), int(gmpy2.powmod(g_a, b, prime)).to_bytes(256, "big")
