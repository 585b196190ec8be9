"""What a query would have given that Telegram calls done already.

MESSAGE_NOT_MODIFIED, USER_ALREADY_PARTICIPANT and their like say that all is as the caller wants it (`none` in
core/errors.tsv): that is a success, if there is an honest result to give. A Bool is true; updates are empty where nobody
reads them for an object; an object that is expected is fetched by a query that only reads. Where none of that will do,
nothing is made up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from supervisor.telegram.queries import method_name, unwrapped

Send = Callable[[Any], Awaitable[Any]]

# The answer to these is an Updates in which neither library looks for anything that must be there.
_NOTHING_NEW: Final = frozenset(
    {
        "channels.EditForumTopic",
        "channels.EditPhoto",
        "channels.EditTitle",
        "channels.InviteToChannel",
        "channels.ToggleAntiSpam",
        "channels.ToggleForum",
        "channels.ToggleJoinRequest",
        "channels.ToggleJoinToSend",
        "channels.ToggleParticipantsHidden",
        "channels.TogglePreHistoryHidden",
        "channels.ToggleSignatures",
        "channels.ToggleSlowMode",
        "channels.UpdateColor",
        "channels.UpdateEmojiStatus",
        "channels.UpdatePinnedForumTopic",
        "messages.AddChatUser",
        "messages.EditChatPhoto",
        "messages.EditChatTitle",
        "messages.EditForumTopic",
        "messages.SetChatAvailableReactions",
        "messages.SetChatTheme",
        "messages.SetGameScore",
        "messages.SetHistoryTTL",
        "messages.ToggleNoForwards",
        "messages.UpdatePinnedForumTopic",
        "payments.RefundStarsCharge",
        "phone.DiscardGroupCall",
        "phone.EditGroupCallTitle",
        "phone.InviteToGroupCall",
        "phone.StartScheduledGroupCall",
        "phone.ToggleGroupCallRecord",
        "phone.ToggleGroupCallSettings",
        "phone.ToggleGroupCallStartSubscription",
    }
)
# Since layer 176 their updates come with those who could not be invited.
_INVITING: Final = frozenset({"channels.InviteToChannel", "messages.AddChatUser"})
# Not modified is also the answer to a lower score: on a first attempt that is the caller's matter.
_ONLY_REPEATED: Final = frozenset({"messages.SetGameScore", "messages.SetInlineGameScore"})


async def find(send: Send, query: Any, *, repeated: bool) -> Any | None:
    """The result of a query that was done already; None where none can honestly be given.

    Args:
        send: sends a query of ours.
        query: the one that was answered so.
        repeated: whether it had been sent before.
    """
    name, inner = method_name(query), unwrapped(query)
    if name in _ONLY_REPEATED and not repeated:
        return None
    look_up = _LOOK_UPS.get(name)
    if look_up is not None:
        return await look_up(send, inner) if inner is query else None
    if _answers_bool(type(inner)):
        return True
    if name not in _NOTHING_NEW:
        return None
    return _as_invited(_updates()) if name in _INVITING else _updates()


def _answers_bool(method: type) -> bool:
    """Whether a method's answer is a Bool; the libraries tell it in their docstrings alone."""
    return (method.__doc__ or "").partition("Returns:")[2].lstrip().startswith("``bool``")


# --- fetching what is there already ------------------------------------------------------------------------


async def _edited(send: Send, query: Any) -> Any | None:
    """The message as it stands; a poll's result, or a message that is not sent yet, is no such thing."""
    from pyrogram import raw

    if getattr(query, "schedule_date", None) or type(query.media).__name__ == "InputMediaPoll":
        return None
    channel, ids = _channel(query.peer), [raw.types.InputMessageID(id=query.id)]
    update: Any = raw.types.UpdateEditMessage
    if channel is None:
        found = await send(raw.functions.messages.GetMessages(id=ids))  # type: ignore[arg-type,unused-ignore]
    else:
        update = raw.types.UpdateEditChannelMessage
        found = await send(raw.functions.channels.GetMessages(channel=channel, id=ids))  # type: ignore[arg-type,unused-ignore]
    for message in found.messages:
        if message.id == query.id and type(message).__name__ != "MessageEmpty":
            told = update(message=message, pts=0, pts_count=0)
            return _updates([told], found.users, found.chats, message.date)
    return None


async def _joined(send: Send, query: Any) -> Any | None:
    return _as_joined(await _chats(send, query.channel))


async def _invited(send: Send, query: Any) -> Any | None:
    from pyrogram import raw

    found = await send(raw.functions.messages.CheckChatInvite(hash=query.hash))
    if type(found).__name__ != "ChatInviteAlready":
        return None
    return _as_joined([found.chat])


async def _restricted(send: Send, query: Any) -> Any | None:
    chats = await _chats(send, query.peer)
    return _updates(chats=chats) if chats else None


async def _myself(send: Send, _query: Any) -> Any | None:
    from pyrogram import raw

    users: list[Any] = await send(raw.functions.users.GetUsers(id=[raw.types.InputUserSelf()]))
    return users[0] if users else None


_LOOK_UPS: Final[dict[str, Callable[[Send, Any], Awaitable[Any | None]]]] = {
    "account.UpdateUsername": _myself,
    "channels.JoinChannel": _joined,
    "messages.EditChatDefaultBannedRights": _restricted,
    "messages.EditMessage": _edited,
    "messages.ImportChatInvite": _invited,
}


async def _chats(send: Send, peer: Any) -> list[Any]:
    """The chat or channel that is meant, in a list; nothing where there is none."""
    from pyrogram import raw

    channel = _channel(peer)
    if channel is not None:
        found = await send(raw.functions.channels.GetChannels(id=[channel]))
    elif hasattr(peer, "chat_id"):
        found = await send(raw.functions.messages.GetChats(id=[peer.chat_id]))
    else:
        return []
    return list(found.chats)


def _channel(peer: Any) -> Any | None:
    """The channel of a peer as channels.* wants it; None if it is none."""
    from pyrogram import raw

    if not hasattr(peer, "channel_id"):
        return None
    return raw.types.InputChannel(channel_id=peer.channel_id, access_hash=peer.access_hash)


# --- results of the installed layer ------------------------------------------------------------------------


def _updates(
    updates: list[Any] | None = None,
    users: list[Any] | None = None,
    chats: list[Any] | None = None,
    date: int = 0,
) -> Any:
    from pyrogram import raw

    return raw.types.Updates(updates=updates or [], users=users or [], chats=chats or [], date=date, seq=0)


def _as_invited(updates: Any) -> Any:
    from pyrogram import raw

    kind = getattr(raw.types.messages, "InvitedUsers", None)
    return updates if kind is None else kind(updates=updates, missing_invitees=[])


def _as_joined(chats: list[Any]) -> Any | None:
    from pyrogram import raw

    if not chats:
        return None
    updates = _updates(chats=chats)
    kind = getattr(raw.types.messages, "ChatInviteJoinResultOk", None)
    return updates if kind is None else kind(updates=updates)
