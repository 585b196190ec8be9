"""Outages: the incidents of a path, or of the whole fleet, in which many accounts fail together.

What an account would write of a failure that may be its path's is kept back for a second. If many others fail meanwhile
it is not written: the outage is, as one row, with the accounts that it has touched. It is over when the last of them is
back, or has trouble of another sort; that is its own then.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from supervisor.core.decide import is_limit
from supervisor.core.failure import Action, Evidence, Failure, Kind, Remedy, Result, Row, Scope, Source
from supervisor.core.outage import MANY, TOGETHER, Sight, shared
from supervisor.journal import Draft, Journal
from supervisor.ports import Clock, IncidentRow, Recorder
from supervisor.waiting import in_portions

log = logging.getLogger(__name__)

# How long an account's row waits for those of others: seconds. What a kill takes with it is no more than that.
KEPT_BACK = 1.0
# After some of everybody are back: how long the others may be on their way, before their trouble is their path's. Seconds.
SETTLED = 10.0
# How often an outage is written while it spreads. Seconds.
WRITTEN = 1.0


@dataclass(frozen=True, slots=True)
class _Missing:
    """An account that is not back: where it failed, and what it had to say of that, if it did in this run."""

    path: str
    draft: Draft | None = None


@dataclass(slots=True, eq=False)
class Outage:
    """One outage. `missing` are the accounts that are not back yet; `began`, `back` and `ended` are monotonic times.

    `back`: when the last account that is back came. `is_surge`: no links are lost, but calls fail; that it is over is
    told from outside.
    """

    id: str
    scope: Scope
    path: str
    failure: Failure
    opened_at: float
    began: float
    touched: dict[str, None] = field(default_factory=dict)
    missing: dict[str, _Missing] = field(default_factory=dict)
    failures: int = 0
    back: float | None = None
    ended: float | None = None
    row: Row | None = None
    is_surge: bool = False

    @property
    def action(self) -> Action:
        """What is done about it: where everybody is down there is no other proxy to go to."""
        return Action.RECONNECT if self.scope is Scope.FLEET else self.failure.action

    def as_row(self, outcome: Result | None, closed_at: float | None) -> IncidentRow:
        """As it is kept."""
        return IncidentRow(
            id=self.id,
            account=None,
            path=self.path,
            scope=self.scope,
            kind=self.failure.kind,
            opened_at=self.opened_at,
            closed_at=closed_at,
            outcome=outcome,
            last_action=self.action,
            failures=self.failures,
            accounts=tuple(self.touched),
        )


@dataclass(slots=True)
class _Kept:
    """What one account has not written yet, since when."""

    path: str
    since: float
    drafts: list[Draft] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fleet:
    """What outages are judged by.

    Args:
        population: how many accounts are on each path.
        is_down: whether a path is known to be broken.
        excuse: tells an account that what it met was not its own failure.
    """

    population: Callable[[], Mapping[str, int]]
    is_down: Callable[[str], bool]
    excuse: Callable[[str], None]


class Outages:
    """All outages of the daemon, and what accounts would write of failures that may belong to one."""

    def __init__(
        self,
        recorder: Recorder,
        clock: Clock,
        fleet: Fleet,
        *,
        new_id: Callable[[], str],
        stable_after: float,
    ) -> None:
        """Begin without any.

        Args:
            recorder: the recovery log.
            clock: both clocks.
            fleet: what they are judged by.
            new_id: makes an incident's id.
            stable_after: trouble of a path that comes back sooner is the same outage. Seconds.
        """
        self._recorder = recorder
        self._clock = clock
        self._fleet = fleet
        self._new_id = new_id
        self.stable_after = stable_after
        self._open: list[Outage] = []
        self._past: dict[tuple[Scope, str, Kind], Outage] = {}
        self._of: dict[str, Outage] = {}  # the accounts that are missing
        self._own: dict[str, str] = {}  # accounts with an open incident that is their own, and written
        self._kept: dict[str, _Kept] = {}
        self._seen: dict[str, dict[str, float]] = defaultdict(
            dict
        )  # by path: accounts, and when they failed last
        self._timer: asyncio.TimerHandle | None = None
        self._spread: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None

    def restore(self, rows: Iterable[IncidentRow], accounts: Iterable[str]) -> None:
        """Go on with what an earlier run left open.

        Args:
            rows: the open incidents.
            accounts: those that are configured now.
        """
        known, now = set(accounts), self._clock.now()
        for row in rows:
            if row.account is not None or row.closed_at is not None or row.scope is Scope.CALL:
                continue
            seen = Evidence(Source.SOCKET, "an outage that began before the restart", path=row.path)
            failure = Failure(row.kind, row.scope, Remedy((row.last_action or Action.RECONNECT).value), seen)
            began = self._clock.monotonic() - max(0.0, now - row.opened_at)
            outage = Outage(row.id, row.scope, row.path, failure, row.opened_at, began, failures=row.failures)
            outage.touched = dict.fromkeys(row.accounts)
            outage.missing = {name: _Missing(row.path) for name in row.accounts if name in known}
            self._open.append(outage)
            self._of.update(dict.fromkeys(outage.missing, outage))
            self._end_if_over(outage)

    def of(self, account: str) -> Outage | None:
        """The outage that an account is not back from."""
        return self._of.get(account)

    def on(self, path: str) -> Outage | None:
        """The open outage that a path is part of."""
        found = (each for each in self._open if not each.is_surge)
        return next((each for each in found if each.scope is Scope.FLEET or each.path == path), None)

    # --- calls of many accounts that fail -------------------------------------------------------------

    def surge(self, path: str, scope: Scope, failure: Failure, failing: int) -> Outage:
        """Open an outage of calls: the links are well.

        Args:
            path: the path.
            scope: how far it reaches.
            failure: what the last call met.
            failing: how many accounts.
        """
        outage = self._begin(path, scope, [failure], failing, self._clock.monotonic())
        outage.is_surge = True
        return outage

    def spread(self, outage: Outage, account: str) -> None:
        """One more call has met it."""
        outage.failures += 1
        self._touched(outage, account)

    def subsided(self, outage: Outage) -> None:
        """No call has met it for a while."""
        outage.is_surge, outage.back = False, self._clock.monotonic()
        self._end_if_over(outage)

    # --- what accounts would write --------------------------------------------------------------------

    def log(self, account: str, draft: Draft) -> None:
        """Take what an account has to say of its incident: written now, later, or as part of an outage.

        Args:
            account: its name.
            draft: the row, with the incident as it then stands.
        """
        if draft.row.outcome is Result.RECOVERED:
            self._recovered(account, draft)
        elif draft.row.outcome is Result.RETRYING and _may_be_shared(draft.failure):
            self._failed(account, draft)
        else:  # the account's own affair, and so is what comes after it
            self._write_kept(account)
            self._write(account, draft)
            self.left(account)

    def given_up(self, account: str, incident: IncidentRow) -> None:
        """A person has ended an account's incident.

        Args:
            account: its name.
            incident: the incident, closed.
        """
        self._write_kept(account)
        if account not in self._of or self._own.get(account) == incident.id:
            self._recorder.incident(incident)
        self.left(account)

    def left(self, account: str) -> None:
        """An account is no longer part of any outage: what it has now is its own, or it is gone."""
        outage = self._of.pop(account, None)
        if outage is not None:
            outage.missing.pop(account, None)
            self._end_if_over(outage)

    def online(self, account: str) -> None:
        """An account is online, after whatever; also one that never failed in this run."""
        if account not in self._kept:
            self._back(account)

    def close(self) -> None:
        """The daemon stops: what is kept back is written; open outages stay open for the next."""
        for timer in (self._timer, self._spread, self._settling):
            if timer is not None:
                timer.cancel()
        for account in list(self._kept):
            self._write_kept(account)
        for outage in self._open:
            self._recorder.incident(outage.as_row(None, None))

    def _recovered(self, account: str, draft: Draft) -> None:
        if account in self._kept:
            self._kept[account].drafts.append(draft)
            return
        outage = self._of.get(account)
        if outage is None or self._own.get(account) == draft.incident.id:
            self._write(account, draft)
        self._back(account)

    def _back(self, account: str) -> None:
        outage = self._of.pop(account, None)
        if outage is not None:
            outage.missing.pop(account, None)
            outage.back = self._clock.monotonic()
            self._end_if_over(outage)

    def _failed(self, account: str, draft: Draft) -> None:
        path, now = draft.failure.evidence.path, self._clock.monotonic()
        self._seen[path][account] = now
        outage = self._of.get(account) or (self.on(path) if self._fleet.is_down(path) else None)
        if self._own.get(account) == draft.incident.id:
            self._write(account, draft)
        elif outage is not None:
            self._fleet.excuse(account)
            self._touch(outage, account, path, draft)
        elif sum(self._fleet.population().values()) < MANY:
            self._write(account, draft)
        else:
            self._kept.setdefault(account, _Kept(path, now)).drafts.append(draft)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(KEPT_BACK, self._judge)

    def _write(self, account: str, draft: Draft) -> None:
        if draft.row.outcome is Result.RECOVERED:
            self._own.pop(account, None)
        else:
            self._own[account] = draft.incident.id
        draft.write()

    def _write_kept(self, account: str) -> None:
        kept = self._kept.pop(account, None)
        for draft in kept.drafts if kept is not None else ():
            self._write(account, draft)

    # --- judging them ---------------------------------------------------------------------------------

    def _judge(self) -> None:
        """What was kept back for its time is written, unless it is shared."""
        self._timer = None
        now = self._clock.monotonic()
        failing = self._failing(now)
        common = shared(self._sights(failing))
        if Scope.FLEET in common.values():
            self._share(Scope.FLEET, list(self._kept), len(set[str]().union(*failing.values())))
        else:
            for path, scope in common.items():
                kept = [name for name, each in self._kept.items() if each.path == path]
                self._share(scope, kept, len(failing[path]))
        for account in [name for name, each in self._kept.items() if now - each.since >= KEPT_BACK - 1e-3]:
            self._write_kept(account)
        if self._kept:
            oldest = min(each.since for each in self._kept.values())
            wait = max(0.0, oldest + KEPT_BACK - now)
            self._timer = asyncio.get_running_loop().call_later(wait, self._judge)

    def _failing(self, now: float) -> dict[str, set[str]]:
        """The accounts that fail, by path."""
        failing: dict[str, set[str]] = defaultdict(set)
        for path, seen in self._seen.items():
            for account in [name for name, at in seen.items() if now - at > TOGETHER]:
                del seen[account]
            failing[path].update(seen)
        for outage in self._open:
            for account, missing in outage.missing.items():
                failing[missing.path].add(account)
        return {path: names for path, names in failing.items() if names}

    def _sights(self, failing: Mapping[str, set[str]]) -> dict[str, Sight]:
        population = self._fleet.population()
        sights: dict[str, Sight] = {}
        for path in {*population, *failing}:
            fail = len(failing.get(path, ()))
            sights[path] = Sight(max(population.get(path, 0), fail), fail, self._fleet.is_down(path))
        return sights

    def _share(self, scope: Scope, accounts: list[str], failing: int) -> None:
        """What these accounts have kept back is one outage's, in which so many fail."""
        if not accounts:
            return
        first = min((self._kept[name] for name in accounts), key=lambda kept: kept.since)
        drafts = [draft for name in accounts for draft in self._kept[name].drafts]
        failures = [draft.failure for draft in drafts if draft.row.outcome is not Result.RECOVERED]
        outage = self._widened(scope) or self.on(first.path)
        if outage is None:
            outage = self._begin(first.path, scope, failures, failing, first.since)
        in_portions([functools.partial(self._fleet.excuse, name) for name in accounts])
        for name in accounts:
            self._take_in(outage, name, self._kept.pop(name))
        self._recorder.incident(outage.as_row(None, None))
        self._end_if_over(outage)

    def _take_in(self, outage: Outage, account: str, kept: _Kept) -> None:
        last = kept.drafts[-1]
        self._touch(outage, account, kept.path, last)
        outage.failures += sum(draft.row.outcome is not Result.RECOVERED for draft in kept.drafts) - 1
        if last.row.outcome is Result.RECOVERED:
            del self._of[account], outage.missing[account]
            since = self._clock.now() - last.row.at
            outage.back = max(outage.back or outage.began, self._clock.monotonic() - since)

    def _begin(self, path: str, scope: Scope, failures: list[Failure], failing: int, began: float) -> Outage:
        kinds = [failure.kind for failure in failures]
        commonest = max(kinds, key=kinds.count)
        failure = next(failure for failure in failures if failure.kind is commonest)
        said = f"{failing} accounts at once: {failure.evidence.message}"
        failure = replace(failure, scope=scope, evidence=replace(failure.evidence, message=said))
        opened_at = self._wall(began)
        past = self._past.pop((scope, path, commonest), None)
        if past is not None and began - (past.ended or 0.0) <= self.stable_after:
            outage = replace(past, failure=failure, opened_at=opened_at, began=began, back=None, ended=None)
        else:
            outage = Outage(self._new_id(), scope, path, failure, opened_at, began)
        self._open.append(outage)
        outage.row = self._say(outage, Result.RETRYING, began)
        return outage

    def _settle(self, outage: Outage) -> None:
        """Some are back: those whose path alone is still down have its trouble by now, and no longer everybody's."""
        self._settling = None
        if outage not in self._open or outage.scope is not Scope.FLEET:
            return
        if any(not self._fleet.is_down(path) for path in self._fleet.population()):
            stuck: dict[str, list[str]] = defaultdict(list)
            for name, missing in outage.missing.items():
                if self._fleet.is_down(missing.path):
                    stuck[missing.path].append(name)
            for path, names in stuck.items():
                self._hand_over(outage, path, names)
        self._end_if_over(outage)

    def _hand_over(self, outage: Outage, path: str, accounts: list[str]) -> None:
        """These accounts' trouble is their path's now, or where they are few their own."""
        drafts = {name: outage.missing.pop(name).draft for name in accounts}
        for name in accounts:
            del self._of[name]
        known = {name: draft for name, draft in drafts.items() if draft is not None}
        if len(known) < MANY:
            for name, draft in known.items():
                self._write(name, draft)
            return
        failures = [draft.failure for draft in known.values()]
        theirs = self._begin(path, Scope.PATH, failures, len(known), self._clock.monotonic())
        for name, draft in known.items():
            self._touch(theirs, name, path, draft)
        self._recorder.incident(theirs.as_row(None, None))

    def _widened(self, scope: Scope) -> Outage | None:
        """Where it has become everybody's: the outage of the first path, which takes those of the others in."""
        links = [each for each in self._open if not each.is_surge]
        if scope is not Scope.FLEET or not links:
            return None
        first, *others = links
        first.scope = Scope.FLEET
        first.failure = replace(first.failure, scope=Scope.FLEET)
        for other in others:
            first.touched.update(other.touched)
            first.missing.update(other.missing)
            first.failures += other.failures
            self._of.update(dict.fromkeys(other.missing, first))
            other.missing.clear()
            self._recorder.incident(other.as_row(None, self._clock.now()))
            self._open.remove(other)
        return first

    def _touch(self, outage: Outage, account: str, path: str, draft: Draft) -> None:
        outage.failures += 1
        outage.missing[account] = _Missing(path, draft)
        self._seen[path].pop(account, None)
        self._of[account] = outage
        self._touched(outage, account)

    def _touched(self, outage: Outage, account: str) -> None:
        if account not in outage.touched:
            outage.touched[account] = None
            if self._spread is None:
                self._spread = asyncio.get_running_loop().call_later(WRITTEN, self._write_spread)

    def _write_spread(self) -> None:
        self._spread = None
        for outage in self._open:
            self._recorder.incident(outage.as_row(None, None))

    def _end_if_over(self, outage: Outage) -> None:
        if outage not in self._open or outage.is_surge:
            return
        if outage.missing:
            if outage.back is not None and outage.scope is Scope.FLEET and self._settling is None:
                self._settling = asyncio.get_running_loop().call_later(SETTLED, self._settle, outage)
            return
        self._open.remove(outage)
        outage.ended = self._clock.monotonic() if outage.back is None else outage.back
        result = None if outage.back is None else Result.RECOVERED
        self._recorder.incident(outage.as_row(result, self._wall(outage.ended)))
        if result is not None:
            self._say(outage, result, outage.ended, outage.ended - outage.began)
        self._past[outage.scope, outage.path, outage.failure.kind] = outage

    def _say(self, outage: Outage, result: Result, at: float, duration: float | None = None) -> Row:
        pen = Journal(None, self._recorder, self._clock, outage.path)
        row = pen.draft(outage.failure, result, outage.action, incident=outage.id, duration=duration)
        row = replace(row, at=self._wall(at))
        pen.write(row)
        return row

    def _wall(self, mono: float) -> float:
        """A monotonic time as a Unix time."""
        return self._clock.now() - (self._clock.monotonic() - mono)


def _may_be_shared(failure: Failure) -> bool:
    """Whether the path could be to blame."""
    return failure.kind in (Kind.CONNECTION, Kind.PROXY) or is_limit(failure.evidence)
