"""Prints the manual page, from what the commands say of themselves: `make man` writes it to tg-supervisor.1."""  # noqa: INP001 - a script

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator

import click

from supervisor.cli.common import ExitCode
from supervisor.cli.top import COMMANDS, tg_supervisor

_EXITS = {
    ExitCode.OK: "All went well; of run: stopped as it was told to.",
    ExitCode.FAILURE: "The command failed, and says why.",
    ExitCode.USAGE: "The command line is wrong.",
    ExitCode.NOT_RUNNING: "No daemon is running.",
    ExitCode.TRY_LATER: "Another daemon holds the state directory, or it does not answer yet.",
    ExitCode.LOGIN_NEEDED: "A login is needed.",
    ExitCode.CONFIG: "The configuration or the installation is wrong.",
    ExitCode.INTERRUPTED: "Ctrl-C.",
    ExitCode.PIPE_CLOSED: "Whoever read the output has closed it.",
}
_VARIABLES = {
    "TG_SUPERVISOR_CONFIG": "The configuration; else ./accounts.toml.",
    "TG_SUPERVISOR_KEY": "A key of [supervisor], in capitals, as TG_SUPERVISOR_STATE_DIR; goes before the file's.",
    "NO_COLOR": "If set, no colours.",
    "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID": "Set by systemd, see sd_notify(3); run heeds them.",
}
_FILES = {
    "accounts.toml": "The configuration.",
    "state/": "Sessions, the recovery log, logs and the control socket; beside accounts.toml unless state_dir says otherwise.",
}


def page() -> str:
    """The whole page, in man(7)."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield ".\\\" Written by docs/man/generate.py: change that, or the commands' own help."
    yield ".TH TG\\-SUPERVISOR 1"
    yield ".SH NAME"
    yield _roff("tg-supervisor - keep a pool of Telegram accounts online")
    yield ".SH SYNOPSIS"
    yield "\\fBtg\\-supervisor\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR] \\fR[\\fIARGUMENTS\\fR]"
    yield ".SH DESCRIPTION"
    yield _roff(_sentence(tg_supervisor.help))
    yield _roff("These options go before or after a command:")
    shared: set[str | None] = {param.name for param in tg_supervisor.params}
    yield from _options(tg_supervisor)
    yield ".SH COMMANDS"
    context = click.Context(tg_supervisor, info_name="tg-supervisor")
    for name in COMMANDS:
        command = tg_supervisor.get_command(context, name)
        assert command is not None
        yield from _command(name, command, shared)
    for title, entries in (("ENVIRONMENT", _VARIABLES), ("FILES", _FILES)):
        yield f".SH {title}"
        yield from _entries(entries)
    yield ".SH EXIT STATUS"
    yield from _entries({str(code.value): _EXITS[code] for code in ExitCode})


def _command(name: str, command: click.Command, shared: set[str | None]) -> Iterator[str]:
    arguments = " ".join(
        (param.metavar or (param.name or "").upper()) + ("..." if param.nargs == -1 else "")
        for param in command.params
        if isinstance(param, click.Argument)
    )
    yield f".SS {_roff(f'{name} {arguments}'.strip())}"
    for number, paragraph in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(command.help or ""))):
        if number:
            yield ".PP"
        yield _roff(_sentence(paragraph))
    yield from _options(command, shared)


def _options(command: click.Command, without: set[str | None] | None = None) -> Iterator[str]:
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden and param.name not in (without or ()):
            value = "" if param.is_flag else f" {(param.metavar or param.type.name).upper()}"
            default = f" [default: {param.default}]" if param.show_default else ""
            yield from _entries({", ".join(param.opts) + value: (param.help or "") + default})


def _entries(entries: dict[str, str]) -> Iterator[str]:
    for term, text in entries.items():
        yield ".TP"
        yield f"\\fB{_roff(term)}\\fR"
        yield _roff(text)


def _sentence(text: str | None) -> str:
    return " ".join((text or "").replace("\b", "").split())


def _roff(text: str) -> str:
    """The text as it stands, for troff."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "'")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe


if __name__ == "__main__":
    sys.stdout.write(page())
