"""messages.*: sending, fetching, typing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from supervisor.datacenter.counts import Sent
from supervisor.datacenter.library import build, method_name, raw
from supervisor.datacenter.methods.files import take_media
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.peers import writable_peer
from supervisor.datacenter.post import post
from supervisor.datacenter.render import mentioned, render_message, updates

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call
    from supervisor.datacenter.world import Message

_LONGEST = 4096  # characters, core.telegram.org/api/config#message-length-max
_LONGEST_CAPTION = 1024


@method("messages.SendMessage")
def send_message(call: Call) -> Any:
    """Send a text: answered in short where the peer is a user."""
    text = call.query.message
    if not text.strip():
        raise RpcError(400, "MESSAGE_EMPTY")
    if len(text) > _LONGEST:
        raise RpcError(400, "MESSAGE_TOO_LONG")
    peer_id = _checked_peer(call)
    message = _send(call, peer_id, text, None)
    if peer_id > 0:
        return build(
            raw.types.UpdateShortSentMessage,
            out=True,
            id=message.id,
            pts=message.pts,
            pts_count=1,
            date=message.date,
        )
    return _announced(call, message)


@method("messages.SendMedia")
def send_media(call: Call) -> Any:
    """Send a document or a photo."""
    if len(call.query.message) > _LONGEST_CAPTION:
        raise RpcError(400, "MEDIA_CAPTION_TOO_LONG")
    peer_id = _checked_peer(call)
    media = take_media(call, call.query.media)
    return _announced(call, _send(call, peer_id, call.query.message, media))


def _checked_peer(call: Call) -> int:
    random_id = call.query.random_id
    if not random_id:
        raise RpcError(400, "RANDOM_ID_EMPTY")
    peer_id = writable_peer(call, call.query.peer)
    if random_id in call.account.random_ids:
        call.engine.seen.duplicates[call.account.user_id] += 1
        raise RpcError(500, "RANDOM_ID_DUPLICATE")
    return peer_id


def _send(call: Call, peer_id: int, text: str, media: Any) -> Message:
    message = post(
        call.engine,
        call.account,
        peer_id,
        text=text,
        media=media,
        random_id=call.query.random_id,
        sender=call.session,
    )
    sent = Sent(time.monotonic(), call.method, message.random_id, text, peer_id, message.id)
    call.engine.seen.sent(call.account.user_id, sent)
    return message


def _announced(call: Call, message: Message) -> Any:
    named = [raw.types.UpdateMessageID(id=message.id, random_id=message.random_id)]
    return updates(call.engine.world, call.account, [message], call.date, named)


@method("messages.SetTyping")
def set_typing(call: Call) -> Any:
    """Nothing comes of it."""
    writable_peer(call, call.query.peer)
    return True


@method("messages.GetMessages")
def get_messages(call: Call) -> Any:
    """Messages of the account by their ids."""
    wanted = [item.id for item in call.query.id if method_name(item) == "InputMessageID"]
    found = [call.account.by_id.get(message_id) for message_id in wanted]
    return _listed(call, [message for message in found if message is not None], wanted)


@method("messages.GetHistory")
def get_history(call: Call) -> Any:
    """The latest messages with one peer; for users, not for bots."""
    if call.account.is_bot:
        raise RpcError(400, "BOT_METHOD_INVALID")
    peer_id = writable_peer(call, call.query.peer)
    query = call.query
    messages = [
        message
        for message in reversed(call.account.messages)
        if message.peer_id == peer_id and (not query.offset_id or message.id < query.offset_id)
    ]
    return _listed(call, messages[: query.limit], [])


def _listed(call: Call, messages: list[Message], wanted: list[int]) -> Any:
    """The messages, and messageEmpty for those of `wanted` that there are none of."""
    users, chats = mentioned(call.engine.world, messages, call.account)
    found = {message.id for message in messages}
    empty = [build(raw.types.MessageEmpty, id=message_id) for message_id in wanted if message_id not in found]
    return build(
        raw.types.messages.Messages,
        messages=[render_message(message) for message in messages] + empty,
        topics=[],
        chats=chats,
        users=users,
    )
