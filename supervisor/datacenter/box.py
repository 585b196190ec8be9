"""Message boxes: what lies in one, and in which order it happened (core.telegram.org/api/updates).

An account has a box for its private chats and basic groups; every supergroup and channel has one of its own. Whatever
happens to a box takes some of its `pts`, and can be asked for again by the pts before it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, TypeVar


@dataclass(slots=True, eq=False)
class Message:
    """A message in a box. `peer_id` is a user's id, or the marked id of a group; `action` makes it a service message.

    `forwarded` is whose message it was first, and its date.
    `key_id` is the key that sent it with `random_id`. `copies` are the boxes in which the same message lies, each
    with the message there; what its author does to it happens to all of them.
    """

    id: int
    pts: int
    peer_id: int
    from_id: int
    date: int
    text: str = ""
    random_id: int = 0
    key_id: bytes = b""
    media: Any = None
    action: Any = None
    edit_date: int | None = None
    grouped_id: int | None = None
    forwarded: tuple[int, int] | None = None
    copies: list[tuple[Box, Message]] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """Something that happened to a box: `pts` is the box's afterwards, of which it took `pts_count`."""

    pts: int
    pts_count: int
    date: int


@dataclass(frozen=True, slots=True, eq=False)
class NewMessage(Event):
    """A message came."""

    message: Message


@dataclass(frozen=True, slots=True, eq=False)
class Edited(Event):
    """A message was changed."""

    message: Message


@dataclass(frozen=True, slots=True, eq=False)
class Deleted(Event):
    """Messages were deleted: one pts for each."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Read(Event):
    """The messages up to `max_id` were read: by the account, or with `is_outbox` by the other side."""

    peer_id: int
    max_id: int
    is_outbox: bool
    still_unread: int


AnEvent = TypeVar("AnEvent", bound=Event)


@dataclass(slots=True, eq=False, kw_only=True)
class Box:
    """Messages by their id, and all that happened, in order."""

    pts: int = 1
    last_id: int = 0
    messages: dict[int, Message] = field(default_factory=dict, repr=False)
    events: list[Event] = field(default_factory=list, repr=False)

    def _step(self, count: int = 1) -> int:
        self.pts += count
        return self.pts

    def add_message(self, **fields: Any) -> NewMessage:
        """Put a message into the box: it takes the next message id and the next pts."""
        self.last_id += 1
        message = Message(id=self.last_id, pts=self._step(), **fields)
        self.messages[message.id] = message
        return self._happened(NewMessage(self.pts, 1, message.date, message))

    def edit(self, message: Message, date: int) -> Edited:
        """A message of the box has been changed."""
        message.edit_date = date
        return self._happened(Edited(self._step(), 1, date, message))

    def delete(self, ids: list[int], date: int) -> Deleted | None:
        """Delete those of the messages that are there; None where none is."""
        there = tuple(message_id for message_id in ids if self.messages.pop(message_id, None) is not None)
        if not there:
            return None
        return self._happened(Deleted(self._step(len(there)), len(there), date, there))

    def read(self, peer_id: int, max_id: int, date: int, *, is_outbox: bool, still_unread: int = 0) -> Read:
        """Somebody has read the messages with `peer_id` up to `max_id`."""
        return self._happened(Read(self._step(), 1, date, peer_id, max_id, is_outbox, still_unread))

    def _happened(self, event: AnEvent) -> AnEvent:
        self.events.append(event)
        return event

    def since(self, pts: int) -> list[Event]:
        """What happened after a pts, oldest first."""
        return self.events[bisect_right(self.events, pts, key=lambda event: event.pts) :]

    def with_peer(self, peer_id: int) -> list[Message]:
        """The messages with one peer, newest first."""
        return [message for message in reversed(self.messages.values()) if message.peer_id == peer_id]
