"""[defaults] and [accounts.NAME]: who is kept online, how, and that no two accounts are the same one."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from supervisor.config.checks import NAME, Wrong, entry_point, text, texts
from supervisor.config.lines import KeyPath
from supervisor.config.model import DIRECT, Account, Proxy, Secret
from supervisor.config.source import Document
from supervisor.config.table import Table, file_path, missing
from supervisor.config.words import FromVariable, did_you_mean, shown, type_name

IDENTITIES = ("bot_token", "phone", "session_string", "session_file")
KEYS = ("session_file", "proxy", "plugins", "main", "client")
SECRETS = ("bot_token", "phone", "password", "session_string")

# Parameters of pyrogram.Client that are decided elsewhere, and where.
TAKEN: Mapping[str, str] = {
    "name": "the account's name is used",
    "api_id": "set it in [telegram]",
    "api_hash": "set it in [telegram]",
    "bot_token": "set it in the account",
    "session_string": "set it in the account",
    "phone_number": "set phone in the account",
    "phone_code": "`tg-supervisor login` asks for it",
    "password": "set it in the account",
    "plugins": "set it in the account",
    "proxy": "set it in the account",
    "test_mode": "name the server in [telegram.server]",
    "ipv6": "the daemon dials by itself",
    "workdir": "sessions are kept in supervisor.state_dir",
    "in_memory": "sessions are kept in supervisor.state_dir",
    "storage_engine": "sessions are kept in supervisor.state_dir",
    "sleep_threshold": "set supervisor.max_wait",
    "skip_updates": "set supervisor.missed_updates",
    "max_message_cache_size": "set supervisor.message_cache",
    "connection_factory": "the daemon has its own",
    "protocol_factory": "the daemon has its own",
    "loop": "the daemon has its own",
}

# The others, of Pyrogram 2.0.106 and Kurigram 2.2.26: only to find a slip of the pen, for newer ones have more.
CLIENT = """
    app_version client_platform device_model fetch_replies fetch_stickers fetch_stories fetch_topics hide_password
    init_connection_params lang_code lang_pack link_preview_options max_concurrent_transmissions max_topic_cache_size
    no_updates parse_mode system_lang_code system_version takeout workers
""".split()

_TOKEN = re.compile(r"(\d{1,19}):[A-Za-z0-9_-]{20,}", re.ASCII)
_PHONE = re.compile(r"\+?[1-9]\d{6,14}", re.ASCII)  # ITU-T E.164: at most 15 digits, none of them a leading 0
_SESSION_SIZES = (263, 267, 271)  # bytes of a session string: Pyrogram 1, 2.0.0-2.0.29 and since


def read_accounts(document: Document, proxies: Mapping[str, Proxy]) -> dict[str, Account]:
    """All accounts, each with the defaults merged in."""
    reader = _Reader(document, proxies)
    defaults = Table(document, ("defaults",), dict(document.tables["defaults"]))
    defaults.know(KEYS, SECRETS)
    for key in IDENTITIES:
        if defaults.given(key):
            defaults.problem(defaults.written(key), "belongs to one account, so it has no default")
            del defaults.data[defaults.written(key)]
    shared = reader.values(defaults)
    table = Table(document, ("accounts",), document.tables["accounts"])
    if not table.data and document.complete:
        table.problem(None, "no account is configured; add one as [accounts.NAME]")
    accounts = {}
    for entry in table.tables():
        account = reader.account(entry, shared)
        accounts[account.name] = account
    return accounts


class _Reader:
    def __init__(self, document: Document, proxies: Mapping[str, Proxy]) -> None:
        self.document = document
        self.proxies = proxies
        self.pools: dict[str, list[str]] = {}
        for proxy in proxies.values():
            if proxy.pool is not None:
                self.pools.setdefault(proxy.pool, []).append(proxy.name)
        self.known = [*self.pools, *proxies, DIRECT]
        self.seen: dict[tuple[str, object], KeyPath] = {}
        self.folders: dict[Path, str | None] = {}  # plugin folders and what is wrong with them

    def account(self, table: Table, shared: Mapping[str, Any]) -> Account:
        own_name = str(table.path[-1])
        if not NAME.fullmatch(own_name):
            table.problem(None, "its name must be letters, digits, '.', '_' and '-', 64 at most")
        table.know(KEYS, SECRETS)
        own = self.values(table)
        inherited = dict(shared)
        if table.given("bot_token"):
            inherited.pop("password", None)
        values = {**inherited, **own}
        values["client"] = MappingProxyType({**(shared.get("client") or {}), **(own.get("client") or {})})
        account = Account(name=own_name, **{**values, "proxies": values.get("proxies") or ()})
        self._check_identity(table)
        self._check_twins(table, account)
        return account

    def values(self, table: Table) -> dict[str, Any]:
        """Every key that is there, as the model names it; None where it is wrong."""
        checks = {"bot_token": _token, "phone": _phone, "password": text, "session_string": _session_string}
        values: dict[str, Any] = {
            key: table.secret(key, check) for key, check in checks.items() if table.given(key)
        }
        if "session_file" in table.data:
            values["session_file"] = table.read("session_file", lambda value: _session(table, value))
        if "proxy" in table.data:
            values["proxies"] = self._proxies(table)
        if "plugins" in table.data:
            values["plugins"] = table.read("plugins", lambda value: self._plugins(table, value))
        if "main" in table.data:
            values["main"] = table.read("main", entry_point)
        if "client" in table.data:
            values["client"] = table.read("client", lambda value: _client(table, value))
        return values

    def _check_identity(self, table: Table) -> None:
        given = [key for key in IDENTITIES if table.given(key)]
        if not given:
            table.problem(None, "needs one of bot_token, phone, session_file and session_string")
        for one, other in (("bot_token", "phone"), ("session_string", "session_file")):
            if one in given and other in given:
                table.problem(None, f"has both {one} and {other}; give one of them")
        if table.given("password") and "bot_token" in given:
            table.problem(table.written("password"), "a bot has no password")

    def _check_twins(self, table: Table, account: Account) -> None:
        for key in IDENTITIES:
            value = getattr(account, key)
            if value is None:
                continue
            plain = value.reveal() if isinstance(value, Secret) else value
            if key == "bot_token":
                plain = plain.partition(":")[0]
            path = (*table.path, table.written(key))
            other = self.seen.setdefault((key, plain), path)
            if other != path:
                same = {"bot_token": "bot", "phone": "phone"}.get(key, "session")
                owner = f"accounts.{other[1]} ({self.document.place(other)})"
                self.document.problem(path, f"is the same {same} as that of {owner}")

    # proxies

    def _proxies(self, table: Table) -> tuple[str, ...] | None:
        names = table.read("proxy", texts_or_variable)
        if names is None:
            return None
        path = (*table.path, "proxy")
        if not names:
            self.document.problem(path, f'is an empty list; write "{DIRECT}" for no proxy')
        elif DIRECT in names and len(names) > 1:
            self.document.problem(path, f'"{DIRECT}" stands alone: no account falls back to it by itself')
        listed = isinstance(table.data["proxy"], list)
        chosen: dict[str, None] = {}
        for index, own_name in enumerate(names):
            if own_name in self.pools:
                chosen.update(dict.fromkeys(self.pools[own_name]))
            elif own_name in self.proxies:
                chosen[own_name] = None
            elif own_name != DIRECT and self.document.complete:
                hint = did_you_mean(own_name, self.known)
                text_ = f"no proxy or pool is called {shown(own_name)}{hint}"
                self.document.problem((*path, index) if listed else path, text_)
        return tuple(chosen)

    # plugins

    def _plugins(self, table: Table, value: object) -> str:
        """A folder as Pyrogram's smart plugins take it: importable, so relative, its parts being names."""
        root = text(value).rstrip("/")
        parts = root.replace(".", "/").split("/")
        if not all(part.isidentifier() for part in parts):
            raise Wrong(
                'must be a folder as it is imported from the configuration\'s, such as "bots/support"'
            )
        bases = dict.fromkeys([table.base("plugins"), *search_path(self.document)])
        folders = [base.joinpath(*parts) for base in bases]
        wrong = [self._folder(folder) for folder in folders]
        if None in wrong:
            return root
        found = next((problem for problem in wrong if problem), None)
        raise Wrong(found) if found else missing(table.base("plugins"), "folder")

    def _folder(self, folder: Path) -> str | None:
        """What is wrong with a folder of plugins: None if nothing is, "" if it is not there."""
        if folder not in self.folders:
            self.folders[folder] = _folder_problem(folder)
        return self.folders[folder]


def search_path(document: Document) -> tuple[Path, ...]:
    """The directories of the files, each once."""
    return tuple(dict.fromkeys(source.path.parent for source in document.sources))


def texts_or_variable(value: object) -> tuple[str, ...]:
    """Names, those that came from variables still marked so that no message shows them."""
    texts(value)
    names = value if isinstance(value, list) else [value]
    return tuple(item if isinstance(item, FromVariable) else str(item) for item in names)


def _folder_problem(folder: Path) -> str | None:
    try:
        if folder.is_dir():
            return None if next(folder.rglob("*.py"), None) else "the folder has no Python files"
        return "is a module; name the folder it is in" if folder.with_suffix(".py").is_file() else ""
    except OSError as error:
        return f"the folder cannot be read: {error.strerror or 'unknown error'}"


def _token(value: object) -> str:
    if not _TOKEN.fullmatch(text(value)):
        raise Wrong("is not a bot's token, which is digits, a colon and 35 letters, digits, '_' or '-'")
    return text(value)


def _phone(value: object) -> str:
    number = re.sub(r"[ ()./-]", "", text(value)) if isinstance(value, str) else ""
    if not _PHONE.fullmatch(number):
        hint = "" if isinstance(value, str) else f" in quotes, not {type_name(value)}"
        raise Wrong(f"must be a number in international form, as +4915112345678{hint}")
    return "+" + number.removeprefix("+")


def _session_string(value: object) -> str:
    session = text(value)
    try:
        size = len(base64.b64decode(session + "=" * (-len(session) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size not in _SESSION_SIZES:
        raise Wrong("is not a session string of Pyrogram's, or not the whole of one")
    return session


def _session(table: Table, value: object) -> Path:
    base = table.base("session_file")
    path = base / file_path(value)
    try:
        if not path.is_file():
            if path.with_name(path.name + ".session").is_file():
                raise Wrong('no such file; there is one with ".session" at its end')
            raise missing(base)
        with path.open("rb") as file:
            magic = file.read(16)
        path = path.resolve()
    except OSError as error:
        raise Wrong(f"the file cannot be read: {error.strerror or 'unknown error'}") from None
    if magic != b"SQLite format 3\0":  # sqlite.org/fileformat.html 1.3.1
        raise Wrong("is not a session file of Pyrogram's (an SQLite database)")
    return path


def _client(table: Table, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Wrong(f"must be a table of arguments for pyrogram.Client, not {type_name(value)}")
    for key in value:
        path = (*table.path, "client", key)
        hint = did_you_mean(key, (*CLIENT, *TAKEN)) if key not in CLIENT else ""
        if key in TAKEN:
            table.document.problem(path, f"is not passed on: {TAKEN[key]}")
        elif not key.isidentifier() or hint:
            table.document.problem(path, f"pyrogram.Client knows no such argument{hint}")
    return {key: _plain(item) for key, item in value.items()}


def _plain(value: object) -> object:
    """The value without the marks of variables."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, FromVariable) else value
