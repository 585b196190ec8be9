"""The library's dispatcher, without what an idle account does not need.

It parses, filters and calls handlers as ever. But its workers are begun when updates come and end when none is left,
`workers` of them at once at most; the table of its parsers, forty closures, is made with the first update; and
handlers come and go without locks: who is at work goes on with those of before.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import OrderedDict
from contextlib import nullcontext, suppress
from typing import Any

from supervisor.telegram.inbox import Inbox

log = logging.getLogger(__name__)

_NO_LOCK = nullcontext()


class LeanDispatcher:
    """What is ours in a dispatcher; the rest is the installed library's."""

    # The library's own, as far as it is used here.
    handler_worker: Any
    updates_queue: Inbox

    def __init__(self, client: Any) -> None:
        """Begin without workers, and without what the library makes here."""
        self.client = client
        self.loop = asyncio.get_running_loop()
        self.groups: OrderedDict[int, list[Any]] = OrderedDict()
        self.handler_worker_tasks: list[asyncio.Task[None]] = []
        self.locks_list: list[Any] = []
        self._is_ending = False

    @functools.cached_property
    def update_parsers(self) -> Any:
        """Which parser takes which update."""
        made = _library_dispatcher()(self.client)
        made.updates_queue = None  # the parsers keep it alive, and it keeps four deques
        return made.update_parsers

    # --- handlers -------------------------------------------------------------------------------------

    def add_handler(self, handler: Any, group: int) -> None:
        """Add a handler; it takes part from the next update on."""
        groups = {**self.groups, group: [*self.groups.get(group, ()), handler]}
        self.groups = OrderedDict(sorted(groups.items()))

    def remove_handler(self, handler: Any, group: int) -> None:
        """Remove a handler, or the copy of it that runs here (handlers.py)."""
        present = self.groups.get(group, ())
        for number, other in enumerate(present):
            if other is handler or getattr(other, "original", None) is handler:
                groups = {**self.groups, group: [*present[:number], *present[number + 1 :]]}
                self.groups = OrderedDict(kept for kept in groups.items() if kept[1])
                return
        log.error(
            "%s: a handler cannot be removed: it is not in group %d", self.client.name, group
        )  # the library raises, where nobody hears it

    # --- workers --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Let handlers run."""
        started = getattr(self.client, "start_handler", None)  # Kurigram's
        if callable(started):
            try:
                await started(self.client)
            except Exception:
                log.exception("%s: its start handler failed", self.client.name)
        if not self.client.no_updates:
            self.updates_queue.serve(self._begin_worker, self.client.workers)

    def end(self) -> list[asyncio.Task[None]]:
        """Begin nothing new; give the workers that are still at work."""
        self._is_ending = True
        self.updates_queue.close()
        return list(self.handler_worker_tasks)

    def _begin_worker(self) -> asyncio.Task[None]:
        name = f"handlers:{self.client.name}"
        worker: asyncio.Task[None] = self.loop.create_task(self.handler_worker(_NO_LOCK), name=name)
        self.handler_worker_tasks.append(worker)
        worker.add_done_callback(self._worker_ended)
        return worker

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        with suppress(ValueError):
            self.handler_worker_tasks.remove(worker)
        if self.loop.is_closed():
            return
        if not self._is_ending and (worker.cancelled() or worker.exception() is not None):
            text = "%s: a worker was cancelled by the handler that it ran; another takes its place"
            log.warning(text, self.client.name)
        self.updates_queue.ended(worker)


@functools.cache
def dispatcher_class() -> type[Any]:
    """The installed library's dispatcher, lean. Call it inside a running loop."""
    return type("Dispatcher", (LeanDispatcher, _library_dispatcher()), {})


def _library_dispatcher() -> Any:
    from pyrogram import dispatcher

    return dispatcher.Dispatcher
