"""Roll-ups of the log: its rows counted by the hour for all accounts together, and by the day for each account.

They are written in the transaction that writes the rows themselves, so the two always agree, and they outlive the
rows. Whatever the number of failures, there is at most one for each hour or account-day and sort of failure.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from supervisor.core.failure import Result, Row
from supervisor.record.rows import Columns

HOUR = 3600
DAY = 86_400

# Stands for all accounts, in an hour's roll-ups; for all kinds and actions, where a day's count of how incidents ended
# is kept a second time, as `by_account` needs it. No account can have this name; '' stands for rows without an account.
ALL = "*"

# How an incident ends.
ENDED = (Result.RECOVERED, Result.FAILED)

WRITE = (
    "INSERT INTO rollups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "count = count + excluded.count, longest = max(longest, excluded.longest), "
    "lengths = added(lengths, excluded.lengths)"
)

# Durations are kept in classes a factor of 2^(1/4) wide, so that one read from a class is off by 9 % at most.
_FINENESS = 4
_SHORTEST = 0.05  # s; what is shorter counts as this
_LAST = 127  # 0.05 s x 2^(127/4): over five years
_BITS = 32  # of each class's count


def length_class(seconds: float) -> int:
    """The class that a duration falls into."""
    return min(round(_FINENESS * math.log2(max(seconds, _SHORTEST) / _SHORTEST)), _LAST)


def class_length(number: int) -> float:
    """The duration that stands for a class: its geometric middle, in seconds."""
    return float(_SHORTEST * 2.0 ** (number / _FINENESS))


class Histogram:
    """How many recoveries took how long.

    It is one big integer with 32 bits for each class: adding two of them adds all their classes at once, which is
    what makes a query over a hundred thousand roll-ups cheap.
    """

    __slots__ = ("_packed",)

    def __init__(self, packed: bytes | None = None) -> None:
        self._packed = int.from_bytes(packed, "little") if packed else 0

    def __iter__(self) -> Iterator[tuple[float, int]]:
        """Durations and how many there are of each, the shortest first."""
        rest, number = self._packed, 0
        while rest:
            count = rest & ((1 << _BITS) - 1)
            if count:
                yield class_length(number), count
            rest >>= _BITS
            number += 1

    def add(self, seconds: float, count: int) -> None:
        """Count some recoveries that took this long."""
        self._packed += count << (_BITS * length_class(seconds))

    def merge(self, packed: bytes | None) -> None:
        """Count all that another one holds."""
        if packed:
            self._packed += int.from_bytes(packed, "little")

    def packed(self) -> bytes:
        """As it is stored; as short as it can be."""
        return self._packed.to_bytes((self._packed.bit_length() + 7) // 8, "little")


@dataclass(slots=True)
class _Sum:
    count: int = 0
    longest: float = 0.0
    lengths: Histogram = field(default_factory=Histogram)


class Tally:
    """The roll-ups of one batch of rows."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int, str, str, str, str], _Sum] = {}

    def add(self, row: Row) -> None:
        """Count a row: in its hour, and on its account's day."""
        hour, day = int(row.at // HOUR) * HOUR, int(row.at // DAY) * DAY
        account, kind, action, outcome = (
            row.account or "",
            row.kind.value,
            row.action.value,
            row.outcome.value,
        )
        self._add((HOUR, hour, ALL, kind, action, outcome), row)
        self._add((DAY, day, account, kind, action, outcome), row)
        if row.outcome in ENDED:
            self._add((DAY, day, account, ALL, ALL, outcome), row)

    def _add(self, key: tuple[int, int, str, str, str, str], row: Row) -> None:
        found = self._sums.get(key) or self._sums.setdefault(key, _Sum())
        found.count += row.count
        if row.outcome is Result.RECOVERED and row.duration is not None:
            found.longest = max(found.longest, row.duration)
            found.lengths.add(row.duration, row.count)

    def columns(self) -> Iterator[Columns]:
        """The columns of `rollups`, in the order of the table."""
        for key, found in self._sums.items():
            yield (*key, found.count, found.longest, found.lengths.packed())


# --- Functions for SQL -----------------------------------------------------------------------------------


def added(one: bytes, other: bytes) -> bytes:
    """Two packed histograms as one, for `WRITE`."""
    total = Histogram(one)
    total.merge(other)
    return total.packed()


class _Merged:
    """``merged(lengths)``: the packed histograms of many rows as one."""

    def __init__(self) -> None:
        self._total = Histogram()

    def step(self, packed: bytes | None) -> None:
        self._total.merge(packed)

    def finalize(self) -> bytes:
        return self._total.packed()


class _Lengths:
    """``lengths(duration, count)``: a packed histogram of rows of the log."""

    def __init__(self) -> None:
        self._total = Histogram()

    def step(self, duration: float | None, count: int) -> None:
        if duration is not None:
            self._total.add(duration, count)

    def finalize(self) -> bytes:
        return self._total.packed()


def teach(db: sqlite3.Connection) -> None:
    """Give a connection the functions that reading roll-ups needs: ``merged`` and ``lengths``."""
    db.create_aggregate("merged", 1, cast("Any", _Merged))  # typeshed knows numbers only
    db.create_aggregate("lengths", 2, cast("Any", _Lengths))
