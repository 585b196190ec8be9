"""Faults: what callers notice when the link, the server, the session or a proxy fails.

A bare and a supervised bot send at the same pace to the same datacenter, with Telegram's limit of 30 messages a second.
Both meet the same fault at the same moment; a call that is not answered within `GIVEN_UP` has failed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import script
from benchmarks.local import Bot, LocalDatacenter, bare, supervised
from benchmarks.table import Row, Table

BEFORE, AFTER = 1.0, 2.0  # seconds of load around the fault
GIVEN_UP = 40.0
ROUNDS = 2
AT_ONCE = 4  # scenarios side by side: the load is light, two cores carry it
SEND = "messages.SendMessage"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Stage:
    """What a fault is done to: the datacenter, the two bots on it, and the proxy that both go through, if any."""

    dc: LocalDatacenter
    bots: Sequence[Bot]
    proxy: asyncio.subprocess.Process | None = None

    async def each(self, command: str, **arguments: Any) -> None:
        """Have a command carried out for either bot."""
        for bot in self.bots:
            await self.dc.do(command, account=bot.user_id, **arguments)


async def resets(stage: Stage) -> None:
    for _ in range(5):
        await stage.dc.do("reset_links")
        await asyncio.sleep(0.8)


async def reset(stage: Stage) -> None:
    await stage.dc.do("reset_links")


def away(seconds: float) -> Callable[[Stage], Awaitable[None]]:
    async def leave(stage: Stage) -> None:
        await stage.dc.do("go_away")
        await asyncio.sleep(seconds)
        await stage.dc.do("come_back")

    return leave


async def silence(stage: Stage) -> None:
    await stage.dc.do("silent")
    await asyncio.sleep(8.0)
    await stage.dc.do("speak")


def fault(kind: str, **what: Any) -> Callable[[Stage], Awaitable[None]]:
    async def happen(stage: Stage) -> None:
        await stage.each("fault", kind=kind, method=SEND, **what)

    return happen


def revoked(error: str) -> Callable[[Stage], Awaitable[None]]:
    async def revoke(stage: Stage) -> None:
        await stage.each("revoke", error=error)

    return revoke


async def forget_keys(stage: Stage) -> None:
    await stage.each("forget_keys")


def proxy_gets(number: signal.Signals) -> Callable[[Stage], Awaitable[None]]:
    async def send(stage: Stage) -> None:
        assert stage.proxy is not None
        stage.proxy.send_signal(number)

    return send


@dataclass(frozen=True)
class Scenario:
    """A fault, how long it lasts, and under which load. Durations in seconds; `latency` is the round trip."""

    title: str
    befall: Callable[[Stage], Awaitable[None]]
    lasts: float = 0.0
    every: float = 0.05
    latency: float = 0.08
    proxied: bool = False
    is_quick: bool = False  # shown by --quick too


SCENARIOS: dict[str, Scenario] = {
    "reset": Scenario("connection reset once", reset, is_quick=True),
    "resets": Scenario("reset five times in 4 s, 20 ms latency", resets, latency=0.02),
    "away5": Scenario("server away for 5 s", away(5.0), 5.0, is_quick=True),
    "away20": Scenario("server away for 20 s, a message every 200 ms", away(20.0), 20.0, every=0.2),
    "silence": Scenario("server silent for 8 s", silence, 8.0, is_quick=True),
    "flood": Scenario("FLOOD_WAIT_12", fault("rpc_error", code=420, error="FLOOD_WAIT_12"), 12.0),
    "lost": Scenario("answer lost after the effect", fault("drop_after")),
    "unregistered": Scenario("AUTH_KEY_UNREGISTERED", revoked("AUTH_KEY_UNREGISTERED")),
    "revoked": Scenario("SESSION_REVOKED", revoked("SESSION_REVOKED")),
    "forgotten": Scenario("transport -404", forget_keys),
    "killed": Scenario("proxy killed, another in the pool", proxy_gets(signal.SIGKILL), proxied=True),
    "hangs": Scenario("proxy hangs, another in the pool", proxy_gets(signal.SIGSTOP), proxied=True),
}


async def load(client: Any, person: int, every: float, stop: asyncio.Event) -> list[tuple[float, bool]]:
    """Send at the same pace whatever happens; the seconds that each call took, and whether it was answered."""
    done: list[tuple[float, bool]] = []

    async def one(number: int) -> None:
        begun = time.monotonic()
        try:
            await asyncio.wait_for(client.send_message(person, f"message {number}"), GIVEN_UP)
        except Exception:
            answered = False
        else:
            answered = True
        done.append((time.monotonic() - begun, answered))

    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        number = 0
        while not stop.is_set():
            group.create_task(one(number))
            number += 1
            await asyncio.sleep(max(0.0, begun + number * every - time.monotonic()))
    return done


async def noticed(dc: LocalDatacenter, bot: Bot, calls: list[tuple[float, bool]]) -> dict[str, float]:
    texts = Counter(sent["text"] for sent in await dc.do("sends", account=bot.user_id))
    return {
        "slowest": max(took for took, _ in calls),
        "failed": sum(not answered for _, answered in calls),
        "twice": sum(count > 1 for count in texts.values()),
        "calls": len(calls),
    }


async def measure(name: str, directory: Path) -> dict[str, dict[str, float]]:
    """One scenario, both clients at once."""
    scenario = SCENARIOS[name]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        dc = await enter(LocalDatacenter.running(latency=scenario.latency))
        mine, theirs = await dc.bot("ours", directory), await dc.bot("bare", directory)
        proxies = [await enter(proxy()) for _ in range(2 * scenario.proxied)]
        ports = [port for port, _ in proxies]
        bares = await enter(bare(dc.address, [theirs], proxy=ports[0] if ports else None))
        ours = await enter(supervised(dc.address, [mine], directory / "state", proxies=ports))
        clients = bares["bare"], ours["ours"]
        for client in clients:
            await client.send_message(dc.address.person, "the first one looks the person up")
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            loads = [
                group.create_task(load(client, dc.address.person, scenario.every, stop)) for client in clients
            ]
            await asyncio.sleep(BEFORE)
            await scenario.befall(Stage(dc, (mine, theirs), proxies[0][1] if proxies else None))
            await asyncio.sleep(AFTER)
            stop.set()
        a, b = (task.result() for task in loads)
        return {"bare": await noticed(dc, theirs, a), "supervised": await noticed(dc, mine, b)}


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """A SOCKS5 proxy in a process of its own: its port and process."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    async with script.child("-m", "pproxy", "-l", f"socks5://{HOST}:{port}") as process:
        while not await _listens(port):
            await asyncio.sleep(0.05)
        yield port, process
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)


async def _listens(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection(HOST, port)
        writer.close()
        return True
    return False


def table(rounds: list[dict[str, Any]]) -> Table:
    """The slowest call of all rounds, and how many calls fared ill in all of them."""

    def total(scenario: str, kind: str, what: str) -> int:
        return sum(results[scenario][kind][what] for results in rounds)

    shown = Table(f"Faults, a message every 50 ms, {len(rounds)} rounds; given up after {GIVEN_UP:g} s")
    for name in rounds[0]:
        scenario = SCENARIOS[name]
        bare_s, ours_s = (
            max(results[name][kind]["slowest"] for results in rounds) for kind in ("bare", "supervised")
        )
        # How quickly a call has failed is nothing to be better than.
        compared = None if total(name, "bare", "failed") else False
        shown.rows.append(Row(f"{scenario.title}: slowest call", bare_s, ours_s, "s", compared))
        if scenario.lasts:
            late = [max(0.0, slowest - scenario.lasts) for slowest in (bare_s, ours_s)]
            shown.rows.append(Row("  beyond the fault itself", late[0], late[1], "s", compared))
        for what, label in (("failed", "  failed calls"), ("twice", "  delivered twice")):
            a, b = total(name, "bare", what), total(name, "supervised", what)
            shown.rows.append(Row(label, a, b, f"of {total(name, 'bare', 'calls'):,}", None))
    return shown


async def side_by_side(names: Sequence[str]) -> dict[str, Any]:
    """Some scenarios at once, each in a process and with a datacenter of its own."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> Any:
        async with turn:
            return await script.worker("faults", scenario=name)

    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


async def main(quick: bool) -> None:
    names = [name for name, scenario in SCENARIOS.items() if scenario.is_quick or not quick]
    rounds = [await side_by_side(names) for _ in range(1 if quick else ROUNDS)]
    print(table(rounds), flush=True)


async def work(scenario: str) -> None:
    logging.disable(logging.CRITICAL)  # both libraries tell at length what we do to them
    with TemporaryDirectory(prefix="bench-") as directory:
        print(json.dumps(await measure(scenario, Path(directory))))


if __name__ == "__main__":
    options = script.arguments(__doc__).parse_args()
    script.run(lambda: work(**options.worker) if options.worker else main(options.quick))
