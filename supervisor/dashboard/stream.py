"""`/api/v1/events`: what changes, as server-sent events. One look a second serves all who watch; none does if nobody does.

event     data
full      everything: {"now", "accounts", "paths", "rows": the newest of the log}; comes first
change    what differs: {"now", "accounts", "removed": names, "paths" (all, if one differs), "rows": new ones}
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from supervisor.control.protocol import ControlError
from supervisor.dashboard import shapes
from supervisor.dashboard.desk import Desk, Live
from supervisor.dashboard.pulse import Pulse
from supervisor.dashboard.reads import Reads
from supervisor.dashboard.shapes import log_json
from supervisor.ports import PathSnapshot
from supervisor.record import queries
from supervisor.record.queries import LogFilter
from supervisor.record.rows import rfc3339
from supervisor.report.status import TOLD, path_json

_log = logging.getLogger(__name__)

EVERY = 1.0  # s
_ALIVE = 15.0  # s; the longest silence: proxies cut connections that say nothing
_VIEWERS = 50
_BEHIND = 60  # changes that a viewer may be behind before having to begin anew
_WRITE = 30.0  # s that one write may take
_ROWS = 60  # of the log, at first
_NEW_ROWS = 200  # of the log, at one look; of more only the newest are shown


@dataclass(eq=False, slots=True)
class _Viewer:
    """Somebody who watches. None in the queue is the end."""

    queue: asyncio.Queue[str | None] = field(default_factory=lambda: asyncio.Queue(_BEHIND + 1))

    def tell(self, event: str) -> bool:
        """Queue an event; whether there was room for it."""
        if self.queue.qsize() >= _BEHIND:
            return False
        self.queue.put_nowait(event)
        return True

    def end(self) -> None:
        """Queue the end; there is always room for it, as it comes once."""
        self.queue.put_nowait(None)


@dataclass(slots=True)
class _Seen:
    """What the viewers have been told."""

    accounts: Mapping[str, object] = field(default_factory=dict)  # all that is told of each
    paths: list[PathSnapshot] = field(default_factory=list)
    newest: int | None = None  # None: not known yet


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of the log, as JSON: those that are new, and for those who have just come the latest."""

    newest: int | None
    new: list[dict[str, Any]] = field(default_factory=list)
    latest: list[dict[str, Any]] = field(default_factory=list)


class Stream:
    """Looks at the daemon and the log for everybody who watches.

    Args:
        desk: the daemon.
        reads: the recovery log.
        pulse: how late the loop is.
    """

    def __init__(self, desk: Desk, reads: Reads, pulse: Pulse) -> None:
        self._desk = desk
        self._reads = reads
        self._pulse = pulse
        self._viewers: set[_Viewer] = set()
        self._joining: set[_Viewer] = set()
        self._wanted = asyncio.Event()
        self._seen = _Seen()
        self._closed = False

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers) + len(self._joining)

    async def run(self) -> None:
        """Look, every second, while somebody watches."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._viewers or self._joining:
                try:
                    await self._look()
                except Exception:  # noqa: BLE001 - the next look may succeed
                    _log.exception("what is to be shown could not be put together; the pages begin anew")
                    self._send_away()
                try:
                    await asyncio.wait_for(self._wanted.wait(), EVERY)
                except TimeoutError:
                    continue
                self._wanted.clear()
            self._seen = _Seen()

    def close(self) -> None:
        """Send everybody away, for good."""
        self._closed = True
        self._send_away()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer somebody who watches, for as long as that lasts."""
        if self.viewers >= _VIEWERS or self._closed:
            text = f"{_VIEWERS} watch already; close a page"
            raise ControlError("not_ready", text, retryable=True, status=503)
        response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        await response.prepare(request)
        viewer = _Viewer()
        self._joining.add(viewer)
        self._wanted.set()
        try:
            while (event := await _next(viewer)) is not None:
                async with asyncio.timeout(_WRITE):
                    await response.write(event.encode())
        except (ConnectionError, TimeoutError):
            pass  # nobody is there any more, or nobody reads
        finally:
            self._viewers.discard(viewer)
            self._joining.discard(viewer)
        return response

    def _send_away(self) -> None:
        for viewer in self._viewers | self._joining:
            viewer.end()
        self._viewers.clear()
        self._joining.clear()

    async def _look(self) -> None:
        live, joining = await self._desk.live(), set(self._joining)
        now = {
            "at": rfc3339(time.time()),
            "uptime_s": round(live.uptime_s, 1),
            "config": dict(live.config),
            "record_writable": live.is_recording,
            "loop_lag_s": round(self._pulse.lag, 3),
            "trouble": None,
        }
        rows = _Rows(self._seen.newest)
        try:
            rows = await self._reads.ask(lambda db: self._rows(db, first=bool(joining)))
        except ControlError as error:  # the accounts' states are known all the same
            now["trouble"] = str(error)
        watched = bool(self._viewers)
        change, full = await self._reads.work(
            lambda: (
                self._change(live, now, rows) if watched else "",
                self._full(live, now, rows) if joining else "",
            )
        )
        self._seen = _Seen({one.name: TOLD(one) for one in live.accounts}, list(live.paths), rows.newest)
        for viewer in self._viewers | joining:
            if not viewer.tell(full if viewer in joining else change):
                self._viewers.discard(viewer)
                viewer.end()
        self._viewers |= self._joining & joining
        self._joining -= joining

    def _rows(self, db: Any, *, first: bool) -> _Rows:
        newest = queries.newest_id(db)
        known = newest if self._seen.newest is None else self._seen.newest
        after = max(min(known, newest), newest - _NEW_ROWS)
        new = queries.log_rows(db, LogFilter(after_id=after), _NEW_ROWS) if newest > after else []
        latest = queries.log_rows(db, LogFilter(), _ROWS) if first else []
        return _Rows(
            max([newest, *(row.id for row in new)]), list(map(log_json, new)), list(map(log_json, latest))
        )

    def _change(self, live: Live, now: dict[str, Any], rows: _Rows) -> str:
        seen = self._seen
        changed = [account for account in live.accounts if seen.accounts.get(account.name) != TOLD(account)]
        names = {account.name for account in live.accounts}
        told: dict[str, Any] = {
            "now": now,
            "accounts": shapes.accounts_json(self._desk, changed),
            "removed": [name for name in seen.accounts if name not in names],
            "rows": rows.new,
        }
        if list(live.paths) != seen.paths:
            told["paths"] = [path_json(path) for path in live.paths]
        return _event("change", told)

    def _full(self, live: Live, now: dict[str, Any], rows: _Rows) -> str:
        told = {
            "now": now,
            "accounts": shapes.accounts_json(self._desk, live.accounts),
            "paths": [path_json(path) for path in live.paths],
            "rows": rows.latest,
        }
        return _event("full", told)


async def _next(viewer: _Viewer) -> str | None:
    try:
        return await asyncio.wait_for(viewer.queue.get(), _ALIVE)
    except TimeoutError:
        return ": still here\n\n"


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {shapes.dumps(data)}\n\n"
