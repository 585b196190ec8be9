"""One way to Telegram: a path to one datacenter. Its breaker, its probes, and who waits for it.

    closed --a probe fails, or so many connections in a row--> open, and alone it is probed
    open --a probe is answered--> half-open: one account, the canary, goes first
    half-open --the canary is answered, or there is none--> closed: the others follow, within the connect budget
    half-open --the canary fails--> open

The canary is what a probe cannot be: a whole link. Where a path answers probes and serves nobody, the probes come less
and less often.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace

from supervisor.core.breaker import BROKEN_PATH, REFUSING_PATH, Breaker, Position, ProbeSchedule
from supervisor.core.decide import is_limit
from supervisor.core.failure import Evidence, Source
from supervisor.ports import Clock, LinkFailed
from supervisor.turns import ProbeTurns
from supervisor.waiting import in_portions

log = logging.getLogger(__name__)

# How the adapter marks a proxy that does not know our password.
_AUTHENTICATION = ("proxy", "authentication")
# A path that answers its probes and then fails the canary.
SERVES_NOBODY = ProbeSchedule(first=1.0, growth=2.0, longest=300.0)
# Where a probe is not answered within so many seconds, others are preferred.
DOUBTFUL = 0.5
# How long the others wait for the canary's word. Seconds.
CANARY = 5.0
# So many links lost on a way within so many seconds: it is asked before anybody goes that way again.
LOST_TOGETHER, TOGETHER = 3, 1.0
# The weight of one more measurement in the latency that is shown.
_SMOOTHING = 0.2


@dataclass(slots=True)
class Health:
    """What a way has done so far. `latency` in seconds; `failed_at` is a Unix time."""

    succeeded: int = 0
    failed: int = 0
    latency: float | None = None
    last_failure: str | None = None
    failed_at: float | None = None

    def success(self, latency: float | None) -> None:
        """Telegram answered, after so many seconds if they were measured."""
        self.succeeded += 1
        if latency is not None:
            before = latency if self.latency is None else self.latency
            self.latency = before + _SMOOTHING * (latency - before)

    def failure(self, evidence: Evidence, now: float) -> None:
        """It did not."""
        self.failed += 1
        self.last_failure, self.failed_at = evidence.message, now


@dataclass(slots=True)
class Means:
    """What all ways share.

    Args:
        clock: both clocks.
        probe: asks whether Telegram answers; gives the seconds it took, raises LinkFailed.
        charge: notes a connection over a path that waited for no turn.
        drain: the path is back: no burst.
        spawn: owns a task.
        failures_to_open: so many connections in a row that fail open the breaker; 2 accounts or more are needed for it.
        limited: when a way is asked again that has answered -429.
        answers: is told of a broken way whose probe was answered.
        probes: the budget of all probes.
    """

    clock: Clock
    probe: Callable[[str, int], Awaitable[float | None]]
    charge: Callable[[str], None]
    drain: Callable[[str], None]
    spawn: Callable[[Coroutine[None, None, bool], str], asyncio.Task[bool]]
    failures_to_open: int
    limited: ProbeSchedule
    answers: Callable[[Way], None]
    probes: ProbeTurns


@dataclass(slots=True, eq=False)
class Way:
    """A path to one datacenter; `name` is how the log calls it."""

    path: str
    dc: int
    name: str
    means: Means
    breaker: Breaker = field(default_factory=lambda: Breaker(BROKEN_PATH, failures_to_open=1))
    health: Health = field(default_factory=Health)
    since: float | None = None  # Unix time at which the breaker came to stand where it does
    cause: Evidence | None = None  # of what it is broken
    asking: asyncio.Task[bool] | None = None
    asked_at: float = math.inf  # when it was asked last
    answered_at: float = -math.inf  # when a probe was last answered
    canary: str | None = None
    hurry: asyncio.Event = field(default_factory=asyncio.Event)  # do not wait for the next probe's time
    _watcher: asyncio.Task[bool] | None = None
    _no_canary: asyncio.Event = field(default_factory=asyncio.Event)
    _deadline: asyncio.TimerHandle | None = None
    _failing: list[str] = field(default_factory=list)  # accounts whose connections have failed in a row
    _lost: deque[float] = field(default_factory=lambda: deque(maxlen=LOST_TOGETHER))
    _waiting: dict[asyncio.Future[Way], tuple[str, bool]] = field(default_factory=dict)
    removed: bool = False

    # --- what is known of it --------------------------------------------------------------------------

    @property
    def broken(self) -> bool:
        """Whether it is not known to work."""
        return self.breaker.position is not Position.CLOSED

    @property
    def doubted(self) -> bool:
        """Whether it is being asked."""
        return self.asking is not None and not self.asking.done()

    @property
    def is_slow(self) -> bool:
        """Whether it has been asked for a while and not answered."""
        return self.doubted and self.means.clock.monotonic() - self.asked_at > DOUBTFUL

    @property
    def refuses(self) -> bool:
        """Somebody on it has told us to go away: it is asked seldom."""
        return self.breaker.in_force is REFUSING_PATH

    @property
    def limited(self) -> bool:
        """Telegram takes no more connections from it for now: that is no reason to go another way."""
        return self.breaker.in_force is self.means.limited

    @property
    def probe_in(self) -> float:
        """Seconds until it is asked again; 0 while it works."""
        at = self.breaker.probe_at
        return 0.0 if at is None else max(0.0, at - self.means.clock.monotonic())

    def lets(self, account: str) -> bool:
        """Whether this account may connect on it now."""
        return not self.broken or self.canary == account

    # --- what accounts meet on it ---------------------------------------------------------------------

    def answered(self, account: str) -> None:
        """Telegram answered an account's connection, whatever it said."""
        self.health.success(None)
        self._failing.clear()
        if self.canary == account:
            self._mended()

    def failed(self, account: str, evidence: Evidence) -> None:
        """An account's connection failed; one of several accounts that do so in a row says something of the way."""
        self.health.failure(evidence, self.means.clock.now())
        if self.canary == account:
            self._open(evidence, SERVES_NOBODY)
            return
        self._failing.append(account)
        del self._failing[: -self.means.failures_to_open]
        if (
            not self.broken
            and len(self._failing) == self.means.failures_to_open
            and len(set(self._failing)) > 1
        ):
            self._open(evidence, BROKEN_PATH)

    def told_off(self, evidence: Evidence) -> None:
        """Telegram takes no more connections from here (-429): nobody connects for a while, who is online stays."""
        self.health.failure(evidence, self.means.clock.now())
        if not self.limited or self.breaker.position is Position.HALF_OPEN:
            self._open(evidence, self.means.limited)

    def lost(self) -> None:
        """A link was lost. Where several are within a second, the way is asked before all of them knock."""
        now = self.means.clock.monotonic()
        self.answered_at = -math.inf  # what was known of it before
        self._lost.append(now)
        together = len(self._lost) == LOST_TOGETHER and now - self._lost[0] <= TOGETHER
        if together and not self.broken and not self.doubted:
            self.suspect()

    async def verdict(self) -> None:
        """While it is asked, wait for the answer."""
        if self.doubted and self.asking is not None:
            await asyncio.shield(self.asking)

    # --- waiting for it -------------------------------------------------------------------------------

    def wait(self, waiter: asyncio.Future[Way], account: str, *, urgent: bool, home: bool) -> None:
        """Have a future resolved when it works; where it is the account's own way, perhaps earlier: as its canary."""
        if not self.broken:
            _tell(waiter, self)
            return
        self._waiting[waiter] = (account if home else "", urgent)

    def left(self, account: str) -> None:
        """An account has gone: if it was the canary, the others wait for its word no longer."""
        if self.canary == account:
            self._mended()

    def let_go(self, waiter: asyncio.Future[Way]) -> None:
        """The waiter does not wait any longer."""
        self._waiting.pop(waiter, None)

    # --- asking it ------------------------------------------------------------------------------------

    def suspect(self) -> asyncio.Task[bool]:
        """Have it asked, unless it is being asked; the task tells whether it is broken."""
        if self.asking is None or self.asking.done():
            self.asked_at = self.means.clock.monotonic()
            self.asking = self.means.spawn(self._ask(), f"probe:{self.name}")
        return self.asking

    async def is_broken(self) -> bool:
        """Whether Telegram does not answer on it: known already, or asked now, once for all who ask."""
        return self.broken or await asyncio.shield(self.suspect())

    async def _ask(self) -> bool:
        await self.means.probes.take(urgent=True)
        cause = await self._probe()
        if cause is None or cause.source is Source.CODE:  # a fault of ours says nothing of the path
            return self.broken
        if not self.broken:
            self._open(cause, _schedule(cause, self.means.limited))
        return True

    async def _probe(self) -> Evidence | None:
        """Probe; None if Telegram answered, else what was seen."""
        self.means.charge(self.path)
        clock = self.means.clock
        try:
            self.health.success(await self.means.probe(self.path, self.dc))
        except LinkFailed as failed:
            if failed.evidence.source is not Source.CODE:
                self.health.failure(failed.evidence, clock.now())
            return failed.evidence
        except Exception:
            log.exception("the probe of path %s failed; this is a fault of tg-supervisor", self.name)
        self.answered_at = clock.monotonic()
        return None

    def resume(self, cause: Evidence, schedule: ProbeSchedule, after: float) -> None:
        """It was broken when the daemon stopped, and is asked after so many seconds, once it is watched."""
        now = self.means.clock.monotonic()
        self.cause = cause
        self.breaker = replace(self.breaker.trip(now, schedule), probe_at=now + after)

    def watch(self) -> None:
        """Probe it until it is back, if it is broken."""
        if self.broken and (self._watcher is None or self._watcher.done()):
            self._watcher = self.means.spawn(self._watch(), f"watch:{self.name}")

    def _open(self, cause: Evidence, schedule: ProbeSchedule) -> None:
        now, watched = self.means.clock.monotonic(), self.broken
        self.breaker = self.breaker.failed(now, schedule) if watched else self.breaker.trip(now, schedule)
        self._stop_canary()
        self._failing.clear()
        self.cause = cause
        self.hurry.clear()
        if watched:
            return
        self.since = self.means.clock.now()
        log.warning("path %s is broken: %s; its accounts wait for it", self.name, cause.message)
        self.watch()

    async def _watch(self) -> bool:
        """Probe it at the breaker's pace until it is closed."""
        while self.broken and not self.removed:
            await self._due()
            if self.breaker.position is not Position.OPEN or self.removed:
                continue
            due = self.breaker.probe_at or 0.0
            self.breaker = self.breaker.try_out(max(self.means.clock.monotonic(), due))
            await self.means.probes.take(urgent=False)
            cause = await self._probe()
            self.hurry.clear()
            if self.breaker.position is not Position.HALF_OPEN:
                continue  # told off meanwhile
            if cause is None:
                self.means.answers(self)
                self._send_canary()
            else:
                self.cause = cause
                schedule = _schedule(cause, self.means.limited)
                self.breaker = self.breaker.failed(self.means.clock.monotonic(), schedule)
        return False

    async def _due(self) -> None:
        """Wait until the next probe is due, after the canary is back: its deadline bounds that."""
        if self.canary is not None:
            await self._no_canary.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.probe_in):
                await self.hurry.wait()

    # --- the canary -----------------------------------------------------------------------------------

    def _send_canary(self) -> None:
        """Half-open: let one account of those that wait here go first, whose calls wait if there is one; or none."""
        waiting = [
            (not urgent, waiter)
            for waiter, (name, urgent) in self._waiting.items()
            if name and not waiter.done()
        ]
        if not waiting:
            self._mended()
            return
        waiter = min(waiting, key=lambda pair: pair[0])[1]
        self.canary, _ = self._waiting.pop(waiter)
        self._no_canary.clear()
        self._deadline = asyncio.get_running_loop().call_later(CANARY, self._mended)
        _tell(waiter, self)

    def _stop_canary(self) -> None:
        self.canary = None
        self._no_canary.set()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _mended(self) -> None:
        self._stop_canary()
        self.breaker = self.breaker.succeeded()
        self.cause = None
        self.since = self.means.clock.now()
        self._failing.clear()
        self.hurry.set()  # the watch ends
        self.means.drain(self.path)
        log.info("path %s answers again", self.name)
        waiting, self._waiting = self._waiting, {}
        in_portions(functools.partial(_tell, waiter, self) for waiter in waiting)


def _tell(waiter: asyncio.Future[Way], way: Way) -> None:
    if not waiter.done():
        waiter.set_result(way)


def _schedule(cause: Evidence, limited: ProbeSchedule) -> ProbeSchedule:
    """When to probe after this failure: seldom where somebody refuses us, often where nobody answers."""
    if is_limit(cause):
        return limited
    return REFUSING_PATH if _AUTHENTICATION in cause.context else BROKEN_PATH
