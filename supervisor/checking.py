"""`check --online`: every path, session and token tried once. Nobody is signed in, and nothing is stored.

Paths first, each with a key that is made for it and thrown away; then the accounts, each with its own session over a
path that works. A session is used from one place at a time, or Telegram kills its key: where a daemon runs, its
accounts' state is what it says, and no second connection is made.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from supervisor import specs
from supervisor.config.model import DIRECT, Account, Config
from supervisor.core.classify import classify
from supervisor.core.codes import CODES, code_of
from supervisor.errors import SupervisorError
from supervisor.ports import LinkFailed
from supervisor.record import queries
from supervisor.record.lock import StateLock
from supervisor.telegram.storage import (
    Session,
    SessionInUse,
    SessionsDb,
    SessionUnreadable,
    read_session_file,
    read_session_string,
)
from supervisor.turns import Turns

if TYPE_CHECKING:
    from supervisor.telegram.dial import Route
    from supervisor.telegram.spec import LinkSpec

# How many are tried at once.
AT_ONCE = 20
_OFF = {"paused": "paused by a person; tg-supervisor resume {name}", "starting": "the daemon is starting it"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one trial.

    Args:
        name: of the path or the account.
        ok: whether it works; None where it was not tried.
        message: what works, what went wrong, or why it was not tried.
        path: of an account, the path that it was tried over.
        steps: the seconds of each step that was done.
        code: the number of what went wrong (docs/errors.md).
        cause: the causes, outermost first.
    """

    name: str
    ok: bool | None
    message: str
    path: str | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    code: int | None = None
    cause: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        """What to do about it; empty where nothing is wrong."""
        return CODES[self.code].advice.replace("NAME", self.name) if self.code is not None else ""

    def json(self) -> dict[str, Any]:
        """An object of `check --online --json`."""
        return {
            "name": self.name,
            "ok": self.ok,
            "message": self.message,
            "path": self.path,
            "steps_s": {step: round(seconds, 4) for step, seconds in self.steps.items()},
            "code": self.code,
            "cause": list(self.cause),
        }


@dataclass(frozen=True, slots=True)
class Findings:
    """Those of the paths and those of the accounts, in the order of the file; `pid` of the daemon that was asked."""

    paths: list[Finding]
    accounts: list[Finding]
    pid: int | None

    @property
    def ok(self) -> bool:
        """Whether nothing that was tried has failed."""
        return all(found.ok is not False for found in (*self.paths, *self.accounts))

    def json(self) -> dict[str, Any]:
        """``online`` of `check --online --json`."""
        return {
            "ok": self.ok,
            "daemon": self.pid,
            "paths": [found.json() for found in self.paths],
            "accounts": [found.json() for found in self.accounts],
        }


class OnlineCheck:
    """One run of it."""

    def __init__(
        self, config: Config, status: Mapping[str, Any] | None, tried: Callable[[], None] = lambda: None
    ) -> None:
        """Begin; nothing is contacted.

        Args:
            config: what is configured.
            status: what the running daemon says of its accounts; None where none runs.
            tried: is told of each that is done.
        """
        self._config = config
        self._status = status
        self._tried = tried
        self._server = specs.server(config)
        self._proxies = specs.proxies(config)
        settings = config.settings
        self._turns = Turns(_Clock(), settings.connect_budget, settings.connect_total, random.random)
        self._places = asyncio.Semaphore(AT_ONCE)

    @staticmethod
    def paths(config: Config) -> list[str]:
        """The paths of a configuration: every proxy, and direct where an account takes it."""
        is_direct = any(not account.proxies for account in config.accounts.values())
        return [*([DIRECT] if is_direct else []), *config.proxies]

    async def run(self) -> Findings:
        """Try everything.

        Raises:
            AlreadyRunning: a daemon holds the state directory, which has not told its status.
            StorageBroken: the stored sessions cannot be read.
        """
        with ExitStack() as stack:
            sessions: dict[str, Session | SupervisorError] = {}
            if self._status is None:
                sessions = await self._sessions(stack)
            paths = await self._each(self.paths(self._config), self._path)
            working = {found.name for found in paths if found.ok}
            if self._status is not None:
                told = {account["name"]: account for account in self._status["accounts"]}
                accounts = [_told(name, told.get(name)) for name in self._config.accounts]
                for _ in accounts:
                    self._tried()
            else:
                before = await asyncio.to_thread(self._paths_before)

                async def account(name: str) -> Finding:
                    configured = self._config.accounts[name]
                    return await self._account(configured, sessions.get(name), working, before.get(name))

                accounts = await self._each(self._config.accounts, account)
        return Findings(paths, accounts, self._status["pid"] if self._status is not None else None)

    async def one(self, account: Account) -> list[Finding]:
        """Try the paths of one account, and the session that it brings: of a daemon that runs, that is the affair.

        Args:
            account: one of the configuration.

        Raises:
            AlreadyRunning: a daemon holds the state directory, which has not told its status.
            StorageBroken: the stored sessions cannot be read.
        """
        with ExitStack() as stack:
            sessions = await self._sessions(stack) if self._status is None else {}
            found = await self._each(account.proxies or (DIRECT,), self._path)
            if account.name in sessions and (account.session_file or account.session_string):
                working = {path.name for path in found if path.ok}
                found.append(await self._account(account, sessions[account.name], working, None))
        return found

    async def _each(self, names: Iterable[str], work: Callable[[str], Awaitable[Finding]]) -> list[Finding]:
        from supervisor.telegram.client import client_class

        client_class()  # pyrogram's import holds the loop up for seconds, which are no step's

        async def one(name: str) -> Finding:
            async with self._places:
                found = await work(name)
            self._tried()
            return found

        return list(await asyncio.gather(*(one(name) for name in names)))

    # --- paths ----------------------------------------------------------------------------------------

    async def _path(self, path: str) -> Finding:
        from supervisor.telegram.spec import home_route

        spec = specs.link(self._config, Account(path), self._server, self._proxies)
        return await self._trial(path, None, spec, lambda: home_route(path, self._proxies, self._server))

    async def _trial(
        self,
        name: str,
        path: str | None,
        spec: LinkSpec,
        route: Callable[[], Route],
        session: Session | None = None,
    ) -> Finding:
        from supervisor.telegram.trial import Stopwatch, tried

        await self._turns.take(path or name)
        watch = Stopwatch()
        try:
            await tried(spec, route(), watch, session)
        except LinkFailed as failed:
            failure = classify(failed.evidence, overrides=self._config.overrides)
            code, cause = code_of(failure).number, failed.evidence.cause
            return Finding(name, False, failed.evidence.message, path, watch.seconds, code, cause)
        except TypeError as error:
            return Finding(name, False, f"accounts.{name}.client: {error}", path, watch.seconds, 3001)
        says = "Telegram answers" if session is None else f"signed in as user {session.user_id}"
        return Finding(name, True, says, path, watch.seconds)

    # --- accounts -------------------------------------------------------------------------------------

    async def _account(
        self,
        account: Account,
        session: Session | SupervisorError | None,
        working: set[str],
        before: str | None,
    ) -> Finding:
        from supervisor.telegram.spec import route_of

        name = account.name
        if isinstance(session, SupervisorError):
            return Finding(name, False, str(session), code=2004)
        if session is None or not session.signed_in:
            if account.bot_token is not None:
                return Finding(name, None, "not tried: it has no session yet, and its token would sign in")
            return Finding(name, None, f"not tried: nobody is signed in yet; tg-supervisor login {name}")
        own = account.proxies or (DIRECT,)
        usable = [path for path in own if path in working]
        if not usable:
            return Finding(name, False, f"not tried: {', '.join(own)} does not work", code=4012)
        path = before if before in usable else usable[0]
        spec = specs.link(self._config, account, self._server, self._proxies)
        return await self._trial(name, path, spec, lambda: route_of(path, spec, session), session)

    async def _sessions(self, stack: ExitStack) -> dict[str, Session | SupervisorError]:
        """The sessions that there are, stored or to be taken over; they are ours alone until the stack is closed."""
        state_dir, accounts = self._config.settings.state_dir, self._config.accounts
        stored, found = state_dir / "sessions.db", dict[str, Session | SupervisorError]()
        brought = any(account.session_file or account.session_string for account in accounts.values())
        if brought or state_dir.exists():
            stack.enter_context(StateLock(state_dir))
        if stored.exists():
            db = await SessionsDb.open(stored)
            try:
                found = {name: db.account(account.identity).session for name, account in accounts.items()}
            finally:
                await db.close()
        for name, account in accounts.items():
            known = found.get(name)
            if isinstance(known, Session) and known.auth_key is not None:
                continue
            imported = await asyncio.to_thread(_imported, account)
            if imported is not None:
                found[name] = imported
        return _each_once(found)

    def _paths_before(self) -> dict[str, str]:
        """The path that each account was on in the last run."""
        with queries.opened(self._config.settings.state_dir / "recovery.db") as db:
            return (
                {}
                if db is None
                else {saved.snapshot.name: saved.snapshot.path for saved in queries.accounts(db)}
            )


class _Clock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


def _each_once(sessions: Mapping[str, Session | SupervisorError]) -> dict[str, Session | SupervisorError]:
    """The same, where of accounts with one key only the first has it."""
    holders: dict[bytes, str] = {}
    found: dict[str, Session | SupervisorError] = {}
    for name, session in sessions.items():
        found[name] = session
        if isinstance(session, Session) and session.auth_key is not None:
            holder = holders.setdefault(session.auth_key, name)
            if holder != name:
                found[name] = SessionInUse(name, holder)
    return found


def _imported(account: Account) -> Session | SessionUnreadable | None:
    try:
        if account.session_file is not None:
            read = read_session_file(account.session_file)
        elif account.session_string is not None:
            read = read_session_string(account.session_string.reveal())
        else:
            return None
    except SessionUnreadable as error:
        return error
    return Session(
        read.dc_id,
        test_mode=read.test_mode,
        auth_key=read.auth_key,
        user_id=read.user_id,
        is_bot=read.is_bot,
        api_id=read.api_id,
    )


def _told(name: str, account: Mapping[str, Any] | None) -> Finding:
    """What the daemon says of an account."""
    if account is None:
        return Finding(name, None, "not tried: the daemon does not run it yet; tg-supervisor reload")
    state, path = account["state"], account["path"]
    if state in _OFF:
        return Finding(name, None, f"not tried: {_OFF[state].format(name=name)}", path)
    if state == "online":
        return Finding(name, True, f"online, says the daemon, as user {account['user_id']}", path)
    failure = account["last_failure"]
    return Finding(
        name, False, f"{state}, says the daemon: {failure['message'] if failure else 'no failure'}", path
    )
