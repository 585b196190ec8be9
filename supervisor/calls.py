"""One call's way: through the gate -> send -> classify -> wait, send again, or raise.

What was sent and whose session is lost is sent again only where a second sending cannot do the thing twice
(PRODUCT "Held calls"); what Telegram says was done already is a success.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from supervisor.core.classify import classify
from supervisor.core.decide import confined, for_call
from supervisor.core.failure import (
    Action,
    Decision,
    Evidence,
    Failure,
    Kind,
    Override,
    Policy,
    Remedy,
    Result,
    Scope,
)
from supervisor.deadlines import deadline
from supervisor.errors import DatacenterUnreachable, DeliveredUnseen, OutcomeUnknown
from supervisor.gate import Gate, Limits, Passage
from supervisor.journal import Journal
from supervisor.ports import Clock, Elsewhere, LinkFailed, Queries, RpcFailed, Sender, SessionGone

# Waits that Telegram demands: they don't count towards `call_timeout`.
_DEMANDED = frozenset({Kind.FLOOD_WAIT, Kind.RATE_LIMIT})
_DUPLICATE = "RANDOM_ID_DUPLICATE"
# With these the server says that it does not know whether the call was done (core/errors.tsv).
_OUTCOME_UNKNOWN = frozenset({"TIMEOUT", "Timeout", "Timedout"})
_TIMED_OUT = -503
_SLOW_MODE = "SLOWMODE_WAIT_X"


@dataclass(slots=True, eq=False, kw_only=True)
class _Call(Passage):
    """What is known of one call on its way."""

    query: Any
    elsewhere: Elsewhere | None = None
    redrawn: bool = False
    reported: dict[str | None, int] = field(default_factory=dict)
    resends: dict[Kind, int] = field(default_factory=dict)
    incident: str | None = None
    began: float = 0.0
    began_at: float = 0.0
    failure: Failure | None = None
    action: Action = Action.RETRY


class Calls:
    """All calls of one account."""

    def __init__(
        self,
        account: str,
        gate: Gate,
        sender: Sender,
        queries: Queries,
        clock: Clock,
        *,
        journal: Journal,
        policies: Mapping[Kind, Policy],
        overrides: Mapping[str, Override],
        jitter: Callable[[], float],
        new_id: Callable[[], str],
        report: Callable[[Failure], None],
        wave: Callable[[str, Failure], float | None] = lambda _path, _failure: None,
    ) -> None:
        """Prepare them; nothing is sent.

        Args:
            account: the account's name.
            gate: lets calls leave.
            sender: where admitted calls go.
            queries: what can be known of a raw query.
            clock: both clocks.
            journal: the account's pen.
            policies: what may be done about each kind of failure.
            overrides: the operator's own judgement of error ids.
            jitter: draws a number from 0 to 1.
            new_id: makes an incident's id.
            report: is told of a failure that reaches further than its call; the gate holds from then on.
            wave: is told of an answer by its path; gives the seconds to wait where many accounts meet the same.
        """
        self._account = account
        self.gate = gate
        self._sender = sender
        self._queries = queries
        self._clock = clock
        self._journal = journal
        self._policies = policies
        self._overrides = overrides
        self._jitter = jitter
        self._new_id = new_id
        self._report = report
        self._wave = wave

    def reconfigure(
        self, limits: Limits, policies: Mapping[Kind, Policy], overrides: Mapping[str, Override]
    ) -> None:
        """Go by other bounds, policies and judgements from now on.

        Args:
            limits: the bounds of a call.
            policies: what may be done about each kind of failure.
            overrides: the operator's own judgement of error ids.
        """
        self.gate.reconfigure(limits)
        self._policies, self._overrides = policies, overrides

    async def call(self, query: Any, elsewhere: Elsewhere | None = None) -> Any:
        """Make a call, through whatever befalls the account meanwhile.

        Args:
            query: the raw query.
            elsewhere: the way to another datacenter, where that is to be asked.

        Raises:
            DatacenterUnreachable: the other datacenter could not be reached.
            AccountUnavailable: the account is suspended or off, too many calls are held, or time is up.
            OutcomeUnknown: the call may have taken effect, and repeating it might do it twice.
            DeliveredUnseen: the message was delivered, but its copy could not be found.
            pyrogram.errors.RPCError: Telegram refused the call.
        """
        limits, queries = self.gate.limits, self._queries
        call = _Call(
            queries.method_name(query),
            queries.peer_key(query),
            limits.call_timeout,
            limits.max_wait,
            query=query,
            elsewhere=elsewhere,
        )
        try:
            return await self._carry_through(call)
        finally:
            if call.incident is not None:  # refused, out of time, called off …: it ends with the call
                self._close_incident(call, Result.FAILED)

    async def _carry_through(self, call: _Call) -> Any:
        while True:
            await self.gate.admit(call)
            try:
                if call.elsewhere is not None and not call.elsewhere.is_ready:
                    await call.elsewhere.ready()
                    continue  # that may have taken long: the gate is asked again
                async with self.gate.counted(call, "was not answered"):
                    result = await (call.elsewhere or self._sender).send(call.query)
            except RpcFailed as error:
                done = await self._rpc_failed(call, error)
                if done is not None:
                    return done
            except SessionGone as gone:
                self._session_gone(call, gone)
            except LinkFailed as failed:
                await self._not_taken(call, failed)
            else:
                if call.incident is not None:
                    self._close_incident(call, Result.RECOVERED)
                return result

    # --- what was done before -------------------------------------------------------------------------

    async def _rpc_failed(self, call: _Call, error: RpcFailed) -> Any | None:
        """Judge an answered error: return the result if it was done after all, None to go on, or raise."""
        evidence = self._queries.rpc_evidence(error.code, error.text, call.query, self._journal.path)
        failure = self._judge(call, evidence)
        if failure.error_id == _DUPLICATE:
            return await self._duplicate(call, error)
        exception = self._queries.rpc_exception(error.code, error.text, call.method)
        if failure.remedy is Remedy.NONE:
            return await self._already_done(call, exception, repeated=error.sends > 1)
        await self._failed(call, failure, exception)
        return None

    async def _duplicate(self, call: _Call, error: RpcFailed) -> Any | None:
        """RANDOM_ID_DUPLICATE: delivered before, if it was ever sent before; else the draw was bad."""
        if not call.may_have_been_sent and error.sends == 1:
            if call.redrawn:
                raise self._queries.rpc_exception(error.code, error.text, call.method)
            call.redrawn = True
            self._queries.redraw_random_id(call.query)
            return None
        delivered = await self._looked_up(call, self._sender.find_delivered(call.query))
        if call.incident is not None:
            self._close_incident(call, Result.RECOVERED)
        if delivered is None:
            raise DeliveredUnseen(self._account, call.method)
        return delivered

    async def _already_done(self, call: _Call, error: Exception, *, repeated: bool) -> Any:
        """Everything is as the caller wants it: give what the call would have given, where that is to be had."""
        repeated = repeated or call.may_have_been_sent
        done = await self._looked_up(call, self._sender.find_done(call.query, repeated=repeated))
        if call.incident is not None:
            self._close_incident(call, Result.RECOVERED)
        if done is None:
            raise error
        return done

    async def _looked_up(self, call: _Call, looking: Awaitable[Any | None]) -> Any | None:
        try:
            async with deadline(max(call.time_left, 0.0)):
                return await looking
        except (RpcFailed, SessionGone, LinkFailed, TimeoutError):
            return None

    # --- the session is gone --------------------------------------------------------------------------

    def _session_gone(self, call: _Call, gone: SessionGone) -> None:
        """Send again what cannot be done twice by it; else say that nobody knows."""
        if not gone.sent:
            return
        if not self._may_repeat(call.query):
            raise OutcomeUnknown(self._account, call.method) from gone
        call.may_have_been_sent = True

    def _may_repeat(self, query: Any) -> bool:
        """Whether a second sending under another msg_id cannot do it twice."""
        return self._queries.is_read_only(query) or self._queries.has_random_id(query)

    async def _not_taken(self, call: _Call, failed: LinkFailed) -> None:
        """The link could not take this one query: judge it as any failure, but never do it twice."""
        failure, message = self._judge(call, failed.evidence), failed.evidence.message
        error: Exception = self.gate.refusal(message)
        error.__cause__ = failed
        if call.elsewhere is not None:
            error = DatacenterUnreachable(self._account, call.elsewhere.dc_id, message)
        is_final = failure.remedy is Remedy.RAISE or not self._queries.has_random_id(call.query)
        if failed.sent and is_final and not self._queries.is_read_only(call.query):
            error = OutcomeUnknown(self._account, call.method, message)
            failure = replace(failure, remedy=Remedy.RAISE)
        await self._failed(call, failure, error)

    # --- failures -------------------------------------------------------------------------------------

    def _judge(self, call: _Call, evidence: Evidence) -> Failure:
        if call.elsewhere is None:
            return classify(evidence, overrides=self._overrides)
        number = str(call.elsewhere.dc_id)
        seen = replace(
            evidence,
            message=f"datacenter {number}: {evidence.message}",
            context=(*evidence.context, ("datacenter", number)),
        )
        return confined(classify(seen, overrides=self._overrides))

    async def _failed(self, call: _Call, failure: Failure, error: Exception) -> None:
        """Perform the decision about one failed sending; return where the call is to be sent again."""
        call.may_have_been_sent = True  # a server that failed may have done it before it failed
        if failure.scope is not Scope.CALL and failure.remedy is not Remedy.RAISE:
            self._reaches_further(call, failure, error)
            return
        decision = self._decide(call, failure)
        slowed = self._wave(self._journal.path, failure) if failure.remedy is Remedy.RETRY else None
        if slowed is None and decision.remedy in (Remedy.RAISE, Remedy.FAIL):
            await self._end(call, failure, decision)
            raise error
        if _is_outcome_unknown(failure) and not self._may_repeat(call.query):
            self._raised(call, failure, decision)
            why = f"Telegram answered {failure.evidence.error_id}, which tells nothing"
            raise OutcomeUnknown(self._account, call.method, why) from error
        if slowed is None:
            self._resend_later(call, failure, decision)
        await self._wait(call, failure, decision.delay if slowed is None else slowed)

    async def _end(self, call: _Call, failure: Failure, decision: Decision) -> None:
        self._raised(call, failure, decision)
        if failure.limited:
            self._report(failure)
        if failure.remedy is Remedy.WAIT and failure.kind is Kind.FLOOD_WAIT and failure.wait is not None:
            await self._keep_flood(call, failure, failure.wait)  # this call is over, the wait is not

    async def _wait(self, call: _Call, failure: Failure, delay: float) -> None:
        """Wait before a repeat: at the gate where the wait concerns others too."""
        if failure.kind not in _DEMANDED:
            async with self.gate.counted(call, "was not answered"):
                await self.gate.sleep(delay)
        elif failure.wait is None or not await self._keep_flood(call, failure, delay):
            await self.gate.sleep(delay)
            call.wait_left -= delay

    async def _keep_flood(self, call: _Call, failure: Failure, seconds: float) -> bool:
        """Write a wait into the ledger; False if it belongs in none, and only this call has to wait."""
        if failure.error_id != _SLOW_MODE:
            await self.gate.keep_flood(call.method, call.peer, seconds)
        elif call.peer is None:
            return False  # whose chat is slow is not known: other chats must not wait for it
        else:
            await self.gate.keep_slow(call.peer, seconds)
        return True

    def _reaches_further(self, call: _Call, failure: Failure, error: Exception) -> None:
        """Leave it to the account; a call that brings the same again and again to a healthy account is wrong itself."""
        times = call.reported[failure.error_id] = call.reported.get(failure.error_id, 0) + 1
        if times > max(self._policy(failure).max_retries, 1):
            self._raised(call, failure, Decision(Remedy.RAISE, 0.0, 0, 0, Result.RAISED))
            raise error
        self._report(failure)
        if self.gate.is_released:
            self.gate.hold(failure=str(failure))

    def _policy(self, failure: Failure) -> Policy:
        return self._policies.get(failure.kind, self._policies[Kind.UNKNOWN])

    def _decide(self, call: _Call, failure: Failure) -> Decision:
        policy = self._policy(failure)
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
        self._journal.write(
            self._journal.draft(
                failure,
                result,
                decision.remedy.action,
                method=call.method,
                incident=call.incident,
                attempt=decision.attempt,
                delay=decision.delay,
                duration=duration,
                of=decision.of,
            )
        )

    def _save_incident(self, call: _Call, result: Result) -> None:
        assert call.incident is not None and call.failure is not None  # noqa: PT018 - the caller's business
        failures = sum(call.resends.values())
        self._journal.ended_call(
            call.incident, call.failure, call.action, result, opened_at=call.began_at, failures=failures
        )


def _is_outcome_unknown(failure: Failure) -> bool:
    return failure.error_id in _OUTCOME_UNKNOWN or failure.evidence.code == _TIMED_OUT
