"""Keeps the search for cyclic garbage from holding up the event loop.

Python looks through all that lives now and then. With a thousand accounts that is over a million objects and half a
second, in which nobody is answered; and hardly any of them will ever be garbage. What has survived a long search is
not searched again, so that each search costs what has come since.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

# CPU seconds that a search may take before what it has found alive is left out of the next ones.
LONG = 0.01
# When to search (https://docs.python.org/3/library/gc.html#gc.set_threshold): seldom enough that most of what a thousand new
# links need for a moment is gone by itself, often enough that no search takes long.
THRESHOLDS = 5000, 2, 1
_OLDEST = 2  # the generation whose search looks at everything


@contextmanager
def bounded() -> Iterator[None]:
    """Bound the searches inside the ``with``; all that lives at its beginning is left out at once."""
    was_frozen = gc.get_freeze_count() > 0  # by somebody else, who has his reasons
    thresholds = gc.get_threshold()
    search = _Search()
    gc.freeze()
    gc.collect()  # Python searches all when what is new is a quarter of what the last search has found: nothing, by now
    gc.set_threshold(*THRESHOLDS)
    gc.callbacks.append(search)
    try:
        yield
    finally:
        gc.callbacks.remove(search)
        gc.set_threshold(*thresholds)
        if not was_frozen:
            gc.unfreeze()


@contextmanager
def unsearched() -> Iterator[None]:
    """No searches inside the ``with``: nothing that is made there will be garbage soon."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Search:
    """Takes the time of each full search (https://docs.python.org/3/library/gc.html#gc.callbacks)."""

    def __init__(self) -> None:
        self._begun = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] != _OLDEST:
            return
        if phase == "start":
            self._begun = time.thread_time()
        elif time.thread_time() - self._begun > LONG:
            gc.freeze()
