"""What a peer that means harm, or is broken, may send: to a wire, and to a dial through a proxy.

Whatever comes, something is said of it in the words of an `Evidence`, soon, and without taking the memory that it asks for.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.failure import Evidence, Source
from supervisor.ports import LinkFailed
from supervisor.telegram import slices
from supervisor.telegram.dial import MAX_HTTP_REPLY, PROXY_SCHEMES, ProxyAddress, Route, dial
from supervisor.telegram.plain import plain_body, probe
from supervisor.telegram.wire import MAX_INCOMING, FrameError, Frames, Wire, frame

MiB = 1 << 20
# Seconds. What hangs is found out by it; what is answered never gets near it.
PATIENCE = 0.1

packets = st.lists(
    st.integers(2, 200).flatmap(lambda n: st.binary(min_size=n * 4, max_size=n * 4)), max_size=6
)
codes = st.integers(-(1 << 31), (1 << 31) - 1)
# Bytes that steer a parser are likelier than chance would have them.
heads = st.sampled_from(
    [
        b"\x00",
        b"\x01",
        b"\x7e",
        b"\x7f",
        b"\x7f\xff\xff\xff",
        b"\x7f\x00\x00\x40",
        b"\x80",
        b"\xef",
        b"\xff" * 4,
    ]
)
rubbish = st.lists(st.one_of(heads, st.binary(max_size=64)), max_size=8).map(b"".join)


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(at % (len(stream) + 1) for at in cuts)})
    return [stream[a:b] for a, b in pairwise(edges)]


class Transport(asyncio.Transport):
    """Takes what is written; as much of asyncio's as a wire uses."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        raise OSError("no socket")


class Fed:
    """A wire without a network: what it is fed, and what it tells."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.lost: list[Evidence] = []
        self.wire = Wire(Route("direct", "dc.test", 443), 1.0, self.packets.append, self.lost.append)
        self.transport = Transport()
        self.wire.connection_made(self.transport)

    def feed(self, *chunks: bytes) -> Fed:
        for chunk in chunks:
            self.wire.data_received(chunk)
        return self


def in_a_loop(test: Callable[[], None]) -> None:
    """Run what needs a running loop and never waits."""

    async def run() -> None:
        with patch.object(slices, "SLICE", math.inf):  # it is all in one pass
            test()
            await asyncio.sleep(0)

    asyncio.run(run())


# --- framing --------------------------------------------------------------------------------------------------


@given(packets)
@settings(max_examples=25)
def test_every_split_in_two_and_an_end_at_every_byte(sent: list[bytes]) -> None:
    """Cut anywhere the packets are the same; ended anywhere those that are whole have come, and one loss is told."""
    stream = b"".join(map(frame, sent[:2]))

    def check() -> None:
        for at in range(len(stream) + 1):
            fed = Fed().feed(stream[:at])
            whole = list(fed.packets)
            fed.feed(stream[at:])
            assert fed.packets == sent[:2]
            assert whole == sent[: len(whole)]
            assert sum(map(len, map(frame, whole))) <= at
            fed.wire.connection_lost(None)
            assert [seen.message for seen in fed.lost] == ["connection closed by dc.test:443"]

    in_a_loop(check)


@given(packets, rubbish, st.lists(st.integers(0, 1 << 16), max_size=12))
def test_rubbish_after_packets_takes_none_of_them(sent: list[bytes], tail: bytes, cuts: list[int]) -> None:
    """What was whole before the rubbish is delivered; then packets or one clear loss, and silence after it."""
    chunks = cut(b"".join(map(frame, sent)) + tail, cuts)

    def check() -> None:
        fed = Fed().feed(*chunks)
        assert fed.packets[: len(sent)] == sent
        assert len(fed.lost) <= 1
        for seen in fed.lost:
            assert seen.source in (Source.PROTOCOL, Source.TRANSPORT)
            assert seen.message.startswith(("framing: ", "transport "))
        if fed.lost:
            assert fed.wire.closed
            assert fed.transport.aborted
            fed.feed(frame(bytes(8)))
            fed.wire.connection_lost(ConnectionResetError())
            assert len(fed.lost) == 1

    in_a_loop(check)


@given(packets, codes, st.lists(st.integers(0, 1 << 16), max_size=6))
def test_four_bytes_are_a_code_wherever_they_are_cut(sent: list[bytes], code: int, cuts: list[int]) -> None:
    """The number as it was sent, once, with all packets before it and none after."""
    stream = b"".join(map(frame, sent)) + frame(code.to_bytes(4, "little", signed=True)) + frame(bytes(8))

    def check() -> None:
        fed = Fed().feed(*cut(stream, cuts))
        assert fed.packets == sent
        assert [(seen.source, seen.code, seen.message) for seen in fed.lost] == [
            (Source.TRANSPORT, code, f"transport {code}")
        ]

    in_a_loop(check)


@given(st.integers(0, (1 << 24) - 1))
@settings(max_examples=40)
def test_a_length_is_believed_up_to_the_bound_alone(units: int) -> None:
    """16 MiB may be announced; beyond it, and nothing, are no packets; and none takes memory before it has come."""
    head = b"\x7f" + units.to_bytes(3, "little")
    frames = Frames()
    gc.collect()
    tracemalloc.start()
    try:
        if 0 < units * 4 <= MAX_INCOMING:
            assert list(frames.feed(head + bytes(min(64, units * 4 - 1)))) == []
        else:
            with pytest.raises(FrameError, match=f"a packet of {units * 4} bytes"):
                list(frames.feed(head + bytes(64)))
        assert tracemalloc.get_traced_memory()[1] < MiB // 4
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
def test_an_unencrypted_message_is_one_or_a_valueerror(packet: bytes) -> None:
    """Its length field may say 2 GiB, or less than nothing."""
    for crafted in (packet, bytes(16) + packet, bytes(16) + b"\xff\xff\xff\x7f" + packet):
        try:
            body = plain_body(crafted)
        except ValueError:
            continue
        assert body == crafted[20 : 20 + len(body)]
        assert body


# --- proxies --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def saying(*answers: bytes, hang: bool, pieces: int = 1) -> AsyncIterator[int]:
    """A proxy that says one answer after another to whatever is said to it, then closes or hangs."""
    done: set[asyncio.Task[None]] = set()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        done.add(task)
        try:
            for answer in answers:
                await reader.read(4096)
                size = max(1, len(answer) // pieces)
                for at in range(0, len(answer), size):
                    writer.write(answer[at : at + size])
                    await asyncio.sleep(0)
            while hang and await reader.read(4096):
                pass
        except OSError:
            pass  # they had heard enough
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(script, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in done:
            task.cancel()
        await asyncio.gather(*done, return_exceptions=True)


async def outcome(
    scheme: str, *answers: bytes, hang: bool = False, pieces: int = 1, timeout: float = PATIENCE
) -> Evidence | None:
    """What a dial through such a proxy says; None if it takes it for a tunnel."""
    async with saying(*answers, hang=hang, pieces=pieces) as port:
        proxy = ProxyAddress(scheme, "127.0.0.1", port, "user", "pa55word")
        route = Route("de1", "dc.test", 443, proxy)
        async with asyncio.timeout(timeout + 5):
            try:
                sock = await dial(route, timeout)
            except LinkFailed as failed:
                return failed.evidence
            sock.close()
            return None


def holds(seen: Evidence | None) -> None:
    """A refusal is the proxy's, says so, and tells no secret."""
    if seen is not None:
        assert (seen.source, seen.step, seen.path) == (Source.PROXY, "proxy", "de1")
        assert seen.message.startswith("proxy de1: ")
        assert len(seen.message) < 1000
        assert seen.cause[0].endswith(seen.message.removeprefix("proxy de1: ")[:200])
        assert "pa55word" not in repr(seen)


def files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def play(made: Callable[[], Awaitable[None]]) -> None:
    """Run one example; it may leave no file open."""
    before = files()

    async def run() -> None:
        await made()

    asyncio.run(run())
    assert files() <= before


greetings = st.one_of(
    st.sampled_from([b"\x05\x00", b"\x05\x02", b"\x05\xff", b"\x04\x00"]), st.binary(max_size=8)
)
replies = st.one_of(
    st.builds(
        lambda code, kind, rest: bytes((5, code, 0, kind)) + rest,
        *(st.integers(0, 255),) * 2,
        st.binary(max_size=300),
    ),
    st.builds(lambda code, rest: bytes((0, code)) + rest, st.integers(0, 255), st.binary(max_size=300)),
    st.binary(max_size=300),
)
lines = st.one_of(
    st.sampled_from(
        [
            "HTTP/1.1 200 OK",
            "HTTP/1.0 407 No",
            "HTTP/1.1 99999999999999999999 Much",
            "HTTP/1.1 ²00 OK",
            "HTTP/1.1",
            "",
        ]
    ),
    st.builds("HTTP/{} {} {}".format, st.integers(0, 99), st.integers(-9, 99999), st.text(max_size=30)),
    st.text(max_size=60),
)
headers = st.lists(st.one_of(st.text(max_size=40), st.just("X: " + "y" * 5000)), max_size=6)


@given(
    st.lists(st.one_of(greetings, replies), max_size=3),
    st.sampled_from(["socks5", "socks4"]),
    st.integers(1, 9),
)
@settings(max_examples=120)
def test_socks_proxies_may_answer_anything(answers: list[bytes], scheme: str, pieces: int) -> None:
    """A tunnel, or one refusal that says whose it is."""

    async def example() -> None:
        holds(await outcome(scheme, *answers, pieces=pieces))

    play(example)


@given(lines, headers, st.booleans(), st.integers(1, 9))
@settings(max_examples=120)
def test_http_proxies_may_answer_anything(line: str, fields: list[str], ends: bool, pieces: int) -> None:
    """A tunnel for a whole 2xx reply, else one refusal with the status where there was one."""
    head = "\r\n".join([line, *fields]) + "\r\n\r\n" * ends
    reply = head.encode("utf-8", "surrogatepass")

    async def example() -> None:
        seen = await outcome("http", reply, pieces=pieces, timeout=5)
        holds(seen)
        if line == "HTTP/1.1 200 OK" and ends and len(reply) < MAX_HTTP_REPLY:
            assert seen is None

    play(example)


@given(st.sampled_from(PROXY_SCHEMES), st.lists(st.one_of(greetings, replies), max_size=2))
@settings(max_examples=25)
def test_no_answer_holds_a_dial_longer_than_its_timeout(scheme: str, answers: list[bytes]) -> None:
    """Whatever was said before a proxy falls silent."""

    async def example() -> None:
        begun = asyncio.get_running_loop().time()
        holds(await outcome(scheme, *answers, hang=True))
        assert asyncio.get_running_loop().time() - begun < PATIENCE + 1.0

    play(example)


@pytest.mark.parametrize("scheme", PROXY_SCHEMES)
def test_a_proxy_that_does_not_stop_talking_is_not_listened_to(scheme: str) -> None:
    """MiB of an answer: refused within some KiB of it."""

    async def example() -> None:
        gc.collect()
        tracemalloc.start()
        try:
            flood = b"\x05\x00\x00\x03\xff" + bytes(255) if scheme == "socks5" else b"HTTP/1.1 200 OK\r\nX: "
            chunk = os.urandom(MiB).replace(b"\n", b" ")
            before = tracemalloc.get_traced_memory()[0]
            seen = await outcome(scheme, flood + chunk, *[chunk] * 3, timeout=5)
            if scheme == "http":
                assert seen is not None
                assert seen.message == "proxy de1: no HTTP reply"
            assert tracemalloc.get_traced_memory()[1] - before < 16 * MiB
        finally:
            tracemalloc.stop()

    play(example)


# --- the probe ------------------------------------------------------------------------------------------------


@given(
    st.one_of(rubbish, packets.map(lambda sent: b"".join(map(frame, sent))), st.binary(max_size=200)),
    st.booleans(),
)
@settings(max_examples=80)
def test_a_probe_believes_nothing_but_its_answer(answer: bytes, hang: bool) -> None:
    """No bytes of a stranger are taken for Telegram."""

    async def example() -> None:
        async with saying(answer, hang=hang) as port:
            with pytest.raises(LinkFailed) as failed:
                await probe(Route("direct", "127.0.0.1", port), timeout=PATIENCE)
        seen = failed.value.evidence
        assert seen.source in (Source.PROTOCOL, Source.TRANSPORT, Source.SOCKET, Source.SILENCE)
        assert seen.message

    play(example)
