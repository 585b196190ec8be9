"""A web server of this machine that keeps what it is sent, and answers as a test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web


@dataclass
class Answer:
    """What is answered: after `delay` seconds, with `status`."""

    status: int = 200
    body: Mapping[str, Any] = field(default_factory=lambda: {"ok": True})
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass
class Listener:
    """Listens at `url` inside ``async with``. `answers` are given one after another, then a good one for ever."""

    port: int = 0
    answers: list[Answer] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 22)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.times.append(time.monotonic())
        raw = await request.read()
        self.raw.append(raw)
        self.paths.append(request.path)
        if request.content_type == "application/json":
            self.bodies.append(await request.json())
        answer = self.answers.pop(0) if self.answers else Answer()
        await asyncio.sleep(answer.delay)
        return web.json_response(answer.body, status=answer.status, headers=answer.headers)

    def told(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The bodies so far that are such."""
        return [body for body in self.bodies if wanted(body)]
