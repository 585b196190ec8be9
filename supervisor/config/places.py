"""Where things are looked for that nobody has named (https://specifications.freedesktop.org/basedir-spec/latest/)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

NAME = "tg-supervisor"


def config_file(env: Mapping[str, str]) -> Path:
    """The configuration: $TG_SUPERVISOR_CONFIG, ./accounts.toml, or else the user's own if there is one.

    Args:
        env: the environment.
    """
    if env.get("TG_SUPERVISOR_CONFIG"):
        return Path(env["TG_SUPERVISOR_CONFIG"])
    here, home = Path("accounts.toml"), _home("XDG_CONFIG_HOME", ".config", env) / "accounts.toml"
    return home if home.is_file() and not here.exists() else here


def state_dir(config: Path, env: Mapping[str, str]) -> Path:
    """The state directory of a configuration that names none: `state` beside it; that of the user's own in their state home.

    Args:
        config: the configuration file.
        env: the environment.
    """
    if config.absolute().parent == _home("XDG_CONFIG_HOME", ".config", env):
        return _home("XDG_STATE_HOME", ".local/state", env)
    return config.parent / "state"


def _home(variable: str, default: str, env: Mapping[str, str]) -> Path:
    """A folder of ours; as the specification wants it, a relative path is ignored."""
    given = Path(env.get(variable, ""))
    return (given if given.is_absolute() else Path(env.get("HOME") or "/") / default) / NAME
