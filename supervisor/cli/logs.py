"""The daemon's own log: stderr, and two files that rotate. Not the recovery log, which is in recovery.db.

A line is made once, and written by a thread for each place. A full disk, or a terminal that nobody lets scroll, would
otherwise stop the event loop and every account with it; here at most lines are lost, and how many is said.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from supervisor.errors import AccountUnavailable

_MIB = 1 << 20
_WAITING = 10_000  # lines that may wait for a slow place
_GOODBYE = 2.0  # s that a slow place is given at the end
_OURS = "supervisor"
# Libraries, which tell of what they do, and at length: warnings only, --debug or not. Others are heard from INFO on.
_QUIET = ("pyrogram", "aiosqlite", "asyncio", "aiohttp", "watchfiles", "urllib3", "requests")
_SILENT = ("apprise", "sentry_sdk")  # their lines show what their urls hold; what comes of it is said by us

Style = Literal["text", "json"]


@contextmanager
def logging_to(folder: Path, *, debug: bool, style: Style = "text") -> Iterator[None]:
    """Log to stderr and into `folder` inside the ``with``.

    Args:
        folder: created, 0700; takes supervisor.log and errors.log, 0600.
        debug: everything of ours instead of INFO and above: with the causes of failures, and what the network does.
        style: lines for people, or one JSON object a line.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    stderr = logging.StreamHandler(sys.stderr)
    everything = _PrivateFile(folder / "supervisor.log", maxBytes=10 * _MIB, backupCount=5, delay=True)
    errors = _PrivateFile(folder / "errors.log", maxBytes=5 * _MIB, backupCount=3, delay=True)
    errors.setLevel(logging.ERROR)
    formatter = _Json() if style == "json" else _Text()
    places = [_Background(place, formatter) for place in (stderr, everything, errors)]
    root = logging.getLogger()
    levels = {"": logging.INFO, _OURS: logging.DEBUG if debug else logging.INFO}
    levels |= dict.fromkeys(_QUIET, logging.WARNING) | dict.fromkeys(_SILENT, logging.CRITICAL)
    handlers, before = root.handlers[:], {name: logging.getLogger(name).level for name in levels}
    root.handlers[:] = [_Lines(places, formatter)]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        root.handlers[:] = handlers
        for place in places:
            place.close()


class _Text(logging.Formatter):
    """``2026-01-31 14:03:22.125 WARNING support-bot: message``; the account is given as ``extra={"account": …}``."""

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(account)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        account, message = _told(record)
        whose = account or record.name.removeprefix(f"{_OURS}.")
        values = {"account": whose, "msg": message, "args": None}
        if _is_no_news(record):
            values |= {"exc_info": None, "exc_text": None}
        return super().format(logging.makeLogRecord(record.__dict__ | values))


class _Json(logging.Formatter):
    """``{"at":"2026-01-31T13:03:22.125Z","level":"warning","logger":…,"account":…,"message":…,"traceback":…}``."""

    def format(self, record: logging.LogRecord) -> str:
        account, message = _told(record)
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        shown = record.exc_info and not _is_no_news(record)
        line = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "account": account,
            "message": message,
            "traceback": self.formatException(record.exc_info) if record.exc_info and shown else None,
        }
        return json.dumps(line, ensure_ascii=False)


def _told(record: logging.LogRecord) -> tuple[str | None, str]:
    """The account, if it is one's, and the message without its name."""
    account, message = getattr(record, "account", None), record.getMessage()
    return account, message.removeprefix(f"{account}: ") if account else message


def _is_no_news(record: logging.LogRecord) -> bool:
    """The library logs what its handlers raise: where they stood when their account stopped is of no use."""
    return bool(record.exc_info) and isinstance(record.exc_info[1], AccountUnavailable)  # type: ignore[index]


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A rotating file that is its owner's alone from its first moment on."""

    def _open(self) -> IO[Any]:  # type: ignore[override]  # a TextIOWrapper it is
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_CLOEXEC, 0o600)

        return open(self.baseFilename, self.mode, encoding="utf-8", errors="backslashreplace", opener=opener)


class _Lines(logging.Handler):
    """Makes a line of a record, once, and hands it to the places that want it."""

    def __init__(self, places: list[_Background], formatter: logging.Formatter) -> None:
        super().__init__()
        self._places = places
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        # What a record refers to may change: its text is made now.
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a line that cannot be made must not stop whoever wrote it
            self.handleError(record)
            return
        for place in self._places:
            if record.levelno >= place.level:
                place.put(line)


class _Background:
    """Writes lines from a thread of its own; drops what is too much, and counts it."""

    def __init__(self, place: logging.Handler, formatter: logging.Formatter) -> None:
        self.level = place.level
        self._place = place
        self._formatter = formatter
        self._waiting: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
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

    def _work(self) -> None:
        while (line := self._waiting.get()) is not None:
            if self._dropped:
                number, self._dropped = self._dropped, 0
                lost = _record(f"{number} lines were lost: this place was too slow")
                self._place.handle(_record(self._formatter.format(lost)))
            self._place.handle(_record(line))


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None)
