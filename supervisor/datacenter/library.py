"""The border to the installed client library: raw TL classes and AES-IGE, nothing else.

Both Pyrogram and Kurigram install the import name ``pyrogram``; their layers differ in the fields of many
constructors, which `build` evens out. The library is loaded at the first use of one of its names and not when
this module is imported: it wants a running event loop on newer Pythons and costs two seconds.

The library is untyped here by decision: everything that comes from it is `Any`.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from importlib import import_module
from io import BytesIO
from typing import Any


class _Module:
    """A module that is imported when the first of its names is looked up."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value


raw: Any = _Module("pyrogram.raw")
raw_all: Any = _Module("pyrogram.raw.all")
raw_core: Any = _Module("pyrogram.raw.core")
raw_primitives: Any = _Module("pyrogram.raw.core.primitives")
aes: Any = _Module("pyrogram.crypto.aes")


class UnknownConstructor(Exception):
    """The bytes begin with a number that the installed layer doesn't know."""

    def __init__(self, constructor: int) -> None:
        super().__init__(f"unknown constructor {constructor:#010x}")
        self.constructor = constructor


class Malformed(Exception):
    """The bytes begin with a known constructor and cannot be read as one."""


@lru_cache(maxsize=1024)
def _accepted(constructor: Any) -> frozenset[str]:
    return frozenset(inspect.signature(constructor.__init__).parameters)


def build(constructor: Any, **fields: Any) -> Any:
    """Make a TL object, leaving out the fields which the installed layer doesn't have."""
    accepted = _accepted(constructor)
    return constructor(**{name: value for name, value in fields.items() if name in accepted})


def parse(body: bytes) -> Any:
    """Read one TL object that fills `body` exactly.

    Raises `UnknownConstructor` or `Malformed`.
    """
    stream = BytesIO(body)
    try:
        parsed = raw_core.TLObject.read(stream)
    except KeyError as error:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        raise UnknownConstructor(number) from None
    except Exception as error:
        raise Malformed(f"{type(error).__name__}: {error}") from error
    if stream.read(1):
        raise Malformed("bytes are left over")
    _repair(parsed)
    return parsed


def _repair(query: Any) -> None:
    """Read lists of short objects again, which the library has taken for lists of numbers.

    Reading a vector at the end of a message, it tells numbers from objects by their size: inputUserSelf has the four
    bytes of an int, inputMessageID the eight of a long.
    """
    while hasattr(query, "__slots__"):
        for name in query.__slots__:
            value = getattr(query, name)
            numbers = isinstance(value, list) and bool(value) and isinstance(value[0], int)
            if numbers and _holds_objects(query.__class__, name):
                setattr(query, name, [_object(number) for number in value])
        query = getattr(query, "query", None)


@lru_cache(maxsize=256)
def _holds_objects(constructor: Any, name: str) -> bool:
    return "base." in str(inspect.signature(constructor.__init__).parameters[name].annotation)


def _object(number: int) -> Any:
    size = 4 if -(2**31) <= number < 2**31 else 8
    return raw_core.TLObject.read(BytesIO(number.to_bytes(size, "little", signed=True)))


def serialize(value: Any) -> bytes:
    """Write a TL object, a list of them (as a vector) or a bool."""
    if isinstance(value, bool):
        return bytes(raw_primitives.Bool(value))
    if isinstance(value, list):
        return bytes(raw_primitives.Vector(value))
    return bytes(value.write())


class Written:
    """A TL object that is written once, however often it is sent."""

    def __init__(self, value: Any) -> None:
        self._bytes = serialize(value)

    def write(self) -> bytes:
        return self._bytes


def method_name(query: Any) -> str:
    """The name of a method as Telegram's documentation spells it, such as ``messages.SendMessage``."""
    kind, _, name = str(query.QUALNAME).partition(".")
    return name if kind in ("functions", "types") else str(query.QUALNAME)


def layer() -> int:
    """The TL layer of the installed library."""
    return int(raw_all.layer)
