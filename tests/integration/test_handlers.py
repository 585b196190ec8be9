"""A bot's own code: it runs through every recovery, and what it does wrong stays its own."""

from __future__ import annotations

import asyncio
import importlib
import secrets
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrogram
import pytest
from pyrogram.handlers import MessageHandler

from supervisor import account, journal
from supervisor.datacenter import Datacenter
from supervisor.telegram import client as client_module
from supervisor.telegram import handlers
from tests.integration.conftest import Fleet, until

pytestmark = pytest.mark.timeout(60)

needs_error_handlers = pytest.mark.skipif(
    not hasattr(pyrogram.handlers, "ErrorHandler"), reason="Pyrogram has no ErrorHandler"
)

PLUGIN = """
from pyrogram import Client
seen = []
@Client.on_message(group=1)
async def plugged(client, message):
    seen.append((client.name, message.text))
"""


@pytest.fixture(autouse=True)
def quick(dc: Datacenter) -> None:
    """Nothing here is about latency."""
    dc.latency = 0.0


def plugin(directory: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str = PLUGIN) -> None:
    """Write a folder of plugins beside the configuration file."""
    (directory / name).mkdir()
    (directory / name / "replies.py").write_text(code)
    monkeypatch.syspath_prepend(str(directory))
    for module in (name, f"{name}.replies"):
        monkeypatch.delitem(sys.modules, module, raising=False)


async def pushed(bots: Fleet, seen: list[Any], text: str, name: str = "bot-0") -> None:
    """Push a message, and wait until a handler has noted it."""
    bots.dc.push_message(bots.bots[bots.names.index(name)], text, from_user=777)
    await until(lambda: text in seen, 5, f"{text!r} reaches its handler")


async def code_rows(bots: Fleet) -> list[dict[str, Any]]:
    """What was recorded of the bots' own code."""
    return [row for row in await bots.rows() if row["outcome"] == "raised" and row["account"]]


# --- Recoveries -----------------------------------------------------------------------------------------


async def test_handlers_outlive_every_recovery_and_are_registered_once(
    dc: Datacenter, fleet: Callable[..., Fleet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reset, a new key, pause and resume: plugin, decorated and added handlers see each message exactly once."""
    plugin(tmp_path, monkeypatch, "plugged")
    bots = fleet(2)
    for name in bots.names:  # one folder for both: the same handler object runs in two clients
        bots.change(name, plugins="plugged")
    decorated: list[str] = []
    added: list[str] = []
    texts = ["first", "after the reset", "after the relogin", "after the pause"]
    async with bots.running() as sup:
        client = await sup.client("bot-0")

        @client.on_message()  # type: ignore[untyped-decorator,unused-ignore] # typed in one of the libraries
        def in_a_thread(_client: Any, message: Any) -> None:
            decorated.append(message.text)

        async def note(_client: Any, message: Any) -> None:
            added.append(message.text)

        client.add_handler(MessageHandler(note), 2)
        await pushed(bots, added, texts[0])
        dc.reset_links()
        await pushed(bots, added, texts[1])
        dc.revoke(bots.bots[0], "SESSION_REVOKED")
        await client.send_message(777, "with a new key")
        assert dc.seen.sign_ins[bots.bots[0].user_id] == 2
        await pushed(bots, added, texts[2])
        await sup.pause(["bot-0"])
        await until(lambda: bots.state() == "paused")
        await sup.resume(["bot-0"])
        await until(lambda: bots.state() == "online")
        await pushed(bots, added, texts[3])
        assert await sup.client("bot-0") is client
        dc.push_message(bots.bots[1], "to the other", from_user=777)
        plugged = importlib.import_module("plugged.replies").seen
        await until(lambda: ("bot-1", "to the other") in plugged, 5)
    assert decorated == texts
    assert added == texts
    assert plugged == [*(("bot-0", text) for text in texts), ("bot-1", "to the other")]


async def test_a_removed_handler_is_removed(fleet: Callable[..., Fleet]) -> None:
    """By the object that was given, though a copy of it ran; added again, it runs again, once."""
    bots = fleet(1)
    seen: list[str] = []
    always: list[str] = []
    async with bots.running() as sup:
        client = await sup.client("bot-0")

        async def note(_client: Any, message: Any) -> None:
            seen.append(message.text)

        async def note_always(_client: Any, message: Any) -> None:
            always.append(message.text)

        handler = MessageHandler(note)
        assert client.add_handler(handler, 3) == (handler, 3)
        client.add_handler(MessageHandler(note_always), 4)
        await pushed(bots, always, "one")
        client.remove_handler(handler, 3)
        await pushed(bots, always, "two")
        client.add_handler(handler, 3)
        await pushed(bots, always, "three")
    assert seen == ["one", "three"]


# --- What a handler raises ------------------------------------------------------------------------------


async def test_what_a_handler_raises_is_recorded_with_its_place(
    fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    """Coroutine, function and filter: who, what, the file, line and function of each frame, and no values."""
    bots, password = fleet(1), secrets.token_hex(9)
    seen: list[str] = []
    async with bots.running() as sup:
        client = await sup.client("bot-0")

        def deeper(given: str) -> None:
            raise ValueError(f"no good: {len(given)}")

        async def coroutine(_client: Any, _message: Any) -> None:
            deeper(password)

        def function(_client: Any, _message: Any) -> None:
            deeper(password)

        async def sieve(_filter: Any, _client: Any, _update: Any) -> bool:
            raise LookupError("in a filter")

        async def note(_client: Any, message: Any) -> None:
            seen.append(message.text)

        client.add_handler(MessageHandler(coroutine), 1)
        client.add_handler(MessageHandler(function), 2)
        client.add_handler(MessageHandler(note, pyrogram.filters.create(sieve)), 3)
        client.add_handler(MessageHandler(note), 4)
        await pushed(bots, seen, "one")
        assert bots.state() == "online"
        rows = await code_rows(bots)
    assert seen == ["one"]
    assert [(row["account"], row["kind"], row["scope"], row["incident"]) for row in rows] == [
        ("bot-0", "unknown", "call", None)
    ] * 3
    assert [row["message"] for row in rows] == ["ValueError: no good: 18"] * 2 + ["LookupError: in a filter"]
    for row, name in zip(rows[:2], ("coroutine", "function"), strict=True):
        error, *_, outer, inner = row["cause"]
        assert error == "ValueError: no good: 18"
        assert (__file__ in outer, __file__ in inner) == (True, True)
        assert outer.endswith(f".<locals>.{name}")
        assert inner.endswith(".<locals>.deeper")
    assert rows[2]["cause"][-1].endswith(".<locals>.sieve")
    with sqlite3.connect(tmp_path / "state" / "recovery.db") as db:
        tracebacks = [text for (text,) in db.execute("SELECT traceback FROM failures ORDER BY id")]
    db.close()
    assert all("Traceback (most recent call last)" in text for text in tracebacks)
    assert not any(password in str(told) for told in (*rows, *tracebacks))


def leave() -> None:
    sys.exit(3)


def interrupt() -> None:
    raise KeyboardInterrupt


def stop_iteration() -> None:
    next(iter(()))


def cancelled() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("is_coroutine", [True, False], ids=["coroutine", "function"])
@pytest.mark.parametrize("harm", [leave, interrupt, stop_iteration, cancelled])
async def test_what_means_more_to_python_does_no_harm(
    fleet: Callable[..., Fleet], harm: Callable[[], None], is_coroutine: bool
) -> None:
    """sys.exit(), KeyboardInterrupt, StopIteration, CancelledError: recorded; each worker is there for the next."""
    bots = fleet(1)
    bots.change("bot-0", client={"workers": 1})
    seen: list[str] = []
    async with bots.running() as sup:
        client = await sup.client("bot-0")

        async def coroutine(_client: Any, _message: Any) -> None:
            harm()

        def function(_client: Any, _message: Any) -> None:
            harm()

        async def note(_client: Any, message: Any) -> None:
            seen.append(message.text)

        client.add_handler(MessageHandler(coroutine if is_coroutine else function), 1)
        client.add_handler(MessageHandler(note), 2)
        await pushed(bots, seen, "one")
        await pushed(bots, seen, "two")
        rows = await code_rows(bots)
        assert bots.state() == "online"
    assert len(rows) == 2
    assert {row["account"] for row in rows} == {"bot-0"}
    assert harm.__name__ in str(rows[0]["cause"])


async def test_a_handler_that_cancels_its_worker_is_survived(fleet: Callable[..., Fleet]) -> None:
    """Another worker takes its place; and a stop is not held up by it."""
    bots = fleet(1)
    bots.change("bot-0", client={"workers": 1})
    seen: list[str] = []
    async with bots.running() as sup:
        client = await sup.client("bot-0")

        async def suicide(_client: Any, message: Any) -> None:
            seen.append(message.text)
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        client.add_handler(MessageHandler(suicide))
        for text in ("one", "two", "three"):
            await pushed(bots, seen, text)
    assert seen == ["one", "two", "three"]


async def test_the_librarys_own_flow_goes_on_and_is_no_failure(fleet: Callable[..., Fleet]) -> None:
    """ContinuePropagation reaches the next handler of the group, StopPropagation ends it; neither is recorded."""
    bots = fleet(1)
    seen: list[str] = []
    async with bots.running() as sup:
        client = await sup.client("bot-0")

        async def goes_on(_client: Any, message: Any) -> None:
            seen.append("goes on")
            message.continue_propagation()

        def goes_on_too(_client: Any, message: Any) -> None:
            seen.append("goes on, too")
            message.continue_propagation()

        async def second(_client: Any, _message: Any) -> None:
            seen.append("second")

        def stops(_client: Any, message: Any) -> None:
            seen.append(message.text)
            message.stop_propagation()

        async def never(_client: Any, _message: Any) -> None:
            seen.append("never")

        for handler, group in ((goes_on, 1), (goes_on_too, 1), (second, 1), (stops, 2), (never, 3)):
            client.add_handler(MessageHandler(handler), group)
        await pushed(bots, seen, "one")
        await pushed(bots, seen, "two")
        assert await code_rows(bots) == []
    assert seen == [word for text in ("one", "two") for word in ("goes on", "goes on, too", "second", text)]


@needs_error_handlers
async def test_error_handlers_get_what_handlers_raise(fleet: Callable[..., Fleet]) -> None:
    """Kurigram's ErrorHandler is called with the exception as it was raised; it is recorded all the same."""
    bots = fleet(1)
    caught: list[BaseException] = []
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        raised = ValueError("for the error handler")

        async def bad(_client: Any, _message: Any) -> None:
            raise raised

        async def catch(_client: Any, error: BaseException, *_: Any) -> None:
            caught.append(error)

        client.add_handler(MessageHandler(bad))
        client.add_handler(pyrogram.handlers.ErrorHandler(catch, ValueError))
        bots.dc.push_message(bots.bots[0], "one", from_user=777)
        await until(lambda: caught, 5)
        rows = await code_rows(bots)
    assert caught == [raised]
    assert [row["message"] for row in rows] == ["ValueError: for the error handler"]


async def test_a_flood_of_exceptions_does_not_flood_the_record(
    fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ten are rows of their own, the rest are one row with their number; none is forgotten."""
    monkeypatch.setattr(journal, "WINDOW", 1.0)
    bots = fleet(1)
    raised = 0
    async with bots.running() as sup:
        client = await sup.client("bot-0")

        async def bad(_client: Any, message: Any) -> None:
            nonlocal raised
            raised += 1
            raise ValueError(f"about {message.text}")

        client.add_handler(MessageHandler(bad))
        await client.send_message(777, "handlers are added")
        for n in range(300):
            bots.dc.push_message(bots.bots[0], f"message {n}", from_user=777)
        await until(lambda: raised == 300, 20)
        assert bots.state() == "online"
    rows = await code_rows(bots)
    assert sum(row.get("count", 1) for row in rows) == 300
    assert [row.get("count", 1) for row in rows[:10]] == [1] * 10
    assert len(rows) <= 16
    assert {row["account"] for row in rows} == {"bot-0"}


# --- A handler that hangs -------------------------------------------------------------------------------


async def test_handlers_that_hang_are_found_out_and_hold_up_nobody_else(
    fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the last worker is taken each is recorded once, by name and place; others run, and a stop is bounded."""
    monkeypatch.setattr(handlers, "STUCK_AFTER", 0.4)
    monkeypatch.setattr(client_module, "HANDLER_GRACE", 0.5)
    bots = fleet(2)
    bots.change("bot-0", client={"workers": 2})
    seen: list[str] = []
    hung: list[str] = []
    release = threading.Event()
    async with bots.running() as sup:
        client, other = await sup.client("bot-0"), await sup.client("bot-1")

        async def hangs(_client: Any, _message: Any) -> None:
            hung.append("coroutine")
            while True:  # deaf to being cancelled, the first time
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if "deaf" in hung:
                        raise
                    hung.append("deaf")

        def hangs_in_a_thread(_client: Any, _message: Any) -> None:
            hung.append("function")
            release.wait(20)

        async def note(_client: Any, message: Any) -> None:
            seen.append(message.text)

        client.add_handler(MessageHandler(hangs, pyrogram.filters.regex("coroutine")))
        client.add_handler(MessageHandler(hangs_in_a_thread, pyrogram.filters.regex("function")))
        client.add_handler(MessageHandler(note))
        other.add_handler(MessageHandler(note))
        bots.dc.push_message(bots.bots[0], "coroutine", from_user=777)
        await until(lambda: hung == ["coroutine"], 5)
        await asyncio.sleep(0.6)
        await pushed(bots, seen, "the other worker is free")
        assert await code_rows(bots) == []
        bots.dc.push_message(bots.bots[0], "function", from_user=777)
        bots.dc.push_message(bots.bots[0], "nobody is left for this", from_user=777)
        await until(lambda: len(hung) == 2, 5)
        await asyncio.sleep(0.9)
        rows = await code_rows(bots)
        await pushed(bots, seen, "another account is none the worse", "bot-1")
        assert [bots.state(name) for name in bots.names] == ["online"] * 2
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 9.0
    release.set()
    assert {row["error_id"] for row in rows} == {"HANDLER_STUCK"}
    assert sorted(row["cause"][-1].rpartition(".")[2] for row in rows) == ["hangs", "hangs_in_a_thread"]
    for row in rows:
        assert row["account"] == "bot-0"
        assert "s; all 2 workers are busy, " in row["message"]
        assert "updates wait" in row["message"]
    assert "nobody is left for this" not in seen


# --- main -----------------------------------------------------------------------------------------------

MAINS = """
import asyncio
begun = []
async def raises(client):
    begun.append(client.name)
    await client.send_message(777, f"main {len(begun)}")
    if len(begun) < 2:
        raise ValueError("in main")
    await asyncio.Event().wait()
async def returns(client):
    begun.append(client.name)
async def leaves(client):
    begun.append(client.name)
    raise SystemExit(3)
async def deaf(client):
    begun.append(client.name)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if "cancelled" in begun:
                raise
            begun.append("cancelled")
async def is_cancelled(client):
    begun.append(client.name)
    if begun.count(client.name) < 2:
        raise asyncio.CancelledError
    await asyncio.Event().wait()
"""


@pytest.fixture
def mains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "mains.py").write_text(MAINS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mains", raising=False)
    return importlib.import_module("mains")


async def test_a_main_that_raises_is_recorded_and_begun_again(
    fleet: Callable[..., Fleet], mains: Any
) -> None:
    """With its traceback and its place; the account stays online, and main can call."""
    bots = fleet(1)
    bots.change("bot-0", main="mains:raises")
    async with bots.running():
        await until(lambda: len(mains.begun) == 2, 10)
        await until(lambda: bots.dc.seen.times_delivered("main 2"), 5)
        rows = await code_rows(bots)
        assert bots.state() == "online"
    assert [row["message"] for row in rows] == ["ValueError: in main"]
    assert all(row["cause"][-1].endswith("mains.py:8 in raises") for row in rows)


async def test_a_main_that_returns_is_done_even_after_a_recovery(
    dc: Datacenter, fleet: Callable[..., Fleet], mains: Any
) -> None:
    """Nor is it begun again by a reset; after pause and resume it is."""
    bots = fleet(1)
    bots.change("bot-0", main="mains:returns")
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        await until(lambda: mains.begun, 5)
        dc.reset_links()
        await client.send_message(777, "after the reset")
        await asyncio.sleep(0.3)
        assert mains.begun == ["bot-0"]
        await sup.pause(["bot-0"])
        await sup.resume(["bot-0"])
        await until(lambda: len(mains.begun) == 2, 5)
        assert await code_rows(bots) == []


async def test_a_main_that_exits_or_is_cancelled_harms_nobody(
    fleet: Callable[..., Fleet], mains: Any
) -> None:
    """sys.exit() and a CancelledError of its own are crashes of main: recorded, and main is begun again."""
    bots = fleet(2)
    bots.change("bot-0", main="mains:is_cancelled")
    bots.change("bot-1", main="mains:leaves")
    async with bots.running():
        await until(lambda: mains.begun.count("bot-0") >= 2 and mains.begun.count("bot-1") >= 2, 10)
        rows = await code_rows(bots)
        assert [bots.state(name) for name in bots.names] == ["online"] * 2
    assert any(row["account"] == "bot-0" and "CancelledError" in row["message"] for row in rows)
    assert any(row["account"] == "bot-1" and row["message"] == "SystemExit: 3" for row in rows)


async def test_a_main_that_will_not_be_cancelled_holds_up_no_stop(
    fleet: Callable[..., Fleet], mains: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked, and then left; the other account stops as ever."""
    monkeypatch.setattr(account, "MAIN_GRACE", 0.5)
    bots = fleet(2)
    bots.change("bot-0", main="mains:deaf")
    async with bots.running():
        await until(lambda: mains.begun, 5)
        begun = time.monotonic()
    assert time.monotonic() - begun < 9.0
    assert "cancelled" in mains.begun
