"""The configuration as the rest of the program sees it: frozen, typed, every path absolute, secrets wrapped.

Built by `load`; `Config`, `Account` and the others can also be built by hand, for tests and for use as a library.
All durations are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from supervisor.config.rsakey import public_numbers
from supervisor.core.failure import DEFAULT_POLICIES, Kind, Override, Policy

DIRECT = "direct"  # the path without a proxy; no proxy or pool may take the name


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A string that never shows itself: only `reveal` gives it."""

    _value: str

    def reveal(self) -> str:
        """The secret itself, for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


def mask_phone(phone: str) -> str:
    """A phone number as it may be shown: ``+49…78``."""
    return f"{phone[:3]}…{phone[-2:]}"


@dataclass(frozen=True, slots=True)
class Server:
    """A datacenter other than Telegram's own; nothing then goes to Telegram's."""

    host: str
    port: int
    dc_id: int
    public_key: str  # PEM: PKCS#1 or SubjectPublicKeyInfo

    @property
    def public_numbers(self) -> tuple[int, int]:
        """The RSA key's (n, e)."""
        return public_numbers(self.public_key)


@dataclass(frozen=True, slots=True)
class Telegram:
    """``[telegram]``: the application's credentials and, optionally, another server."""

    api_id: int
    api_hash: Secret
    server: Server | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """``[supervisor]``, attribute for key; PRODUCT.md says what each means."""

    state_dir: Path
    callbacks: tuple[str, ...] = ()
    call_timeout: float = 60.0
    max_wait: float = 300.0
    max_held: int = 1000
    stable_after: float = 60.0
    prove_every: float = 300.0
    connect_timeout: float = 10.0
    answer_timeout: float = 15.0
    silence_timeout: float = 10.0
    connect_budget: float = 20.0  # new connections a second on each path
    start_limit: int = 20
    sign_ins_per_hour: int = 3
    sign_ins_per_day: int = 10
    retention_days: int = 30
    missed_updates: Literal["fetch", "skip"] = "fetch"
    message_cache: int = 100
    release_rate: float | None = None  # held calls a second; None: see `release_rate_of`

    def release_rate_of(self, *, is_bot: bool) -> float:
        """How many held calls a second leave: as configured, else 30 for a bot and 10 for a user."""
        if self.release_rate is not None:
            return self.release_rate
        return 30.0 if is_bot else 10.0


@dataclass(frozen=True, slots=True)
class Proxy:
    """``[proxies.NAME]``, its url taken apart; user and password are percent-decoded."""

    name: str
    scheme: Literal["socks5", "socks4", "http"]
    host: str
    port: int
    username: str | None = None
    password: Secret | None = None
    pool: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Account:
    """``[accounts.NAME]`` with ``[defaults]`` merged in."""

    name: str
    bot_token: Secret | None = None
    phone: Secret | None = None  # "+" and digits
    password: Secret | None = None  # two-factor, for signing in
    session_file: Path | None = None
    session_string: Secret | None = None
    proxies: tuple[str, ...] = ()  # names, pools expanded, in the order of the file; () is direct
    plugins: str | None = None
    main: str | None = None  # "module:function"
    client: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_bot(self) -> bool | None:
        """Whether it is a bot; None where only the session knows."""
        if self.bot_token is not None:
            return True
        return False if self.phone is not None else None

    @property
    def identity(self) -> str:
        """What its session is kept under: ``bot:ID``, ``phone:+NUMBER`` or ``session:NAME``. Not for logs."""
        if self.bot_token is not None:
            return f"bot:{self.bot_token.reveal().partition(':')[0]}"
        if self.phone is not None:
            return f"phone:{self.phone.reveal()}"
        return f"session:{self.name}"


@dataclass(frozen=True, slots=True)
class Config:
    """The whole of accounts.toml and what it includes."""

    path: Path  # absolute
    telegram: Telegram
    settings: Settings
    policies: Mapping[Kind, Policy] = field(default_factory=lambda: MappingProxyType(DEFAULT_POLICIES))
    overrides: Mapping[str, Override] = field(default_factory=lambda: MappingProxyType({}))
    proxies: Mapping[str, Proxy] = field(default_factory=lambda: MappingProxyType({}))
    accounts: Mapping[str, Account] = field(default_factory=lambda: MappingProxyType({}))
    search_path: tuple[Path, ...] = ()  # directories of the config files: modules are looked up there too

    @property
    def pools(self) -> dict[str, tuple[str, ...]]:
        """Each pool's proxies, in the order of the file."""
        pools: dict[str, tuple[str, ...]] = {}
        for proxy in self.proxies.values():
            if proxy.pool is not None:
                pools[proxy.pool] = (*pools.get(proxy.pool, ()), proxy.name)
        return pools
