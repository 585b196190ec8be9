"""Proof of life: a link that has been quiet for long is asked, by a timer and not by a task that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from supervisor.waiting import Spawn


class Prover:
    """Asks one account's link, each time that it has been quiet for long enough while the account is online."""

    __slots__ = ("_ask", "_due", "_is_online", "_not_before", "_spawn", "_task", "_timer")

    def __init__(
        self,
        *,
        is_online: Callable[[], bool],
        due: Callable[[], float],
        ask: Callable[[], Awaitable[float]],
        spawn: Spawn,
    ) -> None:
        """Prepare; nothing is asked before `watch`.

        Args:
            is_online: whether there is a link to be asked.
            due: when it will have been quiet for long enough, on the event loop's clock.
            ask: asks; gives the seconds for which it must not be asked again, whatever becomes of the link.
            spawn: starts a task of the account's.
        """
        self._is_online = is_online
        self._due = due
        self._ask = ask
        self._spawn = spawn
        self._not_before = 0.0
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """The account is online: ask when it is due, and so on until it is not online."""
        self._rest()
        if self._task is None:
            at = max(self._due(), self._not_before)
            self._timer = asyncio.get_running_loop().call_at(at, self._look)

    def end(self) -> None:
        """Ask no more."""
        self._rest()
        if self._task is not None:
            self._task.cancel()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if not self._is_online():
            return  # whoever brings it online watches again
        if max(self._due(), self._not_before) > asyncio.get_running_loop().time():
            self.watch()
            return
        self._task = self._spawn(self._asked(), "prove")

    async def _asked(self) -> None:
        try:
            wait = await self._ask()
        finally:
            self._task = None
        self._not_before = asyncio.get_running_loop().time() + wait
        if self._is_online():
            self.watch()
