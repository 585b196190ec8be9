"""What comes from many links at once is handled in slices: in order, without loss, and with room for others between."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from supervisor.core.failure import Evidence
from supervisor.telegram import slices
from supervisor.telegram.dial import Route
from supervisor.telegram.slices import Slices
from supervisor.telegram.wire import Wire, frame

ROUTE = Route("direct", "dc.test", 443, None)


async def test_a_burst_is_handled_in_order_over_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty things of 2 ms each, in slices of 5 ms: no pass does more than four, everybody else has his turn between."""
    monkeypatch.setattr(slices, "SLICE", 0.005)
    loop = asyncio.get_running_loop()
    done: list[int] = []

    def work(number: int) -> None:
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            pass
        done.append(number)

    at_once = [Slices.of(loop).do(work, number) for number in range(20)]
    assert at_once[0] is True
    assert at_once[-1] is False
    seen = [len(done)]
    while len(done) < 20:
        await asyncio.sleep(0)
        seen.append(len(done))
    assert done == list(range(20))
    assert max(later - before for before, later in zip([0, *seen], seen, strict=False)) <= 4


async def test_who_comes_later_is_not_handled_before_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is kept between passes too; when all is done, the next is handled at once again."""
    monkeypatch.setattr(slices, "SLICE", 0.0)
    mine, done = Slices.of(asyncio.get_running_loop()), list[str]()
    assert mine.do(done.append, "first")
    assert not mine.do(done.append, "second")
    monkeypatch.setattr(slices, "SLICE", 60.0)
    assert not mine.do(done.append, "third")
    await asyncio.sleep(0)
    assert done == ["first", "second", "third"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert mine.do(done.append, "fourth")


class Transport(asyncio.Transport):
    """Notes whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reading: list[bool] = []

    def pause_reading(self) -> None:
        self.reading.append(False)

    def resume_reading(self) -> None:
        self.reading.append(True)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        raise OSError(name, default)

    def abort(self) -> None: ...


async def test_a_link_whose_data_waits_is_not_read_from_and_lost_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its packets are not dropped, no more of them pile up in memory, and its end is told when they are handled."""
    monkeypatch.setattr(slices, "SLICE", 0.0)
    told: list[bytes | Evidence] = []
    wire, transport = Wire(ROUTE, 1.0, told.append, told.append), Transport()
    wire.connection_made(transport)
    Slices.of(asyncio.get_running_loop()).do(told.clear)  # uses this pass up
    wire.data_received(frame(b"packet__"))
    wire.connection_lost(None)
    assert told == []
    assert transport.reading == [False]
    monkeypatch.setattr(slices, "SLICE", 60.0)
    await asyncio.sleep(0)
    assert told[0] == b"packet__"
    assert isinstance(told[1], Evidence)
    assert transport.reading[-1] is True
    assert wire.closed
