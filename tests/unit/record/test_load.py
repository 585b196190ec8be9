"""The log under load: a flood of failures, and a million rows to be read."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.record import fill, flood, read
from supervisor.core.failure import Action, Kind, Result, Row, Scope
from supervisor.ports import IncidentRow
from supervisor.record import queries
from supervisor.record.counting import Asked, Log
from supervisor.record.rollups import DAY, HOUR, STEPS, unpacked
from supervisor.record.store import Store, StoreSettings
from supervisor.report.stats import stats

MEASURED = "coverage" in sys.modules  # which slows the code down to a third

Counts = dict[str, int]
"""Failures by how they ended."""


def in_log(path: Path) -> Counts:
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT outcome, sum(count) FROM failures GROUP BY 1"))


def in_roll_ups(path: Path) -> Counts:
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute(f"SELECT outcome, sum(count) FROM rollups WHERE step = {HOUR} GROUP BY 1"))


def in_totals(path: Path, step: int) -> Counts:
    counts: Counter[str] = Counter()
    with closing(sqlite3.connect(path)) as db:
        lanes = [outcome for (outcome,) in db.execute("SELECT outcome FROM lanes ORDER BY number")]
        for (packed,) in db.execute("SELECT counts FROM totals WHERE step = ?", (step,)):
            for outcome, many in zip(lanes, unpacked(int.from_bytes(packed, "little")), strict=False):
                counts[outcome] += many
    return dict(counts)


def in_stats(path: Path, account: str | None = None) -> Counts:
    now = time.time()
    with queries.opened(path) as db:
        assert db is not None
        found = stats(Log(db), Asked(now - DAY, account), now)
    return {
        "recovered": found["incidents"]["recovered"],
        "failed": found["incidents"]["failed"],
        "seen": found["last_24h"],
    }


@pytest.mark.alone
async def test_a_flood_neither_stalls_the_loop_nor_fills_the_memory_nor_is_miscounted(tmp_path: Path) -> None:
    """10,000 failures a second: the loop is never 50 ms late but once in a hundred turns, and every failure is counted."""
    path = tmp_path / "recovery.db"
    found = await flood(path, 10_000, 3.0, accounts=1000)
    assert found.recorded > 29_000
    assert found.lag_p99 <= (0.15 if MEASURED else 0.05)
    assert found.memory <= 64 << 20
    counts = in_log(path)
    assert sum(counts.values()) == found.recorded
    assert counts["recovered"] == found.recovered
    assert in_roll_ups(path) == counts
    assert [in_totals(path, step) for step in STEPS] == [counts] * len(STEPS)
    wanted = {"recovered": found.recovered, "failed": 0, "seen": found.recorded - found.recovered}
    assert in_stats(path) == in_stats(path, "*") == wanted


async def test_a_flood_that_cannot_be_written_is_merged_and_not_miscounted(tmp_path: Path) -> None:
    """Past the bound rows share rows, also those that end incidents: how many there were of each sort stays exact."""
    path = tmp_path / "recovery.db"
    wanted: Counter[str] = Counter()
    async with Store.open(path, StoreSettings(max_rows=200)) as store:
        for number in range(30_000):
            result = (Result.RETRYING, Result.RECOVERED, Result.RETRYING, Result.FAILED, Result.RAISED)[
                number % 5
            ]
            incident = None if result is Result.RAISED else f"i-{number // 2}"
            now = time.time()
            duration = number % 50 / 10 if result is Result.RECOVERED else None
            account, kind = f"bot-{number % 700}", (Kind.TEMPORARY, Kind.CONNECTION)[number % 2]
            store.record(
                Row(
                    now,
                    account,
                    "direct",
                    Scope.CALL,
                    kind,
                    Action.RETRY,
                    result,
                    "lost",
                    incident,
                    duration=duration,
                )
            )
            wanted[result] += 1
            if incident:
                ended = result in {Result.RECOVERED, Result.FAILED}
                store.incident(
                    IncidentRow(incident, account, "direct", Scope.CALL, kind, now, now if ended else None)
                )
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM failures").fetchone()[0] < 1000
    assert in_log(path) == in_roll_ups(path) == dict(wanted)
    assert [in_totals(path, step) for step in STEPS] == [dict(wanted)] * len(STEPS)
    seen = wanted.total() - wanted["recovered"]
    assert in_stats(path) == {"recovered": wanted["recovered"], "failed": wanted["failed"], "seen": seen}


@pytest.mark.alone
@pytest.mark.timeout(120)
async def test_a_million_failures_are_counted_and_looked_through_at_once(tmp_path: Path) -> None:
    """Each query of `stats` and of a filtered `log` takes at most a tenth of a second of the processor's time."""
    path, now = tmp_path / "recovery.db", time.time()
    await fill(path, 1_000_000, 1000, now)
    took = dict(read(path, now, best=True))
    assert len(took) > 20
    assert {what: ms for what, ms in took.items() if ms > (300 if MEASURED else 100)} == {}
    counts = in_log(path)
    assert sum(counts.values()) == 1_000_000
    assert in_roll_ups(path) == counts
    assert in_totals(path, STEPS[-1]) == counts
