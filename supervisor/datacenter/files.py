"""Uploaded parts and finished files (core.telegram.org/api/files). Pure state: errors are told by name."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

PART_LIMIT = 512 * 1024
MOST_PARTS = 4000
SMALL_LIMIT = 10 * 1024 * 1024  # bytes of a file whose parts upload.saveFilePart takes
_KIB = 1024
_MOST_UPLOADS = 256


@dataclass(slots=True)
class StoredFile:
    """A file that belongs to a message, on one datacenter. `saves` is how often each part of it was saved."""

    id: int
    access_hash: int
    reference: bytes
    content: bytes
    dc_id: int = 2
    saves: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Upload:
    """A file under way. `total` is None for a small one: its parts are told at the end."""

    total: int | None
    parts: dict[int, bytes] = field(default_factory=dict)
    saves: Counter[int] = field(default_factory=Counter)

    def refuses(self, number: int, size: int, total: int | None) -> str | None:
        """The error for a part of this number and size; None where it is taken."""
        if total != self.total:
            return "FILE_PARTS_INVALID"
        if total is None or number == total - 1:
            return None  # of a small file every part may be the last, which may have any size
        if not _is_part_size(size):
            return "FILE_PART_SIZE_INVALID"
        others = (len(content) for other, content in self.parts.items() if other != total - 1)
        return None if next(others, size) == size else "FILE_PART_SIZE_CHANGED"

    def problem(self, total: int) -> str | None:
        """Why a file cannot be made of the parts that are there; None where it can."""
        missing = next((part for part in range(total) if part not in self.parts), None)
        if missing is not None:
            return f"FILE_PART_{missing}_MISSING"
        *whole, last = (len(self.parts[part]) for part in range(total))
        if (self.total is not None and self.total != total) or len(self.parts) != total:
            return "FILE_PARTS_INVALID"
        if any(size != whole[0] for size in whole) or (whole and last > whole[0]):
            return "FILE_PART_SIZE_CHANGED"
        return None if not whole or _is_part_size(whole[0]) else "FILE_PART_SIZE_INVALID"


def _is_part_size(size: int) -> bool:
    return size % _KIB == 0 and PART_LIMIT % size == 0


@dataclass(slots=True)
class FileStore:
    """All uploads under way, by key and the client's file id, and all finished files by their id."""

    source: random.Random
    uploads: dict[tuple[bytes, int], Upload] = field(default_factory=dict)
    files: dict[int, StoredFile] = field(default_factory=dict)

    def save_part(
        self, key_id: bytes, file_id: int, number: int, content: bytes, total: int | None
    ) -> str | None:
        """Keep a part; the error where it is refused."""
        upload = self.uploads.setdefault((key_id, file_id), Upload(total))
        if len(self.uploads) > _MOST_UPLOADS:
            del self.uploads[next(iter(self.uploads))]
        error = upload.refuses(number, len(content), total)
        if error is None:
            upload.parts[number] = content
            upload.saves[number] += 1
        return error

    def problem(self, key_id: bytes, file_id: int, total: int, *, is_big: bool) -> str | None:
        """Why there is no such file to be made; None where there is."""
        upload = self.uploads.get((key_id, file_id), Upload(total if is_big else None))
        if is_big != (upload.total is not None):
            return "FILE_PARTS_INVALID"
        return upload.problem(total)

    def content(self, key_id: bytes, file_id: int) -> bytes:
        """What the parts make together."""
        upload = self.uploads[key_id, file_id]
        return b"".join(upload.parts[part] for part in range(len(upload.parts)))

    def finish(self, key_id: bytes, file_id: int, dc_id: int) -> StoredFile:
        """Make a file of an upload's parts."""
        content = self.content(key_id, file_id)
        upload = self.uploads.pop((key_id, file_id))
        return self.add(content, dc_id, upload.saves)

    def add(self, content: bytes, dc_id: int, saves: Counter[int] | None = None) -> StoredFile:
        """Have a file on a datacenter."""
        made = StoredFile(
            id=self.source.getrandbits(62) | 1,
            access_hash=self.source.getrandbits(62) | 1,
            reference=self.source.getrandbits(128).to_bytes(16, "big"),
            content=content,
            dc_id=dc_id,
            saves=Counter() if saves is None else saves,
        )
        self.files[made.id] = made
        return made
