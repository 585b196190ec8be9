"""Every table but the accounts: [telegram], [supervisor], [recovery.KIND], [classify] and [proxies.NAME]."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast
from urllib.parse import unquote

from supervisor.config import places
from supervisor.config.checks import NAME, Wrong, flag, member, modules, name, one_of, real, text, whole
from supervisor.config.model import DIRECT, Proxy, Secret, Server, Settings, Telegram
from supervisor.config.rsakey import public_numbers
from supervisor.config.source import Document
from supervisor.config.table import Table, file_path
from supervisor.config.words import FromVariable, did_you_mean
from supervisor.core.failure import DEFAULT_POLICIES, Action, Kind, Override, Policy, Remedy, Scope

T = TypeVar("T")

ENV_PREFIX = "TG_SUPERVISOR_"

_SECONDS = real("a number of seconds", 0, above=True)
_RATE = real("a number a second", 0, above=True)

SETTINGS: Mapping[str, Callable[[object], object]] = {
    "callbacks": modules,
    "call_timeout": _SECONDS,
    "max_wait": real("a number of seconds", 0),
    "max_held": whole(0),
    "stable_after": _SECONDS,
    "flap_limit": whole(1),
    "flap_window": _SECONDS,
    "prove_every": _SECONDS,
    "connect_timeout": _SECONDS,
    "answer_timeout": _SECONDS,
    "silence_timeout": _SECONDS,
    "connect_budget": _RATE,
    "connect_budget_total": _RATE,
    "probe_budget": whole(1),
    "breaker_failures": whole(2),
    "start_limit": whole(1),
    "sign_ins_per_hour": whole(1),
    "sign_ins_per_day": whole(1),
    "retention_days": whole(1),
    "missed_updates": one_of(("fetch", "skip")),
    "message_cache": whole(0),
    "watch": flag,
    "release_rate": _RATE,
}

_POLICY: Mapping[str, Callable[[object], object]] = {
    "action": member(Action),
    "max_retries": whole(0),
    "base_delay": real("a number of seconds", 0),
    "max_delay": _SECONDS,
    "jitter": real("a share of the delay", 0, high=1),
}

_TOLD = re.compile(r"_WAIT_X$|^TAKEOUT_INIT_DELAY_X$")  # ids by which Telegram demands a wait

# Greedy up to the last "@": a password may hold any character, as it does when it comes from a variable.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z0-9+.-]+)://(?:(?P<user>[^:]*)(?::(?P<password>.*))?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/?#@\[\]]+):(?P<port>[^\s:/?#@]+)/?"
)


def read_telegram(document: Document) -> Telegram | None:
    """[telegram] and [telegram.server]."""
    table = Table(document, ("telegram",), document.tables["telegram"])
    table.know(("api_id", "server"), secrets=("api_hash",))
    if document.complete:
        table.require("api_id", "api_hash")
    own_server = table.table("server")
    server = read_server(own_server) if own_server else None
    api_id = table.read("api_id", whole(1, 2**31 - 1))
    api_hash = table.secret("api_hash", text if own_server else _api_hash)
    return None if api_id is None or api_hash is None else Telegram(api_id, api_hash, server)


def _api_hash(value: object) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{32}", text(value)):
        raise Wrong("must be the 32 hexadecimal digits that my.telegram.org shows")
    return text(value)


def read_server(table: Table) -> Server | None:
    """[telegram.server]: all of it or nothing."""
    keys = ("host", "port", "dc_id", "public_key")
    table.know(keys)
    table.require(*keys)
    host = table.read("host", text)
    port = table.read("port", whole(1, 65535))
    dc_id = table.read("dc_id", whole(1, 32767))
    key = table.read("public_key", lambda value: _public_key(table, value))
    if host is None or port is None or dc_id is None or key is None:
        return None
    return Server(host, port, dc_id, key)


def _public_key(table: Table, value: object) -> str:
    """The PEM text, from the file that is named or as it stands."""
    pem = text(value) if text(value).lstrip().startswith("-----BEGIN") else table.file("public_key", value)
    try:
        public_numbers(pem)
    except ValueError as error:
        raise Wrong(f"is no RSA public key: {error}") from None
    return pem


def read_settings(document: Document, overrides: Mapping[str, str]) -> Settings | None:
    """[supervisor] below the environment's TG_SUPERVISOR_KEY below `overrides`."""
    table = Table(document, ("supervisor",), document.tables["supervisor"])
    keys = ("state_dir", *SETTINGS)
    table.know(keys)
    for key in overrides:
        if key not in keys:
            document.problem_elsewhere("command line", f"supervisor.{key}: unknown" + did_you_mean(key, keys))
    values: dict[str, Any] = {key: _setting(table, key, check, overrides) for key, check in SETTINGS.items()}
    state_dir = read_state_dir(document, overrides)
    if state_dir is None:
        return None
    return Settings(state_dir=state_dir, **{key: value for key, value in values.items() if value is not None})


def read_state_dir(document: Document, overrides: Mapping[str, str]) -> Path | None:
    """supervisor.state_dir alone; None if it is wrong."""
    data = document.tables["supervisor"]
    main = document.sources[0].path
    default = places.state_dir(main, document.env)
    table = Table(document, ("supervisor",), {"state_dir": str(default), **data})
    base = table.base("state_dir") if "state_dir" in data else Path.cwd()
    if elsewhere("state_dir", document.env, overrides) is not None:
        base = Path.cwd()
    return _setting(table, "state_dir", lambda value: directory(base / file_path(value)), overrides)


def elsewhere(
    key: str, env: Mapping[str, str], overrides: Mapping[str, str]
) -> tuple[str, FromVariable] | None:
    """What the command line or the environment says of a setting, and its place; an empty variable says nothing."""
    variable = f"{ENV_PREFIX}{key.upper()}"
    if key in overrides:
        return "command line", FromVariable(overrides[key])
    return (variable, FromVariable(env[variable])) if env.get(variable) else None


def directory(path: Path) -> Path:
    """A directory, which need not exist yet; absolute, links resolved."""
    try:
        if path.exists() and not path.is_dir():
            raise Wrong("is not a directory")
        return Path(os.path.realpath(path))
    except OSError as error:
        raise Wrong(f"cannot be used: {error.strerror or 'unknown error'}") from None


def _setting(table: Table, key: str, check: Callable[[object], T], overrides: Mapping[str, str]) -> T | None:
    given = elsewhere(key, table.document.env, overrides)
    if given is None:
        return table.read(key, check)
    place, value = given
    try:
        return check(value)
    except Wrong as wrong:
        table.document.problem_elsewhere(place, f"supervisor.{key}: {wrong}")
        return None


def read_policies(document: Document) -> dict[Kind, Policy]:
    """[recovery.KIND], each key of which takes the place of the default."""
    recovery = Table(document, ("recovery",), document.tables["recovery"])
    recovery.know([kind.value for kind in DEFAULT_POLICIES])
    policies = dict(DEFAULT_POLICIES)
    for kind in DEFAULT_POLICIES:
        table = recovery.table(kind.value)
        if table is not None:
            policies[kind] = _policy(table, kind)
    return policies


def _policy(table: Table, kind: Kind) -> Policy:
    table.know(_POLICY)
    values: dict[str, Any] = {key: table.read(key, check) for key, check in _POLICY.items()}
    policy = replace(
        DEFAULT_POLICIES[kind], **{key: value for key, value in values.items() if value is not None}
    )
    if kind is Kind.FLOOD_WAIT and policy.action not in (Action.WAIT, Action.FAIL):
        table.problem("action", "must be wait or fail: a wait that Telegram demands is honoured")
    if policy.base_delay > policy.max_delay:
        table.problem(
            "base_delay" if "base_delay" in table.data else "max_delay", "base_delay is over max_delay"
        )
    return policy


def read_overrides(document: Document) -> dict[str, Override]:
    """[classify]: ERROR_ID = { kind, action, scope }."""
    rows = Table(document, ("classify",), document.tables["classify"])
    overrides = {}
    for table in rows.tables():
        error_id = str(table.path[-1])
        numbered = re.sub(r"_\d+$", "_X", error_id)
        if numbered != error_id:
            table.problem(None, f"the number is written X: {numbered}")
        override = _override(table, numbered)
        if override is not None:
            overrides[error_id] = override
    return overrides


def _override(table: Table, error_id: str) -> Override | None:
    table.know(("kind", "action", "scope"))
    table.require("kind", "action", "scope")
    kind = table.read("kind", member(Kind))
    remedy = table.read("action", member(Remedy))
    scope = table.read("scope", member(Scope))
    if kind is None or remedy is None or scope is None:
        return None
    if _TOLD.search(error_id) and (
        kind is not Kind.FLOOD_WAIT or remedy not in (Remedy.WAIT, Remedy.RAISE, Remedy.FAIL)
    ):
        table.problem(
            None, "stays a flood_wait, with wait, raise or fail: a wait that Telegram demands is honoured"
        )
    return Override(kind, remedy, scope)


def read_proxies(document: Document) -> dict[str, Proxy]:
    """[proxies.NAME]. A proxy that is wrong is there too, with what could be read, so that no account misses it."""
    table = Table(document, ("proxies",), document.tables["proxies"])
    proxies = {}
    for entry in table.tables():
        own_name = str(entry.path[-1])
        if not NAME.fullmatch(own_name):
            entry.problem(None, "its name must be letters, digits, '.', '_' and '-', 64 at most")
        proxies[own_name] = _proxy(entry, own_name)
    for proxy in proxies.values():
        _check_names(table, proxy, proxies)
    return proxies


def _check_names(table: Table, proxy: Proxy, proxies: Mapping[str, Proxy]) -> None:
    reserved = f'"{DIRECT}" means no proxy; choose another name'
    if proxy.name == DIRECT:
        table.problem(proxy.name, reserved)
    if proxy.pool == DIRECT:
        table.document.problem((*table.path, proxy.name, "pool"), reserved)
    elif proxy.pool in proxies:
        text_ = "a proxy has this name; a pool needs one of its own"
        table.document.problem((*table.path, proxy.name, "pool"), text_)


def _proxy(table: Table, own_name: str) -> Proxy:
    table.know(("pool",), secrets=("url",))
    table.require("url")
    pool = table.read("pool", name)
    url = table.secret("url", _proxy_url, url=True)
    match = _URL.fullmatch(url.reveal()) if url else None
    if match is None:
        return Proxy(own_name, "socks5", "", 0, pool=pool)
    user, password = match["user"], match["password"]
    return Proxy(
        name=own_name,
        scheme=cast(Literal["socks5", "socks4", "http"], match["scheme"].lower()),
        host=unquote(match["host"]).strip("[]"),
        port=int(unquote(match["port"])),
        username=unquote(user) if user else None,
        password=Secret(unquote(password)) if password else None,
        pool=pool,
    )


def _proxy_url(value: object) -> str:
    url = text(value)
    match = _URL.fullmatch(url)
    if match is None:
        raise Wrong("must be scheme://host:port or scheme://user:password@host:port")
    scheme, port = match["scheme"].lower(), unquote(match["port"])
    if scheme not in ("socks5", "socks4", "http"):
        raise Wrong(
            f"its scheme must be socks5, socks4 or http{did_you_mean(scheme, ('socks5', 'socks4', 'http'))}"
        )
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 1 <= int(port) <= 65535):
        raise Wrong("its port must be a number from 1 to 65535")
    if scheme == "socks4" and match["password"]:
        raise Wrong("socks4 knows no password; use socks5, or only a user")
    if not re.fullmatch(r"[^\s/?#@]+", unquote(match["host"])):
        raise Wrong("its host is no name or address")
    return url
