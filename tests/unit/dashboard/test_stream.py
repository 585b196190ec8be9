"""`/api/v1/events`."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from supervisor.core.failure import State
from supervisor.dashboard import stream
from supervisor.record.store import Store
from tests.unit.dashboard.made_up import Desk, failure
from tests.unit.dashboard.served import BEARER, Asking, asking, check_schema


class Watching:
    """Somebody who watches."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def next(self) -> tuple[str, Any]:
        """The next event's name and data, held against its schema."""
        lines: list[str] = []
        while True:
            line = (await asyncio.wait_for(self.answer.content.readline(), 10)).decode()
            if not line:
                return "end", None
            if line.strip():
                lines.append(line.rstrip("\n"))
            elif lines and lines[0].startswith("event: "):
                break
            else:
                lines = []
        name, data = lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))
        check_schema(["components", "schemas", name.capitalize()], data)
        return name, data

    async def until(self, key: str) -> Any:
        """The first event with something in it."""
        while True:
            _, data = await self.next()
            if data[key]:
                return data[key]


@asynccontextmanager
async def watching(ask: Asking) -> AsyncIterator[Watching]:
    async with ask.session.get(f"{ask.url}api/v1/events", headers=BEARER, read_bufsize=2**24) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield Watching(answer)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than every second."""
    monkeypatch.setattr(stream, "EVERY", 0.05)


async def test_everything_comes_first_then_what_changes(ask: Asking, desk: Desk) -> None:
    """The first event has all accounts as GET has them; those after it only what differs."""
    async with watching(ask) as one:
        name, full = await one.next()
        assert name == "full"
        assert full["accounts"] == (await ask.get("/api/v1/accounts")).json()["accounts"]
        assert len(full["rows"]) == 60
        name, change = await one.next()
        assert (name, change["accounts"], change["removed"], change["rows"]) == ("change", [], [], [])
        assert "paths" not in change
        desk.put(replace(desk.accounts["bot-0001"], state=State.PAUSED))
        (found,) = await one.until("accounts")
        assert (found["name"], found["state"]) == ("bot-0001", "paused")
        del desk.accounts["bot-0001"]
        assert await one.until("removed") == ["bot-0001"]
        desk.paths[0] = replace(desk.paths[0], state="broken")
        while "paths" not in (change := (await one.next())[1]):
            pass
        assert change["paths"][0]["state"] == "broken"


async def test_new_rows_of_the_log_come(ask: Asking, state_dir: Path) -> None:
    """What is written to the log comes within a look."""
    async with watching(ask) as one:
        _, full = await one.next()
        newest = full["rows"][-1]["id"]
        with closing(sqlite3.connect(state_dir / "recovery.db")) as db:
            columns = [row[1] for row in db.execute("PRAGMA table_info(failures)") if row[1] != "id"]
            names = ", ".join(columns)
            db.execute(f"INSERT INTO failures ({names}) SELECT {names} FROM failures WHERE id = ?", (newest,))
            db.commit()
        (row,) = await one.until("rows")
        assert row == full["rows"][-1] | {"id": newest + 1}


async def test_the_first_row_of_an_empty_log_comes(desk: Desk, tmp_path: Path) -> None:
    """A log that had nothing at first is followed from its first row on."""
    async with (
        Store.open(tmp_path / "recovery.db") as store,
        asking(desk, tmp_path) as ask,
        watching(ask) as one,
    ):
        assert (await one.next())[1]["rows"] == []
        await one.next()
        store.record(failure("bot-0001", time.time()))
        (row,) = await one.until("rows")
        assert (row["id"], row["account"]) == (1, "bot-0001")


async def test_who_comes_later_gets_everything_too(ask: Asking, desk: Desk) -> None:
    """Another one who comes gets all; the first gets only changes."""
    async with watching(ask) as one, watching(ask) as other:
        assert (await one.next())[0] == "full"
        assert (await other.next())[0] == "full"
        desk.put(replace(desk.accounts["bot-0002"], state=State.FAILED))
        assert [found["name"] for found in await one.until("accounts")] == ["bot-0002"]
        assert [found["name"] for found in await other.until("accounts")] == ["bot-0002"]
        async with watching(ask) as third:
            name, full = await third.next()
            assert name == "full"
            assert full["accounts"][2]["state"] == "failed"


async def test_trouble_with_the_log_is_told(desk: Desk, tmp_path: Path) -> None:
    """Where recovery.db cannot be read, the accounts come all the same, and the reason with them."""
    (tmp_path / "recovery.db").write_bytes(b"this is no database" * 100)
    async with asking(desk, tmp_path) as ask, watching(ask) as one:
        name, full = await one.next()
        assert (name, len(full["accounts"]), full["rows"]) == ("full", 100, [])
        assert "recovery.db" in full["now"]["trouble"]


async def test_the_end_of_the_daemon_is_the_end_of_the_stream(desk: Desk, state_dir: Path) -> None:
    """Those who watch do not hold the daemon up: their streams end with it, at once."""
    async with asking(desk, state_dir) as ask:
        one = await ask.session.get(f"{ask.url}api/v1/events", headers=BEARER)
        assert (await Watching(one).next())[0] == "full"
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    one.close()


async def test_too_many_are_refused(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a bound on how many watch; who leaves makes room."""
    monkeypatch.setattr(stream, "_VIEWERS", 1)
    async with watching(ask) as one:
        await one.next()
        assert (await ask.get("/api/v1/events")).status == 503
    for _ in range(100):
        async with ask.session.get(f"{ask.url}api/v1/events", headers=BEARER) as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.02)
    pytest.fail("nobody could watch any more")


def test_who_does_not_read_is_sent_away() -> None:
    """A viewer who is too far behind gets no more, and there is room for his end."""
    viewer = stream._Viewer()
    assert all(viewer.tell("x") for _ in range(stream._BEHIND))
    assert not viewer.tell("x")
    viewer.end()
