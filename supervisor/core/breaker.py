"""A circuit breaker: closed, open, half-open.

    closed --failures_to_open failures in a row, or trip--> open
    open --try_out, once the probe is due--> half-open
    half-open --failed--> open, its next probe by the schedule
    half-open, open --succeeded--> closed

It serves two: a suspended account (probed by one whole attempt) and a broken path (probed by one connect and
one req_pq_multi). They differ in their schedule alone. Times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class ProbeSchedule:
    """When to probe something that is broken. Each delay runs from the failure before it. Seconds.

    Args:
        first: the delay before the first probe.
        growth: what each delay is multiplied with to give the next.
        longest: where growing ends.
        patience: how long after opening this goes on; then every probe waits `later`.
        later: the delay after `patience`; None: `patience` never ends.
    """

    first: float
    growth: float = 1.0
    longest: float = 300.0
    patience: float = 0.0
    later: float | None = None

    def delay(self, probes: int, open_for: float) -> float:
        """Seconds from a failure to the next probe, after `probes` failed ones, `open_for` seconds after opening."""
        if self.later is not None and open_for >= self.patience:
            return self.later
        # 2^64 is beyond any `longest`, and far from what a float cannot hold.
        return min(self.first * self.growth ** min(probes, 64), self.longest)


# PRODUCT "Incidents and caps": "a half-open probe after 60 s, doubling to 300 s".
SUSPENDED: Final = ProbeSchedule(first=60.0, growth=2.0, longest=300.0)

# ARCHITECTURE "Paths": "every 1 s for five minutes, then every 5 s".
BROKEN_PATH: Final = ProbeSchedule(first=1.0, patience=300.0, later=5.0)

# ARCHITECTURE "Paths": "after a proxy's authentication failure or -429 after 60 s, doubling to 300".
REFUSING_PATH: Final = ProbeSchedule(first=60.0, growth=2.0, longest=300.0)


class Position(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """A value: every method but the questions returns another breaker.

    Args:
        schedule: when to probe, unless a failure brings a schedule of its own.
        failures_to_open: how many failures in a row open it.
        position: where it stands.
        failures: how many failures in a row there were while it was closed.
        opened_at: when it opened.
        probes: how many probes in a row failed under the schedule in force.
        probe_at: when the next probe is due; None while closed.
        in_force: the schedule that the last failure brought.
    """

    schedule: ProbeSchedule = SUSPENDED
    failures_to_open: int = 5
    position: Position = Position.CLOSED
    failures: int = 0
    opened_at: float = 0.0
    probes: int = 0
    probe_at: float | None = None
    in_force: ProbeSchedule | None = None

    def allows(self, now: float) -> bool:
        """Whether ordinary work, or the one probe that is due, may go ahead."""
        return self.position is Position.CLOSED or self.probe_due(now)

    def probe_due(self, now: float) -> bool:
        """Whether a probe should go out now; never while one is out."""
        return self.position is Position.OPEN and self.probe_at is not None and now >= self.probe_at

    def try_out(self, now: float) -> Breaker:
        """Send the probe that is due: half-open until it `failed` or `succeeded`.

        Raises:
            ValueError: no probe is due.
        """
        if not self.probe_due(now):
            raise ValueError(f"no probe is due: {self.position.value}, next at {self.probe_at}")
        return replace(self, position=Position.HALF_OPEN)

    def failed(self, now: float, schedule: ProbeSchedule | None = None) -> Breaker:
        """One more failure; while half-open, the probe's.

        While it is open, failures are late news of what is known already and change nothing, unless they
        bring a schedule that is not yet in force.

        Args:
            now: monotonic time.
            schedule: when to probe after this failure, if not as usual (`REFUSING_PATH`).
        """
        if self.position is Position.CLOSED:
            counted = replace(self, failures=self.failures + 1)
            return counted.trip(now, schedule) if counted.failures >= self.failures_to_open else counted
        if self.position is Position.OPEN and schedule in (None, self.in_force):
            return self
        schedule = schedule or self.schedule
        probes = self.probes + 1 if schedule == self.in_force else 0
        return self._wait(now, schedule, probes, opened_at=self.opened_at)

    def trip(self, now: float, schedule: ProbeSchedule | None = None) -> Breaker:
        """Open at once, whatever the count: the first probe is due after the schedule's first delay."""
        return self._wait(now, schedule or self.schedule, 0, opened_at=now)

    def succeeded(self) -> Breaker:
        """Something worked: closed, everything forgotten."""
        return Breaker(self.schedule, self.failures_to_open)

    def _wait(self, now: float, schedule: ProbeSchedule, probes: int, *, opened_at: float) -> Breaker:
        return replace(
            self,
            position=Position.OPEN,
            opened_at=opened_at,
            probes=probes,
            probe_at=now + schedule.delay(probes, now - opened_at),
            in_force=schedule,
        )
