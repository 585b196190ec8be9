"""Dialling: a connected socket to Telegram, direct or through a proxy, or the true cause why not.

The connection to a proxy is made here and its handshake told apart from it: a proxy that is gone, one that
does not answer and one that refuses are three different failures. Nothing ever falls back to a direct dial.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

from supervisor.core.failure import Evidence, Source
from supervisor.deadlines import deadline
from supervisor.ports import LinkFailed
from supervisor.telegram import evidence
from supervisor.telegram.slices import Slices

log = logging.getLogger(__name__)

MAX_HTTP_REPLY = 16_384
MAX_LOGIN = 255  # characters of a SOCKS user name or password (RFC 1929)
PROXY_SCHEMES = ("socks5", "socks4", "http")

# Dials that begin in one pass of the event loop: a thousand lost links at once would hold up everybody else's calls.
AT_ONCE = 25

_Address = tuple[socket.AddressFamily, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """Where a proxy is and how it knows us. `scheme` is one of `PROXY_SCHEMES`."""

    scheme: str
    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        """Host and port, as messages show them."""
        return host_port(self.host, self.port)


def proxy_from_url(url: str) -> ProxyAddress:
    """A proxy out of ``scheme://user:password@host:port``.

    Raises:
        ValueError: it is none; the message shows nothing of the url, which holds a password.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("a proxy's url has a port from 1 to 65535") from error
    if parts.scheme not in PROXY_SCHEMES or not host or not port:
        raise ValueError(
            f"a proxy's url is scheme://user:password@host:port, the scheme one of {', '.join(PROXY_SCHEMES)}"
        )
    user = unquote(parts.username) if parts.username is not None else None
    password = unquote(parts.password) if parts.password is not None else None
    return ProxyAddress(parts.scheme, host, port, user, password)


@dataclass(frozen=True, slots=True)
class Route:
    """One way to one datacenter. `path` is "direct" or the proxy's name."""

    path: str
    host: str
    port: int
    proxy: ProxyAddress | None = None

    @property
    def where(self) -> str:
        """Host and port of the datacenter, with the proxy's name where there is one."""
        where = host_port(self.host, self.port)
        return where if self.proxy is None else f"{where} through proxy {self.path}"


def host_port(host: str, port: int) -> str:
    """``127.0.0.1:4430``, ``[::1]:4430``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def nothing(_step: str) -> None:
    """Take no notice of a step."""


async def dial(route: Route, timeout: float, reached: Callable[[str], None] = nothing) -> socket.socket:
    """Connect a TCP socket to the datacenter, through the route's proxy where it has one.

    Args:
        route: the way.
        timeout: seconds for each of: TCP including the name lookup, the proxy's handshake.
        reached: is told of each step that is done: ``dns``, ``tcp``, ``proxy``.

    Raises:
        LinkFailed: it cannot be reached; with the evidence.
    """
    await _turnstile().turn()
    proxy = route.proxy
    if proxy is None:
        return await _tcp(route, route.host, route.port, timeout, reached)
    sock = await _tcp(route, proxy.host, proxy.port, timeout, reached)
    try:
        async with deadline(timeout):
            await _handshake(sock, route, proxy, timeout)
    except BaseException as exc:
        sock.close()
        if not isinstance(exc, Exception):
            raise
        raise LinkFailed(_refusal(exc, route, proxy, timeout)) from exc
    reached("proxy")
    return sock


def _refusal(exc: Exception, route: Route, proxy: ProxyAddress, timeout: float) -> Evidence:
    """What a handshake that failed says of the proxy; the first cause names where it is and what it said."""
    if _is_deadline(exc):
        doing = f"{proxy.scheme} handshake with {proxy.where}"
        found = _timed_out(route, timeout, "proxy", doing, exc)
    else:
        found = evidence.from_exception(exc, step="proxy", path=route.path, where=proxy.where, through=True)
    said = found.message.removeprefix(f"proxy {route.path}: ")
    return replace(found, cause=(f"{proxy.scheme} proxy {proxy.where}: {said}", *found.cause))


class _Turnstile:
    """Lets `AT_ONCE` dials begin in each pass of the loop, in the order in which they come.

    Only one, while what has come over other links is not read yet: who dials faster than he listens finds all those answers
    late, asks again, and listens to even less.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._slices = Slices.of(loop)
        self._passed = 0  # in this pass
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def _is_open(self) -> bool:
        return self._passed < (1 if self._slices.behind else AT_ONCE)

    async def turn(self) -> None:
        """Return when it is one's turn: at once, unless many come together."""
        loop = asyncio.get_running_loop()
        if self._passed == 0:
            loop.call_soon(self._next_pass, loop)
        if self._is_open and not self._waiting:
            self._passed += 1
            return
        waiting = loop.create_future()
        self._waiting.append(waiting)
        await waiting

    def _next_pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._passed = 0
        while self._waiting and self._is_open:
            waiting = self._waiting.popleft()
            if not waiting.done():  # else called off
                waiting.set_result(None)
                self._passed += 1
        if self._passed:
            loop.call_soon(self._next_pass, loop)


_turnstiles: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turnstile] = WeakKeyDictionary()


def _turnstile() -> _Turnstile:
    """The one of the running loop."""
    loop = asyncio.get_running_loop()
    found = _turnstiles.get(loop)
    if found is None:
        found = _turnstiles[loop] = _Turnstile(loop)
    return found


# --- TCP ---------------------------------------------------------------------------------------------------


async def _tcp(
    route: Route, host: str, port: int, timeout: float, reached: Callable[[str], None]
) -> socket.socket:
    where = about = host_port(host, port)
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    doing = f"name lookup of {host}"
    try:
        async with deadline(timeout):
            addresses = await _resolve(host, port)
        reached("dns")
        doing = f"TCP to {where}"
        sock = await _first(addresses, end)
        reached("tcp")
        return sock
    except OSError as exc:
        if _is_deadline(exc):
            raise LinkFailed(_timed_out(route, timeout, "dial", doing, exc)) from exc
        if isinstance(exc, socket.gaierror):
            about = host
        through = route.proxy is not None
        found = evidence.from_exception(exc, step="dial", path=route.path, where=about, through=through)
        raise LinkFailed(found) from exc


async def _resolve(host: str, port: int) -> list[_Address]:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        pass
    else:  # an address needs no thread
        return [(socket.AF_INET, (host, port))] if version == 4 else [(socket.AF_INET6, (host, port, 0, 0))]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:  # a label too long for IDNA
        raise socket.gaierror(socket.EAI_NONAME, str(exc)) from exc
    return [(family, address) for family, _type, _proto, _name, address in found]


async def _first(addresses: list[_Address], end: float) -> socket.socket:
    """Connect to the first address that answers; each has its share of the time that is left."""
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    for left, (family, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        try:
            async with deadline((end - loop.time()) / left):
                return await _connect(family, address)
        except OSError as exc:
            exc.__context__ = failed
            failed = exc
    try:
        raise failed or socket.gaierror(socket.EAI_NONAME, "the name has no address")
    finally:
        failed = None  # it knows this frame: the two would keep each other, and what the frames above hold


async def _connect(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        log.debug("dials %s", host_port(*address[:2]))
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


_OUR_DEADLINE = ("TimeoutError", "CancelledError")  # how asyncio spells it; the message has the words


def _is_deadline(exc: BaseException) -> bool:
    return isinstance(exc, TimeoutError) and exc.errno is None  # with an errno it is the kernel's ETIMEDOUT


def _timed_out(route: Route, timeout: float, step: str, doing: str, exc: BaseException) -> Evidence:
    message = f"timed out after {timeout:g} s: {doing}"
    cause = tuple(line for line in evidence.causes(exc) if line not in _OUR_DEADLINE)
    if route.proxy is None:
        return Evidence(Source.SOCKET, message, step=step, path=route.path, cause=cause)
    return Evidence(Source.PROXY, f"proxy {route.path}: {message}", step=step, path=route.path, cause=cause)


# --- proxies -----------------------------------------------------------------------------------------------


class _Connected:
    """Hands python-socks a socket that is connected to the proxy already, as if by a proxy before it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def connect(self, **_: object) -> socket.socket:
        return self._sock


async def _handshake(sock: socket.socket, route: Route, proxy: ProxyAddress, timeout: float) -> None:
    if proxy.scheme == "http":
        await _http_connect(sock, route, proxy)
        return
    if any(
        not text.isascii() or len(text) > MAX_LOGIN for text in (proxy.username or "", proxy.password or "")
    ):
        raise _refused(route, f"a {proxy.scheme} login is ASCII, at most {MAX_LOGIN} characters")
    import python_socks
    from python_socks.async_.asyncio import Proxy

    kind = {"socks5": python_socks.ProxyType.SOCKS5, "socks4": python_socks.ProxyType.SOCKS4}[proxy.scheme]
    forward: Any = _Connected(sock)
    client = Proxy(kind, proxy.host, proxy.port, proxy.username, proxy.password, rdns=True, forward=forward)
    # Ours strikes first; without a number python-socks takes 60 s.
    await client.connect(route.host, route.port, timeout=timeout * 2)


async def _http_connect(sock: socket.socket, route: Route, proxy: ProxyAddress) -> None:
    """CONNECT (RFC 9110, 9.3.6). Ours, because python-socks takes the first segment for the whole reply."""
    loop = asyncio.get_running_loop()
    target = host_port(route.host, route.port)
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.username:
        login = f"{proxy.username}:{proxy.password or ''}".encode()
        request += f"Proxy-Authorization: Basic {b64encode(login).decode()}\r\n"
    await loop.sock_sendall(sock, f"{request}\r\n".encode())
    reply = bytearray()
    while b"\r\n\r\n" not in reply:
        # What follows the reply would be Telegram's, but it speaks only after us: nothing is lost here.
        chunk = await loop.sock_recv(sock, 4096)
        reply += chunk
        if not chunk or len(reply) > MAX_HTTP_REPLY:
            raise _refused(route, evidence.CLOSED if not chunk else "no HTTP reply")
    version, _, rest = reply.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/") or not status.isdecimal():
        raise _refused(route, "no HTTP reply")
    if not 200 <= int(status) <= 299:
        raise _refused(route, reason.strip(), int(status))


def _refused(route: Route, text: str, code: int | None = None) -> LinkFailed:
    message, context = evidence.proxy_reply(route.path, "http", code, text)
    return LinkFailed(
        Evidence(Source.PROXY, message, code=code, step="proxy", path=route.path, context=context)
    )
