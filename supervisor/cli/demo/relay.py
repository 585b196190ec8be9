"""A SOCKS5 proxy (RFC 1928) of the demo's own, without a password, that can be killed and comes back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import IPv4Address

_HOST = "127.0.0.1"
_DONE, _REFUSED = 0, 5
_CHUNK = 65_536
_GREETS_WITHIN = 10.0  # s


class Relay:
    """One proxy. Its port stays the same for as long as it lives."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen; on the same port again after `kill`. Nothing happens where it does already."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, _HOST, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Listen no more, and reset every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # in which they are

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(OSError, EOFError):  # whoever is relayed finds out by themselves
                async with asyncio.timeout(_GREETS_WITHIN):
                    host, port = await _greeted(reader, writer)
                await self._relay(host, port, reader, writer)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _relay(
        self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            there, out = await asyncio.open_connection(host, port)
        except OSError:
            writer.write(_reply(_REFUSED))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            return
        self._writers.add(out)
        try:
            writer.write(_reply(_DONE))
            await asyncio.gather(_pass_on(reader, out), _pass_on(there, writer))
        finally:
            self._writers.discard(out)
            out.transport.abort()


async def _greeted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int]:
    """Where somebody wants to be connected to; the datacenter has an IPv4 address, so nothing else is understood."""
    _, methods = await reader.readexactly(2)
    await reader.readexactly(methods)
    writer.write(b"\x05\x00")  # no password
    wanted = await reader.readexactly(10)
    if wanted[:4] != b"\x05\x01\x00\x01":
        raise EOFError
    return str(IPv4Address(wanted[4:8])), int.from_bytes(wanted[8:])


def _reply(code: int) -> bytes:
    return bytes((5, code, 0, 1, *bytes(6)))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on whatever comes, until nothing does any more; then both ways are over."""
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    writer.transport.abort()
    raise EOFError
