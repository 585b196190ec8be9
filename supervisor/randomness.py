"""Random bytes of the kernel's, fetched a page at a time: one fetch is one system call, however many bytes it brings."""

from __future__ import annotations

import os
import threading

PAGE = 4096  # bytes


class _Page(threading.local):
    """What is left of a page, each thread's own: nobody gets bytes that somebody else has had."""

    def __init__(self) -> None:
        self.bytes = b""
        self.at = 0


_page = _Page()


def take(size: int) -> bytes:
    """So many random bytes, good for anything but a long-lived key.

    Args:
        size: how many, at most `PAGE`.
    """
    start, end = _page.at, _page.at + size
    if end > len(_page.bytes):
        _page.bytes = os.urandom(PAGE)
        start, end = 0, size
    _page.at = end
    return _page.bytes[start:end]


def _forget() -> None:
    _page.bytes = b""


os.register_at_fork(after_in_child=_forget)  # or parent and child would have the same
