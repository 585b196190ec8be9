"""The TCP transports: how packets are cut out of the stream (core.telegram.org/mtproto/mtproto-transports).

A client's first bytes choose the transport: abridged, intermediate or padded intermediate.
"""

from __future__ import annotations

import os

_ABRIDGED = b"\xef"
_INTERMEDIATE = b"\xee\xee\xee\xee"
_PADDED = b"\xdd\xdd\xdd\xdd"
MAX_PACKET = 16 * 1024 * 1024


class BadFraming(Exception):
    """The stream is no transport that this server speaks."""


class Framing:
    """Cuts one connection's stream into packets, and frames those of the other way in the same transport."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they came; give the packets that are complete now."""
        self._buffer += data
        if not self._transport and not self._choose():
            return []
        packets: list[bytes] = []
        while (head := self._head()) is not None:
            start, size = head
            if size > MAX_PACKET or size == 0:
                raise BadFraming(f"a packet of {size} bytes")
            if len(self._buffer) < start + size:
                break
            packets.append(self._trim(bytes(self._buffer[start : start + size])))
            del self._buffer[: start + size]
        return packets

    def frame(self, packet: bytes) -> bytes:
        """One packet as it goes onto the wire."""
        if self._transport == _ABRIDGED:
            words = len(packet) // 4
            head = bytes([words]) if words < 0x7F else b"\x7f" + words.to_bytes(3, "little")
            return head + packet
        if self._transport == _PADDED:
            packet += os.urandom(os.urandom(1)[0] % 16)
        return len(packet).to_bytes(4, "little") + packet

    def _choose(self) -> bool:
        if self._buffer[:1] == _ABRIDGED:
            self._transport = _ABRIDGED
        elif len(self._buffer) < 4:
            return False
        elif bytes(self._buffer[:4]) in (_INTERMEDIATE, _PADDED):
            self._transport = bytes(self._buffer[:4])
        else:
            raise BadFraming(f"unknown transport {bytes(self._buffer[:4]).hex()}")
        del self._buffer[: len(self._transport)]
        return True

    def _trim(self, packet: bytes) -> bytes:
        """Take the random padding of the padded transport off an encrypted packet."""
        if self._transport == _PADDED and any(packet[:8]) and len(packet) > 24:
            return packet[: len(packet) - (len(packet) - 24) % 16]
        return packet

    def _head(self) -> tuple[int, int] | None:
        buffer = self._buffer
        if self._transport != _ABRIDGED:
            return (4, int.from_bytes(buffer[:4], "little")) if len(buffer) >= 4 else None
        if not buffer:
            return None
        if buffer[0] > 0x7F:
            raise BadFraming("quick acknowledgements are not served")
        if buffer[0] != 0x7F:
            return 1, buffer[0] * 4
        return (4, int.from_bytes(buffer[1:4], "little") * 4) if len(buffer) >= 4 else None
