"""What can go wrong with sessions, in words that say what to do.

SupervisorError
├── StorageBroken         sessions.db, or a file to be written, cannot be used
├── SessionUnreadable     a session file or string that cannot be taken over or given back
└── SessionInUse          one key, two accounts: Telegram would kill it
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from supervisor.config.model import mask_phone
from supervisor.errors import SupervisorError

# What core/errors.tsv calls a session that a retry would find as unusable as before, and one that is locked.
SESSION_INVALID = "SESSION_INVALID"
LOCKED = "SQLITE_BUSY"


class StorageBroken(SupervisorError):
    """The file cannot be read or written. Nothing in it was deleted.

    Args:
        path: the file.
        problem: what is wrong and what to do, as a clause that follows the path.
        error_id: SQLite's name for it (``SQLITE_FULL``), by which core/errors.tsv judges it.
    """

    def __init__(self, path: Path | str, problem: str, error_id: str | None = None) -> None:
        super().__init__(f"{path} {problem}")
        self.path = str(path)
        self.problem = problem
        self.error_id = error_id


class SessionUnreadable(SupervisorError):
    """A session that cannot be taken over, or given back.

    Args:
        source: the file's path, "the session string" or the account; never the string itself.
        problem: what is wrong and what to do, as a clause that follows the source.
        error_id: by which core/errors.tsv judges it; None for what may pass by itself.
    """

    def __init__(self, source: Path | str, problem: str, error_id: str | None = SESSION_INVALID) -> None:
        super().__init__(f"{source} {problem}")
        self.source = str(source)
        self.problem = problem
        self.error_id = error_id


class SessionInUse(SupervisorError):
    """Another account of this process uses the same auth key.

    Args:
        wanted: the account that was refused.
        holder: the account that uses the key.
    """

    def __init__(self, wanted: str, holder: str) -> None:
        super().__init__(
            f"{wanted} has the same session as {holder}, which is running: Telegram ends a session that is "
            "used twice (AUTH_KEY_DUPLICATED). Remove one of the two accounts, or sign one in anew"
        )
        self.wanted = wanted
        self.holder = holder


# SQLite's primary result codes (sqlite.org/rescode.html), and what a person can do about each.
_DAMAGED = (
    "is damaged. Stop the daemon, keep a copy, and restore it from a backup or with sqlite3's .recover; "
    "without it every account must sign in again. Nothing was deleted"
)
_REMEDIES = {
    sqlite3.SQLITE_BUSY: "is locked by another program (a backup, a sqlite3 shell?): close that program",
    sqlite3.SQLITE_LOCKED: "is locked by another program (a backup, a sqlite3 shell?): close that program",
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "cannot be read or written, the disk reports an error: check it, and its free space",
    sqlite3.SQLITE_READONLY: "cannot be written: check its owner and permissions, and those of its directory",
    sqlite3.SQLITE_PERM: "cannot be written: check its owner and permissions, and those of its directory",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check its owner and permissions, and those of its directory",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}


def broken(path: Path, error: sqlite3.Error | OSError) -> StorageBroken:
    """Put SQLite's or the system's error into words that say what to do.

    Args:
        path: the file.
        error: the error; its text never holds values of rows.
    """
    if isinstance(error, OSError):
        return StorageBroken(
            path, f"cannot be used: {error.strerror or error}; check its owner and permissions"
        )
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    remedy = _REMEDIES.get(code, "cannot be used: keep a copy of it and report this error")
    name = getattr(error, "sqlite_errorname", None)
    return StorageBroken(path, f"{remedy} ({type(error).__name__}: {error})", name)


def shown(identity: str) -> str:
    """The identity as it may be shown: a phone number masked to ``+49…78``.

    Args:
        identity: as ``bot:110201543``, ``phone:+4915112345678``, ``session:NAME``.
    """
    kind, _, value = identity.partition(":")
    return f"{kind}:{mask_phone(value)}" if kind == "phone" else identity
