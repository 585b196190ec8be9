"""The command `tg-supervisor` itself: finds the commands, and turns whatever goes wrong into one line and a code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from supervisor.cli.common import ExitCode, Options, options, say
from supervisor.control.protocol import ControlError
from supervisor.errors import AlreadyRunning, ConfigError, NotRunning, SupervisorError

# command -> its module in supervisor.cli and what `--help` says of it; the module has a click command of that name.
COMMANDS = {
    "run": ("run", "Run the daemon: start every account and keep it online."),
    "check": ("check", "Validate the configuration and show what would run."),
    "login": ("login", "Sign a user account in, with the code that Telegram sends it."),
    "status": ("status", "Show the state of every account."),
    "stats": ("stats", "Show what was recovered, how fast and by what."),
    "report": ("report", "Look back over a week: availability, causes, advice; as a page with --html."),
    "log": ("log", "Show the recovery log, newest last."),
    "resolve": ("log", "Mark rows of the log as dealt with."),
    "explain": ("explain", "Say what would be done about an error, and why."),
    "pause": ("control", "Take accounts offline until they are resumed."),
    "resume": ("control", "Bring paused accounts online again."),
    "retry": ("control", "Try accounts now that failed, wait or are limited."),
    "rotate": ("control", "Move accounts to another proxy of theirs."),
    "notify": ("notify", "Send a test message to whoever is to be told of trouble."),
    "reload": ("control", "Let the daemon go by the changed configuration."),
    "accounts": ("accounts", "Add an account, or give its session back."),
    "demo": ("demo", "Show all of it against a local Telegram, faults included."),
}


class Top(click.Group):
    """Imports a command's module when the command is called, and no other."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click itself would make it exit code 1
            return _pipe_closed()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"supervisor.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run a command and exit with its code; expected errors are one line each, on stderr."""
        extra.setdefault("obj", Options())
        code = _guarded(
            lambda: super(Top, self).main(args, prog_name, complete_var, standalone_mode=False, **extra),
            extra["obj"],
        )
        sys.exit(code)


def _guarded(command: Callable[[], Any], given: Options) -> int:
    """The exit code of a command, whatever becomes of it."""
    try:
        try:
            code = command()
        finally:
            sys.stdout.flush()  # here, where a closed pipe is still met below
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return _pipe_closed()
    except Exception as error:  # noqa: BLE001 - nobody is to be met with a traceback unasked
        return _told(error, given)
    return code if isinstance(code, int) else ExitCode.OK


def _pipe_closed() -> int:
    """Whoever read stdout has read enough, as `head`; the interpreter's own flush at its end has to be quiet, too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.PIPE_CLOSED


def _told(error: Exception, given: Options) -> int:
    """Say what went wrong; give the exit code that goes with it."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, SupervisorError):
        return _expected(error)
    return _unexpected(error, given)


def _expected(error: SupervisorError) -> int:
    if isinstance(error, ConfigError):
        for problem in error.problems:
            say(problem)
        return ExitCode.CONFIG
    say(str(error))
    if isinstance(error, NotRunning):
        return ExitCode.NOT_RUNNING
    if isinstance(error, AlreadyRunning) or (isinstance(error, ControlError) and error.retryable):
        return ExitCode.TRY_LATER
    return ExitCode.FAILURE


def _unexpected(error: Exception, given: Options) -> int:
    if given.debug:
        say("".join(traceback.format_exception(error)).rstrip())
    hint = "" if given.debug else " (--debug shows where)"
    say(f"unexpected {type(error).__name__}: {error}{hint}")
    return ExitCode.FAILURE


@click.command(cls=Top, context_settings={"help_option_names": ["-h", "--help"]})
@options
@click.version_option(package_name="tg-supervisor", prog_name="tg-supervisor")
def tg_supervisor() -> None:
    """Keep a pool of Telegram accounts online, and write down whatever fails."""
