"""What `stats` counts, of a log as the store leaves it."""

from __future__ import annotations

import fnmatch
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.failure import Action, Kind, Result, Row, Scope
from supervisor.ports import IncidentRow
from supervisor.record import counting, queries
from supervisor.record.counting import Asked, Log
from supervisor.record.rollups import DAY, HOUR
from supervisor.record.store import Store, StoreSettings
from supervisor.report.stats import stats

NOW = time.time() // DAY * DAY + 18 * HOUR + 1234.5  # late enough in a day for its start to be another hour
KEYS = (
    "schema since until incidents success_rate time_to_recover_s by_kind by_action by_account last_24h errors_by_type_7d"
).split()


def row(  # noqa: PLR0917 - as a row is read
    ago: float,
    outcome: Result = Result.RETRYING,
    account: str | None = "a",
    kind: Kind = Kind.CONNECTION,
    action: Action = Action.RECONNECT,
    duration: float | None = None,
    count: int = 1,
) -> Row:
    return Row(
        NOW - ago, account, "direct", Scope.SESSION, kind, action, outcome, "lost",
        incident=None if outcome is Result.RAISED else "i", duration=duration, count=count,
    )  # fmt: skip


def recovered(ago: float, duration: float, account: str | None = "a", **more: Any) -> list[Row]:
    """A failure and its recovery."""
    return [
        row(ago + duration, account=account, **more),
        row(ago, Result.RECOVERED, account, duration=duration, **more),
    ]


async def write(path: Path, rows: Iterable[Row] = (), incidents: Iterable[IncidentRow] = ()) -> None:
    async with Store.open(path, now=lambda: NOW) as store:
        for one in rows:
            store.record(one)
        for incident in incidents:
            store.incident(incident)


def count(
    path: Path, days: float = 7.0, account: str | None = None, kind: Kind | None = None
) -> dict[str, Any]:
    with queries.opened(path) as db:
        return stats(None if db is None else Log(db), Asked(NOW - days * DAY, account, kind), NOW)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "recovery.db"


# --- The object -------------------------------------------------------------------------------------------


def test_without_a_log_everything_is_nothing(db: Path) -> None:
    """Every key is there; what cannot be known is null."""
    found = count(db)
    assert list(found) == KEYS
    assert found["incidents"] == {"total": 0, "recovered": 0, "failed": 0, "open": 0}
    assert found["time_to_recover_s"] == {"p50": None, "p90": None, "p99": None, "max": None}
    assert (found["success_rate"], found["last_24h"], found["errors_by_type_7d"]) == (None, 0, {})


async def test_incidents_are_counted_by_how_they_ended(db: Path) -> None:
    """Recovered and failed ones by their closing rows, open ones by the incidents; the rate leaves open ones out."""
    rows = [
        *recovered(100, 2.0),
        *recovered(90, 4.0),
        *recovered(80, 6.0, "b", kind=Kind.PROXY, action=Action.ROTATE_PROXY),
        row(70, account="b", kind=Kind.AUTH, action=Action.RELOGIN),
        row(69, Result.FAILED, "b", Kind.AUTH, Action.FAIL),
        row(50, Result.SUSPENDED, "c"),
        row(40, Result.NEEDS_LOGIN, "d", Kind.AUTH, Action.FAIL),
    ]
    still_open = [
        IncidentRow("c", "c", "direct", Scope.SESSION, Kind.CONNECTION, NOW - 50),
        IncidentRow("d", "d", "direct", Scope.ACCOUNT, Kind.AUTH, NOW - 40 * DAY),
    ]
    await write(db, rows, still_open)
    found = count(db)
    assert list(found) == KEYS
    assert found["incidents"] == {"total": 6, "recovered": 3, "failed": 1, "open": 2}
    assert found["success_rate"] == 0.75
    assert found["time_to_recover_s"] == {"p50": 4.0, "p90": 6.0, "p99": 6.0, "max": 6.0}
    assert found["by_kind"] == {
        "proxy": {"count": 1, "recovered": 1, "failed": 0, "p50_s": 6.0},
        "connection": {"count": 3, "recovered": 2, "failed": 0, "p50_s": 2.0},
        "auth": {"count": 2, "recovered": 0, "failed": 1, "p50_s": None},
    }
    assert found["by_action"] == {
        "reconnect": {"used": 3, "succeeded": 2},
        "rotate_proxy": {"used": 1, "succeeded": 1},
        "relogin": {"used": 1, "succeeded": 0},
        "fail": {"used": 2, "succeeded": 0},
    }
    assert found["by_account"]["b"] == {
        "count": 2, "recovered": 1, "failed": 1, "open": 0, "success_rate": 0.5, "p50_s": 6.0,
    }  # fmt: skip
    assert list(found["by_account"]) == ["a", "b", "c", "d"]
    assert found["by_account"]["d"]["open"] == 1


async def test_raised_failures_are_seen_and_are_no_incidents(db: Path) -> None:
    """A caller's own error counts in last_24h and errors_by_type_7d, and nowhere else."""
    await write(db, [row(10, Result.RAISED, kind=Kind.PERMANENT, action=Action.FAIL), *recovered(5, 1.0)])
    found = count(db)
    assert found["last_24h"] == 2
    assert found["errors_by_type_7d"] == {"connection": 1, "permanent": 1}
    assert found["incidents"]["total"] == 1
    assert "permanent" not in found["by_kind"]
    assert "fail" not in found["by_action"]


async def test_the_last_day_and_week_do_not_depend_on_since(db: Path) -> None:
    """To the second, whatever is asked for otherwise; the filters hold for them, too."""
    rows = [
        row(3 * HOUR),
        row(DAY - 1),
        row(DAY + 1),
        row(7 * DAY - 1),
        row(7 * DAY + 1),
        row(10, account="b"),
    ]
    await write(db, rows)
    for days in (0.5, 7, 30):
        found = count(db, days)
        assert (found["last_24h"], found["errors_by_type_7d"]) == (3, {"connection": 5})
    found = count(db, account="a")
    assert (found["last_24h"], found["errors_by_type_7d"]) == (2, {"connection": 4})
    assert count(db, kind=Kind.AUTH)["last_24h"] == 0


async def test_merged_rows_count_as_what_they_stand_for(db: Path) -> None:
    """Ten recoveries in one row are ten, in the counts and in the percentiles."""
    merged = row(50, Result.RECOVERED, duration=1.0, count=8)
    await write(db, [row(60, count=10), merged, *recovered(10, 9.0)])
    found = count(db)
    assert found["incidents"]["recovered"] == 9
    assert found["by_action"]["reconnect"] == {"used": 11, "succeeded": 9}
    assert found["last_24h"] == 11
    assert (found["time_to_recover_s"]["p50"], found["time_to_recover_s"]["p99"]) == (1.0, 9.0)


async def test_an_outage_counts_once(db: Path) -> None:
    """However many accounts it touched: in the totals and by kind, under no account's name."""
    own = row(50, Result.RECOVERED, kind=Kind.PROXY, duration=1.0)
    outage = replace(own, account=None, scope=Scope.PATH, incident="o", duration=9.0)
    whole = IncidentRow("f", None, "de1", Scope.FLEET, Kind.CONNECTION, NOW - 5, accounts=("a", "b", "c"))
    await write(db, [own, outage], [whole])
    found = count(db)
    assert found["incidents"] == {"total": 3, "recovered": 2, "failed": 0, "open": 1}
    assert {kind: one["count"] for kind, one in found["by_kind"].items()} == {"proxy": 2, "connection": 1}
    assert {name: (one["count"], one["open"]) for name, one in found["by_account"].items()} == {"a": (1, 0)}


async def test_since_is_exact(db: Path) -> None:
    """A moment before it does not count, a moment after it does: in hours, days and months alike."""
    for days in (1 / 24, 1, 7, 30):
        path = db.with_name(f"{days}.db")
        await write(
            path, [*recovered(days * DAY - 60, 1.0), *recovered(days * DAY + 60, 1.0), *recovered(5, 2.0)]
        )
        found = count(path, days)
        assert found["incidents"]["recovered"] == 2
        assert found["by_account"]["a"]["recovered"] == 2
        assert count(path, days, account="a")["incidents"]["recovered"] == 2


async def test_filters_narrow_everything(db: Path) -> None:
    """By account, by pattern and by kind; rows that stand for many accounts belong to none."""
    rows = [
        *recovered(100, 1.0, "support-1"),
        *recovered(90, 2.0, "support-2", kind=Kind.PROXY),
        *recovered(80, 3.0, "sales"),
        *recovered(70, 4.0, None),
    ]
    await write(db, rows)
    assert count(db)["incidents"]["recovered"] == 4
    assert list(count(db)["by_account"]) == ["sales", "support-1", "support-2"]
    support = {"support-1", "support-2"}
    for account, names in (("support-1", {"support-1"}), ("support-*", support), ("*", support | {"sales"})):
        found = count(db, account=account)
        assert set(found["by_account"]) == names
        assert found["incidents"]["recovered"] == len(names)
    found = count(db, account="support-*", kind=Kind.PROXY)
    assert (found["incidents"]["recovered"], list(found["by_account"])) == (1, ["support-2"])
    assert found["time_to_recover_s"]["max"] == 2.0
    assert list(count(db, kind=Kind.PROXY)["by_account"]) == ["support-2"]


async def test_a_pattern_counts_the_same_whether_it_is_wide_or_narrow(db: Path) -> None:
    """What stands for most accounts is all without the others; over any span both are the sum of their accounts."""
    rows = [one for n in range(60) for one in recovered(n * 11 * HOUR, n / 7, f"bot{n % 5}")]
    await write(db, [*rows, *recovered(50, 90.0, None), *recovered(40, 95.0, "other")])
    for days in (1.5, 7, 30, 50):
        each = [count(db, days, f"bot{n}") for n in range(5)]
        for pattern, names in (("bot*", 5), ("bot[01]", 2)):
            found = count(db, days, pattern)
            assert found["incidents"]["recovered"] == sum(
                one["incidents"]["recovered"] for one in each[:names]
            )
            assert found["last_24h"] == sum(one["last_24h"] for one in each[:names])
            assert found["time_to_recover_s"]["max"] < 10


async def test_every_count_is_that_of_the_rows(db: Path) -> None:
    """From whatever moment on: the sums and differences of totals give what a walk through the rows gives."""
    draw = random.Random(3)
    ages = sorted(
        (draw.choice((1.0, 1.0, 9.0, 40.0)) * DAY * draw.random() for _ in range(900)), reverse=True
    )
    results = (Result.RETRYING, Result.RECOVERED, Result.FAILED)
    rows = [
        replace(
            row(age, draw.choice(results), f"bot{draw.randrange(4)}", draw.choice((Kind.AUTH, Kind.PROXY))),
            duration=1.0,
        )
        for age in ages
    ]
    now = time.time()
    async with Store.open(db, StoreSettings(retention_days=60), now=lambda: NOW) as store:
        for one in rows:
            store.record(replace(one, at=one.at - NOW + now))
    with queries.opened(db) as opened:
        assert opened is not None
        log = Log(opened)
        for _ in range(150):
            since = now - draw.choice((1.0, 2.0, 9.0, 38.0)) * DAY * draw.random()
            assert log.start(since) == since
            seen = [one for one in rows if one.at - NOW + now >= since]
            for kind in (None, Kind.AUTH):
                asked = [one for one in seen if kind in {None, one.kind}]
                ended = log.by_account(Asked(since, kind=kind))
                told = {
                    name: (one.recovered, one.failed)
                    for name, one in ended.items()
                    if one.recovered or one.failed
                }
                counted = Counter((one.account, one.outcome) for one in asked)
                names = {one.account for one in asked if one.outcome is not Result.RETRYING}
                assert told == {
                    name: (counted[name, Result.RECOVERED], counted[name, Result.FAILED]) for name in names
                }
                for pattern in (None, "bot0", "bot[01]", "bot[012]"):
                    sorts = log.by_sort(Asked(since, pattern, kind))
                    wanted = Counter(
                        (one.kind.value, one.action.value, one.outcome.value)
                        for one in asked
                        if pattern is None or fnmatch.fnmatchcase(one.account or "", pattern)
                    )
                    assert {sort: found.count for sort, found in sorts.items()} == wanted


async def test_an_action_that_succeeded_was_used(db: Path) -> None:
    """Also where it was begun before the time that is asked about."""
    await write(db, recovered(60, 2 * DAY))
    assert count(db, days=1)["by_action"] == {"reconnect": {"used": 1, "succeeded": 1}}


# --- Beyond what is counted one by one ---------------------------------------------------------------------


async def test_many_recoveries_have_percentiles_within_nine_percent(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts and the longest stay exact; per kind and account too."""
    rows = [one for n in range(1, 101) for one in recovered(n * HOUR, n / 10, f"bot{n % 2}")]
    await write(db, rows)
    exact = count(db)
    monkeypatch.setattr(counting, "EXACT_DURATIONS", 99)
    rough = count(db)
    assert exact["time_to_recover_s"] == {"p50": 5.0, "p90": 9.0, "p99": 9.9, "max": 10.0}
    assert rough["incidents"] == exact["incidents"]
    for key in ("p50", "p90", "p99", "max"):
        assert rough["time_to_recover_s"][key] == pytest.approx(exact["time_to_recover_s"][key], rel=0.1)
    assert rough["time_to_recover_s"]["max"] == 10.0
    for name in ("bot0", "bot1"):
        assert rough["by_account"][name]["p50_s"] == pytest.approx(
            exact["by_account"][name]["p50_s"], rel=0.1
        )
    assert rough["by_kind"]["connection"]["p50_s"] == pytest.approx(5.0, rel=0.1)
    kind = count(db, kind=Kind.CONNECTION)
    assert kind["by_account"]["bot0"]["p50_s"] == pytest.approx(5.0, rel=0.1)


async def test_what_retention_has_deleted_still_counts(db: Path) -> None:
    """In whole days: `since` says from when on."""
    await write(db, [*recovered(40 * DAY, 2.0), *recovered(10, 4.0)])
    with closing(sqlite3.connect(db)) as other:
        other.execute("DELETE FROM failures WHERE id <= 2")
        other.commit()
    found = count(db, days=60)
    assert found["incidents"]["recovered"] == 2
    assert found["since"].endswith("T00:00:00.000Z")
    assert found["time_to_recover_s"]["max"] == 4.0
    assert found["time_to_recover_s"]["p50"] == pytest.approx(2.0, rel=0.1)
    assert count(db, days=7)["incidents"]["recovered"] == 1


async def test_too_many_rows_for_one_day_widen_a_span_of_days(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It then begins at midnight, and says so; a day or two are always counted exactly."""
    monkeypatch.setattr(counting, "_EXACT_EDGE", 5)
    rows = [one for n in range(10) for one in recovered(7 * DAY - n, 1.0)]
    await write(db, [*recovered(7 * DAY + HOUR, 1.0), *rows, *recovered(DAY + HOUR, 1.0), *recovered(5, 1.0)])
    week = count(db)
    assert (week["incidents"]["recovered"], week["since"][11:19]) == (13, "00:00:00")
    assert count(db, days=1)["incidents"]["recovered"] == 1


async def test_ten_thousand_accounts_days_take_a_moment(db: Path) -> None:
    """A week of a thousand accounts is counted in well under a second."""
    rows = [one for day in range(7) for n in range(1000) for one in recovered(day * DAY + n, 1.0, f"bot{n}")]
    await write(db, rows)
    begun = time.perf_counter()
    assert count(db)["incidents"]["recovered"] == 7000
    assert time.perf_counter() - begun < 1.0
