"""Errors that Telegram answers: waited out, sent again under our caps, or handed to the caller."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyrogram.errors import InternalServerError

from supervisor.config.model import Account, Config, Secret, Server, Settings, Telegram
from supervisor.daemon import Supervisor
from supervisor.datacenter import Datacenter, Fault, FaultKind

pytestmark = pytest.mark.timeout(90)
METHOD = "messages.SendMessage"


async def test_a_longer_flood_wait(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """Under one send every 50 ms, FLOOD_WAIT_12 is answered within 13.5 s, and nothing of that method leaves early."""
    bots = fleet(1)
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        await client.send_message(777, "before")
        bot = bots.bots[0].user_id
        dc.faults.add(Fault(FaultKind.RPC_ERROR, bot, METHOD, code=420, error="FLOOD_WAIT_12"))
        calls = await bots.load(2, 0.05)
        assert not [call for call in calls if call.error is not None]
        assert 12.0 <= max(call.took for call in calls) <= 13.5
        assert not dc.seen.early_calls
        assert set(dc.seen.delivered.values()) == {1}
        assert bots.state() == "online"


@pytest.mark.parametrize(("code", "error"), [(500, "RPC_CALL_FAIL"), (-503, "Timeout")])
async def test_a_server_that_fails_twice(
    dc: Datacenter, fleet: Callable[..., Any], code: int, error: str
) -> None:
    """A call that meets two server errors is answered within 5 s, its attempts are in the log, done once."""
    bots = fleet(1)
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        await client.send_message(777, "before")
        dc.faults.add(
            Fault(FaultKind.RPC_ERROR, bots.bots[0].user_id, METHOD, count=2, code=code, error=error)
        )
        begun = time.monotonic()
        await client.send_message(777, "stubborn")
        assert time.monotonic() - begun <= 5.0
        assert dc.seen.times_delivered("stubborn") == 1
        rows = await bots.rows()
    assert [(row["outcome"], row["attempt"]) for row in rows] == [
        ("retrying", 1),
        ("retrying", 2),
        ("recovered", 2),
    ]
    assert {row["kind"] for row in rows} == {"temporary"}
    assert len({row["incident"] for row in rows}) == 1


async def test_a_server_that_always_fails(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """The caller gets the error after the cap of three; the account stays online, without an incident."""
    bots = fleet(1)
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        await client.send_message(777, "before")
        bot = bots.bots[0].user_id
        dc.faults.add(Fault(FaultKind.RPC_ERROR, bot, METHOD, count=None, code=500, error="RPC_CALL_FAIL"))
        with pytest.raises(InternalServerError):
            await client.send_message(777, "never")
        assert dc.seen.count(METHOD, bot) == 1 + 4
        assert (bots.state(), bots.account()["incident"]) == ("online", None)
        rows = await bots.rows()
    assert [row["outcome"] for row in rows] == ["retrying", "retrying", "retrying", "failed"]


@pytest.mark.timeout(120)
async def test_a_hundred_restarts_sign_nobody_in(tmp_path: Path) -> None:
    """A restart uses the session that is there: a hundred of them, and not one sign-in more."""
    token = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"
    async with Datacenter() as dc:
        bot = dc.add_bot(token)
        config = Config(
            path=tmp_path / "accounts.toml",
            telegram=Telegram(12345, Secret("a" * 32), Server(dc.host, dc.port, dc.dc_id, dc.public_key_pem)),
            settings=Settings(state_dir=tmp_path / "state"),
            accounts={"bot": Account("bot", bot_token=Secret(token))},
        )
        for _ in range(101):
            async with Supervisor(config) as sup:
                await sup.client("bot")
        assert dc.seen.sign_ins[bot.user_id] == 1
        assert dc.seen.key_exchanges == 1
        assert dc.seen.max_connections_per_key == 1
