"""What is configured for an account is told from what was, and cannot be read from what is kept of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from supervisor.config.model import Account, Secret, Server, Telegram
from supervisor.marks import Marks

TELEGRAM = Telegram(12345, Secret("0" * 32))
BOT = Account("bot", bot_token=Secret("42:" + "a" * 35), plugins="bots/support")
USER = Account("user", phone=Secret("+4915112345678"), password=Secret("secret"))


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path)


def test_the_same_is_the_same_in_the_next_process(marks: Marks, tmp_path: Path) -> None:
    """The key is kept, for its owner's eyes only."""
    assert Marks(tmp_path).of(BOT, TELEGRAM) == marks.of(BOT, TELEGRAM)
    assert (tmp_path / "marks.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["marks.key"]


@pytest.mark.parametrize(
    "other",
    [
        replace(BOT, bot_token=Secret("42:" + "b" * 35)),
        replace(BOT, plugins="bots/shop"),
        replace(BOT, client=MappingProxyType({"workers": 4})),
        USER,
    ],
    ids=str,
)
def test_what_decides_about_the_sign_in_makes_another_mark(marks: Marks, other: Account) -> None:
    """Another token, other code, other arguments."""
    assert marks.of(other, TELEGRAM) != marks.of(BOT, TELEGRAM)


@pytest.mark.parametrize(
    "other", [replace(USER, phone=Secret("+4915112345679")), replace(USER, password=Secret("other"))]
)
def test_a_user_is_told_by_number_and_password(marks: Marks, other: Account) -> None:
    """A person who has mended one of them has acted."""
    assert marks.of(other, TELEGRAM) != marks.of(USER, TELEGRAM)


@pytest.mark.parametrize(
    "other", [replace(TELEGRAM, api_id=1), replace(TELEGRAM, server=Server("127.0.0.1", 443, 2, "PEM"))]
)
def test_another_application_or_server_makes_another_mark(marks: Marks, other: Telegram) -> None:
    """What one of them refuses the other may not."""
    assert marks.of(BOT, other) != marks.of(BOT, TELEGRAM)


def test_what_does_not_decide_about_it_makes_none(marks: Marks) -> None:
    """Its name, its proxies, its main."""
    other = replace(BOT, name="renamed", proxies=("de1",), main="shop:main")
    assert marks.of(other, TELEGRAM) == marks.of(BOT, TELEGRAM)


def test_another_file_in_the_same_place_is_another_session(marks: Marks, tmp_path: Path) -> None:
    """By its size and time; one that is gone is none of both."""
    file = tmp_path / "old.session"
    file.write_bytes(b"one")
    account = Account("old", session_file=file)
    seen = {marks.of(account, TELEGRAM)}
    file.write_bytes(b"another")
    seen.add(marks.of(account, TELEGRAM))
    os.utime(file, (1.0, 1.0))
    seen.add(marks.of(account, TELEGRAM))
    file.unlink()
    seen.add(marks.of(account, TELEGRAM))
    assert len(seen) == 4


def test_whoever_has_no_key_cannot_try_numbers_out(marks: Marks, tmp_path: Path) -> None:
    """The mark of another state directory, or of one whose key was cut short, says nothing."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mark = marks.of(USER, TELEGRAM)
    assert Marks(elsewhere).of(USER, TELEGRAM) != mark
    (tmp_path / "marks.key").write_bytes(b"half")
    assert Marks(tmp_path).of(USER, TELEGRAM) != mark
    assert len((tmp_path / "marks.key").read_bytes()) == 32
