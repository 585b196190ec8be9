"""MTProto's service messages: acknowledgements, pings, containers, states, salts.

core.telegram.org/mtproto/service_messages and core.telegram.org/mtproto/service_messages_about_messages.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from . import tl
from .faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Connection
    from .engine import Engine
    from .session import Incoming, Outgoing, Session

CONTAINER, GZIP_PACKED, RPC_RESULT, RPC_ERROR = 0x73F1F8DC, 0x3072CFA1, 0xF35C6D01, 0x2144CA19
MSGS_ACK, PING, PING_DELAY_DISCONNECT, HTTP_WAIT = 0x62D6B459, 0x7ABE77EC, 0xF3427B8C, 0x9299359F
MSGS_STATE_REQ, MSG_RESEND_REQ, MSGS_STATE_INFO, MSGS_ALL_INFO = (
    0xDA69FB52,
    0x7D861A08,
    0x04DEB57D,
    0x8CC0D131,
)
GET_FUTURE_SALTS, DESTROY_SESSION, RPC_DROP_ANSWER = 0xB921BD04, 0xE7512126, 0x58E4A740
PONG, NEW_SESSION_CREATED, BAD_MSG, BAD_SALT = 0x347773C5, 0x9EC20908, 0xA7EFF811, 0xEDAB447B
FUTURE_SALTS, DESTROYED, NOT_DESTROYED = 0xAE500895, 0xE22045FC, 0x62D350C9
ANSWER_UNKNOWN, DETAILED_INFO = 0x5E2AD36E, 0x276D3EC6

_GZIP_FROM = 4096  # bytes of an answer
_GZIP = 16 + zlib.MAX_WBITS
_UNKNOWN, _NOT_RECEIVED, _RECEIVED, _ANSWERED = 1, 2, 4, 32 + 64  # states of a message
_SALT_LIFE = 1800  # seconds, core.telegram.org/mtproto/description#server-salt
WRONG_SALT = 48
_OF_A_PING = (
    FaultKind.DROP_BEFORE,
    FaultKind.CLOSE,
    FaultKind.TRANSPORT,
    FaultKind.DROP_AFTER,
    FaultKind.SILENCE,
    FaultKind.RPC_ERROR,
    FaultKind.BAD_MSG,
)


def unpacked(body: bytes) -> bytes:
    """A message without its gzip_packed, if it has one. Bytes that don't unpack stay as they are."""
    if int.from_bytes(body[:4], "little") != GZIP_PACKED:
        return body
    try:
        return zlib.decompress(tl.Reader(body, 4).string(), _GZIP)
    except (zlib.error, tl.Truncated):
        return body


def packed(body: bytes) -> bytes:
    """An answer as it is sent: in gzip_packed where it is large and that helps."""
    if len(body) < _GZIP_FROM:
        return body
    squeezer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    squeezed = squeezer.compress(body) + squeezer.flush()
    return tl.uint(GZIP_PACKED) + tl.string(squeezed) if len(squeezed) < len(body) * 0.9 else body


def contents(body: bytes) -> list[tuple[int, int, bytes]] | None:
    """The messages of a container (msg_id, seq_no, body), or None where it is malformed or holds a container."""
    reader = tl.Reader(body, 4)
    messages: list[tuple[int, int, bytes]] = []
    try:
        for _ in range(reader.uint()):
            msg_id, seq_no = reader.long(), reader.sint()
            messages.append((msg_id, seq_no, reader.take(reader.uint())))
    except tl.Truncated:
        return None
    if any(int.from_bytes(message[2][:4], "little") == CONTAINER for message in messages):
        return None
    return messages or None


def container(messages: list[bytes]) -> bytes:
    """A container of messages that are written already."""
    return tl.uint(CONTAINER) + tl.uint(len(messages)) + b"".join(messages)


def rpc_result(msg_id: int, result: bytes) -> bytes:
    """The answer to the query `msg_id`."""
    return tl.uint(RPC_RESULT) + tl.long(msg_id) + packed(result)


def rpc_error(code: int, text: str) -> bytes:
    """An error, as the result of a query."""
    return tl.uint(RPC_ERROR) + code.to_bytes(4, "little", signed=True) + tl.string(text.encode())


def new_session_created(first_msg_id: int, unique_id: bytes, salt: bytes) -> bytes:
    """The notice that the server knew nothing of this session."""
    return tl.uint(NEW_SESSION_CREATED) + tl.long(first_msg_id) + unique_id + salt


def bad_message(msg_id: int, seq_no: int, code: int, salt: bytes) -> bytes:
    """Why a message was not accepted."""
    told = tl.long(msg_id) + seq_no.to_bytes(4, "little", signed=True) + tl.uint(code)
    return tl.uint(BAD_SALT) + told + salt if code == WRONG_SALT else tl.uint(BAD_MSG) + told


def detailed_info(outgoing: Outgoing) -> bytes:
    """msg_detailed_info: a repeated query's answer is too large to be sent again unasked."""
    about = tl.long(outgoing.query) + tl.long(outgoing.msg_id) + tl.uint(len(outgoing.body)) + tl.uint(0)
    return tl.uint(DETAILED_INFO) + about


def acknowledgement(msg_ids: list[int]) -> bytes:
    """An acknowledgement of the client's messages."""
    return tl.uint(MSGS_ACK) + tl.longs(msg_ids)


def needs_ack(constructor: int) -> bool | None:
    """Whether a message must be content-related (odd seq_no); None where clients differ and both are taken."""
    if constructor in (MSGS_ACK, HTTP_WAIT, CONTAINER):
        return False
    return None if constructor in HANDLERS else True


def handle(engine: Engine, connection: Connection, session: Session, message: Incoming, body: bytes) -> None:
    """Handle one service message. A malformed one is dropped."""
    reader = tl.Reader(body)
    try:
        HANDLERS[reader.uint()](_Service(engine, connection, session, message), reader)
    except tl.Truncated:
        engine.seen.undecryptable += 1


class _Service:
    """One service message being handled."""

    def __init__(self, engine: Engine, connection: Connection, session: Session, message: Incoming) -> None:
        self.engine, self.connection, self.session = engine, connection, session
        self.msg_id, self.seq_no = message.msg_id, message.seq_no

    def answer(self, body: bytes) -> None:
        made = self.session.make(body, self.engine.now(), content=False, answer=True)
        self.connection.put(self.session, made)

    def acknowledge(self, reader: tl.Reader) -> None:
        for msg_id in reader.longs():
            self.session.acknowledge(msg_id)

    def ignore(self, _reader: tl.Reader) -> None:
        """Nothing to do: http_wait over TCP, and states the client tells of messages."""

    def ping(self, reader: tl.Reader) -> None:
        self._pong(reader.take(8), ("Ping",))

    def ping_delay_disconnect(self, reader: tl.Reader) -> None:
        ping_id, delay = reader.take(8), reader.uint()
        self.connection.close_after(delay)
        self._pong(ping_id, ("PingDelayDisconnect", "Ping"))

    def _pong(self, ping_id: bytes, names: tuple[str, ...]) -> None:
        engine, user_id = self.engine, self.session.key.user_id
        engine.seen.pings += 1
        fault = engine.faults.take(user_id, names, *_OF_A_PING, named=True)
        if fault is None:
            self.answer(tl.uint(PONG) + tl.long(self.msg_id) + ping_id)
            return
        engine.seen.faults[fault.kind] += 1
        if engine.cut(self.connection, fault):
            return
        if fault.kind is FaultKind.DROP_AFTER:
            self.connection.abort()
        elif fault.kind is FaultKind.RPC_ERROR:
            self._result(rpc_error(fault.code, fault.error))
        elif fault.kind is FaultKind.BAD_MSG:
            engine.refuse_by_script(self.connection, self.session, self.msg_id, self.seq_no, fault.code)

    def states(self, reader: tl.Reader) -> None:
        info = bytes(self._state(msg_id) for msg_id in reader.longs())
        self.answer(tl.uint(MSGS_STATE_INFO) + tl.long(self.msg_id) + tl.string(info))

    def _state(self, msg_id: int) -> int:
        received = self.session.known.get(msg_id)
        if received is not None:
            return _RECEIVED | (_ANSWERED if received.is_query else 0)
        return _UNKNOWN if self.session.is_below_floor(msg_id) else _NOT_RECEIVED

    def resend(self, reader: tl.Reader) -> None:
        msg_ids = reader.longs()
        for msg_id in msg_ids:
            if (kept := self.session.unacked.get(msg_id)) is not None:
                self.engine.seen.answers_resent += 1
                self.connection.put(self.session, kept)
        if any(msg_id not in self.session.unacked for msg_id in msg_ids):
            info = bytes(_RECEIVED if msg_id in self.session.unacked else _UNKNOWN for msg_id in msg_ids)
            self.answer(tl.uint(MSGS_STATE_INFO) + tl.long(self.msg_id) + tl.string(info))

    def future_salts(self, _reader: tl.Reader) -> None:
        now = int(self.engine.now())
        salt = tl.uint(now - 1) + tl.uint(now + _SALT_LIFE) + self.session.key.salt
        self.answer(tl.uint(FUTURE_SALTS) + tl.long(self.msg_id) + tl.uint(now) + tl.uint(1) + salt)

    def destroy_session(self, reader: tl.Reader) -> None:
        identifier = reader.take(8)
        found = identifier != self.session.id and self.session.key.sessions.pop(identifier, None) is not None
        self.answer(tl.uint(DESTROYED if found else NOT_DESTROYED) + identifier)

    def drop_answer(self, _reader: tl.Reader) -> None:
        self._result(tl.uint(ANSWER_UNKNOWN))

    def _result(self, result: bytes) -> None:
        """Answer as if it were a query."""
        made = rpc_result(self.msg_id, result)
        outgoing = self.session.make(made, self.engine.now(), content=True, answer=True)
        self.session.keep(outgoing)
        self.connection.put(self.session, outgoing)


HANDLERS: dict[int, Callable[[_Service, tl.Reader], None]] = {
    MSGS_ACK: _Service.acknowledge,
    PING: _Service.ping,
    PING_DELAY_DISCONNECT: _Service.ping_delay_disconnect,
    HTTP_WAIT: _Service.ignore,
    MSGS_STATE_REQ: _Service.states,
    MSG_RESEND_REQ: _Service.resend,
    MSGS_STATE_INFO: _Service.ignore,
    MSGS_ALL_INFO: _Service.ignore,
    GET_FUTURE_SALTS: _Service.future_salts,
    DESTROY_SESSION: _Service.destroy_session,
    RPC_DROP_ANSWER: _Service.drop_answer,
}
