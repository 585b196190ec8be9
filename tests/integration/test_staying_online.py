"""Bots stay online and their calls are answered, whatever happens to their links."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyrogram import raw
from pyrogram.errors import PeerIdInvalid

from supervisor.datacenter import Datacenter, Fault, FaultKind

pytestmark = [pytest.mark.timeout(90), pytest.mark.alone]
MAIN = """
import asyncio, time
answered = {}
async def main(client):
    while True:
        begun = time.monotonic()
        for n in range(20):
            await client.send_message(777, f"{client.name} {begun} {n}")
            answered[client.name] = answered.get(client.name, 0) + 1
            await asyncio.sleep(0.05)
"""


def failed(calls: list[Any]) -> list[str]:
    return [f"{call.text}: {call.error!r}" for call in calls if call.error is not None]


def twice(dc: Datacenter) -> list[Any]:
    return [key for key, count in dc.seen.delivered.items() if count > 1]


async def test_five_bots_come_online_and_their_mains_are_answered(
    dc: Datacenter, fleet: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five bots are online within 15 s, and every send of their `main`s is answered."""
    (tmp_path / "fivebots.py").write_text(MAIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    bots = fleet(5)
    for name in bots.names:
        bots.change(name, main="fivebots:main")
    begun = time.monotonic()
    async with bots.running():
        assert time.monotonic() - begun < 15
        await asyncio.sleep(3)
        assert [bots.state(name) for name in bots.names] == ["online"] * 5
    fivebots = importlib.import_module("fivebots")

    for bot, name in zip(bots.bots, bots.names, strict=True):
        sent = len(dc.seen.sends[bot.user_id])
        assert sent >= 10
        assert fivebots.answered[name] >= sent - 1  # the last one was cut off by the stop
    assert not twice(dc)
    assert not dc.seen.unknown_methods


async def create_chats(bots: Any, client: Any, count: int, every: float) -> list[float]:
    took = []
    user = raw.types.InputUser(user_id=777, access_hash=bots.dc.access_hash(bots.bots[0], bots.person))

    async def one(n: int) -> None:
        begun = time.monotonic()
        await client.invoke(raw.functions.messages.CreateChat(users=[user], title=f"chat {n}"))
        took.append(time.monotonic() - begun)

    async with asyncio.TaskGroup() as group:
        for n in range(count):
            group.create_task(one(n))
            await asyncio.sleep(every)
    return took


async def test_five_resets_cost_no_call_and_double_none(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """Through five resets in 4 s no call fails, none takes effect twice, the slowest takes at most 1 s."""
    bots = fleet(1)
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        load = asyncio.create_task(bots.load(5, 0.05))
        chats = asyncio.create_task(create_chats(bots, client, 25, 0.2))
        for _ in range(5):
            await asyncio.sleep(0.8)
            dc.reset_links()
        calls, took = await load, await chats
        assert not failed(calls)
        assert len(calls) >= 90
        assert max(call.took for call in calls) <= 1.0
        assert max(took) <= 1.0
        assert not twice(dc)
        created = [effect.what for effect in dc.seen.effects[bots.bots[0].user_id]]
        assert len(created) == len(set(created)) == 25
        rows = await bots.rows()
    assert [row["outcome"] for row in rows].count("recovered") == 5
    assert {row["kind"] for row in rows} == {"connection"}
    assert all("reset" in row["message"] for row in rows)
    assert dc.seen.max_connections_per_key == 1


@pytest.mark.parametrize("seconds", [5, 20])
async def test_an_outage_holds_calls_and_loses_none(
    dc: Datacenter, fleet: Callable[..., Any], seconds: int
) -> None:
    """Through an outage no call fails; the first held one is answered within 2 s of its end, the last within 6, in order."""
    bots = fleet(1)
    async with bots.running():
        load = asyncio.create_task(bots.load(seconds + 3, 0.2))
        await asyncio.sleep(1)
        connections = len(dc.seen.connections)
        await dc.go_away()
        await asyncio.sleep(seconds / 2)
        assert bots.state() == "recovering"
        assert bots.sup.status()["paths"][0]["state"] == "broken"
        await asyncio.sleep(seconds / 2)
        await dc.come_back()
        end = time.monotonic()
        calls = await load
        assert not failed(calls)
        answered = sorted((call.at + call.took, call.at) for call in calls)
        held = [made for done, made in answered if made < end < done]
        assert len(held) >= seconds * 4
        ends = [done - end for done, made in answered if made < end < done]
        assert min(ends) <= 2.0
        assert max(ends) <= 6.0
        assert held == sorted(held)
        assert not twice(dc)
        assert bots.state() == "online"
        rows = await bots.rows()
    assert len(dc.seen.connections) - connections <= 4
    assert {row["incident"] for row in rows} == {rows[0]["incident"]}
    assert any("connection refused" in row["message"] for row in rows)


async def test_a_silent_server_fails_no_call(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """Through 8 s of silence no call fails and the slowest takes at most 10.5 s."""
    bots = fleet(1)
    async with bots.running():
        load = asyncio.create_task(bots.load(10, 0.05))
        await asyncio.sleep(1)
        dc.silent()
        await asyncio.sleep(8)
        dc.speak()
        calls = await load
        assert not failed(calls)
        assert max(call.took for call in calls) <= 10.5
        assert not twice(dc)


async def test_a_silent_idle_link_is_found_out(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """A link over which nothing comes any more is not called online for more than 10 s."""
    bots = fleet(1)
    async with bots.running():
        await asyncio.sleep(1.5)
        dc.silent(swallow=True)
        begun = time.monotonic()
        while bots.state() == "online":
            assert time.monotonic() - begun <= 10.0
            await asyncio.sleep(0.05)
        rows = await bots.rows()
        assert "nothing came from the link" in rows[0]["message"]


async def test_flood_waits_are_honoured(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """FLOOD_WAIT_3 is waited out and answered; nothing of that method to that peer leaves early; no incident."""
    bots = fleet(1)
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        await client.send_message(777, "before")
        bot = bots.bots[0].user_id
        dc.faults.add(Fault(FaultKind.RPC_ERROR, bot, "messages.SendMessage", code=420, error="FLOOD_WAIT_3"))
        begun = time.monotonic()
        calls = await bots.load(2, 0.2)
        assert not failed(calls)
        assert 3.0 <= min(call.at + call.took for call in calls) - begun <= 4.5
        assert not dc.seen.early_calls
        assert bots.state() == "online"
        assert bots.account()["incident"] is None
        rows = await bots.rows()
    assert [row["outcome"] for row in rows] == ["retrying", "recovered"]
    assert (rows[0]["kind"], rows[0]["error_id"], rows[0]["action"]) == ("flood_wait", "FLOOD_WAIT_X", "wait")


async def test_a_callers_mistake_is_the_callers(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """PEER_ID_INVALID reaches its caller at once; the account stays online and has no incident."""
    bots = fleet(1)
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        bot = bots.bots[0].user_id
        await client.send_message(777, "fine")
        dc.faults.add(
            Fault(FaultKind.RPC_ERROR, bot, "messages.SendMessage", code=400, error="PEER_ID_INVALID")
        )
        with pytest.raises(PeerIdInvalid):
            await client.send_message(777, "wrong")
        assert bots.state() == "online"
        rows = await bots.rows()
    assert [(row["outcome"], row["incident"], row["kind"]) for row in rows] == [("raised", None, "permanent")]


async def test_a_call_whose_answer_is_lost_is_done_once(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """A call that took effect and whose answer was lost is answered without being done again."""
    bots = fleet(1)
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        await client.send_message(777, "first")
        load = asyncio.create_task(bots.load(1.5, 0.05))
        await asyncio.sleep(0.5)
        dc.faults.add(Fault(FaultKind.DROP_AFTER, bots.bots[0].user_id, "messages.SendMessage"))
        begun = time.monotonic()
        message = await client.send_message(777, "once")
        assert time.monotonic() - begun <= 2.0
        assert message.text == "once"
        calls = await load
    assert not failed(calls)
    assert max(call.took for call in calls) <= 2.0
    assert set(dc.seen.delivered.values()) == {1}
    assert dc.seen.times_delivered("once") == 1


async def test_a_pushed_message_reaches_a_handler(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """A handler sees a message pushed to its bot, before a reset and after it."""
    bots = fleet(1)
    seen: list[str] = []
    async with bots.running() as sup:
        client = await sup.client("bot-0")

        @client.on_message()  # type: ignore[untyped-decorator,unused-ignore] # typed in one of the libraries
        async def note(_client: Any, message: Any) -> None:
            seen.append(message.text)

        await asyncio.sleep(0.5)
        dc.push_message(bots.bots[0], "one", from_user=777)
        await asyncio.sleep(1)
        dc.reset_links()
        await asyncio.sleep(1)
        dc.push_message(bots.bots[0], "two", from_user=777)
        await asyncio.sleep(1)
    assert seen == ["one", "two"]


async def test_a_message_delivered_in_a_lost_session_is_found(
    dc: Datacenter, fleet: Callable[..., Any]
) -> None:
    """Its answer lost, its session forgotten: the repeat is refused as a duplicate, and the caller gets the message."""
    bots = fleet(1)
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        await client.send_message(777, "first")
        dc.faults.add(Fault(FaultKind.SILENCE, bots.bots[0].user_id, "messages.SendMessage"))
        call = asyncio.create_task(client.send_message(777, "in a lost session"))
        await asyncio.sleep(0.3)
        dc.forget_sessions()
        dc.reset_links()
        message = await asyncio.wait_for(call, 10)
        assert message.text == "in a lost session"
        assert dc.seen.times_delivered("in a lost session") == 1
        assert sum(dc.seen.duplicates.values()) == 1
