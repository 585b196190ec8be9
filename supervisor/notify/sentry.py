"""Sentry, for whoever wants it: faults of tg-supervisor itself, and what is fatal; no personal data.

An event is built here of what may be told, and of nothing else: what sort of error it is, its text without anything
that could name somebody, and where in the code it was, without the values there.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import deque
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any, Final

from supervisor.config.model import Sentry as SentryConfig
from supervisor.core.codes import CODES
from supervisor.core.notices import Notice
from supervisor.core.scrub import anonymous

_OURS: Final = "supervisor"
# So many events an hour: a fault may repeat a thousand times a second.
_MOST, _HOUR = 30, 3600.0
_FRAMES, _CHAIN = 50, 10
_GOODBYE = 1.0  # s
_TOLD: Final = (
    "event_id",
    "timestamp",
    "level",
    "platform",
    "release",
    "environment",
    "logger",
    "message",
    "exception",
    "tags",
)


class Sentry:
    """Sends what is fatal (sinks.Sender), and each fault that our own loggers report."""

    tries, per_try = 1, 10.0

    def __init__(self, configured: SentryConfig) -> None:
        """Connect; made inside a running loop.

        Args:
            configured: where to.
        """
        import sentry_sdk

        logging.getLogger("sentry_sdk").setLevel(
            logging.CRITICAL
        )  # it would tell of its own troubles through us
        self._loop = asyncio.get_running_loop()
        self._sent: deque[float] = deque(maxlen=_MOST)
        self._client = sentry_sdk.Client(
            dsn=configured.dsn.reveal(),
            environment=configured.environment or "production",
            release=_release(),
            before_send=_strip,
            default_integrations=False,
            auto_enabling_integrations=False,
            send_client_reports=False,
            auto_session_tracking=False,
            max_breadcrumbs=0,
            server_name="",
        )
        self._faults = _Faults(self)
        logging.getLogger(_OURS).addHandler(self._faults)

    async def send(self, notice: Notice, _at: float) -> None:
        """What is fatal, by its number; not whom it concerns."""
        for number in () if notice.resolved else notice.codes:
            code = CODES[number]
            tags = {"code": f"{number} {code.name}"}
            self._capture({"level": "fatal", "message": code.says, "tags": tags})

    def fault(self, error: BaseException, logger: str = _OURS) -> None:
        """Tell of an error of our own."""
        chain: list[BaseException] = []
        link: BaseException | None = error
        while link is not None and link not in chain and len(chain) < _CHAIN:
            chain.append(link)
            link = link.__cause__ or link.__context__
        values = [_exception(link) for link in reversed(chain)]
        self._capture({"level": "error", "logger": logger, "exception": {"values": values}})

    async def close(self) -> None:
        """Send what waits, for a short while."""
        logging.getLogger(_OURS).removeHandler(self._faults)
        await asyncio.to_thread(self._client.close, timeout=_GOODBYE)

    def _capture(self, event: Any) -> None:
        now = self._loop.time()
        if len(self._sent) == _MOST and now - self._sent[0] < _HOUR:
            return
        self._sent.append(now)
        self._client.capture_event(event | {"platform": "python"})


class _Faults(logging.Handler):
    """A line of ours with a traceback is a fault of ours: what a bot's own code raises is only recorded."""

    def __init__(self, sentry: Sentry) -> None:
        super().__init__(logging.ERROR)
        self._sentry = sentry

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._sentry.fault(record.exc_info[1], record.name)


def _exception(error: BaseException) -> dict[str, Any]:
    frames = [
        {
            "module": frame.f_globals.get("__name__"),
            "filename": PurePath(frame.f_code.co_filename).name,
            "function": frame.f_code.co_name,
            "lineno": line,
            "in_app": str(frame.f_globals.get("__name__")).partition(".")[0] == _OURS,
        }
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return {
        "type": type(error).__name__,
        "module": type(error).__module__,
        "value": anonymous(str(error)),
        "stacktrace": {"frames": frames[-_FRAMES:]},
    }


def _strip(event: Any, _hint: Mapping[str, Any]) -> Any:
    """What the client library has added goes again."""
    return {key: event[key] for key in _TOLD if key in event}


def _release() -> str:
    try:
        return f"tg-supervisor@{version('tg-supervisor')}"
    except PackageNotFoundError:  # run from the source
        return "tg-supervisor"
