"""`pause`, `resume`, `retry`, `rotate` and `reload`: what a person tells the running daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from supervisor.cli.common import ExitCode, Options, not_ready, options, say
from supervisor.cli.tables import clean
from supervisor.control.client import ControlClient
from supervisor.control.protocol import ControlError
from supervisor.errors import ConfigError, NotRunning
from supervisor.record.lock import holder

_names = click.argument("accounts", metavar="NAME...", nargs=-1, required=True)


@click.command()
@_names
@options
@click.pass_obj
def pause(given: Options, accounts: tuple[str, ...]) -> int:
    """Take accounts offline until they are resumed, through restarts of the daemon too.

    NAME is an account, or a pattern as 'support-*'. Calls that wait fail with AccountUnavailable.
    """
    return _tell("pause", accounts, given)


@click.command()
@_names
@options
@click.pass_obj
def resume(given: Options, accounts: tuple[str, ...]) -> int:
    """Bring paused accounts online again.

    NAME is an account, or a pattern as 'support-*'.
    """
    return _tell("resume", accounts, given)


@click.command()
@_names
@options
@click.pass_obj
def retry(given: Options, accounts: tuple[str, ...]) -> int:
    """Try accounts now that failed, are suspended or wait, and forget that Telegram limited them.

    NAME is an account, or a pattern as 'support-*'. Waits that Telegram demands hold all the same, and so do pauses.
    """
    return _tell("retry", accounts, given)


@click.command()
@_names
@click.option("--to", metavar="PROXY", help="Which proxy; else the least loaded that is not broken.")
@options
@click.pass_obj
def rotate(given: Options, accounts: tuple[str, ...], to: str | None) -> int:
    """Move accounts to another proxy of theirs, now.

    NAME is an account, or a pattern as 'shop-*'. Calls are held until the account is online there. Where one of the
    accounts has no other proxy that works, none is moved; nothing ever falls back to a direct connection.
    """
    return _tell("rotate", accounts, given, {"to": to})


@click.command()
@options
@click.pass_obj
def reload(given: Options) -> int:
    """Let the daemon read its configuration again, and go by it.

    Accounts are added, removed, adapted and replaced as the file says; those of which nothing has changed do not notice.
    A file with mistakes changes nothing: each is named, exit code 78.
    """
    try:
        answer = _asked(given.state_dir(), "reload", {})
    except ControlError as refused:
        if refused.code != "config_invalid":
            raise
        raise ConfigError(refused.context["problems"]) from None
    if given.as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        for line in _reloaded(answer):
            click.echo(line)
    return ExitCode.FAILURE if answer["stuck"] else ExitCode.OK


def _reloaded(answer: Mapping[str, Any]) -> Iterator[str]:
    """What a reload did, a line an account, and what it left as it was."""
    for what in ("added", "removed", "replaced", "adapted"):
        for name in answer[what]:
            yield f"{clean(name)}: {what}"
    for new, old in answer["renamed"].items():
        yield f"{clean(new)}: was {clean(old)}, and goes on with its session"
    for name in answer["stuck"]:
        yield f"{clean(name)}: its own code does not end, so nobody takes its place; mend it, and restart the daemon"
    yield f"untouched: {answer['untouched']}"
    for key in answer["needs_restart"]:
        yield f"supervisor.{key} takes effect when the daemon is started again"


def _tell(
    verb: str, accounts: tuple[str, ...], given: Options, more: Mapping[str, str | None] | None = None
) -> int:
    state_dir = given.state_dir()
    try:
        answer = tell(state_dir, verb, accounts, more)
    except ControlError as refused:
        if refused.code not in ("unknown_account", "unknown_proxy"):
            raise
        say(str(refused))
        return ExitCode.USAGE
    if given.as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        for account in answer["accounts"]:
            click.echo(f"{clean(account['name'])}: {said(verb, account)}")
    return ExitCode.OK


def tell(
    state_dir: Path, verb: str, accounts: tuple[str, ...], more: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """Tell the daemon to pause, resume, retry or rotate accounts.

    Raises:
        NotRunning: there is none.
        ControlError: it refused, or is only starting.
    """
    return _asked(state_dir, verb, {"accounts": list(accounts), **(more or {})})


def _asked(state_dir: Path, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return ControlClient(state_dir, timeout=30.0).request("POST", verb, body)
    except NotRunning:
        pid = holder(state_dir)
        if pid is None:
            raise
        raise not_ready(pid) from None


def said(verb: str, account: Mapping[str, Any]) -> str:
    """What became of one account."""
    state = str(account["state"])
    if verb == "rotate":
        return _rotated(account)
    if account["changed"]:
        return state
    match verb:
        case "pause":
            return "was paused already"
        case "resume":
            return f"was not paused; it is {state}"
        case _:
            return f"stays paused; tg-supervisor resume {account['name']} brings it back"


def _rotated(account: Mapping[str, Any]) -> str:
    if not account["changed"]:
        return f"is on {account['path']} already"
    return f"moved from {account['before']} to {account['path']}; {account['state']}"
