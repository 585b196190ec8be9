"""The code of each account of `tg-supervisor demo`: it sends five messages a second, and notes what became of every one.

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

from supervisor import AccountUnavailable

HERE = Path(__file__).parent
PERSON = "demo_operator"  # to whom all of them write
EVERY = 0.2  # s


async def main(client: Any) -> None:
    """Send until the file `enough` is there, then wait for what is still on its way."""
    path = HERE / f"{client.name}.calls"
    number = path.read_text().count("asked") if path.exists() else 0  # by the one before, if there was one
    with path.open("a", buffering=1) as notes:
        async with asyncio.TaskGroup() as sending:
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
    except (AccountUnavailable, asyncio.CancelledError) as error:  # the account, or this code, is stopped
        notes.write(f"{number} {asked:.3f} refused {time.monotonic() - asked:.3f} {error!r}\n")
        if isinstance(error, asyncio.CancelledError):
            raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what became of the call
        notes.write(f"{number} {asked:.3f} failed {time.monotonic() - asked:.3f} {error!r}\n")
    else:
        notes.write(f"{number} {asked:.3f} answered {time.monotonic() - asked:.3f}\n")


def leave_with_the_demo() -> None:
    """Stop the daemon where the demo was killed: nobody else would."""
    if os.getppid() != int(os.environ["DEMO_PID"]):
        os.kill(os.getpid(), signal.SIGTERM)
