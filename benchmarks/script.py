"""What each benchmark's script does alike: arguments, an end on SIGINT or SIGTERM, children that end with it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The parser for a script: `--quick`, and what it calls itself with."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds: about three minutes for all benchmarks"
    )
    parser.add_argument("--worker", type=_work, help=argparse.SUPPRESS)
    return parser


def _work(where: str) -> Any:
    """What this process is to do: its first line of input, for a thousand bots are too many for an argument."""
    assert where == "-"
    return json.loads(sys.stdin.readline())


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a script to its end, or to a signal's."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # a socket and a session file for each account
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stopped: list[int] = []

    async def stoppable() -> None:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            stopped.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        await main()

    try:
        asyncio.run(stoppable())
    except asyncio.CancelledError:
        sys.exit(128 + stopped[0])


@asynccontextmanager
async def child(*command: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process of ours with a pipe at both ends; it ends with this block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is ours to pass on
        **options,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
        await process.wait()


async def worker(name: str, **work: Any) -> Any:
    """Have a script measure something in a fresh process; its last line is the result.

    It runs as a file, like a bot of its users: under `python -m` the frames of runpy are on the stack, and Pyrogram, which
    inspects the stack whenever it reads its storage, takes several times as long.
    """
    path = str(ROOT / "benchmarks" / f"{name}.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    async with child("-P", path, "--worker", "-", env=environment, limit=1 << 26) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(work).encode() + b"\n")
        lines = (await process.stdout.read()).splitlines()
        if await process.wait() != 0 or not lines:
            raise RuntimeError(f"{name} could not be measured: its process ended with {process.returncode}")
        return json.loads(lines[-1])
