"""The watch over one link that is up: a quiet link is tested, a silent one given up, what has no answer repeated.

The looks of all links share their timers, one for each twentieth of a second in which one is due: an idle fleet wakes
up twenty times a second, however many accounts it has.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from itertools import islice
from typing import ClassVar
from weakref import WeakValueDictionary

from supervisor.deadlines import CATCH_UP, STALL
from supervisor.telegram.outbox import Outbox
from supervisor.telegram.pulse import Pulse, Verdict
from supervisor.telegram.wire import Wire

log = logging.getLogger(__name__)

# A look may come this much late. Seconds.
TICK = 0.05
# Looks in one pass of the event loop.
AT_ONCE = 25


class Rounds:
    """The looks that are due, of all vigils of one event loop."""

    # Weak: they live as long as a vigil, or a timer of the loop, has them.
    _of: ClassVar[WeakValueDictionary[asyncio.AbstractEventLoop, Rounds]] = WeakValueDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use `of`."""
        self._loop = loop
        self._due: dict[int, dict[Vigil, None]] = {}  # sets that know their order

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Rounds:
        """Those of a loop."""
        found = cls._of.get(loop)
        if found is None:
            found = cls._of[loop] = cls(loop)
        return found

    def enter(self, due: float, vigil: Vigil) -> int:
        """Have a vigil look when `due` has come; give the number of the tick in which that is."""
        tick = math.ceil(due / TICK)
        if tick not in self._due:
            self._due[tick] = {}
            self._loop.call_at(tick * TICK, self._go, tick)
        self._due[tick][vigil] = None
        return tick

    def leave(self, tick: int, vigil: Vigil) -> None:
        """It is not to look in that tick any more; nothing of it is kept."""
        self._due.get(tick, {}).pop(vigil, None)

    def _go(self, tick: int) -> None:
        vigils = self._due.pop(tick)
        now = list(islice(vigils, AT_ONCE))
        for vigil in now:
            del vigils[vigil]
        if vigils:
            self._due[tick] = vigils
            self._loop.call_soon(self._go, tick)
        for vigil in now:
            try:
                vigil.look(tick)
            except Exception:
                log.exception("a link could not be looked at; this is a fault of tg-supervisor")


class Vigil:
    """Watches one link from its greeting to its end. All judgement is the pulse's."""

    __slots__ = (
        "_answer_timeout",
        "_due",
        "_loop",
        "_outbox",
        "_overdue",
        "_ping",
        "_pulse",
        "_rounds",
        "_silent",
        "_taken",
        "_tick",
        "_wire",
    )

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
        self._rounds = Rounds.of(self._loop)
        self._tick = 0  # in which it is to look next; 0: never
        self._due = 0.0
        now = self._loop.time()
        self._look_in(self._next(now) - now)

    def stop(self) -> None:
        """End the watch."""
        self._rounds.leave(self._tick, self)
        self._tick = 0

    def asked(self) -> None:
        """A query has been sent: look when its answer is overdue, if not before."""
        if self._due > self._loop.time() + self._pulse.patience:
            self._look_in(self._pulse.patience)

    def moved(self) -> bool:
        """Something has come; say whether it was overdue."""
        was, self._pulse.overdue = self._pulse.overdue, False
        return was

    def _look_in(self, seconds: float) -> None:
        self._rounds.leave(self._tick, self)
        self._due = self._loop.time() + seconds
        self._tick = self._rounds.enter(self._due, self)

    def look(self, tick: int) -> None:
        """It is time to look, unless a look before this one, in the same tick, has changed that."""
        if tick != self._tick:
            return
        now = self._loop.time()
        if now - self._due > STALL:
            self._look_in(CATCH_UP)  # we stood still, not the link: read what has come before judging
            return
        if self._is_still_leaving():
            self._look_in(STALL)  # the server cannot have answered what it has not got
            return
        verdict = self._pulse.judge(now, self._wire.last_received, self._outbox.owed_since)
        if verdict is Verdict.LOST:
            self._silent(now - self._wire.last_received)
            return
        if verdict is Verdict.PING or verdict is Verdict.OVERDUE_AND_PING:
            self._ping()
        if verdict is Verdict.OVERDUE or verdict is Verdict.OVERDUE_AND_PING:
            self._overdue()
        if self._outbox.owed_since is not None:
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
