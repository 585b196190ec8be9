"""Who connects next: a budget of new connections for each path and one over all of them; and one of the probes."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.core.budget import TokenBucket, Window
from supervisor.ports import Clock

# Who asks within so many seconds of another goes before or after that one by chance: seconds.
SHUFFLED = 1.0
# Later than a timer of the event loop may be is a stall: seconds.
STALL = 0.001
# What leaves evenly arrives unevenly: so much of the budget is used, that no second has more of it than the budget.
USED = 0.98
# Sooner than this is now: a timer is not finer.
_NOW = 1e-6

_Waiter = tuple[bool, float, int, asyncio.Future[None]]


@dataclass(slots=True, eq=False)
class _Queue:
    """Those who wait for one path: first who has calls waiting, then by their time."""

    bucket: TokenBucket
    waiting: list[_Waiter] = field(default_factory=list)

    def first(self) -> _Waiter | None:
        """Who is next, of those who still want it."""
        while self.waiting and self.waiting[0][3].done():
            heapq.heappop(self.waiting)
        return self.waiting[0] if self.waiting else None


class Turns:
    """Gives out turns to connect, no faster than the budgets allow."""

    def __init__(self, clock: Clock, each: float, total: float, jitter: Callable[[], float]) -> None:
        """Begin with full budgets.

        Args:
            clock: both clocks.
            each: new connections a second on each path; as many may begin at once.
            total: the same over all paths.
            jitter: draws a number from 0 to 1.
        """
        self._clock = clock
        self._jitter = jitter
        self._each = each
        self._total = _bucket(total)
        self._queues: dict[str, _Queue] = {}
        self._asked = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf  # when it was to go off

    def reconfigure(self, each: float, total: float) -> None:
        """Go by other budgets from now on; full ones, where they differ."""
        if each != self._each:
            self._each = each
            for queue in self._queues.values():
                queue.bucket = _bucket(each)
        renewed = _bucket(total)
        if renewed.rate != self._total.rate:
            self._total = renewed
        self._give()

    async def take(self, path: str, *, urgent: bool = False) -> None:
        """Wait for a turn.

        Args:
            path: where the connection will go.
            urgent: calls wait for it: it goes before those that have none.
        """
        queue, now = self._queue(path), self._clock.monotonic()
        if queue.first() is None and self._wait(queue, now) <= _NOW:
            self._spend(queue, now)
            return
        turn = asyncio.get_running_loop().create_future()
        self._asked += 1
        heapq.heappush(queue.waiting, (not urgent, now + SHUFFLED * self._jitter(), self._asked, turn))
        self._give()
        await turn

    def charge(self, path: str) -> None:
        """A connection was begun that could not wait for its turn, as a probe: those after it wait the longer."""
        self._spend(self._queue(path), self._clock.monotonic())

    def drain(self, path: str) -> None:
        """The path is back: its accounts return at the budget's rate, without the burst that one of them may make."""
        queue = self._queue(path)
        queue.bucket = queue.bucket.drained(self._clock.monotonic())

    def forget(self, path: str) -> None:
        """Nobody connects over this path any more; its budget is a full one when somebody does again."""
        queue = self._queues.get(path)
        if queue is not None and queue.first() is None:
            del self._queues[path]

    def _queue(self, path: str) -> _Queue:
        if path not in self._queues:
            self._queues[path] = _Queue(_bucket(self._each))
        return self._queues[path]

    def _wait(self, queue: _Queue, now: float) -> float:
        return max(queue.bucket.due(now), self._total.due(now))

    def _spend(self, queue: _Queue, now: float) -> None:
        queue.bucket, _ = queue.bucket.take(now)
        self._total, _ = self._total.take(now)

    def _give(self) -> None:
        """Give out the turns that are due, and come back when the next one is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._forgo(self._clock.monotonic())
        while True:
            now = self._clock.monotonic()
            asking = [
                (queue, waiter) for queue in self._queues.values() if (waiter := queue.first()) is not None
            ]
            if not asking:
                return
            queue, waiter = min(asking, key=lambda pair: (self._wait(pair[0], now), pair[1][:3]))
            wait = self._wait(queue, now)
            if wait > _NOW:
                self._due = now + wait
                self._timer = asyncio.get_running_loop().call_later(wait, self._give)
                return
            self._spend(queue, now)
            waiter[3].set_result(None)

    def _forgo(self, now: float) -> None:
        """After a stall of ours the turns that it has held up do not leave all at once."""
        if now - self._due > STALL:
            self._total = self._total.drained(now)
            for queue in self._queues.values():
                if queue.first() is not None:
                    queue.bucket = queue.bucket.drained(now)


def _bucket(rate: float) -> TokenBucket:
    return TokenBucket(USED * rate, max(1.0, rate))


class ProbeTurns:
    """Gives out turns to probe: so many in any second, over all paths."""

    def __init__(self, clock: Clock, most: int) -> None:
        """Begin with nothing sent.

        Args:
            clock: both clocks.
            most: probes in any second.
        """
        self._clock = clock
        self._window = Window(most)
        self._waiting: list[_Waiter] = []
        self._asked = 0
        self._timer: asyncio.TimerHandle | None = None

    def reconfigure(self, most: int) -> None:
        """Go by another budget from now on."""
        if most != self._window.most:
            self._window = Window(most)

    async def take(self, *, urgent: bool) -> None:
        """Wait for a turn.

        Args:
            urgent: somebody waits for what it finds: it goes before those that are sent just to know.
        """
        turn = asyncio.get_running_loop().create_future()
        self._asked += 1
        heapq.heappush(self._waiting, (not urgent, 0.0, self._asked, turn))
        self._give()
        await turn

    def _give(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            now = self._clock.monotonic()
            wait = self._window.due(now)
            if wait > _NOW:
                self._timer = asyncio.get_running_loop().call_later(wait, self._give)
                return
            turn = heapq.heappop(self._waiting)[3]
            if not turn.done():
                self._window = self._window.take(now)
                turn.set_result(None)
