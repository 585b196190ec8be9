"""Uploaded parts and finished files (core.telegram.org/api/files)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

PART_LIMIT = 512 * 1024
_MOST_UPLOADS = 256


@dataclass(slots=True)
class StoredFile:
    """A file that belongs to a message."""

    id: int
    access_hash: int
    reference: bytes
    content: bytes


@dataclass(slots=True)
class FileStore:
    """All uploads under way, by key and the client's file id, and all finished files by their id."""

    source: random.Random
    uploads: dict[tuple[bytes, int], dict[int, bytes]] = field(default_factory=dict)
    files: dict[int, StoredFile] = field(default_factory=dict)

    def save_part(self, key_id: bytes, file_id: int, part: int, content: bytes) -> None:
        self.uploads.setdefault((key_id, file_id), {})[part] = content
        if len(self.uploads) > _MOST_UPLOADS:
            del self.uploads[next(iter(self.uploads))]

    def missing_part(self, key_id: bytes, file_id: int, parts: int) -> int | None:
        """The first part that was not saved, or None where all are there."""
        saved = self.uploads.get((key_id, file_id), {})
        return next((part for part in range(parts) if part not in saved), None)

    def finish(self, key_id: bytes, file_id: int, parts: int) -> StoredFile:
        """Make a file of its parts."""
        saved = self.uploads.pop((key_id, file_id))
        content = b"".join(saved[part] for part in range(parts))
        made = StoredFile(
            id=self.source.getrandbits(62) | 1,
            access_hash=self.source.getrandbits(62) | 1,
            reference=self.source.getrandbits(128).to_bytes(16, "big"),
            content=content,
        )
        self.files[made.id] = made
        return made
