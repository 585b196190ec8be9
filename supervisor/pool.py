"""The set of accounts: builds each from its configuration, runs them side by side, stops them in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from supervisor.account import Account
from supervisor.core.failure import State
from supervisor.core.lifecycle import Pause, Retry, Stop
from supervisor.ports import AccountSnapshot

log = logging.getLogger(__name__)

# How long accounts may take to stop, and then to be cancelled, so that a stop ends within 10 s. Seconds.
STOP_GRACE = 5.0
CANCEL_GRACE = 1.5


class Pool:
    """All accounts of the daemon. One that fails in an unforeseen way harms no other."""

    def __init__(self, build: Callable[[str], Account], names: Iterable[str]) -> None:
        """Build the accounts.

        Args:
            build: makes an account by its configured name.
            names: the accounts' names.
        """
        self.accounts: dict[str, Account] = {name: build(name) for name in names}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Run every account until it is stopped; stays up when all have failed."""
        async with asyncio.TaskGroup() as group:
            for name, account in self.accounts.items():
                self._tasks[name] = group.create_task(self._guarded(account), name=f"account:{name}")

    async def _guarded(self, account: Account) -> None:
        try:
            await account.run()
        except Exception:
            log.exception("%s: the account's driver failed; this is a fault of tg-supervisor", account.name)

    async def stop(self) -> None:
        """Stop every account; those that do not end in time are cancelled."""
        for account in self.accounts.values():
            account.tell(Stop())
        tasks = [task for task in self._tasks.values() if not task.done()]
        if not tasks:
            return
        _, running = await asyncio.wait(tasks, timeout=STOP_GRACE)
        for task in running:
            log.warning("%s did not stop within %g s and is cancelled", task.get_name(), STOP_GRACE)
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=CANCEL_GRACE)

    def snapshots(self) -> list[AccountSnapshot]:
        """What `status` shows of each account."""
        return [account.snapshot() for account in self.accounts.values()]

    def by_state(self) -> Mapping[State, int]:
        """How many accounts are in each state."""
        counts: dict[State, int] = {}
        for account in self.accounts.values():
            counts[account.state] = counts.get(account.state, 0) + 1
        return counts

    def pause(self, name: str) -> None:
        """Take an account offline until `resume`."""
        self.accounts[name].tell(Pause())

    def resume(self, name: str) -> None:
        """Bring a paused account online again."""
        self.accounts[name].tell(Retry())

    def retry(self, name: str) -> None:
        """Try an account now, whatever its state, and forget that it was limited."""
        self.accounts[name].forget_limit()
        self.accounts[name].tell(Retry())

    async def client(self, name: str) -> Any:
        """An account's client, once it is online."""
        account = self.accounts[name]
        await account.online()
        return account.client
