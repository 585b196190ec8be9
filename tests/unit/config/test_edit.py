"""An account is written into a file, and nothing else in it changes."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from supervisor.config import edit
from supervisor.errors import ConfigError


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        '# ünïcode\n[telegram]\napi_id = 1 # mine\n\n\n[accounts.a]\nphone = "+4915112345678"   # his\n\n# the end\n',
        "[accounts]\r\na = { phone_file = 'a' }\r\n",
        "[accounts.a.client]\nworkers = 2\n[proxies.x]\nurl = 'http://x:1'\n",
    ],
)
@pytest.mark.parametrize("name", ["new-bot", "new.bot", "7"])
def test_the_text_stays_as_it_is(text: str, name: str) -> None:
    """Letter by letter, with its comments and line ends; the account comes after it, whatever its name."""
    keys = {"bot_token": '${A}"\\', "proxy": ("de1", "nl3")}
    new = edit.with_account(text, name, keys)
    assert new.startswith(text)
    assert tomllib.loads(new)["accounts"][name] == {"bot_token": '${A}"\\', "proxy": ["de1", "nl3"]}
    assert ("\r\n" in text) == (new.count("\n") == new.count("\r\n"))
    before = tomllib.loads(text)
    assert {key: value for key, value in tomllib.loads(new).items() if key != "accounts"} == {
        key: value for key, value in before.items() if key != "accounts"
    }
    if text:
        assert edit.with_account(edit.with_account(text, name, keys), "b", {}).startswith(new)


def test_a_file_is_replaced_with_its_owner_and_mode(tmp_path: Path) -> None:
    """A link stays one; nothing lies about afterwards; a file that was changed meanwhile stays as it is."""
    path, link = tmp_path / "accounts.toml", tmp_path / "link.toml"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    edit.replace(link, b"old", b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode), link.is_symlink()) == (b"new", 0o640, True)
    with pytest.raises(ConfigError, match="was changed meanwhile"):
        edit.replace(path, b"old", b"newer")
    edit.replace(tmp_path / "more.toml", None, b"one")
    assert stat.S_IMODE((tmp_path / "more.toml").stat().st_mode) == 0o600
    edit.replace(tmp_path / "more.toml", b"one", None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accounts.toml", "link.toml"]
    assert path.read_bytes() == b"new"


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    """And nothing is half there."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        edit.read(folder)
    with pytest.raises(ConfigError, match="cannot be written"):
        edit.create_secret(tmp_path / "no" / "x", "secret")
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        edit.replace(tmp_path / "no" / "x.toml", None, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_secret_has_a_file_of_its_own(tmp_path: Path) -> None:
    """For its owner alone; one that is there is never written over, and the secret is in no message."""
    path = tmp_path / "bot.token"
    edit.create_secret(path, "1:secret")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("1:secret\n", 0o600)
    with pytest.raises(ConfigError, match="is there already") as refused:
        edit.create_secret(path, "2:other")
    assert path.read_text() == "1:secret\n"
    assert "other" not in str(refused.value)
