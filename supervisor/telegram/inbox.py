"""The queue between the updates and the library's handlers: it knows what the handlers have finished.

It stands in the place of the dispatcher's own queue, so that the library parses, filters and calls handlers as
ever. A worker that asks for the next update has finished the one before; one that is cancelled has not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from supervisor.core.sequence import Ticket

# Updates that wait for a handler; no more are brought before some are taken.
WAITING = 1000


class _Handed(NamedTuple):
    packet: Any
    ticket: Ticket | None


class Inbox(asyncio.Queue[Any]):
    """Updates for the handlers. Kept back until `open`; after `close` only what would not come again is handed out."""

    def __init__(self, finished: Callable[[], None]) -> None:
        """Begin closed.

        Args:
            finished: is told when a handler has finished something.
        """
        super().__init__()
        self._on_finished = finished
        self._at_work: dict[Any, Ticket] = {}
        self._early: list[_Handed] | None = []
        self._is_closed = False
        self._room = asyncio.Event()

    def hand(self, packet: Any, ticket: Ticket | None) -> None:
        """Hand on an update.

        Args:
            packet: what the library's dispatcher takes: the update, users and chats.
            ticket: of an update that would come again if it were not finished.
        """
        handed = _Handed(packet, ticket)
        if self._is_closed and ticket is not None:
            return
        if self._early is not None:
            self._early.append(handed)
        else:
            self.put_nowait(handed)

    def open(self) -> None:
        """There is somebody to handle updates now."""
        early, self._early = self._early or [], None
        for handed in early:
            self.put_nowait(handed)

    def close(self) -> None:
        """Leave to the next start what no handler has begun and would come again."""
        self._is_closed = True
        self.open()
        waiting = [self.get_nowait() for _ in range(self.qsize())]
        for handed in waiting:
            if not isinstance(handed, _Handed) or handed.ticket is None:
                self.put_nowait(handed)

    async def room(self) -> None:
        """Wait until fewer than `WAITING` updates wait for a handler."""
        while self.qsize() + len(self._early or ()) >= WAITING:
            self._room.clear()
            await self._room.wait()

    def _settle(self, worker: Any) -> None:
        """A worker comes for the next; one that its handler has cancelled never does (handlers.py)."""
        ended = [other for other in self._at_work if other.done()] if not self._is_closed else []
        for one in (worker, *ended):
            ticket = self._at_work.pop(one, None)
            if ticket is not None:
                ticket.done()
                self._on_finished()

    async def get(self) -> Any:
        """The next update, for a worker of the dispatcher."""
        worker = asyncio.current_task()
        self._settle(worker)
        self._room.set()
        handed = await super().get()
        if not isinstance(handed, _Handed):
            return handed
        if handed.ticket is not None:
            self._at_work[worker] = handed.ticket
        return handed.packet
