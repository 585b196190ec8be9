"""How late the event loop is."""

from __future__ import annotations

import asyncio

_EVERY = 0.25  # s
_WINDOW = 30.0  # s; the worst of the last one to two of these is told


class Pulse:
    """The worst lateness of the running loop in the last minute, while it is watched."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._worst, self._before = 0.0, 0.0
        self._turn = self._loop.time() + _WINDOW
        self._due = self._loop.time() + _EVERY
        self._timer = self._loop.call_at(self._due, self._beat)

    @property
    def lag(self) -> float:
        """Seconds."""
        return max(self._worst, self._before, self._loop.time() - self._due)

    def end(self) -> None:
        """Watch no longer."""
        self._timer.cancel()

    def _beat(self) -> None:
        now = self._loop.time()
        self._worst = max(self._worst, now - self._due)
        if now >= self._turn:
            self._before, self._worst, self._turn = self._worst, 0.0, now + _WINDOW
        self._due = now + _EVERY
        self._timer = self._loop.call_at(self._due, self._beat)
