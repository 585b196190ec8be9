"""What the datacenter saw: the side of the story that a test believes. Times are `time.monotonic()` seconds."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ConnectionSeen:
    """One accepted TCP connection. `closed_at` is None while it is open."""

    opened_at: float
    peer: tuple[str, int]
    closed_at: float | None = None
    user_id: int | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """One message that took effect."""

    at: float
    method: str
    random_id: int
    text: str
    peer_id: int
    message_id: int


@dataclass(frozen=True, slots=True)
class Pushed:
    """One message of somebody else that came into an account's sight.

    `sessions` is how many of its sessions got it at once; the others find it in a difference.
    """

    at: float
    peer_id: int
    message_id: int
    text: str
    sessions: int


@dataclass(frozen=True, slots=True)
class Effect:
    """One other thing that was done, such as a chat created: done once each time it stands here."""

    at: float
    method: str
    what: str


@dataclass(slots=True)
class Seen:
    """Counters and lists from the server's side. Keys with a user id have None where nobody was signed in."""

    connections: list[ConnectionSeen] = field(default_factory=list)
    calls: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    answered: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    errors: Counter[tuple[int | None, str, str]] = field(default_factory=Counter)
    sends: defaultdict[int, list[Sent]] = field(default_factory=lambda: defaultdict(list))
    effects: defaultdict[int, list[Effect]] = field(default_factory=lambda: defaultdict(list))
    pushed: defaultdict[int, list[Pushed]] = field(default_factory=lambda: defaultdict(list))
    pushes_lost: Counter[int] = field(default_factory=Counter)
    delivered: Counter[tuple[int, str]] = field(default_factory=Counter)
    delivered_ids: Counter[tuple[int, int]] = field(default_factory=Counter)
    duplicates: Counter[int | None] = field(default_factory=Counter)
    sign_ins: Counter[int] = field(default_factory=Counter)
    codes_sent: Counter[int] = field(default_factory=Counter)
    key_exchanges: int = 0
    handshakes_refused: int = 0
    answers_resent: int = 0
    updates_resent: int = 0
    repeated: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    early_calls: list[tuple[float, int | None, str]] = field(default_factory=list)
    unknown_methods: list[str] = field(default_factory=list)
    bad_messages: Counter[int] = field(default_factory=Counter)
    transport_errors: Counter[int] = field(default_factory=Counter)
    undecryptable: int = 0
    new_sessions: int = 0
    pings: int = 0
    overlaps: int = 0
    max_connections: int = 0
    max_connections_per_key: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    open_connections: int = 0

    # -- what happens ---------------------------------------------------------------------------------------------

    def opened(self, peer: tuple[str, int]) -> ConnectionSeen:
        seen = ConnectionSeen(time.monotonic(), peer)
        self.connections.append(seen)
        self.open_connections += 1
        self.max_connections = max(self.max_connections, self.open_connections)
        return seen

    def closed(self, seen: ConnectionSeen) -> None:
        if seen.closed_at is None:
            seen.closed_at = time.monotonic()
            self.open_connections -= 1

    def called(self, user_id: int | None, method: str) -> None:
        self.calls[user_id, method] += 1

    def unknown(self, method: str) -> None:
        log.error("%s is not served by this datacenter", method)
        self.unknown_methods.append(method)

    def sent(self, user_id: int, message: Sent) -> None:
        self.sends[user_id].append(message)
        self.delivered[user_id, message.text] += 1
        self.delivered_ids[user_id, message.random_id] += 1

    def did(self, user_id: int, method: str, what: str) -> None:
        self.effects[user_id].append(Effect(time.monotonic(), method, what))

    # -- what a test asks -----------------------------------------------------------------------------------------

    def count(self, method: str, user_id: int | None = None) -> int:
        """How often `method` was called, by one account or (None) by all, signed in or not."""
        return sum(
            number for (who, what), number in self.calls.items() if what == method and user_id in (None, who)
        )

    def state_calls(self, user_id: int | None = None) -> int:
        """How often updates.GetState was called."""
        return self.count("updates.GetState", user_id)

    def times_delivered(self, text: str, user_id: int | None = None) -> int:
        """How many messages with this text took effect, of one account or (None) of all."""
        return sum(
            number
            for (who, what), number in self.delivered.items()
            if what == text and user_id in (None, who)
        )

    def not_among(self, user_id: int, texts: Iterable[str]) -> list[Pushed]:
        """The messages that came into an account's sight and whose texts are not among these."""
        seen = set(texts)
        return [pushed for pushed in self.pushed[user_id] if pushed.text not in seen]

    def connections_between(self, start: float, end: float) -> int:
        """How many connections were accepted in an interval of monotonic time."""
        return sum(start <= connection.opened_at < end for connection in self.connections)

    def reset(self) -> None:
        """Start counting anew. Connections that are open stay counted as open."""
        still_open = [connection for connection in self.connections if connection.closed_at is None]
        fresh = Seen(connections=still_open, open_connections=len(still_open))
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))

    def summary(self) -> dict[str, Any]:
        """The counts as plain JSON values; keys of several parts are joined by spaces."""
        return {
            "connections": len(self.connections),
            "open_connections": self.open_connections,
            "max_connections": self.max_connections,
            "max_connections_per_key": self.max_connections_per_key,
            "calls": _plain(self.calls),
            "answered": _plain(self.answered),
            "errors": _plain(self.errors),
            "sends": {str(user_id): len(sent) for user_id, sent in self.sends.items()},
            "effects": {str(user_id): len(done) for user_id, done in self.effects.items()},
            "pushed": {str(user_id): len(pushed) for user_id, pushed in self.pushed.items()},
            "pushes_lost": _plain(self.pushes_lost),
            "delivered_twice": sum(number > 1 for number in self.delivered_ids.values()),
            "duplicates": _plain(self.duplicates),
            "sign_ins": _plain(self.sign_ins),
            "codes_sent": _plain(self.codes_sent),
            "key_exchanges": self.key_exchanges,
            "handshakes_refused": self.handshakes_refused,
            "answers_resent": self.answers_resent,
            "updates_resent": self.updates_resent,
            "repeated": _plain(self.repeated),
            "early_calls": len(self.early_calls),
            "unknown_methods": list(self.unknown_methods),
            "bad_messages": _plain(self.bad_messages),
            "transport_errors": _plain(self.transport_errors),
            "undecryptable": self.undecryptable,
            "new_sessions": self.new_sessions,
            "pings": self.pings,
            "overlaps": self.overlaps,
            "faults": _plain(self.faults),
        }


def _plain(counter: Counter[Any]) -> dict[str, int]:
    return {
        " ".join(map(str, key)) if isinstance(key, tuple) else str(key): number
        for key, number in counter.items()
    }
