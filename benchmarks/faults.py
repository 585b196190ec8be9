"""Faults: what callers notice when the connection breaks, the server goes away, or it goes silent.

A bare and a supervised bot send one message every 50 ms each to the same datacenter, 80 ms away and with Telegram's
limit of 30 messages a second. Both meet the same fault at the same moment; all their calls are waited for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import script
from benchmarks.local import Bot, LocalDatacenter, bare, supervised
from benchmarks.table import Row, Table

LATENCY = 0.08
EVERY = 0.05
BEFORE, AFTER = 1.0, 2.0  # seconds of load around the fault
AWAY, SILENT = 5.0, 8.0
ROUNDS = 3


async def reset(dc: LocalDatacenter) -> None:
    await dc.do("reset_links")


async def outage(dc: LocalDatacenter) -> None:
    await dc.do("go_away")
    await asyncio.sleep(AWAY)
    await dc.do("come_back")


async def silence(dc: LocalDatacenter) -> None:
    await dc.do("silent")
    await asyncio.sleep(SILENT)
    await dc.do("speak")


SCENARIOS: dict[str, tuple[str, float, Callable[[LocalDatacenter], Awaitable[None]]]] = {
    "reset": ("connection reset once", 0.0, reset),
    "outage": (f"server away for {AWAY:g} s", AWAY, outage),
    "silence": (f"server silent for {SILENT:g} s", SILENT, silence),
}


async def load(client: Any, person: int, stop: asyncio.Event) -> list[tuple[float, bool]]:
    """Send at the same pace whatever happens; the seconds that each call took, and whether it was answered."""
    done: list[tuple[float, bool]] = []

    async def one(number: int) -> None:
        begun = time.monotonic()
        try:
            await client.send_message(person, f"message {number}")
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
            await asyncio.sleep(max(0.0, begun + number * EVERY - time.monotonic()))
    return done


async def noticed(dc: LocalDatacenter, bot: Bot, calls: list[tuple[float, bool]]) -> dict[str, float]:
    texts = Counter(sent["text"] for sent in await dc.do("sends", account=bot.user_id))
    return {
        "slowest": max(took for took, _ in calls),
        "failed": sum(not answered for _, answered in calls),
        "twice": sum(count > 1 for count in texts.values()),
        "calls": len(calls),
    }


async def measure(scenario: str, directory: Path) -> dict[str, dict[str, float]]:
    """One scenario, both clients at once."""
    async with LocalDatacenter.running(latency=LATENCY) as dc:
        address = dc.address
        mine, theirs = await dc.bot("ours", directory), await dc.bot("bare", directory)
        async with bare(address, [theirs]) as bares, supervised(address, [mine], directory / "state") as ours:
            clients = bares["bare"], ours["ours"]
            for client in clients:
                await client.send_message(address.person, "the first one looks the person up")
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                loads = [group.create_task(load(client, address.person, stop)) for client in clients]
                await asyncio.sleep(BEFORE)
                await SCENARIOS[scenario][2](dc)
                await asyncio.sleep(AFTER)
                stop.set()
            a, b = (task.result() for task in loads)
            return {"bare": await noticed(dc, theirs, a), "supervised": await noticed(dc, mine, b)}


def table(rounds: list[dict[str, Any]]) -> Table:
    """The slowest call of all rounds, and how many calls fared ill in all of them."""

    def slowest(scenario: str, kind: str, allowed: float = 0.0) -> float:
        return max(0.0, max(results[scenario][kind]["slowest"] for results in rounds) - allowed)

    def total(scenario: str, kind: str, what: str) -> int:
        return sum(results[scenario][kind][what] for results in rounds)

    pace = f"a message every {EVERY * 1000:g} ms"
    shown = Table(f"Faults, {LATENCY * 1000:g} ms latency, {pace}, {len(rounds)} rounds")
    for name, (title, lasts, _) in SCENARIOS.items():
        bare_s, ours_s = slowest(name, "bare"), slowest(name, "supervised")
        shown.rows.append(Row(f"{title}: slowest call", bare_s, ours_s, "s"))
        if lasts:
            late = slowest(name, "bare", lasts), slowest(name, "supervised", lasts)
            shown.rows.append(Row("  beyond the fault itself", late[0], late[1], "s"))
        for what in ("failed", "twice"):
            a, b = total(name, "bare", what), total(name, "supervised", what)
            of = f"of {total(name, 'bare', 'calls'):,}"
            label = "  failed calls" if what == "failed" else "  delivered twice"
            shown.rows.append(Row(label, a, b, of, None))
    return shown


async def side_by_side() -> dict[str, Any]:
    """Every scenario in a process and with a datacenter of its own: the load is light, two cores carry it."""
    results = await asyncio.gather(*(script.worker("faults", scenario=name) for name in SCENARIOS))
    return dict(zip(SCENARIOS, results, strict=True))


async def main(quick: bool) -> None:
    rounds = [await side_by_side() for _ in range(1 if quick else ROUNDS)]
    print(table(rounds), flush=True)


async def work(scenario: str) -> None:
    logging.disable(logging.CRITICAL)  # both libraries tell at length what we do to them
    with TemporaryDirectory(prefix="bench-") as directory:
        print(json.dumps(await measure(scenario, Path(directory))))


if __name__ == "__main__":
    options = script.arguments(__doc__).parse_args()
    script.run(lambda: work(**options.worker) if options.worker else main(options.quick))
