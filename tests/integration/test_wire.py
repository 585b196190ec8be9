"""One connection over real sockets: what is said of each way in which it fails."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import pproxy
import pytest

from supervisor.core.failure import Evidence, Source
from supervisor.ports import LinkFailed
from supervisor.telegram import wire as wires
from supervisor.telegram.evidence import AUTHENTICATION
from supervisor.telegram.plain import Answers, plain_packet, probe
from supervisor.telegram.wire import Route, Wire, WireClosed, frame
from tests.integration.scripted_peers import (
    answer_req_pq,
    black_hole,
    direct,
    nothing_left,
    read_frame,
    refusing,
    says,
    serving,
    through,
    tunnel,
)


class Owner:
    """Holds what a wire tells."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.lost: list[Evidence] = []

    async def dial(self, route: Route, timeout: float = 5) -> Wire:
        return await Wire.dial(
            route, timeout=timeout, on_packet=self.packets.append, on_lost=self.lost.append
        )

    async def until(self, what: str) -> None:
        async with asyncio.timeout(10):
            while not getattr(self, what):
                await asyncio.sleep(0.001)


async def failure(route: Route, timeout: float = 5) -> Evidence:
    """The evidence of a dial that fails, and leaves nothing."""
    async with nothing_left():
        with pytest.raises(LinkFailed) as failed:
            await Owner().dial(route, timeout)
    return failed.value.evidence


# --- direct ------------------------------------------------------------------------------------------------------


async def test_a_refused_connection_is_named_with_its_address() -> None:
    """Refused: the address, the step, the path and the exception behind it."""
    with refusing() as port:
        seen = await failure(direct(port))
    assert seen.message == f"connection refused 127.0.0.1:{port}"
    assert (seen.source, seen.step, seen.path) == (Source.SOCKET, "dial", "direct")
    assert len(seen.cause) == 1
    assert seen.cause[0].startswith("ConnectionRefusedError: [Errno 111]")


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "a" * 64 + ".invalid"])
async def test_an_unknown_name_is_no_refusal(host: str) -> None:
    """A name that cannot be looked up, or not even be asked for, is told as such."""
    seen = await failure(direct(443, host))
    assert seen.message.startswith(f"name not known: {host}")
    assert seen.source is Source.SOCKET


async def test_a_black_hole_ends_after_the_timeout() -> None:
    """No SYN-ACK: the message says how long was waited, and for what."""
    with black_hole() as port:
        seen = await failure(direct(port), timeout=0.2)
    assert seen.message == f"timed out after 0.2 s: TCP to 127.0.0.1:{port}"
    assert (seen.source, seen.step) == (Source.SOCKET, "dial")


async def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead first address and a refusing second one do not hide the third."""
    loop = asyncio.get_running_loop()
    with black_hole() as hole, refusing() as refused:
        async with serving(answer_req_pq) as port:
            ports = iter((hole, refused, port))

            async def three(*_: object, **__: object) -> list[Any]:
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", p)) for p in ports]

            monkeypatch.setattr(loop, "getaddrinfo", three)
            took = await probe(direct(1, "telegram.test"), timeout=0.6)
    assert 0.2 <= took < 0.6


# --- packets and the end -----------------------------------------------------------------------------------------


async def test_packets_go_both_ways() -> None:
    """A wire says 0xef once, frames what is sent and unframes what comes, short and long."""
    sizes = [8, 504, 508, 512, 70_000, 1 << 20]

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(1) == b"\xef"
        while True:
            writer.write(frame(await read_frame(reader)))

    owner = Owner()
    sent = [os.urandom(size) for size in sizes]
    async with serving(echo) as port, nothing_left():
        wire = await owner.dial(direct(port))
        begun = wire.last_received
        for packet in sent:
            wire.send(packet)
        async with asyncio.timeout(10):
            while len(owner.packets) < len(sent):
                await asyncio.sleep(0.001)
        assert owner.packets == sent
        assert wire.last_received > begun
        sock = wire._transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        wire.abort()
        assert wire.closed
    assert owner.lost == []


async def test_what_is_sent_in_one_pass_of_the_loop_leaves_in_one_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In order, in the next pass; a big packet takes those before it along at once, and an abort does."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            heard.extend(data)

    async with serving(listen) as port:
        wire = await Owner().dial(direct(port))
        written: list[int] = []
        write = wire._transport.write  # type: ignore[union-attr]

        def noting(data: bytes) -> None:
            written.append(len(data))
            write(data)

        monkeypatch.setattr(wire._transport, "write", noting)
        sent = [bytes((n,)) * 8 for n in range(100)]
        for packet in sent[:98]:
            wire.send(packet)
        assert (written, wire.write_buffer_size, wire.taken()) == ([], 1 + 98 * 9, 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (written, wire.write_buffer_size) == ([1 + 98 * 9], 0)
        wire.send(sent[98])
        wire.send(big := bytes(wires.WRITE_AT))
        assert written == [1 + 98 * 9, 9 + 4 + len(big)]
        while len(heard) < sum(written):
            await asyncio.sleep(0.001)
        wire.send(sent[99])
        wire.abort()
        assert written[2:] == [9]
        with pytest.raises(WireClosed):
            wire.send(sent[99])
    stream = b"\xef" + b"".join(frame(packet) for packet in [*sent[:99], big])
    assert bytes(heard[: len(stream)]) == stream


@pytest.mark.parametrize("code", [-404, -429, -444])
async def test_a_transport_code_is_told_once(code: int) -> None:
    """Four bytes instead of a packet: one evidence with the code, nothing more when the server then closes."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(frame(struct.pack("<i", code)) * 2 + frame(bytes(8)))

    owner = Owner()
    async with serving(refuse) as port:
        wire = await owner.dial(direct(port))
        wire.send(bytes(8))
        await owner.until("lost")
        await asyncio.sleep(0.02)
    assert [(seen.source, seen.code, seen.message, seen.error_id) for seen in owner.lost] == [
        (Source.TRANSPORT, code, f"transport {code}", None)
    ]
    assert owner.packets == []
    with pytest.raises(WireClosed):
        wire.send(bytes(8))


@pytest.mark.parametrize(("then", "words"), [("close", "closed by"), ("reset", "reset by")])
async def test_an_eof_and_a_reset_are_two_things(then: str, words: str) -> None:
    """EOF and RST are told apart; a reset has its exception, an EOF has none."""
    owner = Owner()
    async with serving(says(b"", then=then, after=0)) as port:
        wire = await owner.dial(direct(port))
        wire.send(bytes(8))
        await owner.until("lost")
    assert [seen.message for seen in owner.lost] == [f"connection {words} 127.0.0.1:{port}"]
    assert owner.lost[0].source is Source.SOCKET
    assert [line.partition(":")[0] for line in owner.lost[0].cause] == ["ConnectionResetError"] * (
        then == "reset"
    )


@pytest.mark.parametrize("rubbish", [b"\x00", b"\x7f\xff\xff\xff", b"\x81aaaa"])
async def test_what_is_not_the_transport_is_a_protocol_failure(rubbish: bytes) -> None:
    """A packet of nothing or of 64 MiB, an acknowledgement nobody wanted: framing."""
    owner = Owner()
    async with serving(says(rubbish, then="hang")) as port:
        wire = await owner.dial(direct(port))
        wire.send(bytes(8))
        await owner.until("lost")
    assert owner.lost[0].source is Source.PROTOCOL
    assert owner.lost[0].message.startswith("framing: ")


async def test_an_abort_with_evidence_is_told_later_and_one_without_not() -> None:
    """`on_lost` never runs inside `abort`; a second abort without evidence takes the word back."""
    found = Evidence(Source.SILENCE, "nothing came")
    async with serving(says(then="hang")) as port, nothing_left():
        for again, told in ((False, [found]), (True, [])):
            owner = Owner()
            wire = await owner.dial(direct(port))
            wire.abort(found)
            assert owner.lost == []
            if again:
                wire.abort()
            await asyncio.sleep(0.01)
            assert owner.lost == told


async def test_an_owner_that_raises_closes_the_wire_with_its_traceback() -> None:
    """A bug above is evidence of our code, not of the network."""

    def broken(_: bytes) -> None:
        raise LookupError("our bug")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    owner = Owner()
    async with serving(answer_req_pq) as port:
        wire = await Wire.dial(direct(port), timeout=5, on_packet=broken, on_lost=owner.lost.append)
        wire.send(plain_packet(struct.pack("<I", 0xBE7E8EF1) + bytes(16), 4))
        await owner.until("lost")
    assert (owner.lost[0].source, owner.lost[0].message) == (Source.CODE, "LookupError: our bug")
    assert "our bug" in (owner.lost[0].traceback or "")


# --- back-pressure -------------------------------------------------------------------------------------------------


async def test_a_peer_that_stops_reading_is_lost_only_when_the_buffer_stands_still() -> None:
    """Over the bound nothing happens while bytes leave; when none leave for the timeout, the link is lost."""
    open_tap = asyncio.Event()

    async def sip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(12):
            await reader.readexactly(65536)
            await asyncio.sleep(0.05)
        open_tap.set()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(3600)

    owner = Owner()
    async with serving(sip) as port:
        wire = await owner.dial(direct(port), timeout=0.3)
        while wire.write_buffer_size <= 3 * wires.STALLED_AT:  # the kernel takes some more yet
            wire.send(bytes(1 << 20))
        assert wire.paused
        wire.send(bytes(8))
        await open_tap.wait()
        assert owner.lost == []
        await owner.until("lost")
    assert owner.lost[0].source is Source.SILENCE
    assert owner.lost[0].message.startswith("peer stops reading: 127.0.0.1:")
    assert wire.closed


async def test_drained_waits_for_room_and_for_the_end() -> None:
    """`drained` returns when the buffer has room, and raises when the wire is closed instead."""
    go = asyncio.Event()

    async def late(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await go.wait()
        while await reader.read(1 << 20):
            pass

    owner = Owner()
    async with serving(late) as port:
        wire = await owner.dial(direct(port))
        await wire.drained()
        while not wire.paused:
            wire.send(bytes(1 << 20))
        waits = [asyncio.create_task(wire.drained()) for _ in range(2)]
        waits[1].cancel()
        await asyncio.sleep(0.02)
        assert not waits[0].done()
        go.set()
        await asyncio.wait_for(waits[0], 10)
        assert wire.write_buffer_size <= wires.RESUME_AT
    async with serving(says(then="hang")) as port:
        wire = await owner.dial(direct(port))
        while not wire.paused:
            wire.send(bytes(1 << 20))
        wait = asyncio.create_task(wire.drained())
        await asyncio.sleep(0)
        wire.abort()
        with pytest.raises(WireClosed):
            await wait


# --- proxies -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def real_proxy(url: str) -> AsyncIterator[int]:
    """Runs pproxy; `url` with port 0."""
    server = await pproxy.Server(url).start_server({"rserver": [pproxy.Connection("direct")]})
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("scheme", "target"),
    [
        ("socks5", "127.0.0.1"),
        ("socks4", "127.0.0.1"),
        ("http", "127.0.0.1"),
        ("socks5", "localhost"),
        ("http", "localhost"),  # pproxy knows no SOCKS4a
    ],
)
async def test_a_real_proxy_brings_us_through(scheme: str, target: str) -> None:
    """Each scheme reaches the datacenter, by address and by a name that the proxy looks up."""
    async with serving(answer_req_pq) as port, real_proxy(f"{scheme}://127.0.0.1:0") as proxy:
        assert await probe(through(proxy, scheme=scheme, target=port, target_host=target), timeout=5) > 0


NAMES = {
    "socks5": (b"\x05\x00", b"\x05\x01\x00\x03\x07dc.test\x01\xbb"),
    "socks4": (None, b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00dc.test\x00"),
    "http": (None, b"CONNECT dc.test:443 HTTP/1.1\r\nHost: dc.test:443\r\n\r\n"),
}


@pytest.mark.parametrize(("scheme", "greeting", "request_"), [(name, *talk) for name, talk in NAMES.items()])
async def test_names_are_looked_up_by_the_proxy(scheme: str, greeting: bytes | None, request_: bytes) -> None:
    """The datacenter's name goes to the proxy as it is; nobody else is asked for it."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if greeting is not None:
            await reader.read(1024)
            writer.write(greeting)
        heard.append(await reader.read(1024))

    async with serving(listen) as proxy:
        await failure(through(proxy, scheme=scheme, target_host="dc.test", target=443))
    assert heard == [request_]


@pytest.mark.parametrize("scheme", ["socks5", "http"])
async def test_a_login_is_sent(scheme: str) -> None:
    """User name and password reach the proxy."""
    async with serving(answer_req_pq) as port, real_proxy(f"{scheme}://127.0.0.1:0#me:secret") as proxy:
        route = through(proxy, scheme=scheme, target=port, login=("me", "secret"))
        assert await probe(route, timeout=5) > 0


SOCKS5_REPLIES = {
    1: "general SOCKS server failure",
    2: "connection not allowed by ruleset",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused by destination host",
    6: "tTL expired",
    7: "command not supported or protocol error",
    8: "address type not supported",
}


@pytest.mark.parametrize(("code", "words"), SOCKS5_REPLIES.items())
async def test_a_socks5_reply_is_kept_with_its_code(code: int, words: str) -> None:
    """Each reply code of RFC 1928 is in the evidence."""
    script = says(b"\x05\x00", bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0)))
    async with serving(script) as proxy:
        seen = await failure(through(proxy))
    assert (seen.source, seen.code, seen.step, seen.path) == (Source.PROXY, code, "proxy", "de1")
    assert seen.message == f"proxy de1: socks reply {code} ({words})"
    assert seen.cause[0] == f"socks5 proxy 127.0.0.1:{proxy}: socks reply {code} ({words})"
    assert seen.context == ()


@pytest.mark.parametrize("code", [9, 0xF1])
async def test_a_socks5_reply_outside_the_rfc_is_kept_too(code: int) -> None:
    """A code that no RFC knows keeps its number."""
    async with serving(says(b"\x05\x00", bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0)))) as proxy:
        seen = await failure(through(proxy))
    assert (seen.code, seen.message) == (code, f"proxy de1: socks reply {code}")


@pytest.mark.parametrize(("code", "refuses_us"), [(0x5B, False), (0x5C, True), (0x5D, True)])
async def test_a_socks4_reply_is_kept_with_its_code(code: int, refuses_us: bool) -> None:
    """SOCKS4's replies: rejected, and the two that want an identity."""
    async with serving(says(bytes((0, code)) + bytes(6))) as proxy:
        seen = await failure(through(proxy, scheme="socks4"))
    assert (seen.source, seen.code) == (Source.PROXY, code)
    assert seen.message.startswith(f"proxy de1: socks reply {code} (request rejected")
    assert (AUTHENTICATION in seen.context) is refuses_us


@pytest.mark.parametrize(
    ("status", "reason", "refuses_us"),
    [
        (407, "Proxy Authentication Required", True),
        (403, "Forbidden", False),
        (502, "Bad Gateway", False),
        (503, "", False),
    ],
)
async def test_an_http_status_is_kept(status: int, reason: str, refuses_us: bool) -> None:
    """The status of a failed CONNECT, and that 407 is about us."""
    async with serving(says(f"HTTP/1.1 {status} {reason}\r\nVia: x\r\n\r\n".encode())) as proxy:
        seen = await failure(through(proxy, scheme="http"))
    said = f" ({reason})" if reason else ""
    assert (seen.code, seen.message) == (status, f"proxy de1: http reply {status}{said}")
    assert seen.cause[0] == f"http proxy 127.0.0.1:{proxy}: http reply {status}{said}"
    assert (AUTHENTICATION in seen.context) is refuses_us


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((b"\x05\x02", b"\x01\x01"), "wrong user or password"),
        ((b"\x05\xff",), "no acceptable authentication method"),
        ((b"\x05\x01",), "wants authentication method 1"),
    ],
)
async def test_a_proxy_that_does_not_accept_us_says_so(answers: tuple[bytes, ...], words: str) -> None:
    """A wrong password and methods that do not meet are marked: no retry will mend them."""
    async with serving(says(*answers)) as proxy:
        seen = await failure(through(proxy, login=("me", "pa55word")))
    assert (seen.source, seen.message, seen.code) == (Source.PROXY, f"proxy de1: {words}", None)
    assert AUTHENTICATION in seen.context
    assert "pa55word" not in repr(seen)


@pytest.mark.parametrize("scheme", ["socks5", "socks4"])
async def test_a_login_that_socks_cannot_carry_is_refused_without_a_word_of_it(scheme: str) -> None:
    """Neither bytes beyond ASCII nor 256 of them fit; the message does not show them."""
    for password in ("pässword", "x" * 256):
        async with serving(says(then="hang")) as proxy:
            seen = await failure(through(proxy, scheme=scheme, login=("me", password)))
        assert seen.message == f"proxy de1: a {scheme} login is ASCII, at most 255 characters"
        assert password not in repr(seen)


async def test_a_proxy_that_is_gone_is_told_from_telegram_that_is_gone() -> None:
    """The proxy's own refused port, unknown name and black hole are its failures, with its address."""
    with refusing() as port:
        seen = await failure(through(port))
    assert (seen.source, seen.message) == (Source.PROXY, f"proxy de1: connection refused 127.0.0.1:{port}")
    seen = await failure(through(1080, host="nosuchhost.invalid"))
    assert seen.source is Source.PROXY
    assert seen.message.startswith("proxy de1: name not known: nosuchhost.invalid")
    with black_hole() as port:
        seen = await failure(through(port), timeout=0.2)
    assert seen.source is Source.PROXY
    assert seen.message == f"proxy de1: timed out after 0.2 s: TCP to 127.0.0.1:{port}"


HANGS = {
    "socks5 greeting": ("socks5", ()),
    "socks5 after the greeting": ("socks5", (b"\x05\x00",)),
    "socks5 half a reply": ("socks5", (b"\x05\x00", b"\x05\x00\x00\x01")),
    "socks4": ("socks4", ()),
    "http": ("http", ()),
    "http half a reply": ("http", (b"HTTP/1.1 200 OK\r\n",)),
}


@pytest.mark.parametrize(("scheme", "answers"), HANGS.values(), ids=HANGS.keys())
async def test_a_proxy_that_hangs_ends_after_the_timeout(scheme: str, answers: tuple[bytes, ...]) -> None:
    """A handshake that goes no further is bounded, wherever it stops."""
    async with serving(says(*answers, then="hang")) as proxy:
        seen = await failure(through(proxy, scheme=scheme), timeout=0.2)
    assert (seen.source, seen.step) == (Source.PROXY, "proxy")
    said = f"timed out after 0.2 s: {scheme} handshake with 127.0.0.1:{proxy}"
    assert seen.message == f"proxy de1: {said}"
    assert seen.cause == (f"{scheme} proxy 127.0.0.1:{proxy}: {said}",)


@pytest.mark.parametrize(("scheme", "answers"), HANGS.values(), ids=HANGS.keys())
@pytest.mark.parametrize(
    ("then", "words"), [("close", "closed the connection"), ("reset", "connection reset by")]
)
async def test_a_proxy_that_goes_away_in_the_handshake(
    scheme: str, answers: tuple[bytes, ...], then: str, words: str
) -> None:
    """EOF and RST in the handshake are the proxy's."""
    async with serving(says(*(answers or (b"",)), then=then, after=0)) as proxy:
        seen = await failure(through(proxy, scheme=scheme))
    assert seen.source is Source.PROXY
    assert seen.message.startswith(f"proxy de1: {words}")


@pytest.mark.parametrize(("scheme", "rubbish"), [("socks5", b"HTTP/1.1 400"), ("http", b"\x05\x00\r\n\r\n")])
async def test_a_proxy_of_another_kind(scheme: str, rubbish: bytes) -> None:
    """A proxy that speaks something else is the proxy's failure too."""
    async with serving(says(rubbish)) as proxy:
        seen = await failure(through(proxy, scheme=scheme))
    assert seen.source is Source.PROXY


@pytest.mark.parametrize(
    ("scheme", "greeting", "reply"),
    [
        ("socks5", 1, b"\x05\x00\x00\x01\x7f\x00\x00\x01\x11\x4e"),
        ("socks5", 1, b"\x05\x00\x00\x03\x04host\x11\x4e"),
        ("socks4", 0, b"\x00\x5a\x11\x4e\x7f\x00\x00\x01"),
        ("http", 0, b"HTTP/1.1 200 Connection established\r\nVia: somebody\r\nX: y\r\n\r\n"),
    ],
)
async def test_a_reply_in_many_segments_is_read_to_its_end(scheme: str, greeting: int, reply: bytes) -> None:
    """A proxy's reply may come byte by byte; none of it is taken for Telegram's."""
    async with serving(tunnel(greeting, reply)) as proxy:
        assert await probe(through(proxy, scheme=scheme), timeout=5) > 0


async def test_a_loss_behind_a_proxy_names_it() -> None:
    """Who closed cannot be known through a proxy: the message says through which."""
    owner = Owner()
    async with serving(says(b"\x00\x5a" + bytes(6), b"", after=0)) as proxy:
        wire = await owner.dial(through(proxy, scheme="socks4"))
        wire.send(bytes(8))
        await owner.until("lost")
    assert owner.lost[0].message == "connection closed by 127.0.0.1:4430 through proxy de1"
    assert owner.lost[0].path == "de1"


async def test_a_broken_proxy_is_never_gone_around() -> None:
    """Nothing falls back to a direct connection."""
    calls = 0

    async def count(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1

    async with serving(count) as port:
        with refusing() as proxy:
            await failure(through(proxy, target=port))
        async with serving(says(b"\x05\xff")) as proxy:
            await failure(through(proxy, target=port))
    assert calls == 0


# --- cancellation and stalls -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "answers"), HANGS.values(), ids=HANGS.keys())
async def test_a_dial_through_a_hanging_proxy_can_be_cancelled(
    scheme: str, answers: tuple[bytes, ...]
) -> None:
    """Cancelling takes effect at once, blocks nothing, and leaves neither socket nor task."""
    loop = asyncio.get_running_loop()
    async with serving(says(*answers, then="hang")) as proxy, nothing_left():
        before = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await Owner().dial(through(proxy, scheme=scheme), timeout=30)
        assert loop.time() - before < 5


async def test_a_dial_into_a_black_hole_can_be_cancelled() -> None:
    """The same in the middle of TCP."""
    with black_hole() as port:
        async with nothing_left():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await Owner().dial(direct(port), timeout=30)


async def test_a_dial_can_be_cancelled_at_any_point() -> None:
    """Cancelled after 0, 1, 2 … passes of the loop: nothing is ever left."""
    async with serving(tunnel(1, b"\x05\x00\x00\x01\x7f\x00\x00\x01\x11\x4e")) as proxy:
        async with nothing_left():
            await probe(through(proxy), timeout=5)
        done = False
        passes = 0
        while not done:
            async with nothing_left():
                task = asyncio.create_task(Owner().dial(through(proxy), timeout=5))
                for _ in range(passes):
                    await asyncio.sleep(0.0005)
                done = task.done()
                task.cancel()
                with suppress(asyncio.CancelledError):
                    (await task).abort()
            passes += 1
    assert passes > 3


async def test_an_answer_that_came_during_our_own_stall_is_read_before_it_is_judged() -> None:
    """The loop stood still past the deadline; the bytes are there, so there is no failure."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        inbox = Answers()
        route = direct(server.getsockname()[1])
        wire = await Wire.dial(route, timeout=5, on_packet=inbox.put, on_lost=inbox.put)
        peer = server.accept()[0]
        waiting = asyncio.create_task(inbox.get(0.1))
        await asyncio.sleep(0.01)
        peer.sendall(frame(bytes(84)))  # the loop does not see it before the deadline has passed
        time.sleep(0.2)
        assert await waiting == bytes(84)
        wire.abort()
        peer.close()


# --- the probe -------------------------------------------------------------------------------------------------------


async def test_a_probe_asks_once_and_closes() -> None:
    """A probe takes one connection and gives it back."""
    async with serving(answer_req_pq) as port, nothing_left():
        assert 0 < await probe(direct(port), timeout=5) < 5


@pytest.mark.parametrize(
    ("answer", "source", "message"),
    [
        (frame(struct.pack("<i", -429)), Source.TRANSPORT, "transport -429"),
        (
            frame(bytes(84)),
            Source.PROTOCOL,
            "probe: the answer to req_pq_multi is not an unencrypted message",
        ),
        (
            frame(plain_packet(bytes(64), 1)),
            Source.PROTOCOL,
            "probe: the answer to req_pq_multi is not its resPQ",
        ),
        (frame(bytes(8)), Source.PROTOCOL, "probe: the answer to req_pq_multi is a message of 8 bytes"),
        (b"", Source.SILENCE, "probe: no answer to req_pq_multi in 0.2 s"),
    ],
)
async def test_a_probe_wants_the_answer_to_its_own_question(
    answer: bytes, source: Source, message: str
) -> None:
    """A transport code, somebody else's resPQ, silence: each is said."""
    async with serving(says(answer, then="hang")) as port, nothing_left():
        with pytest.raises(LinkFailed) as failed:
            await probe(direct(port), timeout=0.2)
    assert (failed.value.evidence.source, failed.value.evidence.message) == (source, message)
