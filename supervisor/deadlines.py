"""A time-out that a standing event loop cannot bring on: what has come meanwhile is read before anybody is judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# How late a timer may fire before the event loop, not the other end, is blamed for a silence. Seconds.
STALL = 1.0
# After such a stall: how long what lies in the buffers has to be read. Seconds.
CATCH_UP = 0.2


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout` that gives what lies in the socket's buffer its turn before it strikes.

    After our own loop stood still, the timer and the answer come due in the same pass; the answer wins.

    Args:
        seconds: how long the body may take.

    Raises:
        TimeoutError: it took longer.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    async with asyncio.timeout(None) as limit:

        def strike() -> None:
            now = loop.time()
            limit.reschedule(now + CATCH_UP if now - due > STALL else now)

        # One pass of the loop reads sockets, then fires this timer; the next resumes the waiting task, then
        # cancels it if it still waits. asyncio.timeout by itself would cancel it in the first.
        timer = loop.call_at(due, strike)
        try:
            yield
        finally:
            timer.cancel()
