"""A daemon whose accounts have failed: it stays up, says so, and does not hammer Telegram."""

from __future__ import annotations

import asyncio

from supervisor.datacenter import Datacenter
from tests.acceptance.conftest import SENDER, Site


async def test_a_daemon_stays_up_when_all_have_failed(dc: Datacenter, site: Site) -> None:
    """With nothing but dead tokens the daemon runs on and says `failed`, after at most two sign-ins each."""
    bots = [site.bot(f"bot-{n}") for n in range(3)]
    for bot in bots:
        dc.kill_token(bot)
    site.write()
    daemon = site.run()
    accounts = await daemon.state("failed")
    await asyncio.sleep(3)
    assert daemon.is_running
    accounts = await daemon.state("failed")
    for account in accounts.values():
        assert account["last_failure"]["error_id"] == "ACCESS_TOKEN_EXPIRED"
        assert account["last_failure"]["kind"] == "auth"
        assert account["retry_at"] is None
    assert dc.seen.count("auth.ImportBotAuthorization") <= 2 * len(bots)
    ended = await site.command("status")
    assert ended.code == 0
    assert "3 accounts: 3 failed" in ended.out
    assert [row["outcome"] for row in await site.log("--unresolved")] == ["failed"] * 3
    await daemon.stop()


async def test_a_dead_token_harms_no_other(dc: Datacenter, site: Site) -> None:
    """A bot whose token is replaced while it is online fails after at most two sign-ins; the others send on."""
    site.code("sender", SENDER)
    for n in range(3):
        site.bot(f"bot-{n}", main="sender:main")
    async with site.online() as daemon:
        await asyncio.sleep(1)
        dead = site.bots["bot-0"]
        connections, sign_ins = len(dc.seen.connections), dc.seen.count("auth.ImportBotAuthorization")
        dc.kill_token(dead)
        accounts = await daemon.state("failed", "bot-0")
        await asyncio.sleep(2)
        accounts = await daemon.accounts()
        assert [account["state"] for account in accounts.values()] == ["failed", "online", "online"]
        assert 1 <= dc.seen.count("auth.ImportBotAuthorization") - sign_ins <= 2
        assert len(dc.seen.connections) - connections <= 2
        rows = await site.log()
        assert {row["account"] for row in rows} == {"bot-0"}
        assert rows[-1]["outcome"] == "failed"
        sent = {name: len(dc.seen.sends[bot.user_id]) for name, bot in site.bots.items()}
        await asyncio.sleep(0.5)
        grown = {name: len(dc.seen.sends[bot.user_id]) > sent[name] for name, bot in site.bots.items()}
        assert grown == {"bot-0": False, "bot-1": True, "bot-2": True}


async def test_a_person_is_needed_for_a_person(dc: Datacenter, site: Site) -> None:
    """A user account without a session needs a login: it says so, and nothing is asked of Telegram."""
    site.accounts["person"] = {"phone": "+4915112345678"}
    site.write()
    daemon = site.run()
    accounts = await daemon.state("needs_login")
    assert "tg-supervisor login person" in accounts["person"]["last_failure"]["message"]
    await asyncio.sleep(1)
    assert not dc.seen.connections
    await daemon.stop()
