"""What waits to be written: bounded, and merged rather than dropped.

Up to `max_rows` rows are kept one by one. Past that, rows that say the same of the same account become one with a
`count`; past as many of those again, rows of one kind of failure become one for all accounts. However many failures
come, the memory they take is bounded and the counts are exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from supervisor.core.failure import Result, Row
from supervisor.ports import AccountSnapshot, FloodRow, IncidentRow, PathSnapshot, SignIn

_Key = tuple[object, ...]


@dataclass(slots=True)
class Entry:
    """A row to be written, and when the last failure that it stands for happened."""

    row: Row
    last_at: float


class _Merged:
    """Many rows as one. It is built of sums: making a new Row each time would cost what merging is to save."""

    __slots__ = ("attempt", "count", "delay", "duration", "first", "incident", "last_at", "timed")

    def __init__(self, row: Row) -> None:
        self.first = row
        self.incident = row.incident
        self.last_at = row.at
        self.count = 0
        self.attempt = 0
        self.delay = 0.0
        self.duration = 0.0
        self.timed = 0
        self.add(row)

    def add(self, row: Row) -> None:
        self.count += row.count
        self.last_at = max(self.last_at, row.at)
        self.attempt = max(self.attempt, row.attempt)
        self.delay = max(self.delay, row.delay)
        if row.incident != self.incident:
            self.incident = None
        if row.duration is not None:
            self.duration += row.duration * row.count
            self.timed += row.count

    def entry(self, *, account: str | None) -> Entry:
        row = replace(
            self.first,
            account=account,
            incident=self.incident,
            attempt=self.attempt,
            delay=self.delay,
            duration=self.duration / self.timed if self.timed else None,
            count=self.count,
        )
        return Entry(row, self.last_at)


@dataclass(slots=True)
class Batch:
    """What one transaction writes. `entries` is walked in the writer's thread, not in the event loop."""

    rows: list[Row] = field(default_factory=list)
    merged: dict[_Key, _Merged] = field(default_factory=dict)
    coarse: dict[_Key, _Merged] = field(default_factory=dict)
    recovered: dict[str, float] = field(default_factory=dict)  # incident -> when
    incidents: dict[str, IncidentRow] = field(default_factory=dict)
    accounts: dict[str, AccountSnapshot | None] = field(default_factory=dict)  # None: no longer configured
    paths: dict[str, PathSnapshot | None] = field(default_factory=dict)  # None: no longer configured
    floods: dict[tuple[str, str, str | None], FloodRow] = field(default_factory=dict)
    sign_ins: list[SignIn] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.rows or self.incidents or self.accounts or self.paths or self.floods or self.sign_ins
        )

    @property
    def size(self) -> int:
        """How many rows of the log it holds."""
        return len(self.rows) + len(self.merged) + len(self.coarse)

    def pieces(self) -> Iterator[Batch]:
        """Its items one by one, for when one of them keeps the others from being written."""
        for entry in self.entries():
            yield Batch(rows=[entry.row])
        yield Batch(recovered=self.recovered)
        for key, incident in self.incidents.items():
            yield Batch(incidents={key: incident})
        for name, snapshot in self.accounts.items():
            yield Batch(accounts={name: snapshot})
        for name, path in self.paths.items():
            yield Batch(paths={name: path})
        for place, flood in self.floods.items():
            yield Batch(floods={place: flood})
        yield Batch(sign_ins=self.sign_ins)

    def entries(self) -> Iterator[Entry]:
        """The rows, then the merged ones."""
        for row in self.rows:
            yield Entry(row, row.at)
        for merged in self.merged.values():
            yield merged.entry(account=merged.first.account)
        for merged in self.coarse.values():
            yield merged.entry(account=None)


class Buffer:
    """Takes what is to be written, gives it out as batches.

    Args:
        max_rows: how many rows are kept one by one, and how many merged ones beyond them.
    """

    def __init__(self, max_rows: int) -> None:
        self._max = max_rows
        self._batch = Batch()
        self._open: set[str] = set()  # incidents that recovery.db holds as open, or is being given

    @property
    def rows(self) -> int:
        """How many rows wait."""
        return self._batch.size

    def __bool__(self) -> bool:
        return bool(self._batch)

    def take(self) -> Batch:
        """All that waits; the buffer is empty afterwards."""
        batch, self._batch = self._batch, Batch()
        for incident in batch.incidents.values():
            if incident.closed_at is None:
                self._open.add(incident.id)
        return batch

    def add(self, row: Row) -> None:
        """Add a row, merged where many wait."""
        batch = self._batch
        if row.outcome is Result.RECOVERED and row.incident is not None:
            self._recovered(row.incident, row.at)
        if len(batch.rows) < self._max:
            batch.rows.append(row)
        else:
            self._merge(row)

    def add_incident(self, row: IncidentRow) -> None:
        """Add an incident's latest state. Past the bound, those that opened and closed unwritten are left out.

        Their rows in the log count them; what is open is always kept, for the next start resumes it.
        """
        known = self._batch.incidents
        if row.closed_at is not None and row.id not in self._open and len(known) >= self._max:
            known.pop(row.id, None)
            return
        if row.closed_at is not None:
            self._open.discard(row.id)
        known[row.id] = row

    def hold_open(self, incidents: Iterable[str]) -> None:
        """Note what recovery.db holds as open from the last run."""
        self._open.update(incidents)

    def add_account(self, name: str, snapshot: AccountSnapshot | None) -> None:
        """Add an account's latest snapshot; None forgets the account."""
        self._batch.accounts[name] = snapshot

    def add_path(self, name: str, snapshot: PathSnapshot | None) -> None:
        """Add a path's latest snapshot; None forgets the path."""
        self._batch.paths[name] = snapshot

    def add_flood(self, row: FloodRow, now: float) -> None:
        """Add a wait. Past the bound those that have ended make room, then the one that ends first."""
        floods = self._batch.floods
        floods[row.account, row.method, row.peer] = row
        if len(floods) > self._max:
            for key in [key for key, flood in floods.items() if flood.until <= now]:
                del floods[key]
        if len(floods) > self._max:
            del floods[min(floods, key=lambda key: floods[key].until)]

    def add_sign_in(self, row: SignIn) -> None:
        """Add a sign-in; their own budget bounds them."""
        self._batch.sign_ins.append(row)

    def _recovered(self, incident: str, at: float) -> None:
        recovered = self._batch.recovered
        recovered[incident] = at
        if len(recovered) > 10 * self._max:
            del recovered[next(iter(recovered))]

    def _merge(self, row: Row) -> None:
        batch = self._batch
        key = _fine(row)
        if key not in batch.merged and len(batch.merged) >= self._max:
            _into(batch.coarse, _coarse(row), row)
        else:
            _into(batch.merged, key, row)


def _into(merged: dict[_Key, _Merged], key: _Key, row: Row) -> None:
    if key in merged:
        merged[key].add(row)
    else:
        merged[key] = _Merged(row)


def _fine(row: Row) -> _Key:
    """What rows must share to become one."""
    return (row.account, row.path, row.error_id, row.method, *_coarse(row))


def _coarse(row: Row) -> _Key:
    """The least that rows must share: what the statistics count by, and a duration of about the same length."""
    return (row.kind, row.scope, row.action, row.outcome, _length(row.duration))


def _length(duration: float | None) -> int | None:
    """Durations in classes a factor of 1.4 wide: their mean then stands for each, and percentiles stay true."""
    return None if duration is None else round(2 * math.log2(max(duration, 0.001)))
