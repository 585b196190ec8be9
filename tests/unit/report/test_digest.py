"""What `report` makes of a log: how available accounts were, what failed, what it advises; and its page."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.failure import Action, Kind, Result, Row, Scope, State
from supervisor.ports import AccountSnapshot, IncidentRow, PathSnapshot
from supervisor.record import queries
from supervisor.record.past import Past
from supervisor.record.store import Store
from supervisor.report.digest import digest
from supervisor.report.page import page

NOW = time.time()
HOUR, DAY = 3600.0, 86_400.0


def row(ago: float, account: str | None = "a", **more: Any) -> Row:
    values: dict[str, Any] = {
        "at": NOW - ago, "account": account, "path": "direct", "scope": Scope.SESSION, "kind": Kind.CONNECTION,
        "action": Action.RECONNECT, "outcome": Result.RETRYING, "message": "connection reset", "incident": "i",
    }  # fmt: skip
    return Row(**(values | more))


def incident(name: str, began: float, ended: float | None, account: str = "a", **more: Any) -> IncidentRow:
    values: dict[str, Any] = {
        "id": name, "account": account, "path": "direct", "scope": Scope.SESSION, "kind": Kind.CONNECTION,
        "opened_at": NOW - began, "closed_at": None if ended is None else NOW - ended,
        "outcome": None if ended is None else Result.RECOVERED,
    }  # fmt: skip
    return IncidentRow(**(values | more))


def snapshot(name: str, state: State = State.ONLINE, since: float = HOUR) -> AccountSnapshot:
    return AccountSnapshot(name, state, NOW - since, "direct")


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "recovery.db"


async def looked_back(
    path: Path,
    rows: list[Row] | None = None,
    incidents: list[IncidentRow] | None = None,
    accounts: list[AccountSnapshot] | None = None,
    since: float = 7 * DAY,
) -> dict[str, Any]:
    async with Store.open(path, now=lambda: NOW) as store:
        for one in rows or []:
            store.record(one)
        for another in incidents or []:
            store.incident(another)
        for account in accounts or []:
            await store.save_account(account)
    with queries.opened(path) as opened:
        assert opened is not None
        return digest(Past(opened, NOW - since), NOW)


async def test_an_outage_costs_its_share_of_what_is_known(db: Path) -> None:
    """Nothing is known before the first row: two hours away of ten are 80 %, overlapping incidents count once."""
    found = await looked_back(
        db,
        [row(10 * HOUR)],
        [incident("i1", 5 * HOUR, 3.5 * HOUR), incident("i2", 4 * HOUR, 3 * HOUR, kind=Kind.PROXY)],
        [snapshot("a"), snapshot("b")],
    )
    assert found["accounts"]["a"]["availability"] == pytest.approx(0.8, abs=0.001)
    assert found["accounts"]["a"]["down_s"] == pytest.approx(2 * HOUR, abs=1)
    assert found["accounts"]["a"]["outages"] == 2
    assert found["accounts"]["b"]["availability"] == 1.0
    assert found["availability"] == pytest.approx(0.9, abs=0.001)
    assert [one["kind"] for one in found["outages"]] == ["connection", "proxy"]


async def test_an_incident_of_one_call_is_no_outage(db: Path) -> None:
    """A call that was flooded leaves its account available."""
    found = await looked_back(
        db, [row(HOUR)], [incident("i1", HOUR, 0.0, scope=Scope.CALL, kind=Kind.FLOOD_WAIT)], [snapshot("a")]
    )
    assert (found["accounts"]["a"]["availability"], found["outages"]) == (1.0, [])


async def test_what_waits_for_a_person_is_away(db: Path) -> None:
    """From the moment it needed a login to now; and it is said how to end it."""
    found = await looked_back(
        db,
        [row(4 * HOUR)],
        accounts=[snapshot("sales", State.NEEDS_LOGIN, HOUR), snapshot("x", State.FAILED)],
    )
    assert found["accounts"]["sales"]["down_s"] == pytest.approx(HOUR, abs=1)
    assert found["advice"][0] == "sales needs a login: tg-supervisor login sales"
    assert "tg-supervisor retry x" in found["advice"][1]


async def test_an_open_incident_lasts_until_now(db: Path) -> None:
    """And one that began before the span counts from its beginning on."""
    found = await looked_back(
        db, [row(9 * DAY)], [incident("i1", 8 * DAY, None)], [snapshot("a")], since=2 * DAY
    )
    assert found["accounts"]["a"]["availability"] == pytest.approx(0.0, abs=1e-6)


async def test_causes_are_counted_by_id_and_by_message(db: Path) -> None:
    """The commonest first, with how many accounts met it; recoveries are no causes."""
    rows = [row(n) for n in range(5)]
    rows += [row(n, f"b{n}", error_id="FLOOD_WAIT_X", kind=Kind.FLOOD_WAIT, count=4) for n in range(3)]
    rows += [row(1, outcome=Result.RECOVERED, duration=1.0)]
    found = await looked_back(db, rows)
    assert [(one["what"], one["count"], one["accounts"]) for one in found["causes"]] == [
        ("FLOOD_WAIT_X", 12, 3),
        ("connection reset", 5, 1),
    ]
    assert found["paths"]["direct"]["failures"] == {"connection": 5, "flood_wait": 12}
    by_kind = found["failures_over_time"]["by_kind"]
    assert {kind: sum(count for _, count in counts) for kind, counts in by_kind.items()} == {
        "connection": 5,
        "flood_wait": 12,
    }


async def test_an_outage_counts_for_all_that_it_touched(db: Path) -> None:
    """A path's hour is an hour of each of its accounts, beside their own; by paths, and among the causes, it is told once."""
    outage: dict[str, Any] = {"account": None, "path": "de1", "scope": Scope.PATH, "kind": Kind.PROXY}
    lost = row(
        5 * HOUR, **outage | {"account": None, "incident": "o", "message": "2 accounts at once: refused"}
    )
    async with Store.open(db, now=lambda: NOW) as store:
        store.path(PathSnapshot("de1", "broken", 2, "open", succeeded=4, failed=36, latency=0.1))
        store.path(PathSnapshot("nl3", "ok", 2, succeeded=40, failed=1))
    found = await looked_back(
        db,
        [row(10 * HOUR), lost],
        [
            incident("i", 4.5 * HOUR, 3.5 * HOUR),
            incident("o", 5 * HOUR, 4 * HOUR, accounts=("a", "b"), **outage),
            incident("f", 2 * HOUR, None, **outage | {"scope": Scope.FLEET, "accounts": ("b", "gone")}),
        ],
        [snapshot("a"), snapshot("b"), snapshot("c")],
    )
    down = {name: one["down_s"] / HOUR for name, one in found["accounts"].items()}
    assert down == pytest.approx({"a": 1.5, "b": 3.0, "c": 0.0, "gone": 2.0}, abs=0.001)
    assert {one["account"] for one in found["outages"]} == {"a", "b", "gone"}
    assert next(iter(found["paths"])) == "de1"
    de1 = found["paths"]["de1"]
    assert (de1["outages"], de1["failures"], de1["success_rate"], de1["latency_ms"]) == (
        1,
        {"proxy": 1},
        0.1,
        100.0,
    )
    assert de1["down_s"] == pytest.approx(HOUR, abs=1)
    assert {one["what"]: one["accounts"] for one in found["causes"]} == {
        "connection reset": 1, "2 accounts at once: refused": 2,
    }  # fmt: skip
    assert found["advice"] == ["proxy de1: Telegram answered on 4 of 40 connections; replace it"]
    assert found["stats"]["by_kind"]["proxy"]["count"] == 1
    assert "10 %" in page(found)


async def test_advice_is_derived_from_the_figures(db: Path) -> None:
    """The worst proxy, the method that is flooded, the account that loses its sessions, the key that is used twice."""
    proxied: dict[str, Any] = {"kind": Kind.PROXY, "action": Action.ROTATE_PROXY}
    rows = [row(1, path="de1", count=41, **proxied), row(1, path="nl3", count=3, **proxied)]
    rows += [row(1, "s", kind=Kind.FLOOD_WAIT, method="messages.SendMessage", count=20)]
    rows += [row(n, "r", outcome=Result.RECOVERED, action=Action.RELOGIN, duration=1.0) for n in range(3)]
    rows += [row(1, "k", kind=Kind.AUTH, error_id="AUTH_KEY_DUPLICATED")]
    found = await looked_back(db, rows)
    assert found["advice"] == [
        "proxy de1: 41 of 44 proxy failures; replace it",
        "s: 20 flood waits on messages.SendMessage; call it less",
        "r was signed in anew 3 times: find out who ends its sessions",
        "k: another program uses its session; find and stop it",
    ]


async def test_a_quiet_week_has_nothing_to_advise(db: Path) -> None:
    """An empty log is whole, and so is its page."""
    found = await looked_back(db)
    assert (found["accounts"], found["advice"], found["availability"]) == ({}, [], None)
    assert "Nothing stands out." in page(found)


class Seen(HTMLParser):
    """Checks that every tag is closed, and gathers what the page would load."""

    VOID = frozenset({"meta", "line", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [
            f"{name}={value}" for name, value in attrs if name in {"src", "href", "action", "data"}
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


async def test_the_page_is_whole_and_loads_nothing(db: Path) -> None:
    """Every tag is closed, no script, no address of anything else; names are escaped; each lane and bar is drawn."""
    evil = "<script>alert(1)</script>"
    found = await looked_back(
        db,
        [row(n * HOUR, evil, kind=kind, message=evil) for n, kind in enumerate(Kind)],
        [incident(f"i{n}", n * HOUR + 600, n * HOUR, f"account-{n:02}") for n in range(60)],
        [snapshot(f"account-{n:02}") for n in range(60)],
    )
    text = page(found)
    seen = Seen()
    seen.feed(text)
    assert (seen.open, seen.loads) == ([], [])
    assert "script" not in seen.tags
    assert "&lt;script&gt;" in text
    assert "and 20 more accounts" in text
    assert len(re.findall(r"<rect ", text)) >= 40 + len(Kind)
    assert len(text) < 200_000
