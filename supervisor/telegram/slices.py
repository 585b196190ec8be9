"""What has come from all links is handled a slice at a time: between two of them the event loop does everything else.

A thousand links may have something to say in one pass of the loop: answers after a burst of calls, or that all of them are
lost. Each is handled quickly; all in one pass would hold up timers, handlers and every other account for as long as they
take together, and wake as many tasks in the pass after it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

# Seconds that one pass of the loop spends on what has come. What that wakes takes up to ten times as long in the pass after it.
SLICE = 0.003


class Slices:
    """One event loop's; `of` gives it. Everything is done in the order in which it was given."""

    def __init__(self) -> None:
        """Use `of`."""
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._until: float | None = None  # the end of this pass's slice, where it has begun

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Slices:
        """The one of this loop."""
        found = _ALL.get(loop)
        if found is None:
            found = _ALL[loop] = cls()
        return found

    @property
    def behind(self) -> bool:
        """Whether something that has come waits for a later pass."""
        return bool(self._waiting)

    def do(self, what: Callable[..., None], *arguments: Any) -> bool:
        """Do something now, or in a later pass where the slice of this one is used up; say whether it is done."""
        if self._until is None:
            self._begin()
        elif self._waiting or time.monotonic() >= self._until:
            self._waiting.append((what, arguments))
            return False
        what(*arguments)
        return True

    def _begin(self) -> None:
        self._until = time.monotonic() + SLICE
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Another pass of the loop: go on with what waits, before anything that comes now."""
        if not self._waiting:
            self._until = None
            return
        self._begin()
        assert self._until is not None
        while self._waiting and time.monotonic() < self._until:
            what, arguments = self._waiting.popleft()
            what(*arguments)


_ALL: WeakKeyDictionary[asyncio.AbstractEventLoop, Slices] = WeakKeyDictionary()
