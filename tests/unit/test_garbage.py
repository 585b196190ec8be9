"""The search for garbage is bounded while a supervisor runs, and as it was before and after."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest

from supervisor import garbage


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def longest_search() -> float:
    begun = time.perf_counter()
    gc.collect()
    return time.perf_counter() - begun


def test_what_survives_a_long_search_is_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that a long search has found alive are left out of the next ones, which take a fraction of its time."""
    with garbage.bounded():
        alive = [[number] for number in range(400_000)]
        monkeypatch.setattr(garbage, "LONG", 0.0)
        first = longest_search()
        frozen = gc.get_freeze_count()
        assert frozen >= len(alive)
        assert min(longest_search() for _ in range(3)) < first / 5


def test_a_short_search_leaves_everything_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbage is found as ever where the searches are short: nothing but what lived at the beginning is left out."""
    monkeypatch.setattr(garbage, "LONG", 60.0)
    with garbage.bounded():
        before = gc.get_freeze_count()
        loop: list[object] = []
        loop.append(loop)
        del loop
        assert gc.collect() >= 1
        assert gc.get_freeze_count() <= before


def test_everything_is_as_before_in_the_end() -> None:
    """Thresholds, callbacks and the searched objects are what they were, even after a failure."""
    before = gc.get_threshold(), list(gc.callbacks)
    with pytest.raises(ValueError, match="over"), garbage.bounded():
        assert gc.get_threshold() == garbage.THRESHOLDS
        assert gc.get_freeze_count() > 0
        raise ValueError("over")
    assert (gc.get_threshold(), list(gc.callbacks)) == before
    assert gc.get_freeze_count() == 0


def test_what_somebody_else_has_frozen_stays_frozen() -> None:
    """Who has frozen objects before finds them so afterwards."""
    gc.freeze()
    with garbage.bounded():
        pass
    assert gc.get_freeze_count() > 0


def test_nothing_is_searched_while_accounts_are_built() -> None:
    """What is made then is no garbage; what is garbage is found after it, unless nobody ever searched."""
    thresholds = gc.get_threshold()
    gc.set_threshold(10, 1, 1)
    searches: list[str] = []

    def count(phase: str, _info: dict[str, int]) -> None:
        searches.append(phase)

    gc.callbacks.append(count)
    try:
        with garbage.unsearched():
            alive = [[number] for number in range(1000)]
            assert searches == []
        alive += [[number] for number in range(1000)]
        assert searches
        gc.disable()
        with garbage.unsearched():
            pass
        assert not gc.isenabled()
    finally:
        gc.callbacks.remove(count)
        gc.set_threshold(*thresholds)
        gc.enable()
