"""What a test watches besides the outcome: nothing leaks, nothing blocks the loop, nobody knocks like mad.

`watched` stands around the whole life of a supervisor. `peak_connects` reads the datacenter's side, `one_incident`
the recovery log.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.datacenter import Datacenter

# CPU seconds of the loop's own thread that one iteration may use.
ITERATION = 0.1
# Seconds within which everything that a supervisor had must be given back.
GIVEN_BACK = 5.0
# Threads that are kept for the next to need them, at most a few in a process: the loop's executor, and the key exchange's.
_KEPT = ("asyncio_", "key-exchange_")


@dataclass
class Watch:
    """What has been seen so far. `slowest` is in CPU seconds, `iterations` how many were looked at."""

    slowest: float = 0.0
    iterations: int = 0
    over: list[float] = field(default_factory=list)
    _searching: float = 0.0  # when the present search for garbage began
    _searched: float = 0.0  # how long those of the present iteration took

    def search(self, phase: str, info: dict[str, int]) -> None:
        """Leave full searches for garbage out: here they look through dozens of daemons, their datacenter and the tests.

        How a daemon bounds its own: supervisor/garbage.py.
        """
        if info["generation"] == 2:
            if phase == "start":
                self._searching = time.thread_time()
            else:
                self._searched += time.thread_time() - self._searching

    def took(self, seconds: float) -> None:
        """Note one iteration of the event loop."""
        self.iterations += 1
        seconds -= self._searched
        self._searched = 0.0
        self.slowest = max(self.slowest, seconds)
        if seconds > ITERATION:
            self.over.append(round(seconds, 3))


@dataclass(frozen=True)
class Held:
    """What a process holds on to."""

    tasks: Counter[str]
    threads: Counter[str]
    files: int

    @classmethod
    def now(cls) -> Held:
        """Count, without what is garbage already."""
        gc.collect()
        current = asyncio.current_task()
        tasks = (task.get_name() for task in asyncio.all_tasks() if task is not current and not task.done())
        threads = (thread.name for thread in threading.enumerate())
        return cls(
            Counter(tasks),
            Counter(name for name in threads if not name.startswith(_KEPT)),
            len(list(Path("/proc/self/fd").iterdir())),
        )

    def more_than(self, before: Held) -> str:
        """What is held besides what was held before; empty if nothing."""
        told = [f"task {name}" for name in (self.tasks - before.tasks).elements()]
        told += [f"thread {name}" for name in (self.threads - before.threads).elements()]
        if self.files > before.files:
            told.append(f"{self.files - before.files} file descriptors")
        return ", ".join(told)


@asynccontextmanager
async def watched(*, iteration: float = ITERATION) -> AsyncIterator[Watch]:
    """Hold the body to giving everything back, and to never blocking the loop.

    Args:
        iteration: the CPU seconds that one iteration of the loop may use.
    """
    importlib.import_module("pyrogram")  # seconds of CPU, once in a process
    watch = Watch()
    loop: Any = asyncio.get_running_loop()
    original = loop._run_once

    def run_once() -> None:
        begun = time.thread_time()
        original()
        watch.took(time.thread_time() - begun)

    before = Held.now()
    gc.freeze()
    gc.callbacks.append(watch.search)
    loop._run_once = run_once
    try:
        yield watch
    finally:
        del loop._run_once
        gc.callbacks.remove(watch.search)
        gc.unfreeze()
    deadline = time.monotonic() + GIVEN_BACK
    while kept := Held.now().more_than(before):
        assert time.monotonic() < deadline, f"not given back: {kept}"
        await asyncio.sleep(0.05)
    assert watch.iterations, "the loop was not looked at"
    assert watch.slowest <= iteration, f"iterations of the loop took {watch.over} s of CPU"


def peak_connects(dc: Datacenter, since: float = 0.0) -> int:
    """The most connections that the datacenter accepted within one second, from a monotonic time on."""
    opened = sorted(seen.opened_at for seen in dc.seen.connections if seen.opened_at >= since)
    return max((sum(at <= other < at + 1.0 for other in opened) for at in opened), default=0)


def one_incident(rows: Iterable[dict[str, Any]], account: str | None = None) -> Sequence[dict[str, Any]]:
    """The rows of an account's only incident; more than one, or none, fails the test."""
    belonging = [row for row in rows if row["incident"] is not None and account in (None, row["account"])]
    assert len({row["incident"] for row in belonging}) == 1, belonging
    return belonging
