"""Rows of a table that are played at once, in one event loop that is watched, and then judged one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from supervisor.core.failure import DEFAULT_POLICIES
from supervisor.datacenter import Datacenter
from tests.integration.watch import watched

T = TypeVar("T")

# The timings of a table's rows: a fifth of the defaults.
FIFTH: dict[str, Any] = {
    "connect_timeout": 2.0,
    "answer_timeout": 3.0,
    "silence_timeout": 2.0,
    "stable_after": 12.0,
}
POLICIES = {
    kind: replace(policy, base_delay=policy.base_delay / 5) for kind, policy in DEFAULT_POLICIES.items()
}

# How many are played at once, and the seconds between two beginnings: what starts together blocks the loop together.
AT_ONCE, STAGGER = 14, 0.05


@dataclass
class Played:
    """What became of each row, by its id, and what the watch around them all has to say."""

    stories: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, BaseException] = field(default_factory=dict)
    watch: AssertionError | None = None

    def of(self, row: str) -> Any:
        """One row's story; raises what went wrong in it."""
        if row in self.errors:
            raise self.errors[row]
        return self.stories[row]

    def judge_watch(self) -> None:
        """Raise what the watch has seen."""
        if self.watch is not None:
            raise self.watch


def play_together(rows: Mapping[str, Callable[[], Awaitable[Any]]]) -> Played:
    """Play all rows in an event loop of their own.

    Args:
        rows: by id; those that last longest first.
    """
    return asyncio.run(_play(rows))


async def _play(rows: Mapping[str, Callable[[], Awaitable[Any]]]) -> Played:
    played, room, heard = Played(), asyncio.Semaphore(AT_ONCE), list[str]()
    Datacenter()  # its RSA key is made once in a process, and takes a tenth of a second

    async def one(number: int, row: str, play: Callable[[], Awaitable[Any]]) -> None:
        await asyncio.sleep(number * STAGGER)
        async with room:
            try:
                played.stories[row] = await play()
            except (Exception, pytest.fail.Exception) as error:
                played.errors[row] = error

    asyncio.get_running_loop().set_exception_handler(lambda _, told: heard.append(str(told)))
    try:
        async with watched(), asyncio.TaskGroup() as group:
            for number, (row, play) in enumerate(rows.items()):
                group.create_task(one(number, row, play), name=f"row:{row}")
        assert not heard
    except AssertionError as error:
        played.watch = error
    return played


def asked_for(request: pytest.FixtureRequest, rows: Sequence[T]) -> list[T]:
    """The rows of the module's tests that were chosen to run; all, where what is chosen is about all of them."""
    specs = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    chosen = [each.params["row"] for each in specs if each is not None and "row" in each.params]
    return chosen or list(rows)
