"""A datacenter in a process of its own, told what to do by lines of JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Process:
    """A running `python -m supervisor.datacenter`. `ready` is its first line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready: dict[str, Any] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, *options: str) -> AsyncIterator[Process]:
        """Start it, and kill it at the end."""
        made = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "supervisor.datacenter", *options),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        running = cls(made)
        running.ready = await running.line()
        yield running
        if made.returncode is None:
            made.kill()
        await made.communicate()

    async def line(self) -> Any:
        """The next line that it says."""
        assert self.process.stdout is not None
        return json.loads(await asyncio.wait_for(self.process.stdout.readline(), 30))

    async def do(self, name: str, **arguments: Any) -> Any:
        """Have a command carried out; give the whole answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": name, **arguments}).encode() + b"\n")
        return await self.line()

    async def done(self, name: str, **arguments: Any) -> Any:
        """Have a command carried out; give its result. Fails if it was refused."""
        answer = await self.do(name, **arguments)
        assert answer["ok"], answer
        return answer["result"]
