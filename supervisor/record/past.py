"""What the log knows of a span of time, for `report`: outages, paths, causes. Plain sqlite3, read-only."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from supervisor.ports import AccountSnapshot, PathSnapshot
from supervisor.record import queries
from supervisor.record.counting import Log
from supervisor.record.migrations import PATHS_SINCE, version

_SEEN = "at >= ? AND outcome <> 'recovered'"


@dataclass(frozen=True, slots=True)
class Outage:
    """One stretch of time in which an account, or a path, was not online. Unix times."""

    account: str
    kind: str
    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.ended - self.begun


class Past:
    """The log from a moment on.

    Args:
        db: recovery.db, as `queries.opened` gives it.
        since: Unix time.
    """

    def __init__(self, db: sqlite3.Connection, since: float) -> None:
        self._db = db
        self.since = since
        self.log = Log(db)
        self._knows_outages = version(db) >= PATHS_SINCE

    def accounts(self) -> list[AccountSnapshot]:
        """The accounts as they were last saved, by name."""
        return [found.snapshot for found in queries.accounts(self._db)]

    def observed(self, now: float) -> tuple[float, float]:
        """From the first thing that is known of that time to the last sign of life of a daemon; Unix times."""
        run = queries.last_run(self._db)
        oldest = "SELECT min(at) FROM failures UNION ALL SELECT min(opened_at) FROM incidents"
        starts = [at for (at,) in self._db.execute(oldest) if at is not None]
        until = now
        if run is not None:
            starts.append(run.started_at)
            until = min(now, run.stopped_at or run.heartbeat_at)
        begun = max(self.since, min(starts, default=now))
        return begun, max(begun, until)

    def outages(self, begun: float, until: float) -> list[Outage]:
        """The incidents that reached beyond one call, as far as they lie between two Unix times.

        What a path's or the fleet's took is counted for each account that it touched, up to when the last was back: it is
        not kept when each of them was.
        """
        whose, joined = "account", ""
        if self._knows_outages:
            whose, joined = (
                "coalesce(account, touched.value)",
                " LEFT JOIN json_each(incidents.accounts) AS touched",
            )
        found = self._db.execute(
            f"SELECT {whose} AS whose, kind, opened_at, coalesce(closed_at, ?) FROM incidents{joined}"
            " WHERE whose IS NOT NULL AND scope <> 'call' AND (closed_at IS NULL OR closed_at > ?)",
            (until, begun),
        )
        return [
            Outage(account, kind, max(begun, opened), min(until, closed))
            for account, kind, opened, closed in found
        ]

    def paths(self) -> list[PathSnapshot]:
        """The paths as they were last saved, by name."""
        return queries.paths(self._db)

    def path_outages(self, begun: float, until: float) -> list[Outage]:
        """The outages of each path, under its name; as far as they lie between two Unix times."""
        found = self._db.execute(
            "SELECT path, kind, opened_at, coalesce(closed_at, ?) FROM incidents"
            " WHERE account IS NULL AND scope = 'path' AND (closed_at IS NULL OR closed_at > ?)",
            (until, begun),
        )
        return [
            Outage(path, kind, max(begun, opened), min(until, closed)) for path, kind, opened, closed in found
        ]

    def by_path(self) -> list[tuple[str, str, int]]:
        """Path, kind, and how many failures."""
        statement = f"SELECT path, kind, sum(count) FROM failures WHERE {_SEEN} GROUP BY path, kind"
        return list(map(tuple, self._db.execute(statement, (self.since,))))

    def causes(self, most: int) -> list[dict[str, Any]]:
        """What failed most often: by error id, and by message where there is none; an outage's accounts are those it touched."""
        touched = "NULL"
        if self._knows_outages:
            touched = "(SELECT json_array_length(accounts) FROM incidents WHERE id = incident)"
        statement = (
            "SELECT kind, error_id, coalesce(error_id, message) AS what, sum(count) AS n,"
            f" max(count(DISTINCT account), coalesce(max(CASE WHEN account IS NULL THEN {touched} END), 0))"
            f" FROM failures WHERE {_SEEN} GROUP BY kind, what ORDER BY n DESC, what LIMIT ?"
        )
        return [
            {"kind": kind, "error_id": error_id, "what": what, "count": count, "accounts": accounts}
            for kind, error_id, what, count, accounts in self._db.execute(statement, (self.since, most))
        ]

    def flood_waits(self, least: int) -> list[tuple[str, str | None, int]]:
        """Account, method, and how many flood waits: at least so many."""
        statement = (
            f"SELECT account, method, sum(count) AS n FROM failures WHERE {_SEEN} AND kind = 'flood_wait'"
            " AND account IS NOT NULL GROUP BY account, method HAVING n >= ? ORDER BY n DESC, account"
        )
        return list(map(tuple, self._db.execute(statement, (self.since, least))))

    def sign_ins(self, least: int) -> list[tuple[str, int]]:
        """Account, and how often it was signed in anew: at least so many times."""
        statement = (
            "SELECT account, count(*) AS n FROM failures WHERE outcome = 'recovered' AND action = 'relogin'"
            " AND at >= ? AND account IS NOT NULL GROUP BY account HAVING n >= ? ORDER BY n DESC, account"
        )
        return list(map(tuple, self._db.execute(statement, (self.since, least))))

    def met(self, error_id: str) -> list[str]:
        """The accounts that have met an error, by name."""
        statement = "SELECT DISTINCT account FROM failures WHERE error_id = ? AND at >= ? AND account IS NOT NULL ORDER BY account"
        return [account for (account,) in self._db.execute(statement, (error_id, self.since))]
