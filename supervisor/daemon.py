"""The composition root: builds the parts, runs them in one TaskGroup, obeys signals, stops in time."""

from __future__ import annotations

import asyncio
import fnmatch
import functools
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from supervisor import actions, signals, stalls, systemd
from supervisor.assembly import Assembly
from supervisor.config.load import load
from supervisor.config.model import DIRECT, Config
from supervisor.config.words import did_you_mean
from supervisor.control.protocol import ControlError
from supervisor.control.server import ControlServer
from supervisor.core.classify import classify
from supervisor.core.failure import Action, Evidence, Failure, Result, State
from supervisor.errors import ConfigError
from supervisor.journal import Journal
from supervisor.logins import Logins
from supervisor.pool import Pool
from supervisor.ports import RecoveryContext
from supervisor.record.lock import StateLock
from supervisor.record.store import Store, StoreSettings
from supervisor.reload import Reloaded, Reloading
from supervisor.report.status import status

log = logging.getLogger(__name__)


class SystemClock:
    """The machine's own clocks."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class Supervisor:
    """The whole of it, as an async context manager: accounts start on entering and stop on leaving."""

    def __init__(self, config: Config, *, env: Mapping[str, str] = os.environ) -> None:
        """Prepare a supervisor; nothing is opened.

        Args:
            config: what `supervisor.config.load` gave.
            env: where `reload` looks ``${VARIABLE}`` up.
        """
        self.config = config
        self._env = env
        self._clock = SystemClock()
        self._stack = AsyncExitStack()
        self._started = time.monotonic()
        self._assembly: Assembly
        self._pool: Pool
        self._store: Store
        self._logins: Logins
        self._reloading: Reloading
        self._turn = asyncio.Lock()  # what a person wants is done one thing after another
        self._reloads: set[asyncio.Task[Any]] = set()

    @classmethod
    def from_config(cls, path: str | Path, *, env: Mapping[str, str] = os.environ) -> Self:
        """A supervisor of what a configuration file says.

        Args:
            path: accounts.toml.
            env: where ``${VARIABLE}`` is looked up.

        Raises:
            ConfigError: something is wrong with it; everything at once, with lines.
        """
        return cls(load(Path(path), env=env), env=env)

    async def __aenter__(self) -> Self:
        settings = self.config.settings
        for directory in self.config.search_path:
            if str(directory) not in sys.path:
                sys.path.append(str(directory))
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        log.info("%d accounts, state in %s", len(self._pool.accounts), settings.state_dir)
        return self

    async def _open(self) -> None:
        await self._open_state(is_daemon=True)
        await self._open_accounts()

    async def _open_state(self, *, is_daemon: bool) -> None:
        settings = self.config.settings
        enter = self._stack
        enter.enter_context(StateLock(settings.state_dir))
        store_settings = StoreSettings(retention_days=settings.retention_days, is_daemon=is_daemon)
        store = Store.open(settings.state_dir / "recovery.db", store_settings)
        self._store = await enter.enter_async_context(store)
        saved = await self._store.saved()
        # pyrogram may only be imported inside a running loop, and costs 2 s: not before it is needed.
        from supervisor.telegram.storage import SessionsDb

        db = await SessionsDb.open(settings.state_dir / "sessions.db")
        enter.push_async_callback(db.close)
        self._assembly = Assembly(self.config, saved, self._store, db, self._clock)

    async def _open_accounts(self) -> None:
        settings, enter = self.config.settings, self._stack
        actions.load(settings.callbacks)
        build = functools.partial(
            self._assembly.account,
            dispatcher=actions.Dispatcher(actions.registered.merged(actions.builtin()), self._callback_broke),
        )
        self._pool = Pool(build, self.config.accounts)
        self._watch_for_stalls()
        tasks = await enter.enter_async_context(_Tasks())
        tasks.create_task(self._assembly.paths.run(), name="paths")
        pool = tasks.create_task(self._pool.run(), name="pool")
        enter.push_async_callback(self._stop_pool, pool)
        self._logins = self._assembly.logins(running=True)
        enter.callback(self._logins.close)
        self._reloading = Reloading(
            self.config,
            pool=self._pool,
            assembly=self._assembly,
            logins=self._logins,
            store=self._store,
            clock=self._clock,
        )
        enter.push_async_callback(self._end_reloads)

    def _watch_for_stalls(self) -> None:
        from supervisor.telegram.client import client_class

        client_class()  # pyrogram's import holds the loop up for 2 s: before, and not after
        fleet = Journal(None, self._store, self._clock, DIRECT)

        def stalled(evidence: Evidence) -> None:
            fleet.row(classify(evidence), Result.RAISED, Action.FAIL)

        self._stack.enter_context(stalls.watched(stalled))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _stop_pool(self, pool: asyncio.Task[None]) -> None:
        await self._pool.stop()
        pool.cancel()

    async def _end_reloads(self) -> None:
        for work in self._reloads:
            work.cancel()
        if self._reloads:
            await asyncio.wait(self._reloads)

    # --- what others see ------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The object of `status --json` (ports.Control)."""
        found = status(
            self._pool.snapshots(),
            self._assembly.paths.snapshots(),
            running=True,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started,
            row_id=self._store.row_id,
        )
        return {**found, "config": self._reloading.json()}

    async def reload(self) -> Reloaded:
        """Read the configuration file again and go by it; accounts of which nothing has changed do not notice.

        A client that `client` gave for an account that is replaced is of no more use: ask for it again. Once begun
        it is carried through, also where whoever asked goes away.

        Raises:
            ConfigError: something is wrong with the file; nothing was changed.
        """
        work = asyncio.create_task(self._reload(), name="reload")
        self._reloads.add(work)
        work.add_done_callback(self._reloads.discard)
        return await asyncio.shield(work)

    async def _reload(self) -> Reloaded:
        async with self._turn:
            try:
                return await self._reloading.reload(self._env)
            finally:
                self.config = self._reloading.config

    def is_recording(self) -> bool:
        """Whether what fails can be written down."""
        return self._store.is_writable

    async def pause(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Take accounts offline, until `resume`, through restarts (ports.Control).

        Args:
            accounts: names, or patterns as ``support-*``.

        Raises:
            ControlError: there is no such account; then nothing is done.
        """
        return await self._order(accounts, self._pool.pause, lambda state: state is not State.PAUSED)

    async def resume(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Bring paused accounts online again (ports.Control); see `pause`."""
        return await self._order(accounts, self._pool.resume, lambda state: state is State.PAUSED)

    async def retry(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Try accounts now, and forget that they were limited (ports.Control); see `pause`.

        Those that are paused stay so: somebody wanted it.
        """
        return await self._order(accounts, self._pool.retry, lambda state: state is not State.PAUSED)

    async def _order(
        self, asked: Sequence[str], give: Callable[[str], None], concerns: Callable[[State], bool]
    ) -> list[dict[str, Any]]:
        async with self._turn:
            chosen = [self._pool.accounts[name] for name in self._named(asked)]
            told = {account.name for account in chosen if concerns(account.state)}
            for name in told:
                give(name)
            await asyncio.gather(*(account.heeded() for account in chosen))
        return [
            {"name": account.name, "state": account.state.value, "changed": account.name in told}
            for account in chosen
        ]

    def _named(self, asked: Sequence[str]) -> list[str]:
        known = list(self._pool.accounts)
        for pattern in asked:
            if not fnmatch.filter(known, pattern):
                what = "matches" if any(sign in pattern for sign in "*?[") else "is called"
                text = f'no account {what} "{pattern}"{did_you_mean(pattern, known)}'
                raise ControlError("unknown_account", text, context={"account": pattern}, status=404)
        return [name for name in known if any(fnmatch.fnmatchcase(name, pattern) for pattern in asked)]

    async def login(self, account: str, step: str, text: str) -> Mapping[str, Any]:
        """Take one step of signing a user account in (ports.Control); see `logins.Logins.step`.

        Raises:
            LoginRefused: the sign-in cannot go on.
        """
        return await self._logins.step(account, step, text)

    async def client(self, name: str) -> Any:
        """An account's `pyrogram.Client`, once the account is online: call anything on it.

        Raises:
            KeyError: no account has this name.
        """
        return await self._pool.client(self._known(name))

    async def handle_error(
        self, name: str, error: BaseException, context: Mapping[str, object] | None = None
    ) -> Failure:
        """Report a failure of one's own code: classified, recorded, and acted on where it reaches beyond one call.

        Args:
            name: the account's name.
            error: what was raised.
            context: what was being done; it goes into the record, so no secrets.

        Returns:
            What was made of it.

        Raises:
            KeyError: no account has this name.
        """
        from supervisor.telegram.evidence import from_code

        seen = from_code(error, step="handle_error", path=self._pool.accounts[self._known(name)].journal.path)
        told = tuple((key, str(value)) for key, value in (context or {}).items())
        return self._pool.accounts[name].reported(replace(seen, context=(*seen.context, *told)))

    def _known(self, name: str) -> str:
        if name not in self.config.accounts:
            raise KeyError(
                f"no account is called {name!r}; there are {', '.join(self.config.accounts) or 'none'}"
            )
        return name

    def _callback_broke(self, ctx: RecoveryContext, callback: str, error: BaseException) -> None:
        """A recovery callback raised or took too long: recorded, and nothing else."""
        from supervisor.telegram.evidence import from_code

        account = self._pool.accounts.get(ctx.account)
        if account is not None:  # else it was removed meanwhile
            account.code_failed(from_code(error, step=f"callback {callback}", path=ctx.path))

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Logins]:
        async with self._stack:
            await self._open_state(is_daemon=False)
            logins = self._assembly.logins(running=False)
            try:
                yield logins
            finally:
                logins.close()
                await self._assembly.shutdown_links()


def logins_alone(config: Config) -> AbstractAsyncContextManager[Logins]:
    """What a sign-in needs where no daemon runs: the state directory and Telegram; no account is started.

    Raises:
        AlreadyRunning: (on entering) a daemon holds the state directory.
        StorageBroken: (on entering) the sessions could not be opened.
    """
    return Supervisor(config)._alone()  # noqa: SLF001 - half a supervisor is this module's business


class _Tasks:
    """A TaskGroup whose tasks are cancelled on leaving: those of a daemon never end by themselves."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    def create_task(self, work: Any, *, name: str) -> asyncio.Task[Any]:
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        return task

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)


async def run(config: Config) -> int:
    """Run the daemon until SIGTERM or SIGINT; give its exit code.

    Raises:
        AlreadyRunning: another daemon holds the state directory.
        StorageBroken: the sessions could not be opened.
    """
    signals.raise_file_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reread = asyncio.Event()
    signals.obey(loop, stop, reread)
    socket = config.settings.state_dir / "control.sock"
    async with Supervisor(config) as supervisor, ControlServer(socket, supervisor), _Tasks() as tasks:
        manager = systemd.Notifier()
        tasks.create_task(_reread(supervisor, reread, manager), name="SIGHUP")
        with manager.up(supervisor.is_recording):
            log.info("running, pid %d", os.getpid())
            await stop.wait()
            log.info("stopping")
    return 0


async def _reread(supervisor: Supervisor, told: asyncio.Event, manager: systemd.Notifier) -> None:
    """Reload at each SIGHUP; what is wrong with the file is said in the log already."""
    while True:
        await told.wait()
        told.clear()
        try:
            with manager.reloading():
                await supervisor.reload()
        except ConfigError:
            continue
        except Exception:
            log.exception("the reload failed; this is a fault of tg-supervisor")
