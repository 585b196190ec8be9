"""Questions to the recovery log, answered in threads of their own: the event loop only waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from supervisor.control.protocol import ControlError
from supervisor.errors import SupervisorError
from supervisor.record import queries

T = TypeVar("T")

_THREADS = 2  # a long question leaves one for the short ones
_REST = 10  # an answer is given again for so many times the time that it took: asking costs a tenth of a thread at most
_KEPT = 50  # answers


@dataclass(slots=True)
class _Kept:
    """An answer, or the wait for it; `until` on the loop's clock."""

    answer: asyncio.Future[tuple[Any, float]]
    until: float = 0.0


class Reads:
    """Reads recovery.db, a read-only connection for each question: the file may be another one than before.

    Args:
        path: recovery.db.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(_THREADS, "dashboard")
        self._kept: dict[Hashable, _Kept] = {}

    async def ask(self, question: Callable[[Any], T]) -> T:
        """Ask the log.

        Args:
            question: is given the connection, in a thread; what it returns should be what is sent, text and all.

        Raises:
            ControlError: the log cannot be read now.
        """
        return await self.work(lambda: self._ask(question))

    async def ask_seldom(self, key: Hashable, question: Callable[[Any], T]) -> T:
        """Ask the log what may take long: whoever asks the same meanwhile, or soon after, gets the same answer.

        Args:
            key: what makes two questions the same.
            question: see `ask`.

        Raises:
            ControlError: the log cannot be read now.
        """
        loop = asyncio.get_running_loop()
        kept = self._kept.get(key)
        if kept is None or (kept.answer.done() and loop.time() >= kept.until):
            self._kept.pop(key, None)
            while len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            kept = self._kept[key] = _Kept(loop.run_in_executor(self._threads, self._timed, question))
            # Whoever asked may be gone before it fails.
            kept.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        value, seconds = await asyncio.shield(kept.answer)
        kept.until = kept.until or loop.time() + _REST * seconds
        answer: T = value
        return answer

    async def work(self, work: Callable[[], T]) -> T:
        """Do something in a thread that would hold the loop up."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def close(self) -> None:
        """Let the questions in hand come to their ends, and the threads with them."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _timed(self, question: Callable[[Any], T]) -> tuple[T, float]:
        begun = time.perf_counter()
        return self._ask(question), time.perf_counter() - begun

    def _ask(self, question: Callable[[Any], T]) -> T:
        try:
            with queries.opened(self._path) as db:
                if db is not None:
                    return question(db)
        except SupervisorError as error:
            raise ControlError("storage_failed", str(error), retryable=True, status=503) from error
        raise ControlError("storage_failed", f"there is no {self._path} (yet)", retryable=True, status=503)
