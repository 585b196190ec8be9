"""The boxes: what is pushed of them, what a difference tells, and what it leaves to be asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from supervisor.datacenter import Account, Channel, Datacenter, Form
from tests.datacenter.conftest import Bare, Dial
from tests.datacenter.wire import Peer, raw, send_message


def functions() -> Any:
    return raw().functions


def types() -> Any:
    return raw().types


def is_updates(message: Any) -> bool:
    return isinstance(message.body, raw().types.Updates)


def is_kind(name: str) -> Any:
    return lambda message: type(message.body).__name__ == name


async def state(peer: Peer) -> Any:
    return await peer.ask(functions().updates.GetState())


async def difference(peer: Peer, since: Any, **more: Any) -> Any:
    """What came after a state."""
    query = functions().updates.GetDifference(pts=since.pts, date=since.date, qts=since.qts, **more)
    return await peer.ask(query)


def address(dc: Datacenter, account: Account, channel: Channel, *, full: bool = False) -> Any:
    kind = types().InputPeerChannel if full else types().InputChannel
    return kind(channel_id=channel.channel_id, access_hash=dc.access_hash(account, channel))


def channel_query(
    dc: Datacenter, account: Account, group: Channel, pts: int, limit: int = 100_000, **other: Any
) -> Any:
    fields = {
        "channel": address(dc, account, group),
        "filter": types().ChannelMessagesFilterEmpty(),
        "pts": pts,
        "limit": limit,
        "force": False,
        **other,
    }
    return functions().updates.GetChannelDifference(**fields)


@pytest.fixture
def group(dc: Datacenter, bot: Account) -> Channel:
    return dc.add_supergroup("Team", [bot])


# -- supergroups --------------------------------------------------------------------------------------------------


async def test_what_is_written_in_a_supergroup_is_pushed_to_its_members(
    dc: Datacenter, bot: Account, peer: Peer, group: Channel
) -> None:
    """A member's session gets updateNewChannelMessage with the channel's own pts; the account's stays as it is."""
    before = await state(peer)
    message_id = dc.push_message(bot, "hi", chat=group)
    body = (await peer.until(is_updates)).body
    (update,), (chat,) = body.updates, body.chats
    assert isinstance(update, types().UpdateNewChannelMessage)
    assert (update.message.id, update.message.message, update.pts, update.pts_count) == (
        message_id,
        "hi",
        3,
        1,
    )
    assert update.message.peer_id.channel_id == group.channel_id
    assert chat.access_hash == dc.access_hash(bot, group)
    assert (await state(peer)).pts == before.pts


async def test_a_send_to_a_supergroup_is_announced_in_full(
    dc: Datacenter, bot: Account, peer: Peer, group: Channel, dial: Dial
) -> None:
    """The sender learns of its message from the answer, another member from a push, and it is seen once."""
    user = dc.add_user(5_000_010)
    group.members[user.user_id] = None
    listener = await dial(user)
    await state(listener)
    query = send_message(dc, bot, "all", 9, peer=address(dc, bot, group, full=True))
    named, new = (await peer.ask(query)).updates
    assert (named.random_id, named.id) == (9, new.message.id)
    assert (new.message.out, new.pts) == (True, 3)
    pushed = (await listener.until(is_updates)).body.updates[0]
    assert (pushed.message.message, pushed.message.out, pushed.pts) == ("all", False, 3)
    (seen,) = dc.seen.sends[bot.user_id]
    assert seen.peer_id == group.peer_id
    assert await peer.error(query) == "500 RANDOM_ID_DUPLICATE"
    assert dc.seen.times_delivered("all") == 1


async def test_a_bot_gets_nothing_of_what_bots_write(
    dc: Datacenter, bot: Account, peer: Peer, dial: Dial
) -> None:
    """In a group with two bots neither is told what the other writes, by push or by difference."""
    other = dc.add_bot()
    group = dc.add_supergroup("Bots", [bot, other])
    listener = await dial(other)
    began = await state(listener)
    await peer.ask(send_message(dc, bot, "beep", peer=address(dc, bot, group, full=True)))
    assert await listener.is_quiet()
    answer = await listener.ask(channel_query(dc, other, group, 2))
    assert isinstance(answer, types().updates.ChannelDifferenceEmpty)
    assert answer.pts == group.pts == 3
    dc.push_message(other, "hello", chat=group)
    assert (await listener.until(is_updates)).body.updates[0].pts == 4
    assert began.pts == other.pts


async def test_a_supergroup_is_created_each_time(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """channels.createChannel has its effect every time that it is executed."""
    query = functions().channels.CreateChannel(title="Club", about="of us", megagroup=True)
    answers = [await peer.ask(query), await peer.ask(query)]
    first, second = (answer.chats[0] for answer in answers)
    assert first.id != second.id
    assert (first.title, first.megagroup, first.creator) == ("Club", True, True)
    assert answers[0].updates[0].message.action.title == "Club"
    assert [(done.method, done.what) for done in dc.seen.effects[bot.user_id]] == [
        ("channels.CreateChannel", "Club")
    ] * 2
    assert await peer.error(functions().channels.CreateChannel(title=" ", about="")) == "400 CHAT_TITLE_EMPTY"


async def test_a_supergroup_is_looked_up(dc: Datacenter, bot: Account, peer: Peer, group: Channel) -> None:
    """A bot that is a member finds its supergroup with hash 0; the full one tells the pts."""
    unhashed = types().InputChannel(channel_id=group.channel_id, access_hash=0)
    (found,) = (await peer.ask(functions().channels.GetChannels(id=[unhashed]))).chats
    assert (found.title, found.access_hash) == ("Team", dc.access_hash(bot, group))
    full = (await peer.ask(functions().channels.GetFullChannel(channel=unhashed))).full_chat
    assert (full.pts, full.participants_count) == (2, 2)
    wanted = [types().InputMessageID(id=number) for number in (1, 9)]
    listed = await peer.ask(functions().channels.GetMessages(channel=unhashed, id=wanted))
    assert listed.messages[0].action.title == "Team"
    assert isinstance(listed.messages[1], types().MessageEmpty)


@pytest.mark.parametrize("who", ["no channel", "unknown", "wrong hash", "no member", "no hash"])
async def test_unknown_channels_are_refused(
    dc: Datacenter, bot: Account, peer: Peer, dial: Dial, who: str
) -> None:
    """A channel is addressed with the hash of this account, by a member; only a bot may leave it out."""
    foreign = dc.add_supergroup("Theirs", [])
    group = dc.add_supergroup("Team", [bot, user := dc.add_user(5_000_011)])
    make = types().InputChannel
    wrong, error = {
        "no channel": (types().InputChannelEmpty(), "400 CHANNEL_INVALID"),
        "unknown": (make(channel_id=5, access_hash=0), "400 CHANNEL_INVALID"),
        "wrong hash": (make(channel_id=group.channel_id, access_hash=1), "400 CHANNEL_INVALID"),
        "no member": (address(dc, bot, foreign), "406 CHANNEL_PRIVATE"),
        "no hash": (make(channel_id=group.channel_id, access_hash=0), "400 CHANNEL_INVALID"),
    }[who]
    asking = await dial(user) if who == "no hash" else peer
    assert await asking.error(channel_query(dc, bot, group, 1, channel=wrong)) == error
    assert await asking.error(functions().channels.GetFullChannel(channel=wrong)) == error


# -- the difference of a channel ----------------------------------------------------------------------------------


async def test_missed_messages_of_a_supergroup(
    dc: Datacenter, bot: Account, peer: Peer, group: Channel
) -> None:
    """getDifference says only that the channel changed; getChannelDifference has the messages, oldest first."""
    began = await state(peer)
    await peer.close()
    for text in ("one", "two"):
        dc.push_message(bot, text, chat=group)
    await peer.connect()
    missed = await difference(peer, began)
    assert missed.new_messages == []
    (told,) = missed.other_updates
    assert isinstance(told, types().UpdateChannelTooLong)
    assert (told.channel_id, told.pts) == (group.channel_id, 4)
    assert [chat.id for chat in missed.chats] == [group.channel_id]
    answer = await peer.ask(channel_query(dc, bot, group, 2))
    assert [message.message for message in answer.new_messages] == ["one", "two"]
    assert (answer.final, answer.pts) == (True, 4)
    assert [user.id for user in answer.users] == [dc.person.user_id]
    empty = await peer.ask(channel_query(dc, bot, group, answer.pts))
    assert isinstance(empty, types().updates.ChannelDifferenceEmpty)
    assert (empty.final, empty.pts) == (True, 4)
    assert empty.timeout > 0


async def test_only_channels_that_changed_since_the_date_are_told(
    dc: Datacenter, bot: Account, peer: Peer, group: Channel
) -> None:
    """A channel in which nothing happened since the state's date is left out."""
    dc.push_message(bot, "old", chat=group)
    dc.clock_offset += 10
    later = await state(peer)
    assert isinstance(await difference(peer, later), types().updates.DifferenceEmpty)
    dc.push_message(bot, "new", chat=group)
    (told,) = (await difference(peer, later)).other_updates
    assert told.channel_id == group.channel_id


async def test_dates_never_go_back(dc: Datacenter, bot: Account, peer: Peer, group: Channel) -> None:
    """A clock that is set back hides no channel from those who ask with a date they were told before."""
    began = await state(peer)
    dc.clock_offset = -20
    dc.push_message(bot, "late", chat=group)
    (told,) = (await difference(peer, began)).other_updates
    assert told.channel_id == group.channel_id


async def test_a_long_channel_difference_comes_in_slices(
    dc: Datacenter, bot: Account, peer: Peer, group: Channel
) -> None:
    """More than 100 events come in slices that are not final; following pts gets each message once."""
    for number in range(250):
        dc.push_message(bot, str(number), chat=group)
    texts: list[str] = []
    finals: list[bool] = []
    pts = 2
    while not finals or not finals[-1]:
        answer = await peer.ask(channel_query(dc, bot, group, pts))
        texts += [message.message for message in answer.new_messages]
        finals.append(bool(answer.final))
        pts = answer.pts
    assert finals == [False, False, True]
    assert texts == [str(number) for number in range(250)]


async def test_more_than_the_limit_is_too_long(
    dc: Datacenter, bot: Account, peer: Peer, group: Channel
) -> None:
    """Where pts + limit lies before the channel's pts, the latest messages come and a pts to go on from."""
    for number in range(20):
        dc.push_message(bot, str(number), chat=group)
    answer = await peer.ask(channel_query(dc, bot, group, 2, limit=19))
    assert isinstance(answer, types().updates.ChannelDifferenceTooLong)
    assert answer.final
    assert answer.dialog.pts == group.pts == 22
    assert [message.message for message in answer.messages] == [str(number) for number in range(19, 9, -1)]
    whole = await peer.ask(channel_query(dc, bot, group, 2, limit=20))
    assert len(whole.new_messages) == 20
    dc.engine.settings.difference_too_long = 10
    answer = await peer.ask(channel_query(dc, bot, group, 2))
    assert isinstance(answer, types().updates.ChannelDifferenceTooLong)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"pts": 0}, "400 PERSISTENT_TIMESTAMP_EMPTY"),
        ({"pts": 9}, "400 PERSISTENT_TIMESTAMP_INVALID"),
        ({"limit": 0}, "400 LIMIT_INVALID"),
    ],
)
async def test_wrong_channel_differences_are_refused(
    dc: Datacenter, bot: Account, peer: Peer, fields: dict[str, int], error: str
) -> None:
    """A pts that cannot be, or no limit, has no difference."""
    group = dc.add_supergroup("Team", [bot])
    assert await peer.error(channel_query(dc, bot, group, **{"pts": 1, **fields})) == error


async def test_a_channel_difference_can_be_filtered(
    dc: Datacenter, bot: Account, peer: Peer, group: Channel
) -> None:
    """A filter lets the messages of its ranges pass; a range that ends before it begins is none."""
    for text in ("two", "three", "four"):
        dc.push_message(bot, text, chat=group)

    def ranged(low: int, high: int) -> Any:
        part = types().MessageRange(min_id=low, max_id=high)
        wanted = types().ChannelMessagesFilter(ranges=[part])
        return channel_query(dc, bot, group, 1, filter=wanted)

    answer = await peer.ask(ranged(3, 3))
    assert [message.message for message in answer.new_messages] == ["three"]
    assert await peer.error(ranged(4, 3)) == "400 RANGES_INVALID"


async def test_own_messages_of_a_supergroup_can_be_found_by_random_id(
    dc: Datacenter, bot: Account, peer: Peer, group: Channel
) -> None:
    """A channel's difference says which random_id this key's own messages had."""
    await peer.ask(send_message(dc, bot, "mine", 77, peer=address(dc, bot, group, full=True)))
    answer = await peer.ask(channel_query(dc, bot, group, 2))
    (message,), (named,) = answer.new_messages, answer.other_updates
    assert message.out
    assert (named.id, named.random_id) == (message.id, 77)


# -- the account's own box ----------------------------------------------------------------------------------------


async def test_edits_and_deletions_are_pushed_and_repeated(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """What happens to messages takes pts in order, one for each message; a difference tells it as it is now."""
    began = await state(peer)
    ids = [dc.push_message(bot, text) for text in ("one", "two", "three", "four")]
    dc.edit_message(bot, ids[0], "uno")
    dc.delete_messages(bot, ids[1:3])
    kinds = [update.body.updates[0] for update in [await peer.until(is_updates) for _ in range(6)]]
    assert [type(update).__name__ for update in kinds] == [
        *["UpdateNewMessage"] * 4,
        "UpdateEditMessage",
        "UpdateDeleteMessages",
    ]
    assert [(update.pts, update.pts_count) for update in kinds[3:]] == [(5, 1), (6, 1), (8, 2)]
    assert kinds[4].message.edit_date
    missed = await difference(peer, began)
    assert [message.message for message in missed.new_messages] == ["uno", "four"]
    edited, deleted = missed.other_updates
    assert edited.message.message == "uno"
    assert (deleted.messages, deleted.pts, deleted.pts_count) == (ids[1:3], 8, 2)
    assert missed.state.pts == 8
    half = await difference(peer, types().updates.State(pts=7, qts=0, date=began.date, seq=1, unread_count=0))
    assert [type(update).__name__ for update in half.other_updates] == ["UpdateDeleteMessages"]


async def test_the_events_of_a_supergroup_are_its_own(
    dc: Datacenter, bot: Account, peer: Peer, group: Channel
) -> None:
    """An edit and a deletion in a supergroup take the channel's pts, and its difference repeats them."""
    ids = [dc.push_message(bot, text, chat=group) for text in ("one", "two")]
    dc.edit_message(bot, ids[0], "uno", group)
    dc.delete_messages(bot, ids[1:], group)
    answer = await peer.ask(channel_query(dc, bot, group, 2))
    assert [message.message for message in answer.new_messages] == ["uno"]
    edited, deleted = answer.other_updates
    assert isinstance(edited, types().UpdateEditChannelMessage)
    assert (deleted.channel_id, deleted.messages, deleted.pts) == (group.channel_id, ids[1:], 6)
    assert bot.pts == 1


async def test_too_much_is_too_long(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """Beyond pts_total_limit, or what the server keeps, only the pts to begin anew from is told."""
    began = await state(peer)
    for number in range(12):
        dc.push_message(bot, str(number))
    answer = await difference(peer, began, pts_total_limit=11)
    assert isinstance(answer, types().updates.DifferenceTooLong)
    assert answer.pts == 13
    assert len((await difference(peer, began, pts_total_limit=12)).new_messages) == 12
    dc.engine.settings.difference_too_long = 11
    assert isinstance(await difference(peer, began), types().updates.DifferenceTooLong)


async def test_every_slice_tells_of_channels(
    dc: Datacenter, bot: Account, peer: Peer, group: Channel
) -> None:
    """A channel that changed is told with the first slice: its state's date would hide it from the next ones."""
    began = await state(peer)
    dc.push_message(bot, "there", chat=group)
    dc.engine.settings.difference_slice = 2
    for number in range(3):
        dc.push_message(bot, str(number))
    part = await difference(peer, began)
    assert isinstance(part, types().updates.DifferenceSlice)
    assert [update.channel_id for update in part.other_updates] == [group.channel_id]
    rest = await difference(peer, part.intermediate_state)
    texts = [message.message for message in part.new_messages + rest.new_messages]
    assert texts == ["0", "1", "2"]


async def test_a_difference_needs_a_date(peer: Peer) -> None:
    """Without a date the server can't know which channels changed."""
    query = functions().updates.GetDifference(pts=1, date=0, qts=0)
    assert await peer.error(query) == "400 DATE_EMPTY"


# -- the forms of a push ------------------------------------------------------------------------------------------


async def test_a_text_comes_as_a_short_message(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """updateShortMessage has a text's fields and no users; in a basic group it is updateShortChatMessage."""
    await state(peer)
    dc.push_message(bot, "hi", form="short_message")
    short = (await peer.until(is_kind("UpdateShortMessage"))).body
    assert (short.message, short.user_id, short.pts, short.pts_count) == ("hi", dc.person.user_id, 2, 1)
    user = types().InputUser(user_id=dc.person.user_id, access_hash=0)
    await peer.ask(functions().messages.CreateChat(users=[user], title="Us"))
    (chat,) = dc.engine.world.chats.values()
    dc.push_message(bot, "all", chat=chat, form="short_message")
    short = (await peer.until(is_kind("UpdateShortChatMessage"))).body
    assert (short.message, short.chat_id, short.from_id) == ("all", chat.chat_id, dc.person.user_id)


async def test_a_bare_update_is_short(dc: Datacenter, bot: Account, peer: Peer, group: Channel) -> None:
    """updateShort carries one update and nobody it names."""
    await state(peer)
    dc.push_message(bot, "hi", chat=group, form="short")
    update = (await peer.until(is_kind("UpdateShort"))).body.update
    assert (update.message.message, update.pts) == ("hi", 3)


async def test_pushes_in_sequence_count_up(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """The account's seq counts the pushes that are in sequence, those that got lost too; others have seq 0."""
    assert (await state(peer)).seq == 1
    dc.push_message(bot, "one", form="sequenced")
    assert (await peer.until(is_updates)).body.seq == 2
    dc.push_message(bot, "two")
    assert (await peer.until(is_updates)).body.seq == 0
    dc.push_message(bot, "three", form="combined")
    combined = (await peer.until(is_kind("UpdatesCombined"))).body
    assert (combined.seq_start, combined.seq) == (3, 4)
    dc.drop_updates(1, bot)
    dc.push_message(bot, "lost", form="sequenced")
    dc.push_message(bot, "four", form="sequenced")
    assert (await peer.until(is_updates)).body.seq == 6
    assert (await state(peer)).seq == 6


async def test_updates_can_be_too_long(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """updatesTooLong is pushed to every session of the account that listens."""
    assert dc.updates_too_long(bot) == 0
    await state(peer)
    assert dc.updates_too_long(bot) == 1
    await peer.until(is_kind("UpdatesTooLong"))


async def test_a_channel_can_be_too_long(dc: Datacenter, bot: Account, peer: Peer, group: Channel) -> None:
    """updateChannelTooLong is pushed with the channel's pts, and with what is needed to ask for its difference."""
    await state(peer)
    assert dc.channel_too_long(bot, group) == 1
    body = (await peer.until(is_updates)).body
    assert (body.updates[0].channel_id, body.updates[0].pts) == (group.channel_id, group.pts)
    assert body.chats[0].access_hash == dc.access_hash(bot, group)


# -- pushes that get lost -----------------------------------------------------------------------------------------


async def test_updates_can_stop(dc: Datacenter, bot: Account, peer: Peer, dial: Dial) -> None:
    """stop_updates loses one account's pushes for good, while its queries are answered; the difference has them."""
    other = dc.add_bot()
    theirs = await dial(other)
    began, _ = await state(peer), await state(theirs)
    dc.stop_updates(bot)
    dc.push_message(bot, "lost")
    dc.push_message(other, "well")
    assert (await theirs.until(is_updates)).body.updates[0].message.message == "well"
    assert (await state(peer)).pts == 2
    dc.resume_updates(bot)
    dc.push_message(bot, "found")
    assert (await peer.until(is_updates)).body.updates[0].pts == 3
    missed = await difference(peer, began)
    assert [message.message for message in missed.new_messages] == ["lost", "found"]
    assert dc.seen.pushes_lost == {bot.user_id: 1}
    await peer.close()
    await peer.connect()
    await state(peer)
    resent = [message.body.updates[0].message.message for message in peer.received if is_updates(message)]
    assert "lost" not in resent


async def test_updates_can_be_forgotten_until_they_are_asked_for(
    dc: Datacenter, bot: Account, peer: Peer
) -> None:
    """forget_updates loses pushes until the account asks for its state; other calls don't bring them back."""
    await state(peer)
    dc.forget_updates(bot)
    dc.push_message(bot, "lost")
    await peer.ask(functions().help.GetNearestDc())
    dc.push_message(bot, "lost too")
    await state(peer)
    dc.push_message(bot, "found")
    assert (await peer.until(is_updates)).body.updates[0].message.message == "found"


async def test_single_pushes_can_be_lost(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """drop_updates loses the next so many pushes that would have reached a session, and no other."""
    dc.drop_updates(2, bot)
    dc.push_message(bot, "nobody listens yet")
    await state(peer)
    for text in ("one", "two", "three"):
        dc.push_message(bot, text)
    assert (await peer.until(is_updates)).body.updates[0].message.message == "three"
    assert await peer.is_quiet()
    dc.drop_updates(5)
    dc.stop_updates()
    dc.resume_updates()
    dc.push_message(bot, "four")
    assert (await peer.until(is_updates)).body.updates[0].message.message == "four"


async def test_what_was_pushed_is_counted(
    dc: Datacenter, bot: Account, peer: Peer, group: Channel, dial: Dial
) -> None:
    """Each message of somebody else is noted once for every account that is to see it, and what is missing is told."""
    user = dc.add_user(5_000_012)
    group.members[user.user_id] = None
    await state(peer)
    dc.push_message(bot, "private")
    dc.push_message(bot, "group", chat=group)
    await peer.ask(send_message(dc, bot, "own", peer=address(dc, bot, group, full=True)))
    mine, theirs = dc.seen.pushed[bot.user_id], dc.seen.pushed[user.user_id]
    texts = [(pushed.text, pushed.peer_id, pushed.sessions) for pushed in mine if pushed.text]
    assert texts == [("private", dc.person.user_id, 1), ("group", group.peer_id, 1)]
    assert [(pushed.text, pushed.sessions) for pushed in theirs] == [("group", 0), ("own", 0)]
    assert [pushed.text for pushed in dc.seen.not_among(bot.user_id, ["", "group"])] == ["private"]


# -- real clients -------------------------------------------------------------------------------------------------


async def test_a_bare_client_lives_in_a_supergroup(dc: Datacenter, bot: Account, bare: Bare) -> None:
    """A client with nothing in its storage finds its supergroup by the bare id, sends to it, and gets what is written."""
    from pyrogram import handlers

    group = dc.add_supergroup("Team", [bot])
    client = await bare()
    got: asyncio.Queue[Any] = asyncio.Queue()

    async def keep(_client: Any, message: Any) -> None:
        got.put_nowait(message)

    client.add_handler(handlers.MessageHandler(keep))
    chat = await client.get_chat(group.peer_id)
    assert (chat.title, chat.id) == ("Team", group.peer_id)
    sent = await client.send_message(group.peer_id, "hello")
    assert (sent.id, sent.chat.id) == (2, group.peer_id)
    dc.push_message(bot, "hi", chat=group)
    async with asyncio.timeout(5):
        message = await got.get()
    assert (message.text, message.chat.title, message.from_user.id) == ("hi", "Team", dc.person.user_id)
    (fetched,) = await client.get_messages(group.peer_id, [2])
    assert fetched.text == "hello"


async def received(client: Any) -> asyncio.Queue[str]:
    """The texts that the client's handler gets from now on."""
    from pyrogram import handlers

    got: asyncio.Queue[str] = asyncio.Queue()

    async def keep(_client: Any, message: Any) -> None:
        if message.text:
            got.put_nowait(message.text)

    client.add_handler(handlers.MessageHandler(keep))
    await asyncio.sleep(0)  # handlers are added in a task of the library's
    return got


async def test_bare_clients_read_every_form(dc: Datacenter, bot: Account, bare: Bare) -> None:
    """A message in each form of a push reaches a real client's handler."""
    got = await received(await bare())
    for form in Form:
        dc.push_message(bot, f"as {form}", form=form)
        async with asyncio.timeout(5):
            assert await got.get() == f"as {form}"


async def test_a_bare_client_recovers_its_gaps(dc: Datacenter, bot: Account, bare: Bare) -> None:
    """A client with a recovery of its own gets from the differences each message that it wasn't pushed, once."""
    client = await bare()
    if not hasattr(client, "recover_gaps"):
        pytest.skip("this library has no recovery")
    group = dc.add_supergroup("Team", [bot])
    got = await received(client)
    for chat in (None, group):
        dc.push_message(bot, "before", chat=chat)
        async with asyncio.timeout(5):
            await got.get()
    dc.stop_updates(bot)
    dc.engine.settings.difference_slice = 2
    missed = [f"{where} {number}" for where in ("private", "group") for number in range(5)]
    for text in missed:
        dc.push_message(bot, text, chat=group if text.startswith("group") else None)
    await client.recover_gaps()
    async with asyncio.timeout(5):
        recovered = [await got.get() for _ in missed]
    assert sorted(recovered) == sorted(missed)
    assert got.empty()
    texts = [*recovered, "before", ""]
    assert dc.seen.not_among(bot.user_id, texts) == []
