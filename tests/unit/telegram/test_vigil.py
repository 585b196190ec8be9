"""When links are looked at: all of them by shared timers. Virtual time, in seconds; the silence time-out is 10."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

from supervisor.telegram.pulse import Pulse
from supervisor.telegram.vigil import TICK, Vigil
from tests.unit.fakes import virtual


class Link:
    """A quiet link: its wire, its outbox, and what its vigil did about it."""

    write_buffer_size = 0
    owed_since: float | None = None
    answers = False
    end: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun = self.last_received = self.loop.time()
        self.seen: list[tuple[str, float]] = []
        itself: Any = self
        self.vigil = Vigil(
            itself, itself, Pulse(10.0), 15.0,
            ping=lambda: self.note("ping"), overdue=lambda: self.note("overdue"),
            silent=lambda _seconds: self.note("silent"),
        )  # fmt: skip

    def note(self, what: str) -> None:
        self.end()
        self.seen.append((what, round(self.loop.time() - self.begun, 3)))
        if self.answers:
            self.loop.call_later(0.01, self.hear)

    def hear(self) -> None:
        self.last_received = self.loop.time()

    def repeat(self, _before: float) -> None:
        """Nothing is unanswered for so long."""


@virtual
async def test_a_silent_link_is_tested_and_given_up_once() -> None:
    """A ping after 5 s, the end after 8.5; then it is not looked at any more."""
    link = Link()
    await asyncio.sleep(60)
    assert link.seen == [("ping", 5.0), ("silent", 8.5)]


@virtual
async def test_a_link_that_answers_is_tested_again_and_again() -> None:
    """Each time that it was quiet for 5 s, until its vigil ends."""
    link = Link()
    link.answers = True
    await asyncio.sleep(20)
    link.vigil.stop()
    assert [what for what, _ in link.seen] == ["ping"] * 3
    (_, first), (_, second), (_, third) = link.seen
    assert first == 5.0
    assert all(5.009 <= pause <= 5.011 + TICK for pause in (second - first, third - second))
    await asyncio.sleep(60)
    assert len(link.seen) == 3


@virtual
async def test_an_owed_answer_brings_the_next_look_forward() -> None:
    """It is overdue after a second, though the look that was arranged before is later."""
    link = Link()
    await asyncio.sleep(2)
    link.owed_since = link.loop.time()
    link.vigil.asked()
    await asyncio.sleep(1.1)
    link.vigil.stop()
    assert link.seen == [("ping", 3.0), ("overdue", 3.0)]


@virtual
async def test_many_links_share_a_timer_and_none_harms_another(caplog: Any) -> None:
    """A thousand links are looked at in one tick, in several passes of the loop; what one of them raises is its own."""
    links = [Link() for _ in range(1000)]
    loop = links[0].loop
    passes: list[int] = []

    def broken(what: str) -> None:
        raise RuntimeError(what)

    links[0].note = broken  # type: ignore[method-assign]
    assert sum(not timer.cancelled() for timer in loop._scheduled) == 1  # type: ignore[attr-defined]

    await asyncio.sleep(5.0)
    while (looked := sum(bool(link.seen) for link in links)) < len(links) - 1:
        passes.append(looked)
        await asyncio.sleep(0)
    for link in links:
        link.vigil.stop()
    assert all(link.seen == [("ping", 5.0)] for link in links[1:])
    assert len(passes) >= 8
    assert "a link could not be looked at" in caplog.text


@virtual
async def test_a_watch_that_is_over_keeps_nothing() -> None:
    """What a link leaves behind is free at once, not when its next look would have come."""
    link = Link()
    gone = weakref.ref(link)  # its vigil's outbox
    link.vigil.stop()
    del link
    gc.collect()
    assert gone() is None


@virtual
async def test_a_look_that_ends_another_watch_of_its_tick_spares_that_link() -> None:
    """It is not looked at any more, although its turn was about to come."""
    first, second = Link(), Link()
    first.end = second.vigil.stop
    await asyncio.sleep(60)
    assert second.seen == []
