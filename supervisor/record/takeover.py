"""The log of an older release, taken over a slice at a time while the daemon runs.

Its rows were put aside when the file was opened (`migrations`), for to count and to index millions of them at once would
keep everything waiting. The newest go first, each slice in a transaction of its own: they leave the old table, and are
in the log and in its counts, or none of it. So it goes on after a kill -9 as if nothing had been.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from supervisor.record import rollups
from supervisor.record.files import uri
from supervisor.record.migrations import put_aside
from supervisor.record.rollups import DAY, KEPT, PART, SPAN, UNTIMED
from supervisor.record.rows import FAILURE_COLUMNS

_log = logging.getLogger(__name__)

_SLICE = 1_000  # rows; some 30 ms
_TOLD_EVERY = 30.0  # s
_BUSY = 1.0  # s that a slice waits for `resolve`


class Takeover:
    """What an older release has left in recovery.db.

    Args:
        path: the file; it is up to date otherwise.
        lanes: those of the file's writer, who writes nothing while a slice is taken.
    """

    def __init__(self, path: Path, lanes: rollups.Lanes) -> None:
        self._path = path
        self._lanes = lanes
        self._told_at: float | None = None
        self.is_done = False

    async def step(self, now: float) -> None:
        """Take one slice over.

        Args:
            now: Unix time.

        Raises:
            sqlite3.OperationalError: the file cannot be written just now; nothing has changed.
        """
        left = await asyncio.to_thread(_take, self._path, self._lanes, now)
        if left:
            self._tell(left)
        elif not self.is_done:
            self.is_done = True
            if self._told_at is not None:
                _log.info("the log of the older release is taken over")

    def _tell(self, left: int) -> None:
        clock = time.monotonic()
        if self._told_at is None:
            text = (
                "the log of an older release is taken over, the newest rows first; about %d of them are left"
            )
            _log.info(text, left)
        elif clock - self._told_at >= _TOLD_EVERY:
            _log.info("about %d rows of the older release's log are left", left)
        else:
            return
        self._told_at = clock


def _take(path: Path, lanes: rollups.Lanes, now: float) -> int:
    """Take a slice over; give about how many rows are left, 0 where nothing is."""
    with closing(sqlite3.connect(uri(path, "rw"), uri=True, timeout=_BUSY, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = NORMAL")
        rollups.teach(db)
        table, days = put_aside(db), _has_days(db)
        if table is None and not days:
            return 0
        db.execute("BEGIN IMMEDIATE")  # closing the connection takes it back
        if days:  # first: no shorter stretch of time ever has more in it than the longer one has
            _take_days(db, lanes)
        elif table is not None:
            _take_rows(db, table, lanes, now)
        left = _left(db)
        new = lanes.unsaved()
        db.executemany(rollups.WRITE_LANES, new)
        db.execute("COMMIT")
    lanes.saved(len(new))
    return left


def _left(db: sqlite3.Connection) -> int:
    """About how many rows are left; 1 where only something else is."""
    table = put_aside(db)
    if table is None:
        return int(_has_days(db))
    first, last = db.execute(f"SELECT coalesce(min(id), 1), coalesce(max(id), 1) FROM {table}").fetchone()
    return int(last - first) + 1


# --- Rows --------------------------------------------------------------------------------------------------

# An incident may have recovered after its rows were put aside.
_RECOVERED = (
    "(SELECT closed_at FROM incidents WHERE incidents.id = incident AND incidents.outcome = 'recovered')"
)
_COLUMNS = ", ".join(("id", *FAILURE_COLUMNS))
_VALUES = _COLUMNS.replace("resolved_at", f"coalesce(resolved_at, {_RECOVERED})")
_COUNTED = "at, account, kind, action, outcome, duration, count"


def _take_rows(db: sqlite3.Connection, table: str, lanes: rollups.Lanes, now: float) -> None:
    """Put the newest rows into the log. V2 has counted them by the hour and the day, V1 not at all."""
    newest = db.execute(f"SELECT id, {_COUNTED} FROM {table} ORDER BY id DESC LIMIT ?", (_SLICE,)).fetchall()
    if not newest:
        db.execute(f"DROP TABLE {table}")
        return
    tally = rollups.Tally(lanes)
    for _, at, account, *sort, duration, count in newest:
        tally.count(at, account, (sort[0], sort[1], sort[2]), duration, count)
    first, last = newest[-1][0], newest[0]
    recent = (PART,) if last[1] >= now - KEPT[PART] else ()
    if table == "failures_v1":
        db.executemany(rollups.WRITE, tally.columns())
        db.executemany(rollups.WRITE_TOTALS, tally.totals((*recent, DAY, SPAN)))
    else:
        db.executemany(rollups.WRITE_TOTALS, tally.totals(recent))
    db.execute(
        f"INSERT INTO failures ({_COLUMNS}) SELECT {_VALUES} FROM {table} WHERE id >= ? ORDER BY id", (first,)
    )
    db.execute(f"DELETE FROM {table} WHERE id >= ?", (first,))


# --- V2's counts of each account and day -----------------------------------------------------------------------

_DAYS = "step = 86400 AND account <> '*'"  # what all accounts had together is of this release
_KEY = "step, start, account, kind, action, outcome"


def _has_days(db: sqlite3.Connection) -> bool:
    return db.execute(f"SELECT 1 FROM rollups WHERE {_DAYS} LIMIT 1").fetchone() is not None


def _take_days(db: sqlite3.Connection, lanes: rollups.Lanes) -> None:
    """Put some of them into `totals`; those of all kinds together are not needed any more."""
    tally = rollups.Tally(lanes)
    found = db.execute(
        f"SELECT {_KEY}, count, lengths FROM rollups WHERE {_DAYS} LIMIT ?", (_SLICE,)
    ).fetchall()
    for _step, start, account, *sort, count, lengths in found:
        if sort[0] == "*":
            continue
        timed = 0
        for length, many in enumerate(rollups.unpacked(int.from_bytes(lengths, "little"))):
            if many:
                tally.add_total(start, account, (*sort, length), many)
                timed += many
        if count > timed:
            tally.add_total(start, account, (*sort, UNTIMED), count - timed)
    db.executemany(rollups.WRITE_TOTALS, tally.totals((DAY, SPAN)))
    marks = ", ".join("?" * len(_KEY.split(", ")))
    db.executemany(
        f"DELETE FROM rollups WHERE ({_KEY}) = ({marks})",
        (columns[: len(_KEY.split(", "))] for columns in found),
    )
