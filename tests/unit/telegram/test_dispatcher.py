"""The lean dispatcher: handlers come and go while others are at work, threads are shared, tables wait for updates."""

from __future__ import annotations

import asyncio
import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.telegram.dispatcher import dispatcher_class
from supervisor.telegram.inbox import Inbox
from supervisor.telegram.threads import HandlerThreads


def made(**options: Any) -> Any:
    """A dispatcher with an open inbox, whose packets are raw updates."""
    client = SimpleNamespace(
        name="bot", workers=2, no_updates=False, executor=None, loop=asyncio.get_running_loop(), **options
    )
    dispatcher = dispatcher_class()(client)
    dispatcher.updates_queue = Inbox(lambda: None)
    dispatcher.updates_queue.open()
    return dispatcher


def raw(callback: Any) -> Any:
    from pyrogram.handlers import RawUpdateHandler

    return RawUpdateHandler(callback)


async def test_handlers_added_and_removed_at_work_count_from_the_next_update_on() -> None:
    """One that removes and adds handlers is not disturbed, and what it handles goes to those of before."""
    dispatcher, heard = made(), []

    async def late(_client: Any, update: Any, *_: Any) -> None:
        heard.append(("late", update))

    async def second(_client: Any, update: Any, *_: Any) -> None:
        heard.append(("second", update))

    async def first(_client: Any, update: Any, *_: Any) -> None:
        heard.append(("first", update))
        dispatcher.remove_handler(removed, 1)
        dispatcher.add_handler(raw(late), 2)
        dispatcher.remove_handler(itself, 0)

    itself, removed = raw(first), raw(second)
    dispatcher.add_handler(removed, 1)
    dispatcher.add_handler(itself, 0)
    await dispatcher.start()
    for update in ("one", "two"):
        dispatcher.updates_queue.put_nowait((update, {}, {}))
        while dispatcher.handler_worker_tasks:
            await asyncio.sleep(0)
    assert heard == [("first", "one"), ("second", "one"), ("late", "two")]
    assert list(dispatcher.groups) == [2]


async def test_a_handler_that_is_not_there_is_not_removed(caplog: pytest.LogCaptureFixture) -> None:
    """It is said in the log, as the library's own exception would be that nobody hears."""
    dispatcher = made()
    with caplog.at_level(logging.ERROR):
        dispatcher.remove_handler(raw(print), 3)
    assert "bot: a handler cannot be removed: it is not in group 3" in caplog.text


async def test_the_table_of_parsers_is_the_librarys_and_made_when_it_is_needed() -> None:
    """Nothing of it before an update comes; then every update that the library parses has its parser."""
    from pyrogram.dispatcher import Dispatcher
    from pyrogram.raw.types import UpdateNewMessage

    dispatcher = made()
    assert "update_parsers" not in vars(dispatcher)
    assert UpdateNewMessage in dispatcher.update_parsers
    assert dispatcher.update_parsers.keys() == Dispatcher(dispatcher.client).update_parsers.keys()


async def test_clients_share_threads_and_the_last_one_ends_them() -> None:
    """Calls one after the other take one thread, whoever makes them; a client that leaves ends nobody else's."""
    threads = HandlerThreads()
    loop = asyncio.get_running_loop()
    ran = {await loop.run_in_executor(threads.pool(user), threading.get_ident) for user in range(5)}
    assert len(ran) == 1
    for user in range(4):
        threads.leave(user)
    assert await loop.run_in_executor(threads.pool(4), threading.get_ident) in ran
    threads.leave(4)
    while any(thread.ident in ran for thread in threading.enumerate()):
        await asyncio.sleep(0.01)
