"""`/metrics`, `/healthz`, and the dashboard for Grafana."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from supervisor.core.failure import Action, Kind, Result
from supervisor.record.store import Store
from tests.unit.dashboard.made_up import Desk, failure
from tests.unit.dashboard.served import Asking, asking

ROOT = Path(__file__).parents[3]
GRAFANA = ROOT / "packaging" / "grafana" / "tg-supervisor.json"
REFERENCE = ROOT / "docs" / "reference" / "metrics.md"


async def figures(ask: Asking) -> dict[str, dict[tuple[str, ...], float]]:
    """The samples by their names and the values of their labels, these in the order of their names."""
    answer = await ask.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = (
                sample.value
            )
    return found


async def test_the_figures_are_the_daemons(ask: Asking, desk: Desk) -> None:
    """Accounts and paths are counted by state, each state being there; no account has a series of its own."""
    found = await figures(ask)
    accounts = found["tg_supervisor_accounts"]
    assert sum(accounts.values()) == 100
    assert accounts["online",] == sum(one.state.value == "online" for one in desk.accounts.values())
    assert accounts["stopped",] == 0
    assert found["tg_supervisor_paths"] == {("ok",): 2, ("broken",): 1, ("unused",): 0}
    assert found["tg_supervisor_record_writable"] == {(): 1}
    assert found["tg_supervisor_config_valid"] == {(): 1}
    assert abs(found["tg_supervisor_start_time_seconds"][()] - time.time() + 86_400.5) < 5
    assert found["tg_supervisor_loop_lag_seconds"][()] < 5
    assert not any("bot-" in value for labels in found.values() for key in labels for value in key)
    assert sum(map(len, found.values())) < 250


async def test_failures_and_recoveries_are_counted_once(desk: Desk, tmp_path: Path) -> None:
    """What the log gains is counted by kind, outcome and action, merged rows in full, however often it is asked for."""
    now = time.time()
    async with Store.open(tmp_path / "recovery.db") as store:
        store.record(failure("before", now))
        await store._written()
        async with asking(desk, tmp_path) as ask:
            before = await figures(ask)
            assert set(before["tg_supervisor_failures_total"].values()) == {0.0}
            store.record(failure("bot-1", now, count=5))
            store.record(
                failure("bot-1", now, kind=Kind.PROXY, outcome=Result.FAILED, action=Action.ROTATE_PROXY)
            )
            store.record(failure("bot-2", now, outcome=Result.RECOVERED, duration=0.4))
            store.record(failure("bot-3", now, outcome=Result.RECOVERED, duration=70.0))
            await store._written()
            for _ in range(2):
                found = await figures(ask)
                assert found["tg_supervisor_failures_total"]["connection", "retrying"] == 5
                assert found["tg_supervisor_failures_total"]["proxy", "failed"] == 1
                assert found["tg_supervisor_recoveries_total"]["reconnect", "connection"] == 2
                assert found["tg_supervisor_recovery_seconds_count"][()] == 2
                assert found["tg_supervisor_recovery_seconds_sum"][()] == pytest.approx(70.4)
                assert found["tg_supervisor_recovery_seconds_bucket"]["0.5",] == 1


async def test_accounts_are_told_apart_where_that_was_asked_for(desk: Desk, state_dir: Path) -> None:
    """account_metrics gives each account and path a series."""
    async with asking(desk, state_dir, account_metrics=True) as ask:
        found = await figures(ask)
        assert len(found["tg_supervisor_account_online"]) == 100
        assert found["tg_supervisor_path_works"] == {("de1",): 1, ("nl3",): 0, ("direct",): 1}
        assert found["tg_supervisor_path_accounts"]["nl3",] == 0


async def test_health_follows_the_record(ask: Asking, desk: Desk) -> None:
    """/healthz is 200 while what fails can be written down, and 503 while not; it needs no token."""
    healthy = await ask.get("/healthz", headers={})
    assert (healthy.status, healthy.json()["ok"]) == (200, True)
    desk.is_writable = False
    ill = await ask.get("/healthz", headers={})
    assert (ill.status, ill.json()["ok"], ill.json()["record_writable"]) == (503, False, False)
    assert (await figures(ask))["tg_supervisor_record_writable"] == {(): 0}
    desk.problems = ["accounts.toml:3: telegram.api_id: is missing"]
    assert (await figures(ask))["tg_supervisor_config_valid"] == {(): 0}


def expressions(value: Any) -> list[str]:
    """The queries of a dashboard for Grafana."""
    if isinstance(value, dict):
        return [
            one
            for key, item in value.items()
            for one in ([item] if key in {"expr", "query"} and isinstance(item, str) else expressions(item))
        ]
    return [one for item in value for one in expressions(item)] if isinstance(value, list) else []


async def test_grafana_asks_only_for_what_there_is(desk: Desk, state_dir: Path) -> None:
    """Each metric that packaging/grafana asks for exists, with the labels that it groups by."""
    async with asking(desk, state_dir, account_metrics=True) as ask:
        text = (await ask.get("/metrics")).text
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    dashboard = json.loads(GRAFANA.read_text())
    asked = [
        query for query in expressions(dashboard["panels"]) if "tg_supervisor" in query or "process_" in query
    ]
    assert len(asked) > 10
    for query in asked:
        names = re.findall(r"\b(?:tg_supervisor|process)_\w+", query)
        assert names
        assert set(names) <= set(labels), query
        grouped = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
        assert grouped <= set().union(*(labels[name] for name in names)) | {"le", "instance", "job"}, query
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}


async def test_prometheus_can_read_the_examples(desk: Desk, state_dir: Path) -> None:
    """What docs/reference/metrics.md shows for Prometheus is YAML, and its alerts ask for what there is."""
    async with asking(desk, state_dir) as ask:
        known = set(await figures(ask))
    blocks = re.findall(r"```yaml\n(.*?)```", REFERENCE.read_text(), re.DOTALL)
    scrape, rules = (yaml.safe_load(block) for block in blocks)
    assert scrape["scrape_configs"][0]["authorization"]["credentials_file"]
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert alerts
    for alert in alerts:
        assert set(re.findall(r"tg_supervisor_\w+", alert)) <= known


async def test_every_metric_is_described(desk: Desk, state_dir: Path) -> None:
    """docs/reference/metrics.md has each metric of ours with its labels, and no other."""
    async with asking(desk, state_dir, account_metrics=True) as ask:
        text = (await ask.get("/metrics")).text
    kinds = {"counter": "_total", "info": "_info"}
    served = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("tg_supervisor") and not family.name.endswith("_created"):
            name = family.name + ("" if family.name.endswith("_info") else kinds.get(family.type, ""))
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            served[name] = ", ".join(sorted(labels)) or "-"
    rows = re.findall(r"^\| `(tg_supervisor_\w+)` \| \w+ \| ([^|]+) \|", REFERENCE.read_text(), re.MULTILINE)
    described = {name: ", ".join(sorted(re.findall(r"`(\w+)`", labels))) or "-" for name, labels in rows}
    assert described == served
