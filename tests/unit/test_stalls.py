"""The event loop's own stalls: found, measured, and named by the code that held it up. Real time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

from supervisor import stalls
from supervisor.core.classify import classify
from supervisor.core.failure import Evidence, Kind, Remedy, Scope


def block(seconds: float) -> None:
    time.sleep(seconds)


def compute(seconds: float) -> None:
    """Hold the interpreter in one call that lets no other thread run."""
    begun = time.monotonic()
    number = 3**100_000
    while time.monotonic() - begun < seconds:
        number = number * number % 7**200_000


async def beats(seconds: float = 0.6) -> None:
    await asyncio.sleep(seconds)


async def test_a_blocking_call_is_named_by_its_place_and_its_task() -> None:
    """Once, when the loop moves again: how long, file, line and function, and whose task it was."""
    told: list[Evidence] = []

    async def handler() -> None:
        block(1.6)

    with stalls.watched(told.append):
        await asyncio.create_task(handler(), name="handlers:bot-0")
        assert not told
        await beats()
    (stall,) = told
    line = block.__code__.co_firstlineno + 1
    assert stall.message.endswith(f"test_stalls.py:{line} in block (handlers of bot-0)")
    assert stall.message.startswith("the event loop stood still for 1.")
    assert stall.cause[-1].endswith(f"test_stalls.py:{line} in block")
    assert "in test_a_blocking_call_is_named_by_its_place_and_its_task.<locals>.handler" in stall.cause[-2]
    failure = classify(stall)
    assert (failure.kind, failure.scope, failure.remedy) == (Kind.UNKNOWN, Scope.FLEET, Remedy.RAISE)


async def test_code_that_lets_no_other_thread_run_is_named_too() -> None:
    """C code that keeps the interpreter for itself is told by its place, not taken for a process that was stopped."""
    told: list[Evidence] = []
    with stalls.watched(told.append):
        await beats()
        compute(1.5)
        await beats()
    (stall,) = told
    assert "in compute" in stall.message


async def test_short_delays_are_nobodys_business() -> None:
    """A loop that is held up for half a second is not told of."""
    told: list[Evidence] = []
    with stalls.watched(told.append):
        await beats()
        block(0.5)
        await beats()
    assert told == []


async def test_the_watch_leaves_nothing_and_costs_next_to_nothing() -> None:
    """No thread and no timer stays; two seconds of it cost less than 20 ms of processor time."""
    before = threading.active_count()
    with stalls.watched(lambda _stall: None):
        assert threading.active_count() == before + 1
        begun = time.process_time()
        await asyncio.sleep(2.0)
        assert time.process_time() - begun < 0.02
    assert threading.active_count() == before


STOPPED = """
    import asyncio, hashlib
    from supervisor import stalls

    async def main():
        with stalls.watched(lambda stall: print(stall.message, flush=True)):
            print("ready", flush=True)
            await asyncio.sleep(3.2)

    asyncio.run(main())
"""


def test_a_process_that_was_stopped_blames_no_code() -> None:
    """SIGSTOP and SIGCONT: the whole process stood still, and nothing of it is to blame."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STOPPED)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.4)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(process.pid, signal.SIGCONT)
        told = process.stdout.read().splitlines()
    assert len(told) == 1
    assert told[0].startswith(
        ("the whole process stood still for 1.", "the whole process stood still for 2.")
    )
