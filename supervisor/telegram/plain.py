"""What is said before there is a key: unencrypted messages, and the probe that asks with one whether Telegram answers.

https://core.telegram.org/mtproto/description#unencrypted-message
"""

from __future__ import annotations

import asyncio
import os
import struct
import time

from supervisor.core.failure import Evidence, Source
from supervisor.deadlines import deadline
from supervisor.ports import LinkFailed
from supervisor.telegram.dial import Route
from supervisor.telegram.wire import Wire

_PLAIN = struct.Struct("<qqi")  # auth_key_id 0, message_id, length
_REQ_PQ_MULTI = 0xBE7E8EF1
_RES_PQ = 0x05162463


def plain_packet(body: bytes, message_id: int) -> bytes:
    """An unencrypted message."""
    return _PLAIN.pack(0, message_id, len(body)) + body


def plain_body(packet: bytes) -> bytes:
    """The body of an unencrypted message.

    Raises:
        ValueError: it is not one.
    """
    if len(packet) < _PLAIN.size:
        raise ValueError(f"a message of {len(packet)} bytes")
    key_id, _message_id, size = _PLAIN.unpack_from(packet)
    body = packet[_PLAIN.size :]
    if key_id != 0 or not 0 < size <= len(body):
        raise ValueError("not an unencrypted message")
    return body[:size]


def message_id(now: float, last: int) -> int:
    """A message id of ours: Unix time in 2^-32 s, divisible by four, above the last one."""
    return max(int(now * (1 << 32)) & ~3, last + 4)


class Answers:
    """Packets and the loss of a wire as a queue, for those who ask and wait."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Evidence] = asyncio.Queue()
        self.put = self._queue.put_nowait  # both on_packet and on_lost

    async def get(self, seconds: float) -> bytes:
        """The next packet.

        Raises:
            TimeoutError: none came.
            LinkFailed: the wire was lost.
        """
        async with deadline(seconds):
            got = await self._queue.get()
        if isinstance(got, Evidence):
            raise LinkFailed(got)
        return got

    def loss(self) -> Evidence | None:
        """What ended the wire, if it has ended and nobody was told."""
        while not self._queue.empty():
            got = self._queue.get_nowait()
            if isinstance(got, Evidence):
                return got
        return None


async def probe(route: Route, *, timeout: float) -> float:
    """Find out whether Telegram answers on this way: connect, one unencrypted req_pq_multi.

    Args:
        route: the way.
        timeout: seconds for each of: TCP, the proxy's handshake, the answer.

    Returns:
        The seconds it took.

    Raises:
        LinkFailed: it does not; with the evidence.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    answers = Answers()
    wire = await Wire.dial(route, timeout=timeout, on_packet=answers.put, on_lost=answers.put)
    nonce = os.urandom(16)
    try:
        wire.send(plain_packet(struct.pack("<I", _REQ_PQ_MULTI) + nonce, message_id(time.time(), 0)))
        body = plain_body(await answers.get(timeout))
    except TimeoutError as exc:
        raise _probe_failed(Source.SILENCE, f"no answer to req_pq_multi in {timeout:g} s", route) from exc
    except ValueError as exc:
        raise _probe_failed(Source.PROTOCOL, f"the answer to req_pq_multi is {exc}", route) from exc
    finally:
        wire.abort()
    if body[:20] != struct.pack("<I", _RES_PQ) + nonce:
        raise _probe_failed(Source.PROTOCOL, "the answer to req_pq_multi is not its resPQ", route)
    return loop.time() - begun


def _probe_failed(source: Source, message: str, route: Route) -> LinkFailed:
    return LinkFailed(Evidence(source, f"probe: {message}", step="probe", path=route.path))
