"""What a bot's own code does a thousand times is told in a few rows. Virtual time, in seconds."""

from __future__ import annotations

import asyncio

from supervisor.core.classify import classify
from supervisor.core.failure import Evidence, Failure, Source
from supervisor.journal import FEW, GROUPS, Repeats
from tests.unit.fakes import virtual


def failure(text: str, place: str = "bot.py:1 in hello", step: str = "handler hello") -> Failure:
    return classify(
        Evidence(Source.CODE, f"ValueError: {text}", step=step, cause=(f"ValueError: {text}", place))
    )


class Rows:
    def __init__(self) -> None:
        self.written: list[tuple[str, int]] = []
        self.repeats = Repeats(lambda failure, count: self.written.append((failure.evidence.message, count)))

    @property
    def counts(self) -> list[int]:
        return [count for _, count in self.written]


@virtual
async def test_the_first_few_are_rows_of_their_own_and_the_rest_one_a_minute() -> None:
    """Whatever their texts; while it goes on there is one row a minute, with the number and the first text of it."""
    rows = Rows()
    for n in range(3 * 60):
        rows.repeats.add(failure(f"about {n}"))
        await asyncio.sleep(1.0)
    await asyncio.sleep(0.5)
    assert rows.counts == [1] * FEW + [60 - FEW, 60, 60]
    assert rows.written[FEW] == ("ValueError: about 10", 50)
    rows.repeats.close()
    assert sum(rows.counts) == 180


@virtual
async def test_after_a_quiet_minute_it_begins_anew() -> None:
    """What comes once a minute is a row each time."""
    rows = Rows()
    for _ in range(30):
        rows.repeats.add(failure("again"))
        await asyncio.sleep(61.0)
    assert rows.counts == [1] * 30


@virtual
async def test_other_places_and_other_handlers_are_others() -> None:
    """A flood of one says nothing of another."""
    rows = Rows()
    for _ in range(20):
        rows.repeats.add(failure("x"))
    rows.repeats.add(failure("y", place="bot.py:9 in bye"))
    rows.repeats.add(failure("z", step="main"))
    assert [text for text, _ in rows.written[FEW:]] == ["ValueError: y", "ValueError: z"]
    rows.repeats.close()


@virtual
async def test_the_end_tells_what_was_not_yet_told_and_memory_is_bounded() -> None:
    """None is forgotten; past so many sorts the rest are one."""
    rows = Rows()
    for n in range(5 * GROUPS):
        rows.repeats.add(failure("x", place=f"bot.py:{n} in hello"))
    assert len(rows.repeats._groups) <= GROUPS + 1
    rows.repeats.close()
    assert sum(rows.counts) == 5 * GROUPS
    assert len(rows.counts) == GROUPS + FEW + 1
