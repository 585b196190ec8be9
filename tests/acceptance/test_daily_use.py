"""What an operator does every day: run the daemon, ask it, read its log."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.datacenter import Datacenter
from tests.acceptance.conftest import LATENCY, SENDER, Process, Site, command, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

STATUS_KEYS = {"schema", "running", "pid", "uptime_s", "accounts", "paths"}
ACCOUNT_KEYS = {
    "name", "state", "limited", "user_id", "is_bot", "path", "since", "retry_at", "incident", "last_failure",
}  # fmt: skip
LOG_KEYS = {
    "id", "incident", "at", "account", "path", "scope", "kind", "error_id", "error_code", "message", "method",
    "action", "attempt", "delay_s", "outcome", "duration_s", "cause",
}  # fmt: skip
ACTIONS = {"wait", "reconnect", "rotate_proxy", "relogin", "retry", "fail"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Two bots, one of them with a `main` that sends all the time."""
    async with Datacenter(latency=LATENCY) as dc:
        site = Site(dc, tmp_path_factory.mktemp("site"))
        site.code("sender", SENDER)
        site.bot("support-bot", main="sender:main")
        site.bot("sales-bot")
        site.write()
        try:
            yield site
        finally:
            site.kill_all()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(site: Site) -> AsyncIterator[Process]:
    """The daemon that all tests of this module share; it must have lived through all of them."""
    process = site.run()
    await process.state("online")
    yield process
    assert await process.stop() < 10


async def test_before_the_first_run_status_says_that_nothing_runs(site: Site) -> None:
    """Without a daemon and without a past, `status` ends well and says that none is running; the log is empty."""
    status = await site.command("status", "--json")
    assert (status.code, status.json()["running"], status.json()["accounts"]) == (0, False, [])
    assert "no daemon is running" in status.err
    log = await site.command("log", "--json")
    assert (log.code, log.out) == (0, "")
    assert not site.state_dir.exists()


async def test_run_brings_bots_online_and_status_tells(site: Site, daemon: Process) -> None:
    """`status --json` has the contract's keys, the daemon's pid, and every account proved online."""
    status = await site.command("status", "--json")
    assert (status.code, status.err) == (0, "")
    found = status.json()
    assert set(found) >= STATUS_KEYS
    assert (found["schema"], found["running"], found["pid"]) == (1, True, daemon.pid)
    assert found["uptime_s"] > 0
    assert [account["name"] for account in found["accounts"]] == ["support-bot", "sales-bot"]
    for account in found["accounts"]:
        assert set(account) >= ACCOUNT_KEYS
        assert (account["state"], account["path"], account["is_bot"]) == ("online", "direct", True)
        assert account["user_id"] == site.bots[account["name"]].user_id
        assert account["incident"] is account["retry_at"] is account["limited"] is None
        assert TIME.fullmatch(account["since"])
    assert [(path["name"], path["state"], path["accounts"]) for path in found["paths"]] == [
        ("direct", "ok", 2)
    ]
    assert sum(site.dc.seen.sign_ins.values()) == 2
    table = await site.command("status")
    assert table.code == 0
    assert "2 accounts: 2 online" in table.out


async def test_a_reset_is_in_the_log(site: Site, daemon: Process) -> None:
    """After a reset `log --json` has a row that retries and one that closes the same incident, with its duration."""
    seen = len(await site.log("--account", "support-bot"))
    assert site.dc.reset_links(site.bots["support-bot"]) == 1
    await asyncio.sleep(1.5)
    await daemon.state("online")
    rows = (await site.log("--account", "support-bot"))[seen:]
    assert [row["outcome"] for row in rows] == ["retrying", "recovered"]
    for row in rows:
        assert set(row) >= LOG_KEYS
        assert (row["account"], row["path"], row["kind"]) == ("support-bot", "direct", "connection")
        assert row["action"] in ACTIONS
        assert TIME.fullmatch(row["at"])
        assert "reset" in row["message"]
    assert rows[0]["incident"] == rows[1]["incident"] is not None
    assert rows[0]["duration_s"] is None
    assert 0 < rows[1]["duration_s"] < 5
    assert rows[0]["id"] < rows[1]["id"]
    lines = await site.command("log", "--account", "support-bot")
    assert lines.code == 0
    assert "recovered by reconnect" in lines.out


async def test_a_second_daemon_is_refused(site: Site, daemon: Process) -> None:
    """A second `run` on the same state directory exits with 75, names the first one's pid and disturbs nothing."""
    logs = {path.name: path.stat().st_ino for path in (site.state_dir / "logs").iterdir()}
    second = await site.command("run")
    assert second.code == 75
    assert str(daemon.pid) in second.err
    assert second.out == ""
    assert "Traceback" not in second.err
    assert {path.name: path.stat().st_ino for path in (site.state_dir / "logs").iterdir()} == logs
    await daemon.state("online")


async def test_sighup_does_not_end_it(site: Site, daemon: Process) -> None:
    """SIGHUP has the file read again; one that says the same leaves the daemon's links alone."""
    connections = len(site.dc.seen.connections)
    daemon.signal(signal.SIGHUP)
    await until(lambda: "no account changed" in daemon.err, 5, "the daemon says that it was told")
    await asyncio.sleep(0.5)
    await daemon.state("online")
    assert len(site.dc.seen.connections) == connections


async def test_what_was_sent_was_sent_once(site: Site, daemon: Process) -> None:
    """Through all of this no message of `main` was lost, none doubled, and none overtook another."""
    bot = site.bots["support-bot"].user_id
    count = len(site.dc.seen.sends[bot])
    await until(lambda: len(site.dc.seen.sends[bot]) > count + 5, 5, "main goes on sending")
    texts = [sent.text for sent in site.dc.seen.sends[bot]]
    assert texts == [f"support-bot {n}" for n in range(len(texts))]
    assert not site.dc.seen.unknown_methods
    assert site.dc.seen.max_connections_per_key == 1


async def test_after_a_clean_stop_status_shows_the_last_run(site: Site, tmp_path: Path) -> None:
    """Once the daemon has stopped, `status --json` shows the last run's accounts and says when it stopped."""
    other = Site(site.dc, tmp_path)
    other.bot("short-bot")
    async with other.online():
        pass
    status = await other.command("status", "--json")
    found: dict[str, Any] = status.json()
    assert (status.code, found["running"], found["pid"]) == (0, False, None)
    assert [(account["name"], account["state"]) for account in found["accounts"]] == [
        ("short-bot", "stopped")
    ]
    assert "stopped at" in status.err


async def test_check_says_what_would_run(site: Site) -> None:
    """`check` of a good file exits with 0, lists the accounts, and touches neither server nor state."""
    connections = len(site.dc.seen.connections)
    check = await site.command("check", "--json")
    assert check.code == 0
    assert check.json()["ok"]
    assert [account["name"] for account in check.json()["accounts"]] == ["support-bot", "sales-bot"]
    assert len(site.dc.seen.connections) == connections


BROKEN = """
[telegram]
api_id = "many"
api_hash = "${SURELY_NOT_SET}"
[supervisor]
stat_dir = "x"
[accounts.one]
bot_token = "nonsense"
[accounts.two]
proxy = "nowhere"
"""


@pytest.mark.parametrize("name", ["check", "run"])
async def test_a_broken_file_is_refused_with_all_its_problems(site: Site, tmp_path: Path, name: str) -> None:
    """A broken file is exit code 78 with every problem and its line, no traceback, and no state directory."""
    path = tmp_path / "accounts.toml"
    path.write_text(BROKEN)
    ended = await asyncio.to_thread(command, name, "-c", str(path), cwd=tmp_path)
    assert ended.code == 78
    assert ended.out == ""
    for told in ("telegram.api_id", "SURELY_NOT_SET", "stat_dir", "accounts.one.bot_token", "accounts.two"):
        assert told in ended.err
    assert all(re.match(r".*accounts\.toml:\d+: ", line) for line in ended.err.splitlines())
    assert "nonsense" not in ended.err
    assert [child.name for child in tmp_path.iterdir()] == ["accounts.toml"]
