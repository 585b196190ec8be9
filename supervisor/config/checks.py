"""Checks of single values: each takes what TOML gave and returns what the model wants, or raises `Wrong`.

A number may also come as `FromVariable` text, since TOML has no other way to take one from the environment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TypeVar

from supervisor.config.words import FromVariable, did_you_mean, shown, type_name

E = TypeVar("E", bound=StrEnum)

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_MOST = 10**9  # of anything: what every clock, SQLite and JSON reader can hold


class Wrong(Exception):
    """What is wrong with a value, in words that show no secret."""


def real(what: str, low: float, *, above: bool = False, high: float = _MOST) -> Callable[[object], float]:
    """A finite number from `low` (exclusive if `above`) to `high`. `what` is its name: "a number of seconds"."""

    def check(value: object) -> float:
        number = _number(value)
        if number is None:
            raise Wrong(f"must be {what}, not {type_name(value)}")
        if not math.isfinite(number) or not low <= number <= high or (above and number == low):
            least = f"over {low:g}" if above else f"{low:g} or more"
            raise Wrong(f"must be {what}, {least}" + (f" and at most {high:g}" if not number <= high else ""))
        return float(number)

    return check


def whole(low: int, high: int = _MOST) -> Callable[[object], int]:
    """A whole number from `low` to `high`."""

    def check(value: object) -> int:
        number = _number(value)
        if not isinstance(number, int):
            raise Wrong(f"must be a whole number, not {type_name(value)}")
        if not low <= number <= high:
            raise Wrong(
                f"must be a whole number from {low} to {high}" if high != _MOST else f"must be {low} or more"
            )
        return number

    return check


def _number(value: object) -> int | float | None:
    if isinstance(value, FromVariable):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def flag(value: object) -> bool:
    """True or false; in a variable, the words."""
    if isinstance(value, FromVariable) and value in {"true", "false"}:
        return value == "true"
    if not isinstance(value, bool):
        raise Wrong(f"must be true or false, not {type_name(value)}")
    return value


def text(value: object) -> str:
    """A string that is not empty."""
    if not isinstance(value, str):
        raise Wrong(f"must be a string, not {type_name(value)}")
    if not value or "\0" in value:
        raise Wrong("is empty" if not value else "has a NUL character in it")
    return str(value)


def one_of(words: Iterable[str]) -> Callable[[object], str]:
    """One of some words."""
    known = list(words)

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in known:
            hint = did_you_mean(value, known) if isinstance(value, str) else ""
            given = shown(value) if isinstance(value, str) else type_name(value)
            raise Wrong(f"must be one of {', '.join(known)}, not {given}{hint}")
        return str(value)

    return check


def member(kind: type[E], *, among: Iterable[E] | None = None) -> Callable[[object], E]:
    """A member of an enumeration by its value."""
    check = one_of(item.value for item in among or kind)
    return lambda value: kind(check(value))


def texts(value: object) -> tuple[str, ...]:
    """A string or a list of strings."""
    if isinstance(value, str):
        return (text(value),)
    if not isinstance(value, list):
        raise Wrong(f"must be a string or a list of strings, not {type_name(value)}")
    return tuple(text(item) for item in value)


def modules(value: object) -> tuple[str, ...]:
    """A list of modules; in a variable they are separated by commas."""
    if isinstance(value, FromVariable):
        value = [FromVariable(part.strip()) for part in value.split(",") if part.strip()]
    if not isinstance(value, list):
        raise Wrong(f'must be a list of modules, such as ["my_recovery"], not {type_name(value)}')
    for item in value:
        if not isinstance(item, str) or not _MODULE.fullmatch(item):
            raise Wrong("must be a list of modules, each as it is imported, such as my_package.my_recovery")
    return tuple(str(item) for item in value)


def entry_point(value: object) -> str:
    """``module:function``."""
    module, colon, function = text(value).partition(":")
    if not (colon and _MODULE.fullmatch(module) and _MODULE.fullmatch(function)):
        raise Wrong('must name a module and a function in it, such as "mybot:main"')
    return f"{module}:{function}"


def name(value: object) -> str:
    """The name of an account, a proxy or a pool."""
    if not NAME.fullmatch(text(value)):
        raise Wrong("must be letters, digits, '.', '_' and '-', 64 at most")
    return text(value)
