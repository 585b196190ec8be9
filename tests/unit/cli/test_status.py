from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.failure import Result, State
from supervisor.ports import AccountSnapshot, Limited, PathSnapshot
from supervisor.record.lock import StateLock
from supervisor.record.store import Store
from supervisor.report.status import Texts, status
from tests.unit.cli.conftest import NOW, Cli, account, fill, row
from tests.unit.cli.daemon import BROKEN, Daemon

KEYS = "name state limited user_id is_bot path since retry_at incident last_failure".split()
PATH_KEYS = (
    "name state accounts breaker since next_probe_at succeeded failed success_rate latency_ms last_failure incident"
).split()


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
    assert list(found["paths"][1]) == PATH_KEYS
    assert found["paths"][1] == {
        "name": "de1",
        "state": "broken",
        "accounts": 0,
        "breaker": "half_open",
        "since": "1970-01-01T00:00:00.000Z",
        "next_probe_at": "1970-01-01T00:00:10.500Z",
        "succeeded": 90,
        "failed": 10,
        "success_rate": 0.9,
        "latency_ms": 62.5,
        "last_failure": {"at": "1970-01-01T00:00:01.000Z", "message": "connection refused"},
        "incident": "i-1",
    }
    unknown = ["since", "next_probe_at", "success_rate", "latency_ms", "last_failure", "incident"]
    assert [found["paths"][0][key] for key in unknown] == [None] * len(unknown)


def test_people_see_a_table(cli: Cli, tmp_path: Path) -> None:
    """Every account with its state, what last went wrong, the totals, the paths and how they do, the daemon's age."""
    snapshots = [account("support-bot", last_failure=row()), account("sales", State.NEEDS_LOGIN)]
    with Daemon(snapshots, uptime=3700.0).running(tmp_path / "state"):
        text = cli("status").stdout
    assert "needs_login" in text
    assert "FLOOD_WAIT_35 on messages.SendMessage" in text
    assert "2 accounts: 1 online, 1 needs_login" in text
    (shown,) = [line.split(maxsplit=7) for line in text.splitlines() if line.startswith("de1")]
    assert shown[1:7] == ["broken,", "breaker", "half", "open", "0", "90"]
    assert shown[7].split()[:3] == ["%", "62", "ms"]
    assert "connection refused" in shown[7]
    assert "next probe" in shown[7]
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
    assert [(path["name"], path["state"], path["accounts"]) for path in found["paths"]] == [
        ("direct", "unused", 8)
    ]
    assert "no daemon is running; the last one stopped at" in result.stderr


async def test_the_last_runs_paths_are_remembered(cli: Cli, tmp_path: Path) -> None:
    """Health and breakers as they were when the daemon ended; nothing is probed, and what worked then is only not used."""
    (tmp_path / "state").mkdir()
    async with Store.open(tmp_path / "state" / "recovery.db") as store:
        store.path(replace(BROKEN, accounts=5))
        store.path(PathSnapshot("nl3", "ok", 5, succeeded=7, latency=0.25))
        await store.save_account(replace(account("support-bot"), path="nl3"))
    de1, nl3 = json.loads((await asyncio.to_thread(cli, "status", "--json")).stdout)["paths"]
    assert (de1["state"], de1["breaker"], de1["accounts"]) == ("broken", "half_open", 0)
    assert (de1["next_probe_at"], de1["failed"], de1["incident"]) == (None, 10, "i-1")
    assert (nl3["state"], nl3["accounts"], nl3["success_rate"], nl3["latency_ms"]) == (
        "unused",
        1,
        1.0,
        250.0,
    )
    text = (await asyncio.to_thread(cli, "status")).stdout
    assert "250 ms" in text


def test_a_status_of_many_is_made_of_what_was_made_before() -> None:
    """The same text as made at once; an account's part is only written again when something of it has changed."""
    failed = account("a", State.RECOVERING, last_failure=row())
    online = account("b")
    numbers = {"a": 1}
    texts = Texts(lambda _: numbers["a"])

    def made(*accounts: AccountSnapshot) -> str:
        texts.begin()
        for one in accounts:
            texts.add(one)
        return texts.take(whole())

    def whole(*accounts: AccountSnapshot) -> dict[str, Any]:
        paths = [replace(BROKEN, name='"accounts": []')]
        return status(accounts, paths, running=True, pid=1, uptime_s=2.0, row_id=lambda _: numbers["a"])

    for accounts in ([failed, online], [failed, replace(online)], [online], [], [online, failed]):
        assert made(*accounts) == json.dumps(whole(*accounts))
    numbers["a"] = 2
    assert made(failed, online) == json.dumps(whole(failed, online))
    texts.begin()
    texts.add(failed)  # who asked went away
    assert made(online) == json.dumps(whole(online))
    assert '"state": "paused"' in made(replace(online, state=State.PAUSED))


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
