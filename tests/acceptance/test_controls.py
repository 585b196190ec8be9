"""`pause`, `resume` and `retry`, told to a running daemon; `stats` beside it."""

from __future__ import annotations

import asyncio

import pytest

from supervisor.datacenter import Fault, FaultKind
from tests.acceptance.conftest import SENDER, Site, until

pytestmark = pytest.mark.timeout(90)


async def test_a_paused_account_stays_off_until_it_is_resumed(site: Site) -> None:
    """Its link is closed and its `main` ended, the others go on; the resume brings it back, and `main` with it."""
    site.code("sender", SENDER)
    support, sales = site.bot("support-bot", main="sender:main"), site.bot("sales-bot", main="sender:main")
    async with site.online() as daemon:
        await until(lambda: len(site.dc.seen.sends[support.user_id]) > 3, what="main sends")
        paused = await site.command("pause", "support-bot", "--json")
        assert (paused.code, paused.err) == (0, "")
        assert paused.json() == {
            "schema": 1,
            "accounts": [{"name": "support-bot", "state": "paused", "changed": True}],
        }
        sent = len(site.dc.seen.sends[support.user_id])
        others = len(site.dc.seen.sends[sales.user_id])
        await asyncio.sleep(1.0)
        accounts = await daemon.accounts()
        assert (accounts["support-bot"]["state"], accounts["sales-bot"]["state"]) == ("paused", "online")
        assert len(site.dc.seen.sends[support.user_id]) <= sent + 1
        assert len(site.dc.seen.sends[sales.user_id]) > others + 5
        again = await site.command("pause", "s*-bot")
        assert (again.code, again.out.splitlines()) == (
            0,
            ["support-bot: was paused already", "sales-bot: paused"],
        )
        retried = await site.command("retry", "support-bot")
        assert (retried.code, "stays paused" in retried.out) == (0, True)
        resumed = await site.command("resume", "*")
        assert (resumed.code, resumed.out.splitlines()) == (
            0,
            ["support-bot: starting", "sales-bot: starting"],
        )
        await daemon.state("online")
        sent = len(site.dc.seen.sends[support.user_id])
        await until(lambda: len(site.dc.seen.sends[support.user_id]) > sent + 3, what="main sends again")
    assert site.dc.seen.max_connections_per_key == 1


@pytest.mark.parametrize("killed", [False, True])
async def test_a_pause_outlives_the_daemon(site: Site, killed: bool) -> None:
    """After a clean stop or a kill -9 the next daemon leaves a paused account alone, and connects for it only then."""
    bot = site.bot("support-bot")
    site.bot("sales-bot")
    site.write()
    first = site.run()
    await first.state("online")
    assert (await site.command("pause", "support-bot")).code == 0
    if killed:
        await first.kill()
    else:
        await first.stop()
        status = (await site.command("status", "--json")).json()
        states = {account["name"]: account["state"] for account in status["accounts"]}
        assert states == {"support-bot": "paused", "sales-bot": "stopped"}
    connections = len(site.dc.seen.connections)
    second = site.run()
    await second.state("online", "sales-bot")
    await asyncio.sleep(1.0)
    assert (await second.accounts())["support-bot"]["state"] == "paused"
    assert len(site.dc.seen.connections) == connections + 1
    assert (await site.command("resume", "support-bot")).code == 0
    await second.state("online")
    assert site.dc.seen.sign_ins[bot.user_id] == 1
    await second.stop()


async def test_who_is_meant_is_made_sure_of(site: Site) -> None:
    """An unknown name is exit code 2 with the one that was perhaps meant, and nobody is told anything."""
    site.bot("support-bot")
    async with site.online() as daemon:
        wrong = await site.command("pause", "support-bot", "suport-bot")
        assert (wrong.code, wrong.out) == (2, "")
        assert wrong.err == 'no account is called "suport-bot" (did you mean "support-bot"?)\n'
        assert (await site.command("pause", "x*")).err == 'no account matches "x*"\n'
        assert (await daemon.accounts())["support-bot"]["state"] == "online"
    stopped = await site.command("pause", "support-bot")
    assert (stopped.code, stopped.out) == (69, "")


async def test_retry_waits_for_no_delay_and_forgets_a_limit(site: Site) -> None:
    """A suspended account is tried at once; one that Telegram limited is no longer shown as such."""
    site.code("sender", SENDER)
    bot = site.bot("support-bot", main="sender:main")
    async with site.online() as daemon:
        site.dc.faults.add(
            Fault(FaultKind.RPC_ERROR, bot.user_id, "messages.SendMessage", code=400, error="PEER_FLOOD")
        )
        await until(lambda: "PEER_FLOOD" in daemon.err, 10, "the limit is met")
        limited = (await daemon.accounts())["support-bot"]["limited"]
        assert (limited["error_id"], limited["frozen"]) == ("PEER_FLOOD", False)
        assert (await site.command("retry", "support-bot")).code == 0
        accounts = await daemon.state("online")
        assert accounts["support-bot"]["limited"] is None
        stats = (await site.command("stats", "--json")).json()
        assert stats["errors_by_type_7d"]["rate_limit"] >= 1


async def test_stats_agree_with_the_log(site: Site) -> None:
    """What `log` shows one by one, `stats` has counted."""
    bot = site.bot("support-bot")
    async with site.online() as daemon:
        for _ in range(2):
            assert site.dc.reset_links(bot) == 1
            await asyncio.sleep(1.0)
            await daemon.state("online")
        rows = await site.log()
        stats = (await site.command("stats", "--json")).json()
    recovered = [row["duration_s"] for row in rows if row["outcome"] == "recovered"]
    assert stats["incidents"]["recovered"] == len(recovered) == 2
    assert stats["success_rate"] == 1.0
    assert stats["time_to_recover_s"]["max"] == pytest.approx(max(recovered), abs=0.001)
    assert stats["by_kind"]["connection"]["recovered"] == 2
    assert stats["by_action"]["reconnect"]["succeeded"] == 2
    assert stats["last_24h"] == len(rows) - 2
