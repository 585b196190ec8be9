"""Basic groups.

Telegram refuses messages.CreateChat to bots. Here a bot may call it too: it stands for every method that has an effect
each time and carries no random_id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.datacenter.library import build, raw
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.peers import find_chat, find_user
from supervisor.datacenter.post import post
from supervisor.datacenter.render import render_chat, updates

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call


@method("messages.CreateChat")
def create_chat(call: Call) -> Any:
    """Make a chat, each time this is called."""
    if not call.query.title.strip():
        raise RpcError(400, "CHAT_TITLE_EMPTY")
    invited = [find_user(call, user).user_id for user in call.query.users]
    if not invited:
        raise RpcError(400, "USERS_TOO_FEW")
    account = call.account
    members = list(dict.fromkeys([account.user_id, *invited]))
    chat = call.engine.world.add_chat(call.query.title, account.user_id, members, call.date)
    action = raw.types.MessageActionChatCreate(title=chat.title, users=members)
    message = post(call.engine, account, -chat.chat_id, action=action, sender=call.session)
    call.engine.seen.did(account.user_id, call.method, chat.title)
    announced = updates(call.engine.world, account, [message], call.date)
    if not hasattr(raw.types.messages, "InvitedUsers"):  # layers before 176 answer with the updates alone
        return announced
    return build(raw.types.messages.InvitedUsers, updates=announced, missing_invitees=[])


@method("messages.GetChats")
def get_chats(call: Call) -> Any:
    """Chats of which the account is a member."""
    chats = [render_chat(find_chat(call, chat_id), call.account) for chat_id in call.query.id]
    return raw.types.messages.Chats(chats=chats)
