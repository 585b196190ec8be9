"""Drives ONE account: feeds what happens to the state table, performs what the table orders.

There is one queue of events and at most one piece of work at a time: an attempt, a delay, or the wait for a
path. News of work that was called off, or of a link that is gone, carries an old generation and is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from supervisor import botcode
from supervisor.calls import CallGate
from supervisor.core.budget import DAY, SignInBudget
from supervisor.core.classify import classify, is_frozen
from supervisor.core.decide import KEY_LOST_AFTER, KEY_NOT_FOUND
from supervisor.core.failure import (
    Action,
    Evidence,
    Failure,
    Kind,
    Outcome,
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
    Proved,
    RefuseCalls,
    ReleaseCalls,
    Rules,
    Start,
    Stop,
    step,
)
from supervisor.errors import AccountUnavailable
from supervisor.journal import Journal
from supervisor.ports import (
    AccountLink,
    AccountPaths,
    AccountSnapshot,
    Clock,
    Dispatcher,
    Limited,
    LinkFailed,
    Recorder,
    RecoveryContext,
    SignIn,
)

log = logging.getLogger(__name__)

SIGN_IN_BUDGET = "SIGN_IN_BUDGET"
SIGN_IN = "auth.ImportBotAuthorization"
# How long an account may take to do as it is told; it takes no time at all, unless it is stopping. Seconds.
HEEDED_WITHIN = 5.0
# How long `main` may take to end when it is cancelled. Seconds.
MAIN_GRACE = 3.0
# States in which the bot's own code has nothing to run on.
_WITHOUT_MAIN = frozenset({State.PAUSED, State.STOPPED, State.FAILED, State.NEEDS_LOGIN})
# States that outlive the daemon.
_AWAITED = frozenset({State.SUSPENDED, State.PAUSED, State.FAILED, State.NEEDS_LOGIN})


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
        dispatcher: Dispatcher,
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
            dispatcher: asks the recovery callbacks.
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
        self._dispatcher = dispatcher
        path = paths.assign(plan.name, plan.candidates, plan.before.path if plan.before else None)
        self._life = Life(rules=plan.rules, path=path, incident=plan.incident)
        if plan.before is not None and plan.before.state is State.PAUSED:
            # A person's word outlives a restart.
            self._life = replace(self._life, state=State.PAUSED, since=plan.before.since)
        last = plan.before.last_failure if plan.before else None
        self.journal = Journal(plan.name, recorder, clock, path, last)
        self._limited = plan.before.limited if plan.before else None
        self._sign_ins = list(plan.sign_ins)
        self._events: asyncio.Queue[tuple[int | None, Event]] = asyncio.Queue()
        self._generation = 0
        self._key_unknown = 0
        self._begun = False
        self._work: asyncio.Task[None] | None = None
        self._main: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()
        self._over = False
        self._link: AccountLink
        self._gate: CallGate

    def wire(self, link: AccountLink, gate: CallGate) -> None:
        """Give the account its link and the gate before it."""
        self._link, self._gate = link, gate
        if self._life.state is not State.PAUSED:
            self.tell(Start())

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
        """Wait until the account is online.

        Raises:
            AccountUnavailable: it is off, and will not come online by itself.
        """
        while self._life.state is not State.ONLINE:
            if self._over or self._life.state in (State.PAUSED, State.FAILED, State.NEEDS_LOGIN):
                failure = self._life.last_failure
                raise AccountUnavailable(self.name, self._life.state.value, str(failure) if failure else None)
            await self._changed.wait()

    def snapshot(self) -> AccountSnapshot:
        """What `status` shows."""
        life = self._life
        incident = life.incident
        return AccountSnapshot(
            name=self.name,
            state=life.state,
            since=life.since,
            path=self.journal.path,
            user_id=self._link.user_id,
            is_bot=self._link.is_bot,
            limited=self._limited if self._limited and self._limited.holds(self._clock.now()) else None,
            retry_at=life.retry_at,
            incident=incident.id if incident is not None and incident.is_open else None,
            last_failure=self.journal.last,
        )

    def tell(self, event: Event) -> None:
        """Tell the account something that is true whatever it is doing: Pause, Retry, Stop."""
        self._events.put_nowait((None, event))

    async def heeded(self) -> None:
        """Return when it has done what it was told so far, and that is on disk."""
        with suppress(TimeoutError):  # one whose driver has ended heeds nobody
            async with asyncio.timeout(HEEDED_WITHIN):
                await self._events.join()
        if not self._over:
            await self._recorder.save_account(self.snapshot())

    def forget_limit(self) -> None:
        """A person says that it is no longer limited."""
        self._limited = None

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
        self.journal.row(failure, Result.RAISED, Action.FAIL)

    def reported(self, evidence: Evidence) -> Failure:
        """A failure that somebody else's code has met: recorded, and acted on where it reaches beyond one call."""
        failure = classify(evidence, overrides=self.plan.overrides)
        self.journal.row(failure, Result.RAISED, Action.FAIL)
        if evidence.source is Source.RPC and failure.scope is not Scope.CALL:
            self.call_failed(failure)
        return failure

    # --- the driver -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the account online until it is told to stop."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                updates = group.create_task(self._link.run(), name=f"updates:{self.name}")
                prover = group.create_task(self._keep_proved(), name=f"prove:{self.name}")
                if self._life.state is State.PAUSED:
                    self._refuse()
                await self._drive()
                for task in (updates, prover):
                    task.cancel()
        except Exception as error:
            await self._break_down(error)
            raise
        finally:
            self._over = True
            self._changed.set()
            self._paths.leave(self.name)
            await self._link.shutdown()

    async def _break_down(self, error: Exception) -> None:
        """This driver itself has failed: nobody keeps the account online, and `status` must not say so."""
        inner = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        seen = self._evidence_of_code(inner, step="driver", path=self.journal.path)
        failure = Failure(Kind.UNKNOWN, Scope.ACCOUNT, Remedy.FAIL, seen)
        self._life = replace(
            self._life, state=State.FAILED, since=self._clock.now(), retry_at=None, last_failure=failure
        )
        self.journal.row(failure, Result.FAILED, Action.FAIL)
        incident = self._life.incident
        if incident is not None and incident.is_open:
            now, mono = self._clock.now(), self._clock.monotonic()
            self.journal.incident(incident.closed(Result.FAILED, now, mono))
        self._gate.refuse(State.FAILED.value, str(failure), None)
        await self._recorder.save_account(self.snapshot())

    async def _drive(self) -> None:
        while True:
            generation, event = await self._events.get()
            self._events.task_done()  # nobody sees it before all of the below is done: up to the next get nothing waits
            if generation is not None and generation != self._generation:
                continue
            last = self.snapshot() if isinstance(event, Stop) else None
            life, effects = step(self._life, event, self._moment())
            changed = life.state is not self._life.state or life.retry_at != self._life.retry_at
            self._life = life
            for effect in effects:
                self._perform(effect)
            if changed:
                if last is None:
                    self._save()
                self._changed.set()
                self._changed = asyncio.Event()
            if last is not None:
                await self._end_of_work()
                await self._recorder.save_account(_as_left(last, self.snapshot()))
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
        self._gate.release(self._link.resent)
        ending = self._main
        if ending is None or ending.done() or ending.cancelling():
            self._main = self._spawn(self._run_code(ending), "main")

    def _refuse(self) -> None:
        life = self._life
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
        path = self.journal.path
        await self._paths.back(list(dict.fromkeys((path, *self.plan.candidates))))
        self._post(generation, PathBack(elsewhere=not self._paths.works(path)))

    async def _attempt(self, action: Action, *, verify: bool) -> None:
        generation = self._generation
        if not await self._prepared():
            return
        try:
            if verify and await self._is_still_good():
                self._post(generation, Proved(self.journal.path, by=Action.RETRY))
                return
            if not await self._act(action):
                self._post(generation, Failed(_undone(self._life.last_failure, action)))
                return
        except LinkFailed as failed:
            event: Event = await self._judge(failed.evidence)
        except Exception as error:
            log.exception("%s: %s failed in an unexpected way", self.name, action.value)
            seen = self._evidence_of(error, step=action.value, path=self.journal.path)
            event = Failed(classify(seen, overrides=self.plan.overrides))
        else:
            event = Proved(self.journal.path)
        self._post(generation, event)

    async def _prepared(self) -> bool:
        """Open the stored session and build the client, once; what prevents that needs a person."""
        if self._link.client is not None:
            return True
        try:
            await self._link.prepare(self._gate.call)
        except Exception as error:  # noqa: BLE001 - whatever it is, it needs a person and is recorded
            evidence = self._evidence_of(error, step="prepare", path=self.journal.path)
            failure = Failure(Kind.PERMANENT, Scope.ACCOUNT, Remedy.FAIL, evidence, evidence.error_id)
            self._post(self._generation, Failed(failure))
            return False
        return True

    async def _act(self, action: Action) -> bool:
        """Ask the callbacks for this action, then prove the link; False if they say that it is over."""
        if self._life.incident is not None and self._life.incident.is_open:
            outcome = await self._dispatcher.dispatch(self._context(action))
            if outcome is Outcome.FAILED:
                return False
            if outcome is Outcome.RETRY:
                message = f"the recovery callback for {action.value} asked for another attempt"
                raise LinkFailed(Evidence(Source.CODE, message, step=action.value, path=self.journal.path))
        await self._open()
        return True

    def _context(self, action: Action, failure: Failure | None = None) -> RecoveryContext:
        failure, incident = failure or self._life.last_failure, self._life.incident
        return RecoveryContext(
            account=self.name,
            kind=failure.kind if failure else Kind.UNKNOWN,
            action=action,
            scope=failure.scope if failure else Scope.SESSION,
            message=failure.evidence.message if failure else "",
            error_id=failure.error_id if failure else None,
            attempt=incident.spent(failure.kind) if incident and failure else 0,
            incident=incident.id if incident else None,
            path=self.journal.path,
            client=self._link.client,
            _means=self,
        )

    # --- what a recovery callback may do (ports.RecoveryMeans) ---------------------------------------

    def use_proxy(self, proxy: str) -> None:
        """Move to a proxy by name or url."""
        self.journal.path = self._paths.use(self.name, proxy)

    def rotate_proxy(self) -> None:
        """Move to another proxy of the pool."""
        self.journal.path = self._paths.rotate(self.name, self.plan.candidates, self.journal.path)

    async def retire_session(self, reason: str) -> None:
        """Keep the present key aside."""
        await self._link.retire(reason)

    async def _open(self) -> None:
        if self._life.state is State.STARTING:
            async with self._starting:
                await self._paths.slot(self.journal.path)
                await self._link.open(self.journal.path, self._before_sign_in)
        else:
            await self._paths.slot(self.journal.path)
            await self._link.open(self.journal.path, self._before_sign_in)

    async def _is_still_good(self) -> bool:
        """Ask updates.getState: a call's 401 may have meant another datacenter's key (CLIENTS section 5)."""
        try:
            await self._link.prove(self.journal.path)
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
        if evidence.step == "sign-in" and failure.kind is Kind.FLOOD_WAIT and failure.wait is not None:
            await self._gate.keep_flood(SIGN_IN, None, failure.wait)
        elsewhere = self._paths.elsewhere(self.plan.candidates, self.journal.path) or (
            self._dispatcher.is_overridden(self._context(Action.ROTATE_PROXY, failure))
        )
        if failure.kind is Kind.PROXY and elsewhere:
            self._paths.suspect(self.journal.path)
            return Failed(failure, elsewhere=True)
        if failure.kind not in (Kind.PROXY, Kind.CONNECTION):
            return Failed(failure)
        broken = await self._paths.is_broken(self.journal.path)
        return Failed(failure, path_broken=broken, elsewhere=elsewhere)

    def _doubt_lost_key(self, failure: Failure) -> Failure:
        """-404 may be one frontend's mistake: the key is given up at the third in a row."""
        if not _knows_no_key(failure):
            return failure
        self._key_unknown += 1
        return failure if self._key_unknown >= KEY_LOST_AFTER else _as_lost_link(failure)

    # --- sign-in --------------------------------------------------------------------------------------

    async def _before_sign_in(self) -> None:
        """Allow a sign-in if no flood wait and the budget do not forbid it, and remember it before it leaves."""
        now = self._clock.now()
        left = self._gate.ledger.remaining(SIGN_IN, None, self._clock.monotonic())
        if left > 0:
            raise self._no_sign_in(left, f"Telegram wants no sign-in for {left:.0f} s more")
        # A clock that went back would keep sign-ins of the future in the budget for as long as it went.
        self._sign_ins = [min(at, now) for at in self._sign_ins if now - at < DAY]
        wait = self.plan.sign_in_budget.wait(self._sign_ins, now)
        if wait > 0:
            used_up = (
                f"the sign-ins of this account are used up (sign_ins_per_hour/day); the next in {wait:.0f} s"
            )
            raise self._no_sign_in(wait, used_up)
        self._sign_ins.append(now)
        await self._recorder.save_sign_in(SignIn(self.name, now))

    def _no_sign_in(self, wait: float, message: str) -> LinkFailed:
        context = (("wait", f"{wait:.3f}"),)
        path = self.journal.path
        return LinkFailed(
            Evidence(Source.RPC, message, SIGN_IN_BUDGET, step="sign-in", path=path, context=context)
        )

    # --- proof of life --------------------------------------------------------------------------------

    async def _keep_proved(self) -> None:
        """After `prove_every` seconds without an answered RPC, ask for one: revoked keys show themselves."""
        loop = asyncio.get_running_loop()
        while True:
            quiet = loop.time() - self._link.last_answer
            await asyncio.sleep(max(1.0, self.plan.prove_every - quiet))
            if (
                self._life.state is not State.ONLINE
                or loop.time() - self._link.last_answer < self.plan.prove_every
            ):
                continue
            generation = self._generation
            try:
                await self._link.prove(self.journal.path)
            except LinkFailed as failed:
                failure = classify(failed.evidence, overrides=self.plan.overrides)
                if failure.scope is not Scope.CALL:
                    self._post(generation, Failed(failure))

    # --- the bot's own code ---------------------------------------------------------------------------

    async def _run_code(self, before: asyncio.Task[None] | None) -> None:
        """Let handlers run, and `main`, from the first online on; never beside the one that still ends."""
        if before is not None and not before.done():
            await asyncio.wait({before})
        await botcode.keep_running(
            self._code, self._link.client, self.name, self._clock, jitter=self._jitter, crashed=self._crashed
        )
        await (
            asyncio.Event().wait()
        )  # what has returned, or was given up, is not begun again at the next recovery

    async def _code(self, client: Any) -> None:
        await self.online()  # a suspension must not use up the restarts of code that only calls
        if not self._begun:
            await client.learn_me()
            self._begun = True
            await self._begin(client)
        if self.plan.main is not None:
            await botcode.find_main(self.plan.main)(client)
            log.info("%s: main has returned", self.name)

    async def _begin(self, client: Any) -> None:
        try:
            await client.begin()
        except Exception as error:
            raise botcode.CodeUnusable(
                f"plugins cannot be loaded: {type(error).__name__}: {error}"
            ) from error

    def _crashed(self, error: BaseException) -> None:
        self.code_failed(self._evidence_of_code(error, step="main", path=self.journal.path))

    # --- the record -----------------------------------------------------------------------------------

    def _limit(self, failure: Failure) -> None:
        error_id = failure.error_id or failure.evidence.message
        frozen, now = is_frozen(failure.error_id), self._clock.now()
        before = self._limited if self._limited and self._limited.holds(now) else None
        self._limited = (
            before.again(error_id, now, frozen=frozen) if before else Limited(error_id, frozen, now)
        )
        self._save()

    def _log(self, entry: Log) -> None:
        """Write one row of an incident, and the incident as it now stands."""
        incident = entry.incident
        failure = entry.failure or self._life.last_failure or _before_restart(incident, self.journal.last)
        self.journal.row(
            failure,
            entry.result,
            entry.action,
            incident=incident.id,
            attempt=entry.attempt,
            delay=entry.delay,
            duration=entry.duration,
        )
        self.journal.incident(incident)
        if entry.result in (Result.FAILED, Result.NEEDS_LOGIN):
            self._spawn(self._tell_failed(), "failed")

    async def _tell_failed(self) -> None:
        """The account is over until a person acts: the callbacks for `fail` may tell one."""
        await self._dispatcher.dispatch(self._context(Action.FAIL))


def _as_left(before: AccountSnapshot, stopped: AccountSnapshot) -> AccountSnapshot:
    """What awaits a person, or a time, still does when the daemon has stopped: `status` says so."""
    if before.state not in _AWAITED:
        return stopped
    return replace(stopped, state=before.state, since=before.since, retry_at=before.retry_at)


def _knows_no_key(failure: Failure) -> bool:
    return failure.evidence.source is Source.TRANSPORT and failure.evidence.code == KEY_NOT_FOUND


def _as_lost_link(failure: Failure) -> Failure:
    return replace(failure, kind=Kind.CONNECTION, remedy=Remedy.RECONNECT)


def _before_restart(incident: Incident, last: Row | None) -> Failure:
    """The failure of an incident that an earlier run left open, as far as it is known."""
    message = last.message if last is not None else "before the restart"
    evidence = Evidence(Source.CODE, message, path=incident.path)
    return Failure(
        incident.kind, incident.scope, Remedy.RETRY, evidence, last.error_id if last is not None else None
    )


def _undone(failure: Failure | None, action: Action) -> Failure:
    """What a recovery callback has declared beyond recovery."""
    if failure is None:
        evidence = Evidence(Source.CODE, f"the recovery callback for {action.value} gave up")
        return Failure(Kind.UNKNOWN, Scope.ACCOUNT, Remedy.FAIL, evidence)
    return replace(failure, remedy=Remedy.FAIL)


def _budget_spent(evidence: Evidence) -> Failure:
    wait = float(dict(evidence.context)["wait"])
    return Failure(
        Kind.AUTH, Scope.ACCOUNT, Remedy.WAIT, evidence, SIGN_IN_BUDGET, wait, why="the sign-in budget"
    )
