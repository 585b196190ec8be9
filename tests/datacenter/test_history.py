"""What lies in the boxes, and what is done to it after it was sent."""

from __future__ import annotations

import os
from typing import Any

import pytest

from supervisor.datacenter import Account, Channel, Datacenter
from tests.datacenter.conftest import Bare, Dial
from tests.datacenter.test_updates import address, functions, is_updates, state, types
from tests.datacenter.wire import Peer, send_message


@pytest.fixture
def user(dc: Datacenter) -> Account:
    return dc.add_user(5_000_020)


@pytest.fixture
async def mine(dial: Dial, user: Account) -> Peer:
    """A session of the user, who listens."""
    peer = await dial(user)
    await state(peer)
    return peer


def person(dc: Datacenter, account: Account, who: Any = None) -> Any:
    who = who or dc.person
    return types().InputPeerUser(user_id=who.user_id, access_hash=dc.access_hash(account, who))


def edited(peer: Any, message_id: int, text: str) -> Any:
    return functions().messages.EditMessage(peer=peer, id=message_id, message=text)


# -- editing and deleting -----------------------------------------------------------------------------------------


async def test_an_edit_reaches_the_other_side(
    dc: Datacenter, bot: Account, peer: Peer, user: Account
) -> None:
    """messages.editMessage changes a message for everybody who has it, and each box takes a pts."""
    dc.push_message(bot, "hi", user)
    sent = await peer.ask(send_message(dc, bot, "helo", peer=person(dc, bot, user)))
    answer = await peer.ask(edited(person(dc, bot, user), sent.id, "hello"))
    (update,) = answer.updates
    assert (update.message.message, update.pts, update.pts_count) == ("hello", sent.pts + 1, 1)
    assert [message.text for message in user.messages.values()] == ["hi", "hello"]
    assert [done.what for done in dc.seen.effects[bot.user_id]] == ["hello"]


async def test_wrong_edits_are_refused(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """Only a message of one's own, in that chat, is edited, and only into another text."""
    sent = await peer.ask(send_message(dc, bot, "mine"))
    foreign = dc.push_message(bot, "theirs")
    who = person(dc, bot)
    assert await peer.error(edited(who, 99, "x")) == "400 MESSAGE_ID_INVALID"
    assert await peer.error(edited(types().InputPeerSelf(), sent.id, "x")) == "400 MESSAGE_ID_INVALID"
    assert await peer.error(edited(who, foreign, "x")) == "403 MESSAGE_AUTHOR_REQUIRED"
    assert await peer.error(edited(who, sent.id, "mine")) == "400 MESSAGE_NOT_MODIFIED"
    assert await peer.error(edited(who, sent.id, "")) == "400 MESSAGE_EMPTY"


async def test_a_deletion_takes_a_pts_for_each_message(
    dc: Datacenter, bot: Account, peer: Peer, user: Account, mine: Peer
) -> None:
    """messages.deleteMessages of a bot deletes on both sides; ids of nothing are passed over."""
    dc.push_message(bot, "hi", user)
    ids = [
        (await peer.ask(send_message(dc, bot, text, peer=person(dc, bot, user)))).id
        for text in ("one", "two")
    ]
    done = await peer.ask(functions().messages.DeleteMessages(id=[*ids, 99]))
    assert (done.pts, done.pts_count) == (bot.pts, 2)
    assert [message.text for message in user.messages.values()] == ["hi"]
    pushed = [(await mine.until(is_updates)).body.updates[0] for _ in range(4)]
    assert (pushed[-1].messages, pushed[-1].pts_count) == ([2, 3], 2)
    again = await peer.ask(functions().messages.DeleteMessages(id=ids))
    assert (again.pts, again.pts_count) == (bot.pts, 0)


async def test_a_user_may_delete_for_themselves(dc: Datacenter, user: Account, mine: Peer) -> None:
    """Without revoke a user's deletion leaves the other side's copy."""
    other = dc.add_user(5_000_021)
    dc.push_message(user, "hi", other)
    await mine.ask(functions().messages.DeleteMessages(id=[1], revoke=False))
    assert not user.messages
    assert len(other.messages) == 1


async def test_a_supergroup_is_tidied_by_its_members(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A member deletes messages of its own; only who made the supergroup may delete others', and rename it."""
    group = dc.add_supergroup("Team", [bot])
    foreign = dc.push_message(bot, "theirs", chat=group)
    sent = await peer.ask(send_message(dc, bot, "mine", peer=address(dc, bot, group, full=True)))
    own = sent.updates[0].id
    where = address(dc, bot, group)

    def delete(*ids: int) -> Any:
        return functions().channels.DeleteMessages(channel=where, id=list(ids))

    assert await peer.error(delete(own, foreign)) == "403 MESSAGE_DELETE_FORBIDDEN"
    done = await peer.ask(delete(own))
    assert (done.pts, done.pts_count) == (group.pts, 1)
    rename = functions().channels.EditTitle(channel=where, title="Mine")
    assert await peer.error(rename) == "400 CHAT_ADMIN_REQUIRED"


async def test_a_title_is_changed_once(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """The same title again is CHAT_NOT_MODIFIED, in basic groups and supergroups."""
    created = await peer.ask(functions().channels.CreateChannel(title="A", about="", megagroup=True))
    (group,) = dc.engine.world.channels.values()
    assert created.chats[0].id == group.channel_id
    rename = functions().channels.EditTitle(channel=address(dc, bot, group), title="B")
    assert (await peer.ask(rename)).updates[0].message.action.title == "B"
    assert await peer.error(rename) == "400 CHAT_NOT_MODIFIED"
    who = types().InputUser(user_id=dc.person.user_id, access_hash=0)
    await peer.ask(functions().messages.CreateChat(users=[who], title="A"))
    (chat,) = dc.engine.world.chats.values()
    rename = functions().messages.EditChatTitle(chat_id=chat.chat_id, title="B")
    assert (await peer.ask(rename)).updates[0].message.action.title == "B"
    assert await peer.error(rename) == "400 CHAT_NOT_MODIFIED"
    full = (await peer.ask(functions().messages.GetFullChat(chat_id=chat.chat_id))).full_chat
    assert [member.user_id for member in full.participants.participants] == [bot.user_id, dc.person.user_id]
    assert [done.what for done in dc.seen.effects[bot.user_id]] == ["A", "B", "A", "B"]


async def test_members_are_looked_up(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """channels.getParticipant says what somebody is in a supergroup, or that they are not in it."""
    group = dc.add_supergroup("Team", [bot])
    dora = dc.add_person(702, "Dora")

    def ask(who: Any) -> Any:
        return functions().channels.GetParticipant(channel=address(dc, bot, group), participant=who)

    made_by = await peer.ask(ask(person(dc, bot)))
    assert isinstance(made_by.participant, types().ChannelParticipantCreator)
    own = await peer.ask(ask(types().InputPeerSelf()))
    assert own.participant.user_id == bot.user_id
    assert await peer.error(ask(person(dc, bot, dora))) == "400 USER_NOT_PARTICIPANT"


# -- albums -------------------------------------------------------------------------------------------------------


async def album(dc: Datacenter, bot: Account, peer: Peer, *random_ids: int) -> Any:
    items = []
    for number, random_id in enumerate(random_ids):
        content = os.urandom(100)
        await peer.ask(functions().upload.SaveFilePart(file_id=number + 1, file_part=0, bytes=content))
        file = types().InputFile(id=number + 1, parts=1, name="a.jpg", md5_checksum="")
        photo = types().InputMediaUploadedPhoto(file=file)
        made = await peer.ask(functions().messages.UploadMedia(peer=person(dc, bot), media=photo))
        known = types().InputPhoto(
            id=made.photo.id, access_hash=made.photo.access_hash, file_reference=made.photo.file_reference
        )
        media = types().InputMediaPhoto(id=known)
        items.append(types().InputSingleMedia(media=media, random_id=random_id, message=f"no {number}"))
    return functions().messages.SendMultiMedia(peer=person(dc, bot), multi_media=items)


async def test_an_album_is_sent_whole(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """messages.sendMultiMedia sends all of an album as one group, or, where any of it was sent before, nothing."""
    answer = await peer.ask(await album(dc, bot, peer, 1, 2))
    named = [(update.random_id, update.id) for update in answer.updates[::2]]
    messages = [update.message for update in answer.updates[1::2]]
    assert named == [(1, messages[0].id), (2, messages[1].id)]
    assert messages[0].grouped_id == messages[1].grouped_id is not None
    assert [message.message for message in messages] == ["no 0", "no 1"]
    assert await peer.error(await album(dc, bot, peer, 3, 2)) == "500 RANDOM_ID_DUPLICATE"
    empty = functions().messages.SendMultiMedia(peer=person(dc, bot), multi_media=[])
    assert await peer.error(empty) == "400 MEDIA_EMPTY"
    assert [sent.random_id for sent in dc.seen.sends[bot.user_id]] == [1, 2]


# -- forwarding ---------------------------------------------------------------------------------------------------


async def test_messages_are_forwarded(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """messages.forwardMessages sends all or nothing, each under its random_id, and says whose they were first."""
    group = dc.add_supergroup("Team", [bot])
    ids = [dc.push_message(bot, text) for text in ("one", "two")]

    def query(ids: list[int], random_ids: list[int]) -> Any:
        return functions().messages.ForwardMessages(
            from_peer=person(dc, bot),
            to_peer=address(dc, bot, group, full=True),
            id=ids,
            random_id=random_ids,
        )

    answer = await peer.ask(query(ids, [1, 2]))
    messages = [update.message for update in answer.updates[1::2]]
    assert [message.message for message in messages] == ["one", "two"]
    assert {message.fwd_from.from_id.user_id for message in messages} == {dc.person.user_id}
    assert await peer.error(query([], [])) == "400 MESSAGE_IDS_EMPTY"
    assert await peer.error(query([99], [3])) == "400 MESSAGE_ID_INVALID"
    assert await peer.error(query(ids, [3])) == "400 RANDOM_ID_INVALID"
    assert await peer.error(query(ids, [4, 2])) == "500 RANDOM_ID_DUPLICATE"
    assert [sent.random_id for sent in dc.seen.sends[bot.user_id]] == [1, 2]


# -- reading ------------------------------------------------------------------------------------------------------


async def test_reading_is_told_to_the_other_side(
    dc: Datacenter, user: Account, mine: Peer, dial: Dial
) -> None:
    """messages.readHistory takes a pts in both boxes, once: what was read before is not read again."""
    other = dc.add_user(5_000_022)
    theirs = await dial(other)
    await state(theirs)
    for text in ("one", "two"):
        dc.push_message(user, text, other)
    reading = functions().messages.ReadHistory(peer=person(dc, user, other), max_id=1)
    done = await mine.ask(reading)
    assert (done.pts, done.pts_count) == (user.pts, 1)
    await theirs.until(is_updates)
    await theirs.until(is_updates)
    (told,) = (await theirs.until(is_updates)).body.updates
    assert isinstance(told, types().UpdateReadHistoryOutbox)
    assert (told.max_id, told.peer.user_id, told.pts) == (1, user.user_id, other.pts)
    assert (await mine.ask(reading)).pts_count == 0
    missed = await mine.ask(functions().updates.GetDifference(pts=3, date=1, qts=0))
    (told,) = missed.other_updates
    assert (told.max_id, told.still_unread_count, told.pts) == (1, 1, user.pts)


async def test_dialogs_are_for_users(
    dc: Datacenter, bot: Account, peer: Peer, user: Account, mine: Peer
) -> None:
    """messages.getDialogs gives a user each chat with its newest message, and is refused to bots."""
    group = dc.add_supergroup("Team", [user])
    dc.push_message(user, "hi")
    dc.push_message(user, "all", chat=group)

    def query(limit: int) -> Any:
        start = types().InputPeerEmpty()
        zeros = {"offset_date": 0, "offset_id": 0, "hash": 0}
        return functions().messages.GetDialogs(offset_peer=start, limit=limit, **zeros)

    assert await peer.error(query(10)) == "400 BOT_METHOD_INVALID"
    listed = await mine.ask(query(10))
    assert isinstance(listed, types().messages.Dialogs)
    assert {message.message for message in listed.messages} == {"hi", "all"}
    of_group = next(dialog for dialog in listed.dialogs if hasattr(dialog.peer, "channel_id"))
    assert (of_group.pts, of_group.unread_count, of_group.top_message) == (group.pts, 2, 2)
    part = await mine.ask(query(1))
    assert (len(part.dialogs), part.count) == (1, 2)
    where = address(dc, user, group)
    assert await mine.ask(functions().channels.ReadHistory(channel=where, max_id=0)) is True
    assert user.read_up_to[group.peer_id] == 2


async def test_the_history_of_a_supergroup(dc: Datacenter, user: Account, mine: Peer) -> None:
    """messages.getHistory of a supergroup gives its messages, newest first, and its pts."""
    group = dc.add_supergroup("Team", [user])
    for text in ("one", "two"):
        dc.push_message(user, text, chat=group)
    zeros = dict.fromkeys(("offset_id", "offset_date", "add_offset", "max_id", "min_id", "hash"), 0)
    where = address(dc, user, group, full=True)
    listed = await mine.ask(functions().messages.GetHistory(peer=where, limit=2, **zeros))
    assert [message.message for message in listed.messages] == ["two", "one"]
    assert (listed.pts, listed.count) == (group.pts, 3)


# -- a real client ------------------------------------------------------------------------------------------------


async def test_a_bare_client_edits_and_deletes(dc: Datacenter, bot: Account, bare: Bare) -> None:
    """The libraries' own methods for editing, deleting and renaming find here what they ask for."""
    client = await bare()
    sent = await client.send_message(dc.person.user_id, "helo")
    assert (await client.edit_message_text(dc.person.user_id, sent.id, "hello")).text == "hello"
    assert await client.delete_messages(dc.person.user_id, [sent.id]) == 1
    made = await client.create_supergroup("Club", "of us")
    group: Channel = next(iter(dc.engine.world.channels.values()))
    assert made.id == group.peer_id
    await client.set_chat_title(made.id, "Pub")
    assert group.title == "Pub"
    message = await client.send_message(made.id, "cheers")
    forwarded = await client.forward_messages(dc.person.user_id, made.id, message.id)
    assert forwarded.text == "cheers"
    await client.edit_message_text(made.id, message.id, "good night")
    assert await client.delete_messages(made.id, [message.id]) == 1
    member = await client.get_chat_member(made.id, "me")
    assert member.user.id == bot.user_id
