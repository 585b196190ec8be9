"""The daemon's own log: stderr, and two files that rotate. Not the recovery log, which is in recovery.db.

Writing is done by a thread for each place. A full disk, or a terminal that nobody lets scroll, would otherwise stop
the event loop and every account with it; here at most lines are lost, and how many is said.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from supervisor.errors import AccountUnavailable

_MIB = 1 << 20
_WAITING = 10_000  # lines that may wait for a slow place
_GOODBYE = 2.0  # s that a slow place is given at the end
_QUIET = ("pyrogram", "aiosqlite", "asyncio", "aiohttp")  # libraries: warnings only


@contextmanager
def logging_to(folder: Path, *, debug: bool) -> Iterator[None]:
    """Log to stderr and into `folder` inside the ``with``.

    Args:
        folder: created, 0700; takes supervisor.log and errors.log, 0600.
        debug: everything of ours instead of INFO and above.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    stderr = logging.StreamHandler(sys.stderr)
    everything = _PrivateFile(folder / "supervisor.log", maxBytes=10 * _MIB, backupCount=5, delay=True)
    errors = _PrivateFile(folder / "errors.log", maxBytes=5 * _MIB, backupCount=3, delay=True)
    errors.setLevel(logging.ERROR)
    places = [_Background(place) for place in (stderr, everything, errors)]
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    root.handlers[:] = places
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        for place in places:
            place.close()


class _Format(logging.Formatter):
    """``2026-01-31 14:03:22.125 WARNING support-bot: message``; the account is given as ``extra={"account": …}``."""

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(account)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info and isinstance(record.exc_info[1], AccountUnavailable):
            # The library logs what its handlers raise. That their account stopped is no news of where they stood.
            record = logging.makeLogRecord(record.__dict__ | {"exc_info": None, "exc_text": None})
        if getattr(record, "account", None) is None:
            record.account = record.name.removeprefix("supervisor.")
        return super().format(record)


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A rotating file that is its owner's alone from its first moment on."""

    def _open(self) -> IO[Any]:  # type: ignore[override]  # a TextIOWrapper it is
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_CLOEXEC, 0o600)

        return open(self.baseFilename, self.mode, encoding="utf-8", errors="backslashreplace", opener=opener)


class _Background(logging.Handler):
    """Hands lines to another handler from a thread of its own; drops what is too much, and counts it."""

    def __init__(self, place: logging.Handler) -> None:
        super().__init__(place.level)
        self._place = place
        self._format = _Format()
        self._waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(_WAITING)
        self._dropped = 0
        place.setFormatter(logging.Formatter("%(message)s"))
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        # What a record refers to may change: its text is made now.
        line = logging.makeLogRecord(record.__dict__ | {"msg": self._format.format(record), "args": None})
        line.exc_info = line.exc_text = line.stack_info = None
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        deadline = time.monotonic() + _GOODBYE
        try:
            self._waiting.put(None, timeout=_GOODBYE)
        except queue.Full:
            pass
        else:
            with suppress(RuntimeError):  # a signal has come before it was started
                self._thread.join(max(0.0, deadline - time.monotonic()))
        if not self._thread.is_alive():
            self._place.close()
        super().close()

    def _work(self) -> None:
        while (line := self._waiting.get()) is not None:
            if self._dropped:
                number, self._dropped = self._dropped, 0
                line.msg = f"({number} lines were lost: this place was too slow)\n{line.msg}"
            self._place.handle(line)
