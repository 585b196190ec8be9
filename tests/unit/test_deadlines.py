"""A deadline strikes in time, and no sooner than what came while the event loop stood still has been read."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from supervisor import deadlines
from supervisor.deadlines import deadline
from tests.unit.fakes import virtual


@virtual
async def test_it_strikes_in_time() -> None:
    """What takes longer ends with TimeoutError, at once where no time is left; what is quicker is left alone."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for seconds in (5.0, 0.0):
        with pytest.raises(TimeoutError):
            async with deadline(seconds):
                await asyncio.sleep(60)
    assert loop.time() - begun == pytest.approx(5.0)
    async with deadline(5.0):
        await asyncio.sleep(4.9)
    await asyncio.sleep(10)


async def test_an_answer_that_lies_in_the_buffer_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop stands still for longer than there was time; what came meanwhile is read, through several hands, first."""
    monkeypatch.setattr(deadlines, "STALL", 0.05)
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)

    async def answer() -> bytes:
        return b"".join([await asyncio.create_task(reader.readexactly(100_000)) for _ in range(5)])

    def send_and_stand_still() -> None:
        theirs.setblocking(False)
        asyncio.get_running_loop().add_writer(theirs, feed)
        time.sleep(0.3)

    left = bytearray(500_000)

    def feed() -> None:
        del left[: theirs.send(left)]
        if not left:
            asyncio.get_running_loop().remove_writer(theirs)

    asyncio.get_running_loop().call_soon(send_and_stand_still)
    async with deadline(0.1):
        assert len(await asyncio.create_task(answer())) == 500_000
    writer.close()
    theirs.close()


async def test_a_silence_after_a_stall_is_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing has come the deadline strikes, a moment later."""
    monkeypatch.setattr(deadlines, "STALL", 0.05)
    asyncio.get_running_loop().call_soon(time.sleep, 0.3)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with deadline(0.1):
            await asyncio.Event().wait()
    assert 0.3 <= time.monotonic() - begun < 2.0


@virtual
async def test_whoever_else_cancels_is_obeyed() -> None:
    """A task that is cancelled from outside ends as cancelled: before the deadline, and in the moment that it strikes."""
    for after in (1.0, 5.0):

        async def wait() -> None:
            async with deadline(5.0):
                await asyncio.sleep(60)

        task = asyncio.create_task(wait())
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@virtual
async def test_the_inner_of_two_deadlines_ends_its_own_body_alone() -> None:
    """The outer one goes on, and still strikes."""
    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with deadline(5.0):
            with pytest.raises(TimeoutError):
                async with deadline(2.0):
                    await asyncio.sleep(60)
            await asyncio.sleep(60)
    assert asyncio.get_running_loop().time() - begun == pytest.approx(5.0)
