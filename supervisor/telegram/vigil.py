"""The watch over one link that is up: a quiet link is tested, a silent one given up, what has no answer repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from supervisor.deadlines import CATCH_UP, STALL
from supervisor.telegram.outbox import Outbox
from supervisor.telegram.pulse import Pulse, Verdict
from supervisor.telegram.wire import Wire


class Vigil:
    """Watches one link from its greeting to its end. All judgement is the pulse's."""

    def __init__(
        self,
        wire: Wire,
        outbox: Outbox,
        pulse: Pulse,
        answer_timeout: float,
        *,
        ping: Callable[[], object],
        overdue: Callable[[], None],
        silent: Callable[[float], None],
    ) -> None:
        """Begin to watch.

        Args:
            wire: the link's connection.
            outbox: what waits for answers.
            pulse: the judgement about this link.
            answer_timeout: seconds after which a query without an answer is repeated.
            ping: sends a small ping.
            overdue: is told when answers are overdue.
            silent: is told for how many seconds nothing has come, when that is too long; the watch then is over.
        """
        self._loop = asyncio.get_running_loop()
        self._wire = wire
        self._outbox = outbox
        self._pulse = pulse
        self._answer_timeout = answer_timeout
        self._ping = ping
        self._overdue = overdue
        self._silent = silent
        self._taken = 0  # bytes that the other end had taken at the last look
        self._timer: asyncio.TimerHandle
        self._due = 0.0
        now = self._loop.time()
        self._look_in(self._next(now) - now)

    def stop(self) -> None:
        """End the watch."""
        self._timer.cancel()

    def asked(self) -> None:
        """A query has been sent: look when its answer is overdue, if not before."""
        if self._due > self._loop.time() + self._pulse.patience:
            self._timer.cancel()
            self._look_in(self._pulse.patience)

    def moved(self) -> bool:
        """Something has come; say whether it was overdue."""
        was, self._pulse.overdue = self._pulse.overdue, False
        return was

    def _look_in(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now - self._due > STALL:
            self._look_in(CATCH_UP)  # we stood still, not the link: read what has come before judging
            return
        if self._is_still_leaving():
            self._look_in(STALL)  # the server cannot have answered what it has not got
            return
        verdict = self._pulse.judge(now, self._wire.last_received, self._outbox.owed_since)
        if Verdict.LOST in verdict:
            self._silent(now - self._wire.last_received)
            return
        if Verdict.PING in verdict:
            self._ping()
        if Verdict.OVERDUE in verdict:
            self._overdue()
        self._outbox.repeat(now - self._answer_timeout)
        self._look_in(self._next(now) - now)

    def _next(self, now: float) -> float:
        owed = self._outbox.owed_since
        due = self._pulse.next_check(now, self._wire.last_received, owed)
        return due if owed is None else max(now, min(due, owed + self._answer_timeout))

    def _is_still_leaving(self) -> bool:
        """Whether bytes of ours have been moving out since the last look, as a large upload's do for long."""
        if self._wire.write_buffer_size == 0:
            return False
        before, self._taken = self._taken, self._wire.taken()
        return self._taken > before
