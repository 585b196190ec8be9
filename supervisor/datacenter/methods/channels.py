"""Supergroups and channels.

Telegram refuses channels.CreateChannel to bots. Here a bot may call it too, as messages.CreateChat: it stands for every
method that has an effect each time and carries no random_id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.datacenter.box import NewMessage
from supervisor.datacenter.library import build, raw
from supervisor.datacenter.methods.chats import checked_title, retitled
from supervisor.datacenter.methods.messages import announced
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.peers import find_channel, find_peer
from supervisor.datacenter.post import found_supergroup
from supervisor.datacenter.render import mentioned, render_channel

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call


@method("channels.CreateChannel")
def create_channel(call: Call) -> Any:
    """Make a supergroup or a channel, each time this is called."""
    title, account = checked_title(call.query.title), call.account
    about = {"about": call.query.about, "is_broadcast": bool(call.query.broadcast)}
    channel = found_supergroup(call.engine, title, account.user_id, [], call.session, **about)
    call.engine.seen.did(account.user_id, call.method, title)
    return announced(call, [event for event in channel.events if isinstance(event, NewMessage)])


@method("channels.GetChannels")
def get_channels(call: Call) -> Any:
    """Channels of which the account is a member."""
    found = [find_channel(call, wanted) for wanted in call.query.id]
    world, account = call.engine.world, call.account
    return raw.types.messages.Chats(chats=[render_channel(world, channel, account) for channel in found])


@method("channels.GetFullChannel")
def get_full_channel(call: Call) -> Any:
    """A channel with its pts, from which its difference can be asked."""
    channel, account = find_channel(call, call.query.channel), call.account
    full = build(
        raw.types.ChannelFull,
        id=channel.channel_id,
        about=channel.about,
        read_inbox_max_id=account.read_up_to.get(channel.peer_id, 0),
        read_outbox_max_id=0,
        unread_count=0,
        chat_photo=raw.types.PhotoEmpty(id=0),
        notify_settings=build(raw.types.PeerNotifySettings),
        bot_info=[],
        pts=channel.pts,
        participants_count=len(channel.members),
    )
    users, chats = mentioned(call.engine.world, [], account, channel.peer_id)
    return raw.types.messages.ChatFull(full_chat=full, chats=chats, users=users)


@method("channels.GetParticipant")
def get_participant(call: Call) -> Any:
    """What somebody is in a channel."""
    channel = find_channel(call, call.query.channel)
    user_id = find_peer(call, call.query.participant)
    if user_id not in channel.members:
        raise RpcError(400, "USER_NOT_PARTICIPANT")
    rights = build(raw.types.ChatAdminRights)
    kind = raw.types.ChannelParticipant
    if user_id == channel.creator_id:
        kind = raw.types.ChannelParticipantCreator
    elif user_id == call.account.user_id:
        kind = raw.types.ChannelParticipantSelf
    participant = build(
        kind, user_id=user_id, inviter_id=channel.creator_id, date=channel.date, admin_rights=rights
    )
    users, chats = mentioned(call.engine.world, [], call.account, user_id, channel.peer_id)
    return raw.types.channels.ChannelParticipant(participant=participant, chats=chats, users=users)


@method("channels.EditTitle")
def edit_title(call: Call) -> Any:
    """Give a channel another title; for who made it."""
    channel, account = find_channel(call, call.query.channel), call.account
    if account.user_id != channel.creator_id:
        raise RpcError(400, "CHAT_ADMIN_REQUIRED")
    return retitled(call, channel, call.query.title)
