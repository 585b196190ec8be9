"""The dashboard, served from a stand-in for the daemon, and somebody who asks it."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from supervisor.config.model import Dashboard, Secret
from supervisor.dashboard.server import serving
from tests.unit.dashboard.made_up import Desk

TOKEN = "a-token-of-the-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
OPENAPI = json.loads(resources.files("supervisor.dashboard").joinpath("openapi.json").read_text("utf-8"))

_REGISTRY: Registry[Any] = Registry().with_resource("urn:api", Resource.from_contents(
    OPENAPI | {"$schema": "https://json-schema.org/draft/2020-12/schema"}))  # fmt: skip


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Asked:
    """An answer."""

    status: int
    headers: Any
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class Asking:
    """Asks one dashboard."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self.token = TOKEN

    async def request(self, method: str, path: str, **more: Any) -> Asked:
        """Ask, with the token unless other headers are given."""
        more.setdefault("headers", BEARER)
        async with self.session.request(method, self.url + path.removeprefix("/"), **more) as answer:
            return Asked(answer.status, answer.headers, await answer.text())

    async def get(self, path: str, **more: Any) -> Asked:
        return await self.request("GET", path, **more)

    async def order(self, name: str, *accounts: str) -> Asked:
        """Command something."""
        return await self.request("POST", f"api/v1/actions/{name}", json={"accounts": accounts})


@asynccontextmanager
async def asking(desk: Desk, state_dir: Path, **settings: Any) -> AsyncIterator[Asking]:
    """The dashboard of a daemon, served, and somebody who asks it."""
    wanted = Dashboard("127.0.0.1", free_port(), **{"token": Secret(TOKEN), **settings})
    async with serving(desk, state_dir, wanted) as url, aiohttp.ClientSession() as session:
        yield Asking(session, url)


def check_described(template: str, method: str, answer: Asked) -> None:
    """Fail unless the answer is what openapi.json says of it."""
    described = OPENAPI["paths"][template][method.lower()]["responses"]
    status = str(answer.status) if str(answer.status) in described else "default"
    kind = answer.headers["Content-Type"].partition(";")[0]
    assert kind in described[status]["content"], (template, answer.status, kind)
    check_schema(["paths", template, method.lower(), "responses", status, "content", kind, "schema"],
                 answer.json() if kind == "application/json" else answer.text)  # fmt: skip


def check_schema(place: list[str], value: Any) -> None:
    """Fail unless a value is as the schema at some place of openapi.json wants it."""
    pointer = "/".join(part.replace("~", "~0").replace("/", "~1") for part in place)
    validator = Draft202012Validator({"$ref": f"urn:api#/{pointer}"}, registry=_REGISTRY)
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    assert problems == []
