"""What is too old to keep, deleted a little at a time, so that no write has to wait behind it."""

from __future__ import annotations

import aiosqlite

from supervisor.record.rollups import DAY, HOUR

_BATCH = 500
_SIGN_INS_KEPT = 7 * DAY  # the budget looks back one day
_ROLLUPS_KEPT = 366 * DAY  # and never less long than the rows that they count

# Each statement deletes at most `_BATCH` rows; ids grow with time, so that the oldest go first.
_DETAIL = (
    f"DELETE FROM failures WHERE id IN (SELECT id FROM failures WHERE at < ? ORDER BY at LIMIT {_BATCH})",
    f"DELETE FROM incidents WHERE id IN (SELECT id FROM incidents WHERE closed_at < ? LIMIT {_BATCH})",
)
_ROLLUP = "(step, start, account, kind, action, outcome)"
_ROLLUPS = (
    f"DELETE FROM rollups WHERE {_ROLLUP} IN "
    f"(SELECT {_ROLLUP[1:-1]} FROM rollups WHERE step = ? AND start < ? ORDER BY start LIMIT {_BATCH})"
)
_FLOODS = "DELETE FROM floods WHERE until < ?"
_SIGN_INS = "DELETE FROM sign_ins WHERE at < ?"
_SHRINK = "PRAGMA incremental_vacuum(200)"


async def trim(db: aiosqlite.Connection, now: float, retention_days: int) -> bool:
    """Delete some of what is too old.

    Args:
        db: the writer's connection, outside a transaction.
        now: Unix time.
        retention_days: how long the log's detail is kept.

    Returns:
        Whether there may be more of it.
    """
    cutoff = now - retention_days * DAY
    work: list[tuple[str, tuple[float, ...]]] = [(statement, (cutoff,)) for statement in _DETAIL]
    work += [(_ROLLUPS, (step, min(now - _ROLLUPS_KEPT, cutoff - DAY))) for step in (HOUR, DAY)]
    more = False
    for statement, values in work:
        cursor = await db.execute(statement, values)
        more = more or cursor.rowcount >= _BATCH
        await cursor.close()
    await db.execute(_FLOODS, (now - DAY,))
    await db.execute(_SIGN_INS, (now - _SIGN_INS_KEPT,))
    cursor = await db.execute(_SHRINK)
    await cursor.fetchall()  # a pragma does its work while it is read
    await cursor.close()
    return more
