"""What a session makes of packets: nothing that is not the server's, nothing without bounds, message by message."""

from __future__ import annotations

import gzip
import os
import re
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from supervisor.telegram.packets import MAX_MESSAGES, MAX_UNPACKED, BadPacket, Crypt, Unreadable
from tests.unit.telegram.sealed import (
    GZIP,
    KEY,
    KEY_ID,
    RESULT,
    VECTOR,
    Server,
    container,
    inner,
    tl_bytes,
)

UNKNOWN = bytes.fromhex("efbeadde")


@pytest.fixture(scope="module")
def opener() -> Crypt:
    return Crypt()


@pytest.fixture
def server() -> Server:
    server = Server()
    server.session_id = bytes(8)
    return server


@contextmanager
def at_most(mebibytes: float, seconds: float) -> Iterator[None]:
    """Hold the body to so much memory at its peak, and so much CPU time."""
    tracemalloc.start()
    begun = time.process_time()
    try:
        yield
        took = time.process_time() - begun
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= mebibytes * 1024 * 1024
    assert took <= seconds


def bodies(opener: Crypt, packet: bytes) -> list[Any]:
    return [message.body for message in opener.open(packet, KEY, KEY_ID)[1]]


def why(opener: Crypt, server: Server, body: bytes) -> str:
    """Why the one object in this message cannot be read."""
    (found,) = bodies(opener, server.seal(body))
    assert isinstance(found, Unreadable)
    return found.why


def packed(data: bytes) -> bytes:
    return GZIP + tl_bytes(data)


def state(pts: int = 1) -> bytes:
    from pyrogram import raw

    return bytes(raw.types.updates.State(pts=pts, qts=1, date=1, seq=1, unread_count=0).write())


def test_an_honest_packet_is_read(opener: Crypt, server: Server) -> None:
    """A message, a container, what is packed, and a packed container: all the same objects in the same order."""
    one = inner(5, 1, state(7))
    two = inner(9, 3, RESULT + struct.pack("<q", 44) + packed(gzip.compress(state(8))))
    both = container(one, two)
    for body in (both, packed(gzip.compress(both))):
        first, second = opener.open(server.seal(body), KEY, KEY_ID)[1]
        assert (first.msg_id, first.seq_no, first.body.pts) == (5, 1, 7)
        assert (second.msg_id, second.seq_no, second.body.req_msg_id, second.body.result.pts) == (9, 3, 44, 8)
    assert [body.pts for body in bodies(opener, server.seal(state(3)))] == [3]
    session_id, _ = opener.open(server.seal(state()), KEY, KEY_ID)
    assert session_id == server.session_id


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda packet: os.urandom(8) + packet[8:], "another key"),
        (lambda packet: packet[:8] + os.urandom(16) + packet[24:], "msg_key"),
        (lambda packet: packet[:-1] + bytes((packet[-1] ^ 1,)), "msg_key"),
        (lambda packet: packet[:-4], "encrypted bytes"),
        (lambda packet: packet[:24], "encrypted bytes"),
        (lambda packet: packet[:8], "encrypted bytes"),
        (lambda _: b"", "another key"),
    ],
)
def test_what_is_not_the_servers_is_not_read(
    opener: Crypt, server: Server, spoil: Callable[[bytes], bytes], says: str
) -> None:
    """A packet under another key, changed or cut is refused before anything in it is believed."""
    with pytest.raises(BadPacket, match=says):
        opener.open(spoil(server.seal(state())), KEY, KEY_ID)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (struct.pack("<qii", 1, 1, 64) + state(), "a message of 64 bytes"),
        (struct.pack("<qii", 1, 1, -4) + state(), "a message of -4 bytes"),
        (struct.pack("<qii", 1, 1, 0) + bytes(2048), "a message of 0 bytes"),
        (struct.pack("<qii", 1, 1, 22) + state(), "a message of 22 bytes"),
        (inner(4, 1, state()), "a client's msg_id"),
    ],
)
def test_a_wrong_length_or_number_is_refused(
    opener: Crypt, server: Server, message: bytes, says: str
) -> None:
    """Length, padding and parity are checked as Telegram's security guidelines say."""
    with pytest.raises(BadPacket, match=says):
        opener.open(server.sealed(message), KEY, KEY_ID)


def test_one_unknown_object_spoils_only_itself(opener: Crypt, server: Server) -> None:
    """The messages beside it are read; of an answer it is still known whose it is."""
    packet = container(
        inner(1, 1, UNKNOWN), inner(5, 3, state(7)), inner(9, 5, RESULT + struct.pack("<q", 44) + UNKNOWN)
    )
    unknown, good, answer = bodies(opener, server.seal(packet))
    assert unknown == Unreadable("unknown constructor 0xdeadbeef")
    assert good.pts == 7
    assert (answer.req_msg_id, answer.result) == (44, Unreadable("unknown constructor 0xdeadbeef"))


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """512 MiB in half a mebibyte."""
    squeezer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(512)) + squeezer.flush()


def test_a_gzip_bomb_is_not_unpacked(opener: Crypt, server: Server, bomb: bytes) -> None:
    """As a message, as an answer, or inside an object: it takes neither memory nor time."""
    from pyrogram import raw

    message = raw.types.UpdateShortMessage(id=1, user_id=1, message="", pts=1, pts_count=1, date=1).write()
    media = bytes(raw.types.Updates(updates=[], users=[], chats=[], date=1, seq=1).write())
    hidden = media[:8] + struct.pack("<I", 1) + packed(bomb)  # the only one of its updates
    for body in (packed(bomb), hidden):
        with at_most(80, 2.0):
            assert "gzip_packed" in why(opener, server, body)
    with at_most(80, 2.0):
        (answer,) = bodies(opener, server.seal(RESULT + bytes(8) + packed(bomb)))
    assert "gzip_packed" in answer.result.why
    assert bodies(opener, server.seal(bytes(message)))[0].pts == 1


def test_many_small_bombs_share_one_bound(opener: Crypt, server: Server) -> None:
    """What the messages of one packet unpack to is bounded together."""
    half = packed(gzip.compress(state() + bytes(MAX_UNPACKED // 2)))
    with at_most(80, 2.0):
        found = bodies(opener, server.seal(container(*(inner(4 * n + 1, 1, half) for n in range(200)))))
    assert sum(not isinstance(body, Unreadable) for body in found) == 1
    assert len(found) == 200


def test_gzip_in_gzip_comes_to_an_end(opener: Crypt, server: Server) -> None:
    """However often something is packed."""
    body = state()
    for _ in range(50):
        body = packed(gzip.compress(body))
    (found,) = bodies(opener, server.seal(body))
    assert found.pts == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (packed(b"no gzip"), "gzip_packed: "),
        (packed(gzip.compress(state(), mtime=0)[:-10]), "ends early"),
        (GZIP + b"\xfe\xff\xff\xff" + bytes(8), "ends early"),
        (GZIP, "KeyError|unknown|ends early|gzip"),
        (UNKNOWN[:2] + b"\0\0", "unknown constructor"),
        (state()[:12], "it ends early"),
        (container(inner(1, 1, container(inner(5, 1, state())))), "a container in a container"),
        (container(inner(1, 1, state()))[:-4], "a container that ends early"),
        (container() + b"", "nothing"),
        (VECTOR + struct.pack("<i", 2**31 - 1) + bytes(64), "it ends early|unknown"),
        (struct.pack("<II", 0x73F1F8DC, MAX_MESSAGES + 1), "too many messages"),
    ],
)
def test_what_cannot_be_read_is_told(opener: Crypt, server: Server, body: bytes, says: str) -> None:
    """Each says what is wrong with it."""
    if says == "nothing":
        assert bodies(opener, server.seal(body)) == []
        return
    assert re.search(says, why(opener, server, body))


def test_a_count_without_its_items_takes_no_time(opener: Crypt, server: Server) -> None:
    """A vector that promises two thousand million numbers and has three is given up at the fourth."""
    from pyrogram import raw

    ack = struct.pack("<I", raw.types.MsgsAck.ID) + VECTOR + struct.pack("<i", 2**31 - 1) + bytes(24)
    with at_most(8, 0.5):
        assert why(opener, server, ack) == "it ends early"


def test_many_vectors_are_read_in_one_go(opener: Crypt, server: Server) -> None:
    """An object of ten thousand small vectors is read in time that grows with its size, not its square."""
    from pyrogram import raw

    states = [raw.types.MsgsAck(msg_ids=[n]) for n in range(10_000)]
    body = VECTOR + struct.pack("<i", len(states)) + b"".join(bytes(each.write()) for each in states)
    with at_most(80, 2.0):
        (found,) = bodies(opener, server.seal(body))
    assert len(found) == 10_000


def test_depth_has_an_end(opener: Crypt, server: Server) -> None:
    """Objects that hold objects, a hundred thousand deep, are given up, not followed into a crash."""
    from pyrogram import raw

    deep = struct.pack("<I", raw.types.TextBold.ID) * 100_000
    assert "RecursionError" in why(opener, server, deep)


def test_a_number_may_look_like_a_constructor(opener: Crypt, server: Server) -> None:
    """An integer that happens to be gzip_packed's number is an integer."""
    (found,) = bodies(opener, server.seal(state(0x3072CFA1)))
    assert found.pts == 0x3072CFA1
