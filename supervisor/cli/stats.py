"""`stats`: what was recovered, how fast, by what, and what was not."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from supervisor.cli.common import Options, options, say, say_what_is_missing, since_option
from supervisor.cli.tables import clean, colored
from supervisor.cli.words import clock, span
from supervisor.core.failure import Kind
from supervisor.record import queries
from supervisor.record.counting import Asked, Log
from supervisor.report.stats import stats as count

# A table is then at most 80 columns wide, whatever the terminal has: it looks the same in a mail.
_BAR = 12
_NAME = 23
_ACCOUNTS = 15  # lines; --json has all

_Cell = str | tuple[str, str]


@click.command()
@since_option("7d")
@click.option("--account", metavar="GLOB", help="Only accounts of this name or pattern, as 'support-*'.")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    metavar="KIND",
    help=f"Only this kind of failure: {', '.join(Kind)}.",
)
@options
@click.pass_obj
def stats(given: Options, since: float, account: str | None, kind: str | None) -> None:
    """Show how many incidents recovered, how fast and by what: by kind, action and account."""
    path = given.state_dir() / "recovery.db"
    asked = Asked(since, account, Kind(kind) if kind else None)
    with queries.opened(path) as db:
        if db is not None:
            say_what_is_missing(queries.not_taken_over(db))
        found = count(Log(db) if db is not None else None, asked, time.time())
    if db is None:
        say(f"nothing has been recorded yet: there is no {path}")
    if given.as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    elif db is not None:
        _show(found, asked, given)


def _show(found: Mapping[str, Any], asked: Asked, given: Options) -> None:
    whose = f"accounts {asked.account}" if asked.account else "all accounts"
    what = f", {asked.kind.value} only" if asked.kind else ""
    began = datetime.fromisoformat(found["since"]).timestamp()
    length = span(datetime.fromisoformat(found["until"]).timestamp() - began)
    click.echo(_bold(f"Since {clock(began)} ({length}): {clean(whose)}{what}", given), color=given.color)
    click.echo()
    _show_summary(found, given)
    _show_kinds(found["by_kind"], given)
    _show_actions(found["by_action"], given)
    _show_accounts(found["by_account"], given)
    _show_errors(found["errors_by_type_7d"], given)


def _show_summary(found: Mapping[str, Any], given: Options) -> None:
    incidents, took = found["incidents"], found["time_to_recover_s"]
    rate = found["success_rate"]
    total = incidents["total"]
    parts = [
        f"{total:,} incident{'s' if total != 1 else ''}",
        colored(f"{incidents['recovered']:,} recovered", "green", given) if total else "",
        colored(f"{incidents['failed']:,} failed", "red", given) if incidents["failed"] else "",
        colored(f"{incidents['open']:,} open", "yellow", given) if incidents["open"] else "",
    ]
    click.echo(f"  {', '.join(part for part in parts if part)}", color=given.color)
    if rate is not None:
        color = "green" if rate >= 0.99 else "yellow" if rate >= 0.9 else "red"
        bar = colored(_bar(rate, 1.0), color, given)
        click.echo(f"  success rate     {bar} {_percent(rate)}", color=given.color)
    if took["p50"] is not None:
        shown = ", ".join(f"{name} {span(took[name])}" for name in ("p50", "p90", "p99", "max"))
        click.echo(f"  time to recover  {shown}")
    click.echo(f"  last 24 hours    {found['last_24h']:,} failures seen")


def _show_kinds(kinds: Mapping[str, Any], given: Options) -> None:
    most = max((one["count"] for one in kinds.values()), default=0)
    rows: list[Sequence[_Cell]] = [
        (
            name,
            (_bar(one["count"], most), "cyan"),
            f"{one['count']:,}",
            f"{one['recovered']:,}",
            (f"{one['failed']:,}", "red" if one["failed"] else ""),
            "" if one["p50_s"] is None else span(one["p50_s"]),
        )
        for name, one in _by_number(kinds, "count")
    ]
    _table(("KIND", "", "INCIDENTS", "RECOVERED", "FAILED", "MEDIAN"), rows, given)


def _show_actions(actions: Mapping[str, Any], given: Options) -> None:
    most = max((one["used"] for one in actions.values()), default=0)
    rows: list[Sequence[_Cell]] = [
        (
            name.replace("_", " "),
            (_bar(one["used"], most), "cyan"),
            f"{one['used']:,}",
            f"{one['succeeded']:,}",
        )
        for name, one in _by_number(actions, "used")
    ]
    _table(("ACTION", "", "USED", "SUCCEEDED"), rows, given)


def _show_accounts(accounts: Mapping[str, Any], given: Options) -> None:
    if not accounts:
        return
    most = max(one["count"] for one in accounts.values())
    rows: list[Sequence[_Cell]] = [
        (
            _short(name),
            (_bar(one["count"], most), "cyan"),
            f"{one['count']:,}",
            "" if one["success_rate"] is None else _percent(one["success_rate"]),
            (f"{one['failed']:,}", "red" if one["failed"] else ""),
            (f"{one['open']:,}", "yellow" if one["open"] else ""),
        )
        for name, one in _by_number(accounts, "count")[:_ACCOUNTS]
    ]
    _table(("ACCOUNT", "", "INCIDENTS", "SUCCESS", "FAILED", "OPEN"), rows, given)
    if len(accounts) > _ACCOUNTS:
        click.echo(f"  and {len(accounts) - _ACCOUNTS:,} more accounts; --json has them all")


def _show_errors(errors: Mapping[str, int], given: Options) -> None:
    most = max(errors.values(), default=0)
    rows: list[Sequence[_Cell]] = [
        (kind, (_bar(number, most), "cyan"), f"{number:,}")
        for kind, number in sorted(errors.items(), key=lambda item: -item[1])
    ]
    _table(("FAILURES SEEN IN 7 DAYS", "", ""), rows, given)


def _by_number(found: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    """The entries with the highest numbers first."""
    return sorted(found.items(), key=lambda item: (-item[1][key], item[0]))


# --- Drawing -----------------------------------------------------------------------------------------------


def _table(titles: Sequence[str], rows: Iterable[Sequence[_Cell]], given: Options) -> None:
    """Print rows: a name, a bar, then numbers, aligned to the right; nothing at all where there are none."""
    cells = [[cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in rows]
    if not cells:
        return
    widths = [_NAME, _BAR]
    widths += [max(len(title), *(len(row[n][0]) for row in cells)) for n, title in enumerate(titles) if n > 1]
    click.echo()
    click.echo(_bold(_line([(title, "") for title in titles], widths, given), given), color=given.color)
    for row in cells:
        click.echo(_line(row, widths, given), color=given.color)


def _line(cells: Sequence[tuple[str, str]], widths: Sequence[int], given: Options) -> str:
    """One line, each cell padded before it is coloured; what is empty at its end is left out."""
    padded = [
        f"{text:<{width}}" if number < 2 else f"{text:>{width}}"
        for number, ((text, _), width) in enumerate(zip(cells, widths, strict=True))
    ]
    if given.color:
        padded = [
            colored(text, color, given) if color else text
            for text, (_, color) in zip(padded, cells, strict=True)
        ]
    return ("  " + "  ".join(padded)).rstrip()


def _bar(number: float, most: float) -> str:
    """A bar as long as its share of the longest; whatever is there at all shows."""
    if not number or not most:
        return ""
    eighths = max(1, round(8 * _BAR * number / most))
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if not encoding.startswith("utf"):
        return "#" * max(1, round(eighths / 8))
    whole, part = divmod(eighths, 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[part].strip()


def _percent(share: float) -> str:
    """A share; 100 % only where it is all of it."""
    shown = f"{100 * share:.1f}".removesuffix(".0")
    return "> 99.9 %" if shown == "100" and share < 1 else f"{shown} %"


def _short(name: str) -> str:
    shown = clean(name)
    return shown if len(shown) <= _NAME else f"{shown[: _NAME - 1]}…"


def _bold(text: str, given: Options) -> str:
    return click.style(text, bold=True) if given.color else text
