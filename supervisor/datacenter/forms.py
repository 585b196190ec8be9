"""The forms in which Telegram wraps an update (core.telegram.org/api/updates#updates)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from .box import NewMessage
from .library import build, raw, serialize
from .render import mentioned, render_event

if TYPE_CHECKING:
    from .box import Event
    from .engine import Engine
    from .world import Account, Channel


class Form(enum.StrEnum):
    """How a push is wrapped."""

    UPDATES = "updates"
    """With the users and chats it names, outside the account's sequence (seq 0)."""
    SEQUENCED = "sequenced"
    """The same, as the next in the account's sequence: a seq that is left out is a gap."""
    COMBINED = "combined"
    """updatesCombined: two numbers of the sequence at once."""
    SHORT = "short"
    """updateShort: the bare update, without users and chats."""
    SHORT_MESSAGE = "short_message"
    """updateShortMessage or updateShortChatMessage: a text's fields alone; for anything else as UPDATES."""


def take_seq(account: Account, form: Form) -> None:
    """Take the numbers of the account's sequence that a push in this form has, whether or not it arrives."""
    account.seq += {Form.SEQUENCED: 1, Form.COMBINED: 2}.get(form, 0)


def packed(engine: Engine, account: Account, event: Event, channel: Channel | None, form: Form) -> bytes:
    """An event as it is pushed to an account, under the latest of its sequence's numbers."""
    date = engine.date()
    if form is Form.SHORT_MESSAGE and channel is None and _is_plain(event):
        assert isinstance(event, NewMessage)
        return _short_message(account, event)
    update = render_event(event, account, channel)
    if form is Form.SHORT:
        return serialize(raw.types.UpdateShort(update=update, date=date))
    messages = [event.message] if isinstance(event, NewMessage) else []
    peer_ids = [channel.peer_id] if channel is not None else []
    users, chats = mentioned(engine.world, messages, account, *peer_ids)
    common = {"updates": [update], "users": users, "chats": chats, "date": date}
    if form is Form.COMBINED:
        return serialize(
            build(raw.types.UpdatesCombined, seq_start=account.seq - 1, seq=account.seq, **common)
        )
    return serialize(build(raw.types.Updates, seq=account.seq if form is Form.SEQUENCED else 0, **common))


def _is_plain(event: Event) -> bool:
    return isinstance(event, NewMessage) and event.message.action is None and event.message.media is None


def _short_message(account: Account, event: NewMessage) -> bytes:
    message = event.message
    common = {
        "id": message.id,
        "message": message.text,
        "pts": event.pts,
        "pts_count": event.pts_count,
        "date": message.date,
        "out": message.from_id == account.user_id or None,
    }
    if message.peer_id > 0:
        return serialize(build(raw.types.UpdateShortMessage, user_id=message.peer_id, **common))
    return serialize(
        build(
            raw.types.UpdateShortChatMessage,
            from_id=message.from_id,
            chat_id=-message.peer_id,
            **common,
        )
    )
