"""The world in TL objects of the installed layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .box import Deleted, Edited, NewMessage, Read
from .library import build, raw
from .world import Channel, is_channel, unmarked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .box import Event, Message
    from .world import Account, Chat, Person, World


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


def render_channel(world: World, channel: Channel, viewer: Account) -> Any:
    """A supergroup or channel as `viewer` sees it; without its secrets to somebody who is no member."""
    common = {
        "id": channel.channel_id,
        "title": channel.title,
        "access_hash": world.access_hash(viewer.user_id, channel.peer_id),
        "megagroup": not channel.is_broadcast or None,
        "broadcast": channel.is_broadcast or None,
    }
    if viewer.user_id not in channel.members:
        return build(raw.types.ChannelForbidden, **common)
    is_creator = channel.creator_id == viewer.user_id
    rights = dict.fromkeys(("change_info", "post_messages", "edit_messages", "delete_messages"), True)
    return build(
        raw.types.Channel,
        photo=raw.types.ChatPhotoEmpty(),
        date=channel.date,
        creator=is_creator or None,
        admin_rights=build(raw.types.ChatAdminRights, **rights) if is_creator else None,
        default_banned_rights=build(raw.types.ChatBannedRights, until_date=2**31 - 1),
        participants_count=len(channel.members),
        **common,
    )


def render_group(world: World, peer_id: int, viewer: Account) -> Any:
    """A basic group, supergroup or channel by its marked id."""
    if is_channel(peer_id):
        return render_channel(world, world.channel(peer_id), viewer)
    return render_chat(world.chats[-peer_id], viewer)


def render_peer(peer_id: int) -> Any:
    """A peer by its marked id."""
    if is_channel(peer_id):
        return raw.types.PeerChannel(channel_id=unmarked(peer_id))
    return raw.types.PeerChat(chat_id=-peer_id) if peer_id < 0 else raw.types.PeerUser(user_id=peer_id)


def render_message(message: Message, viewer: Account) -> Any:
    """A message of a box, ordinary or service."""
    common = {
        "id": message.id,
        "peer_id": render_peer(message.peer_id),
        "from_id": render_peer(message.from_id),
        "date": message.date,
        "out": message.from_id == viewer.user_id or None,
    }
    if message.action is not None:
        return build(raw.types.MessageService, action=message.action, **common)
    return build(
        raw.types.Message,
        message=message.text,
        media=message.media,
        edit_date=message.edit_date,
        grouped_id=message.grouped_id,
        fwd_from=_render_origin(message.forwarded),
        **common,
    )


def _render_origin(forwarded: tuple[int, int] | None) -> Any:
    if forwarded is None:
        return None
    from_id, date = forwarded
    return build(raw.types.MessageFwdHeader, from_id=render_peer(from_id), date=date)


def mentioned(
    world: World, messages: Iterable[Message], viewer: Account, *peer_ids: int
) -> tuple[list[Any], list[Any]]:
    """The users and the groups that these messages name, and those of `peer_ids`."""
    ids: dict[int, None] = dict.fromkeys(peer_ids)
    for message in messages:
        ids[message.from_id] = ids[message.peer_id] = None
        if message.forwarded is not None:
            ids[message.forwarded[0]] = None
    users = [world.find_user(user_id) for user_id in ids if user_id > 0]
    return (
        [render_user(world, user, viewer) for user in users if user is not None],
        [render_group(world, peer_id, viewer) for peer_id in ids if peer_id < 0],
    )


def render_event(event: Event, viewer: Account, channel: Channel | None = None) -> Any:
    """The update that tells of an event in the account's box, or in a channel's."""
    at = {"pts": event.pts, "pts_count": event.pts_count}
    types = raw.types
    if isinstance(event, NewMessage):
        kind = types.UpdateNewMessage if channel is None else types.UpdateNewChannelMessage
        return kind(message=render_message(event.message, viewer), **at)
    if isinstance(event, Edited):
        kind = types.UpdateEditMessage if channel is None else types.UpdateEditChannelMessage
        return kind(message=render_message(event.message, viewer), **at)
    if isinstance(event, Deleted):
        if channel is None:
            return types.UpdateDeleteMessages(messages=list(event.ids), **at)
        return types.UpdateDeleteChannelMessages(
            channel_id=channel.channel_id, messages=list(event.ids), **at
        )
    assert isinstance(event, Read)
    read = {"peer": render_peer(event.peer_id), "max_id": event.max_id, **at}
    if event.is_outbox:
        return types.UpdateReadHistoryOutbox(**read)
    return build(types.UpdateReadHistoryInbox, still_unread_count=event.still_unread, **read)


def is_told(message: Message, viewer: Account, world: World) -> bool:
    """Whether a message is shown to an account: a bot gets nothing that another bot writes."""
    if not viewer.is_bot or message.action is not None:
        return True
    author = world.accounts.get(message.from_id)
    return author is None or author is viewer or not author.is_bot


def is_visible(event: Event, viewer: Account, world: World) -> bool:
    """Whether an event is told to an account."""
    return not isinstance(event, NewMessage | Edited) or is_told(event.message, viewer, world)


def updates(
    world: World,
    viewer: Account,
    told: list[Any],
    messages: list[Message],
    date: int,
    *peer_ids: int,
    seq: int = 0,
) -> Any:
    """An Updates with these updates, and whomever `messages` and `peer_ids` name."""
    users, chats = mentioned(world, messages, viewer, *peer_ids)
    return build(raw.types.Updates, updates=told, users=users, chats=chats, date=date, seq=seq)
