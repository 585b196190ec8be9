"""A sink that fails: how often it is tried, what is lost, what is said. Virtual time, in seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from supervisor.core.failure import Level
from supervisor.core.notices import Notice
from supervisor.notify.outbox import WAITING, Outbox
from supervisor.notify.sinks import Passing, Refused
from tests.unit.fakes import settle, virtual

ALREADY = Notice(Level.ERROR, "title", "text", "", (), (), 1)


class Scripted:
    """Does what a test says, then takes everything. `taken` is when, and the text."""

    tries, per_try = 3, 10.0

    def __init__(self, *script: Exception | float) -> None:
        self.script = list(script)
        self.tried: list[float] = []
        self.taken: list[tuple[float, str]] = []
        self.began = asyncio.get_running_loop().time()

    @property
    def now(self) -> float:
        return round(asyncio.get_running_loop().time() - self.began, 3)

    async def send(self, notice: Notice, at: float) -> None:
        self.tried.append(self.now)
        step = self.script.pop(0) if self.script else None
        if isinstance(step, float):
            await asyncio.sleep(step)
        elif step is not None:
            raise step
        self.taken.append((self.now, notice.text))

    async def close(self) -> None: ...


class Box:
    def __init__(self, sender: Scripted) -> None:
        self.failed: list[str] = []
        self.outbox = Outbox("notify.ops", sender, self.failed.append)


@asynccontextmanager
async def sending(sender: Scripted) -> AsyncIterator[Box]:
    box = Box(sender)
    task = asyncio.create_task(box.outbox.run())
    try:
        yield box
    finally:
        task.cancel()
        await asyncio.wait([task])


@virtual
async def test_what_passes_is_tried_three_times_and_arrives() -> None:
    """After 1 s and after 2 more; or after as long as is demanded."""
    sender = Scripted(Passing("HTTP 500"), Passing("HTTP 429", 7.0))
    async with sending(sender) as box:
        box.outbox.put(ALREADY, 0.0)
        await box.outbox.emptied()
    assert sender.tried == [0.0, 1.0, 8.0]
    assert sender.taken == [(8.0, "text")]
    assert box.failed == []


@virtual
async def test_a_dead_sink_is_said_once_and_what_was_lost_with_the_next_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the log and to whoever records it; and once more when it is back."""
    sender = Scripted(*[Passing("HTTP 502")] * 6, Refused("HTTP 404"))
    with caplog.at_level(logging.INFO, logger="supervisor.notify"):
        async with sending(sender) as box:
            for _ in range(4):
                box.outbox.put(ALREADY, 0.0)
            await box.outbox.emptied()
    assert box.failed == ["HTTP 502"]
    assert sender.tried == [0.0, 1.0, 3.0, 3.0, 4.0, 6.0, 6.0, 6.0]
    assert sender.taken == [(6.0, "text\n(3 earlier messages could not be sent.)")]
    assert [record.getMessage() for record in caplog.records] == [
        "notifications to notify.ops cannot be sent: HTTP 502; that is tried again with the next one",
        "notifications to notify.ops are sent again; 3 were lost",
    ]


@virtual
async def test_one_that_hangs_is_given_ten_seconds_a_try_and_thirty_in_all() -> None:
    """It holds up nothing but its own messages."""
    sender = Scripted(60.0, 60.0, 60.0)
    async with sending(sender) as box:
        box.outbox.put(ALREADY, 0.0)
        await box.outbox.emptied()
        assert sender.now == 30.0
        box.outbox.put(Notice(Level.INFO, "t", "", "", (), (), 1), 0.0)
        await box.outbox.emptied()
    assert sender.tried == [0.0, 11.0, 23.0, 30.0]
    assert box.failed == ["no answer within 10 s"]
    assert sender.taken == [(30.0, "(1 earlier messages could not be sent.)")]


@virtual
async def test_one_that_answers_slower_than_thirty_seconds_without_a_word_is_told_as_such() -> None:
    """A sender that is worth one long try has nothing else to say."""
    sender = Scripted(60.0)
    sender.tries, sender.per_try = 1, 100.0
    async with sending(sender) as box:
        box.outbox.put(ALREADY, 0.0)
        await box.outbox.emptied()
    assert box.failed == ["it was not sent within 30 s"]


@virtual
async def test_a_long_wait_that_is_demanded_is_honoured_in_full_and_nothing_is_lost() -> None:
    """No try before its end; but who demands hours is given up on."""
    sender = Scripted(Passing("HTTP 429", 600.0), Passing("HTTP 429", 90_000.0))
    async with sending(sender) as box:
        box.outbox.put(ALREADY, 0.0)
        await box.outbox.emptied()
    assert sender.tried[:2] == [0.0, 600.0]
    assert sender.taken == []
    assert box.failed == ["HTTP 429"]


@virtual
async def test_what_waits_is_bounded_and_the_oldest_goes() -> None:
    """A thousand messages for a sink that hangs are a hundred, and how many were lost is told."""
    sender = Scripted(9.0)
    async with sending(sender) as box:
        box.outbox.put(ALREADY, 0.0)
        await settle()
        for n in range(1000):
            box.outbox.put(Notice(Level.INFO, f"{n}", f"{n}", "", (), (), 1), 0.0)
        await box.outbox.emptied()
    assert len(sender.taken) == WAITING + 1
    assert sender.taken[1][1] == "900\n(900 earlier messages could not be sent.)"
    assert sender.taken[-1][1] == "999"


@virtual
async def test_a_fault_of_the_sender_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is said with its traceback, and the next message goes out."""
    sender = Scripted(ValueError("a fault"))
    async with sending(sender) as box:
        box.outbox.put(ALREADY, 0.0)
        box.outbox.put(ALREADY, 0.0)
        await box.outbox.emptied()
    assert len(sender.taken) == 1
    assert box.failed == ["ValueError"]
    assert caplog.records[0].exc_info is not None
