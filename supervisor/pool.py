"""The set of accounts: builds each from its configuration, runs them side by side, stops them in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from supervisor.account import Account
from supervisor.core.events import Pause, Retry, Stop
from supervisor.ports import AccountSnapshot

log = logging.getLogger(__name__)

# How long accounts may take to stop, and then to be cancelled, so that a stop ends within 10 s. Seconds.
STOP_GRACE = 5.0
CANCEL_GRACE = 1.5
# Accounts that are built in one pass of the event loop while others run.
A_FEW = 10
# Accounts that begin in one pass of the event loop; what each does first takes half a millisecond.
AT_ONCE = 50


class Pool:
    """All accounts of the daemon. One that fails in an unforeseen way harms no other."""

    def __init__(self, build: Callable[[str], Account], names: Iterable[str]) -> None:
        """Build the accounts.

        Args:
            build: makes an account by its configured name.
            names: the accounts' names.
        """
        self._build = build
        self.accounts: dict[str, Account] = {name: build(name) for name in names}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopped = asyncio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Run every account until `stop`; stays up when all have failed, or there is none."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for number, account in enumerate(list(self.accounts.values()), 1):
                if self.accounts.get(account.name) is account:  # else it was taken out meanwhile
                    self._begin(account)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
            await self._stopped.wait()

    def _begin(self, account: Account) -> None:
        if self._group is not None and not self._stopping:
            work = self._guarded(account)
            self._tasks[account.name] = self._group.create_task(work, name=f"account:{account.name}")

    async def _guarded(self, account: Account) -> None:
        try:
            await account.run()
        except Exception:
            log.exception("%s: the account's driver failed; this is a fault of tg-supervisor", account.name)

    async def stop(self) -> None:
        """Stop every account; those that do not end in time are cancelled."""
        self._stopping = True
        await self._end(self.accounts)
        self._stopped.set()

    async def _end(self, names: Iterable[str]) -> None:
        names = list(names)
        for name in names:
            self.accounts[name].tell(Stop())
        tasks = [self._tasks[name] for name in names if name in self._tasks and not self._tasks[name].done()]
        if not tasks:
            return
        _, running = await asyncio.wait(tasks, timeout=STOP_GRACE)
        for task in running:
            log.warning("%s did not stop within %g s and is cancelled", task.get_name(), STOP_GRACE)
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=CANCEL_GRACE)

    # --- while it runs --------------------------------------------------------------------------------

    async def take_out(self, names: Iterable[str]) -> tuple[str, ...]:
        """Stop some accounts and let go of them; the others do not notice.

        Returns:
            Those that will not end, whatever they are told, and stay: nobody may take their places.
        """
        names = tuple(names)
        await self._end(names)
        stuck = tuple(name for name in names if name in self._tasks and not self._tasks[name].done())
        for name in names:
            if name not in stuck:
                self._tasks.pop(name, None)
                del self.accounts[name]
        return stuck

    async def put_in(self, names: Iterable[str], order: Iterable[str]) -> None:
        """Build and start some accounts, a few in each pass of the loop: those that run are not held up.

        Args:
            names: theirs.
            order: all names, as they are to be shown; those that it leaves out come last.
        """
        for number, name in enumerate(names, 1):
            self.accounts[name] = self._build(name)
            self._begin(self.accounts[name])
            if number % A_FEW == 0:
                await asyncio.sleep(0)
        shown = [name for name in order if name in self.accounts]
        self.accounts = {name: self.accounts[name] for name in dict.fromkeys((*shown, *self.accounts))}

    def snapshots(self) -> list[AccountSnapshot]:
        """What `status` shows of each account."""
        return [account.snapshot() for account in self.accounts.values()]

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
