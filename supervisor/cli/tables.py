"""Tables for people: as wide as the terminal; as wide as they need to be where the output goes elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import click

from supervisor.cli.common import Options

_UNLIMITED = 10_000
_LEAST_FOR_WRAPPING = 16  # columns; where less is left, all columns wrap


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading, and whether its content may go on in a second line."""

    title: str
    wraps: bool = False


def print_table(
    columns: Sequence[Column], rows: Iterable[Sequence[str | tuple[str, str]]], given: Options
) -> None:
    """Print rows under headings.

    Args:
        columns: from left to right.
        rows: their cells: a text, or a text and its colour. Control characters in them are made visible.
        given: whether to use colour.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in rows]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNLIMITED
    fits = _fixed_width(columns, cells) <= width - _LEAST_FOR_WRAPPING
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, overflow="fold", no_wrap=fits and not column.wraps)
    for row in cells:
        table.add_row(*(Text(clean(text), style=style) for text, style in row))
    color_system: Literal["standard"] | None = "standard" if given.color else None
    Console(file=sys.stdout, width=width, color_system=color_system, highlight=False).print(table)


def _fixed_width(columns: Sequence[Column], rows: Sequence[Sequence[tuple[str, str]]]) -> int:
    """What the columns take that are to stay on one line."""
    return sum(
        2 + max(len(column.title), *(len(row[index][0]) for row in rows))
        for index, column in enumerate(columns)
        if not column.wraps and rows
    )


def clean(text: str) -> str:
    """One line, without what would steer a terminal: messages come from servers, proxies and other people's code."""
    return "".join(
        sign if sign.isprintable() else " " if sign.isspace() else "\N{REPLACEMENT CHARACTER}"
        for sign in text
    )


def colored(text: str, color: str, given: Options) -> str:
    """A text in a colour, where there are any."""
    return click.style(text, fg=color) if given.color else text
