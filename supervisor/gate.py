"""The gate before an account: who may leave now, who waits, and who is sent away.

While the account recovers its calls are held, in order; when it is online they go out at `release_rate`; while it is
suspended or off they fail at once. A wait that Telegram demands holds those whom it concerns, and nobody else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from weakref import WeakValueDictionary

from supervisor.core.ledger import Flood, Ledger
from supervisor.deadlines import deadline
from supervisor.errors import AccountUnavailable
from supervisor.ports import Clock, FloodRow, Recorder

# `release_rate` calls at most leave in so many seconds: a little over one, since networks bunch what was apart.
RELEASE_WINDOW = 1.1
# What was missed is asked for before the held calls leave: of what has come meanwhile they know nothing.
FIRST = frozenset({"updates.GetDifference", "updates.GetChannelDifference"})


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a call; durations in seconds, `release_rate` in calls a second."""

    call_timeout: float = 60.0
    max_wait: float = 300.0
    max_held: int = 1000
    release_rate: float = 30.0


@dataclass(slots=True, eq=False)
class Passage:
    """What the gate knows of one call. `time_left` and `wait_left` are the seconds that it may still take."""

    method: str
    peer: str | None
    time_left: float
    wait_left: float
    may_have_been_sent: bool = False


class _Door(Enum):
    HELD = "held"
    OPEN = "open"
    REFUSED = "refused"


class Gate:
    """The only door through which an account's calls leave."""

    def __init__(
        self,
        account: str,
        recorder: Recorder,
        clock: Clock,
        limits: Limits,
        flood_wait: Callable[[float, str], Exception],
    ) -> None:
        """Build a gate; it holds until `release` is called.

        Args:
            account: the account's name.
            recorder: the recovery log, which keeps the waits.
            clock: both clocks.
            limits: the bounds of a call.
            flood_wait: makes the exception for whoever would have to wait too long: so many seconds, for this method.
        """
        self._account = account
        self._recorder = recorder
        self._clock = clock
        self._flood_wait = flood_wait
        self.limits = limits
        self._door = _Door.HELD
        self._refusal = self._refuser("starting", None, None)
        self._backlog: deque[asyncio.Future[None]] = deque()
        self._sleepers: set[asyncio.Future[None]] = set()
        self._turns: WeakValueDictionary[tuple[str, str | None], asyncio.Lock] = WeakValueDictionary()
        self._pump: asyncio.TimerHandle | None = None
        self._overdue = False
        self._departures: deque[float] = deque(maxlen=max(1, int(limits.release_rate)))
        self._burst = 0  # how many the last drain let out, 0 where pacing is over
        self._let = 0  # how many the present one did by now
        self._paced_until = 0.0
        self.ledger = Ledger()

    def reconfigure(self, limits: Limits) -> None:
        """Go by other bounds from now on; calls that are here already keep what is left of their time.

        Args:
            limits: the bounds of a call.
        """
        self.limits = limits
        self._departures = deque(self._departures, maxlen=max(1, int(limits.release_rate)))

    # --- the account's side ---------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many calls wait at the gate."""
        return len(self._backlog)

    @property
    def is_released(self) -> bool:
        """Whether calls leave, as far as the account is concerned."""
        return self._door is _Door.OPEN

    def hold(self, state: str = "recovering", failure: str | None = None) -> None:
        """Let nobody out until `release`."""
        self._door = _Door.HELD
        self._overdue = False
        self._stop_pump()
        self._refusal = self._refuser(state, failure, None)

    def release(self, resent: int = 0) -> None:
        """Let the held calls out, in order and at `release_rate`, and then the new ones as they come.

        Args:
            resent: calls that have just gone out again by themselves; they count against the rate.
        """
        self._door = _Door.OPEN
        self._refusal = self._refuser("online", None, None)
        self.carry_on(resent)

    def hold_back(self) -> None:
        """The link lives, as far as is known, but its answers are overdue: nothing more goes into it for now.

        What would be written into a link that stands still arrives at once when it moves again, and is
        answered with a flood wait.
        """
        self._overdue = True
        self._stop_pump()

    def carry_on(self, outstanding: int = 0) -> None:
        """The link answers: let out what was held back.

        Args:
            outstanding: calls that the server gets to see just now; they count against the rate.
        """
        self._overdue = False
        now = self._clock.monotonic()
        self._departures.extend(now for _ in range(min(outstanding, self._departures.maxlen or 0)))
        if self._door is _Door.OPEN and self._pump is None:
            self._burst = len(self._backlog) + 1
            self._let_out()

    def refuse(self, state: str, failure: str | None, retry_at: float | None) -> None:
        """Fail every waiting call, and each new one, at once.

        Args:
            state: the account's state.
            failure: what last went wrong.
            retry_at: when it will be tried again by itself; Unix seconds.
        """
        self._door = _Door.REFUSED
        self._overdue = False
        self._stop_pump()
        self._refusal = self._refuser(state, failure, retry_at)
        for waiting in (*self._backlog, *self._sleepers):
            if not waiting.done():
                waiting.set_exception(self._refusal("the call was waiting"))
        self._backlog.clear()

    def refusal(self, why: str) -> AccountUnavailable:
        """What a caller is told who cannot be served.

        Args:
            why: what ended the wait, in words.
        """
        return self._refusal(why)

    def _refuser(
        self, state: str, failure: str | None, retry_at: float | None
    ) -> Callable[[str], AccountUnavailable]:
        when = datetime.fromtimestamp(retry_at, UTC) if retry_at is not None else None
        return lambda why: AccountUnavailable(self._account, state, failure, when, why)

    # --- admission ------------------------------------------------------------------------------------

    async def admit(self, passage: Passage) -> None:
        """Return when the call may leave: no flood wait stands against it, and the gate is open.

        Raises:
            AccountUnavailable: the account is suspended or off, too many calls are held, or time is up.
            pyrogram.errors.FloodWait: it would have to wait longer than it may.
        """
        released = False
        while True:
            if self._door is _Door.REFUSED:
                raise self._refusal(_unanswered(passage))
            if self._flooded(passage) > 0:
                await self._wait_out(passage)
                # Those who waited for the same leave at the release rate, not all at once; nor do new ones among them.
                self._paced_until = self._clock.monotonic() + RELEASE_WINDOW
                await self._queue(passage)
                released = True
            elif self._is_open and (released or self._may_pass()):
                return
            else:
                await self._queue(passage)
                released = True

    @property
    def _is_open(self) -> bool:
        return self._door is _Door.OPEN and not self._overdue

    def _may_pass(self) -> bool:
        """Whether a call that was never held may leave at once: not past those held, nor right after a burst of them."""
        now = self._clock.monotonic()
        if self._backlog or (now < self._paced_until and self._window_wait(now) > 0):
            return False
        self._departures.append(now)
        return True

    def _window_wait(self, now: float) -> float:
        """Seconds until another call may leave at `release_rate`, counting every call that has left of late."""
        full = len(self._departures) == self._departures.maxlen
        return max(0.0, self._departures[0] + RELEASE_WINDOW - now) if full else 0.0

    async def _queue(self, passage: Passage) -> None:
        if self._door is _Door.REFUSED:
            raise self._refusal(_unanswered(passage))
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if passage.method in FIRST:
            self._backlog.appendleft(turn)
        elif len(self._backlog) >= self.limits.max_held:
            raise self._refusal(f"{len(self._backlog)} calls are held already (max_held)")
        else:
            self._backlog.append(turn)
        if self._is_open and self._pump is None:
            self._let_out()
        try:
            async with self.counted(passage, "was held"):
                await turn
        finally:
            if turn.cancelled():  # timed out, or called off: no longer held
                with suppress(ValueError):
                    self._backlog.remove(turn)

    def _let_out(self) -> None:
        """Let held calls out as fast as `release_rate` allows."""
        self._pump = None
        now = self._clock.monotonic()
        while self._backlog:
            wait = self._window_wait(now)
            if wait > 0:
                self._pump = asyncio.get_running_loop().call_later(wait, self._let_out)
                return
            turn = self._backlog.popleft()
            if not turn.done():
                self._departures.append(now)
                turn.set_result(None)
                self._let += 1
        self._drained(now)

    def _drained(self, now: float) -> None:
        """Nobody is held any longer. Who comes next is paced a while: a burst and what follows are too many together.

        So are those whom the pacing itself has held, as long as they grow fewer; if they don't, it is the bot's own rate.
        """
        if 0 < self._let < self._burst:
            self._paced_until = now + RELEASE_WINDOW
            self._burst = self._let
        else:
            self._burst = 0
        self._let = 0

    def _stop_pump(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None

    # --- waiting --------------------------------------------------------------------------------------

    def counted(self, passage: Passage, what: str) -> Counted:
        """Count a wait against the call's time; end it when that is used up.

        Args:
            passage: the call.
            what: what it waits for, in words: ``was held``.
        """
        return Counted(self, passage, what)

    async def sleep(self, seconds: float) -> None:
        """Sleep so long; a refusal ends it."""
        loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, sleeper)
        self._sleepers.add(sleeper)
        try:
            await sleeper
        finally:
            timer.cancel()
            self._sleepers.discard(sleeper)

    # --- flood waits ----------------------------------------------------------------------------------

    async def keep_flood(self, method: str, peer: str | None, seconds: float) -> None:
        """Telegram demanded a wait: nothing of this method to this peer leaves before it is over.

        Args:
            method: the method.
            peer: whom it was about, or None.
            seconds: how long.
        """
        now, mono = self._clock.now(), self._clock.monotonic()
        self.ledger, flood = self.ledger.flooded(method, peer, seconds, now, mono)
        await self._save_flood(flood)

    async def keep_slow(self, chat: str, seconds: float) -> None:
        """A chat is in slow mode: nothing is sent into it before that is over.

        Args:
            chat: the chat.
            seconds: how long.
        """
        now, mono = self._clock.now(), self._clock.monotonic()
        self.ledger, flood = self.ledger.slowed(chat, seconds, now, mono)
        await self._save_flood(flood)

    async def _save_flood(self, flood: Flood) -> None:
        await self._recorder.save_flood(
            FloodRow(self._account, flood.method, flood.peer, flood.seen_at, flood.seconds)
        )

    def _flooded(self, passage: Passage) -> float:
        return self.ledger.remaining(passage.method, passage.peer, self._clock.monotonic())

    async def _wait_out(self, passage: Passage) -> None:
        """Wait until the ledger lets the call pass; those who wait for the same leave in order."""
        turn = self._turns.setdefault((passage.method, passage.peer), asyncio.Lock())
        self._bearable(passage)
        asked = self._clock.monotonic()
        async with turn:
            passage.wait_left -= self._clock.monotonic() - asked
            while self._door is not _Door.REFUSED and (seconds := self._bearable(passage)) > 0:
                await self.sleep(seconds)
                passage.wait_left -= seconds

    def _bearable(self, passage: Passage) -> float:
        """The seconds that the call has to wait, if it may wait so long."""
        seconds = self._flooded(passage)
        if seconds > passage.wait_left:
            raise self._flood_wait(seconds, passage.method)
        return seconds


class Counted(deadline):
    """A wait that counts against a call's time.

    ``async with`` raises AccountUnavailable where that is used up.
    """

    __slots__ = ("_gate", "_passage", "_what")

    def __init__(self, gate: Gate, passage: Passage, what: str) -> None:
        """Use `Gate.counted`."""
        super().__init__(max(passage.time_left, 0.0))
        self._gate = gate
        self._passage = passage
        self._what = what

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Raise AccountUnavailable if the time is used up."""
        passage, gate = self._passage, self._gate
        passage.time_left -= self._loop.time() - (self._due - self._seconds)
        try:
            await super().__aexit__(kind, error, trace)
        except TimeoutError:
            why = f"{passage.method} {self._what} within {gate.limits.call_timeout:g} s (call_timeout)"
            raise gate.refusal(why) from None


def _unanswered(passage: Passage) -> str:
    """What has become of a call that may not leave; who hears "not sent" sends it again by himself."""
    done = "was sent, and may have been done" if passage.may_have_been_sent else "was not sent"
    return f"{passage.method} {done}"


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
