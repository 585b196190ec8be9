"""Trouble that accounts share, over real sockets: one row for it, nobody's cap, and a restart that goes on with it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyrogram import raw

from supervisor.core.failure import DEFAULT_POLICIES, Kind
from supervisor.daemon import Supervisor
from supervisor.datacenter import Datacenter, Fault, FaultKind
from tests.integration.conftest import Fleet, until

pytestmark = pytest.mark.timeout(60)

QUICK: dict[str, Any] = {"connect_timeout": 2.0, "answer_timeout": 3.0, "silence_timeout": 2.0}
GET_USERS = "users.GetUsers"


@pytest.fixture
async def dc() -> AsyncIterator[Datacenter]:
    async with Datacenter() as datacenter:
        yield datacenter


@pytest.fixture
def bots(dc: Datacenter, tmp_path: Path) -> Fleet:
    return Fleet(dc, tmp_path, 6, **QUICK)


async def who_am_i(bots: Fleet, name: str) -> Any:
    client = await bots.sup.client(name)
    return await client.invoke(raw.functions.users.GetUsers(id=[raw.types.InputUserSelf()]))


def told(rows: list[dict[str, Any]]) -> list[tuple[str | None, str, str, str]]:
    return [(row["account"], row["scope"], row["kind"], row["outcome"]) for row in rows]


async def test_a_wave_of_500s_is_one_incident_and_costs_no_cap(bots: Fleet, dc: Datacenter) -> None:
    """Four errors for each account, where three repeats are the cap: no call fails, and the record has one row for all
    of it, besides those that came before it was known to be a wave.
    """
    async with bots.running():
        for bot in bots.bots:
            dc.faults.add(
                Fault(FaultKind.RPC_ERROR, bot.user_id, GET_USERS, count=4, code=500, error="INTERNAL")
            )
        answers = await asyncio.gather(*(who_am_i(bots, name) for name in bots.names))
        assert [users[0].id for users in answers] == [bot.user_id for bot in bots.bots]
        assert {bots.state(name) for name in bots.names} == {"online"}
        rows: list[dict[str, Any]] = []
        async with asyncio.timeout(30):
            while not rows or rows[-1]["scope"] != "fleet" or rows[-1]["outcome"] != "recovered":
                rows = await bots.rows()
    shared = [row for row in rows if row["account"] is None]
    assert told(shared) == [
        (None, "fleet", "temporary", "retrying"),
        (None, "fleet", "temporary", "recovered"),
    ]
    assert sorted(shared[0]["accounts"]) == bots.names
    own = Counter(row["account"] for row in rows if row["outcome"] == "retrying" and row["account"])
    assert len(own) <= 2 and max(own.values(), default=0) == 1


async def test_too_many_connections_slow_the_path_and_not_the_account(bots: Fleet, dc: Datacenter) -> None:
    """One account is answered -429: it and the next that connects wait, the others stay online; no cap is spent."""
    policies = {
        **DEFAULT_POLICIES,
        Kind.RATE_LIMIT: replace(DEFAULT_POLICIES[Kind.RATE_LIMIT], base_delay=1.5),
    }
    bots.config = replace(bots.config, policies=policies)
    async with bots.running():
        first, second = bots.bots[:2]
        dc.faults.add(Fault(FaultKind.TRANSPORT, first.user_id, None, code=-429))
        dc.reset_links(first)
        await until(lambda: [path["state"] for path in bots.sup.status()["paths"]] == ["broken"])
        limited = time.monotonic()
        connected = len(dc.seen.connections)
        dc.reset_links(second)
        await asyncio.sleep(1.0)
        assert [bots.state(name) for name in bots.names] == ["recovering"] * 2 + ["online"] * 4
        assert len(dc.seen.connections) == connected
        assert bots.account("bot-0")["retry_at"] is not None
        await until(lambda: {bots.state(name) for name in bots.names} == {"online"})
        assert time.monotonic() - limited >= 1.4
        rows = await bots.rows()
        status = bots.sup.status()
    told_off = next(row for row in rows if row["kind"] == "rate_limit" and row["outcome"] == "retrying")
    assert (told_off["account"], told_off["action"], told_off["attempt"]) == ("bot-0", "wait", 0)
    assert told_off["delay_s"] == pytest.approx(1.5, abs=0.1)
    assert told_off["error_code"] == -429
    (path,) = status["paths"]
    assert (path["state"], path["breaker"], path["last_failure"]["message"]) == (
        "ok",
        "closed",
        "transport -429",
    )


async def test_a_restart_goes_on_with_an_outage(bots: Fleet, dc: Datacenter) -> None:
    """Telegram is away when the daemon stops and when it starts: one incident, from the first failure to the end."""
    async with bots.running():
        await dc.go_away()
        await until(lambda: {bots.state(name) for name in bots.names} == {"recovering"})
        begun = time.monotonic()
        await until(lambda: bots.account()["incident"] == bots.account("bot-5")["incident"] is not None)
        (incident,) = {bots.account(name)["incident"] for name in bots.names}
        assert bots.sup.status()["paths"][0]["incident"] == incident
    async with Supervisor(bots.config) as bots.sup:
        assert bots.sup.status()["paths"][0]["state"] == "broken"
        await asyncio.sleep(1.5)
        assert {bots.account(name)["incident"] for name in bots.names} == {incident}
        await dc.come_back()
        await until(lambda: {bots.state(name) for name in bots.names} == {"online"})
        rows = await bots.rows()
    assert told(rows) == [
        (None, "fleet", "connection", "retrying"),
        (None, "fleet", "connection", "recovered"),
    ]
    assert {row["incident"] for row in rows} == {incident}
    assert rows[1]["duration_s"] == pytest.approx(time.monotonic() - begun, abs=2.0)


async def test_links_that_are_lost_together_make_nobody_flap(dc: Datacenter, tmp_path: Path) -> None:
    """Seven times all links are reset, where six losses in ten minutes would suspend an account."""
    bots = Fleet(dc, tmp_path, 5, connect_budget=1000.0, **QUICK)
    async with bots.running():
        for _ in range(7):
            dc.reset_links()
            await asyncio.sleep(0.1)
            await until(lambda: {bots.state(name) for name in bots.names} == {"online"})
            await asyncio.sleep(1.1)  # until then it may be anybody's own
        rows = await bots.rows()
    assert set(told(rows)) == {
        (None, "fleet", "connection", "retrying"),
        (None, "fleet", "connection", "recovered"),
    }
    assert len(rows) == 14
    assert len({row["incident"] for row in rows}) == 1


def _is(bots: Fleet, state: str) -> bool:
    return bots.state() == state


async def test_an_account_that_loses_its_links_alone_does_flap(bots: Fleet, dc: Datacenter) -> None:
    """The sixth time it is suspended; the others do not notice."""
    async with bots.running():
        for n in range(6):
            dc.reset_links(bots.bots[0])
            wanted = "online" if n < 5 else "suspended"
            await asyncio.sleep(0.1)
            await until(functools.partial(_is, bots, wanted))
        assert [bots.state(name) for name in bots.names[1:]] == ["online"] * 5
        assert "flapping" in bots.account()["last_failure"]["message"]
