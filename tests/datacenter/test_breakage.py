"""What can be broken besides calls and links: key exchanges, new connections, pings, packets, reading, clocks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter, Fault
from tests.datacenter.conftest import Dial
from tests.datacenter.wire import Exchange, Link, Peer, TransportError, hello, raw, send_message

STEPS = ["req_pq_multi", "req_DH_params", "set_client_DH_params"]


def functions() -> Any:
    return raw().functions


def state() -> Any:
    return functions().updates.GetState()


# -- the key exchange ---------------------------------------------------------------------------------------------


@pytest.fixture
async def exchange(dc: Datacenter) -> AsyncIterator[Exchange]:
    async with await Link.open(dc) as link:
        yield Exchange(dc, link)


async def made_on_a_new_link(dc: Datacenter) -> bool:
    async with await Link.open(dc) as link:
        return isinstance(await Exchange(dc, link).run(), raw().types.DhGenOk)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "close", "transport"])
async def test_a_key_exchange_is_cut(dc: Datacenter, exchange: Exchange, step: str, kind: str) -> None:
    """Each step can end with a reset, before or after it was done, a close, or a transport error; the next one is well."""
    dc.faults.add(Fault(kind, method=step, code=-404))
    with pytest.raises(TransportError if kind == "transport" else ConnectionError):
        await exchange.run()
    was_made = kind == "drop_after" and step == STEPS[-1]
    assert dc.seen.key_exchanges == was_made
    assert dc.seen.faults[kind] == 1
    assert await made_on_a_new_link(dc)


@pytest.mark.parametrize("step", STEPS)
async def test_a_key_exchange_falls_silent(dc: Datacenter, exchange: Exchange, step: str) -> None:
    """A step can be left without its answer, on an open connection."""
    dc.faults.add(Fault("silence", method=step))
    running = asyncio.create_task(exchange.run())
    while not dc.seen.faults["silence"]:
        await asyncio.sleep(0.01)
    done, _ = await asyncio.wait([running], timeout=0.1)
    assert not done
    assert dc.seen.open_connections == 1
    running.cancel()


async def test_an_impostor_offers_another_key(dc: Datacenter, exchange: Exchange) -> None:
    """resPQ can name the fingerprint of a key that no client knows."""
    dc.faults.add(Fault("forged", method="req_pq_multi"))
    await exchange.start()
    (offered,) = exchange.res_pq.server_public_key_fingerprints
    assert offered != dc.fingerprint


async def test_an_impostor_cannot_read_the_proof(dc: Datacenter, exchange: Exchange) -> None:
    """The answer to req_DH_params can be encrypted under a key that the client doesn't have."""
    dc.faults.add(Fault("forged", method="req_DH_params"))
    await exchange.start()
    with pytest.raises((KeyError, AssertionError)):
        await exchange.prove()


async def test_an_impostor_gives_a_wrong_proof(dc: Datacenter, exchange: Exchange) -> None:
    """dh_gen_ok can come with a hash that is none of the new nonce."""
    from hashlib import sha1

    dc.faults.add(Fault("forged", method="set_client_DH_params"))
    done = await exchange.run()
    right = sha1(exchange.new_nonce + b"\x01" + sha1(exchange.key).digest()[:8]).digest()[-16:]
    assert done.new_nonce_hash1 != int.from_bytes(right, "little", signed=True)


async def test_a_wrong_clock_is_told_in_the_key_exchange(dc: Datacenter, exchange: Exchange) -> None:
    """server_time of the key exchange is the server's own."""
    dc.clock_offset = 60
    await exchange.start()
    await exchange.prove()
    assert abs(exchange.inner.server_time - dc.engine.now()) < 2


# -- new connections ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_new_connections_are_ended(dc: Datacenter, peer: Peer, how: str) -> None:
    """Connections that come in are accepted and ended; those that are there stay, and later ones are served."""
    dc.receive_new(how)
    async with await Link.open(dc) as link:
        assert await link.is_reset() is (how == "reset")
    assert isinstance(await peer.ask(state()), raw().types.updates.State)
    dc.receive_new("serve")
    assert await made_on_a_new_link(dc)


async def test_new_connections_are_left_alone(dc: Datacenter, exchange: Exchange) -> None:
    """Connections that come in are accepted and never answered, not even when later ones are."""
    dc.receive_new("silent")
    async with await Link.open(dc) as link:
        late = Exchange(dc, link)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await late.start()
        dc.receive_new("serve")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await late.start()
    await exchange.start()


# -- a peer that doesn't read -------------------------------------------------------------------------------------


async def test_a_server_that_stops_reading_blocks_the_client(
    dc: Datacenter, bot: Account, peer: Peer, dial: Dial
) -> None:
    """The client's writes pile up once the buffers between are full; read again, everything is answered."""
    other = dc.add_bot()
    theirs = await dial(other)
    dc.stop_reading(bot)
    assert peer.link is not None
    body = functions().upload.SaveFilePart(file_id=1, file_part=0, bytes=bytes(400_000))
    sent = [peer.say(body) for _ in range(20)]
    transport = peer.link.transport
    await asyncio.sleep(0.05)
    assert transport.get_write_buffer_size() > 0
    assert isinstance(await theirs.ask(state()), raw().types.updates.State)
    dc.read_again(bot)
    assert [await peer.answer(msg_id) for msg_id in sent] == [True] * 20


async def test_new_connections_of_the_account_are_not_read_either(
    dc: Datacenter, bot: Account, peer: Peer
) -> None:
    """stop_reading holds for connections that come later, once they are known to be the account's."""
    dc.stop_reading(bot)
    await peer.close()
    await peer.connect()
    await peer.ask(state())  # the packet by which it was known
    peer.say(state())
    assert await peer.is_quiet()
    dc.read_again()
    assert isinstance(await peer.answer(peer.say(state())), raw().types.updates.State)


# -- pings and calls ----------------------------------------------------------------------------------------------


async def test_a_ping_can_be_answered_with_an_error(dc: Datacenter, peer: Peer) -> None:
    """An rpc_error for Ping comes as the rpc_result of its msg_id; the next ping is well."""
    dc.faults.add(Fault("rpc_error", method="Ping", code=500, error="INTERNAL"))
    answer = await peer.ask(functions().Ping(ping_id=5), content=False)
    assert (answer.error_code, answer.error_message) == (500, "INTERNAL")
    assert (await peer.ask(functions().Ping(ping_id=6), content=False)).ping_id == 6


@pytest.mark.parametrize("code", [16, 17, 20, 32, 33, 48])
@pytest.mark.parametrize("method", ["Ping", "InitConnection"])
async def test_bad_msg_for_a_ping_and_a_greeting(dc: Datacenter, peer: Peer, method: str, code: int) -> None:
    """A ping and a first call can be refused like any other message; 48 brings a new salt with it."""
    dc.faults.add(Fault("bad_msg", method=method, code=code))
    query = functions().Ping(ping_id=5) if method == "Ping" else hello()
    refused = await peer.ask(query, content=method != "Ping")
    assert refused.error_code == code
    if code == 48:
        peer.salt = refused.new_server_salt.to_bytes(8, "little", signed=True)
    assert isinstance(await peer.ask(state()), raw().types.updates.State)


@pytest.mark.parametrize(("kind", "is_reset"), [("close", False), ("drop_before", True)])
async def test_a_call_ends_the_connection(
    dc: Datacenter, bot: Account, peer: Peer, kind: str, is_reset: bool
) -> None:
    """A call can end its connection in order or by reset; it isn't executed."""
    dc.faults.add(Fault(kind, method="messages.SendMessage"))
    peer.say(send_message(dc, bot, "x"))
    assert peer.link is not None
    assert await peer.link.is_reset() is is_reset
    assert not dc.seen.sends


async def test_a_method_that_is_not_served_can_fail_by_script(dc: Datacenter, peer: Peer) -> None:
    """A scripted error comes before the question whether the method is served: nothing unknown is recorded."""
    dc.faults.add(Fault("rpc_error", method="messages.GetAllDrafts", code=400, error="CHAT_ID_INVALID"))
    assert await peer.error(functions().messages.GetAllDrafts()) == "400 CHAT_ID_INVALID"
    assert dc.seen.unknown_methods == []


async def test_slow_mode_is_one_chats(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A SLOWMODE_WAIT holds for further sends to that chat alone; a FLOOD_WAIT for all."""
    group = dc.add_supergroup("Slow", [bot])
    where = raw().types.InputPeerChannel(channel_id=group.channel_id, access_hash=dc.access_hash(bot, group))
    dc.faults.add(Fault("rpc_error", method="messages.SendMessage", code=420, error="SLOWMODE_WAIT_30"))
    assert await peer.error(send_message(dc, bot, "a", peer=where)) == "420 SLOWMODE_WAIT_30"
    assert await peer.error(send_message(dc, bot, "b", peer=where)) == "420 SLOWMODE_WAIT_30"
    await peer.ask(send_message(dc, bot, "c"))
    assert dc.seen.times_delivered("c") == 1
    dc.faults.add(Fault("rpc_error", method="messages.SendMessage", code=420, error="FLOOD_WAIT_30"))
    assert await peer.error(send_message(dc, bot, "d")) == "420 FLOOD_WAIT_30"
    other = raw().types.InputPeerUser(user_id=dc.add_person(702, "Dora").user_id, access_hash=0)
    assert await peer.error(send_message(dc, bot, "e", peer=other)) == "420 FLOOD_WAIT_30"


# -- packets that cannot be read ----------------------------------------------------------------------------------


async def test_a_packet_that_no_key_opens(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A packet with the right key id and garbage in it reaches the account's listening sessions; calls go on."""
    assert dc.push_undecryptable(bot) == 0
    await peer.ask(state())
    assert dc.push_undecryptable(bot) == 1
    assert peer.link is not None
    packet = await peer.link.receive()
    assert packet is not None
    assert packet[:8] == next(iter(bot.keys)).id
    assert len(packet) % 16 == 8
    assert isinstance(await peer.ask(state()), raw().types.updates.State)


async def test_a_message_of_no_known_layer(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A well encrypted message can begin with a constructor that no library knows."""
    await peer.ask(state())
    assert dc.push_unknown(bot, 0xDEADBEEF) == 1
    with pytest.raises(ValueError, match="0xdeadbeef"):
        await peer.packet()
