"""What an account keeps through a reload, and what its callers are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pyrogram import raw

from supervisor import reload
from supervisor.config.model import Config
from supervisor.datacenter import Datacenter
from supervisor.errors import AccountUnavailable, OutcomeUnknown
from tests.integration.conftest import PERSON, Fleet
from tests.integration.watch import watched


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fleet], None]:
    """Let the supervisor find this fleet's configuration in its file."""

    def put(bots: Fleet) -> None:
        async def read(_path: Path, _env: Mapping[str, str]) -> Config:
            return bots.config

        monkeypatch.setattr(reload, "_read", read)

    return put


async def test_a_replaced_account_keeps_its_session_its_pause_and_its_budget(
    dc: Datacenter, fleet: Callable[..., Fleet], edit: Callable[[Fleet], None]
) -> None:
    """Its old link is closed before the new one opens; the paused one stays paused; nobody signs in again.

    A client of before is of no more use and says so, the next one works. Nothing of the old self is left behind.
    """
    async with watched():
        bots = fleet(3)
        async with bots.running() as sup:
            client = await sup.client("bot-0")
            await sup.pause(["bot-1"])
            bots.config = replace(bots.config, settings=replace(bots.config.settings, call_timeout=20.0))
            edit(bots)
            done = await sup.reload()
            assert done.replaced == ("bot-0", "bot-1", "bot-2")
            for name in ("bot-0", "bot-2"):
                await sup.client(name)
            assert (bots.state("bot-1"), sup.config.settings.call_timeout) == ("paused", 20.0)
            with pytest.raises(ConnectionError):  # the library's own word for a client that is over
                await client.send_message(PERSON, "too late")
            assert (await (await sup.client("bot-0")).send_message(PERSON, "in time")).text == "in time"
            await sup.resume(["bot-1"])
            await sup.client("bot-1")
            # Taken out and put back in: what it has used up is not forgotten.
            whole = bots.config
            bots.config = replace(whole, accounts={n: whole.accounts[n] for n in ("bot-0", "bot-2")})
            assert (await sup.reload()).removed == ("bot-1",)
            bots.config = whole
            assert (await sup.reload()).added == ("bot-1",)
            await sup.client("bot-1")
            assert len(sup._assembly._accounts["bot-1"].left().sign_ins) == 1
    assert [dc.seen.sign_ins[bot.user_id] for bot in bots.bots] == [1, 1, 1]
    assert dc.seen.max_connections_per_key == 1


async def test_calls_under_way_end_with_what_is_known_of_them(
    dc: Datacenter, fleet: Callable[..., Fleet], edit: Callable[[Fleet], None]
) -> None:
    """One that repeating would do twice: OutcomeUnknown; any other: AccountUnavailable. None hangs."""
    bots = fleet(1)
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        user = raw.types.InputUser(user_id=777, access_hash=dc.access_hash(bots.bots[0], bots.person))
        slow = [
            asyncio.create_task(client.send_message(PERSON, "hello")),
            asyncio.create_task(
                client.invoke(raw.functions.messages.CreateChat(users=[user], title="a chat"))
            ),
        ]
        await asyncio.sleep(0.02)
        bots.change("bot-0", client={"workers": 2})
        edit(bots)
        assert (await sup.reload()).replaced == ("bot-0",)
        hello, chat = await asyncio.gather(*slow, return_exceptions=True)
        assert isinstance(hello, AccountUnavailable)
        assert isinstance(chat, OutcomeUnknown)


async def test_a_wait_that_telegram_demands_outlives_the_replacement(
    dc: Datacenter, fleet: Callable[..., Fleet], edit: Callable[[Fleet], None]
) -> None:
    """And a new name: nothing of that method leaves before it is over."""
    bots = fleet(1)
    async with bots.running() as sup:
        await sup._assembly._gates["bot-0"].keep_flood("messages.SendMessage", None, 3.0)
        begun = asyncio.get_running_loop().time()
        account = bots.config.accounts["bot-0"]
        bots.config = replace(bots.config, accounts={"boss": replace(account, name="boss")})
        edit(bots)
        assert (await sup.reload()).renamed == {"boss": "bot-0"}
        saved = await sup._store.saved()  # as a restart would find it
        assert ("boss", "messages.SendMessage") in {(row.account, row.method) for row in saved.floods}
        assert [row.account for row in saved.sign_ins].count("boss") == 1
        await (await sup.client("boss")).send_message(PERSON, "late")
        assert asyncio.get_running_loop().time() - begun >= 3.0
    assert dc.seen.sign_ins[bots.bots[0].user_id] == 1
