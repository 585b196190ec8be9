"""The places that a notification goes to. Each sends one message, once; `outbox` tries again, and keeps the time.

What went wrong is told without the address it went to: that holds the secret, of most of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import aiohttp

from supervisor.config.model import Sink
from supervisor.core.failure import Level
from supervisor.core.notices import Notice
from supervisor.core.scrub import scrub
from supervisor.errors import AccountUnavailable, ConfigError

log = logging.getLogger(__name__)

TRIES, PER_TRY = 3, 10.0  # seconds
_LONGEST = 4096  # characters of a message, https://core.telegram.org/bots/api#sendmessage
_ANSWER = 65_536  # bytes of an answer that are looked at

# Gives the client of the first of these accounts that is online; None if none is.
FindClient = Callable[[Sequence[str]], Any]


class Passing(Exception):
    """It could not be sent, and may be later; after `wait` seconds, where somebody demands so."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class Refused(Exception):
    """It could not be sent, and will not be."""


class Sender(Protocol):
    """Sends messages to one place. `tries` and `per_try` (seconds) say how often, and how long, that is worth a try."""

    tries: int
    per_try: float

    async def send(self, notice: Notice, at: float) -> None:
        """Send one message; `at` is its Unix time.

        Raises:
            Passing: it may be sent later.
            Refused: it will not be.
        """

    async def close(self) -> None: ...


def sender(sink: Sink, find: FindClient) -> Sender:
    """The sender of a sink; made inside a running loop.

    Args:
        sink: what is configured.
        find: finds a client of ours that is online.

    Raises:
        ConfigError: apprise knows no such url.
    """
    match sink.sort:
        case "webhook":
            assert sink.url is not None
            return Webhook(sink.url.reveal())
        case "telegram":
            assert sink.token is not None
            return TelegramApi(sink.api, sink.token.reveal(), sink.chat)
        case "bot":
            return PoolBot(sink.bots, sink.chat, find)
        case "apprise":
            return Apprise(sink)
        case "log":
            return OwnLog()


def as_text(notice: Notice) -> str:
    """A notice as a message that a person reads."""
    label = "resolved" if notice.resolved else notice.level.value
    lines = [f"[{label}] {notice.title}", notice.text]
    if notice.advice:
        lines.append(f"What to do: {notice.advice}")
    return scrub("\n".join(line for line in lines if line))


def as_json(notice: Notice, at: float) -> dict[str, Any]:
    """A notice as a webhook is sent it; docs/how-to/notifications.md lists the keys."""
    return {
        "schema": 1,
        "at": _rfc3339(at),
        "level": notice.level.value,
        "resolved": notice.resolved,
        "title": scrub(notice.title),
        "text": scrub(notice.text),
        "advice": notice.advice,
        "codes": list(notice.codes),
        "accounts": list(notice.accounts),
        "count": notice.count,
        "seconds": round(notice.seconds, 1),
    }


class _Http:
    """One POST a message. Redirections are not followed: a secret goes where it was told to, or nowhere."""

    tries, per_try = TRIES, PER_TRY

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post(self, url: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PER_TRY))
        try:
            async with self._session.post(url, json=body, allow_redirects=False) as answer:
                return answer.status, answer.headers, await answer.content.read(_ANSWER)
        except aiohttp.ClientConnectorError as error:
            raise Passing(f"no connection: {_reason(error.os_error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Passing(f"the connection failed: {type(error).__name__}") from None


class Webhook(_Http):
    """A JSON POST."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    async def send(self, notice: Notice, at: float) -> None:
        """See `Sender`."""
        status, headers, _ = await self._post(self._url, as_json(notice, at))
        if status >= 300:
            raise _failed(status, "", _seconds(headers.get("Retry-After")))


class TelegramApi(_Http):
    """A message by Telegram's Bot API."""

    def __init__(self, api: str, token: str, chat: str) -> None:
        super().__init__()
        self._url = f"{api}/bot{token}/sendMessage"
        self._chat = _chat(chat)

    async def send(self, notice: Notice, _at: float) -> None:
        """See `Sender`."""
        body = {
            "chat_id": self._chat,
            "text": as_text(notice)[:_LONGEST],
            "link_preview_options": {"is_disabled": True},
        }
        status, _, content = await self._post(self._url, body)
        answer = _object(content)
        if status < 300 and answer.get("ok") is True:
            return
        parameters = answer.get("parameters")
        wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
        raise _failed(status, str(answer.get("description", "")), _seconds(wait))


class PoolBot:
    """A message by an account of ours. It is tried once: the account itself tries again, and never does it twice."""

    tries, per_try = 1, TRIES * PER_TRY

    def __init__(self, bots: Sequence[str], chat: str, find: FindClient) -> None:
        self._bots = bots
        self._chat = _chat(chat)
        self._find = find

    async def send(self, notice: Notice, _at: float) -> None:
        """See `Sender`."""
        client = self._find(self._bots)
        if client is None:
            raise Passing(f"{' and '.join(self._bots)} {'are' if self._bots[1:] else 'is'} not online")
        try:
            await client.send_message(self._chat, as_text(notice)[:_LONGEST])
        except AccountUnavailable as error:
            raise Passing(str(error)) from error
        except Exception as error:
            raise Refused(scrub(f"{type(error).__name__}: {error}")) from error

    async def close(self) -> None:
        """Nothing: the account is not ours to close."""


class Apprise:
    """Whatever apprise knows. Imported when it is first needed: it takes a second, beside the loop."""

    tries, per_try = TRIES, PER_TRY

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._service: Any = None

    async def prepare(self) -> None:
        """Have apprise look at the url.

        Raises:
            ConfigError: it knows no such one.
        """
        self._service = await asyncio.to_thread(self._made)

    def _made(self) -> Any:
        import apprise

        assert self._sink.url is not None
        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its lines show urls
        service = apprise.Apprise()
        if not service.add(self._sink.url.reveal()):
            key = f"notify.{self._sink.name}.url"
            raise ConfigError(
                [f"{self._sink.place}: {key}: apprise knows no such url, or something is missing in it"]
            )
        return service

    async def send(self, notice: Notice, _at: float) -> None:
        """See `Sender`."""
        if self._service is None:
            try:
                await self.prepare()
            except ConfigError as error:
                raise Refused(str(error)) from None
        head, _, rest = as_text(notice).partition("\n")
        if not await asyncio.to_thread(
            self._service.notify, title=head, body=rest or head, notify_type=_TYPE[notice.level]
        ):
            raise Passing("apprise could not send it")

    async def close(self) -> None:
        """Nothing is open."""


_TYPE: Final = {
    Level.INFO: "info",
    Level.WARNING: "warning",
    Level.ERROR: "failure",
    Level.FATAL: "failure",
}
_LOGGED: Final = {
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
    Level.FATAL: logging.CRITICAL,
}


class OwnLog:
    """The daemon's log."""

    tries, per_try = 1, PER_TRY

    async def send(self, notice: Notice, _at: float) -> None:
        """See `Sender`."""
        log.log(_LOGGED[notice.level], "%s", as_text(notice), extra={"account": None})

    async def close(self) -> None:
        """It is not ours to close."""


def _failed(status: int, said: str, wait: float) -> Passing | Refused:
    what = f"HTTP {status}" + (f": {scrub(said)[:200]}" if said else "")
    if status in (408, 425, 429) or status >= 500:
        return Passing(what, wait)
    return Refused(what)


def _reason(error: OSError) -> str:
    """The system's own words: asyncio's, or the resolver's, where it has none."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or type(error).__name__


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(value: object) -> float:
    """A demanded wait; 0 where there is none, or it is a date, which nobody sends for a few seconds."""
    try:
        return max(0.0, float(str(value)))
    except ValueError:
        return 0.0


def _chat(chat: str) -> int | str:
    return chat if chat.startswith("@") else int(chat)


def _rfc3339(at: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
