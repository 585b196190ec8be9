"""The object of `status --json` (PRODUCT.md): of a running daemon, or of the last run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from supervisor.core.failure import Row, State
from supervisor.ports import AccountSnapshot, Limited, PathSnapshot
from supervisor.record.queries import LastRun, SavedAccount
from supervisor.record.rows import rfc3339, row_json

SCHEMA = 1

# What an account was in the middle of, or proved by, ended with the daemon: nobody keeps it online now.
_ENDED_WITH_THE_DAEMON = {State.STARTING, State.ONLINE, State.RECOVERING}


def status(
    accounts: Iterable[AccountSnapshot],
    paths: Iterable[PathSnapshot],
    *,
    running: bool,
    pid: int | None,
    uptime_s: float | None,
    row_id: Callable[[Row], int | None],
) -> dict[str, Any]:
    """Shape a status.

    Args:
        accounts: in the order in which they are to be shown.
        paths: the same.
        running: whether a daemon says this of itself.
        pid: the daemon's process.
        uptime_s: seconds since it started.
        row_id: gives the number of a failure in the log; None while it has none.
    """
    return {
        "schema": SCHEMA,
        "running": running,
        "pid": pid,
        "uptime_s": None if uptime_s is None else round(uptime_s, 3),
        "accounts": [_account(account, row_id) for account in accounts],
        "paths": [{"name": path.name, "state": path.state, "accounts": path.accounts} for path in paths],
    }


def last_status(saved: Sequence[SavedAccount], run: LastRun | None) -> dict[str, Any]:
    """Shape the status of the last run, where no daemon runs.

    States that only a running daemon can keep up become `stopped`, since its last sign of life; those that await a
    person or a time stay as they were. Nothing will be tried again by itself: `retry_at` is null.

    Args:
        saved: the accounts as they were last saved.
        run: the last daemon.
    """
    accounts = [_stopped(account.snapshot, run) for account in saved]
    numbers = {id(account.snapshot.last_failure): account.failure_id for account in saved}
    on_path = Counter(account.path for account in accounts)
    return status(
        accounts,
        [PathSnapshot(path, "unused", number) for path, number in sorted(on_path.items())],
        running=False,
        pid=None,
        uptime_s=None,
        row_id=lambda row: numbers.get(id(row)),
    )


def _stopped(snapshot: AccountSnapshot, run: LastRun | None) -> AccountSnapshot:
    if snapshot.state not in _ENDED_WITH_THE_DAEMON:
        return replace(snapshot, retry_at=None)
    ended = (run.stopped_at or run.heartbeat_at) if run is not None else snapshot.since
    return replace(snapshot, state=State.STOPPED, since=max(ended, snapshot.since), retry_at=None)


def _account(snapshot: AccountSnapshot, row_id: Callable[[Row], int | None]) -> dict[str, Any]:
    failure = snapshot.last_failure
    return {
        "name": snapshot.name,
        "state": snapshot.state.value,
        "limited": _limited(snapshot.limited),
        "user_id": snapshot.user_id,
        "is_bot": snapshot.is_bot,
        "path": snapshot.path,
        "since": rfc3339(snapshot.since),
        "retry_at": None if snapshot.retry_at is None else rfc3339(snapshot.retry_at),
        "incident": snapshot.incident,
        "last_failure": None if failure is None else row_json(failure, row_id(failure)),
    }


def _limited(limited: Limited | None) -> dict[str, Any] | None:
    if limited is None:
        return None
    return {"error_id": limited.error_id, "frozen": limited.frozen, "since": rfc3339(limited.since)}
