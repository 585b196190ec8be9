"""Which attempt an account is at, and when the next one comes: read from its status and its row of the log. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from supervisor.cli.words import span

_TRYING = frozenset({"starting", "online", "recovering"})


@dataclass(frozen=True, slots=True)
class Try:
    """What comes next for an account in trouble.

    Args:
        number: which attempt in a row; 0 where none is counted.
        of: how many there may be; None where that is not known.
        at: when it begins, Unix time; None: it has begun, or something else is awaited.
        path: the broken path that has to answer first.
    """

    number: int
    of: int | None
    at: float | None
    path: str | None = None

    def count(self) -> str:
        """``2/5``."""
        if not self.number:
            return ""
        return f"{self.number}/{self.of}" if self.of is not None else str(self.number)

    def wait(self, now: float) -> str:
        """``in 34 s``."""
        if self.path is not None:
            return "path down"
        return f"in {span(round(self.at - now))}" if self.at is not None and self.at - now >= 0.5 else "now"


def in_hand(
    account: Mapping[str, Any], broken: frozenset[str], caps: Mapping[str, int], now: float
) -> Try | None:
    """The attempt that an account is at or waits for; None where nothing will be tried by itself.

    Args:
        account: one of the accounts of `status --json`.
        broken: the paths that do not answer.
        caps: how many attempts in a row there may be, by kind of failure.
        now: Unix time.
    """
    failure = account["last_failure"]
    number, of, at = 0, None, unix(account["retry_at"])
    if account["state"] in _TRYING and failure is not None and failure["outcome"] == "retrying":
        due = (unix(failure["at"]) or 0.0) + failure["delay_s"]
        same = account["incident"] is not None and failure["incident"] == account["incident"]
        if same or (account["state"] == "online" and due > now):  # online: a call of its own waits
            number, of = failure["attempt"], caps.get(failure["kind"])
            at = at or (due if due > now else None)
    if account["state"] == "recovering":
        return Try(number, of, at, account["path"] if account["path"] in broken and at is None else None)
    return Try(number, of, at) if at is not None else None


def unix(rfc3339: str | None) -> float | None:
    """A time of the JSON as Unix time."""
    return None if rfc3339 is None else datetime.fromisoformat(rfc3339).timestamp()
