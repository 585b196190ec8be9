"""The frame parser: whatever the chunks, the same packets."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.telegram.wire import MAX_INCOMING, MAX_OUTGOING, FrameError, Frames, frame

packets = st.lists(
    st.integers(1, 300).flatmap(lambda units: st.binary(min_size=units * 4, max_size=units * 4)), max_size=8
)


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(at % (len(stream) + 1) for at in cuts)})
    return [stream[a:b] for a, b in pairwise(edges)]


@given(packets, st.lists(st.integers(0, 1 << 16), max_size=30))
def test_any_chunking_gives_the_same_packets(sent: list[bytes], cuts: list[int]) -> None:
    """What was framed comes out as it was, in order, each packet with the chunk that completes it."""
    frames = Frames()
    got = [packet for chunk in cut(b"".join(map(frame, sent)), cuts) for packet in frames.feed(chunk)]
    assert got == sent


@given(packets)
def test_byte_by_byte_is_a_chunking_too(sent: list[bytes]) -> None:
    """The head itself may come in four pieces."""
    frames = Frames()
    stream = b"".join(map(frame, sent))
    assert [packet for byte in stream for packet in frames.feed(bytes((byte,)))] == sent


@given(st.binary(max_size=4096), st.lists(st.integers(0, 4096), max_size=10))
def test_rubbish_is_packets_or_a_frame_error(stream: bytes, cuts: list[int]) -> None:
    """No stream raises anything else, or gives an empty or odd packet."""
    frames = Frames()
    try:
        for chunk in cut(stream, cuts):
            for packet in frames.feed(chunk):
                assert packet
                assert len(packet) % 4 == 0
    except FrameError:
        pass


@pytest.mark.parametrize("size", [4, 4 * 0x7E, 4 * 0x7F, 4 * 0x80, 1 << 20, MAX_INCOMING])
def test_each_form_of_the_length(size: int) -> None:
    """One byte up to 126 units, three bytes from 127 on, up to the bound."""
    packet = bytes(size)
    framed = frame(packet)
    assert len(framed) - size == (1 if size < 4 * 0x7F else 4)
    assert list(Frames().feed(framed)) == [packet]


@pytest.mark.parametrize("size", [0, 1, 7, MAX_OUTGOING + 4])
def test_what_cannot_be_framed_is_not_sent(size: int) -> None:
    """Nothing, parts of a unit, and more than three bytes can count."""
    with pytest.raises(ValueError, match=f"{size} bytes"):
        frame(bytes(size))


@pytest.mark.parametrize(
    "head",
    [
        b"\x00",
        b"\x7f\x00\x00\x00",
        b"\x80",
        b"\xef",
        b"\x7f" + ((MAX_INCOMING >> 2) + 1).to_bytes(3, "little"),
    ],
)
def test_a_bad_length_is_found_with_its_head(head: bytes) -> None:
    """Not after 64 MiB have come."""
    frames = Frames()
    with pytest.raises(FrameError):
        for byte in head:
            list(frames.feed(bytes((byte,))))


def test_the_cost_of_a_big_packet_does_not_grow_with_the_number_of_its_chunks_squared() -> None:
    """Four times the chunks take about four times as long, not sixteen."""

    def cost(size: int) -> float:
        chunks = cut(frame(bytes(size)), list(range(0, size, 64)))
        best = 1e9
        for _ in range(3):
            frames, begun = Frames(), time.process_time()
            for chunk in chunks:
                list(frames.feed(chunk))
            best = min(best, time.process_time() - begun)
        return best

    assert cost(1 << 22) < 10 * cost(1 << 20)
