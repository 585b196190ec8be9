"""Waiting without a deque for each who might: bells and mailboxes. Virtual time."""

from __future__ import annotations

import asyncio

from supervisor.waiting import Bell, Mailbox
from tests.unit.fakes import settle, virtual


@virtual
async def test_a_bell_wakes_those_who_wait_and_nobody_later() -> None:
    """Everybody who waits when it rings hears it; it is not remembered, and who has gone away is no fault."""
    bell = Bell()
    bell.ring()
    waiting = [asyncio.create_task(bell.heard()) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    await settle()
    bell.ring()
    await settle()
    assert [task.cancelled() for task in waiting] == [True, False, False]
    late = asyncio.create_task(bell.heard())
    await settle()
    assert not late.done()
    bell.ring()
    await late


@virtual
async def test_who_rang_and_who_gave_up_in_one_pass_agree() -> None:
    """A waiter that is cancelled in the pass in which it rings is cancelled, and the others hear it."""
    bell = Bell()
    waiting = [asyncio.create_task(bell.heard()) for _ in range(2)]
    await settle()
    waiting[0].cancel()
    bell.ring()
    await settle()
    assert [task.cancelled() for task in waiting] == [True, False]


@virtual
async def test_a_mailbox_keeps_the_order_and_says_when_it_is_empty() -> None:
    """What is put before and while somebody reads comes in order; `emptied` returns when the last has been taken."""
    box: Mailbox[int] = Mailbox()
    await box.emptied()
    box.put(1)
    box.put(2)
    empty = asyncio.create_task(box.emptied())
    assert await box.get() == 1
    await settle()
    assert not empty.done()
    assert await box.get() == 2
    await empty
    reading = asyncio.create_task(box.get())
    await settle()
    box.put(3)
    assert await reading == 3
