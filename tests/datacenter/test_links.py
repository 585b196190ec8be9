"""Connections: transports, latency, and links that break in the ways in which links break."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter, Fault
from tests.datacenter.conftest import Dial
from tests.datacenter.wire import Link, Peer, TransportError, raw, send_message


def state() -> Any:
    return raw().functions.updates.GetState()


@pytest.mark.parametrize("transport", ["abridged", "intermediate", "padded"])
async def test_transports(dial: Dial, bot: Account, dc: Datacenter, transport: str) -> None:
    """Each transport carries short and long packets both ways."""
    peer = await dial(transport=transport)
    await peer.ask(send_message(dc, bot, "x" * 4000))
    difference = await peer.ask(raw().functions.updates.GetDifference(pts=1, date=1, qts=0))
    assert difference.new_messages[0].message == "x" * 4000


async def test_an_unknown_transport_is_cut(dc: Datacenter) -> None:
    """Bytes that begin no transport end the connection."""
    async with await Link.open(dc, "none") as link:
        link.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await link.receive() is None


async def test_packets_may_come_in_pieces(dc: Datacenter) -> None:
    """A packet that arrives byte by byte is read as one."""
    async with await Link.open(dc) as link:
        body = raw().functions.ReqPqMulti(nonce=1).write()
        packet = bytes(8) + (4).to_bytes(8, "little") + len(body).to_bytes(4, "little") + body
        for byte in bytes([len(packet) // 4]) + packet:
            link.write(bytes([byte]))
            await asyncio.sleep(0.001)
        assert await link.receive() is not None


# -- latency ----------------------------------------------------------------------------------------------------


async def test_latency_delays_each_answer(dc: Datacenter, peer: Peer) -> None:
    """An answer takes at least one round trip."""
    dc.latency = 0.2
    started = time.monotonic()
    await peer.ask(state())
    assert time.monotonic() - started >= 0.2


async def test_calls_under_way_do_not_wait_for_each_other(dc: Datacenter, peer: Peer) -> None:
    """Ten calls sent at once take one round trip together, not ten, and their answers keep the order."""
    dc.latency = 0.4
    started = time.monotonic()
    asked = [peer.say(state()) for _ in range(10)]
    answers = [await peer.answer_message(msg_id) for msg_id in asked]
    took = time.monotonic() - started
    assert 0.4 <= took < 2
    assert [answer.msg_id for answer in answers] == sorted(answer.msg_id for answer in answers)


async def test_connecting_takes_a_round_trip_too(dc: Datacenter) -> None:
    """The first packet of a connection is answered after two round trips: one is the TCP handshake's."""
    dc.latency = 0.2
    started = time.monotonic()
    async with await Link.open(dc) as link:
        body = raw().functions.ReqPqMulti(nonce=1).write()
        link.send(bytes(8) + (4).to_bytes(8, "little") + len(body).to_bytes(4, "little") + body)
        assert await link.receive() is not None
    assert time.monotonic() - started >= 0.4


async def test_latency_can_end(dc: Datacenter, peer: Peer) -> None:
    """Setting latency back to 0 keeps the order of what is under way."""
    dc.latency = 0.3
    slow = peer.say(state())
    await asyncio.sleep(0.05)
    dc.latency = 0.0
    fast = peer.say(state())
    first, second = await peer.answer_message(slow), await peer.answer_message(fast)
    assert first.msg_id < second.msg_id


# -- breaking ---------------------------------------------------------------------------------------------------


async def test_reset_links_resets(dc: Datacenter, peer: Peer) -> None:
    """The client sees a reset, not an orderly end."""
    assert dc.reset_links() == 1
    assert peer.link is not None
    assert await peer.link.is_reset()


async def test_close_links_closes(dc: Datacenter, peer: Peer) -> None:
    """The client sees an orderly end."""
    assert dc.close_links() == 1
    assert peer.link is not None
    assert not await peer.link.is_reset()


async def test_links_of_one_account(dc: Datacenter, dial: Dial) -> None:
    """With an account only its links are touched."""
    other = dc.add_bot()
    mine, theirs = await dial(), await dial(other)
    assert dc.reset_links(other) == 1
    assert theirs.link is not None
    assert await theirs.link.is_reset()
    assert isinstance(await mine.ask(state()), raw().types.updates.State)


async def test_away_refuses_and_comes_back(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """While the datacenter is away connects are refused; after that keys and messages are as they were."""
    await peer.ask(send_message(dc, bot, "before"))
    port = dc.port
    async with dc.away():
        assert peer.link is not None
        assert await peer.link.is_reset()
        with pytest.raises(ConnectionRefusedError):
            await Link.open(dc)
    assert dc.port == port
    await peer.close()
    await peer.connect()
    difference = await peer.ask(raw().functions.updates.GetDifference(pts=1, date=1, qts=0))
    assert [message.message for message in difference.new_messages] == ["before"]


async def test_silence_stalls_and_speak_goes_on(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """While silent nothing is answered or executed; what was sent meanwhile is executed after speak."""
    dc.silent()
    asked = peer.say(send_message(dc, bot, "stalled"))
    assert await peer.is_quiet()
    assert dc.seen.times_delivered("stalled") == 0
    dc.speak()
    assert isinstance(await peer.answer(asked), raw().types.UpdateShortSentMessage)
    assert dc.seen.times_delivered("stalled") == 1


async def test_new_connections_are_silent_too(dc: Datacenter, peer: Peer) -> None:
    """A connection opened while silent is accepted, and answered after speak."""
    await peer.close()
    dc.silent()
    await peer.connect()
    asked = peer.say(state())
    assert await peer.is_quiet()
    dc.speak()
    assert isinstance(await peer.answer(asked), raw().types.updates.State)


async def test_silence_for_one_account(dc: Datacenter, dial: Dial) -> None:
    """The others are answered meanwhile; the account's new connections are silent as well."""
    other = dc.add_bot()
    mine, theirs = await dial(), await dial(other)
    dc.silent(other)
    theirs.say(state())
    assert await theirs.is_quiet()
    await theirs.close()
    await theirs.connect()
    asked = theirs.say(state())
    assert await theirs.is_quiet()
    assert isinstance(await mine.ask(state()), raw().types.updates.State)
    dc.speak(other)
    assert isinstance(await theirs.answer(asked), raw().types.updates.State)


async def test_a_call_left_behind_by_its_client_is_executed_after_a_stall(
    dc: Datacenter, bot: Account, peer: Peer
) -> None:
    """A client that gives up on a stalled server has been heard nevertheless, unless its link was reset."""
    dc.silent()
    peer.say(send_message(dc, bot, "left behind"))
    assert await peer.is_quiet()
    await peer.close()
    await closed(dc)
    dc.speak()
    async with asyncio.timeout(5):
        while not dc.seen.times_delivered("left behind"):
            await asyncio.sleep(0.01)


async def closed(dc: Datacenter) -> None:
    """Wait until the server has seen the end of every connection."""
    async with asyncio.timeout(5):
        while dc.seen.open_connections:
            await asyncio.sleep(0.01)


async def test_a_call_under_way_to_the_old_link_is_no_overlap(dc: Datacenter, peer: Peer) -> None:
    """What had been sent before the new connection was opened may be executed after that."""
    dc.latency = 0.4
    under_way = peer.say(state())
    await asyncio.sleep(0.05)
    other = Peer(dc, peer.key, peer.salt)
    await other.connect()
    dc.latency = 0.0
    assert isinstance(await other.ask(state()), raw().types.updates.State)
    assert isinstance(await peer.answer(under_way), raw().types.updates.State)
    assert dc.seen.overlaps == 0
    await other.close()


async def test_a_stall_and_a_reconnect_are_no_overlap(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """Queries that a stalled server reads late were sent before the new connection was opened."""
    dc.silent()
    peer.say(state())
    assert await peer.is_quiet()
    await peer.close()
    await peer.connect()
    asked = peer.say(state())
    assert await peer.is_quiet()
    dc.speak()
    assert isinstance(await peer.answer(asked), raw().types.updates.State)
    assert dc.seen.overlaps == 0


async def test_a_stalled_server_stops_reading(dc: Datacenter, peer: Peer) -> None:
    """The buffers between fill up, so that the client's own writes block."""
    dc.silent()
    assert peer.link is not None
    writer = peer.link._writer
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            while True:
                peer.link.send(bytes(1024 * 1024))
                await writer.drain()
    writer.transport.abort()


async def test_what_is_swallowed_is_lost_for_good(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """With swallow nothing that was sent is executed, that connection stays dead, and new ones work."""
    dc.silent(swallow=True)
    peer.say(send_message(dc, bot, "swallowed"))
    assert await peer.is_quiet()
    dc.speak()
    peer.say(state())
    assert await peer.is_quiet()
    await peer.close()
    await peer.connect()
    assert isinstance(await peer.ask(state()), raw().types.updates.State)
    assert dc.seen.times_delivered("swallowed") == 0


@pytest.mark.parametrize("code", [-404, -429, -444])
async def test_transport_errors(dc: Datacenter, bot: Account, peer: Peer, code: int) -> None:
    """Any packet of the account gets the code and the end of its connection, as often as was asked."""
    dc.transport_error(code, bot, count=2)
    for _ in range(2):
        await peer.close()
        await peer.connect()
        peer.say(raw().functions.Ping(ping_id=1), content=False)
        with pytest.raises(TransportError) as caught:
            await peer.packet()
        assert caught.value.code == code
    await peer.close()
    await peer.connect()
    assert isinstance(await peer.ask(state()), raw().types.updates.State)
    assert dc.seen.transport_errors[code] == 2


async def test_a_thousand_connections(dc: Datacenter) -> None:
    """A thousand connections are open at once and each is answered."""
    links = [await Link.open(dc) for _ in range(1000)]
    body = raw().functions.ReqPqMulti(nonce=1).write()
    for link in links:
        link.send(bytes(8) + (4).to_bytes(8, "little") + len(body).to_bytes(4, "little") + body)
    assert all([await link.receive(30) is not None for link in links])
    assert dc.seen.max_connections == 1000
    for link in links:
        await link.close()


async def test_connections_are_counted(dc: Datacenter, peer: Peer) -> None:
    """Every accepted connection is listed with the time it was opened and closed and the client's address."""
    assert peer.link is not None
    address = peer.link._writer.get_extra_info("sockname")
    await peer.close()
    await closed(dc)
    (seen,) = dc.seen.connections
    assert seen.peer == address
    assert seen.closed_at is not None
    assert seen.opened_at <= seen.closed_at <= time.monotonic()


async def test_a_named_ping_can_fail(dc: Datacenter, peer: Peer) -> None:
    """A fault that names Ping withholds pongs; one that names nothing leaves pings alone."""
    dc.faults.add(Fault("silence", method="Ping"))
    peer.say(raw().functions.Ping(ping_id=1), content=False)
    assert await peer.is_quiet()
    dc.faults.add(Fault("silence"))
    assert (await peer.ask(raw().functions.Ping(ping_id=2), content=False)).ping_id == 2
