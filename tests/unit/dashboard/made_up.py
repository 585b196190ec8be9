"""A daemon of any size that is not one, and a log of any length, for what is served from them."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.record import fill as fill_rows
from supervisor.control.protocol import ControlError
from supervisor.core.failure import Action, Kind, Result, Row, Scope, State
from supervisor.dashboard.desk import Live
from supervisor.ports import AccountSnapshot, Limited, PathSnapshot

_STATES = [State.ONLINE] * 92 + [
    State.RECOVERING, State.RECOVERING, State.SUSPENDED, State.NEEDS_LOGIN, State.FAILED, State.PAUSED,
    State.STARTING, State.ONLINE,
]  # fmt: skip
_INCIDENTS = """
INSERT OR REPLACE INTO incidents
    (id, account, path, scope, kind, opened_at, closed_at, outcome, last_action, failures, attempts, backoff)
SELECT incident, account, path, scope, kind, min(at) - coalesce(max(duration), 0),
    CASE WHEN max(outcome IN ('recovered', 'failed')) THEN max(at) END,
    CASE WHEN max(outcome = 'recovered') THEN 'recovered' WHEN max(outcome = 'failed') THEN 'failed' END,
    max(action), count(*), json_object(kind, count(*)), '{}'
FROM failures WHERE incident IS NOT NULL GROUP BY incident
"""


class Desk:
    """Stands in for the daemon: accounts in every state, which obey."""

    def __init__(self, accounts: int = 3, now: float | None = None) -> None:
        now = time.time() if now is None else now
        draw = random.Random(3)
        names = [f"bot-{number:04}" for number in range(accounts)]
        self.accounts = {name: _account(name, _STATES[n % 100], now, draw) for n, name in enumerate(names)}
        self.paths = [
            PathSnapshot("de1", "ok", accounts // 2, succeeded=812, failed=3, latency=0.042, since=now - 9e4),
            PathSnapshot("nl3", "broken", 0, "open", now - 90, now + 4, 411, 44, 0.051, "connection refused", now - 2, "i-nl3"),
            PathSnapshot("direct", "ok", accounts - accounts // 2, succeeded=92, latency=0.031),
        ]  # fmt: skip
        self.is_writable = True
        self.problems: list[str] | None = None

    async def live(self) -> Live:
        config = {
            "path": "/srv/bots/accounts.toml",
            "loaded_at": "2026-01-31T14:03:22.125Z",
            "error": self.problems,
        }
        return Live(list(self.accounts.values()), list(self.paths), 86_400.5, config, self.is_writable, 0)

    def put(self, account: AccountSnapshot) -> None:
        """Have an account come into another state."""
        self.accounts[account.name] = account

    def row_id(self, row: Row) -> int | None:
        return 1

    def is_recording(self) -> bool:
        return self.is_writable

    async def status_json(self) -> str:
        raise NotImplementedError

    async def reload(self) -> Any:
        raise NotImplementedError

    async def login(self, account: str, step: str, text: str) -> Mapping[str, Any]:
        raise NotImplementedError

    async def pause(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        return [self._become(name, State.PAUSED) for name in accounts]

    async def resume(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        return [self._become(name, State.ONLINE) for name in accounts]

    async def retry(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        return [self._become(name, State.STARTING) for name in accounts]

    async def rotate(self, accounts: Sequence[str], to: str | None = None) -> list[dict[str, Any]]:
        return [
            self._become(name, State.RECOVERING) | {"path": to or "nl3", "before": "de1"} for name in accounts
        ]

    def _become(self, name: str, state: State) -> dict[str, Any]:
        if name not in self.accounts:
            raise ControlError("unknown_account", f'no account is called "{name}"', status=404)
        before = self.accounts[name]
        self.accounts[name] = AccountSnapshot(name, state, time.time(), before.path)
        return {"name": name, "state": state.value, "changed": before.state is not state}


def _account(name: str, state: State, now: float, draw: random.Random) -> AccountSnapshot:
    failed = draw.random() < 0.6 or state is not State.ONLINE
    seen = now - draw.expovariate(1 / 4000)
    since = now - draw.expovariate(1 / 40_000)
    trying = state in {State.RECOVERING, State.SUSPENDED}
    return AccountSnapshot(
        name,
        state,
        since,
        draw.choice(("de1", "direct")),
        user_id=draw.randrange(10**9, 10**10),
        is_bot=True,
        limited=Limited("PEER_FLOOD", frozen=False, since=since) if draw.random() < 0.01 else None,
        retry_at=now + draw.uniform(5, 200) if trying else None,
        incident=f"i-{name}" if trying else None,
        last_failure=failure(name, seen) if failed else None,
    )


def failure(account: str | None, at: float, **other: Any) -> Row:
    """A row of the log."""
    values: dict[str, Any] = {
        "path": "de1", "scope": Scope.SESSION, "kind": Kind.CONNECTION, "action": Action.RECONNECT,
        "outcome": Result.RETRYING, "message": "connection reset by 149.154.167.50:443", "incident": f"i-{account}",
        "attempt": 1, "delay": 1.5, "cause": ("LinkFailed: the link was lost", "ConnectionResetError: [Errno 104] reset"),
    }  # fmt: skip
    return Row(at, account, **{**values, **other})


async def fill(path: Path, incidents: int, accounts: int, now: float) -> int:
    """Make a log of thirty days that ends now, with about so many incidents; give how many it has."""
    await fill_rows(path, incidents * 5 // 2, accounts, now)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute(_INCIDENTS)
        db.execute(
            "UPDATE incidents SET closed_at = opened_at + 600, outcome = 'failed' WHERE closed_at IS NULL AND opened_at < ?",
            (now - 86_400,),
        )
        db.commit()
        return int(db.execute("SELECT count(*) FROM incidents").fetchone()[0])
