"""Notices when the event loop stands still, and what held it up: a blocking handler, or a process that was stopped.

The loop gives a sign of life four times a second. A thread looks for it, and where it is late notes what the loop's
thread is doing; when the loop moves again, one `Evidence` tells how long it stood and where.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from supervisor import frames
from supervisor.core.failure import Evidence, Source

# Seconds without a sign of life that are a stall, and from which on it is looked at; between two signs.
STALL, LOOK_AFTER, EVERY = 1.0, 0.7, 0.25

LOOP_STALLED = "LOOP_STALLED"
_GOODBYE = 1.0

_Doing = tuple[Sequence[str], str | None]  # where the loop's thread is, and its task's name
_WAITING: _Doing = ((), None)


@contextmanager
def watched(told: Callable[[Evidence], None]) -> Iterator[None]:
    """Watch the running loop inside the ``with``.

    Args:
        told: is given each stall, when it is over.
    """
    watch = _Watch(asyncio.get_running_loop(), told)
    thread = threading.Thread(target=watch.look, name="stalls", daemon=True)
    watch.beat()
    thread.start()
    try:
        yield
    finally:
        watch.end()
        thread.join(_GOODBYE)


def _now() -> float:
    """Seconds that pass while the machine sleeps, too."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class _Watch:
    def __init__(self, loop: asyncio.AbstractEventLoop, told: Callable[[Evidence], None]) -> None:
        self._loop = loop
        self._told = told
        self._thread = threading.get_ident()
        self._timer: asyncio.TimerHandle | None = None
        self._over = threading.Event()
        self._due = self._look_due = _now()  # of the next sign of life, and of the next look for it
        self._looked_late = 0.0  # the most that a look was late since the last sign
        self._doing: Counter[_Doing] = Counter()
        self._cpu = time.process_time()

    def beat(self) -> None:
        """The loop's sign of life."""
        now = _now()
        late, cpu = now - self._due, time.process_time()
        if late > STALL:
            # Whoever holds the interpreter keeps the looking thread from running too, but uses the processor.
            looked_late = max(self._looked_late, now - self._look_due)
            stopped = looked_late > late / 2 and cpu - self._cpu < late / 2
            self._told(_evidence(late, self._doing, stopped=stopped))
        self._cpu = cpu
        self._looked_late = 0.0
        self._doing = Counter()
        self._due = now + EVERY
        self._timer = self._loop.call_later(EVERY, self.beat)

    def end(self) -> None:
        """Watch no longer."""
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """Look for signs of life until the end, in a thread of its own."""
        while True:
            self._look_due = _now() + EVERY
            if self._over.wait(EVERY):
                return
            now = _now()
            self._looked_late = max(self._looked_late, now - self._look_due)
            if now - self._due > LOOK_AFTER:
                self._doing[self._what_it_does()] += 1

    def _what_it_does(self) -> _Doing:
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - documented, and takes no lock
        if frame is not None and frame.f_code.co_filename == selectors.__file__:
            return _WAITING  # it does, as it should: it is late because the machine gives it no time
        task = asyncio.current_task(self._loop)
        return frames.running(frame), task.get_name() if task is not None else None


def _evidence(seconds: float, doing: Counter[_Doing], *, stopped: bool) -> Evidence:
    context = [("seconds", f"{seconds:.1f}")]
    places, task = next((each for each, _ in doing.most_common(1)), _WAITING)
    if stopped or not places:
        what = f"the whole process stood still for {seconds:.1f} s: stopped, or given no time by its machine"
        places = ()
    else:
        what = f"the event loop stood still for {seconds:.1f} s: {places[-1]}"
        if task is not None:
            what += f" ({_whose(task)})"
            context.append(("task", task))
    return Evidence(
        Source.CODE,
        what,
        LOOP_STALLED,
        step="event loop",
        cause=tuple(places),
        context=tuple(context),
    )


def _whose(task: str) -> str:
    """``handlers of bot-0``: our tasks are named after what they do and for whom."""
    work, _, account = task.partition(":")
    return f"{work} of {account}" if account else f"task {task}"
