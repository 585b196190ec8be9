"""The reading side of recovery.db: plain sqlite3, read-only, beside a running daemon or without one.

The commands that read stand on this: nothing here imports asyncio.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor.core.failure import Kind
from supervisor.errors import SupervisorError
from supervisor.ports import AccountSnapshot, PathSnapshot, Saved
from supervisor.record import rows
from supervisor.record.files import uri
from supervisor.record.migrations import PATHS_SINCE, check_not_newer, put_aside, version
from supervisor.record.rollups import SPAN

_BUSY = 5.0  # s; readers wait for the writer only while it makes the file or recovers it after a crash
_DAY = 86_400.0
_NEWEST = (
    10_000  # rows that are looked through for those of a pattern, before each account that it stands for is
)


class RecordUnreadable(SupervisorError):
    """recovery.db cannot be read, or not be written by `resolve`."""


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which rows of the log are asked for; what is None does not matter.

    Args:
        account: a name or a pattern, as ``support-*``.
        kind: of the failure.
        since: Unix time.
        unresolved: only what neither a recovery nor a person has dealt with.
        after_id: only rows with higher numbers.
    """

    account: str | None = None
    kind: Kind | None = None
    since: float | None = None
    unresolved: bool = False
    after_id: int | None = None


@dataclass(frozen=True, slots=True)
class SavedAccount:
    """An account as it was last saved, and its last failure's number in the log."""

    snapshot: AccountSnapshot
    failure_id: int | None


@dataclass(frozen=True, slots=True)
class LastRun:
    """The last daemon. Unix times; `stopped_at` is None while it runs, and if it never came to stop cleanly."""

    pid: int
    started_at: float
    heartbeat_at: float
    stopped_at: float | None


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection | None]:
    """recovery.db, read-only; None where there is none yet.

    Raises:
        ConfigError: it was written by a newer release.
        RecordUnreadable: it, or a query inside the ``with``, cannot be read.
    """
    if not _exists(path):
        yield None
        return
    with _told(path), closing(_connect(path, "ro")) as db:
        check_not_newer(db, str(path))
        yield db if version(db) else None


def log_rows(db: sqlite3.Connection, wanted: LogFilter, limit: int = 100) -> list[rows.LogRow]:
    """The newest rows that match, oldest first. With `after_id`: the next rows after it.

    An account's rows are also those of the outages of its path, and of the fleet, that touched it.
    """
    if wanted.account is not None and wanted.after_id is None and is_pattern(wanted.account):
        found = _of_many(db, wanted, limit)
    else:
        found = _matching(db, wanted, limit)
    if wanted.account is not None and (outages := _outages_of(db, wanted.account, wanted.since or 0.0)):
        found += _matching(db, replace(wanted, account=None), limit, outages)
        found.sort(key=lambda row: (-row["at"], -row["id"]) if wanted.after_id is None else row["id"])
        found = found[: limit if limit >= 0 else None]
    return _told_whom(db, sorted(map(rows.failure_row, found), key=lambda row: row.id))


def _matching(
    db: sqlite3.Connection, wanted: LogFilter, limit: int, outages: Sequence[str] = ()
) -> list[sqlite3.Row]:
    """What one query finds; of some outages alone, where any are given."""
    conditions, values = _conditions(wanted)
    if outages:
        plus = "" if wanted.after_id is None else "+"
        conditions += f" AND {plus}account IS NULL AND incident IN (SELECT value FROM json_each(?))"
        values.append(json.dumps(outages))
    # The order of an index, so that SQLite is done at the limit; else it would sort all that match.
    order = "at DESC, id DESC" if wanted.after_id is None else "id"
    statement = f"SELECT * FROM failures WHERE {conditions} ORDER BY {order} LIMIT ?"
    return db.execute(statement, (*values, limit)).fetchall()


def _outages_of(db: sqlite3.Connection, account: str, since: float) -> list[str]:
    """The incidents of paths and of the fleet, not over by then, that touched an account (or one of a pattern's)."""
    if version(db) < PATHS_SINCE:
        return []
    condition, values = touched_condition(account)
    statement = f"SELECT id FROM incidents WHERE {condition} AND coalesce(closed_at >= ?, TRUE)"
    return [row["id"] for row in db.execute(statement, (*values, since))]


def touched_condition(account: str) -> tuple[str, list[str]]:
    """What makes an incident an outage that touched an account, and the condition's values.

    The names are looked for in the text, which is quick; a pattern then has to match one of them exactly.
    """
    condition = "accounts IS NOT NULL AND "
    if not is_pattern(account):
        return f"{condition}instr(accounts, ?) > 0", [json.dumps(account, ensure_ascii=False)]
    condition += "accounts GLOB ? AND EXISTS (SELECT 1 FROM json_each(accounts) WHERE value GLOB ?)"
    return condition, [f'*"{account}"*', account]


def _told_whom(db: sqlite3.Connection, found: list[rows.LogRow]) -> list[rows.LogRow]:
    """The rows, those of outages with the accounts that were touched."""
    shared = {row.row.incident for row in found if row.is_outage}
    touched: dict[str | None, tuple[str, ...]] = {}
    if shared and version(db) >= PATHS_SINCE:
        statement = "SELECT id, accounts FROM incidents WHERE accounts IS NOT NULL AND id IN (SELECT value FROM json_each(?))"
        for row in db.execute(statement, (json.dumps(list(shared)),)):
            touched[row["id"]] = tuple(json.loads(row["accounts"]))
    return [
        replace(row, accounts=touched.get(row.row.incident, ())) if row.is_outage else row for row in found
    ]


def _of_many(db: sqlite3.Connection, wanted: LogFilter, limit: int) -> list[sqlite3.Row]:
    """Rows of the accounts that a pattern stands for: out of the log's newest if they suffice, else account by account."""
    conditions, values = _conditions(replace(wanted, after_id=newest_id(db) - _NEWEST))
    found = db.execute(
        f"SELECT * FROM failures WHERE {conditions} ORDER BY id DESC LIMIT ?", (*values, limit)
    ).fetchall()
    if len(found) >= limit:
        return found
    # The newest `limit` rows belong to the `limit` accounts whose newest rows are the newest of all, at most.
    conditions, (_, *values) = _conditions(replace(wanted, account="", after_id=None))
    newest = f"SELECT at FROM failures WHERE {conditions.replace('account = ?', 'account = known.account')} ORDER BY at DESC"
    accounts = db.execute(
        f"SELECT account, ({newest} LIMIT 1) AS newest FROM "
        "(SELECT DISTINCT account FROM totals WHERE step = ? AND account GLOB ?) AS known "
        "WHERE newest IS NOT NULL ORDER BY newest DESC LIMIT ?",
        (*values, SPAN, wanted.account, limit),
    ).fetchall()
    numbers = f"SELECT at, id FROM failures WHERE {conditions} ORDER BY at DESC, id DESC LIMIT ?"
    of_each = (db.execute(numbers, (account, *values, limit)).fetchall() for account, _ in accounts)
    newest_rows = heapq.nlargest(limit, (tuple(row) for found in of_each for row in found))
    return [
        db.execute("SELECT * FROM failures WHERE id = ?", (number,)).fetchone() for _, number in newest_rows
    ]


def newest_id(db: sqlite3.Connection) -> int:
    """The number of the newest row; 0 where there is none."""
    found: int = db.execute("SELECT coalesce(max(id), 0) FROM failures").fetchone()[0]
    return found


def accounts(db: sqlite3.Connection) -> list[SavedAccount]:
    """The accounts of the last run, by name."""
    # Rows begin up to a day before the last failure that was merged into them: the disk was full, say.
    number = "SELECT max(id) FROM failures WHERE account = ? AND at BETWEEN ? AND ? AND last_at >= ? AND outcome <> 'recovered'"
    found = []
    for row in db.execute("SELECT * FROM accounts ORDER BY name"):
        snapshot = rows.account_snapshot(row)
        failure = snapshot.last_failure
        failure_id = None
        if failure is not None:
            failure_id = db.execute(
                number, (snapshot.name, failure.at - _DAY, failure.at, failure.at)
            ).fetchone()[0]
        found.append(SavedAccount(snapshot, failure_id))
    return found


def paths(db: sqlite3.Connection) -> list[PathSnapshot]:
    """The paths as they were last saved, by name; none where no release has written any that saves them."""
    if version(db) < PATHS_SINCE:
        return []
    return [rows.path_snapshot(row) for row in db.execute("SELECT * FROM paths ORDER BY name")]


def not_taken_over(db: sqlite3.Connection) -> float | None:
    """When the newest row was that an older release has left and that is not in the log yet; None where all are."""
    table = put_aside(db)
    found = db.execute(f"SELECT at FROM {table} ORDER BY id DESC LIMIT 1").fetchone() if table else None
    return None if found is None else float(found[0])


def last_run(db: sqlite3.Connection) -> LastRun | None:
    """The last daemon that wrote here."""
    meta = {row["key"]: row["value"] for row in db.execute("SELECT key, value FROM meta")}
    if "pid" not in meta:
        return None
    return LastRun(meta["pid"], meta["started_at"], meta["heartbeat_at"], meta["stopped_at"])


def saved(path: Path, now: float) -> Saved:
    """What the next start goes on from: accounts, open incidents, waits still running, sign-ins of the last day.

    Args:
        path: recovery.db.
        now: Unix time.

    Raises:
        ConfigError: it was written by a newer release.
        RecordUnreadable: it cannot be read.
    """
    with opened(path) as db:
        if db is None:
            return Saved()
        # Where the clock went back, a wait lies in the future and still counts.
        floods = db.execute("SELECT * FROM floods WHERE until > ?", (now,))
        incidents = db.execute("SELECT * FROM incidents WHERE closed_at IS NULL ORDER BY opened_at")
        sign_ins = db.execute("SELECT * FROM sign_ins WHERE at > ? ORDER BY at", (now - _DAY,))
        return Saved(
            accounts={found.snapshot.name: found.snapshot for found in accounts(db)},
            floods=[rows.flood_row(row) for row in floods],
            incidents=[rows.incident_row(row) for row in incidents],
            sign_ins=[rows.sign_in_row(row) for row in sign_ins],
            paths={found.name: found for found in paths(db)},
        )


def resolve(path: Path, row_id: int, now: float) -> bool:
    """Mark a row as dealt with, beside a running daemon too; the one write that is not the daemon's.

    Args:
        path: recovery.db.
        row_id: the row's number.
        now: Unix time.

    Returns:
        Whether there is such a row.

    Raises:
        ConfigError: the file was written by a newer release.
        RecordUnreadable: it cannot be written.
    """
    if not _exists(path):
        return False
    with _told(path), closing(_connect(path, "rw")) as db:
        check_not_newer(db, str(path))
        statement = "UPDATE failures SET resolved_at = coalesce(resolved_at, ?) WHERE id = ?"
        return version(db) > 0 and db.execute(statement, (now, row_id)).rowcount > 0


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri(path, mode), uri=True, timeout=_BUSY, isolation_level=None)
    db.row_factory = sqlite3.Row
    return db


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise RecordUnreadable(f"{path}: {error.strerror or error}") from error


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise RecordUnreadable(f"{path}: {error}") from error


def account_condition(account: str) -> str:
    """What makes an account's row one of those asked for by a name, or by a pattern as ``support-*``."""
    return "account GLOB ?" if is_pattern(account) else "account = ?"


def is_pattern(account: str) -> bool:
    """Whether it stands for many accounts; a name has none of these signs."""
    return any(sign in account for sign in "*?[")


def _conditions(wanted: LogFilter) -> tuple[str, list[object]]:
    """The conditions and their values; the account's is the first. Their own fixed texts only: what was asked for is a value.

    With `after_id` a plus before a column keeps SQLite from using its index: it then walks the rows by their numbers.
    """
    plus = "" if wanted.after_id is None else "+"
    asked: list[tuple[str, object]] = []
    if wanted.account is not None:
        asked.append((plus + account_condition(wanted.account), wanted.account))
    if wanted.kind is not None:
        asked.append((f"{plus}kind = ?", wanted.kind.value))
    if wanted.since is not None:
        asked.append((f"{plus}at >= ?", wanted.since))
    if wanted.after_id is not None:
        asked.append(("id > ?", wanted.after_id))
    conditions = [text for text, _ in asked] or ["TRUE"]
    if wanted.unresolved:
        # An attempt whose incident was merged away has no recovery that could resolve it: its rows don't ask for one.
        conditions.append("resolved_at IS NULL AND NOT (outcome = 'retrying' AND incident IS NULL)")
    return " AND ".join(conditions), [value for _, value in asked]
