"""Accounts behind proxies: moved when one breaks, never direct."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.config.model import Proxy
from supervisor.datacenter import Datacenter

pytestmark = pytest.mark.timeout(60)


def configured(proxies: dict[str, Any]) -> tuple[Proxy, ...]:
    return tuple(Proxy(name, "socks5", "127.0.0.1", proxy.port) for name, proxy in proxies.items())


async def moved(bots: Any, before: str, seconds: float) -> float:
    begun = time.monotonic()
    while bots.account()["path"] == before or bots.state() != "online":
        assert time.monotonic() - begun <= seconds, bots.account()
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


def relayed(proxies: dict[str, Any]) -> int:
    return sum(proxy.connections for proxy in proxies.values())


async def test_accounts_spread_evenly_over_a_pool(
    dc: Datacenter, fleet: Callable[..., Any], two_proxies: dict[str, Any]
) -> None:
    """A pool's accounts are spread evenly, and every connection goes through a proxy."""
    bots = fleet(4, proxies=configured(two_proxies))
    async with bots.running():
        paths = [bots.account(name)["path"] for name in bots.names]
        assert sorted(paths) == ["de1", "de1", "nl3", "nl3"]
    assert len(dc.seen.connections) == relayed(two_proxies)


async def test_a_killed_proxy_is_left_for_another(
    dc: Datacenter, fleet: Callable[..., Any], two_proxies: dict[str, Any]
) -> None:
    """When its proxy is killed an account is online over the other within 3 s, and nothing went out directly."""
    bots = fleet(1, proxies=configured(two_proxies))
    async with bots.running():
        before = bots.account()["path"]
        load = asyncio.create_task(bots.load(4, 0.1))
        await asyncio.sleep(0.5)
        await two_proxies[before].kill()
        await moved(bots, before, 3.0)
        calls = await load
        assert not [call for call in calls if call.error]
        rows = await bots.rows()
    assert len(dc.seen.connections) == relayed(two_proxies)
    assert any(row["kind"] == "proxy" and row["action"] == "rotate_proxy" for row in rows)
    assert rows[-1]["outcome"] == "recovered"


async def test_a_hanging_proxy_is_left_and_stalls_nobody(
    dc: Datacenter, fleet: Callable[..., Any], two_proxies: dict[str, Any]
) -> None:
    """When its proxy goes silent an account is online over the other within 10 s; the loop of the others goes on."""
    bots = fleet(2, proxies=configured(two_proxies))
    async with bots.running():
        before = bots.account()["path"]
        worst = 0.0

        async def watch() -> None:
            nonlocal worst
            while True:
                begun = time.monotonic()
                await asyncio.sleep(0.01)
                worst = max(worst, time.monotonic() - begun - 0.01)

        watcher = asyncio.create_task(watch())
        two_proxies[before].hang()
        await moved(bots, before, 10.0)
        watcher.cancel()
        rows = await bots.rows()
    assert worst < 0.5
    assert len(dc.seen.connections) == relayed(two_proxies)
    assert rows[0]["kind"] == "proxy"


async def test_without_another_proxy_an_account_waits_for_its_own(
    dc: Datacenter, fleet: Callable[..., Any], two_proxies: dict[str, Any]
) -> None:
    """An account whose only proxy is down waits for it, spends no caps, and never goes direct."""
    only = {"de1": two_proxies["de1"]}
    bots = fleet(1, proxies=configured(only))
    async with bots.running():
        await only["de1"].kill()
        await asyncio.sleep(8)
        assert bots.state() == "recovering"
        assert (
            bots.sup.status()["paths"]
            == [
                {"name": "de1", "state": "broken", "accounts": 1},
            ]
            or bots.sup.status()["paths"][0]["state"] == "broken"
        )
        await only["de1"].start()
        begun = time.monotonic()
        while bots.state() != "online":
            assert time.monotonic() - begun <= 3.0
            await asyncio.sleep(0.02)
    assert len(dc.seen.connections) >= relayed(only)
