"""``python -m supervisor.datacenter``: a datacenter as a process of its own, driven by JSON lines on stdin.

Prints one line when it listens, then answers each command (see `commands`) with a line, and stops at the end of stdin
or on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
import threading

from .commands import Commands
from .server import Datacenter

_CHUNK = 65536
# When to search for garbage: thousands of links are many objects, and next to none of them is garbage.
_SEARCH = 50_000, 10, 10


def _parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m supervisor.datacenter", description="A local Telegram datacenter."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--dc-id", type=int, default=2)
    parser.add_argument("--latency", type=float, default=0.0, help="round trip in seconds")
    parser.add_argument("--bots", type=int, default=1, help="how many bots there are to sign in")
    parser.add_argument(
        "--send-limit", type=int, default=30, help="sends a second and account, 0 for no limit"
    )
    parser.add_argument(
        "--loose-overlap", action="store_true", help="let one key have several MTProto sessions"
    )
    parser.add_argument("--seed", type=int, default=None)
    return parser.parse_args(arguments)


def _read_lines(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str | None]) -> None:
    """Read stdin in a thread: it may be a pipe, a terminal or a file, and only the first can be polled."""
    rest = b""
    while chunk := os.read(sys.stdin.fileno(), _CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            loop.call_soon_threadsafe(lines.put_nowait, line.decode())
    loop.call_soon_threadsafe(lines.put_nowait, None)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _run(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lines.put_nowait, None)
    dc = Datacenter(
        options.host,
        options.port,
        options.dc_id,
        options.latency,
        options.seed,
        send_limit=options.send_limit,
        strict_overlap=not options.loose_overlap,
    )
    async with dc:
        gc.set_threshold(*_SEARCH)
        bots = [dc.add_bot() for _ in range(options.bots)]
        ready = {
            "host": dc.host,
            "port": dc.port,
            "dc_id": dc.dc_id,
            "public_key_pem": dc.public_key_pem,
            "person": dc.person.user_id,
            "bots": [{"token": bot.token, "user_id": bot.user_id} for bot in bots],
        }
        _say(json.dumps(ready))
        threading.Thread(target=_read_lines, args=(loop, lines), name="stdin", daemon=True).start()
        commands = Commands(dc)
        while (line := await lines.get()) is not None:
            if line.strip():
                _say(await commands.line(line))


if __name__ == "__main__":
    asyncio.run(_run(_parse()))
