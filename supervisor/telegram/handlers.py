"""A bot's handlers at work: what they raise is recorded and stays theirs, and one that holds the others up is found out.

Each client runs copies of the handlers that it is given: one object, a plugin's, may be given to many clients. The
library's own flow (StopPropagation, ContinuePropagation, Kurigram's ErrorHandler) goes on as ever.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from supervisor import frames
from supervisor.core.failure import Evidence, Source
from supervisor.errors import AccountUnavailable
from supervisor.telegram import evidence as evidences

log = logging.getLogger(__name__)

HANDLER_STUCK = "HANDLER_STUCK"
# A handler that runs so long while no other worker is free is told of. Seconds.
STUCK_AFTER = 60.0

Callback = Callable[..., Any]


@dataclass(slots=True, eq=False)
class _Work:
    """One handler at work."""

    name: str
    since: float  # the event loop's clock
    coroutine: Any = None
    thread: int | None = None  # that runs it, if it is no coroutine
    told: bool = False

    def places(self) -> Sequence[str]:
        """Where it is."""
        if self.coroutine is not None:
            return frames.awaiting(self.coroutine)
        return frames.running(sys._current_frames().get(self.thread or 0))  # noqa: SLF001 - documented


class HandlerWatch:
    """All handlers of one client."""

    def __init__(self, account: str, dispatcher: Any, told: Callable[[Evidence], None]) -> None:
        """Begin; nothing runs yet.

        Args:
            account: the account's name.
            dispatcher: the client's.
            told: is given each failure.
        """
        self._account = account
        self._dispatcher = dispatcher
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._working: list[_Work] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ending = False

    def end(self) -> None:
        """From now on workers end because they are told to."""
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()

    # --- one handler ----------------------------------------------------------------------------------

    def contained(self, handler: Any) -> Any:
        """A copy of a handler for this client to run; `original` is what it is a copy of."""
        made = copy.copy(handler)
        made.original = handler
        made.callback = functools.partial(self._call, handler.callback)
        made.check = functools.partial(self._check, handler.check, handler.callback)
        return made

    async def _call(self, callback: Callback, client: Any, *args: Any) -> Any:
        try:
            with self._at_work(callback) as work:
                return await _called(work, callback, client, args)
        except BaseException as error:
            if _is_flow(error) or self._is_cancelled_by(error):
                raise
            harmless = _harmless(error)
            self._failed(callback, harmless)
            if self._has_error_handlers:
                raise harmless from harmless.__cause__
            return None

    async def _check(self, check: Callback, callback: Callback, client: Any, update: Any) -> Any:
        try:
            return await check(client, update)
        except BaseException as error:
            if self._is_cancelled_by(error):
                raise
            self._failed(callback, _harmless(error))
            return False  # what the library makes of a filter that fails

    @contextmanager
    def _at_work(self, callback: Callback) -> Iterator[_Work]:
        """Note a handler for as long as it works."""
        work = _Work(_name(callback), self._loop.time())
        self._working.append(work)
        if self._timer is None:
            self._timer = self._loop.call_later(STUCK_AFTER, self._look)
        try:
            yield work
        finally:
            self._working.remove(work)

    def _failed(self, callback: Callback, error: BaseException) -> None:
        """A handler raised: recorded. That its account stopped is no news of it, and is told elsewhere."""
        if isinstance(error, AccountUnavailable):
            log.debug("%s: %s: %s", self._account, _name(callback), error)
        else:
            self._told(evidences.from_code(error, step=f"handler {_name(callback)}"))

    def _is_cancelled_by(self, error: BaseException) -> bool:
        """Whether this is the end of the worker, not of what its handler waited for."""
        task = asyncio.current_task()
        return isinstance(error, asyncio.CancelledError) and (
            self._ending or task is None or task.cancelling() > 0
        )

    @property
    def _has_error_handlers(self) -> bool:
        """Whether the bot takes its handlers' exceptions by itself (Kurigram's ErrorHandler)."""
        groups = self._dispatcher.groups.values()
        return any(type(handler).__name__ == "ErrorHandler" for group in groups for handler in group)

    # --- one that holds the others up -----------------------------------------------------------------

    def _look(self) -> None:
        """Tell of what has worked for long, if nobody is left for the next update."""
        self._timer = None
        if not self._working:
            return
        now = self._loop.time()
        workers = self._dispatcher.client.workers
        if len(self._working) >= workers:
            for work in self._working:
                if not work.told and now - work.since >= STUCK_AFTER:
                    work.told = True
                    self._told(self._stuck(work, now - work.since, workers))
        untold = [work.since for work in self._working if not work.told]
        due = max(min(untold, default=now) + STUCK_AFTER, now + STUCK_AFTER / 4)
        self._timer = self._loop.call_at(due, self._look)

    def _stuck(self, work: _Work, seconds: float, workers: int) -> Evidence:
        waiting = self._dispatcher.updates_queue.qsize()
        busy = f"all {workers} workers are busy, {waiting} updates wait"
        message = f"handler {work.name} has been running for {seconds:.0f} s; {busy}"
        step, places = f"handler {work.name}", tuple(work.places())
        return Evidence(Source.CODE, message, HANDLER_STUCK, step=step, cause=places)


def _is_flow(error: BaseException) -> bool:
    """Whether it is the library's word for what comes next, not a failure."""
    import pyrogram

    return isinstance(error, pyrogram.StopPropagation | pyrogram.ContinuePropagation | GeneratorExit)


def _harmless(error: BaseException) -> Exception:
    """The same as an error of its handler: what means more to Python would end a worker, or the whole process."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    if isinstance(error, SystemExit):
        told = f"a handler called sys.exit({error.code!r})"
    elif isinstance(error, asyncio.CancelledError):
        told = "what a handler waited for was cancelled"
    else:
        told = f"a handler raised {type(error).__name__}: {error}"
    harmless = RuntimeError(told)
    harmless.__cause__ = error
    return harmless.with_traceback(error.__traceback__)


def _name(callback: Callback) -> str:
    callback = inspect.unwrap(callback)
    name = getattr(callback, "__qualname__", type(callback).__qualname__)
    return f"{getattr(callback, '__module__', '?')}.{name}"


def _called(work: _Work, callback: Callback, client: Any, args: tuple[Any, ...]) -> Awaitable[Any]:
    if inspect.iscoroutinefunction(callback):
        work.coroutine = callback(client, *args)
        awaitable: Awaitable[Any] = work.coroutine
        return awaitable

    def call() -> Any:
        work.thread = threading.get_ident()
        try:
            return callback(client, *args)
        except StopIteration as error:  # a future cannot hold it: its worker would wait for ever
            raise _harmless(error) from error

    return asyncio.get_running_loop().run_in_executor(client.executor, call)
