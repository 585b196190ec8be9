"""A bot's own code: finding `main = "module:function"` and keeping it running.

`main` runs from the first online until its account is paused, stopped, failed or in need of a login;
recoveries do not interrupt it. It is started again with backoff when it raises; one that keeps crashing is
stopped, and that is said, while the account stays as it is.
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
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a bot's own code raises, sys.exit() too
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
