"""Where the configuration and the state are that nobody has named."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.config import places
from supervisor.config.load import load_state_dir


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and the working directory beside it."""
    for folder in ("home/.config/tg-supervisor", "work", "xdg/tg-supervisor"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def test_the_configuration_is_looked_for(home: Path) -> None:
    """The variable, the working directory, the user's own; where there is none, the working directory's is asked for."""
    env = {"HOME": str(home)}
    own = home / ".config/tg-supervisor/accounts.toml"
    assert places.config_file(env) == Path("accounts.toml")
    own.touch()
    assert places.config_file(env) == own
    Path("accounts.toml").touch()
    assert places.config_file(env) == Path("accounts.toml")
    assert places.config_file(env | {"TG_SUPERVISOR_CONFIG": "other.toml"}) == Path("other.toml")


def test_xdg_moves_it(home: Path) -> None:
    """$XDG_CONFIG_HOME is obeyed if it is absolute."""
    there = home.parent / "xdg/tg-supervisor/accounts.toml"
    there.touch()
    assert places.config_file({"HOME": str(home), "XDG_CONFIG_HOME": str(home.parent / "xdg")}) == there
    assert places.config_file({"HOME": str(home), "XDG_CONFIG_HOME": "xdg"}) == Path("accounts.toml")


def test_the_users_own_configuration_has_its_state_in_the_state_home(home: Path) -> None:
    """And any other beside it, unless it names another."""
    own = home / ".config/tg-supervisor/accounts.toml"
    own.write_text("[accounts]\n")
    env = {"HOME": str(home)}
    assert load_state_dir(own, env=env) == home / ".local/state/tg-supervisor"
    elsewhere = env | {"XDG_STATE_HOME": "/data"}
    assert load_state_dir(own, env=elsewhere) == Path("/data/tg-supervisor")
    own.write_text('[supervisor]\nstate_dir = "s"\n')
    assert load_state_dir(own, env=env) == own.parent / "s"
    Path("accounts.toml").write_text("[accounts]\n")
    assert load_state_dir("accounts.toml", env=env) == Path.cwd() / "state"
