"""The ways to Telegram: "direct" and each proxy, with their health.

Trouble on a path is found once, not once for each account: who fails to connect asks `is_broken`, which
probes the path; while it is broken the path alone is probed (PRODUCT: no caps are spent), and its accounts
wait in `back`. An account keeps its path while that works; nothing ever falls back from a proxy to direct.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field

from supervisor.core.breaker import BROKEN_PATH, REFUSING_PATH, Breaker, Position, ProbeSchedule
from supervisor.core.budget import TokenBucket
from supervisor.core.failure import Evidence
from supervisor.ports import Clock, LinkFailed, PathSnapshot

log = logging.getLogger(__name__)

DIRECT = "direct"
# How the adapter marks a proxy that does not know our password, and Telegram's code for too many connections.
_AUTHENTICATION = ("proxy", "authentication")
TRANSPORT_FLOOD = -429


@dataclass(slots=True, eq=False)
class _Path:
    name: str
    bucket: TokenBucket
    breaker: Breaker = field(default_factory=lambda: Breaker(BROKEN_PATH, failures_to_open=1))
    works: asyncio.Event = field(default_factory=asyncio.Event)
    asking: asyncio.Task[bool] | None = None
    accounts: set[str] = field(default_factory=set)

    @property
    def broken(self) -> bool:
        return self.breaker.position is not Position.CLOSED


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
        self._bucket = TokenBucket(connect_budget, max(1.0, connect_budget))
        self._paths = {name: _Path(name, self._bucket) for name in (DIRECT, *names)}
        for path in self._paths.values():
            path.works.set()
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the probes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

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

    def elsewhere(self, candidates: Sequence[str], current: str) -> bool:
        """Whether there is a path besides the current one that is not known to be broken."""
        return any(name != current and not self._paths[name].broken for name in candidates)

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
        return min(names, key=lambda name: (self._paths[name].broken, len(self._paths[name].accounts)))

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

    async def is_broken(self, name: str) -> bool:
        """Whether Telegram does not answer on this path: known already, or asked now, once for all who ask."""
        path = self._paths[name]
        if path.broken:
            return True
        if path.asking is None or path.asking.done():
            path.asking = self._spawn(self._ask(path), f"probe:{name}")
        return await asyncio.shield(path.asking)

    def suspect(self, name: str) -> None:
        """Have the path probed without waiting for what comes of it."""
        path = self._paths[name]
        if not path.broken and (path.asking is None or path.asking.done()):
            path.asking = self._spawn(self._ask(path), f"probe:{name}")

    async def back(self, names: Sequence[str]) -> None:
        """Wait until one of these paths answers again."""
        waits = [asyncio.ensure_future(self._paths[name].works.wait()) for name in names]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
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
            await asyncio.sleep(max(0.0, path.breaker.probe_at - self._clock.monotonic()))
            cause = await self._answer(path)
            if cause is None:
                break
            path.breaker = path.breaker.try_out(max(self._clock.monotonic(), path.breaker.probe_at)).failed(
                self._clock.monotonic(), _schedule(cause)
            )
        path.breaker = path.breaker.succeeded()
        path.works.set()
        log.info("path %s answers again", path.name)
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
        return None


def _schedule(cause: Evidence) -> ProbeSchedule:
    """When to probe after this failure: seldom where somebody refuses us, often where nobody answers."""
    refuses = _AUTHENTICATION in cause.context or cause.code == TRANSPORT_FLOOD
    return REFUSING_PATH if refuses else BROKEN_PATH
