"""Finding a message that was delivered while its answer was lost.

Telegram says RANDOM_ID_DUPLICATE to a second sending and does not say which message the first one made. The
difference since the link before the loss contains it: an outgoing message to the same chat with the same text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from supervisor.telegram.queries import peer_key, unwrapped

# States of links that are remembered, and slices of a difference that are read.
_STATES = 2
_SLICES = 20
_CLAIMED = 256


class Delivered:
    """What an account needs to remember to find its own messages again."""

    def __init__(self) -> None:
        self._states: list[Any] = []
        self._claimed: list[int] = []

    def greeted(self, state: Any) -> None:
        """Remember the update state that a link began with."""
        if state is not None:
            self._states = [*self._states[1 - _STATES :], state]

    async def find(self, send: Callable[[Any], Awaitable[Any]], query: Any) -> Any | None:
        """Look a delivered message up, as the updates that its sending would have been answered with.

        Args:
            send: sends a query of ours.
            query: the one that was answered with RANDOM_ID_DUPLICATE.
        """
        from pyrogram import raw

        wanted = unwrapped(query)
        text, peer = getattr(wanted, "message", None), peer_key(query)
        if not self._states or text is None or not isinstance(wanted.random_id, int):
            return None
        state = (
            self._states[-2] if len(self._states) > 1 else self._states[0]
        )  # of the link that it was sent over
        found: list[tuple[Any, Any]] = []
        for _ in range(_SLICES):
            difference = await send(
                raw.functions.updates.GetDifference(pts=state.pts, date=state.date, qts=state.qts)
            )
            new = getattr(difference, "new_messages", None) or ()
            found += [(difference, message) for message in new if self._is_it(message, text, peer)]
            state = getattr(difference, "intermediate_state", None)
            if state is None:
                break
        if len(found) != 1:
            return None  # none, or several alike: a guess could hand the caller another message
        difference, message = found[0]
        self._claimed = [*self._claimed[1 - _CLAIMED :], message.id]
        return _as_updates(raw, difference, message, wanted.random_id)

    def _is_it(self, message: Any, text: str | None, peer: str | None) -> bool:
        return (
            bool(getattr(message, "out", False))
            and message.id not in self._claimed
            and getattr(message, "message", None) == text
            and _peer_of(message) == peer
        )


def _peer_of(message: Any) -> str | None:
    peer = getattr(message, "peer_id", None)
    for attribute, word in (("channel_id", "channel"), ("chat_id", "chat"), ("user_id", "user")):
        value = getattr(peer, attribute, None)
        if value is not None:
            return f"{word}:{value}"
    return None


def _as_updates(raw: Any, difference: Any, message: Any, random_id: int) -> Any:
    return raw.types.Updates(
        updates=[
            raw.types.UpdateMessageID(id=message.id, random_id=random_id),
            raw.types.UpdateNewMessage(message=message, pts=0, pts_count=0),
        ],
        users=difference.users,
        chats=difference.chats,
        date=message.date,
        seq=0,
    )
