"""The ways to Telegram: "direct" and each proxy, with their health.

Trouble on a path is found once, not once for each account: who fails to connect asks for a diagnosis, which
probes the path; while it is broken the path alone is probed (PRODUCT: no caps are spent), and its accounts
wait in `back`. An account keeps its path while that works, and leaves it only for one on which Telegram is known
to answer: where all break together it is Telegram or the network, and moving would only crowd the first proxy
that is back. Nothing ever falls back from a proxy to direct.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from supervisor.core.breaker import BROKEN_PATH, REFUSING_PATH, Breaker, Position, ProbeSchedule
from supervisor.core.budget import TokenBucket
from supervisor.core.failure import Evidence, Failure, Kind
from supervisor.ports import Clock, LinkFailed, PathSnapshot

log = logging.getLogger(__name__)

DIRECT = "direct"
# How the adapter marks a proxy that does not know our password, and Telegram's code for too many connections.
_AUTHENTICATION = ("proxy", "authentication")
TRANSPORT_FLOOD = -429
# Seconds, each: how long an answer to a probe counts; after which the next path is asked besides one that is slow to
# answer; how long an account waits for its own path after another has come back.
FRESH = 1.0
SLOW = 1.0
LOYALTY = 2.0


@dataclass(slots=True, eq=False)
class _Path:
    name: str
    bucket: TokenBucket
    breaker: Breaker = field(default_factory=lambda: Breaker(BROKEN_PATH, failures_to_open=1))
    works: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(
        default_factory=asyncio.Event
    )  # while broken: do not wait for the next probe's time
    asking: asyncio.Task[bool] | None = None
    answered: float = -math.inf  # when a probe was last answered
    accounts: set[str] = field(default_factory=set)

    @property
    def broken(self) -> bool:
        return self.breaker.position is not Position.CLOSED

    @property
    def refuses(self) -> bool:
        """Somebody on it has told us to go away: it is asked seldom."""
        return self.breaker.in_force is REFUSING_PATH

    @property
    def appeal(self) -> tuple[bool, bool, int]:
        """Sorts what works first, what is being asked whether it does next, the emptier before the fuller."""
        doubted = self.asking is not None and not self.asking.done()
        return self.broken, doubted, len(self.accounts)


class Paths:
    """All paths of the daemon. `run` probes the broken ones until it is cancelled."""

    def __init__(
        self,
        names: Iterable[str],
        probe: Callable[[str], Awaitable[None]],
        clock: Clock,
        connect_budget: float,
        add: Callable[[str], str],
    ) -> None:
        """Build the paths; "direct" is always one.

        Args:
            names: the proxies' names.
            probe: asks whether Telegram answers on a path; raises LinkFailed if not.
            clock: both clocks.
            connect_budget: new connections a second on each path.
            add: makes a proxy of a url and gives its name; raises ValueError.
        """
        self._probe = probe
        self._clock = clock
        self._add = add
        self._connect_budget = connect_budget
        self._bucket = TokenBucket(connect_budget, max(1.0, connect_budget))
        self._configured = (DIRECT, *names)
        self._paths = {name: _Path(name, self._bucket) for name in self._configured}
        for path in self._paths.values():
            path.works.set()
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the probes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    def reconfigure(self, names: Iterable[str], changed: Iterable[str], connect_budget: float) -> None:
        """Take over what a changed file says of the proxies.

        Args:
            names: the proxies' names.
            changed: those that are elsewhere now, or have other credentials: what was known of them no longer holds.
            connect_budget: new connections a second on each path.
        """
        configured = {DIRECT: None, **dict.fromkeys(names)}
        for gone in [name for name in self._configured if name not in configured]:
            if not self._paths[gone].accounts:  # else a recovery callback has put somebody there
                self._paths.pop(gone).hurry.set()
        self._configured = tuple(configured)
        for name in configured:
            if name not in self._paths:
                self._paths[name] = _Path(name, self._bucket)
                self._paths[name].works.set()
        if connect_budget != self._connect_budget:
            self._connect_budget = connect_budget
            self._bucket = TokenBucket(connect_budget, max(1.0, connect_budget))
            for path in self._paths.values():
                path.bucket = self._bucket
        for name in changed:
            self._paths[name].answered = -math.inf
            if self._paths[name].broken:
                self._paths[name].hurry.set()

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
        if name not in self._paths:
            self._paths[name] = _Path(name, self._bucket)
            self._paths[name].works.set()
        self._move(account, name)
        return name

    def leave(self, account: str) -> None:
        """The account uses no path any longer."""
        for path in self._paths.values():
            path.accounts.discard(account)

    def _least_loaded(self, names: Sequence[str]) -> str:
        return min(names, key=lambda name: self._paths[name].appeal)

    def _move(self, account: str, chosen: str) -> None:
        self.leave(account)
        self._paths[chosen].accounts.add(account)

    # --- health ---------------------------------------------------------------------------------------

    async def slot(self, name: str) -> None:
        """Wait for a place in the path's connect budget."""
        path = self._paths[name]
        path.bucket, wait = path.bucket.take(self._clock.monotonic())
        if wait > 0:
            await asyncio.sleep(wait)

    async def diagnose(self, name: str, candidates: Sequence[str], failure: Failure) -> tuple[bool, bool]:
        """Find out what an attempt that failed says of its path.

        Args:
            name: the path.
            candidates: the proxies that the account may use.
            failure: what the attempt met; of kind `proxy` or `connection`.

        Returns:
            Whether the path is broken; whether Telegram answers on another one of the candidates.
        """
        path = self._paths[name]
        if failure.kind is Kind.PROXY:
            if not path.broken:  # asked meanwhile: who can move need not wait for a proxy that hangs
                self._suspect(path)
            elsewhere = await self._another(candidates, name)
            return path.broken if elsewhere else await self.is_broken(name), elsewhere
        broken = await self.is_broken(name)
        return broken, broken and await self._another(candidates, name)

    async def is_broken(self, name: str) -> bool:
        """Whether Telegram does not answer on this path: known already, or asked now, once for all who ask."""
        path = self._paths[name]
        if path.broken:
            return True
        return await asyncio.shield(self._suspect(path))

    async def _another(self, candidates: Sequence[str], current: str) -> bool:
        """Whether Telegram answers on another path; they are asked one after another, the emptiest first."""
        others = [self._paths[name] for name in candidates if name != current]
        asked: set[asyncio.Future[bool]] = set()
        for path in sorted(others, key=lambda path: path.appeal):
            if path.broken:
                continue
            if self._clock.monotonic() - path.answered < FRESH:
                return True
            asked.add(self._suspect(path))
            if await _one_works(asked, SLOW):
                return True
        return await _one_works(asked)

    async def back(self, current: str, candidates: Sequence[str]) -> None:
        """Wait until the path answers again; or another does, and this one, which is asked then, still does not.

        Args:
            current: the account's own path.
            candidates: the proxies that it may use.
        """
        own = self._paths[current]
        names = dict.fromkeys((current, *candidates))
        waits = {name: asyncio.ensure_future(self._paths[name].works.wait()) for name in names}
        try:
            await asyncio.wait(waits.values(), return_when=asyncio.FIRST_COMPLETED)
            if not own.refuses:
                await asyncio.wait([waits[current]], timeout=LOYALTY)
        finally:
            for wait in waits.values():
                wait.cancel()

    def works(self, name: str) -> bool:
        """Whether the path is not known to be broken."""
        return not self._paths[name].broken

    def snapshots(self) -> list[PathSnapshot]:
        """What `status` shows."""
        return [
            PathSnapshot(p.name, "broken" if p.broken else "ok" if p.accounts else "unused", len(p.accounts))
            for p in self._paths.values()
            if p.accounts or p.name != DIRECT
        ]

    def _spawn(self, work: Coroutine[None, None, bool], name: str) -> asyncio.Task[bool]:
        if self._group is None:
            work.close()
            raise RuntimeError("Paths.run() comes first")
        return self._group.create_task(work, name=name)

    def _suspect(self, path: _Path) -> asyncio.Task[bool]:
        """Have the path asked, unless it is being asked."""
        if path.asking is None or path.asking.done():
            path.asking = self._spawn(self._ask(path), f"probe:{path.name}")
        return path.asking

    async def _ask(self, path: _Path) -> bool:
        """Probe once; a path that does not answer is watched from then on."""
        cause = await self._answer(path)
        if cause is None:
            return False
        path.breaker = path.breaker.trip(self._clock.monotonic(), _schedule(cause))
        path.works.clear()
        log.warning("path %s is broken: %s; its accounts wait for it", path.name, cause.message)
        self._spawn(self._watch(path), f"watch:{path.name}")
        return True

    async def _watch(self, path: _Path) -> bool:
        """Probe a broken path at the breaker's pace until it answers."""
        while path.breaker.probe_at is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, path.breaker.probe_at - self._clock.monotonic())):
                    await path.hurry.wait()
            if self._paths.get(path.name) is not path:
                return False  # no longer configured
            cause = await self._answer(path)
            if cause is None:
                break
            path.hurry.clear()
            path.breaker = path.breaker.try_out(max(self._clock.monotonic(), path.breaker.probe_at)).failed(
                self._clock.monotonic(), _schedule(cause)
            )
        path.breaker = path.breaker.succeeded()
        path.works.set()
        path.hurry.clear()
        log.info("path %s answers again", path.name)
        for other in self._paths.values():  # the trouble may have been one for all
            if other.broken and not other.refuses:
                other.hurry.set()
        return False

    async def _answer(self, path: _Path) -> Evidence | None:
        """Probe; None if Telegram answered, else what was seen."""
        path.bucket, wait = path.bucket.take(self._clock.monotonic())
        await asyncio.sleep(wait)
        try:
            await self._probe(path.name)
        except LinkFailed as failed:
            return failed.evidence
        except Exception:
            log.exception("the probe of path %s failed; this is a fault of tg-supervisor", path.name)
        path.answered = self._clock.monotonic()
        return None


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


def _schedule(cause: Evidence) -> ProbeSchedule:
    """When to probe after this failure: seldom where somebody refuses us, often where nobody answers."""
    refuses = _AUTHENTICATION in cause.context or cause.code == TRANSPORT_FLOOD
    return REFUSING_PATH if refuses else BROKEN_PATH
