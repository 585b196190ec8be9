"""The world in TL objects of the installed layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .library import build, raw, serialize

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .world import Account, Chat, Message, Person, World


def render_user(world: World, user: Account | Person, viewer: Account) -> Any:
    """A user as `viewer` sees it, with the access hash that is valid for that account."""
    is_bot = bool(getattr(user, "is_bot", False))
    return build(
        raw.types.User,
        id=user.user_id,
        is_self=user is viewer or None,
        bot=is_bot or None,
        bot_info_version=1 if is_bot else None,
        access_hash=world.access_hash(viewer.user_id, user.user_id),
        first_name=user.first_name,
        username=user.username,
        phone=getattr(user, "phone", None) if user is viewer else None,
    )


def render_chat(chat: Chat, viewer: Account) -> Any:
    """A basic group as `viewer` sees it."""
    return build(
        raw.types.Chat,
        id=chat.chat_id,
        title=chat.title,
        photo=raw.types.ChatPhotoEmpty(),
        participants_count=len(chat.members),
        date=chat.date,
        version=1,
        creator=chat.creator_id == viewer.user_id or None,
    )


def render_peer(peer_id: int) -> Any:
    """A peer: a user's id, or a chat's with a minus."""
    return raw.types.PeerChat(chat_id=-peer_id) if peer_id < 0 else raw.types.PeerUser(user_id=peer_id)


def render_message(message: Message) -> Any:
    """A message of a box, ordinary or service."""
    common = {
        "id": message.id,
        "peer_id": render_peer(message.peer_id),
        "from_id": render_peer(message.from_id),
        "date": message.date,
        "out": message.out or None,
    }
    if message.action is not None:
        return build(raw.types.MessageService, action=message.action, **common)
    return build(raw.types.Message, message=message.text, media=message.media, **common)


def mentioned(world: World, messages: Iterable[Message], viewer: Account) -> tuple[list[Any], list[Any]]:
    """The users and chats that these messages name."""
    ids: dict[int, None] = {}
    for message in messages:
        ids[message.from_id] = ids[message.peer_id] = None
    users = [world.find_user(user_id) for user_id in ids if user_id > 0]
    chats = [world.chats[-chat_id] for chat_id in ids if chat_id < 0]
    return (
        [render_user(world, user, viewer) for user in users if user is not None],
        [render_chat(chat, viewer) for chat in chats],
    )


def new_message_update(message: Message) -> Any:
    """The update that announces one message."""
    return raw.types.UpdateNewMessage(message=render_message(message), pts=message.pts, pts_count=1)


def updates(
    world: World, viewer: Account, messages: list[Message], date: int, first: list[Any] | None = None
) -> Any:
    """An Updates that announces new messages, after the updates in `first`."""
    users, chats = mentioned(world, messages, viewer)
    return build(
        raw.types.Updates,
        updates=[*(first or []), *map(new_message_update, messages)],
        users=users,
        chats=chats,
        date=date,
        seq=0,
    )


def pushed(world: World, viewer: Account, message: Message, date: int) -> bytes:
    """The same for one message, ready to be sent."""
    return serialize(updates(world, viewer, [message], date))
