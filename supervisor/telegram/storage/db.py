"""SessionsDb: the file with all accounts' sessions and peers."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from supervisor.telegram.storage import schema
from supervisor.telegram.storage.account import AccountStorage, library_class
from supervisor.telegram.storage.errors import SessionInUse, shown
from supervisor.telegram.storage.rows import OldSession, Session, key_id
from supervisor.telegram.storage.writer import Writer


def _undo(opening: Future[tuple[sqlite3.Connection, int]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        schema.close(*opening.result())


class SessionsDb:
    """All sessions of the daemon, in one file of mode 0600 that one process uses at a time.

    Made by `open`, in the event loop that uses it.
    """

    def __init__(
        self,
        path: Path,
        writer: Writer,
        sessions: dict[str, tuple[int, Session]],
        now: Callable[[], float],
    ) -> None:
        self.path = path
        self.writer = writer
        self.now = now
        self._sessions = sessions  # those of which no storage has been made yet
        self._storages: dict[str, AccountStorage] = {}
        self._in_use: dict[bytes, str] = {}  # auth_key_id -> identity of the open account
        self._next = 1 + max((n for n, _ in sessions.values()), default=0)

    def __repr__(self) -> str:
        return f"<SessionsDb {self.path}>"

    @classmethod
    async def open(cls, path: Path, *, now: Callable[[], float] = time.time) -> SessionsDb:
        """Open the file, creating it where there is none, and read every account's session (not its peers).

        Args:
            path: ``state_dir/sessions.db``.
            now: the clock for people, Unix time.

        Raises:
            AlreadyRunning: another process has it open.
            StorageBroken: it cannot be used; the message says what to do.
        """
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sessions.db")
        opening = executor.submit(schema.connect, path)
        try:
            connection, lock = await asyncio.wrap_future(opening)
            writer = Writer(path, connection, lock, executor)
            sessions = await writer.read(schema.read_sessions)
        except BaseException:
            executor.submit(_undo, opening)
            executor.shutdown(wait=False)
            raise
        return cls(path, writer, sessions, now)

    async def close(self) -> None:
        """Write what is queued and close the file; closing twice does nothing.

        Raises:
            StorageBroken: the last changes could not be written.
        """
        await self.writer.close()

    def account(self, identity: str) -> AccountStorage:
        """The storage of one account, always the same object.

        Args:
            identity: ``bot:ID``, ``phone:+NUMBER`` or ``session:NAME``; a session is kept under it, whatever
                the account is called.
        """
        storage = self._storages.get(identity)
        if storage is None:
            number, session = self._sessions.pop(identity, (self._next, Session()))
            self._next = max(self._next, number + 1)
            storage = self._storages[identity] = library_class()(self, identity, number, session)
        return storage

    def identities(self) -> list[str]:
        """The identities of all accounts that have rows here, or were asked for."""
        return sorted({*self._sessions, *self._storages})

    async def old_sessions(self, identity: str) -> list[OldSession]:
        """The sessions of an account that were replaced and kept aside, oldest first."""
        await self.flush()
        return await self.writer.read(lambda connection: schema.read_old(connection, identity))

    async def flush(self) -> None:
        """Return when every change so far is on disk.

        Raises:
            StorageBroken: they could not be written; they stay in memory and are tried again.
        """
        await self.writer.flush()

    def claim(self, auth_key: bytes, identity: str) -> None:
        """Mark a key as used by an account.

        Raises:
            SessionInUse: another open account uses it.
        """
        holder = self._in_use.setdefault(key_id(auth_key), identity)
        if holder != identity:
            raise SessionInUse(shown(identity), shown(holder))

    def release(self, auth_key: bytes, identity: str) -> None:
        """Undo `claim`."""
        if self._in_use.get(key_id(auth_key)) == identity:
            del self._in_use[key_id(auth_key)]
