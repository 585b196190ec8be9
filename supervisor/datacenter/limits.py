"""Limits on how fast an account may call, and the waits that exceeding them costs."""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass, field

_WAIT = re.compile(r"(?:FLOOD_WAIT|FLOOD_PREMIUM_WAIT|SLOWMODE_WAIT|FLOOD_TEST_PHONE_WAIT)_(\d+)$")

_WINDOW = 0.95  # seconds: a second, less what arrival times vary for a sender that keeps exactly to the limit
_EXCESS_WAIT = 2  # seconds


@dataclass(slots=True)
class _Wait:
    prefix: str
    until: float
    told: dict[int | None, float] = field(default_factory=dict)


class Limits:
    """Sends per second and running waits, per account and method. Times are seconds of one monotonic clock.

    Slow mode is one chat's: its wait holds for that peer alone, a flood wait for all.
    """

    def __init__(self) -> None:
        self._sends: dict[int, deque[float]] = {}
        self._waits: dict[tuple[int | None, str, int | None], _Wait] = {}

    def begin_wait(self, user_id: int | None, method: str, peer: int | None, error: str, now: float) -> None:
        """The account was told to wait by `error`; an error that names no seconds begins nothing."""
        if matched := _WAIT.match(error):
            wait = _Wait(error.rsplit("_", 1)[0], now + int(matched[1]))
            wait.told[peer] = now
            only = peer if wait.prefix == "SLOWMODE_WAIT" else None
            self._waits[user_id, method, only] = wait

    def running_wait(
        self, user_id: int | None, method: str, peer: int | None, now: float
    ) -> tuple[str, float] | None:
        """The error for a call during a wait, and when this peer's caller was first told; None where none runs."""
        for only in (peer, None):
            wait = self._waits.get((user_id, method, only))
            if wait is not None and now < wait.until:
                told = wait.told.setdefault(peer, now)
                return f"{wait.prefix}_{math.ceil(wait.until - now)}", told
            self._waits.pop((user_id, method, only), None)
        return None

    def excess(self, user_id: int, limit: int, now: float) -> int:
        """Count one send; the seconds to wait where it is over `limit` a second, else 0."""
        sends = self._sends.setdefault(user_id, deque())
        while sends and sends[0] <= now - _WINDOW:
            sends.popleft()
        if len(sends) >= limit:
            return _EXCESS_WAIT
        sends.append(now)
        return 0

    def clear(self) -> None:
        """Forget all waits and all sends counted."""
        self._sends.clear()
        self._waits.clear()
