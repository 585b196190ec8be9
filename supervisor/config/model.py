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

from supervisor.config.footprint import Footprint
from supervisor.config.rsakey import public_numbers
from supervisor.core.failure import DEFAULT_POLICIES, Kind, Level, Override, Policy

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
    flap_limit: int = 5
    flap_window: float = 600.0
    prove_every: float = 300.0
    connect_timeout: float = 10.0
    answer_timeout: float = 15.0
    silence_timeout: float = 10.0
    connect_budget: float = 20.0  # new connections a second on each path
    connect_budget_total: float | None = None  # over all paths; None: see `connect_total`
    probe_budget: int = 3  # probes in any second, over all paths
    breaker_failures: int = 5  # connections in a row that fail and break a path
    start_limit: int = 20
    sign_ins_per_hour: int = 3
    sign_ins_per_day: int = 10
    retention_days: int = 30
    missed_updates: Literal["fetch", "skip"] = "fetch"
    message_cache: int = 100
    watch: bool = True
    release_rate: float | None = None  # held calls a second; None: see `release_rate_of`

    @property
    def connect_total(self) -> float:
        """New connections a second over all paths: as configured, else five times those of one path."""
        return self.connect_budget_total or 5 * self.connect_budget

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
class Dashboard:
    """``[dashboard]``: a page for a browser, and an API.

    Args:
        host: the address to listen at; this machine's own, unless `allow_remote` was said.
        port: the port there.
        token: what whoever asks must know; None: one that is made up and kept in state_dir.
        hosts: names that it may be asked by, besides its address: those of a proxy in front of it.
        account_metrics: whether metrics tell one account, and one path, from another.
    """

    host: str
    port: int
    token: Secret | None = None
    hosts: tuple[str, ...] = ()
    account_metrics: bool = False


@dataclass(frozen=True, slots=True)
class Sink:
    """``[notify.NAME]``: one place that notifications go to. Exactly one of `url`, `token`, `bots` and `log` is there.

    Args:
        name: its name.
        level: what is below it is not told.
        url: where JSON is posted, if it is http(s); else one of apprise's.
        token: a bot's token, for messages by Telegram's Bot API.
        bots: accounts of ours; the first that is online sends.
        chat: who gets the message of a bot.
        api: the Bot API's address.
        log: whether it is our own log.
        place: where it stands, as ``accounts.toml:12``.
    """

    name: str
    level: Level = Level.WARNING
    url: Secret | None = None
    token: Secret | None = None
    bots: tuple[str, ...] = ()
    chat: str = ""
    api: str = "https://api.telegram.org"
    log: bool = False
    place: str = field(default="", compare=False)

    @property
    def sort(self) -> Literal["webhook", "apprise", "telegram", "bot", "log"]:
        """What it is."""
        if self.url is not None:
            return "webhook" if self.url.reveal().lower().startswith(("http://", "https://")) else "apprise"
        if self.token is not None:
            return "telegram"
        return "bot" if self.bots else "log"


@dataclass(frozen=True, slots=True)
class Sentry:
    """``[sentry]``: where faults of tg-supervisor itself are reported, if anywhere."""

    dsn: Secret
    environment: str | None = None


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
    dashboard: Dashboard | None = None
    notify: Mapping[str, Sink] = field(default_factory=lambda: MappingProxyType({}))
    sentry: Sentry | None = None
    log_format: Literal["text", "json"] = "text"
    search_path: tuple[Path, ...] = ()  # directories of the config files: modules are looked up there too
    footprint: Footprint = field(
        default_factory=Footprint, compare=False, repr=False
    )  # what it was read from

    @property
    def pools(self) -> dict[str, tuple[str, ...]]:
        """Each pool's proxies, in the order of the file."""
        pools: dict[str, tuple[str, ...]] = {}
        for proxy in self.proxies.values():
            if proxy.pool is not None:
                pools[proxy.pool] = (*pools.get(proxy.pool, ()), proxy.name)
        return pools
