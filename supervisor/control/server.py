"""The daemon's end of the socket. A command is one line in `ROUTES`."""

from __future__ import annotations

import inspect
import json
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from supervisor.control.address import short
from supervisor.control.protocol import ControlError
from supervisor.errors import ConfigError, LoginRefused
from supervisor.ports import Control

_log = logging.getLogger(__name__)

_SHUTDOWN = 1.0  # s that requests in flight are given when the daemon stops
# HTTP statuses of a sign-in's refusals; any other means that the account is in no state for it.
_REFUSED = {
    "bad_request": 400,
    "unknown_account": 404,
    "configuration": 422,
    "budget": 429,
    "flood": 429,
    "not_ready": 503,
    "timeout": 504,
}

Answer = Mapping[str, Any] | str  # an object, or its JSON


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that can be asked of the daemon.

    Args:
        method: ``GET`` to ask, ``POST`` to command.
        name: what follows ``/v1/``.
        call: given the daemon's `Control` and the request's JSON object, returns the answer or an awaitable of it;
            raises ControlError to refuse.
    """

    method: str
    name: str
    call: Callable[[Control, Mapping[str, Any]], Answer | Awaitable[Answer]]


async def _status(control: Control, _: Mapping[str, Any]) -> Answer:
    return await control.status_json()


def _order(verb: str) -> Callable[[Control, Mapping[str, Any]], Awaitable[Answer]]:
    """A command that is given to accounts by their names."""

    async def order(control: Control, body: Mapping[str, Any]) -> Answer:
        return {"schema": 1, "accounts": await getattr(control, verb)(_accounts(verb, body))}

    return order


def _accounts(verb: str, body: Mapping[str, Any]) -> list[str]:
    accounts = body.get("accounts")
    if not isinstance(accounts, list) or not accounts or not all(isinstance(name, str) for name in accounts):
        raise ControlError("bad_request", f"{verb} takes accounts, a list of names or patterns")
    return accounts


async def _rotate(control: Control, body: Mapping[str, Any]) -> Answer:
    to = body.get("to")
    if to is not None and not isinstance(to, str):
        raise ControlError("bad_request", "rotate takes to, the name of a proxy")
    return {"schema": 1, "accounts": await control.rotate(_accounts("rotate", body), to)}


async def _login(control: Control, body: Mapping[str, Any]) -> Answer:
    fields = [body.get(key, "") for key in ("account", "step", "text")]
    if not all(isinstance(value, str) for value in fields):
        raise ControlError("bad_request", "account, step and text of a login are strings")
    try:
        return await control.login(*fields)
    except LoginRefused as refused:
        context = {"wait_s": refused.wait}
        raise ControlError(
            refused.code,
            str(refused),
            retryable=refused.retryable,
            context=context,
            status=_REFUSED.get(refused.code, 409),
        ) from None


async def _reload(control: Control, _: Mapping[str, Any]) -> Answer:
    try:
        return (await control.reload()).json()
    except ConfigError as error:
        context = {"problems": error.problems}
        raise ControlError("config_invalid", str(error), context=context, status=422) from None


ROUTES: tuple[Route, ...] = (
    Route("GET", "status", _status),
    Route("POST", "login", _login),
    Route("POST", "reload", _reload),
    Route("POST", "rotate", _rotate),
    *(Route("POST", verb, _order(verb)) for verb in ("pause", "resume", "retry")),
)


class ControlServer:
    """Serves a `Control` at a Unix socket, 0600, inside ``async with``.

    The caller holds the state directory's lock, so a socket that lies there is a dead daemon's, and is replaced.

    Args:
        path: ``state_dir/control.sock``, of any length.
        control: the daemon.
        routes: what may be asked.

    Raises:
        ConfigError: (on entering) there is something at `path` that is no socket, or it cannot be created.
    """

    def __init__(self, path: Path, control: Control, routes: Sequence[Route] = ROUTES) -> None:
        self._path = path
        self._control = control
        app = web.Application(middlewares=[json_errors])
        for route in routes:
            app.router.add_route(route.method, f"/v1/{route.name}", self._handler(route))
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN, handler_cancellation=True
        )

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            listener = _listen(self._path)
            await web.SockSite(self._runner, listener).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError([f"{self._path}: {error.strerror or error}"]) from error
        except BaseException:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._path.unlink(
            missing_ok=True
        )  # before the lock is released: the next daemon's would be deleted else
        await self._runner.cleanup()

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            answer = route.call(self._control, await read_body(request))
            if inspect.isawaitable(answer):
                answer = await answer
            if isinstance(answer, str):
                return web.json_response(text=answer)
            return web.json_response(answer)

        return handle


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path`, for its owner alone from its first moment on."""
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # Linux gives the file this mode at bind
        with short(path) as name:
            listener.bind(name)
        path.chmod(0o600)  # other systems
        listener.listen(64)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError([f"{path}: is in the way of the daemon's control socket; move it elsewhere"])
    path.unlink()


async def read_body(request: web.Request) -> Mapping[str, Any]:
    """A request's JSON object; an empty one where it has no body."""
    text = await request.text()
    try:
        body = json.loads(text) if text else {}
    except ValueError as error:
        raise ControlError("bad_request", f"the request's body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise ControlError("bad_request", "the request's body is no JSON object")
    return body


@web.middleware
async def json_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer whatever is raised as JSON, with the HTTP status that fits."""
    try:
        return await handler(request)
    except ControlError as error:
        refused = error
    except web.HTTPNotFound:
        refused = ControlError("unknown_command", f"this daemon knows no {request.path}", status=404)
    except web.HTTPMethodNotAllowed:
        refused = ControlError("wrong_method", f"{request.path} takes no {request.method}", status=405)
    except web.HTTPException as error:
        refused = ControlError("bad_request", error.reason, status=error.status)
    except Exception:  # noqa: BLE001 - one bad request is no reason to end the daemon
        _log.exception("the control request %s %s failed", request.method, request.path)
        refused = ControlError(
            "internal", "the daemon met an error of its own; its log says which", status=500
        )
    return web.json_response(refused.body(), status=refused.status)
