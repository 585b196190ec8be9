"""What the methods answer, and how strict they are."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter
from tests.datacenter.conftest import Dial
from tests.datacenter.wire import Peer, raw, send_message


def functions() -> Any:
    return raw().functions


def types() -> Any:
    return raw().types


def difference(pts: int, **more: Any) -> Any:
    return functions().updates.GetDifference(pts=pts, date=1, qts=0, **more)


def is_update(message: Any) -> bool:
    return isinstance(message.body, raw().types.Updates)


# -- the unknown --------------------------------------------------------------------------------------------------


async def test_an_unserved_method_fails_loudly(
    dc: Datacenter, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    """A method that isn't served gets an error, is recorded, and is logged as an error."""
    with caplog.at_level(logging.ERROR):
        error = await peer.error(functions().messages.GetAllDrafts())
    assert error == "400 INPUT_METHOD_INVALID"
    assert dc.seen.unknown_methods == ["messages.GetAllDrafts"]
    assert "messages.GetAllDrafts" in caplog.text
    dc.seen.unknown_methods.clear()


class Bytes:
    """A query of any bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def write(self) -> bytes:
        return self._data


async def test_an_unknown_constructor_fails_loudly(dc: Datacenter, peer: Peer) -> None:
    """Bytes that are no method of the layer are refused and recorded."""
    assert await peer.error(Bytes(b"\x01\x02\x03\x04")) == "400 INPUT_METHOD_INVALID"
    assert (
        await peer.error(Bytes(functions().updates.GetState().write() + bytes(4))) == "400 INPUT_FETCH_ERROR"
    )
    assert dc.seen.unknown_methods == ["0x04030201", "malformed"]
    dc.seen.unknown_methods.clear()


# -- sending ------------------------------------------------------------------------------------------------------


async def test_a_text_to_a_person_is_answered_in_short(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """messages.sendMessage to a user gets updateShortSentMessage with its id and pts, and is seen once."""
    sent = await peer.ask(send_message(dc, bot, "hello", 5))
    assert (sent.id, sent.pts, sent.pts_count) == (1, 2, 1)
    (seen,) = dc.seen.sends[bot.user_id]
    assert (seen.method, seen.random_id, seen.text) == ("messages.SendMessage", 5, "hello")
    assert (seen.peer_id, seen.message_id) == (dc.person.user_id, 1)


WRONG = {
    "no random_id": ({"random_id": 0}, "400 RANDOM_ID_EMPTY"),
    "no text": ({"text": " "}, "400 MESSAGE_EMPTY"),
    "too long": ({"text": "x" * 4097}, "400 MESSAGE_TOO_LONG"),
}


@pytest.mark.parametrize(("fields", "error"), WRONG.values(), ids=WRONG.keys())
async def test_wrong_sends_are_refused(
    dc: Datacenter, bot: Account, peer: Peer, fields: dict[str, Any], error: str
) -> None:
    """A wrong send gets the error that Telegram gives, and nothing is sent."""
    assert await peer.error(send_message(dc, bot, **{"text": "x", **fields})) == error
    assert not dc.seen.sends


@pytest.mark.parametrize("who", ["stranger", "wrong hash", "not talked to", "chat", "bot", "another's hash"])
async def test_unknown_peers_are_refused(dc: Datacenter, bot: Account, peer: Peer, who: str) -> None:
    """A bot may address only users who talked to it, by hash 0 or by the hash it was given; no bots, no foreign chats."""
    other = dc.add_bot()
    dc.add_person(702, "Dora", talked_to=set())
    make = types().InputPeerUser
    peers = {
        "stranger": (make(user_id=12345, access_hash=0), "400 PEER_ID_INVALID"),
        "wrong hash": (make(user_id=dc.person.user_id, access_hash=1), "400 PEER_ID_INVALID"),
        "not talked to": (make(user_id=702, access_hash=0), "400 PEER_ID_INVALID"),
        "chat": (types().InputPeerChat(chat_id=1), "400 PEER_ID_INVALID"),
        "bot": (make(user_id=other.user_id, access_hash=dc.access_hash(bot, other)), "400 USER_IS_BOT"),
        "another's hash": (
            make(user_id=dc.person.user_id, access_hash=dc.access_hash(other, dc.person)),
            "400 PEER_ID_INVALID",
        ),
    }
    wrong, error = peers[who]
    assert await peer.error(send_message(dc, bot, "x", peer=wrong)) == error


async def test_who_talks_to_a_bot_can_be_addressed(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A person who never talked to the bot can be written to once they have."""
    dora = dc.add_person(702, "Dora", talked_to=set())
    dc.push_message(bot, "hi", dora)
    address = types().InputPeerUser(user_id=702, access_hash=0)
    assert isinstance(
        await peer.ask(send_message(dc, bot, "x", peer=address)), types().UpdateShortSentMessage
    )


async def test_typing_and_commands(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """messages.setTyping and bots.setBotCommands answer true; the commands are kept."""
    address = types().InputPeerUser(user_id=dc.person.user_id, access_hash=0)
    typing = functions().messages.SetTyping(peer=address, action=types().SendMessageTypingAction())
    assert await peer.ask(typing) is True
    command = types().BotCommand(command="start", description="Begin")
    scope = types().BotCommandScopeDefault()
    assert (
        await peer.ask(functions().bots.SetBotCommands(scope=scope, lang_code="", commands=[command])) is True
    )
    assert [known.command for known in bot.commands] == ["start"]


# -- chats --------------------------------------------------------------------------------------------------------


async def make_chat(dc: Datacenter, peer: Peer, title: str = "Team") -> int:
    user = types().InputUser(user_id=dc.person.user_id, access_hash=0)
    answer = await peer.ask(functions().messages.CreateChat(users=[user], title=title))
    updates = getattr(answer, "updates", answer)
    updates = getattr(updates, "updates", updates) if not isinstance(updates, list) else updates
    (chat,) = (answer if hasattr(answer, "chats") else answer.updates).chats
    assert updates[0].message.action.title == title
    return int(chat.id)


async def test_a_chat_is_created_each_time(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """messages.createChat has its effect every time that it is executed."""
    first, second = await make_chat(dc, peer), await make_chat(dc, peer)
    assert first != second
    assert [done.what for done in dc.seen.effects[bot.user_id]] == ["Team", "Team"]
    (chat,) = (await peer.ask(functions().messages.GetChats(id=[first]))).chats
    assert (chat.title, chat.participants_count) == ("Team", 2)


async def test_a_text_to_a_chat_is_announced_in_full(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A send to a basic chat gets Updates with updateMessageID and updateNewMessage."""
    chat_id = await make_chat(dc, peer)
    address = types().InputPeerChat(chat_id=chat_id)
    answer = await peer.ask(send_message(dc, bot, "all", 9, peer=address))
    named, new = answer.updates
    assert (named.random_id, named.id) == (9, new.message.id)
    assert new.message.peer_id.chat_id == chat_id
    assert new.message.message == "all"


async def test_members_get_what_is_written_in_a_chat(
    dc: Datacenter, dial: Dial, peer: Peer, bot: Account
) -> None:
    """Another account in the chat gets the message in its own box, with its own pts."""
    user = dc.add_user(5_000_002)
    dc.push_message(bot, "hi", user)
    listener = await dial(user)
    await listener.ask(functions().updates.GetState())
    member = types().InputUser(user_id=user.user_id, access_hash=0)
    await peer.ask(functions().messages.CreateChat(users=[member], title="Two"))
    update = await listener.until(is_update)
    assert update.body.updates[0].message.action.title == "Two"
    assert update.body.updates[0].pts == 3  # after what the user wrote


# -- updates ------------------------------------------------------------------------------------------------------


async def test_a_pushed_message_comes_as_an_update(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """push_message reaches a connected session at once, with the pts that getState then tells."""
    await peer.ask(functions().updates.GetState())
    message_id = dc.push_message(bot, "hi")
    update = (await peer.until(is_update)).body.updates[0]
    assert (update.message.id, update.message.message) == (message_id, "hi")
    assert update.message.peer_id.user_id == dc.person.user_id
    assert (await peer.ask(functions().updates.GetState())).pts == update.pts == 2


async def test_a_session_that_wants_no_updates_gets_none(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A session whose queries are all in invokeWithoutUpdates is not pushed to."""
    quiet = functions().InvokeWithoutUpdates(query=functions().updates.GetState())
    await peer.ask(quiet)
    dc.push_message(bot, "hi")
    assert await peer.is_quiet()


async def test_missed_messages_lie_in_the_difference(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """What came while nobody listened is in getDifference, oldest first, with its senders; then it is empty."""
    await peer.close()
    for text in ("one", "two"):
        dc.push_message(bot, text)
    await peer.connect()
    answer = await peer.ask(difference(1))
    assert [message.message for message in answer.new_messages] == ["one", "two"]
    assert [user.id for user in answer.users] == [dc.person.user_id]
    assert answer.state.pts == 3
    assert isinstance(await peer.ask(difference(3)), types().updates.DifferenceEmpty)


async def test_a_long_difference_comes_in_slices(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """More than 100 messages come as slices; following intermediate_state gets each message once."""
    for number in range(250):
        dc.push_message(bot, str(number))
    texts: list[str] = []
    kinds: list[str] = []
    pts = 1
    while not kinds or kinds[-1] == "DifferenceSlice":
        answer = await peer.ask(difference(pts))
        kinds.append(type(answer).__name__)
        texts += [message.message for message in answer.new_messages]
        pts = (answer.state if kinds[-1] == "Difference" else answer.intermediate_state).pts
    assert kinds == ["DifferenceSlice", "DifferenceSlice", "Difference"]
    assert texts == [str(number) for number in range(250)]


async def test_own_messages_can_be_found_by_random_id(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """The difference holds a message that this key sent, and updateMessageID says which random_id it had."""
    sent = await peer.ask(send_message(dc, bot, "mine", 4242))
    answer = await peer.ask(difference(1))
    (message,), (named,) = answer.new_messages, answer.other_updates
    assert message.out
    assert (message.id, named.id, named.random_id) == (sent.id, sent.id, 4242)


@pytest.mark.parametrize(
    ("pts", "error"), [(0, "400 PERSISTENT_TIMESTAMP_EMPTY"), (9, "400 PERSISTENT_TIMESTAMP_INVALID")]
)
async def test_a_pts_that_cannot_be_is_refused(peer: Peer, pts: int, error: str) -> None:
    """A pts of 0 or of the future has no difference."""
    assert await peer.error(difference(pts)) == error


async def test_unacknowledged_updates_come_again(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """An update that wasn't acknowledged is sent again on the session's next connection."""
    await peer.ask(functions().updates.GetState())
    dc.push_message(bot, "hi")
    update = await peer.until(is_update)
    await peer.close()
    await peer.connect()
    await peer.ask(functions().Ping(ping_id=1), content=False)
    assert update.msg_id in [message.msg_id for message in peer.received]
    assert dc.seen.updates_resent >= 1


# -- looking up ---------------------------------------------------------------------------------------------------


async def test_users_are_seen_with_the_viewers_hash(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """users.getUsers with hash 0 gives the hash with which this account addresses the person; strangers are empty."""
    wanted = [types().InputUser(user_id=user_id, access_hash=0) for user_id in (dc.person.user_id, 1)]
    known, unknown = await peer.ask(functions().users.GetUsers(id=wanted))
    assert known.access_hash == dc.access_hash(bot, dc.person)
    assert isinstance(unknown, types().UserEmpty)


async def test_usernames_are_resolved(dc: Datacenter, peer: Peer) -> None:
    """contacts.resolveUsername finds people whatever the case, and says who isn't there."""
    dc.add_person(703, "Eve", username="Eve_1")
    found = await peer.ask(functions().contacts.ResolveUsername(username="eve_1"))
    assert found.peer.user_id == 703
    error = await peer.error(functions().contacts.ResolveUsername(username="nobody"))
    assert error == "400 USERNAME_NOT_OCCUPIED"


async def test_messages_are_fetched_by_id(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """messages.getMessages gives what there is and messageEmpty for what isn't."""
    dc.push_message(bot, "hi")
    wanted = [types().InputMessageID(id=number) for number in (1, 7)]
    found, empty = (await peer.ask(functions().messages.GetMessages(id=wanted))).messages
    assert found.message == "hi"
    assert isinstance(empty, types().MessageEmpty)


async def test_history_is_for_users(dc: Datacenter, bot: Account, peer: Peer, dial: Dial) -> None:
    """messages.getHistory gives a user the newest messages first, and is refused to bots."""
    user = dc.add_user(5_000_003)
    for text in ("one", "two"):
        dc.push_message(user, text)

    def history(account: Account) -> Any:
        hashed = dc.access_hash(account, dc.person)
        address = types().InputPeerUser(user_id=dc.person.user_id, access_hash=hashed)
        zeros = dict.fromkeys(("offset_id", "offset_date", "add_offset", "max_id", "min_id", "hash"), 0)
        return functions().messages.GetHistory(peer=address, limit=10, **zeros)

    assert await peer.error(history(bot)) == "400 BOT_METHOD_INVALID"
    reader = await dial(user)
    listed = await reader.ask(history(user))
    assert [message.message for message in listed.messages] == ["two", "one"]


async def test_calls_can_wait_for_earlier_ones(peer: Peer) -> None:
    """invokeAfterMsg is answered after a call that succeeded, and gets MSG_WAIT_FAILED after any other."""
    state = functions().updates.GetState()
    good = peer.say(state)
    assert isinstance(
        await peer.ask(functions().InvokeAfterMsg(msg_id=good, query=state)), types().updates.State
    )
    bad = peer.say(difference(0))
    for msg_id in (bad, good + 4):
        assert (
            await peer.error(functions().InvokeAfterMsg(msg_id=msg_id, query=state)) == "400 MSG_WAIT_FAILED"
        )
