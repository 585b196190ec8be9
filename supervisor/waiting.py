"""Waiting that costs nothing while nobody waits: a thousand accounts have several of each, and are idle most of the time.

An `asyncio.Event` or `asyncio.Queue` holds a deque or four, of 0.7 KiB each, from its beginning.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Starts a task of somebody's, and names it.
Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


PORTION = 50


def in_portions(work: Iterable[Callable[[], None]]) -> None:
    """Do many small things that each wake somebody, so many in a pass of the loop: it answers others between."""
    left = iter(work)

    def some() -> None:
        done = 0
        for do in itertools.islice(left, PORTION):
            do()
            done += 1
        if done == PORTION:
            asyncio.get_running_loop().call_soon(some)

    some()


class Bell:
    """Wakes all who wait for it when it rings; it does not remember that it rang."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: tuple[asyncio.Future[None], ...] = ()

    def ring(self) -> None:
        """Wake all who wait now."""
        waiting, self._waiting = self._waiting, ()
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def heard(self) -> None:
        """Wait until it rings the next time."""
        one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting += (one,)
        try:
            await one
        finally:
            if one.cancelled():
                self._waiting = tuple(other for other in self._waiting if other is not one)


class Mailbox(Generic[T]):
    """What is sent to one reader, in order."""

    __slots__ = ("_arrived", "_emptied", "_items")

    def __init__(self) -> None:
        self._items: list[T] = []
        self._arrived, self._emptied = Bell(), Bell()

    def put(self, item: T) -> None:
        """Send something."""
        self._items.append(item)
        self._arrived.ring()

    async def get(self) -> T:
        """The next; waits for it."""
        while not self._items:
            await self._arrived.heard()
        item = self._items.pop(0)
        if not self._items:
            self._emptied.ring()
        return item

    async def emptied(self) -> None:
        """Return when everything that was sent has been taken."""
        while self._items:
            await self._emptied.heard()
