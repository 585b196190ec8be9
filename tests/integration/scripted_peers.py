"""Servers and proxies on 127.0.0.1 that do what a test says, and a census of what a process holds."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor.telegram.wire import ProxyAddress, Route, frame

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script, port: int = 0) -> AsyncIterator[int]:
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

    server = await asyncio.start_server(run, "127.0.0.1", port, reuse_address=True)
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
def black_hole(port: int = 0) -> Iterator[int]:
    """A port that takes SYNs and answers none: a listener whose backlog is full."""
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
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


# --- a proxy that fails at a stage of its conversation ------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Where a proxy's conversation goes wrong, and how.

    `stage` is greeting, login (SOCKS5), request or tunnel; `act` is hang, close, reset, flood, or what is said instead;
    `then`, after something was said, is hang or close.
    """

    stage: str
    act: str | bytes
    then: str = "close"


@dataclass(frozen=True)
class Asked:
    """What a proxy was asked for. `kind` is how the host came: address or name."""

    kind: str
    host: str
    port: int


_TARGET_REFUSED = {
    "socks5": b"\x05\x05\x00\x01" + bytes(6),
    "socks4": b"\x00\x5b" + bytes(6),
    "http": b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
}


class StagedProxy:
    """A SOCKS5, SOCKS4(a) or HTTP proxy that wants a login, looks names up itself, and fails as it is told to.

    `hosts` are the names that it knows. `accepted` has the monotonic time of each connection to it, `relayed` counts
    those that it made.
    """

    def __init__(
        self,
        scheme: str,
        hosts: dict[str, tuple[str, int]] | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.scheme = scheme
        self.hosts = hosts or {}
        self.login = login
        self.fault: Fault | None = None
        self.pace = 0.0  # seconds that each stage takes
        self.port = 0
        self.accepted: list[float] = []
        self.asked: list[Asked] = []
        self.relayed = 0
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    async def start(self) -> None:
        """Listen; again on the same port after `kill`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def kill(self) -> None:
        """Stop listening and reset every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()

    def reset(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            with suppress(OSError, AttributeError):  # closed already
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        for talk in self._talks:
            talk.cancel()

    def break_down(self, fault: Fault | None) -> None:
        """Fail in this way from now on; None: refuse connections. Who is connected is cut off, but by a tunnel that hangs."""
        self.fault = fault
        if fault == Fault("tunnel", "hang"):
            self._flows.clear()
        elif fault is None:
            self.kill()
        else:
            self.reset()

    async def heal(self) -> None:
        """Work again; those that hang are reset."""
        self.fault = None
        self._flows.set()
        self.reset()
        if self._server is None:
            await self.start()

    async def close(self) -> None:
        """End everything."""
        self.kill()
        while self._talks:
            await asyncio.sleep(0.001)

    # --- one connection ---------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        self._writers.add(writer)
        self.accepted.append(time.monotonic())
        out: asyncio.StreamWriter | None = None
        try:
            talk = {"socks5": self._socks5, "socks4": self._socks4, "http": self._http}[self.scheme]
            asked, granted = await talk(reader, writer)
            self.asked.append(asked)
            host, port = self.hosts.get(asked.host, (asked.host, asked.port))
            try:
                there, out = await asyncio.open_connection(host, port)
            except ConnectionRefusedError:
                writer.write(_TARGET_REFUSED[self.scheme])
                writer.write_eof()
                await reader.read()
                return
            self.relayed += 1
            self._writers.add(out)
            writer.write(granted)
            await self._stage("tunnel", writer)
            pipes = {asyncio.ensure_future(self._pipe(*ends)) for ends in ((reader, out), (there, writer))}
            try:
                await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pipe in pipes:
                    pipe.cancel()
                await asyncio.wait(pipes)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, EOFError):
            pass  # somebody left, as is told or on purpose: what is counted is counted
        finally:
            for each in (writer, out):
                if each is not None:
                    each.transport.abort()
                    self._writers.discard(each)
            self._talks.discard(task)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)

    async def _stage(self, stage: str, writer: asyncio.StreamWriter) -> None:
        """Go through a stage, or fail in it as told."""
        await asyncio.sleep(self.pace)
        fault = self.fault
        if fault is None or fault.stage != stage:
            return
        if fault.act == "hang":
            await asyncio.Event().wait()
        if fault.act == "flood":
            while True:
                writer.write(b"HTTP/1.1 200 OK\r\n" + b"X-Padding: " + bytes(65536))
                await writer.drain()
        if fault.act == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif isinstance(fault.act, bytes):
            writer.write(fault.act)
            await writer.drain()
            if fault.then == "hang":
                await asyncio.Event().wait()
            writer.write_eof()
            await asyncio.sleep(0.05)
        raise EOFError

    async def _socks5(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[Asked, bytes]:
        version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        assert version == 5
        await self._stage("greeting", writer)
        if self.login is None:
            writer.write(b"\x05\x00")
        else:
            assert 2 in methods
            writer.write(b"\x05\x02")
            assert await reader.readexactly(1) == b"\x01"
            user = await reader.readexactly((await reader.readexactly(1))[0])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            assert (user.decode(), password.decode()) == self.login
            await self._stage("login", writer)
            writer.write(b"\x01\x00")
        assert await reader.readexactly(3) == b"\x05\x01\x00"
        kind = (await reader.readexactly(1))[0]
        if kind == 3:
            how, host = "name", (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            assert kind == 1
            how, host = "address", socket.inet_ntoa(await reader.readexactly(4))
        port = int.from_bytes(await reader.readexactly(2), "big")
        await self._stage("request", writer)
        return Asked(how, host, port), b"\x05\x00\x00\x01" + bytes(6)

    async def _socks4(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[Asked, bytes]:
        await self._stage("greeting", writer)
        version, command = await reader.readexactly(2)
        assert (version, command) == (4, 1)
        port = int.from_bytes(await reader.readexactly(2), "big")
        address = await reader.readexactly(4)
        user = (await reader.readuntil(b"\x00"))[:-1].decode()
        assert self.login is None or user == self.login[0]
        how, host = "address", socket.inet_ntoa(address)
        if address[:3] == bytes(3):
            how, host = "name", (await reader.readuntil(b"\x00"))[:-1].decode()
        await self._stage("request", writer)
        return Asked(how, host, port), b"\x00\x5a" + bytes(6)

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[Asked, bytes]:
        await self._stage("greeting", writer)
        head, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _version = head.split()
        assert method == "CONNECT"
        if self.login is not None:
            word = b64encode(":".join(self.login).encode()).decode()
            assert f"Proxy-Authorization: Basic {word}" in headers
        host, _, port = target.rpartition(":")
        how = "address" if host.replace(".", "").isdigit() else "name"
        await self._stage("request", writer)
        return Asked(how, host, int(port)), b"HTTP/1.1 200 Connection established\r\n\r\n"


# --- between a client and a datacenter ---------------------------------------------------------------------------


def tolled(port: int, at: int, then: str, times: list[int]) -> Script:
    """A relay to a datacenter that stops the client's packet number `at` of a connection, `times[0]` times.

    `then`: ``reset``, ``silent``, or a transport code such as ``-404``.
    """

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection("127.0.0.1", port)
        back = asyncio.create_task(_pass_on(there, writer), name="relay")
        try:
            out.write(await reader.readexactly(1))
            for number in itertools.count(1):
                packet = await read_frame(reader)
                if number == at and times[0] > 0:
                    times[0] -= 1
                    break
                out.write(frame(packet))
            if then == "silent":
                await reader.read()
            elif then == "reset":
                reset_at_close(writer)
            else:
                writer.write(frame(struct.pack("<i", int(then))))
                await writer.drain()
                writer.close()
                await reader.read()
        finally:
            back.cancel()
            out.transport.abort()

    return script


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.transport.abort()


def reset_at_close(writer: asyncio.StreamWriter) -> None:
    """Have the connection end with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
