"""Accounts behind a pool of proxies. What may go wrong with them: test_matrix_proxies.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from supervisor.config.model import Proxy
from supervisor.datacenter import Datacenter

pytestmark = pytest.mark.timeout(60)


async def test_accounts_spread_evenly_over_a_pool(
    dc: Datacenter, fleet: Callable[..., Any], two_proxies: dict[str, Any]
) -> None:
    """A pool's accounts are spread evenly, and every connection goes through a proxy."""
    proxies = tuple(Proxy(name, "socks5", "127.0.0.1", proxy.port) for name, proxy in two_proxies.items())
    bots = fleet(4, proxies=proxies)
    async with bots.running():
        paths = [bots.account(name)["path"] for name in bots.names]
        assert sorted(paths) == ["de1", "de1", "nl3", "nl3"]
    assert len(dc.seen.connections) == sum(proxy.connections for proxy in two_proxies.values())
