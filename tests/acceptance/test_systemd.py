"""The daemon under a service manager: what it says at NOTIFY_SOCKET, and the unit in packaging/systemd."""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, Site, until

UNIT = ROOT / "packaging" / "systemd" / "tg-supervisor.service"
EVERY = 0.25  # seconds between two signs of life, at the watchdog's second

BLOCKS = """
import asyncio, time
from pathlib import Path
async def main(client):
    while not Path(__file__).with_name("block").exists():
        await asyncio.sleep(0.05)
    time.sleep(2)
    Path(__file__).with_name("blocked").touch()
    await asyncio.sleep(3600)
"""


class Manager:
    """Listens at a NOTIFY_SOCKET, as systemd does."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self.heard: list[tuple[float, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)

    @property
    def messages(self) -> list[str]:
        """All that was said so far."""
        while True:
            try:
                self.heard.append((time.monotonic(), self._socket.recv(4096).decode()))
            except BlockingIOError:
                return [message for _, message in self.heard]

    async def hears(self, message: str, times: int = 1) -> None:
        """Wait for a message to be said so often from now on."""
        wanted = self.messages.count(message) + times
        await until(lambda: self.messages.count(message) >= wanted, what=f"{times} x {message}")

    async def silence(self, seconds: float) -> bool:
        """Whether nothing is said for so long, after what was under way."""
        await asyncio.sleep(2 * EVERY)
        before = len(self.messages)
        await asyncio.sleep(seconds)
        return len(self.messages) == before

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@pytest.fixture
def manager() -> Iterator[Manager]:
    """A service manager, at an address that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="tgs-") as folder, closing(Manager(Path(folder))) as found:
        yield found


@pytest.fixture
def watched(site: Site, manager: Manager) -> Site:
    """A site with one bot whose daemon has a manager and a watchdog of one second."""
    site.env |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000"}
    site.code("blocks", BLOCKS)
    site.bot("bot", main="blocks:main")
    site.write()
    return site


async def test_from_ready_to_stopping(watched: Site, manager: Manager) -> None:
    """READY comes first, once the daemon answers; RELOADING and READY around a reload; STOPPING comes last.

    In between there are signs of life: none while the loop is blocked, none while recovery.db cannot be written.
    """
    daemon = watched.run()
    await until(lambda: manager.messages, what="READY=1")
    assert (await watched.command("status", "--json")).json()["running"] is True
    await daemon.state("online")
    await manager.hears("WATCHDOG=1", times=3)
    daemon.signal(signal.SIGHUP)
    await manager.hears("READY=1")
    (watched.etc / "block").touch()
    await until(
        lambda: manager.messages and (watched.etc / "blocked").exists(), what="the loop is free again"
    )
    await manager.hears("WATCHDOG=1", times=2)
    times = [at for at, _ in manager.heard]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) > 1.4
    with closing(sqlite3.connect(watched.state_dir / "recovery.db", isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        await watched.command("pause", "bot")  # is written at once, which fails
        await until(lambda: "cannot be written" in daemon.err, what="the record is known to be stuck")
        assert await manager.silence(1)
        db.execute("ROLLBACK")
    await manager.hears("WATCHDOG=1", times=2)
    await daemon.stop()
    messages = manager.messages
    assert messages[0] == "READY=1"
    assert messages[-1] == "STOPPING=1"
    told = [message for message in messages[1:-1] if message != "WATCHDOG=1"]
    assert told[1:] == ["READY=1"]
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", told[0])


def test_the_unit_is_right(tmp_path: Path) -> None:
    """systemd finds nothing wrong with the unit, and little that the daemon may do and need not (20 of 100)."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    there = UNIT.read_text().replace("/opt/tg-supervisor/bin/", f"{Path(sys.executable).parent}/")
    unit = tmp_path / UNIT.name
    unit.write_text(there.replace("Documentation=man:tg-supervisor(1)\n", ""))  # not installed here
    for check in (["verify"], ["security", "--offline=true", "--threshold=20"]):
        done = subprocess.run([analyze, *check, str(unit)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
