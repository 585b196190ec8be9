"""One TCP connection: framing, latency, and the three ways in which a link can fail to carry anything.

The latency of a link is half on the way in and half on the way out, for every packet separately: many are under
way at once and none overtakes another. A connection that is `STALLED` keeps what arrives (and after
`MAX_HELD` bytes stops reading, so that the client's own sends block); one that is `DEAD` throws it away for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Protocol, cast

from .framing import BadFraming, Framing

if TYPE_CHECKING:
    from collections.abc import Callable

    from .counts import ConnectionSeen
    from .handshake import Handshake
    from .keys import AuthKey
    from .session import Outgoing, Session

MAX_HELD = 256 * 1024
_SMALL_BUFFER = 128 * 1024  # bytes that the kernel may take for a connection that is not read


class Voice(enum.Enum):
    """What a connection does with what arrives."""

    SPEAKING = "speaking"
    STALLED = "stalled"
    DEAD = "dead"


class Owner(Protocol):
    """What a connection needs of the datacenter."""

    latency: float

    def opened(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...
    def packet(self, connection: Connection, packet: bytes, tick: int) -> None: ...
    def flush(self, connection: Connection) -> None: ...
    def next_tick(self) -> int: ...


class Connection(asyncio.Protocol):
    """A client's connection. `tick` numbers order what happened on all connections of the datacenter."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._framing = Framing()
        self._transport: asyncio.Transport | None = None
        self._inbound: deque[tuple[float, int, bytes]] = deque()
        self._outbound: deque[tuple[float, bytes | None]] = deque()
        self._held: deque[tuple[int, bytes]] = deque()
        self._held_size = 0
        self._unsent: list[bytes] = []
        self._not_before = 0.0
        self._reset_when_lost = False
        self._closing = False
        self._flushing = False
        self._paused = False
        self._bedtime: asyncio.TimerHandle | None = None
        self.voice = Voice.SPEAKING
        self.peer: tuple[str, int] = ("", 0)
        self.opened_tick = 0
        self.query_tick = 0
        self.query_session = b""
        self.is_open = False
        self.key: AuthKey | None = None
        self.handshake: Handshake | None = None
        self.outbox: list[tuple[Session, Outgoing]] = []
        self._queued: set[Outgoing] = set()
        self.seen: ConnectionSeen | None = None

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        opened = self._socket()
        if opened is not None:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer = tuple(transport.get_extra_info("peername") or ("", 0))[:2]
        self.opened_tick = self._owner.next_tick()
        self.is_open = True
        # The kernel accepts at once: the round trip which the three-way handshake takes is added to the first packet.
        self._not_before = self._loop.time() + self._owner.latency
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        tick = self._owner.next_tick()
        latency = self._owner.latency
        if not latency and not self._inbound:
            self._arrive(tick, data)
            return
        due = max(self._not_before, self._loop.time()) + latency / 2
        if self._inbound:
            due = max(due, self._inbound[-1][0])
        self._inbound.append((due, tick, data))
        if len(self._inbound) == 1:
            self._loop.call_at(due, self._next_inbound)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if exc is not None or self._reset_when_lost:
            self._held.clear()
        self._cancel_bedtime()
        self._owner.closed(self)

    # -- in -----------------------------------------------------------------------------------------------------

    def _next_inbound(self) -> None:
        now = self._loop.time()
        while self._inbound and self._inbound[0][0] <= now:
            _, tick, data = self._inbound.popleft()
            self._arrive(tick, data)
        if self._inbound:
            self._loop.call_at(self._inbound[0][0], self._next_inbound)

    def _arrive(self, tick: int, data: bytes) -> None:
        try:
            packets = self._framing.feed(data)
        except BadFraming:
            self.abort()
            return
        for packet in packets:
            if not self._closing:
                self._take(tick, packet)

    def _take(self, tick: int, packet: bytes) -> None:
        if self.voice is Voice.SPEAKING and not self._held:
            self._owner.packet(self, packet, tick)
        elif self.voice is not Voice.DEAD:
            self.hold(tick, packet)

    def hold(self, tick: int, packet: bytes) -> None:
        """Keep a packet unread until `speak`."""
        self._held.append((tick, packet))
        self._held_size += len(packet)
        if self._held_size > MAX_HELD and self._transport is not None and self.is_open:
            self._transport.pause_reading()

    def speak(self) -> None:
        """Read what lies in the buffers, in order, and go on. A connection that is dead stays dead."""
        if self.voice is Voice.DEAD:
            return
        self.voice = Voice.SPEAKING
        while self._held and self.voice is Voice.SPEAKING and not self._closing:
            tick, packet = self._held.popleft()
            self._held_size -= len(packet)
            self._owner.packet(self, packet, tick)
        unsent, self._unsent = self._unsent, []
        for frame in unsent:
            self._send(frame)
        if not self._paused:
            self.resume()

    def pause(self) -> None:
        """Read nothing any more, and keep what is still in the kernel's buffers there: the client's sends will block."""
        self._paused = True
        opened = self._socket()
        if opened is not None and self.is_open:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        if self._transport is not None and self.is_open:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        if self._transport is not None and self.is_open:
            self._transport.resume_reading()

    def die(self) -> None:
        """Carry nothing any more, in either direction, and stay open: a mapping that a router forgot."""
        self.voice = Voice.DEAD
        self._held.clear()
        self._unsent.clear()

    @property
    def is_cut(self) -> bool:
        """Whether the server itself has ended the connection."""
        return self._closing

    @property
    def holds_something(self) -> bool:
        return bool(self._held)

    # -- out ----------------------------------------------------------------------------------------------------

    def put(self, session: Session, outgoing: Outgoing) -> None:
        """Queue a message; all that is queued in one turn of the loop leaves in one packet."""
        self.outbox.append((session, outgoing))
        self._queued.add(outgoing)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def has_queued(self, outgoing: Outgoing) -> bool:
        """Whether a message waits for this turn's packet."""
        return outgoing in self._queued

    def _flush(self) -> None:
        self._flushing = False
        if self.outbox:
            self._owner.flush(self)
            self.outbox.clear()
            self._queued.clear()

    def send(self, packet: bytes) -> None:
        """Send a packet."""
        self._send(self._framing.frame(packet))

    def send_error(self, code: int) -> None:
        """Send a transport error such as -404, then close (core.telegram.org/mtproto/mtproto-transports)."""
        self.send(code.to_bytes(4, "little", signed=True))
        self.close()

    def _send(self, frame: bytes | None) -> None:
        if self.voice is Voice.DEAD or not self.is_open:
            return
        if self.voice is Voice.STALLED:
            if frame is not None:
                self._unsent.append(frame)
            return
        latency = self._owner.latency
        if not latency and not self._outbound:
            self._write(frame)
            return
        due = self._loop.time() + latency / 2
        if self._outbound:
            due = max(due, self._outbound[-1][0])
        self._outbound.append((due, frame))
        if len(self._outbound) == 1:
            self._loop.call_at(due, self._next_outbound)

    def _next_outbound(self) -> None:
        now = self._loop.time()
        while self._outbound and self._outbound[0][0] <= now:
            self._write(self._outbound.popleft()[1])
        if self._outbound:
            self._loop.call_at(self._outbound[0][0], self._next_outbound)

    def _write(self, frame: bytes | None) -> None:
        if self._transport is None or not self.is_open or self.voice is Voice.DEAD:
            return
        if frame is None:
            self._transport.close()
        else:
            self._transport.write(frame)

    # -- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close in order (FIN), after what has been sent."""
        self._flush()
        self._closing = True
        if self.voice is Voice.SPEAKING:
            self._send(None)
        elif self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Reset: the peer gets RST, and what was under way in either direction is lost."""
        self._closing = True
        self._inbound.clear()
        self._outbound.clear()
        self.outbox.clear()
        self._queued.clear()
        self._reset_when_lost = True
        lingering = self._socket()
        if lingering is not None and self.is_open:
            with contextlib.suppress(OSError):
                lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self._transport is not None:
            self._transport.abort()
        self.is_open = False

    def close_after(self, delay: float, then: Callable[[], None] | None = None) -> None:
        """Close `delay` seconds from now unless this is asked for again before (ping_delay_disconnect)."""
        self._cancel_bedtime()
        self._bedtime = self._loop.call_later(delay, then or self.close)

    def _cancel_bedtime(self) -> None:
        if self._bedtime is not None:
            self._bedtime.cancel()
            self._bedtime = None

    def _socket(self) -> socket.socket | None:
        if self._transport is None:
            return None
        found: socket.socket | None = self._transport.get_extra_info("socket")
        return found
