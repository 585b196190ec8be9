"""`report`: a span of time at a glance, as text, as a page, or for a machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from supervisor.cli.common import ExitCode, Options, options, say, say_what_is_missing, since_option
from supervisor.cli.tables import Column, clean, print_table
from supervisor.cli.words import clock, span, when
from supervisor.record import queries
from supervisor.record.past import Past
from supervisor.report.digest import digest
from supervisor.report.page import page

_WORST = 10  # accounts


@click.command()
@since_option("7d")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a self-contained page with plots; - is stdout.",
)
@options
@click.pass_obj
def report(given: Options, since: float, html: Path | None) -> int:
    """Look back over a week: how available each account was, what failed most, and what to change."""
    path = given.state_dir() / "recovery.db"
    with queries.opened(path) as db:
        if db is None:
            say(f"nothing has been recorded yet: there is no {path}")
            return ExitCode.FAILURE
        say_what_is_missing(queries.not_taken_over(db))
        found = digest(Past(db, since), time.time())
    if html is not None:
        _write(html, page(found))
    if given.as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    elif html is None:
        _show(found, given)
    return ExitCode.OK


def _write(path: Path, text: str) -> None:
    """Put the page in its place whole, or not at all; it names accounts, so it is its owner's alone."""
    if str(path) == "-":
        click.echo(text, nl=False)
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(
            os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as out:
            out.write(text)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise click.ClickException(f"{path}: {error.strerror or error}") from error
    say(f"written to {path}")


def _show(found: Mapping[str, Any], given: Options) -> None:
    for line in _summary(found):
        click.echo(line)
    if found["advice"]:
        click.echo("\nWhat to change:")
        for one in found["advice"]:
            click.echo(f"  - {clean(one)}")
    away = sorted(found["accounts"].items(), key=lambda item: (-item[1]["down_s"], item[0]))
    away = [(name, one) for name, one in away if one["down_s"]]
    if away:
        click.echo()
        print_table(
            (Column("WORST ACCOUNTS"), Column("NOW"), Column("AVAILABLE"), Column("OUTAGES"), Column("AWAY")),
            [
                (
                    name,
                    one["state"] or "",
                    _share(one["availability"]),
                    f"{one['outages']:,}",
                    span(one["down_s"]),
                )
                for name, one in away[:_WORST]
            ],
            given,
        )
    bad = [(name, one) for name, one in found["paths"].items() if one["down_s"] or one["failed"]]
    if bad:
        print_table(
            (Column("WORST PATHS"), Column("OUTAGES"), Column("AWAY"), Column("ANSWERED")),
            [
                (
                    name,
                    f"{one['outages']:,}",
                    span(one["down_s"]),
                    f"{one['succeeded']:,} of {one['succeeded'] + one['failed']:,}",
                )
                for name, one in bad[:_WORST]
            ],
            given,
        )
    if found["causes"]:
        print_table(
            (Column("COMMONEST CAUSES"), Column("KIND"), Column("TIMES"), Column("ACCOUNTS")),
            [
                (one["what"], one["kind"], f"{one['count']:,}", f"{one['accounts']:,}")
                for one in found["causes"]
            ],
            given,
        )


def _summary(found: Mapping[str, Any]) -> Iterator[str]:
    incidents, took = found["stats"]["incidents"], found["stats"]["time_to_recover_s"]
    yield f"{when(found['observed_since'])} to {clock(time.time())}: {len(found['accounts']):,} accounts"
    yield f"  available   {_share(found['availability'])}"
    yield (
        f"  incidents   {incidents['total']:,}: {incidents['recovered']:,} recovered, {incidents['failed']:,} failed,"
        f" {incidents['open']:,} open"
    )
    if took["p50"] is not None:
        yield f"  to recover  {span(took['p50'])} (p50), {span(took['p99'])} (p99), {span(took['max'])} at most"


def _share(share: float | None) -> str:
    if share is None:
        return "-"
    return "> 99.99 %" if 0.99995 <= share < 1 else f"{100 * share:.2f} %"
