"""Waves of server errors: one account's is its call's own, many accounts' slow their path down. Virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from supervisor.core.classify import classify
from supervisor.core.failure import Evidence, Failure, Result, Scope, Source
from supervisor.outages import Fleet, Outages
from supervisor.waves import Waves
from tests.unit.fakes import FakeClock, FakeRecorder, virtual

POPULATION = {"de1": 10, "nl3": 10}


def answered(code: int = 500, error_id: str = "INTERNAL", path: str = "de1") -> Failure:
    return classify(Evidence(Source.RPC, error_id, error_id, code, method="users.GetUsers", path=path))


@pytest.fixture
def waves(recorder: FakeRecorder, clock: FakeClock) -> Waves:
    fleet = Fleet(lambda: POPULATION, lambda _: False, lambda _: None)
    outages = Outages(recorder, clock, fleet, new_id=lambda: "o1", stable_after=60.0)
    return Waves(outages, clock, lambda: POPULATION, jitter=lambda: 0.0)


def rows(recorder: FakeRecorder) -> list[tuple[str | None, Scope, Result]]:
    return [(row.account, row.scope, row.outcome) for row in recorder.rows]


@virtual
async def test_one_account_makes_no_wave(waves: Waves, recorder: FakeRecorder) -> None:
    """However many of its calls meet it; nor do many within a minute, nor errors that are not the server's."""
    assert [waves.met("a", "de1", answered()) for _ in range(100)] == [None] * 100
    for n in range(10):
        await asyncio.sleep(6.0)
        assert waves.met(f"bot{n}", "de1", answered()) is None
    for n in range(10):
        assert waves.met(f"bot{n}", "de1", answered(400, "PEER_ID_INVALID")) is None
    assert recorder.rows == []


@virtual
async def test_many_accounts_are_slowed_down_together(waves: Waves, recorder: FakeRecorder) -> None:
    """1, 2, 4 … s, at most 30; one row for all, and one when it has been quiet."""
    assert [waves.met(f"bot{n}", "de1", answered()) for n in range(2)] == [None, None]
    delays: list[float] = []
    for n in range(120):
        found = waves.met(f"bot{n % 6}", "de1", answered())
        if found is not None:
            delays.append(found)
        await asyncio.sleep(1.0)
    assert (delays[0], delays[-1]) == (1.0, 30.0)
    assert all(a <= b <= 2 * a for a, b in pairwise(delays))
    assert rows(recorder) == [(None, Scope.PATH, Result.RETRYING)]
    assert waves.met("other", "nl3", answered(path="nl3")) is None  # another path is not slowed
    await asyncio.sleep(100.0)
    assert rows(recorder)[1:] == [(None, Scope.PATH, Result.RECOVERED)]
    (last,) = [row for row in recorder.incidents if row.closed_at is not None]
    assert set(last.accounts) == {f"bot{n}" for n in range(6)}
    assert waves.met("bot0", "de1", answered()) is None


@virtual
async def test_a_wave_over_all_paths_is_telegrams(waves: Waves, recorder: FakeRecorder) -> None:
    """One row of scope fleet; over when the last path is quiet."""
    for n in range(20):
        waves.met(f"bot{n}", ("de1", "nl3")[n % 2], answered(path=("de1", "nl3")[n % 2]))
    await asyncio.sleep(3.0)
    assert rows(recorder) == [(None, Scope.FLEET, Result.RETRYING)]
    assert recorder.rows[0].message.startswith("20 accounts at once")
    assert waves.met("bot1", "nl3", answered(path="nl3")) is not None
    await asyncio.sleep(30.0)
    assert rows(recorder)[-1] == (None, Scope.FLEET, Result.RECOVERED)


@virtual
async def test_a_stop_ends_the_waiting_for_quiet(waves: Waves, recorder: FakeRecorder) -> None:
    """The outage stays open for the next run."""
    for n in range(3):
        waves.met(f"bot{n}", "de1", answered())
    await asyncio.sleep(1.5)
    waves.close()
    await asyncio.sleep(60.0)
    assert rows(recorder) == [(None, Scope.PATH, Result.RETRYING)]
