"""The one thread that reads and writes sessions.db.

Changes are queued from the event loop under a key each, so that a row changed twice in a tick is written once;
a tick is one transaction. What could not be written stays queued and is tried again: it is lost only with the
process. Nothing here blocks the loop, and no task is started: a timer, and the thread's futures.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from supervisor.telegram.storage import schema
from supervisor.telegram.storage.errors import StorageBroken, broken

TICK = 0.2  # seconds that a change may wait for others to be committed with it
MAX_RETRY = 30.0  # seconds between two attempts to write while the disk refuses

T = TypeVar("T")
Statement = tuple[str, tuple[Any, ...]]
Batch = dict[Hashable, tuple[Statement, ...]]

log = logging.getLogger(__name__)


# What a row is guilty of, not the disk: a value of a wrong type, or beyond 64 bits.
_BAD_ROW = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    ValueError,
)


def _apply(connection: sqlite3.Connection, batch: Batch) -> None:
    try:
        _transact(connection, batch, _all_rows)
    except _BAD_ROW:
        _transact(connection, batch, _good_rows)


def _transact(
    connection: sqlite3.Connection, batch: Batch, write: Callable[[sqlite3.Connection, Batch], None]
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        write(connection, batch)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _all_rows(connection: sqlite3.Connection, batch: Batch) -> None:
    for sql, group in groupby(chain.from_iterable(batch.values()), key=itemgetter(0)):
        connection.executemany(sql, [parameters for _, parameters in group])


def _good_rows(connection: sqlite3.Connection, batch: Batch) -> None:
    # One row that SQLite cannot hold must not keep all the others from the disk for ever.
    for key, statements in batch.items():
        connection.execute("SAVEPOINT one_row")
        try:
            for sql, parameters in statements:
                connection.execute(sql, parameters)
        except _BAD_ROW as error:
            connection.execute("ROLLBACK TO one_row")
            log.warning("a row of sessions.db cannot be written, and is dropped: %r (%s)", key, error)
        connection.execute("RELEASE one_row")


@dataclass(frozen=True, slots=True)
class _Read:
    """Something to be read, and who waits for it."""

    function: Callable[[sqlite3.Connection], Any]
    found: asyncio.Future[Any]


def _read_all(connection: sqlite3.Connection, wanted: Iterable[_Read]) -> list[Any]:
    """What each has found, or has met."""
    return [_tried(read, connection) for read in wanted]


def _tried(read: _Read, connection: sqlite3.Connection) -> Any:
    try:
        return read.function(connection)
    except Exception as error:  # noqa: BLE001 - whoever wanted it gets it
        return error


def _answer(wanted: Iterable[_Read], found: Iterable[Any]) -> None:
    for read, one in zip(wanted, found, strict=True):
        if read.found.done():  # nobody waits for it any longer
            continue
        if isinstance(one, Exception):
            read.found.set_exception(one)
        else:
            read.found.set_result(one)


class Writer:
    """The queue of changes to one database, and its thread. Lives in one event loop.

    Args:
        path: the database, for messages.
        connection: opened in `executor`'s thread, and used nowhere else.
        lock: the lock's descriptor, closed after the connection.
        executor: of one thread.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: int, executor: ThreadPoolExecutor
    ) -> None:
        self._path = path
        self._connection = connection
        self._lock = lock
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._pending: Batch = {}
        self._queued = 0  # changes queued so far; `_written` of them are on disk
        self._written = 0
        self._running: asyncio.Future[None] | None = None
        self._wanted: list[_Read] = []  # reads that have not begun
        self._reading = False
        self._timer: asyncio.Handle | None = None
        self._timer_is_now = False
        self._error: StorageBroken | None = None
        self._failures = 0
        self._closed = False
        self._late = False  # somebody changed something after `close`, and it was said

    def put(self, key: Hashable, statements: tuple[Statement, ...], *, now: bool = False) -> None:
        """Queue a change; one that is queued under the same key is replaced, and order is kept otherwise.

        Args:
            key: names the row.
            statements: SQL with its parameters.
            now: commit in this turn of the loop instead of with the next tick.
        """
        if self._closed:
            if not self._late:
                log.warning("%s is closed: late changes are not written", self._path)
            self._late = True
            return
        self._pending.pop(key, None)
        self._pending[key] = statements
        self._queued += 1
        self._schedule(0.0 if now else TICK)

    async def flush(self) -> None:
        """Return when all that was queued so far is on disk. Callers that wait together share one commit.

        Raises:
            StorageBroken: it could not be written; it stays queued and is tried again.
        """
        ticket = self._queued
        while self._written < ticket:
            if self._running is None:
                self._start()
            if self._running is not None:
                await asyncio.wait([self._running])
            if self._error is not None:
                raise self._error

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run `function` with the connection, in the thread.

        Raises:
            StorageBroken: the database is closed, or cannot be read.
        """
        if self._closed:
            raise self._is_closed()
        wanted = _Read(function, self._loop.create_future())
        self._wanted.append(wanted)
        if not self._reading:
            self._read()
        try:
            found: T = await wanted.found
        except sqlite3.Error as error:
            raise broken(self._path, error) from error
        return found

    def _read(self) -> None:
        """Read for all who want something: while the thread does, others come, and are served together by the next turn."""
        wanted, self._wanted = self._wanted, []
        self._reading = bool(wanted)
        if self._closed:
            _answer(wanted, [self._is_closed()] * len(wanted))
        elif wanted:
            reading = self._loop.run_in_executor(self._executor, _read_all, self._connection, wanted)
            reading.add_done_callback(lambda reading: self._have_read(wanted, reading))

    def _have_read(self, wanted: list[_Read], reading: asyncio.Future[list[Any]]) -> None:
        _answer(wanted, [self._is_closed()] * len(wanted) if reading.cancelled() else reading.result())
        self._read()

    def _is_closed(self) -> StorageBroken:
        return StorageBroken(self._path, "is closed: the daemon is stopping")

    async def close(self) -> None:
        """Write what is queued, and close the connection, whatever happens.

        Raises:
            StorageBroken: the last changes could not be written.
        """
        if self._closed:
            return
        try:
            await self.flush()
        finally:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            closing = self._loop.run_in_executor(self._executor, schema.close, self._connection, self._lock)
            await asyncio.shield(closing)
            self._executor.shutdown(wait=False)

    def _schedule(self, delay: float) -> None:
        if self._failures and delay == TICK:
            delay = min(TICK * 2**self._failures, MAX_RETRY)
        if self._timer is not None:
            if delay or self._timer_is_now:
                return
            self._timer.cancel()
        self._timer_is_now = not delay
        self._timer = (
            self._loop.call_later(delay, self._start) if delay else self._loop.call_soon(self._start)
        )

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None or not self._pending or self._closed:
            return  # a running commit starts the next one
        batch, self._pending = self._pending, {}
        upto = self._queued
        self._running = self._loop.run_in_executor(self._executor, _apply, self._connection, batch)
        self._running.add_done_callback(lambda running: self._done(running, batch, upto))

    def _done(self, running: asyncio.Future[None], batch: Batch, upto: int) -> None:
        self._running = None
        error = asyncio.CancelledError() if running.cancelled() else running.exception()
        if error is None:
            if self._failures:
                log.warning("%s is written again", self._path)
            self._written, self._failures, self._error = upto, 0, None
        else:
            newer = self._pending
            self._pending = {key: batch[key] for key in batch if key not in newer} | newer
            self._failures += 1
            if isinstance(error, (sqlite3.Error, OSError)):
                self._error = broken(self._path, error)
            else:
                self._error = StorageBroken(self._path, f"was not written ({type(error).__name__}: {error})")
            if self._failures == 1:
                log.error("%s; sessions are kept in memory, and it is tried again", self._error)
        if self._pending and not self._closed:
            self._schedule(TICK)
