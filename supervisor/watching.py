"""The configuration's files, watched, so that whoever saves one need not tell the daemon.

What is watched are the directories: an editor puts a new file in the old one's place, and a link may be turned. What is
told of them is not believed: the files are compared with what was read of them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from supervisor.config.footprint import Footprint

log = logging.getLogger(__name__)

# Milliseconds without a further change after which one is told; after which it is told all the same.
QUIET, AT_LATEST = 200, 1000
# Seconds after which watching is tried again where the system would not have it.
AGAIN = 60.0
# Seconds that the watching thread is given to end; it looks whether it shall every `QUIET` milliseconds.
ENDS_WITHIN = 3.0


class _Unwatched(Exception):
    """The system would not have it: no watch is left, or a directory is gone or may not be read."""


class FileWatch:
    """Tells of every change of what the configuration was read from. `read_again` must be called at every reading."""

    def __init__(self, footprint: Callable[[], Footprint | None], tell: Callable[[], None]) -> None:
        """Begin; nothing is watched before `run`.

        Args:
            footprint: gives that of the last reading; None while nothing is to be watched.
            tell: has the configuration read again, soon.
        """
        self._footprint = footprint
        self._tell = tell
        self._news = asyncio.Event()
        self._read = asyncio.Event()
        self._failed: Exception | None = None

    def read_again(self) -> None:
        """The configuration was just read: what is compared is another now."""
        self._read.set()
        self._news.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._read.clear()
            self._failed = None
            seen = self._footprint()
            try:
                if seen is not None and await self._changes(seen):
                    self._tell()
                while not self._read.is_set():
                    await self._next()
            except _Unwatched as error:
                log.warning(
                    "the configuration's files cannot be watched (%s); after a change: tg-supervisor reload",
                    error,
                )
                await asyncio.sleep(AGAIN)

    async def _changes(self, seen: Footprint) -> bool:
        """Return True when a file is not as it was read any longer, False when all was read again.

        Raises:
            _Unwatched: the files cannot be watched.
        """
        while not self._read.is_set():
            directories = await asyncio.to_thread(seen.directories)
            async with self._watched(seen, directories):
                now = directories
                while now == directories:  # else the way to a file is another now
                    if self._read.is_set():
                        return False
                    changed, now = await asyncio.to_thread(_compared, seen)
                    if changed is not None:
                        log.info("%s has changed", changed)
                        return True
                    if now == directories:
                        await self._next()
        return False

    async def _next(self) -> None:
        await self._news.wait()
        self._news.clear()
        if self._failed is not None:
            raise _Unwatched(f"{type(self._failed).__name__}: {self._failed}") from self._failed

    @asynccontextmanager
    async def _watched(self, seen: Footprint, directories: frozenset[str]) -> AsyncIterator[None]:
        """Have a thread wait for changes in these directories."""
        loop, stop = asyncio.get_running_loop(), threading.Event()
        ended = asyncio.Event()

        def over(failed: Exception | None) -> None:
            self._failed = failed
            ended.set()
            self._news.set()

        def tell(what: Callable[..., None], *about: Any) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody has waited for this thread to its end
                loop.call_soon_threadsafe(what, *about)

        def work() -> None:
            failed: Exception | None = None
            try:
                for _ in _news(seen, directories, stop):
                    tell(self._news.set)
            except Exception as error:  # noqa: BLE001 - told where it is known what to do without
                failed = error
            tell(over, failed)

        thread = threading.Thread(target=work, name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(ENDS_WITHIN):
                    await ended.wait()
                    thread.join()


def _compared(seen: Footprint) -> tuple[Path | None, frozenset[str]]:
    return seen.changed(), seen.directories()


def _news(seen: Footprint, directories: frozenset[str], stop: threading.Event) -> Iterator[None]:
    """Yield once when these directories are watched, and then at changes that may concern us, until told to stop."""
    from watchfiles import watch

    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of every change of everything
    names = seen.names()
    is_first = True
    for changes in watch(
        *sorted(directories),
        watch_filter=lambda _, name: seen.concerns(name, names),
        step=QUIET,
        debounce=AT_LATEST,
        rust_timeout=AT_LATEST,
        yield_on_timeout=True,
        stop_event=stop,
        recursive=False,
        raise_interrupt=False,
    ):
        if changes or is_first:
            yield
        is_first = False
