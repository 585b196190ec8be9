"""The accounts as a sign-in sees them (`logins.Seat`): of a running daemon, or by themselves where none runs."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from supervisor.config.model import DIRECT
from supervisor.config.model import Account as AccountConfig
from supervisor.config.words import did_you_mean
from supervisor.core.classify import classify
from supervisor.core.codes import code_of
from supervisor.core.events import Retry
from supervisor.core.failure import Evidence, Kind, Override, Remedy, Source, State
from supervisor.errors import LoginRefused
from supervisor.ports import AccountPaths, AccountSnapshot, LinkEvents, LinkFailed

if TYPE_CHECKING:
    from supervisor.account import Account
    from supervisor.rations import SignInRation
    from supervisor.telegram.link import TelegramLink
    from supervisor.telegram.login import Login


def user(name: str, accounts: Mapping[str, AccountConfig]) -> AccountConfig:
    """The account of a name, if it can be signed in with a code.

    Raises:
        LoginRefused: there is none, it is a bot's, or its number is not known.
    """
    account = accounts.get(name)
    if account is None:
        raise LoginRefused("unknown_account", f"no account is called {name!r}{did_you_mean(name, accounts)}")
    if account.bot_token is not None:
        raise LoginRefused("not_a_user", f"{name} is a bot: it signs in by its token and needs no login")
    if account.phone is None:
        text = (
            f"accounts.{name} has no phone: add the number to sign in with, or give it a session that is good"
        )
        raise LoginRefused("configuration", text)
    return account


_ENDED_BY_A_LOGIN = (State.NEEDS_LOGIN, State.FAILED, State.SUSPENDED)


class _Seat:
    def __init__(self, configured: AccountConfig, link: TelegramLink, path: str) -> None:
        self._configured = configured
        self._link = link
        self._path = path

    @property
    def name(self) -> str:
        return self._configured.name

    @property
    def password(self) -> str | None:
        password = self._configured.password
        return None if password is None else password.reveal()

    def paths(self) -> Sequence[str]:
        """The account's own path, then the others that it may take."""
        return list(dict.fromkeys((self._path, *self._configured.proxies)))

    async def login(self, path: str) -> Login:
        """A sign-in, connected over a path."""
        assert self._configured.phone is not None
        login = self._link.new_login(self._configured.phone.reveal())
        try:
            await login.connect(self._link.route(path))
        except BaseException:
            login.close()
            raise
        return login


class RunningSeat(_Seat):
    """An account of the running daemon, which comes online when it is signed in."""

    def __init__(
        self,
        configured: AccountConfig,
        link: TelegramLink,
        accounts: Mapping[str, Account],
        paths: AccountPaths,
    ) -> None:
        self._account = accounts[configured.name]
        super().__init__(configured, link, self._account.snapshot().path)
        self._accounts = accounts
        self._paths = paths

    async def user_id(self) -> int | None:
        """Who is signed in, unless the account needs a login."""
        state = self._account.state
        if state in (State.FAILED, State.NEEDS_LOGIN):  # perhaps since before the daemon's start
            await self._account.prepared()
        if self._link.client is None and state is State.PAUSED:  # the same
            raise LoginRefused("paused", f"{self.name} is paused; first: tg-supervisor resume {self.name}")
        if self._link.client is None:
            raise LoginRefused("not_ready", f"{self.name} is {state.value}; try again", retryable=True)
        user_id = self._link.user_id
        if user_id is None or state is State.NEEDS_LOGIN:
            return None
        if state is State.FAILED:
            text = f"{self.name} is signed in, but failed for another reason: see tg-supervisor status"
            raise LoginRefused("failed", text)
        return user_id

    async def login(self, path: str) -> Login:
        """A sign-in; its connection counts like any other."""
        await self._paths.slot(self._account.traveller, path)
        return await super().login(path)

    async def signed_in(self) -> None:
        """Bring the account online, unless somebody wants it offline."""
        account = self._accounts.get(self.name)  # by now perhaps another than it was, after a reload
        if account is not None and account.state is not State.PAUSED:
            account.tell(Retry())


class LoneSeat(_Seat):
    """An account whose daemon does not run: whether its session is good is asked of Telegram first."""

    def __init__(
        self,
        configured: AccountConfig,
        link: TelegramLink,
        before: AccountSnapshot | None,
        overrides: Mapping[str, Override],
        note: Callable[[AccountSnapshot], Awaitable[None]],
    ) -> None:
        allowed = configured.proxies or (DIRECT,)
        super().__init__(configured, link, before.path if before and before.path in allowed else allowed[0])
        self._before = before
        self._overrides = overrides
        self._note = note

    async def user_id(self) -> int | None:
        """Who is signed in, proved by an answered query."""
        if self._link.client is None:
            try:
                await self._link.prepare(_no_calls)
            except TypeError as error:
                raise LoginRefused("configuration", f"accounts.{self.name}.client: {error}") from error
        failed: LinkFailed | None = None
        for path in self.paths():
            try:
                return await self._proved(path)
            except LinkFailed as error:
                if self._kind(error) not in (Kind.PROXY, Kind.CONNECTION):
                    raise
                failed = error
        assert failed is not None
        raise failed

    async def _proved(self, path: str) -> int | None:
        missed = 0
        while True:
            try:
                await self._link.open(path, _no_sign_in)
            except LinkFailed as failed:
                missed += 1
                if self._remedy(failed) is not Remedy.RELOGIN:
                    raise
                if self._remedy(failed, missed) is Remedy.RELOGIN:  # else once more: it may be mistaken
                    return None
            else:
                return self._link.user_id
            finally:
                self._link.close()

    def _remedy(self, failed: LinkFailed, missed: int | None = None) -> Remedy:
        return classify(failed.evidence, overrides=self._overrides, in_a_row=missed).remedy

    def _kind(self, failed: LinkFailed) -> Kind:
        return classify(failed.evidence, overrides=self._overrides).kind

    async def signed_in(self) -> None:
        """Let the next run bring the account online, and `status` say that it waits for nobody."""
        if self._before is not None and self._before.state in _ENDED_BY_A_LOGIN:
            await self._note(self._before)


class LoneBot:
    """A bot whose daemon does not run, signed in by its token, within its ration."""

    def __init__(
        self, configured: AccountConfig, link: TelegramLink, ration: SignInRation, flooded: float
    ) -> None:
        self._configured = configured
        self._link = link
        self._ration = ration
        self._flooded = flooded

    async def sign_in(self) -> int:
        """Sign in, unless its session is good already; give its user id.

        Raises:
            LoginRefused: Telegram would not have it, or could not be reached.
        """
        name = self._configured.name
        try:
            await self._link.prepare(_no_calls)
            await self._opened()
        except TypeError as error:
            raise LoginRefused("configuration", f"accounts.{name}.client: {error}") from error
        except LinkFailed as failed:
            advice = code_of(classify(failed.evidence)).advice.replace("NAME", name)
            raise LoginRefused("failed", f"{name}: {failed.evidence.message}. {advice}") from failed
        assert self._link.user_id is not None
        return self._link.user_id

    async def _opened(self) -> None:
        """Open the link over the first of its paths that works; of the last, raise what failed."""
        *others, last = self._configured.proxies or (DIRECT,)
        for path in others:
            try:
                await self._open(path)
                return
            except LinkFailed as failed:
                if classify(failed.evidence).kind not in (Kind.PROXY, Kind.CONNECTION):
                    raise
        await self._open(last)

    async def _open(self, path: str) -> None:
        await self._link.open(path, functools.partial(self._ration.take, path, self._flooded))


class Deaf(LinkEvents):
    """What a link tells nobody: an attempt says what became of it by itself."""

    def link_lost(self, evidence: Evidence) -> None: ...

    def link_overdue(self) -> None: ...

    def link_answers(self, outstanding: int) -> None: ...


async def _no_calls(_query: Any) -> Any:
    raise LinkFailed(Evidence(Source.CODE, "no call is made while somebody signs in"))


async def _no_sign_in() -> None:
    raise LinkFailed(Evidence(Source.CODE, "only a person signs a user account in"))
