"""A changed file, taken over by the running daemon: read whole, compared, and only what differs is done.

A file with mistakes changes nothing; what is wrong with it is kept, and shown, until a good one is read. Settings,
judgements and proxies are taken over by accounts as they run: one whose proxy has changed connects anew, and its calls
are held meanwhile. Only where credentials, code or client options have changed is an account replaced. Whoever is
removed or replaced is stopped, its link closed, before whoever follows it connects: a session has one connection at a
time. Its calls that wait, or are under way, fail with AccountUnavailable or OutcomeUnknown.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from supervisor import openfiles
from supervisor.account import Account
from supervisor.assembly import Assembly
from supervisor.config.diff import Diff, diff, in_force
from supervisor.config.footprint import Footprint
from supervisor.config.load import load
from supervisor.config.model import DIRECT, Config
from supervisor.errors import ConfigError
from supervisor.logins import Logins
from supervisor.pool import Pool
from supervisor.ports import Clock
from supervisor.record.rows import rfc3339
from supervisor.record.store import Store

log = logging.getLogger(__name__)

# Accounts that take over what has changed in one pass of the event loop.
A_FEW = 25
STUCK = "its own code does not end, so nobody takes its place; mend it, and restart the daemon"


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did.

    Args:
        added: accounts that were started, without those that continue another by a new name.
        removed: accounts that were stopped for good.
        replaced: accounts that were stopped, and started anew on the same session.
        adapted: accounts that have taken over what has changed as they run; no call of theirs is lost.
        renamed: accounts that continue another's session: new name to old.
        untouched: how many accounts did not notice.
        needs_restart: keys of [supervisor] that take effect with the next start of the daemon.
        stuck: accounts whose own code would not end. Nobody takes their places before it does, and then at a reload.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    untouched: int = 0
    needs_restart: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """The answer to ``POST /v1/reload``."""
        return {"schema": 1, **asdict(self)}

    def __str__(self) -> str:
        done = {
            "added": self.added,
            "removed": self.removed,
            "replaced": self.replaced,
            "adapted": self.adapted,
            "renamed": self.renamed,
        }
        told = ", ".join(f"{len(names)} {what}" for what, names in done.items() if names)
        return f"{told or 'no account changed'}, {self.untouched} untouched"


class Reloading:
    """The configuration in force, and the file that it was read from."""

    def __init__(
        self, config: Config, *, pool: Pool, assembly: Assembly, logins: Logins, store: Store, clock: Clock
    ) -> None:
        """Begin with what the daemon was started with.

        Args:
            config: what is in force.
            pool: the accounts.
            assembly: what they are made by.
            logins: the sign-ins with a code.
            store: the recovery log.
            clock: both clocks.
        """
        self.config = config
        self.footprint = config.footprint  # of the last reading, be the file right or wrong
        self._pool = pool
        self._assembly = assembly
        self._logins = logins
        self._store = store
        self._clock = clock
        self._loaded_at = clock.now()
        self._error: list[str] | None = None
        self._stuck: dict[str, str] = {}  # name -> identity

    def json(self) -> dict[str, Any]:
        """``config`` of `status --json`: the file, when what is in force was read, what is wrong with a newer one."""
        return {
            "path": str(self.config.path),
            "loaded_at": rfc3339(self._loaded_at),
            "error": self._error,
        }

    async def reload(self, env: Mapping[str, str] = os.environ) -> Reloaded:
        """Read the file again and go by it.

        Args:
            env: where ``${VARIABLE}`` is looked up.

        Raises:
            ConfigError: something is wrong with it; everything goes on as it was.
        """
        footprint = Footprint()
        try:
            read = await _read(self.config.path, env, footprint)
        except ConfigError as error:
            self._error = list(error.problems)
            log.error("the changed configuration is not used, all goes on with the one of before:")  # noqa: TRY400
            for problem in error.problems:
                log.error("%s", problem)  # noqa: TRY400 - the operator's mistake, not ours
            raise
        finally:
            self.footprint = footprint
        changes = diff(self.config, read)
        done = await self._apply(changes, in_force(self.config, read))
        self._error = None
        self._loaded_at = self._clock.now()
        log.info("read %s again: %s", self.config.path, done)
        for key in done.needs_restart:
            log.warning("supervisor.%s has changed: that takes effect when the daemon is started again", key)
        return done

    async def _apply(self, changes: Diff, new: Config) -> Reloaded:
        old, pool = self.config, self._pool
        identities = {name: account.identity for name, account in old.accounts.items()} | self._stuck
        named = dict.fromkeys((*changes.removed, *changes.replaced, *self._stuck))
        ending = [name for name in named if name in pool.accounts]
        stuck = await pool.take_out(ending)
        adapted = [name for name in changes.adapted if name in pool.accounts and name not in stuck]
        self._stuck = {name: identities[name] for name in stuck}
        self._assembly.reconfigure(new, [name for name in ending if name not in stuck])
        self._assembly.reconfigure_logins(self._logins, changes.renamed)
        self.config = new
        starting = [
            name
            for name, account in new.accounts.items()
            if name not in pool.accounts and account.identity not in self._stuck.values()
        ]
        _search(new)
        await pool.put_in(starting, new.accounts)
        await self._adapt(adapted, old)
        for name in changes.removed:
            await self._store.forget_account(name)
        for name in changes.renamed.keys() & starting:
            await self._assembly.rename(name)
        return _done(changes, starting, adapted, stuck)

    async def _adapt(self, names: Iterable[str], old: Config) -> None:
        """Let accounts take over what has changed, a few in each pass of the loop: nobody's call is held up by it."""
        moving: list[Account] = []
        for number, name in enumerate(names, 1):
            account = self._pool.accounts[name]
            self._assembly.adapt(name)
            if _must_move(old, self.config, name, account.path):
                account.take_path()
                moving.append(account)
            if number % A_FEW == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*(account.heeded() for account in moving))
        self._assembly.adapted()


async def _read(path: Path, env: Mapping[str, str], footprint: Footprint) -> Config:
    """Beside the loop: thousands of accounts take longer to read than a call may be held up."""
    config = await asyncio.to_thread(load, path, env=env, footprint=footprint)
    problems = openfiles.problems(len(config.accounts), len(config.proxies))
    if problems:
        raise ConfigError(problems)
    return config


def _must_move(old: Config, new: Config, name: str, path: str) -> bool:
    """Whether the path that an account is on is no longer among its own, or leads elsewhere now."""
    before, after = old.accounts[name].proxies, new.accounts[name].proxies
    if path not in (after or (DIRECT,)):
        return before != after  # else a recovery callback has put it there
    return old.proxies.get(path) != new.proxies.get(path)


def _search(config: Config) -> None:
    """Let modules be found beside the configuration's files."""
    for directory in config.search_path:
        if str(directory) not in sys.path:
            sys.path.append(str(directory))


def _done(changes: Diff, started: list[str], adapted: list[str], stuck: tuple[str, ...]) -> Reloaded:
    for name in stuck:
        log.error("%s: %s", name, STUCK)
    known = {*changes.replaced, *changes.renamed}
    return Reloaded(
        added=tuple(name for name in started if name not in known),
        removed=tuple(name for name in changes.removed if name not in changes.renamed.values()),
        replaced=tuple(name for name in started if name in changes.replaced),
        adapted=tuple(adapted),
        renamed={new: old for new, old in changes.renamed.items() if new in started},
        untouched=len(set(changes.unchanged) - set(started) - set(adapted)),
        needs_restart=changes.needs_restart,
        stuck=stuck,
    )
