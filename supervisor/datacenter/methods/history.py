"""messages.* and channels.*: what lies in the boxes, and what is done to it afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.datacenter.library import build, method_name, raw
from supervisor.datacenter.methods.messages import checked_text
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.methods.updates import render_dialog
from supervisor.datacenter.peers import find_channel, find_peer
from supervisor.datacenter.post import delete, edit, read
from supervisor.datacenter.render import is_told, mentioned, render_event, render_message, updates
from supervisor.datacenter.world import Channel, is_channel

if TYPE_CHECKING:
    from supervisor.datacenter.box import Box, Message
    from supervisor.datacenter.dispatch import Call

_MOST_AT_ONCE = 100


# -- looking ------------------------------------------------------------------------------------------------------


@method("messages.GetMessages")
def get_messages(call: Call) -> Any:
    """Messages of the account's own box by their ids."""
    return _listed(call, *_by_ids(call, call.account))


@method("channels.GetMessages")
def get_channel_messages(call: Call) -> Any:
    """A channel's messages by their ids."""
    channel = find_channel(call, call.query.channel)
    return _listed(call, *_by_ids(call, channel), channel=channel)


@method("messages.GetHistory")
def get_history(call: Call) -> Any:
    """The latest messages with one peer; for users, not for bots."""
    _refuse_bots(call)
    query, world = call.query, call.engine.world
    peer_id = find_peer(call, query.peer)
    box = world.box(call.account, peer_id)
    older = [
        message for message in box.with_peer(peer_id) if not query.offset_id or message.id < query.offset_id
    ]
    channel = box if isinstance(box, Channel) else None
    return _listed(call, older[: min(query.limit, _MOST_AT_ONCE)], [], channel=channel, count=len(older))


@method("messages.GetDialogs")
def get_dialogs(call: Call) -> Any:
    """The account's chats, the latest first; for users, not for bots."""
    _refuse_bots(call)
    account, world, query = call.account, call.engine.world, call.query
    ids = {message.peer_id for message in account.messages.values()}
    ids |= {channel.peer_id for channel in world.channels.values() if account.user_id in channel.members}
    chats = [
        (peer_id, messages) for peer_id in ids if (messages := world.box(account, peer_id).with_peer(peer_id))
    ]
    chats.sort(key=lambda chat: (chat[1][0].date, chat[0]), reverse=True)
    left = [chat for chat in chats if not query.offset_date or chat[1][0].date < query.offset_date]
    part = left[: min(query.limit, _MOST_AT_ONCE)]
    latest = [messages[0] for _, messages in part]
    users, groups = mentioned(world, latest, account)
    return build(
        raw.types.messages.DialogsSlice if len(part) < len(chats) else raw.types.messages.Dialogs,
        count=len(chats),
        dialogs=[
            render_dialog(
                call, peer_id, messages, world.channel(peer_id).pts if is_channel(peer_id) else None
            )
            for peer_id, messages in part
        ],
        messages=[render_message(message, account) for message in latest],
        chats=groups,
        users=users,
    )


def _refuse_bots(call: Call) -> None:
    if call.account.is_bot:
        raise RpcError(400, "BOT_METHOD_INVALID")


def _by_ids(call: Call, box: Box) -> tuple[list[Message], list[int]]:
    wanted = [item.id for item in call.query.id[:_MOST_AT_ONCE] if method_name(item) == "InputMessageID"]
    found = [box.messages[message_id] for message_id in wanted if message_id in box.messages]
    return found, wanted


def _listed(
    call: Call,
    messages: list[Message],
    wanted: list[int],
    *,
    channel: Channel | None = None,
    count: int | None = None,
) -> Any:
    """The messages that the account may see, and messageEmpty for those of `wanted` that there are none of."""
    world, account = call.engine.world, call.account
    seen = [message for message in messages if is_told(message, account, world)]
    users, chats = mentioned(world, seen, account, *([channel.peer_id] if channel is not None else []))
    found = {message.id for message in seen}
    empty = [build(raw.types.MessageEmpty, id=message_id) for message_id in wanted if message_id not in found]
    common = {
        "messages": [render_message(message, account) for message in seen] + empty,
        "topics": [],
        "chats": chats,
        "users": users,
        "count": len(seen) if count is None else count,
    }
    if channel is not None:
        return build(raw.types.messages.ChannelMessages, pts=channel.pts, **common)
    is_part = count is not None and count > len(seen)
    return build(raw.types.messages.MessagesSlice if is_part else raw.types.messages.Messages, **common)


# -- changing -----------------------------------------------------------------------------------------------------


@method("messages.EditMessage")
def edit_message(call: Call) -> Any:
    """Change the text of a message of one's own."""
    world, account, query = call.engine.world, call.account, call.query
    peer_id = find_peer(call, query.peer)
    box = world.box(account, peer_id)
    message = box.messages.get(query.id)
    if message is None or message.peer_id != peer_id or message.action is not None:
        raise RpcError(400, "MESSAGE_ID_INVALID")
    if message.from_id != account.user_id:
        raise RpcError(403, "MESSAGE_AUTHOR_REQUIRED")
    text = checked_text(query.message or "")
    if text == message.text:
        raise RpcError(400, "MESSAGE_NOT_MODIFIED")
    event, *_ = edit(call.engine, message, call.session, text=text)
    call.engine.seen.did(account.user_id, call.method, text)
    told = [render_event(event, account, box if isinstance(box, Channel) else None)]
    return updates(world, account, told, [message], call.date)


@method("messages.DeleteMessages")
def delete_messages(call: Call) -> Any:
    """Delete messages of the account's own box, and with `revoke` (always where a bot does it) those of the others."""
    account = call.account
    everywhere = bool(call.query.revoke) or account.is_bot
    event = delete(call.engine, account, list(call.query.id), call.session, everywhere=everywhere)
    return _affected(call, account, len(event.ids) if event is not None else 0)


@method("channels.DeleteMessages")
def delete_channel_messages(call: Call) -> Any:
    """Delete messages of one's own in a supergroup; who made it may delete any."""
    channel, account = find_channel(call, call.query.channel), call.account
    for message_id in call.query.id:
        message = channel.messages.get(message_id)
        if message is not None and account.user_id not in (message.from_id, channel.creator_id):
            raise RpcError(403, "MESSAGE_DELETE_FORBIDDEN")
    event = delete(call.engine, channel, list(call.query.id), call.session, everywhere=True)
    return _affected(call, channel, len(event.ids) if event is not None else 0)


def _affected(call: Call, box: Box, count: int) -> Any:
    if count:
        call.engine.seen.did(call.account.user_id, call.method, f"{count} messages")
    return raw.types.messages.AffectedMessages(pts=box.pts, pts_count=count)


@method("messages.ReadHistory")
def read_history(call: Call) -> Any:
    """Read what came from a peer; the other side learns of it."""
    _refuse_bots(call)
    peer_id = find_peer(call, call.query.peer)
    if is_channel(peer_id):
        raise RpcError(400, "PEER_ID_INVALID")
    event = read(call.engine, call.account, peer_id, call.query.max_id or call.account.last_id, call.session)
    count = event.pts_count if event is not None else 0
    return raw.types.messages.AffectedMessages(pts=call.account.pts, pts_count=count)


@method("channels.ReadHistory")
def read_channel_history(call: Call) -> Any:
    """Read what was written in a channel; that takes no pts."""
    _refuse_bots(call)
    channel, account = find_channel(call, call.query.channel), call.account
    newest = min(call.query.max_id or channel.last_id, channel.last_id)
    account.read_up_to[channel.peer_id] = max(newest, account.read_up_to.get(channel.peer_id, 0))
    return True
