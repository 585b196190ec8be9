"""What an account, or the fleet, writes into the recovery log: rows of failures, and the incidents they belong to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from supervisor.core.codes import code_of
from supervisor.core.failure import Action, Failure, Kind, Result, Row, Scope
from supervisor.core.incident import Incident
from supervisor.core.sentence import sentence
from supervisor.ports import Clock, IncidentRow, Recorder

log = logging.getLogger(__name__)

# Failures of a bot's code that say the same: so many are written one by one, then one row each so many seconds.
FEW, WINDOW = 10, 60.0
# So many sorts of them are told apart.
GROUPS = 100


@dataclass(frozen=True, slots=True)
class Draft:
    """What an account has to say of its incident: one row, and the incident as it then stands."""

    journal: Journal
    failure: Failure
    row: Row
    incident: IncidentRow

    def write(self) -> None:
        """Write both."""
        self.journal.write(self.row)
        self.journal.keep(self.incident)


class Journal:
    """One account's pen. `path` and `last` are what `status` shows: the present path, the last failure."""

    def __init__(
        self, account: str | None, recorder: Recorder, clock: Clock, path: str, last: Row | None = None
    ) -> None:
        """Take up the pen.

        Args:
            account: the account's name; None writes for the whole fleet.
            recorder: the recovery log.
            clock: both clocks.
            path: the path that the account is on.
            last: the last failure that an earlier run recorded.
        """
        self._account = account
        self._recorder = recorder
        self._clock = clock
        self.path = path
        self.last = last

    def draft(
        self,
        failure: Failure,
        result: Result,
        action: Action,
        *,
        method: str | None = None,
        incident: str | None = None,
        attempt: int = 0,
        delay: float = 0.0,
        duration: float | None = None,
        count: int = 1,
        of: int = 0,
    ) -> Row:
        """A row as it would be written now.

        Args:
            failure: what happened; of a recovery, what it was from.
            result: how it ended.
            action: what was done.
            method: the call, where the evidence does not name it.
            incident: the incident's id.
            attempt: which action in a row this was; 1 is the first.
            delay: seconds before the action.
            duration: seconds since the incident's first failure, of a recovery.
            count: how many failures it stands for.
            of: how many attempts in a row there may be.
        """
        evidence = failure.evidence
        return Row(
            at=self._clock.now(),
            account=self._account,
            path=self.path,
            scope=failure.scope,
            kind=failure.kind,
            action=action,
            outcome=result,
            message=evidence.message,
            incident=incident,
            error_id=failure.error_id,
            error_code=evidence.code,
            method=method or evidence.method,
            attempt=attempt,
            delay=delay,
            duration=duration,
            cause=evidence.cause,
            traceback=None if result is Result.RECOVERED else evidence.traceback,
            context=evidence.context,
            count=count,
            code=code_of(failure, result).number,
            of=of,
        )

    def write(self, row: Row) -> None:
        """Write a row, and a line in the log."""
        self._recorder.record(row)
        self._say(row)
        if row.outcome is not Result.RECOVERED:
            self.last = row

    def incident(self, incident: Incident) -> None:
        """Write an incident of the account as it now stands."""
        self.keep(self.incident_row(incident))

    def keep(self, incident: IncidentRow) -> None:
        """Write an incident as it stood."""
        self._recorder.incident(incident)

    def incident_row(self, incident: Incident) -> IncidentRow:
        """An incident of the account as it now stands."""
        return IncidentRow(
            id=incident.id,
            account=self._account,
            path=self.path,
            scope=incident.scope,
            kind=incident.kind,
            opened_at=incident.opened_at,
            closed_at=incident.closed_at,
            outcome=incident.outcome,
            last_action=incident.last_action,
            failures=incident.failures,
            attempts={kind.value: n for kind, n in incident.attempts.items()},
            backoff={kind.value: n for kind, n in incident.backoff.items()},
        )

    def ended_call(
        self,
        incident: str,
        failure: Failure,
        action: Action,
        result: Result,
        *,
        opened_at: float,
        failures: int,
    ) -> None:
        """Write the incident of one call, at its end: a call's fate does not outlive the process.

        Args:
            incident: its id.
            failure: the last of its failures.
            action: the last thing that was done.
            result: how it ended.
            opened_at: Unix time of its first failure.
            failures: how many there were.
        """
        self._recorder.incident(
            IncidentRow(
                id=incident,
                account=self._account,
                path=self.path,
                scope=Scope.CALL,
                kind=failure.kind,
                opened_at=opened_at,
                closed_at=self._clock.now(),
                outcome=result,
                last_action=action,
                failures=failures,
            )
        )

    def _say(self, row: Row) -> None:
        who, name = {"account": self._account}, _name(row)
        log.log(_loudness(row), "%s: %s", name, sentence(row), extra=who)
        if row.outcome is not Result.RECOVERED and log.isEnabledFor(logging.DEBUG):
            for cause in row.cause:
                log.debug("%s:   caused by %s", name, cause, extra=who)
            if row.traceback is not None:
                log.debug("%s: %s", name, row.traceback.rstrip(), extra=who)


def _name(row: Row) -> str:
    """Whom a row is about."""
    return row.account or (f"path {row.path}" if row.scope is Scope.PATH else row.scope.value)


def _loudness(row: Row) -> int:
    if row.outcome is Result.RECOVERED or row.kind is Kind.FLOOD_WAIT:
        return logging.INFO
    if row.outcome is Result.RAISED:
        return logging.ERROR if row.traceback is not None else logging.INFO
    is_over = row.outcome in (Result.FAILED, Result.NEEDS_LOGIN) and row.scope is not Scope.CALL
    return logging.ERROR if is_over else logging.WARNING


@dataclass(slots=True)
class _Group:
    """Failures that say the same. `more` is the first that was not written by itself."""

    timer: asyncio.TimerHandle
    written: int = 0
    count: int = 0
    more: Failure | None = None


class Repeats:
    """Failures of a bot's own code, which may raise a thousand times a second.

    The first few that say the same are written one by one, those after them as one row a minute with their number.
    """

    def __init__(self, write: Callable[[Failure, int], None]) -> None:
        """Begin.

        Args:
            write: writes one row, for so many.
        """
        self._write = write
        self._groups: dict[tuple[str, ...], _Group] = {}

    def add(self, failure: Failure) -> None:
        """Take one failure."""
        key = _saying(failure)
        if key not in self._groups and len(self._groups) >= GROUPS:
            key = ()
        group = self._groups.get(key) or self._begin(key, written=0)
        if group.written < FEW:
            group.written += 1
            self._write(failure, 1)
        else:
            group.count += 1
            group.more = group.more or failure

    def _begin(self, key: tuple[str, ...], *, written: int) -> _Group:
        timer = asyncio.get_running_loop().call_later(WINDOW, self._over, key)
        group = self._groups[key] = _Group(timer, written)
        return group

    def _over(self, key: tuple[str, ...]) -> None:
        group = self._groups.pop(key)
        if group.more is not None:
            self._write(group.more, group.count)
            self._begin(key, written=FEW)

    def close(self) -> None:
        """Write what is left."""
        groups, self._groups = self._groups, {}
        for group in groups.values():
            group.timer.cancel()
            if group.more is not None:
                self._write(group.more, group.count)


def _saying(failure: Failure) -> tuple[str, ...]:
    """What failures must share to be of one group: what was done, the sort of error, its place; not its text."""
    evidence = failure.evidence
    what, where = (evidence.cause or (evidence.message,))[0], (evidence.cause or ("",))[-1]
    return (evidence.step or "", evidence.error_id or "", what.partition(":")[0], where)
