from __future__ import annotations

import json
from pathlib import Path

import pytest

from supervisor.core.failure import Result, State
from supervisor.ports import Limited
from supervisor.record.lock import StateLock
from tests.unit.cli.conftest import NOW, Cli, account, fill, row
from tests.unit.cli.daemon import Daemon

KEYS = "name state limited user_id is_bot path since retry_at incident last_failure".split()


def test_a_running_daemon_speaks_for_itself(cli: Cli, tmp_path: Path) -> None:
    """The JSON is the contract's object, with the failure as `log` has it."""
    limited = Limited("PEER_FLOOD", frozen=False, since=0.0)
    snapshot = account("support-bot", user_id=7, is_bot=True, limited=limited, last_failure=row())
    with Daemon([snapshot], uptime=3700.0).running(tmp_path / "state"):
        found = json.loads(cli("status", "--json").stdout)
    assert list(found) == ["schema", "running", "pid", "uptime_s", "accounts", "paths"]
    assert (found["schema"], found["running"], found["pid"], found["uptime_s"]) == (1, True, 4711, 3700.0)
    (shown,) = found["accounts"]
    assert list(shown) == KEYS
    assert shown["limited"] == {
        "error_id": "PEER_FLOOD",
        "frozen": False,
        "since": "1970-01-01T00:00:00.000Z",
    }
    assert (shown["state"], shown["last_failure"]["id"]) == ("online", 42)
    assert found["paths"][1] == {"name": "de1", "state": "broken", "accounts": 0}


def test_people_see_a_table(cli: Cli, tmp_path: Path) -> None:
    """Every account with its state, what last went wrong, the totals, the broken paths, the daemon's age."""
    snapshots = [account("support-bot", last_failure=row()), account("sales", State.NEEDS_LOGIN)]
    with Daemon(snapshots, uptime=3700.0).running(tmp_path / "state"):
        text = cli("status").stdout
    assert "needs_login" in text
    assert "FLOOD_WAIT_35 on messages.SendMessage" in text
    assert "2 accounts: 1 online, 1 needs_login" in text
    assert "broken paths: de1" in text
    assert "pid 4711, up 1 h 2 min" in text
    assert "\x1b" not in text


def test_nothing_is_online_without_a_daemon(cli: Cli, tmp_path: Path) -> None:
    """States that only a daemon can keep up read `stopped`; those that await a person stay; nothing is retried."""
    fill(tmp_path / "state", [], [account(f"bot-{state.value}", state, retry_at=NOW + 99) for state in State])
    result = cli("status", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["running"], found["pid"], found["uptime_s"]) == (0, False, None, None)
    states = {shown["name"].removeprefix("bot-"): shown["state"] for shown in found["accounts"]}
    assert states == {
        "starting": "stopped",
        "online": "stopped",
        "recovering": "stopped",
        "suspended": "suspended",
        "needs_login": "needs_login",
        "failed": "failed",
        "paused": "paused",
        "stopped": "stopped",
    }
    assert {shown["retry_at"] for shown in found["accounts"]} == {None}
    assert found["paths"] == [{"name": "direct", "state": "unused", "accounts": 8}]
    assert "no daemon is running; the last one stopped at" in result.stderr


def test_the_last_runs_failures_have_their_numbers(cli: Cli, tmp_path: Path) -> None:
    """What `resolve` takes is shown of the last run, too."""
    failure = row(NOW, outcome=Result.FAILED)
    fill(
        tmp_path / "state",
        [row(NOW - 1), failure],
        [account("support-bot", State.FAILED, last_failure=failure)],
    )
    (shown,) = json.loads(cli("status", "--json").stdout)["accounts"]
    assert (shown["last_failure"]["id"], shown["last_failure"]["outcome"]) == (2, "failed")


def test_before_the_first_run_there_is_nothing(cli: Cli, tmp_path: Path) -> None:
    """No recovery.db: empty data, a sentence on stderr, exit 0, nothing created."""
    result = cli("status", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["running"], found["accounts"]) == (0, False, [])
    assert "none has run yet" in result.stderr
    assert not (tmp_path / "state").exists()


def test_a_daemon_that_does_not_answer_is_not_called_stopped(cli: Cli, tmp_path: Path) -> None:
    """While the directory is held but nobody answers, no state is shown: exit 75 and the daemon's pid."""
    fill(tmp_path / "state", [], [account("a")])
    with StateLock(tmp_path / "state"):
        result = cli("status", "--json")
    assert (result.exit_code, result.stdout) == (75, "")
    assert "does not answer" in result.stderr


@pytest.mark.parametrize("width", [80, 100])
def test_names_survive_a_narrow_terminal(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """At 80 columns no line is longer, and the names are there in full."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    names = ["support-bot-germany-01", "sales"]
    accounts = [account(name, State.NEEDS_LOGIN, last_failure=row()) for name in names]
    with Daemon(accounts).running(tmp_path / "state"):
        result = cli("status", "--no-color")
    assert all(len(line) <= width for line in result.stdout.splitlines())
    for name in names:
        assert name in result.stdout


def test_elsewhere_a_line_is_an_account(cli: Cli, tmp_path: Path) -> None:
    """In a pipe nothing is wrapped, so that grep finds whole rows."""
    message = "a very long message " * 20
    long = account("support-bot", last_failure=row(error_id=None, message=message.strip()))
    with Daemon([long]).running(tmp_path / "state"):
        text = cli("status").stdout
    assert any("support-bot" in line and message.strip() in line for line in text.splitlines())


def test_color_is_for_terminals_that_want_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal gets colours, unless --no-color or NO_COLOR say otherwise."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    with Daemon([account("support-bot")]).running(tmp_path / "state"):
        assert "\x1b[32m" in cli("status").stdout
        assert "\x1b" not in cli("--no-color", "status").stdout
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b" not in cli("status").stdout
