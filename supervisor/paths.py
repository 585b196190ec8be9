"""The ways to Telegram: "direct" and each proxy. Who takes which, and who may connect when.

Trouble on a path is found once, not once for each account: who fails to connect asks for a diagnosis, which
probes the path; while it is broken the path alone is probed (PRODUCT: no caps are spent), and its accounts
wait in `back`. Of a path to each datacenter there is a `Way` of its own, for one datacenter may be away and the others
not. An account keeps its path while that works, and leaves it only for one on which Telegram is known
to answer: where all break together it is Telegram or the network, and moving would only crowd the first proxy
that is back. Nothing ever falls back from a proxy to direct.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from supervisor.core.breaker import BROKEN_PATH, REFUSING_PATH, Position, ProbeSchedule
from supervisor.core.decide import is_limit
from supervisor.core.failure import DEFAULT_POLICIES, Evidence, Failure, Kind, Policy, Source
from supervisor.ports import Clock, Diagnosis, LinkFailed, PathSnapshot, Recorder, Traveller
from supervisor.turns import ProbeTurns, Turns
from supervisor.ways import Health, Means, Way

DIRECT = "direct"
# Where accounts without a session begin (Pyrogram, session/internals/data_center.py).
HOME_DC = 2
# Seconds, each: how long an answer to a probe counts; after which the next path is asked besides one that is slow to
# answer; how long an account waits for its own path after another has come back; how often health is written down.
FRESH = 1.0
SLOW = 1.0
LOYALTY = 2.0
KEPT = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the paths go by.

    Args:
        connect_budget: new connections a second on each path.
        connect_budget_total: over all paths.
        probe_budget: probes in any second, over all paths.
        breaker_failures: connections in a row that fail, of several accounts, and break a path.
        rate_limit: how long a path rests that Telegram has answered -429 on.
    """

    connect_budget: float = 20.0
    connect_budget_total: float = 100.0
    probe_budget: int = 3
    breaker_failures: int = 5
    rate_limit: Policy = DEFAULT_POLICIES[Kind.RATE_LIMIT]


@dataclass(slots=True, eq=False)
class _Path:
    """A path, with a way to each datacenter that somebody has gone to."""

    name: str
    ways: dict[int, Way] = field(default_factory=dict)
    accounts: set[str] = field(default_factory=set)

    @property
    def broken(self) -> bool:
        return any(way.broken for way in self.ways.values())

    @property
    def appeal(self) -> tuple[bool, bool, int]:
        """Sorts what works first, what does not say whether it does next, the emptier before the fuller."""
        return self.broken, any(way.is_slow for way in self.ways.values()), len(self.accounts)


class Paths:
    """All paths of the daemon. `run` owns their probes until it is cancelled."""

    def __init__(
        self,
        names: Iterable[str],
        probe: Callable[[str, int], Awaitable[float | None]],
        clock: Clock,
        limits: Limits,
        add: Callable[[str], str],
        *,
        recorder: Recorder,
        jitter: Callable[[], float],
        home: int = HOME_DC,
        saved: Mapping[str, PathSnapshot] | None = None,
    ) -> None:
        """Build the paths; "direct" is always one.

        Args:
            names: the proxies' names.
            probe: asks whether Telegram answers on a path to a datacenter; gives the seconds it took, raises LinkFailed.
            clock: both clocks.
            limits: how many connect, and what breaks a path.
            add: makes a proxy of a url and gives its name; raises ValueError.
            recorder: where the paths' health is kept.
            jitter: draws a number from 0 to 1.
            home: the datacenter where accounts without a session begin.
            saved: what an earlier run knew of the paths.
        """
        self._clock = clock
        self._add = add
        self._limits = limits
        self._recorder = recorder
        self._home = home
        self._turns = Turns(clock, limits.connect_budget, limits.connect_budget_total, jitter)
        self._means = Means(
            clock,
            probe,
            charge=self._turns.charge,
            drain=self._turns.drain,
            spawn=self._spawn,
            failures_to_open=limits.breaker_failures,
            limited=_rest(limits.rate_limit),
            answers=self._ask_others,
            probes=ProbeTurns(clock, limits.probe_budget),
        )
        self._configured = (DIRECT, *names)
        self._paths = {name: _Path(name) for name in self._configured}
        self._kept: dict[str, PathSnapshot] = {}
        for name, before in (saved or {}).items():
            if name in self._paths:
                self._take_up(self._paths[name], before)
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the probes, and keep the paths' health, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for path in self._paths.values():
                for way in path.ways.values():
                    way.watch()
            try:
                while True:
                    await asyncio.sleep(KEPT)
                    self._keep()
            finally:
                self._keep()

    def reconfigure(self, names: Iterable[str], changed: Iterable[str], limits: Limits) -> None:
        """Take over what a changed file says of the proxies.

        Args:
            names: the proxies' names.
            changed: those that are elsewhere now, or have other credentials: what was known of them no longer holds.
            limits: how many connect, and what breaks a path.
        """
        configured = {DIRECT: None, **dict.fromkeys(names)}
        for gone in [name for name, path in self._paths.items() if name not in configured]:
            if not self._paths[
                gone
            ].accounts:  # else a recovery callback has put somebody there, or they leave it yet
                for way in self._paths.pop(gone).ways.values():
                    way.removed = True
                    way.hurry.set()
                self._turns.forget(gone)
        self._configured = tuple(configured)
        for name in configured:
            self._paths.setdefault(name, _Path(name))
        self._limits = limits
        self._turns.reconfigure(limits.connect_budget, limits.connect_budget_total)
        self._means.failures_to_open = limits.breaker_failures
        self._means.probes.reconfigure(limits.probe_budget)
        for name in changed:
            for way in self._paths[name].ways.values():
                way.answered_at = float("-inf")
                if way.broken:
                    way.hurry.set()

    # --- which path -----------------------------------------------------------------------------------

    def assign(self, account: str, candidates: Sequence[str], before: str | None) -> str:
        """Give an account its path: the one it had, if it still may, else the one with the fewest accounts.

        Args:
            account: its name.
            candidates: the proxies that it may use, in the order of the file; none means direct.
            before: the path that it had.
        """
        names = candidates or (DIRECT,)
        chosen = before if before is not None and before in names else self._least_loaded(names)
        self._move(account, chosen)
        return chosen

    def rotate(self, account: str, candidates: Sequence[str], current: str) -> str:
        """Move an account to the least loaded other path that is not broken; stay where there is none."""
        others = [name for name in candidates if name != current and not self._paths[name].broken]
        chosen = self._least_loaded(others) if others else current
        self._move(account, chosen)
        return chosen

    def use(self, account: str, proxy: str) -> str:
        """Move an account to a proxy: a configured one's name, or a url.

        Raises:
            ValueError: it is neither.
        """
        name = proxy if proxy in self._paths else self._add(proxy)
        self._paths.setdefault(name, _Path(name))
        self._move(account, name)
        return name

    def leave(self, account: str) -> None:
        """The account uses no path any longer."""
        for path in self._paths.values():
            if account in path.accounts:
                path.accounts.discard(account)
                for way in path.ways.values():
                    way.left(account)

    def _least_loaded(self, names: Sequence[str]) -> str:
        return min(names, key=lambda name: self._paths[name].appeal)

    def _move(self, account: str, chosen: str) -> None:
        self.leave(account)
        self._paths[chosen].accounts.add(account)

    def _way(self, who: Traveller, name: str) -> Way:
        return self._way_to(self._paths[name], who.dc or self._home)

    def _way_to(self, path: _Path, dc: int) -> Way:
        if dc not in path.ways:
            name = path.name if dc == self._home else f"{path.name} to datacenter {dc}"
            path.ways[dc] = Way(path.name, dc, name, self._means)
        return path.ways[dc]

    # --- connecting -----------------------------------------------------------------------------------

    async def slot(self, who: Traveller, name: str) -> None:
        """Wait for a turn in the connect budget.

        Args:
            who: the account; one whose calls wait goes first.
            name: the path.

        Raises:
            LinkFailed: the path is broken, by what it is.
        """
        way = self._way(who, name)
        await way.verdict()
        _passable(way, who)
        await self._turns.take(name, urgent=who.is_urgent)
        _passable(way, who)

    async def turn(self, who: Traveller, name: str) -> None:
        """Wait for a turn in the connect budget alone: for a connection to another datacenter than the account's own."""
        await self._turns.take(name, urgent=who.is_urgent)

    def answered(self, who: Traveller, name: str) -> None:
        """Telegram has answered an account's connection on this path, be it with an error."""
        self._way(who, name).answered(who.name)

    def lost(self, who: Traveller, name: str, evidence: Evidence) -> Diagnosis:
        """An account's link on this path is gone; give what that alone says of the path."""
        way = self._way(who, name)
        if not is_limit(evidence):
            way.lost()
            return Diagnosis(broken=False)
        way.told_off(evidence)
        return Diagnosis(broken=True, retry_in=way.probe_in)

    async def diagnose(self, who: Traveller, name: str, failure: Failure) -> Diagnosis:
        """Find out what an attempt that failed says of its path.

        Args:
            who: the account.
            name: the path.
            failure: what the attempt met; of kind `proxy` or `connection`, or -429.
        """
        way = self._way(who, name)
        known = not way.lets(who.name)
        if is_limit(failure.evidence):
            if not known:
                way.told_off(failure.evidence)
            return Diagnosis(broken=True, retry_in=way.probe_in)
        if not known:
            way.failed(who.name, failure.evidence)
        if failure.kind is Kind.PROXY:
            if not way.broken:  # asked meanwhile: who can move need not wait for a proxy that hangs
                way.suspect()
            elsewhere = await self._another(who, name)
            return Diagnosis(way.broken if elsewhere else await way.is_broken(), elsewhere)
        broken = await way.is_broken()
        return Diagnosis(broken, broken and await self._another(who, name))

    async def _another(self, who: Traveller, current: str) -> bool:
        """Whether Telegram answers on another path; they are asked one after another, the emptiest first."""
        others = [self._paths[name] for name in who.candidates if name != current]
        asked: set[asyncio.Future[bool]] = set()
        for path in sorted(others, key=lambda path: path.appeal):
            way = self._way(who, path.name)
            if way.broken:
                continue
            if self._clock.monotonic() - way.answered_at < FRESH:
                return True
            asked.add(way.suspect())
            if await _one_works(asked, SLOW):
                return True
        return await _one_works(asked)

    async def back(self, who: Traveller, current: str) -> None:
        """Wait until the path answers again; or another does, and this one, which is asked then, still does not.

        Args:
            who: the account.
            current: its own path.
        """
        own = self._way(who, current)
        if own.limited:  # never is a limit dodged
            await self._first(who, [own], own)
            return
        names = dict.fromkeys((current, *who.candidates))
        first = await self._first(who, [self._way(who, name) for name in names], own)
        if first is not own and not own.refuses:
            await self._first(who, [own], own, LOYALTY)

    async def _first(
        self, who: Traveller, ways: Sequence[Way], own: Way, timeout: float | None = None
    ) -> Way | None:
        """The first of these ways that works; None if none does in time."""
        waiter: asyncio.Future[Way] = asyncio.get_running_loop().create_future()
        for way in ways:
            way.wait(waiter, who.name, urgent=who.is_urgent, home=way is own)
        try:
            await asyncio.wait([waiter], timeout=timeout)
            return waiter.result() if waiter.done() else None
        finally:
            for way in ways:
                way.let_go(waiter)

    def works(self, who: Traveller, name: str) -> bool:
        """Whether the account may connect on this path, as far as is known."""
        return self._way(who, name).lets(who.name)

    # --- what others see ------------------------------------------------------------------------------

    def population(self) -> dict[str, int]:
        """How many accounts are on each path that has any."""
        return {path.name: len(path.accounts) for path in self._paths.values() if path.accounts}

    def is_down(self, name: str) -> bool:
        """Whether a path is known to be broken, to any datacenter."""
        return name in self._paths and self._paths[name].broken

    def snapshots(self) -> list[PathSnapshot]:
        """What `status` shows."""
        return [self._snapshot(path) for path in self._paths.values() if path.accounts or path.name != DIRECT]

    def _snapshot(self, path: _Path) -> PathSnapshot:
        ways = sorted(path.ways.values(), key=lambda way: (way.broken, way.health.failed_at or 0.0))
        state = "broken" if path.broken else "ok" if path.accounts else "unused"
        if not ways:
            return PathSnapshot(path.name, state, len(path.accounts))
        worst, now, mono = ways[-1], self._clock.now(), self._clock.monotonic()
        probe_at = worst.breaker.probe_at
        health = [way.health for way in ways]
        return PathSnapshot(
            path.name,
            state,
            len(path.accounts),
            breaker=worst.breaker.position.value,
            since=worst.since,
            probe_at=None if probe_at is None else now + probe_at - mono,
            succeeded=sum(each.succeeded for each in health),
            failed=sum(each.failed for each in health),
            latency=max((each.latency for each in health if each.latency is not None), default=None),
            last_failure=worst.health.last_failure,
            failed_at=worst.health.failed_at,
        )

    # --- what is kept over restarts -------------------------------------------------------------------

    def _keep(self) -> None:
        """Write down what has changed."""
        for path in self._paths.values():
            if path.ways:
                snapshot = self._snapshot(path)
                if snapshot != self._kept.get(path.name):
                    self._kept[path.name] = snapshot
                    self._recorder.path(snapshot)

    def _take_up(self, path: _Path, before: PathSnapshot) -> None:
        """A path that was broken is so still, until it is asked: who was refused on it does not knock before its time."""
        way = self._way_to(path, self._home)
        way.health = Health(
            before.succeeded, before.failed, before.latency, before.last_failure, before.failed_at
        )
        way.since = before.since
        if before.breaker == Position.CLOSED.value:
            return
        now = self._clock.now()
        left = 0.0 if before.probe_at is None else min(max(0.0, before.probe_at - now), REFUSING_PATH.longest)
        schedule = REFUSING_PATH if left > BROKEN_PATH.first else BROKEN_PATH
        said = before.last_failure or "broken before the restart"
        source = Source.SOCKET if path.name == DIRECT else Source.PROXY
        way.resume(Evidence(source, said, step="dial", path=path.name), schedule, left)

    # --- its parts ------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[None, None, bool], name: str) -> asyncio.Task[bool]:
        if self._group is None:
            work.close()
            raise RuntimeError("Paths.run() comes first")
        return self._group.create_task(work, name=name)

    def _ask_others(self, answers: Way) -> None:
        """A broken way answers: the trouble may have been one for all, and be over for all."""
        for path in self._paths.values():
            for other in path.ways.values():
                if other is not answers and other.broken and not other.refuses and not other.limited:
                    other.hurry.set()


def _passable(way: Way, who: Traveller) -> None:
    if not way.lets(who.name):
        assert way.cause is not None
        raise LinkFailed(way.cause)


def _rest(policy: Policy) -> ProbeSchedule:
    """How long a path rests that was told off, and the longer the more often it is (PRODUCT "rate_limit": the default, growing)."""
    return ProbeSchedule(first=max(policy.base_delay, 1.0), growth=2.0, longest=max(policy.max_delay, 1.0))


async def _one_works(asked: set[asyncio.Future[bool]], timeout: float | None = None) -> bool:
    """Whether one of the paths that are being asked is found not to be broken, within so many seconds."""
    while asked:
        done, _ = await asyncio.wait(asked, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if any(not task.result() for task in done):
            return True
        if not done:
            return False
        asked -= done
    return False
