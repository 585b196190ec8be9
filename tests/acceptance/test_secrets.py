"""Secrets appear nowhere, and the state directory is its owner's alone."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path

from supervisor.datacenter import Datacenter, Fault, FaultKind
from tests.acceptance.conftest import API_HASH, SENDER, MuteProxy, Site, closed_port
from tests.acceptance.test_existing_sessions import made_by_the_library

SECOND_FACTOR = "canary-of-two-factors"
PASSWORD = "hunter2-is-my-proxy-password"
FAILING = """
async def main(client):
    raise RuntimeError("this main fails")
"""


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_no_secret_is_written_anywhere(dc: Datacenter, site: Site) -> None:
    """Through failures of every sort, --debug included, no secret reaches an output, a log, the record or JSON."""
    site.code("sender", SENDER)
    site.code("failing", FAILING)
    good, dead = site.bot("good", main="sender:main"), site.bot("dead")
    site.bot("failing", main="failing:main")
    dc.kill_token(dead)
    user = dc.add_user(601)
    _, string = made_by_the_library(site, user)
    site.accounts["by-string"] = {"session_string": string}
    site.accounts["person"] = {"phone": "+4915112345678", "password": SECOND_FACTOR}
    async with MuteProxy() as mute:
        site.proxies = {
            "closed": f"socks5://operator:{PASSWORD}@127.0.0.1:{closed_port()}",
            "mute": f"http://operator:{PASSWORD}@127.0.0.1:{mute.port}",
        }
        site.bot("behind-closed", proxy="closed")
        site.bot("behind-mute", proxy="mute")
        site.settings["connect_timeout"] = 2
        site.write()
        check = await site.command("check", "--json", "--debug")
        daemon = site.run("--debug")
        await daemon.state("online", "good", "by-string")
        await daemon.state("failed", "dead")
        dc.faults.add(
            Fault(
                FaultKind.RPC_ERROR, good.user_id, "messages.SendMessage", code=400, error="PEER_ID_INVALID"
            )
        )
        dc.reset_links()
        await asyncio.sleep(1.5)
        dc.revoke(user)
        dc.forget_keys(good)
        await asyncio.sleep(2.5)
        outputs = [await site.command(*line) for line in (
            ("status",), ("status", "--json"), ("log",), ("log", "--json", "--limit", "10000"), ("log", "--debug"),
        )]  # fmt: skip
        second = await site.command("run", "--debug")
        await daemon.state("online", "good")
        daemon.signal(signal.SIGTERM)
        assert await daemon.ended(10) == 0
    said = {f"{n}": ended.out + ended.err for n, ended in enumerate([check, second, *outputs])}
    said |= {"stdout": daemon.out, "stderr": daemon.err}
    assert "good" in said["stderr"]
    assert all(ended.code == 0 for ended in outputs)
    tokens = [bot.token for bot in site.bots.values() if bot.token]
    secrets = [
        *tokens,
        *(token.partition(":")[2] for token in tokens),
        API_HASH,
        PASSWORD,
        SECOND_FACTOR,
        string,
        string[:60],
    ]
    secrets.append("4915112345678")
    for secret in secrets:
        assert [name for name, text in said.items() if secret in text] == []
        holding = [path.name for path in files(site.state_dir) if secret.encode() in path.read_bytes()]
        assert [name for name in holding if not name.startswith("sessions.db")] == []


async def test_the_state_directory_is_its_owners_alone(site: Site) -> None:
    """Whatever the umask: state_dir and logs are 0700, every file in them 0600, while it runs and afterwards."""
    site.bot("bot-0")
    before = os.umask(0)
    try:
        site.write()
        daemon = site.run()
    finally:
        os.umask(before)
    await daemon.state("online")
    site.dc.reset_links()
    await asyncio.sleep(1)
    for _ in range(2):
        names = {path.name for path in site.state_dir.rglob("*")}
        assert {"recovery.db", "sessions.db", "supervisor.log", "lock"} <= names
        assert stat.S_IMODE(site.state_dir.stat().st_mode) == 0o700
        for path in site.state_dir.rglob("*"):
            expected = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.lstat().st_mode) == expected, path
        if daemon.is_running:
            await daemon.stop()
