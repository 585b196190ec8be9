"""Drives ONE account: feeds what happens to the state table, performs what the table orders.

There is one queue of events and at most one piece of work at a time: an attempt, a delay, or the wait for a
path. News of work that was called off, or of a link that is gone, carries an old generation and is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from supervisor import botcode
from supervisor.calls import CallGate
from supervisor.core.budget import DAY, SignInBudget
from supervisor.core.classify import classify, is_frozen
from supervisor.core.failure import (
    Action,
    Evidence,
    Failure,
    Kind,
    Override,
    Remedy,
    Result,
    Row,
    Scope,
    Source,
    State,
)
from supervisor.core.incident import Incident
from supervisor.core.lifecycle import (
    Attempt,
    AwaitPath,
    CloseLink,
    Delay,
    DelayOver,
    Effect,
    Event,
    Failed,
    HoldCalls,
    Life,
    Log,
    Moment,
    PathBack,
    Pause,
    Proved,
    RefuseCalls,
    ReleaseCalls,
    Retry,
    Rules,
    Start,
    Stop,
    step,
)
from supervisor.ports import AccountSnapshot, Clock, IncidentRow, Limited, LinkFailed, Recorder, SignIn

log = logging.getLogger(__name__)

SIGN_IN_BUDGET = "SIGN_IN_BUDGET"
KEY_NOT_FOUND = -404
# How often in a row, on fresh connections, Telegram must not know a key before it is given up (TDLib).
KEY_LOST_AFTER = 3
# How long `main` may take to end when it is cancelled. Seconds.
MAIN_GRACE = 3.0
# States in which the bot's own code has nothing to run on.
_WITHOUT_MAIN = frozenset({State.PAUSED, State.STOPPED, State.FAILED, State.NEEDS_LOGIN})


class AccountLink(Protocol):
    """What an account needs of its link to Telegram."""

    @property
    def client(self) -> Any: ...

    @property
    def user_id(self) -> int | None: ...

    @property
    def is_bot(self) -> bool | None: ...

    @property
    def can_sign_in(self) -> bool: ...

    @property
    def resent(self) -> int: ...

    @property
    def last_answer(self) -> float: ...

    async def prepare(self, call: Callable[[Any], Awaitable[Any]]) -> None: ...

    async def run(self) -> None: ...

    async def open(self, path: str, before_sign_in: Callable[[], Awaitable[None]]) -> None: ...

    async def prove(self, path: str) -> None: ...

    async def retire(self, reason: str) -> None: ...

    def close(self) -> None: ...

    def give_up(self) -> None: ...

    async def shutdown(self) -> None: ...


class AccountPaths(Protocol):
    """What an account needs of the paths."""

    def assign(self, account: str, candidates: Sequence[str], before: str | None) -> str: ...

    def elsewhere(self, candidates: Sequence[str], current: str) -> bool: ...

    def rotate(self, account: str, candidates: Sequence[str], current: str) -> str: ...

    def leave(self, account: str) -> None: ...

    async def slot(self, name: str) -> None: ...

    async def is_broken(self, name: str) -> bool: ...

    def suspect(self, name: str) -> None: ...

    async def back(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class AccountPlan:
    """What is configured for one account, and what an earlier run left of it."""

    name: str
    rules: Rules
    candidates: tuple[str, ...] = ()
    main: str | None = None
    overrides: Mapping[str, Override] = field(default_factory=dict)
    sign_in_budget: SignInBudget = SignInBudget(3, 10)
    prove_every: float = 300.0
    sign_ins: tuple[float, ...] = ()
    before: AccountSnapshot | None = None
    incident: Incident | None = None


class Account:
    """One account, from its start to its stop."""

    def __init__(
        self,
        plan: AccountPlan,
        paths: AccountPaths,
        recorder: Recorder,
        clock: Clock,
        *,
        starting: AbstractAsyncContextManager[Any] | None = None,
        jitter: Callable[[], float],
        new_id: Callable[[], str],
        evidence_of: Callable[..., Evidence],
        evidence_of_code: Callable[..., Evidence],
    ) -> None:
        """Build an account; `wire` gives it its link and gate, `run` starts it.

        Args:
            plan: what is configured.
            paths: the ways to Telegram.
            recorder: the recovery log.
            clock: both clocks.
            starting: bounds how many accounts start at once.
            jitter: draws a number from 0 to 1.
            new_id: makes an incident's id.
            evidence_of: makes evidence of an exception on the way to Telegram.
            evidence_of_code: makes evidence of an exception in the bot's own code.
        """
        self.plan = plan
        self.name = plan.name
        self._paths = paths
        self._recorder = recorder
        self._clock = clock
        self._starting = starting or nullcontext()
        self._jitter = jitter
        self._new_id = new_id
        self._evidence_of = evidence_of
        self._evidence_of_code = evidence_of_code
        path = paths.assign(plan.name, plan.candidates, plan.before.path if plan.before else None)
        self._life = Life(rules=plan.rules, path=path, incident=plan.incident)
        self._path = path
        self._limited = plan.before.limited if plan.before else None
        self._last_row: Row | None = plan.before.last_failure if plan.before else None
        self._sign_ins = list(plan.sign_ins)
        self._events: asyncio.Queue[tuple[int | None, Event]] = asyncio.Queue()
        self._generation = 0
        self._key_unknown = 0
        self._begun = False
        self._work: asyncio.Task[None] | None = None
        self._main: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._online = asyncio.Event()
        self._link: AccountLink
        self._gate: CallGate

    def wire(self, link: AccountLink, gate: CallGate) -> None:
        """Give the account its link and the gate before it."""
        self._link, self._gate = link, gate

    # --- what others see ------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state, as `status` shows it."""
        return self._life.state

    @property
    def client(self) -> Any:
        """The supervised client."""
        return self._link.client

    async def online(self) -> None:
        """Wait until the account is online."""
        await self._online.wait()

    def snapshot(self) -> AccountSnapshot:
        """What `status` shows."""
        life = self._life
        incident = life.incident
        return AccountSnapshot(
            name=self.name,
            state=life.state,
            since=life.since,
            path=self._path,
            user_id=self._link.user_id,
            is_bot=self._link.is_bot,
            limited=self._limited,
            retry_at=life.retry_at,
            incident=incident.id if incident is not None and incident.is_open else None,
            last_failure=self._last_row,
        )

    def tell(self, event: Event) -> None:
        """Tell the account something that is true whatever it is doing: Pause, Retry, Stop."""
        self._events.put_nowait((None, event))

    def link_lost(self, evidence: Evidence) -> None:
        """The link is gone (ports.LinkEvents)."""
        failure = classify(evidence, overrides=self.plan.overrides)
        self._post(self._generation, Failed(_as_lost_link(failure) if _knows_no_key(failure) else failure))

    def link_overdue(self) -> None:
        """Answers are overdue (ports.LinkEvents)."""
        self._gate.hold_back()

    def link_answers(self, outstanding: int) -> None:
        """The overdue link moves again (ports.LinkEvents)."""
        self._gate.carry_on(outstanding)

    def call_failed(self, failure: Failure) -> None:
        """A call met a failure that reaches further than itself."""
        if failure.limited:
            self._limit(failure)
        elif self._life.state is State.ONLINE:  # else it is late: an attempt will meet the same
            self._post(self._generation, Failed(failure))

    def code_failed(self, evidence: Evidence) -> None:
        """The bot's own code, or an update on its way to it, failed: recorded, and nothing else."""
        failure = classify(evidence, overrides=self.plan.overrides)
        self._record(failure, Result.RAISED, Action.FAIL)

    # --- the driver -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the account online until it is told to stop."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                updates = group.create_task(self._link.run(), name=f"updates:{self.name}")
                prover = group.create_task(self._keep_proved(), name=f"prove:{self.name}")
                self.tell(Start())
                await self._drive()
                for task in (updates, prover):
                    task.cancel()
        finally:
            self._paths.leave(self.name)
            await self._link.shutdown()

    async def _drive(self) -> None:
        while True:
            generation, event = await self._events.get()
            if generation is not None and generation != self._generation:
                continue
            life, effects = step(self._life, event, self._moment())
            changed = life.state is not self._life.state or life.retry_at != self._life.retry_at
            self._life = life
            for effect in effects:
                self._perform(effect)
            if changed:
                self._save()
            if isinstance(event, Stop):
                await self._end_of_work()
                await self._recorder.save_account(self.snapshot())
                return

    async def _end_of_work(self) -> None:
        tasks = [task for task in (self._work, self._main) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=MAIN_GRACE)

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.monotonic(), self._jitter(), self._new_id())

    def _post(self, generation: int, event: Event) -> None:
        self._events.put_nowait((generation, event))

    def _save(self) -> None:
        self._spawn(self._recorder.save_account(self.snapshot()), "save")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        assert self._group is not None
        return self._group.create_task(work, name=f"{name}:{self.name}")

    # --- effects --------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Attempt(action, verify):
                self._begin_work(self._attempt(action, verify=verify), action.value)
            case Delay(seconds):
                self._begin_work(self._delay(seconds), "delay")
            case AwaitPath():
                self._begin_work(self._await_path(), "path")
            case CloseLink():
                self._stop_work()
                self._link.close()
            case HoldCalls():
                self._online.clear()
                failure = self._life.last_failure
                self._gate.hold(self._life.state.value, str(failure) if failure else None)
            case ReleaseCalls():
                self._on_online()
            case RefuseCalls():
                self._refuse()
            case Log():
                self._log(effect)

    def _begin_work(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._stop_work()
        self._work = self._spawn(work, name)

    def _stop_work(self) -> None:
        """Call off the present work; what it, or the link of before, still has to say is old news."""
        self._generation += 1
        if self._work is not None and not self._work.done():
            self._work.cancel()
        self._work = None

    def _on_online(self) -> None:
        self._key_unknown = 0
        self._gate.path = self._path
        self._gate.release(self._link.resent)
        self._online.set()
        if self._main is None or self._main.done():
            self._main = self._spawn(self._run_code(), "main")

    def _refuse(self) -> None:
        life = self._life
        self._online.clear()
        failure = str(life.last_failure) if life.last_failure else None
        self._gate.refuse(life.state.value, failure, life.retry_at)
        self._link.give_up()
        if life.state in _WITHOUT_MAIN and self._main is not None:
            self._main.cancel()

    # --- work -----------------------------------------------------------------------------------------

    async def _delay(self, seconds: float) -> None:
        generation = self._generation
        await asyncio.sleep(seconds)
        self._post(generation, DelayOver())

    async def _await_path(self) -> None:
        generation = self._generation
        await self._paths.back(self._path)
        self._post(generation, PathBack())

    async def _attempt(self, action: Action, *, verify: bool) -> None:
        generation = self._generation
        if not await self._prepared():
            return
        try:
            if verify and await self._is_still_good():
                self._post(generation, Proved(self._path))
                return
            await self._act(action)
        except LinkFailed as failed:
            event: Event = await self._judge(failed.evidence)
        except Exception as error:
            log.exception("%s: %s failed in an unexpected way", self.name, action.value)
            seen = self._evidence_of(error, step=action.value, path=self._path)
            event = Failed(classify(seen, overrides=self.plan.overrides))
        else:
            event = Proved(self._path)
        self._post(generation, event)

    async def _prepared(self) -> bool:
        """Open the stored session and build the client, once; what prevents that needs a person."""
        if self._link.client is not None:
            return True
        try:
            await self._link.prepare(self._gate.call)
        except Exception as error:  # noqa: BLE001 - whatever it is, it needs a person and is recorded
            evidence = self._evidence_of(error, step="prepare", path=self._path)
            failure = Failure(Kind.PERMANENT, Scope.ACCOUNT, Remedy.FAIL, evidence, evidence.error_id)
            self._post(self._generation, Failed(failure))
            return False
        return True

    async def _act(self, action: Action) -> None:
        if action is Action.ROTATE_PROXY:
            self._path = self._paths.rotate(self.name, self.plan.candidates, self._path)
        elif action is Action.RELOGIN:
            failure = self._life.last_failure
            await self._link.retire(str(failure) if failure else "relogin")
        await self._open()

    async def _open(self) -> None:
        if self._life.state is State.STARTING:
            async with self._starting:
                await self._paths.slot(self._path)
                await self._link.open(self._path, self._before_sign_in)
        else:
            await self._paths.slot(self._path)
            await self._link.open(self._path, self._before_sign_in)

    async def _is_still_good(self) -> bool:
        """Ask updates.getState: a call's 401 may have meant another datacenter's key (CLIENTS section 5)."""
        try:
            await self._link.prove(self._path)
        except LinkFailed as failed:
            lost = classify(failed.evidence, overrides=self.plan.overrides).kind is Kind.AUTH
            if not lost or not self.plan.rules.can_relogin:
                raise
            return False
        return True

    async def _judge(self, evidence: Evidence) -> Failed:
        """Classify a failed attempt, and find out whether it was the path's fault."""
        if evidence.error_id == SIGN_IN_BUDGET:
            return Failed(_budget_spent(evidence))
        failure = classify(evidence, overrides=self.plan.overrides, signing_in=evidence.step == "sign-in")
        failure = self._doubt_lost_key(failure)
        elsewhere = self._paths.elsewhere(self.plan.candidates, self._path)
        if failure.kind is Kind.PROXY and elsewhere:
            self._paths.suspect(self._path)
            return Failed(failure, elsewhere=True)
        if failure.kind not in (Kind.PROXY, Kind.CONNECTION):
            return Failed(failure)
        broken = await self._paths.is_broken(self._path)
        return Failed(failure, path_broken=broken, elsewhere=elsewhere)

    def _doubt_lost_key(self, failure: Failure) -> Failure:
        """-404 may be one frontend's mistake: the key is given up at the third in a row."""
        if not _knows_no_key(failure):
            return failure
        self._key_unknown += 1
        return failure if self._key_unknown >= KEY_LOST_AFTER else _as_lost_link(failure)

    # --- sign-in --------------------------------------------------------------------------------------

    async def _before_sign_in(self) -> None:
        """Allow a sign-in if the budget does, and remember it before it leaves."""
        now = self._clock.now()
        # A clock that went back would keep sign-ins of the future in the budget for as long as it went.
        self._sign_ins = [min(at, now) for at in self._sign_ins if now - at < DAY]
        wait = self.plan.sign_in_budget.wait(self._sign_ins, now)
        if wait > 0:
            message = f"the sign-ins of this account are used up (sign_ins_per_hour/day); the next in {wait:.0f} s"
            context = (("wait", f"{wait:.3f}"),)
            raise LinkFailed(
                Evidence(Source.RPC, message, SIGN_IN_BUDGET, step="sign-in", path=self._path, context=context)
            )
        self._sign_ins.append(now)
        await self._recorder.save_sign_in(SignIn(self.name, now))

    # --- proof of life --------------------------------------------------------------------------------

    async def _keep_proved(self) -> None:
        """After `prove_every` seconds without an answered RPC, ask for one: revoked keys show themselves."""
        loop = asyncio.get_running_loop()
        while True:
            quiet = loop.time() - self._link.last_answer
            await asyncio.sleep(max(1.0, self.plan.prove_every - quiet))
            if self._life.state is not State.ONLINE or loop.time() - self._link.last_answer < self.plan.prove_every:
                continue
            generation = self._generation
            try:
                await self._link.prove(self._path)
            except LinkFailed as failed:
                failure = classify(failed.evidence, overrides=self.plan.overrides)
                if failure.scope is not Scope.CALL:
                    self._post(generation, Failed(failure))

    # --- the bot's own code ---------------------------------------------------------------------------

    async def _run_code(self) -> None:
        """Let handlers run, and `main`, from the first online on."""
        await botcode.keep_running(
            self._code, self._link.client, self.name, self._clock, jitter=self._jitter, crashed=self._crashed
        )
        await asyncio.Event().wait()  # what has returned, or was given up, is not begun again at the next recovery

    async def _code(self, client: Any) -> None:
        await self.online()  # a suspension must not use up the restarts of code that only calls
        if not self._begun:
            await client.learn_me()
            self._begun = True
            await client.begin()
        if self.plan.main is not None:
            await botcode.find_main(self.plan.main)(client)

    def _crashed(self, error: BaseException) -> None:
        self.code_failed(self._evidence_of_code(error, step="main", path=self._path))

    # --- the record -----------------------------------------------------------------------------------

    def _limit(self, failure: Failure) -> None:
        error_id = failure.error_id or failure.evidence.message
        self._limited = Limited(error_id, is_frozen(failure.error_id), self._clock.now())
        self._save()

    def _log(self, entry: Log) -> None:
        """Write one row of an incident, and the incident as it now stands."""
        incident = entry.incident
        failure = entry.failure or self._life.last_failure or _before_restart(incident, self._last_row)
        self._record(
            failure,
            entry.result,
            entry.action,
            incident=incident.id,
            attempt=entry.attempt,
            delay=entry.delay,
            duration=entry.duration,
        )
        self._recorder.incident(
            IncidentRow(
                id=incident.id,
                account=self.name,
                path=self._path,
                scope=incident.scope,
                kind=incident.kind,
                opened_at=incident.opened_at,
                closed_at=incident.closed_at,
                outcome=incident.outcome,
                last_action=incident.last_action,
                failures=incident.failures,
                attempts={kind.value: n for kind, n in incident.attempts.items()},
                backoff={kind.value: n for kind, n in incident.backoff.items()},
            )
        )

    def _record(
        self,
        failure: Failure,
        result: Result,
        action: Action,
        *,
        incident: str | None = None,
        attempt: int = 0,
        delay: float = 0.0,
        duration: float | None = None,
    ) -> None:
        evidence = failure.evidence
        row = Row(
            at=self._clock.now(),
            account=self.name,
            path=self._path,
            scope=failure.scope,
            kind=failure.kind,
            action=action,
            outcome=result,
            message=evidence.message,
            incident=incident,
            error_id=failure.error_id,
            error_code=evidence.code,
            method=evidence.method,
            attempt=attempt,
            delay=delay,
            duration=duration,
            cause=evidence.cause,
            traceback=evidence.traceback,
            context=evidence.context,
        )
        self._recorder.record(row)
        if result is Result.RECOVERED:
            log.info("%s: %s after %.1f s (%s)", self.name, result.value, duration or 0.0, failure.kind.value)
        else:
            self._last_row = row
            log.warning("%s: %s: %s; %s%s", self.name, failure.kind.value, evidence.message, result.value,
                        f", {action.value} in {delay:.1f} s" if result is Result.RETRYING else "")  # fmt: skip


def _knows_no_key(failure: Failure) -> bool:
    return failure.evidence.source is Source.TRANSPORT and failure.evidence.code == KEY_NOT_FOUND


def _as_lost_link(failure: Failure) -> Failure:
    return replace(failure, kind=Kind.CONNECTION, remedy=Remedy.RECONNECT)


def _before_restart(incident: Incident, last: Row | None) -> Failure:
    """The failure of an incident that an earlier run left open, as far as it is known."""
    message = last.message if last is not None else "before the restart"
    evidence = Evidence(Source.CODE, message, path=incident.path)
    return Failure(incident.kind, incident.scope, Remedy.RETRY, evidence, last.error_id if last is not None else None)


def _budget_spent(evidence: Evidence) -> Failure:
    wait = float(dict(evidence.context)["wait"])
    return Failure(
        Kind.AUTH, Scope.ACCOUNT, Remedy.WAIT, evidence, SIGN_IN_BUDGET, wait, why="the sign-in budget"
    )


__all__ = ["Account", "AccountLink", "AccountPaths", "AccountPlan", "Pause", "Retry", "Start", "Stop"]
