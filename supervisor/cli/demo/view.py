"""What is seen of a demo: lines as it goes, on a terminal a table below them that is kept up to date; tables at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from supervisor.cli.common import Options, say
from supervisor.cli.demo.cast import whose
from supervisor.cli.demo.play import Now, View
from supervisor.cli.demo.report import Report, StepSeen
from supervisor.cli.tables import Column, clean, colored, print_table
from supervisor.cli.words import error_name, span, what_was_done, who
from supervisor.core.failure import Result

STATE_COLORS = {
    "online": "green",
    "recovering": "yellow",
    "starting": "cyan",
    "failed": "red",
    "needs_login": "magenta",
}
_WIDTH = 80
_STEP_COLUMNS = tuple(map(Column, ("BROKEN", "WHOSE", "SEEN AS", "DONE", "BACK IN", "SLOWEST")))
_CALL_COLUMNS = tuple(
    map(Column, ("ACCOUNT", "ASKED", "ANSWERED", "REFUSED", "FAILED", "SLOWEST", "DELIVERED", "TWICE"))
)


class Lines:
    """A line for each thing that happens."""

    def __init__(self, print_line: Callable[[str], None], given: Options) -> None:
        self._print = print_line
        self._given = given

    def tell(self, at: float, text: str) -> None:
        self._line(at, text, "bright_white" if text[:2].isupper() else "")

    def rows(self, at: float, rows: Sequence[dict[str, Any]]) -> None:
        """What was recorded since the last look; what is the same for several accounts is one line."""
        accounts: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            told = _what_failed(row), what_was_done(row).partition(", attempt")[0]
            accounts.setdefault(told, []).append(who(row))
        for (failed, done), names in accounts.items():
            them = f"{whose(names)}: "
            if failed:
                room = _WIDTH - len(f"{at:5.1f} s  {them}; {done}")
                self._line(at, f"{them}{cut(failed, room)}; {done}", "yellow")
            else:
                self._line(at, them + done, "green")

    def look(self, now: Now) -> None:
        """Lines tell what happens, not how it stands."""

    def _line(self, at: float, text: str, color: str) -> None:
        line = f"{at:5.1f} s  {text}"
        self._print(colored(line, color, self._given) if color else line)


def _what_failed(row: dict[str, Any]) -> str:
    """A failure in fewer words than `log` has for it; nothing for a recovery."""
    if row["outcome"] == Result.RECOVERED:
        return ""
    message = clean(row["message"])
    if row["error_id"] or not message.startswith(row["kind"]):
        return f"{row['kind']} {error_name(row) or message}"
    return message


def cut(text: str, width: int) -> str:
    """A text in so many columns, though never less than its beginning."""
    return text if len(text) <= width else f"{text[: max(width, 12) - 1]}…"


@contextmanager
def view_for(given: Options) -> Iterator[View]:
    """The view that suits where the output goes; with --json the lines go to stderr."""
    if given.as_json:
        yield Lines(say, given)
    elif not sys.stdout.isatty() or os.environ.get("TERM") in {None, "", "dumb"}:
        yield Lines(click.echo, given)
    else:
        from supervisor.cli.demo.live import live

        with live(given) as view:
            yield view


def show_report(report: Report, given: Options) -> None:
    """The tables and the verdict."""
    click.echo()
    print_table(_STEP_COLUMNS, (_step_cells(seen) for seen in report.steps), given)
    click.echo()
    rows = [
        [
            tally.name,
            str(tally.asked),
            str(tally.answered),
            str(tally.refused),
            str(tally.failed),
            _span(tally.slowest),
            str(tally.delivered),
            str(tally.delivered_twice),
        ]
        for tally in report.tallies
    ]
    print_table(_CALL_COLUMNS, rows, given)
    click.echo()
    click.echo(colored(_verdict(report), "red" if report.problems else "green", given))


def _step_cells(seen: StepSeen) -> list[str | tuple[str, str]]:
    slowest = (
        "" if seen.step.expected.is_down else _span(seen.slowest)
    )  # one that came just before says nothing
    return [seen.step.name, whose(seen.step.accounts), *seen.what_was_done, _back_in(seen), slowest]


def _back_in(seen: StepSeen) -> str | tuple[str, str]:
    """In what time all were back; of those that are to stay down, that they do."""
    wanted = seen.step.expected
    if seen.expected:
        return "-" if wanted.is_down else _span(seen.recovered_in)
    return ("NOT SO" if wanted.is_down else "NOT BACK", "red")


def _span(seconds: float | None) -> str:
    return "" if seconds is None else span(seconds)


def _verdict(report: Report) -> str:
    columns = "asked", "answered", "refused", "failed", "delivered_twice"
    asked, answered, *others = map(report.total, columns)
    refused, failed, twice = (number or "none" for number in others)
    said = "Not all is well" if report.problems else "All went as it should"
    return (
        f"{said}: {answered} of {asked} calls answered, {refused} refused, {failed} failed,\n"
        f"{twice} delivered twice. (Refused: asked of an account that needed a person.)"
    )
