"""accounts.toml to `Config`, with everything that is wrong reported at once.

Order of precedence: the command line (`overrides`), the environment, the file, the defaults. Every key of
``[supervisor]`` has a variable, ``TG_SUPERVISOR_`` and the key in capitals: ``TG_SUPERVISOR_STATE_DIR``,
``TG_SUPERVISOR_CALLBACKS=my_recovery,my_other``. An empty variable counts as absent. There and on the command line a
relative path starts from the working directory; in a file, from the directory of that file. ``TG_SUPERVISOR_CONFIG``,
the path of the file itself, is the command line's business.

In a file:

- any string may take ``${VARIABLE}``, and a number may be such a string; ``$${`` stands for the characters ``${``. In
  a proxy's url a variable stands for itself, so a password in one needs no percent-encoding.
- a secret key (bot_token, phone, password, session_string, api_hash, a proxy's url, the dashboard's token, url
  and token of a sink, dsn) may be ``KEY_file = "path"``; line
  ends after its content are dropped. ``~`` in a path is the home directory.
- included files are merged with the main one: a table may be spread over files, the same account, proxy or key may
  not. ``[defaults]`` holds for all files, wherever it stands.
- ``proxy = "direct"`` undoes a default proxy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from supervisor.config.accounts import read_accounts, search_path
from supervisor.config.checks import Wrong
from supervisor.config.dashboard import read_dashboard
from supervisor.config.footprint import Footprint
from supervisor.config.model import Config
from supervisor.config.notify import read_log_format, read_sentry, read_sinks
from supervisor.config.sections import (
    directory,
    elsewhere,
    read_overrides,
    read_policies,
    read_proxies,
    read_settings,
    read_state_dir,
    read_telegram,
)
from supervisor.config.source import Document, NotToml
from supervisor.config.table import file_path
from supervisor.core.failure import DEFAULT_POLICIES, Kind, Override, Policy
from supervisor.errors import ConfigError

_NONE: Mapping[str, str] = MappingProxyType({})


def load(
    path: Path | str,
    *,
    env: Mapping[str, str] = os.environ,
    overrides: Mapping[str, str] = _NONE,
    footprint: Footprint | None = None,
    instead: Mapping[Path, str] = MappingProxyType({}),
) -> Config:
    """Read the configuration.

    Args:
        path: the main file; problems name it as it is given here.
        env: the environment.
        overrides: keys of ``[supervisor]`` that the command line sets.
        footprint: is told of everything that is read, right or wrong.
        instead: texts that stand for those of files (absolute paths): what would be, were they written.

    Raises:
        ConfigError: something is wrong; it has every problem, as ``accounts.toml:12: accounts.support-bot.proxy: …``.
    """
    document = Document(path, env, footprint=footprint, instead=instead)
    if not document.sources:
        raise ConfigError(document.problems())
    telegram = read_telegram(document)
    settings = read_settings(document, overrides)
    policies = read_policies(document)
    rows = read_overrides(document)
    proxies = read_proxies(document)
    accounts = read_accounts(document, proxies)
    dashboard = read_dashboard(document)
    sinks = read_sinks(document, accounts)
    sentry = read_sentry(document)
    log_format = read_log_format(document)
    problems = document.problems()
    if problems or telegram is None or settings is None:
        raise ConfigError(problems)
    return Config(
        path=document.sources[0].path,
        telegram=telegram,
        settings=settings,
        policies=MappingProxyType(policies),
        overrides=MappingProxyType(rows),
        proxies=MappingProxyType(proxies),
        accounts=MappingProxyType(accounts),
        dashboard=dashboard,
        notify=MappingProxyType(sinks),
        sentry=sentry,
        log_format=log_format,
        search_path=search_path(document),
        footprint=document.footprint,
    )


@dataclass(frozen=True, slots=True)
class Judgement:
    """[recovery] and [classify]: how failures are judged, and what may be done about each kind.

    Args:
        policies: by kind; the defaults where the file does not say otherwise, or could not be read.
        overrides: the operator's own rows.
        problems: what was wrong with these two tables, or kept the file from being read.
        read: whether the file could be read at all.
    """

    policies: Mapping[Kind, Policy]
    overrides: Mapping[str, Override]
    problems: list[str]
    read: bool


def load_judgement(path: Path | str, *, env: Mapping[str, str] = os.environ) -> Judgement:
    """Read ``[recovery]`` and ``[classify]`` alone, for `explain`: no secret is looked at, and nothing is raised."""
    document = Document(path, env)
    if not document.sources:
        return Judgement(DEFAULT_POLICIES, {}, document.problems(), read=False)
    before = document.problems()
    policies, rows = read_policies(document), read_overrides(document)
    unread = [] if document.complete else before
    problems = unread + [problem for problem in document.problems() if problem not in before]
    return Judgement(policies, rows, problems, read=True)


def load_state_dir(
    path: Path | str, *, env: Mapping[str, str] = os.environ, overrides: Mapping[str, str] = _NONE
) -> Path:
    """Read ``supervisor.state_dir`` alone, for the commands that only read, and those that talk to a running daemon.

    Neither unset variables nor other mistakes matter; included files are read only if the main one does not name the
    directory. Of a file that is no TOML, the line that names the directory is read by itself; where there is none, the
    default has to be there. Where the command line or the environment names the directory, no file is read.

    Raises:
        ConfigError: the file cannot be read, or the directory is given wrongly.
    """
    given = elsewhere("state_dir", env, overrides)
    if given is not None:
        place, value = given
        try:
            return directory(Path.cwd() / file_path(value))
        except Wrong as wrong:
            raise ConfigError([f"{place}: supervisor.state_dir: {wrong}"]) from None
    try:
        return _state_dir(path, env, overrides)
    except NotToml as broken:
        with suppress(ConfigError):
            return _state_dir(path, env, overrides, salvage=True)
        hint = "to reach the daemon, or its log, all the same: set TG_SUPERVISOR_STATE_DIR to its state directory"
        raise ConfigError([*broken.problems, hint]) from None


def _state_dir(
    path: Path | str, env: Mapping[str, str], overrides: Mapping[str, str], *, salvage: bool = False
) -> Path:
    document = Document(path, env, follow=False, salvage=salvage)
    includes = document.sources and "include" in document.sources[0].data
    if includes and "state_dir" not in document.tables["supervisor"]:
        document = Document(path, env, salvage=salvage)
    known, is_named = document.problems(), "state_dir" in document.tables["supervisor"]
    if not document.complete and not is_named:
        raise (NotToml if document.has_no_toml else ConfigError)(known)
    state_dir = read_state_dir(document, overrides)
    if state_dir is None or (salvage and not is_named and not state_dir.is_dir()):
        raise ConfigError([problem for problem in document.problems() if problem not in known])
    return state_dir
