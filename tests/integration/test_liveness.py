"""`online` is the truth: what is silent, revoked or no longer pushed to is found out, and our own stalls are our own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from pyrogram.handlers import MessageHandler

from supervisor.config.model import Secret, Server
from supervisor.datacenter import Datacenter
from tests.datacenter.process import Process
from tests.integration.conftest import Fleet, until
from tests.integration.watch import one_incident, peak_connects, watched

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def quick(dc: Datacenter) -> None:
    """Nothing here is about latency."""
    dc.latency = 0.0


@pytest.fixture
async def elsewhere() -> AsyncIterator[Process]:
    """A datacenter in a process of its own: it does not stand still with our loop."""
    async with Process.running("--bots", "2", "--latency", "0.02") as running:
        yield running


def there(bots: Fleet, elsewhere: Process) -> None:
    """Configure the fleet for the other process's datacenter."""
    ready = elsewhere.ready
    server = Server(ready["host"], ready["port"], ready["dc_id"], ready["public_key_pem"])
    bots.config = replace(bots.config, telegram=replace(bots.config.telegram, server=server))
    for name, bot in zip(bots.names, ready["bots"], strict=True):
        bots.change(name, bot_token=Secret(bot["token"]))


# --- Our own stalls -------------------------------------------------------------------------------------


async def test_a_loop_that_stands_still_for_15_s_costs_no_link(
    fleet: Callable[..., Fleet], elsewhere: Process
) -> None:
    """`time.sleep(15)` in a handler: no reconnect, no call fails, and one record that names it and its account."""
    bots = fleet(2)
    there(bots, elsewhere)
    person = elsewhere.ready["person"]
    async with bots.running() as sup:
        client, other = await sup.client("bot-0"), await sup.client("bot-1")
        answered: list[str] = []

        async def blocks(_client: Any, _message: Any) -> None:
            time.sleep(15)

        async def sends() -> None:
            for n in range(12):
                answered.append((await other.send_message(person, f"{n}")).text)
                await asyncio.sleep(0.05)

        client.add_handler(MessageHandler(blocks))
        await client.send_message(person, "before")
        connections = len(await elsewhere.done("connections"))
        sending = asyncio.create_task(sends())
        await until(lambda: len(answered) > 3)
        begun = time.monotonic()
        await elsewhere.done("push", account=elsewhere.ready["bots"][0]["user_id"], text="block")
        await sending
        assert time.monotonic() - begun > 15
        await client.send_message(person, "after")
        await asyncio.sleep(1.5)
        assert [bots.state(name) for name in bots.names] == ["online"] * 2
        assert answered == [str(n) for n in range(12)]
        assert len(await elsewhere.done("connections")) == connections
        (row,) = await bots.rows(stalls=True)
    line = blocks.__code__.co_firstlineno + 1
    assert row["message"].startswith(
        ("the event loop stood still for 14.", "the event loop stood still for 15.")
    )
    assert f"{__file__}:{line} in " in row["message"]
    assert row["message"].endswith(".blocks (handlers of bot-0)")
    assert row["cause"][-1].endswith(".blocks")
    assert (row["scope"], row["account"], row["kind"], row["outcome"], row["incident"]) == (
        "fleet",
        None,
        "unknown",
        "raised",
        None,
    )


async def test_starting_and_stopping_is_no_stall(dc: Datacenter, fleet: Callable[..., Fleet]) -> None:
    """The library's import is over before stalls are looked for; the watch gives its thread and timer back."""
    async with watched(iteration=0.5):
        bots = fleet(2)
        async with bots.running():
            await asyncio.sleep(0.3)
        assert await bots.rows() == []


# --- An idle link ---------------------------------------------------------------------------------------


async def test_an_idle_link_costs_one_small_ping_a_window(
    dc: Datacenter, fleet: Callable[..., Fleet]
) -> None:
    """Nothing else is sent over it: no query, no connection; and its account stays online."""
    bots = fleet(1, silence_timeout=1.0)
    async with bots.running():
        await asyncio.sleep(0.5)
        pings, calls, connections = dc.seen.pings, dict(dc.seen.calls), len(dc.seen.connections)
        await asyncio.sleep(2.0)
        assert 3 <= dc.seen.pings - pings <= 6  # one each 0.4 s
        assert dict(dc.seen.calls) == calls
        assert len(dc.seen.connections) == connections
        assert bots.state() == "online"
        assert await bots.rows() == []


@pytest.mark.parametrize(
    ("error", "code"),
    [("SESSION_REVOKED", 401), ("AUTH_KEY_UNREGISTERED", 401), ("AUTH_KEY_DUPLICATED", 406)],
)
async def test_a_key_that_is_lost_while_idle_is_found_out(
    dc: Datacenter, fleet: Callable[..., Fleet], error: str, code: int
) -> None:
    """Nobody calls, nothing is pushed: one GetState finds it, one sign-in mends it, and the row names it."""
    bots = fleet(1, prove_every=0.5)
    async with bots.running() as sup:
        bot, client = bots.bots[0], await sup.client("bot-0")
        await until(lambda: client.is_initialized, 5, "it has done what it does when it is online")
        await until(lambda: dc.seen.count("updates.GetState") > 1, 5, "the first proof")
        begun = time.monotonic()
        dc.revoke(bot, error, code)
        await until(lambda: dc.seen.sign_ins[bot.user_id] == 2, 6, "it signs in again")
        await until(lambda: bots.state() == "online", 4)
        rows = await bots.rows()
        assert peak_connects(dc, begun) <= 3
    assert {row["error_id"] for row in rows} == {error}
    assert {row["kind"] for row in one_incident(rows)} == {"auth"}
    assert rows[-1]["outcome"] == "recovered"


async def test_an_unknown_key_is_found_out_while_idle(dc: Datacenter, fleet: Callable[..., Fleet]) -> None:
    """The next small ping meets -404; at the third in a row the bot signs in again."""
    bots = fleet(1, silence_timeout=1.0)
    async with bots.running():
        bot = bots.bots[0]
        dc.forget_keys(bot)
        await until(lambda: dc.seen.sign_ins[bot.user_id] == 2, 15, "it signs in again")
        await until(lambda: bots.state() == "online", 4)
        rows = await bots.rows()
    assert "-404" in rows[0]["message"]
    assert [row["outcome"] for row in one_incident(rows)][-1] == "recovered"


# --- Updates that stop ----------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "calling"])
async def test_updates_that_stop_are_fetched_and_told_once(
    dc: Datacenter, fleet: Callable[..., Fleet], busy: bool
) -> None:
    """The link lives and nothing is pushed: each message reaches its handler all the same, once; one row says so."""
    bots = fleet(1, prove_every=0.5)
    seen: list[str] = []
    async with bots.running() as sup:
        client = await sup.client("bot-0")

        async def note(_client: Any, message: Any) -> None:
            seen.append(message.text)

        client.add_handler(MessageHandler(note))
        bot = bots.bots[0]
        dc.push_message(bot, "pushed", from_user=777)
        await until(lambda: seen == ["pushed"], 5)

        async def call() -> None:
            while busy:
                await client.get_me()
                await asyncio.sleep(0.2)

        calling = asyncio.create_task(call())
        dc.stop_updates(bot)
        for n in range(3):
            dc.push_message(bot, f"lost {n}", from_user=777)
            await until(lambda n=n: f"lost {n}" in seen, 5)  # type: ignore[misc]
        dc.resume_updates(bot)
        dc.push_message(bot, "pushed again", from_user=777)
        await until(lambda: "pushed again" in seen, 5)
        calling.cancel()
        assert bots.state() == "online"
        rows = await bots.rows()
    assert seen == ["pushed", "lost 0", "lost 1", "lost 2", "pushed again"]
    assert [(row["error_id"], row["kind"], row["outcome"], row["account"]) for row in rows] == [
        ("UPDATES_STOPPED", "temporary", "raised", "bot-0")
    ]
