"""Sessions and peers: rows in memory, one shared writer, one file (``state_dir/sessions.db``).

A room of small files, and the only one beside `record` that touches SQLite:

    errors     what can go wrong, in words that say what to do
    rows       the values: Session, Peer, UpdateRow, ImportedSession, OldSession
    schema     the tables; opening, checking and locking the file
    writer     the one thread that reads and writes it, one transaction a tick
    known      one account's peers and update state, in memory
    account    AccountStorage, one account behind both libraries' `Storage` interface
    db         SessionsDb, the file with all its accounts
    takeover   existing Pyrogram sessions, read as copies
    export     a session given back as a string or a .session file
"""

from supervisor.telegram.storage.account import AccountStorage
from supervisor.telegram.storage.db import SessionsDb
from supervisor.telegram.storage.errors import SessionInUse, SessionUnreadable, StorageBroken
from supervisor.telegram.storage.rows import ImportedSession, OldSession, Peer, Session, UpdateRow
from supervisor.telegram.storage.takeover import read_session_file, read_session_string

__all__ = [
    "AccountStorage",
    "ImportedSession",
    "OldSession",
    "Peer",
    "Session",
    "SessionInUse",
    "SessionUnreadable",
    "SessionsDb",
    "StorageBroken",
    "UpdateRow",
    "read_session_file",
    "read_session_string",
]
