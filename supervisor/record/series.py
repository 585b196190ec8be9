"""The log as plots want it: counts and times by stretches of equal length. Plain sqlite3, read-only."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from supervisor.record.counting import Log
from supervisor.record.rollups import HOUR, Histogram

_MINUTE = 60
_FINE = 6 * HOUR + _MINUTE  # s; a span up to this long is counted by the minute, from the rows themselves


@dataclass(frozen=True, slots=True)
class Recovered:
    """The recoveries of one stretch of time. Seconds; None where nothing is known."""

    start: int
    count: int
    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Series:
    """A span of time in stretches of `step` seconds; those in which nothing happened are left out.

    Args:
        step: seconds.
        failures: by kind: start of the stretch (Unix time), and how many.
        recovered: how fast it was recovered, the oldest stretch first.
    """

    step: int
    failures: dict[str, list[tuple[int, int]]]
    recovered: Sequence[Recovered]


def series(db: sqlite3.Connection, since: float, until: float) -> Series:
    """The failures and recoveries of all accounts between two Unix times."""
    log = Log(db)  # what is written from here on does not show
    if until - since > _FINE:
        return Series(HOUR, log.by_hour(since), _recovered_by_hour(db, since))
    return Series(_MINUTE, _by_minute(db, since), _recovered_by_minute(db, since))


def _by_minute(db: sqlite3.Connection, since: float) -> dict[str, list[tuple[int, int]]]:
    counts: dict[str, list[tuple[int, int]]] = {}
    statement = (
        "SELECT kind, CAST(at / ?1 AS INTEGER) * ?1 AS start, sum(count) FROM failures "
        "WHERE at >= ?2 AND outcome <> 'recovered' GROUP BY 1, 2 ORDER BY 1, 2"
    )
    for kind, start, count in db.execute(statement, (_MINUTE, since)):
        counts.setdefault(kind, []).append((start, count))
    return counts


def _recovered_by_hour(db: sqlite3.Connection, since: float) -> list[Recovered]:
    counts: defaultdict[int, int] = defaultdict(int)
    lengths: defaultdict[int, Histogram] = defaultdict(Histogram)
    statement = (
        "SELECT start, count, lengths FROM rollups WHERE step = ? AND start >= ? AND outcome = 'recovered' "
        "ORDER BY start"
    )
    for start, count, packed in db.execute(statement, (HOUR, since // HOUR * HOUR)):
        counts[start] += count
        lengths[start].merge(packed)
    return [_recovered(start, counts[start], lengths[start]) for start in counts]


def _recovered_by_minute(db: sqlite3.Connection, since: float) -> list[Recovered]:
    counts: defaultdict[int, int] = defaultdict(int)
    lengths: defaultdict[int, Histogram] = defaultdict(Histogram)
    statement = "SELECT at, count, duration FROM failures WHERE at >= ? AND outcome = 'recovered' ORDER BY at"
    for at, count, duration in db.execute(statement, (since,)):
        start = int(at // _MINUTE) * _MINUTE
        counts[start] += count
        if duration is not None:
            lengths[start].add(duration, count)
    return [_recovered(start, counts[start], lengths[start]) for start in counts]


def _recovered(start: int, count: int, lengths: Histogram) -> Recovered:
    return Recovered(start, count, lengths.percentile(0.5), lengths.percentile(0.99))
