"""One account's boxes: updates go in as they come, and come out each once and in order, with a ticket each."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from supervisor.core.sequence import Box, Ticket
from supervisor.telegram.places import OWN, QTS, Place, channel_key, place_of
from supervisor.telegram.storage.rows import UpdateRow

# Updates on their way to the handlers; those that come beyond them are dropped, and fetched later.
READY = 10_000


@dataclass(slots=True, eq=False)
class Batch:
    """Updates that came together: `source` has the users and chats that they name."""

    source: Any
    updates: list[tuple[Any, Ticket | None]] = field(default_factory=list)


class Boxes:
    """The rows of events of one account, and what is ready for its handlers.

    `date` and `seq` are Telegram's; `since` is the date up to which nothing can have been missed anywhere, `lost` how
    many updates without a number were dropped.
    """

    __slots__ = ("_all", "_safe_date", "_since", "date", "lost", "ready", "seq", "since")

    def __init__(self) -> None:
        # Until it is known where the account stands its own box keeps everything.
        self._all: dict[int, Box[tuple[Any, Any]]] = {OWN: Box(OWN, is_held=True)}
        self._since: dict[int, int] = {}  # of channels that are not known: when their news begins
        self.ready: list[Batch] = []
        self.date = self.since = self._safe_date = 0
        self.seq = self.lost = 0

    # --- where they stand -----------------------------------------------------------------------------

    @property
    def own(self) -> Box[tuple[Any, Any]]:
        """The account's own box."""
        return self._all[OWN]

    @property
    def qts(self) -> int:
        """Where its second row stands."""
        box = self._all.get(QTS)
        return (box.pts if box is not None else None) or 0

    def __iter__(self) -> Iterator[Box[tuple[Any, Any]]]:
        return iter(self._all.values())

    def __getitem__(self, key: int) -> Box[tuple[Any, Any]]:
        """The box with this key. A channel's is made where there is none: while it may turn out that more of that
        channel was missed, it waits for its beginning.
        """
        box = self._all.get(key)
        if box is None:
            box = self._all[key] = Box(key, is_held=self.own.is_held or self.own.stale)
        return box

    def forget(self, key: int) -> None:
        """Where this channel stands is of no use any more."""
        self._all.pop(key, None)
        self._since.pop(key, None)

    def since_of(self, key: int) -> int | None:
        """From which date on what is found in a channel is news, where it was not known; None where it was."""
        return self._since.get(key)

    def known(self, key: int) -> None:
        """It is known by now where this channel stands."""
        self._since.pop(key, None)

    def miss(self, key: int, pts: int | None = None) -> None:
        """Something was missed in a box, up to `pts` as far as that is told."""
        box = self[OWN if key == QTS else key]
        if box.pts is None and key < OWN:
            self._since.setdefault(key, self.since)
        box.stale = box.stale or box.pts is None or pts is None or pts > box.pts

    def restore(self, rows: Iterable[UpdateRow], date: int) -> None:
        """Go on where an earlier run has finished.

        Args:
            rows: its update state.
            date: where that tells none.
        """
        for row in rows:
            if row.id < OWN and row.pts is not None:
                self._all[row.id] = Box(row.id, row.pts)
            elif row.id == OWN and row.pts is not None:
                self.own.jump(row.pts)
                self.seq = row.seq or 0
                self.date = self.since = self._safe_date = row.date or date
                self[QTS].jump(row.qts or 0)

    def begin(self, state: Any) -> None:
        """Whatever was before this updates.state is nobody's news."""
        self.own.stale = False
        self.stand_at(state)
        self.since = self._safe_date = self.date

    def stand_at(self, state: Any) -> None:
        """The account's own events are taken up from this updates.state on."""
        self.own.jump(state.pts)
        self[QTS].jump(state.qts)
        self.told(state.date, state.seq)

    def told(self, date: int, seq: int) -> None:
        """The server told a date and the number of its last numbered updates object."""
        self.date = max(self.date, date)
        self.seq = seq

    def rows(self) -> Iterator[UpdateRow]:
        """What an earlier run's end is to a later one: how far everything is finished."""
        # A later run asks which channels have changed since this date: nothing before it may be still to come.
        if not self._since and all(box.is_settled for box in self):
            self._safe_date = self.date
        own, qts = self.own, self._all.get(QTS)
        if own.finished is not None:
            second = qts.finished if qts is not None else None
            yield UpdateRow(OWN, own.finished, second, self._safe_date, self.seq)
        for box in self:
            if box.key < OWN and box.finished is not None and box.key not in self._since:
                yield UpdateRow(box.key, box.finished)

    # --- in and out -----------------------------------------------------------------------------------

    def take(self, updates: Iterable[Any], source: Any) -> None:
        """Take updates that came together."""
        for update in updates:
            place = place_of(update)
            if type(update).__name__ == "UpdateChannelTooLong":
                self.miss(channel_key(update.channel_id), getattr(update, "pts", None))
            elif len(self.ready) >= READY:
                self._drop(place)
            elif place is None:
                self._put(update, source, None)
            else:
                self._offer(place, (update, source))

    def count(self, place: Place) -> None:
        """Events that are nobody's news: a query of our own was answered with them."""
        self._offer(place, None)

    def in_sequence(self, first: int, last: int) -> bool:
        """Note the numbers of an updates object; False where objects before it are missing.

        What is numbered by pts is told twice or not at all whatever this says; only what has no number of its own can
        be missed unseen, and cannot be held back for the sake of what may have been before it.
        """
        if last == 0:
            return True
        joins = self.seq == 0 or first <= self.seq + 1
        self.seq = max(self.seq, last)
        return joins

    def bring(self, update: Any, source: Any, box: Box[tuple[Any, Any]]) -> None:
        """Take an update that a difference of this box has brought; `jump` comes after all of it."""
        self._put(update, source, box.ticket())

    def hold(self, box: Box[tuple[Any, Any]]) -> None:
        """A difference is asked for; that of the account's own box is of its second row too."""
        box.hold()
        if box.key == OWN:
            self[QTS].hold()

    def pass_over(self, box: Box[tuple[Any, Any]]) -> int:
        """What was missed in a box cannot be had, now or later: go on behind it; give how many events that loses."""
        return box.pass_over() + (self[QTS].pass_over() if box.key == OWN else 0)

    def release(self, box: Box[tuple[Any, Any]]) -> None:
        """A difference is over."""
        self._emit(box.release())
        if box.key == OWN:
            self._emit(self[QTS].release())

    def release_channels(self, besides: Container[int]) -> None:
        """Which channels have missed something is known: the others go on, or begin, with what was pushed.

        Args:
            besides: those of which a difference is on its way.
        """
        for box in list(self):
            if box.is_held and box.key < OWN and not box.stale and box.key not in besides:
                self.release(box)

    def _offer(self, place: Place, item: tuple[Any, Any] | None) -> None:
        box = self[place.box]
        self._emit(box.take(place.pts, place.events, item))
        if box.stale and box.key == QTS:  # there is no difference of this row alone
            box.stale, self.own.stale = False, True

    def _drop(self, place: Place | None) -> None:
        """Handlers are too far behind: what has a number is fetched when they are not."""
        if place is None:
            self.lost += 1
        else:
            self.miss(place.box)

    def _emit(self, handed: list[tuple[tuple[Any, Any], Ticket]]) -> None:
        for (update, source), ticket in handed:
            self._put(update, source, ticket)

    def _put(self, update: Any, source: Any, ticket: Ticket | None) -> None:
        if not self.ready or self.ready[-1].source is not source:
            self.ready.append(Batch(source))
        self.ready[-1].updates.append((update, ticket))
