"""Dials that come together begin a few in each pass of the event loop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from supervisor.telegram import dial
from supervisor.telegram.slices import SLICE, Slices

MANY = dial.AT_ONCE * 4


class Passes:
    """The passes of the running loop, counted."""

    def __init__(self) -> None:
        self.number = 0
        self._next()

    def _next(self) -> None:
        self.number += 1
        asyncio.get_running_loop().call_soon(self._next)


async def begin(
    turnstile: dial._Turnstile, passes: Passes, begun: list[tuple[int, int]], number: int
) -> None:
    await turnstile.turn()
    begun.append((passes.number, number))


async def test_a_few_begin_in_each_pass_in_their_order() -> None:
    """Of a hundred that come at once no more than the limit begin in one pass, first come, first served, all soon."""
    turnstile, passes, begun = dial._turnstile(), Passes(), list[tuple[int, int]]()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for number in range(MANY):
            group.create_task(begin(turnstile, passes, begun, number))
    assert max(Counter(at for at, _ in begun).values()) <= dial.AT_ONCE
    assert [number for _, number in begun] == list(range(MANY))
    assert passes.number <= 4 * MANY / dial.AT_ONCE


async def test_one_that_is_called_off_takes_nobodys_place() -> None:
    """Dials that were cancelled while they waited do not hold up the others, who all begin."""
    turnstile, passes, begun = dial._turnstile(), Passes(), list[tuple[int, int]]()
    tasks = [asyncio.create_task(begin(turnstile, passes, begun, number)) for number in range(MANY)]
    await asyncio.sleep(0)
    for task in tasks[dial.AT_ONCE : 2 * dial.AT_ONCE]:
        task.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(begun) == MANY - dial.AT_ONCE


async def test_one_alone_waits_for_nobody() -> None:
    """A dial that comes alone begins in the very pass in which it comes, again and again."""
    turnstile, passes, begun = dial._turnstile(), Passes(), list[tuple[int, int]]()
    for number in range(3):
        now = passes.number
        await begin(turnstile, passes, begun, number)
        assert begun[-1] == (now, number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_who_is_behind_with_reading_dials_one_at_a_time() -> None:
    """While something that has come waits to be read one dial begins in each pass: not none, and no more."""
    turnstile, passes, begun = dial._turnstile(), Passes(), list[tuple[int, int]]()
    slices, read = Slices.of(asyncio.get_running_loop()), list[int]()

    def something() -> None:
        time.sleep(2 * SLICE)
        read.append(passes.number)

    slices.do(something)
    for _ in range(5):
        slices.do(something)
    assert slices.behind
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for number in range(MANY):
            group.create_task(begin(turnstile, passes, begun, number))
    meanwhile = Counter(at for at, _ in begun if at < read[-1])
    assert len(meanwhile) >= 3
    assert max(meanwhile.values()) == 1
    assert len(begun) == MANY
    assert not slices.behind
