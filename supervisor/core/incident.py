"""An incident: one stretch of trouble, from its first failure to the proof that it is over."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from supervisor.core.failure import Action, Failure, Kind, Result, Scope


@dataclass(frozen=True, slots=True)
class Incident:
    """What is remembered of an incident while it lasts, and for `stable_after` seconds beyond.

    `attempts` counts, per kind, the actions in a row that no answered RPC followed: the cap is held
    against it. `backoff` counts the failed attempts, per kind, and keeps growing when a closed incident is
    opened again. Times are monotonic seconds, but for `opened_at` and `closed_at`, which people read.
    """

    id: str
    kind: Kind
    scope: Scope
    path: str
    opened_at: float
    began: float
    failures: int = 0
    attempts: dict[Kind, int] = field(default_factory=dict)
    backoff: dict[Kind, int] = field(default_factory=dict)
    last_action: Action | None = None
    closed_at: float | None = None
    ended: float | None = None
    outcome: Result | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing has ended it yet."""
        return self.closed_at is None

    def spent(self, kind: Kind) -> int:
        """How many actions in a row have been taken against `kind`."""
        return self.attempts.get(kind, 0)

    def seen(self) -> Incident:
        """One more failure belongs to it."""
        return replace(self, failures=self.failures + 1)

    def acted(self, kind: Kind, action: Action, *, counted: bool = True) -> Incident:
        """An action was taken; `counted` says whether it is held against the cap."""
        attempts = self.attempts | {kind: self.spent(kind) + 1} if counted else self.attempts
        return replace(self, attempts=attempts, last_action=action)

    def delayed(self, kind: Kind) -> Incident:
        """An attempt failed: the next delay for this kind is longer."""
        return replace(self, backoff=self.backoff | {kind: self.backoff.get(kind, 0) + 1})

    def closed(self, outcome: Result | None, now: float, mono: float) -> Incident:
        """It is over; `outcome` None if a person ended it."""
        return replace(self, closed_at=now, ended=mono, outcome=outcome)

    def reopened(self, now: float, mono: float) -> Incident:
        """It came back within `stable_after`: delays keep growing, caps begin anew."""
        return replace(
            self,
            closed_at=None,
            ended=None,
            outcome=None,
            attempts={},
            opened_at=now,
            began=mono,
            last_action=None,
        )


def opened(incident_id: str, failure: Failure, path: str, now: float, mono: float) -> Incident:
    """Begin an incident with its first failure (not yet counted in `failures`)."""
    return Incident(
        id=incident_id, kind=failure.kind, scope=failure.scope, path=path, opened_at=now, began=mono
    )
