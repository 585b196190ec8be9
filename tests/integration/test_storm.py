"""Many accounts at once lose their way to Telegram: what that costs Telegram, the callers, and the accounts unconcerned.

Whatever a library connects with, Python itself tells of each connect (`socket.connect` of sys.addaudithook): refused ones too,
of which no datacenter knows.
"""

from __future__ import annotations

import asyncio
import gc
import struct
import sys
import time
from base64 import urlsafe_b64encode
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pyrogram import raw

from supervisor import garbage
from supervisor.config.model import Proxy, Secret
from supervisor.datacenter import Datacenter
from supervisor.outages import KEPT_BACK
from supervisor.record import queries
from tests.integration.conftest import Fleet, ScriptedProxy, until
from tests.integration.watch import watched

pytestmark = [pytest.mark.timeout(60), pytest.mark.alone]

PROBES = 3  # a second, over all paths (supervisor.probe_budget)

FLEET = 60
LATENCY = 0.02
# A fifth of what a daemon has.
QUICK: dict[str, Any] = {"connect_timeout": 2.0, "answer_timeout": 3.0, "silence_timeout": 2.0}
# How much longer than its budget says a fleet may take to be back on a machine that has other things to do. Seconds.
SLACK = 3.0
# How long the loop may stand still beside them: those whose turn came meanwhile go together. Seconds.
STOOD_STILL = 0.3


class Connects:
    """Where sockets were told to connect to, and when."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            self.seen.append((time.monotonic(), arguments[1][1]))

    def to(self, *ports: int, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """The times of those to these ports."""
        return [at for at, port in self.seen if port in ports and since <= at < until]


CONNECTS = Connects()
sys.addaudithook(CONNECTS)  # for good: that is how these are


def most_in_a_second(times: Sequence[float]) -> int:
    """A little less than one: what was planned for its beginning may have left late."""
    return max((bisect_left(times, at + 0.9) - n for n, at in enumerate(times)), default=0)


@dataclass
class Callers:
    """Somebody who calls on each account; `took` are the seconds that each answer took, `failed` what came instead."""

    clients: dict[str, Any]
    took: dict[str, list[float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    async def one(self, name: str) -> None:
        begun = time.monotonic()
        try:
            await self.clients[name].invoke(raw.functions.updates.GetState())
        except Exception as error:
            self.failed.append(f"{name}: {error!r}")
        else:
            self.took.setdefault(name, []).append(time.monotonic() - begun)

    def all_call(self) -> asyncio.Task[Any]:
        """Everybody calls now."""
        calls = (self.one(name) for name in self.clients)
        return asyncio.ensure_future(asyncio.gather(*calls))

    async def keep_calling(self, every: float) -> None:
        """Everybody calls again and again, spread evenly, until cancelled."""

        async def pace(number: int, name: str) -> None:
            await asyncio.sleep(every * number / len(self.clients))
            while True:
                await self.one(name)
                await asyncio.sleep(every)

        await asyncio.gather(*(pace(number, name) for number, name in enumerate(self.clients)))

    @property
    def slowest(self) -> float:
        return max((max(took) for took in self.took.values()), default=0.0)


@pytest.fixture
async def dc() -> AsyncIterator[Datacenter]:
    async with Datacenter(latency=LATENCY) as datacenter:
        yield datacenter


@pytest.fixture
async def proxies() -> AsyncIterator[dict[str, ScriptedProxy]]:
    """Four proxies, by name."""
    four = {f"proxy-{n}": ScriptedProxy() for n in range(4)}
    for proxy in four.values():
        await proxy.start()
    yield four
    for proxy in four.values():
        proxy.resume()
        await proxy.kill()


@pytest.fixture
def storm(fleet: Callable[..., Fleet], dc: Datacenter) -> Callable[..., Any]:
    """A running fleet that was signed in before: no time is spent on keys, and none of the ration of sign-ins."""

    @asynccontextmanager
    async def running(
        proxies: dict[str, ScriptedProxy] | None = None, accounts: int = FLEET, **settings: Any
    ) -> AsyncIterator[tuple[Fleet, dict[str, Any]]]:
        pool = tuple(
            Proxy(name, "socks5", "127.0.0.1", proxy.port) for name, proxy in (proxies or {}).items()
        )
        bots = fleet(accounts, proxies=pool, **{**QUICK, "start_limit": accounts, **settings})
        for bot, name in zip(bots.bots, bots.names, strict=True):
            key = dc.issue_key(bot)
            packed = struct.pack(">BI?256sQ?", dc.dc_id, 12345, False, key, bot.user_id, True)
            string = urlsafe_b64encode(packed).decode().rstrip("=")
            bots.change(name, session_string=Secret(string))
        async with watched(), bots.running() as sup:
            yield bots, {name: await sup.client(name) for name in bots.names}

    return running


def lifted() -> dict[str, Any]:
    return {"connect_budget": 100_000.0}


async def fleet_incidents(bots: Fleet) -> list[Any]:
    """The incidents that are no single account's, as they are kept."""
    await asyncio.sleep(KEPT_BACK + 0.1)  # until then it may be somebody's own
    await bots.sup._store._written()
    with queries.opened(bots.config.settings.state_dir / "recovery.db") as db:
        assert db is not None
        found = db.execute("SELECT * FROM incidents WHERE account IS NULL").fetchall()
    return [dict(row) for row in found]


def paths_of(bots: Fleet) -> dict[str, str]:
    return {account["name"]: account["path"] for account in bots.sup.status()["accounts"]}


async def test_a_fleet_whose_links_are_all_reset_answers_within_two_seconds(
    storm: Callable[..., Any], dc: Datacenter
) -> None:
    """All links are reset with a call under way on each: every call is answered within 2 s, and none is done twice."""
    async with storm(**lifted()) as (bots, clients):
        assert gc.get_threshold() == garbage.THRESHOLDS  # no search looks through all accounts meanwhile
        dc.silent()
        callers = Callers(clients)
        calls = callers.all_call()
        await asyncio.sleep(0.3)
        begun = time.monotonic()
        dc.reset_links()
        dc.speak()
        await calls
        assert time.monotonic() - begun <= 2.0
        assert not callers.failed
        assert len(callers.took) == FLEET
        await until(lambda: {bots.state(name) for name in bots.names} == {"online"})
    assert not dc.seen.overlaps
    assert dc.seen.max_connections_per_key == 1


async def test_an_outage_is_one_knock_a_second_and_a_return_within_the_budget(
    storm: Callable[..., Any], dc: Datacenter
) -> None:
    """While Telegram is away probes alone go out, at most three a second of the whole fleet; it is one incident of the
    fleet, no account's own attempts are spent on it, and when it is over all come back within the budget.
    """
    budget = 30
    async with storm(connect_budget=float(budget)) as (bots, clients):
        callers = Callers(clients)
        gone = time.monotonic()
        await dc.go_away()
        calls = callers.all_call()
        await asyncio.sleep(3.0)
        back = time.monotonic()
        knocks = CONNECTS.to(dc.port, since=gone, until=back)
        await dc.come_back()
        await calls
        took = time.monotonic() - back
        returns = CONNECTS.to(dc.port, since=back)
        assert not callers.failed
        assert len(knocks) >= 1
        assert most_in_a_second(knocks) <= PROBES
        assert len(returns) >= FLEET
        assert most_in_a_second(returns) <= budget + PROBES + budget * STOOD_STILL
        assert took <= FLEET / budget + SLACK
        await until(lambda: {bots.state(name) for name in bots.names} == {"online"})
        rows = [row for row in await bots.rows() if row["incident"] is not None]
        assert {(row["account"], row["scope"]) for row in rows} == {(None, "fleet")}
        assert [row["outcome"] for row in rows] == ["retrying", "recovered"]
        (incident,) = await fleet_incidents(bots)
        assert incident["scope"] == "fleet"
        assert incident["outcome"] == "recovered"
        assert not [name for name in bots.names if bots.account(name)["incident"]]


async def test_no_proxy_is_changed_where_telegram_is_away_behind_all_of_them(
    storm: Callable[..., Any], dc: Datacenter, proxies: dict[str, ScriptedProxy]
) -> None:
    """Where all four paths break together nobody changes his, all probes together stay within three a second, and it
    is the fleet's incident.
    """
    ports = [proxy.port for proxy in proxies.values()]
    async with storm(proxies, accounts=40) as (bots, clients):
        before = paths_of(bots)
        callers = Callers(clients)
        gone = time.monotonic()
        await dc.go_away()
        calls = callers.all_call()
        await asyncio.sleep(3.0)
        knocks = CONNECTS.to(*ports, since=gone)
        await dc.come_back()
        await calls
        assert not callers.failed
        assert most_in_a_second(knocks) <= PROBES
        await until(lambda: {bots.state(name) for name in bots.names} == {"online"})
        assert paths_of(bots) == before
        assert [row["scope"] for row in await fleet_incidents(bots)] == ["fleet"]


async def one_fails(
    bots: Fleet,
    clients: dict[str, Any],
    proxies: dict[str, ScriptedProxy],
    how: Callable[[ScriptedProxy], Any],
) -> tuple[Callers, Callers, list[str]]:
    """One of the proxies fails; give those who called on its accounts and on the others, and the paths of its accounts."""
    before = paths_of(bots)
    struck = {name: clients[name] for name in clients if before[name] == "proxy-0"}
    others = Callers({name: client for name, client in clients.items() if name not in struck})
    waiting = Callers(struck)
    steady = asyncio.create_task(others.keep_calling(0.5))
    await asyncio.sleep(0.6)
    failing = how(proxies["proxy-0"])
    if failing is not None:
        await failing
    await waiting.all_call()
    await asyncio.sleep(0.6)
    steady.cancel()
    await asyncio.wait([steady])
    now = paths_of(bots)
    assert {name: now[name] for name in others.clients} == {name: before[name] for name in others.clients}
    return waiting, others, [now[name] for name in struck]


async def test_the_accounts_of_a_proxy_that_dies_are_taken_in_by_the_others(
    storm: Callable[..., Any], dc: Datacenter, proxies: dict[str, ScriptedProxy]
) -> None:
    """One of four proxies dies: its accounts answer over the three others, evenly and within the budget, and nobody else
    notices anything.
    """
    budget = 4.0
    async with storm(proxies, accounts=48, connect_budget=budget, connect_budget_total=4 * budget) as (
        bots,
        clients,
    ):
        await asyncio.sleep(1.1)  # the budgets are full again
        died = time.monotonic()
        struck, others, paths = await one_fails(bots, clients, proxies, ScriptedProxy.kill)
        assert not struck.failed
        assert not others.failed
        assert len(struck.took) == len(paths) == 12
        assert "proxy-0" not in paths
        assert sorted(paths.count(name) for name in proxies) == [0, 4, 4, 4]
        assert struck.slowest <= 12 / (3 * budget) + SLACK
        assert others.slowest <= 0.5
        for name in ("proxy-1", "proxy-2", "proxy-3"):
            assert most_in_a_second(CONNECTS.to(proxies[name].port, since=died)) <= 2 * budget
        (incident,) = await fleet_incidents(bots)
        assert (incident["scope"], incident["path"]) == ("path", "proxy-0")


async def lateness(late: list[float]) -> None:
    while True:
        due = time.monotonic() + 0.005
        await asyncio.sleep(0.005)
        late.append(time.monotonic() - due)


async def test_a_proxy_that_hangs_holds_nobody_else_up(
    storm: Callable[..., Any], dc: Datacenter, proxies: dict[str, ScriptedProxy]
) -> None:
    """One of four proxies accepts and says nothing any more: 99 times of 100 the loop is no more than 50 ms late, the others'
    calls are answered as ever, and its own accounts go on over another.
    """
    async with storm(proxies, accounts=40) as (bots, clients):
        late = list[float]()
        watching = asyncio.create_task(lateness(late))
        struck, others, paths = await one_fails(bots, clients, proxies, ScriptedProxy.hang)
        watching.cancel()
        assert sorted(late)[int(len(late) * 0.99)] <= 0.05
        assert not struck.failed
        assert not others.failed
        assert "proxy-0" not in paths
        assert others.slowest <= 0.5
        (incident,) = await fleet_incidents(bots)
        assert (incident["scope"], incident["path"]) == ("path", "proxy-0")
        proxies["proxy-0"].resume()
        assert struck.slowest <= QUICK["silence_timeout"] + QUICK["connect_timeout"] + SLACK
