"""The wording of problems: what may be shown, what a type is called, what was probably meant.

No secret may appear in a message, not even one that stands in the wrong place. So values that came from a variable
are not shown, nor is anything that looks like a token, a hash, a session, a phone number or a url with credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from supervisor.config.lines import KeyPath

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SECRETIVE = re.compile(r"\d{4,}:|://|@|[0-9A-Za-z+/=]{30,}|\+?\d{7,}")
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", list: "a list"}


class FromVariable(str):
    """Text in which a variable was filled in, or that is one: it may stand for a number, and is never shown."""

    __slots__ = ()


def shown(text: str) -> str:
    """The text in quotes, or "…" if it could be a secret."""
    hidden = (
        isinstance(text, FromVariable) or len(text) > 64 or not text.isprintable() or _SECRETIVE.search(text)
    )
    return '"…"' if hidden else f'"{text}"'


def dotted(path: KeyPath) -> str:
    """A key's path as TOML writes it, ``accounts."a.b".proxy``, without the indexes into arrays."""
    return ".".join(_key(part) for part in path if isinstance(part, str))


def _key(part: str) -> str:
    quoted = shown(part)
    return part if _BARE.fullmatch(part) and part in quoted else quoted


def type_name(value: object) -> str:
    """What a TOML value is, in words."""
    if isinstance(value, dict):
        return "a table"
    return _TYPES.get(type(value), "a string" if isinstance(value, str) else "a date or time")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean "nl3"?)`` for the known word that is closest, or nothing."""
    from difflib import get_close_matches  # only when something is wrong

    match = get_close_matches(word, list(known), n=1)
    return f' (did you mean "{match[0]}"?)' if match else ""
