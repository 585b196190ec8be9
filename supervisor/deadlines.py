"""A time-out that a standing event loop cannot bring on: what has come meanwhile is read before anybody is judged."""

from __future__ import annotations

import asyncio

# How late a timer may fire before the event loop, not the other end, is blamed for a silence. Seconds.
STALL = 1.0
# After such a stall: how long what lies in the buffers has to be read. Seconds.
CATCH_UP = 0.2


class deadline:  # noqa: N801 - it reads as asyncio.timeout does
    """`asyncio.timeout` that gives what lies in the socket's buffer its turn before it strikes.

    After our own loop stood still, the timer and the answer come due in the same pass; the answer wins. Every call
    has one or two of these: a generator, which the event loop keeps a list of, would cost several times as much.
    """

    __slots__ = ("_cancelling", "_due", "_has_struck", "_loop", "_seconds", "_task", "_timer")

    _task: asyncio.Task[object]
    _timer: asyncio.TimerHandle

    def __init__(self, seconds: float) -> None:
        """Prepare it; the time begins with the body.

        Args:
            seconds: how long the body may take.
        """
        self._seconds = seconds
        self._has_struck = False

    async def __aenter__(self) -> None:
        """Begin."""
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._loop = task.get_loop()
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._strike)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        """End.

        Raises:
            TimeoutError: the body took longer.
        """
        self._timer.cancel()
        # Whoever else cancels the task means it, and hears of it.
        if self._has_struck and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _strike(self) -> None:
        # One pass of the loop reads sockets, then fires this timer; the next resumes the waiting task, then
        # cancels it if it still waits. asyncio.timeout by itself would cancel it in the first.
        stood_still = self._loop.time() - self._due > STALL
        self._timer = self._loop.call_later(CATCH_UP if stood_still else 0.0, self._end)

    def _end(self) -> None:
        self._has_struck = True
        self._task.cancel()
