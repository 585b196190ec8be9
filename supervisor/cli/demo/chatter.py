"""The bots of `tg-supervisor demo`: each sends five messages a second, and notes what became of every one.

This file is copied beside the demo's accounts.toml, where `main = "chatter:main"` finds it. There is nothing in it
about failures: a call that a failure meets is simply answered later.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PERSON = 700_000_001  # to whom all the bots write
EVERY = 0.2  # s


async def main(client: Any) -> None:
    """Send until the file `enough` is there, then wait for what is still on its way."""
    with (HERE / f"{client.name}.calls").open("a", buffering=1) as notes:
        async with asyncio.TaskGroup() as sending:
            number = 0
            while not (HERE / "enough").exists():
                number += 1
                sending.create_task(send(client, number, notes))
                await asyncio.sleep(EVERY)
                leave_with_the_demo()


async def send(client: Any, number: int, notes: Any) -> None:
    """Send one message; note when it was asked for, what became of it, and after how long."""
    asked = time.monotonic()
    notes.write(f"{number} {asked:.3f} asked\n")
    try:
        await client.send_message(PERSON, f"message {number} of {client.name}")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what became of the call
        notes.write(f"{number} {asked:.3f} failed {time.monotonic() - asked:.3f} {error!r}\n")
    else:
        notes.write(f"{number} {asked:.3f} answered {time.monotonic() - asked:.3f}\n")


def leave_with_the_demo() -> None:
    """Stop the daemon where the demo was killed: nobody else would."""
    if os.getppid() != int(os.environ["DEMO_PID"]):
        os.kill(os.getpid(), signal.SIGTERM)
