"""Messages as they leave: to real servers of this machine, and what is told of those that do not arrive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.config.model import Secret, Sink
from supervisor.core.failure import Level
from supervisor.core.notices import Notice
from supervisor.errors import AccountUnavailable, ConfigError
from supervisor.notify import sinks
from supervisor.notify.notifier import check
from supervisor.notify.sinks import Passing, Refused, as_text, sender
from supervisor.notify.trial import try_out
from tests.listener import Answer, Listener

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
FATAL = Notice(
    Level.FATAL,
    "bot: Telegram refuses the bot's token.",
    f"it was {TOKEN} of +4915112345678",
    "tg-supervisor reload",
    (1012,),
    ("bot",),
    1,
)
OVER = Notice(Level.INFO, "Over: bot: it is.", "After 3 s.", "", (1012,), ("bot",), 1, True, 3.21)
AT = 1_769_864_602.125


def nobody(_: object) -> None:
    """No account is online."""


async def send(sink: Sink, notice: Notice = FATAL, find: Callable[..., Any] = nobody) -> None:
    made = sender(sink, find)
    try:
        await made.send(notice, AT)
    finally:
        await made.close()


def webhook(url: str) -> Sink:
    return Sink("ops", url=Secret(url))


# --- webhook ---


async def test_a_webhook_is_posted_json() -> None:
    """With everything that a program needs to act on it, and without a secret."""
    async with Listener() as hook:
        await send(webhook(f"{hook.url}/hooks/1"))
        await send(webhook(hook.url), OVER)
    assert hook.paths == ["/hooks/1", "/"]
    assert hook.bodies[0] == {
        "schema": 1,
        "at": "2026-01-31T13:03:22.125Z",
        "level": "fatal",
        "resolved": False,
        "title": "bot: Telegram refuses the bot's token.",
        "text": "it was 110201543:… of +49…78",
        "advice": "tg-supervisor reload",
        "codes": [1012],
        "accounts": ["bot"],
        "count": 1,
        "seconds": 0.0,
    }
    assert (hook.bodies[1]["resolved"], hook.bodies[1]["seconds"]) == (True, 3.2)


@pytest.mark.parametrize(
    ("answer", "kind", "said", "wait"),
    [
        (Answer(500), Passing, "HTTP 500", 0.0),
        (Answer(429, headers={"Retry-After": "7"}), Passing, "HTTP 429", 7.0),
        (Answer(503, headers={"Retry-After": "Fri, 31 Jan 2026"}), Passing, "HTTP 503", 0.0),
        (Answer(404), Refused, "HTTP 404", 0.0),
        (Answer(302, headers={"Location": "http://127.0.0.1:9/"}), Refused, "HTTP 302", 0.0),
    ],
)
async def test_what_a_webhook_answers_says_whether_to_try_again(
    answer: Answer, kind: type[Exception], said: str, wait: float
) -> None:
    """Nothing follows a redirection; a demanded wait is known."""
    async with Listener(answers=[answer]) as hook:
        with pytest.raises(kind) as failed:
            await send(webhook(f"{hook.url}/secret"))
    assert str(failed.value) == said
    assert getattr(failed.value, "wait", 0.0) == wait
    assert len(hook.paths) == 1


async def test_a_connection_that_cannot_be_made_or_breaks_is_told_without_the_url() -> None:
    """The url is the secret."""
    with pytest.raises(Passing) as failed:
        await send(webhook("http://127.0.0.1:9/secret"))
    assert str(failed.value) == "no connection: Connection refused"

    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Passing) as failed:
            await send(webhook(f"http://127.0.0.1:{port}/secret"))
    assert str(failed.value).startswith("the connection failed: ")
    assert "secret" not in str(failed.value)


# --- Telegram ---


def telegram(api: str, chat: str = "-1001234567890") -> Sink:
    return Sink("phone", token=Secret(TOKEN), chat=chat, api=api)


async def test_a_telegram_message_says_what_happened_and_what_to_do() -> None:
    """To a chat by its number or its name, as the Bot API wants it."""
    async with Listener() as api:
        await send(telegram(api.url))
        await send(telegram(api.url, "@ops_room"), OVER)
    assert api.paths == [f"/bot{TOKEN}/sendMessage"] * 2
    first, second = api.bodies
    assert first["chat_id"] == -1001234567890
    assert first["text"].splitlines() == [
        "[fatal] bot: Telegram refuses the bot's token.",
        "it was 110201543:… of +49…78",
        "What to do: tg-supervisor reload",
    ]
    assert (second["chat_id"], second["text"]) == ("@ops_room", "[resolved] Over: bot: it is.\nAfter 3 s.")


async def test_what_the_bot_api_answers_is_told_without_the_token() -> None:
    """A wrong token or chat is for good; a flood wait is as long as it says; what is no JSON is a failure too."""
    flood = {"ok": False, "description": "Too Many Requests", "parameters": {"retry_after": 35}}
    answers = [
        Answer(401, {"ok": False, "description": "Unauthorized"}),
        Answer(429, flood),
        Answer(400, {"ok": False, "description": f"chat not found for {TOKEN}"}),
        Answer(200, {"ok": False}),
    ]
    failures: list[Exception] = []
    async with Listener(answers=answers) as api:
        for _ in range(4):
            with pytest.raises((Passing, Refused)) as failed:
                await send(telegram(api.url))
            failures.append(failed.value)
    assert [type(error) for error in failures] == [Refused, Passing, Refused, Refused]
    assert [str(error) for error in failures] == [
        "HTTP 401: Unauthorized",
        "HTTP 429: Too Many Requests",
        "HTTP 400: chat not found for 110201543:…",
        "HTTP 200",
    ]
    assert getattr(failures[1], "wait", None) == 35.0
    with pytest.raises(Passing) as refused:
        await send(telegram("http://127.0.0.1:9"))
    assert str(refused.value) == "no connection: Connection refused"


async def test_a_long_message_is_cut_to_what_telegram_takes() -> None:
    """4,096 characters."""
    async with Listener() as api:
        await send(telegram(api.url), Notice(Level.INFO, "long " * 2000, "", "", (), (), 1))
    assert len(api.bodies[0]["text"]) == 4096


# --- an account of ours ---


class Client:
    def __init__(self, error: Exception | None = None) -> None:
        self.sent: list[tuple[object, str]] = []
        self.error = error

    async def send_message(self, chat: object, text: str) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((chat, text))


async def test_an_account_of_ours_sends_where_one_is_online() -> None:
    """It is tried once: it tries again by itself. None online may pass; a chat that it does not know does not."""
    sink = Sink("own", bots=("a", "b"), chat="42")
    client = Client()
    asked: list[object] = []

    def find(names: object) -> Client:
        asked.append(names)
        return client

    await send(sink, find=find)
    assert (asked, client.sent[0][0]) == ([("a", "b")], 42)
    with pytest.raises(Passing, match="a and b are not online"):
        await send(sink)
    with pytest.raises(Passing, match="a is suspended"):
        await send(sink, find=lambda _: Client(AccountUnavailable("a", "suspended")))
    with pytest.raises(Refused, match="ValueError: Peer id invalid: 42"):
        await send(sink, find=lambda _: Client(ValueError("Peer id invalid: 42")))
    assert sender(sink, nobody).tries == 1


# --- the log, apprise ---


async def test_the_log_is_told_at_the_level_of_the_message(caplog: pytest.LogCaptureFixture) -> None:
    """What is fatal is CRITICAL there."""
    with caplog.at_level(logging.INFO, logger="supervisor.notify"):
        await send(Sink("log", log=True))
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.CRITICAL, as_text(FATAL))


async def test_apprise_sends_what_it_knows(caplog: pytest.LogCaptureFixture) -> None:
    """Its JSON service, here; a url that it does not know is named by its place; where it fails that is known."""
    async with Listener(answers=[Answer(), Answer(500)]) as hook:
        sink = Sink("any", url=Secret(f"json://127.0.0.1:{hook.port}/secret"), place="accounts.toml:7")
        assert sink.sort == "apprise"
        await check([sink])
        await send(sink)
        with pytest.raises(Passing, match="apprise could not send it"):
            await send(sink)
    assert hook.bodies[0]["title"] == "[fatal] bot: Telegram refuses the bot's token."
    assert "What to do: tg-supervisor reload" in hook.bodies[0]["message"]
    unknown = Sink("any", url=Secret("nonsense://secret"), place="accounts.toml:7")
    with pytest.raises(ConfigError) as wrong:
        await check([unknown, webhook("http://127.0.0.1:9")])
    assert wrong.value.problems == [
        "accounts.toml:7: notify.any.url: apprise knows no such url, or something is missing in it"
    ]
    with pytest.raises(Refused, match="apprise knows no such url"):
        await send(unknown)
    assert "secret" not in caplog.text


# --- a trial ---


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (sinks._Http, sinks.Apprise):
        monkeypatch.setattr(kind, "tries", 1)


@pytest.mark.usefixtures("_hasty")
async def test_a_trial_says_what_came_of_it() -> None:
    """Nothing where it was taken; else why not."""
    answers = [Answer(), Answer(404), Answer(429, headers={"Retry-After": "60"})]
    async with Listener(answers=answers) as hook:
        tried = [await try_out(webhook(hook.url), nobody) for _ in range(3)]
    assert tried == [None, "HTTP 404", "it wants to be left alone for 60 s"]
    assert "A test of tg-supervisor" in hook.bodies[0]["title"]
    assert "apprise knows no such url" in str(await try_out(Sink("x", url=Secret("nonsense://x")), nobody))
