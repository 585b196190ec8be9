"""How one batch becomes one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import aiosqlite

from supervisor.core.failure import Result, Row
from supervisor.record import rollups
from supervisor.record.buffer import Batch, Entry
from supervisor.record.rows import (
    FAILURE_COLUMNS,
    Columns,
    account_columns,
    failure_columns,
    flood_columns,
    incident_columns,
    path_columns,
    sign_in_columns,
)


def _insert(table: str, columns: int, *, verb: str = "INSERT OR REPLACE") -> str:
    return f"{verb} INTO {table} VALUES ({', '.join('?' * columns)})"


_FAILURE = (
    f"INSERT INTO failures (id, {', '.join(FAILURE_COLUMNS)}) "
    f"VALUES ({', '.join('?' * (len(FAILURE_COLUMNS) + 1))})"
)
_RECOVERED = "UPDATE failures SET resolved_at = ? WHERE incident = ? AND resolved_at IS NULL"
_INCIDENT = _insert("incidents", 13)
_ACCOUNT = _insert("accounts", 11)
_FORGET = "DELETE FROM accounts WHERE name = ?"
_PATH = _insert("paths", 12)
_FORGET_PATH = "DELETE FROM paths WHERE name = ?"
_FLOOD = _insert("floods", 6)
_SIGN_IN = _insert("sign_ins", 2, verb="INSERT")
_META = _insert("meta", 2)


@dataclass(slots=True)
class Written:
    """What was found while the rows were walked: the number of each account's newest row, for `status`; the roll-ups."""

    next_id: int
    tally: rollups.Tally
    failures: dict[str | None, tuple[int, Entry]] = field(default_factory=dict)

    def columns(self, batch: Batch) -> Iterator[Columns]:
        """The rows of a batch with their numbers; runs in the writer's thread."""
        for entry in batch.entries():
            if entry.row.outcome is not Result.RECOVERED:
                self.failures[entry.row.account] = (self.next_id, entry)
            self.tally.add(entry.row)
            yield (self.next_id, *failure_columns(entry.row, entry.last_at))
            self.next_id += 1


def is_same(row: Row, entry: Entry) -> bool:
    """Whether a row of the log stands for a failure, by itself or merged with others."""
    return row.error_id == entry.row.error_id and entry.row.at <= row.at <= entry.last_at


async def write(
    db: aiosqlite.Connection, batch: Batch, meta: Mapping[str, object], next_id: int, lanes: rollups.Lanes
) -> Written:
    """Write a batch in one transaction: all of it, or (where this raises) nothing.

    The rows are turned into columns by generators that SQLite's thread walks: the event loop does none of it.
    """
    written = Written(next_id, rollups.Tally(lanes))
    await db.execute("BEGIN IMMEDIATE")
    try:
        await _write(db, batch, written)
        new = lanes.unsaved()
        await db.executemany(rollups.WRITE_LANES, new)
        await db.executemany(_META, list(meta.items()))
        await db.execute("COMMIT")
    except BaseException:
        # SQLite has already rolled back after some errors, a full disk for one.
        if db.in_transaction:
            await db.execute("ROLLBACK")
        raise
    lanes.saved(len(new))
    return written


async def _write(db: aiosqlite.Connection, batch: Batch, written: Written) -> None:
    if batch.rows:
        await db.executemany(_FAILURE, written.columns(batch))
        await db.executemany(rollups.WRITE, written.tally.columns())
        await db.executemany(rollups.WRITE_TOTALS, written.tally.totals())
    if batch.recovered:
        await db.executemany(_RECOVERED, ((at, incident) for incident, at in batch.recovered.items()))
    if batch.incidents:
        await db.executemany(_INCIDENT, map(incident_columns, batch.incidents.values()))
    if batch.accounts:
        await db.executemany(_ACCOUNT, (account_columns(found) for found in batch.accounts.values() if found))
        await db.executemany(_FORGET, ((name,) for name, found in batch.accounts.items() if found is None))
    if batch.paths:
        await db.executemany(_PATH, (path_columns(found) for found in batch.paths.values() if found))
        await db.executemany(_FORGET_PATH, ((name,) for name, found in batch.paths.items() if found is None))
    if batch.floods:
        await db.executemany(_FLOOD, map(flood_columns, batch.floods.values()))
    if batch.sign_ins:
        await db.executemany(_SIGN_IN, map(sign_in_columns, batch.sign_ins))
