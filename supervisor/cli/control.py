"""`pause`, `resume` and `retry`: what a person tells the running daemon about accounts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from supervisor.cli.common import ExitCode, Options, not_ready, options, say
from supervisor.cli.tables import clean
from supervisor.control.client import ControlClient
from supervisor.control.protocol import ControlError
from supervisor.errors import NotRunning
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


def _tell(verb: str, accounts: tuple[str, ...], given: Options) -> int:
    state_dir = given.state_dir()
    try:
        answer = _ask(state_dir, verb, accounts)
    except ControlError as refused:
        if refused.code != "unknown_account":
            raise
        say(str(refused))
        return ExitCode.USAGE
    if given.as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        for account in answer["accounts"]:
            click.echo(f"{clean(account['name'])}: {_said(verb, account)}")
    return ExitCode.OK


def _ask(state_dir: Path, verb: str, accounts: tuple[str, ...]) -> dict[str, Any]:
    """Tell the daemon.

    Raises:
        NotRunning: there is none.
        ControlError: it refused, or is only starting.
    """
    try:
        return ControlClient(state_dir, timeout=30.0).request("POST", verb, {"accounts": list(accounts)})
    except NotRunning:
        pid = holder(state_dir)
        if pid is None:
            raise
        raise not_ready(pid) from None


def _said(verb: str, account: Mapping[str, Any]) -> str:
    """What became of one account."""
    state = str(account["state"])
    if account["changed"]:
        return state
    match verb:
        case "pause":
            return "was paused already"
        case "resume":
            return f"was not paused; it is {state}"
        case _:
            return f"stays paused; tg-supervisor resume {account['name']} brings it back"
