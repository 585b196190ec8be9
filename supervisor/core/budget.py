"""Budgets: how many connections a second, how many sign-ins an hour. Values; times are arguments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """At most `rate` a second, and `burst` at once. `full_at` is when the bucket is full again."""

    rate: float
    burst: float
    full_at: float = float("-inf")

    def take(self, now: float) -> tuple[TokenBucket, float]:
        """Take one token; give the bucket after it and the seconds to wait before using it.

        Args:
            now: monotonic time.
        """
        full_at = max(self.full_at, now) + 1.0 / self.rate
        wait = full_at - now - self.burst / self.rate
        return TokenBucket(self.rate, self.burst, full_at), max(0.0, wait)


@dataclass(frozen=True, slots=True)
class SignInBudget:
    """How often one account may sign in (PRODUCT `sign_ins_per_hour`, `sign_ins_per_day`)."""

    per_hour: int
    per_day: int

    def wait(self, sign_ins: Iterable[float], now: float) -> float:
        """Seconds until another sign-in is allowed, 0 for now.

        Args:
            sign_ins: Unix times of the account's sign-ins.
            now: Unix time.
        """
        past = sorted(sign_ins)
        return max(_until(past, self.per_hour, HOUR, now), _until(past, self.per_day, DAY, now))


def _until(past: list[float], allowed: int, window: float, now: float) -> float:
    recent = [at for at in past if now - at < window]
    return 0.0 if len(recent) < allowed else recent[-allowed] + window - now
