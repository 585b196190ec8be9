"""What can be known of a raw query by looking at it: its name, its peer, and whether it may be sent twice."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from supervisor.core.failure import Evidence
from supervisor.telegram import evidence

# Wrappers around a query; the inner one is what is asked for.
_WRAPPERS = frozenset(
    {
        "InvokeWithLayer",
        "InitConnection",
        "InvokeWithoutUpdates",
        "InvokeWithTakeout",
        "InvokeWithBusinessConnection",
        "InvokeWithReCaptcha",
        "InvokeAfterMsg",
    }
)
_READING = ("Get", "Search", "Check", "Resolve")
# These read by their name and act by their nature: a button is pressed, somebody is signed in.
_ACTING = frozenset({"messages.GetBotCallbackAnswer", "auth.CheckPassword"})
# These act, but the same bytes twice are the same as once: a part of a file has a number.
_IDEMPOTENT = frozenset({"upload.SaveFilePart", "upload.SaveBigFilePart"})
# Ids in which text varies, not a number.
_BEFORE_TEXT = ("APNS_VERIFY_CHECK_", "INTEGRITY_CHECK_CLASSIC_", "RECAPTCHA_CHECK_")
_PEER_FIELDS = ("peer", "to_peer", "channel", "user_id", "chat_id", "bot")
_PEER_IDS = (("channel_id", "channel"), ("chat_id", "chat"), ("user_id", "user"))


def unwrapped(query: Any) -> Any:
    """The query inside its wrappers."""
    while type(query).__name__ in _WRAPPERS and hasattr(query, "query"):
        query = query.query
    return query


def method_name(query: Any) -> str:
    """The method as Telegram's documentation spells it but for capitals: ``messages.SendMessage``."""
    name: str = unwrapped(query).QUALNAME
    return name.removeprefix("functions.")


def peer_key(query: Any) -> str | None:
    """The chat that a query is about, as ``user:123``; None where it is about none."""
    inner = unwrapped(query)
    for field in _PEER_FIELDS:
        peer = getattr(inner, field, None)
        if peer is None:
            continue
        if isinstance(peer, int):
            return f"{field.removesuffix('_id')}:{peer}"
        if type(peer).__name__.endswith("Self"):
            return "self"
        for attribute, word in _PEER_IDS:
            value = getattr(peer, attribute, None)
            if value is not None:
                return f"{word}:{value}"
    return None


def has_random_id(query: Any) -> bool:
    """Whether Telegram recognises a second sending of this query by its random_id."""
    inner = unwrapped(query)
    return bool(getattr(inner, "random_id", None) or getattr(inner, "multi_media", None))


def is_read_only(query: Any) -> bool:
    """Whether the query changes nothing, so that asking twice is the same as asking once."""
    name = method_name(query)
    if name in _ACTING or getattr(unwrapped(query), "increment", None):
        return False
    return name in _IDEMPOTENT or name.rpartition(".")[2].startswith(_READING)


def new_random_id() -> int:
    """A random_id from the system's randomness: 63 bits, never 0."""
    return int.from_bytes(os.urandom(8), "little") >> 1 or 1


def redraw_random_id(query: Any) -> None:
    """Give a query that was never accepted another random_id."""
    inner = unwrapped(query)
    current = getattr(inner, "random_id", None)
    if isinstance(current, list):
        inner.random_id = [new_random_id() for _ in current]
    elif current is not None:
        inner.random_id = new_random_id()
    for media in getattr(inner, "multi_media", None) or ():
        media.random_id = new_random_id()


def rpc_evidence(code: int, text: str, query: Any, path: str) -> Evidence:
    """What an error that Telegram answered says, before anybody judges it."""
    seen = evidence.from_rpc(code, text, method=method_name(query), path=path)
    return replace(seen, peer=peer_key(query))


def rpc_exception(code: int, text: str, method: str) -> Exception:
    """The installed library's own exception for an error that Telegram answered.

    Unlike the library's ``raise_it`` it writes no ``unknown_errors.txt`` into the working directory.
    """
    import pyrogram.errors
    from pyrogram.errors.exceptions.all import exceptions

    table = exceptions.get(abs(code))
    value: str | None = f"[{abs(code)} {text}]"
    cls: Callable[..., Exception]
    spelled, varying = _spelled(text)
    if table is None:
        cls = pyrogram.errors.UnknownError
    elif (name := table.get(spelled)) is None:
        cls = getattr(pyrogram.errors, table["_"])
    else:
        cls, value = getattr(pyrogram.errors, name), varying
    return cls(value=value, rpc_name=method, is_signed=code < 0)


def _spelled(text: str) -> tuple[str, str | None]:
    """An id as the libraries' tables spell it, and what stands there for the X."""
    for prefix in _BEFORE_TEXT:
        if text.startswith(prefix):
            return f"{prefix}X", text.removeprefix(prefix)
    number = re.search(r"_(\d+)", text)
    return re.sub(r"_\d+", "_X", text), number.group(1) if number else None


def flood_wait(seconds: float, method: str) -> Exception:
    """Pyrogram's own FloodWait, with the seconds that are left."""
    return rpc_exception(420, f"FLOOD_WAIT_{max(1, round(seconds))}", method)
