"""How often a greeting may be refused before the attempt is given up. Virtual time."""

from __future__ import annotations

import asyncio
from itertools import count

from supervisor.telegram.opening import GREETINGS, Opening
from tests.unit.fakes import settle, virtual


class Pings:
    """Numbers the pings that are sent."""

    def __init__(self) -> None:
        self._numbers = count()
        self.sent: list[int] = []

    def __call__(self) -> int:
        self.sent.append(next(self._numbers))
        return self.sent[-1]


@virtual
async def test_pings_that_were_under_way_are_one_refusal() -> None:
    """Ten left before the first was refused, for a salt that was mended then: one greeting follows, and may succeed."""
    pings = Pings()
    opening = Opening("direct", pings)
    greeting = asyncio.create_task(opening.greet(30))
    await asyncio.sleep(4.6)
    early = list(pings.sent)
    assert len(early) == 10
    assert [opening.refused(number) for number in early] == [None] * 10
    assert len(pings.sent) == 11
    opening.ponged()
    await greeting
    opening.end()


@virtual
async def test_a_greeting_that_is_refused_anew_each_time_is_given_up() -> None:
    """What was mended did not help: after the last of `GREETINGS` it is said how often."""
    pings = Pings()
    opening = Opening("direct", pings)
    greeting = asyncio.create_task(opening.greet(30))
    await settle()
    for _ in range(GREETINGS):
        assert opening.refused(pings.sent[-1]) is None
    assert opening.refused(pings.sent[-1]) == GREETINGS + 1
    greeting.cancel()
    await settle()
    opening.end()
