"""One message to one sink, to see whether it arrives."""

from __future__ import annotations

import time

from supervisor.config.model import Sink
from supervisor.core.failure import Level
from supervisor.core.notices import Notice
from supervisor.errors import ConfigError
from supervisor.notify.outbox import Later, deliver
from supervisor.notify.sinks import Apprise, FindClient, Passing, Refused, sender

TEXT = "A test of tg-supervisor's notifications: they arrive."


async def try_out(sink: Sink, find: FindClient) -> str | None:
    """Send a message, as any other is sent; None if it was taken, else why not.

    Args:
        sink: where to.
        find: finds a client of ours that is online.
    """
    notice = Notice(
        Level.INFO, TEXT, f"This sink is told what is {sink.level.value} or worse.", "", (), (), 1
    )
    made = sender(sink, find)
    try:
        if isinstance(made, Apprise):
            await made.prepare()
        await deliver(made, notice, time.time())
    except Later as later:
        return f"it wants to be left alone for {later.wait:.0f} s"
    except (Passing, Refused, ConfigError) as error:
        return str(error)
    finally:
        await made.close()
    return None
