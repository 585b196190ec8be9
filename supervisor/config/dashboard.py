"""[dashboard]: where the page is served, and to whom."""

from __future__ import annotations

import re
from ipaddress import ip_address

from supervisor.config.checks import Wrong, flag, text, texts
from supervisor.config.model import Dashboard
from supervisor.config.source import Document
from supervisor.config.table import Table

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\s:/?#@\[\]]+)):(?P<port>\d{1,5})")
_HOST = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")
_TOKEN = re.compile(r"[!-~]{16,256}")


def read_dashboard(document: Document) -> Dashboard | None:
    """[dashboard]; None where there is none, or it is wrong."""
    if not any("dashboard" in source.data for source in document.sources):
        return None
    table = Table(document, ("dashboard",), document.tables["dashboard"])
    table.know(("listen", "allow_remote", "hosts", "account_metrics"), secrets=("token",))
    table.require("listen")
    address = table.read("listen", _address)
    token = table.secret("token", _token)
    remote = table.read("allow_remote", flag)
    hosts = table.read("hosts", _hosts)
    labels = table.read("account_metrics", flag)
    if address is None:
        return None
    host, port = address
    if not is_loopback(host) and not remote:
        table.problem(
            "listen",
            f"{host} can be reached from other machines; use 127.0.0.1, or say allow_remote = true "
            "and put a proxy with TLS before it",
        )
    return Dashboard(host, port, token, hosts or (), account_metrics=bool(labels))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(value: object) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(text(value))
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise Wrong('must be host:port, such as "127.0.0.1:8080" or "[::1]:8080"')
    return match["v6"] or match["host"], int(match["port"])


def _token(value: object) -> str:
    if not _TOKEN.fullmatch(text(value)):
        raise Wrong("must be 16 to 256 characters of ASCII, without spaces")
    return text(value)


def _hosts(value: object) -> tuple[str, ...]:
    names = texts(value)
    for name in names:
        if not _HOST.fullmatch(name):
            raise Wrong('must be names without a port, such as ["bots.example.org"]')
    return tuple(name.lower() for name in names)
