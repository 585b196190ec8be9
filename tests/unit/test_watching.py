"""The configuration's files are watched with the system's own means, in a real directory."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor import watching
from supervisor.config.footprint import Footprint
from supervisor.watching import FileWatch

SOON = 5.0


class Reader:
    """Reads a file when it is told of a change, and counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told = 0
        self.read = 0
        self.wanted = True
        self.footprint = Footprint()
        self.news = asyncio.Event()
        self.files = FileWatch(lambda: self.footprint if self.wanted else None, self._tell)
        self._read()

    def _tell(self) -> None:
        self.told += 1
        self.reread()

    def reread(self) -> None:
        """As `tg-supervisor reload` does."""
        self._read()
        self.files.read_again()

    def _read(self) -> None:
        self.read += 1
        self.footprint = Footprint()
        self.footprint.note(self.path, None)
        with suppress(OSError):
            self.footprint.note(self.path, self.path.read_bytes())
        self.news.set()

    async def next(self) -> None:
        """The next reading, at most a few seconds away."""
        self.news.clear()
        async with asyncio.timeout(SOON):
            await self.news.wait()


@asynccontextmanager
async def watched(path: Path) -> AsyncIterator[Reader]:
    reader = Reader(path)
    work = asyncio.create_task(reader.files.run())
    yield reader
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
    assert not [thread for thread in threading.enumerate() if thread.name == "watch"]


async def test_a_change_is_told_once(tmp_path: Path) -> None:
    """Written in place, or put in its place by an editor; a burst of writes is one change, its last state is read."""
    path = tmp_path / "accounts.toml"
    path.write_text("0")
    async with watched(path) as reader:
        for text in "123":
            path.write_text(text)
        await reader.next()
        assert (reader.told, reader.footprint.changed()) == (1, None)
        (tmp_path / "accounts.toml~").write_text("4")
        (tmp_path / "accounts.toml~").replace(path)
        await reader.next()
        path.unlink()
        await reader.next()
        path.write_text("5")
        await reader.next()
        assert (reader.told, reader.footprint.changed()) == (4, None)


async def test_a_link_that_turns_is_a_change(tmp_path: Path) -> None:
    """And after it the new file is watched, as the old one was."""
    for number in "12":
        (tmp_path / number).mkdir()
        (tmp_path / number / "accounts.toml").write_text(number)
    (tmp_path / "etc").mkdir()
    path = tmp_path / "etc" / "accounts.toml"
    (tmp_path / "etc" / "..data").symlink_to("../1")
    path.symlink_to("..data/accounts.toml")
    async with watched(path) as reader:
        (tmp_path / "etc" / "..tmp").symlink_to("../2")
        (tmp_path / "etc" / "..tmp").replace(tmp_path / "etc" / "..data")
        await reader.next()
        (tmp_path / "2" / "accounts.toml").write_text("3")
        await reader.next()
        assert reader.told == 2


async def test_what_was_read_already_is_no_change(tmp_path: Path) -> None:
    """A command was quicker; and what else lies in the directory is nobody's concern."""
    path = tmp_path / "accounts.toml"
    path.write_text("0")
    async with watched(path) as reader:
        await asyncio.sleep(0.3)
        path.write_text("1")
        reader.reread()
        (tmp_path / "bot.log").write_text("x")
        await asyncio.sleep(0.8)
        assert reader.told == 0
        path.write_text("2")
        await reader.next()
        assert reader.told == 1


async def test_it_can_be_switched_off_and_on(tmp_path: Path) -> None:
    """While it is off no thread waits; what has changed meanwhile is told then."""
    path = tmp_path / "accounts.toml"
    path.write_text("0")
    async with watched(path) as reader:
        reader.wanted = False
        reader.reread()
        await asyncio.sleep(0.5)
        assert not [thread for thread in threading.enumerate() if thread.name == "watch"]
        path.write_text("1")
        reader.wanted = True
        reader.files.read_again()
        await reader.next()
        assert reader.told == 1


async def test_where_it_cannot_be_watched_it_says_so_and_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the system has no watch left; what to do meanwhile is in the line."""
    path = tmp_path / "accounts.toml"
    path.write_text("0")
    news, full = watching._news, True

    def no_watch_left(*args: Any) -> Any:
        if full:
            raise OSError(28, "OS file watch limit reached")
        return news(*args)

    monkeypatch.setattr(watching, "_news", no_watch_left)
    monkeypatch.setattr(watching, "AGAIN", 0.3)
    async with watched(path) as reader:
        async with asyncio.timeout(SOON):
            while not caplog.records:
                await asyncio.sleep(0.01)
        full = False
        path.write_text("1")
        await reader.next()
    (said,) = {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING}
    assert "watch limit reached" in said
    assert said.endswith("after a change: tg-supervisor reload")


def test_a_thread_that_outlives_the_loop_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine may not end it in time: then it ends by itself, without a traceback."""
    ended = threading.Event()

    def slow(_seen: Footprint, _directories: frozenset[str], stop: threading.Event) -> Iterator[None]:
        yield None
        stop.wait()
        ended.wait(SOON)  # until the loop is closed

    raised: list[object] = []
    monkeypatch.setattr(watching, "_news", slow)
    monkeypatch.setattr(watching, "ENDS_WITHIN", 0.01)
    monkeypatch.setattr(threading, "excepthook", raised.append)

    async def watch() -> None:
        work = asyncio.create_task(Reader(tmp_path / "accounts.toml").files.run())
        await asyncio.sleep(0.1)
        work.cancel()
        await asyncio.wait({work})

    asyncio.run(watch())
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "watch")
    ended.set()
    thread.join(SOON)
    assert not thread.is_alive()
    assert raised == []
