"""What an account keeps through a reload, and what its callers are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pyrogram import raw

from supervisor import reload
from supervisor.config.footprint import Footprint
from supervisor.config.model import Config, Proxy
from supervisor.control.protocol import ControlError
from supervisor.datacenter import Datacenter
from supervisor.errors import AccountUnavailable, OutcomeUnknown
from tests.integration.conftest import PERSON, Fleet, ScriptedProxy, until
from tests.integration.watch import watched


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fleet], None]:
    """Let the supervisor find this fleet's configuration in its file."""

    def put(bots: Fleet) -> None:
        async def read(_path: Path, _env: Mapping[str, str], _footprint: Footprint) -> Config:
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
            for name in bots.names:
                bots.change(name, client={"workers": 2})
            edit(bots)
            done = await sup.reload()
            assert done.replaced == ("bot-0", "bot-1", "bot-2")
            for name in ("bot-0", "bot-2"):
                await sup.client(name)
            assert bots.state("bot-1") == "paused"
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


def proxied(fleet: Callable[..., Fleet], bots: int, proxies: dict[str, ScriptedProxy]) -> Fleet:
    return fleet(bots, proxies=tuple(socks(name, proxy) for name, proxy in proxies.items()))


def socks(name: str, proxy: ScriptedProxy) -> Proxy:
    return Proxy(name, "socks5", "127.0.0.1", proxy.port, pool="eu")


async def test_another_proxy_costs_no_call(
    dc: Datacenter,
    fleet: Callable[..., Fleet],
    edit: Callable[[Fleet], None],
    two_proxies: dict[str, ScriptedProxy],
) -> None:
    """Nor do other settings: under load, whatever is on its way is answered, also what may not be done twice.

    The client stays the same; the one whose proxy is as it was keeps its connection; nobody signs in.
    """
    async with watched():
        bots = proxied(fleet, 2, two_proxies)
        moves, stays = bots.names
        bots.change(moves, proxies=("de1",))
        bots.change(stays, proxies=("nl3",))
        async with bots.running() as sup:
            client, connected = await sup.client(moves), len(dc.seen.connections)
            user = raw.types.InputUser(user_id=777, access_hash=dc.access_hash(bots.bots[0], bots.person))
            loads = [asyncio.create_task(bots.load(2.0, 0.05, name, name)) for name in bots.names]
            chats = []
            for turn in range(3):
                await asyncio.sleep(0.3)
                create = raw.functions.messages.CreateChat(users=[user], title=f"chat {turn}")
                chats.append(asyncio.create_task(client.invoke(create)))
                await asyncio.sleep(0.02)
                bots.change(moves, proxies=(("nl3", "de1")[turn % 2],))
                settings = replace(bots.config.settings, call_timeout=30.0 + turn, answer_timeout=14.0 + turn)
                bots.config = replace(bots.config, settings=settings)
                edit(bots)
                done = await sup.reload()
                assert (done.adapted, done.replaced) == ((moves, stays), ())
            calls = [call for load in await asyncio.gather(*loads) for call in load]
            assert [call.error for call in calls if call.error is not None] == []
            assert len(await asyncio.gather(*chats)) == 3
            assert await sup.client(moves) is client
            assert bots.account(moves)["path"] == "nl3"
            assert len(dc.seen.connections) == connected + 3
            assert await bots.rows() == []
            assert client.session is not None
    sent = [message.text for bot in bots.bots for message in dc.seen.sends[bot.user_id]]
    assert sorted(sent) == sorted({call.text for call in calls})
    assert [dc.seen.sign_ins[bot.user_id] for bot in bots.bots] == [1, 1]
    assert dc.seen.max_connections_per_key == 1


async def test_a_proxy_that_is_elsewhere_now_is_gone_to(
    dc: Datacenter,
    fleet: Callable[..., Fleet],
    edit: Callable[[Fleet], None],
    two_proxies: dict[str, ScriptedProxy],
) -> None:
    """Under the same name; a paused account only when it is resumed. A proxy that is no longer there is not shown."""
    bots = proxied(fleet, 2, {"de1": two_proxies["de1"], "old": two_proxies["nl3"]})
    for name in bots.names:
        bots.change(name, proxies=("de1",))
    async with bots.running() as sup:
        await sup.pause(["bot-1"])
        await two_proxies["de1"].kill()
        await until(lambda: bots.state("bot-0") == "recovering")
        bots.config = replace(bots.config, proxies={"de1": socks("de1", two_proxies["nl3"])})
        edit(bots)
        await sup.reload()
        await (await sup.client("bot-0")).send_message(PERSON, "over the new one")
        assert two_proxies["nl3"].connections
        assert bots.state("bot-1") == "paused"
        await sup.resume(["bot-1"])
        await sup.client("bot-1")
        assert [path["name"] for path in sup.status()["paths"]] == ["de1"]
        last = (await bots.rows())[-1]
        assert (last["outcome"], last["action"]) == ("recovered", "rotate_proxy")


async def test_a_person_moves_accounts_to_another_proxy(
    dc: Datacenter, fleet: Callable[..., Fleet], two_proxies: dict[str, ScriptedProxy]
) -> None:
    """Under load no call is lost; to where is the least loaded that works, or the one that is named.

    Where there is none the account stays, and so does everybody else that was named; never is it direct.
    """
    async with watched():
        bots = proxied(fleet, 4, two_proxies)
        bots.change("bot-3", proxies=())
        async with bots.running() as sup:
            await sup.pause(["bot-2"])
            before = {name: bots.account(name)["path"] for name in bots.names}
            other = {"de1": "nl3", "nl3": "de1"}
            load = asyncio.create_task(bots.load(1.5, 0.05))
            await asyncio.sleep(0.3)
            moved = await sup.rotate(["bot-[012]"])
            assert {one["name"]: (one["before"], one["path"], one["changed"]) for one in moved} == {
                name: (before[name], other[before[name]], True) for name in bots.names[:3]
            }
            assert moved[2]["state"] == "paused"
            await sup.client("bot-0")
            assert (await sup.rotate(["bot-0"], before["bot-0"]))[0]["path"] == before["bot-0"]
            assert not (await sup.rotate(["bot-0"], before["bot-0"]))[0]["changed"]
            assert [call.error for call in await load if call.error is not None] == []
            assert await bots.rows() == []
            refusals = [
                (["bot-3"], None, "no_other_path", "there is no other proxy for it than direct"),
                (["bot-3"], "de1", "unknown_proxy", "bot-3 has no proxy configured"),
                (["bot-0"], "de2", "unknown_proxy", 'did you mean "de1"?'),
                (["bot-9"], None, "unknown_account", "bot-9"),
                (["*"], None, "no_other_path", "bot-3"),
            ]
            paths = {name: bots.account(name)["path"] for name in bots.names}
            for names, to, code, says in refusals:
                with pytest.raises(ControlError, match=says.replace("?", r"\?")) as refused:
                    await sup.rotate(names, to)
                assert refused.value.code == code
            assert {name: bots.account(name)["path"] for name in bots.names} == paths
    assert [dc.seen.sign_ins[bot.user_id] for bot in bots.bots] == [1, 1, 1, 1]
    assert dc.seen.max_connections_per_key == 1


async def test_nobody_is_moved_to_a_proxy_that_is_broken(
    fleet: Callable[..., Fleet], two_proxies: dict[str, ScriptedProxy]
) -> None:
    """It says so, and that another time it may go; whoever waits on the broken one can leave it by a person's word."""
    bots = proxied(fleet, 2, two_proxies)
    bots.change("bot-1", proxies=("nl3",))
    async with bots.running() as sup:
        assert (bots.account()["path"], bots.account("bot-1")["path"]) == ("de1", "nl3")
        await two_proxies["nl3"].kill()
        await until(lambda: {p["name"]: p["state"] for p in sup.status()["paths"]}["nl3"] == "broken")
        for to in (None, "nl3"):
            with pytest.raises(ControlError, match="nl3 is broken; it stays on de1") as refused:
                await sup.rotate(["bot-0"], to)
            assert (refused.value.code, refused.value.retryable) == ("no_other_path", True)
        assert (bots.account()["path"], bots.state()) == ("de1", "online")


async def test_a_wait_that_telegram_demands_outlives_the_replacement(
    dc: Datacenter, fleet: Callable[..., Fleet], edit: Callable[[Fleet], None]
) -> None:
    """And a new name: nothing of that method leaves before it is over."""
    bots = fleet(1)
    async with bots.running() as sup:
        await sup._assembly._calls["bot-0"].gate.keep_flood("messages.SendMessage", None, 3.0)
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
