"""What a query gives that was done already: what is there, fetched; nothing new; or nothing that would be made up."""

from __future__ import annotations

from typing import Any

import pytest
from pyrogram import raw

from supervisor.telegram import done

CHANNEL = raw.types.InputPeerChannel(channel_id=7, access_hash=9)
INPUT_CHANNEL = raw.types.InputChannel(channel_id=7, access_hash=9)
FORBIDDEN: Any = raw.types.ChannelForbidden(id=7, access_hash=9, title="a channel")
RIGHTS = raw.types.ChatBannedRights(until_date=0)


class Server:
    """Answers the read-only queries of a test, and remembers them."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    async def send(self, query: Any) -> Any:
        self.asked.append(query)
        return self.answer


async def found(query: Any, answer: Any = None, *, repeated: bool = False) -> Any:
    return await done.find(Server(answer).send, query, repeated=repeated)


def message(message_id: int) -> Any:
    return raw.types.Message(
        id=message_id, peer_id=raw.types.PeerChannel(channel_id=7), date=5, message="as it is"
    )


def edit(peer: Any, **fields: Any) -> Any:
    return raw.functions.messages.EditMessage(peer=peer, id=3, **fields)


def listed(*messages: Any) -> Any:
    fields: dict[str, Any] = {"messages": list(messages), "chats": [], "users": []}
    if "topics" in raw.types.messages.Messages.__slots__:
        fields["topics"] = []
    return raw.types.messages.Messages(**fields)


async def test_a_bool_is_true() -> None:
    """Whatever the method: all is as the caller wants it."""
    assert await found(raw.functions.messages.EditChatAbout(peer=CHANNEL, about="")) is True
    assert await found(raw.functions.channels.UpdateUsername(channel=INPUT_CHANNEL, username="same")) is True


async def test_updates_are_empty_where_nobody_looks_for_anything_in_them() -> None:
    """A title that is not modified changes nothing."""
    updates = await found(raw.functions.channels.EditTitle(channel=INPUT_CHANNEL, title="same"))
    assert (type(updates).__name__, updates.updates, updates.chats) == ("Updates", [], [])


async def test_who_is_invited_already_is_not_missing() -> None:
    """The installed layer's own answer: updates, and nobody who could not be invited."""
    query = raw.functions.channels.InviteToChannel(channel=INPUT_CHANNEL, users=[])
    given = await found(query)
    assert getattr(given, "missing_invitees", []) == []
    assert getattr(given, "updates", given) is not None


@pytest.mark.parametrize("channel", [True, False])
async def test_an_edited_message_is_the_message(channel: bool) -> None:
    """Fetched from where it lies, as the update that both libraries look for."""
    server = Server(listed(message(3)))
    peer: Any = CHANNEL if channel else raw.types.InputPeerUser(user_id=7, access_hash=9)
    updates: Any = await done.find(server.send, edit(peer), repeated=False)
    (asked,), (update,) = server.asked, updates.updates
    assert asked.QUALNAME.endswith("channels.GetMessages" if channel else "messages.GetMessages")
    assert type(update).__name__ == ("UpdateEditChannelMessage" if channel else "UpdateEditMessage")
    assert (update.message.id, update.pts_count) == (3, 0)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (edit(CHANNEL, schedule_date=99), None),
        (edit(CHANNEL, media=raw.types.InputMediaPoll(poll=None)), None),  # type: ignore[arg-type,unused-ignore]
        (edit(CHANNEL), listed(raw.types.MessageEmpty(id=3))),
        (edit(CHANNEL), listed()),
        (raw.functions.messages.EditChatDefaultBannedRights(peer=raw.types.InputPeerSelf(), banned_rights=RIGHTS), None),
        (raw.functions.account.UpdateUsername(username="same"), []),
        (raw.functions.channels.JoinChannel(channel=INPUT_CHANNEL), raw.types.messages.Chats(chats=[])),
        (raw.functions.messages.ImportChatInvite(hash="x"), raw.types.ChatInvitePeek(chat=FORBIDDEN, expires=9)),
        (raw.functions.phone.GetCallConfig(), None),
        (
            raw.functions.InvokeWithoutUpdates(query=raw.functions.channels.JoinChannel(channel=INPUT_CHANNEL)),
            raw.types.messages.Chats(chats=[FORBIDDEN]),
        ),
    ],
)  # fmt: skip
async def test_what_cannot_honestly_be_given_is_not_made_up(query: Any, answer: Any) -> None:
    """A message that is not sent yet, a poll's result, an empty answer, an object of another kind: the caller gets the error."""
    assert await found(query, answer) is None


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (
            raw.functions.channels.JoinChannel(channel=INPUT_CHANNEL),
            raw.types.messages.Chats(chats=[FORBIDDEN]),
        ),
        (raw.functions.messages.ImportChatInvite(hash="x"), raw.types.ChatInviteAlready(chat=FORBIDDEN)),
    ],
)
async def test_who_joined_before_gets_the_chat(query: Any, answer: Any) -> None:
    """In the installed layer's own answer, where both libraries look for it."""
    given = await found(query, answer)
    assert getattr(given, "updates", given) is not None
    updates = given if hasattr(given, "chats") else given.updates
    assert updates.chats == [FORBIDDEN]


async def test_rights_that_are_not_modified_come_with_their_chat() -> None:
    """set_chat_permissions reads them out of it, in a group as in a channel."""
    for peer, method in ((CHANNEL, "GetChannels"), (raw.types.InputPeerChat(chat_id=7), "GetChats")):
        server = Server(raw.types.messages.Chats(chats=[FORBIDDEN]))
        query = raw.functions.messages.EditChatDefaultBannedRights(peer=peer, banned_rights=RIGHTS)
        updates: Any = await done.find(server.send, query, repeated=False)
        assert (updates.chats, type(server.asked[0]).__name__) == ([FORBIDDEN], method)


async def test_a_username_that_is_not_modified_gives_the_user() -> None:
    """Its owner, as the server knows them."""
    me = raw.types.UserEmpty(id=7)
    assert await found(raw.functions.account.UpdateUsername(username="same"), [me]) is me


async def test_a_score_is_done_only_where_it_was_sent_before() -> None:
    """The same is answered to a lower score: on a first attempt nobody but the caller can tell."""
    user: Any = raw.types.InputUserSelf()
    query = raw.functions.messages.SetGameScore(peer=CHANNEL, id=1, user_id=user, score=1)
    assert await found(query) is None
    assert (await found(query, repeated=True)).updates == []
