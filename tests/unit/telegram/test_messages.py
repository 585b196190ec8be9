"""Acknowledgements: gathered, sent in the company of others, and never kept for long. Virtual time, in seconds."""

from __future__ import annotations

import asyncio

from supervisor.telegram.messages import ACKS_AFTER, ACKS_ALONE, ACKS_AT_ONCE, Acks
from tests.unit.fakes import virtual


class Sent:
    """What was acknowledged, and when."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun = self.loop.time()
        self.all: list[tuple[float, list[int]]] = []
        self.acks = Acks(self.loop, self.send)

    def send(self, msg_ids: list[int]) -> None:
        self.all.append((round(self.loop.time() - self.begun, 3), msg_ids))
        self.acks.ride()  # it is a message itself


@virtual
async def test_they_ride_with_the_next_message() -> None:
    """Not with one that leaves at once, which may be answered itself; with the first after a second."""
    sent = Sent()
    sent.acks.add(1)
    sent.acks.ride()
    await asyncio.sleep(ACKS_AFTER / 2)
    sent.acks.add(2)
    sent.acks.ride()
    assert sent.all == []
    await asyncio.sleep(ACKS_AFTER / 2)
    sent.acks.ride()
    assert sent.all == [(ACKS_AFTER, [1, 2])]
    sent.acks.ride()
    await asyncio.sleep(2 * ACKS_ALONE)
    assert len(sent.all) == 1


@virtual
async def test_they_go_alone_where_nothing_leaves() -> None:
    """Ten seconds after the first of them."""
    sent = Sent()
    await asyncio.sleep(3)
    sent.acks.add(1)
    await asyncio.sleep(5)
    sent.acks.add(2)
    await asyncio.sleep(60)
    assert sent.all == [(3 + ACKS_ALONE, [1, 2])]


@virtual
async def test_many_do_not_wait() -> None:
    """A burst of updates is acknowledged as it comes."""
    sent = Sent()
    for msg_id in range(ACKS_AT_ONCE + 1):
        sent.acks.add(msg_id)
    assert sent.all == [(0.0, list(range(ACKS_AT_ONCE)))]


@virtual
async def test_what_a_lost_link_has_left_goes_over_the_next() -> None:
    """Nothing is sent while there is none; the first message of the next link takes them along."""
    sent = Sent()
    sent.acks.add(1)
    sent.acks.stop()
    await asyncio.sleep(2 * ACKS_ALONE)
    assert sent.all == []
    sent.acks.ride()
    assert [msg_ids for _, msg_ids in sent.all] == [[1]]


@virtual
async def test_a_lost_session_takes_them_along() -> None:
    """Another session's messages are nobody's business."""
    sent = Sent()
    sent.acks.add(1)
    sent.acks.clear()
    await asyncio.sleep(2 * ACKS_ALONE)
    sent.acks.ride()
    assert sent.all == []
