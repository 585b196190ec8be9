"""What came of a demo: records, what is to be said against it, and its JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from supervisor.cli.demo.stage import Call
from supervisor.cli.demo.steps import Step
from supervisor.core.failure import Result
from supervisor.datacenter import Account, Seen

SCHEMA = 1
_ENDS = frozenset({Result.FAILED, Result.NEEDS_LOGIN, Result.SUSPENDED})


@dataclass(slots=True)
class StepSeen:
    """A step, and what was seen of it.

    Args:
        step: what was broken.
        at: when, in seconds of the demo.
        expected: whether all came that the step expects.
        rows: of the recovery log, as `log --json` has them, from this step to the next.
        slowest: the slowest answered call of its accounts from this step to the next, in seconds.
    """

    step: Step
    at: float
    expected: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    slowest: float | None = None

    @property
    def closing(self) -> dict[str, dict[str, Any]]:
        """The row of each account that is what the step expects: the first of them."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            if self.step.expected.is_met_by(row):
                for name in row.get("accounts", [row["account"]]):  # those of an outage, or its own
                    found.setdefault(name, row)
        return {name: found[name] for name in self.step.accounts if name in found}

    @property
    def recovered_in(self) -> float | None:
        """Seconds from the first failure to the recovery, of the account that took longest."""
        spans = [row["duration_s"] for row in self.closing.values() if row["duration_s"] is not None]
        return round(max(spans), 3) if spans else None

    @property
    def what_was_done(self) -> tuple[str, str]:
        """As what it was seen and the action: of what was expected, else of what came instead."""
        found = list(self.closing.values()) or self.rows[-1:]
        if not found:
            return "", ""
        row = found[0]
        done = row["outcome"] if row["outcome"] in _ENDS else row["action"]
        return row["kind"], done.replace("_", " ")

    def json(self) -> dict[str, Any]:
        """The step in the JSON."""
        return {
            "name": self.step.name,
            "accounts": list(self.step.accounts),
            "at_s": round(self.at, 3),
            "lasted_s": self.step.lasts,
            "as_expected": self.expected,
            "recovered_in_s": self.recovered_in,
            "slowest_call_s": self.slowest,
            "log": self.rows,
        }


@dataclass(frozen=True, slots=True)
class Tally:
    """An account's calls: the first four as its own code saw them, the last two as the datacenter did."""

    name: str
    asked: int
    answered: int
    failed: int
    refused: int
    slowest: float | None
    delivered: int
    delivered_twice: int

    @property
    def open(self) -> int:
        """Calls that nothing has become of yet."""
        return self.asked - self.answered - self.failed - self.refused

    @property
    def problems(self) -> Iterator[str]:
        """What should not have been."""
        if self.open:
            yield f"{self.name}: {self.open} calls were not answered"
        if self.delivered_twice:
            yield f"{self.name}: {self.delivered_twice} messages were delivered twice"
        if self.delivered < self.answered:
            yield f"{self.name}: {self.answered - self.delivered} answered messages were not delivered"

    def json(self) -> dict[str, Any]:
        """The account in the JSON."""
        return {
            "name": self.name,
            "asked": self.asked,
            "answered": self.answered,
            "failed": self.failed,
            "refused": self.refused,
            "slowest_s": self.slowest,
            "delivered": self.delivered,
            "delivered_twice": self.delivered_twice,
        }


@dataclass(slots=True)
class Report:
    """A whole demo.

    Args:
        steps: what was broken, and what was seen of it.
        tallies: each account's calls.
        errors: those of the failed calls.
        early_calls: that left although a wait that the datacenter had demanded was still running.
        codes_unasked: login codes that were sent though nobody had called for a login.
        daemon_exit: the daemon's exit code.
        took: seconds.
    """

    steps: list[StepSeen] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    early_calls: int = 0
    codes_unasked: int = 0
    daemon_exit: int | None = None
    took: float = 0.0

    @property
    def problems(self) -> list[str]:
        """What should not have been; empty where all went as it should."""
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        for seen in self.steps:
            if not seen.expected:
                missing = ", ".join(sorted(set(seen.step.accounts) - set(seen.closing))) or "an account"
                wanted = seen.step.expected.in_words
                yield f"{seen.step.name}: {missing} did not {wanted} within {seen.step.within:g} s"
        for error, number in Counter(self.errors).items():
            yield f"a call failed: {error}" if number == 1 else f"{number} calls failed: {error}"
        for tally in self.tallies:
            yield from tally.problems
        if self.early_calls:
            yield f"{self.early_calls} calls were made before a demanded wait was over"
        if self.codes_unasked:
            yield f"{self.codes_unasked} login codes were asked for by nobody"
        if self.daemon_exit:
            yield f"the daemon ended with exit code {self.daemon_exit}"

    def is_down(self, name: str, at: float) -> bool:
        """Whether an account was to be down, so many seconds into the demo."""
        begun = [seen.step.expected for seen in self.steps if seen.at <= at and name in seen.step.accounts]
        return bool(begun) and begun[-1].is_down

    def total(self, column: str) -> int:
        """A column of the tallies, summed."""
        return sum(getattr(tally, column) for tally in self.tallies)

    def json(self) -> dict[str, Any]:
        """The object of `demo --json`."""
        return {
            "schema": SCHEMA,
            "ok": not self.problems,
            "problems": self.problems,
            "seconds": round(self.took, 3),
            "steps": [seen.json() for seen in self.steps],
            "accounts": [tally.json() for tally in self.tallies],
            "early_calls": self.early_calls,
            "codes_unasked": self.codes_unasked,
            "daemon_exit": self.daemon_exit,
        }


def tally(name: str, account: Account, calls: Sequence[Call], seen: Seen) -> Tally:
    """Count an account's calls."""
    outcomes = Counter(call.outcome for call in calls)
    texts = [number for (user_id, _), number in seen.delivered.items() if user_id == account.user_id]
    return Tally(
        name=name,
        asked=len(calls),
        answered=outcomes["answered"],
        failed=outcomes["failed"],
        refused=outcomes["refused"],
        slowest=slowest(calls),
        delivered=len(texts),
        delivered_twice=sum(number > 1 for number in texts),
    )


def slowest(calls: Iterable[Call], since: float = 0.0, until: float = math.inf) -> float | None:
    """The longest that an answered call took, in seconds; of those answered between two monotonic times."""
    took = [
        call.took
        for call in calls
        if call.took is not None and call.outcome == "answered" and since <= call.asked + call.took < until
    ]
    return max(took, default=None)
