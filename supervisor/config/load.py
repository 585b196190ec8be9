"""accounts.toml to `Config`, with everything that is wrong reported at once.

Order of precedence: the command line (`overrides`), the environment, the file, the defaults. Every key of
``[supervisor]`` has a variable, ``TG_SUPERVISOR_`` and the key in capitals: ``TG_SUPERVISOR_STATE_DIR``,
``TG_SUPERVISOR_CALLBACKS=my_recovery,my_other``. An empty variable counts as absent. There and on the command line a
relative path starts from the working directory; in a file, from the directory of that file. ``TG_SUPERVISOR_CONFIG``,
the path of the file itself, is the command line's business.

In a file:

- any string may take ``${VARIABLE}``, and a number may be such a string; ``$${`` stands for the characters ``${``. In
  a proxy's url a variable stands for itself, so a password in one needs no percent-encoding.
- a secret key (bot_token, phone, password, session_string, api_hash, a proxy's url) may be ``KEY_file = "path"``; line
  ends after its content are dropped. ``~`` in a path is the home directory.
- included files are merged with the main one: a table may be spread over files, the same account, proxy or key may
  not. ``[defaults]`` holds for all files, wherever it stands.
- ``proxy = "direct"`` undoes a default proxy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from supervisor.config.accounts import read_accounts, search_path
from supervisor.config.checks import Wrong
from supervisor.config.model import Config
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
from supervisor.config.source import Document
from supervisor.config.table import file_path
from supervisor.core.failure import DEFAULT_POLICIES, Kind, Override, Policy
from supervisor.errors import ConfigError

_NONE: Mapping[str, str] = MappingProxyType({})


def load(
    path: Path | str, *, env: Mapping[str, str] = os.environ, overrides: Mapping[str, str] = _NONE
) -> Config:
    """Read the configuration.

    Args:
        path: the main file; problems name it as it is given here.
        env: the environment.
        overrides: keys of ``[supervisor]`` that the command line sets.

    Raises:
        ConfigError: something is wrong; it has every problem, as ``accounts.toml:12: accounts.support-bot.proxy: …``.
    """
    document = Document(path, env)
    if not document.sources:
        raise ConfigError(document.problems())
    telegram = read_telegram(document)
    settings = read_settings(document, overrides)
    policies = read_policies(document)
    rows = read_overrides(document)
    proxies = read_proxies(document)
    accounts = read_accounts(document, proxies)
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
        search_path=search_path(document),
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
    """Read ``supervisor.state_dir`` alone, for the commands that only read.

    Neither unset variables nor other mistakes matter, as long as the main file is TOML; included files are read only
    if the main one does not name the directory. Where the command line or the environment names it, no file is read.

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
    document = Document(path, env, follow=False)
    includes = document.sources and "include" in document.sources[0].data
    if includes and "state_dir" not in document.tables["supervisor"]:
        document = Document(path, env)
    known = document.problems()
    if not document.complete and "state_dir" not in document.tables["supervisor"]:
        raise ConfigError(known)
    state_dir = read_state_dir(document, overrides)
    if state_dir is None:
        raise ConfigError([problem for problem in document.problems() if problem not in known])
    return state_dir
