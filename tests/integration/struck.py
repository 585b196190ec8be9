"""A bot under load that a fault strikes, on a datacenter of its own, and what is asked of every such fault."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.datacenter import Datacenter
from tests.integration.conftest import PERSON, Call, Fleet, until
from tests.integration.watch import one_incident, peak_connects, watched

# Every bound at a fifth of what `[supervisor]` has by default.
FIFTH: dict[str, Any] = {
    "connect_timeout": 2.0,
    "answer_timeout": 3.0,
    "silence_timeout": 2.0,
    "stable_after": 12.0,
    "call_timeout": 12.0,
}
LATENCY = 0.02


class Site:
    """One bot and its datacenter. `down` is set by whoever makes the bot unreachable."""

    def __init__(self, dc: Datacenter, fleet: Fleet) -> None:
        self.dc = dc
        self.fleet = fleet
        self.bot = fleet.bots[0]
        self.calls: list[Call] = []
        self.down = False
        self.lied = 0.0  # the longest time that `status` said online while it was not
        self.states: list[str] = []

    @property
    def state(self) -> str:
        """What `status` says now."""
        return self.fleet.state()

    async def online(self, seconds: float = 10.0) -> None:
        """Wait until `status` says online."""
        await until(lambda: self.state == "online", seconds, "online again")

    async def leaves(self, state: str = "online", seconds: float = 10.0) -> None:
        """Wait until `status` says something else."""
        await until(lambda: self.state != state, seconds, f"no longer {state}")

    async def invoke(self, query: Any) -> Any:
        """A raw call of the bot."""
        return await (await self.fleet.sup.client("bot-0")).invoke(query)

    async def idle(self, seconds: float) -> None:
        """Let nothing happen for so long."""
        await asyncio.sleep(seconds)

    @asynccontextmanager
    async def loaded(self, every: float = 0.05) -> AsyncIterator[None]:
        """Send a message each `every` seconds for as long as the body takes, and wait for all answers."""
        client = await self.fleet.sup.client("bot-0")
        over = asyncio.Event()

        async def one(n: int) -> None:
            begun, error = time.monotonic(), None
            try:
                await client.send_message(PERSON, f"m-{n}")
            except Exception as raised:
                error = raised
            self.calls.append(Call(begun, time.monotonic() - begun, f"m-{n}", error))

        async def send(group: asyncio.TaskGroup) -> None:
            n = 0
            while not over.is_set():
                group.create_task(one(n), name="sending")
                n += 1
                await asyncio.sleep(every)

        async with asyncio.TaskGroup() as group:
            group.create_task(send(group), name="load")
            try:
                yield
            finally:
                over.set()

    @asynccontextmanager
    async def observed(self) -> AsyncIterator[None]:
        """Compare what `status` says with what is, all the time."""
        task = asyncio.create_task(self._observe(), name="observer")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _observe(self) -> None:
        lying_since: float | None = None
        while True:
            now, state = time.monotonic(), self.state
            if not self.states or self.states[-1] != state:
                self.states.append(state)
            if self.down and state == "online":
                lying_since = lying_since or now
                self.lied = max(self.lied, now - lying_since)
            else:
                lying_since = None
            await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Fault:
    """One row of the matrix: what happens, and what must be seen of it.

    Args:
        name: what happens.
        entry: the entry of the catalogue of the clients' failures (while running) that it stands for.
        strike: makes it happen; returns when its cause is gone.
        says: what the first row of the incident says, as a pattern; None where nothing fails and nothing is written.
        then: patterns of what must stand in the record besides, in any row or cause.
        kind, action: of the first row.
        idle: no calls are made meanwhile.
        slowest: seconds that the slowest call may take.
        back: seconds after `strike` within which the bot is online.
        lie: seconds for which `status` may say online when it is not.
        connects: how many connections may be made in one second.
        links: how many connections of the bot's key the server may think open at once.
        settings: other `[supervisor]` keys than a fifth of the defaults.
        states: what `status` says in between, one of them at least.
        sign_ins: how many there are, the first start's included.
    """

    name: str
    entry: str
    strike: Callable[[Site], Awaitable[None]]
    says: str | None
    then: tuple[str, ...] = ()
    kind: str = "connection"
    action: str = "reconnect"
    idle: bool = False
    slowest: float = 1.5
    back: float = 3.0
    lie: float = 0.3
    connects: int = 5
    links: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    states: tuple[str, ...] = ("recovering",)
    sign_ins: int = 1

    async def run(self, directory: Path) -> None:
        """Let it happen, and hold the supervisor to all of the above."""
        async with Datacenter(latency=LATENCY) as dc:
            fleet = Fleet(dc, directory, 1, **{**FIFTH, **self.settings})
            async with fleet.running():
                site = Site(dc, fleet)
                struck_at = time.monotonic()
                async with site.observed():
                    await self._through(site)
                rows = await fleet.rows()
                self._check_status(site, rows)
            self._check_calls(site)
            self._check_connections(site, struck_at)
            self._check_record(rows)

    async def _through(self, site: Site) -> None:
        if self.idle:
            await self.strike(site)
            await site.online(self.back)
            return
        async with site.loaded():
            await asyncio.sleep(0.5)
            await self.strike(site)
            await site.online(self.back)
            await asyncio.sleep(0.3)

    def _check_status(self, site: Site, rows: list[dict[str, Any]]) -> None:
        account = site.fleet.account()
        assert (account["state"], account["incident"]) == ("online", None)
        assert site.lied <= self.lie, f"said online for {site.lied:.2f} s while it was not"
        if self.says is None:
            assert site.states == ["online"], site.states
        else:
            assert set(self.states) & set(site.states), site.states
            assert account["last_failure"] is not None
            assert any(row["id"] == account["last_failure"]["id"] for row in rows)

    def _check_calls(self, site: Site) -> None:
        failed = [f"{call.text}: {call.error!r}" for call in site.calls if call.error is not None]
        assert not failed, failed
        counts = {call.text: site.dc.seen.times_delivered(call.text) for call in site.calls}
        assert set(counts.values()) <= {1}, {text: n for text, n in counts.items() if n != 1}
        assert self.idle or len(site.calls) >= 10
        assert max((call.took for call in site.calls), default=0.0) <= self.slowest, max(
            call.took for call in site.calls
        )

    def _check_connections(self, site: Site, since: float) -> None:
        assert peak_connects(site.dc, since) <= self.connects
        assert site.dc.seen.overlaps == 0, "queries of one key came over two connections"
        assert site.dc.seen.max_connections_per_key <= self.links
        assert site.dc.seen.sign_ins[site.bot.user_id] == self.sign_ins
        assert not site.dc.seen.unknown_methods

    def _check_record(self, rows: list[dict[str, Any]]) -> None:
        if self.says is None:
            assert [row["message"] for row in rows if row["incident"] is not None] == []
        else:
            of_account = [row for row in rows if row["scope"] != "call"]
            incident = one_incident(of_account)
            first = incident[0]
            assert re.search(self.says, first["message"]), incident
            assert (first["kind"], first["action"]) == (self.kind, self.action), incident
            assert incident[-1]["outcome"] == "recovered", incident
            assert incident[-1]["duration_s"] is not None
        told = [text for row in rows for text in (row["message"], *row["cause"])]
        missing = [pattern for pattern in self.then if not any(re.search(pattern, text) for text in told)]
        assert not missing, (missing, told)


def prepare() -> None:
    """Make the datacenters' RSA key, which takes a tenth of a second and is no fault of what is watched."""
    Datacenter()


@asynccontextmanager
async def struck(directory: Path, **settings: Any) -> AsyncIterator[Site]:
    """A bot that is online, at a fifth of the timings; everything is given back at the end."""
    prepare()
    async with watched(), Datacenter(latency=LATENCY) as dc:
        fleet = Fleet(dc, directory, 1, **{**FIFTH, **settings})
        async with fleet.running():
            yield Site(dc, fleet)
