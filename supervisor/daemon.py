"""The composition root: builds the parts, runs them in one TaskGroup, obeys signals, stops in time."""

from __future__ import annotations

import asyncio
import fnmatch
import functools
import hashlib
import logging
import os
import random
import resource
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from supervisor import actions, seats
from supervisor.account import Account, AccountPlan
from supervisor.calls import CallGate, Limits
from supervisor.config.load import load
from supervisor.config.model import Account as AccountConfig
from supervisor.config.model import Config
from supervisor.config.words import did_you_mean
from supervisor.control.protocol import ControlError
from supervisor.control.server import ControlServer
from supervisor.core.budget import SignInBudget
from supervisor.core.failure import Failure, Kind, State
from supervisor.core.incident import Incident
from supervisor.core.ledger import Flood, restore
from supervisor.core.lifecycle import Rules
from supervisor.logins import Logins, Seat
from supervisor.paths import Paths
from supervisor.pool import Pool
from supervisor.ports import AccountSnapshot, IncidentRow, RecoveryContext, Saved
from supervisor.record.lock import StateLock
from supervisor.record.store import Store, StoreSettings
from supervisor.report.status import status

if TYPE_CHECKING:
    from supervisor.telegram.link import TelegramLink

log = logging.getLogger(__name__)

# From the signal to the end of the process, where something does not let go of it: within the 10 s. Seconds.
LAST_RESORT = 9.0


class SystemClock:
    """The machine's own clocks."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class Supervisor:
    """The whole of it, as an async context manager: accounts start on entering and stop on leaving."""

    def __init__(self, config: Config) -> None:
        """Prepare a supervisor; nothing is opened.

        Args:
            config: what `supervisor.config.load` gave.
        """
        self.config = config
        self._clock = SystemClock()
        self._stack = AsyncExitStack()
        self._started = time.monotonic()
        self._saved = Saved()
        self._pool: Pool
        self._paths: Paths
        self._store: Store
        self._dispatcher: actions.Dispatcher
        self._server: Any = None
        self._proxies: dict[str, Any] = {}
        self._db: Any = None
        self._links: dict[str, TelegramLink] = {}
        self._logins: Logins

    @classmethod
    def from_config(cls, path: str | Path, *, env: Mapping[str, str] = os.environ) -> Self:
        """A supervisor of what a configuration file says.

        Args:
            path: accounts.toml.
            env: where ``${VARIABLE}`` is looked up.

        Raises:
            ConfigError: something is wrong with it; everything at once, with lines.
        """
        return cls(load(Path(path), env=env))

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
        self._saved = await self._store.saved()
        # pyrogram may only be imported inside a running loop, and costs 2 s: not before it is needed.
        from supervisor.telegram.storage import SessionsDb

        self._db = await SessionsDb.open(settings.state_dir / "sessions.db")
        enter.push_async_callback(self._db.close)
        self._server = self._server_address()
        self._proxies = self._proxy_addresses()

    async def _open_accounts(self) -> None:
        settings, enter = self.config.settings, self._stack
        self._paths = Paths(
            self.config.proxies, self._probe, self._clock, settings.connect_budget, self._add_proxy
        )
        actions.load(settings.callbacks)
        self._dispatcher = actions.Dispatcher(
            actions.registered.merged(actions.builtin()), self._callback_broke
        )
        starting = asyncio.Semaphore(settings.start_limit)
        self._pool = Pool(functools.partial(self._account, starting=starting), self.config.accounts)
        tasks = await enter.enter_async_context(_Tasks())
        tasks.create_task(self._paths.run(), name="paths")
        pool = tasks.create_task(self._pool.run(), name="pool")
        enter.push_async_callback(self._stop_pool, pool)
        self._logins = self._new_logins(self._running_seat)
        enter.callback(self._logins.close)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _stop_pool(self, pool: asyncio.Task[None]) -> None:
        await self._pool.stop()
        pool.cancel()

    # --- what others see ------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The object of `status --json` (ports.Control)."""
        return status(
            self._pool.snapshots(),
            self._paths.snapshots(),
            running=True,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started,
            row_id=self._store.row_id,
        )

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

    # --- building -------------------------------------------------------------------------------------

    def _server_address(self) -> Any:
        from supervisor.telegram.keyexchange import public_key_from_pem
        from supervisor.telegram.link import ServerAddress

        server = self.config.telegram.server
        if server is None:
            return None
        return ServerAddress(server.host, server.port, server.dc_id, public_key_from_pem(server.public_key))

    async def _probe(self, path: str) -> None:
        from supervisor.telegram.link import probe_path

        timeout = self.config.settings.connect_timeout
        await probe_path(path, self._proxies, self._server, timeout)

    def _proxy_addresses(self) -> dict[str, Any]:
        from supervisor.telegram.dial import ProxyAddress

        return {
            p.name: ProxyAddress(
                p.scheme, p.host, p.port, p.username, p.password.reveal() if p.password else None
            )
            for p in self.config.proxies.values()
        }

    def _add_proxy(self, url: str) -> str:
        from supervisor.telegram.dial import proxy_from_url

        address = proxy_from_url(url)
        name = address.where
        if (
            self._proxies.get(name, address) != address
        ):  # the same place with other credentials is another path
            mark = hashlib.sha256(f"{address.username}:{address.password}".encode()).hexdigest()[:6]
            name = f"{name}#{mark}"
        self._proxies[name] = address
        return name

    def _callback_broke(self, ctx: RecoveryContext, callback: str, error: BaseException) -> None:
        """A recovery callback raised or took too long: recorded, and nothing else."""
        from supervisor.telegram.evidence import from_code

        account = self._pool.accounts[ctx.account]
        account.code_failed(from_code(error, step=f"callback {callback}", path=ctx.path))

    def _account(self, name: str, *, starting: asyncio.Semaphore) -> Account:
        from supervisor.telegram import queries
        from supervisor.telegram.evidence import from_code, from_exception
        from supervisor.telegram.link import TelegramLink

        configured, settings = self.config.accounts[name], self.config.settings
        link: TelegramLink
        account = Account(
            self._plan(configured),
            self._paths,
            self._store,
            self._clock,
            starting=starting,
            jitter=random.random,
            new_id=_new_id,
            evidence_of=from_exception,
            evidence_of_code=from_code,
            dispatcher=self._dispatcher,
        )
        link = self._links[name] = TelegramLink(
            self._link_spec(configured), self._db, account, account.code_failed
        )
        is_bot = configured.is_bot is not False
        gate = CallGate(
            name,
            link,
            queries,
            self._store,
            self._clock,
            journal=account.journal,
            limits=Limits(
                settings.call_timeout,
                settings.max_wait,
                settings.max_held,
                settings.release_rate_of(is_bot=is_bot),
            ),
            policies=self.config.policies,
            overrides=self.config.overrides,
            jitter=random.random,
            new_id=_new_id,
            report=account.call_failed,
        )
        floods = [
            Flood(f.method, f.peer, f.seen_at, f.seconds) for f in self._saved.floods if f.account == name
        ]
        gate.ledger = restore(floods, self._clock.now(), self._clock.monotonic())
        account.wire(link, gate)
        return account

    def _plan(self, configured: AccountConfig) -> AccountPlan:
        name, settings = configured.name, self.config.settings
        can_relogin = configured.bot_token is not None
        opened = [row for row in self._saved.incidents if row.account == name and row.closed_at is None]
        return AccountPlan(
            name=name,
            rules=Rules(self.config.policies, settings.stable_after, can_relogin),
            candidates=configured.proxies,
            main=configured.main,
            overrides=self.config.overrides,
            sign_in_budget=SignInBudget(settings.sign_ins_per_hour, settings.sign_ins_per_day),
            prove_every=settings.prove_every,
            sign_ins=tuple(s.at for s in self._saved.sign_ins if s.account == name),
            before=self._saved.accounts.get(name),
            incident=_incident(opened[-1], self._clock) if opened else None,
        )

    def _link_spec(self, configured: AccountConfig) -> Any:
        from supervisor.telegram.link import LinkSpec
        from supervisor.telegram.session import Timings

        settings, telegram = self.config.settings, self.config.telegram
        return LinkSpec(
            name=configured.name,
            identity=configured.identity,
            api_id=telegram.api_id,
            api_hash=telegram.api_hash.reveal(),
            bot_token=configured.bot_token.reveal() if configured.bot_token else None,
            session_file=configured.session_file,
            session_string=configured.session_string.reveal() if configured.session_string else None,
            server=self._server,
            timings=Timings(settings.connect_timeout, settings.answer_timeout, settings.silence_timeout),
            message_cache=settings.message_cache,
            plugins=configured.plugins,
            bases=(*self.config.search_path, Path.cwd()),
            options=configured.client,
            proxies=self._proxies,
        )

    # --- signing user accounts in ---------------------------------------------------------------------

    def _new_logins(self, seat: Callable[[str], Seat]) -> Logins:
        settings = self.config.settings
        return Logins(
            seat,
            self._store,
            self._clock,
            budget=SignInBudget(settings.sign_ins_per_hour, settings.sign_ins_per_day),
            sign_ins=self._saved.sign_ins,
            floods=self._saved.floods,
            overrides=self.config.overrides,
        )

    def _running_seat(self, name: str) -> Seat:
        configured = seats.user(name, self.config.accounts)
        return seats.RunningSeat(configured, self._links[name], self._pool.accounts[name], self._paths)

    def _lone_seat(self, name: str) -> Seat:
        from supervisor.telegram.link import TelegramLink

        configured = seats.user(name, self.config.accounts)
        link = self._links[name] = TelegramLink(
            self._link_spec(configured), self._db, seats.Deaf(), lambda _evidence: None
        )
        before = self._saved.accounts.get(name)
        return seats.LoneSeat(configured, link, before, self.config.overrides, self._no_longer_needed)

    async def _no_longer_needed(self, before: AccountSnapshot) -> None:
        now = self._clock.now()
        await self._store.save_account(replace(before, state=State.STOPPED, since=now, retry_at=None))

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Logins]:
        async with self._stack:
            await self._open_state(is_daemon=False)
            logins = self._new_logins(self._lone_seat)
            try:
                yield logins
            finally:
                logins.close()
                for link in self._links.values():
                    await link.shutdown()


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


def _incident(row: IncidentRow, clock: SystemClock) -> Incident:
    """An incident that an earlier run left open; its duration goes on counting."""
    return Incident(
        id=row.id,
        kind=row.kind,
        scope=row.scope,
        path=row.path,
        opened_at=row.opened_at,
        began=clock.monotonic() - max(0.0, clock.now() - row.opened_at),
        failures=row.failures,
        attempts={Kind(kind): n for kind, n in row.attempts.items()},
        backoff={Kind(kind): n for kind, n in row.backoff.items()},
        last_action=row.last_action,
    )


def _new_id() -> str:
    return secrets.token_hex(6)


def _raise_file_limit() -> None:
    """One socket an account: raise the soft limit on open files to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _obey_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`; the process ends `LAST_RESORT` seconds later, whatever holds it up.

    Not by `loop.add_signal_handler`: it hears nothing while somebody's code blocks the loop, and gives the signals
    back when the loop is closed, so that a second one would kill the process at its very end.
    """

    def told(_number: int, _frame: FrameType | None) -> None:
        if not signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, LAST_RESORT)
        with suppress(RuntimeError):  # the loop is closed: all is over but the interpreter
            loop.call_soon_threadsafe(stop.set)

    signal.signal(signal.SIGALRM, _end_at_once)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    """End the process, and say where somebody's code still is: in a blocking handler's thread, or in the loop's."""
    library = str(Path(os.__file__).parent)
    frames = sys._current_frames().values()  # noqa: SLF001 - documented, and takes no lock
    places = [f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in frames]
    blocking = [place for place in places if not place.startswith((library, __file__))]
    # Past the log, which takes locks that the interrupted code may hold.
    os.write(2, f"the daemon ends without waiting any longer for {', '.join(blocking or places)}\n".encode())
    os._exit(0)


async def run(config: Config) -> int:
    """Run the daemon until SIGTERM or SIGINT; give its exit code.

    Raises:
        AlreadyRunning: another daemon holds the state directory.
        StorageBroken: the sessions could not be opened.
    """
    _raise_file_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    _obey_signals(loop, stop)
    loop.add_signal_handler(
        signal.SIGHUP, lambda: log.warning("SIGHUP: restart the daemon to read a changed file")
    )
    socket = config.settings.state_dir / "control.sock"
    async with Supervisor(config) as supervisor, ControlServer(socket, supervisor):
        log.info("running, pid %d", os.getpid())
        await stop.wait()
        log.info("stopping")
    return 0
