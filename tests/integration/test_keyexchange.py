"""The key exchange against the local datacenter, and over wires that fail in its middle."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from supervisor.core.failure import Evidence, Source
from supervisor.datacenter import Datacenter
from supervisor.ports import LinkFailed
from supervisor.telegram import arithmetic
from supervisor.telegram.keyexchange import (
    STEP,
    AuthKey,
    PublicKey,
    create_auth_key,
    public_key_from_pem,
    telegram_public_keys,
)
from supervisor.telegram.plain import plain_packet, probe
from supervisor.telegram.wire import Route, Wire, frame
from tests.integration.scripted_peers import Script, direct, nothing_left, read_frame, says, serving
from tests.unit.telegram.forged_server import ForgedServer, rsa_key


@pytest.fixture
async def dc() -> AsyncIterator[Datacenter]:
    async with Datacenter() as running:
        yield running


async def dialled(route: Route) -> tuple[Wire, list[bytes], list[Evidence]]:
    packets: list[bytes] = []
    lost: list[Evidence] = []
    return await Wire.dial(route, timeout=5, on_packet=packets.append, on_lost=lost.append), packets, lost


async def make(route: Route, *keys: PublicKey, timeout: float = 5) -> AuthKey:
    """One key over one connection; a failure leaves the wire closed and tells nobody else."""
    wire, packets, lost = await dialled(route)
    try:
        return await create_auth_key(wire, public_keys=keys or [rsa_key()[0]], timeout=timeout)
    except BaseException:
        assert wire.closed
        raise
    finally:
        wire.abort()
        await asyncio.sleep(0)
        assert (packets, lost) == ([], [])


async def failure(route: Route, *keys: PublicKey, timeout: float = 5) -> Evidence:
    with pytest.raises(LinkFailed) as failed:
        await make(route, *keys, timeout=timeout)
    assert (failed.value.evidence.step, failed.value.evidence.path) == (STEP, route.path)
    return failed.value.evidence


def forged(server: ForgedServer, *, silent_from: int = 9) -> Script:
    """A connection on which a forged server answers, up to the request `silent_from`."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        asked = 0
        while True:
            packet = await read_frame(reader)
            body = packet[20 : 20 + struct.unpack_from("<i", packet, 16)[0]]
            answer = server.answer(body)
            asked += 1
            if asked < silent_from:
                writer.write(frame(plain_packet(answer, 1)))

    return script


# --- the datacenter --------------------------------------------------------------------------------------------


async def test_a_datacenter_and_we_have_the_same_key(dc: Datacenter) -> None:
    """A key is made over one connection, and that connection stays open for the session."""
    key = public_key_from_pem(dc.public_key_pem)
    assert key.fingerprint == dc.fingerprint
    wire, packets, lost = await dialled(direct(dc.port))
    made = await create_auth_key(wire, public_keys=[key], timeout=10)
    assert not wire.closed
    assert len(made.key) == 256
    assert abs(made.time_offset) < 5
    assert dc.seen.key_exchanges == 1
    assert dc.seen.handshakes_refused == 0
    wire.send(os.urandom(8) + bytes(64))  # a key that nobody has: what comes now is its owner's again
    while not lost:
        await asyncio.sleep(0.001)
    assert (packets, [seen.code for seen in lost]) == ([], [-404])
    assert len(dc.seen.connections) == 1


async def test_the_servers_clock_is_learned(dc: Datacenter) -> None:
    """The offset is the server's clock minus ours."""
    dc.clock_offset = -500
    made = await make(direct(dc.port), public_key_from_pem(dc.public_key_pem))
    assert abs(made.time_offset + 500) < 5


async def test_a_probe_finds_a_datacenter(dc: Datacenter) -> None:
    """A probe gets a true resPQ."""
    assert await probe(direct(dc.port), timeout=5) > 0


async def test_a_datacenter_with_another_key_is_not_ours(dc: Datacenter) -> None:
    """Telegram's keys do not open a local datacenter, and the message says so."""
    seen = await failure(direct(dc.port), *telegram_public_keys())
    assert seen.source is Source.PROTOCOL
    assert seen.message.startswith("key exchange: the server's key is not the configured one")
    assert dc.seen.key_exchanges == 0


async def test_many_exchanges_at_once_share_their_threads(dc: Datacenter) -> None:
    """Twenty different keys at once, and two threads however many there were."""
    key = public_key_from_pem(dc.public_key_pem)
    await make(direct(dc.port), key)
    made = await asyncio.gather(*(make(direct(dc.port), key) for _ in range(20)))
    assert len({one.key for one in made}) == 20
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("key-exchange")]
    assert len(threads) == arithmetic.THREADS == 2


# --- failures in the middle --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("silent_from", "asked"), [(1, "req_pq_multi"), (2, "req_DH_params"), (3, "set_client_DH_params")]
)
async def test_silence_names_the_request_that_nobody_answered(silent_from: int, asked: str) -> None:
    """A server that stops answering: after which request, and how long was waited."""
    async with serving(forged(ForgedServer(), silent_from=silent_from)) as port, nothing_left():
        seen = await failure(direct(port), timeout=0.3)
    assert (seen.source, seen.message) == (Source.SILENCE, f"key exchange: no answer to {asked} in 0.3 s")


async def test_a_slow_server_is_no_silent_one() -> None:
    """A server that takes most of the timeout for each answer gets three of them: a link of 3 s latency can start."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = ForgedServer()
        await reader.readexactly(1)
        while True:
            packet = await read_frame(reader)
            await asyncio.sleep(0.3)
            body = packet[20 : 20 + struct.unpack_from("<i", packet, 16)[0]]
            writer.write(frame(plain_packet(server.answer(body), 1)))

    async with serving(slow) as port:
        begun = time.monotonic()
        assert len((await make(direct(port), timeout=0.5)).key) == 256
        assert time.monotonic() - begun >= 0.9


@pytest.mark.parametrize(
    ("answer", "then", "source", "message"),
    [
        (b"", "close", Source.SOCKET, "connection closed by 127.0.0.1:"),
        (b"", "reset", Source.SOCKET, "connection reset by 127.0.0.1:"),
        (frame(struct.pack("<i", -404)), "hang", Source.PROTOCOL, "transport -404"),
        (frame(struct.pack("<i", -429)), "hang", Source.TRANSPORT, "transport -429"),
        (frame(bytes(84)), "hang", Source.PROTOCOL, "key exchange: not an unencrypted message"),
        (frame(bytes(8)), "hang", Source.PROTOCOL, "key exchange: a message of 8 bytes"),
        (
            frame(plain_packet(bytes(8), 1)),
            "hang",
            Source.PROTOCOL,
            "key exchange: the answer to req_pq_multi is 0x00000000, not ResPQ",
        ),
    ],
)
async def test_a_loss_in_the_middle_keeps_its_cause(
    answer: bytes, then: str, source: Source, message: str
) -> None:
    """EOF, RST, a transport code and rubbish: the cause, in the step in which it happened.

    -404 is not said of a key here: there is none yet, so it must not count towards giving one up.
    """
    async with serving(says(answer, then=then, after=0)) as port:
        seen = await failure(direct(port))
    assert seen.source is source
    assert seen.message.startswith(message)
    if source in (Source.SOCKET, Source.TRANSPORT) or message == "transport -404":
        assert seen.context == (("asked", "req_pq_multi"),)


async def test_a_forged_answer_is_evidence() -> None:
    """A failed check reaches the caller as a protocol failure."""

    def forge(name: str, value: object) -> object:
        if name == "ServerDHParamsOk":
            value.server_nonce += 1  # type: ignore[attr-defined]
        return value

    async with serving(forged(ForgedServer(forge))) as port, nothing_left():
        seen = await failure(direct(port))
    assert (seen.source, seen.message) == (Source.PROTOCOL, "key exchange: server_nonce does not match")


async def test_a_loss_during_our_arithmetic_keeps_its_cause() -> None:
    """The server answers and closes at once: we learn it when we want to send, with the true cause."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        packet = await read_frame(reader)
        writer.write(frame(plain_packet(ForgedServer().answer(packet[20:]), 1)))

    async with serving(once) as port:
        seen = await failure(direct(port))
    assert seen.message == f"connection closed by 127.0.0.1:{port}"


async def test_a_loss_after_the_last_answer_costs_the_wire_and_not_the_key() -> None:
    """The server closes with its last answer: the key is made, and the wire's owner is told why it is gone."""
    server = ForgedServer()

    async def three(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        for _ in range(3):
            packet = await read_frame(reader)
            body = packet[20 : 20 + struct.unpack_from("<i", packet, 16)[0]]
            writer.write(frame(plain_packet(server.answer(body), 1)))

    async with serving(three) as port:
        wire, _, lost = await dialled(direct(port))
        made = await create_auth_key(wire, public_keys=[rsa_key()[0]], timeout=5)
        async with asyncio.timeout(5):
            while not lost:
                await asyncio.sleep(0.001)
    assert made.key == server.key
    assert [seen.message for seen in lost] == [f"connection closed by 127.0.0.1:{port}"]


async def test_an_exchange_can_be_cancelled_anywhere() -> None:
    """Cancelled after 0, 2, 4 … ms: the wire is closed, nothing is left."""
    after, made = 0.0, None
    while made is None:
        async with serving(forged(ForgedServer())) as port, nothing_left():
            task = asyncio.create_task(make(direct(port)))
            await asyncio.sleep(after)
            task.cancel()
            with suppress(asyncio.CancelledError):
                made = await task
        after += 0.003
    assert len(made.key) == 256
