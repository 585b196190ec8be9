"""The tables of sessions.db; opening, checking and locking the file. All of it blocks: for the writer's thread."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from supervisor.errors import AlreadyRunning
from supervisor.telegram.storage.errors import StorageBroken, broken
from supervisor.telegram.storage.rows import OldSession, Peer, Session, UpdateRow

APPLICATION_ID = 0x74677376  # "tgsv"
VERSION = 1
BUSY_TIMEOUT = 5.0  # seconds

_SESSION_COLUMNS = (
    "dc_id, server_address, port, api_id, test_mode, auth_key, date, user_id, is_bot, "
    "server_salt, time_offset, epoch, owner"
)

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE accounts (
    n              INTEGER PRIMARY KEY,
    identity       TEXT NOT NULL UNIQUE,
    dc_id          INTEGER,
    server_address TEXT,
    port           INTEGER,
    api_id         INTEGER,
    test_mode      INTEGER,
    auth_key       BLOB,
    date           INTEGER NOT NULL,
    user_id        INTEGER,
    is_bot         INTEGER,
    server_salt    INTEGER,
    time_offset    REAL,
    epoch          INTEGER NOT NULL,
    owner          INTEGER
);
-- Keys are never deleted: a replaced session stands here, dated. No statement of this program deletes from it.
CREATE TABLE old_sessions (
    id             INTEGER PRIMARY KEY,
    identity       TEXT NOT NULL,
    retired_at     REAL NOT NULL,
    reason         TEXT NOT NULL,
    dc_id          INTEGER,
    server_address TEXT,
    port           INTEGER,
    api_id         INTEGER,
    test_mode      INTEGER,
    auth_key       BLOB,
    date           INTEGER NOT NULL,
    user_id        INTEGER,
    is_bot         INTEGER,
    server_salt    INTEGER,
    time_offset    REAL,
    epoch          INTEGER NOT NULL,
    owner          INTEGER
);
CREATE INDEX old_sessions_of ON old_sessions (identity, retired_at);
CREATE TABLE peers (
    account     INTEGER NOT NULL,
    id          INTEGER NOT NULL,
    access_hash INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    phone       TEXT,
    seen        INTEGER NOT NULL,
    PRIMARY KEY (account, id)
) WITHOUT ROWID;
-- A username belongs to one peer at a time: the one that was last seen with it.
CREATE TABLE usernames (
    account  INTEGER NOT NULL,
    username TEXT NOT NULL,
    peer     INTEGER NOT NULL,
    place    INTEGER NOT NULL,
    PRIMARY KEY (account, username)
) WITHOUT ROWID;
CREATE INDEX usernames_of ON usernames (account, peer);
CREATE TABLE update_state (
    account INTEGER NOT NULL,
    id      INTEGER NOT NULL,
    pts     INTEGER,
    qts     INTEGER,
    date    INTEGER,
    seq     INTEGER,
    PRIMARY KEY (account, id)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""

# Keys for other datacenters than an account's own. They sign nobody in by themselves: `epoch` is that of the account's
# key with which the authorization was exported. What an older file lacks it gets when it is opened.
_FOREIGN_KEYS = """
CREATE TABLE IF NOT EXISTS foreign_keys (
    account  INTEGER NOT NULL,
    dc_id    INTEGER NOT NULL,
    media    INTEGER NOT NULL,
    auth_key BLOB NOT NULL,
    epoch    INTEGER NOT NULL,
    PRIMARY KEY (account, dc_id, media)
) WITHOUT ROWID;
"""

PUT_SESSION = f"INSERT OR REPLACE INTO accounts (n, identity, {_SESSION_COLUMNS}) VALUES ({'?, ' * 14}?)"
PUT_OLD = (
    f"INSERT INTO old_sessions (identity, retired_at, reason, {_SESSION_COLUMNS}) VALUES ({'?, ' * 15}?)"
)
PUT_PEER = (
    "INSERT OR REPLACE INTO peers (account, id, access_hash, kind, phone, seen) VALUES (?, ?, ?, ?, ?, ?)"
)
PUT_NAME = "INSERT OR REPLACE INTO usernames (account, username, peer, place) VALUES (?, ?, ?, ?)"
DROP_NAMES = "DELETE FROM usernames WHERE account = ? AND peer = ?"
PUT_STATE = "INSERT OR REPLACE INTO update_state (account, id, pts, qts, date, seq) VALUES (?, ?, ?, ?, ?, ?)"
PUT_FOREIGN_KEY = (
    "INSERT OR REPLACE INTO foreign_keys (account, dc_id, media, auth_key, epoch) VALUES (?, ?, ?, ?, ?)"
)
DROP_STATE = "DELETE FROM update_state WHERE account = ? AND id = ?"
FORGET = (
    "DELETE FROM peers WHERE account = ?",
    "DELETE FROM usernames WHERE account = ?",
    "DELETE FROM update_state WHERE account = ?",
)

Known = tuple[dict[int, Peer], dict[int, UpdateRow]]


def session_row(session: Session) -> tuple[Any, ...]:
    """The session as a row, in the order of the columns."""
    return (
        session.dc_id,
        session.server_address,
        session.port,
        session.api_id,
        session.test_mode,
        session.auth_key,
        session.date,
        session.user_id,
        session.is_bot,
        session.server_salt,
        session.time_offset,
        session.epoch,
        session.owner,
    )


def _session(row: Iterable[Any]) -> Session:
    dc, address, port, api, test, key, date, user, bot, salt, offset, epoch, owner = row
    test, bot = (None if flag is None else bool(flag) for flag in (test, bot))
    return Session(dc, address, port, api, test, key, date, user, bot, salt, offset, epoch, owner)


def read_sessions(connection: sqlite3.Connection) -> dict[str, tuple[int, Session]]:
    """All accounts' sessions, with the number under which each account's rows are kept."""
    rows = connection.execute(f"SELECT n, identity, {_SESSION_COLUMNS} FROM accounts")
    return {row[1]: (row[0], _session(row[2:])) for row in rows}


def read_old(connection: sqlite3.Connection, identity: str) -> list[OldSession]:
    """The account's replaced sessions, oldest first."""
    rows = connection.execute(
        f"SELECT identity, retired_at, reason, {_SESSION_COLUMNS} FROM old_sessions WHERE identity = ? ORDER BY id",
        (identity,),
    )
    return [OldSession(row[0], row[1], row[2], _session(row[3:])) for row in rows]


def read_foreign_key(
    connection: sqlite3.Connection, account: int, dc_id: int, *, media: bool, epoch: int
) -> bytes | None:
    """The account's key for another datacenter; None where there is none of this epoch."""
    query = "SELECT auth_key FROM foreign_keys WHERE account = ? AND dc_id = ? AND media = ? AND epoch = ?"
    row = connection.execute(query, (account, dc_id, media, epoch)).fetchone()
    return None if row is None else bytes(row[0])


def read_known(connection: sqlite3.Connection, account: int) -> Known:
    """What one account knows: its peers and its update state."""
    names: dict[int, tuple[str, ...]] = {}
    query = "SELECT peer, username FROM usernames WHERE account = ? ORDER BY peer, place"
    for peer, username in connection.execute(query, (account,)):
        names[peer] = (*names.get(peer, ()), username)
    kinds: dict[str, str] = {}  # one object for each kind, not one for each row
    query = "SELECT id, access_hash, kind, phone, seen FROM peers WHERE account = ?"
    peers = {
        row[0]: Peer(row[1], kinds.setdefault(row[2], row[2]), row[3], row[4], names.get(row[0], ()))
        for row in connection.execute(query, (account,))
    }
    query = "SELECT id, pts, qts, date, seq FROM update_state WHERE account = ?"
    return peers, {row[0]: UpdateRow(*row) for row in connection.execute(query, (account,))}


def _lock(path: Path) -> int:
    # A file of its own: closing another descriptor of the database would drop SQLite's own locks on it.
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(
            path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise broken(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise AlreadyRunning(str(path.parent), int(holder) if holder.isdecimal() else None) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def connect(path: Path) -> tuple[sqlite3.Connection, int]:
    """Lock and open the database, creating it where there is none.

    Returns:
        The connection, and the lock's descriptor: close the connection first.

    Raises:
        AlreadyRunning: another process has it open.
        StorageBroken: it cannot be opened, is damaged, or is not ours.
    """
    lock = _lock(path)
    try:
        return _connect(path), lock
    except BaseException:
        os.close(lock)
        raise


def close(connection: sqlite3.Connection, lock: int) -> None:
    """Undo `connect`."""
    try:
        connection.close()
    finally:
        os.close(lock)


def _connect(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        raise broken(path, error) from error
    try:
        new = _is_new(path, connection)
        path.chmod(0o600)  # SQLite gives its -wal and -shm the mode of the database
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: a commit outlives a power cut. It is one fsync a tick, in this thread.
        connection.execute("PRAGMA synchronous = FULL")
        if new:
            connection.executescript(_SCHEMA)
        connection.executescript(_FOREIGN_KEYS)
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        if problems != ["ok"]:
            raise broken(path, _corrupt(problems))
    except (sqlite3.Error, OSError) as error:
        connection.close()
        raise broken(path, error) from error
    except StorageBroken:
        connection.close()
        raise
    return connection


def _is_new(path: Path, connection: sqlite3.Connection) -> bool:
    # Only reads: a file that is not ours stays as it is.
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if owner == APPLICATION_ID:
        if version > VERSION:
            raise StorageBroken(
                path, f"was written by a newer tg-supervisor (schema {version}): update this one"
            )
        return False
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        problem = "is a database of another program: move it away, or choose another state_dir"
        raise StorageBroken(path, problem)
    return True


def _corrupt(problems: list[str]) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("; ".join(problems))
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
