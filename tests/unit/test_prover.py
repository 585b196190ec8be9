"""When a quiet link is asked for proof of life. Virtual time, in seconds."""

from __future__ import annotations

import asyncio

from supervisor.prover import Prover
from tests.unit.fakes import settle, virtual

EVERY = 300.0


class Rig:
    """A link that was last heard at `quiet_since`, and notes when it was asked."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun = self.loop.time()
        self.quiet_since = self.begun
        self.is_online = True
        self.asked: list[float] = []
        self.wait = 0.0
        self.takes = 0.0
        self.prover = Prover(
            is_online=lambda: self.is_online,
            due=lambda: self.quiet_since + EVERY,
            ask=self.ask,
            spawn=lambda work, name: asyncio.create_task(work, name=name),
        )

    async def ask(self) -> float:
        self.asked.append(round(self.loop.time() - self.begun, 3))
        await asyncio.sleep(self.takes)
        self.quiet_since = self.loop.time()
        return self.wait


@virtual
async def test_it_is_asked_each_time_that_it_was_quiet_for_long_enough() -> None:
    """Not before, and later where something was heard meanwhile; between two questions there is no task."""
    rig = Rig()
    rig.prover.watch()
    await asyncio.sleep(200)
    rig.quiet_since = rig.loop.time()
    await asyncio.sleep(1000)
    assert rig.asked == [500.0, 800.0, 1100.0]
    assert len(asyncio.all_tasks()) == 1
    rig.prover.end()


@virtual
async def test_nobody_is_asked_while_there_is_no_link() -> None:
    """An account that went offline is asked when it has been online and quiet for long enough again."""
    rig = Rig()
    rig.prover.watch()
    rig.is_online = False
    await asyncio.sleep(1000)
    assert rig.asked == []
    rig.is_online, rig.quiet_since = True, rig.loop.time()
    rig.prover.watch()
    await asyncio.sleep(301)
    assert rig.asked == [1300.0]
    rig.prover.end()


@virtual
async def test_a_wait_that_was_demanded_holds_over_a_new_link() -> None:
    """Nobody asks again before it is over, though the account was online anew meanwhile."""
    rig = Rig()
    rig.wait = 1000.0
    rig.prover.watch()
    await asyncio.sleep(310)
    rig.prover.watch()
    await asyncio.sleep(1000)
    assert rig.asked == [300.0, 1300.0]
    rig.prover.end()


@virtual
async def test_one_question_at_a_time_and_none_after_the_end() -> None:
    """A link that comes back while it is asked is not asked twice; the end calls a question off."""
    rig = Rig()
    rig.takes = 20.0
    rig.prover.watch()
    await asyncio.sleep(310)
    rig.prover.watch()
    await asyncio.sleep(300)
    assert rig.asked == [300.0]
    await asyncio.sleep(15)
    assert rig.asked == [300.0, 620.0]
    rig.prover.end()
    await settle()
    assert len(asyncio.all_tasks()) == 1
    await asyncio.sleep(1000)
    assert rig.asked == [300.0, 620.0]
