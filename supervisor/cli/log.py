"""`log` and `resolve`: reading the recovery log, and marking its rows as dealt with."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from supervisor.cli.common import ExitCode, Options, options, say, say_what_is_missing, since_option
from supervisor.cli.tables import colored
from supervisor.cli.words import log_line
from supervisor.core.failure import Kind
from supervisor.record import queries
from supervisor.record.queries import LogFilter
from supervisor.record.rows import LogRow

_POLL = 0.5  # s between two looks at the file, with --follow
_COLORS = {
    "recovered": "green",
    "retrying": "yellow",
    "failed": "red",
    "suspended": "red",
    "needs_login": "magenta",
    "raised": "cyan",
}


@click.command()
@click.option("--account", metavar="GLOB", help="Only accounts of this name or pattern, as 'support-*'.")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    metavar="KIND",
    help=f"Only this kind of failure: {', '.join(Kind)}.",
)
@since_option()
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="At most so many of the newest.",
)
@click.option("--unresolved", is_flag=True, help="Only what neither a recovery nor a person has dealt with.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@options
@click.pass_obj
def log(  # noqa: PLR0917 - click passes them by name
    given: Options,
    account: str | None,
    kind: str | None,
    since: float | None,
    limit: int,
    unresolved: bool,
    follow: bool,
) -> None:
    """Show the recovery log, newest last. With --json: one object a line."""
    path = given.state_dir() / "recovery.db"
    wanted = LogFilter(account, Kind(kind) if kind else None, since, unresolved)
    seen = _show_newest(path, wanted, limit, given)
    if seen is None:
        say(f"nothing has been recorded yet: there is no {path}")
    while follow:
        time.sleep(_POLL)
        seen = _show_after(path, wanted, seen or 0, given)


@click.command()
@click.argument("row_ids", metavar="ID...", type=int, nargs=-1, required=True)
@options
@click.pass_obj
def resolve(given: Options, row_ids: tuple[int, ...]) -> int:
    """Mark rows of the log as dealt with: `log --unresolved` leaves them out from then on."""
    path = given.state_dir() / "recovery.db"
    done = {row_id: queries.resolve(path, row_id, time.time()) for row_id in row_ids}
    for row_id in (row_id for row_id, found in done.items() if not found):
        say(f"the log has no row {row_id}")
    resolved = [row_id for row_id, found in done.items() if found]
    if given.as_json:
        click.echo(json.dumps({"schema": 1, "resolved": resolved}))
    elif resolved:
        click.echo(f"resolved: {', '.join(map(str, resolved))}")
    return ExitCode.OK if all(done.values()) else ExitCode.FAILURE


def _show_newest(path: Path, wanted: LogFilter, limit: int, given: Options) -> int | None:
    """Print the newest rows; give the number from which to follow, None where there is no log yet."""
    with queries.opened(path) as db:
        if db is None:
            return None
        say_what_is_missing(queries.not_taken_over(db))
        newest = queries.newest_id(db)
        found = [row for row in queries.log_rows(db, wanted, limit) if row.id <= newest]
    for row in found:
        _show(row, given)
    return newest


def _show_after(path: Path, wanted: LogFilter, seen: int, given: Options) -> int:
    """Print the rows after `seen`; give the number of the last. A file begun anew is followed from its start."""
    with queries.opened(path) as db:
        if db is None:
            return 0
        newest = queries.newest_id(db)
        start = seen if seen <= newest else 0
        wanted = LogFilter(wanted.account, wanted.kind, wanted.since, wanted.unresolved, after_id=start)
        for row in queries.log_rows(db, wanted, limit=-1):
            newest = max(newest, row.id)
            _show(row, given)
    return newest


def _show(row: LogRow, given: Options) -> None:
    shown = row.json()
    if given.as_json:
        if row.row.traceback is not None:
            shown["traceback"] = row.row.traceback
        click.echo(json.dumps(shown, ensure_ascii=False))
    else:
        click.echo(colored(log_line(shown), _COLORS[shown["outcome"]], given), color=given.color)
