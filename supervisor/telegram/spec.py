"""What a link is told of its account, and where that leads: the server and the way there over a path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.core.failure import Evidence, Source
from supervisor.ports import LinkFailed
from supervisor.telegram.dial import ProxyAddress, Route
from supervisor.telegram.keyexchange import PublicKey
from supervisor.telegram.session import Timings

DIRECT = "direct"
# Telegram's production datacenter 2, where every new session begins (Pyrogram session/internals/data_center.py).
TELEGRAM_HOST, TELEGRAM_PORT = "149.154.167.51", 443


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Another server than Telegram's own."""

    host: str
    port: int
    dc_id: int
    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Everything that a link needs to know of its account; secrets stay out of its repr."""

    name: str
    identity: str = field(repr=False)
    api_id: int
    api_hash: str = field(repr=False)
    bot_token: str | None = field(default=None, repr=False)
    session_file: Path | None = None
    session_string: str | None = field(default=None, repr=False)
    server: ServerAddress | None = None
    timings: Timings = Timings()
    message_cache: int = 100
    skip_missed: bool = False
    plugins: str | None = None
    bases: tuple[Path, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    proxies: Mapping[str, ProxyAddress] = field(default_factory=dict, repr=False)


def route_of(path: str, spec: LinkSpec, session: Any) -> Route:
    """The way to an account's datacenter over a path.

    Args:
        path: a proxy's name, or "direct".
        spec: the account.
        session: its stored session, which knows where Telegram has sent it.

    Raises:
        LinkFailed: no proxy has this name; never is a connection direct instead.
    """
    server = spec.server
    proxy = proxy_of(path, spec.proxies)
    # With a server of the operator's own nothing goes to Telegram's: only where that server has sent the account.
    if server is not None and (session.server_address is None or session.dc_id == server.dc_id):
        return Route(path, server.host, server.port, proxy)
    host, port = session.server
    if host is None:
        raise LinkFailed(
            Evidence(Source.SOCKET, f"no address is known for datacenter {session.dc_id}", path=path)
        )
    return Route(path, host, port, proxy)


def proxy_of(path: str, proxies: Mapping[str, ProxyAddress]) -> ProxyAddress | None:
    """The proxy behind a path's name; None for "direct" alone.

    Raises:
        LinkFailed: no proxy has this name.
    """
    if path == DIRECT:
        return None
    if path not in proxies:
        raise LinkFailed(Evidence(Source.PROXY, f"no proxy is called {path}", step="dial", path=path))
    return proxies[path]


def home_route(path: str, proxies: Mapping[str, ProxyAddress], server: ServerAddress | None) -> Route:
    """The way over a path to the datacenter where new sessions begin.

    Raises:
        LinkFailed: no proxy has this name.
    """
    if server is not None:
        host, port = server.host, server.port
    else:
        host, port = TELEGRAM_HOST, TELEGRAM_PORT
    return Route(path, host, port, proxy_of(path, proxies))
