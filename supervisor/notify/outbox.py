"""What waits to be sent to one sink. A sink that is dead, or slow, delays nobody: not the daemon, and no other sink."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from supervisor.core.notices import Notice
from supervisor.notify.sinks import Passing, Refused, Sender

log = logging.getLogger(__name__)

# How many messages wait for a sink; how long one is tried; how long a sink may demand to be left alone. Seconds.
WAITING, WITHIN, PATIENCE = 100, 30.0, 3600.0


class Later(Exception):
    """The sink wants to be left alone for longer than a message is tried."""

    def __init__(self, wait: float) -> None:
        super().__init__()
        self.wait = wait


class Outbox:
    """The messages of one sink, sent one after another by `run`."""

    def __init__(self, name: str, sender: Sender, failed: Callable[[str], None]) -> None:
        """Begin empty.

        Args:
            name: the sink's.
            sender: sends one message.
            failed: is told why, when messages can no longer be sent.
        """
        self.name = name
        self.sender = sender
        self._failed = failed
        self._waiting: deque[tuple[Notice, float]] = deque()
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lost = 0
        self._is_broken = False

    def put(self, notice: Notice, at: float) -> None:
        """Have a message sent; never waits. Where too many do, the oldest is lost, and counted."""
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append((notice, at))
        self._idle.clear()
        self._news.set()

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        while True:
            while self._waiting:
                await self._next()
            self._idle.set()
            self._news.clear()
            await self._news.wait()

    async def emptied(self) -> None:
        """Return when nothing waits any more."""
        await self._idle.wait()

    async def _next(self) -> None:
        notice, at = self._waiting.popleft()
        lost = self._lost
        try:
            await deliver(self.sender, _with_losses(notice, lost), at)
        except Later as later:
            self._waiting.appendleft((notice, at))
            await asyncio.sleep(later.wait)
        except (Passing, Refused) as error:
            self._lost += 1
            self._say_broken(str(error))
        except Exception as error:
            self._lost += 1
            log.exception("the sink %s failed; this is a fault of tg-supervisor", self.name)
            self._say_broken(type(error).__name__)
        else:
            if self._is_broken:
                log.warning("notifications to %s are sent again; %d were lost", self.name, self._lost)
            self._is_broken = False
            self._lost -= lost  # of more, that were lost meanwhile, the next one tells

    def _say_broken(self, why: str) -> None:
        if not self._is_broken:
            self._is_broken = True
            text = "notifications to %s cannot be sent: %s; that is tried again with the next one"
            log.error(text, self.name, why)
            self._failed(why)


def _with_losses(notice: Notice, lost: int) -> Notice:
    if not lost:
        return notice
    said = f"({lost} earlier messages could not be sent.)"
    return replace(notice, text=f"{notice.text}\n{said}" if notice.text else said)


async def deliver(sender: Sender, notice: Notice, at: float) -> None:
    """Send one message, tried as often as the sender is worth it, within 30 s.

    Args:
        sender: sends it.
        notice: the message.
        at: its Unix time.

    Raises:
        Passing: it could not be sent now.
        Refused: it never will be.
    """
    last: Passing | None = None
    try:
        async with asyncio.timeout(WITHIN):
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(sender.tries),
                wait=_pause,
                retry=retry_if_exception_type(Passing),
                reraise=True,
            ):
                with attempt:
                    try:
                        await _try(sender, notice, at)
                    except Passing as error:
                        last = error
                        raise
    except TimeoutError:
        raise last or Passing(f"it was not sent within {WITHIN:g} s") from None


async def _try(sender: Sender, notice: Notice, at: float) -> None:
    try:
        async with asyncio.timeout(sender.per_try):
            await sender.send(notice, at)
    except TimeoutError:
        raise Passing(f"no answer within {sender.per_try:g} s") from None
    except Passing as error:
        if WITHIN / 2 < error.wait <= PATIENCE:
            raise Later(error.wait) from error
        raise


def _pause(state: RetryCallState) -> float:
    """1 s, 2 s; as long as is demanded, if that is longer."""
    error = state.outcome.exception() if state.outcome is not None else None
    demanded = error.wait if isinstance(error, Passing) else 0.0
    return max(demanded, 2.0 ** (state.attempt_number - 1))
