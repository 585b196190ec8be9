"""Files up and down: over the account's own link, or over a foreign datacenter's.

Both libraries would open a second connection under the account's key for this, which can cost the key
(AUTH_KEY_DUPLICATED), and Pyrogram takes a rejected part and a broken download for success (methods/advanced/
save_file.py, client.py: get_file). These functions are methods of the supervised client; names, arguments and
results are the libraries', https://core.telegram.org/api/files the rules. Every file operation is done in a
thread, of the event loop's pool and not the client's: a handler that waits for its upload holds one of those.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from hashlib import md5
from pathlib import Path
from typing import IO, Any

from supervisor.errors import SupervisorError

PART = 512 * 1024  # bytes of an uploaded part, the most that Telegram takes
CHUNK = 1024 * 1024  # bytes asked for at a time, the most that Telegram gives
SMALL = 10 * 1024 * 1024  # bytes; a larger file goes up by upload.saveBigFilePart, without an MD5
MIB = 1024 * 1024
LIMIT, PREMIUM_LIMIT = 2000, 4000  # MiB of a file
IN_FLIGHT = 4  # parts of an account
# A part that takes longer than SLOW keeps the calls behind it waiting: fewer at once. Seconds.
FAST, SLOW = 0.5, 1.0
_ALL = (1 << 31) - 1  # chunks


class TransferFailed(SupervisorError):
    """A file was not transferred whole."""


class Window:
    """How many parts of one account may be under way: one at first, up to `IN_FLIGHT` while they are answered fast.

    All uploads of an account share it, so that what waits in its link's write buffer stays about as long as one
    or two slow parts, or a few fast ones, and its other calls get through between them.
    """

    def __init__(self) -> None:
        self.size = 1
        self._turns = asyncio.Semaphore(1)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and learn from how long it took."""
        await self._turns.acquire()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        took = None
        try:
            yield
            took = loop.time() - begun
        finally:
            self._settle(took)

    def _settle(self, took: float | None) -> None:
        if took is not None and took > SLOW and self.size > 1:
            self.size -= 1
            return
        self._turns.release()
        if took is not None and took < FAST and self.size < IN_FLIGHT:
            self.size += 1
            self._turns.release()


# --- up ----------------------------------------------------------------------------------------------------


async def save_file(  # noqa: PLR0917 - the libraries' signature
    client: Any,
    path: Any,
    file_id: int | None = None,
    file_part: int = 0,
    progress: Callable[..., Any] | None = None,
    progress_args: tuple[Any, ...] = (),
) -> Any:
    """Upload a file, or (with `file_id`) one part of it again.

    Args:
        client: the supervised client.
        path: a path, or a binary file object; its ``name``, where it has one, is the file's.
        file_id: the upload that a single part is missing of; that part alone is sent and None returned.
        file_part: the part's number.
        progress: called with the bytes that were answered for and the file's size, after each part.
        progress_args: more arguments for `progress`.

    Raises:
        ValueError: it is no file, it is empty, or larger than the account may send.
        TransferFailed: the file shrank meanwhile, or a part was turned down without an error.
        pyrogram.StopTransmission: `progress` raised it.
        pyrogram.errors.RPCError: Telegram refused a part.
    """
    if path is None:
        return None
    async with client.save_file_semaphore:
        file = await _opened(path)
        try:
            size = await asyncio.to_thread(file.seek, 0, os.SEEK_END)
            _check_size(size, premium=bool(getattr(client.me, "is_premium", None)))
            tell = partial(_tell, progress, progress_args)
            upload = _Upload(client, file, size=size, file_id=file_id, first=file_part, tell=tell)
            return await upload.run()
        finally:
            if file is not path:
                await asyncio.to_thread(file.close)


async def _opened(path: Any) -> IO[bytes]:
    if isinstance(path, (str, os.PathLike)):
        return await _in_thread(lambda: Path(path).open("rb"), lambda file: file.close())
    if isinstance(path, io.IOBase):
        return path  # type: ignore[return-value] # a text file is found out by its first part
    raise ValueError("Invalid file. Expected a file path as string or a binary (not text) file pointer")


def _check_size(size: int, *, premium: bool) -> None:
    if size == 0:
        raise ValueError("File size equals to 0 B")
    limit = PREMIUM_LIMIT if premium else LIMIT
    if size > limit * MIB:
        raise ValueError(f"Can't upload files bigger than {limit} MiB")


class _Upload:
    """One file on its way up. Parts are read in order and answered in any."""

    def __init__(
        self,
        client: Any,
        file: IO[bytes],
        *,
        size: int,
        file_id: int | None,
        first: int,
        tell: Callable[[int, int], Awaitable[None]],
    ) -> None:
        from pyrogram import raw

        self._raw: Any = raw
        self._client = client
        self._file = file
        self._size = size
        self._tell = tell
        self._total = -(-size // PART)
        self._is_big = size > SMALL
        self._is_missing_part = file_id is not None
        self._id = file_id or client.rnd_id()
        self._digest = None if self._is_big or self._is_missing_part else md5(usedforsecurity=False)
        self._next = self._first = first
        self._end = min(first + 1, self._total) if self._is_missing_part else self._total
        self._done = min(first * PART, size)
        self._reading = asyncio.Lock()
        self._telling = asyncio.Lock()

    async def run(self) -> Any:
        """Send the parts; give what Telegram takes for the file."""
        await asyncio.to_thread(self._file.seek, self._first * PART)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(IN_FLIGHT, self._end - self._first)):
                    group.create_task(self._send_parts(), name=f"{self._client.name}: upload {number}")
        except BaseExceptionGroup as failed:
            first = failed.exceptions[0]  # the caller knows the libraries' exceptions, not groups of them
        else:
            return None if self._is_missing_part else self._input_file()
        raise first

    def _input_file(self) -> Any:
        types = self._raw.types
        name = Path(str(getattr(self._file, "name", "file.jpg"))).name  # Telegram needs no folders of ours
        if self._is_big:
            return types.InputFileBig(id=self._id, parts=self._total, name=name)
        digest = "" if self._digest is None else self._digest.hexdigest()
        return types.InputFile(id=self._id, parts=self._total, name=name, md5_checksum=digest)

    async def _send_parts(self) -> None:
        while (part := await self._take()) is not None:
            number, content = part
            async with self._client.upload_window.turn():
                taken = await self._client.session.invoke(self._query(number, content))
            if taken is not True:
                raise TransferFailed(f"Telegram did not take part {number} of {self._total}: {taken!r}")
            async with self._telling:
                self._done += len(content)
                await self._tell(self._done, self._size)

    def _query(self, number: int, content: bytes) -> Any:
        upload = self._raw.functions.upload
        if not self._is_big:
            return upload.SaveFilePart(file_id=self._id, file_part=number, bytes=content)
        return upload.SaveBigFilePart(
            file_id=self._id, file_part=number, file_total_parts=self._total, bytes=content
        )

    async def _take(self) -> tuple[int, bytes] | None:
        async with self._reading:
            number = self._next
            if number >= self._end:
                return None
            self._next += 1
            return number, await asyncio.to_thread(self._read, number)

    def _read(self, number: int) -> bytes:
        wanted = min(PART, self._size - number * PART)
        content = self._file.read(wanted)
        while len(content) < wanted and (more := self._file.read(wanted - len(content))):
            content += more
        if len(content) < wanted:
            have = number * PART + len(content)
            raise TransferFailed(f"the file shrank while it was uploaded: {have} bytes of {self._size}")
        if self._digest is not None:
            self._digest.update(content)
        return content


async def _tell(progress: Callable[..., Any] | None, args: tuple[Any, ...], current: int, total: int) -> None:
    """Call `progress`: a coroutine function here, another function in a thread, as the libraries do."""
    if progress is None:
        return
    if inspect.iscoroutinefunction(progress):
        await progress(current, total, *args)
    else:
        await asyncio.to_thread(progress, current, total, *args)


# --- down --------------------------------------------------------------------------------------------------


async def get_file(  # noqa: PLR0917 - the libraries' signature
    client: Any,
    file_id: Any,
    file_size: int = 0,
    limit: int = 0,
    offset: int = 0,
    progress: Callable[..., Any] | None = None,
    progress_args: tuple[Any, ...] = (),
) -> AsyncGenerator[bytes, None]:
    """Download a file, piece by piece.

    Args:
        client: the supervised client.
        file_id: the library's decoded `FileId`.
        file_size: its bytes, 0 where they aren't known; with fewer the download fails.
        limit: how many chunks of 1 MiB to fetch; 0 is all.
        offset: how many chunks to leave out.
        progress: called with the bytes so far and `file_size`, after each chunk was taken.
        progress_args: more arguments for `progress`.

    Raises:
        TransferFailed: the file ended early, or lies on a CDN.
        DatacenterUnreachable: the file's datacenter could not be reached.
        pyrogram.StopTransmission: `progress` raised it.
        pyrogram.errors.RPCError: Telegram refused; FileReferenceExpired asks for a fresh message.
    """
    async with client.get_file_semaphore:
        source = _Source(client, file_id)
        at = abs(offset) * CHUNK
        for _ in range(abs(limit) or _ALL):
            chunk = await source.fetch(at)
            at += len(chunk)
            if len(chunk) < CHUNK and at < file_size:
                raise TransferFailed(f"the file ended after {at} bytes of {file_size}")
            if chunk:
                yield chunk
            await _tell(progress, progress_args, min(at, file_size) if file_size else at, file_size)
            if len(chunk) < CHUNK or at == file_size:
                return


class _Source:
    """Where a file is fetched from. It may be sent to another datacenter once."""

    def __init__(self, client: Any, file_id: Any) -> None:
        self._client = client
        self._location = _location(file_id)
        self._dc_id: int = file_id.dc_id
        self._moved = False

    async def fetch(self, offset: int) -> bytes:
        from pyrogram import raw
        from pyrogram.errors import RPCError

        query = raw.functions.upload.GetFile(location=self._location, offset=offset, limit=CHUNK)
        try:
            session = await self._client.get_session(self._dc_id, is_media=True)
            answer = await session.invoke(query)
        except RPCError as error:
            if self._moved or error.ID != "FILE_MIGRATE_X" or not isinstance(error.value, int):
                raise
            self._dc_id, self._moved = error.value, True
            return await self.fetch(offset)
        if not isinstance(answer, raw.types.upload.File):
            where = f"datacenter {self._dc_id} answered {type(answer).__name__}"
            raise TransferFailed(f"{where}: the file lies on a CDN, and CDN downloads were not asked for")
        content: bytes = answer.bytes
        return content


def _location(file_id: Any) -> Any:
    """What upload.getFile calls the file, as both libraries make it (client.py: get_file)."""
    from pyrogram import raw
    from pyrogram.file_id import FileType

    types = raw.types
    if file_id.file_type == FileType.CHAT_PHOTO:
        return types.InputPeerPhotoFileLocation(
            peer=_peer(file_id),
            photo_id=file_id.media_id,
            big=file_id.thumbnail_source.name.startswith("CHAT_PHOTO_BIG"),
        )
    kind = (
        types.InputPhotoFileLocation
        if file_id.file_type == FileType.PHOTO
        else types.InputDocumentFileLocation
    )
    return kind(
        id=file_id.media_id,
        access_hash=file_id.access_hash,
        file_reference=file_id.file_reference,
        thumb_size=file_id.thumbnail_size,
    )


def _peer(file_id: Any) -> Any:
    from pyrogram import raw, utils

    chat_id, access_hash = file_id.chat_id, file_id.chat_access_hash
    if chat_id > 0:
        return raw.types.InputPeerUser(user_id=chat_id, access_hash=access_hash)
    if access_hash == 0:
        return raw.types.InputPeerChat(chat_id=-chat_id)
    return raw.types.InputPeerChannel(channel_id=utils.get_channel_id(chat_id), access_hash=access_hash)


async def handle_download(client: Any, packet: tuple[Any, ...]) -> Any:
    """Download a file to the disk or into memory: what both libraries' download_media ends in.

    Returns:
        The path, or the `io.BytesIO`; None where `progress` raised StopTransmission.

    Raises:
        Exception: whatever `get_file` or the disk raised. Nothing is left of the file then.
    """
    import pyrogram

    file_id, directory, file_name, in_memory, *rest = packet
    what = file_id, *rest
    try:
        if not in_memory:
            return await _to_disk(client, _target(directory, file_name), what)
        memory = io.BytesIO()
        async with _chunks(client, what) as chunks:
            async for chunk in chunks:
                memory.write(chunk)
        memory.name = file_name
        return memory
    except pyrogram.StopTransmission:
        return None


def _target(directory: str | Path, file_name: str) -> Path:
    """Where a file goes: into this folder, whatever folders its sender has put into its name.

    The caller's own are in `directory` already: download_media has split them off.
    """
    name = file_name.replace("\\", "/").rpartition("/")[2]
    if name in {"", ".", ".."}:
        name = "file"
    return Path(os.path.abspath(directory)) / name  # noqa: PTH100 - resolve() would look symbolic links up


async def _to_disk(client: Any, path: Path, what: tuple[Any, ...]) -> str:
    # Two downloads of one name must not write into one file: the number is theirs alone.
    unfinished = path.with_name(f"{path.name}.{client.rnd_id() & 0xFFFFFFFF:08x}.temp")
    file = await _in_thread(lambda: _create(unfinished), lambda file: _discard(file, unfinished))
    try:
        async with _chunks(client, what) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
        await asyncio.to_thread(_finish, file, unfinished, path)
    except BaseException:
        await asyncio.to_thread(_discard, file, unfinished)
        raise
    return str(path)


def _chunks(client: Any, what: tuple[Any, ...]) -> contextlib.aclosing[AsyncGenerator[bytes, None]]:
    """`get_file`, which gives its semaphore back at the end of the block, whatever ended it."""
    file_id, file_size, progress, progress_args = what
    return contextlib.aclosing(client.get_file(file_id, file_size, 0, 0, progress, progress_args))


async def _in_thread(opener: Callable[[], IO[bytes]], undo: Callable[[IO[bytes]], None]) -> IO[bytes]:
    """Open a file in a thread; undone where nobody waits for it any more."""
    opening = asyncio.get_running_loop().run_in_executor(None, opener)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(lambda done: None if done.exception() else undo(done.result()))
        raise


def _create(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def _finish(file: IO[bytes], unfinished: Path, path: Path) -> None:
    file.close()
    unfinished.replace(path)


def _discard(file: IO[bytes], unfinished: Path) -> None:
    with contextlib.suppress(
        OSError
    ):  # a full disk makes close() fail too; the failure itself is being raised
        file.close()
    unfinished.unlink(missing_ok=True)
