"""`status`: what the running daemon says of its accounts, or what the last run left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from supervisor.cli.common import Options, options, say
from supervisor.cli.current import Found, cells, from_daemon, from_last_run, path_cells, totals
from supervisor.cli.tables import Column, print_table
from supervisor.cli.words import span
from supervisor.config.model import DIRECT

_COLUMNS = (
    Column("ACCOUNT"),
    Column("STATE"),
    Column("SINCE"),
    Column("PATH"),
    Column("LAST FAILURE", wraps=True),
)
_PATH_COLUMNS = (
    Column("PATH"),
    Column("STATE"),
    Column("ACCOUNTS"),
    Column("ANSWERED"),
    Column("LATENCY"),
    Column("LAST FAILURE", wraps=True),
)


@click.command()
@click.option(
    "--watch", is_flag=True, help="Go on: a live view on a terminal, else all of it at each change."
)
@options
@click.pass_obj
def status(given: Options, watch: bool) -> int | None:
    """Show the state of every account, from the running daemon; of the last run where none runs."""
    state_dir = given.state_dir()
    if watch:
        from supervisor.cli.watch import watched

        return watched(state_dir, given)
    _show(state_dir, given)
    return None


def _show(state_dir: Path, given: Options) -> None:
    found, note = _find(state_dir)
    if note:
        say(note)
    for problem in _unread(found):
        say(problem)
    if given.as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    elif found["accounts"]:
        _show_accounts(found, given)
    elif found["running"]:
        click.echo("the daemon runs, without any account")


def _find(state_dir: Path) -> tuple[Found, str]:
    found = from_daemon(state_dir)
    return (found, "") if found is not None else from_last_run(state_dir / "recovery.db")


def _unread(found: Found) -> list[str]:
    """What is wrong with the changed file, which the daemon therefore does not use."""
    problems = found.get("config", {}).get("error")
    return ["the changed configuration is not used, for it has mistakes:", *problems] if problems else []


def _show_accounts(found: Mapping[str, Any], given: Options) -> None:
    print_table(_COLUMNS, (cells(account) for account in found["accounts"]), given)
    if any(path["name"] != DIRECT or path["state"] == "broken" for path in found["paths"]):
        click.echo()
        print_table(_PATH_COLUMNS, (path_cells(path) for path in found["paths"]), given)
    click.echo(f"\n{totals(found)}")
    if found["running"]:
        click.echo(f"daemon: pid {found['pid']}, up {span(found['uptime_s'])}")
