"""Links to other datacenters than the account's own: for files that lie there, and inline messages sent there.

A key of its own for each, made over that very link and kept with the account's session; the account's authorization
is exported by the main link and imported there (https://core.telegram.org/api/datacenter#authorization-transfer). A
link is opened when it is used, over the path that the main link takes and no other, and closed when nobody has used it
for `IDLE` seconds. One attempt is made here; what fails, waits and is tried again is the business of `calls`, as with
every other call of the account. The account's state is not concerned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.core.decide import KEY_NOT_FOUND
from supervisor.core.failure import Evidence, Source
from supervisor.errors import DatacenterUnreachable, OutcomeUnknown
from supervisor.ports import LinkFailed, RpcFailed
from supervisor.telegram import queries
from supervisor.telegram.dial import ProxyAddress, Route
from supervisor.telegram.errand import Errand, Interrupted, Transfer, retrieve
from supervisor.telegram.keyexchange import PublicKey, create_auth_key
from supervisor.telegram.session import Credentials, MtprotoSession, Timings
from supervisor.telegram.wire import Wire

log = logging.getLogger(__name__)

IDLE = 60.0  # seconds without use after which a link is closed
APART = 1.0  # seconds between two attempts to open one link, whoever wants them
STEP = "foreign datacenter"
# The foreign key is not accepted any more. Nothing is lost with it: another is made.
_DEAD_KEY = frozenset(
    {
        "AUTH_KEY_UNREGISTERED",
        "AUTH_KEY_INVALID",
        "AUTH_KEY_DUPLICATED",
        "SESSION_REVOKED",
        "SESSION_EXPIRED",
    }
)


@dataclass(frozen=True, slots=True)
class Ways:
    """What foreign links need of their account and its main link.

    Args:
        name: the account's name.
        call: makes a call of the account, at home or (with the second argument) elsewhere.
        path: gives the main link's path and its proxy; raises LinkFailed where there is none.
        turn: waits for a turn in that path's connect budget.
        init_connection: wraps a query into invokeWithLayer and initConnection.
        public_keys: gives the RSA keys that a datacenter may have.
        api_id: the application's.
        timings: the bounds of every wait.
        storage: the account's, which keeps the keys.
    """

    name: str
    call: Callable[..., Awaitable[Any]]
    path: Callable[[], tuple[str, ProxyAddress | None]]
    turn: Callable[[str], Awaitable[None]]
    init_connection: Callable[[Any, int, Any], Any]
    public_keys: Callable[[], Sequence[PublicKey]]
    api_id: int
    timings: Timings
    storage: Any


class ForeignLinks:
    """The foreign links of one account. It stands for `client.media_sessions`, where Pyrogram looks first."""

    def __init__(self, ways: Ways) -> None:
        """Prepare; nothing is opened."""
        self.ways = ways
        self._links: dict[tuple[int, bool], ForeignLink] = {}

    def link(self, dc_id: int, *, media: bool) -> ForeignLink:
        """The link to a datacenter. Its media servers and its others have one each, with a key each."""
        wanted = dc_id, media
        if wanted not in self._links:
            self._links[wanted] = ForeignLink(self, dc_id, is_media=media)
        return self._links[wanted]

    def get(self, dc_id: int) -> ForeignLink:
        """As Pyrogram asks (methods/messages/inline_session.py); there always is one."""
        return self.link(dc_id, media=True)

    __getitem__ = get

    async def addresses(self, dc_id: int, *, media: bool) -> list[tuple[str, int]]:
        """Where a datacenter is, best first, by the main link's help.getConfig.

        Asked anew each time, so that nothing is opened for an account whose gate lets nothing through.

        Raises:
            LinkFailed: it has no address that we can use.
        """
        from pyrogram import raw

        config = await self.ways.call(raw.functions.help.GetConfig())
        # tcpo_only asks for transport obfuscation, cdn for keys of its own; the path may be IPv4 only.
        usable = [
            option
            for option in config.dc_options
            if option.id == dc_id and not (option.ipv6 or option.cdn or option.tcpo_only)
            if media or not option.media_only
        ]
        if not usable:
            message = "the server's configuration names no address of it that can be used"
            raise LinkFailed(Evidence(Source.RPC, message, step=STEP))
        usable.sort(key=lambda option: not option.media_only)  # stable: the server's order otherwise
        return [(option.ip_address, option.port) for option in usable]

    def drop(self) -> None:
        """Close all connections and fail what waits for them. They come back when they are used."""
        for link in self._links.values():
            link.drop()

    async def close(self) -> None:
        """Close all connections for good."""
        links = list(self._links.values())
        for link in links:
            link.close()
        await asyncio.gather(*(link.closed() for link in links))


class ForeignLink:
    """One connection to another datacenter: what the library sees as a session of that datacenter."""

    is_cdn = False

    def __init__(self, owner: ForeignLinks, dc_id: int, *, is_media: bool) -> None:
        """Prepare; nothing is opened."""
        self.dc_id = dc_id
        self.is_media = is_media
        self._owner = owner
        self._ways = owner.ways
        self._key = b""
        self._epoch = -1  # of the account's key, with which this one was authorized
        self._is_authorized = False
        self._is_closed = False
        self._path: str | None = None  # that the connection takes
        self._opening: asyncio.Task[None] | None = None
        self._failures = 0  # to open it, in a row
        self._not_before = 0.0
        self._users = 0
        self._idle: asyncio.TimerHandle | None = None
        self.session = MtprotoSession(self, _ignore, self._ways.init_connection, self._ways.timings)
        self.loss: asyncio.Future[Evidence]  # of the present connection
        self._renew_loss()

    # --- what the library sees ------------------------------------------------------------------------

    @property
    def auth_key(self) -> bytes:
        """This datacenter's key; empty while there is none."""
        return self._key

    async def start(self) -> None:
        """Nothing to do: a call opens the link."""

    async def stop(self) -> None:
        """Nothing to do: the link is the account's, and closes by itself."""

    async def invoke(self, query: Any, *_retries: Any, **_options: Any) -> Any:
        """Make a call there, through the loss of a connection or two. The library's own retries don't apply.

        Raises:
            DatacenterUnreachable: every attempt that the policies allow has failed; with the last one's cause.
            OutcomeUnknown: the call may have taken effect, and repeating it might do it twice.
            AccountUnavailable: the account is suspended or off, or time is up.
            pyrogram.errors.RPCError: Telegram refused the call, or to transfer the authorization.
        """
        errand = Errand(self)
        with self._used():
            try:
                return await self._ways.call(query, errand)
            except DatacenterUnreachable as error:
                if errand.is_out and not queries.is_read_only(query):
                    raise OutcomeUnknown(self._ways.name, queries.method_name(query), str(error)) from error
                raise
            finally:
                errand.end()

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        self._users += 1
        self._stay()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users and not self._is_closed:
                self._idle = asyncio.get_running_loop().call_later(IDLE, self._rest)

    # --- opening --------------------------------------------------------------------------------------

    async def be_open(self) -> None:
        """Return when the link is open; whoever else waits for it waits for the same attempt.

        Raises:
            LinkFailed: the attempt failed.
        """
        while not self.is_open:
            if self._is_closed:
                raise LinkFailed(self._seen("the account is stopped"))
            opening = self._begin_opening()
            await asyncio.wait({opening})
            if opening.cancelled():
                raise LinkFailed(self._seen("the account was taken offline"))
            opening.result()

    @property
    def is_open(self) -> bool:
        """Whether calls can be made: for the account's present key, over its present path."""
        return (
            self.session.is_up
            and self._is_authorized
            and self._path == self._ways.path()[0]
            and self._epoch == self._ways.storage.epoch
        )

    def _begin_opening(self) -> asyncio.Task[None]:
        if self._opening is None or self._opening.done():
            name = f"{self._ways.name}: datacenter {self.dc_id}"
            self._opening = asyncio.create_task(self._open(), name=name)
            self._opening.add_done_callback(retrieve)
        return self._opening

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._not_before - loop.time())
        self._not_before = loop.time() + APART
        try:
            await self._attempt()
        except LinkFailed as failed:
            self._failures += 1
            self._learn(failed.evidence)
            raise
        except BaseException:
            self._disconnect("it was not opened")
            raise
        self._failures = 0

    async def _attempt(self) -> None:
        # Before anything is dialled: two connections never share a key.
        self._disconnect("the account has another path, or another key")
        path, proxy = self._ways.path()
        await self._recall_key()
        addresses = await self._owner.addresses(self.dc_id, media=self.is_media)
        host, port = addresses[self._failures % len(addresses)]
        route = Route(path, host, port, proxy)
        await self._ways.turn(path)
        session, timeout = self.session, self._ways.timings.connect_timeout
        wire = await Wire.dial(
            route, timeout=timeout, on_packet=session.packet_received, on_lost=session.wire_lost
        )
        self._path = path
        self._renew_loss()
        try:
            salt = 0
            if not self._key:
                made = await create_auth_key(wire, public_keys=self._ways.public_keys(), timeout=timeout)
                self._key, salt = made.key, made.server_salt
            credentials = Credentials(self._key, self._ways.api_id, authorized=False, salt=salt)
            await session.open(wire, route, credentials)
        except BaseException:
            wire.abort()
            raise
        if not self._is_authorized:
            await self._authorize()
        if self.loss.done():
            raise LinkFailed(self.loss.result())

    async def _recall_key(self) -> None:
        """Take the key that belongs to the account's present one, where there is such."""
        storage = self._ways.storage
        if self._epoch == storage.epoch:
            return
        self._epoch = storage.epoch
        self._key = await storage.foreign_key(self.dc_id, media=self.is_media) or b""
        self._is_authorized = bool(self._key)

    async def _authorize(self) -> None:
        """Have the account's authorization exported by its own datacenter, and import it here."""
        from pyrogram import raw

        call, storage = self._ways.call, self._ways.storage
        exported = await call(raw.functions.auth.ExportAuthorization(dc_id=self.dc_id))
        query = raw.functions.auth.ImportAuthorization(id=exported.id, bytes=exported.bytes)
        transfer = Transfer(self)
        try:
            await call(query, transfer)
        except Interrupted as interrupted:
            raise LinkFailed(interrupted.evidence) from interrupted
        except OutcomeUnknown as unknown:
            message = "the session was reset before auth.ImportAuthorization was answered"
            raise LinkFailed(self._seen(message, Source.PROTOCOL)) from unknown
        finally:
            transfer.end()
        self._is_authorized = True
        if self._epoch == storage.epoch:
            storage.keep_foreign_key(self.dc_id, self._key, media=self.is_media)

    def _seen(self, message: str, source: Source = Source.SOCKET) -> Evidence:
        return Evidence(source, message, step=STEP, path=self._path or "direct")

    def _learn(self, evidence: Evidence) -> None:
        self._disconnect(evidence.message)
        unknown = evidence.source is Source.TRANSPORT and evidence.code == KEY_NOT_FOUND
        if unknown or evidence.error_id in _DEAD_KEY:
            self._forget_key()

    def refused(self, error: RpcFailed, key: bytes) -> None:
        """A call that was made with this key was answered with an error: it may be the key's."""
        if error.text in _DEAD_KEY and key == self._key:  # else another call was quicker
            self._forget_key()

    def _forget_key(self) -> None:
        self._disconnect("the key was given up")
        self._key, self._is_authorized = b"", False

    # --- the end of a connection ----------------------------------------------------------------------

    def link_lost(self, evidence: Evidence) -> None:
        """The session tells that its connection is gone (ports.LinkEvents). Whoever waits for an answer hears of it."""
        log.debug("%s: datacenter %d: %s", self._ways.name, self.dc_id, evidence.message)
        if not self.loss.done():
            self.loss.set_result(evidence)

    def _disconnect(self, why: str) -> None:
        """Close the connection; whoever waits for an answer hears of it."""
        self.session.close()
        if not self.loss.done():
            self.loss.set_result(self._seen(why))

    def link_overdue(self) -> None:
        """Nothing to do: the session finds out by itself whether the connection is lost."""

    def link_answers(self, outstanding: int) -> None:
        """Nothing to do: nothing was held back."""

    def _renew_loss(self) -> None:
        self.loss = asyncio.get_running_loop().create_future()

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _rest(self) -> None:
        """Nobody has used the link for `IDLE` seconds."""
        self._idle = None
        if self._opening is not None:
            self._opening.cancel()
        self.session.close()

    def drop(self) -> None:
        """Close the connection, and fail what waits for it."""
        self._stay()
        if self._opening is not None:
            self._opening.cancel()
        self.session.close()
        self.session.give_up()

    def close(self) -> None:
        """Close the connection for good."""
        self._is_closed = True
        self.drop()

    async def closed(self) -> None:
        """Wait until nothing of it runs any more."""
        if self._opening is not None:
            await asyncio.wait({self._opening})


def _ignore(_update: Any) -> None:
    """Updates come over the main link."""


async def get_session(
    client: Any,
    dc_id: int | None = None,
    is_media: bool = False,
    is_cdn: bool = False,
    business_connection_id: str | None = None,
    **_: Any,
) -> Any:
    """The session for a datacenter, as Kurigram's `Client.get_session` (client.py) gives it.

    Args:
        client: the supervised client.
        dc_id: the datacenter; None is the account's own.
        is_media: whether it is for files and inline messages.
        is_cdn: not served: CDN downloads are never asked for.
        business_connection_id: take the datacenter of this business connection.
    """
    if is_cdn:
        raise NotImplementedError(f"{client.name}: CDN datacenters are not used")
    if business_connection_id:
        dc_id = await _business_datacenter(client, business_connection_id)
    if not dc_id or dc_id == await client.storage.dc_id():
        return client.session
    return client.media_sessions.link(dc_id, media=is_media)


async def _business_datacenter(client: Any, connection_id: str) -> int:
    from pyrogram import raw

    known: int | None = client.business_connections.get(connection_id)
    if known is None:
        query = raw.functions.account.GetBotBusinessConnection(connection_id=connection_id)
        connection = (await client.session.invoke(query)).updates[0].connection
        known = client.business_connections[connection_id] = int(connection.dc_id)
    return known
