"""Who may ask: every request by the right Host, and what tells or does anything only with the token.

A page of another site cannot ask in the name of somebody who has the dashboard open. The token travels in a header
that the browser never sends by itself, so there is nothing to forge; that requests of other sites are refused
besides, and that commands must be JSON, is a second lock on the same door. The Host is checked because a site may give
its own name our address (DNS rebinding): its pages would then count as ours.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from supervisor.config.model import Dashboard
from supervisor.control.protocol import ControlError

TOKEN_FILE = "dashboard.token"  # noqa: S105 - its name, in state_dir

_GUARDED = ("/api/", "/metrics")  # what needs the token; the rest is the page itself, which knows nothing
_PORT = re.compile(r":\d+$")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
    "Server": "tg-supervisor",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guard(settings: Dashboard, token: str) -> Middleware:
    """The middleware that refuses whoever may not ask.

    Args:
        settings: by which names it may be asked.
        token: what whoever asks must know.
    """
    hosts = {*_LOOPBACK, settings.host, f"[{settings.host}]", *settings.hosts}
    wanted = token.encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        _check_host(request, hosts)
        if request.path.startswith(_GUARDED) or request.method not in {"GET", "HEAD"}:
            _check_site(request)
            _check_token(request, wanted)
        return await handler(request)

    return check


async def harden(_: web.Request, response: web.StreamResponse) -> None:
    """Tell the browser what a response may do: nothing that it does not say itself."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _check_host(request: web.Request, hosts: Iterable[str]) -> None:
    # Any port: behind `ssh -L` it is another one.
    if _PORT.sub("", request.host).lower() not in hosts:
        text = "the dashboard is not asked by this name; use its address, or name it in hosts of [dashboard]"
        raise ControlError("wrong_host", text, status=421)


def _check_site(request: web.Request) -> None:
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        raise ControlError("cross_site", "another site asks; only the dashboard's own page may", status=403)
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != request.host.lower():
        raise ControlError("cross_site", "another site asks; only the dashboard's own page may", status=403)
    if request.method == "POST" and request.content_type != "application/json":
        raise ControlError("cross_site", "a command is sent as application/json", status=415)


def _check_token(request: web.Request, wanted: bytes) -> None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), wanted):
        text = (
            "the dashboard's token is missing or wrong; send it as Authorization: Bearer TOKEN (it is that of "
            f"[dashboard], else the content of {TOKEN_FILE} in state_dir)"
        )
        raise ControlError("token_missing", text, status=401)


def token_of(settings: Dashboard, state_dir: Path) -> str:
    """The token: the configured one, else that of state_dir, which is made up at the first start.

    Raises:
        OSError: it can be neither read nor written.
    """
    if settings.token is not None:
        return settings.token.reveal()
    path = state_dir / TOKEN_FILE
    try:
        kept = path.read_text("ascii").strip()
    except FileNotFoundError:
        kept = ""
    except UnicodeDecodeError as error:
        raise OSError(f"{path}: is no token; delete it, and another is made") from error
    if kept:
        path.chmod(0o600)
        return kept
    made = secrets.token_urlsafe(32)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(made + "\n")
    return made
