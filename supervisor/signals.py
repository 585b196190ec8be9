"""What the operating system tells the daemon, and what the daemon asks of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

from supervisor import frames

# From the signal to the end of the process, where something does not let go of it: within the 10 s. Seconds.
LAST_RESORT = 9.0


def obey(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, reread: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`; the process ends `LAST_RESORT` seconds later, whatever holds it up. SIGHUP: `reread`.

    Not by `loop.add_signal_handler`: it hears nothing while somebody's code blocks the loop, and gives the signals
    back when the loop is closed, so that a second one would kill the process at its very end.
    """

    def told(_number: int, _frame: FrameType | None) -> None:
        if not signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, LAST_RESORT)
        with suppress(RuntimeError):  # the loop is closed: all is over but the interpreter
            loop.call_soon_threadsafe(stop.set)

    def hung_up(_number: int, _frame: FrameType | None) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(reread.set)

    signal.signal(signal.SIGALRM, _end_at_once)
    signal.signal(signal.SIGHUP, hung_up)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)


def _end_at_once(_number: int, interrupted: FrameType | None) -> None:
    """End the process, and say where somebody's code still is: in a blocking handler's thread, or in the loop's."""
    threads = {**sys._current_frames(), threading.get_ident(): interrupted}  # noqa: SLF001 - documented, and takes no lock
    blocking = [place for frame in threads.values() for place in frames.own(frame)[-1:]]
    told = blocking or list(frames.running(interrupted))
    # Past the log, which takes locks that the interrupted code may hold.
    os.write(2, f"the daemon ends without waiting any longer for {', '.join(told)}\n".encode())
    os._exit(0)
