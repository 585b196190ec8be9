"""What all commands share: the options that are taken before and after the command, exit codes, the state directory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import click

from supervisor.config import places
from supervisor.control.protocol import ControlError

F = TypeVar("F", bound=Callable[..., Any])


class ExitCode(IntEnum):
    """How a command ended (PRODUCT.md); from 64 on they are those of sysexits.h."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_RUNNING = 69
    TRY_LATER = 75
    LOGIN_NEEDED = 77
    CONFIG = 78
    INTERRUPTED = 130  # 128 + SIGINT
    PIPE_CLOSED = 141  # 128 + SIGPIPE


@dataclass(slots=True)
class Options:
    """The options common to all commands, as given on either side of the command."""

    config: Path | None = None
    as_json: bool = False
    no_color: bool = False
    debug: bool = False

    @property
    def config_path(self) -> Path:
        """The configuration: as given, else where one is looked for."""
        return self.config or places.config_file(os.environ)

    @property
    def color(self) -> bool:
        """Whether stdout is coloured: a terminal, and nobody has asked for none."""
        return sys.stdout.isatty() and not self.no_color and not os.environ.get("NO_COLOR")

    def state_dir(self) -> Path:
        """The state directory, without a look at anything else in the file.

        Raises:
            ConfigError: the file cannot be read, or names no usable directory.
        """
        from supervisor.config.load import load_state_dir

        return load_state_dir(self.config_path)


def not_ready(pid: int) -> ControlError:
    """A daemon holds the state directory, but nobody answers at its socket."""
    text = f"the daemon (pid {pid}) does not answer yet: it is starting or stopping; try again"
    return ControlError("not_ready", text, retryable=True)


def options(command: F) -> F:
    """Add the common options to a command; it reads them with ``click.pass_obj``."""
    for declare in reversed(_DECLARED):
        command = declare(command)
    return command


def since_option(default: str | None = None) -> Callable[[F], F]:
    """Add ``--since``; the command gets a Unix time, or None where it was not given and has no default."""
    return click.option(
        "--since",
        callback=_since,
        default=default,
        show_default=True,
        metavar="WHEN",
        help="From then on: 90m, 24h, 7d, or an RFC 3339 time.",
    )


def _since(_: click.Context, param: click.Parameter, value: str | None) -> float | None:
    from supervisor.cli.words import parse_since

    try:
        return None if value is None else parse_since(value, time.time())
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from error


def say(text: str) -> None:
    """Tell the operator something that is not data."""
    click.echo(text, err=True)


def say_what_is_missing(newest: float | None) -> None:
    """Tell what is not in the log yet: what an older release wrote comes bit by bit, the newest first.

    Args:
        newest: as `queries.not_taken_over` tells it.
    """
    from supervisor.cli.words import clock

    if newest is not None:
        say(f"incomplete: what an older release recorded up to {clock(newest)} is still being taken over")


def ask(prompt: str, *, hidden: bool = False) -> str:
    """One line from the person; "" at the end of the input."""
    if hidden and sys.stdin.isatty():
        import getpass
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", getpass.GetPassWarning
            )  # no terminal of our own: stdin's is silenced
            try:
                return getpass.getpass(prompt, stream=sys.stderr)
            except EOFError:
                return ""
    click.echo(prompt, err=True, nl=False)
    line = sys.stdin.readline()
    if not sys.stdin.isatty():
        click.echo(err=True)
    return line.rstrip("\r\n") if hidden else line.strip()


def _keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value and param.name is not None:
        setattr(ctx.ensure_object(Options), param.name, value)


_DECLARED = (
    click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path),
        callback=_keep,
        expose_value=False,
        help="The configuration [default: $TG_SUPERVISOR_CONFIG, ./accounts.toml, ~/.config/tg-supervisor/accounts.toml].",
    ),
    click.option("--json", "as_json", is_flag=True, callback=_keep, expose_value=False, help="Print JSON."),
    click.option(
        "--no-color", is_flag=True, callback=_keep, expose_value=False, help="No colours; as NO_COLOR=1."
    ),
    click.option(
        "-v", "--debug", is_flag=True, callback=_keep, expose_value=False, help="Say more, on stderr."
    ),
)
