"""A daemon's end of the control socket, with accounts that a test says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from supervisor.control.protocol import ControlError
from supervisor.control.server import ControlServer
from supervisor.core.failure import State
from supervisor.ports import AccountSnapshot, PathSnapshot, Reloaded
from supervisor.report.status import status
from tests.unit.cli.conftest import NOW, account

BROKEN = PathSnapshot(
    "de1", "broken", 0, "half_open", 0.0, 10.5, 90, 10, 0.0625, "connection refused", 1.0, "i-1"
)


class Daemon:
    """What answers at the control socket: the accounts that a test says, and a list of what it was told."""

    def __init__(self, accounts: Sequence[AccountSnapshot], uptime: float | None = None) -> None:
        self.accounts = list(accounts)
        self.uptime = uptime  # None: since the tests were imported
        self.told: list[tuple[str, list[str]]] = []

    def status(self) -> dict[str, Any]:
        paths = [PathSnapshot("direct", "ok", len(self.accounts)), BROKEN]
        uptime = time.time() - NOW if self.uptime is None else self.uptime
        return status(self.accounts, paths, running=True, pid=4711, uptime_s=uptime, row_id=lambda _: 42)

    async def status_json(self) -> str:
        return json.dumps(self.status())

    async def pause(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        self.told.append(("pause", list(accounts)))
        self.accounts = [
            account(one.name, State.PAUSED) if one.name in accounts else one for one in self.accounts
        ]
        return [{"name": name, "state": "paused", "changed": True} for name in accounts]

    async def retry(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        raise ControlError("unknown_account", f"no account is called {accounts[0]}")

    resume = retry

    async def rotate(self, accounts: Sequence[str], to: str | None = None) -> list[dict[str, Any]]:
        raise NotImplementedError

    async def reload(self) -> Reloaded:
        raise NotImplementedError

    async def login(self, account: str, step: str, text: str) -> dict[str, Any]:
        raise NotImplementedError

    @contextmanager
    def running(self, state_dir: Path) -> Iterator[None]:
        """Serve its socket, in a thread of its own."""
        ready, done = Event(), Event()

        async def serve() -> None:
            async with ControlServer(state_dir / "control.sock", self):
                ready.set()
                while not done.is_set():
                    await asyncio.sleep(0.01)

        state_dir.mkdir(exist_ok=True)
        thread = Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        assert ready.wait(10)
        try:
            yield
        finally:
            done.set()
            thread.join()
