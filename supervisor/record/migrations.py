"""The tables of recovery.db, as numbered steps; each is applied once, in a transaction of its own.

A step is never edited after a release: a change is a new step. `user_version` holds the number of the last one.
"""

from __future__ import annotations

import sqlite3

from supervisor.errors import ConfigError
from supervisor.record import rollups

_V1 = """
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
    attempts TEXT NOT NULL,         -- JSON: {kind: actions in a row}
    backoff TEXT NOT NULL           -- JSON: {kind: exponent of the next delay}
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

# What was recorded before has no histogram: its percentiles come from the rows, as long as those are kept.
_V2 = """
CREATE TABLE rollups (              -- rows of failures, counted; see rollups.py
    step INTEGER NOT NULL,          -- 3600: an hour of all accounts; 86400: a day of one
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
INSERT INTO rollups
    SELECT 3600, CAST(at / 3600 AS INTEGER) * 3600 AS start, '*', kind, action, outcome,
        sum(count), coalesce(max(duration), 0.0), x''
    FROM failures GROUP BY start, kind, action, outcome;
INSERT INTO rollups
    SELECT 86400, CAST(at / 86400 AS INTEGER) * 86400 AS start, coalesce(account, '') AS who, kind, action, outcome,
        sum(count), coalesce(max(duration), 0.0), x''
    FROM failures GROUP BY start, who, kind, action, outcome;
INSERT INTO rollups
    SELECT step, start, account, '*', '*', outcome, sum(count), max(longest), x''
    FROM rollups WHERE step = 86400 AND outcome IN ('recovered', 'failed') GROUP BY start, account, outcome;
CREATE INDEX failures_ended ON failures (at, account, kind, outcome, duration, count)
    WHERE outcome IN ('recovered', 'failed');
"""

# What `log` is asked for by kind, and what nobody has dealt with, is found without a walk through the whole log.
_V3 = """
CREATE TABLE totals (               -- rows of failures, counted for each account; see rollups.py
    step INTEGER NOT NULL,          -- 10800, 86400 or 864000
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


def _count_accounts(db: sqlite3.Connection) -> None:
    """Fill `totals`: the last days from the rows, the rest from V2's roll-ups by the day, which trimming then deletes."""
    db.create_function("added", 2, rollups.added, deterministic=True)
    lanes = rollups.Lanes()
    days = rollups.Tally(lanes)
    old = "SELECT start, account, kind, action, outcome, count, lengths FROM rollups WHERE step = 86400 AND kind <> '*'"
    for start, account, *sort, count, lengths in db.execute(old):
        timed = 0
        for length, many in enumerate(rollups.unpacked(int.from_bytes(lengths, "little"))):
            if many:
                days.add_total(start, account, (*sort, length), many)
                timed += many
        if count > timed:
            days.add_total(start, account, (*sort, rollups.UNTIMED), count - timed)
    db.executemany(rollups.WRITE_TOTALS, days.totals((rollups.DAY, rollups.SPAN)))
    parts = rollups.Tally(lanes)
    rows = (
        "SELECT at, coalesce(account, ''), kind, action, outcome, duration, count FROM failures "
        "WHERE at >= (SELECT max(at) FROM failures) - ?"
    )
    for at, account, *sort, duration, count in db.execute(rows, (rollups.KEPT[rollups.PART],)):
        timed = duration is not None and sort[-1] == "recovered"
        length = rollups.length_class(duration) if timed else rollups.UNTIMED
        parts.add_total(int(at // rollups.PART) * rollups.PART, account, (*sort, length), count)
    db.executemany(rollups.WRITE_TOTALS, parts.totals((rollups.PART,)))
    db.executemany(rollups.WRITE_LANES, lanes.unsaved())


MIGRATIONS: tuple[str, ...] = (_V1, _V2, _V3)
_FILLED = {3: _count_accounts}  # what SQL cannot say, in the same transaction
SCHEMA = len(MIGRATIONS)


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
    for number in range(version(db) + 1, SCHEMA + 1):
        # executescript would commit first; the transaction begins in the script, so that all of it counts or nothing.
        try:
            db.executescript(f"BEGIN IMMEDIATE;\n{MIGRATIONS[number - 1]}")
            if number in _FILLED:
                _FILLED[number](db)
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
