"""The flood waits of one account: which calls must not leave yet, and for how long.

A wait is held per method and peer, or per method alone where the call has no peer. A second peer flooded
while the first still waits shows that Telegram means the method: the wait widens to it. Slow mode is kept per
chat. Telegram's number is exact here; margin and jitter are `decide`'s.

While the process lives only monotonic time counts, so a changed wall clock changes nothing. What is kept over
a restart is wall time, the only clock that both processes share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

# Stands for "every sending method" in a row of slow mode.
SENDING: Final = "*"

# The methods that slow mode holds back: those that list SLOWMODE_WAIT_%d (core.telegram.org/api/errors,
# its JSON database; TDLib and Telethon name no other).
SENDING_METHODS: Final = frozenset(
    {"sendmessage", "sendmedia", "sendmultimedia", "forwardmessages", "sendinlinebotresult"}
)


@dataclass(frozen=True, slots=True)
class Flood:
    """A wait as it is kept. `seen_at` is Unix time; `peer` None is the whole method; both times are seconds.

    A row of slow mode has `SENDING` for its method and the chat for its peer.
    """

    method: str
    peer: str | None
    seen_at: float
    seconds: float

    def remaining(self, now: float) -> float:
        """Seconds that are left at Unix time `now`; all of them where the clock went back behind `seen_at`."""
        return left(self.seen_at, self.seconds, now)


def left(told_at: float, seconds: float, now: float) -> float:
    """Seconds that are left, at Unix time `now`, of a wait that began at another; all where the clock went back behind it."""
    if now < told_at:
        return seconds
    # Subtracted in this order no rounding of the large Unix times can make it more than `seconds`.
    return max(0.0, seconds - (now - told_at))


_Key = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Ledger:
    """A value: `flooded` and `slowed` return another ledger. `mono` is monotonic time, `now` Unix time, in seconds.

    It holds no more than the waits that run: those that are over are dropped whenever one is added.
    """

    until: Mapping[_Key, float] = field(default_factory=dict)  # monotonic

    def flooded(
        self, method: str, peer: str | None, seconds: float, now: float, mono: float
    ) -> tuple[Ledger, Flood]:
        """Telegram demanded a wait. Give the new ledger, and the wait that now stands, to be saved.

        That wait is the one demanded, or a longer one that already ran; it is the whole method's (`peer`
        None) where the method waits as a whole already, or another of its peers does: until the later end.

        Args:
            method: the method that was refused.
            peer: whom it was about, or None.
            seconds: how long Telegram wants to be left alone, from now on.
            now: Unix time.
            mono: monotonic time.
        """
        running = self._running(mono)
        end = mono + max(seconds, 0.0)
        others = [key for key in running if key[0] == method and key[1] != peer]
        if peer is not None and others:
            end = max(end, *(running.pop(key) for key in others))
            peer = None
        return self._with(running, (method, peer), end, now, mono)

    def slowed(self, chat: str, seconds: float, now: float, mono: float) -> tuple[Ledger, Flood]:
        """Slow mode (SLOWMODE_WAIT_X) holds back every sending method in this chat, and no other chat."""
        return self._with(self._running(mono), (SENDING, chat), mono + max(seconds, 0.0), now, mono)

    def remaining(self, method: str, peer: str | None, mono: float) -> float:
        """Seconds until a call of `method` to `peer` may leave; 0 when it may leave at once."""
        if not self.until:
            return 0.0
        end = max(self.until.get((method, None), mono), self.until.get((method, peer), mono))
        slow = self.until.get((SENDING, peer))
        if slow is not None and method.rpartition(".")[2].lower() in SENDING_METHODS:
            end = max(end, slow)
        return max(0.0, end - mono)

    def rows(self, now: float, mono: float) -> tuple[Flood, ...]:
        """Give the waits that run, to be saved: what is left of each, told from `now` on.

        Told anew, they also carry no mistake of a wall clock that was set right since.
        """
        return tuple(_flood(key, end, now, mono) for key, end in self._running(mono).items())

    def _running(self, mono: float) -> dict[_Key, float]:
        return {key: end for key, end in self.until.items() if end > mono}

    @staticmethod
    def _with(
        running: dict[_Key, float], key: _Key, end: float, now: float, mono: float
    ) -> tuple[Ledger, Flood]:
        running[key] = max(end, running.get(key, end))
        return Ledger(running), _flood(key, running[key], now, mono)


def restore(rows: Iterable[Flood], now: float, mono: float) -> Ledger:
    """Take up the waits that an earlier process left: what remains of each by the wall clock, never more than all."""
    until: dict[_Key, float] = {}
    for row in rows:
        left = row.remaining(now)
        if left > 0:
            key = row.method, row.peer
            until[key] = max(mono + left, until.get(key, mono))
    return Ledger(until)


def _flood(key: _Key, end: float, now: float, mono: float) -> Flood:
    method, peer = key
    return Flood(method, peer, seen_at=now, seconds=end - mono)
