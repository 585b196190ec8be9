"""The object of `stats --json` (PRODUCT.md): what was recovered, how fast, and what was not.

An incident counts each time it ends: one that comes back within `stable_after` and recovers again was recovered twice.
`last_24h` and `errors_by_type_7d` count every failure that was seen, those handed to the caller too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor.core.failure import Action, Kind, Result
from supervisor.record.counting import Asked, Count, Ended, Log, Sort
from supervisor.record.rollups import DAY, HOUR, Histogram
from supervisor.record.rows import rfc3339

SCHEMA = 1

_RECOVERED = Result.RECOVERED.value
_TRIED = (Result.RETRYING.value, Result.SUSPENDED.value)  # a suspended account is still probed
_GIVEN_UP = (Result.FAILED.value, Result.NEEDS_LOGIN.value)

Lengths = list[tuple[float, int]]
"""Durations and how many there are of each, the shortest first."""


def stats(log: Log | None, asked: Asked, now: float) -> dict[str, Any]:
    """Count what the log has.

    Args:
        log: recovery.db; None where there is none yet.
        asked: from when on, and of whom. `since` in the answer is earlier, by less than a day, where the log no longer
            has all rows of that day, or has so many that only whole days are counted.
        now: Unix time.
    """
    if log is None:
        return _shape(asked, now, _Found({}, {}, {}))
    asked = Asked(log.start(asked.since), asked.account, asked.kind)
    by_sort = log.by_sort(asked)
    by_account = log.by_account(asked)
    recovered = sum(found.count for (_, _, outcome), found in by_sort.items() if outcome == _RECOVERED)
    exact = _exact_lengths(log, asked, recovered)
    found = _Found(by_sort, by_account, exact or _rough_lengths(by_sort))
    found.is_exact = bool(exact)
    found.longest = exact[()][-1][0] if exact else max((one.longest for one in by_sort.values()), default=0.0)
    found.last_day = _seen(log, asked, now - DAY).total()
    found.last_week = _seen(log, asked, now - 7 * DAY)
    for account, kind, count in log.open_incidents(asked):
        found.open_kinds[kind] += count
        if account is not None:
            found.open_accounts[account] += count
    return _shape(asked, now, found)


@dataclass(slots=True)
class _Found:
    """What was counted. `lengths` is by kind (a str), by account (a tuple of one), and () for all."""

    by_sort: Mapping[Sort, Count]
    by_account: Mapping[str, Ended]
    lengths: Mapping[object, Lengths]
    longest: float = 0.0
    is_exact: bool = False  # whether `lengths` has the accounts', too
    open_kinds: Counter[str] = field(default_factory=Counter)
    open_accounts: Counter[str] = field(default_factory=Counter)
    last_day: int = 0
    last_week: Counter[str] = field(default_factory=Counter)

    def ended(self, result: Result) -> Counter[str]:
        """How many incidents ended so, by kind."""
        counts: Counter[str] = Counter()
        for (kind, _, outcome), found in self.by_sort.items():
            if outcome == result.value:
                counts[kind] += found.count
        return counts


def _shape(asked: Asked, now: float, found: _Found) -> dict[str, Any]:
    recovered, failed = found.ended(Result.RECOVERED), found.ended(Result.FAILED)
    still_open = found.open_kinds.total()
    all_lengths = found.lengths.get((), [])
    return {
        "schema": SCHEMA,
        "since": rfc3339(asked.since),
        "until": rfc3339(now),
        "incidents": {
            "total": recovered.total() + failed.total() + still_open,
            "recovered": recovered.total(),
            "failed": failed.total(),
            "open": still_open,
        },
        "success_rate": _rate(recovered.total(), failed.total()),
        "time_to_recover_s": {
            "p50": _percentile(all_lengths, 0.5),
            "p90": _percentile(all_lengths, 0.9),
            "p99": _percentile(all_lengths, 0.99),
            "max": _seconds(found.longest) if all_lengths else None,
        },
        "by_kind": {
            kind.value: {
                "count": recovered[kind] + failed[kind] + found.open_kinds[kind],
                "recovered": recovered[kind],
                "failed": failed[kind],
                "p50_s": _percentile(found.lengths.get(kind.value, []), 0.5),
            }
            for kind in Kind
            if kind in recovered or kind in failed or kind in found.open_kinds
        },
        "by_action": _by_action(found.by_sort),
        "by_account": _by_account(found),
        "last_24h": found.last_day,
        "errors_by_type_7d": {kind.value: found.last_week[kind] for kind in Kind if kind in found.last_week},
    }


def _by_action(by_sort: Mapping[Sort, Count]) -> dict[str, dict[str, int]]:
    used: Counter[str] = Counter()
    succeeded: Counter[str] = Counter()
    for (_, action, outcome), found in by_sort.items():
        if outcome == _RECOVERED:
            succeeded[action] += found.count
        elif outcome in _TRIED or (action == Action.FAIL and outcome in _GIVEN_UP):
            used[action] += found.count
    # What was begun before `since` and succeeded after it was used, too.
    return {
        action.value: {"used": max(used[action], succeeded[action]), "succeeded": succeeded[action]}
        for action in Action
        if action in used or action in succeeded
    }


def _by_account(found: _Found) -> dict[str, dict[str, Any]]:
    shaped = {}
    for name in sorted(found.by_account.keys() | found.open_accounts.keys()):
        ended = found.by_account.get(name) or Ended()
        shaped[name] = {
            "count": ended.recovered + ended.failed + found.open_accounts[name],
            "recovered": ended.recovered,
            "failed": ended.failed,
            "open": found.open_accounts[name],
            "success_rate": _rate(ended.recovered, ended.failed),
            "p50_s": _percentile(found.lengths.get((name,), []), 0.5)
            if found.is_exact
            else _seconds(ended.lengths.percentile(0.5)),
        }
    return shaped


def _seen(log: Log, asked: Asked, since: float) -> Counter[str]:
    """The failures seen since then, by kind."""
    since = log.start(since, HOUR if asked.account is None else None)
    counts: Counter[str] = Counter()
    for (kind, _, outcome), found in log.by_sort(Asked(since, asked.account, asked.kind)).items():
        if outcome != _RECOVERED:
            counts[kind] += found.count
    return counts


# --- How long it took --------------------------------------------------------------------------------------


def _exact_lengths(log: Log, asked: Asked, recovered: int) -> dict[object, Lengths] | None:
    took = log.durations(asked, recovered)
    if took is None:
        return None
    lengths: defaultdict[object, Lengths] = defaultdict(list)
    for one in sorted(took, key=lambda one: one.duration):
        for key in ((), one.kind, (one.account,)):
            lengths[key].append((one.duration, one.count))
    return lengths


def _rough_lengths(by_sort: Mapping[Sort, Count]) -> dict[object, Lengths]:
    histograms: defaultdict[object, Histogram] = defaultdict(Histogram)
    for (kind, _, outcome), found in by_sort.items():
        if outcome == _RECOVERED:
            histograms[()].merge(found.lengths.packed())
            histograms[kind].merge(found.lengths.packed())
    return {key: list(histogram) for key, histogram in histograms.items()}


def _percentile(lengths: Lengths, share: float) -> float | None:
    """The shortest duration that at least this share of all does not exceed."""
    wanted = share * sum(count for _, count in lengths)
    for seconds, count in lengths:
        wanted -= count
        if wanted <= 1e-9:
            return _seconds(seconds)
    return None


def _seconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _rate(recovered: int, failed: int) -> float | None:
    return round(recovered / (recovered + failed), 4) if recovered + failed else None
