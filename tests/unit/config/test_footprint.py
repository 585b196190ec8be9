"""What a configuration was read from: which changes are seen, and which names and directories they come by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.config.footprint import Footprint
from supervisor.config.load import load
from supervisor.errors import ConfigError

TEXT = """
include = ["accounts.d/*.toml"]
[telegram]
api_id = 1
api_hash_file = "hash"
"""
MORE = '[accounts.b]\nbot_token_file = "../b.token"\n'


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A configuration of several files."""
    (tmp_path / "accounts.toml").write_text(TEXT)
    (tmp_path / "hash").write_text("0" * 32)
    (tmp_path / "b.token").write_text("110201544:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsawB")
    (tmp_path / "accounts.d").mkdir()
    (tmp_path / "accounts.d" / "b.toml").write_text(MORE)
    return tmp_path


def footprint_of(path: Path) -> Footprint:
    seen = Footprint()
    with pytest.raises(ConfigError, match="no account is configured"):
        load(path, footprint=seen)
    return seen


def test_all_that_was_read_is_in_it(etc: Path) -> None:
    """The main file, the included ones and the files of secrets; not what merely lies beside them."""
    seen = load(etc / "accounts.toml").footprint
    assert {path.resolve() for path in seen.files} == {
        etc / name for name in ("accounts.toml", "hash", "b.token", "accounts.d/b.toml")
    }
    assert seen.changed() is None
    (etc / "notes").write_text("x")
    (etc / "accounts.d" / "c.txt").write_text("x")
    assert seen.changed() is None
    names = seen.names()
    assert not seen.concerns(str(etc / "notes"), names)
    assert seen.directories() == {str(etc), str(etc / "accounts.d")}


@pytest.mark.parametrize(
    "change",
    [
        lambda etc: (etc / "accounts.toml").write_text(TEXT + "# x"),
        lambda etc: (etc / "accounts.d" / "b.toml").write_text(MORE.replace("b]", "c]")),
        lambda etc: (etc / "b.token").write_text("other"),
        lambda etc: (etc / "hash").unlink(),
        lambda etc: (etc / "accounts.d" / "c.toml").write_text(""),
        lambda etc: (etc / "hash").replace(etc / "accounts.toml"),
    ],
    ids=["main", "included", "secret", "gone", "another", "renamed"],
)
def test_each_change_is_seen(etc: Path, change: Callable[[Path], object]) -> None:
    """Of any of them: written, replaced by another file, gone, or one more that a pattern finds."""
    seen = load(etc / "accounts.toml").footprint
    change(etc)
    changed = seen.changed()
    assert changed is not None
    assert seen.concerns(str(changed.resolve()), seen.names())


def test_what_was_missing_is_looked_for(etc: Path) -> None:
    """A configuration that is wrong is watched, too: where its missing files would come."""
    (etc / "hash").unlink()
    seen = Footprint()
    with pytest.raises(ConfigError):
        load(etc / "accounts.toml", footprint=seen)
    assert seen.changed() is None
    (etc / "hash").write_text("0" * 32)
    assert seen.changed() == etc / "hash"


def test_a_directory_that_is_not_there_yet_is_looked_for(etc: Path) -> None:
    """Of an include's pattern: its own name concerns us, in the directory above."""
    (etc / "accounts.d" / "b.toml").rename(etc / "b.toml")
    (etc / "accounts.d").rmdir()
    seen = footprint_of(etc / "accounts.toml")
    assert seen.directories() == {str(etc)}
    assert seen.concerns(str(etc / "accounts.d"), seen.names())
    (etc / "accounts.d").mkdir()
    assert seen.directories() == {str(etc), str(etc / "accounts.d")}


def test_links_are_followed_as_they_turn(tmp_path: Path) -> None:
    """As Kubernetes mounts a file: ``accounts.toml -> ..data/accounts.toml``, ``..data -> ..1``, then ``-> ..2``."""
    for number in "12":
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "accounts.toml").write_text(
            f'[telegram]\napi_id = {number}\napi_hash = "{"0" * 32}"\n'
        )
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "accounts.toml").symlink_to("..data/accounts.toml")
    seen = footprint_of(tmp_path / "accounts.toml")
    assert seen.names() == {str(tmp_path / name) for name in ("accounts.toml", "..data", "..1/accounts.toml")}
    assert seen.directories() == {str(tmp_path), str(tmp_path / "..1")}
    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    assert seen.changed() == tmp_path / "accounts.toml"
    assert seen.directories() == {str(tmp_path), str(tmp_path / "..2")}


def test_links_that_lead_nowhere_end(tmp_path: Path) -> None:
    """A link to itself, to a missing file, and over an absolute path and ``..``."""
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "far").symlink_to(tmp_path / "gone" / ".." / "there")
    seen = Footprint()
    seen.note(tmp_path / "self", None)
    seen.note(tmp_path / "far", None)
    assert str(tmp_path / "self") in seen.names()
    assert str(tmp_path / "gone") in seen.names()
    assert seen.directories() == {str(tmp_path)}
