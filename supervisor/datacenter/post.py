"""A message finds its way into the boxes of those who get it, and to their sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .render import pushed

if TYPE_CHECKING:
    from .engine import Engine
    from .session import Session
    from .world import Account, Message


def post(
    engine: Engine,
    author: Account,
    peer_id: int,
    *,
    text: str = "",
    media: Any = None,
    action: Any = None,
    random_id: int = 0,
    sender: Session | None = None,
) -> Message:
    """An account writes to a user or (with a minus) a chat; everybody who has a box here gets the message."""
    date = int(engine.now())
    shared: dict[str, Any] = {
        "text": text,
        "media": media,
        "action": action,
        "date": date,
        "from_id": author.user_id,
    }
    message = author.add_message(
        peer_id=peer_id, out=True, random_id=random_id, key_id=sender.key.id if sender else b"", **shared
    )
    _push(engine, author, message, sender)
    for receiver in _receivers(engine, author, peer_id):
        seen_as = peer_id if peer_id < 0 else author.user_id
        _push(engine, receiver, receiver.add_message(peer_id=seen_as, **shared), None)
    return message


def receive(engine: Engine, account: Account, from_id: int, text: str) -> Message:
    """Somebody writes to an account in private."""
    message = account.add_message(peer_id=from_id, from_id=from_id, date=int(engine.now()), text=text)
    _push(engine, account, message, None)
    return message


def _receivers(engine: Engine, author: Account, peer_id: int) -> list[Account]:
    ids = engine.world.chats[-peer_id].members if peer_id < 0 else [peer_id]
    accounts = [engine.world.accounts.get(user_id) for user_id in ids if user_id != author.user_id]
    return [account for account in accounts if account is not None]


def _push(engine: Engine, account: Account, message: Message, besides: Session | None) -> None:
    if engine.has_listeners(account.user_id, besides):
        update = pushed(engine.world, account, message, int(engine.now()))
        engine.push(account.user_id, update, besides)
