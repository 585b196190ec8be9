"""The tables of recovery.db, as numbered steps; each is applied once, in a transaction of its own.

A step is never edited after a release: a change is a new step. `user_version` holds the number of the last one.
"""

from __future__ import annotations

import sqlite3

from supervisor.errors import ConfigError
from supervisor.record import rollups

_FAILURES = """
CREATE TABLE failures (             -- the recovery log: one row per failure, and one that closes the incident
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used twice, so that readers can follow it
    at REAL NOT NULL,               -- Unix times
    last_at REAL NOT NULL,          -- of the last failure merged into the row
    incident TEXT,
    account TEXT,
    path TEXT NOT NULL,
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    error_id TEXT,
    error_code INTEGER,
    message TEXT NOT NULL,
    method TEXT,
    action TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    delay REAL NOT NULL,            -- seconds
    outcome TEXT NOT NULL,
    duration REAL,                  -- seconds
    cause TEXT,                     -- JSON: [outermost, …, innermost]
    traceback TEXT,
    context TEXT,                   -- JSON: [[key, value], …]
    count INTEGER NOT NULL,         -- how many failures the row stands for
    resolved_at REAL                -- by the incident's recovery or by a person
);
CREATE INDEX failures_at ON failures (at);
CREATE INDEX failures_account ON failures (account, at);
CREATE INDEX failures_unresolved ON failures (id) WHERE resolved_at IS NULL;
CREATE INDEX failures_of_incident ON failures (incident) WHERE resolved_at IS NULL AND incident IS NOT NULL;
"""
_V1 = f"""{_FAILURES}
CREATE TABLE incidents (
    id TEXT PRIMARY KEY,
    account TEXT,
    path TEXT NOT NULL,
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    opened_at REAL NOT NULL,
    closed_at REAL,                 -- NULL: open
    outcome TEXT,
    last_action TEXT,
    failures INTEGER NOT NULL,
    attempts TEXT NOT NULL,         -- JSON: {{kind: actions in a row}}
    backoff TEXT NOT NULL           -- JSON: {{kind: exponent of the next delay}}
) WITHOUT ROWID;
CREATE INDEX incidents_open ON incidents (opened_at) WHERE closed_at IS NULL;
CREATE INDEX incidents_closed ON incidents (closed_at) WHERE closed_at IS NOT NULL;

CREATE TABLE accounts (             -- the last snapshot of each
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    since REAL NOT NULL,
    path TEXT NOT NULL,
    user_id INTEGER,
    is_bot INTEGER,
    limited TEXT,                   -- JSON: [error_id, frozen, since, seen_at]
    retry_at REAL,
    incident TEXT,
    last_failure TEXT               -- JSON: the columns of a row of failures, without its id
) WITHOUT ROWID;

CREATE TABLE floods (               -- the waits that Telegram demanded
    account TEXT NOT NULL,
    method TEXT NOT NULL,
    peer TEXT NOT NULL,             -- '': the whole method
    seen_at REAL NOT NULL,
    seconds REAL NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (account, method, peer)
) WITHOUT ROWID;

CREATE TABLE sign_ins (account TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX sign_ins_at ON sign_ins (at);

CREATE TABLE meta (                 -- of the last daemon: pid, started_at, heartbeat_at, stopped_at
    key TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;
"""

_ENDED = """
CREATE INDEX failures_ended ON failures (at, account, kind, outcome, duration, count)
    WHERE outcome IN ('recovered', 'failed');
"""
_V2 = f"""
CREATE TABLE rollups (              -- rows of failures, counted; see rollups.py
    step INTEGER NOT NULL,          -- 3600 or 86400; V2 counted days of each account, too
    start INTEGER NOT NULL,         -- Unix time, a multiple of step
    account TEXT NOT NULL,          -- '*': all; '': rows without an account
    kind TEXT NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    count INTEGER NOT NULL,         -- of failures, not of rows
    longest REAL NOT NULL,          -- seconds
    lengths BLOB NOT NULL,          -- how long the recoveries took: a packed Histogram
    PRIMARY KEY (step, start, account, kind, action, outcome)
) WITHOUT ROWID;
{_ENDED}"""

# What `log` is asked for by kind, and what nobody has dealt with, is found without a walk through the whole log.
_V3 = """
CREATE TABLE totals (               -- rows of failures, counted for each account; see rollups.py
    step INTEGER NOT NULL,          -- 3600, 10800, 86400 or 864000
    start INTEGER NOT NULL,         -- Unix time, a multiple of step
    account TEXT NOT NULL,          -- '': rows without an account
    ended BLOB NOT NULL,            -- 32 bits for each way in which an incident ended
    counts BLOB NOT NULL,           -- 32 bits for each lane
    PRIMARY KEY (step, start, account)  -- with a rowid: a row of 1.5 kB then needs no page of its own
);
CREATE TABLE lanes (                -- what the lanes of totals.counts count
    number INTEGER PRIMARY KEY,     -- from 0
    kind TEXT NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    length INTEGER NOT NULL         -- class of the duration; -1: none
);
CREATE INDEX failures_kind ON failures (kind, at);
CREATE INDEX failures_account_kind ON failures (account, kind, at);
DROP INDEX failures_unresolved;
CREATE INDEX failures_unresolved_at ON failures (at) WHERE resolved_at IS NULL;
CREATE INDEX failures_unresolved_account ON failures (account, at) WHERE resolved_at IS NULL;
CREATE INDEX failures_unresolved_kind ON failures (kind, at) WHERE resolved_at IS NULL;
"""

# Outages of a path or of the whole fleet, which belong to many accounts, what is known of each path, and what each
# account goes on from.
_V4 = """
ALTER TABLE accounts ADD COLUMN standing TEXT;      -- JSON: core.standing.Standing; NULL: it begins anew
ALTER TABLE incidents ADD COLUMN accounts TEXT;     -- JSON: the names an outage touched; NULL: it is no outage
CREATE INDEX incidents_outage ON incidents (opened_at) WHERE accounts IS NOT NULL;
CREATE TABLE paths (                -- the last snapshot of each
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    accounts INTEGER NOT NULL,
    breaker TEXT NOT NULL,
    since REAL,                     -- Unix times
    probe_at REAL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    latency REAL,                   -- seconds
    last_failure TEXT,
    failed_at REAL,
    incident TEXT
) WITHOUT ROWID;
INSERT INTO rollups                 -- of all accounts also by the day
    SELECT 86400, start / 86400 * 86400 AS day, account, kind, action, outcome, sum(count), max(longest), merged(lengths)
    FROM rollups WHERE step = 3600 GROUP BY day, kind, action, outcome;
INSERT INTO meta                    -- of each also by the hour, from the next hour on
    SELECT 'hours_from', (strftime('%s', 'now') / 3600 + 1) * 3600
    WHERE EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'failures');
"""
HOURS_FROM = "hours_from"

MIGRATIONS: tuple[str, ...] = (_V1, _V2, _V3, _V4)
SCHEMA = len(MIGRATIONS)
PATHS_SINCE = 4
"""The step that keeps paths, outages and finer counts: readers may meet a file that only an older release has written."""


_INDEXED = 3  # the first step whose indexes and counts take long to make of many rows


def _aside(db: sqlite3.Connection) -> str:
    """What puts the rows of an older release aside, if there are any: see `takeover`.

    The old table keeps its indexes, and they their space; only their names make way, which takes no time.
    """
    found = version(db)
    if not 0 < found < _INDEXED or db.execute("SELECT 1 FROM failures LIMIT 1").fetchone() is None:
        return ""
    table = f"failures_v{found}"
    return f"""
        ALTER TABLE failures RENAME TO {table};
        PRAGMA writable_schema = ON;
        UPDATE sqlite_master SET name = 'v{found}_' || name, sql = replace(sql, 'INDEX failures_', 'INDEX v{found}_failures_')
            WHERE type = 'index' AND tbl_name = '{table}' AND sql IS NOT NULL;
        PRAGMA writable_schema = RESET;
        {_FAILURES}{_ENDED if found > 1 else ""}
        INSERT INTO sqlite_sequence SELECT 'failures', seq FROM sqlite_sequence WHERE name = '{table}';
    """


def put_aside(db: sqlite3.Connection) -> str | None:
    """The table with rows of an older release that are not taken over yet; None where there is none."""
    found = db.execute(
        "SELECT name FROM sqlite_master WHERE name IN ('failures_v1', 'failures_v2')"
    ).fetchone()
    return None if found is None else str(found[0])


def version(db: sqlite3.Connection) -> int:
    """The number of the last step that was applied."""
    number: int = db.execute("PRAGMA user_version").fetchone()[0]
    return number


def check_not_newer(db: sqlite3.Connection, path: str) -> None:
    """Refuse a recovery.db that a later release has written.

    Raises:
        ConfigError: it is newer than this program.
    """
    found = version(db)
    if found > SCHEMA:
        problem = (
            f"{path}: written by a newer tg-supervisor (schema {found}, this one knows {SCHEMA}); "
            "install that version again, or move the file away to begin a new log"
        )
        raise ConfigError([problem])


def migrate(db: sqlite3.Connection, path: str) -> None:
    """Bring the tables up to date. A step that fails leaves the file as it was before that step.

    Args:
        db: a connection in autocommit mode (``isolation_level=None``).
        path: the file, for messages.

    Raises:
        ConfigError: the file is newer than this program.
    """
    check_not_newer(db, path)
    rollups.teach(db)
    for number in range(version(db) + 1, SCHEMA + 1):
        # executescript would commit first; the transaction begins in the script, so that all of it counts or nothing.
        try:
            db.executescript(f"BEGIN IMMEDIATE;\n{_aside(db)}{MIGRATIONS[number - 1]}")
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
