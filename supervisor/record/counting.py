"""Counting the log over a span of time: whole hours and days from the roll-ups, what lies before them from the rows.

So a count is exact, and costs about the same whether the log has a thousand rows or ten million: all accounts together
are a few rows for each hour or day, one account is one row for each hour, three hours, day or ten days, whichever are
fewest. Plain sqlite3, read-only.
"""

from __future__ import annotations

import math
import sqlite3
import time
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from supervisor.core.failure import Kind, Result
from supervisor.record.migrations import HOURS_FROM, PATHS_SINCE, version
from supervisor.record.queries import account_condition, is_pattern
from supervisor.record.rollups import (
    ALL,
    BITS,
    CLASSES,
    DAY,
    FAILED,
    HOUR,
    KEPT,
    PART,
    RECOVERED,
    RECOVERED_UNTIMED,
    SPAN,
    STEPS,
    UNTIMED,
    Histogram,
    Lane,
    teach,
    unpacked,
)

# Where more rows than this lie between the asked time and the next midnight, a span of days begins at its own midnight:
# counting them one by one would take longer than all the rest. The same for a short span, and the next hour.
_EXACT_EDGE = 20_000
_SHORT = 2 * DAY  # s; a span up to this long goes on from the next hour
_LONG = 40 * DAY  # s; what began longer ago is counted in spans of ten days

# Durations are sorted for exact percentiles where at most so many recoveries, and so many rows of the log, have to be
# looked at; else they come from the roll-ups.
EXACT_DURATIONS = 4_000
_OF_ONE_ACCOUNT = 2_000  # recoveries; they lie all over the file
_EXACT_ROWS = 30_000

_ENDED = "outcome IN ('recovered', 'failed')"  # word for word the condition of an index, which holds all that is needed


@dataclass(frozen=True, slots=True)
class Asked:
    """Which rows are counted; what is None does not matter.

    Args:
        since: Unix time.
        account: a name or a pattern, as ``support-*``.
        kind: of the failure.
    """

    since: float
    account: str | None = None
    kind: Kind | None = None


@dataclass(slots=True)
class Count:
    """Failures of one sort: how many, and how long their recoveries took."""

    count: int = 0
    longest: float = 0.0
    lengths: Histogram = field(default_factory=Histogram)

    def add(self, count: int, longest: float, lengths: bytes) -> None:
        """Count more of them."""
        self.count += count
        self.longest = max(self.longest, longest)
        self.lengths.merge(lengths)


@dataclass(slots=True)
class Ended:
    """How an account's incidents ended, and how long the recoveries took."""

    recovered: int = 0
    failed: int = 0
    lengths: Histogram = field(default_factory=Histogram)


@dataclass(frozen=True, slots=True)
class Took:
    """A recovery's duration in seconds; `count` where it stands for several."""

    account: str | None
    kind: str
    duration: float
    count: int


Sort = tuple[str, str, str]
"""Kind, action and outcome."""


class Log:
    """The log as it stands at one moment: what is written meanwhile does not show.

    Args:
        db: recovery.db, as `queries.opened` gives it.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._now = time.time()  # only decides which roll-ups are sure to be there
        self._plain = db.cursor()
        self._plain.row_factory = None  # tuples: half the time of sqlite3.Row
        self._by_sort: dict[Asked, Mapping[Sort, Count]] = {}
        self._added: dict[tuple[str, int, int], int] = {}
        teach(db)
        db.execute("BEGIN")

    def start(self, since: float, step: int | None = None) -> float:
        """Where counting begins: at `since`, or where that is not to be had, at the start of its day (or ten days).

        It is not to be had where the rows up to the first roll-up are partly gone already, or are too many.

        Args:
            since: Unix time.
            step: `HOUR` for counts without an account.
        """
        step = step or self._step(since)
        if not self._has_rows_since(since):
            whole = step if step == HOUR else max(step, DAY)
            return since // whole * whole
        if self._rows_between(since, _up(since, step)) > _EXACT_EDGE:
            return since // step * step
        return since

    def by_sort(self, asked: Asked) -> Mapping[Sort, Count]:
        """The counts by kind, action and outcome. With an account, the longest may be 9 % off."""
        if asked not in self._by_sort:  # the last week is often asked for twice
            self._by_sort[asked] = self._count_by_sort(asked)
        return self._by_sort[asked]

    def _count_by_sort(self, asked: Asked) -> dict[Sort, Count]:
        counts: defaultdict[Sort, Count] = defaultdict(Count)
        if asked.account is None:
            first = _up(asked.since, HOUR)
            self._add_hours(asked, first, counts)
        else:
            first = _up(asked.since, self._step(asked.since))
            wide = self._is_wide(asked.account)
            if wide:
                self._add_hours(asked, first, counts)
            total = sum(
                sign * self._counts(asked.account, wide, step, start)
                for sign, step, start in self._stretches(first)
            )
            self._add_lanes(asked, -1 if wide else 1, total, counts)
        for kind, action, outcome, *sums in self._rows(asked, first, "kind, action, outcome"):
            counts[kind, action, outcome].add(*sums)
        return {sort: count for sort, count in counts.items() if count.count}

    def _add_hours(self, asked: Asked, first: float, counts: defaultdict[Sort, Count]) -> None:
        """Count for all accounts together, from an hour's start on: up to a midnight by the hour, then by the day."""
        conditions, values = _conditions(Asked(asked.since, None, asked.kind))
        statement = (
            "SELECT kind, action, outcome, count, longest, lengths FROM rollups "
            f"WHERE step = ? AND start >= ? AND start < ? AND account = ?{conditions}"
        )
        midnight = _up(first, DAY) if version(self._db) >= PATHS_SINCE else math.inf
        for step, since, until in ((HOUR, first, midnight), (DAY, midnight, math.inf)):
            for kind, action, outcome, *sums in self._plain.execute(
                statement, (step, since, until, ALL, *values)
            ):
                counts[kind, action, outcome].add(*sums)

    def _add_lanes(self, asked: Asked, sign: int, total: int, counts: defaultdict[Sort, Count]) -> None:
        """Count, or take away, what the lanes hold; what they know of durations is their class."""
        known = self._lanes()
        for (kind, action, outcome, length), many in zip(known, unpacked(total, len(known)), strict=True):
            if many and asked.kind in {None, kind}:
                found = counts[kind, action, outcome]
                found.count += sign * many
                if length != UNTIMED:
                    found.lengths.add_class(length, sign * many)
        for found in counts.values():
            found.longest = max((length for length, _ in found.lengths), default=0.0)

    def _is_wide(self, account: str) -> bool:
        """Whether a pattern stands for most accounts: it is quicker then to take the others away from all."""
        statement = "SELECT 2 * sum(account GLOB ? AND account <> '') > count(*) FROM (SELECT DISTINCT account FROM totals WHERE step = ?)"
        return bool(is_pattern(account) and self._db.execute(statement, (account, SPAN)).fetchone()[0])

    def by_account(self, asked: Asked) -> dict[str, Ended]:
        """How incidents ended, by account. Rows without an account are left out."""
        first = _up(asked.since, self._step(asked.since))
        sums: defaultdict[str, int] = defaultdict(int)
        conditions, values = _conditions(Asked(asked.since, asked.account))
        column = "counts" if asked.kind else "ended"
        statement = (
            f"SELECT account, {column} FROM totals WHERE step = ? AND start = ? AND account <> ''{conditions}"
        )
        for sign, step, start in self._stretches(first):
            for account, packed in self._plain.execute(statement, (step, start, *values)).fetchall():
                sums[account] += sign * int.from_bytes(packed, "little")
        ended = self._ended_as(asked, sums) if asked.kind else _ended(sums)
        for account, outcome, count, _, lengths in self._rows(
            asked, first, "account, outcome", f" AND {_ENDED} AND account <> ''"
        ):
            found = ended.setdefault(account, Ended())
            if outcome == Result.FAILED:
                found.failed += count
            else:
                found.recovered += count
                found.lengths.merge(lengths)
        return ended

    def durations(self, asked: Asked, recovered: int) -> list[Took] | None:
        """Every recovery's duration; None where the rows are partly gone, or are too many to look at each.

        Then the counts' histograms have to do.

        Args:
            asked: whose.
            recovered: how many there are.
        """
        if asked.account is not None and not is_pattern(asked.account):
            few = recovered <= _OF_ONE_ACCOUNT
        else:
            few = recovered <= EXACT_DURATIONS and self._rows_between(asked.since, math.inf) <= _EXACT_ROWS
        if not few or not self._has_rows_since(asked.since):
            return None
        conditions, values = _conditions(asked)
        statement = (
            f"SELECT account, kind, duration, count FROM failures WHERE {_ENDED} AND outcome = 'recovered' "
            f"AND duration IS NOT NULL AND at >= ?{conditions}"
        )
        return [Took(*row) for row in self._db.execute(statement, (asked.since, *values))]

    def by_hour(self, since: float) -> dict[str, list[tuple[int, int]]]:
        """The failures of all accounts by kind: Unix time of the hour's start, and how many; hours without any are left out."""
        counts: dict[str, list[tuple[int, int]]] = {}
        statement = (
            "SELECT kind, start, sum(count) FROM rollups "
            "WHERE step = ? AND start >= ? AND outcome <> 'recovered' GROUP BY kind, start ORDER BY kind, start"
        )
        for kind, start, count in self._db.execute(statement, (HOUR, since // HOUR * HOUR)):
            counts.setdefault(kind, []).append((start, count))
        return counts

    def open_incidents(self, asked: Asked) -> list[tuple[str | None, str, int]]:
        """Account and kind of the incidents that nothing has ended yet, whenever they began, and how many they are."""
        conditions, values = _conditions(asked)
        statement = (
            f"SELECT account, kind, count(*) FROM incidents WHERE closed_at IS NULL{conditions} GROUP BY 1, 2"
        )
        return [(row[0], row[1], row[2]) for row in self._db.execute(statement, values)]

    def _step(self, since: float) -> int:
        """The length of the first roll-ups of an account that are used."""
        age = self._now - since
        if age <= _SHORT:
            return HOUR if since >= self._hours_from() else PART
        return DAY if age <= _LONG else SPAN

    def _hours_from(self) -> float:
        """From when on accounts are counted by the hour: an older release did not."""
        if version(self._db) < PATHS_SINCE:
            return math.inf
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (HOURS_FROM,)).fetchone()
        return found[0] if found else 0.0

    def _stretches(self, first: float) -> Iterator[tuple[int, int, int]]:
        """Sign, step and start of the totals that make up the time from `first` on.

        Most of a longer stretch is the whole of it without its beginning: so there are few of them, wherever it begins.
        """
        newest = self._db.execute("SELECT max(start) FROM totals WHERE step = ?", (SPAN,)).fetchone()[0]
        end = first if newest is None else newest + SPAN
        for step, longer in pairwise(STEPS):
            until = min(_up(first, longer), end)
            whole = first // longer * longer
            if first - whole < min(until, self._now) - first and self._is_kept(step, whole):
                yield from ((-1, step, start) for start in range(int(whole), int(first), step))
                first = whole
            else:
                yield from ((1, step, start) for start in range(int(first), int(until), step))
                first = max(first, until)
        yield from ((1, SPAN, start) for start in range(int(first), int(end), SPAN))

    def _is_kept(self, step: int, since: float) -> bool:
        """Whether all totals of this length are still there from then on."""
        return since >= self._now - KEPT[step] and (step != HOUR or since >= self._hours_from())

    def _counts(self, account: str, others: bool, step: int, start: int) -> int:
        """The lanes of all accounts asked for (or of all others) over one stretch: the last day is in the last week, too."""
        key = account, step, start
        if key not in self._added:
            chosen = f"{account_condition(account)} AND account <> ''"
            statement = f"SELECT counts FROM totals WHERE step = ? AND start = ? AND {f'NOT ({chosen})' if others else chosen}"
            found = self._plain.execute(statement, (step, start, account))
            self._added[key] = sum(int.from_bytes(packed, "little") for (packed,) in found)
        return self._added[key]

    def _rows(self, asked: Asked, first: float, columns: str, more: str = "") -> Iterator[tuple[Any, ...]]:
        """The columns asked for, with count, longest and lengths, of the rows up to the first roll-up."""
        if first > asked.since:
            conditions, values = _conditions(asked)
            yield from self._db.execute(
                f"SELECT {columns}, sum(count), coalesce(max(duration), 0.0), "
                "lengths(duration, count) FILTER (WHERE duration IS NOT NULL) FROM failures "
                f"WHERE at >= ? AND at < ?{conditions}{more} GROUP BY {columns}",
                (asked.since, first, *values),
            )

    def _lanes(self) -> list[Lane]:
        """What the lanes of `counts` count."""
        return self._db.execute("SELECT kind, action, outcome, length FROM lanes ORDER BY number").fetchall()

    def _ended_as(self, asked: Asked, sums: dict[str, int]) -> dict[str, Ended]:
        """How the incidents of one kind ended."""
        known = self._lanes()
        failed, recovered = [], []
        for number, (kind, _, outcome, length) in enumerate(known):
            if kind == asked.kind and outcome == Result.FAILED:
                failed.append(number)
            elif kind == asked.kind and outcome == Result.RECOVERED:
                recovered.append((number, length))
        ended = {}
        for account, total in sums.items():
            lanes = unpacked(total, len(known))
            counts = array("I", bytes(4 * (CLASSES + 1)))  # the classes, and at last what has none
            for number, length in recovered:
                counts[length] += lanes[number]
            found = Ended(sum(counts), sum(lanes[number] for number in failed))
            if found.recovered or found.failed:
                found.lengths = Histogram.of_counts(counts[:UNTIMED])
                ended[account] = found
        return ended

    def _has_rows_since(self, since: float) -> bool:
        """Whether every row from then on is still there: the first number is 1, so that nothing was ever deleted else."""
        oldest = self._db.execute("SELECT id, at FROM failures ORDER BY id LIMIT 1").fetchone()
        if oldest is None:
            return (
                self._db.execute("SELECT 1 FROM sqlite_sequence WHERE name = 'failures'").fetchone() is None
            )
        return bool(oldest[0] == 1 or oldest[1] <= since)

    def _rows_between(self, since: float, until: float) -> int:
        """About how many rows there are: numbers grow with time."""
        statement = "SELECT id FROM failures WHERE at >= ? ORDER BY at LIMIT 1"
        first = self._db.execute(statement, (since,)).fetchone()
        if first is None:
            return 0
        after = (
            self._db.execute(statement, (until,)).fetchone()
            or self._db.execute("SELECT max(id) + 1 FROM failures").fetchone()
        )
        return int(after[0] - first[0])


def _ended(sums: dict[str, int]) -> dict[str, Ended]:
    """How incidents of all kinds ended."""
    ended = {}
    for account, total in sums.items():
        if total:
            lanes = unpacked(total)
            ended[account] = Ended(
                sum(lanes[RECOVERED_UNTIMED:]), lanes[FAILED], Histogram.of(total >> (BITS * RECOVERED))
            )
    return ended


def _up(at: float, step: float) -> float:
    """The first start of a step from then on."""
    return math.inf if step == math.inf else -(-at // step) * step


def _conditions(asked: Asked) -> tuple[str, list[object]]:
    """What follows the condition on the time."""
    text, values = "", list[object]()
    if asked.account is not None:
        text, values = f" AND {account_condition(asked.account)} AND account <> ''", [asked.account]
    if asked.kind is not None:
        text, values = f"{text} AND kind = ?", [*values, asked.kind.value]
    return text, values
