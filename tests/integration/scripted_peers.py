"""Servers and proxies on 127.0.0.1 that do what a test says, and a census of what a process holds."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from supervisor.telegram.wire import ProxyAddress, Route, frame

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[int]:
    """Run `script` for each connection; gives the port. What hangs is cancelled at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        while tasks:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)


@contextmanager
def refusing() -> Iterator[int]:
    """A port on which nobody listens."""
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes SYNs and answers none: a listener whose backlog is full."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            yield port
        finally:
            for filler in fillers:
                filler.close()


def direct(port: int, host: str = "127.0.0.1") -> Route:
    """A route without a proxy."""
    return Route("direct", host, port)


def through(
    proxy_port: int,
    *,
    scheme: str = "socks5",
    target: int = 4430,
    host: str = "127.0.0.1",
    login: tuple[str, str] | tuple[None, None] = (None, None),
    target_host: str = "127.0.0.1",
) -> Route:
    """A route through a proxy called de1."""
    return Route("de1", target_host, target, ProxyAddress(scheme, host, proxy_port, *login))


# --- Telegram ------------------------------------------------------------------------------------------------


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """One packet of the abridged transport; the caller has read the 0xef."""
    units = (await reader.readexactly(1))[0]
    if units == 0x7F:
        units = int.from_bytes(await reader.readexactly(3), "little")
    return await reader.readexactly(units * 4)


async def answer_req_pq(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A datacenter that knows the first message of the key exchange alone."""
    assert await reader.readexactly(1) == b"\xef"
    while True:
        packet = await read_frame(reader)
        assert packet[:8] == bytes(8)
        assert packet[20:24] == struct.pack("<I", 0xBE7E8EF1)
        body = struct.pack("<I", 0x05162463) + packet[24:40] + bytes(16) + bytes(24)
        writer.write(frame(bytes(8) + packet[8:16] + struct.pack("<i", len(body)) + body))


# --- proxies ---------------------------------------------------------------------------------------------------


def says(*answers: bytes, then: str = "close", after: int = 1) -> Script:
    """A proxy that reads something, says an answer, and so on; at the end it closes, hangs or resets."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(1024)
            writer.write(answer)
        if then == "hang":
            while await reader.read(1024):
                pass
        if then == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif after:
            await reader.read(1024)

    return script


def tunnel(greeting: int, reply: bytes) -> Script:
    """A proxy that reads `greeting` answers' worth of talk, says `reply`, and is then a datacenter."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(greeting):
            await reader.read(1024)
            writer.write(b"\x05\x00")
        await reader.read(1024)
        for byte in reply:  # each byte in a segment of its own
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0.001)
        await answer_req_pq(reader, writer)

    return script


# --- the census --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Census:
    """What this process holds."""

    fds: int
    tasks: int

    @classmethod
    def take(cls) -> Census:
        return cls(len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks()))


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fails when the body leaves a file descriptor or a task. The other end, in this process too, has 2 s to notice."""
    before = Census.take()
    yield
    for _ in range(200):
        if Census.take() == before:
            break
        await asyncio.sleep(0.01)
    assert Census.take() == before
