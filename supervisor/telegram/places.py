"""Where an update belongs: which row of events it is of, and which of them it is (core.telegram.org/api/updates)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from supervisor.telegram.queries import peer_key

# The keys of the boxes: the account's own events by pts, its events by qts; every channel's is its marked id.
OWN, QTS = 0, 1
_MARK = 1_000_000_000_000

_CONTAINERS = frozenset({"Updates", "UpdatesCombined"})
_AFFECTED = frozenset({"AffectedMessages", "AffectedHistory", "AffectedFoundMessages"})


class Place(NamedTuple):
    """An update brings `box` to `pts`, and stands for so many `events`."""

    box: int
    pts: int
    events: int


def channel_key(channel_id: int) -> int:
    """A channel's marked id, as ``-1001234567890``."""
    return -_MARK - channel_id


def channel_id(key: int) -> int:
    """The id of the channel with this marked id."""
    return -_MARK - key


def peer_box(query: Any) -> int:
    """The box that a query about a chat changes."""
    kind, _, number = (peer_key(query) or "").partition(":")
    return channel_key(int(number)) if kind == "channel" else OWN


def message_box(message: Any) -> int:
    """The box in which a message lies."""
    found = getattr(getattr(message, "peer_id", None), "channel_id", None)
    return OWN if found is None else channel_key(found)


def place_of(update: Any) -> Place | None:
    """An update's place; None for one that is not numbered, or that only tells how far something has come."""
    pts, count = getattr(update, "pts", None), getattr(update, "pts_count", None)
    if pts and count is not None:
        if "Channel" not in type(update).__name__:
            return Place(OWN, pts, count)
        found = getattr(update, "channel_id", None)
        key = channel_key(found) if found is not None else message_box(getattr(update, "message", None))
        return Place(key, pts, count) if key != OWN else None
    qts = getattr(update, "qts", None)
    return Place(QTS, qts, 1) if qts else None  # 0 is Telegram's word for "in no order"


def updates_in(answer: Any) -> list[Any]:
    """The updates in the answer to a query."""
    name = type(answer).__name__
    if name in _CONTAINERS:
        return list(answer.updates)
    if name == "UpdateShort":
        return [answer.update]
    inner: Any = getattr(answer, "updates", None)  # messages.invitedUsers and its like
    return list(inner.updates) if type(inner).__name__ in _CONTAINERS else []


def places_in(query: Any, answer: Any) -> Iterator[Place]:
    """Every place that the answer to a query of our own takes."""
    name = type(answer).__name__
    if name == "UpdateShortSentMessage":
        yield Place(OWN, answer.pts, answer.pts_count)
    elif name in _AFFECTED:
        yield Place(peer_box(query), answer.pts, answer.pts_count)
    else:
        for update in updates_in(answer):
            place = place_of(update)
            if place is not None:
                yield place
