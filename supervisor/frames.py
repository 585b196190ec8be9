"""Whose code is it? Places in the code, named for people: file, line and function, never a value."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

# Of one failure.
MOST = 5

_STDLIB = tuple(path + os.sep for path in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_CLIENT = f"{os.sep}pyrogram{os.sep}"
_OURS = str(Path(__file__).parent) + os.sep

_Place = tuple[CodeType, int]


def running(frame: FrameType | None) -> Sequence[str]:
    """Where a thread is, outermost first: the places of an operator's own code, or else the very innermost."""
    places = _stack(frame)
    return _told(places) or tuple(map(_named, places[-1:]))


def own(frame: FrameType | None) -> Sequence[str]:
    """Where in the operator's own code a thread is, outermost first; empty if it is elsewhere."""
    return _told([place for place in _stack(frame) if _distance(place[0].co_filename) == 0])


def awaiting(coroutine: Any) -> Sequence[str]:
    """Where a coroutine waits, outermost first; see `running`."""
    places: list[_Place] = []
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        places.append((frame.f_code, frame.f_lineno))
        coroutine = coroutine.cr_await
    return _told(places) or tuple(map(_named, places[-1:]))


def of(error: BaseException) -> Sequence[str]:
    """Where in the operator's own code an exception came from, outermost first; empty if it came from elsewhere."""
    return _told([(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)])


def _stack(frame: FrameType | None) -> Sequence[_Place]:
    return [(each.f_code, line) for each, line in reversed(list(traceback.walk_stack(frame)))]


def _told(places: Sequence[_Place]) -> Sequence[str]:
    """The places that say most: the operator's own code, or else what it has installed."""
    nearest = min((_distance(code.co_filename) for code, _ in places), default=_FAR)
    chosen = [place for place in places if _distance(place[0].co_filename) == nearest < _FAR]
    return tuple(map(_named, chosen[-MOST:]))


def _named(place: _Place) -> str:
    code, line = place
    return f"{code.co_filename}:{line} in {code.co_qualname}"


_FAR = 2


def _distance(path: str) -> int:
    if path.startswith((_OURS, "<frozen")) or _CLIENT in path:
        return _FAR
    if any(mark in path for mark in _INSTALLED):
        return 1
    return _FAR if path.startswith(_STDLIB) else 0
