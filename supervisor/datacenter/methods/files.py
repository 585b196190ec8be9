"""upload.*, and the media of messages made of uploads."""

from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING, Any

from supervisor.datacenter.files import MOST_PARTS, PART_LIMIT, SMALL_LIMIT, StoredFile
from supervisor.datacenter.library import build, method_name, raw
from supervisor.datacenter.methods.registry import RpcError, method

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call

_LARGEST_ANSWER = 1024 * 1024
_ALIGNED, _ALIGNED_PRECISELY = 4096, 1024  # bytes, core.telegram.org/api/files#downloading-files


@method("upload.SaveFilePart", anywhere=True)
def save_file_part(call: Call) -> Any:
    """Keep a part of a file under 10 MB."""
    return _save(call, MOST_PARTS, None)


@method("upload.SaveBigFilePart", anywhere=True)
def save_big_file_part(call: Call) -> Any:
    """Keep a part of a larger file."""
    total = call.query.file_total_parts
    if not 0 < total <= MOST_PARTS:
        raise RpcError(400, "FILE_PARTS_INVALID")
    return _save(call, total, total)


def _save(call: Call, parts: int, total: int | None) -> bool:
    query = call.query
    if not 0 <= query.file_part < parts:
        raise RpcError(400, "FILE_PART_INVALID")
    if not query.bytes:
        raise RpcError(400, "FILE_PART_EMPTY")
    if len(query.bytes) > PART_LIMIT:
        raise RpcError(400, "FILE_PART_TOO_BIG")
    error = call.engine.files.save_part(call.key.id, query.file_id, query.file_part, query.bytes, total)
    if error is not None:
        raise RpcError(400, error)
    return True


def take_media(call: Call, media: Any) -> Any:
    """The media of a message, made of what was uploaded or of a file that exists."""
    kind = method_name(media)
    if kind == "InputMediaUploadedDocument":
        return _document(call, _uploaded(call, media.file), media.mime_type, list(media.attributes))
    if kind == "InputMediaUploadedPhoto":
        return _photo(call, _uploaded(call, media.file))
    if kind == "InputMediaDocument" and (stored := _stored(call, media.id)) is not None:
        return _document(call, stored, "application/octet-stream", [])
    if kind == "InputMediaPhoto" and (stored := _stored(call, media.id)) is not None:
        return _photo(call, stored)
    raise RpcError(400, "MEDIA_INVALID")


def _uploaded(call: Call, file: Any) -> StoredFile:
    files, is_big = call.engine.files, method_name(file) == "InputFileBig"
    if not 0 < file.parts <= MOST_PARTS:
        raise RpcError(400, "FILE_PARTS_INVALID")
    problem = files.problem(call.key.id, file.id, file.parts, is_big=is_big)
    if problem is not None:
        raise RpcError(400, problem)
    if not is_big:
        _check_small(files.content(call.key.id, file.id), file.md5_checksum)
    return files.finish(call.key.id, file.id, call.engine.settings.dc_id)


def _check_small(content: bytes, checksum: str) -> None:
    if len(content) > SMALL_LIMIT:
        raise RpcError(400, "FILE_PARTS_INVALID")
    if checksum and checksum != md5(content, usedforsecurity=False).hexdigest():
        raise RpcError(400, "MD5_CHECKSUM_INVALID")


def _stored(call: Call, wanted: Any) -> StoredFile | None:
    stored = call.engine.files.files.get(wanted.id)
    return stored if stored is not None and stored.access_hash == wanted.access_hash else None


def _document(call: Call, stored: StoredFile, mime_type: str, attributes: list[Any]) -> Any:
    document = build(
        raw.types.Document,
        id=stored.id,
        access_hash=stored.access_hash,
        file_reference=stored.reference,
        date=call.date,
        mime_type=mime_type,
        size=len(stored.content),
        dc_id=stored.dc_id,
        attributes=attributes,
    )
    return build(raw.types.MessageMediaDocument, document=document)


def _photo(call: Call, stored: StoredFile) -> Any:
    size = raw.types.PhotoSize(type="x", w=800, h=600, size=len(stored.content))
    photo = build(
        raw.types.Photo,
        id=stored.id,
        access_hash=stored.access_hash,
        file_reference=stored.reference,
        date=call.date,
        sizes=[size],
        dc_id=stored.dc_id,
    )
    return build(raw.types.MessageMediaPhoto, photo=photo)


@method("upload.GetFile", anywhere=True)
def get_file(call: Call) -> Any:
    """A piece of a file that lies here: at most 1 MiB, of one MiB of the file, and aligned."""
    query = call.query
    stored = _stored(call, query.location) if hasattr(query.location, "id") else None
    if stored is None:
        raise RpcError(400, "LOCATION_INVALID")
    if query.location.file_reference != stored.reference:
        raise RpcError(400, "FILE_REFERENCE_EXPIRED")
    if stored.dc_id != call.engine.settings.dc_id:
        raise RpcError(303, f"FILE_MIGRATE_{stored.dc_id}")
    precise = getattr(query, "precise", None)
    aligned = _ALIGNED_PRECISELY if precise else _ALIGNED
    if query.offset < 0 or query.offset % aligned:
        raise RpcError(400, "OFFSET_INVALID")
    if not 0 < query.limit <= _LARGEST_ANSWER or query.limit % aligned:
        raise RpcError(400, "LIMIT_INVALID")
    divides = precise or not _LARGEST_ANSWER % query.limit
    if not divides or query.offset % _LARGEST_ANSWER + query.limit > _LARGEST_ANSWER:
        raise RpcError(400, "LIMIT_INVALID")
    content = stored.content[query.offset : query.offset + query.limit]
    return raw.types.upload.File(type=raw.types.storage.FileUnknown(), mtime=call.date, bytes=content)
