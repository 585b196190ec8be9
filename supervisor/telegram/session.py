"""One account's MTProto session, over at most one connection at a time.

The session outlives its connections: it keeps its session_id and every unanswered query, and when a new
connection has greeted, those go out again with the same msg_id, seq_no and bytes, so that Telegram answers
without doing anything twice (https://core.telegram.org/mtproto/service_messages). What the server says of
a lost session (new_session_created, a msg_id that is too old) is told as `SessionGone`; whether such a
query may be sent anew is not decided here but in `calls`.

`open` makes one bounded attempt and raises `LinkFailed` with its cause. A link that is lost later is told
once, through `LinkEvents`. Nothing here retries.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

from supervisor import randomness
from supervisor.core.failure import Evidence, Source
from supervisor.ports import LinkEvents, LinkFailed, RpcFailed
from supervisor.telegram import evidence as evidences
from supervisor.telegram.messages import Acks, Numbers, inner_message
from supervisor.telegram.opening import Opening
from supervisor.telegram.outbox import Outbox, unreadable
from supervisor.telegram.packets import BadPacket, Crypt, Received, Unreadable, envelope
from supervisor.telegram.pulse import Pulse
from supervisor.telegram.queries import method_name
from supervisor.telegram.vigil import Vigil
from supervisor.telegram.wire import Route, Wire, WireClosed

# Packets in a row that are for another session: the one that was left behind has a few under way.
STRAY_PACKETS = 32
# Server msg_ids that are remembered to recognise what comes again.
SEEN_MSG_IDS = 1024
# bad_msg_notification codes (core.telegram.org/mtproto/service_messages_about_messages).
MSG_ID_TOO_LOW, MSG_ID_TOO_HIGH, MSG_TOO_OLD, SEQ_NO_TOO_LOW, SEQ_NO_TOO_HIGH = 16, 17, 20, 32, 33
WRONG_SALT = 48
_REFUSALS = {
    MSG_ID_TOO_LOW: "msg_id too low: our clock is behind",
    MSG_ID_TOO_HIGH: "msg_id too high: our clock is ahead",
    MSG_TOO_OLD: "message too old",
    SEQ_NO_TOO_LOW: "msg_seqno too low",
    SEQ_NO_TOO_HIGH: "msg_seqno too high",
    WRONG_SALT: "incorrect server salt",
}


@dataclass(frozen=True, slots=True)
class Timings:
    """Bounds, in seconds; each is a `[supervisor]` key."""

    connect_timeout: float = 10.0
    answer_timeout: float = 15.0
    silence_timeout: float = 10.0


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What a session needs of the stored account. `salt` is the last that the server told for the key, 0 where it told none."""

    auth_key: bytes
    api_id: int
    authorized: bool
    salt: int = 0


@dataclass(frozen=True, slots=True)
class Greeting:
    """What proved a link: an authorized account's state, or where nobody is signed in the server's configuration."""

    config: Any
    state: Any


class MtprotoSession:
    """One MTProto session; `send` a query, `open` and `close` its connections."""

    def __init__(
        self,
        events: LinkEvents,
        on_update: Callable[[Any], None],
        init_connection: Callable[[Any, int, Any], Any],
        timings: Timings,
    ) -> None:
        """Prepare a session; nothing is sent.

        Args:
            events: is told when a link is lost.
            on_update: is given each update object, in order; an `Unreadable` for one that cannot be read.
            init_connection: wraps a query into invokeWithLayer and initConnection.
            timings: the bounds of every wait.
        """
        from pyrogram import raw
        from pyrogram.raw.core import FutureSalts

        self._raw: Any = raw
        self._crypt = _crypt()
        self._no_answer: tuple[type, ...] = (
            FutureSalts,
            raw.types.MsgsAck,
            raw.types.MsgsStateInfo,
            raw.types.MsgsAllInfo,
        )
        self._events = events
        self._on_update = on_update
        self._init_connection = init_connection
        self.timings = timings
        self._loop = asyncio.get_running_loop()

        self._wire: Wire | None = None
        self._route_path = "direct"
        self._opening: Opening | None = None
        self._vigil: Vigil | None = None
        self._round_trip = 0.0
        self._strays = 0

        self.auth_key = b""
        self._auth_key_id = b""
        self._initialized = False  # this key has told its layer in this process
        self.salt = 0  # the last that the server told
        self._numbers = Numbers(self._loop)
        self._outbox = Outbox(self._loop, self._numbers, self._write, timings.answer_timeout)
        self.last_answer = 0.0

        self._acks = Acks(self._loop, self._send_acks)
        self._seen: dict[int, None] = {}  # a set that knows its order
        self._handlers = self._handler_table()

    @classmethod
    @functools.cache
    def _handler_table(cls) -> dict[type, Callable[[MtprotoSession, Any, Any], None]]:
        """Who takes which of the server's own messages: one table for all sessions."""
        from pyrogram.raw import types

        return {
            types.RpcResult: cls._on_result,
            types.Pong: cls._on_pong,
            types.NewSessionCreated: cls._on_new_session,
            types.BadServerSalt: cls._on_bad_salt,
            types.BadMsgNotification: cls._on_bad_message,
            types.MsgDetailedInfo: cls._on_detailed_info,
            types.MsgNewDetailedInfo: cls._on_detailed_info,
        }

    # --- what the account sees ------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether the present link has greeted. Not a proof of anything later: see `LinkEvents`."""
        return self._vigil is not None

    @property
    def unanswered(self) -> int:
        """How many queries wait for an answer."""
        return self._outbox.unanswered

    @property
    def resent(self) -> int:
        """How many queries the present link began with: those that the one before left unanswered."""
        return self._outbox.resent

    async def open(self, wire: Wire, route: Route, credentials: Credentials) -> Greeting:
        """Take over a dialled wire: greet, send again what is unanswered, and have one RPC answered.

        Args:
            wire: the connection, whose callbacks are `packet_received` and `wire_lost` of this session.
            route: the way it takes, for messages.
            credentials: the account's key; another key than before means another session.

        Raises:
            LinkFailed: the link did not come up; the wire is closed and unanswered queries stay pending.
        """
        self._adopt(credentials)
        self._wire, self._route_path = wire, route.path
        self._outbox.begin_link()
        self._strays = 0
        opening = self._opening = Opening(route.path, self._ping)
        try:
            self._round_trip = await opening.greet(self.timings.silence_timeout)
            return await self._prove(opening, credentials)
        except RpcFailed as error:
            self._drop_wire()
            seen = evidences.from_rpc(error.code, error.text, method=error.method, path=route.path)
            raise LinkFailed(seen) from error
        except BaseException:
            self._drop_wire()
            raise
        finally:
            self._opening = None
            opening.end()

    def close(self) -> None:
        """Close the connection; unanswered queries stay pending."""
        if self._vigil is not None:
            self._acks.flush()
        self._drop_wire()

    def give_up(self) -> None:
        """Fail everything that is unanswered: the session will not come back."""
        self._outbox.give_up()

    async def send(self, query: Any) -> Any:
        """Send one query and wait for its answer, over as many links as that takes.

        Raises:
            RpcFailed: Telegram answered with an error.
            SessionGone: the session was lost before an answer came.
        """
        pending = self._outbox.make(method_name(query), query.write())
        if self._vigil is not None:
            self._outbox.send(pending)
            self._vigil.asked()
        else:
            self._outbox.put_off(pending)
        try:
            return await pending.future
        finally:
            self._outbox.forget(pending)

    async def drained(self) -> None:
        """Wait until the connection takes more (for uploads); returns at once where there is none."""
        if self._wire is not None:
            await self._wire.drained()

    # --- opening --------------------------------------------------------------------------------------

    def _adopt(self, credentials: Credentials) -> None:
        if credentials.auth_key == self.auth_key:
            return
        if self.auth_key:
            self._renew_session()
        self.auth_key = credentials.auth_key
        self._auth_key_id = sha1(self.auth_key).digest()[-8:]
        self._initialized = False
        self.salt = credentials.salt

    async def _prove(self, opening: Opening, credentials: Credentials) -> Greeting:
        """Have an RPC answered on this link, one that needs an account where there is one; calls that wait go out behind it."""
        functions = self._raw.functions
        query = functions.updates.GetState() if credentials.authorized else functions.help.GetConfig()
        name = method_name(query) if credentials.authorized else "InitConnection"
        proof = self._outbox.make(
            name, self._init_connection(query, credentials.api_id, self._route_path).write()
        )
        self._outbox.send(proof)
        if self._initialized:
            self._go_up()
        try:
            answer = await opening.answer_to(proof, self.timings.answer_timeout)
        finally:
            self._outbox.forget(proof)
        if not self._initialized:  # before the server knows our layer it would read other queries wrongly
            self._initialized = True
            self._go_up()
        return Greeting(None, answer) if credentials.authorized else Greeting(answer, None)

    def _go_up(self) -> None:
        assert self._wire is not None
        self._outbox.send_again()
        self._vigil = Vigil(
            self._wire,
            self._outbox,
            Pulse(self.timings.silence_timeout, self._round_trip),
            self.timings.answer_timeout,
            ping=self._ping,
            overdue=self._events.link_overdue,
            silent=self._silent,
        )

    # --- sending --------------------------------------------------------------------------------------

    def _post(self, query: Any, *, content: bool = False) -> int:
        """Send a service message that nobody waits for; give its msg_id."""
        msg_id, seq_no = self._numbers.msg_id(), self._numbers.seq_no(content=content)
        self._write(inner_message(msg_id, seq_no, query.write()))
        return msg_id

    def _ping(self) -> int:
        ping_id = int.from_bytes(randomness.take(8), "little", signed=True)
        return self._post(self._raw.functions.Ping(ping_id=ping_id))

    def _write(self, message: bytes) -> None:
        wire = self._wire
        if wire is None:
            return
        plain = envelope(self.salt, self._numbers.session_id, message)
        try:
            wire.send(self._crypt.seal(plain, self.auth_key, self._auth_key_id))
        except WireClosed:
            return  # its loss has been told, or is about to be; the query stays pending
        self._acks.ride()

    def _renew_session(self, refused_msg_id: int | None = None) -> None:
        """Begin another MTProto session; what was sent in this one is of unknown outcome."""
        self._seen.clear()
        self._acks.clear()
        self._outbox.renew(refused_msg_id)

    # --- receiving ------------------------------------------------------------------------------------

    def packet_received(self, packet: bytes) -> None:
        """Take one packet from the wire."""
        try:
            session_id, messages = self._crypt.open(packet, self.auth_key, self._auth_key_id)
        except BadPacket as error:
            # What is not the server's is not answered (core.telegram.org/mtproto/security_guidelines); what it
            # should have been, the server sends again over another connection.
            self._lost(Source.PROTOCOL, f"undecryptable packet: {error}", "packet", evidences.causes(error))
            return
        if session_id != self._numbers.session_id:
            self._stray()
            return
        self._strays = 0
        if self._vigil is not None and self._vigil.moved():
            self._events.link_answers(self.unanswered)
        wire = self._wire
        for message in messages:
            if self._wire is not wire:
                return  # a message before this one has ended the link
            self._message(message)

    def _stray(self) -> None:
        """A packet for a session that is no longer ours, or never was."""
        self._strays += 1
        if self._strays >= STRAY_PACKETS:
            self._lost(Source.PROTOCOL, f"{self._strays} packets in a row were for another session", "packet")

    def _message(self, message: Received) -> None:
        msg_id, seq_no, body = message
        if seq_no % 2:
            self._acks.add(msg_id)
        handler = self._handlers.get(type(body))
        if handler is not None:
            handler(self, message, body)
        elif not isinstance(body, self._no_answer) and self._is_fresh(msg_id):
            self._on_update(body)

    def _is_fresh(self, msg_id: int) -> bool:
        """Whether this server message has not been seen; remembers it."""
        if msg_id in self._seen:
            return False
        self._seen[msg_id] = None
        if len(self._seen) > SEEN_MSG_IDS:
            del self._seen[next(iter(self._seen))]
        return True

    def _on_result(self, _message: Any, body: Any) -> None:
        pending, result = self._outbox.answered(body.req_msg_id), body.result
        is_error = isinstance(result, self._raw.types.RpcError)
        if pending is None:
            if is_error and self._opening is not None:
                self._opening.failed(body.req_msg_id, result.error_code, result.error_message)
        elif isinstance(result, Unreadable):
            pending.future.set_exception(unreadable(pending, result.why))
        elif is_error:
            accepted = pending.sends - pending.refusals
            error = RpcFailed(result.error_code, result.error_message, pending.name, accepted)
            pending.future.set_exception(error)
        else:
            pending.future.set_result(result)
            self.last_answer = self._loop.time()

    def _on_pong(self, message: Any, _body: Any) -> None:
        self._numbers.learn(message.msg_id)
        if self._opening is not None:
            self._opening.ponged()

    def _on_new_session(self, message: Any, body: Any) -> None:
        """The server knows nothing of what was sent before first_msg_id in this session."""
        if not self._is_fresh(message.msg_id):
            return
        self.salt = body.server_salt
        self._outbox.gone_before(body.first_msg_id)
        self._on_update(body)  # what was to be pushed to the session of before is lost with it

    def _on_bad_salt(self, _message: Any, body: Any) -> None:
        self.salt = body.new_server_salt
        self._refused(body.bad_msg_id, WRONG_SALT)

    def _on_bad_message(self, message: Any, body: Any) -> None:
        """The server refused a message of ours: it was not done, unless it is too old to tell."""
        code, msg_id = body.error_code, body.bad_msg_id
        if code in (MSG_ID_TOO_LOW, MSG_ID_TOO_HIGH):
            self._numbers.learn(message.msg_id)
        if code == MSG_TOO_OLD:
            self._outbox.unknown(msg_id)
        elif code in (MSG_ID_TOO_HIGH, SEQ_NO_TOO_LOW, SEQ_NO_TOO_HIGH):
            self._session_refused(msg_id, code)
        else:
            self._refused(msg_id, code)

    def _session_refused(self, msg_id: int, code: int) -> None:
        """No message of this session will be taken any more: its numbers cannot go back."""
        self._renew_session(msg_id)
        if not self._greets_again(msg_id, code):
            self._lost(Source.PROTOCOL, _refusal(code), "session")

    def _refused(self, msg_id: int, code: int) -> None:
        """A message was refused unread, for a reason that is mended now."""
        if not self._outbox.refused(msg_id, _refusal(code)):
            self._greets_again(msg_id, code)

    def _greets_again(self, msg_id: int, code: int) -> bool:
        """Whether it was the greeting that was refused; it is repeated, or given up."""
        opening = self._opening
        if opening is None or not opening.is_greeting:
            return False
        times = opening.refused(msg_id)
        if times is not None:
            message = f"the greeting was refused {times} times: {_refusal(code)}"
            self._lost(Source.PROTOCOL, message, "greeting")
        return True

    def _on_detailed_info(self, message: Any, body: Any) -> None:
        """An answer exists that was not sent again: ask for it, or say that we have it."""
        wanted = getattr(body, "msg_id", None)
        if wanted in self._outbox or (wanted is None and body.answer_msg_id not in self._seen):
            self._post(self._raw.types.MsgResendReq(msg_ids=[body.answer_msg_id]), content=True)
        else:
            self._acks.add(body.answer_msg_id)

    def _send_acks(self, msg_ids: list[int]) -> None:
        self._post(self._raw.types.MsgsAck(msg_ids=msg_ids))

    # --- the end of a link ----------------------------------------------------------------------------

    def _silent(self, seconds: float) -> None:
        self._lost(Source.SILENCE, f"nothing came from the link for {seconds:.1f} s", "ping")

    def _lost(self, source: Source, message: str, step: str, cause: tuple[str, ...] = ()) -> None:
        self.wire_lost(Evidence(source, message, step=step, path=self._route_path, cause=cause))

    def wire_lost(self, evidence: Evidence) -> None:
        """The wire is gone, or must be given up."""
        was_up = self.is_up
        opening = self._opening
        self._drop_wire()
        if opening is not None:
            opening.lost(evidence)
        elif was_up:
            self._events.link_lost(evidence)

    def _drop_wire(self) -> None:
        if self._vigil is not None:
            self._vigil.stop()
            self._vigil = None
        self._acks.stop()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()


@functools.cache
def _crypt() -> Crypt:
    """One for all sessions: it keeps nothing of them."""
    return Crypt()


def _refusal(code: int) -> str:
    name = "bad_server_salt" if code == WRONG_SALT else f"bad_msg_notification {code}"
    return f"{name} ({_REFUSALS[code]})" if code in _REFUSALS else name
