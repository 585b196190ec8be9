"""Whom a query addresses, checked as strictly as Telegram does (core.telegram.org/api/peers).

A user is addressed with the access hash which this very account was given. A bot may leave the hash 0 for itself and
for users who have talked to it. That is how a client with nothing in its storage writes to a person: it asks
users.GetUsers with hash 0 and gets the hash in the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .library import method_name
from .methods.registry import RpcError

if TYPE_CHECKING:
    from .dispatch import Call
    from .world import Account, Channel, Chat, Person

_SELF = frozenset({"InputPeerSelf", "InputUserSelf"})
_USER = frozenset({"InputPeerUser", "InputUser"})
_CHANNEL = frozenset({"InputPeerChannel", "InputChannel"})


def find_user(call: Call, peer: Any) -> Account | Person:
    """The user that an InputUser or InputPeer means; 400 PEER_ID_INVALID where it means none."""
    account, world = call.account, call.engine.world
    kind = method_name(peer)
    if kind in _SELF:
        return account
    if kind not in _USER:
        raise RpcError(400, "PEER_ID_INVALID")
    user = world.find_user(peer.user_id)
    if user is None:
        raise RpcError(400, "PEER_ID_INVALID")
    if not peer.access_hash and account.is_bot and world.knows(account, peer.user_id):
        return user
    if peer.access_hash != world.access_hash(account.user_id, peer.user_id):
        raise RpcError(400, "PEER_ID_INVALID")
    return user


def find_chat(call: Call, chat_id: int) -> Chat:
    """A basic group of which the account is a member."""
    chat = call.engine.world.chats.get(chat_id)
    if chat is None or call.account.user_id not in chat.members:
        raise RpcError(400, "PEER_ID_INVALID")
    return chat


def find_channel(call: Call, peer: Any) -> Channel:
    """A supergroup or channel of which the account is a member.

    It is addressed with the hash that this account was given; a bot may leave it 0 where it is a member.
    """
    account, world = call.account, call.engine.world
    if method_name(peer) not in _CHANNEL:
        raise RpcError(400, "CHANNEL_INVALID")
    channel = world.channels.get(peer.channel_id)
    if channel is None:
        raise RpcError(400, "CHANNEL_INVALID")
    is_member = account.user_id in channel.members
    unhashed = not peer.access_hash and account.is_bot and is_member
    if not unhashed and peer.access_hash != world.access_hash(account.user_id, channel.peer_id):
        raise RpcError(400, "CHANNEL_INVALID")
    if not is_member:
        raise RpcError(406, "CHANNEL_PRIVATE")
    return channel


def find_peer(call: Call, peer: Any) -> int:
    """The marked id of a peer that the account knows."""
    kind = method_name(peer)
    if kind == "InputPeerChat":
        return find_chat(call, peer.chat_id).peer_id
    return find_channel(call, peer).peer_id if kind in _CHANNEL else find_user(call, peer).user_id


def writable_peer(call: Call, peer: Any) -> int:
    """The marked id of a peer that the account may write to."""
    if method_name(peer) in _CHANNEL:
        channel = find_channel(call, peer)
        if channel.is_broadcast and call.account.user_id != channel.creator_id:
            raise RpcError(403, "CHAT_WRITE_FORBIDDEN")
        return channel.peer_id
    if method_name(peer) == "InputPeerChat":
        return find_chat(call, peer.chat_id).peer_id
    user = find_user(call, peer)
    target = call.engine.world.accounts.get(user.user_id)
    if call.account.is_bot:
        if target is not None and target.is_bot:
            raise RpcError(400, "USER_IS_BOT")
        if not call.engine.world.knows(call.account, user.user_id):
            raise RpcError(400, "PEER_ID_INVALID")
    return user.user_id
