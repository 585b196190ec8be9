"""The recovery log, overheard: whoever writes it notices nothing."""

from __future__ import annotations

from typing import Protocol

from supervisor.core.failure import Row
from supervisor.ports import AccountSnapshot, FloodRow, IncidentRow, PathSnapshot, Recorder, SignIn


class Listener(Protocol):
    """Who is told of what goes into the log; it must neither wait nor raise."""

    def row(self, row: Row) -> None: ...

    def incident(self, row: IncidentRow) -> None: ...

    def account(self, snapshot: AccountSnapshot) -> None: ...


class Overheard:
    """A recorder (ports.Recorder) that passes everything on, and tells a listener of it."""

    def __init__(self, recorder: Recorder, listener: Listener) -> None:
        """Stand before a recorder.

        Args:
            recorder: the recovery log.
            listener: who is told.
        """
        self._recorder = recorder
        self._listener = listener

    def record(self, row: Row) -> None:
        """A row of the log."""
        self._recorder.record(row)
        self._listener.row(row)

    def incident(self, row: IncidentRow) -> None:
        """An incident as it now stands."""
        self._recorder.incident(row)
        self._listener.incident(row)

    def path(self, snapshot: PathSnapshot) -> None:
        """A path's health, which nobody listens to here: it is written seldom."""
        self._recorder.path(snapshot)

    async def save_account(self, snapshot: AccountSnapshot) -> None:
        """An account's state; told before it is on disk."""
        self._listener.account(snapshot)
        await self._recorder.save_account(snapshot)

    async def save_flood(self, row: FloodRow) -> None:
        """A wait that Telegram demanded."""
        await self._recorder.save_flood(row)

    async def save_sign_in(self, sign_in: SignIn) -> None:
        """A sign-in, for the budget."""
        await self._recorder.save_sign_in(sign_in)
