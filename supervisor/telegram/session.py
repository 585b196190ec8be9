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
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha1
from io import BytesIO
from typing import Any

from supervisor.core.failure import Evidence, Source
from supervisor.ports import LinkEvents, LinkFailed, RpcFailed, SessionGone
from supervisor.telegram import evidence as evidences
from supervisor.telegram.messages import Numbers, Pending, Service, inner_message
from supervisor.telegram.outbox import Outbox
from supervisor.telegram.pulse import Pulse, Verdict
from supervisor.telegram.queries import method_name
from supervisor.telegram.wire import Route, Wire, WireClosed

# The greeting ping is repeated, because one that was lost with a half-open connection is found out too late.
GREETING_PING_EVERY = 0.5
# Acknowledgements are gathered: at most so many, for at most so long.
ACKS_AT_ONCE = 16
ACKS_AFTER = 1.0
# Undecodable packets in a row that are ignored before the link is given up.
BAD_PACKETS = 5
# Server msg_ids that are remembered to recognise what comes again.
SEEN_MSG_IDS = 1024
# How late a timer may fire before the event loop, not the link, is blamed for a silence.
STALL = 1.0
# bad_msg_notification codes (core.telegram.org/mtproto/service_messages_about_messages).
MSG_ID_TOO_LOW, MSG_ID_TOO_HIGH, MSG_TOO_OLD, SEQ_NO_TOO_LOW, SEQ_NO_TOO_HIGH = 16, 17, 20, 32, 33


@dataclass(frozen=True, slots=True)
class Timings:
    """Bounds, in seconds; each is a `[supervisor]` key."""

    connect_timeout: float = 10.0
    answer_timeout: float = 15.0
    silence_timeout: float = 10.0


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What a session needs of the stored account."""

    auth_key: bytes
    api_id: int
    authorized: bool


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a proved link knows: the server's configuration and, for an authorized account, its state."""

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
            on_update: is given each update object, in order.
            init_connection: wraps a query into invokeWithLayer and initConnection.
            timings: the bounds of every wait.
        """
        from pyrogram import raw
        from pyrogram.crypto import mtproto
        from pyrogram.raw.core import FutureSalts, MsgContainer

        self._raw: Any = raw
        self._pack: Any = mtproto.pack
        self._unpack: Any = mtproto.unpack
        self._container: Any = MsgContainer
        self._no_answer: tuple[type, ...] = (
            FutureSalts,
            raw.types.MsgsAck,
            raw.types.MsgsStateInfo,
            raw.types.MsgsAllInfo,
        )
        self._events = events
        self._on_update = on_update
        self._init_connection = init_connection
        self._timings = timings
        self._loop = asyncio.get_running_loop()

        self._wire: Wire | None = None
        self._up = False  # greeted: queries may leave
        self._route_path = "direct"
        self._opening: asyncio.Future[None] | None = None
        self._greeted: asyncio.Future[None] | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._tick_due = 0.0
        self._taken = 0  # bytes that the other end had taken at the last look
        self._pulse = Pulse(timings.silence_timeout)
        self._bad_packets = 0
        self._refusals = 0

        self.auth_key = b""
        self._auth_key_id = b""
        self._initialized = False  # this key has told its layer in this process
        self._salt = 0
        self._numbers = Numbers(self._loop)
        self._outbox = Outbox(self._loop, self._numbers, self._write, timings.answer_timeout)
        self.last_answer = 0.0

        self._acks: list[int] = []
        self._ack_timer: asyncio.TimerHandle | None = None
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
        return self._up

    @property
    def unanswered(self) -> int:
        """How many queries wait for an answer."""
        return self._outbox.unanswered

    @property
    def resent(self) -> int:
        """How many queries the present link began with: those that the one before left unanswered."""
        return self._outbox.resent

    async def open(
        self, wire: Wire, route: Route, credentials: Credentials, *, salt: int | None = None
    ) -> Greeting:
        """Take over a dialled wire: greet, send again what is unanswered, and have one RPC answered.

        Args:
            wire: the connection, whose callbacks are `packet_received` and `wire_lost` of this session.
            route: the way it takes, for messages.
            credentials: the account's key; another key than before means another session.
            salt: the server salt, where the key is new.

        Raises:
            LinkFailed: the link did not come up; the wire is closed and unanswered queries stay pending.
        """
        self._adopt(credentials, salt)
        self._wire, self._route_path = wire, route.path
        self._outbox.begin_link()
        self._taken = 0
        self._bad_packets = self._refusals = 0
        opening = self._opening = self._loop.create_future()
        try:
            await self._greet()
            return await self._prove(credentials)
        except RpcFailed as error:
            self._drop_wire()
            seen = evidences.from_rpc(error.code, error.text, method=error.method, path=route.path)
            raise LinkFailed(seen) from error
        except BaseException:
            self._drop_wire()
            raise
        finally:
            self._opening = None
            if opening.done():
                opening.exception()  # it has been raised through the wait

    def close(self) -> None:
        """Close the connection; unanswered queries stay pending."""
        if self._up and self._acks:
            self._send_acks()
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
        if self._up:
            self._outbox.send(pending)
            if self._tick_due > pending.sent_at + self._pulse.patience:
                self._schedule_tick(self._pulse.patience)
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

    def _adopt(self, credentials: Credentials, salt: int | None) -> None:
        if credentials.auth_key != self.auth_key:
            if self.auth_key:
                self._renew_session()
            self.auth_key = credentials.auth_key
            self._auth_key_id = sha1(self.auth_key).digest()[-8:]
            self._initialized = False
            self._salt = 0
        if salt is not None:
            self._salt = salt

    async def _greet(self) -> None:
        """Ping until the pong, which also brings salt, clock and session up to date."""
        self._greeted = self._loop.create_future()
        begun = self._loop.time()
        deadline = begun + self._timings.silence_timeout
        try:
            while not self._greeted.done():
                left = deadline - self._loop.time()
                if left <= 0:
                    raise self._failed("greeting", f"no pong in {self._timings.silence_timeout:g} s")
                self._ping()
                await self._wait(self._greeted, min(GREETING_PING_EVERY, left))
            self._pulse = Pulse(self._timings.silence_timeout, self._loop.time() - begun)
        finally:
            self._greeted = None

    async def _prove(self, credentials: Credentials) -> Greeting:
        """Have an RPC answered on this link; calls that wait go out behind it."""
        config_query = self._init_connection(
            self._raw.functions.help.GetConfig(), credentials.api_id, self._route_path
        )
        first = self._outbox.make("InitConnection", config_query.write())
        self._outbox.send(first)
        try:
            return await self._proved(first, credentials)
        finally:
            self._outbox.forget(first)
            if not first.future.cancelled():
                first.future.exception()  # where both have failed, the other's failure is the one that is told

    async def _proved(self, first: Pending, credentials: Credentials) -> Greeting:
        raw = self._raw
        config = None
        if not self._initialized:
            config = await self._proof(first)
            self._initialized = True
        proof = first
        if credentials.authorized:
            proof = self._outbox.make("updates.GetState", raw.functions.updates.GetState().write())
            self._outbox.send(proof)
        self._go_up()
        state = await self._proof(proof) if proof is not first else None
        if config is None:
            config = await self._proof(first)
        return Greeting(config, state)

    async def _proof(self, pending: Pending) -> Any:
        try:
            await self._wait(pending.future, self._timings.answer_timeout)
            if not pending.future.done():
                raise self._failed(
                    pending.name, f"no answer to {pending.name} in {self._timings.answer_timeout:g} s"
                )
            return pending.future.result()
        except SessionGone as error:
            raise self._failed(
                pending.name, f"the session was reset before {pending.name} was answered"
            ) from error
        finally:
            self._outbox.forget(pending)

    async def _wait(self, future: asyncio.Future[Any], seconds: float) -> None:
        """Wait for `future`, for the loss of the wire (which raises LinkFailed), or for so many seconds."""
        assert self._opening is not None
        await asyncio.wait({future, self._opening}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._opening.done():
            self._opening.result()

    def _go_up(self) -> None:
        self._up = True
        self._outbox.send_again()
        self._schedule_tick()

    def _failed(self, step: str, message: str) -> LinkFailed:
        return LinkFailed(Evidence(Source.SILENCE, message, step=step, path=self._route_path))

    # --- sending --------------------------------------------------------------------------------------

    def _post(self, query: Any, *, content: bool = False) -> None:
        """Send a service message that nobody waits for."""
        seq_no = self._numbers.seq_no(content=content)
        self._write(Service(inner_message(self._numbers.msg_id(), seq_no, query.write())))

    def _ping(self) -> None:
        ping_id = int.from_bytes(os.urandom(8), "little", signed=True)
        self._post(self._raw.functions.Ping(ping_id=ping_id))

    def _write(self, message: Any) -> None:
        wire = self._wire
        if wire is None:
            return
        packet = self._pack(message, self._salt, self._numbers.session_id, self.auth_key, self._auth_key_id)
        try:
            wire.send(packet)
        except WireClosed:
            return  # its loss has been told, or is about to be; the query stays pending

    def _renew_session(self, refused_msg_id: int | None = None) -> None:
        """Begin another MTProto session; what was sent in this one is of unknown outcome."""
        self._seen.clear()
        self._acks.clear()
        self._outbox.renew(refused_msg_id)

    # --- receiving ------------------------------------------------------------------------------------

    def packet_received(self, packet: bytes) -> None:
        """Take one packet from the wire."""
        try:
            message = self._unpack(
                BytesIO(packet), self._numbers.session_id, self.auth_key, self._auth_key_id
            )
        except Exception as error:  # noqa: BLE001 - whatever the bytes make the parser raise, they are bad bytes
            self._bad_packet(error)
            return
        self._bad_packets = 0
        if self._pulse.overdue:
            self._pulse.overdue = False
            self._events.link_answers(self.unanswered)
        inner = message.body.messages if isinstance(message.body, self._container) else (message,)
        for each in inner:
            self._message(each)

    def _bad_packet(self, error: Exception) -> None:
        self._bad_packets += 1
        if self._bad_packets >= BAD_PACKETS:
            text = f"{self._bad_packets} packets in a row could not be read"
            cause = evidences.causes(error)
            self.wire_lost(Evidence(Source.PROTOCOL, text, step="packet", path=self._route_path, cause=cause))

    def _message(self, message: Any) -> None:
        msg_id = message.msg_id
        if message.seq_no % 2:
            self._acknowledge(msg_id)
        body = message.body
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
        pending = self._outbox.answered(body.req_msg_id)
        if pending is None:
            return
        result = body.result
        if isinstance(result, self._raw.types.RpcError):
            accepted = pending.sends - pending.refusals
            error = RpcFailed(result.error_code, result.error_message, pending.name, accepted)
            pending.future.set_exception(error)
        else:
            pending.future.set_result(result)
            self.last_answer = self._loop.time()

    def _on_pong(self, message: Any, _body: Any) -> None:
        self._numbers.learn(message.msg_id)
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_result(None)

    def _on_new_session(self, message: Any, body: Any) -> None:
        """The server knows nothing of what was sent before first_msg_id in this session."""
        if not self._is_fresh(message.msg_id):
            return
        self._salt = body.server_salt
        self._outbox.gone_before(body.first_msg_id)

    def _on_bad_salt(self, _message: Any, body: Any) -> None:
        self._salt = body.new_server_salt
        if not self._outbox.refused(body.bad_msg_id):
            self._greet_again()

    def _on_bad_message(self, message: Any, body: Any) -> None:
        """The server refused a message of ours: it was not done, unless it is too old to tell."""
        code, msg_id = body.error_code, body.bad_msg_id
        if code in (MSG_ID_TOO_LOW, MSG_ID_TOO_HIGH):
            self._numbers.learn(message.msg_id)
        if code == MSG_TOO_OLD:
            self._outbox.unknown(msg_id)
        elif code in (MSG_ID_TOO_HIGH, SEQ_NO_TOO_LOW, SEQ_NO_TOO_HIGH):
            self._renew_session(msg_id)
            self._greet_again()
        elif not self._outbox.refused(msg_id):
            self._greet_again()

    def _greet_again(self) -> None:
        """The greeting ping was refused for its salt, clock or session, which are mended now."""
        if self._greeted is None or self._greeted.done():
            return
        self._refusals += 1
        if self._refusals <= BAD_PACKETS:
            self._ping()

    def _on_detailed_info(self, message: Any, body: Any) -> None:
        """An answer exists that was not sent again: ask for it, or say that we have it."""
        wanted = getattr(body, "msg_id", None)
        if wanted in self._outbox or (wanted is None and body.answer_msg_id not in self._seen):
            self._post(self._raw.types.MsgResendReq(msg_ids=[body.answer_msg_id]), content=True)
        else:
            self._acknowledge(body.answer_msg_id)

    # --- acknowledgements -----------------------------------------------------------------------------

    def _acknowledge(self, msg_id: int) -> None:
        self._acks.append(msg_id)
        if len(self._acks) >= ACKS_AT_ONCE:
            self._send_acks()
        elif self._ack_timer is None:
            self._ack_timer = self._loop.call_later(ACKS_AFTER, self._send_acks)

    def _send_acks(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        if self._acks and self._wire is not None and not self._wire.closed:
            acks, self._acks = self._acks, []
            self._post(self._raw.types.MsgsAck(msg_ids=acks))

    # --- silence --------------------------------------------------------------------------------------

    def _schedule_tick(self, after: float | None = None) -> None:
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        now = self._loop.time()
        due = now + after if after is not None else self._next_check(now)
        self._tick_due = due
        self._tick_timer = self._loop.call_at(due, self._tick)

    def _next_check(self, now: float) -> float:
        assert self._wire is not None
        owed = self._outbox.owed_since
        due = self._pulse.next_check(now, self._wire.last_received, owed)
        return due if owed is None else max(now, min(due, owed + self._timings.answer_timeout))

    def _tick(self) -> None:
        """Test a quiet link with one small ping; give a silent one up; repeat what is long unanswered."""
        self._tick_timer = None
        wire, now = self._wire, self._loop.time()
        if wire is None or not self._up:
            return
        if now - self._tick_due > STALL:
            self._schedule_tick(0.2)  # we stood still, not the link: read what has come before judging
            return
        if self._is_still_leaving(wire):
            self._schedule_tick(STALL)  # the server cannot have answered what it has not got
            return
        verdict = self._pulse.judge(now, wire.last_received, self._outbox.owed_since)
        if Verdict.LOST in verdict:
            message = f"nothing came from the link for {now - wire.last_received:.1f} s"
            self.wire_lost(Evidence(Source.SILENCE, message, step="ping", path=self._route_path))
            return
        if Verdict.PING in verdict:
            self._ping()
        if Verdict.OVERDUE in verdict:
            self._events.link_overdue()
        self._outbox.repeat(now - self._timings.answer_timeout)
        self._schedule_tick()

    def _is_still_leaving(self, wire: Wire) -> bool:
        """Whether bytes of ours have been moving out since the last look, as a large upload's do for long."""
        if wire.write_buffer_size == 0:
            return False
        before, self._taken = self._taken, wire.taken()
        return self._taken > before

    # --- the end of a link ----------------------------------------------------------------------------

    def wire_lost(self, evidence: Evidence) -> None:
        """The wire is gone, or must be given up."""
        was_up = self._up
        opening = self._opening
        self._drop_wire()
        if opening is not None:
            if not opening.done():
                opening.set_exception(LinkFailed(evidence))
        elif was_up:
            self._events.link_lost(evidence)

    def _drop_wire(self) -> None:
        self._up = False
        for timer in (self._tick_timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        self._tick_timer = self._ack_timer = None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()
