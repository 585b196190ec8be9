"""Notifications of a whole supervisor against the local datacenter: by one of its own bots, and about its own record."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from supervisor.config.model import Secret, Sink
from tests.integration.conftest import PERSON, Fleet, until
from tests.listener import Listener

NewFleet = Callable[..., Fleet]


def notify(fleet: Fleet, *sinks: Sink) -> None:
    fleet.config = replace(fleet.config, notify={sink.name: sink for sink in sinks})


async def test_a_bot_of_the_pool_tells_of_another(fleet: NewFleet) -> None:
    """The first of them that is online sends it, to a chat that knows it; a frozen account, and a refused token."""
    three = fleet(3, prove_every=1)
    notify(three, Sink("own", bots=("bot-0", "bot-1"), chat=str(PERSON)))
    async with three.running() as sup:
        dc, (first, second, third) = three.dc, three.bots
        assert await sup.try_sink("own") is None
        (trial,) = dc.seen.sends[first.user_id]
        assert "A test of tg-supervisor's notifications" in trial.text
        dc.kill_token(first)
        await until(lambda: three.state("bot-0") == "failed")
        await until(lambda: dc.seen.sends[second.user_id], what="bot-1 tells")
        (said,) = dc.seen.sends[second.user_id]
        assert said.text.startswith("[fatal] bot-0: Telegram refuses the bot's token.")
        assert "What to do: " in said.text
        assert str(first.token).partition(":")[2] not in said.text
        dc.kill_token(second)
        await until(lambda: three.state("bot-1") == "failed")
        assert await sup.try_sink("own") == "bot-0 and bot-1 are not online"
        assert not dc.seen.sends[third.user_id]


async def test_a_record_that_cannot_be_written_is_told_and_that_it_is_again(fleet: NewFleet) -> None:
    """Somebody holds the database; the accounts are not concerned."""
    one = fleet(1)
    async with Listener() as hook:
        notify(one, Sink("ops", url=Secret(hook.url)))
        async with one.running() as sup:
            holder = sqlite3.connect(one.config.settings.state_dir / "recovery.db", isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            await sup.handle_error("bot-0", ValueError("something to write down"))
            await until(lambda: _codes(hook) == [[5001], [2009]], 30, lambda: str(_codes(hook)))
            assert one.state() == "online"
            holder.execute("ROLLBACK")
            holder.close()
            await until(lambda: len(hook.bodies) == 3, 15)
    over: dict[str, Any] = hook.bodies[2]
    assert (over["codes"], over["resolved"]) == ([2009], True)
    assert "the recovery log is written again" in over["text"]


def _codes(hook: Listener) -> list[list[int]]:
    return [body["codes"] for body in hook.bodies]
