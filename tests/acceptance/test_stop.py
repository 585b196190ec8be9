"""SIGTERM: exit code 0 within 10 s, whatever is going on, and nothing left behind."""

from __future__ import annotations

import asyncio
import re
import signal
import time

import pytest

from supervisor.datacenter import Datacenter, Fault, FaultKind
from tests.acceptance.conftest import SENDER, MuteProxy, Process, Site, closed_port, until

pytestmark = pytest.mark.timeout(90)

DEAF = """
import asyncio
async def main(client):
    await client.send_message(777, "main runs")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
"""
DEAF_HANDLERS = """
import asyncio
from pyrogram import Client
@Client.on_message()
async def deaf(client, message):
    await client.send_message(777, "handler runs")
    while True:
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            pass
"""
BLOCKING_HANDLERS = """
import time
from pathlib import Path
from pyrogram import Client
@Client.on_message()
def blocks(client, message):
    Path(__file__).with_name("blocks").touch()
    time.sleep(120)
"""
BLOCKING_MAIN = """
import time
async def main(client):
    await client.send_message(777, "main runs")
    time.sleep(120)
"""


async def test_online_and_under_load(dc: Datacenter, site: Site) -> None:
    """Twenty bots that send all the time are stopped cleanly, in one go, and say that they stopped."""
    site.code("sender", SENDER)
    for n in range(20):
        site.bot(f"bot-{n}", main="sender:main")
    site.write()
    daemon = site.run()
    await daemon.state("online")
    await asyncio.sleep(1)
    await daemon.stop()
    assert not any(number > 1 for number in dc.seen.delivered.values())
    status = await site.command("status", "--json")
    assert {account["state"] for account in status.json()["accounts"]} == {"stopped"}
    assert dc.seen.open_connections == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_twice_is_no_worse_than_once(site: Site, number: signal.Signals) -> None:
    """A second signal, a moment after the first, changes nothing: exit code 0, no traceback."""
    site.bot("bot-0")
    site.write()
    daemon = site.run()
    await daemon.state("online")
    for _ in range(2):
        daemon.signal(number)
        await asyncio.sleep(0.05)
    assert await daemon.ended(10) == 0
    daemon.left_nothing()


async def test_while_the_server_is_away(dc: Datacenter, site: Site) -> None:
    """During an outage, with calls held, a daemon stops as well; the incident stays open in the log."""
    site.code("sender", SENDER)
    site.bot("bot-0", main="sender:main")
    site.write()
    daemon = site.run()
    await daemon.state("online")
    await dc.go_away()
    await daemon.state("recovering")
    await asyncio.sleep(1.5)
    await daemon.stop()
    assert (await site.log())[-1]["outcome"] == "retrying"


async def test_while_the_server_is_silent(dc: Datacenter, site: Site) -> None:
    """While nothing is answered any more, a daemon with calls in flight stops as well."""
    site.code("sender", SENDER)
    site.bot("bot-0", main="sender:main")
    site.write()
    daemon = site.run()
    await daemon.state("online")
    dc.silent()
    await asyncio.sleep(2)
    await daemon.stop()


async def _stopped_after(site: Site, seconds: float) -> Process:
    daemon = site.run()
    await asyncio.sleep(seconds)
    await daemon.stop()
    return daemon


@pytest.mark.parametrize("seconds", [0.5, 0.6, 0.8, 1.0, 1.5, 2.0])
async def test_while_starting(site: Site, seconds: float) -> None:
    """So long after its start, imports and sign-ins included, a daemon ends with 0 as when it is online."""
    site.bot("bot-0")
    site.write()
    await _stopped_after(site, seconds)


async def test_as_soon_as_it_says_anything(dc: Datacenter, site: Site) -> None:
    """From its first trace on the disk on, before anything slow is imported, SIGTERM ends it with 0."""
    site.bot("bot-0")
    site.write()
    for _ in range(5):
        daemon = site.run()
        await until((site.state_dir / "logs").exists, 10, "the log folder")
        await daemon.stop()
        (site.state_dir / "logs" / "supervisor.log").unlink(missing_ok=True)
        (site.state_dir / "logs" / "errors.log").unlink(missing_ok=True)
        (site.state_dir / "logs").rmdir()


async def test_sighup_while_starting_is_no_end(site: Site) -> None:
    """SIGHUP at any moment of its start leaves a daemon running: it comes online."""
    site.bot("bot-0")
    site.write()
    daemon = site.run()
    await until((site.state_dir / "logs").exists, 10, "the log folder")
    for _ in range(40):
        daemon.signal(signal.SIGHUP)
        await asyncio.sleep(0.025)
    await daemon.state("online")
    await daemon.stop()


async def test_while_a_proxy_hangs(site: Site) -> None:
    """While a proxy hangs in its handshake, and while another one refuses, a daemon stops as well."""
    async with MuteProxy() as mute:
        site.proxies = {
            "mute": f"socks5://127.0.0.1:{mute.port}",
            "mute-http": f"http://127.0.0.1:{mute.port}",
            "closed": f"socks5://127.0.0.1:{closed_port()}",
        }
        for name in site.proxies:
            site.bot(f"bot-{name}", proxy=name)
        site.write()
        daemon = site.run()
        await until(lambda: mute.accepted >= 2, 20, "the proxy is dialled")
        await asyncio.sleep(0.5)
        await daemon.stop()
    assert not site.dc.seen.connections


async def test_while_the_sign_in_is_unanswered(dc: Datacenter, site: Site) -> None:
    """While a sign-in waits for its answer, a daemon stops as well."""
    site.bot("bot-0")
    site.write()
    dc.faults.add(Fault(FaultKind.SILENCE, None, "auth.ImportBotAuthorization", count=None))
    daemon = site.run()
    await until(lambda: dc.seen.count("auth.ImportBotAuthorization"), 20, "the sign-in")
    await daemon.stop()


async def test_while_a_flood_wait_runs(dc: Datacenter, site: Site) -> None:
    """While a call waits out FLOOD_WAIT_60, a daemon stops as well; the wait is not worked around."""
    site.code("sender", SENDER)
    bot = site.bot("bot-0", main="sender:main")
    site.write()
    dc.faults.add(
        Fault(FaultKind.RPC_ERROR, bot.user_id, "messages.SendMessage", code=420, error="FLOOD_WAIT_60")
    )
    daemon = site.run()
    await until(lambda: dc.seen.faults, 25, "the wait is demanded")
    await asyncio.sleep(0.5)
    await daemon.stop()
    assert not dc.seen.early_calls


async def test_a_main_that_refuses_to_be_cancelled(dc: Datacenter, site: Site) -> None:
    """A `main` that swallows its cancellation cannot keep the daemon from stopping, nor the account from being saved."""
    site.code("deaf", DEAF)
    site.bot("bot-0", main="deaf:main")
    site.bot("bot-1")
    site.write()
    daemon = site.run()
    await until(lambda: dc.seen.times_delivered("main runs"), 25, "main runs")
    await daemon.stop()
    status = await site.command("status", "--json")
    assert {account["state"] for account in status.json()["accounts"]} == {"stopped"}


async def test_a_handler_that_refuses_to_be_cancelled(dc: Datacenter, site: Site) -> None:
    """A handler that swallows its cancellation cannot keep the daemon from stopping."""
    site.code("bots/deaf/handlers", DEAF_HANDLERS)
    bot = site.bot("bot-0", plugins="bots/deaf")
    site.write()
    daemon = site.run()
    await daemon.state("online")
    await asyncio.sleep(0.5)
    dc.push_message(bot, "hello", from_user=777)
    await until(lambda: dc.seen.times_delivered("handler runs"), 10, "the handler runs")
    await daemon.stop()


async def test_a_handler_that_blocks_its_thread(dc: Datacenter, site: Site) -> None:
    """A synchronous handler that blocks its thread for minutes cannot keep the daemon from stopping."""
    site.code("bots/blocking/handlers", BLOCKING_HANDLERS)
    bot = site.bot("bot-0", plugins="bots/blocking")
    site.write()
    daemon = site.run()
    await daemon.state("online")
    await asyncio.sleep(0.5)
    dc.push_message(bot, "hello", from_user=777)
    await until((site.etc / "bots" / "blocking" / "blocks").exists, 10, "the handler runs")
    await daemon.stop()


async def test_a_main_that_blocks_the_loop(dc: Datacenter, site: Site) -> None:
    """A `main` that blocks the event loop for minutes cannot keep the daemon from ending in time, with 0."""
    site.code("blocking", BLOCKING_MAIN)
    site.bot("bot-0", main="blocking:main")
    site.write()
    daemon = site.run()
    await until(lambda: dc.seen.times_delivered("main runs"), 25, "main runs")
    await asyncio.sleep(0.3)
    begun = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert await daemon.ended(10) == 0
    assert time.monotonic() - begun < 10
    assert re.search(r"without waiting any longer for \S+/blocking\.py:\d+ in main", daemon.err), daemon.err


async def test_with_accounts_in_every_state(dc: Datacenter, site: Site) -> None:
    """With accounts online, failed, in need of a login and behind a dead proxy, a daemon stops as well."""
    site.proxies = {"closed": f"socks5://127.0.0.1:{closed_port()}"}
    site.bot("good")
    dc.kill_token(site.bot("dead"))
    site.bot("behind", proxy="closed")
    site.accounts["person"] = {"phone": "+4915112345678"}
    site.write()
    daemon = site.run()
    await daemon.state("online", "good")
    await daemon.state("failed", "dead")
    await daemon.state("needs_login", "person")
    await daemon.stop()
