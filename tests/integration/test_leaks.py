"""Starting and stopping accounts for ever costs nothing that stays."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisor.config.model import Account, Config, Secret, Server, Settings, Telegram
from supervisor.daemon import Supervisor
from supervisor.datacenter import Datacenter

ACCOUNTS, ROUNDS, WARM = 50, 20, 6
# Of memory that stays, in bytes, per start and stop of one account, once everything that is made once has been made.
PER_START = 1024


@pytest.fixture
async def dc() -> AsyncIterator[Datacenter]:
    """A datacenter without latency."""
    async with Datacenter() as datacenter:
        yield datacenter


def resident() -> int:
    """The process's own memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def descriptors() -> list[str]:
    """What the process has open, but for the datacenter's and our own look."""
    found = []
    for descriptor in list(Path("/proc/self/fd").iterdir()):
        try:
            found.append(str(descriptor.readlink()).partition(":")[0])
        except FileNotFoundError:
            continue  # the one that listed them
    return sorted(found)


async def measure() -> tuple[int, int, list[str], int, int]:
    """Tasks, threads, descriptors, memory and live objects, when all has come to rest."""
    await asyncio.sleep(0.2)  # the datacenter sees the connections go
    gc.collect()
    return (
        len(asyncio.all_tasks()),
        threading.active_count(),
        descriptors(),
        resident(),
        len(gc.get_objects()),
    )


async def one_round(config: Config) -> None:
    """Start all accounts, have one call answered on each, stop them."""
    async with Supervisor(config) as sup, asyncio.timeout(30):
        for name in config.accounts:
            client = await sup.client(name)
            await client.get_me()


@pytest.mark.timeout(150)
async def test_a_thousand_starts_and_stops_leak_nothing(dc: Datacenter, tmp_path: Path) -> None:
    """After 1,000 starts and stops of accounts no task, thread or file stays, and no memory to speak of."""
    bots = [dc.add_bot() for _ in range(ACCOUNTS)]
    config = Config(
        path=tmp_path / "accounts.toml",
        telegram=Telegram(12345, Secret("a" * 32), Server(dc.host, dc.port, dc.dc_id, dc.public_key_pem)),
        settings=Settings(state_dir=tmp_path / "state", connect_budget=1000, start_limit=ACCOUNTS),
        accounts={
            f"bot-{n}": Account(f"bot-{n}", bot_token=Secret(b.token or "")) for n, b in enumerate(bots)
        },
    )
    begun = time.monotonic()
    measured = []
    for _ in range(ROUNDS):
        await one_round(config)
        dc.forget_sessions()  # what the server keeps is not what is measured
        dc.seen.reset()
        measured.append(await measure())
    tasks, threads, files, *_ = measured[WARM]
    for at, (later_tasks, later_threads, later_files, *_) in enumerate(measured[WARM:], WARM):
        assert (later_tasks, later_threads) == (tasks, threads), f"round {at}"
        assert later_files == files, f"round {at}"
    assert dc.seen.open_connections == 0
    memory = [sample[3] for sample in measured]
    starts = ACCOUNTS * (ROUNDS - 1 - WARM)
    growth = (memory[-1] - memory[WARM]) / starts
    objects = (measured[-1][4] - measured[WARM][4]) / starts
    print(
        f"{time.monotonic() - begun:.1f} s; a start leaves {growth:.0f} bytes, {objects:.2f} objects;"
        f" {len(files)} files, {threads} threads, {tasks} tasks, MiB {[size >> 20 for size in memory]}"
    )
    assert growth < PER_START
    assert objects < 1
