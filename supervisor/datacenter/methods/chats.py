"""Basic groups.

Telegram refuses messages.CreateChat to bots. Here a bot may call it too: it stands for every method that has an effect
each time and carries no random_id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.datacenter.library import build, raw
from supervisor.datacenter.methods.messages import announced
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.peers import find_chat, find_user
from supervisor.datacenter.post import post
from supervisor.datacenter.render import mentioned, render_chat

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call
    from supervisor.datacenter.world import Channel, Chat


_LONGEST_TITLE = 128


def checked_title(title: str) -> str:
    """A title as it is kept."""
    if not title.strip() or len(title) > _LONGEST_TITLE:
        raise RpcError(400, "CHAT_TITLE_EMPTY")
    return title


def retitled(call: Call, group: Chat | Channel, title: str) -> Any:
    """Give a group another title; a message in it says so."""
    if checked_title(title) == group.title:
        raise RpcError(400, "CHAT_NOT_MODIFIED")
    group.title = title
    action = raw.types.MessageActionChatEditTitle(title=title)
    account = call.account
    made = post(call.engine, account.user_id, group.peer_id, action=action, sender=call.session)
    call.engine.seen.did(account.user_id, call.method, title)
    return announced(call, made[:1])


@method("messages.CreateChat")
def create_chat(call: Call) -> Any:
    """Make a chat, each time this is called."""
    title = checked_title(call.query.title)
    invited = [find_user(call, user).user_id for user in call.query.users]
    if not invited:
        raise RpcError(400, "USERS_TOO_FEW")
    account = call.account
    members = list(dict.fromkeys([account.user_id, *invited]))
    chat = call.engine.world.add_chat(title, account.user_id, members, call.date)
    action = raw.types.MessageActionChatCreate(title=chat.title, users=members)
    made = post(call.engine, account.user_id, chat.peer_id, action=action, sender=call.session)
    call.engine.seen.did(account.user_id, call.method, chat.title)
    answer = announced(call, made[:1])
    if not hasattr(raw.types.messages, "InvitedUsers"):  # layers before 176 answer with the updates alone
        return answer
    return build(raw.types.messages.InvitedUsers, updates=answer, missing_invitees=[])


@method("messages.GetChats")
def get_chats(call: Call) -> Any:
    """Chats of which the account is a member."""
    chats = [render_chat(find_chat(call, chat_id), call.account) for chat_id in call.query.id]
    return raw.types.messages.Chats(chats=chats)


@method("messages.GetFullChat")
def get_full_chat(call: Call) -> Any:
    """A basic group with its members."""
    chat, account = find_chat(call, call.query.chat_id), call.account
    types = raw.types
    participants = [
        types.ChatParticipantCreator(user_id=user_id)
        if user_id == chat.creator_id
        else types.ChatParticipant(user_id=user_id, inviter_id=chat.creator_id, date=chat.date)
        for user_id in chat.members
    ]
    full = build(
        types.ChatFull,
        id=chat.chat_id,
        about="",
        participants=types.ChatParticipants(chat_id=chat.chat_id, participants=participants, version=1),
        notify_settings=build(types.PeerNotifySettings),
    )
    users, chats = mentioned(call.engine.world, [], account, chat.peer_id, *chat.members)
    return types.messages.ChatFull(full_chat=full, chats=chats, users=users)


@method("messages.EditChatTitle")
def edit_chat_title(call: Call) -> Any:
    """Give a basic group another title."""
    return retitled(call, find_chat(call, call.query.chat_id), call.query.title)
