"""One call's way: gate (ledger, held) -> send -> classify -> wait, send again, or raise.

A gate stands before each account. While the account recovers its calls are held, in order; when it is
online they go out at `release_rate`; while it is suspended or off they fail at once. What was sent and
whose session is lost is sent again only where a second sending cannot do the thing twice
(PRODUCT "Held calls").
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from weakref import WeakValueDictionary

from supervisor.core.classify import classify
from supervisor.core.decide import for_call
from supervisor.core.failure import (
    Action,
    Decision,
    Failure,
    Kind,
    Override,
    Policy,
    Remedy,
    Result,
    Scope,
)
from supervisor.core.ledger import Flood, Ledger
from supervisor.errors import AccountUnavailable, DeliveredUnseen, OutcomeUnknown
from supervisor.journal import Journal
from supervisor.ports import (
    Clock,
    FloodRow,
    LinkFailed,
    Queries,
    Recorder,
    RpcFailed,
    Sender,
    SessionGone,
)

# Waits that Telegram demands: they don't count towards `call_timeout`.
_DEMANDED = frozenset({Kind.FLOOD_WAIT, Kind.RATE_LIMIT})
# `release_rate` calls at most leave in so many seconds: a little over one, since networks bunch what was apart.
RELEASE_WINDOW = 1.1
_DUPLICATE = "RANDOM_ID_DUPLICATE"
# How often one call may say that its session is lost, when each time the account came back since.
REPORTS = 2
# With these the server says that it does not know whether the call was done (core/errors.tsv).
_OUTCOME_UNKNOWN = frozenset({"TIMEOUT", "Timeout", "Timedout"})
_SLOW_MODE = "SLOWMODE_WAIT_X"


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a call; durations in seconds, `release_rate` in calls a second."""

    call_timeout: float = 60.0
    max_wait: float = 300.0
    max_held: int = 1000
    release_rate: float = 30.0


class _Door(Enum):
    HELD = "held"
    OPEN = "open"
    REFUSED = "refused"


@dataclass(slots=True, eq=False)
class _Call:
    """What is known of one call on its way. `time_left` and `wait_left` are seconds."""

    query: Any
    method: str
    peer: str | None
    time_left: float
    wait_left: float
    may_have_been_sent: bool = False
    redrawn: bool = False
    reported: Counter[str | None] = field(default_factory=Counter)
    resends: dict[Kind, int] = field(default_factory=dict)
    incident: str | None = None
    began: float = 0.0
    began_at: float = 0.0
    failure: Failure | None = None
    action: Action = Action.RETRY


class CallGate:
    """The only door through which an account's calls leave."""

    def __init__(
        self,
        account: str,
        sender: Sender,
        queries: Queries,
        recorder: Recorder,
        clock: Clock,
        *,
        journal: Journal,
        limits: Limits,
        policies: Mapping[Kind, Policy],
        overrides: Mapping[str, Override],
        jitter: Callable[[], float],
        new_id: Callable[[], str],
        report: Callable[[Failure], None],
    ) -> None:
        """Build a gate; it holds until `release` is called.

        Args:
            account: the account's name.
            sender: where admitted calls go.
            queries: what can be known of a raw query.
            recorder: the recovery log.
            clock: both clocks.
            journal: the account's pen.
            limits: the bounds of a call.
            policies: what may be done about each kind of failure.
            overrides: the operator's own judgement of error ids.
            jitter: draws a number from 0 to 1.
            new_id: makes an incident's id.
            report: is told of a failure that reaches further than its call; the gate holds from then on.
        """
        self._account = account
        self._sender = sender
        self._queries = queries
        self._recorder = recorder
        self._clock = clock
        self._journal = journal
        self._limits = limits
        self._policies = policies
        self._overrides = overrides
        self._jitter = jitter
        self._new_id = new_id
        self._report = report
        self._door = _Door.HELD
        self._refusal: Callable[[str], AccountUnavailable] = lambda why: AccountUnavailable(
            account, "starting", why=why
        )
        self._backlog: deque[asyncio.Future[None]] = deque()
        self._sleepers: set[asyncio.Future[None]] = set()
        self._turns: WeakValueDictionary[tuple[str, str | None], asyncio.Lock] = WeakValueDictionary()
        self._pump: asyncio.TimerHandle | None = None
        self._overdue = False
        self._departures: deque[float] = deque(maxlen=max(1, int(limits.release_rate)))
        self._draining = False
        self._paced_until = 0.0
        self.ledger = Ledger()

    # --- the account's side ---------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many calls wait at the gate."""
        return len(self._backlog)

    def hold(self, state: str = "recovering", failure: str | None = None) -> None:
        """Let nobody out until `release`."""
        self._door = _Door.HELD
        self._overdue = False
        self._stop_pump()
        self._refusal = self._refuser(state, failure, None)

    def release(self, resent: int = 0) -> None:
        """Let the held calls out, in order and at `release_rate`, and then the new ones as they come.

        Args:
            resent: calls that have just gone out again by themselves; they count against the rate.
        """
        self._door = _Door.OPEN
        self._refusal = self._refuser("online", None, None)
        self.carry_on(resent)

    def hold_back(self) -> None:
        """The link lives, as far as is known, but its answers are overdue: nothing more goes into it for now.

        What would be written into a link that stands still arrives at once when it moves again, and is
        answered with a flood wait.
        """
        self._overdue = True
        self._stop_pump()

    def carry_on(self, outstanding: int = 0) -> None:
        """The link answers: let out what was held back.

        Args:
            outstanding: calls that the server gets to see just now; they count against the rate.
        """
        self._overdue = False
        now = self._clock.monotonic()
        self._departures.extend(now for _ in range(min(outstanding, self._departures.maxlen or 0)))
        if self._door is _Door.OPEN and self._pump is None:
            self._draining = bool(self._backlog)
            self._let_out()

    def refuse(self, state: str, failure: str | None, retry_at: float | None) -> None:
        """Fail every waiting call, and each new one, at once.

        Args:
            state: the account's state.
            failure: what last went wrong.
            retry_at: when it will be tried again by itself; Unix seconds.
        """
        self._door = _Door.REFUSED
        self._overdue = False
        self._stop_pump()
        self._refusal = self._refuser(state, failure, retry_at)
        for waiting in (*self._backlog, *self._sleepers):
            if not waiting.done():
                waiting.set_exception(self._refusal("the call was waiting"))
        self._backlog.clear()

    def _refuser(
        self, state: str, failure: str | None, retry_at: float | None
    ) -> Callable[[str], AccountUnavailable]:
        when = datetime.fromtimestamp(retry_at, UTC) if retry_at is not None else None
        return lambda why: AccountUnavailable(self._account, state, failure, when, why)

    # --- the caller's side ----------------------------------------------------------------------------

    async def call(self, query: Any) -> Any:
        """Make a call, through whatever befalls the account meanwhile.

        Raises:
            AccountUnavailable: the account is suspended or off, too many calls are held, or time is up.
            OutcomeUnknown: the call may have taken effect, and repeating it might do it twice.
            DeliveredUnseen: the message was delivered, but its copy could not be found.
            pyrogram.errors.RPCError: Telegram refused the call.
        """
        call = _Call(
            query,
            self._queries.method_name(query),
            self._queries.peer_key(query),
            self._limits.call_timeout,
            self._limits.max_wait,
        )
        try:
            return await self._carry_through(call)
        finally:
            if call.incident is not None:  # refused, out of time, called off …: it ends with the call
                self._close_incident(call, Result.FAILED)

    async def _carry_through(self, call: _Call) -> Any:
        while True:
            await self._admit(call)
            try:
                async with self._counted(call, "was not answered"):
                    result = await self._sender.send(call.query)
            except RpcFailed as error:
                delivered = await self._rpc_failed(call, error)
                if delivered is not None:
                    return delivered
            except SessionGone as gone:
                self._session_gone(call, gone)
            except LinkFailed as error:
                await self._failed(call, classify(error.evidence, overrides=self._overrides), error)
            else:
                if call.incident is not None:
                    self._close_incident(call, Result.RECOVERED)
                return result

    # --- admission ------------------------------------------------------------------------------------

    async def _admit(self, call: _Call) -> None:
        """Return when the call may leave: no flood wait stands against it, and the gate is open."""
        released = False
        while True:
            if self._door is _Door.REFUSED:
                raise self._refusal(_unanswered(call))
            if self._flooded(call) > 0:
                await self._wait_out(call)
                await self._queue(
                    call
                )  # those who waited for the same leave at the release rate, not all at once
                released = True
            elif self._is_open and (released or self._may_pass()):
                return
            else:
                await self._queue(call)
                released = True

    @property
    def _is_open(self) -> bool:
        return self._door is _Door.OPEN and not self._overdue

    def _may_pass(self) -> bool:
        """Whether a call that was never held may leave at once: not past those held, nor right after a burst of them."""
        now = self._clock.monotonic()
        if self._backlog or (now < self._paced_until and self._window_wait(now) > 0):
            return False
        self._departures.append(now)
        return True

    def _window_wait(self, now: float) -> float:
        """Seconds until another call may leave at `release_rate`, counting every call that has left of late."""
        full = len(self._departures) == self._departures.maxlen
        return max(0.0, self._departures[0] + RELEASE_WINDOW - now) if full else 0.0

    async def _queue(self, call: _Call) -> None:
        if self._door is _Door.REFUSED:
            raise self._refusal(_unanswered(call))
        if len(self._backlog) >= self._limits.max_held:
            raise self._refusal(f"{len(self._backlog)} calls are held already (max_held)")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._backlog.append(turn)
        if self._is_open and self._pump is None:
            self._let_out()
        try:
            async with self._counted(call, "was held"):
                await turn
        finally:
            if turn.cancelled():  # timed out, or called off: no longer held
                with suppress(ValueError):
                    self._backlog.remove(turn)

    def _let_out(self) -> None:
        """Let held calls out as fast as `release_rate` allows."""
        self._pump = None
        now = self._clock.monotonic()
        while self._backlog:
            wait = self._window_wait(now)
            if wait > 0:
                self._pump = asyncio.get_running_loop().call_later(wait, self._let_out)
                return
            turn = self._backlog.popleft()
            if not turn.done():
                self._departures.append(now)
                turn.set_result(None)
        if self._draining:
            self._draining = False
            self._paced_until = now + RELEASE_WINDOW

    def _stop_pump(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None

    @asynccontextmanager
    async def _counted(self, call: _Call, what: str) -> AsyncIterator[None]:
        """Count a wait against the call's time; end it when that is used up."""
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(max(call.time_left, 0.0)):
                yield
        except TimeoutError:
            why = f"{call.method} {what} within {self._limits.call_timeout:g} s (call_timeout)"
            raise self._refusal(why) from None
        finally:
            call.time_left -= self._clock.monotonic() - started

    # --- flood waits ----------------------------------------------------------------------------------

    def _flooded(self, call: _Call) -> float:
        return self.ledger.remaining(call.method, call.peer, self._clock.monotonic())

    async def _wait_out(self, call: _Call) -> None:
        """Wait until the ledger lets the call pass; those who wait for the same leave in order."""
        turn = self._turns.setdefault((call.method, call.peer), asyncio.Lock())
        self._bearable(call)
        asked = self._clock.monotonic()
        async with turn:
            call.wait_left -= self._clock.monotonic() - asked
            while self._door is not _Door.REFUSED and (seconds := self._bearable(call)) > 0:
                await self._sleep(seconds)
                call.wait_left -= seconds

    def _bearable(self, call: _Call) -> float:
        """The seconds that the call has to wait, if it may wait so long."""
        seconds = self._flooded(call)
        if seconds > call.wait_left:
            raise self._queries.flood_wait(seconds, call.method)
        return seconds

    async def _sleep(self, seconds: float) -> None:
        """Sleep so long; a refusal ends it."""
        loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, sleeper)
        self._sleepers.add(sleeper)
        try:
            await sleeper
        finally:
            timer.cancel()
            self._sleepers.discard(sleeper)

    async def _keep_flood(self, call: _Call, failure: Failure, seconds: float) -> bool:
        """Write a wait into the ledger; False if it belongs in none, and only this call has to wait."""
        if failure.error_id != _SLOW_MODE:
            await self.keep_flood(call.method, call.peer, seconds)
            return True
        if call.peer is None:
            return False  # whose chat is slow is not known: other chats must not wait for it
        now, mono = self._clock.now(), self._clock.monotonic()
        self.ledger, flood = self.ledger.slowed(call.peer, seconds, now, mono)
        await self._save_flood(flood)
        return True

    async def keep_flood(self, method: str, peer: str | None, seconds: float) -> None:
        """Telegram demanded a wait: nothing of this method to this peer leaves before it is over.

        Args:
            method: the method.
            peer: whom it was about, or None.
            seconds: how long.
        """
        now, mono = self._clock.now(), self._clock.monotonic()
        self.ledger, flood = self.ledger.flooded(method, peer, seconds, now, mono)
        await self._save_flood(flood)

    async def _save_flood(self, flood: Flood) -> None:
        await self._recorder.save_flood(
            FloodRow(self._account, flood.method, flood.peer, flood.seen_at, flood.seconds)
        )

    # --- failures -------------------------------------------------------------------------------------

    async def _rpc_failed(self, call: _Call, error: RpcFailed) -> Any | None:
        """Judge an answered error: return the message if it was delivered after all, None to go on, or raise."""
        evidence = self._queries.rpc_evidence(error.code, error.text, call.query, self._journal.path)
        failure = classify(evidence, overrides=self._overrides)
        if failure.error_id == _DUPLICATE:
            return await self._duplicate(call, error)
        await self._failed(call, failure, self._queries.rpc_exception(error.code, error.text, call.method))
        return None

    async def _duplicate(self, call: _Call, error: RpcFailed) -> Any | None:
        """RANDOM_ID_DUPLICATE: delivered before, if it was ever sent before; else the draw was bad."""
        if not call.may_have_been_sent and error.sends == 1:
            if call.redrawn:
                raise self._queries.rpc_exception(error.code, error.text, call.method)
            call.redrawn = True
            self._queries.redraw_random_id(call.query)
            return None
        delivered = await self._find_delivered(call)
        if call.incident is not None:
            self._close_incident(call, Result.RECOVERED)
        if delivered is None:
            raise DeliveredUnseen(self._account, call.method)
        return delivered

    async def _find_delivered(self, call: _Call) -> Any | None:
        try:
            async with asyncio.timeout(max(call.time_left, 0.0)):
                return await self._sender.find_delivered(call.query)
        except (RpcFailed, SessionGone, LinkFailed, TimeoutError):
            return None

    def _session_gone(self, call: _Call, gone: SessionGone) -> None:
        """Send again what cannot be done twice by it; else say that nobody knows."""
        if not gone.sent or self._queries.is_read_only(call.query):
            return
        if not self._queries.has_random_id(call.query):
            raise OutcomeUnknown(self._account, call.method) from gone
        call.may_have_been_sent = True

    def _may_repeat(self, query: Any) -> bool:
        """Whether a second sending under another msg_id cannot do it twice."""
        return self._queries.is_read_only(query) or self._queries.has_random_id(query)

    async def _failed(self, call: _Call, failure: Failure, error: Exception) -> None:
        """Perform the decision about one failed sending; return where the call is to be sent again."""
        if failure.remedy is Remedy.NONE:
            raise error
        call.may_have_been_sent = True  # a server that failed may have done it before it failed
        if failure.scope is not Scope.CALL and failure.remedy is not Remedy.RAISE:
            self._reaches_further(call, failure, error)
            return
        decision = self._decide(call, failure)
        if decision.remedy is Remedy.RAISE or decision.remedy is Remedy.FAIL:
            self._raised(call, failure, decision)
            if failure.limited:
                self._report(failure)
            if failure.remedy is Remedy.WAIT and failure.kind is Kind.FLOOD_WAIT and failure.wait is not None:
                await self._keep_flood(call, failure, failure.wait)  # this call is over, the wait is not
            raise error
        if failure.error_id in _OUTCOME_UNKNOWN and not self._may_repeat(call.query):
            self._raised(call, failure, decision)
            raise OutcomeUnknown(self._account, call.method) from error
        self._resend_later(call, failure, decision)
        if failure.kind in _DEMANDED:
            if failure.wait is None or not await self._keep_flood(call, failure, decision.delay):
                await self._sleep(decision.delay)
                call.wait_left -= decision.delay
        else:
            async with self._counted(call, "was not answered"):
                await self._sleep(decision.delay)

    def _reaches_further(self, call: _Call, failure: Failure, error: Exception) -> None:
        """Leave it to the account; a call that brings the same again and again to a healthy account is wrong itself."""
        call.reported[failure.error_id] += 1
        if failure.remedy is Remedy.RELOGIN and call.reported[failure.error_id] > REPORTS:
            self._raised(call, failure, Decision(Remedy.RAISE, 0.0, 0, 0, Result.RAISED))
            raise error
        self._report(failure)
        if self._door is _Door.OPEN:
            self.hold(failure=str(failure))

    def _decide(self, call: _Call, failure: Failure) -> Decision:
        policy = self._policies.get(failure.kind, self._policies[Kind.UNKNOWN])
        resends = call.resends.get(failure.kind, 0)
        decision = for_call(failure, resends, policy, self._jitter())
        if (
            failure.kind in _DEMANDED
            and decision.result is Result.RETRYING
            and decision.delay > call.wait_left
        ):
            return Decision(Remedy.RAISE, 0.0, resends, policy.max_retries, Result.RAISED)
        return decision

    # --- the record -----------------------------------------------------------------------------------

    def _resend_later(self, call: _Call, failure: Failure, decision: Decision) -> None:
        call.resends[failure.kind] = decision.attempt
        call.failure, call.action = failure, decision.remedy.action
        if call.incident is None:
            call.incident = self._new_id()
            call.began, call.began_at = self._clock.monotonic(), self._clock.now()
        self._record(call, failure, decision, Result.RETRYING)

    def _raised(self, call: _Call, failure: Failure, decision: Decision) -> None:
        """The caller gets the error: the end of the call's incident, if it has one."""
        if call.incident is None:
            self._record(call, failure, decision, Result.RAISED)
            return
        self._record(call, failure, decision, Result.FAILED)
        self._save_incident(call, Result.FAILED)
        call.incident = None

    def _close_incident(self, call: _Call, result: Result) -> None:
        assert call.failure is not None
        done = Decision(Remedy(call.action.value), 0.0, sum(call.resends.values()), 0, result)
        duration = self._clock.monotonic() - call.began if result is Result.RECOVERED else None
        self._record(call, call.failure, done, result, duration=duration)
        self._save_incident(call, result)
        call.incident = None

    def _record(
        self,
        call: _Call,
        failure: Failure,
        decision: Decision,
        result: Result,
        *,
        duration: float | None = None,
    ) -> None:
        self._journal.row(
            failure,
            result,
            decision.remedy.action,
            method=call.method,
            incident=call.incident,
            attempt=decision.attempt,
            delay=decision.delay,
            duration=duration,
        )

    def _save_incident(self, call: _Call, result: Result) -> None:
        assert call.incident is not None and call.failure is not None  # noqa: PT018 - the caller's business
        failures = sum(call.resends.values())
        self._journal.ended_call(
            call.incident, call.failure, call.action, result, opened_at=call.began_at, failures=failures
        )


def _unanswered(call: _Call) -> str:
    """What has become of a call that may not leave; who hears "not sent" sends it again by himself."""
    return (
        f"{call.method} {'was sent, and may have been done' if call.may_have_been_sent else 'was not sent'}"
    )


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
