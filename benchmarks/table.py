"""A table of figures: bare, supervised, and how many times better the second is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both; an infinite one is a time that never came.

    `more_is_better` decides which way the ratio is read; None where none makes sense.
    """

    what: str
    bare: float
    supervised: float
    unit: str = ""
    more_is_better: bool | None = False

    @property
    def ratio(self) -> str:
        if self.more_is_better is None or math.isinf(self.bare) or math.isinf(self.supervised):
            return ""
        better, worse = self.supervised, self.bare
        if not self.more_is_better:
            better, worse = worse, better
        if worse == 0:
            return "1.0x" if better == 0 else ""
        return f"{better / worse:.3g}x" if better / worse >= 10 else f"{better / worse:.1f}x"

    @property
    def cells(self) -> tuple[str, ...]:
        return self.what, _figure(self.bare), _figure(self.supervised), self.unit, self.ratio


def _figure(value: float) -> str:
    if math.isinf(value):
        return "never"
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else "0"


@dataclass(slots=True)
class Table:
    """Rows under a title."""

    title: str
    rows: list[Row] = field(default_factory=list)

    def __str__(self) -> str:
        head = ("", "bare", "supervised", "", "better")
        lines = [head, *(row.cells for row in self.rows)]
        widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
        shown = [
            f"  {what:<{widths[0]}}  {bare:>{widths[1]}}  {ours:>{widths[2]}}  {unit:<{widths[3]}}"
            f"  {ratio:>{widths[4]}}".rstrip()
            for what, bare, ours, unit, ratio in lines
        ]
        return "\n".join([self.title, *shown, ""])
