"""One account's link to Telegram: client, MTProto session, stored key and the connection of the moment.

`open` is one bounded attempt - dial, key exchange where there is no key, greeting, sign-in where there is
nobody signed in and a token is at hand, one answered RPC - and everything that goes wrong leaves as
`LinkFailed` with its evidence. When to try, and over which path, is the account's decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from supervisor.core.failure import Evidence, Source
from supervisor.deadlines import deadline
from supervisor.ports import LinkEvents, LinkFailed, RpcFailed, SessionGone
from supervisor.telegram import client as clients
from supervisor.telegram import done
from supervisor.telegram import evidence as evidences
from supervisor.telegram.delivered import may_be_done
from supervisor.telegram.dial import ProxyAddress, Route
from supervisor.telegram.foreign import ForeignLinks, Ways
from supervisor.telegram.keyexchange import create_auth_key, telegram_public_keys
from supervisor.telegram.login import MOVES, NOBODY, STEP, Login, address_of, sent_on
from supervisor.telegram.outbox import UNREADABLE
from supervisor.telegram.packets import Unreadable
from supervisor.telegram.queries import method_name
from supervisor.telegram.session import Credentials, Greeting, MtprotoSession
from supervisor.telegram.spec import DIRECT, LinkSpec, route_of
from supervisor.telegram.storage import (
    SessionsDb,
    SessionUnreadable,
    StorageBroken,
    read_session_file,
    read_session_string,
)
from supervisor.telegram.updates import Updates
from supervisor.telegram.wire import Wire
from supervisor.waiting import Spawn

log = logging.getLogger(__name__)

LOGIN_REQUIRED = "LOGIN_REQUIRED"
UPDATES_STOPPED = "UPDATES_STOPPED"


async def _at_once(_path: str) -> None:
    """Nobody else connects: no turn is waited for."""


class TelegramLink:
    """One account on Telegram."""

    def __init__(
        self, spec: LinkSpec, db: SessionsDb, events: LinkEvents, on_code_error: Callable[[Evidence], None]
    ) -> None:
        """Prepare a link; nothing is opened.

        Args:
            spec: the account.
            db: where sessions are kept.
            events: is told when a link is lost.
            on_code_error: is told when an update could not be handled.
        """
        self._spec = spec
        self._events = events
        self._on_code_error = on_code_error
        self._storage: Any = db.account(spec.identity)
        self._updates = Updates(spec.name, self._storage, skip=spec.skip_missed, failed=on_code_error)
        self._up_to_date = 0.0  # when updates were last known to come, on the event loop's clock
        self._updates_stopped = False
        self._client: Any = None
        self._session: MtprotoSession | None = None
        self._foreign: ForeignLinks | None = None
        self._route: Route | None = None  # of the last attempt

    # --- life -----------------------------------------------------------------------------------------

    async def prepare(
        self, call: Callable[..., Awaitable[Any]], turn: Callable[[str], Awaitable[None]] = _at_once
    ) -> None:
        """Open the stored session and build the client.

        Args:
            call: takes each query that the client makes, and with it the way where it goes to another datacenter.
            turn: waits for a turn in the connect budget of a path, for connections to other datacenters.

        Raises:
            LinkFailed: the session file or string that is to be taken over could not be, or not be stored.
            SessionInUse: another account uses the same session.
            TypeError: the installed library does not know one of the operator's client keys.
        """
        spec = self._spec
        await self._storage.open()
        try:
            await self._take_over()
        except (SessionUnreadable, StorageBroken) as error:
            raise _unusable(error, "prepare") from error
        if await self._storage.api_id() is None:
            await self._storage.api_id(spec.api_id)
            await self._storage.test_mode(False)
        options = clients.client_options(
            spec.options, api_id=spec.api_id, api_hash=spec.api_hash, plugins=spec.plugins
        )
        self._client = clients.client_class()(
            spec.name,
            storage=self._storage,
            call=call,
            message_cache=spec.message_cache,
            bases=spec.bases,
            options=options,
            told=self._on_code_error,
        )
        self._updates.attach(self._client)
        self._session = MtprotoSession(
            self._events, self._take_update, clients.init_connection(self._client), spec.timings
        )
        await self._prepare_foreign(call, turn)

    def reconfigure(self, spec: LinkSpec) -> None:
        """Go by another spec from now on: its timings, proxies, `message_cache` and `skip_missed`.

        Args:
            spec: the same account, with the same credentials, server and options.
        """
        before, self._spec = self._spec, spec
        self._updates.skip = spec.skip_missed
        if self._session is not None:
            self._session.timings = spec.timings
        if self._foreign is not None:
            self._foreign.ways = replace(self._foreign.ways, timings=spec.timings)
        if self._client is not None and spec.message_cache != before.message_cache:
            self._client.remember(spec.message_cache)

    async def _take_over(self) -> None:
        """Begin with a copy of an existing session, where one is configured and there is none of ours yet."""
        spec = self._spec
        if self._storage.session.auth_key is not None:
            return
        if spec.session_file is not None:
            found = await asyncio.to_thread(read_session_file, spec.session_file)
        elif spec.session_string is not None:
            found = read_session_string(spec.session_string)
        else:
            return
        if spec.server is not None:  # the address in the file is Telegram's own, where nothing may go
            found = replace(found, server_address=None, port=None)
        await self._storage.take_over(found)

    def _take_update(self, update: Any) -> None:
        if isinstance(update, Unreadable):
            message = f"an update cannot be read: {update.why}"
            path = self._route.path if self._route is not None else DIRECT
            self._on_code_error(Evidence(Source.PROTOCOL, message, UNREADABLE, step="update", path=path))
        else:
            self._up_to_date = asyncio.get_running_loop().time()
            self._updates_stopped = False
        self._updates.push(update)

    def begin(self, spawn: Spawn) -> None:
        """Hand updates to the handlers, and fetch what is missing of them, until `rest`.

        Args:
            spawn: starts a task of the account's.
        """
        self._updates.begin(spawn)

    def rest(self) -> None:
        """Leave what there is of updates to the next start."""
        self._updates.rest()

    async def shutdown(self) -> None:
        """Stop handlers, connection and storage; within a few seconds whatever they do."""
        if self._session is not None:
            self._keep_salt()
            self._session.close()
            self._session.give_up()
        if self._foreign is not None:
            await self._foreign.close()
        if self._client is not None:
            await self._client.end()
            await self._updates.close()
        await self._storage.close()

    def new_login(self, phone: str) -> Login:
        """A sign-in of this account with a code; the link itself is not touched by it.

        Args:
            phone: the account's number.
        """
        return Login(self._spec, phone, self._storage, clients.init_connection(self._client))

    # --- other datacenters (foreign.py) ---------------------------------------------------------------

    async def _prepare_foreign(
        self, call: Callable[..., Awaitable[Any]], turn: Callable[[str], Awaitable[None]]
    ) -> None:
        spec, server = self._spec, self._spec.server
        ways = Ways(
            name=spec.name,
            call=call,
            path=self._present_path,
            turn=turn,
            init_connection=clients.init_connection(self._client),
            public_keys=lambda: [server.public_key] if server is not None else telegram_public_keys(),
            api_id=await self._storage.api_id() or spec.api_id,
            timings=spec.timings,
            storage=self._storage,
        )
        self._client.media_sessions = self._foreign = ForeignLinks(ways)

    def _present_path(self) -> tuple[str, ProxyAddress | None]:
        """The path of the main link, and its proxy: no other connection of the account takes another."""
        if self._route is None:
            raise LinkFailed(Evidence(Source.SOCKET, f"{self._spec.name} was not connected yet"))
        return self._route.path, self._route.proxy

    # --- facts ----------------------------------------------------------------------------------------

    @property
    def client(self) -> Any:
        """The supervised `pyrogram.Client`."""
        return self._client

    @property
    def user_id(self) -> int | None:
        """Who is signed in."""
        user_id: int | None = self._storage.session.user_id
        return user_id

    @property
    def dc(self) -> int | None:
        """The datacenter of its session; None before that is read, or made."""
        session = self._storage.session
        return session.dc_id if session.auth_key is not None else None

    @property
    def is_bot(self) -> bool | None:
        """Whether it is a bot, as far as is known."""
        if self._spec.bot_token is not None:
            return True
        is_bot: bool | None = self._storage.session.is_bot
        return is_bot

    @property
    def can_sign_in(self) -> bool:
        """Whether a sign-in can succeed without a person."""
        return self._spec.bot_token is not None

    @property
    def resent(self) -> int:
        """How many queries the present link began with: those that the one before left unanswered."""
        return self._session.resent if self._session is not None else 0

    @property
    def quiet_since(self) -> float:
        """Since when no RPC has been answered, or no update has come, whichever is longer ago; the event loop's clock.

        One that only sends is asked too, for its updates may have stopped unnoticed.
        """
        return min(self._session.last_answer, self._up_to_date) if self._session is not None else 0.0

    def route(self, path: str) -> Route:
        """The way to this account's datacenter over a path; see `spec.route_of`."""
        return route_of(path, self._spec, self._storage.session)

    # --- the link -------------------------------------------------------------------------------------

    async def open(self, path: str, before_sign_in: Callable[[], Awaitable[None]]) -> None:
        """Make one attempt to be online over this path.

        Args:
            path: a proxy's name, or "direct".
            before_sign_in: awaited before a sign-in leaves; it may raise LinkFailed to forbid it.

        Raises:
            LinkFailed: the attempt failed.
        """
        self.close()
        if not self._storage.session.signed_in and not self.can_sign_in:
            message = f"nobody is signed in; run: tg-supervisor login {self._spec.name}"
            raise LinkFailed(
                Evidence(Source.RPC, message, error_id=LOGIN_REQUIRED, code=401, step="sign-in", path=path)
            )
        try:
            await self._open(path, before_sign_in)
        except BaseException as error:
            self.close()  # a failed attempt, and one that was called off, leaves no connection
            if isinstance(error, StorageBroken):
                raise _unusable(error, "open", path) from error
            raise

    async def _open(self, path: str, before_sign_in: Callable[[], Awaitable[None]]) -> None:
        """Connect; where nobody is signed in sign in, at the datacenter to which Telegram sends the account."""
        allowed = False
        for _ in range(MOVES):
            is_new = self._storage.session.auth_key is None
            greeting = await self._connect(self.route(path))
            if self._storage.session.signed_in:
                await self._greeted(greeting.state, self.user_id)
                return
            # A sign-in on a key of before may have been granted, and only its answer lost.
            user = None if is_new else await self._whoever(path)
            if user is None:
                if not allowed:
                    await before_sign_in()  # a datacenter that sends us on has signed nobody in
                allowed = True
                user = await self._sign_in(path, greeting)
            if user is not None:
                await self._keep(path, user)
                return
        raise LinkFailed(Evidence(Source.RPC, "sent from datacenter to datacenter", step=STEP, path=path))

    async def _connect(self, route: Route) -> Greeting:
        session = self._live
        self._route = route
        wire = await Wire.dial(
            route,
            timeout=self._spec.timings.connect_timeout,
            on_packet=session.packet_received,
            on_lost=session.wire_lost,
        )
        try:
            await self._ensure_key(wire)
            stored = self._storage.session
            api_id = stored.api_id or self._spec.api_id
            credentials = Credentials(stored.auth_key, api_id, stored.signed_in, stored.server_salt or 0)
            return await session.open(wire, route, credentials)
        except BaseException:
            wire.abort()
            raise

    async def _ensure_key(self, wire: Wire) -> None:
        """Make an auth key over this wire if there is none."""
        if self._storage.session.auth_key is not None:
            return
        server = self._spec.server
        keys = [server.public_key] if server is not None else telegram_public_keys()
        made = await create_auth_key(wire, public_keys=keys, timeout=self._spec.timings.connect_timeout)
        if server is not None and (wire.route.host, wire.route.port) == (server.host, server.port):
            await self._storage.dc_id(server.dc_id)
        await self._storage.auth_key(made.key)
        self._storage.server_salt = made.server_salt
        await self._storage.persist()

    async def _whoever(self, path: str) -> Any | None:
        """Who is signed in on the present key."""
        from pyrogram import raw

        query = raw.functions.users.GetUsers(id=[raw.types.InputUserSelf()])
        try:
            (user,) = await self._ask(query, path, step=STEP)
        except LinkFailed as failed:
            if failed.evidence.error_id != NOBODY:
                raise
            return None
        return user

    async def _sign_in(self, path: str, greeting: Greeting) -> Any | None:
        """Sign a bot in by its token; None if Telegram sent us to another datacenter."""
        from pyrogram import raw

        query = raw.functions.auth.ImportBotAuthorization(
            flags=0,
            api_id=self._spec.api_id,
            api_hash=self._spec.api_hash,
            bot_auth_token=self._spec.bot_token,
        )
        try:
            return (await self._ask(query, path, step=STEP)).user
        except LinkFailed as failed:
            moved = sent_on(failed.evidence.error_id)
            if moved is None:
                raise
            await self._move(moved, greeting, path)
            return None

    async def _keep(self, path: str, user: Any) -> None:
        """Store who is signed in, and have the account's state told: that proves it."""
        from pyrogram import raw

        await self._storage.user_id(user.id)
        await self._storage.is_bot(True)
        await self._storage.persist()
        await self._client.fetch_peers([user])
        await self._greeted(await self._ask(raw.functions.updates.GetState(), path), user.id)

    async def _greeted(self, state: Any, user_id: int | None) -> None:
        self._up_to_date = asyncio.get_running_loop().time()
        self._keep_salt()
        await self._updates.greeted(state, user_id)

    def _keep_salt(self) -> None:
        """The next run begins with this salt instead of being refused once for want of it."""
        session, stored = self._live, self._storage.session
        if session.auth_key == stored.auth_key and session.salt != stored.server_salt:
            self._storage.server_salt = session.salt

    async def _ask(self, query: Any, path: str, step: str | None = None) -> Any:
        """One query outside the gate, bounded; its failure is the attempt's failure."""
        method, seconds = method_name(query), self._spec.timings.answer_timeout
        try:
            async with deadline(seconds):
                return await self._live.send(query)
        except RpcFailed as error:
            seen = evidences.from_rpc(error.code, error.text, method=method, path=path, step=step)
            raise LinkFailed(seen) from error
        except SessionGone as error:
            message = f"the session was reset before {method} was answered"
            raise LinkFailed(
                Evidence(Source.PROTOCOL, message, method=method, step=step, path=path)
            ) from error
        except TimeoutError as error:
            message = f"no answer to {method} in {seconds:g} s"
            raise LinkFailed(
                Evidence(Source.SILENCE, message, method=method, step=step, path=path)
            ) from error

    async def _move(self, dc_id: int, greeting: Greeting, path: str) -> None:
        """Go to another datacenter, whose address the server's configuration tells."""
        address, port = address_of(dc_id, greeting.config.dc_options, path)
        self.close()
        await self._storage.retire(f"moved to datacenter {dc_id}")
        await self._storage.dc_id(dc_id)
        await self._storage.server_address(address)
        await self._storage.port(port)

    async def prove(self, path: str) -> None:
        """Have updates.getState answered on the present link; fetch the updates that it has not been pushed.

        Raises:
            LinkFailed: it was not, or it was refused.
        """
        from pyrogram import raw

        state = await self._ask(raw.functions.updates.GetState(), path)
        self._up_to_date = asyncio.get_running_loop().time()
        self._keep_salt()
        missing = await self._updates.check(state)
        if missing and not self._updates_stopped:  # told once, until one is pushed again
            self._updates_stopped = True
            message = (
                f"updates had stopped: Telegram was {missing} ahead of what it had pushed; they are fetched"
            )
            self._on_code_error(
                Evidence(Source.PROTOCOL, message, UPDATES_STOPPED, step="updates", path=path)
            )

    async def retire(self, reason: str) -> None:
        """Keep the present key aside, dated, and begin without one."""
        self.close()
        await self._storage.retire(reason)

    def close(self) -> None:
        """Close the connection; what is unanswered stays pending."""
        if self._session is not None:
            self._session.close()

    def give_up(self) -> None:
        """Fail what is unanswered."""
        if self._session is not None:
            self._session.give_up()
        if self._foreign is not None:
            self._foreign.drop()

    # --- calls ----------------------------------------------------------------------------------------

    async def send(self, query: Any) -> Any:
        """Send an admitted query; see `ports.Sender`."""
        delivered = self._updates.delivered
        again = delivered.sending(query)
        try:
            answer = await self._live.send(query)
        except (RpcFailed, LinkFailed) as error:
            if not (
                again or may_be_done(error)
            ):  # a repeat that is refused says nothing of the sending before
                delivered.refused(query)
            raise
        self._updates.answered(query, answer)
        return answer

    async def find_delivered(self, query: Any) -> Any | None:
        """The updates of a message that was delivered while its answer was lost; see `ports.Sender`."""
        return await self._updates.find_delivered(query)

    async def find_done(self, query: Any, *, repeated: bool) -> Any | None:
        """What a query would have given that was done already; see `ports.Sender`."""
        return await done.find(self._live.send, query, repeated=repeated)

    @property
    def _live(self) -> MtprotoSession:
        if self._session is None:
            raise RuntimeError("prepare() comes first")
        return self._session


def _unusable(error: SessionUnreadable | StorageBroken, step: str, path: str = DIRECT) -> LinkFailed:
    """A stored session that could not be used, as the failure of an attempt."""
    cause = evidences.causes(error)
    return LinkFailed(Evidence(Source.STORAGE, str(error), error.error_id, step=step, path=path, cause=cause))
