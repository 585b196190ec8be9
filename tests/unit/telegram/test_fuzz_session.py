"""A session with a server that may say anything: no crash, no hang, nothing that grows, and every caller hears."""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.ports import LinkFailed, RpcFailed, SessionGone
from supervisor.telegram.packets import BadPacket, Crypt
from supervisor.telegram.session import SEEN_MSG_IDS, MtprotoSession, Timings
from tests.unit.telegram.sealed import (
    CREDENTIALS,
    GZIP,
    KEY,
    KEY_ID,
    RESULT,
    ROUTE,
    Owner,
    Server,
    container,
    greeted,
    inner,
    new_session,
    tl_bytes,
)

QUERIES = 3
SOON = Timings(connect_timeout=1.0, answer_timeout=0.02, silence_timeout=0.03)
LATER = Timings()
LONGS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, -1, 4, 2**62]))
INTS = st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 16, 17, 18, 20, 32, 33, 34, 48, 64]))
# Which message of the client's a server message is about: one of the last, or one that it never sent.
ABOUT = st.one_of(st.integers(-8, -1), LONGS)

Move = tuple[Any, ...]


def moves(deep: bool = True) -> st.SearchStrategy[Move]:
    flat: list[st.SearchStrategy[Move]] = [
        st.tuples(
            st.just("answer"), ABOUT, st.sampled_from(["state", "error", "unknown", "cut", "bomb", "list"])
        ),
        st.tuples(st.just("ack"), st.lists(ABOUT, max_size=4)),
        st.tuples(st.just("new_session"), ABOUT, LONGS),
        st.tuples(st.just("salt"), ABOUT, LONGS),
        st.tuples(st.just("bad"), ABOUT, INTS),
        st.tuples(st.just("detailed"), ABOUT, LONGS, INTS),
        st.tuples(st.just("new_detailed"), LONGS, INTS),
        st.tuples(st.just("pong"), ABOUT),
        st.tuples(st.just("update"), st.integers(1, 3)),
        st.tuples(st.just("unknown"), INTS),
        st.tuples(st.just("bytes"), st.binary(max_size=64)),
    ]
    if deep:
        flat.append(st.tuples(st.just("container"), st.lists(moves(deep=False), max_size=5)))
        flat.append(st.tuples(st.just("packed"), moves(deep=False)))
        flat.append(st.tuples(st.just("storm"), moves(deep=False)))
    return st.one_of(flat)


PACKETS = st.lists(
    st.tuples(
        st.sampled_from(["as it is", "as it is", "as it is", "twice", "other session"]),
        moves(),
        st.one_of(st.none(), LONGS.map(lambda number: number | 1)),
        st.integers(0, 5),
    ),
    max_size=12,
)
QUICK = settings(max_examples=150, deadline=None)
SLOW = settings(max_examples=50, deadline=None)  # each waits for a time-out


def about(server: Server, which: int) -> int:
    """The msg_id that is meant."""
    if -8 <= which < 0 and server.asked:
        return server.asked[max(which, -len(server.asked))].msg_id
    return which


def result(what: str) -> bytes:
    from pyrogram import raw

    state = bytes(raw.types.updates.State(pts=1, qts=1, date=1, seq=1, unread_count=0).write())
    return {
        "state": state,
        "error": bytes(raw.types.RpcError(error_code=400, error_message="X").write()),
        "unknown": b"\xef\xbe\xad\xde",
        "cut": state[:10],
        "bomb": GZIP + tl_bytes(gzip.compress(bytes(1 << 22))),
        "list": bytes.fromhex("15c4b51c") + struct.pack("<iq", 1, 5),
    }[what]


def body(server: Server, move: Move) -> bytes:
    """The bytes of what the server says."""
    from pyrogram import raw

    types: Any = raw.types
    makers: dict[str, Callable[..., bytes]] = {
        "answer": lambda which, what: RESULT + struct.pack("<q", about(server, which)) + result(what),
        "ack": lambda ids: types.MsgsAck(msg_ids=[about(server, n) for n in ids]).write(),
        "new_session": lambda first, salt: types.NewSessionCreated(
            first_msg_id=about(server, first), unique_id=1, server_salt=salt
        ).write(),
        "salt": lambda which, salt: types.BadServerSalt(
            bad_msg_id=about(server, which), bad_msg_seqno=1, error_code=48, new_server_salt=salt
        ).write(),
        "bad": lambda which, code: types.BadMsgNotification(
            bad_msg_id=about(server, which), bad_msg_seqno=1, error_code=code
        ).write(),
        "detailed": lambda which, answer, size: types.MsgDetailedInfo(
            msg_id=about(server, which), answer_msg_id=answer, bytes=size, status=0
        ).write(),
        "new_detailed": lambda answer, size: types.MsgNewDetailedInfo(
            answer_msg_id=answer, bytes=size, status=0
        ).write(),
        "pong": lambda which: types.Pong(msg_id=about(server, which), ping_id=1).write(),
        "update": lambda pts: types.UpdatesTooLong().write() * pts,
        "unknown": lambda number: struct.pack("<i", number),
        "bytes": lambda data: data + bytes(-len(data) % 4),
        "container": lambda inside: container(*(inner(server.msg_id(), 1, body(server, m)) for m in inside)),
        "packed": lambda inside: GZIP + tl_bytes(gzip.compress(body(server, inside))),
        "storm": lambda inside: container(
            *(inner(server.msg_id(), 1, body(server, inside)) for _ in range(100))
        ),
    }
    return bytes(makers[move[0]](*move[1:]))


def say(session: MtprotoSession, server: Server, packets: list[Any]) -> None:
    """Say all of it, as long as there is somebody to hear it."""
    for how, move, msg_id, seq_no in packets:
        if server.closed:
            return
        ours, server.session_id = server.session_id, bytes(8) if how == "other session" else server.session_id
        packet = server.seal(body(server, move) or bytes(4), msg_id=msg_id, seq_no=seq_no)
        server.session_id = ours
        for _ in range(2 if how == "twice" else 1):
            if not server.closed:
                session.packet_received(packet)


def bounded(session: MtprotoSession, server: Server, before: int, said: int) -> None:
    """Nothing that the server says makes the session hold, or say, more than so much."""
    assert len(session._seen) <= SEEN_MSG_IDS
    assert session.unanswered <= QUERIES
    assert len(server.asked) - before <= 4 * said + 32


def query() -> Any:
    from pyrogram import raw

    return raw.functions.help.GetConfig()


@given(PACKETS)
@QUICK
def test_whatever_a_server_says_every_caller_hears(packets: list[Any]) -> None:
    """On a link that is up: an answer, an error, or that the session is gone; once, and none waits for ever."""

    async def run() -> None:
        owner, server = Owner(), Server()
        session = new_session(owner, LATER)
        await greeted(session, server)
        calls = [asyncio.create_task(session.send(query())) for _ in range(QUERIES)]
        await asyncio.sleep(0)
        before = len(server.asked)
        say(session, server, packets)
        bounded(session, server, before, 101 * 2 * len(packets))
        assert len(owner.lost) <= 1
        assert bool(owner.lost) == server.closed
        for evidence in owner.lost:
            assert evidence.message
            assert evidence.source.value == "protocol"
        session.close()
        session.give_up()
        for end in await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 1):
            assert not isinstance(end, BaseException) or isinstance(end, RpcFailed | SessionGone | LinkFailed)
        assert session.unanswered == 0

    asyncio.run(run())


@given(PACKETS, st.integers(0, 3))
@SLOW
def test_whatever_a_server_says_an_attempt_ends(packets: list[Any], honest: int) -> None:
    """In the greeting, after so many honest answers: the link is up in time, or the attempt fails and says why."""

    async def run() -> None:
        owner, server = Owner(), Server()
        session = new_session(owner, SOON)
        wire: Any = server
        opening = asyncio.create_task(session.open(wire, ROUTE, CREDENTIALS))
        for n in range(honest):
            await asyncio.sleep(0)
            for asked in server.asked[n : n + 1]:
                answer = server.answers(asked)
                if answer is not None and not server.closed:
                    session.packet_received(server.seal(answer))
        await asyncio.sleep(0)
        before = len(server.asked)
        say(session, server, packets)
        bounded(session, server, before, 101 * 2 * len(packets))
        done, _ = await asyncio.wait({opening}, timeout=2)
        assert done, "the attempt hangs"
        if (error := opening.exception()) is not None:
            assert isinstance(error, LinkFailed)
            assert error.evidence.message
            assert server.closed
        session.close()
        session.give_up()
        assert session.unanswered == 0

    asyncio.run(run())


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_a_message_or_a_bad_packet(data: bytes, whole: bool) -> None:
    """As a packet they are none of the server's; sealed by it they are read, or not: nothing else is raised."""

    async def run() -> None:
        opener, server = Crypt(), Server()
        server.session_id = bytes(8)
        packet = server.seal(data + bytes(-len(data) % 4)) if whole else data
        try:
            session_id, messages = opener.open(packet, KEY, KEY_ID)
        except BadPacket:
            return  # any other exception fails the test
        assert whole
        assert session_id == bytes(8)
        assert all(isinstance(message.msg_id, int) for message in messages)

    asyncio.run(run())
