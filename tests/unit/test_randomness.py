"""Random bytes a page at a time: as many as asked for, and nobody gets the same ones."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from supervisor.randomness import PAGE, take


def test_no_two_are_the_same() -> None:
    """Over several pages, and whatever the sizes."""
    found = [take(8 + n % 24) for n in range(5 * PAGE // 16)]
    assert [len(each) for each in found] == [8 + n % 24 for n in range(len(found))]
    assert len({each[:8] for each in found}) == len(found)


def test_a_whole_page() -> None:
    """The most that one may ask for, also where some of a page is used."""
    take(1)
    first, second = take(PAGE), take(PAGE)
    assert len(first) == len(second) == PAGE
    assert first != second


def test_a_page_is_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what it is for: the kernel is asked for every page, not for every number."""
    asked: list[int] = []
    fetch = os.urandom

    def urandom(size: int) -> bytes:
        asked.append(size)
        return fetch(size)

    take(PAGE)  # the page of before is used up
    monkeypatch.setattr(os, "urandom", urandom)
    for _ in range(3 * PAGE // 16):
        take(16)
    assert asked == [PAGE] * 3


def test_threads_have_pages_of_their_own() -> None:
    """What one takes is not what another takes meanwhile."""
    with ThreadPoolExecutor(4) as threads:
        found = [
            each for some in threads.map(lambda _: [take(8) for _ in range(2000)], range(4)) for each in some
        ]
    assert len(set(found)) == len(found)


def _taken(_: int) -> bytes:
    return take(8)


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_begins_a_page_of_its_own() -> None:
    """A plugin may fork: child and parent do not go on with the same bytes."""
    take(8)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        children = pool.map(_taken, range(2), chunksize=1)
    assert take(8) not in children
