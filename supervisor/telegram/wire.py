"""One connection to Telegram: framing, back-pressure, and the true cause of its loss. No encryption.

The transport is MTProto's abridged one (https://core.telegram.org/mtproto/mtproto-transports#abridged):
0xef once, then for each packet its length in units of four bytes, in one byte or in 0x7f and three.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import cast

from supervisor.core.failure import Evidence, Source
from supervisor.telegram.dial import ProxyAddress, Route, dial, nothing
from supervisor.telegram.evidence import from_exception
from supervisor.telegram.slices import Slices

__all__ = ["FrameError", "Frames", "ProxyAddress", "Route", "Wire", "WireClosed", "frame"]

MAX_INCOMING = 16 * 1024 * 1024  # bytes of one packet
MAX_OUTGOING = (1 << 24) * 4 - 4  # what three bytes of length can say
PAUSE_AT = 1024 * 1024  # bytes in the write buffer; `drained` waits from here
RESUME_AT = 256 * 1024
STALLED_AT = 8 * 1024 * 1024  # bytes in the write buffer; from here on it has to shrink
WRITE_AT = 64 * 1024  # bytes that are written at once; fewer wait for the others of the same pass of the loop

_ABRIDGED = b"\xef"
_LONG = 0x7F


class WireClosed(Exception):
    """The connection is closed; nothing can be sent over it."""


class FrameError(Exception):
    """What came is not the abridged transport."""


def frame(packet: bytes) -> bytes:
    """The packet as it goes on the wire.

    Raises:
        ValueError: its length is 0, not a multiple of four, or too big for the transport.
    """
    size = len(packet)
    if size % 4 or not 0 < size <= MAX_OUTGOING:
        raise ValueError(f"a packet of {size} bytes cannot be framed")
    units = size >> 2
    head = bytes((units,)) if units < _LONG else b"\x7f" + units.to_bytes(3, "little")
    return head + packet


class Frames:
    """Cuts a stream into packets, however it comes chunked; no byte is looked at or copied over and over."""

    __slots__ = ("_buffer", "_need")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = 1  # bytes the buffer must hold before looking at it again makes sense

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take a chunk and give the packets that are complete with it.

        The iterator must be run to its end, or the stream be given up.

        Raises:
            FrameError: the length is 0, over `MAX_INCOMING`, or that of a quick acknowledgement.
        """
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._need:
                return
            data = bytes(buffer)
            buffer.clear()
        at, end = 0, len(data)
        while at < end:
            start, size = self._head(data, at)
            if size == 0 or start + size > end:
                self._need = start + size - at
                buffer += data[at:] if at else data
                return
            at = start + size
            yield data[start:at]

    @staticmethod
    def _head(data: bytes, at: int) -> tuple[int, int]:
        """Where the packet starts and its size; size 0 if the head is not complete (start is what it needs)."""
        units = data[at]
        start = at + 1
        if units >= _LONG:
            if units > _LONG:
                raise FrameError(
                    f"length byte {units:#04x}: an acknowledgement that was not asked for, or no MTProto"
                )
            start = at + 4
            if len(data) < start:
                return start, 0
            units = int.from_bytes(data[at + 1 : start], "little")
        if not 0 < units <= MAX_INCOMING >> 2:
            raise FrameError(f"a packet of {units * 4} bytes")
        return start, units * 4


class Wire(asyncio.Protocol):
    """One connection. Made by `dial`; gone for good once `closed`.

    `on_packet` is called with each packet, `on_lost` once with the cause when the connection is lost; both
    from the event loop, never from inside `send` or `abort`. Both may be replaced at any time.
    """

    __slots__ = (
        "_drained",
        "_frames",
        "_loop",
        "_queued",
        "_slices",
        "_stall",
        "_telling",
        "_timeout",
        "_transport",
        "_unwritten",
        "_unwritten_size",
        "_writing",
        "closed",
        "last_received",
        "on_lost",
        "on_packet",
        "paused",
        "route",
    )

    def __init__(
        self,
        route: Route,
        timeout: float,
        on_packet: Callable[[bytes], None],
        on_lost: Callable[[Evidence], None],
    ) -> None:
        """Use `dial`."""
        self.route = route
        self.on_packet = on_packet
        self.on_lost = on_lost
        self.closed = False
        self.paused = False  # over PAUSE_AT bytes wait to be written
        self.last_received = 0.0  # loop.time() of the last bytes, at first of the connection
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._slices = Slices.of(self._loop)
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()
        self._unwritten: list[bytes] = []  # sent in this pass of the loop
        self._unwritten_size = 0
        self._writing: asyncio.Handle | None = None
        self._queued = 0  # bytes ever sent
        self._stall: asyncio.TimerHandle | None = None
        self._telling: asyncio.Handle | None = None
        self._drained: asyncio.Future[None] | None = None

    @classmethod
    async def dial(
        cls,
        route: Route,
        *,
        timeout: float,
        on_packet: Callable[[bytes], None],
        on_lost: Callable[[Evidence], None],
        reached: Callable[[str], None] = nothing,
    ) -> Wire:
        """Connect.

        Args:
            route: the way.
            timeout: seconds for each of: TCP including the name lookup, the proxy's handshake. Later also
                for how long a full write buffer may stay as it is.
            on_packet: takes each packet.
            on_lost: takes the cause when the connection is lost.
            reached: is told of each step; see `dial.dial`.

        Raises:
            LinkFailed: it cannot be reached; with the evidence.
        """
        sock = await dial(route, timeout, reached)
        try:
            wire = cls(route, timeout, on_packet, on_lost)
            await asyncio.get_running_loop().create_connection(lambda: wire, sock=sock)
        except BaseException:
            sock.close()
            raise
        return wire

    # --- what its owner does --------------------------------------------------------------------------------

    def send(self, packet: bytes) -> None:
        """Frame it and have it written, in one go with what else is sent in this pass of the loop; never blocks.

        Raises:
            WireClosed: the connection is gone.
            ValueError: the packet cannot be framed.
        """
        if self.closed or self._transport is None:
            raise WireClosed(f"the connection to {self.route.where} is closed")
        data = frame(packet) if self._queued else _ABRIDGED + frame(packet)
        self._unwritten.append(data)
        self._unwritten_size += len(data)
        self._queued += len(data)
        if self._unwritten_size >= WRITE_AT:
            self._write()
        elif self._writing is None:
            self._writing = self._loop.call_soon(self._write)

    def _write(self) -> None:
        """Write what was sent: a system call for each packet would cost more than the rest of its way."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        transport, data = self._transport, b"".join(self._unwritten)
        self._unwritten.clear()
        self._unwritten_size = 0
        if self.closed or transport is None or not data:
            return
        transport.write(data)
        if self.paused and self._stall is None and transport.get_write_buffer_size() > STALLED_AT:
            self._watch_stall()

    def abort(self, evidence: Evidence | None = None) -> None:
        """Close at once; what the kernel does not take now is dropped.

        Args:
            evidence: why; `on_lost` is then told of it. Without it nobody is told, of nothing.
        """
        if evidence is None and self._telling is not None:
            self._telling.cancel()
        if self._writing is not None:
            self._write()  # a last acknowledgement
        self._close(evidence)

    @property
    def write_buffer_size(self) -> int:
        """Bytes that wait to be written."""
        if self._transport is None:
            return 0
        return self._transport.get_write_buffer_size() + self._unwritten_size

    async def drained(self) -> None:
        """Return when the write buffer is no longer `paused`.

        Raises:
            WireClosed: the connection was lost meanwhile.
        """
        while self.paused and not self.closed:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)
        if self.closed:
            raise WireClosed(f"the connection to {self.route.where} is closed")

    # --- what the event loop calls --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(PAUSE_AT, RESUME_AT)
        self.last_received = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        self.last_received = self._loop.time()
        if not self._slices.do(self._read, data) and self._transport is not None:
            self._transport.pause_reading()  # one chunk waits, the rest stays with the kernel

    def _read(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.resume_reading()
        try:
            for packet in self._frames.feed(data):
                if self.closed:
                    return
                if len(packet) == 4:
                    self._close(_transport_code(packet, self.route), now=True)
                    return
                self.on_packet(packet)
        except FrameError as exc:
            found = Evidence(Source.PROTOCOL, f"framing: {exc}", step="transport", path=self.route.path)
            self._close(found, now=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of `asyncio.Protocol`."""
        if not self.closed and self._transport is not None:
            self._drop_unsent(self._transport)  # it closes the socket when this returns
        self._slices.do(self._ended, exc)

    def _ended(self, exc: Exception | None) -> None:
        where = self.route.where
        if self.closed:
            found = None
        elif exc is None:
            found = Evidence(
                Source.SOCKET, f"connection closed by {where}", step="transport", path=self.route.path
            )
        else:
            found = from_exception(exc, step="transport", path=self.route.path, where=where)
        self._close(found, now=True)
        self._transport = None

    def pause_writing(self) -> None:
        """Part of `asyncio.Protocol`."""
        self.paused = True

    def resume_writing(self) -> None:
        """Part of `asyncio.Protocol`."""
        self.paused = False
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self._wake()

    # --- the end of it --------------------------------------------------------------------------------------

    def _close(self, found: Evidence | None, *, now: bool = False) -> None:
        if self.closed:
            return
        self.closed = True
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._transport is not None:
            self._drop_unsent(self._transport)
            self._transport.abort()
        self._wake()
        if found is None:
            return
        if now:
            self.on_lost(found)
        else:
            self._telling = self._loop.call_soon(self.on_lost, found)

    def _drop_unsent(self, transport: asyncio.Transport) -> None:
        """Have the kernel reset a connection on which bytes are under way.

        It would go on sending them for minutes, beside the next connection; and Telegram may kill a key that sends
        over two at once (core.telegram.org/api/errors, AUTH_KEY_DUPLICATED).
        """
        if self.taken() < self._queued:
            with suppress(OSError):
                sock = transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def _watch_stall(self) -> None:
        self._stall = self._loop.call_later(self._timeout, self._check_stall, self.taken())

    def taken(self) -> int:
        """Bytes that the other end has taken. The kernel's share is asked for: it lets go in steps of megabytes."""
        if self._transport is None:
            return 0
        try:
            answer = ioctl(self._transport.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # not on this system; or a dial that was called off has closed it
            answer = bytes(4)
        return self._queued - self.write_buffer_size - int.from_bytes(answer, sys.byteorder)

    def _check_stall(self, taken: int) -> None:
        self._stall = None
        size = self.write_buffer_size
        if self.taken() > taken:
            if size > STALLED_AT:
                self._watch_stall()
            return
        message = (
            f"peer stops reading: {self.route.where} took nothing of {size} bytes in {self._timeout:g} s"
        )
        self._close(Evidence(Source.SILENCE, message, step="transport", path=self.route.path), now=True)


def _transport_code(packet: bytes, route: Route) -> Evidence:
    code = int.from_bytes(packet, "little", signed=True)
    return Evidence(Source.TRANSPORT, f"transport {code}", code=code, step="transport", path=route.path)
