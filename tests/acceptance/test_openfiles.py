"""A process that may not open enough files: said before it starts, and truly told of where it happens later."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from supervisor.datacenter import Datacenter
from tests.acceptance.conftest import Site, environment


@pytest.mark.parametrize("command", ["run", "check"])
def test_too_low_a_limit_is_said_before_anything_is_opened(site: Site, command: str) -> None:
    """With the numbers and the repair, exit code 78."""
    for n in range(30):
        site.bot(f"bot-{n}")
    site.write()

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 120))

    done = subprocess.run(
        [sys.executable, "-m", "supervisor", command, "-c", str(site.path)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=30,
        check=False,
        preexec_fn=lower,
    )
    told = (
        "30 accounts need about 130 open files, this process may open 120: "
        "raise LimitNOFILE= (systemd) or ulimit -Hn"
    )
    assert (done.returncode, told in done.stderr) == (78, True), done.stderr
    assert not (site.state_dir / "recovery.db").exists()


@pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="only Linux changes the limits of another process"
)
async def test_an_account_that_gets_no_socket_says_so_and_comes_back(dc: Datacenter, site: Site) -> None:
    """Not the path is called broken, nothing is tried over and over; with the limit raised a person's word is enough."""
    site.bot("bot-0")
    async with site.online() as daemon:
        limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        begun, used = time.monotonic(), cpu_seconds(daemon.pid)
        dc.reset_links()
        await asyncio.sleep(5.0)
        used = cpu_seconds(daemon.pid) - used
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
        await asyncio.sleep(2.0)  # the log itself may have been without a file
        rows = [
            row for row in await site.log() if row["incident"]
        ]  # the bot's own code has its troubles, too
        assert rows[0]["kind"] == "connection"
        assert {(row["kind"], row["error_id"], row["scope"]) for row in rows[1:]} == {
            ("unknown", "OUT_OF_FILES", "account")
        }
        assert [row["outcome"] for row in rows] == ["retrying"] * 3 + ["suspended"]
        message = "no more files can be opened: this process may have 3 (LimitNOFILE=, ulimit -n)"
        assert rows[-1]["message"] == message
        assert used < 0.5 * (time.monotonic() - begun), "it is busy with nothing"
        status = (await site.command("status", "--json")).json()
        assert [path["state"] for path in status["paths"]] == ["ok"]
        assert (await site.command("retry", "bot-0")).code == 0
        await daemon.state("online")
        # Not by `stop`: where no log file could be opened, its handler has said so in its own way.
        daemon.signal(signal.SIGTERM)
        assert await daemon.ended() == 0


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - no file of a disk's
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
