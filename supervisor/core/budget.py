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
        wait = self.due(now)
        return TokenBucket(self.rate, self.burst, max(self.full_at, now) + 1.0 / self.rate), wait

    def due(self, now: float) -> float:
        """Seconds until the next token may be taken without a wait.

        Args:
            now: monotonic time.
        """
        return max(0.0, max(self.full_at, now) + 1.0 / self.rate - now - self.burst / self.rate)

    def drained(self, now: float) -> TokenBucket:
        """The bucket with nothing in it: from now on at most `rate` a second, and no burst."""
        return TokenBucket(self.rate, self.burst, max(self.full_at, now + (self.burst - 1.0) / self.rate))


@dataclass(frozen=True, slots=True)
class Window:
    """At most `most` in any stretch of so many seconds. `taken` are the last times, oldest first."""

    most: int
    seconds: float = 1.0
    taken: tuple[float, ...] = ()

    def due(self, now: float) -> float:
        """Seconds until the next place is free.

        Args:
            now: monotonic time.
        """
        return max(0.0, self.taken[0] + self.seconds - now) if len(self.taken) == self.most else 0.0

    def take(self, now: float) -> Window:
        """The window after a place in it was taken."""
        return Window(self.most, self.seconds, (*self.taken, now)[-self.most :])


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
