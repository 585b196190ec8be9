"""The composition root: builds the parts, runs them in one TaskGroup, obeys signals, stops in time."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from supervisor import actions, garbage, openfiles, signals, stalls, systemd
from supervisor.assembly import Assembly
from supervisor.config.load import load
from supervisor.config.model import DIRECT, Config
from supervisor.control.protocol import ControlError
from supervisor.control.server import ROUTES, ControlServer, Route
from supervisor.core.classify import classify
from supervisor.core.failure import Action, Evidence, Failure, Result, Row, State
from supervisor.dashboard.desk import Live
from supervisor.dashboard.server import DashboardServer
from supervisor.errors import ConfigError
from supervisor.journal import Journal
from supervisor.logins import Logins
from supervisor.notify.notifier import Notifier, Surroundings
from supervisor.notify.overheard import Overheard
from supervisor.notify.trial import try_out
from supervisor.orders import Orders
from supervisor.pool import Pool
from supervisor.ports import AccountSnapshot, Recorder, RecoveryContext
from supervisor.record.lock import StateLock
from supervisor.record.store import Store, StoreSettings
from supervisor.reload import Reloaded, Reloading
from supervisor.report.status import Texts, status
from supervisor.watching import FileWatch

log = logging.getLogger(__name__)

_FULL = 1 << 20  # bytes: a disk on which fewer are free is full

_AT_ONCE = 100  # accounts that `status_json` tells of in one turn of the event loop


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
        self._notifier = Notifier(config, self._clock)
        self._stack = AsyncExitStack()
        self._started = time.monotonic()
        self._assembly: Assembly
        self._pool: Pool
        self._orders: Orders
        self._store: Store
        self._recorder: Recorder  # the store, overheard by the notifier
        self._texts: Texts
        self._telling = asyncio.Lock()  # one status after another
        self._logins: Logins
        self._reloading: Reloading
        self._turn = asyncio.Lock()  # what a person wants is done one thing after another
        self._reloads: set[asyncio.Task[Any]] = set()
        self._followers: list[Callable[[Config], None]] = []

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
        self._texts = Texts(self._store.row_id)
        saved = await self._store.saved()
        for name in saved.paths.keys() - self.config.proxies.keys() - {DIRECT}:
            self._store.forget_path(name)
        # pyrogram may only be imported inside a running loop, and costs 2 s: not before it is needed.
        from supervisor.telegram.storage import SessionsDb

        db = await SessionsDb.open(settings.state_dir / "sessions.db")
        enter.push_async_callback(db.close)
        self._recorder = Overheard(self._store, self._notifier) if is_daemon else self._store
        self._assembly = Assembly(self.config, saved, self._recorder, db, self._clock)

    async def _open_accounts(self) -> None:
        settings, enter = self.config.settings, self._stack
        actions.load(settings.callbacks)
        build = functools.partial(
            self._assembly.account,
            dispatcher=actions.Dispatcher(actions.registered.merged(actions.builtin()), self._callback_broke),
        )
        with garbage.unsearched():
            self._pool = Pool(build, self.config.accounts)
        self._orders = Orders(self._pool, self._turn)
        around = Surroundings(self._assembly.paths.snapshots, self._unrecorded, self._online)
        enter.push_async_callback(self._notifier.stop)
        await self._notifier.start(around, self._recorder, self._pool.snapshots())
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
        fleet = Journal(None, self._recorder, self._clock, DIRECT)

        def stalled(evidence: Evidence) -> None:
            fleet.write(fleet.draft(classify(evidence), Result.RAISED, Action.FAIL))

        self._stack.enter_context(stalls.watched(stalled))
        self._stack.enter_context(garbage.bounded())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._notifier.fault(error)
        await self._stack.aclose()

    async def _stop_pool(self, pool: asyncio.Task[None]) -> None:
        await self._pool.stop()
        self._assembly.waves.close()
        self._assembly.outages.close()
        pool.cancel()

    async def _end_reloads(self) -> None:
        for work in self._reloads:
            work.cancel()
        if self._reloads:
            await asyncio.wait(self._reloads)

    # --- what others see ------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The object of `status --json`."""
        return self._status(self._pool.snapshots())

    async def status_json(self) -> str:
        """The same as JSON (ports.Control), made a little at a time: thousands of accounts hold nobody up."""
        async with self._telling:
            self._texts.begin()
            async for snapshot in self._snapshots():
                self._texts.add(snapshot)
            return self._texts.take(self._status([]))

    async def _snapshots(self) -> AsyncIterator[AccountSnapshot]:
        for number, account in enumerate(list(self._pool.accounts.values())):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            yield account.snapshot()

    def _status(self, accounts: Sequence[AccountSnapshot]) -> dict[str, Any]:
        found = status(
            accounts,
            self._assembly.path_snapshots(),
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
                done = await self._reloading.reload(self._env)
            except ConfigError as error:
                self._notifier.misconfigured(error.problems)
                raise
            else:
                self._notifier.reconfigure(self._reloading.config)
                return done
            finally:
                self.config = self._reloading.config
                for follow in self._followers:
                    follow(self.config)

    def follow(self, follower: Callable[[Config], None]) -> None:
        """Have somebody told what configuration is in force, after each reload."""
        self._followers.append(follower)

    async def live(self) -> Live:
        """Everything as it is now (dashboard.Desk), looked at a little at a time."""
        return Live(
            accounts=[snapshot async for snapshot in self._snapshots()],
            paths=self._assembly.path_snapshots(),
            uptime_s=time.monotonic() - self._started,
            config=self._reloading.json(),
            is_recording=self._store.is_writable,
            rows_waiting=self._store.waiting,
        )

    def row_id(self, row: Row) -> int | None:
        """The number of an account's newest failure in the log (dashboard.Desk)."""
        return self._store.row_id(row)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Tell of every change of the files that the configuration was read from, until cancelled.

        Args:
            changed: calls `reload`, or has it called; not while ``supervisor.watch`` is false.
        """
        reloading = self._reloading
        files = FileWatch(lambda: reloading.footprint if reloading.config.settings.watch else None, changed)
        self.follow(lambda _: files.read_again())
        await files.run()

    def is_recording(self) -> bool:
        """Whether what fails can be written down."""
        return self._store.is_writable

    def _unrecorded(self) -> tuple[str, str] | None:
        """What is wrong with the recovery log, if anything is: the name of its number, and what was seen."""
        if self._store.is_writable:
            return None
        state_dir = self.config.settings.state_dir
        full = shutil.disk_usage(state_dir).free < _FULL
        return "storage_full" if full else "storage_failed", f"{state_dir / 'recovery.db'} cannot be written"

    async def try_sink(self, name: str) -> str | None:
        """Send a test message to a sink of [notify]; None if it was taken, else why not."""
        return await try_out(self.config.notify[name], self._online)

    def _online(self, names: Sequence[str]) -> Any:
        """The client of the first of these accounts that is online; None if none is."""
        accounts = (self._pool.accounts[name] for name in names if name in self._pool.accounts)
        return next((account.client for account in accounts if account.state is State.ONLINE), None)

    async def pause(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Take accounts offline, until `resume`, through restarts (ports.Control).

        Args:
            accounts: names, or patterns as ``support-*``.

        Raises:
            ControlError: there is no such account; then nothing is done.
        """
        return await self._orders.pause(accounts)

    async def resume(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Bring paused accounts online again (ports.Control); see `pause`."""
        return await self._orders.resume(accounts)

    async def retry(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Try accounts now, and forget that they were limited (ports.Control); see `pause`.

        Those that are paused stay so: somebody wanted it.
        """
        return await self._orders.retry(accounts)

    async def rotate(self, accounts: Sequence[str], to: str | None = None) -> list[dict[str, Any]]:
        """Move accounts to another proxy of theirs now, their calls held meanwhile (ports.Control).

        Args:
            accounts: names, or patterns as ``support-*``.
            to: the proxy; else the least loaded that is not broken.

        Raises:
            ControlError: there is no such account, or no such way for one of them; then nothing is done.
        """
        return await self._orders.rotate(accounts, to)

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

    async def _sign_bot_in(self, name: str) -> int:
        async with self._alone():
            return await self._assembly.lone_bot(name).sign_in()

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


async def bot_signed_in(config: Config, name: str) -> int:
    """Sign a bot in by its token where no daemon runs, within its budget; give its user id.

    Raises:
        AlreadyRunning: a daemon holds the state directory.
        LoginRefused: Telegram would not have it.
        StorageBroken: the sessions could not be opened.
    """
    return await Supervisor(config)._sign_bot_in(name)  # noqa: SLF001 - as above


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
    openfiles.raise_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reread = asyncio.Event()
    signals.obey(loop, stop, reread)
    socket = config.settings.state_dir / "control.sock"
    async with (
        Supervisor(config) as supervisor,
        ControlServer(socket, supervisor, (*ROUTES, _notify_route(supervisor))),
        _Tasks() as tasks,
    ):
        manager = systemd.Notifier()
        dashboard = DashboardServer(supervisor, config.settings.state_dir, config.dashboard)
        supervisor.follow(lambda found: dashboard.follow(found.dashboard))
        tasks.create_task(dashboard.run(), name="dashboard")
        tasks.create_task(_reread(supervisor, reread, manager), name="SIGHUP")
        tasks.create_task(supervisor.watch(reread.set), name="watch")
        with manager.up(supervisor.is_recording):
            log.info("running, pid %d", os.getpid())
            await stop.wait()
            log.info("stopping")
    return 0


def _notify_route(supervisor: Supervisor) -> Route:
    """`notify test`, of the sinks that only a running daemon can send to."""

    async def notify(_: object, body: Mapping[str, Any]) -> Mapping[str, Any]:
        name = body.get("sink")
        if not isinstance(name, str) or name not in supervisor.config.notify:
            text = "the daemon knows no such sink; does it go by this file? tg-supervisor reload"
            raise ControlError("bad_request", text)
        return {"schema": 1, "sink": name, "error": await supervisor.try_sink(name)}

    return Route("POST", "notify", notify)


async def _reread(supervisor: Supervisor, told: asyncio.Event, manager: systemd.Notifier) -> None:
    """Reload at each SIGHUP, and at each change of the files; what is wrong with the file is said in the log already."""
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
