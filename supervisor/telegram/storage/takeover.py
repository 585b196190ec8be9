"""Existing sessions of Pyrogram and Kurigram, taken over as copies.

The original is only ever read as bytes.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import shutil
import sqlite3
import struct
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from supervisor.telegram.storage.errors import LOCKED, SessionUnreadable
from supervisor.telegram.storage.export import STRING_FORMAT
from supervisor.telegram.storage.rows import KEY_SIZE, PEER_KINDS, ImportedSession, Peer, UpdateRow

# Both libraries' storage/storage.py: characters -> format. The older two carry no api_id.
_STRING_FORMATS = {362: STRING_FORMAT, 356: ">B?256sQ?", 351: ">B?256sI?"}
_MAGIC = b"SQLite format 3\x00"
_COPY_ATTEMPTS = 3
# Where SQLite puts its locks: PENDING_BYTE and the 511 after it (sqlite.org/src, os_unix.c).
_LOCKS = 0x40000000, 512
_FLOCK = "hhqqi"  # struct flock on 64-bit Linux: type, whence, start, length, process
# A random key that ends in so many zero bytes does not occur; a shorter key that was padded does.
_PADDING = 16
_SIGN_IN = "nobody is signed in with it: sign in with `tg-supervisor login NAME`"


def read_session_string(text: str) -> ImportedSession:
    """Read a session string of any of the three known formats.

    Args:
        text: the string; white space around it is ignored.

    Raises:
        SessionUnreadable: it is no such string. The message never holds any of it.
    """
    source = "the session string"
    text = "".join(text.split()).rstrip("=")
    layout = _STRING_FORMATS.get(len(text))
    if layout is None:
        problem = f"has {len(text)} characters; Pyrogram's have 362 (older ones 351 or 356)"
        raise SessionUnreadable(source, f"{problem}: copy it whole, or export it again")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        values = struct.unpack(layout, data)
    except (binascii.Error, ValueError, struct.error) as error:
        raise SessionUnreadable(source, "is not base64: copy it whole, or export it again") from error
    columns: tuple[str, ...] = ("dc_id", "api_id", "test_mode", "auth_key", "user_id", "is_bot")
    if len(values) == 5:
        columns = ("dc_id", "test_mode", "auth_key", "user_id", "is_bot")
    return _imported(source, dict(zip(columns, values, strict=True)))


def read_session_file(path: Path) -> ImportedSession:
    """Read a .session file of Pyrogram's or Kurigram's, whatever its schema. Blocks.

    The bytes of the file, and of a journal beside it, are copied and the copy is read: opening the original
    would change it. A file that another program has locked is that program's session: used twice, Telegram
    would end it.

    Args:
        path: the file.

    Raises:
        SessionUnreadable: it is not such a file, is damaged or in use, or nobody is signed in with it.
    """
    with tempfile.TemporaryDirectory(prefix="tg-supervisor-") as directory:  # mode 0700
        copy = _copy(path, Path(directory))
        try:
            with closing(sqlite3.connect(copy)) as connection:
                connection.row_factory = sqlite3.Row
                return _read(path, connection)
        except sqlite3.Error as error:
            problem = "is damaged or cut short: take it over from a backup, or sign in anew"
            raise SessionUnreadable(path, f"{problem} ({error})") from error


def _stamp(path: Path) -> list[tuple[int, int] | None]:
    stamps: list[tuple[int, int] | None] = []
    for part in _parts(path):
        try:
            stat = part.stat()
        except FileNotFoundError:
            stamps.append(None)
        else:
            stamps.append((stat.st_size, stat.st_mtime_ns))
    return stamps


def _parts(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("", "-journal", "-wal")]


def _copy(path: Path, directory: Path) -> Path:
    try:
        _refuse_if_locked(path)
        for _ in range(_COPY_ATTEMPTS):
            before = _stamp(path)
            for part in _parts(path):
                target = directory / part.name
                target.unlink(missing_ok=True)
                if part == path or part.exists():
                    shutil.copyfile(part, target)
            if _stamp(path) == before:
                break
        else:
            problem = "is being written by another program: stop that program first"
            raise SessionUnreadable(path, problem, LOCKED)
    except FileNotFoundError as error:
        raise SessionUnreadable(path, "does not exist: check the path", None) from error
    except IsADirectoryError as error:
        raise SessionUnreadable(path, "is a directory: give the .session file in it") from error
    except OSError as error:
        raise SessionUnreadable(path, f"cannot be read: {error.strerror or error}", None) from error
    copy = directory / path.name
    head = _head(copy)
    if not head and not any(part.exists() and part.stat().st_size for part in _parts(copy)[1:]):
        raise SessionUnreadable(path, "is empty: it never held a session, or was cut; sign in anew")
    if head and head != _MAGIC:
        raise SessionUnreadable(path, "is not an SQLite database, so no session file: check the path")
    return copy


def _refuse_if_locked(path: Path) -> None:
    """Ask who holds one of SQLite's locks on the file; none is taken."""
    if sys.platform != "linux" or struct.calcsize("P") != 8:
        return  # struct flock looks otherwise
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, *_LOCKS, 0)
        kind, *_, holder = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    if kind != fcntl.F_UNLCK:
        problem = f"is locked by another program (process {holder}): stop that program first; Telegram ends a session"
        raise SessionUnreadable(path, f"{problem} that is used twice (AUTH_KEY_DUPLICATED)", LOCKED)


def _head(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, len(_MAGIC))
    finally:
        os.close(descriptor)


def _read(path: Path, connection: sqlite3.Connection) -> ImportedSession:
    problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    if problems != ["ok"]:
        raise sqlite3.DatabaseError(problems[0])
    columns = _columns(connection, "sessions")
    if not columns:
        raise SessionUnreadable(
            path, "holds no table of sessions: it is not a session file, or was never used"
        )
    missing = {"dc_id", "auth_key", "user_id", "is_bot"} - columns
    if missing:
        problem = f"is no session of Pyrogram's (Telethon's?): it has no {', '.join(sorted(missing))}"
        raise SessionUnreadable(path, f"{problem}; sign in anew")
    row = connection.execute("SELECT * FROM sessions").fetchone()
    if row is None:
        raise SessionUnreadable(path, f"holds no session: {_SIGN_IN}")
    return _imported(path, dict(row), _peers(connection), _states(connection))


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _imported(
    source: Path | str,
    row: Mapping[str, Any],
    peers: dict[int, Peer] | None = None,
    states: tuple[UpdateRow, ...] = (),
) -> ImportedSession:
    key, user_id, is_bot, dc_id = row["auth_key"], row["user_id"], row["is_bot"], row["dc_id"]
    if key is None or user_id is None or is_bot is None:
        raise SessionUnreadable(source, f"holds no signed-in session, {_SIGN_IN}")
    if not isinstance(key, bytes) or len(key) != KEY_SIZE or not any(key[-_PADDING:]):
        size = len(key.rstrip(b"\0")) if isinstance(key, bytes) else "no"
        raise SessionUnreadable(source, f"holds a key of {size} bytes instead of {KEY_SIZE}: sign in anew")
    if not isinstance(dc_id, int) or not isinstance(user_id, int) or dc_id < 1 or user_id < 1:
        raise SessionUnreadable(source, "names no datacenter or no user: it is damaged; sign in anew")
    return ImportedSession(
        dc_id=dc_id,
        api_id=row.get("api_id"),
        test_mode=bool(row.get("test_mode")),
        auth_key=key,
        user_id=user_id,
        is_bot=bool(is_bot),
        date=row.get("date") or 0,
        server_address=row.get("server_address"),
        port=row.get("port"),
        peers=peers or {},
        states=states,
    )


def _peers(connection: sqlite3.Connection) -> dict[int, Peer]:
    columns = _columns(connection, "peers")
    if not {"id", "access_hash", "type"} <= columns:
        return {}
    names: dict[int, tuple[str, ...]] = {}
    if {"id", "username"} <= _columns(connection, "usernames"):
        for peer_id, username in connection.execute("SELECT id, username FROM usernames ORDER BY rowid"):
            if username and username not in names.get(peer_id, ()):
                names[peer_id] = (*names.get(peer_id, ()), username)
    optional = [name for name in ("username", "phone_number", "last_update_on") if name in columns]
    peers: dict[int, Peer] = {}
    order = " ORDER BY last_update_on" if "last_update_on" in columns else ""
    for row in connection.execute(
        f"SELECT {', '.join(['id', 'access_hash', 'type', *optional])} FROM peers{order}"
    ):
        found = dict(row)
        if found["type"] not in PEER_KINDS or not isinstance(found["access_hash"], int):
            continue
        own = (found["username"],) if found.get("username") else ()
        peers[found["id"]] = Peer(
            found["access_hash"],
            found["type"],
            found.get("phone_number"),
            found.get("last_update_on") or 0,
            names.get(found["id"], own),
        )
    return peers


def _states(connection: sqlite3.Connection) -> tuple[UpdateRow, ...]:
    if not {"id", "pts", "qts", "date", "seq"} <= _columns(connection, "update_state"):
        return ()
    rows = connection.execute("SELECT id, pts, qts, date, seq FROM update_state")
    return tuple(UpdateRow(*row) for row in rows)
