"""Questions to the log, off the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisor.control.protocol import ControlError
from supervisor.dashboard.reads import _KEPT, Reads


@pytest.fixture
async def reads(state_dir: Path) -> AsyncIterator[Reads]:
    found = Reads(state_dir / "recovery.db")
    yield found
    await found.close()


async def test_the_loop_goes_on_while_the_log_is_asked(reads: Reads) -> None:
    """A question is answered in another thread, by a connection that cannot write."""
    go_on = threading.Event()

    def question(db: object) -> int:
        assert go_on.wait(10)
        return threading.get_ident()

    asking = asyncio.create_task(reads.ask(question))
    await asyncio.sleep(0.05)
    go_on.set()
    assert await asking != threading.get_ident()
    with pytest.raises(ControlError, match="readonly"):
        await reads.ask(lambda db: db.execute("DELETE FROM failures"))


async def test_what_takes_long_is_asked_once(reads: Reads) -> None:
    """Whoever asks the same meanwhile, or within ten times the time that it took, gets the same answer; then it is new."""
    asked = []

    def question(db: object) -> int:
        asked.append(db)
        time.sleep(0.1)
        return len(asked)

    assert await asyncio.gather(*(reads.ask_seldom("key", question) for _ in range(5))) == [1] * 5
    assert await reads.ask_seldom("key", question) == 1
    assert await reads.ask_seldom("another", question) == 2
    await asyncio.sleep(1.3)
    assert await reads.ask_seldom("key", question) == 3


async def test_an_error_is_not_kept(reads: Reads) -> None:
    """What could not be answered is asked anew; whoever went away meanwhile takes nobody else's answer along."""

    def refuse(db: object) -> int:
        raise ControlError("storage_failed", "not now")

    with pytest.raises(ControlError, match="not now"):
        await reads.ask_seldom("key", refuse)

    def slow(db: object) -> int:
        time.sleep(0.2)
        return 7

    gone = asyncio.create_task(reads.ask_seldom("key", slow))
    stays = asyncio.create_task(reads.ask_seldom("key", slow))
    await asyncio.sleep(0.05)
    gone.cancel()
    assert await stays == 7


async def test_few_answers_are_kept(reads: Reads) -> None:
    """However many different questions there are, the memory for their answers is bounded."""
    for number in range(_KEPT + 20):
        assert await reads.ask_seldom(number, lambda _: "an answer") == "an answer"
    assert len(reads._kept) == _KEPT
