"""A start of accounts that have a session: it asks for little, and is refused nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from supervisor.datacenter import Datacenter
from tests.integration.conftest import Fleet, until

pytestmark = pytest.mark.timeout(60)


async def run(site: Fleet) -> None:
    """One run in which everything that a start asks for is answered."""
    async with site.running() as sup:
        clients = [await sup.client(name) for name in site.names]
        await until(lambda: all(client.is_initialized for client in clients), 5)
    await until(lambda: site.dc.seen.open_connections == 0, 5)
    await asyncio.sleep(0.1)  # what was still under way is read


async def test_a_start_begins_with_the_salt_of_the_run_before(
    fleet: Callable[..., Fleet], dc: Datacenter
) -> None:
    """Nothing of it is refused for want of a salt; where the server has another by then, once."""
    site = fleet(2)
    await run(site)
    before = dc.seen.bad_messages[48]
    await run(site)
    assert dc.seen.bad_messages[48] == before
    dc.rotate_salts()
    for _ in range(2):  # the first learns the new one, and the second begins with it
        await run(site)
        assert dc.seen.bad_messages[48] == before + len(site.names)


async def test_a_start_asks_for_little(fleet: Callable[..., Fleet], dc: Datacenter) -> None:
    """What proves the link greets as well; then who it is, and what was missed."""
    site = fleet()
    await run(site)
    dc.seen.reset()
    await run(site)
    wrappers = {"InvokeWithLayer": 1, "InitConnection": 1}
    needed = {"updates.GetState": 1, "users.GetFullUser": 1, "updates.GetDifference": 1}
    assert {method: number for (_, method), number in dc.seen.calls.items()} == wrappers | needed
