"""upload.*, and the media of messages made of uploads."""

from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING, Any

from supervisor.datacenter.files import PART_LIMIT, StoredFile
from supervisor.datacenter.library import build, method_name, raw
from supervisor.datacenter.methods.registry import RpcError, method

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call

_MOST_PARTS = 4000
_LARGEST_ANSWER = 1024 * 1024


@method("upload.SaveFilePart")
def save_file_part(call: Call) -> Any:
    """Keep a part of a file under 10 MB."""
    return _save(call, _MOST_PARTS)


@method("upload.SaveBigFilePart")
def save_big_file_part(call: Call) -> Any:
    """Keep a part of a larger file."""
    if not 0 < call.query.file_total_parts <= _MOST_PARTS:
        raise RpcError(400, "FILE_PARTS_INVALID")
    return _save(call, call.query.file_total_parts)


def _save(call: Call, parts: int) -> bool:
    query = call.query
    if not 0 <= query.file_part < parts:
        raise RpcError(400, "FILE_PART_INVALID")
    if not query.bytes:
        raise RpcError(400, "FILE_PART_EMPTY")
    if len(query.bytes) > PART_LIMIT:
        raise RpcError(400, "FILE_PART_TOO_BIG")
    call.engine.files.save_part(call.key.id, query.file_id, query.file_part, query.bytes)
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
    if not 0 < file.parts <= _MOST_PARTS:
        raise RpcError(400, "FILE_PARTS_INVALID")
    missing = call.engine.files.missing_part(call.key.id, file.id, file.parts)
    if missing is not None:
        raise RpcError(400, f"FILE_PART_{missing}_MISSING")
    stored = call.engine.files.finish(call.key.id, file.id, file.parts)
    checksum = getattr(file, "md5_checksum", "")
    if checksum and checksum != md5(stored.content, usedforsecurity=False).hexdigest():
        raise RpcError(400, "MD5_CHECKSUM_INVALID")
    return stored


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
        dc_id=call.engine.settings.dc_id,
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
        dc_id=call.engine.settings.dc_id,
    )
    return build(raw.types.MessageMediaPhoto, photo=photo)


@method("upload.GetFile")
def get_file(call: Call) -> Any:
    """A piece of a stored file."""
    query = call.query
    stored = _stored(call, query.location) if hasattr(query.location, "id") else None
    if stored is None:
        raise RpcError(400, "LOCATION_INVALID")
    if query.location.file_reference != stored.reference:
        raise RpcError(400, "FILE_REFERENCE_EXPIRED")
    if query.limit <= 0 or query.limit > _LARGEST_ANSWER or query.limit % 1024:
        raise RpcError(400, "LIMIT_INVALID")
    if query.offset < 0 or query.offset % 1024:
        raise RpcError(400, "OFFSET_INVALID")
    content = stored.content[query.offset : query.offset + query.limit]
    return raw.types.upload.File(type=raw.types.storage.FileUnknown(), mtime=call.date, bytes=content)
