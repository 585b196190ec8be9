"""What is too old to keep, deleted a little at a time, so that no write has to wait behind it."""

from __future__ import annotations

import aiosqlite

from supervisor.record.rollups import DAY, HOUR, KEPT, SPAN, STEPS

_BATCH = 500
_SIGN_INS_KEPT = 7 * DAY  # the budget looks back one day

# Each statement deletes at most `_BATCH` rows; ids grow with time, so that the oldest go first.
_DETAIL = (
    f"DELETE FROM failures WHERE id IN (SELECT id FROM failures WHERE at < ? ORDER BY at LIMIT {_BATCH})",
    f"DELETE FROM incidents WHERE id IN (SELECT id FROM incidents WHERE closed_at < ? LIMIT {_BATCH})",
)
_COUNTED = {"rollups": "step, start, account, kind, action, outcome", "totals": "step, start, account"}
_ROLLUPS = {
    table: (
        f"DELETE FROM {table} WHERE ({key}) IN "
        f"(SELECT {key} FROM {table} WHERE step = ? AND start < ? ORDER BY start LIMIT {_BATCH})"
    )
    for table, key in _COUNTED.items()
}
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
    long = min(now - KEPT[SPAN], cutoff) - SPAN  # never less long than the rows that they count
    work += [
        (_ROLLUPS["totals"], (step, long if step == SPAN else now - KEPT[step] - step)) for step in STEPS
    ]
    work += [
        (_ROLLUPS["rollups"], (HOUR, long)),
        (_ROLLUPS["rollups"], (DAY, long)),
    ]
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
