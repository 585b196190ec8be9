"""The live view: a table below the lines, redrawn as things change."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from supervisor.cli.common import Options
from supervisor.cli.demo.play import Now
from supervisor.cli.demo.view import STATE_COLORS, Lines
from supervisor.cli.words import what_failed

_COLUMNS = {
    "ACCOUNT": 11,
    "STATE": 11,
    "ASKED": 5,
    "ANSWERED": 8,
    "OPEN": 4,
    "FAILED": 6,
    "TWICE": 5,
    "IN HAND": 0,
}


class _Live(Lines):
    def __init__(self, shown: Live, given: Options) -> None:
        super().__init__(lambda line: shown.console.print(Text.from_ansi(line)), given)
        self._shown = shown

    def look(self, now: Now) -> None:
        self._shown.update(_scene(now), refresh=True)


@contextmanager
def live(given: Options) -> Iterator[_Live]:
    """Draw on the terminal inside the ``with``; the table goes away with it, the lines stay."""
    color_system: Literal["standard"] | None = "standard" if given.color else None
    console = Console(file=sys.stdout, color_system=color_system, highlight=False)
    with Live(console=console, auto_refresh=False, transient=True) as shown:
        yield _Live(shown, given)


def _scene(now: Now) -> Group:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False, header_style="bold")
    for title, width in _COLUMNS.items():
        table.add_column(title, min_width=width, no_wrap=True, overflow="ellipsis")
    for tally in now.tallies:
        account = now.accounts.get(tally.name)
        state = account["state"] if account else "starting"
        in_hand = what_failed(account["last_failure"]) if account and account["incident"] else ""
        numbers = map(str, (tally.asked, tally.answered, tally.open, tally.failed, tally.delivered_twice))
        table.add_row(tally.name, Text(state, STATE_COLORS.get(state, "")), *numbers, Text(in_hand))
    return Group(Text(), table, Text(), Text(f"{now.at:5.1f} s  now: {now.doing}", "bold"))
