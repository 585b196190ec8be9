"""The dashboard comes and goes with its configuration, and takes nothing down with it."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from supervisor.config.model import Dashboard, Secret
from supervisor.dashboard import server
from supervisor.dashboard.desk import Live
from supervisor.dashboard.pulse import Pulse
from supervisor.dashboard.server import DashboardServer
from tests.unit.dashboard.made_up import Desk
from tests.unit.dashboard.served import TOKEN, free_port


@asynccontextmanager
async def running(desk: Desk, state_dir: Path, settings: Dashboard | None) -> AsyncIterator[DashboardServer]:
    dashboard = DashboardServer(desk, state_dir, settings)
    task = asyncio.create_task(dashboard.run())
    try:
        yield dashboard
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def status(port: int, token: str = TOKEN) -> int | None:
    """The status of an answer; None where nobody listens."""
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/api/v1/about", headers=headers) as answer,
        ):
            return answer.status
    except aiohttp.ClientConnectionError:
        return None


async def comes_to(wanted: int | None, port: int, token: str = TOKEN) -> None:
    """Wait until asking gives a status."""
    deadline = time.monotonic() + 10
    while (found := await status(port, token)) != wanted:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.01)


async def test_it_follows_its_configuration(
    desk: Desk, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """None is served where none is wanted; another address or token holds at once; without it all threads are gone."""
    caplog.set_level(logging.INFO)
    settings = Dashboard("127.0.0.1", free_port(), Secret(TOKEN))
    async with running(desk, state_dir, None) as dashboard:
        assert await status(settings.port) is None
        dashboard.follow(settings)
        await comes_to(200, settings.port)
        assert f"http://127.0.0.1:{settings.port}/" in caplog.text
        dashboard.follow(replace(settings, token=Secret("another-token-of-it")))
        await comes_to(200, settings.port, "another-token-of-it")
        assert await status(settings.port) == 401
        moved = replace(settings, port=free_port())
        dashboard.follow(moved)
        await comes_to(200, moved.port)
        assert await status(settings.port) is None
        dashboard.follow(None)
        await comes_to(None, moved.port)
        deadline = time.monotonic() + 5
        while left := [one.name for one in threading.enumerate() if one.name.startswith("dashboard")]:
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.01)
    assert TOKEN not in caplog.text


async def test_a_port_in_use_is_waited_for(
    desk: Desk, state_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that another program has is told once, with what goes on, and taken when it is free."""
    monkeypatch.setattr(server, "_AGAIN", 0.02)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        async with running(desk, state_dir, Dashboard("127.0.0.1", port, Secret(TOKEN))):
            await asyncio.sleep(0.3)
            (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
            assert f"127.0.0.1:{port}" in told
            assert "in use" in told
            assert "accounts run without it" in told
            other.close()
            await comes_to(200, port)


async def test_an_error_of_its_own_ends_nothing(
    state_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong in a look is logged; the page's stream begins anew, and requests are answered with JSON."""
    monkeypatch.setattr(server, "_AGAIN", 0.02)

    class Broken(Desk):
        async def live(self) -> Live:
            raise RuntimeError("a bug")

    port = free_port()
    async with running(Broken(3), state_dir, Dashboard("127.0.0.1", port, Secret(TOKEN))):
        await comes_to(200, port)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
            async with session.get("/api/v1/status") as answer:
                assert answer.status == 500
                assert (await answer.json())["error"]["name"] == "internal"
            async with session.get("/api/v1/events") as answer:
                assert await asyncio.wait_for(answer.content.read(), 10) == b""
        await comes_to(200, port)
    assert "a bug" in caplog.text


async def test_lateness_is_measured() -> None:
    """A loop that was held up shows for at least half a minute."""
    pulse = Pulse()
    try:
        await asyncio.sleep(0.3)
        assert pulse.lag < 0.2
        time.sleep(0.6)
        assert pulse.lag >= 0.3
        await asyncio.sleep(0.3)
        assert 0.3 <= pulse.lag < 5
    finally:
        pulse.end()
