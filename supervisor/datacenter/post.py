"""A message, an edit or a deletion finds its way into the boxes of those whom it concerns, and to their sessions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .box import NewMessage
from .counts import Pushed
from .forms import Form, packed, take_seq
from .library import raw
from .render import is_visible
from .world import Account, Channel, is_channel

if TYPE_CHECKING:
    from .box import Box, Deleted, Event, Message, Read
    from .engine import Engine
    from .session import Session


def post(
    engine: Engine,
    author_id: int,
    peer_id: int,
    *,
    sender: Session | None = None,
    random_id: int = 0,
    form: Form = Form.UPDATES,
    **content: Any,
) -> list[NewMessage]:
    """Somebody writes to a user or a group; give what it is in the boxes that there are, the author's first.

    `sender` is the session of the author that learns of it as the answer to its query.
    """
    world = engine.world
    shared = {"date": engine.date(), "from_id": author_id, **content}
    own = {"random_id": random_id, "key_id": sender.key.id if sender else b""}
    boxes: list[tuple[Box, int]]
    if is_channel(peer_id):
        boxes = [(world.channel(peer_id), peer_id)]
    else:
        boxes = [
            (account, author_id if peer_id > 0 and account.user_id != author_id else peer_id)
            for account in _receivers(engine, author_id, peer_id, is_service="action" in content)
        ]
    copies: list[tuple[Box, Message]] = []
    events: list[NewMessage] = []
    for box, seen_as in boxes:
        mine = own if not isinstance(box, Account) or box.user_id == author_id else {}
        event = box.add_message(peer_id=seen_as, copies=copies, **mine, **shared)
        copies.append((box, event.message))
        events.append(event)
    if random_id and (author := world.accounts.get(author_id)) is not None:
        author.random_ids[random_id] = events[0].message.id
    for (box, _), event in zip(boxes, events, strict=True):
        announce(engine, box, event, sender, form)
    return events


def found_supergroup(
    engine: Engine,
    title: str,
    creator_id: int,
    member_ids: list[int],
    sender: Session | None = None,
    **about: Any,
) -> Channel:
    """Make a supergroup or channel. Its first message says so; that puts it before everybody's eyes."""
    channel = engine.world.add_channel(title, creator_id, member_ids, engine.date(), **about)
    action = raw.types.MessageActionChannelCreate(title=title)
    post(engine, creator_id, channel.peer_id, action=action, sender=sender)
    return channel


def _receivers(engine: Engine, author_id: int, peer_id: int, *, is_service: bool) -> list[Account]:
    """The accounts in whose own box it will lie, the author first. Bots don't get what other bots write."""
    world = engine.world
    ids = world.chats[-peer_id].members if peer_id < 0 else [peer_id]
    found = [world.accounts.get(user_id) for user_id in dict.fromkeys([author_id, *ids])]
    author = world.accounts.get(author_id)
    by_bot = author is not None and author.is_bot and not is_service
    return [
        account
        for account in found
        if account is not None and (account is author or not (by_bot and account.is_bot))
    ]


def edit(engine: Engine, message: Message, sender: Session | None = None, **changes: Any) -> list[Event]:
    """Change a message in all boxes in which it lies; give what that is in each that still has it."""
    events: list[Event] = []
    for box, copy in message.copies:
        if copy.id in box.messages:
            for name, value in changes.items():
                setattr(copy, name, value)
            events.append(box.edit(copy, engine.date()))
            announce(engine, box, events[-1], sender)
    return events


def delete(
    engine: Engine, box: Box, ids: list[int], sender: Session | None = None, *, everywhere: bool
) -> Deleted | None:
    """Delete messages in a box, or everywhere; give what that is in this box, None where none of them is there."""
    ids_by_box: dict[Box, list[int]] = {box: []}
    for message in (box.messages[message_id] for message_id in ids if message_id in box.messages):
        for where, copy in message.copies if everywhere else [(box, message)]:
            ids_by_box.setdefault(where, []).append(copy.id)
    events = {where: where.delete(copies, engine.date()) for where, copies in ids_by_box.items()}
    for where, event in events.items():
        if event is not None:
            announce(engine, where, event, sender)
    return events[box]


def read(engine: Engine, account: Account, peer_id: int, max_id: int, sender: Session | None) -> Read | None:
    """An account has read what came from a peer, whose own box is told; None where nothing of it was unread."""
    before = account.read_up_to.get(peer_id, 0)
    came = [message for message in account.with_peer(peer_id) if message.from_id != account.user_id]
    newly = [message for message in came if before < message.id <= max_id]
    if not newly:
        return None
    account.read_up_to[peer_id] = newly[0].id
    left = sum(message.id > newly[0].id for message in came)
    event = account.read(peer_id, newly[0].id, engine.date(), is_outbox=False, still_unread=left)
    announce(engine, account, event, sender)
    for box, copy in newly[0].copies:
        if isinstance(box, Account) and box.user_id == copy.from_id:
            seen_as = account.user_id if peer_id > 0 else peer_id
            announce(engine, box, box.read(seen_as, copy.id, engine.date(), is_outbox=True))
    return event


def announce(
    engine: Engine, box: Box, event: Event, besides: Session | None = None, form: Form = Form.UPDATES
) -> None:
    """Tell the sessions of whoever shares the box of an event in it."""
    members = [box] if isinstance(box, Account) else _accounts(engine, box)
    for account in members:
        if is_visible(event, account, engine.world):
            channel = box if isinstance(box, Channel) else None
            reached = 0
            take_seq(account, form)
            if engine.may_push(account.user_id, besides):
                reached = engine.push(account.user_id, packed(engine, account, event, channel, form), besides)
            if isinstance(event, NewMessage) and event.message.from_id != account.user_id:
                _count(engine, account, event.message, reached)


def _accounts(engine: Engine, box: Box) -> list[Account]:
    members = box.members if isinstance(box, Channel) else {}
    found = [engine.world.accounts.get(user_id) for user_id in members]
    return [account for account in found if account is not None]


def _count(engine: Engine, account: Account, message: Message, reached: int) -> None:
    pushed = Pushed(time.monotonic(), message.peer_id, message.id, message.text, reached)
    engine.seen.pushed[account.user_id].append(pushed)
