"""Minutes of random faults on twenty accounts: nothing fails, nothing is doubled, nothing is missed, nothing lies.

A minute by default; `make soak` makes it five. The faults are drawn from a seed, which the test names when it fails.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.model import Proxy
from supervisor.datacenter import Datacenter, Fault, FaultKind

from .conftest import PERSON, Fleet, ScriptedProxy, until

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
ACCOUNTS, PROXIED = 20, 4
# One fault on each account in so many seconds; what the longest of them takes, and the way back from it, fits in.
EVERY = 20.0
# An account that has worked for so long is well again: its next fault is a new incident, with delays from the beginning.
WELL = 5.0
# An account whose connections were all closed longer ago is not online, whatever is said of it.
FOUND_OUT = 10.0
# After the last fault: a flood wait of 12 s, two silences in a row, and their ends.
SETTLED = 45.0

pytestmark = [pytest.mark.timeout(SECONDS + 120), pytest.mark.alone]


class Soak:
    """Twenty bots under load, and what befalls them."""

    def __init__(self, fleet: Fleet, proxies: dict[str, ScriptedProxy]) -> None:
        self.fleet, self.dc, self.proxies = fleet, fleet.dc, proxies
        self.random = random.Random(SEED)
        self.users = {name: bot.user_id for name, bot in zip(fleet.names, fleet.bots, strict=True)}
        self.group = self.dc.add_supergroup("crowd", fleet.bots, creator=fleet.person)
        self.raised: list[str] = []
        self.lies: list[str] = []
        self.pushed: set[tuple[str, str]] = set()
        self.seen: Counter[tuple[str, str]] = Counter()
        self.befell: Counter[str] = Counter()
        self.calls: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Give each client a handler, as a bot's own code does."""
        for name in self.fleet.names:
            client = await self.fleet.sup.client(name)
            client.on_message()(self._noting(name))

    def _noting(self, name: str) -> Callable[[Any, Any], Awaitable[None]]:
        async def note(_client: Any, message: Any) -> None:
            self.seen[name, message.text] += 1

        return note

    # --- load -----------------------------------------------------------------------------------------

    async def send(self, name: str, until: float) -> None:
        """Send, and be written to in private and in the group, a few times a second."""
        client = await self.fleet.sup.client(name)
        source = random.Random(f"{SEED} {name}")
        n = 0
        while time.monotonic() < until:
            n += 1
            call = asyncio.create_task(self._one(client, name, f"{name} says {n}"), name=f"load:{name}")
            self.calls.add(call)
            call.add_done_callback(self.calls.discard)
            if n % 3 == 0:
                self._push(name, n)
            await asyncio.sleep(source.uniform(0.3, 1.0))

    def _push(self, name: str, n: int) -> None:
        bot = self.dc.engine.world.accounts[self.users[name]]
        self.dc.push_message(bot, f"to {name} {n}", from_user=PERSON)
        self.pushed.add((name, f"to {name} {n}"))

    async def crowd(self, until: float) -> None:
        """Write into the supergroup in which all of them are."""
        n = 0
        while time.monotonic() < until:
            n += 1
            self.dc.push_message(self.fleet.bots[0], f"to all {n}", PERSON, chat=self.group)
            self.pushed.update((name, f"to all {n}") for name in self.fleet.names)
            await asyncio.sleep(1.0)

    async def _one(self, client: Any, name: str, text: str) -> None:
        try:
            await client.send_message(PERSON, text)
        except Exception as error:
            self.raised.append(f"{name}: {error!r}")

    # --- faults ---------------------------------------------------------------------------------------

    async def harm(self, name: str, until: float) -> None:
        """Let one fault after another befall an account."""
        source = random.Random(f"{SEED} faults of {name}")
        faults = [
            self.reset, self.silence, self.flood, self.lose_answer, self.unregister, self.revoke, self.forget_key,
            self.forget_session,
        ]  # fmt: skip
        if self.fleet.account(name)["path"] != "direct":
            faults += [self.kill_proxy, self.hang_proxy]
        begun = time.monotonic() + source.uniform(0.0, EVERY / 2)
        while begun < until:
            await asyncio.sleep(max(0.0, begun - time.monotonic()))
            fault = source.choice(faults)
            self.befell[fault.__name__] += 1
            await fault(name)
            begun += EVERY

    async def reset(self, name: str) -> None:
        for _ in range(5):
            self.dc.reset_links(self.users[name])
            await asyncio.sleep(0.8)

    async def silence(self, name: str) -> None:
        self.dc.silent(self.users[name])
        await asyncio.sleep(8.0)
        self.dc.speak(self.users[name])

    async def flood(self, name: str) -> None:
        self._fault(name, FaultKind.RPC_ERROR, code=420, error="FLOOD_WAIT_12")

    async def lose_answer(self, name: str) -> None:
        self._fault(name, FaultKind.DROP_AFTER)

    def _fault(self, name: str, kind: FaultKind, **what: Any) -> None:
        self.dc.faults.add(Fault(kind, self.users[name], "messages.SendMessage", **what))

    async def unregister(self, name: str) -> None:
        self.dc.revoke(self.users[name], "AUTH_KEY_UNREGISTERED")

    async def revoke(self, name: str) -> None:
        self.dc.revoke(self.users[name], "SESSION_REVOKED")

    async def forget_key(self, name: str) -> None:
        self.dc.forget_keys(self.users[name])

    async def forget_session(self, name: str) -> None:
        self.dc.forget_sessions(self.users[name])
        self.dc.reset_links(self.users[name])

    async def kill_proxy(self, name: str) -> None:
        proxy = self.proxies[self.fleet.account(name)["path"]]
        await proxy.kill()
        await asyncio.sleep(5.0)
        await proxy.start()

    async def hang_proxy(self, name: str) -> None:
        proxy = self.proxies[self.fleet.account(name)["path"]]
        proxy.hang()
        await asyncio.sleep(10.0)
        proxy.resume()

    async def away(self, until: float) -> None:
        """The whole datacenter goes away, for 5 s and for 20 s by turns."""
        for n in range(int(SECONDS // 60) or 1):
            await asyncio.sleep(EVERY)
            if time.monotonic() >= until:
                return
            self.befell["away"] += 1
            await self.dc.go_away()
            await asyncio.sleep(20.0 if n % 2 else 5.0)
            await self.dc.come_back()
            await asyncio.sleep(2 * EVERY)

    # --- truth ----------------------------------------------------------------------------------------

    async def doubt(self) -> None:
        """Compare what is said of each account with what the datacenter knows of its connections."""
        linked = dict.fromkeys(self.users, time.monotonic())
        while True:
            await asyncio.sleep(0.25)
            now = time.monotonic()
            for name in self.users:
                if self._is_linked(name):
                    linked[name] = now
                elif now - linked[name] > FOUND_OUT and self.fleet.state(name) == "online":
                    away = now - linked[name]
                    self.lies.append(f"{name} is said to be online, {away:.1f} s after its link was closed")

    def _is_linked(self, name: str) -> bool:
        account = self.dc.engine.world.accounts[self.users[name]]
        return any(connection.is_open for key in account.keys for connection in key.connections)

    # --- the end --------------------------------------------------------------------------------------

    def waiting(self) -> dict[str, int]:
        """How many calls of each account wait for their answer."""
        return dict(Counter(call.get_name() for call in self.calls))

    def away_still(self) -> list[dict[str, Any]]:
        """The accounts that are not online."""
        return [account for account in self.fleet.sup.status()["accounts"] if account["state"] != "online"]

    def missing(self) -> list[tuple[str, str]]:
        """What was pushed and has reached no handler."""
        return sorted(self.pushed - set(self.seen))

    def open_incidents(self) -> list[Any]:
        """What the record still calls an incident."""
        database = self.fleet.config.settings.state_dir / "recovery.db"
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
            return db.execute("SELECT id, account, kind FROM incidents WHERE closed_at IS NULL").fetchall()


@asynccontextmanager
async def _soaking(directory: Path) -> AsyncIterator[Soak]:
    proxies = {name: ScriptedProxy() for name in ("de1", "nl3", "se2")}
    for proxy in proxies.values():
        await proxy.start()
    async with Datacenter(latency=0.02) as dc:
        configured = tuple(Proxy(name, "socks5", "127.0.0.1", proxy.port) for name, proxy in proxies.items())
        budget: dict[str, Any] = {"sign_ins_per_hour": 10_000, "sign_ins_per_day": 10_000}
        # So many faults an hour are flapping, and would be damped: here each of them is to be recovered from.
        fleet = Fleet(dc, directory, ACCOUNTS, configured, stable_after=WELL, flap_limit=10_000, **budget)
        for name in fleet.names[PROXIED:]:
            fleet.change(name, proxies=())
        async with fleet.running():
            yield Soak(fleet, proxies)
    for proxy in proxies.values():
        await proxy.kill()


async def test_random_faults_cost_nothing(tmp_path: Path) -> None:
    """No call raises, none takes effect twice, each pushed message is handled once, incidents close, `status` is true."""
    async with _soaking(tmp_path) as soak:
        await soak.listen()
        end = time.monotonic() + SECONDS
        doubt = asyncio.create_task(soak.doubt(), name="doubt")
        async with asyncio.TaskGroup() as group:
            for name in soak.fleet.names:
                group.create_task(soak.send(name, end))
                group.create_task(soak.harm(name, end - 10))
            group.create_task(soak.crowd(end))
            group.create_task(soak.away(end - 10))
        told = f"seed {SEED}, {dict(soak.befell)}"
        await until(
            lambda: not soak.calls, SETTLED, lambda: f"calls without an answer: {soak.waiting()}; {told}"
        )
        await until(lambda: not soak.away_still(), SETTLED, lambda: f"not back: {soak.away_still()}; {told}")
        await until(lambda: not soak.open_incidents(), SETTLED, f"open incidents; {told}")
        doubt.cancel()
        if soak.missing():
            await asyncio.sleep(2.0)
        assert not soak.raised, told
        assert not soak.lies, told
        assert not soak.missing(), told
        assert not [what for what, times in soak.seen.items() if times > 1], told
        assert not [what for what, times in soak.dc.seen.delivered_ids.items() if times > 1], told
        assert not soak.dc.seen.early_calls, told
        assert soak.dc.seen.overlaps == 0, told
        assert len(soak.befell) >= 6, "too few kinds of fault for a soak"
