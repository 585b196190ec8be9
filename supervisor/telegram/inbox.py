"""The queue between the updates and the library's handlers: it knows what the handlers have finished.

It stands in the place of the dispatcher's own queue, so that the library parses, filters and calls handlers as
ever. A worker that asks for the next update has finished the one before; one that is cancelled has not. Workers are
begun when updates come, and end when none is left (dispatcher.py): an idle account has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from supervisor.core.sequence import Ticket
from supervisor.waiting import Bell

# Updates that wait for a handler; no more are brought before some are taken.
WAITING = 1000


class _Handed(NamedTuple):
    packet: Any
    ticket: Ticket | None


_COMING = object()  # stands for what a worker has that was begun, and has not asked for anything yet


class Inbox:
    """Updates for the handlers. Kept back until `open`; after `close` only what would not come again is handed out."""

    __slots__ = ("_begin", "_is_closed", "_is_open", "_most", "_on_finished", "_room", "_waiting", "_workers")

    def __init__(self, finished: Callable[[], None]) -> None:
        """Begin closed.

        Args:
            finished: is told when a handler has finished something.
        """
        self._on_finished = finished
        self._waiting: list[_Handed] = []
        self._workers: dict[Any, Any] = {}  # what each is at: a ticket, None, or _COMING
        self._is_open = self._is_closed = False
        self._begin: Callable[[], object] | None = None
        self._most = 0
        self._room = Bell()

    # --- updates come ---------------------------------------------------------------------------------

    def hand(self, packet: Any, ticket: Ticket | None) -> None:
        """Hand on an update.

        Args:
            packet: what the library's dispatcher takes: the update, users and chats.
            ticket: of an update that would come again if it were not finished.
        """
        if self._is_closed and ticket is not None:
            return
        self._waiting.append(_Handed(packet, ticket))
        self._call_workers()

    def put_nowait(self, packet: Any) -> None:
        """Hand on what came some other way, as into an `asyncio.Queue`."""
        self.hand(packet, None)

    def open(self) -> None:
        """There is somebody to handle updates now."""
        self._is_open = True
        self._call_workers()

    def close(self) -> None:
        """Leave to the next start what no handler has begun and would come again; no worker is begun after this."""
        self._is_closed = True
        self._waiting = [handed for handed in self._waiting if handed.ticket is None]
        self.open()
        self._begin = None

    async def room(self) -> None:
        """Wait until fewer than `WAITING` updates wait for a handler."""
        while len(self._waiting) >= WAITING:
            await self._room.heard()

    def qsize(self) -> int:
        """How many wait for a handler."""
        return len(self._waiting)

    def packets(self) -> list[Any]:
        """Those that wait for a handler, in order."""
        return [handed.packet for handed in self._waiting]

    # --- workers take them ----------------------------------------------------------------------------

    def serve(self, begin: Callable[[], object], most: int) -> None:
        """Have workers begun when there is something for them.

        Args:
            begin: begins one, a task, which comes for its updates until it gets None.
            most: how many there may be at once.
        """
        self._begin, self._most = begin, most
        self._call_workers()

    def _call_workers(self) -> None:
        """One for each update that waits, besides those that are at work."""
        if not self._is_open or self._begin is None:
            return
        coming = sum(at is _COMING for at in self._workers.values())
        while coming < len(self._waiting) and len(self._workers) < self._most:
            self._workers[self._begin()] = _COMING
            coming += 1

    async def get(self) -> Any:
        """The next update for the worker that asks; None: there is none left, and the worker ends."""
        worker = asyncio.current_task()
        self._settle(self._workers.pop(worker, None))
        if not self._waiting:
            return None
        packet, self._workers[worker] = self._waiting.pop(0)
        self._room.ring()
        return packet

    def ended(self, worker: Any) -> None:
        """A worker is gone. One that its handler has cancelled would be cancelled by the same update again."""
        at = self._workers.pop(worker, None)
        if not self._is_closed:
            self._settle(at)
        self._call_workers()

    def _settle(self, at: Any) -> None:
        """What a worker was at is finished."""
        if isinstance(at, Ticket):
            at.done()
            self._on_finished()
