"""The account's own messages: which of those that a difference brings are its own, and what became of a sending.

Handlers hear of a message that somebody else wrote, or the same user elsewhere; not of one that this client has
sent. The answer to its sending tells its id. Where that answer is lost the difference has the message, and
updateMessageID beside it names its random_id - to the key that sent it; under a new key it is known by its chat and
its text. So it is found, too, when Telegram says RANDOM_ID_DUPLICATE to the second sending, and not which message the
first one made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from supervisor.ports import LinkFailed, RpcFailed
from supervisor.telegram.places import OWN, message_box, updates_in
from supervisor.telegram.queries import peer_key, unwrapped

# Sendings without an answer, ids of messages, and messages that are remembered: as many calls may be held by default.
_UNANSWERED, _IDS, _FOUND = 1000, 256, 1000


class _Found(NamedTuple):
    message: Any
    users: Any
    chats: Any


class Delivered:
    """What an account needs to remember to know its own messages."""

    __slots__ = ("_found", "_ids", "_unanswered", "_unnamed")

    def __init__(self) -> None:
        self._unanswered: dict[int, Any] = {}  # by random_id
        self._ids: dict[tuple[int, int], None] = {}  # box and id
        self._found: dict[int, _Found] = {}  # by random_id
        self._unnamed: list[_Found] = []

    def sending(self, query: Any) -> bool:
        """A query leaves; say whether it did before, and nobody knows what came of that."""
        again = False
        for random_id in _random_ids(query):
            again = again or random_id in self._unanswered
            _remember(self._unanswered, random_id, query, _UNANSWERED)
        return again

    def refused(self, query: Any) -> None:
        """A query was answered with an error, whenever it was sent: nothing has come of it."""
        for random_id in _random_ids(query):
            self._unanswered.pop(random_id, None)

    def answered(self, query: Any, answer: Any) -> None:
        """A query was answered."""
        for random_id in _random_ids(query):
            self._unanswered.pop(random_id, None)
            self._found.pop(random_id, None)
        if type(answer).__name__ == "UpdateShortSentMessage":
            _remember(self._ids, (OWN, answer.id), None, _IDS)
            return
        for update in updates_in(answer):
            message: Any = getattr(update, "message", None)
            if getattr(message, "out", False):
                _remember(self._ids, (message_box(message), message.id), None, _IDS)

    def is_own(self, message: Any, random_id: int | None, users: Any, chats: Any) -> bool:
        """Whether this client has sent a message that a difference brings; it is remembered for `find`.

        Args:
            message: the message.
            random_id: what updateMessageID says of it.
            users: those who came with it.
            chats: those that came with it.
        """
        if not getattr(message, "out", False):
            return False
        if random_id is not None:
            if self._unanswered.pop(random_id, None) is not None:  # else nobody will ask for it
                _remember(self._found, random_id, _Found(message, users, chats), _FOUND)
            return True
        if (message_box(message), message.id) in self._ids:
            return True
        for waiting, query in self._unanswered.items():
            if _is_alike(message, query):
                del self._unanswered[waiting]
                self._unnamed = [*self._unnamed[1 - _FOUND :], _Found(message, users, chats)]
                return True
        return False

    def find(self, query: Any) -> Any | None:
        """What became of a query that was answered with RANDOM_ID_DUPLICATE, as the updates of its first answer."""
        random_ids = _random_ids(query)
        if random_ids and all(random_id in self._found for random_id in random_ids):
            return _as_updates([(random_id, self._found.pop(random_id)) for random_id in random_ids])
        alike = [found for found in self._unnamed if _is_alike(found.message, query)]
        if len(random_ids) != 1 or len(alike) != 1:
            return None  # none, or several alike: a guess could hand the caller another message
        self._unnamed.remove(alike[0])
        return _as_updates([(random_ids[0], alike[0])])


def may_be_done(error: RpcFailed | LinkFailed) -> bool:
    """Whether a sending that ended so may have made a message, now or before."""
    if isinstance(error, LinkFailed):
        return error.sent
    return error.code >= 500 or error.text == "RANDOM_ID_DUPLICATE"


def _remember(kept: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]


def _random_ids(query: Any) -> Sequence[int]:
    inner = unwrapped(query)
    given = getattr(inner, "random_id", None)
    if given is not None:
        return given if isinstance(given, list) else (given,)
    media = getattr(inner, "multi_media", None)
    return [one.random_id for one in media] if media else ()


def _is_alike(message: Any, query: Any) -> bool:
    text = getattr(unwrapped(query), "message", None)
    return (
        text is not None
        and getattr(message, "message", None) == text
        and _peer_of(message) == peer_key(query)
    )


def _peer_of(message: Any) -> str | None:
    peer = getattr(message, "peer_id", None)
    for attribute, word in (("channel_id", "channel"), ("chat_id", "chat"), ("user_id", "user")):
        value = getattr(peer, attribute, None)
        if value is not None:
            return f"{word}:{value}"
    return None


def as_update(message: Any) -> Any:
    """The update that a message from a difference would have been pushed as; its box stands elsewhere by now."""
    from pyrogram.raw import types

    kind = types.UpdateNewMessage if message_box(message) == OWN else types.UpdateNewChannelMessage
    return kind(message=message, pts=0, pts_count=0)


def _as_updates(found: list[tuple[int, _Found]]) -> Any:
    from pyrogram.raw import types

    named = [types.UpdateMessageID(id=one.message.id, random_id=random_id) for random_id, one in found]
    users = {user.id: user for _, one in found for user in one.users}
    chats = {chat.id: chat for _, one in found for chat in one.chats}
    return types.Updates(
        updates=[*named, *(as_update(one.message) for _, one in found)],
        users=list(users.values()),
        chats=list(chats.values()),
        date=found[0][1].message.date,
        seq=0,
    )
