"""[notify.NAME], [sentry] and [logging]: whom the daemon tells what, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from supervisor.config.accounts import texts_or_variable
from supervisor.config.checks import NAME, Wrong, flag, member, one_of, text
from supervisor.config.model import Account, Sentry, Sink
from supervisor.config.source import Document
from supervisor.config.table import Table
from supervisor.config.words import did_you_mean, shown, type_name
from supervisor.core.failure import Level

# What a sink is; it has one of them, and each but `log` and `url` needs `chat`.
SORTS = ("url", "token", "bot", "log")

_TOKEN = re.compile(r"\d{1,19}:[A-Za-z0-9_-]{20,}", re.ASCII)
_CHAT = re.compile(r"-?\d{1,19}|@[A-Za-z0-9_]{3,64}", re.ASCII)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


def read_sinks(document: Document, accounts: Mapping[str, Account]) -> dict[str, Sink]:
    """[notify.NAME], those that are right."""
    table = Table(document, ("notify",), document.tables["notify"])
    sinks = {}
    for entry in table.tables():
        sink = _sink(entry, accounts)
        if sink is not None:
            sinks[sink.name] = sink
    return sinks


def _sink(table: Table, accounts: Mapping[str, Account]) -> Sink | None:
    own_name = str(table.path[-1])
    if not NAME.fullmatch(own_name):
        table.problem(None, "its name must be letters, digits, '.', '_' and '-', 64 at most")
    table.know(("level", "bot", "chat", "api", "log"), secrets=("url", "token"))
    values: dict[str, Any] = {
        "level": table.read("level", member(Level)),
        "url": table.secret("url", _url, url=True),
        "token": table.secret("token", _token),
        "bots": table.read("bot", texts_or_variable),
        "chat": table.read("chat", _chat),
        "api": table.read("api", _api),
        "log": table.read("log", flag),
    }
    given = [key for key in SORTS if (values["log"] if key == "log" else table.given(key))]
    if len(given) != 1:
        what = f"has {' and '.join(given)}; give one of them" if given else f"needs one of {', '.join(SORTS)}"
        table.problem(None, what)
        return None
    if given[0] in ("token", "bot"):
        table.require("chat")
    for key, of in (("chat", ("token", "bot")), ("api", ("token",))):
        if key in table.data and given[0] not in of:
            table.problem(key, f"goes with {' and '.join(of)}, not with {given[0]}")
    _check_bots(table, values["bots"] or (), accounts)
    known = {key: value for key, value in values.items() if value is not None}
    sink = Sink(name=own_name, place=table.document.place(table.path), **known)
    if not any((sink.url, sink.token, sink.bots, sink.log)):
        return None  # it was given, and wrong
    if sink.sort == "apprise":
        _check_extra(table, table.written("url"), "apprise", "notify")
    return sink


def _check_bots(table: Table, bots: tuple[str, ...], accounts: Mapping[str, Account]) -> None:
    for name in bots:
        if name not in accounts and table.document.complete:
            table.problem("bot", f"no account is called {shown(name)}{did_you_mean(name, accounts)}")


def _check_extra(table: Table, key: str, package: str, extra: str) -> None:
    if find_spec(package) is None:
        table.problem(key, f'needs {package}, which is not installed: pip install "tg-supervisor[{extra}]"')


def read_sentry(document: Document) -> Sentry | None:
    """[sentry]; None where there is none, or it is wrong."""
    table = Table(document, ("sentry",), document.tables["sentry"])
    if not any("sentry" in source.data for source in document.sources):
        return None
    table.know(("environment",), secrets=("dsn",))
    table.require("dsn")
    dsn = table.secret("dsn", _dsn)
    environment = table.read("environment", text)
    if dsn is None:
        return None
    _check_extra(table, table.written("dsn"), "sentry_sdk", "sentry")
    return Sentry(dsn, environment)


def read_log_format(document: Document) -> Literal["text", "json"]:
    """logging.format."""
    table = Table(document, ("logging",), document.tables["logging"])
    table.know(("format",))
    return cast("Literal['text', 'json']", table.read("format", one_of(("text", "json"))) or "text")


def _url(value: object) -> str:
    url = text(value)
    if not _URL.fullmatch(url):
        raise Wrong("must be a url: https://… takes JSON, any other is apprise's, as slack://… or mailto://…")
    if url.lower().startswith(("http://", "https://")) and not _host(url):
        raise Wrong("names no host")
    return url


def _host(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        return parts.hostname if parts.port != 0 else None
    except ValueError:
        return None


def _token(value: object) -> str:
    if not _TOKEN.fullmatch(text(value)):
        raise Wrong("is not a bot's token, which is digits, a colon and 35 letters, digits, '_' or '-'")
    return text(value)


def _chat(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise Wrong(f"must be a chat's number or @name, not {type_name(value)}")
    if not _CHAT.fullmatch(value):
        raise Wrong("must be a chat's number, as -1001234567890, or its @name")
    return str(value)


def _api(value: object) -> str:
    url = text(value).rstrip("/")
    if not re.match(r"https?://", url) or not _host(url):
        raise Wrong("must be an address such as https://api.telegram.org")
    return url


def _dsn(value: object) -> str:
    dsn = text(value)
    try:
        parts = urlsplit(dsn)
        right = (
            parts.scheme in ("http", "https") and parts.hostname and parts.username and parts.path.strip("/")
        )
    except ValueError:
        right = False
    if not right:
        raise Wrong("is not a Sentry DSN, as https://KEY@HOST/PROJECT")
    return dsn
