"""Counting the log over a span of time: whole hours and days from the roll-ups, what lies before them from the rows.

So a count is exact, and costs about the same whether the log has a thousand rows or ten million. Plain sqlite3, read-only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from supervisor.core.failure import Kind
from supervisor.record.queries import account_condition
from supervisor.record.rollups import ALL, DAY, HOUR, Histogram, teach

# Where more rows than this lie between the asked time and the next midnight, a span of days begins at its own midnight:
# counting them one by one would take longer than all the rest.
_EXACT_EDGE = 20_000
_SHORT = 2 * DAY  # s; a span up to this long is never widened for that

# So many recoveries are sorted for exact percentiles; those of more come from the roll-ups.
EXACT_DURATIONS = 10_000

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
        teach(db)
        db.execute("BEGIN")

    def start(self, since: float, now: float, step: int = DAY) -> float:
        """Where counting begins: at `since`, or where that is not to be had, at the start of its day (or hour).

        It is not to be had where the rows of that day are partly gone already, or are too many.

        Args:
            since: Unix time.
            now: Unix time.
            step: `DAY`, or `HOUR` for counts without an account.
        """
        whole = since // step * step
        if not self._has_rows_since(since):
            return whole
        if now - since > _SHORT and self._rows_between(since, whole + step) > _EXACT_EDGE:
            return whole
        return since

    def by_sort(self, asked: Asked) -> dict[Sort, Count]:
        """The counts by kind, action and outcome."""
        step = HOUR if asked.account is None else DAY
        counts: dict[Sort, Count] = {}
        for kind, action, outcome, count, longest, lengths in self._pieces(
            asked, step, "kind, action, outcome", rolled=f" AND kind <> '{ALL}'"
        ):
            _add(counts.setdefault((kind, action, outcome), Count()), count, longest, lengths)
        return counts

    def by_account(self, asked: Asked) -> dict[tuple[str, str], Count]:
        """How incidents ended, by account and outcome: ``recovered`` or ``failed``. Rows without an account are left out."""
        counts: dict[tuple[str, str], Count] = {}
        more = f" AND {_ENDED} AND account <> ''"
        rolled = "" if asked.kind else f" AND kind = '{ALL}'"
        for account, outcome, count, longest, lengths in self._pieces(
            asked, DAY, "account, outcome", more, rolled
        ):
            _add(counts.setdefault((account, outcome), Count()), count, longest, lengths)
        return counts

    def durations(self, asked: Asked) -> list[Took] | None:
        """Every recovery's duration; None where the rows are partly gone: then the counts' histograms have to do.

        It is worth its time for up to `EXACT_DURATIONS`.
        """
        if not self._has_rows_since(asked.since):
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

    def _pieces(
        self, asked: Asked, step: int, columns: str, more: str = "", rolled: str = ""
    ) -> Iterator[tuple[Any, ...]]:
        """The columns asked for, with count, longest and lengths: of the rows up to the first whole step, then of the rest."""
        conditions, values = _conditions(asked)
        first = -(-asked.since // step) * step
        if first > asked.since:
            yield from self._db.execute(
                f"SELECT {columns}, sum(count), coalesce(max(duration), 0.0), lengths(duration, count) FROM failures "
                f"WHERE at >= ? AND at < ?{conditions}{more} GROUP BY {columns}",
                (asked.since, first, *values),
            )
        yield from self._db.execute(
            f"SELECT {columns}, sum(count), max(longest), merged(lengths) FROM rollups "
            f"WHERE step = ? AND start >= ?{conditions}{more}{rolled} GROUP BY {columns}",
            (step, first, *values),
        )

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


def _add(to: Count, count: int, longest: float, lengths: bytes) -> None:
    to.count += count
    to.longest = max(to.longest, longest)
    to.lengths.merge(lengths)


def _conditions(asked: Asked) -> tuple[str, list[object]]:
    """What follows the condition on the time."""
    text, values = "", list[object]()
    if asked.account is not None:
        text, values = f" AND {account_condition(asked.account)} AND account <> ''", [asked.account]
    if asked.kind is not None:
        text, values = f"{text} AND kind = ?", [*values, asked.kind.value]
    return text, values
