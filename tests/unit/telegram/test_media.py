"""Files up and down, with a session that answers as a test says."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.ports import LinkFailed
from supervisor.telegram import foreign, media
from supervisor.telegram.foreign import ForeignLinks, Ways
from supervisor.telegram.media import IN_FLIGHT, MIB, PART, Window
from supervisor.telegram.session import Timings


class Session:
    """Answers every query with what `answer` gives, when `gate` is open."""

    def __init__(self, answer: Callable[[Any], Any] = lambda _query: True) -> None:
        self.answer = answer
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[Any] = []

    async def invoke(self, query: Any) -> Any:
        self.asked.append(query)
        await self.gate.wait()
        return self.answer(query)


def client_with(session: Session, *, premium: bool | None = None) -> Any:
    """As much of a client as a transfer needs."""

    async def dc_id() -> int:
        return 2

    return SimpleNamespace(
        name="bot",
        me=None if premium is None else SimpleNamespace(is_premium=premium),
        session=session,
        storage=SimpleNamespace(dc_id=dc_id),
        save_file_semaphore=asyncio.Semaphore(1),
        upload_window=Window(),
        rnd_id=lambda: 7,
        business_connections={},
    )


class Odd(io.RawIOBase):
    """A file that reads a few bytes at a time, and remembers in which threads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.at = 0
        self.reads = 0
        self.threads: set[int] = set()

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = self.size if whence == io.SEEK_END else offset
        return self.at

    def read(self, size: int = -1) -> bytes:
        self.threads.add(threading.get_ident())
        self.reads += 1
        got = bytes(min(size, self.size - self.at, 300_000))
        self.at += len(got)
        return got


# --- the window --------------------------------------------------------------------------------------------------


async def parts(window: Window, took: float, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """So many parts, one after another, each of which seems to take so long."""
    times = iter(x for n in range(count) for x in (n * 100.0, n * 100.0 + took))
    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "time", lambda: next(times))
        for _ in range(count):
            async with window.turn():
                pass


async def test_the_window_opens_while_answers_are_fast_and_closes_while_they_are_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One part at first, one more for each fast answer up to four; one fewer for each slow one, never none."""
    window = Window()
    sizes = [window.size]
    for took, count in ((0.4, 2), (0.4, 5), (0.8, 3), (1.2, 1), (1.2, 6), (0.1, 1)):
        await parts(window, took, monkeypatch, count)
        sizes.append(window.size)
    assert sizes == [1, 3, IN_FLIGHT, IN_FLIGHT, 3, 1, 2]
    assert window._turns._value == window.size


async def test_the_window_keeps_its_turns_whatever_becomes_of_the_parts() -> None:
    """A part that fails, one that is cancelled, one that is cancelled while it waits."""
    window = Window()

    async def hold(ending: asyncio.Event) -> None:
        async with window.turn():
            await ending.wait()

    with pytest.raises(ZeroDivisionError):
        async with window.turn():
            raise ZeroDivisionError
    tasks = [asyncio.create_task(hold(asyncio.Event())) for _ in range(3)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (window.size, window._turns._value) == (1, 1)


# --- up ----------------------------------------------------------------------------------------------------------


async def test_a_file_is_read_in_threads_and_no_further_than_four_parts_ahead() -> None:
    """While nothing is answered only one part leaves and at most four are in memory; short reads are completed."""
    session = Session()
    session.gate.clear()
    client, file = client_with(session), Odd(12 * MIB + 1)
    work = asyncio.create_task(media.save_file(client, file))
    async with asyncio.timeout(10):
        while file.at < IN_FLIGHT * PART:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert (len(session.asked), file.at) == (1, IN_FLIGHT * PART)
    session.gate.set()
    made = await work
    assert (made.parts, made.name) == (25, "file.jpg")
    assert sorted(query.file_part for query in session.asked) == list(range(25))
    assert {len(query.bytes) for query in session.asked} == {PART, 1}
    assert threading.get_ident() not in file.threads


async def test_a_small_file_is_checked_by_md5_and_a_name_has_no_folders() -> None:
    """What InputFile says of a file object with a path for a name."""
    file = io.BytesIO(b"hello")
    file.name = "/home/ann/report.pdf"
    made = await media.save_file(client_with(Session()), file)
    assert made.md5_checksum == "5d41402abc4b2a76b9719d911017c592"
    assert (made.name, made.parts) == ("report.pdf", 1)
    assert not file.closed


@pytest.mark.parametrize(
    ("size", "premium", "message"),
    [
        (0, False, "File size equals to 0 B"),
        (2000 * MIB + 1, None, "Can't upload files bigger than 2000 MiB"),
        (2000 * MIB + 1, False, "Can't upload files bigger than 2000 MiB"),
        (4000 * MIB + 1, True, "Can't upload files bigger than 4000 MiB"),
    ],
)
async def test_files_that_cannot_be_sent_are_refused_before_anything_is(
    size: int, premium: bool | None, message: str
) -> None:
    """Nothing in it, or more than the account may send: the libraries' words."""
    session = Session()
    with pytest.raises(ValueError, match=message):
        await media.save_file(client_with(session, premium=premium), Odd(size))
    assert session.asked == []


async def test_what_is_no_file_is_refused() -> None:
    """None is no upload; bytes are no file; a path that is not there says so; the semaphore is free afterwards."""
    client = client_with(Session())
    assert await media.save_file(client, None) is None
    with pytest.raises(ValueError, match="Invalid file"):
        await media.save_file(client, b"bytes")
    with pytest.raises(FileNotFoundError):
        await media.save_file(client, "nothing.bin")
    assert not client.save_file_semaphore.locked()


async def test_the_first_failure_ends_an_upload_and_is_raised_as_itself() -> None:
    """No group of exceptions, no further part."""

    def answer(query: Any) -> bool:
        if query.file_part == 3:
            raise ZeroDivisionError("three")
        return True

    session = Session(answer)
    with pytest.raises(ZeroDivisionError, match="three") as failed:
        await media.save_file(client_with(session), io.BytesIO(bytes(20 * PART)))
    assert failed.value.__context__ is None
    assert len(session.asked) <= 3 + IN_FLIGHT


# --- down --------------------------------------------------------------------------------------------------------


def file_id(kind: str, **fields: Any) -> Any:
    """A decoded file id, as far as a location needs one."""
    from pyrogram.file_id import FileType

    known = {"media_id": 1, "access_hash": 2, "file_reference": b"r", "thumbnail_size": "x"}
    return SimpleNamespace(file_type=FileType[kind], dc_id=2, **known, **fields)


async def test_every_kind_of_file_has_its_location() -> None:
    """Documents, photos, and chat photos by the peer that they belong to."""
    from pyrogram import raw
    from pyrogram.file_id import ThumbnailSource

    types = raw.types
    made = media._location(file_id("DOCUMENT"))
    assert made == types.InputDocumentFileLocation(id=1, access_hash=2, file_reference=b"r", thumb_size="x")
    made = media._location(file_id("PHOTO"))
    assert made == types.InputPhotoFileLocation(id=1, access_hash=2, file_reference=b"r", thumb_size="x")
    for chat_id, access_hash, source, peer in (
        (5, 6, "CHAT_PHOTO_BIG", types.InputPeerUser(user_id=5, access_hash=6)),
        (-5, 0, "CHAT_PHOTO_SMALL", types.InputPeerChat(chat_id=5)),
        (-1000000000123, 6, "CHAT_PHOTO_SMALL", types.InputPeerChannel(channel_id=123, access_hash=6)),
    ):
        made = media._location(
            file_id(
                "CHAT_PHOTO",
                chat_id=chat_id,
                chat_access_hash=access_hash,
                thumbnail_source=ThumbnailSource[source],
            )
        )
        big = source == "CHAT_PHOTO_BIG"
        assert made == types.InputPeerPhotoFileLocation(peer=peer, photo_id=1, big=big)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a.txt", "a.txt"),
        ("../../evil", "evil"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\evil", "evil"),
        ("..", "file"),
        ("x/", "file"),
    ],
)
def test_a_name_never_leaves_its_folder(name: str, target: str) -> None:
    """Folders in a sender's file name are dropped."""
    assert str(media._target("/down/here/../loads", name)) == f"/down/loads/{target}"


# --- other datacenters -----------------------------------------------------------------------------------------------


async def _at_once(_path: str) -> None:
    """No turn is waited for."""


def links(home: Session) -> ForeignLinks:
    """Foreign links whose home answers with a configuration."""
    return ForeignLinks(
        Ways(
            "bot", home.invoke, lambda: ("direct", None), _at_once, lambda *_: None, list, 1, Timings(), None
        )
    )


async def test_addresses_are_those_that_we_can_use_media_servers_first() -> None:
    """No IPv6, no CDN, none that demands obfuscation; a media server is for media alone."""
    from pyrogram import raw

    option = raw.types.DcOption
    options = [
        option(id=4, ip_address="1.1.1.1", port=1),
        option(id=4, ip_address="2.2.2.2", port=2, media_only=True),
        option(id=5, ip_address="3.3.3.3", port=3),
        option(id=4, ip_address="::4", port=4, ipv6=True),
        option(id=4, ip_address="5.5.5.5", port=5, cdn=True),
        option(id=4, ip_address="6.6.6.6", port=6, tcpo_only=True),
    ]
    made = links(Session(lambda _query: SimpleNamespace(dc_options=options)))
    assert await made.addresses(4, media=True) == [("2.2.2.2", 2), ("1.1.1.1", 1)]
    assert await made.addresses(4, media=False) == [("1.1.1.1", 1)]
    with pytest.raises(LinkFailed, match="names no address"):
        await made.addresses(3, media=True)


async def test_a_session_is_the_main_one_for_the_home_datacenter_and_a_foreign_one_else() -> None:
    """As Kurigram's get_session; Pyrogram's inline_session finds the media link under `media_sessions`."""
    business = SimpleNamespace(updates=[SimpleNamespace(connection=SimpleNamespace(dc_id=5))])
    client = client_with(Session(lambda _query: business))
    client.media_sessions = links(client.session)

    async def get(*args: Any, **options: Any) -> Any:
        return await foreign.get_session(client, *args, **options)

    assert await get() is await get(2) is await get(2, is_media=True) is client.session
    there = await get(4, is_media=True)
    assert there is client.media_sessions.get(4) is client.media_sessions[4] is await get(4, is_media=True)
    assert (there.dc_id, there.is_media, there.is_cdn, there.auth_key) == (4, True, False, b"")
    other = await get(4)
    assert (other.is_media, other is there) == (False, False)
    with pytest.raises(NotImplementedError, match="CDN"):
        await get(4, is_cdn=True)
    await there.start()
    await there.stop()


async def test_a_business_connections_datacenter_is_asked_for_once() -> None:
    """account.getBotBusinessConnection, which only Kurigram's layer has."""
    from pyrogram import raw

    if not hasattr(raw.functions.account, "GetBotBusinessConnection"):
        pytest.skip("this library's layer knows no business connections")
    business = SimpleNamespace(updates=[SimpleNamespace(connection=SimpleNamespace(dc_id=5))])
    client = client_with(Session(lambda _query: business))
    client.media_sessions = links(client.session)
    for _ in range(2):
        session = await foreign.get_session(client, business_connection_id="x")
        assert (session.dc_id, session.is_media) == (5, False)
    assert len(client.session.asked) == 1
