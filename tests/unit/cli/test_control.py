"""`pause`, `resume`, `retry`, `rotate`: what is asked of the daemon, and what is said of its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from supervisor.control.client import ControlClient
from supervisor.control.protocol import ControlError
from supervisor.record.lock import StateLock
from supervisor.reload import STUCK, Reloaded
from tests.unit.cli.conftest import Cli

UNKNOWN = ControlError(
    "unknown_account", 'no account is called "suport" (did you mean "support"?)', status=404
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What a daemon would have been told; `a` changes, `b` does not, there is no `suport`."""
    told: list[tuple[str, list[str]]] = []
    states = {"pause": "paused", "resume": "starting", "retry": "starting"}

    def request(self: ControlClient, method: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        assert method == "POST"
        told.append((name, body["accounts"]))
        if "suport" in body["accounts"]:
            raise UNKNOWN
        still = {"pause": "paused", "resume": "online", "retry": "paused"}[name]
        changed = {"name": "a", "state": states[name], "changed": True}
        return {"schema": 1, "accounts": [changed, {"name": "b", "state": still, "changed": False}]}

    monkeypatch.setattr(ControlClient, "request", request)
    return told


@pytest.mark.parametrize(
    ("verb", "changed", "unchanged"),
    [
        ("pause", "a: paused", "b: was paused already"),
        ("resume", "a: starting", "b: was not paused; it is online"),
        ("retry", "a: starting", "b: stays paused; tg-supervisor resume b brings it back"),
    ],
)
def test_each_account_is_answered_for(
    cli: Cli, asked: list[tuple[str, list[str]]], verb: str, changed: str, unchanged: str
) -> None:
    """A line an account: what it is now, or why nothing was done."""
    result = cli(verb, "a", "b*")
    assert (result.exit_code, result.stdout.splitlines()) == (0, [changed, unchanged])
    assert asked == [(verb, ["a", "b*"])]
    assert json.loads(cli(verb, "--json", "a").stdout)["accounts"][0]["name"] == "a"


def test_an_unknown_account_is_a_usage_error(cli: Cli, asked: list[tuple[str, list[str]]]) -> None:
    """Exit 2, nothing on stdout, and what was perhaps meant."""
    result = cli("pause", "suport")
    assert (result.exit_code, result.stdout) == (2, "")
    assert 'did you mean "support"?' in result.stderr


def test_they_need_a_name(cli: Cli) -> None:
    """None is a usage error: nobody pauses everything by leaving something out."""
    for verb in ("pause", "resume", "retry", "rotate"):
        assert cli(verb).exit_code == 2


def test_a_rotation_says_where_to(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """From which path to which, and who was there already; a proxy that is not the account's is a usage error."""
    bodies: list[Mapping[str, Any]] = []
    answers: list[Any] = [
        ControlError("unknown_proxy", 'a may not use "us1"'),
        ControlError("no_other_path", "a: nl3 is broken", retryable=True),
    ]

    def request(self: ControlClient, method: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        assert (method, name) == ("POST", "rotate")
        bodies.append(body)
        if body["to"] is not None:
            raise answers.pop(0)
        moved = {"name": "a", "state": "starting", "changed": True, "path": "nl3", "before": "de1"}
        return {
            "schema": 1,
            "accounts": [moved, {**moved, "name": "b", "changed": False, "state": "online"}],
        }

    monkeypatch.setattr(ControlClient, "request", request)
    result = cli("rotate", "a", "b")
    assert result.stdout.splitlines() == ["a: moved from de1 to nl3; starting", "b: is on nl3 already"]
    assert bodies == [{"accounts": ["a", "b"], "to": None}]
    assert cli("rotate", "a", "--to", "us1").exit_code == 2
    result = cli("rotate", "a", "--to", "nl3")
    assert (result.exit_code, result.stdout, result.stderr) == (75, "", "a: nl3 is broken\n")


def test_without_a_daemon_it_is_exit_69(cli: Cli, tmp_path: Path) -> None:
    """One that is only starting is exit 75: worth another try."""
    result = cli("pause", "a")
    assert (result.exit_code, result.stdout) == (69, "")
    assert "no daemon is running" in result.stderr
    with StateLock(tmp_path / "state"):
        assert cli("pause", "a").exit_code == 75


def answered(monkeypatch: pytest.MonkeyPatch, answer: Mapping[str, Any] | ControlError) -> None:
    """Let a daemon answer a reload."""

    def request(self: ControlClient, method: str, name: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        assert (method, name, body) == ("POST", "reload", {})
        if isinstance(answer, ControlError):
            raise answer
        return answer

    monkeypatch.setattr(ControlClient, "request", request)


def test_a_reload_says_what_it_did(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each account that is another than before, and for what waits; one that is stuck is a failure."""
    done = Reloaded(("a",), ("b",), ("c",), ("g",), {"e": "d"}, 7, ("state_dir",))
    answered(monkeypatch, done.json())
    result = cli("reload")
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            "a: added",
            "b: removed",
            "c: replaced",
            "g: adapted",
            "e: was d, and goes on with its session",
            "untouched: 7",
            "supervisor.state_dir takes effect when the daemon is started again",
        ],
    )
    assert json.loads(cli("reload", "--json").stdout)["renamed"] == {"e": "d"}
    answered(monkeypatch, Reloaded(stuck=("f",)).json())
    result = cli("reload")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (1, f"f: {STUCK}")


def test_a_broken_file_is_told_line_by_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 78 and nothing on stdout, as `check` would do; another refusal is what it is."""
    problems = ["accounts.toml:1: one", "accounts.toml:2: two"]
    answered(monkeypatch, ControlError("config_invalid", "one, two", context={"problems": problems}))
    result = cli("reload")
    assert (result.exit_code, result.stdout, result.stderr.splitlines()) == (78, "", problems)
    answered(monkeypatch, ControlError("internal", "oh"))
    assert cli("reload").exit_code == 1
