"""The object of `status --json` (PRODUCT.md): of a running daemon, or of the last run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
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
        "paths": [path_json(path) for path in paths],
    }


class Texts:
    """The JSON of many accounts, where few of them have changed since it was made the last time.

    Args:
        row_id: gives the number of a failure in the log; None while it has none.
    """

    def __init__(self, row_id: Callable[[Row], int | None]) -> None:
        self._row_id = row_id
        self._known: dict[str, _Text] = {}
        self._next: dict[str, _Text] = {}

    def begin(self) -> None:
        """A new status is made; what was taken in for another one counts for nothing."""
        self._next = {}

    def add(self, snapshot: AccountSnapshot) -> None:
        """Take the next account in."""
        failure = snapshot.last_failure
        number = None if failure is None else self._row_id(failure)
        told = (TOLD(snapshot), number)
        known = self._known.get(snapshot.name)
        if known is None or known[0] != told:
            known = told, json.dumps(_account(snapshot, lambda _: number))
        self._next[snapshot.name] = known

    def take(self, others: Mapping[str, Any]) -> str:
        """A status with the accounts that were taken in.

        Args:
            others: the status, without any account.
        """
        self._known = self._next
        accounts = ", ".join(text for _, text in self._known.values())
        # The first place that looks so is the key: in a name its quotes would be escaped.
        return json.dumps(others).replace('"accounts": []', f'"accounts": [{accounts}]', 1)


# All that is told of an account, and the text that was made of it.
_Text = tuple[object, str]
TOLD = attrgetter(
    "state", "since", "path", "user_id", "is_bot", "limited", "retry_at", "incident", "last_failure"
)


def last_status(
    saved: Sequence[SavedAccount], paths: Sequence[PathSnapshot], run: LastRun | None
) -> dict[str, Any]:
    """Shape the status of the last run, where no daemon runs.

    States that only a running daemon can keep up become `stopped`, since its last sign of life; those that await a
    person or a time stay as they were. Nothing will be tried again by itself: `retry_at` is null. A path that was broken
    is still held to be; whether others work nobody knows, for nobody uses them.

    Args:
        saved: the accounts as they were last saved.
        paths: the paths.
        run: the last daemon.
    """
    accounts = [_stopped(account.snapshot, run) for account in saved]
    numbers = {id(account.snapshot.last_failure): account.failure_id for account in saved}
    on_path = Counter(account.path for account in accounts)
    known = {path.name: path for path in paths}
    names = sorted(on_path.keys() | known.keys())
    return status(
        accounts,
        [_unused(known.get(path) or PathSnapshot(path, "unused", 0), on_path[path]) for path in names],
        running=False,
        pid=None,
        uptime_s=None,
        row_id=lambda row: numbers.get(id(row)),
    )


def _unused(path: PathSnapshot, accounts: int) -> PathSnapshot:
    state = "broken" if path.state == "broken" else "unused"
    return replace(path, state=state, accounts=accounts, probe_at=None)


def _stopped(snapshot: AccountSnapshot, run: LastRun | None) -> AccountSnapshot:
    if snapshot.state not in _ENDED_WITH_THE_DAEMON:
        return replace(snapshot, retry_at=None)
    ended = (run.stopped_at or run.heartbeat_at) if run is not None else snapshot.since
    return replace(snapshot, state=State.STOPPED, since=max(ended, snapshot.since), retry_at=None)


def path_json(path: PathSnapshot) -> dict[str, Any]:
    """A path as `status --json` shows it."""
    tried = path.succeeded + path.failed
    failure = None
    if path.last_failure is not None and path.failed_at is not None:
        failure = {"at": rfc3339(path.failed_at), "message": path.last_failure}
    return {
        "name": path.name,
        "state": path.state,
        "accounts": path.accounts,
        "breaker": path.breaker,
        "since": None if path.since is None else rfc3339(path.since),
        "next_probe_at": None if path.probe_at is None else rfc3339(path.probe_at),
        "succeeded": path.succeeded,
        "failed": path.failed,
        "success_rate": round(path.succeeded / tried, 4) if tried else None,
        "latency_ms": None if path.latency is None else round(1000 * path.latency, 1),
        "last_failure": failure,
        "incident": path.incident,
    }


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
