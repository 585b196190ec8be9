"""A changed file, taken over by the running daemon: read whole, compared, and only what differs is done.

A file with mistakes changes nothing; what is wrong with it is kept, and shown, until a good one is read. An account
that is removed or replaced is stopped, its link closed, before whoever follows it connects: a session has one
connection at a time. Its calls that wait, or are under way, fail with AccountUnavailable or OutcomeUnknown.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from supervisor.assembly import Assembly
from supervisor.config.diff import Diff, diff, in_force
from supervisor.config.load import load
from supervisor.config.model import Config
from supervisor.errors import ConfigError
from supervisor.logins import Logins
from supervisor.pool import Pool
from supervisor.ports import Clock
from supervisor.record.rows import rfc3339
from supervisor.record.store import Store

log = logging.getLogger(__name__)

STUCK = "its own code does not end, so nobody takes its place; mend it, and restart the daemon"


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did.

    Args:
        added: accounts that were started, without those that continue another by a new name.
        removed: accounts that were stopped for good.
        replaced: accounts that were stopped, and started anew on the same session.
        renamed: accounts that continue another's session: new name to old.
        untouched: how many accounts did not notice.
        needs_restart: keys of [supervisor] that take effect with the next start of the daemon.
        stuck: accounts whose own code would not end. Nobody takes their places before it does, and then at a reload.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
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
        try:
            read = await _read(self.config.path, env)
        except ConfigError as error:
            self._error = list(error.problems)
            log.error("the changed configuration is not used, all goes on with the one of before:")  # noqa: TRY400
            for problem in error.problems:
                log.error("%s", problem)  # noqa: TRY400 - the operator's mistake, not ours
            raise
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
        # From here to the end of put_in nothing is waited for: nobody sees the half of it.
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
        pool.put_in(starting, new.accounts)
        for name in changes.removed:
            await self._store.forget_account(name)
        for name in changes.renamed.keys() & starting:
            await self._assembly.rename(name)
        return _done(changes, starting, stuck)


async def _read(path: Path, env: Mapping[str, str]) -> Config:
    """Beside the loop: thousands of accounts take longer to read than a call may be held up."""
    return await asyncio.to_thread(load, path, env=env)


def _search(config: Config) -> None:
    """Let modules be found beside the configuration's files."""
    for directory in config.search_path:
        if str(directory) not in sys.path:
            sys.path.append(str(directory))


def _done(changes: Diff, started: list[str], stuck: tuple[str, ...]) -> Reloaded:
    for name in stuck:
        log.error("%s: %s", name, STUCK)
    known = {*changes.replaced, *changes.renamed}
    return Reloaded(
        added=tuple(name for name in started if name not in known),
        removed=tuple(name for name in changes.removed if name not in changes.renamed.values()),
        replaced=tuple(name for name in started if name in changes.replaced),
        renamed={new: old for new, old in changes.renamed.items() if new in started},
        untouched=len(set(changes.unchanged) - set(started) - set(changes.replaced)),
        needs_restart=changes.needs_restart,
        stuck=stuck,
    )
