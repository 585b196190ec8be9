"""One attempt to bring an account online: ask the callbacks, open the link, have an RPC answered, judge what failed."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

from supervisor import rations
from supervisor.calls import Calls
from supervisor.core.classify import classify
from supervisor.core.decide import is_limit
from supervisor.core.events import Event, Failed, Proved
from supervisor.core.failure import (
    Action,
    Evidence,
    Failure,
    Kind,
    Outcome,
    Override,
    Remedy,
    Scope,
    Source,
    State,
)
from supervisor.core.lifecycle import Life
from supervisor.journal import Journal
from supervisor.ports import AccountLink, AccountPaths, Clock, Dispatcher, LinkFailed, RecoveryContext
from supervisor.rations import SignInRation

log = logging.getLogger(__name__)

SIGN_IN = "auth.ImportBotAuthorization"
# What is asked of Telegram by every attempt of an account that is signed in, and by every one on a new session.
PROOF, GREETING = "updates.GetState", "InitConnection"


@dataclass(frozen=True, slots=True)
class Means:
    """What an attempt is made with.

    Args:
        paths: the ways to Telegram, of which `candidates` are the account's.
        starting: bounds how many accounts start at once.
        dispatcher: asks the recovery callbacks.
        ration: the account's sign-ins.
        evidence_of: makes evidence of an exception on the way to Telegram.
        overrides: the operator's own judgement of error ids.
    """

    paths: AccountPaths
    candidates: Sequence[str]
    starting: AbstractAsyncContextManager[Any]
    dispatcher: Dispatcher
    ration: SignInRation
    evidence_of: Callable[..., Evidence]
    overrides: Mapping[str, Override]
    clock: Clock


class Attempts:
    """All attempts of one account. `journal.path` is the path that the next one takes."""

    def __init__(self, account: str, means: Means, journal: Journal, link: AccountLink, calls: Calls) -> None:
        """Prepare them; nothing is tried.

        Args:
            account: the account's name.
            means: what they are made with.
            journal: the account's pen, which knows its present path.
            link: what is opened.
            calls: those of the client; their gate keeps the flood waits of sign-ins too.
        """
        self.name = account
        self.means = means
        self._journal = journal
        self._link = link
        self._calls = calls
        self._preparing = asyncio.Lock()
        self._met: Counter[tuple[Source, str | int | None]] = Counter()  # since the link was last proved

    # --- as the paths know it (ports.Traveller) -------------------------------------------------------

    @property
    def candidates(self) -> Sequence[str]:
        """The proxies that the account may use."""
        return self.means.candidates

    @property
    def dc(self) -> int | None:
        """The datacenter where it is at home."""
        return self._link.dc

    @property
    def is_urgent(self) -> bool:
        """Whether calls wait for it."""
        return self._calls.gate.held > 0

    # --- an attempt -----------------------------------------------------------------------------------

    async def make(self, action: Action, life: Life, *, verify: bool) -> Event:
        """Make one attempt; give what came of it.

        Args:
            action: the recovery action that is ordered.
            life: the account's, as it was ordered.
            verify: ask first whether the link is still good.
        """
        event = await self.prepared() or await self._made(action, life, verify=verify)
        if isinstance(event, Proved):
            self._met.clear()
            self.means.paths.answered(self, event.path)
        return event

    @property
    def flooded(self) -> float:
        """Seconds for which Telegram wants nothing of what an attempt, or a proof, asks."""
        ledger, now = self._calls.gate.ledger, self.means.clock.monotonic()
        return max(ledger.remaining(method, None, now) for method in (PROOF, GREETING))

    async def keep_flood(self, failure: Failure) -> None:
        """Have a wait that was demanded of an attempt, or of a proof, honoured by those to come: in the next run, too."""
        evidence = failure.evidence
        method = SIGN_IN if evidence.step == "sign-in" else evidence.method
        if failure.kind is Kind.FLOOD_WAIT and failure.wait is not None and method is not None:
            await self._calls.gate.keep_flood(method, None, failure.wait)

    async def _made(self, action: Action, life: Life, *, verify: bool) -> Event:
        if self.flooded > 0:
            return Failed(self._too_early(self.flooded))
        try:
            if verify and await self._is_still_good(life):
                return Proved(self._journal.path, by=Action.RETRY)
            if not await self._act(action, life):
                return Failed(_undone(life.last_failure, action))
        except LinkFailed as failed:
            return await self._judge(failed.evidence, life)
        except Exception as error:
            log.exception("%s: %s failed in an unexpected way", self.name, action.value)
            seen = self.means.evidence_of(error, step=action.value, path=self._journal.path)
            return Failed(classify(seen, overrides=self.means.overrides))
        return Proved(self._journal.path)

    async def prepared(self) -> Failed | None:
        """Open the stored session and build the client, once; what prevents that mostly needs a person."""
        async with self._preparing:
            return await self._prepare() if self._link.client is None else None

    async def _turn(self, path: str) -> None:
        """Connections to other datacenters count like any other."""
        await self.means.paths.turn(self, path)

    async def _prepare(self) -> Failed | None:
        try:
            await self._link.prepare(self._calls.call, self._turn)
        except LinkFailed as failed:  # a stored session: the table knows what passes, as a lock does
            return Failed(classify(failed.evidence, overrides=self.means.overrides))
        except Exception as error:  # noqa: BLE001 - whatever it is, it needs a person and is recorded
            evidence = self.means.evidence_of(error, step="prepare", path=self._journal.path)
            return Failed(Failure(Kind.PERMANENT, Scope.ACCOUNT, Remedy.FAIL, evidence, evidence.error_id))
        return None

    def _too_early(self, left: float) -> Failure:
        message = f"Telegram wants no {PROOF} for {left:.0f} s more"
        error_id = f"FLOOD_WAIT_{math.ceil(left)}"
        evidence = Evidence(Source.RPC, message, error_id, 420, PROOF, path=self._journal.path)
        return replace(classify(evidence, overrides=self.means.overrides), wait=left)

    async def _act(self, action: Action, life: Life) -> bool:
        """Ask the callbacks for this action, then prove the link; False if they say that it is over."""
        if life.incident is not None and life.incident.is_open:
            outcome = await self.means.dispatcher.dispatch(self.context(action, life))
            if outcome is Outcome.FAILED:
                return False
            if outcome is Outcome.RETRY:
                message = f"the recovery callback for {action.value} asked for another attempt"
                raise LinkFailed(Evidence(Source.CODE, message, step=action.value, path=self._journal.path))
        if life.state is State.STARTING:
            async with self.means.starting:
                await self._open()
        else:
            await self._open()
        return True

    async def _open(self) -> None:
        path, clock = self._journal.path, self.means.clock
        await self.means.paths.slot(self, path)
        log.debug("%s: connects over %s", self.name, path)
        began = clock.monotonic()
        await self._link.open(path, self._before_sign_in)
        log.debug("%s: is up over %s, after %.2f s", self.name, path, clock.monotonic() - began)

    async def _before_sign_in(self) -> None:
        flooded = self._calls.gate.ledger.remaining(SIGN_IN, None, self.means.clock.monotonic())
        await self.means.ration.take(self._journal.path, flooded)

    async def _is_still_good(self, life: Life) -> bool:
        """Ask updates.getState: a call's 401 may have meant another datacenter's key (CLIENTS section 5)."""
        try:
            await self._link.prove(self._journal.path)
        except LinkFailed as failed:
            judged = classify(failed.evidence, overrides=self.means.overrides)
            if judged.remedy is not Remedy.RELOGIN or not life.rules.can_relogin:
                raise
            return False
        return True

    async def _judge(self, evidence: Evidence, life: Life) -> Failed:
        """Classify a failed attempt, and find out whether it was the path's fault."""
        refused = rations.as_failure(evidence)
        if refused is not None:
            return Failed(refused)
        means, path = self.means, self._journal.path
        failure = self.met(evidence)
        await self.keep_flood(failure)
        if failure.kind not in (Kind.PROXY, Kind.CONNECTION) and not is_limit(evidence):
            if evidence.source in (Source.RPC, Source.TRANSPORT):
                means.paths.answered(self, path)
            return Failed(failure)
        found = await means.paths.diagnose(self, path, failure)
        broken = found.broken
        if broken and not found.elsewhere and self._callback_may_know(life, failure):
            broken = False  # what a callback tries is held against the cap
        return Failed(failure, path_broken=broken, elsewhere=found.elsewhere, retry_in=found.retry_in)

    def _callback_may_know(self, life: Life, failure: Failure) -> bool:
        """Whether a callback is still to be asked for a proxy where we know of none that works."""
        if failure.kind is not Kind.PROXY:
            return False
        spent = life.incident.spent(Kind.PROXY) if life.incident and life.incident.is_open else 0
        asked = self.context(Action.ROTATE_PROXY, life, failure)
        return spent < life.rules.policies[Kind.PROXY].max_retries and (
            self.means.dispatcher.is_overridden(asked)
        )

    def met(self, evidence: Evidence) -> Failure:
        """Judge a failure of the link, or one that a call has met on it, by how often it was met in a row."""
        what = evidence.source, evidence.error_id or evidence.code
        self._met[what] += 1
        return classify(
            evidence,
            overrides=self.means.overrides,
            signing_in=evidence.step == "sign-in",
            in_a_row=self._met[what],
        )

    # --- what recovery callbacks are given, and may do (ports.RecoveryMeans) ---------------------------

    def context(self, action: Action, life: Life, failure: Failure | None = None) -> RecoveryContext:
        """What a recovery callback is told.

        Args:
            action: the action that it is asked for.
            life: the account's.
            failure: the failure, if not the last.
        """
        failure, incident = failure or life.last_failure, life.incident
        return RecoveryContext(
            account=self.name,
            kind=failure.kind if failure else Kind.UNKNOWN,
            action=action,
            scope=failure.scope if failure else Scope.SESSION,
            message=failure.evidence.message if failure else "",
            error_id=failure.error_id if failure else None,
            attempt=incident.spent(failure.kind) if incident and failure else 0,
            incident=incident.id if incident else None,
            path=self._journal.path,
            client=self._link.client,
            _means=self,
        )

    def use_proxy(self, proxy: str) -> None:
        """Move to a proxy by name or url."""
        self._journal.path = self.means.paths.use(self.name, proxy)

    def rotate_proxy(self) -> None:
        """Move to another proxy of the pool."""
        means = self.means
        self._journal.path = means.paths.rotate(self.name, means.candidates, self._journal.path)

    async def retire_session(self, reason: str) -> None:
        """Keep the present key aside."""
        await self._link.retire(reason)


def _undone(failure: Failure | None, action: Action) -> Failure:
    """What a recovery callback has declared beyond recovery."""
    if failure is None:
        evidence = Evidence(Source.CODE, f"the recovery callback for {action.value} gave up")
        return Failure(Kind.UNKNOWN, Scope.ACCOUNT, Remedy.FAIL, evidence)
    return replace(failure, remedy=Remedy.FAIL)
