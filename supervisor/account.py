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

from supervisor import restart
from supervisor.attempts import Attempts, Means
from supervisor.botcode import BotCode
from supervisor.calls import Calls
from supervisor.core.budget import SignInBudget
from supervisor.core.classify import classify, is_frozen
from supervisor.core.events import (
    Attempt,
    AwaitPath,
    CloseLink,
    Delay,
    DelayOver,
    Effect,
    Event,
    Failed,
    GiveUp,
    HoldCalls,
    Log,
    PathBack,
    RefuseCalls,
    ReleaseCalls,
    Rotate,
    Start,
    Stop,
)
from supervisor.core.failure import (
    Action,
    Evidence,
    Failure,
    Kind,
    Override,
    Remedy,
    Result,
    Scope,
    Source,
    State,
)
from supervisor.core.incident import Incident
from supervisor.core.lifecycle import Life, Moment, Rules, step
from supervisor.core.standing import standing
from supervisor.errors import AccountUnavailable
from supervisor.gate import Gate
from supervisor.journal import Draft, Journal, Repeats
from supervisor.outages import Outages
from supervisor.ports import (
    AccountLink,
    AccountPaths,
    AccountSnapshot,
    Clock,
    Dispatcher,
    Limited,
    LinkFailed,
    Recorder,
    Traveller,
)
from supervisor.prover import Prover
from supervisor.rations import SignInRation
from supervisor.waiting import Bell, Mailbox

log = logging.getLogger(__name__)

# How long an account may take to do as it is told; it takes no time at all, unless it is stopping. Seconds.
HEEDED_WITHIN = 5.0
# How long `main` may take to end when it is cancelled. Seconds.
MAIN_GRACE = 3.0
# States in which the bot's own code has nothing to run on.
_WITHOUT_MAIN = frozenset({State.PAUSED, State.STOPPED, State.FAILED, State.NEEDS_LOGIN})


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
    configured: str | None = None  # as `marks` tells it


class Account:
    """One account, from its start to its stop."""

    def __init__(
        self,
        plan: AccountPlan,
        paths: AccountPaths,
        outages: Outages,
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
        """Build an account; `wire` gives it its link and calls, `run` starts it.

        Args:
            plan: what is configured.
            paths: the ways to Telegram.
            outages: trouble that accounts share.
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
        self._outages = outages
        self._recorder = recorder
        self._clock = clock
        self._jitter = jitter
        self._new_id = new_id
        self._evidence_of_code = evidence_of_code
        self._dispatcher = dispatcher
        path = paths.assign(plan.name, plan.candidates, plan.before.path if plan.before else None)
        self._life = restart.life_after(
            plan.before, plan.incident, rules=plan.rules, path=path, configured=plan.configured, clock=clock
        )
        last = plan.before.last_failure if plan.before else None
        self.journal = Journal(plan.name, recorder, clock, path, last)
        self._repeats = Repeats(self._raised)
        self._limited = plan.before.limited if plan.before else None
        self._events: Mailbox[tuple[int | None, Event]] = Mailbox()
        self._generation = 0
        self._work: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._changed = Bell()
        self._over = False
        self._at_end: AccountSnapshot | None = None
        self._link: AccountLink
        self._gate: Gate
        self._attempts: Attempts
        self._means = Means(
            paths,
            plan.candidates,
            starting or nullcontext(),
            dispatcher,
            SignInRation(plan.name, plan.sign_in_budget, plan.sign_ins, recorder, clock),
            evidence_of,
            plan.overrides,
            clock,
        )
        self._code = BotCode(
            plan.name,
            plan.main,
            clock,
            jitter=jitter,
            spawn=self._spawn,
            online=self.online,
            crashed=self._crashed,
        )
        self._prover = Prover(
            is_online=lambda: self._life.state is State.ONLINE,
            due=lambda: self._link.quiet_since + self.plan.prove_every,
            ask=self._prove,
            spawn=self._spawn,
        )

    def wire(self, link: AccountLink, calls: Calls) -> None:
        """Give the account its link, and the calls that go over it through its gate."""
        self._link, self._gate = link, calls.gate
        self._attempts = Attempts(self.name, self._means, self.journal, link, calls)
        if self._life.state in _WITHOUT_MAIN - {
            State.STOPPED
        }:  # what an earlier run has left: nobody waits for it
            self._outages.left(self.name)
        self.tell(Start())

    def reconfigure(self, plan: AccountPlan, starting: AbstractAsyncContextManager[Any]) -> None:
        """Go by another plan from now on; what is under way is not touched, and no path left: see `take_path`.

        Args:
            plan: as before but for its rules, candidates, overrides, budget and `prove_every`.
            starting: bounds how many accounts start at once.
        """
        self.plan = plan
        self._life = replace(self._life, rules=plan.rules)
        self._means.ration.budget = plan.sign_in_budget
        self._means = replace(
            self._means, candidates=plan.candidates, overrides=plan.overrides, starting=starting
        )
        self._attempts.means = self._means

    def ways(self, to: str | None = None) -> list[str]:
        """The other paths that it may take and that are not known to be broken; of them only `to`, where that is given."""
        others = self.plan.candidates if to is None else (to,)
        return [
            path for path in others if path != self.journal.path and self._paths.works(self._attempts, path)
        ]

    def rotate(self, to: str | None = None) -> str:
        """Move to another path of its pool, now; calls are held until it is online there.

        Args:
            to: which; else the least loaded that is not broken.

        Returns:
            The path.
        """
        if to is None:
            to = self._paths.rotate(self.name, self.plan.candidates, self.journal.path)
        return self._move(self._paths.use(self.name, to))

    def take_path(self) -> None:
        """Connect anew over one of the present candidates: the same one, if it is still among them."""
        self._move(self._paths.assign(self.name, self.plan.candidates, self.journal.path))

    def _move(self, path: str) -> str:
        self._stop_work()  # what is under way belongs to the path of before
        self.journal.path = path
        self.tell(Rotate(path))
        return path

    # --- what others see ------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state, as `status` shows it."""
        return self._life.state

    @property
    def traveller(self) -> Traveller:
        """The account, as the paths know it."""
        return self._attempts

    @property
    def path(self) -> str:
        """The path of its link, or of the next one."""
        return self.journal.path

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
            await self._changed.heard()

    def snapshot(self) -> AccountSnapshot:
        """What `status` shows."""
        life = self._life
        incident, outage = life.incident, self._outages.of(self.name)
        own = incident.id if incident is not None and incident.is_open else None
        return AccountSnapshot(
            name=self.name,
            state=life.state,
            since=life.since,
            path=self.journal.path,
            user_id=self._known(self._link.user_id, "user_id"),
            is_bot=self._known(self._link.is_bot, "is_bot"),
            limited=self._limited if self._limited and self._limited.holds(self._clock.now()) else None,
            retry_at=life.retry_at,
            incident=outage.id if outage is not None else own,
            last_failure=outage.row if outage is not None and outage.row is not None else self.journal.last,
            standing=standing(life, self._clock.now(), self._clock.monotonic(), self.plan.configured),
        )

    def _known(self, found: Any, fact: str) -> Any:
        """A fact that the link finds in the session, which an account that is off may not have opened yet."""
        return getattr(self.plan.before, fact) if found is None and self.plan.before is not None else found

    def left(self) -> AccountPlan:
        """Its plan, with what it leaves to whoever continues it: where it stands, path, incident and sign-ins."""
        return replace(
            self.plan,
            before=self._at_end or self.snapshot(),
            incident=self._life.incident,
            sign_ins=self._means.ration.past,
        )

    def tell(self, event: Event) -> None:
        """Tell the account something that is true whatever it is doing: Pause, Retry, Stop."""
        self._events.put((None, event))

    async def heeded(self) -> None:
        """Return when it has done what it was told so far, and that is on disk."""
        with suppress(TimeoutError):  # one whose driver has ended heeds nobody
            async with asyncio.timeout(HEEDED_WITHIN):
                await self._events.emptied()
        if not self._over:
            await self._recorder.save_account(self.snapshot())

    async def prepared(self) -> None:
        """Have its stored session opened, for a sign-in; what prevents that is told by its next attempt."""
        await self._attempts.prepared()

    def forget_limit(self) -> None:
        """A person says that it is no longer limited."""
        self._limited = None

    def link_lost(self, evidence: Evidence) -> None:
        """The link is gone (ports.LinkEvents)."""
        # It was no fresh link: what is counted in a row is counted from the next one on.
        failure = classify(evidence, overrides=self.plan.overrides, in_a_row=1)
        found = self._paths.lost(self._attempts, self.journal.path, evidence)
        self._post(self._generation, Failed(failure, path_broken=found.broken, retry_in=found.retry_in))

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
            self._post(self._generation, Failed(self._attempts.met(failure.evidence)))

    def code_failed(self, evidence: Evidence) -> None:
        """The bot's own code, or an update on its way to it, failed: recorded, and nothing else."""
        self._repeats.add(classify(evidence, overrides=self.plan.overrides))

    def reported(self, evidence: Evidence) -> Failure:
        """A failure that somebody else's code has met: recorded, and acted on where it reaches beyond one call."""
        failure = classify(evidence, overrides=self.plan.overrides)
        self.journal.write(self.journal.draft(failure, Result.RAISED, Action.FAIL))
        if evidence.source is Source.RPC and failure.scope is not Scope.CALL:
            self.call_failed(failure)
        return failure

    # --- the driver -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the account online until it is told to stop."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._link.begin(self._spawn)
                try:
                    await self._drive()
                finally:
                    self._prover.end()
                    self._link.rest()
        except Exception as error:
            await self._break_down(error)
            raise
        finally:
            self._over = True
            self._changed.ring()
            self._paths.leave(self.name)
            await self._link.shutdown()
            self._repeats.close()

    async def _break_down(self, error: Exception) -> None:
        """This driver itself has failed: nobody keeps the account online, and `status` must not say so."""
        inner = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        seen = self._evidence_of_code(inner, step="driver", path=self.journal.path)
        failure = Failure(Kind.UNKNOWN, Scope.ACCOUNT, Remedy.FAIL, seen)
        self._life = replace(
            self._life, state=State.FAILED, since=self._clock.now(), retry_at=None, last_failure=failure
        )
        self.journal.write(self.journal.draft(failure, Result.FAILED, Action.FAIL))
        incident = self._life.incident
        if incident is not None and incident.is_open:
            now, mono = self._clock.now(), self._clock.monotonic()
            self.journal.incident(incident.closed(Result.FAILED, now, mono))
        self._outages.left(self.name)
        self._gate.refuse(State.FAILED.value, str(failure), None)
        # No person mends that by an order: the next run begins anew.
        self._at_end = replace(self.snapshot(), standing=None)
        await self._recorder.save_account(self._at_end)

    async def _drive(self) -> None:
        while True:
            generation, event = await self._events.get()
            if generation is not None and generation != self._generation:
                continue
            last = self.snapshot() if isinstance(event, Stop) else None
            life, effects = step(self._life, event, self._moment())
            changed = _matters(life) != _matters(self._life)
            self._life = life
            if isinstance(event, Start):
                self._say_where_it_stands()
            for effect in effects:
                self._perform(effect)
            if changed:
                if last is None:
                    self._save()
                self._changed.ring()
            if last is not None:
                await self._end_of_work()
                self._at_end = restart.as_left(last, self.snapshot())
                await self._recorder.save_account(self._at_end)
                return

    async def _end_of_work(self) -> None:
        tasks = [task for task in (self._work, self._code.task) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=MAIN_GRACE)

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.monotonic(), self._jitter(), self._new_id())

    def _post(self, generation: int, event: Event) -> None:
        self._events.put((generation, event))

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
            case GiveUp(incident):
                self._outages.given_up(self.name, self.journal.incident_row(incident))

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
        self._prover.watch()
        self._outages.online(self.name)
        self._gate.release(self._link.resent)
        self._code.start(self._link.client)

    def _refuse(self) -> None:
        life = self._life
        failure = str(life.last_failure) if life.last_failure else None
        self._gate.refuse(life.state.value, failure, life.retry_at)
        self._link.give_up()
        if life.state in _WITHOUT_MAIN:
            self._code.stop()

    # --- work -----------------------------------------------------------------------------------------

    async def _delay(self, seconds: float) -> None:
        generation = self._generation
        await asyncio.sleep(seconds)
        self._post(generation, DelayOver())

    async def _await_path(self) -> None:
        generation, home = self._generation, self._life.path
        # Where all are broken, it waits on the one that it had while all was well.
        if home in self.plan.candidates:
            self.journal.path = self._paths.use(self.name, home)
        path = self.journal.path
        await self._paths.back(self._attempts, path)
        self._post(generation, PathBack(elsewhere=not self._paths.works(self._attempts, path)))

    async def _attempt(self, action: Action, *, verify: bool) -> None:
        generation = self._generation
        self._post(generation, await self._attempts.make(action, self._life, verify=verify))

    # --- proof of life --------------------------------------------------------------------------------

    async def _prove(self) -> float:
        """Ask: revoked keys show themselves, and updates that have stopped. Give how long not to ask again."""
        if self._attempts.flooded > 0:
            return self._attempts.flooded
        generation = self._generation
        try:
            await self._link.prove(self.journal.path)
        except LinkFailed as failed:
            failure = classify(failed.evidence, overrides=self.plan.overrides)
            await self._attempts.keep_flood(failure)
            if failure.scope is not Scope.CALL:
                self._post(generation, Failed(failure))
            return max(failure.wait or 0.0, self.plan.prove_every)
        return 0.0

    def _crashed(self, error: BaseException) -> None:
        self.code_failed(self._evidence_of_code(error, step="main", path=self.journal.path))

    def _raised(self, failure: Failure, count: int) -> None:
        self.journal.write(self.journal.draft(failure, Result.RAISED, Action.FAIL, count=count))

    # --- the record -----------------------------------------------------------------------------------

    def _say_where_it_stands(self) -> None:
        """What an earlier run has left is told, and kept for the run after this one."""
        said = restart.told(self.snapshot())
        if said is not None:
            log.warning("%s", said, extra={"account": self.name})
            self._save()

    def _limit(self, failure: Failure) -> None:
        error_id = failure.error_id or failure.evidence.message
        frozen, now = is_frozen(failure.error_id), self._clock.now()
        before = self._limited if self._limited and self._limited.holds(now) else None
        self._limited = (
            before.again(error_id, now, frozen=frozen) if before else Limited(error_id, frozen, now)
        )
        self._save()

    def _log(self, entry: Log) -> None:
        """Write one row of an incident, and the incident as it now stands; unless it is part of an outage."""
        incident = entry.incident
        failure = entry.failure or self._life.last_failure or restart.remembered(incident, self.journal.last)
        row = self.journal.draft(
            failure,
            entry.result,
            entry.action,
            incident=incident.id,
            attempt=entry.attempt,
            delay=entry.delay,
            duration=entry.duration,
            of=entry.of,
        )
        self._outages.log(self.name, Draft(self.journal, failure, row, self.journal.incident_row(incident)))
        if entry.result in (Result.FAILED, Result.NEEDS_LOGIN):
            self._spawn(self._tell_failed(), "failed")

    async def _tell_failed(self) -> None:
        """The account is over until a person acts: the callbacks for `fail` may tell one."""
        await self._dispatcher.dispatch(self._attempts.context(Action.FAIL, self._life))


def _matters(life: Life) -> tuple[State, float | None, tuple[float, ...]]:
    """What of a life is saved when it has changed, and seen by who waits for it."""
    return life.state, life.retry_at, life.losses
