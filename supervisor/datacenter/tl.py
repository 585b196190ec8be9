"""TL serialization by hand, for the service messages of MTProto (core.telegram.org/mtproto/serialize).

Service messages are read and written without the client library: the server can't share its mistakes, and they
are the bulk of what a connection carries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

VECTOR = 0x1CB5C415


class Truncated(Exception):
    """The bytes end before the value does."""


class Reader:
    """Reads TL values from the front of `data`."""

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self.data = data
        self.offset = offset

    def take(self, size: int) -> bytes:
        end = self.offset + size
        if size < 0 or end > len(self.data):
            raise Truncated(f"{size} bytes wanted at {self.offset} of {len(self.data)}")
        taken = self.data[self.offset : end]
        self.offset = end
        return taken

    def uint(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def sint(self) -> int:
        return int.from_bytes(self.take(4), "little", signed=True)

    def long(self) -> int:
        return int.from_bytes(self.take(8), "little", signed=True)

    def string(self) -> bytes:
        first = self.take(1)[0]
        if first < 254:
            size, head = first, 1
        else:
            size, head = int.from_bytes(self.take(3), "little"), 4
        value = self.take(size)
        self.take(-(head + size) % 4)
        return value

    def longs(self) -> list[int]:
        """A boxed vector of longs."""
        if self.uint() != VECTOR:
            raise Truncated("a vector was expected")
        count = self.uint()
        return list(struct.unpack(f"<{count}q", self.take(8 * count)))

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.offset)


def uint(value: int) -> bytes:
    """An int, unsigned."""
    return value.to_bytes(4, "little")


def long(value: int) -> bytes:
    """A long, signed."""
    return value.to_bytes(8, "little", signed=True)


def string(value: bytes) -> bytes:
    """A string or bytes value, padded to four bytes."""
    size = len(value)
    head = bytes([size]) if size < 254 else b"\xfe" + size.to_bytes(3, "little")
    return head + value + bytes(-(len(head) + size) % 4)


def longs(values: Iterable[int]) -> bytes:
    """A boxed vector of longs."""
    items = list(values)
    return struct.pack(f"<II{len(items)}q", VECTOR, len(items), *items)
