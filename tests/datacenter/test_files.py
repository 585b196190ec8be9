"""upload.*: parts, files made of them, and their way down (core.telegram.org/api/files)."""

from __future__ import annotations

import os
from hashlib import md5
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter
from supervisor.datacenter.files import StoredFile
from tests.datacenter.wire import Peer, raw

KIB = 1024
PART = 512 * KIB


def functions() -> Any:
    return raw().functions


def types() -> Any:
    return raw().types


async def upload(peer: Peer, content: bytes, part: int = KIB, file_id: int = 8) -> Any:
    pieces = [content[start : start + part] for start in range(0, len(content), part)]
    await save(peer, file_id, pieces)
    checksum = md5(content).hexdigest()
    return types().InputFile(id=file_id, parts=len(pieces), name="a.bin", md5_checksum=checksum)


async def save(peer: Peer, file_id: int, pieces: list[bytes], *, big: bool = False) -> None:
    upload = functions().upload
    for number, piece in enumerate(pieces):
        what = {"file_id": file_id, "file_part": number, "bytes": piece}
        query = (
            upload.SaveBigFilePart(file_total_parts=len(pieces), **what)
            if big
            else upload.SaveFilePart(**what)
        )
        assert await peer.ask(query) is True


def document(dc: Datacenter, file: Any, random_id: int = 3) -> Any:
    named = types().DocumentAttributeFilename(file_name="a.bin")
    media = types().InputMediaUploadedDocument(file=file, mime_type="text/plain", attributes=[named])
    address = types().InputPeerUser(user_id=dc.person.user_id, access_hash=0)
    return functions().messages.SendMedia(peer=address, media=media, message="here", random_id=random_id)


async def test_a_document_goes_up_and_comes_down(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """The parts of an upload make a document, which is fetched in pieces, byte by byte the same."""
    content = os.urandom(8 * KIB + 5)
    answer = await peer.ask(document(dc, await upload(peer, content)))
    found = answer.updates[1].message.media.document
    assert (found.size, found.mime_type) == (8 * KIB + 5, "text/plain")
    where = types().InputDocumentFileLocation(
        id=found.id, access_hash=found.access_hash, file_reference=found.file_reference, thumb_size=""
    )
    pieces = [
        (await peer.ask(functions().upload.GetFile(location=where, offset=offset, limit=4 * KIB))).bytes
        for offset in range(0, 12 * KIB, 4 * KIB)
    ]
    assert b"".join(pieces) == content
    assert dc.seen.times_delivered("here", bot.user_id) == 1


async def test_a_missing_part_is_named(dc: Datacenter, peer: Peer) -> None:
    """A file of which a part is missing is refused with that part's number, and nothing is sent."""
    file = await upload(peer, bytes(2048))
    file.parts = 4
    assert await peer.error(document(dc, file)) == "400 FILE_PART_2_MISSING"
    assert not dc.seen.sends


PARTS = {
    "negative": ({"file_part": -1}, "400 FILE_PART_INVALID"),
    "empty": ({"bytes": b""}, "400 FILE_PART_EMPTY"),
    "too big": ({"bytes": bytes(512 * 1024 + 1)}, "400 FILE_PART_TOO_BIG"),
    "beyond the end": ({"file_part": 4}, "400 FILE_PART_INVALID"),
    "no parts": ({"file_total_parts": 0}, "400 FILE_PARTS_INVALID"),
    "another total": ({"file_total_parts": 3}, "400 FILE_PARTS_INVALID"),
    "no whole KiB": ({"bytes": b"x"}, "400 FILE_PART_SIZE_INVALID"),
    "no divisor of 512 KiB": ({"bytes": bytes(3 * KIB)}, "400 FILE_PART_SIZE_INVALID"),
    "another size": ({"file_part": 1, "bytes": bytes(2 * KIB)}, "400 FILE_PART_SIZE_CHANGED"),
}


@pytest.mark.parametrize(("fields", "error"), PARTS.values(), ids=PARTS.keys())
async def test_wrong_parts_are_refused(peer: Peer, fields: dict[str, Any], error: str) -> None:
    """A part that is none gets the error that Telegram gives."""
    good = {"file_id": 1, "file_part": 0, "file_total_parts": 4, "bytes": bytes(KIB)}
    assert await peer.ask(functions().upload.SaveBigFilePart(**good)) is True
    assert await peer.error(functions().upload.SaveBigFilePart(**{**good, **fields})) == error


FILES: dict[str, tuple[list[int], str, str | None]] = {
    "even": ([PART, PART, 5], "big big", None),
    "one odd part": ([5], "small small", None),
    "the last is the largest": ([KIB, KIB, 2 * KIB], "small small", "400 FILE_PART_SIZE_CHANGED"),
    "uneven": ([2 * KIB, KIB, KIB], "small small", "400 FILE_PART_SIZE_CHANGED"),
    "of odd parts": ([1000, 1000], "small small", "400 FILE_PART_SIZE_INVALID"),
    "small parts, big file": ([KIB, KIB], "small big", "400 FILE_PARTS_INVALID"),
    "big parts, small file": ([KIB, KIB], "big small", "400 FILE_PARTS_INVALID"),
    "too large for a small one": ([PART] * 20 + [1], "small small", "400 FILE_PARTS_INVALID"),
}


@pytest.mark.parametrize(("sizes", "kinds", "error"), FILES.values(), ids=FILES.keys())
async def test_a_file_is_made_of_even_parts_of_its_kind(
    dc: Datacenter, peer: Peer, sizes: list[int], kinds: str, error: str | None
) -> None:
    """All parts but the last are of one size that divides 512 KiB; small parts make small files, big ones big."""
    saved, named = kinds.split()
    await save(peer, 8, [bytes(size) for size in sizes], big=saved == "big")
    what = {"id": 8, "parts": len(sizes), "name": "a.bin"}
    file = types().InputFileBig(**what) if named == "big" else types().InputFile(**what, md5_checksum="")
    if error is None:
        await peer.ask(document(dc, file))
        ((_, stored),) = dc.engine.files.files.items()
        assert (len(stored.content), stored.saves.total()) == (sum(sizes), len(sizes))
    else:
        assert await peer.error(document(dc, file)) == error
        assert not dc.seen.sends


async def test_only_files_that_are_known_come_down(dc: Datacenter, peer: Peer) -> None:
    """A wrong hash is no location, a stale reference has expired; media that names no file is invalid."""
    answer = await peer.ask(document(dc, await upload(peer, b"x" * 100)))
    found = answer.updates[1].message.media.document

    def get(**wrong: Any) -> Any:
        kept = {"id": found.id, "access_hash": found.access_hash, "file_reference": found.file_reference}
        where = types().InputDocumentFileLocation(**{**kept, **wrong}, thumb_size="")
        return functions().upload.GetFile(location=where, offset=0, limit=4 * KIB)

    assert (await peer.ask(get())).bytes == b"x" * 100
    assert await peer.error(get(access_hash=1)) == "400 LOCATION_INVALID"
    assert await peer.error(get(file_reference=b"old")) == "400 FILE_REFERENCE_EXPIRED"
    query = document(dc, None, 9)
    query.media = types().InputMediaGeoPoint(geo_point=types().InputGeoPointEmpty())
    assert await peer.error(query) == "400 MEDIA_INVALID"


async def test_pieces_are_aligned_and_of_one_mebibyte(dc: Datacenter, peer: Peer) -> None:
    """Offset and limit are multiples of 4 KiB, or of 1 KiB where that is asked for; 1 MiB is whole pieces of it."""
    stored = dc.add_file(os.urandom(3 * 1024 * KIB))
    where = location(stored)

    def get(offset: int, limit: int, **how: Any) -> Any:
        return functions().upload.GetFile(location=where, offset=offset, limit=limit, **how)

    for offset, limit, how in (
        (0, 1024 * KIB, {}),
        (4 * KIB, 4 * KIB, {}),
        (3 * KIB, 5 * KIB, {"precise": True}),
    ):
        assert (await peer.ask(get(offset, limit, **how))).bytes == stored.content[offset : offset + limit]
    assert (await peer.ask(get(3 * 1024 * KIB, 4 * KIB))).bytes == b""
    for offset in (-4 * KIB, 1, KIB):
        assert await peer.error(get(offset, 4 * KIB)) == "400 OFFSET_INVALID"
    for offset, limit in (
        (0, 0),
        (0, -4 * KIB),
        (0, KIB),
        (0, 12 * KIB),
        (0, 2048 * KIB),
        (512 * KIB, 1024 * KIB),
    ):
        assert await peer.error(get(offset, limit)) == "400 LIMIT_INVALID"
    assert await peer.error(get(1020 * KIB, 5 * KIB, precise=True)) == "400 LIMIT_INVALID"


def location(stored: StoredFile) -> Any:
    return types().InputDocumentFileLocation(
        id=stored.id, access_hash=stored.access_hash, file_reference=stored.reference, thumb_size=""
    )


async def test_a_known_document_is_sent_again(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A document that was uploaded once is sent by its id and hash, without its parts."""
    answer = await peer.ask(document(dc, await upload(peer, b"x" * 100)))
    found = answer.updates[1].message.media.document
    query = document(dc, None, 10)
    named = types().InputDocument(
        id=found.id, access_hash=found.access_hash, file_reference=found.file_reference
    )
    query.media = types().InputMediaDocument(id=named)
    again = await peer.ask(query)
    assert again.updates[1].message.media.document.id == found.id
    assert len(dc.seen.sends[bot.user_id]) == 2


async def test_a_wrong_checksum_is_refused(dc: Datacenter, peer: Peer) -> None:
    """A file whose MD5 isn't what the client says is refused."""
    file = await upload(peer, bytes(2048))
    file.md5_checksum = md5(b"x").hexdigest()
    assert await peer.error(document(dc, file)) == "400 MD5_CHECKSUM_INVALID"


async def test_a_media_message_is_sent_once(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """messages.sendMedia keeps random_ids like messages.sendMessage."""
    await peer.ask(document(dc, await upload(peer, bytes(100)), 55))
    assert await peer.error(document(dc, await upload(peer, bytes(100)), 55)) == "500 RANDOM_ID_DUPLICATE"
    assert len(dc.seen.sends[bot.user_id]) == 1
