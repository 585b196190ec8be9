"""Files up and down over real sockets: whole, or an error; over the account's one connection, or a foreign one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pproxy
import pytest

from supervisor.core.failure import Evidence
from supervisor.datacenter import Datacenter
from supervisor.datacenter.faults import Fault, FaultKind
from supervisor.datacenter.files import StoredFile
from supervisor.datacenter.library import raw
from supervisor.datacenter.methods import METHODS, WITHOUT_ACCOUNT, RpcError
from supervisor.datacenter.render import render_user
from supervisor.errors import OutcomeUnknown
from supervisor.ports import LinkFailed, RpcFailed, SessionGone
from supervisor.telegram import foreign, queries
from supervisor.telegram.dial import ProxyAddress
from supervisor.telegram.foreign import DatacenterUnreachable
from supervisor.telegram.keyexchange import public_key_from_pem
from supervisor.telegram.link import LinkSpec, ServerAddress, TelegramLink
from supervisor.telegram.media import PART, TransferFailed
from supervisor.telegram.session import Timings
from supervisor.telegram.storage import SessionsDb

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"
BOT, PERSON = 110201543, 777
MIB = 1024 * 1024
ELSEWHERE = 4

Home = tuple[Any, Datacenter]  # the client, and its datacenter


class Driver:
    """What an account does for a link, in short: opens it again when it is lost, sends again what may be."""

    def __init__(self, path: str) -> None:
        self.link: Any = None
        self.path = path
        self.up = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def link_lost(self, _evidence: Evidence) -> None:
        self.up.clear()
        task = asyncio.create_task(self.open())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def link_overdue(self) -> None: ...

    def link_answers(self, outstanding: int) -> None: ...

    async def open(self) -> None:
        async def sign_in() -> None: ...

        while not self.up.is_set():
            with contextlib.suppress(LinkFailed):
                await self.link.open(self.path, sign_in)
                self.up.set()
                return
            await asyncio.sleep(0.1)

    async def call(self, query: Any) -> Any:
        while True:
            await self.up.wait()
            try:
                return await self.link.send(query)
            except RpcFailed as error:
                raise queries.rpc_exception(error.code, error.text, error.method) from None
            except SessionGone as gone:
                if gone.sent and not queries.is_read_only(query):
                    raise

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def online(dc: Datacenter, proxy: ProxyAddress | None = None, **options: Any) -> AsyncIterator[Any]:
    """A supervised client of a bot that is signed in."""
    driver = Driver("direct" if proxy is None else "de1")
    server = ServerAddress(dc.host, dc.port, dc.dc_id, public_key_from_pem(dc.public_key_pem))
    timings = Timings(connect_timeout=2.0, answer_timeout=2.0, silence_timeout=2.0)
    spec = LinkSpec(
        "bot", f"bot:{BOT}", 12345, "a" * 32, TOKEN,
        server=server, timings=timings, options=options, proxies={"de1": proxy} if proxy else {},
    )  # fmt: skip
    db = await SessionsDb.open(Path(f"{driver.path}-{dc.port}-{id(driver)}.db"))
    driver.link = link = TelegramLink(spec, db, driver, lambda evidence: pytest.fail(evidence.message))
    await link.prepare(driver.call)
    await driver.open()
    updates = asyncio.create_task(link.run())
    await link.client.begin()
    try:
        yield link.client
    finally:
        updates.cancel()
        await driver.close()
        await link.shutdown()
        await db.close()


@pytest.fixture
async def home() -> AsyncIterator[Home]:
    """A client that is online, and its datacenter. Never were there two connections of one key."""
    async with Datacenter() as dc:
        dc.add_bot(TOKEN)
        dc.add_person(PERSON, "Ann")
        async with online(dc) as client:
            yield client, dc
        assert (dc.seen.overlaps, dc.seen.max_connections_per_key) == (0, 1)


def content_of(size: int) -> tuple[bytes, BytesIO]:
    """Random bytes, and as a file."""
    content = os.urandom(size)
    file = BytesIO(content)
    file.name = "some.bin"
    return content, file


def only_file(dc: Datacenter) -> StoredFile:
    """The file that the datacenter has."""
    (stored,) = dc.engine.files.files.values()
    return stored


def folder() -> list[str]:
    """What lies in the download folder."""
    return sorted(path.name for path in Path("downloads").glob("*"))


def after(dc: Datacenter, kind: FaultKind, method: str, skip: int, **what: Any) -> None:
    """Script one fault, `skip` calls from now."""
    dc.faults.add(Fault(kind, method=method, skip=skip, **what))


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
    """The connection is reset with parts under way, twice: the file arrives whole, in one message."""
    client, dc = home
    content, file = content_of(12 * MIB)
    after(dc, kind, "upload.SaveBigFilePart", 5)
    after(dc, kind, "upload.SaveBigFilePart", 14)
    await client.send_document(PERSON, file)
    assert only_file(dc).content == content
    assert dc.seen.faults[kind] == 2
    assert dc.seen.count("messages.SendMedia") == 1


@pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER])
async def test_a_download_goes_on_after_a_reset(home: Home, kind: FaultKind) -> None:
    """The connection is reset in the middle: every byte comes, once and in order."""
    client, dc = home
    content, file = content_of(5 * MIB + 1)
    message = await client.send_document(PERSON, file)
    after(dc, kind, "upload.GetFile", 2)
    memory = await client.download_media(message, in_memory=True)
    assert memory.getvalue() == content
    assert dc.seen.faults[kind] == 1


async def test_transfers_go_on_when_the_mtproto_session_is_lost(home: Home) -> None:
    """The server forgets the session with its answers: parts and chunks are simply asked for again."""
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


async def test_a_rejected_part_raises_and_nothing_is_sent(home: Home) -> None:
    """Telegram refuses one part: its error is raised, not an InputFile returned; the next upload works."""
    from pyrogram.errors import FilePartInvalid

    client, dc = home
    after(dc, FaultKind.RPC_ERROR, "upload.SaveBigFilePart", 7, code=400, error="FILE_PART_INVALID")
    with pytest.raises(FilePartInvalid):
        await client.send_document(PERSON, content_of(12 * MIB)[1])
    assert dc.seen.count("messages.SendMedia") == 0
    await client.send_document(PERSON, content_of(PART)[1])
    assert dc.seen.count("messages.SendMedia") == 1


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
            ((_, parts),) = dc.engine.files.uploads.items()
            lost.append(len(parts.pop(1)))

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
    before = asyncio.all_tasks()
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
        assert asyncio.all_tasks() == before
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


# --- other datacenters ---------------------------------------------------------------------------------------------


@dataclass
class Abroad:
    """A second datacenter with a file on it, and what went on between the two."""

    dc: Datacenter
    content: bytes
    stored: StoredFile
    exports: list[bytes]
    bad_bytes: int = 0  # imports to be refused

    @property
    def media(self) -> Any:
        return self.media_at(ELSEWHERE)

    def media_at(self, dc_id: int) -> Any:
        """What download_media takes for the file, said to lie in this datacenter."""
        from pyrogram.file_id import FileId, FileType

        file_id = FileId(
            file_type=FileType.DOCUMENT,
            dc_id=dc_id,
            media_id=self.stored.id,
            access_hash=self.stored.access_hash,
            file_reference=self.stored.reference,
        )
        return SimpleNamespace(file_id=file_id.encode(), file_size=len(self.content), file_name="far.bin")

    def keys(self) -> set[bytes]:
        return {key.key for key in self.dc.engine.keys.of(None)}


@pytest.fixture
async def abroad(home: Home, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Abroad]:
    """Datacenter 4 beside the account's own."""
    _, dc = home
    async with Datacenter(dc_id=ELSEWHERE) as other:
        content = os.urandom(4 * MIB + 9)
        stored = StoredFile(5, 6, b"reference", content)
        other.engine.files.files[stored.id] = stored
        account = other.add_bot(TOKEN)
        there = Abroad(other, content, stored, [])

        def export(call: Any) -> Any:
            assert (call.engine, call.query.dc_id) == (dc.engine, ELSEWHERE)
            there.exports.append(os.urandom(16))
            return raw.types.auth.ExportedAuthorization(id=BOT, bytes=there.exports[-1])

        def take(call: Any) -> Any:
            assert (call.engine, call.query.bytes) == (other.engine, there.exports[-1])
            if there.bad_bytes:
                there.bad_bytes -= 1
                raise RpcError(400, "AUTH_BYTES_INVALID")
            call.key.sign_in(account)
            return raw.types.auth.Authorization(user=render_user(other.engine.world, account, account))

        config = METHODS["help.GetConfig"]

        def both(call: Any) -> Any:
            answer = config(call)
            option = raw.types.DcOption
            answer.dc_options += [
                option(id=ELSEWHERE, ip_address="::1", port=9, ipv6=True),
                option(id=ELSEWHERE, ip_address="127.0.0.9", port=9),
                option(id=ELSEWHERE, ip_address="127.0.0.9", port=9, tcpo_only=True, media_only=True),
                option(id=ELSEWHERE, ip_address="127.0.0.9", port=9, cdn=True, media_only=True),
                option(id=ELSEWHERE, ip_address=other.host, port=other.port, media_only=True),
            ]
            return answer

        monkeypatch.setitem(METHODS, "help.GetConfig", both)
        monkeypatch.setitem(METHODS, "auth.ExportAuthorization", export)
        monkeypatch.setitem(METHODS, "auth.ImportAuthorization", take)
        monkeypatch.setattr(foreign, "DELAYS", (0.05, 0.1))
        WITHOUT_ACCOUNT.add("auth.ImportAuthorization")
        yield there
        assert (other.seen.overlaps, other.seen.max_connections_per_key) == (0, min(1, len(there.keys())))
        assert not there.keys() & {key.key for key in dc.engine.keys.of(None)}


async def test_a_file_of_another_datacenter_comes_over_a_link_of_its_own(home: Home, abroad: Abroad) -> None:
    """Its media server, a key of its own, one authorization transferred, one connection for two downloads at once."""
    client, _ = home
    client.get_file_semaphore = asyncio.Semaphore(2)
    first, second = await asyncio.gather(
        *(client.download_media(abroad.media, in_memory=True) for _ in range(2))
    )
    assert first.getvalue() == second.getvalue() == abroad.content
    assert (len(abroad.dc.seen.connections), abroad.dc.seen.key_exchanges, len(abroad.exports)) == (1, 1, 1)


async def test_a_foreign_link_closes_when_idle_and_keeps_its_key(
    home: Home, abroad: Abroad, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody uses it: the connection goes. The next use opens it again, without an exchange or a transfer."""
    client, _ = home
    monkeypatch.setattr(foreign, "IDLE", 0.1)
    await client.download_media(abroad.media, in_memory=True)
    assert abroad.dc.seen.open_connections == 1
    await asyncio.sleep(0.3)
    assert abroad.dc.seen.open_connections == 0
    await client.download_media(abroad.media, in_memory=True)
    assert (len(abroad.dc.seen.connections), abroad.dc.seen.key_exchanges, len(abroad.exports)) == (2, 1, 1)


@pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER])
@pytest.mark.parametrize("method", ["upload.GetFile", "auth.ImportAuthorization", "InitConnection"])
async def test_a_foreign_download_goes_on_after_a_reset(
    home: Home, abroad: Abroad, kind: FaultKind, method: str
) -> None:
    """Wherever the connection is lost, the link is opened again and the file comes whole."""
    client, _ = home
    after(abroad.dc, kind, method, 1 if method == "upload.GetFile" else 0)
    memory = await client.download_media(abroad.media, in_memory=True)
    assert memory.getvalue() == abroad.content
    assert abroad.dc.seen.faults[kind] == 1


async def test_a_foreign_datacenter_that_is_away_raises_its_cause(home: Home, abroad: Abroad) -> None:
    """Three attempts, then an exception that says what refused; the home link is as it was, no file is left."""
    client, dc = home
    await abroad.dc.go_away()
    configs = dc.seen.count("help.GetConfig")
    with pytest.raises(
        DatacenterUnreachable, match="datacenter 4 could not be reached: connection refused"
    ) as failed:
        await client.download_media(abroad.media, file_name=f"{Path.cwd()}/downloads/")
    assert isinstance(failed.value, ConnectionError)
    assert isinstance(failed.value.__cause__, LinkFailed)
    assert dc.seen.count("help.GetConfig") == configs + 3
    assert folder() == []
    await client.get_me()
    await abroad.dc.come_back()
    memory = await client.download_media(abroad.media, in_memory=True)
    assert memory.getvalue() == abroad.content


async def test_a_foreign_datacenter_that_goes_away_in_the_middle_raises(home: Home, abroad: Abroad) -> None:
    """A call that waits for its answer fails with the attempts to get the link back."""
    client, _ = home

    async def progress(current: int, _total: int) -> None:
        if current == 2 * MIB:
            await abroad.dc.go_away()

    with pytest.raises(DatacenterUnreachable, match="connection refused"):
        await client.download_media(abroad.media, in_memory=True, progress=progress)


async def test_file_migrate_is_followed_once(home: Home, abroad: Abroad) -> None:
    """FILE_MIGRATE_4 sends the download there, for the whole of it; sent away from there too, it is raised."""
    from pyrogram.errors import RPCError

    client, dc = home
    after(dc, FaultKind.RPC_ERROR, "upload.GetFile", 0, code=303, error="FILE_MIGRATE_4")
    memory = await client.download_media(abroad.media_at(dc.dc_id), in_memory=True)
    assert memory.getvalue() == abroad.content
    assert dc.seen.count("upload.GetFile") == 1
    after(dc, FaultKind.RPC_ERROR, "upload.GetFile", 0, code=303, error="FILE_MIGRATE_4")
    after(abroad.dc, FaultKind.RPC_ERROR, "upload.GetFile", 0, code=303, error="FILE_MIGRATE_2")
    with pytest.raises(RPCError, match="FILE_MIGRATE_X"):
        await client.download_media(abroad.media_at(dc.dc_id), in_memory=True)


@pytest.mark.parametrize("bad", [2, 3])
async def test_an_authorization_that_is_refused_is_exported_anew(
    home: Home, abroad: Abroad, bad: int
) -> None:
    """AUTH_BYTES_INVALID: up to three exports; then Telegram's error is raised."""
    from pyrogram.errors import AuthBytesInvalid

    client, _ = home
    abroad.bad_bytes = bad
    with contextlib.nullcontext() if bad < 3 else pytest.raises(AuthBytesInvalid):
        await client.download_media(abroad.media, in_memory=True)
    assert len(abroad.exports) == 3


@pytest.mark.parametrize("forget", ["forget_keys", "revoke"])
async def test_a_foreign_key_that_is_dead_is_replaced(home: Home, abroad: Abroad, forget: str) -> None:
    """-404 or a 401 there: another key, another transfer; nothing happens to the account's own."""
    client, dc = home
    await client.download_media(abroad.media, in_memory=True)
    getattr(abroad.dc, forget)(BOT)
    if forget == "forget_keys":
        abroad.dc.reset_links()
    memory = await client.download_media(abroad.media, in_memory=True)
    assert memory.getvalue() == abroad.content
    assert (abroad.dc.seen.key_exchanges, len(abroad.exports)) == (2, 2)
    assert dc.seen.key_exchanges == 1


async def test_errors_of_a_foreign_datacenter_are_the_librarys(home: Home, abroad: Abroad) -> None:
    """A wait is waited out, a server's own trouble repeated, another error raised as the library's exception."""
    from pyrogram.errors import FileReferenceExpired

    client, _ = home
    after(abroad.dc, FaultKind.RPC_ERROR, "upload.GetFile", 1, code=420, error="FLOOD_WAIT_1")
    after(abroad.dc, FaultKind.RPC_ERROR, "upload.GetFile", 2, code=500, error="WORKER_BUSY_TOO_LONG_RETRY")
    memory = await client.download_media(abroad.media, in_memory=True)
    assert memory.getvalue() == abroad.content
    assert not abroad.dc.seen.early_calls
    assert not len(abroad.dc.faults)
    old = abroad.media
    abroad.stored.reference = b"another"
    with pytest.raises(FileReferenceExpired):
        await client.download_media(old, in_memory=True)


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The datacenters in which inline messages were edited."""
    where: list[int] = []

    def edit(call: Any) -> Any:
        where.append(call.engine.settings.dc_id)
        return True

    monkeypatch.setitem(METHODS, "messages.EditInlineBotMessage", edit)
    return where


def inline_id(dc_id: int) -> str:
    """An inline message's id, as utils.unpack_inline_message_id reads it."""
    return base64.urlsafe_b64encode(struct.pack("<iqq", dc_id, 7, 8)).rstrip(b"=").decode()


async def test_inline_messages_are_edited_in_their_datacenter(
    home: Home, abroad: Abroad, edited: list[int]
) -> None:
    """The library's three edit_inline methods find our link, where Pyrogram would open a session of its own."""
    from pyrogram.types import InputMediaPhoto

    client, dc = home
    for dc_id in (ELSEWHERE, dc.dc_id):
        assert await client.edit_inline_text(inline_id(dc_id), "text") is True
        assert await client.edit_inline_reply_markup(inline_id(dc_id)) is True
        assert await client.edit_inline_media(inline_id(dc_id), InputMediaPhoto("https://example.org/x.jpg"))
    assert edited == [ELSEWHERE] * 3 + [dc.dc_id] * 3
    assert (len(abroad.dc.seen.connections), len(dc.seen.connections)) == (1, 1)


async def test_an_edit_of_unknown_outcome_is_not_repeated(
    home: Home, abroad: Abroad, edited: list[int]
) -> None:
    """Sent, and the datacenter then forgot the session: the caller is told, and decides."""
    client, _ = home
    after(abroad.dc, FaultKind.SILENCE, "messages.EditInlineBotMessage", 0)
    work = asyncio.create_task(client.edit_inline_text(inline_id(ELSEWHERE), "text"))
    while not edited:
        await asyncio.sleep(0.01)
    abroad.dc.forget_sessions()
    abroad.dc.reset_links()
    with pytest.raises(OutcomeUnknown, match=r"messages\.EditInlineBotMessage was sent"):
        await work
    assert edited == [ELSEWHERE]


async def test_a_foreign_link_takes_the_accounts_proxy(abroad: Abroad, home: Home) -> None:
    """Both connections come out of the proxy; where it is gone, nothing is dialled directly."""
    _, dc = home
    server = await pproxy.Server("socks5://127.0.0.1:0").start_server(
        {"rserver": [pproxy.Connection("direct")]}
    )
    proxy = ProxyAddress("socks5", "127.0.0.1", server.sockets[0].getsockname()[1])
    async with online(dc, proxy) as client:
        memory = await client.download_media(abroad.media, in_memory=True)
        assert memory.getvalue() == abroad.content
        (link,) = client.media_sessions._links.values()
        assert link._session._wire.route.proxy == proxy
        server.close()
        abroad.dc.reset_links()
        before = len(abroad.dc.seen.connections)
        with pytest.raises(DatacenterUnreachable, match="proxy"):
            await client.download_media(abroad.media, in_memory=True)
        assert len(abroad.dc.seen.connections) == before


async def test_the_accounts_stop_ends_foreign_calls(abroad: Abroad, home: Home) -> None:
    """A call that waits fails, its connection is closed, and nothing runs on; nor can a link be opened again."""
    _, dc = home
    before = asyncio.all_tasks()
    async with online(dc) as client:
        abroad.dc.silent()
        work = asyncio.create_task(client.download_media(abroad.media, in_memory=True))
        while not abroad.dc.seen.connections:
            await asyncio.sleep(0.01)
    with pytest.raises(DatacenterUnreachable, match="the account is stopped"):
        await work
    assert asyncio.all_tasks() <= before
    with pytest.raises(DatacenterUnreachable, match="the account is stopped"):
        await client.media_sessions.get(ELSEWHERE).invoke(raw.functions.help.GetConfig())


async def test_an_account_taken_offline_has_no_foreign_connection(abroad: Abroad, home: Home) -> None:
    """What gives the main link's calls up closes the foreign ones too; they come back with the next use."""
    client, _ = home
    await client.download_media(abroad.media, in_memory=True)
    client.media_sessions.drop()
    await asyncio.sleep(0.05)
    assert abroad.dc.seen.open_connections == 0
    memory = await client.download_media(abroad.media, in_memory=True)
    assert memory.getvalue() == abroad.content


async def test_an_unknown_datacenter_raises(home: Home) -> None:
    """Telegram's configuration does not name it: said so, after the attempts."""
    client, _ = home
    with pytest.raises(DatacenterUnreachable, match="datacenter 5 is not in the server's configuration"):
        await client.media_sessions.get(5).invoke(raw.functions.help.GetConfig())
