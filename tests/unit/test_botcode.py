"""A bot's own `main`: found, run, started again, given up. Virtual time, in seconds; jitter is 0."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Any

import pytest

from supervisor.botcode import MainNotFound, find_main, keep_running
from tests.unit.fakes import FakeClock, virtual

CLIENT = object()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType("a_bot_of_the_tests")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


class Bot:
    """Raises what the script holds, each after so many seconds of running; then it returns."""

    def __init__(self, *script: tuple[float, Exception]) -> None:
        self.script = list(script)
        self.begun: list[float] = []
        self.crashes: list[BaseException] = []

    async def main(self, client: Any) -> None:
        assert client is CLIENT
        self.begun.append(asyncio.get_running_loop().time() - 1000.0)
        if self.script:
            seconds, error = self.script.pop(0)
            await asyncio.sleep(seconds)
            raise error

    async def run(self, clock: FakeClock) -> None:
        await keep_running(self.main, CLIENT, "bot", clock, jitter=lambda: 0.0, crashed=self.crashes.append)


def test_main_is_found_by_module_and_function(module: ModuleType) -> None:
    """The module and the function, with a colon between."""

    async def go(client: Any) -> None:
        """Do nothing."""

    module.go = go  # type: ignore[attr-defined]
    assert find_main("a_bot_of_the_tests:go") is go


def test_a_missing_module_is_named() -> None:
    """The message says what could not be imported, and which key says so."""
    with pytest.raises(MainNotFound, match='main = "no_such_bot:main": cannot import no_such_bot: No module'):
        find_main("no_such_bot:main")


@pytest.mark.parametrize(
    "spec", ["a_bot_of_the_tests:nothing", "a_bot_of_the_tests:plain", "a_bot_of_the_tests"]
)
def test_what_is_no_coroutine_function_is_refused(module: ModuleType, spec: str) -> None:
    """A function that would block everybody is not called."""
    module.plain = print  # type: ignore[attr-defined]
    with pytest.raises(MainNotFound, match=r'a_bot_of_the_tests has no "async def'):
        find_main(spec)


@virtual
async def test_a_main_that_returns_is_done(clock: FakeClock) -> None:
    """It is not begun again."""
    bot = Bot()
    await bot.run(clock)
    assert (bot.begun, bot.crashes) == ([0.0], [])


@virtual
async def test_a_crash_is_told_and_main_begun_again_after_a_growing_delay(clock: FakeClock) -> None:
    """1, 2, 4 s."""
    errors = [ValueError("a"), KeyError("b"), OSError("c")]
    bot = Bot(*[(0.0, error) for error in errors])
    await bot.run(clock)
    assert bot.crashes == errors
    assert bot.begun == [0.0, 1.0, 3.0, 7.0]


@virtual
async def test_crashes_long_ago_are_forgotten(clock: FakeClock) -> None:
    """One an hour is begun again a second later, for ever."""
    bot = Bot(*[(3600.0, ValueError())] * 8)
    await bot.run(clock)
    assert bot.begun == [n * 3601.0 for n in range(9)]


@virtual
async def test_a_main_that_keeps_crashing_is_given_up(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Six crashes in ten minutes, no seventh; and that is said."""
    bot = Bot(*[(0.0, ValueError())] * 9)
    await bot.run(clock)
    assert bot.begun == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0]
    assert "bot: main crashed 6 times in 600 s and is stopped; the account stays online" in caplog.messages


@virtual
async def test_a_main_is_cancelled_with_its_account(clock: FakeClock) -> None:
    """Neither a crash nor a reason to begin again."""
    bot = Bot((3600.0, ValueError()))
    task = asyncio.create_task(bot.run(clock))
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert (bot.begun, bot.crashes) == ([0.0], [])
