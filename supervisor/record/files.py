"""recovery.db as a file: created for its owner's eyes only, brought up to date, and set aside when it is damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from supervisor.record.migrations import migrate, version

_log = logging.getLogger(__name__)

BUSY_TIMEOUT = 0.2  # s that SQLite waits for another's lock before the write counts as failed

# Pages freed by retention are handed back to the file system bit by bit.
_NEW_FILE = "PRAGMA auto_vacuum = INCREMENTAL"

# WAL: readers and the writer never wait for each other. NORMAL: a commit is in the hands of the kernel, so kill -9
# loses nothing; after a power cut the file is whole, but commits since the last checkpoint (seconds to minutes)
# may be gone. FULL would cost an fsync for each commit, on which every held call would wait.
PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", "PRAGMA journal_size_limit = 67108864")


def uri(path: Path, mode: str) -> str:
    """The file as SQLite opens it in a mode of its own, as ``ro`` or ``rw``: neither makes it where it is gone.

    Args:
        path: the file.
        mode: https://www.sqlite.org/uri.html#urimode.
    """
    return f"file:{quote(str(path.absolute()))}?mode={mode}"


def prepare(path: Path) -> None:
    """Create recovery.db or bring it up to date. A damaged one is set aside, and a new one begun.

    Raises:
        ConfigError: it was written by a newer release.
        sqlite3.OperationalError: it is locked, the disk is full …: to be tried again.
        OSError: the same, while the file was being created.
    """
    try:
        _prepare(path)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        set_aside(path, error)
        _prepare(path)


def is_damage(error: Exception) -> bool:
    """Whether SQLite says that the file itself is broken; all that may pass by itself is an OperationalError."""
    return type(error) is sqlite3.DatabaseError


def _prepare(path: Path) -> None:
    if not path.exists():
        _forget_wal(path)  # left behind by a file that was deleted: SQLite would read it into the new one
        # Only a new file is opened here: closing it drops the locks of every connection that this process has to it
        # (sqlite.org/howtocorrupt.html, 2.2).
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)  # -wal and -shm take over the mode
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)) as db:
        if version(db) == 0:
            db.execute(_NEW_FILE)
        for pragma in PRAGMAS:
            db.execute(pragma)
        migrate(db, str(path))


def set_aside(path: Path, error: Exception) -> None:
    """Keep a damaged recovery.db under another name, so that a new one can be begun."""
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    path.rename(aside)
    _forget_wal(path)
    _log.error("%s is damaged (%s): kept as %s, a new recovery log is begun", path, error, aside.name)


def _forget_wal(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
