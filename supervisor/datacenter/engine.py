"""The datacenter without its sockets: keys, world and counts, and the way of a packet to the messages in it."""

from __future__ import annotations

import enum
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import service
from .connection import Connection, Voice
from .counts import Seen
from .dispatch import Dispatcher
from .envelope import Plain, Undecryptable, open_packet, seal_packet
from .exchange import UNENCRYPTED, exchange
from .faults import Fault, FaultKind, Faults
from .handshake import NOT_FOUND
from .keys import AuthKey, KeyRing
from .limits import Limits
from .losses import Losses
from .session import (
    BAD_CONTAINER,
    CONTAINER_REPEATED,
    WRONG_SALT,
    Incoming,
    Outgoing,
    Session,
    judge_identifier,
)
from .shared import Shared

if TYPE_CHECKING:
    from .rsa import RsaKey

_MAX_IN_CONTAINER = 1020  # messages, core.telegram.org/mtproto/service_messages#simple-container
_MAX_CONTAINER_SIZE = 512 * 1024
_GARBAGE = 96  # bytes: whole blocks, as a real packet has


class Reception(enum.StrEnum):
    """What is done to a connection that comes in."""

    SERVE = "serve"
    CLOSE = "close"
    RESET = "reset"
    SILENT = "silent"
    """It is kept open and never answered."""


_RECEPTIONS: dict[Reception, Callable[[Connection], None]] = {
    Reception.SERVE: lambda _connection: None,
    Reception.CLOSE: Connection.close,
    Reception.RESET: Connection.abort,
    Reception.SILENT: Connection.die,
}


@dataclass(slots=True)
class Settings:
    """What a datacenter can be told to be like.

    A difference has at most `difference_slice` events in one answer, and none that reaches `difference_too_long` back.
    """

    dc_id: int = 2
    send_limit: int = 30
    strict_overlap: bool = True
    api_id: int | None = None
    difference_slice: int = 100
    difference_too_long: int = 100_000


class Engine:
    """Everything behind the listener. It is the `Owner` of the connections."""

    def __init__(
        self,
        rsa: RsaKey,
        settings: Settings,
        seed: int | None,
        latency: float,
        shared: Shared | None = None,
    ) -> None:
        source: random.Random = random.SystemRandom() if seed is None else random.Random(seed)
        self.rsa = rsa
        self.settings = settings
        self.latency = latency
        self.clock_offset = 0.0
        self.source = source
        self.keys = KeyRing()
        self.shared = shared if shared is not None else Shared(source)
        self.world = self.shared.world
        self.files = self.shared.files
        self.faults = Faults()
        self.limits = Limits()
        self.losses = Losses()
        self.seen = Seen()
        self.connections: dict[Connection, None] = {}
        self.silenced: dict[int | None, bool] = {}
        self.reception = Reception.SERVE
        self.unread: set[int | None] = set()
        self.refusing_handshakes = False
        self.is_away = False
        self._tick = 0
        self._date = 0
        self._dispatcher = Dispatcher(self)

    # -- time ---------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The server's own time, in seconds since 1970."""
        return time.time() + self.clock_offset

    def date(self) -> int:
        """The same as TL objects have it. It never goes back, whatever is done to `clock_offset`: clients ask for
        what happened since a date they were told.
        """
        self._date = max(self._date, int(self.now()))
        return self._date

    def next_tick(self) -> int:
        self._tick += 1
        return self._tick

    # -- connections --------------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        connection.seen = self.seen.opened(connection.peer)
        self.connections[connection] = None
        if self.is_away:
            connection.abort()
        else:
            _RECEPTIONS[self.reception](connection)

    def closed(self, connection: Connection) -> None:
        if connection.seen is not None:
            self.seen.closed(connection.seen)
        if connection.key is not None:
            connection.key.connections.discard(connection)
        if not connection.holds_something:
            self.connections.pop(connection, None)

    def mute(self, connection: Connection, *, swallow: bool) -> None:
        """Let a connection answer nothing: until it may speak, or with `swallow` for good."""
        if swallow:
            connection.die()
        elif connection.voice is Voice.SPEAKING:
            connection.voice = Voice.STALLED

    def disturb(self, user_id: int, body: bytes | None) -> int:
        """Send an account's sessions something that is no update: a message of these bytes, or for None a packet that
        cannot be decrypted. Give how many got it.
        """
        listeners = self._listeners(user_id, None)
        for session, connection in listeners:
            if body is None:
                connection.send(session.key.id + os.urandom(16 + _GARBAGE))
            else:
                connection.put(session, session.make(body, self.now(), content=True, answer=False))
        return len(listeners)

    def is_silenced(self, user_id: int | None) -> bool:
        return bool(self.silenced) and (None in self.silenced or user_id in self.silenced)

    # -- packets ------------------------------------------------------------------------------------------------

    def packet(self, connection: Connection, packet: bytes, tick: int) -> None:
        """Handle one packet of the transport."""
        encrypted = packet[:8] != UNENCRYPTED
        key = self.keys.find(packet[:8]) if encrypted else None
        user_id = key.user_id if key is not None else None
        if self.is_silenced(user_id):
            self._hold(connection, packet, tick, user_id)
            return
        if fault := self.faults.take(user_id, (), FaultKind.TRANSPORT):
            self.fail(connection, fault.code)
        elif not encrypted:
            exchange(self, connection, packet)
        elif key is None:
            self.fail(connection, NOT_FOUND)
        else:
            self._open(connection, key, packet, tick)

    def _hold(self, connection: Connection, packet: bytes, tick: int, user_id: int | None) -> None:
        self.mute(connection, swallow=self.silenced.get(user_id, self.silenced.get(None, False)))
        if connection.voice is Voice.STALLED:
            connection.hold(tick, packet)

    def fail(self, connection: Connection, code: int) -> None:
        """Answer with a transport error and close."""
        self.seen.transport_errors[code] += 1
        connection.send_error(code)

    def cut(self, connection: Connection, fault: Fault) -> bool:
        """End a connection as a fault says, before what came over it is done; False where the fault is of another kind."""
        if fault.kind is FaultKind.DROP_BEFORE:
            connection.abort()
        elif fault.kind is FaultKind.CLOSE:
            connection.close()
        elif fault.kind is FaultKind.TRANSPORT:
            self.fail(connection, fault.code)
        else:
            return False
        return True

    def _open(self, connection: Connection, key: AuthKey, packet: bytes, tick: int) -> None:
        try:
            plain = open_packet(key.key, packet)
        except Undecryptable:
            self.seen.undecryptable += 1
            self.fail(connection, NOT_FOUND)
            return
        if connection.key is not key:
            self._bind(connection, key)
        self._accept(connection, key, plain, tick)

    def _bind(self, connection: Connection, key: AuthKey) -> None:
        if connection.key is not None:
            connection.key.connections.discard(connection)
        connection.key = key
        if connection.is_open:
            key.connections.add(connection)
        if connection.seen is not None:
            connection.seen.user_id = key.user_id
        if self.unread & {None, key.user_id}:
            connection.pause()
        self.seen.max_connections_per_key = max(self.seen.max_connections_per_key, len(key.connections))

    # -- messages -----------------------------------------------------------------------------------------------

    def _accept(self, connection: Connection, key: AuthKey, plain: Plain, tick: int) -> None:
        session = key.sessions.get(plain.session_id) or Session(plain.session_id, key)
        code = judge_identifier(plain.msg_id, self.now())
        if code:
            self.refuse(connection, session, plain.msg_id, plain.seq_no, code)
            return
        if fault := self.faults.take(key.user_id, (), FaultKind.SALT):
            self.seen.faults[fault.kind] += 1
            key.new_salt()
        if plain.salt != key.salt:
            self.refuse(connection, session, plain.msg_id, plain.seq_no, WRONG_SALT)
            return
        if plain.session_id not in key.sessions:
            self._begin(connection, session, plain.msg_id)
        elif session.connection is not connection:
            session.connection = connection
            self._send_again(connection, session)
        self._message(connection, session, Incoming(plain.msg_id, plain.seq_no, plain.body, tick))

    def _begin(self, connection: Connection, session: Session, first_msg_id: int) -> None:
        session.key.sessions[session.id] = session
        session.connection = connection
        self.seen.new_sessions += 1
        created = service.new_session_created(first_msg_id, session.unique_id, session.key.salt)
        notice = session.make(created, self.now(), content=True, answer=False)
        session.keep(notice)
        connection.put(session, notice)

    def _send_again(self, connection: Connection, session: Session) -> None:
        for outgoing in list(session.unacked.values()):
            if outgoing.query:
                self._dispatcher.deliver(connection, session, outgoing, again=True)
            else:
                self.seen.updates_resent += 1
                connection.put(session, outgoing)

    def _message(self, connection: Connection, session: Session, message: Incoming) -> None:
        body = service.unpacked(message.body)
        constructor = int.from_bytes(body[:4], "little")
        if constructor == service.CONTAINER:
            self._container(connection, session, message, body)
            return
        received = session.known.get(message.msg_id)
        if received is not None and received.is_query:
            self._dispatcher.repeated(connection, session, message.msg_id, received)
            return
        if received is None:
            code = session.judge(message.msg_id, message.seq_no, service.needs_ack(constructor))
            if code:
                self.refuse(connection, session, message.msg_id, message.seq_no, code)
                return
        if constructor not in service.HANDLERS:
            self._dispatcher.query(connection, session, message, body)
            return
        if received is None:
            session.remember(message.msg_id, message.seq_no)
        service.handle(self, connection, session, message, body)

    def _container(self, connection: Connection, session: Session, message: Incoming, body: bytes) -> None:
        inner = service.contents(body)
        if message.msg_id in session.known:
            code = CONTAINER_REPEATED
        elif inner is None or any(msg_id >= message.msg_id for msg_id, _, _ in inner):
            code = BAD_CONTAINER
        else:
            code = session.judge(message.msg_id, message.seq_no, needs_ack=False)
        if code:
            self.refuse(connection, session, message.msg_id, message.seq_no, code)
            return
        for msg_id, seq_no, content in inner or ():
            if connection.is_cut:
                return
            code = judge_identifier(msg_id, self.now())
            if code and msg_id not in session.known:
                self.refuse(connection, session, msg_id, seq_no, code)
            else:
                self._message(connection, session, Incoming(msg_id, seq_no, content, message.tick))
        session.remember(message.msg_id, message.seq_no)

    def refuse(self, connection: Connection, session: Session, msg_id: int, seq_no: int, code: int) -> None:
        """Answer a message with bad_msg_notification, or with bad_server_salt where the salt is wrong."""
        self.seen.bad_messages[code] += 1
        body = service.bad_message(msg_id, seq_no, code, session.key.salt)
        connection.put(session, session.make(body, self.now(), content=False, answer=True))

    def refuse_by_script(
        self, connection: Connection, session: Session, msg_id: int, seq_no: int, code: int
    ) -> None:
        """The same, where nothing is wrong with the message: a fault says so."""
        if code == WRONG_SALT:
            session.key.new_salt()
        self.refuse(connection, session, msg_id, seq_no, code)

    # -- out ----------------------------------------------------------------------------------------------------

    def push(self, user_id: int, update: bytes, besides: Session | None = None) -> int:
        """Send an update to the account's sessions that have a connection and want updates; give their number."""
        listeners = self._listeners(user_id, besides)
        for session, connection in listeners:
            outgoing = session.make(update, self.now(), content=True, answer=False)
            session.keep(outgoing)
            connection.put(session, outgoing)
        return len(listeners)

    def may_push(self, user_id: int, besides: Session | None = None) -> bool:
        """Whether an update of the account would reach anybody now; one that is to be lost is lost by asking."""
        if not self._listeners(user_id, besides):
            return False
        if self.losses.take(user_id):
            self.seen.pushes_lost[user_id] += 1
            return False
        return True

    def _listeners(self, user_id: int, besides: Session | None) -> list[tuple[Session, Connection]]:
        account = self.world.accounts.get(user_id)
        return [
            (session, session.connection)
            for key in (account.keys if account is not None else ())
            for session in key.sessions.values()
            if session is not besides
            and session.wants_updates
            and session.connection is not None
            and session.connection.is_open
        ]

    def flush(self, connection: Connection) -> None:
        """Send what is queued on a connection: one message as it is, several in containers."""
        sessions: dict[Session, list[Outgoing]] = {}
        for session, outgoing in connection.outbox:
            sessions.setdefault(session, []).append(outgoing)
        for session, messages in sessions.items():
            for batch in _batches(messages):
                if len(batch) > 1:
                    body = service.container([bytes(outgoing) for outgoing in batch])
                    message = session.make(body, self.now(), content=False, answer=True)
                else:
                    message = batch[0]
                key = session.key
                connection.send(seal_packet(key.key, key.salt, session.id, bytes(message)))


def _batches(messages: list[Outgoing]) -> list[list[Outgoing]]:
    batches: list[list[Outgoing]] = []
    size = 0
    for outgoing in messages:
        size += len(outgoing.body) + 16
        if not batches or size > _MAX_CONTAINER_SIZE or len(batches[-1]) >= _MAX_IN_CONTAINER:
            batches.append([])
            size = len(outgoing.body) + 16
        batches[-1].append(outgoing)
    return batches
