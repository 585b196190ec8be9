"""The way of one RPC query: unwrap, faults, authorization, limits, the method itself, its answer."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import overlap, service
from .faults import Fault, FaultKind
from .library import Malformed, UnknownConstructor, method_name, parse, serialize
from .methods import ANYWHERE, METHODS, WITHOUT_ACCOUNT, RpcError
from .world import marked

if TYPE_CHECKING:
    from .connection import Connection
    from .engine import Engine
    from .keys import AuthKey
    from .session import Incoming, Outgoing, Received, Session
    from .world import Account

log = logging.getLogger(__name__)

_BEFORE = FaultKind.DROP_BEFORE, FaultKind.CLOSE, FaultKind.BAD_MSG
_WRAPPERS = frozenset(
    {
        "InvokeWithLayer",
        "InitConnection",
        "InvokeWithoutUpdates",
        "InvokeAfterMsg",
        "InvokeAfterMsgs",
        "InvokeWithTakeout",
        "InvokeWithMessagesRange",
    }
)
_LARGE_ANSWER = 65536  # bytes from which a repeated query is answered with msg_detailed_info first
# Seconds in which a caller can have acted on what it was told, besides the link's own latency, on a busy machine too.
_CROSSING = 0.15
_NOT_SERVED = 400, "INPUT_METHOD_INVALID"


@dataclass(slots=True)
class Call:
    """One query being executed, for the methods."""

    engine: Engine
    session: Session
    msg_id: int
    query: Any
    wrappers: list[Any]
    names: tuple[str, ...]

    @property
    def key(self) -> AuthKey:
        return self.session.key

    @property
    def method(self) -> str:
        return self.names[-1]

    @property
    def account(self) -> Account:
        """The account that is signed in; only for methods that need one."""
        if self.key.account is None:
            raise RpcError(401, "SESSION_PASSWORD_NEEDED" if self.key.pending else "AUTH_KEY_UNREGISTERED")
        return self.key.account

    @property
    def user_id(self) -> int | None:
        """The account's id, or that of the account which is signing in."""
        if self.key.account is None and self.method == "auth.ImportBotAuthorization":
            known = self.engine.world.by_token(self.query.bot_auth_token)
            return None if known is None else known.user_id
        return self.key.user_id

    @property
    def date(self) -> int:
        return self.engine.date()

    @property
    def addressed(self) -> Any:
        """The InputPeer of whom the query addresses, if it has one."""
        return getattr(self.query, "peer", None) or getattr(self.query, "to_peer", None)

    @property
    def peer(self) -> int | None:
        """The marked id of whom the query addresses, for waits that are kept by peer."""
        peer = self.addressed
        if (channel_id := getattr(peer, "channel_id", None)) is not None:
            return marked(channel_id)
        if (chat_id := getattr(peer, "chat_id", None)) is not None:
            return -int(chat_id)
        return getattr(peer, "user_id", None)


class Dispatcher:
    """Answers queries."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def query(self, connection: Connection, session: Session, message: Incoming, body: bytes) -> None:
        """Execute a query that is new to its session and queue its answer."""
        msg_id, seq_no = message.msg_id, message.seq_no
        try:
            call = self._read(session, msg_id, body)
        except RpcError as error:
            session.remember(msg_id, seq_no, is_query=True).failed = True
            self._answer(connection, session, msg_id, ("",), service.rpc_error(error.code, error.text))
            return
        if self._stopped_before(connection, call, seq_no):
            return
        received = session.remember(msg_id, seq_no, is_query=True)
        result = self._result(connection, call, received, message.tick)
        self._answer(connection, session, msg_id, call.names, result)

    def repeated(self, connection: Connection, session: Session, msg_id: int, received: Received) -> None:
        """A query came again under its msg_id: it isn't executed, its answer is sent again."""
        answer = received.answer
        names = answer.names if answer is not None else ("",)
        self._engine.seen.repeated[session.key.user_id, names[-1]] += 1
        if answer is None:
            body = service.acknowledgement([msg_id])
            connection.put(session, session.make(body, self._engine.now(), content=False, answer=True))
        elif len(answer.body) > _LARGE_ANSWER:
            body = service.detailed_info(answer)
            connection.put(session, session.make(body, self._engine.now(), content=False, answer=True))
        else:
            self.deliver(connection, session, answer, again=True)

    def deliver(
        self, connection: Connection, session: Session, answer: Outgoing, *, again: bool = False
    ) -> None:
        """Send an answer, unless a fault withholds it or cuts the connection now."""
        if again and connection.has_queued(answer):
            return
        engine = self._engine
        user_id = session.key.user_id
        kinds = (FaultKind.SILENCE,) if again else (FaultKind.SILENCE, FaultKind.DROP_AFTER)
        fault = engine.faults.take(user_id, answer.names, *kinds)
        if fault is None:
            engine.seen.answers_resent += again
            connection.put(session, answer)
            return
        engine.seen.faults[fault.kind] += 1
        if fault.kind is FaultKind.DROP_AFTER:
            connection.abort()

    def _answer(
        self, connection: Connection, session: Session, msg_id: int, names: tuple[str, ...], result: bytes
    ) -> None:
        answer = session.make(
            service.rpc_result(msg_id, result), self._engine.now(), content=True, answer=True
        )
        answer.query, answer.names = msg_id, names
        session.keep(answer)
        if (received := session.known.get(msg_id)) is not None:
            received.answer = answer
        self.deliver(connection, session, answer)

    # -- reading --------------------------------------------------------------------------------------------------

    def _read(self, session: Session, msg_id: int, body: bytes) -> Call:
        try:
            query = parse(body)
        except UnknownConstructor as error:
            self._engine.seen.unknown(f"{error.constructor:#010x}")
            raise RpcError(*_NOT_SERVED) from error
        except Malformed as error:
            log.warning("A malformed query: %s", error)
            self._engine.seen.unknown("malformed")
            raise RpcError(400, "INPUT_FETCH_ERROR") from error
        wrappers: list[Any] = []
        names = [method_name(query)]
        while names[-1] in _WRAPPERS:
            wrappers.append(query)
            query = query.query
            names.append(method_name(query))
        return Call(self._engine, session, msg_id, query, wrappers, tuple(names))

    # -- before execution -----------------------------------------------------------------------------------------

    def _stopped_before(self, connection: Connection, call: Call, seq_no: int) -> bool:
        engine = self._engine
        fault = engine.faults.take(call.user_id, call.names, *_BEFORE) or engine.faults.take(
            call.user_id, call.names, FaultKind.TRANSPORT, named=True
        )
        if fault is None:
            return False
        engine.seen.faults[fault.kind] += 1
        if not engine.cut(connection, fault):
            engine.refuse_by_script(connection, call.session, call.msg_id, seq_no, fault.code)
        return True

    def _result(self, connection: Connection, call: Call, received: Received, tick: int) -> bytes:
        user_id = call.user_id
        for name in call.names:
            self._engine.seen.called(user_id, name)
        try:
            overlap.check(self._engine, connection, call.session, tick)
            result = self._execute(connection, call)
        except RpcError as error:
            received.failed = True
            self._engine.seen.errors[user_id, call.method, error.text] += 1
            return service.rpc_error(error.code, error.text)
        self._engine.seen.answered[call.key.user_id, call.method] += 1
        return result

    def _execute(self, connection: Connection, call: Call) -> bytes:
        self._check_key(connection, call)
        self._apply_wrappers(call)
        if not call.key.is_inited:
            raise RpcError(400, "CONNECTION_NOT_INITED")
        self._check_wait(call)
        self._fail_by_script(call)
        method = METHODS.get(call.method)
        if method is None:
            self._engine.seen.unknown(call.method)
            raise RpcError(*_NOT_SERVED)
        if call.method not in WITHOUT_ACCOUNT:
            self._check_account(call)
        try:
            return serialize(method(call))
        except RpcError:
            raise
        except Exception:
            log.exception("%s failed in the datacenter itself", call.method)
            self._engine.seen.unknown_methods.append(f"{call.method}: crashed")
            raise RpcError(500, "INTERNAL") from None

    def _check_key(self, connection: Connection, call: Call) -> None:
        key = call.key
        if key.overlapped_tick:
            was_there = connection.opened_tick <= key.overlapped_tick
            raise RpcError(*(overlap.DUPLICATED if was_there else overlap.AFTERWARDS))
        if key.rejection is not None:
            raise RpcError(*key.rejection)

    def _apply_wrappers(self, call: Call) -> None:
        for wrapper in call.wrappers:
            name = method_name(wrapper)
            if name == "InvokeWithLayer":
                call.key.layer = wrapper.layer
            elif name == "InitConnection":
                self._init_connection(call, wrapper)
            elif name in ("InvokeAfterMsg", "InvokeAfterMsgs"):
                _check_earlier(call, wrapper)

    def _init_connection(self, call: Call, wrapper: Any) -> None:
        if not call.key.layer:
            raise RpcError(400, "CONNECTION_LAYER_INVALID")
        wanted = self._engine.settings.api_id
        if wanted is not None and wrapper.api_id != wanted:
            raise RpcError(400, "API_ID_INVALID")
        if not wrapper.device_model:
            raise RpcError(400, "CONNECTION_DEVICE_MODEL_EMPTY")
        call.key.is_inited = True

    def _check_account(self, call: Call) -> None:
        account = call.account
        if account.home != self._engine.settings.dc_id:
            if call.method not in ANYWHERE:
                raise RpcError(303, f"USER_MIGRATE_{account.home}")
        elif "InvokeWithoutUpdates" not in call.names:
            call.session.wants_updates = True
        limit = self._engine.settings.send_limit
        if limit and call.method.startswith("messages.Send"):
            wait = self._engine.limits.excess(account.user_id, limit, time.monotonic())
            if wait:
                self._wait(call, 420, f"FLOOD_WAIT_{wait}")

    # -- waits and scripted errors --------------------------------------------------------------------------------

    def _check_wait(self, call: Call) -> None:
        engine, now, user_id = self._engine, time.monotonic(), call.user_id
        running = engine.limits.running_wait(user_id, call.method, call.peer, now)
        if running is None:
            return
        error, told = running
        if now > told + engine.latency + _CROSSING:
            engine.seen.early_calls.append((now, user_id, call.method))
        raise RpcError(420, error)

    def _fail_by_script(self, call: Call) -> None:
        fault: Fault | None = self._engine.faults.take(call.user_id, call.names, FaultKind.RPC_ERROR)
        if fault is not None:
            self._engine.seen.faults[fault.kind] += 1
            self._wait(call, fault.code, fault.error)

    def _wait(self, call: Call, code: int, error: str) -> None:
        """Raise an error; where it demands a wait, the wait begins."""
        self._engine.limits.begin_wait(call.user_id, call.method, call.peer, error, time.monotonic())
        raise RpcError(code, error)


def _check_earlier(call: Call, wrapper: Any) -> None:
    earlier = [wrapper.msg_id] if hasattr(wrapper, "msg_id") else list(wrapper.msg_ids)
    for msg_id in earlier:
        received = call.session.known.get(msg_id)
        if received is None or received.failed:
            raise RpcError(400, "MSG_WAIT_FAILED")
