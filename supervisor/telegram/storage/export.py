"""A session given back: as a string, or as a .session file that both libraries read."""

from __future__ import annotations

import base64
import os
import sqlite3
import struct
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from supervisor.telegram.storage.errors import SessionUnreadable, StorageBroken, broken
from supervisor.telegram.storage.rows import PEER_KINDS, Peer, Session

STRING_FORMAT = ">BI?256sQ?"  # both libraries' storage/storage.py

# Pyrogram 2.0.106, storage/sqlite_storage.py, schema 3; Kurigram migrates it when it opens the file.
_SCHEMA = """
CREATE TABLE sessions (
    dc_id INTEGER PRIMARY KEY, api_id INTEGER, test_mode INTEGER, auth_key BLOB,
    date INTEGER NOT NULL, user_id INTEGER, is_bot INTEGER
);
CREATE TABLE peers (
    id INTEGER PRIMARY KEY, access_hash INTEGER, type INTEGER NOT NULL, username TEXT, phone_number TEXT,
    last_update_on INTEGER NOT NULL DEFAULT (CAST(STRFTIME('%s', 'now') AS INTEGER))
);
CREATE TABLE version (number INTEGER PRIMARY KEY);
CREATE INDEX idx_peers_id ON peers (id);
CREATE INDEX idx_peers_username ON peers (username);
CREATE INDEX idx_peers_phone_number ON peers (phone_number);
CREATE TRIGGER trg_peers_last_update_on AFTER UPDATE ON peers
BEGIN
    UPDATE peers SET last_update_on = CAST(STRFTIME('%s', 'now') AS INTEGER) WHERE id = NEW.id;
END;
INSERT INTO version VALUES (3);
"""


def session_string(account: str, session: Session) -> str:
    """The session as a string of 362 characters that both libraries accept.

    Args:
        account: for the message.
        session: the session.

    Raises:
        SessionUnreadable: nobody is signed in.
    """
    if not session.signed_in or session.dc_id is None:
        raise SessionUnreadable(account, "has no session to give back: nobody is signed in")
    packed = struct.pack(
        STRING_FORMAT,
        session.dc_id,
        session.api_id or 0,
        bool(session.test_mode),
        session.auth_key,
        session.user_id,
        bool(session.is_bot),
    )
    return base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def write_session_file(path: Path, session: Session, peers: Mapping[int, Peer]) -> None:
    """Write a .session file of schema 3, mode 0600. Blocks.

    Args:
        path: must not exist.
        session: a signed-in session.
        peers: its peers by id.

    Raises:
        StorageBroken: the file exists, or cannot be written.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        raise StorageBroken(path, "exists already: choose another name, nothing was overwritten") from error
    except OSError as error:
        raise broken(path, error) from error
    row = (
        session.dc_id,
        session.api_id,
        bool(session.test_mode),
        session.auth_key,
        session.date or int(time.time()),
        session.user_id,
        bool(session.is_bot),
    )
    peer_rows = [
        (
            peer_id,
            peer.access_hash,
            PEER_KINDS[peer.kind],
            next(iter(peer.names), None),
            peer.phone,
            peer.seen,
        )
        for peer_id, peer in peers.items()
        if peer.kind in PEER_KINDS
    ]
    try:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executescript(_SCHEMA)
            connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            connection.executemany("INSERT INTO peers VALUES (?, ?, ?, ?, ?, ?)", peer_rows)
    except sqlite3.Error as error:
        path.unlink(missing_ok=True)  # half of a file that is ours
        raise broken(path, error) from error
