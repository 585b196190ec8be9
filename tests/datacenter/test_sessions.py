"""MTProto sessions: identifiers, sequence numbers, salts, acknowledgements, answers that come again."""

from __future__ import annotations

import asyncio
import gzip
import time
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter
from tests.datacenter.conftest import Dial
from tests.datacenter.wire import Peer, TransportError, raw, send_message


def state() -> Any:
    return raw().functions.updates.GetState()


async def code_for(peer: Peer, **how: Any) -> int:
    answer = await peer.ask(state(), **how)
    assert isinstance(answer, raw().types.BadMsgNotification)
    return int(answer.error_code)


# -- identifiers ------------------------------------------------------------------------------------------------


async def test_a_msg_id_from_the_past_is_refused(dc: Datacenter, peer: Peer) -> None:
    """A msg_id over 300 s old gets bad_msg 16, one of 290 s is taken."""
    assert await code_for(peer, msg_id=peer.next_id(-310)) == 16
    fresh = Peer(dc, peer.key, peer.salt)
    fresh.link = peer.link
    assert isinstance(await fresh.ask(state(), msg_id=fresh.next_id(-290)), raw().types.updates.State)


async def test_a_msg_id_from_the_future_is_refused(peer: Peer) -> None:
    """A msg_id over 30 s ahead gets bad_msg 17, one of 20 s is taken."""
    assert await code_for(peer, msg_id=peer.next_id(40)) == 17
    assert isinstance(await peer.ask(state(), msg_id=peer.next_id(20)), raw().types.updates.State)


async def test_a_msg_id_must_be_divisible_by_four(peer: Peer) -> None:
    """A client's msg_id that isn't divisible by 4 gets bad_msg 18."""
    assert await code_for(peer, msg_id=peer.next_id() + 1) == 18


async def test_the_servers_clock_can_be_wrong(dc: Datacenter, peer: Peer) -> None:
    """With clock_offset the machine's own time is refused, and msg_ids of the server tell its time."""
    dc.clock_offset = 3600
    assert await code_for(peer, msg_id=int(time.time() * 2**32) & ~3) == 16
    message = await peer.answer_message(peer.say(state()))
    assert message.msg_id / 2**32 - time.time() == pytest.approx(3600, abs=10)


async def test_the_servers_msg_ids_tell_answers_from_notices(
    dc: Datacenter, bot: Account, peer: Peer
) -> None:
    """msg_id mod 4 is 1 for an answer and 3 for what the server says unasked; they rise."""
    answer = await peer.answer_message(peer.say(state()))
    dc.push_message(bot, "hello")
    update = await peer.until(lambda message: isinstance(message.body, raw().types.Updates))
    assert answer.msg_id % 4 == 1
    assert update.msg_id % 4 == 3
    assert update.msg_id > answer.msg_id


# -- sequence numbers -------------------------------------------------------------------------------------------


async def test_a_seq_no_that_falls_is_refused(peer: Peer) -> None:
    """A seq_no below that of an earlier message gets bad_msg 32, and so does the same odd one."""
    assert await code_for(peer, seq_no=1) == 32
    await peer.ask(state(), seq_no=21)
    assert await code_for(peer, seq_no=21) == 32


async def test_a_seq_no_above_that_of_a_later_message_is_refused(peer: Peer) -> None:
    """A message with a lower msg_id and a higher seq_no than one that was received gets bad_msg 33."""
    earlier = peer.next_id()
    await peer.ask(state(), seq_no=11)
    assert await code_for(peer, msg_id=earlier, seq_no=13) == 33


async def test_parity_of_seq_no_is_checked(peer: Peer) -> None:
    """An acknowledgement with an odd seq_no gets bad_msg 34, a query with an even one 35."""
    acked = raw().types.MsgsAck(msg_ids=[1])
    answer = await peer.answer(peer.say(acked, seq_no=peer.next_seq()))
    assert answer.error_code == 34
    assert await code_for(peer, seq_no=peer.next_seq(content=False)) == 35


async def test_content_of_the_server_is_numbered_odd(peer: Peer) -> None:
    """Answers are content-related: their seq_no is odd and rises by two; a pong's is even."""
    first = await peer.answer_message(peer.say(state()))
    second = await peer.answer_message(peer.say(state()))
    pong = await peer.answer_message(peer.say(raw().functions.Ping(ping_id=5), content=False))
    assert first.seq_no % 2 == 1
    assert second.seq_no == first.seq_no + 2
    assert pong.seq_no == second.seq_no + 1


async def test_a_refused_message_has_no_effect(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """What gets a bad_msg_notification isn't executed."""
    await peer.ask(send_message(dc, bot, "never"), msg_id=peer.next_id(-310))
    assert dc.seen.times_delivered("never") == 0
    assert dc.seen.bad_messages[16] == 1


# -- salts ------------------------------------------------------------------------------------------------------


async def test_a_wrong_salt_is_answered_with_the_right_one(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """bad_server_salt brings the salt with which the same message is then executed."""
    dc.rotate_salts(bot)
    query = send_message(dc, bot, "salted")
    refused = await peer.ask(query)
    assert isinstance(refused, raw().types.BadServerSalt)
    assert refused.error_code == 48
    assert dc.seen.times_delivered("salted") == 0
    peer.salt = refused.new_server_salt.to_bytes(8, "little", signed=True)
    assert isinstance(await peer.ask(query), raw().types.UpdateShortSentMessage)


async def test_salts_can_be_endless(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """endless_salts refuses every packet, pings too, with another salt until the fault is removed."""
    fault = dc.endless_salts(bot)
    salts = set()
    for _ in range(5):
        ping = raw().functions.Ping(ping_id=1)
        assert isinstance(await peer.ask(ping, content=False), raw().types.BadServerSalt)
        refused = await peer.ask(state())
        salts.add(refused.new_server_salt)
        peer.salt = refused.new_server_salt.to_bytes(8, "little", signed=True)
    assert len(salts) == 5
    dc.faults.remove(fault)
    assert isinstance(await peer.ask(state()), raw().types.updates.State)


async def test_future_salts_hold_the_present_one(peer: Peer) -> None:
    """get_future_salts is answered with the salt that is valid now."""
    salts = await peer.ask(raw().functions.GetFutureSalts(num=1))
    assert [salt.salt.to_bytes(8, "little", signed=True) for salt in salts.salts] == [peer.salt]
    assert salts.salts[0].valid_since <= salts.now < salts.salts[0].valid_until


# -- sessions ---------------------------------------------------------------------------------------------------


async def test_a_new_session_is_announced_once(dc: Datacenter, peer: Peer) -> None:
    """The first message of a session brings new_session_created with its msg_id; the next ones don't."""
    created = await peer.until(lambda message: isinstance(message.body, raw().types.NewSessionCreated))
    assert created.body.server_salt.to_bytes(8, "little", signed=True) == peer.salt
    assert created.msg_id % 4 == 3
    await peer.ask(state())
    assert not peer.received
    assert dc.seen.new_sessions == 1


async def test_a_lost_session_is_announced_again(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """After forget_sessions the same session_id is a new session: its unacknowledged answers are gone."""
    first = peer.say(send_message(dc, bot, "before"))
    await peer.answer(first)
    peer.received.clear()
    dc.forget_sessions(bot)
    second = peer.say(state())
    await peer.answer(second)
    assert [message.body.first_msg_id for message in peer.received] == [second]


async def test_a_session_can_be_destroyed(dial: Dial, dc: Datacenter, peer: Peer) -> None:
    """destroy_session ends another session of the key, and knows those that there are not."""
    other = Peer(dc, peer.key, peer.salt)
    await other.connect()
    await other.ask(raw().functions.Ping(ping_id=1), content=False)
    number = int.from_bytes(other.session_id, "little", signed=True)
    for expected in (raw().types.DestroySessionOk, raw().types.DestroySessionNone):
        peer.say(raw().functions.DestroySession(session_id=number), content=True)
        answer = await peer.until(lambda message: hasattr(message.body, "session_id"))
        assert isinstance(answer.body, expected)
    await other.close()


# -- containers and packing -------------------------------------------------------------------------------------


def container(messages: list[Any]) -> Any:
    from pyrogram.raw.core import MsgContainer

    return MsgContainer(messages)


async def test_a_container_is_executed_as_its_messages(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """Two queries and an acknowledgement in one container get two answers, in one container."""
    first = peer.message(send_message(dc, bot, "one"), peer.next_id(), peer.next_seq())
    second = peer.message(send_message(dc, bot, "two"), peer.next_id(), peer.next_seq())
    acked = peer.message(raw().types.MsgsAck(msg_ids=[4]), peer.next_id(), peer.next_seq(content=False))
    await peer.ask(state())
    peer.received.clear()
    peer.say(container([first, second, acked]), content=False)
    packet = await peer.packet()
    assert packet is not None
    assert [message.body.req_msg_id for message in packet] == [first.msg_id, second.msg_id]
    assert [sent.text for sent in dc.seen.sends[bot.user_id]] == ["one", "two"]


async def test_a_container_cannot_hold_a_later_message(peer: Peer) -> None:
    """A container's msg_id is above those of its messages, else it gets bad_msg 64."""
    outer = peer.next_id()
    inner = peer.message(state(), peer.next_id(), peer.next_seq())
    answer = await peer.answer(peer.say(container([inner]), content=False, msg_id=outer))
    assert answer.error_code == 64


async def test_containers_do_not_nest(peer: Peer) -> None:
    """A container in a container gets bad_msg 64."""
    inner = peer.message(state(), peer.next_id(), peer.next_seq())
    middle = peer.message(container([inner]), peer.next_id(), peer.next_seq(content=False))
    answer = await peer.answer(peer.say(container([middle]), content=False))
    assert answer.error_code == 64


async def test_a_containers_msg_id_is_never_used_again(peer: Peer) -> None:
    """A container under the msg_id of a message that was received gets bad_msg 19."""
    inner = peer.message(state(), peer.next_id(), peer.next_seq())
    outer = peer.say(container([inner]), content=False)
    await peer.answer(inner.msg_id)
    answer = await peer.answer(peer.say(container([inner]), content=False, msg_id=outer))
    assert answer.error_code == 19


class Packed:
    """A query in gzip_packed."""

    def __init__(self, query: Any) -> None:
        self._query = query

    def write(self) -> bytes:
        from pyrogram.raw.core.primitives import Bytes

        return b"\xa1\xcf\x72\x30" + bytes(Bytes(gzip.compress(self._query.write())))


async def test_a_packed_query_is_unpacked(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A query in gzip_packed is executed like any other."""
    await peer.ask(Packed(send_message(dc, bot, "packed " * 100)))
    assert dc.seen.times_delivered("packed " * 100) == 1


async def test_a_large_answer_is_packed(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """An answer of many kilobytes comes in gzip_packed, so its message is shorter than what it says."""
    for number in range(60):
        dc.push_message(bot, f"{number} " * 100)
    query = raw().functions.updates.GetDifference(pts=1, date=1, qts=0)
    message = await peer.answer_message(peer.say(query))
    assert len(message.body.result.new_messages) == 60
    assert message.length < len(message.body.result.write()) / 2


# -- repeated queries and answers -------------------------------------------------------------------------------


async def test_a_repeated_query_is_answered_and_not_executed_again(
    dc: Datacenter, bot: Account, peer: Peer
) -> None:
    """The same msg_id gets the same answer under the answer's own msg_id; the effect happens once."""
    types = raw().types
    users = [types.InputUser(user_id=dc.person.user_id, access_hash=0)]
    query = raw().functions.messages.CreateChat(users=users, title="once")
    msg_id, seq_no = peer.next_id(), peer.next_seq()
    first = await peer.answer_message(peer.say(query, msg_id=msg_id, seq_no=seq_no))
    second = await peer.answer_message(peer.say(query, msg_id=msg_id, seq_no=seq_no))
    assert (first.msg_id, first.seq_no) == (second.msg_id, second.seq_no)
    assert len(dc.seen.effects[bot.user_id]) == 1
    assert dc.seen.repeated[bot.user_id, "messages.CreateChat"] == 1
    assert dc.seen.answers_resent == 1


async def test_a_repeated_query_with_an_acknowledged_answer_is_only_acknowledged(peer: Peer) -> None:
    """Once the client has acknowledged an answer the server doesn't have it any more."""
    msg_id, seq_no = peer.next_id(), peer.next_seq()
    answer = await peer.answer_message(peer.say(state(), msg_id=msg_id, seq_no=seq_no))
    peer.ack(answer)
    peer.say(state(), msg_id=msg_id, seq_no=seq_no)
    acked = await peer.until(lambda message: isinstance(message.body, raw().types.MsgsAck))
    assert acked.body.msg_ids == [msg_id]
    assert await peer.is_quiet()


async def test_the_same_random_id_under_a_new_msg_id_is_refused(
    dc: Datacenter, bot: Account, peer: Peer
) -> None:
    """A random_id that was used gets 500 RANDOM_ID_DUPLICATE, and the message is not sent again."""
    await peer.ask(send_message(dc, bot, "same", 77))
    assert await peer.error(send_message(dc, bot, "same", 77)) == "500 RANDOM_ID_DUPLICATE"
    assert dc.seen.times_delivered("same") == 1
    assert dc.seen.duplicates[bot.user_id] == 1


async def test_unacknowledged_answers_come_again_on_a_new_connection(
    dc: Datacenter, bot: Account, peer: Peer
) -> None:
    """A session that reconnects gets every answer it hasn't acknowledged, and none that it has."""
    kept = await peer.answer_message(peer.say(send_message(dc, bot, "kept")))
    acked = await peer.answer_message(peer.say(state()))
    created = await peer.until(lambda message: isinstance(message.body, raw().types.NewSessionCreated))
    hello = list(dc.engine.keys.of(bot.user_id)[0].sessions[peer.session_id].unacked)
    peer.ack(acked, created)
    await peer.ask(raw().functions.Ping(ping_id=1), content=False)
    await peer.close()
    await peer.connect()
    peer.received.clear()
    await peer.ask(raw().functions.Ping(ping_id=2), content=False)
    again = [message.msg_id for message in peer.received]
    assert kept.msg_id in again
    assert acked.msg_id not in again
    assert set(again) == set(hello) - {acked.msg_id, created.msg_id}
    assert again == sorted(again)


async def test_an_answer_is_kept_until_it_is_acknowledged(dc: Datacenter, peer: Peer) -> None:
    """Each new connection brings it again; after its acknowledgement none does."""
    kept = await peer.answer_message(peer.say(state()))
    for _ in range(2):
        await peer.close()
        await peer.connect()
        peer.received.clear()
        await peer.ask(raw().functions.Ping(ping_id=1), content=False)
        assert kept.msg_id in [message.msg_id for message in peer.received]
    peer.ack(*peer.received, kept)
    await peer.ask(raw().functions.Ping(ping_id=1), content=False)
    await peer.close()
    await peer.connect()
    peer.received.clear()
    await peer.ask(raw().functions.Ping(ping_id=1), content=False)
    assert peer.received == []


async def test_a_large_repeated_answer_is_announced_first(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """msg_detailed_info stands for a large answer; msg_resend_req then brings it."""
    import random

    source = random.Random(1)
    for _ in range(100):
        dc.push_message(bot, "".join(chr(source.randrange(0x4E00, 0x9000)) for _ in range(700)))
    query = raw().functions.updates.GetDifference(pts=1, date=1, qts=0)
    msg_id, seq_no = peer.next_id(), peer.next_seq()
    answer = await peer.answer_message(peer.say(query, msg_id=msg_id, seq_no=seq_no))
    peer.say(query, msg_id=msg_id, seq_no=seq_no)
    info = await peer.until(lambda message: isinstance(message.body, raw().types.MsgDetailedInfo))
    assert (info.body.msg_id, info.body.answer_msg_id) == (msg_id, answer.msg_id)
    peer.say(raw().types.MsgResendReq(msg_ids=[answer.msg_id]))
    assert (await peer.answer_message(msg_id)).msg_id == answer.msg_id


async def test_states_of_messages_are_told(peer: Peer) -> None:
    """msgs_state_req tells a message that was received from one that was not."""
    known = peer.say(state())
    await peer.answer(known)
    info = await peer.ask(raw().types.MsgsStateReq(msg_ids=[known, peer.next_id()]))
    assert [ord(status) & 7 for status in info.info] == [4, 2]


# -- pings ------------------------------------------------------------------------------------------------------


async def test_a_ping_is_answered(dc: Datacenter, peer: Peer) -> None:
    """The pong names the ping's msg_id and ping_id; pings are no calls."""
    before = sum(dc.seen.calls.values())
    pong = await peer.ask(raw().functions.Ping(ping_id=123), content=False)
    assert pong.ping_id == 123
    assert dc.seen.pings == 1
    assert sum(dc.seen.calls.values()) == before


async def test_ping_delay_disconnect_closes_a_link_that_falls_silent(peer: Peer) -> None:
    """The server closes `disconnect_delay` seconds after the last such ping, and a new one puts it off."""
    started = time.monotonic()
    for _ in range(3):
        await peer.ask(raw().functions.PingDelayDisconnect(ping_id=1, disconnect_delay=1))
        await asyncio.sleep(0.5)
    assert peer.link is not None
    while await peer.link.receive() is not None:
        pass
    assert time.monotonic() - started >= 1.9


# -- what is no message -----------------------------------------------------------------------------------------


async def test_a_packet_that_does_not_decrypt_ends_the_connection(dc: Datacenter, peer: Peer) -> None:
    """A known key with a wrong msg_key gets -404."""
    from hashlib import sha1

    assert peer.link is not None
    peer.link.send(sha1(peer.key).digest()[-8:] + bytes(16 + 64))
    with pytest.raises(TransportError) as caught:
        while await peer.packet():
            pass
    assert caught.value.code == -404
    assert dc.seen.undecryptable == 1


async def test_a_single_bit_counts(peer: Peer) -> None:
    """A packet that was changed only in its padding gets -404: the msg_key is over the padding too."""
    from hashlib import sha1

    from pyrogram.crypto import mtproto

    ping = peer.message(raw().functions.Ping(ping_id=1), peer.next_id(), peer.next_seq(content=False))
    salt = int.from_bytes(peer.salt, "little", signed=True)
    packet = mtproto.pack(ping, salt, peer.session_id, peer.key, sha1(peer.key).digest()[-8:])
    assert peer.link is not None
    peer.link.send(packet[:-1] + bytes([packet[-1] ^ 1]))
    with pytest.raises(TransportError):
        while await peer.packet():
            pass


async def test_an_unknown_key_gets_404(dc: Datacenter) -> None:
    """The server answers a key it doesn't know with -404 and closes."""
    stranger = Peer(dc, bytes(256))
    await stranger.connect()
    stranger.say(state())
    with pytest.raises(TransportError) as caught:
        await stranger.packet()
    assert caught.value.code == -404
    assert await stranger.packet() is None
    await stranger.close()
