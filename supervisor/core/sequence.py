"""Events that Telegram numbers: each once, in order, none missing (core.telegram.org/api/updates).

A box is one such row of events: the account's own, or one channel's. Its pts is the number of the last one. An
update says to which pts it brings its box, and for how many events it stands:

    it begins where the box stands          -> APPLY, and so do those kept that follow it
    it ends where the box stands, or before -> OLD: dropped
    anything else                           -> GAP: kept until what is between has come, or a difference brings it

While a difference is on its way everything is kept: it may bring the same. What leaves a box leaves with a ticket,
so that the box knows from where all that nobody has finished would come again.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Generic, TypeVar

# Updates that one box keeps. What comes beyond them is dropped, and another difference is due.
KEPT = 1000

T = TypeVar("T")


class Step(Enum):
    """What an update is to a box."""

    APPLY = "apply"
    OLD = "old"
    GAP = "gap"


def step(stands: int, pts: int, count: int) -> Step:
    """Judge an update.

    Args:
        stands: the pts of its box.
        pts: where the update brings it.
        count: for how many events it stands.
    """
    if stands + count == pts:
        return Step.APPLY
    # One that overlaps what is known is no duplicate: its end is news, which a difference has.
    return Step.OLD if pts <= stands else Step.GAP


class Ticket:
    """Something that has left a box and is not finished yet. `before` is where the box stood before it."""

    __slots__ = ("before", "box", "is_done")

    def __init__(self, box: Box[Any], before: int) -> None:
        self.box = box
        self.before = before
        self.is_done = False

    def done(self) -> None:
        """It is finished."""
        self.is_done = True
        self.box.settle()


class Box(Generic[T]):
    """One row of events. `pts` is None where its beginning is not known: then everything is kept, or begins it.

    `stale` is set by whoever knows that a difference is due, and taken back by whoever asks for one.
    """

    __slots__ = ("_kept", "_unfinished", "is_held", "key", "pts", "stale")

    def __init__(self, key: int, pts: int | None = None, *, is_held: bool = False) -> None:
        self.key = key
        self.pts = pts
        self.is_held = is_held
        self.stale = False
        self._kept: list[tuple[int, int, T | None]] = []
        self._unfinished: list[Ticket] = []

    @property
    def has_gap(self) -> bool:
        """Whether something is kept that cannot be handed out yet."""
        return bool(self._kept) and not self.is_held

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is unfinished, kept, or still to be asked for."""
        return not (self._unfinished or self._kept or self.stale or self.is_held)

    @property
    def finished(self) -> int | None:
        """Up to which pts everything is finished: from here all that is not would come again."""
        return self._unfinished[0].before if self._unfinished else self.pts

    def take(self, pts: int, count: int, item: T | None) -> list[tuple[T, Ticket]]:
        """Take an update; give what may be worked on now, in order.

        Args:
            pts: where it brings the box.
            count: for how many events it stands.
            item: the update; None for one that nobody works on: it only counts.
        """
        if self.pts is None and not self.is_held:
            self.pts = pts - count
        found = step(self.pts, pts, count) if self.pts is not None else Step.GAP
        if found is Step.OLD:
            return []
        if found is Step.APPLY and not self._kept and not self.is_held:
            return self._apply(pts, item)  # as nearly all do
        if len(self._kept) >= KEPT:
            self.stale = True
            return []
        self._kept.append((pts, count, item))
        return [] if self.is_held else self._hand_out()

    def hold(self) -> None:
        """A difference is asked for: keep everything until `release`."""
        self.is_held = True

    def ticket(self) -> Ticket:
        """Hand out something that a difference brought; `jump` comes after all of it."""
        ticket = Ticket(self, self.pts or 0)
        self._unfinished.append(ticket)
        return ticket

    def jump(self, pts: int) -> None:
        """The box stands here now: a difference, or the server's present state, says so."""
        self.pts = pts

    def pass_over(self) -> int:
        """What is missing cannot be had: stand where what is kept begins; give how many events are lost by it."""
        stands = self.pts
        if stands is None:
            return 0
        self.pts = min((pts - count for pts, count, _ in self._kept if pts > stands), default=stands)
        return max(0, self.pts - stands)

    def release(self) -> list[tuple[T, Ticket]]:
        """The difference is over: give what was kept and follows."""
        self.is_held = False
        if self.pts is None and self._kept:
            self.pts = min(pts - count for pts, count, _ in self._kept)
        return self._hand_out()

    def settle(self) -> None:
        """Forget the tickets that are done and have nothing unfinished before them."""
        while self._unfinished and self._unfinished[0].is_done:
            del self._unfinished[0]

    def _hand_out(self) -> list[tuple[T, Ticket]]:
        handed: list[tuple[T, Ticket]] = []
        # An update without events follows the one that it belongs to: of two with one pts the greater count is first.
        self._kept.sort(key=lambda kept: (kept[0], -kept[1]))
        while self._kept and self.pts is not None:
            pts, count, item = self._kept[0]
            found = step(self.pts, pts, count)
            if found is Step.GAP:
                break
            del self._kept[0]
            if found is Step.APPLY:
                handed += self._apply(pts, item)
        return handed

    def _apply(self, pts: int, item: T | None) -> list[tuple[T, Ticket]]:
        handed = [(item, self.ticket())] if item is not None else []
        self.pts = pts
        return handed
