"""messages.*: sending and typing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from supervisor.datacenter.counts import Sent
from supervisor.datacenter.library import build, raw
from supervisor.datacenter.methods.files import take_media
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.peers import find_peer, writable_peer
from supervisor.datacenter.post import post
from supervisor.datacenter.render import render_event, updates
from supervisor.datacenter.world import is_channel

if TYPE_CHECKING:
    from supervisor.datacenter.box import NewMessage
    from supervisor.datacenter.dispatch import Call

_LONGEST = 4096  # characters, core.telegram.org/api/config#message-length-max
_LONGEST_CAPTION = 1024
_LARGEST_ALBUM = 10


def checked_text(text: str) -> str:
    """A text as it can be sent."""
    if not text.strip():
        raise RpcError(400, "MESSAGE_EMPTY")
    if len(text) > _LONGEST:
        raise RpcError(400, "MESSAGE_TOO_LONG")
    return text


@method("messages.SendMessage")
def send_message(call: Call) -> Any:
    """Send a text: answered in short where the peer is a user."""
    text = checked_text(call.query.message)
    peer_id = _checked_peer(call, [call.query.random_id])
    sent = _send(call, peer_id, call.query.random_id, text=text)
    if peer_id < 0:
        return announced(call, [sent])
    return build(
        raw.types.UpdateShortSentMessage,
        out=True,
        id=sent.message.id,
        pts=sent.pts,
        pts_count=sent.pts_count,
        date=sent.date,
    )


@method("messages.SendMedia")
def send_media(call: Call) -> Any:
    """Send a document or a photo."""
    query = call.query
    _check_caption(query.message)
    peer_id = _checked_peer(call, [query.random_id])
    media = take_media(call, query.media)
    return announced(call, [_send(call, peer_id, query.random_id, text=query.message, media=media)])


@method("messages.UploadMedia")
def upload_media(call: Call) -> Any:
    """Make media of an upload, to be sent in an album."""
    find_peer(call, call.query.peer)
    return take_media(call, call.query.media)


@method("messages.SendMultiMedia")
def send_multi_media(call: Call) -> Any:
    """Send an album: all of it or nothing."""
    items = call.query.multi_media
    if not items:
        raise RpcError(400, "MEDIA_EMPTY")
    if len(items) > _LARGEST_ALBUM:
        raise RpcError(400, "MULTI_MEDIA_TOO_LONG")
    for item in items:
        _check_caption(item.message)
    peer_id = _checked_peer(call, [item.random_id for item in items])
    media = [take_media(call, item.media) for item in items]
    album = call.engine.source.getrandbits(62) | 1
    return announced(
        call,
        [
            _send(call, peer_id, item.random_id, text=item.message, media=content, grouped_id=album)
            for item, content in zip(items, media, strict=True)
        ],
    )


@method("messages.ForwardMessages")
def forward_messages(call: Call) -> Any:
    """Send messages on to another chat: all of them or none."""
    query, account = call.query, call.account
    if not query.id:
        raise RpcError(400, "MESSAGE_IDS_EMPTY")
    from_id = find_peer(call, query.from_peer)
    box = call.engine.world.box(account, from_id)
    found = [box.messages.get(message_id) for message_id in query.id]
    messages = [message for message in found if message is not None and message.peer_id == from_id]
    if len(messages) < len(query.id):
        raise RpcError(400, "MESSAGE_ID_INVALID")
    if len(query.random_id) != len(query.id):
        raise RpcError(400, "RANDOM_ID_INVALID")
    peer_id = _checked_peer(call, query.random_id)
    return announced(
        call,
        [
            _send(
                call,
                peer_id,
                random_id,
                text=message.text,
                media=message.media,
                forwarded=message.forwarded or (message.from_id, message.date),
            )
            for message, random_id in zip(messages, query.random_id, strict=True)
        ],
    )


def _check_caption(text: str) -> None:
    if len(text) > _LONGEST_CAPTION:
        raise RpcError(400, "MEDIA_CAPTION_TOO_LONG")


def _checked_peer(call: Call, random_ids: list[int]) -> int:
    if not all(random_ids):
        raise RpcError(400, "RANDOM_ID_EMPTY")
    peer_id = writable_peer(call, call.addressed)
    known = call.account.random_ids
    if len(set(random_ids)) < len(random_ids) or any(random_id in known for random_id in random_ids):
        call.engine.seen.duplicates[call.account.user_id] += 1
        raise RpcError(500, "RANDOM_ID_DUPLICATE")
    return peer_id


def _send(call: Call, peer_id: int, random_id: int, **content: Any) -> NewMessage:
    """Send one message; give what it is in the sender's sight."""
    account = call.account
    sent, *_ = post(
        call.engine, account.user_id, peer_id, random_id=random_id, sender=call.session, **content
    )
    message = sent.message
    seen = Sent(time.monotonic(), call.method, random_id, message.text, peer_id, message.id)
    call.engine.seen.sent(account.user_id, seen)
    return sent


def announced(call: Call, sent: list[NewMessage]) -> Any:
    """The answer to a query that made new messages."""
    world, account = call.engine.world, call.account
    told: list[Any] = []
    for event in sent:
        message = event.message
        channel = world.channel(message.peer_id) if is_channel(message.peer_id) else None
        if message.random_id:
            told.append(raw.types.UpdateMessageID(id=message.id, random_id=message.random_id))
        told.append(render_event(event, account, channel))
    return updates(world, account, told, [event.message for event in sent], call.date)


@method("messages.SetTyping")
def set_typing(call: Call) -> Any:
    """Nothing comes of it."""
    writable_peer(call, call.query.peer)
    return True
