"""What a call costs: the steps that the supervisor adds to the library's own, counted, for time would tell of the machine."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pyrogram import raw

import supervisor
from supervisor.datacenter import Datacenter
from supervisor.telegram.packets import Crypt
from tests.integration.conftest import PERSON, Fleet

pytestmark = pytest.mark.timeout(60)

OURS = str(Path(supervisor.__file__).parent), contextlib.__file__
NOT_OURS = str(Path(supervisor.__file__).parent / "datacenter")
AT_ONCE = 25


class Steps:
    """What is counted: steps into functions of ours, packets encrypted, asynchronous generators begun."""

    def __init__(self) -> None:
        self.steps = self.packets = self.generators = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        sys.setprofile(self._step)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _step(self, frame: FrameType, event: str, _argument: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename.startswith(OURS) and not code.co_filename.startswith(NOT_OURS):
            self.steps += 1
            self.packets += code is Crypt.seal.__code__
        elif code.co_name == "_asyncgen_firstiter_hook":
            self.generators += 1


@pytest.mark.parametrize(("what", "steps"), [("state", 85), ("send", 115)])
async def test_a_call_among_many_takes_few_steps(
    fleet: Callable[..., Fleet], dc: Datacenter, what: str, steps: int
) -> None:
    """Each takes one packet, few steps of ours, and nothing that the event loop has to keep books of."""
    async with fleet().running() as sup:
        client: Any = await sup.client("bot-0")
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "state": lambda: client.invoke(raw.functions.updates.GetState()),
            "send": lambda: client.send_message(PERSON, "text"),
        }
        await calls[what]()
        counting = Steps()
        with counting.counted():
            await asyncio.gather(*(calls[what]() for _ in range(AT_ONCE)))
        assert counting.steps <= steps * AT_ONCE
        assert AT_ONCE <= counting.packets <= AT_ONCE + 5  # acknowledgements are gathered
        assert counting.generators < AT_ONCE  # the event loop keeps a list of each: the dearest step of all
