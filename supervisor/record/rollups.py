"""Roll-ups of the log: its rows counted by the hour for all accounts together, and in longer spans for each account.

They are written in the transaction that writes the rows themselves, so the two always agree, and they outlive the
rows. `rollups` has a row for each hour and sort of failure, and one for each day and sort. `totals` has one row for an account and a span of time,
whatever happened in it: all its counts are lanes of one big integer, so that the counts of thousands of accounts add up
at the speed of C. Four lengths of span (`STEPS`) make any stretch of time a sum of a few.
"""

from __future__ import annotations

import sqlite3
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, cast

from supervisor.core.failure import Result, Row
from supervisor.record.rows import Columns

HOUR = 3600
PART = 3 * HOUR
DAY = 86_400
SPAN = 10 * DAY

STEPS = (HOUR, PART, DAY, SPAN)
"""The lengths of an account's totals; each is a multiple of the one before."""

KEPT = {HOUR: 3 * DAY, PART: 4 * DAY, DAY: 45 * DAY, SPAN: 366 * DAY}
"""How long totals are kept, by their length. The shorter ones serve only to begin at any time, or at any midnight."""

# Stands for all accounts in `rollups`. No account can have this name; '' stands for rows without an account.
ALL = "*"

WRITE = (
    "INSERT INTO rollups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "count = count + excluded.count, longest = max(longest, excluded.longest), "
    "lengths = added(lengths, excluded.lengths)"
)
WRITE_TOTALS = (
    "INSERT INTO totals VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "ended = added(ended, excluded.ended), counts = added(counts, excluded.counts)"
)
WRITE_LANES = "INSERT OR IGNORE INTO lanes VALUES (?, ?, ?, ?, ?)"

# Durations are kept in classes a factor of 2^(1/4) wide, so that one read from a class is off by 9 % at most.
_FINENESS = 4
_SHORTEST = 0.05  # s; what is shorter counts as this
_LAST = 127  # 0.05 s x 2^(127/4): over five years
CLASSES = _LAST + 1
BITS = 32  # of each class's count


def length_class(seconds: float) -> int:
    """The class that a duration falls into."""
    return bisect_right(_BOUNDS, seconds)


_BOUNDS = [_SHORTEST * 2.0 ** ((number + 0.5) / _FINENESS) for number in range(_LAST)]


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

    @classmethod
    def of(cls, lanes: int) -> Histogram:
        """One of the big integer that it is."""
        histogram = cls()
        histogram._packed = lanes
        return histogram

    @classmethod
    def of_counts(cls, counts: array[int]) -> Histogram:
        """One of the count of each class; the array is used up."""
        if sys.byteorder == "big":
            counts.reverse()
        return cls.of(int.from_bytes(counts.tobytes(), sys.byteorder))

    def __iter__(self) -> Iterator[tuple[float, int]]:
        """Durations and how many there are of each, the shortest first."""
        return ((_LENGTHS[number], count) for number, count in enumerate(unpacked(self._packed)) if count)

    def add(self, seconds: float, count: int) -> None:
        """Count some recoveries that took this long."""
        self.add_class(length_class(seconds), count)

    def add_class(self, number: int, count: int) -> None:
        """Count some recoveries of a class."""
        self._packed += count << (BITS * number)

    def add_all(self, other: Histogram) -> None:
        """Count all that another one has."""
        self._packed += other._packed

    def percentile(self, share: float) -> float | None:
        """The shortest duration that at least this share of all does not exceed."""
        upto = list(accumulate(unpacked(self._packed)))
        return _LENGTHS[bisect_left(upto, share * upto[-1])] if upto else None

    def merge(self, packed: bytes | None) -> None:
        """Count all that a packed one holds."""
        if packed:
            self._packed += int.from_bytes(packed, "little")

    def packed(self) -> bytes:
        """As it is stored; as short as it can be."""
        return _packed(self._packed)


_LENGTHS = [class_length(number) for number in range(CLASSES)]


def unpacked(number: int, least: int = 0) -> array[int]:
    """The counts in a big integer's lanes: all up to the last that counts, and at least so many."""
    lanes = array(
        "I", number.to_bytes(max(-(-number.bit_length() // BITS), least) * (BITS // 8), sys.byteorder)
    )
    if sys.byteorder == "big":
        lanes.reverse()
    return lanes


# --- Totals of an account ----------------------------------------------------------------------------------

UNTIMED = -1  # the length class of what has no duration

# Lanes of `ended`: how incidents ended, of whatever kind. From the third on, recoveries by their length class.
FAILED, RECOVERED_UNTIMED, RECOVERED = range(3)

Lane = tuple[str, str, str, int]
"""Kind, action, outcome and length class."""


class Lanes:
    """Which lane of `counts` counts what: numbered as they come up, so that few are used.

    Args:
        known: the rows of the table.
    """

    def __init__(self, known: Iterable[tuple[int, str, str, str, int]] = ()) -> None:
        self._numbers: dict[Lane, int] = {(kind, *rest): number for number, kind, *rest in known}  # type: ignore[misc]
        self._saved = len(self._numbers)

    def __iter__(self) -> Iterator[tuple[Lane, int]]:
        return iter(self._numbers.items())

    def number(self, lane: Lane) -> int:
        """The number of a lane, a new one where it has none."""
        return self._numbers.setdefault(lane, len(self._numbers))

    def unsaved(self) -> list[Columns]:
        """The columns of those that the file does not have yet."""
        return [(number, *lane) for lane, number in list(self._numbers.items())[self._saved :]]

    def saved(self, upto: int) -> None:
        """So many more are in the file."""
        self._saved += upto


@dataclass(slots=True)
class _Sum:
    count: int = 0
    longest: float = 0.0
    lengths: Histogram = field(default_factory=Histogram)

    def add(self, other: _Sum) -> None:
        self.count += other.count
        self.longest = max(self.longest, other.longest)
        self.lengths.add_all(other.lengths)

    def columns(self) -> Columns:
        return self.count, self.longest, self.lengths.packed()


class Tally:
    """The roll-ups of one batch of rows."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._hours: dict[tuple[int, str, str, str], _Sum] = {}
        self._accounts: dict[tuple[int, str], tuple[int, int]] = {}  # hour, account: ended, counts

    def add(self, row: Row) -> None:
        """Count a row: in its hour, and for its account."""
        sort = row.kind.value, row.action.value, row.outcome.value
        self.count(row.at, row.account, sort, row.duration, row.count)

    def count(
        self, at: float, account: str | None, sort: tuple[str, str, str], duration: float | None, count: int
    ) -> None:
        """The same of the columns of a row; `sort` is kind, action and outcome."""
        key = (int(at // HOUR) * HOUR, *sort)
        found = self._hours.get(key) or self._hours.setdefault(key, _Sum())
        found.count += count
        length = UNTIMED
        if sort[-1] == Result.RECOVERED and duration is not None:
            length = length_class(duration)
            found.longest = max(found.longest, duration)
            found.lengths.add_class(length, count)
        self.add_total(key[0], account or "", (*sort, length), count)

    def add_total(self, start: int, account: str, lane: Lane, count: int) -> None:
        """Count for an account alone.

        Args:
            start: the start of the hour, or of the step that is asked for; Unix time.
            account: its name, or ''.
            lane: what happened.
            count: how often.
        """
        ended, counts = self._accounts.get((start, account), (0, 0))
        if lane[2] == Result.FAILED:
            ended += count << (BITS * FAILED)
        elif lane[2] == Result.RECOVERED:
            ended += count << (BITS * (RECOVERED + lane[3]))  # UNTIMED lies just before the classes
        self._accounts[start, account] = ended, counts + (count << (BITS * self._lanes.number(lane)))

    def columns(self) -> Iterator[Columns]:
        """The columns of `rollups`, in the order of the table."""
        days: dict[tuple[int, str, str, str], _Sum] = {}
        for (hour, kind, action, outcome), found in self._hours.items():
            yield (HOUR, hour, ALL, kind, action, outcome, *found.columns())
            days.setdefault((hour // DAY * DAY, kind, action, outcome), _Sum()).add(found)
        for (day, *sort), found in days.items():
            yield (DAY, day, ALL, *sort, *found.columns())

    def totals(self, steps: Iterable[int] = STEPS) -> Iterator[Columns]:
        """The columns of `totals`, in the order of the table and of its key."""
        for step in steps:
            sums: dict[tuple[int, str], tuple[int, int]] = {}
            for (hour, account), (ended, counts) in self._accounts.items():
                key = (hour // step * step, account)
                before = sums.get(key, (0, 0))
                sums[key] = before[0] + ended, before[1] + counts
            for (start, account), (ended, counts) in sorted(sums.items()):
                yield (step, start, account, _packed(ended), _packed(counts))


def _packed(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "little")


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
        self._counts = [0] * CLASSES

    def step(self, duration: float, count: int) -> None:
        self._counts[bisect_right(_BOUNDS, duration)] += count

    def finalize(self) -> bytes:
        return Histogram.of_counts(array("I", self._counts)).packed()


def teach(db: sqlite3.Connection) -> None:
    """Give a connection the functions that roll-ups need: ``merged`` and ``lengths`` to read, ``added`` to write."""
    db.create_function("added", 2, added, deterministic=True)
    db.create_aggregate("merged", 1, cast("Any", _Merged))  # typeshed knows numbers only
    db.create_aggregate("lengths", 2, cast("Any", _Lengths))
