"""Links to other datacenters than the account's own: for files that lie there, and inline messages sent there.

A key of its own for each, made over that very link; the account's authorization is exported by the main link
and imported there (https://core.telegram.org/api/datacenter#authorization-transfer). A link is opened when it is
used, over the path that the main link takes and no other, and closed when nobody has used it for a while. What
fails is tried again a few times and then raised, with its cause: the account's state is not concerned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from supervisor.core.classify import classify
from supervisor.core.failure import Evidence, Kind, Remedy, Source
from supervisor.errors import OutcomeUnknown, SupervisorError
from supervisor.ports import LinkFailed, RpcFailed, SessionGone
from supervisor.telegram import queries
from supervisor.telegram.dial import ProxyAddress, Route
from supervisor.telegram.keyexchange import PublicKey, create_auth_key
from supervisor.telegram.session import Credentials, MtprotoSession, Timings
from supervisor.telegram.wire import Wire

log = logging.getLogger(__name__)

IDLE = 60.0  # seconds without use after which a link is closed
DELAYS = (1.0, 2.0)  # seconds before the second and the third attempt
IMPORTS = 3  # exported authorizations that are tried: AUTH_BYTES_INVALID means "export anew" (errors.tsv)
MOST_WAITS = 5  # waits that Telegram may demand of one call
LONGEST_WAIT = 300.0  # seconds of such waits together; beyond, the caller gets the error
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
_KEY_NOT_FOUND = -404  # core.telegram.org/mtproto/mtproto-transports#transport-errors


class DatacenterUnreachable(SupervisorError, ConnectionError):
    """Another datacenter than the account's own could not be reached.

    Args:
        account: the account's name.
        dc_id: the datacenter.
        why: what went wrong last.
    """

    def __init__(self, account: str, dc_id: int, why: str) -> None:
        super().__init__(f"{account}: datacenter {dc_id} could not be reached: {why}")
        self.dc_id = dc_id


@dataclass(frozen=True, slots=True)
class Ways:
    """What foreign links need of their account and its main link.

    Args:
        name: the account's name.
        home: makes a call through the account's gate.
        path: gives the main link's path and its proxy; raises LinkFailed where there is none.
        init_connection: wraps a query into invokeWithLayer and initConnection.
        public_keys: gives the RSA keys that a datacenter may have.
        api_id: the application's.
        timings: the bounds of every wait.
    """

    name: str
    home: Callable[[Any], Awaitable[Any]]
    path: Callable[[], tuple[str, ProxyAddress | None]]
    init_connection: Callable[[Any, int, Any], Any]
    public_keys: Callable[[], Sequence[PublicKey]]
    api_id: int
    timings: Timings


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

        config = await self.ways.home(raw.functions.help.GetConfig())
        # tcpo_only asks for transport obfuscation, cdn for keys of its own; the path may be IPv4 only.
        usable = [
            option
            for option in config.dc_options
            if option.id == dc_id and not (option.ipv6 or option.cdn or option.tcpo_only)
            if media or not option.media_only
        ]
        if not usable:
            message = f"datacenter {dc_id} is not in the server's configuration"
            raise LinkFailed(Evidence(Source.RPC, message, step="foreign datacenter"))
        usable.sort(key=lambda option: not option.media_only)  # stable: the server's order otherwise
        return [(option.ip_address, option.port) for option in usable]

    def drop(self) -> None:
        """Close all connections and fail what waits for them. They come back when they are used."""
        for link in self._links.values():
            link.drop(DatacenterUnreachable(self.ways.name, link.dc_id, "the account was taken offline"))

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
        self._is_imported = False
        self._is_importing = False
        self._is_closed = False
        self._path: str | None = None  # that the connection takes
        self._lost = Evidence(Source.SOCKET, "the connection was not open")
        self._failure: Exception | None = None  # of the last try to open
        self._opening: asyncio.Task[None] | None = None
        self._users = 0
        self._idle: asyncio.TimerHandle | None = None
        self._session = MtprotoSession(self, _ignore, self._ways.init_connection, self._ways.timings)

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
            DatacenterUnreachable: three attempts to open the link failed; the cause is the last one's.
            OutcomeUnknown: the call may have taken effect, and repeating it might do it twice.
            pyrogram.errors.RPCError: Telegram refused the call, or to transfer the authorization.
        """
        with self._used():
            call = _Call(query, queries.method_name(query))
            while True:
                try:
                    await self._be_open()
                    call.key = self._key
                    return await self._session.send(query)
                except RpcFailed as error:
                    await self._refused(call, error)
                except SessionGone as gone:
                    self._gone(call, gone)
                except LinkFailed as failed:  # the server would not take the message, however it was sent
                    raise self._unreachable(failed) from failed

    # --- calls ----------------------------------------------------------------------------------------

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

    async def _refused(self, call: _Call, error: RpcFailed) -> None:
        """Wait and return where the call is to be sent again; else raise the library's exception."""
        exception = queries.rpc_exception(error.code, error.text, error.method)
        if error.text in _DEAD_KEY and not call.had_dead_key:
            call.had_dead_key = True
            if call.key == self._key:  # another call may have been quicker
                self._forget_key()
            return
        failure = classify(queries.rpc_evidence(error.code, error.text, call.query, self._path or "direct"))
        delay = call.next_delay(failure.kind, failure.remedy, failure.wait)
        if delay is None:
            raise exception
        log.info("%s: datacenter %d: %s; again in %g s", self._ways.name, self.dc_id, failure, delay)
        await asyncio.sleep(delay)

    def _gone(self, call: _Call, gone: SessionGone) -> None:
        """Return where the call may be sent again; else raise what became of it."""
        call.times_gone += 1
        if gone.sent and not queries.is_read_only(call.query):
            raise OutcomeUnknown(self._ways.name, call.method) from (self._failure or gone)
        if self._failure is not None:
            raise self._failure
        if call.times_gone > len(DELAYS):
            raise DatacenterUnreachable(self._ways.name, self.dc_id, str(gone)) from gone

    # --- opening --------------------------------------------------------------------------------------

    async def _be_open(self) -> None:
        while not self._is_open():
            if self._is_closed:
                raise DatacenterUnreachable(self._ways.name, self.dc_id, "the account is stopped")
            opening = self._begin_opening()
            await asyncio.wait({opening})
            if opening.cancelled():
                raise self._failure or DatacenterUnreachable(self._ways.name, self.dc_id, "it was given up")
            opening.result()

    def _is_open(self) -> bool:
        return self._session.is_up and self._is_imported and self._path == self._way()[0]

    def _way(self) -> tuple[str, ProxyAddress | None]:
        return self._ways.path()

    def _begin_opening(self) -> asyncio.Task[None]:
        if self._opening is None or self._opening.done():
            name = f"{self._ways.name}: datacenter {self.dc_id}"
            self._opening = asyncio.create_task(self._open(), name=name)
            self._opening.add_done_callback(_retrieve)
        return self._opening

    async def _open(self) -> None:
        """Try to open the link, `DELAYS` apart. Where that fails, whatever waits in the session fails with it."""
        self._failure = None
        try:
            for attempt, delay in enumerate((*DELAYS, None)):
                try:
                    return await self._attempt(attempt)
                except LinkFailed as failed:
                    self._learn(failed.evidence)
                    if delay is None:
                        raise self._unreachable(failed) from failed
                    log.info(
                        "%s: datacenter %d: %s; again in %g s", self._ways.name, self.dc_id, failed, delay
                    )
                    await asyncio.sleep(delay)
        except Exception as error:
            self._give_up(error)
            raise

    async def _attempt(self, number: int) -> None:
        self._session.close()  # before anything is dialled: two connections never share a key
        path, proxy = self._way()
        addresses = await self._owner.addresses(self.dc_id, media=self.is_media)
        host, port = addresses[number % len(addresses)]
        route = Route(path, host, port, proxy)
        session, timeout = self._session, self._ways.timings.connect_timeout
        wire = await Wire.dial(
            route, timeout=timeout, on_packet=session.packet_received, on_lost=session.wire_lost
        )
        try:
            salt = None
            if not self._key:
                made = await create_auth_key(wire, public_keys=self._ways.public_keys(), timeout=timeout)
                self._key, salt = made.key, made.server_salt
            self._path = path
            await session.open(
                wire, route, Credentials(self._key, self._ways.api_id, authorized=False), salt=salt
            )
        except BaseException:
            wire.abort()
            raise
        if not self._is_imported:
            await self._import()
        if not session.is_up:
            raise LinkFailed(self._lost)

    async def _import(self) -> None:
        """Have the account's authorization exported by its own datacenter, and import it here."""
        from pyrogram import raw

        self._is_importing = True
        try:
            for last in (False,) * (IMPORTS - 1) + (True,):
                exported = await self._ways.home(raw.functions.auth.ExportAuthorization(dc_id=self.dc_id))
                query = raw.functions.auth.ImportAuthorization(id=exported.id, bytes=exported.bytes)
                try:
                    await self._ask(query)
                except RpcFailed as error:
                    if error.text != "AUTH_BYTES_INVALID" or last:
                        raise queries.rpc_exception(error.code, error.text, error.method) from None
                else:
                    self._is_imported = True
                    return
        finally:
            self._is_importing = False

    async def _ask(self, query: Any) -> None:
        """One query on a link that is being opened, bounded."""
        seconds, method = self._ways.timings.answer_timeout, queries.method_name(query)
        if not self._session.is_up:
            raise LinkFailed(self._lost)
        try:
            async with asyncio.timeout(seconds):
                await self._session.send(query)
        except SessionGone as gone:
            raise LinkFailed(self._lost) from gone
        except TimeoutError as error:
            message = f"no answer to {method} in {seconds:g} s"
            evidence = Evidence(Source.SILENCE, message, method=method, path=self._path or "direct")
            raise LinkFailed(evidence) from error

    def _learn(self, evidence: Evidence) -> None:
        self._session.close()
        if evidence.error_id in _DEAD_KEY or (
            evidence.source is Source.TRANSPORT and evidence.code == _KEY_NOT_FOUND
        ):
            self._forget_key()

    def _forget_key(self) -> None:
        self._session.close()
        self._key, self._is_imported = b"", False

    def _unreachable(self, failed: LinkFailed) -> DatacenterUnreachable:
        return DatacenterUnreachable(self._ways.name, self.dc_id, str(failed))

    # --- the end of a connection ----------------------------------------------------------------------

    def link_lost(self, evidence: Evidence) -> None:
        """The session tells that its connection is gone. Whoever waits for an answer wants another."""
        self._lost = evidence
        if self._is_importing:
            self._session.give_up()
        elif self._users:
            self._begin_opening()

    def link_overdue(self) -> None:
        """Nothing to do: the session finds out by itself whether the connection is lost."""

    def link_answers(self, outstanding: int) -> None:
        """Nothing to do: nothing was held back."""

    def _give_up(self, failure: Exception) -> None:
        self._failure = failure
        self._session.close()
        self._session.give_up()

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _rest(self) -> None:
        """Nobody has used the link for `IDLE` seconds."""
        self._idle = None
        if self._opening is not None:
            self._opening.cancel()
        self._session.close()

    def drop(self, failure: Exception) -> None:
        """Close the connection, and fail what waits for it."""
        self._stay()
        if self._opening is not None:
            self._opening.cancel()
        self._give_up(failure)

    def close(self) -> None:
        """Close the connection for good."""
        self._is_closed = True
        self.drop(DatacenterUnreachable(self._ways.name, self.dc_id, "the account is stopped"))

    async def closed(self) -> None:
        """Wait until nothing of it runs any more."""
        if self._opening is not None:
            await asyncio.wait({self._opening})


@dataclass(slots=True)
class _Call:
    """What was already done about one call."""

    query: Any
    method: str
    key: bytes = field(default=b"", repr=False)
    waits: int = 0
    waited: float = 0.0
    repeats: int = 0
    times_gone: int = 0
    had_dead_key: bool = False

    def next_delay(self, kind: Kind, remedy: Remedy, wait: float | None) -> float | None:
        """Seconds after which it is sent again; None if it is not."""
        if kind is Kind.FLOOD_WAIT and remedy is Remedy.WAIT and wait is not None:
            self.waits, self.waited = self.waits + 1, self.waited + wait
            return wait if self.waits <= MOST_WAITS and self.waited <= LONGEST_WAIT else None
        if remedy is not Remedy.RETRY or self.repeats == len(DELAYS):
            return None
        self.repeats += 1
        return DELAYS[self.repeats - 1]


def _ignore(_update: Any) -> None:
    """Updates come over the main link."""


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # it is raised to those who wait; where nobody does, the next call tries again


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
