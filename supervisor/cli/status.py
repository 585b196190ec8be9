"""`status`: what the running daemon says of its accounts, or what the last run left behind."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from supervisor.cli.common import Options, not_ready, options, say
from supervisor.cli.tables import Column, print_table
from supervisor.cli.words import clock, span, what_failed, when
from supervisor.control.client import ControlClient
from supervisor.errors import NotRunning
from supervisor.record import queries
from supervisor.record.lock import holder
from supervisor.report.status import last_status

_REFRESH = 2.0  # s
_HOME_AND_CLEAR = "\x1b[H\x1b[2J"
_COLORS = {
    "starting": "cyan",
    "online": "green",
    "recovering": "yellow",
    "suspended": "red",
    "needs_login": "magenta",
    "failed": "red",
    "paused": "blue",
    "stopped": "bright_black",
}
_COLUMNS = (
    Column("ACCOUNT"),
    Column("STATE"),
    Column("SINCE"),
    Column("PATH"),
    Column("LAST FAILURE", wraps=True),
)


@click.command()
@click.option("--watch", is_flag=True, help=f"Show it anew every {_REFRESH:g} s, until Ctrl-C.")
@options
@click.pass_obj
def status(given: Options, watch: bool) -> None:
    """Show the state of every account, from the running daemon; of the last run where none runs."""
    state_dir = given.state_dir()
    while True:
        _show(state_dir, given, clear=watch and sys.stdout.isatty() and not given.as_json)
        if not watch:
            return
        sys.stdout.flush()
        time.sleep(_REFRESH)


def _show(state_dir: Path, given: Options, *, clear: bool) -> None:
    found, notes = _find(state_dir)
    if clear:
        click.echo(_HOME_AND_CLEAR, nl=False)
    for note in notes:
        say(note)
    if given.as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    elif found["accounts"]:
        _show_accounts(found, given)
    elif found["running"]:
        click.echo("the daemon runs, without any account")


def _find(state_dir: Path) -> tuple[dict[str, Any], list[str]]:
    """The status, and what has to be said beside it.

    Raises:
        ControlError: a daemon runs but does not answer: then its accounts' state is not known.
    """
    try:
        return ControlClient(state_dir).status(), []
    except NotRunning:
        pid = holder(state_dir)
        if pid is not None:
            raise not_ready(pid) from None
    return _last_run(state_dir / "recovery.db")


def _last_run(path: Path) -> tuple[dict[str, Any], list[str]]:
    with queries.opened(path) as db:
        if db is None:
            return last_status([], None), [f"no daemon is running, and none has run yet: there is no {path}"]
        run = queries.last_run(db)
        found = last_status(queries.accounts(db), run)
    if run is None:
        return found, ["no daemon is running"]
    if run.stopped_at is not None:
        return found, [f"no daemon is running; the last one stopped at {clock(run.stopped_at)}"]
    text = f"no daemon is running; the last one was killed, its last sign of life was at {clock(run.heartbeat_at)}"
    return found, [text]


def _show_accounts(found: Mapping[str, Any], given: Options) -> None:
    accounts = found["accounts"]
    print_table(_COLUMNS, (_cells(account) for account in accounts), given)
    states = Counter(account["state"] for account in accounts)
    total = f"{len(accounts)} account{'s' if len(accounts) != 1 else ''}"
    click.echo(f"\n{total}: {', '.join(f'{number} {state}' for state, number in states.most_common())}")
    broken = [path["name"] for path in found["paths"] if path["state"] == "broken"]
    if broken:
        click.echo(f"broken paths: {', '.join(broken)}")
    if found["running"]:
        click.echo(f"daemon: pid {found['pid']}, up {span(found['uptime_s'])}")


def _cells(account: Mapping[str, Any]) -> list[str | tuple[str, str]]:
    state = account["state"]
    said = f"{state}, limited" if account["limited"] else state
    failure = account["last_failure"]
    last = f"{when(failure['at'])} {what_failed(failure)}" if failure else ""
    if account["retry_at"]:
        last = (
            f"next try {when(account['retry_at'])}; {last}"
            if last
            else f"next try {when(account['retry_at'])}"
        )
    return [account["name"], (said, _COLORS.get(state, "")), when(account["since"]), account["path"], last]
