"""`run`: the daemon in the foreground; a service manager puts it into the background."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from supervisor import installation, openfiles
from supervisor.cli.common import Options, options
from supervisor.config.load import load
from supervisor.errors import AlreadyRunning, ConfigError
from supervisor.record.lock import holder, prepare_state_dir

if TYPE_CHECKING:
    from supervisor.cli.logs import Style
    from supervisor.config.model import Config

_ENDING = (signal.SIGTERM, signal.SIGINT)


@click.command()
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="Lines for people, or JSON; goes before [logging] format.",
)
@options
@click.pass_obj
def run(given: Options, log_format: Style | None) -> int:
    """Run the daemon: start every account, keep it online, until SIGTERM or Ctrl-C."""
    with _ending_at_once():
        problems = installation.problems()
        if problems:
            raise ConfigError(problems)
        config = load(given.config_path)
        problems = openfiles.problems(len(config.accounts), len(config.proxies))
        if problems:
            raise ConfigError(problems)
        state_dir = config.settings.state_dir
        prepare_state_dir(state_dir)
        # The daemon takes the lock. This look comes before pyrogram's import, and before another daemon's logs are touched.
        pid = holder(state_dir)
        if pid is not None:
            raise AlreadyRunning(str(state_dir), pid or None)
        return _run(config, given, log_format or config.log_format)


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """SIGTERM and SIGINT end the process, exit code 0, and SIGHUP does not, until the daemon takes them over."""
    handlers = dict.fromkeys(_ENDING, _end) | {signal.SIGHUP: _stay}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            # Where the daemon had them it has stopped, and a second signal must not kill an interpreter that cleans up.
            ours = signal.getsignal(number) is handlers[number]
            signal.signal(number, handler if ours else signal.SIG_IGN)


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _stay(_number: int, _frame: FrameType | None) -> None:
    """The file has just been read: there is nothing to read again."""


def _run(config: Config, given: Options, style: Style) -> int:
    import asyncio

    from supervisor import daemon
    from supervisor.cli.logs import logging_to

    # Half an event loop is nothing to end at once: what comes now, comes when there is a whole one. Threads inherit this: one
    # that took a signal for the process would have it handled here all the same.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    with logging_to(config.settings.state_dir / "logs", debug=given.debug, style=style):
        for warning in installation.warnings():
            logging.getLogger(__name__).warning("%s", warning)
        return asyncio.run(_ready(daemon.run, config))


async def _ready(run: Callable[[Config], Awaitable[int]], config: Config) -> int:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    return await run(config)
