"""Files up and down over real sockets: whole, or an error; over the account's one connection."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from supervisor.datacenter import Cluster
from supervisor.datacenter.faults import FaultKind
from supervisor.datacenter.library import raw
from supervisor.datacenter.methods import METHODS
from supervisor.errors import AccountUnavailable
from supervisor.telegram.media import IN_FLIGHT, PART, TransferFailed
from tests.integration.conftest import PERSON, until
from tests.integration.transfers import (
    ELSEWHERE,
    HERE,
    MIB,
    Home,
    after,
    at_work,
    check_connections,
    content_of,
    folder,
    media_of,
    only_file,
    set_up,
)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """A client that is online, and its datacenter."""
    async with Cluster(HERE, ELSEWHERE) as cluster:
        async with set_up(cluster, tmp_path).online() as running:
            yield running
        check_connections(cluster)


# --- up and down ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, PART, MIB, 12 * MIB + 5])
async def test_a_file_goes_up_and_comes_down_byte_for_byte(home: Home, size: int) -> None:
    """Small and big files; from memory and from the disk; into memory and onto the disk."""
    client, dc = home
    content, file = content_of(size)
    Path("up.bin").write_bytes(content)
    for source in (file, "up.bin"):
        message = await client.send_document(PERSON, source)
        path = await client.download_media(message, file_name=f"{Path.cwd()}/downloads/")
        assert Path(path).read_bytes() == content
        memory = await client.download_media(message, in_memory=True)
        assert memory.getvalue() == content
        assert memory.name == message.document.file_name
    assert [stored.content for stored in dc.engine.files.files.values()] == [content, content]
    assert folder() == ["some.bin", "up.bin"]


@pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER])
async def test_an_upload_goes_on_after_a_reset(home: Home, kind: FaultKind) -> None:
    """The connection is reset with parts under way, twice: the file arrives whole, in one message, no part done twice."""
    client, dc = home
    content, file = content_of(12 * MIB)
    after(dc, kind, "upload.SaveBigFilePart", 5)
    after(dc, kind, "upload.SaveBigFilePart", 14)
    await client.send_document(PERSON, file)
    assert only_file(dc).content == content
    assert only_file(dc).saves == dict.fromkeys(range(24), 1)
    assert dc.seen.faults[kind] == 2
    assert dc.seen.count("messages.SendMedia") == 1


async def go_away(home: Home) -> None:
    """The server refuses connections, and is back a little later."""
    await home.here.go_away()


async def swallow(home: Home) -> None:
    """What is sent vanishes, and the connection stays: found out by its silence."""
    home.here.silent(swallow=True)


@pytest.mark.parametrize("lose", [go_away, swallow])
async def test_transfers_go_on_when_the_link_comes_back(home: Home, lose: Callable[[Home], Any]) -> None:
    """Lost in the middle of an upload, and of a download: each goes on with the part where it was."""
    client, dc = home
    content, file = content_of(12 * MIB)
    at = 4 * MIB

    async def progress(current: int, _total: int) -> None:
        nonlocal at
        if current >= at:
            at = 100 * MIB
            await lose(home)
            coming.append(asyncio.create_task(come_back()))

    async def come_back() -> None:
        await asyncio.sleep(0.3)
        dc.speak()
        await dc.come_back()

    coming: list[asyncio.Task[None]] = []
    message = await client.send_document(PERSON, file, progress=progress)
    assert only_file(dc).content == content
    assert only_file(dc).saves == dict.fromkeys(range(24), 1)
    at = 4 * MIB
    memory = await client.download_media(message, in_memory=True, progress=progress)
    assert memory.getvalue() == content
    assert dc.seen.count("upload.GetFile") == 12
    await asyncio.gather(*coming)
    rows = await home.fleet.rows()
    assert {row["outcome"] for row in rows} == {"retrying", "recovered"}


@pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER])
async def test_a_download_goes_on_after_a_reset(home: Home, kind: FaultKind) -> None:
    """The connection is reset in the middle: every byte comes, once and in order, and no piece is read twice."""
    client, dc = home
    content, file = content_of(5 * MIB + 1)
    message = await client.send_document(PERSON, file)
    after(dc, kind, "upload.GetFile", 2)
    memory = await client.download_media(message, in_memory=True)
    assert memory.getvalue() == content
    assert dc.seen.faults[kind] == 1
    assert dc.seen.count("upload.GetFile") == 6


async def test_transfers_go_on_when_the_mtproto_session_is_lost(home: Home) -> None:
    """The server forgets the session with its answers: only what was under way is asked for again."""
    client, dc = home
    content, file = content_of(12 * MIB)
    told: list[int] = []

    async def progress(current: int, _total: int) -> None:
        told.append(current)
        if len(told) % 8 == 0:
            dc.forget_sessions()
            dc.reset_links()

    message = await client.send_document(PERSON, file, progress=progress)
    memory = await client.download_media(message, in_memory=True, progress=progress)
    assert memory.getvalue() == content
    assert set(only_file(dc).saves) == set(range(24))
    assert only_file(dc).saves.total() <= 24 + 3 * IN_FLIGHT  # lost three times


async def test_a_flood_wait_in_the_middle_is_waited_out(home: Home) -> None:
    """FLOOD_WAIT between two parts, FLOOD_PREMIUM_WAIT between two pieces: nothing leaves early, nothing is done twice."""
    client, dc = home
    content, file = content_of(12 * MIB)
    after(dc, FaultKind.RPC_ERROR, "upload.SaveBigFilePart", 5, code=420, error="FLOOD_WAIT_1")
    message = await client.send_document(PERSON, file)
    after(dc, FaultKind.RPC_ERROR, "upload.GetFile", 5, code=420, error="FLOOD_PREMIUM_WAIT_1")
    memory = await client.download_media(message, in_memory=True)
    assert memory.getvalue() == content
    assert dc.seen.early_calls == []
    assert only_file(dc).saves == dict.fromkeys(range(24), 1)
    rows = await home.fleet.rows()
    assert {(row["kind"], row["error_id"]) for row in rows} == {
        ("flood_wait", "FLOOD_WAIT_X"),
        ("flood_wait", "FLOOD_PREMIUM_WAIT_X"),
    }
    assert rows[-1]["outcome"] == "recovered"
    assert home.fleet.state() == "online"


class Watched(BytesIO):
    """A file that knows how far it was read beyond what was answered for."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.done = self.ahead = 0

    def read(self, size: int | None = -1, /) -> bytes:
        got = super().read(size)
        self.ahead = max(self.ahead, self.tell() - self.done)
        return got

    async def progress(self, current: int, _total: int) -> None:
        """What has been answered for."""
        self.done = current


async def test_a_big_file_keeps_neither_memory_nor_the_accounts_messages(home: Home) -> None:
    """24 MiB go up through three resets: a few parts are in memory at a time, and messages sent beside it are quick."""
    client, dc = home
    dc.latency = 0.02
    content = os.urandom(24 * MIB)
    file = Watched(content)
    file.name = "big.bin"
    for skip in (10, 22, 34):
        after(dc, FaultKind.DROP_BEFORE, "upload.SaveBigFilePart", skip)
    upload = asyncio.create_task(client.send_document(PERSON, file, progress=file.progress))
    took: list[float] = []
    while not upload.done():
        begun = time.monotonic()
        await client.send_message(PERSON, f"m-{len(took)}")
        took.append(time.monotonic() - begun)
        await asyncio.sleep(0.05)
    message = await upload
    assert only_file(dc).content == content
    assert only_file(dc).saves == dict.fromkeys(range(48), 1)
    assert file.ahead <= (IN_FLIGHT + 1) * PART
    assert len(took) >= 5
    assert max(took) <= 1.0, took
    assert dc.seen.faults[FaultKind.DROP_BEFORE] == 3
    path = await client.download_media(message, file_name=f"{Path.cwd()}/downloads/")
    assert Path(path).stat().st_size == len(content)


async def test_a_rejected_part_raises_and_nothing_is_sent(home: Home) -> None:
    """Telegram refuses one part: its error is raised, not an InputFile returned; the next upload works."""
    from pyrogram.errors import FilePartInvalid

    client, dc = home
    after(dc, FaultKind.RPC_ERROR, "upload.SaveBigFilePart", 7, code=400, error="FILE_PART_INVALID")
    with pytest.raises(FilePartInvalid):
        await client.send_document(PERSON, content_of(12 * MIB)[1])
    assert dc.seen.count("messages.SendMedia") == 0
    (row,) = await home.fleet.rows()
    assert (row["error_id"], row["method"], row["outcome"], row["scope"]) == (
        "FILE_PART_INVALID", "upload.SaveBigFilePart", "raised", "call",
    )  # fmt: skip
    await client.send_document(PERSON, content_of(PART)[1])
    assert dc.seen.count("messages.SendMedia") == 1


async def test_an_account_that_is_taken_offline_fails_its_transfers(home: Home) -> None:
    """Paused in the middle: an error that says so, no message, no file; online again, both go through."""
    client, dc = home
    content, file = content_of(12 * MIB)
    where = f"{Path.cwd()}/downloads/"
    near = dc.add_file(content)

    async def progress(current: int, _total: int) -> None:
        if current >= 2 * MIB:
            await home.fleet.sup.pause(["bot-0"])

    works: list[Callable[[], Any]] = [
        lambda: client.send_document(PERSON, file, progress=progress),
        lambda: client.download_media(media_of(near), file_name=where, progress=progress),
    ]
    for work in works:
        with pytest.raises(AccountUnavailable, match="paused"):
            await work()
        await home.fleet.sup.resume(["bot-0"])
        await until(lambda: home.fleet.state() == "online")
    assert dc.seen.count("messages.SendMedia") == 0
    assert folder() == []
    await client.send_document(PERSON, file)
    assert Path(await client.download_media(media_of(near), file_name=where)).read_bytes() == content


async def test_a_part_turned_down_without_an_error_raises(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boolFalse is no success."""
    client, _ = home
    monkeypatch.setitem(METHODS, "upload.SaveFilePart", lambda call: call.query.file_part == 0)
    with pytest.raises(TransferFailed, match=r"part [12] of 3: False"):
        await client.save_file(content_of(3 * PART)[1])


async def test_a_missing_part_is_sent_alone(home: Home) -> None:
    """FILE_PART_X_MISSING: the library calls save_file for that part, which gives None, and sends again."""
    client, dc = home
    content, file = content_of(3 * PART + 1)
    lost: list[int] = []

    async def progress(current: int, total: int) -> None:
        if current == total and not lost:
            (upload,) = dc.engine.files.uploads.values()
            lost.append(len(upload.parts.pop(1)))

    await client.send_document(PERSON, file, progress=progress)
    assert lost == [PART]
    assert only_file(dc).content == content
    assert dc.seen.count("upload.SaveFilePart") == 5
    assert await client.save_file(file, file_id=5, file_part=3) is None


async def test_a_file_that_shrinks_on_its_way_up_raises(home: Home) -> None:
    """A log that is truncated meanwhile is not sent as something else."""
    client, dc = home
    path = Path("up.log")
    path.write_bytes(bytes(12 * MIB))

    async def progress(current: int, _total: int) -> None:
        if current == PART:
            os.truncate(path, 6 * MIB)

    with pytest.raises(TransferFailed, match=f"the file shrank while it was uploaded: {6 * MIB} bytes of"):
        await client.send_document(PERSON, path.name, progress=progress)
    assert dc.seen.count("messages.SendMedia") == 0


async def test_progress_is_told_of_every_part_and_ends_with_the_whole(home: Home) -> None:
    """A function and a coroutine function, up and down, with arguments: growing, to the size."""
    client, _ = home
    size = 11 * MIB + 3
    file = content_of(size)[1]
    told: list[tuple[int, int, str]] = []

    async def later(current: int, total: int, tag: str) -> None:
        told.append((current, total, tag))

    def at_once(current: int, total: int, tag: str) -> None:
        told.append((current, total, tag))

    for progress in (later, at_once):
        told.clear()
        message = await client.send_document(PERSON, file, progress=progress, progress_args=("up",))
        assert told == [(min(n * PART, size), size, "up") for n in range(1, 24)]
        told.clear()
        await client.download_media(message, in_memory=True, progress=progress, progress_args=("down",))
        assert told == [(min(n * MIB, size), size, "down") for n in range(1, 13)]


async def test_stop_transmission_ends_a_transfer_with_none(home: Home) -> None:
    """As the libraries have it: no error, no message, no file."""
    client, dc = home
    message = await client.send_document(PERSON, content_of(3 * MIB)[1])

    def stop(current: int, _total: int) -> None:
        if current >= MIB:
            client.stop_transmission()

    assert await client.send_document(PERSON, content_of(12 * MIB)[1], progress=stop) is None
    assert dc.seen.count("messages.SendMedia") == 1
    where = f"{Path.cwd()}/downloads/"
    assert await client.download_media(message, file_name=where, progress=stop) is None
    assert folder() == []
    assert dc.seen.count("upload.GetFile") == 1


async def test_a_cancelled_transfer_leaves_nothing(home: Home) -> None:
    """Cancelled with parts under way, up and down: no task, no file, and the next transfer runs."""
    client, _ = home
    content, file = content_of(12 * MIB)
    message = await client.send_document(PERSON, file)
    before = at_work()
    where = f"{Path.cwd()}/downloads/"
    works: list[Callable[[Any], Any]] = [
        lambda tell: client.send_document(PERSON, file, progress=tell),
        lambda tell: client.download_media(message, file_name=where, progress=tell),
    ]
    for work in works:
        begun = asyncio.Event()

        async def tell(_current: int, _total: int, begun: asyncio.Event = begun) -> None:
            begun.set()

        task = asyncio.create_task(work(tell))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: at_work() == before, what="tasks that stay")
    assert folder() == []
    assert client.upload_window.size >= 1
    await client.send_document(PERSON, file)
    path = await client.download_media(message, file_name=where)
    assert Path(path).read_bytes() == content


# --- a broken download is no download ---------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [False, True])
async def test_an_error_in_the_middle_of_a_download_raises(home: Home, in_memory: bool) -> None:
    """FILE_REFERENCE_EXPIRED after 2 of 5 MiB reaches the caller, who can fetch the message anew; no file is left."""
    from pyrogram.errors import FileReferenceExpired

    client, dc = home
    content, file = content_of(5 * MIB)
    message = await client.send_document(PERSON, file)
    after(dc, FaultKind.RPC_ERROR, "upload.GetFile", 2, code=400, error="FILE_REFERENCE_EXPIRED")
    where = f"{Path.cwd()}/downloads/"
    with pytest.raises(FileReferenceExpired):
        await client.download_media(message, file_name=where, in_memory=in_memory)
    assert folder() == []
    memory = await client.download_media(message, in_memory=True)
    assert memory.getvalue() == content


@pytest.mark.parametrize("kept", [0, 3 * MIB, 3 * MIB + 5])
async def test_a_short_download_raises(home: Home, kept: int) -> None:
    """The file ends before the size that its message tells."""
    client, dc = home
    message = await client.send_document(PERSON, content_of(5 * MIB)[1])
    only_file(dc).content = only_file(dc).content[:kept]
    with pytest.raises(TransferFailed, match=f"the file ended after {kept} bytes of {5 * MIB}"):
        await client.download_media(message, file_name=f"{Path.cwd()}/downloads/")
    assert folder() == []


async def test_a_full_disk_raises_and_leaves_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk says reaches the caller; the semaphore is free at once, even while the error is handled."""
    client, _ = home
    message = await client.send_document(PERSON, content_of(3 * MIB)[1])
    where = f"{Path.cwd()}/downloads/"
    with monkeypatch.context() as patched:
        patched.setattr("supervisor.telegram.media._finish", lambda *_: os.open("/nowhere", 0))
        with pytest.raises(FileNotFoundError):
            await client.download_media(message, file_name=where)
    assert folder() == []
    Path("downloads").rmdir()
    Path("downloads").write_text("a file")
    try:
        await client.download_media(message, file_name=where)
    except OSError:
        async with asyncio.timeout(5):
            assert await client.download_media(message, in_memory=True)
    else:
        pytest.fail("written into a file that is no folder")


async def test_a_sender_cannot_choose_the_folder(home: Home) -> None:
    """A document called ../../evil lands in the download folder."""
    client, _ = home
    file = content_of(10)[1]
    message = await client.send_document(PERSON, file)
    message.document.file_name = "../../evil"
    path = await client.download_media(message, file_name=f"{Path.cwd()}/downloads/")
    assert Path(path) == Path.cwd() / "downloads" / "evil"


async def test_streams_take_an_offset_and_a_limit(home: Home) -> None:
    """stream_media's chunks of 1 MiB; a negative offset counts from the end."""
    client, _ = home
    content, file = content_of(4 * MIB + 7)
    message = await client.send_document(PERSON, file)

    async def stream(**what: int) -> bytes:
        return b"".join([chunk async for chunk in client.stream_media(message, **what)])

    assert await stream() == content
    assert await stream(offset=1, limit=2) == content[MIB : 3 * MIB]
    assert await stream(offset=-1) == content[4 * MIB :]
    assert await stream(offset=4, limit=3) == content[4 * MIB :]


async def test_a_cdn_redirect_raises(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not asked for and is not followed; it does not look like an empty file either."""
    client, _ = home
    message = await client.send_document(PERSON, content_of(10)[1])
    redirect = lambda _call: raw.types.upload.FileCdnRedirect(  # noqa: E731
        dc_id=203, file_token=b"t", encryption_key=bytes(32), encryption_iv=bytes(16), file_hashes=[]
    )
    monkeypatch.setitem(METHODS, "upload.GetFile", redirect)
    with pytest.raises(TransferFailed, match="datacenter 2 answered FileCdnRedirect"):
        await client.download_media(message, in_memory=True)
