"""What a service manager is told, and when it is not."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from supervisor.systemd import Notifier


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with TemporaryDirectory(prefix="tgs-") as name:
        yield Path(name)


@pytest.mark.parametrize("is_abstract", [False, True])
def test_messages_arrive(folder: Path, is_abstract: bool) -> None:
    """A message reaches the manager's socket, be it a file or abstract (@)."""
    address = f"@tgs-{os.getpid()}" if is_abstract else str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1))
        manager.settimeout(5)
        Notifier({"NOTIFY_SOCKET": address}).say("READY=1")
        assert manager.recv(64) == b"READY=1"


async def test_nobody_has_asked(caplog: pytest.LogCaptureFixture) -> None:
    """Without NOTIFY_SOCKET nothing is said, no watchdog is fed, and nothing is logged."""
    notifier = Notifier({"WATCHDOG_USEC": "1000000"})
    with notifier.up(lambda: pytest.fail("asked for nobody")), notifier.reloading():
        await asyncio.sleep(0)
    assert notifier.watchdog is None
    assert caplog.messages == []


async def test_a_manager_that_is_gone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A socket where nobody listens stops nothing, and is told of once; a full one does not hold the loop up."""
    with Notifier({"NOTIFY_SOCKET": str(folder / "none"), "WATCHDOG_USEC": "1000"}).up(lambda: True):
        await asyncio.sleep(0.02)
    assert len(caplog.messages) == 1
    assert "READY=1" in caplog.text
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as deaf:
        deaf.bind(str(folder / "deaf"))
        notifier = Notifier({"NOTIFY_SOCKET": str(folder / "deaf")})
        for _ in range(2000):
            notifier.say("WATCHDOG=1")
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog(env: dict[str, str], seconds: float | None) -> None:
    """The watchdog is ours where it has a time and is not another process's."""
    assert Notifier({"NOTIFY_SOCKET": "/nowhere", **env}).watchdog == seconds


async def test_a_reload_that_the_end_cuts_short(folder: Path) -> None:
    """After STOPPING nothing more is said: a reload that was under way does not make the daemon ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": str(folder / "notify")})
        up = notifier.up(lambda: True)
        up.__enter__()
        with notifier.reloading():
            up.__exit__(None, None, None)
        heard = [manager.recv(64).partition(b"\n")[0] for _ in range(3)]
        assert heard == [b"READY=1", b"RELOADING=1", b"STOPPING=1"]
        with pytest.raises(BlockingIOError):
            manager.recv(64)
