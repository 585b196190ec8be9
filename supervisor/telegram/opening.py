"""One attempt to bring a link up: greeted, then proved; every wait in it is bounded, and ended by the loss of the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from supervisor.core.failure import Evidence, Source
from supervisor.ports import LinkFailed, RpcFailed, SessionGone
from supervisor.telegram.messages import Pending

# The greeting ping is repeated, because one that was lost with a half-open connection is found out too late.
GREETING_PING_EVERY = 0.5
# How often the server may refuse the greeting before the attempt is given up.
GREETINGS = 5


class Opening:
    """The attempt, from the dialled wire to the answered RPC."""

    def __init__(self, path: str, ping: Callable[[], int]) -> None:
        """Begin an attempt.

        Args:
            path: the path that it takes, for messages.
            ping: sends a ping and gives its msg_id.
        """
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._ping = ping
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._pong: asyncio.Future[None] = self._loop.create_future()
        self._pings: set[int] = set()
        self._current: set[int] = set()  # of these, those that were sent since the last refusal
        self._refusals = 0

    @property
    def is_greeting(self) -> bool:
        """Whether no ping has been answered yet."""
        return not self._pong.done()

    async def greet(self, seconds: float) -> float:
        """Ping until the pong, which also brings salt, clock and session up to date; give how long that took.

        Raises:
            LinkFailed: no pong came, or the wire was lost.
            RpcFailed: the server answers with an error.
        """
        begun = self._loop.time()
        while self.is_greeting:
            left = begun + seconds - self._loop.time()
            if left <= 0:
                raise self._failed("greeting", f"no pong in {seconds:g} s")
            self._greet()
            await self._wait(self._pong, min(GREETING_PING_EVERY, left))
        self._pong.result()
        return self._loop.time() - begun

    async def answer_to(self, pending: Pending, seconds: float) -> Any:
        """Wait for the answer that proves the link.

        Raises:
            LinkFailed: none came, or the wire was lost.
            RpcFailed: it is an error.
        """
        try:
            await self._wait(pending.future, seconds)
            if not pending.future.done():
                raise self._failed(pending.name, f"no answer to {pending.name} in {seconds:g} s")
            return pending.future.result()
        except SessionGone as error:
            message = f"the session was reset before {pending.name} was answered"
            raise self._failed(pending.name, message) from error

    def ponged(self) -> None:
        """A ping was answered."""
        if self.is_greeting:
            self._pong.set_result(None)

    def failed(self, msg_id: int, code: int, text: str) -> None:
        """An error came that no query waits for: if a ping did, the server refuses the key."""
        if msg_id in self._pings and self.is_greeting:
            self._pong.set_exception(RpcFailed(code, text, "Ping"))

    def refused(self, msg_id: int) -> int | None:
        """The greeting was refused for a reason that is mended: greet again; how often it was, if that is too often.

        A ping that left before that was mended says nothing new: a busy event loop may have sent several.

        Args:
            msg_id: what was refused.
        """
        if msg_id in self._pings - self._current:
            return None
        self._refusals += 1
        if self._refusals > GREETINGS:
            return self._refusals
        self._current.clear()
        self._greet()
        return None

    def _greet(self) -> None:
        msg_id = self._ping()
        self._pings.add(msg_id)
        self._current.add(msg_id)

    def lost(self, evidence: Evidence) -> None:
        """The wire is gone, and the attempt with it."""
        if not self._lost.done():
            self._lost.set_exception(LinkFailed(evidence))

    def end(self) -> None:
        """The attempt is over; the first of what ended it has been raised."""
        for future in (self._lost, self._pong):
            if future.done():
                future.exception()

    async def _wait(self, future: asyncio.Future[Any], seconds: float) -> None:
        """Wait for `future`, for the loss of the wire (which raises LinkFailed), or for so many seconds."""
        await asyncio.wait({future, self._lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._lost.done():
            self._lost.result()

    def _failed(self, step: str, message: str) -> LinkFailed:
        return LinkFailed(Evidence(Source.SILENCE, message, step=step, path=self._path))
