"""The dashboard's own life: it comes and goes with its configuration, and nothing of it takes the daemon down."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from aiohttp import web

from supervisor.config.model import Dashboard
from supervisor.control.server import json_errors
from supervisor.dashboard.api import V1, Api
from supervisor.dashboard.desk import Desk
from supervisor.dashboard.guard import guard, harden, token_of
from supervisor.dashboard.pulse import Pulse
from supervisor.dashboard.reads import Reads
from supervisor.dashboard.stream import Stream
from supervisor.installation import TESTED

_log = logging.getLogger(__name__)

_AGAIN = 10.0  # s between two tries to get the port
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_SHUTDOWN = 1.0  # s that requests in flight are given


class DashboardServer:
    """Serves the dashboard wherever the configuration in force wants it.

    A port that another program has is no reason to leave the accounts alone: it is said in the log, once, and tried
    again every ten seconds.

    Args:
        desk: the daemon.
        state_dir: where recovery.db is, and the token that is made up.
        settings: ``[dashboard]``; None: none is wanted.
    """

    def __init__(self, desk: Desk, state_dir: Path, settings: Dashboard | None) -> None:
        self._desk = desk
        self._state_dir = state_dir
        self._wanted = settings
        self._changed = asyncio.Event()

    def follow(self, settings: Dashboard | None) -> None:
        """Go by another ``[dashboard]`` from now on."""
        if settings != self._wanted:
            self._wanted = settings
            self._changed.set()

    async def run(self) -> None:
        """Serve, until this is cancelled."""
        complained = False
        while True:
            self._changed.clear()
            if (settings := self._wanted) is None:
                await self._changed.wait()
                continue
            try:
                async with serving(self._desk, self._state_dir, settings) as address:
                    _log.info("the dashboard is at %s", address)
                    complained = False
                    await self._changed.wait()
                continue
            except OSError as error:
                if not complained:
                    text = "[dashboard] listen %s:%d: %s; the accounts run without it, and it is tried again every %g s"
                    _log.error(text, settings.host, settings.port, error.strerror or error, _AGAIN)
                complained = True
            except Exception:  # noqa: BLE001 - the accounts are not to pay for it
                _log.exception("the dashboard met an error of its own; it begins anew in %g s", _AGAIN)
            await _wait(self._changed, _AGAIN)


@asynccontextmanager
async def serving(desk: Desk, state_dir: Path, settings: Dashboard) -> AsyncIterator[str]:
    """The dashboard, served inside the ``async with``; gives its address for a browser.

    Raises:
        OSError: the port is not to be had, or the token can be neither read nor written.
    """
    token = await asyncio.to_thread(token_of, settings, state_dir)
    about = await asyncio.to_thread(_about)
    # 90 ms of import, in a thread and only where there is a dashboard.
    metrics_module = await asyncio.to_thread(importlib.import_module, "supervisor.dashboard.metrics")
    reads, pulse = Reads(state_dir / "recovery.db"), Pulse()
    stream = Stream(desk, reads, pulse)
    metrics = metrics_module.Metrics(desk, reads, pulse, about, labels=settings.account_metrics)
    await metrics.begin()
    app = web.Application(middlewares=[json_errors, guard(settings, token)])
    app.on_response_prepare.append(harden)
    app.on_shutdown.append(_ending(stream))
    app.add_routes(Api(desk, reads, about).routes())
    app.router.add_get(f"{V1}/events", stream.serve)
    app.router.add_get("/metrics", _told(metrics))
    app.router.add_get("/healthz", _health(desk, pulse))
    app.add_routes(_files())
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN, handler_cancellation=True
    )
    looking = asyncio.create_task(stream.run(), name="dashboard-stream")
    try:
        await runner.setup()
        await web.TCPSite(runner, settings.host, settings.port).start()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield f"http://{host}:{settings.port}/"
    finally:
        pulse.end()
        await runner.cleanup()
        looking.cancel()
        await asyncio.wait([looking])
        await reads.close()


def _ending(stream: Stream) -> Callable[[web.Application], Any]:
    async def end(_: web.Application) -> None:
        stream.close()

    return end


def _told(metrics: Any) -> Callable[[web.Request], Any]:
    async def tell(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=await metrics.text(), headers=headers)

    return tell


def _health(desk: Desk, pulse: Pulse) -> Callable[[web.Request], Any]:
    """That the loop is live is proved by the answer's coming."""

    async def answer(_: web.Request) -> web.Response:
        writable = desk.is_recording()
        found = {"ok": writable, "record_writable": writable, "loop_lag_s": round(pulse.lag, 3)}
        return web.json_response(found, status=200 if writable else 503)

    return answer


def _files() -> list[web.RouteDef]:
    """The page and what belongs to it, from memory: a few kilobytes, and no path of a request leads to the disk."""
    folder = resources.files("supervisor.dashboard").joinpath("static")
    routes = []
    for file in folder.iterdir():
        kind = _KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            path = "/" if file.name == "index.html" else f"/static/{file.name}"
            routes.append(web.get(path, _file(file.read_bytes(), kind)))
    return routes


def _file(content: bytes, kind: str) -> Callable[[web.Request], Any]:
    charset = "utf-8" if kind.startswith("text/") else None

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset=charset)

    return answer


def _about() -> dict[str, str]:
    """The programs at work."""
    for client in TESTED:
        try:
            return {"version": _version(), "client": client, "client_version": metadata.version(client)}
        except metadata.PackageNotFoundError:
            continue
    return {"version": _version(), "client": "unknown", "client_version": "unknown"}


def _version() -> str:
    return metadata.version("tg-supervisor")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
