"""A user's recovery callbacks on a real account: they decide, and harm nobody when they are bad."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supervisor import Action, Kind, Outcome, RecoveryContext, actions
from supervisor.config.model import Proxy
from supervisor.datacenter import Datacenter

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _only_these_callbacks() -> Iterator[None]:
    """What one test registers no other one meets."""
    actions.registered.clear()
    yield
    actions.registered.clear()


async def online_again(bots: Any, name: str = "bot-0", seconds: float = 10.0) -> None:
    begun = time.monotonic()
    while bots.state(name) != "online":
        assert time.monotonic() - begun < seconds, bots.account(name)
        await asyncio.sleep(0.02)


async def test_a_callback_chooses_the_proxy(
    fleet: Callable[..., Any], two_proxies: dict[str, Any], dc: Datacenter
) -> None:
    """rotate_proxy is overridden: the account goes where the callback says, a url that no configuration names."""
    configured = {"de1": two_proxies["de1"]}
    bots = fleet(1, proxies=tuple(Proxy(n, "socks5", "127.0.0.1", p.port) for n, p in configured.items()))
    url = f"socks5://user:secret@127.0.0.1:{two_proxies['nl3'].port}"

    @actions.on_recovery(Action.ROTATE_PROXY, kind=Kind.PROXY, account="bot-*")
    async def fresh_proxy(ctx: RecoveryContext) -> Outcome:
        await ctx.use_proxy(url)
        return Outcome.RECOVERED

    async with bots.running():
        two_proxies["de1"].hang()
        begun = time.monotonic()
        while bots.account()["path"] == "de1" or bots.state() != "online":
            assert time.monotonic() - begun < 20
            await asyncio.sleep(0.05)
        assert bots.account()["path"] == f"127.0.0.1:{two_proxies['nl3'].port}"
        assert "secret" not in str(bots.sup.status())
    assert len(dc.seen.connections) == sum(proxy.connections for proxy in two_proxies.values())


async def test_a_callback_is_asked_when_the_only_proxy_is_dead(
    fleet: Callable[..., Any], two_proxies: dict[str, Any], dc: Datacenter
) -> None:
    """Where nothing is left to rotate to, a callback may still know a proxy."""
    bots = fleet(1, proxies=(Proxy("de1", "socks5", "127.0.0.1", two_proxies["de1"].port),))

    @actions.on_recovery(Action.ROTATE_PROXY)
    async def another(ctx: RecoveryContext) -> Outcome:
        await ctx.use_proxy(f"socks5://127.0.0.1:{two_proxies['nl3'].port}")
        return Outcome.RECOVERED

    async with bots.running():
        await two_proxies["de1"].kill()
        await asyncio.sleep(0.2)
        await online_again(bots, seconds=5.0)
        assert bots.account()["path"] != "de1"
    assert len(dc.seen.connections) == sum(proxy.connections for proxy in two_proxies.values())


async def test_a_callback_takes_over_the_relogin(fleet: Callable[..., Any], dc: Datacenter) -> None:
    """relogin is overridden: the callback is asked first, and declining leaves it to the built-in."""
    asked: list[tuple[str, str | None, int]] = []

    @actions.on_recovery(Action.RELOGIN)
    def note(ctx: RecoveryContext) -> Outcome:
        asked.append((ctx.account, ctx.error_id, ctx.attempt))
        return Outcome.DECLINED

    bots = fleet(1)
    async with bots.running() as sup:
        dc.revoke(bots.bots[0], "AUTH_KEY_UNREGISTERED")
        client = await sup.client("bot-0")
        await client.get_me()
        await online_again(bots)
    assert asked == [("bot-0", "AUTH_KEY_UNREGISTERED", 1)]
    assert dc.seen.sign_ins[bots.bots[0].user_id] == 2


async def test_one_that_raises_and_one_that_hangs_harm_nobody(
    fleet: Callable[..., Any], dc: Datacenter
) -> None:
    """Each is recorded with the account's name; the account and the others come back all the same."""

    @actions.on_recovery(Action.RECONNECT, account="bot-0")
    async def explodes(_ctx: RecoveryContext) -> Outcome:
        raise RuntimeError("no lease left")

    @actions.on_recovery(Action.RECONNECT, account="bot-1", timeout=1.0)
    async def hangs(_ctx: RecoveryContext) -> Outcome:
        await asyncio.Event().wait()
        return Outcome.RECOVERED

    bots = fleet(3)
    async with bots.running():
        dc.reset_links()
        await asyncio.sleep(0.05)
        await online_again(bots, "bot-2", 1.0)
        await online_again(bots, "bot-0")
        await online_again(bots, "bot-1")
        rows = await bots.rows()
    told = {row["account"]: row["message"] for row in rows if row["outcome"] == "raised"}
    assert "no lease left" in told["bot-0"]
    assert "took more than 1 s" in told["bot-1"]
    assert "bot-2" not in told


async def test_one_that_lies_is_found_out(fleet: Callable[..., Any], dc: Datacenter) -> None:
    """RECOVERED without an answered RPC is a failed attempt: the account is not called online."""
    lies = 0

    @actions.on_recovery(Action.RECONNECT)
    async def lie(_ctx: RecoveryContext) -> Outcome:
        nonlocal lies
        lies += 1
        return Outcome.RECOVERED

    bots = fleet(1)
    async with bots.running():
        await dc.go_away()
        await asyncio.sleep(2)
        assert lies
        assert bots.state() == "recovering"
        await dc.come_back()
        await online_again(bots)


async def test_one_that_gives_up_ends_the_incident(fleet: Callable[..., Any], dc: Datacenter) -> None:
    """FAILED means failed, until a person acts; the callbacks for `fail` hear of it."""
    heard: list[str] = []

    @actions.on_recovery(Action.RECONNECT, account="bot-0")
    async def no_more(_ctx: RecoveryContext) -> Outcome:
        return Outcome.FAILED

    @actions.on_recovery(Action.FAIL)
    async def tell(ctx: RecoveryContext) -> Outcome:
        heard.append(ctx.account)
        return Outcome.DECLINED

    bots = fleet(2)
    async with bots.running():
        dc.reset_links()
        begun = time.monotonic()
        while bots.state("bot-0") != "failed":
            assert time.monotonic() - begun < 5
            await asyncio.sleep(0.02)
        await online_again(bots, "bot-1")
    assert heard == ["bot-0"]
