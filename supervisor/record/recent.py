"""How many failures came of late: counted once, then kept up by the log's new rows alone."""

from __future__ import annotations

import sqlite3
from collections import Counter

from supervisor.record.queries import newest_id

MINUTE, HOUR = 60, 3600


class Recent:
    """The failures of the last minute and the last hour, as seen by a reader that looks again and again."""

    def __init__(self) -> None:
        self._by_second: Counter[int] = Counter()
        self._seen: int | None = None  # the newest row that is counted

    def count(self, db: sqlite3.Connection, now: float) -> tuple[int, int]:
        """How many failures the last minute and the last hour had.

        Args:
            db: recovery.db; it may be another one than before, begun anew.
            now: Unix time.
        """
        newest = newest_id(db)
        if self._seen is None or newest < self._seen:
            self._by_second.clear()
            self._add(db, "at > ? AND id <= ?", (now - HOUR, newest))
        elif newest > self._seen:
            self._add(db, "id > ? AND id <= ?", (self._seen, newest))
        self._seen = newest
        for second in [second for second in self._by_second if second <= now - HOUR]:
            del self._by_second[second]
        minute = sum(count for second, count in self._by_second.items() if second > now - MINUTE)
        return minute, self._by_second.total()

    def _add(self, db: sqlite3.Connection, condition: str, values: tuple[float, ...]) -> None:
        statement = (
            "SELECT CAST(at AS INTEGER), sum(count) FROM failures "
            f"WHERE {condition} AND outcome <> 'recovered' GROUP BY 1"
        )
        for second, count in db.execute(statement, values):
            self._by_second[second] += count
