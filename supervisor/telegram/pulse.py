"""Is the link alive? A judgement from times alone: when something last came, when we asked, what is owed.

A quiet link is tested with one small ping after half of `silence_timeout` and given up at 85 %, so that a
silence is found out within the time-out however it falls. Before that, when an answer is owed and nothing
at all comes, the link is overdue: it is tested at once, and until it moves nothing more should be written into it.
"""

from __future__ import annotations

from enum import Enum

PING_AT, LOST_AT = 0.5, 0.85
# An unanswered query and nothing received for so long, or for a few round trips, and the link is overdue.
OVERDUE, OVERDUE_TRIPS = 1.0, 3.0
# Timers fire a little early or late; a check is not repeated for less.
_SLACK = 0.01
_AT_LEAST = 0.05


class Verdict(Enum):
    """What should be done about a link now. No flags: they are slow to ask, and an idle fleet asks all the time."""

    NOTHING = "nothing"
    PING = "ping"
    OVERDUE = "overdue"
    OVERDUE_AND_PING = "overdue, ping"
    LOST = "lost"


class Pulse:
    """The judgement about one link. Times are the event loop's, in seconds."""

    __slots__ = ("_overdue_after", "_pinged_at", "_silence", "overdue")

    def __init__(self, silence_timeout: float, round_trip: float = 0.0) -> None:
        """Begin a link.

        Args:
            silence_timeout: within this a silent link is found out.
            round_trip: what the greeting took.
        """
        self._silence = silence_timeout
        self._overdue_after = max(OVERDUE, OVERDUE_TRIPS * round_trip)
        self._pinged_at = float("-inf")
        self.overdue = False

    @property
    def patience(self) -> float:
        """How long an answer may be owed before the next check."""
        return self._overdue_after

    def next_check(self, now: float, quiet_since: float, owed_since: float | None) -> float:
        """When to judge again.

        Args:
            now: the present.
            quiet_since: when something last came.
            owed_since: when the oldest unanswered query was last sent, or None.
        """
        share = LOST_AT if self._pinged_at > quiet_since else PING_AT
        due = quiet_since + share * self._silence
        if owed_since is not None and not self.overdue:
            due = min(due, max(owed_since, quiet_since) + self._overdue_after)
        return max(due, now + _AT_LEAST)

    def judge(self, now: float, quiet_since: float, owed_since: float | None) -> Verdict:
        """Judge the link, remembering that a ping is sent or the link overdue where that is the verdict."""
        quiet = now - quiet_since + _SLACK
        pinged = self._pinged_at > quiet_since
        if pinged and quiet >= LOST_AT * self._silence:
            return Verdict.LOST
        is_overdue = (
            owed_since is not None
            and not self.overdue
            and min(quiet, now - owed_since + _SLACK) >= self._overdue_after
        )
        if is_overdue:
            self.overdue = True
        # An overdue link is asked at once: if only the one answer was lost, calls need not wait for the rest of the silence.
        if not pinged and (self.overdue or quiet >= PING_AT * self._silence):
            self._pinged_at = now
            return Verdict.OVERDUE_AND_PING if is_overdue else Verdict.PING
        return Verdict.OVERDUE if is_overdue else Verdict.NOTHING
