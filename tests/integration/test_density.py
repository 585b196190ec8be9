"""Hundreds of accounts in one process: what each of them costs while it is idle, and that it is none the worse for it."""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter

CROWD = 300
# MiB. What is there once, as two databases' caches, counts with each of so few: of a thousand 0.05 is asked for.
EACH = 0.07
THREADS = 12
WORKERS = 6  # handlers of one account at once; what the library has on two cores


class Process:
    """A crowd in its own process; `do` has one step of it done (crowd.py)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, step: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(step.encode() + b"\n")
        async with asyncio.timeout(30):
            line = await self._process.stdout.readline()
        assert line, f"the process ended during {step}"
        return json.loads(line)


@asynccontextmanager
async def crowd(dc: Datacenter, bots: list[Account], directory: Path) -> AsyncIterator[Process]:
    """Bots that are signed in already, each with a session of its own."""
    accounts = {}
    for number, bot in enumerate(bots):
        packed = struct.pack(">BI?256sQ?", dc.dc_id, 12345, False, dc.issue_key(bot), bot.user_id, True)
        accounts[f"bot-{number}"] = urlsafe_b64encode(packed).decode().rstrip("=")
    given = {
        "directory": str(directory),
        "server": [dc.host, dc.port, dc.dc_id, dc.public_key_pem],
        "accounts": accounts,
        "workers": WORKERS,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        str(Path(__file__).with_name("crowd.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(given).encode() + b"\n")
        yield Process(process)
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.alone
@pytest.mark.timeout(90)
async def test_a_crowd_costs_little_and_loses_nothing(tmp_path: Path) -> None:
    """300 idle accounts: one task each, no thread each, little memory; six handlers of one at once; a stop within 10 s."""
    async with Datacenter() as dc:
        bots = [dc.add_bot() for _ in range(CROWD)]
        async with crowd(dc, bots, tmp_path) as process:
            base = await process.do("base")
            idle = await process.do("start")
            assert (idle["mib"] - base["mib"]) / CROWD <= EACH
            assert idle["threads"] <= THREADS
            assert idle["tasks"] == {"account": CROWD}
            assert idle["files"] - base["files"] <= CROWD + 20

            await process.do("listen")
            texts = [f"message {n}" for n in range(WORKERS + 3)]
            for text in texts:
                dc.push_message(bots[0], text)
            busy = await process.do(f"begun_by {WORKERS}")
            assert busy["begun"] == texts[:WORKERS]
            assert busy["tasks"] == {"account": CROWD, "handlers": WORKERS}
            done = await process.do(f"heard_by {len(texts)}")
            assert (done["begun"], sorted(done["heard"])) == (texts, texts)
            assert done["tasks"] == {"account": CROWD}

            heard = done
            for number, bot in enumerate(bots[1:21], 1):  # one after the other, each in a thread
                dc.push_message(bot, "hello")
                heard = await process.do(f"heard_by {len(texts) + number}")
            assert set(heard["heard"][len(texts) :]) == {f"bot-{n}" for n in range(1, 21)}
            assert heard["threads"] <= idle["threads"] + 3

            stopped = await process.do("stop")
            assert stopped["seconds"] < 10
            assert (stopped["tasks"], stopped["files"]) == ({}, base["files"])
