"""A bot's own code: letting its handlers begin, finding `main = "module:function"` and keeping it running.

Both begin with the first online and outlive recoveries: handlers for the client's whole life, `main` until its account
is paused, stopped, failed or in need of a login. `main` is started again with backoff when it raises; one that keeps
crashing is stopped, and that is said, while the account stays as it is.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from supervisor.core.decide import backoff
from supervisor.core.failure import Action, Policy
from supervisor.ports import Clock
from supervisor.waiting import Spawn

log = logging.getLogger(__name__)

RESTART = Policy(Action.RETRY, 5, 1.0, 60.0)
# This many crashes within so many seconds, and `main` is given up.
CRASHES, WITHIN = 6, 600.0

Main = Callable[[Any], Awaitable[None]]


class CodeUnusable(Exception):
    """The bot's code cannot be run at all; the message says what to mend."""


class MainNotFound(CodeUnusable):
    """`main` names nothing that can be run."""


def find_main(spec: str) -> Main:
    """Import the function that `main = "module:function"` names.

    Raises:
        MainNotFound: there is no such module or coroutine function.
    """
    module_name, _, function = spec.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise MainNotFound(f'main = "{spec}": cannot import {module_name}: {error}') from error
    found = getattr(module, function, None)
    if not inspect.iscoroutinefunction(found):
        raise MainNotFound(f'main = "{spec}": {module_name} has no "async def {function}(client)"')
    main: Main = found
    return main


async def keep_running(
    main: Main,
    client: Any,
    account: str,
    clock: Clock,
    *,
    jitter: Callable[[], float],
    crashed: Callable[[BaseException], None],
) -> None:
    """Run `main(client)`; again, with backoff, when it raises. Returns when it returned or keeps crashing.

    Args:
        main: the bot's function.
        client: its argument.
        account: the account's name, for messages.
        clock: both clocks.
        jitter: draws a number from 0 to 1.
        crashed: is told each exception.
    """
    crashes: deque[float] = deque(maxlen=CRASHES)
    while True:
        try:
            await main(client)
        except CodeUnusable as error:
            crashed(error)
            log.error("%s: %s", account, error)  # noqa: TRY400 - the message says it all
            return
        except (
            BaseException
        ) as error:  # whatever a bot's own code raises: sys.exit(), and cancellations of its own, too
            if _is_told_to_end(error):
                raise
            crashed(error)
            crashes.append(clock.monotonic())
            if len(crashes) == CRASHES and crashes[-1] - crashes[0] < WITHIN:
                log.error(  # noqa: TRY400 - the record has each traceback
                    "%s: main crashed %d times in %g s and is stopped; the account stays online",
                          account, CRASHES, WITHIN)  # fmt: skip
                return
            recent = sum(crashes[-1] - at < WITHIN for at in crashes)
            delay = backoff(RESTART, recent - 1, jitter())
            log.warning(
                "%s: main raised %s; it is started again in %.1f s", account, type(error).__name__, delay
            )
            await asyncio.sleep(delay)
        else:
            return


def _is_told_to_end(error: BaseException) -> bool:
    """Whether it is we who cancel; `main` may also meet the cancellation of something that it waited for."""
    task = asyncio.current_task()
    return isinstance(error, GeneratorExit) or (
        isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)
    )


class BotCode:
    """The code of one account. `task` is what runs it at present."""

    def __init__(
        self,
        account: str,
        main: str | None,
        clock: Clock,
        *,
        jitter: Callable[[], float],
        spawn: Spawn,
        online: Callable[[], Awaitable[None]],
        crashed: Callable[[BaseException], None],
    ) -> None:
        """Prepare it; nothing is run.

        Args:
            account: the account's name.
            main: ``module:function``, if it has one.
            clock: both clocks.
            jitter: draws a number from 0 to 1.
            spawn: starts a task of the account's.
            online: returns when the account is online.
            crashed: is told each exception.
        """
        self._account = account
        self._main = main
        self._clock = clock
        self._jitter = jitter
        self._spawn = spawn
        self._online = online
        self._crashed = crashed
        self._begun = False
        self._is_over = False  # it has returned, or was given up: not begun again at the next recovery
        self.task: asyncio.Task[None] | None = None

    def start(self, client: Any) -> None:
        """Let it run, from now on; what runs already, or has returned or was given up, is left so."""
        before = self.task
        if not self._is_over and (before is None or before.done() or before.cancelling()):
            self.task = self._spawn(self._run(client, before), "main")

    def stop(self) -> None:
        """Cancel `main`; handlers stay, for there is nothing that they could be told."""
        self._is_over = False
        if self.task is not None:
            self.task.cancel()

    async def _run(self, client: Any, before: asyncio.Task[None] | None) -> None:
        """Never beside the one that still ends."""
        if before is not None and not before.done():
            await asyncio.wait({before})
        await keep_running(
            self._code, client, self._account, self._clock, jitter=self._jitter, crashed=self._crashed
        )
        task = asyncio.current_task()
        self._is_over = task is None or not task.cancelling()  # else `main` has swallowed its cancellation

    async def _code(self, client: Any) -> None:
        await self._online()  # a suspension must not use up the restarts of code that only calls
        if not self._begun:
            await client.learn_me()
            self._begun = True
            await _begin(client)
        if self._main is not None:
            await find_main(self._main)(client)
            log.info("%s: main has returned", self._account)


async def _begin(client: Any) -> None:
    try:
        await client.begin()
    except Exception as error:
        raise CodeUnusable(f"plugins cannot be loaded: {type(error).__name__}: {error}") from error
