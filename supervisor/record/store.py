"""The writing side of the recovery log: one task, one connection, batched transactions.

    record(), incident(), path()  save_account(), save_flood(), save_sign_in()
          |  never wait                     |  return after the commit
          +------------> Buffer <-----------+
                            |  every 0.1 s, at once for a save
                            v
                     one transaction  --- fails 3 times ---> kept, tried again every second

Whatever becomes of the file, nothing here raises into the recovery: rows wait in memory, merged past a bound.
All methods are called from the event loop that entered the store.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import aiosqlite
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from supervisor.core.failure import Row
from supervisor.errors import ConfigError, SupervisorError
from supervisor.ports import AccountSnapshot, FloodRow, IncidentRow, PathSnapshot, Saved, SignIn
from supervisor.record import queries, rollups
from supervisor.record.buffer import Batch, Buffer, Entry
from supervisor.record.files import BUSY_TIMEOUT, PRAGMAS, is_damage, prepare, set_aside
from supervisor.record.retention import trim
from supervisor.record.takeover import Takeover
from supervisor.record.writing import is_same, write

_log = logging.getLogger(__name__)

_TRIES = 3
_BETWEEN_TRIES = 0.5  # s
_TRIM_EVERY = 3600.0  # s
_SIGNS_MISSED = 3  # in a row, after which the file counts as not written
_PASSING = (sqlite3.OperationalError, OSError)  # locked, full, unreadable: may pass by itself


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How the log is written.

    Args:
        retention_days: how long rows are kept.
        batch_seconds: the longest that a row waits for others to share its transaction.
        max_rows: how many rows may wait one by one, and how many merged ones beyond them.
        between_saves: seconds from one transaction's beginning to the next one's, where somebody waits for it.
        heartbeat: seconds between two signs of life in the file.
        retry_seconds: seconds between two tries while the file cannot be written.
        is_daemon: whether a daemon writes, whose life `status` tells; another command's is nobody's business.
    """

    retention_days: int = 30
    batch_seconds: float = 0.1
    max_rows: int = 10_000
    between_saves: float = 0.02
    heartbeat: float = 10.0
    retry_seconds: float = 1.0
    is_daemon: bool = True


class Store:
    """The recovery log, open for writing: ``async with Store.open(state_dir / "recovery.db") as store``.

    Implements `ports.Recorder`.
    """

    def __init__(self, path: Path, settings: StoreSettings, now: Callable[[], float]) -> None:
        self._path = path
        self._settings = settings
        self._now = now
        self._buffer = Buffer(settings.max_rows)
        self._full_batch = max(1, settings.max_rows // 4)
        self._work = asyncio.Event()  # something waits
        self._hurry = asyncio.Event()  # somebody waits for it
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._db: aiosqlite.Connection | None = None
        self._next_id = 1
        self._lanes = rollups.Lanes()
        self._stuck: Batch | None = None  # could not be written; goes first
        self._failing_since: float | None = None  # monotonic
        self._last_write = self._last_flush = time.monotonic()
        self._waiters: list[asyncio.Future[None]] = []
        self._save_at: asyncio.TimerHandle | None = None  # when they are due
        self._newest: dict[str | None, tuple[int, Entry]] = {}  # account -> its newest failure
        self._started_at = now()
        self._trim_at = time.monotonic() + 1.0
        self._takeover: Takeover | None = None
        self._take_at = 0.0  # monotonic

    @classmethod
    def open(
        cls, path: Path, settings: StoreSettings | None = None, now: Callable[[], float] = time.time
    ) -> Store:
        """A store for recovery.db, to be entered with ``async with``.

        Args:
            path: the file; created, 0600, if it is not there. Its directory must be.
            settings: where the defaults don't suit.
            now: the wall clock, Unix time.

        Raises:
            ConfigError: (on entering) the file was written by a newer release. Whatever else is wrong with it is
                said in the log, and the rows wait in memory.
        """
        return cls(path, settings or StoreSettings(), now)

    async def __aenter__(self) -> Self:
        try:
            await self._flush()
        except BaseException:
            await self._disconnect()
            raise
        self._task = asyncio.create_task(self._run(), name="record-writer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits and close the file; takes at most some 3 s, and being cancelled does not cut it short."""
        assert self._task is not None
        self._closing.set()
        self._hurry.set()
        self._work.set()
        await _to_its_end(self._task)

    # --- ports.Recorder -------------------------------------------------------------------------

    def record(self, row: Row) -> None:
        """Queue a row of the log."""
        self._buffer.add(row)
        self._work.set()
        if self._buffer.rows >= self._full_batch:
            self._hurry.set()

    def incident(self, row: IncidentRow) -> None:
        """Queue an incident's latest state."""
        self._buffer.add_incident(row)
        self._work.set()

    def path(self, snapshot: PathSnapshot) -> None:
        """Queue a path's latest snapshot."""
        self._buffer.add_path(snapshot.name, snapshot)
        self._work.set()

    async def save_account(self, snapshot: AccountSnapshot) -> None:
        """Write an account's latest snapshot."""
        self._buffer.add_account(snapshot.name, snapshot)
        await self._written()

    async def save_flood(self, row: FloodRow) -> None:
        """Write a wait that Telegram demanded."""
        self._buffer.add_flood(row, self._now())
        await self._written()

    async def save_sign_in(self, sign_in: SignIn) -> None:
        """Write that an account signed in."""
        self._buffer.add_sign_in(sign_in)
        await self._written()

    # --- Beyond the port ------------------------------------------------------------------------

    async def forget_account(self, name: str) -> None:
        """Drop the snapshot of an account that is no longer configured; its rows in the log stay."""
        self._buffer.add_account(name, None)
        await self._written()

    def forget_path(self, name: str) -> None:
        """Drop the snapshot of a path that is no longer configured, soon."""
        self._buffer.add_path(name, None)
        self._work.set()

    async def saved(self) -> Saved:
        """What the last run left behind; nothing where it cannot be read, which is said in the log."""
        try:
            return await asyncio.to_thread(queries.saved, self._path, self._now())
        except (SupervisorError, OSError) as error:
            _log.error("the last run's waits and incidents are lost: %s", error)
            return Saved()

    @property
    def is_writable(self) -> bool:
        """Whether the last write succeeded and is not long ago: a disk may hang, too, instead of saying no."""
        silent = time.monotonic() - self._last_write
        return self._failing_since is None and silent < _SIGNS_MISSED * self._settings.heartbeat

    @property
    def waiting(self) -> int:
        """How many rows are not on disk yet."""
        return self._buffer.rows + (self._stuck.size if self._stuck is not None else 0)

    def row_id(self, row: Row) -> int | None:
        """The number under which an account's newest failure stands in the log; None until it is written."""
        row_id, entry = self._newest.get(row.account, (None, None))
        return row_id if entry is not None and is_same(row, entry) else None

    # --- The writer's task ----------------------------------------------------------------------

    async def _written(self) -> None:
        self._work.set()
        if self._failing_since is not None or self._task is None or self._task.done():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        # Where many save at once, as a fleet that starts, they share transactions.
        early = self._last_flush + self._settings.between_saves - time.monotonic()
        if early <= 0:
            self._hurry.set()
        elif self._save_at is None:
            self._save_at = asyncio.get_running_loop().call_later(early, self._hurry.set)
        await waiter

    async def _run(self) -> None:
        try:
            while not self._closing.is_set():
                await self._until_due()
                try:
                    await self._flush()
                    await self._trim()
                    await self._take_over()
                except Exception:  # noqa: BLE001 - the writer outlives its own faults
                    _log.exception("the recovery log's writer met an error of its own")
                    await asyncio.sleep(self._settings.retry_seconds)
        finally:
            await self._finish()

    async def _until_due(self) -> None:
        """Return when a batch is due: at once if somebody waits for it, or when a sign of life is."""
        if self._failing_since is not None:
            await _wait(self._closing, self._settings.retry_seconds)
            return
        due = min(self._trim_at, self._take_at) - time.monotonic()
        idle = min(self._settings.heartbeat, max(0.05, due))
        if await _wait(self._work, idle):
            await _wait(self._hurry, self._settings.batch_seconds)

    async def _flush(self) -> None:
        """Write what could not be written before, then what waits."""
        self._last_flush = time.monotonic()
        self._work.clear()
        self._hurry.clear()
        if self._save_at is not None:
            self._save_at.cancel()
            self._save_at = None
        if self._stuck is not None and not await self._deliver(self._stuck, []):
            return
        waiters, self._waiters = self._waiters, []
        await self._deliver(self._buffer.take(), waiters)

    async def _deliver(self, batch: Batch, waiters: list[asyncio.Future[None]]) -> bool:
        """Write one batch; where that cannot be done keep it and let nobody wait."""
        self._stuck = batch
        try:
            await _to_its_end(asyncio.create_task(self._try_writing(batch), name="record-write"))
            self._stuck = None
        except _PASSING as error:
            await self._failed(error)
        finally:
            if self._stuck is not None:
                waiters += self._waiters
                self._waiters = []
            _release(waiters)
        if self._stuck is None and self._failing_since is not None:
            self._recovered()
        return self._stuck is None

    async def _try_writing(self, batch: Batch) -> None:
        tries = 1 if self._failing_since is not None and not self._closing.is_set() else _TRIES
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(tries),
            wait=wait_fixed(_BETWEEN_TRIES),
            retry=retry_if_exception_type(_PASSING),
            reraise=True,
        ):
            with attempt:
                await self._write_or_salvage(batch)

    async def _write_or_salvage(self, batch: Batch) -> None:
        try:
            await self._write(batch)
        except (*_PASSING, ConfigError):
            raise
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                await self._salvage(batch)
                return
            await self._disconnect()
            set_aside(self._path, error)
            await self._write(batch)
        except Exception:  # noqa: BLE001 - what a row holds must not stop the others
            await self._salvage(batch)

    async def _salvage(self, batch: Batch) -> None:
        """Write a batch item by item: one that SQLite will not take must not keep the others from the disk."""
        await self._disconnect()
        for piece in batch.pieces():
            try:
                await self._write(piece)
            except _PASSING:
                raise
            except Exception:  # noqa: BLE001 - the same
                await self._disconnect()
                _log.exception("left out of the recovery log, for SQLite does not take it: %r", piece)

    async def _write(self, batch: Batch) -> None:
        if not self._path.exists():  # deleted under our feet: what is written to it now is lost
            await self._disconnect()
        db = self._db or await self._connect()
        meta = {
            "pid": os.getpid(),
            "started_at": self._started_at,
            "heartbeat_at": self._now(),
            "stopped_at": self._now() if self._closing.is_set() else None,
        }
        written = await write(db, batch, meta if self._settings.is_daemon else {}, self._next_id, self._lanes)
        self._last_write = time.monotonic()
        self._next_id = written.next_id
        self._newest.update(written.failures)

    async def _connect(self) -> aiosqlite.Connection:
        await asyncio.to_thread(prepare, self._path)
        db = self._db = await aiosqlite.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None)
        for pragma in PRAGMAS:
            await db.execute_fetchall(pragma)
        await db.create_function("added", 2, rollups.added, deterministic=True)
        for row in await db.execute_fetchall("SELECT seq FROM sqlite_sequence WHERE name = 'failures'"):
            self._next_id = max(self._next_id, row[0] + 1)
        self._lanes = rollups.Lanes(await db.execute_fetchall("SELECT * FROM lanes ORDER BY number"))  # type: ignore[arg-type]
        self._takeover, self._take_at = Takeover(self._path, self._lanes), 0.0
        open_ones = await db.execute_fetchall("SELECT id FROM incidents WHERE closed_at IS NULL")
        self._buffer.hold_open(row[0] for row in open_ones)
        return db

    async def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error, ValueError):
                await db.close()

    async def _trim(self) -> None:
        if self._db is None or self._failing_since is not None or time.monotonic() < self._trim_at:
            return
        self._trim_at = time.monotonic() + _TRIM_EVERY
        try:
            if await trim(self._db, self._now(), self._settings.retention_days):
                self._trim_at = time.monotonic() + self._settings.batch_seconds
        except sqlite3.OperationalError as error:
            _log.info("old rows stay for another hour: %s", error)

    async def _take_over(self) -> None:
        """Go on taking an older release's log over, as long as there is one."""
        if self._db is None or self._takeover is None or time.monotonic() < self._take_at:
            return
        self._take_at = time.monotonic() + self._settings.batch_seconds
        try:
            await self._takeover.step(self._now())
        except sqlite3.OperationalError as error:
            self._take_at = time.monotonic() + self._settings.retry_seconds
            _log.info("the older release's log waits: %s", error)
        if self._takeover.is_done:
            self._take_at = math.inf

    async def _finish(self) -> None:
        """The last batch, and the file closed; runs to its end also when the task itself is cancelled."""
        try:
            await self._flush()
        except Exception:  # noqa: BLE001 - the end of the run goes on
            _log.exception("the recovery log's last rows could not be written")
        lost = (self._stuck.size if self._stuck else 0) + self._buffer.rows
        if lost:
            _log.error("%d rows of the recovery log are lost: %s could not be written", lost, self._path)
        await self._disconnect()
        _release(self._waiters)

    async def _failed(self, error: Exception) -> None:
        await self._disconnect()  # the next try begins with the file as it is then
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            text = "%s cannot be written (%s): the recovery log waits in memory and is tried again every %g s"
            _log.error(text, self._path, error, self._settings.retry_seconds)

    def _recovered(self) -> None:
        assert self._failing_since is not None
        _log.warning("%s is written again, after %.0f s", self._path, time.monotonic() - self._failing_since)
        self._failing_since = None


def _release(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


async def _to_its_end(task: asyncio.Task[None]) -> None:
    """Wait for a task whatever happens: being cancelled meanwhile does not cut it short, and is raised afterwards."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
        except Exception:  # noqa: BLE001 - told below
            break
    if cancelled:
        raise asyncio.CancelledError
    task.result()


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event came within so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
