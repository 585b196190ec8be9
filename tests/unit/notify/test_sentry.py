"""What Sentry is told, by a server of this machine in its place: faults and what is fatal, and nobody's data."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from supervisor.config.model import Secret
from supervisor.config.model import Sentry as SentryConfig
from supervisor.core.failure import Level
from supervisor.core.notices import Notice
from supervisor.notify.sentry import _MOST, Sentry
from tests.listener import Listener

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
CANARIES = (
    TOKEN.partition(":")[2],
    "+4915112345678",
    "ann@example.org",
    "198.51.100.7",
    "canary-local",
    "4711000",
)

# What an event may hold: ours, and what says which client sent it.
ALLOWED = {
    "event_id", "timestamp", "level", "platform", "release", "environment", "logger", "message", "exception", "tags",
}  # fmt: skip


class Service:
    """Sentry, as far as events are concerned."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.dsn = f"http://public@127.0.0.1:{listener.port}/42"

    @property
    def text(self) -> str:
        return "\n".join(_plain(raw) for raw in self.listener.raw)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Each envelope's third line."""
        return [json.loads(_plain(raw).splitlines()[2]) for raw in self.listener.raw]


def _plain(raw: bytes) -> str:
    return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()


@asynccontextmanager
async def reporting() -> AsyncIterator[tuple[Service, Sentry]]:
    async with Listener() as listener:
        service = Service(listener)
        sentry = Sentry(SentryConfig(Secret(service.dsn), "test"))
        try:
            yield service, sentry
        finally:
            await sentry.close()


def fail() -> None:
    password = "canary-local"  # a value where it happened
    raise ValueError(
        f"no {TOKEN} for 'Ann' ann@example.org +4915112345678 at 198.51.100.7:80 /home/ann/x 4711000{password[:0]}"
    )


async def test_a_fault_is_told_by_its_sort_and_place_and_by_nobodys_data() -> None:
    """The chain of causes, each with its frames, without their values; of the text what names nobody."""
    log = logging.getLogger("supervisor.pool")
    async with reporting() as (service, _):
        try:
            try:
                fail()
            except ValueError as error:
                raise RuntimeError("the driver failed") from error
        except RuntimeError:
            log.exception("bot-1: the account's driver failed; this is a fault of tg-supervisor")
        log.error("a line without a fault")
        logging.getLogger("somebody.else").error("not ours", exc_info=ValueError("x"))
        while not service.listener.raw:
            await asyncio.sleep(0.01)
    (event,) = service.events
    assert set(event) <= ALLOWED
    cause, outer = event["exception"]["values"]
    assert (outer["type"], outer["value"]) == ("RuntimeError", "the driver failed")
    assert cause["type"] == "ValueError"
    assert cause["value"] == "no …:… for '…' … … at …:80 /… …"
    frame = cause["stacktrace"]["frames"][-1]
    assert (frame["filename"], frame["function"]) == ("test_sentry.py", "fail")
    assert set(frame) == {"module", "filename", "function", "lineno", "in_app"}
    assert (event["level"], event["logger"], event["environment"]) == ("error", "supervisor.pool", "test")
    assert event["release"].startswith("tg-supervisor")
    assert [canary for canary in (*CANARIES, "bot-1", "Ann") if canary in service.text] == []


async def test_what_is_fatal_is_told_by_its_number() -> None:
    """Not whom it concerns, and not that it is over."""
    fatal = Notice(
        Level.FATAL,
        "sales-bot: Telegram refuses the bot's token.",
        f"{TOKEN}",
        "do",
        (1012,),
        ("sales-bot",),
        1,
    )
    over = Notice(Level.INFO, "Over: sales-bot", "", "", (1012,), ("sales-bot",), 1, resolved=True)
    async with reporting() as (service, sentry):
        await sentry.send(fatal, 0.0)
        await sentry.send(over, 0.0)
        while not service.listener.raw:
            await asyncio.sleep(0.01)
    (event,) = service.events
    assert event["message"] == "Telegram refuses the bot's token."
    assert (event["level"], event["tags"]) == ("fatal", {"code": "1012 token_refused"})
    assert "sales-bot" not in service.text


async def test_a_fault_that_repeats_is_told_so_often_and_no_more() -> None:
    """Thirty an hour; and when it is closed no line of ours goes there."""
    async with reporting() as (service, sentry):
        for _ in range(10 * _MOST):
            sentry.fault(RuntimeError("again"))
        await sentry.close()
        logging.getLogger("supervisor.pool").error("late", exc_info=RuntimeError("late"))
    assert len(service.events) == _MOST
    assert "late" not in service.text
