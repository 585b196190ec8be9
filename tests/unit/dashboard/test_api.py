"""`/api/v1` and its description."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import web
from openapi_spec_validator import validate

from supervisor.core.failure import Kind, State
from supervisor.dashboard.api import Api
from supervisor.dashboard.reads import Reads
from supervisor.record import queries
from supervisor.record.counting import Asked, Log
from supervisor.report.stats import stats
from tests.unit.dashboard.made_up import Desk
from tests.unit.dashboard.served import OPENAPI, Asking, asking, check_described

V1 = "/api/v1/"
ASKED = [
    ("about", ""), ("openapi.json", ""), ("status", ""), ("accounts", ""), ("accounts", "?state=failed&limit=2"),
    ("accounts", "?account=bot-00*&offset=3"), ("paths", ""), ("paths", "?last=3600"), ("incidents", ""),
    ("incidents", "?state=open&kind=connection&limit=7"), ("incidents", "?account=bot-00*&last=86400"),
    ("timeline", ""), ("timeline", "?last=2592000&limit=3"), ("failures", ""), ("failures", "?last=3600"),
    ("failures", "?last=2592000"), ("stats", ""), ("stats", "?kind=proxy&account=bot-000*"), ("log", ""),
    ("log", "?unresolved=true&limit=5&last=604800"), ("log", "?after_id=3&kind=flood_wait&account=bot-0001"),
    ("report", ""), ("report.html", ""),
]  # fmt: skip


def test_the_description_is_openapi() -> None:
    """openapi.json is a valid OpenAPI document."""
    validate(OPENAPI)


async def test_every_route_is_described(desk: Desk, tmp_path: Path) -> None:
    """openapi.json has each route that is served under /api, by its method, and no other."""
    routes = Api(desk, Reads(tmp_path / "recovery.db"), {}).routes()
    served = {(route.method, route.path) for route in routes}
    assert all(isinstance(route, web.RouteDef) for route in routes)
    described = {(method.upper(), path) for path, found in OPENAPI["paths"].items() for method in found}
    assert described - served == {("GET", "/api/v1/events"), ("GET", "/metrics"), ("GET", "/healthz")}
    assert served <= described


@pytest.mark.parametrize(("name", "query"), ASKED)
async def test_each_answer_is_as_described(ask: Asking, name: str, query: str) -> None:
    """Each answer is what its schema says."""
    answer = await ask.get(f"{V1}{name}{query}")
    assert answer.status == 200, answer.text
    check_described(f"{V1}{name}", "GET", answer)


@pytest.mark.parametrize("name", ["/metrics", "/healthz"])
async def test_the_others_are_as_described(ask: Asking, name: str) -> None:
    """So are those outside /api."""
    check_described(name, "GET", await ask.get(name))


async def test_an_incident_tells_its_attempts(ask: Asking, state_dir: Path) -> None:
    """The drill-down has the incident and each of its rows, oldest first."""
    listed = (await ask.get(f"{V1}incidents?state=closed&limit=20")).json()["incidents"]
    for incident in listed:
        answer = await ask.get(f"{V1}incidents/{incident['id']}")
        check_described(f"{V1}incidents/{{id}}", "GET", answer)
        found = answer.json()
        assert found["incident"] == incident
        with closing(sqlite3.connect(state_dir / "recovery.db")) as db:
            statement = "SELECT id FROM failures WHERE incident = ? ORDER BY id"
            assert [row["id"] for row in found["rows"]] == [
                row[0] for row in db.execute(statement, (incident["id"],))
            ]
        assert found["rows"][-1]["outcome"] == incident["outcome"]


@pytest.mark.parametrize("name", ["nothing", "a b/c", "\u0434"])
async def test_an_unknown_incident_is_404(ask: Asking, name: str) -> None:
    """What the log does not have is refused in words."""
    answer = await ask.get(f"{V1}incidents/{quote(name, safe='')}")
    assert answer.status == 404
    assert answer.json()["error"]["message"]


async def test_pages_of_incidents_follow_each_other(ask: Asking) -> None:
    """Page by page there is each incident once: open ones first, then by when they ended."""
    every = (await ask.get(f"{V1}incidents?limit=1000")).json()
    assert every["next"] is None
    found: list[dict[str, str]] = []
    following: str | None = ""
    while following is not None:
        page = (await ask.get(f"{V1}incidents?limit=7{following and '&before='}{quote(following)}")).json()
        found += page["incidents"]
        following = page["next"]
    assert found == every["incidents"]
    assert len({one["id"] for one in found}) == len(found) > 100
    closed = [one["closed_at"] for one in found if one["closed_at"]]
    assert closed == sorted(closed, reverse=True)
    assert not any(one["closed_at"] for one in found[: len(found) - len(closed)])


async def test_figures_are_those_of_the_commands(ask: Asking, state_dir: Path) -> None:
    """`stats` says what the command says; the series adds up to it."""
    now = time.time()
    found = (await ask.get(f"{V1}stats?last=2592000")).json()
    with queries.opened(state_dir / "recovery.db") as db:
        assert db is not None
        own = stats(Log(db), Asked(now - 2_592_000), now)
    assert {key: found[key] for key in ("incidents", "by_kind", "by_action", "by_account")} == {
        key: own[key] for key in ("incidents", "by_kind", "by_action", "by_account")
    }
    series = (await ask.get(f"{V1}failures?last=2592000")).json()
    recovered = sum(one["count"] for one in series["time_to_recover"])
    assert recovered == own["incidents"]["recovered"]


async def test_fine_and_coarse_series_agree(ask: Asking, state_dir: Path) -> None:
    """The last hours count the same by the minute and by the hour."""
    fine = (await ask.get(f"{V1}failures?last=21600")).json()
    with closing(sqlite3.connect(state_dir / "recovery.db")) as db:
        statement = (
            "SELECT kind, sum(count) FROM failures WHERE at >= ? AND outcome <> 'recovered' GROUP BY kind"
        )
        rows = dict(db.execute(statement, (time.time() - 21_600,)))
    assert {kind: sum(many for _, many in counts) for kind, counts in fine["by_kind"].items()} == rows
    assert fine["step_s"] == 60


@pytest.mark.parametrize(
    "query",
    ["accounts?stat=failed", "accounts?state=sad", "accounts?limit=0", "accounts?limit=-1", "stats?last=1e3",
     "stats?last=59", "stats?last=99999999999999999999999", "stats?kind=none", "incidents?before=x",
     "incidents?before=1", "log?unresolved=1", "status?x=1", "log?after_id=\u0663"],
)  # fmt: skip
async def test_a_wrong_parameter_is_named(ask: Asking, query: str) -> None:
    """What is not known or not possible is refused with its name, instead of being left out of account."""
    answer = await ask.get(f"{V1}{query}")
    assert answer.status == 400
    name = query.partition("?")[2].partition("=")[0]
    assert answer.json()["error"]["context"] == {"parameter": name}
    check_described(f"{V1}{query.partition('?')[0]}", "GET", answer)


@pytest.mark.parametrize(
    ("action", "state"),
    [("pause", "paused"), ("resume", "online"), ("retry", "starting"), ("rotate", "recovering")],
)
async def test_commands_reach_the_daemon(ask: Asking, desk: Desk, action: str, state: str) -> None:
    """retry, pause, resume and rotate do what the commands do, and tell what became of each account."""
    before = dict(desk.accounts)
    answer = await ask.order(action, "bot-0001", "bot-0002")
    assert answer.status == 200, answer.text
    check_described(f"{V1}actions/{action}", "POST", answer)
    assert [one["name"] for one in answer.json()["accounts"]] == ["bot-0001", "bot-0002"]
    assert desk.accounts["bot-0002"].state.value == state
    assert {name for name in before if desk.accounts[name] is not before[name]} == {"bot-0001", "bot-0002"}


async def test_a_command_for_nobody_is_refused(ask: Asking) -> None:
    """An unknown account is 404 and an empty order 400, both as described."""
    for names, status in ((("nobody",), 404), ((), 400)):
        answer = await ask.order("pause", *names)
        assert answer.status == status
        check_described(f"{V1}actions/pause", "POST", answer)


async def test_without_a_log_the_accounts_are_told(desk: Desk, tmp_path: Path) -> None:
    """Where recovery.db cannot be read, what needs it is 503 with the reason; the states are told all the same."""
    (tmp_path / "recovery.db").write_bytes(b"this is no database" * 100)
    async with asking(desk, tmp_path) as ask:
        for name in ("stats", "log", "incidents", "paths"):
            answer = await ask.get(f"{V1}{name}")
            assert answer.status == 503
            assert "recovery.db" in answer.json()["error"]["message"]
            check_described(f"{V1}{name}", "GET", answer)
        found = (await ask.get(f"{V1}accounts?state={State.FAILED}")).json()
        assert found["total"] == 1
        assert (await ask.get("/metrics")).status == 200


def test_all_kinds_are_described() -> None:
    """The description's kinds and states are the program's."""
    schemas = OPENAPI["components"]["schemas"]
    assert schemas["Kind"]["enum"] == [kind.value for kind in Kind]
    assert schemas["State"]["enum"] == [state.value for state in State]
