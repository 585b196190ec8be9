"""Whole updates, without a network: a Telegram that answers differences by hand, on a loop of virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import pytest

from supervisor.core.failure import Evidence, Source
from supervisor.errors import AccountUnavailable
from supervisor.ports import LinkFailed
from supervisor.telegram import boxes as box_module
from supervisor.telegram.delivered import Delivered
from supervisor.telegram.inbox import Inbox
from supervisor.telegram.outbox import UNREADABLE
from supervisor.telegram.packets import Unreadable
from supervisor.telegram.places import OWN, QTS, Place, channel_id, channel_key, peer_box, place_of, places_in
from supervisor.telegram.storage import StorageBroken
from supervisor.telegram.storage.rows import Session, UpdateRow
from supervisor.telegram.updates import Updates
from tests.unit.fakes import settle, virtual

USER, CHANNEL = 777, 1_234_567_890
KEY = channel_key(CHANNEL)


def types() -> Any:
    from pyrogram.raw import types as raw_types

    return raw_types


def build(kind: Any, **fields: Any) -> Any:
    """A raw object of either layer: what is not given is None."""
    return kind(**{**dict.fromkeys(kind.__slots__), **fields})


def message(number: int, *, text: str = "", channel: bool = False, out: bool = False, date: int = 100) -> Any:
    peer = types().PeerChannel(channel_id=CHANNEL) if channel else types().PeerUser(user_id=USER)
    return build(
        types().Message,
        id=number,
        peer_id=peer,
        message=text or f"m{number}",
        date=date,
        out=out,
        entities=[],
    )


def new(number: int, pts: int, *, channel: bool = False, **more: Any) -> Any:
    kind = types().UpdateNewChannelMessage if channel else types().UpdateNewMessage
    return kind(message=message(number, channel=channel, **more), pts=pts, pts_count=1)


def pushed(*updates: Any, users: Any = (), seq: int = 0) -> Any:
    return types().Updates(updates=list(updates), users=list(users), chats=[], date=100, seq=seq)


def state(pts: int, *, qts: int = 0, date: int = 100, seq: int = 1) -> Any:
    return types().updates.State(pts=pts, qts=qts, date=date, seq=seq, unread_count=0)


def difference(upto: int, *messages: Any, others: Any = (), date: int = 100) -> Any:
    return types().updates.Difference(
        new_messages=list(messages), new_encrypted_messages=[], other_updates=list(others),
        chats=[], users=[], state=state(upto, date=date),
    )  # fmt: skip


def channel_difference(upto: int, *messages: Any, final: bool = True) -> Any:
    return types().updates.ChannelDifference(
        pts=upto, new_messages=list(messages), other_updates=[], chats=[], users=[], final=final, timeout=30
    )


def channel_too_long(upto: int) -> Any:
    dialog = build(types().Dialog, pts=upto)
    return types().updates.ChannelDifferenceTooLong(
        dialog=dialog, messages=[], chats=[], users=[], final=True
    )


class Client:
    """Stands for the supervised client and its account's gate: answers with what the script holds next."""

    def __init__(self) -> None:
        self.no_updates = False
        self.dispatcher = self.session = self.storage = self
        self.updates_queue: Any = None
        self.is_bot = True
        self.asked: list[tuple[float, Any]] = []
        self.answers: deque[Any] = deque()
        self.peers: dict[int, Any] = {}
        self.rows: dict[int, UpdateRow] = {}
        self.broken: Exception | None = None
        self.session_of = Session()

    async def invoke(self, query: Any) -> Any:
        self.asked.append((asyncio.get_running_loop().time() - 1000.0, query))
        assert self.answers, f"not expected: {query}"
        answer = self.answers.popleft()
        if isinstance(answer, asyncio.Future):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def fetch_peers(self, peers: Any) -> bool:
        if self.broken is not None:
            raise self.broken
        return any(getattr(peer, "min", False) for peer in peers)

    async def get_peer_by_id(self, peer_id: int) -> Any:
        return self.peers[peer_id]

    async def update_states(self) -> list[UpdateRow]:
        return list(self.rows.values())

    async def put_update_state(self, row: UpdateRow) -> None:
        if self.broken is not None:
            raise self.broken
        self.rows[row.id] = row

    async def drop_update_state(self, key: int) -> None:
        self.rows.pop(key, None)

    @property
    def methods(self) -> list[str]:
        return [type(query).__name__ for _, query in self.asked]

    @property
    def times(self) -> list[float]:
        return [round(at, 3) for at, _ in self.asked]


class Rig:
    """An account's updates with a client, and what its handlers get."""

    def __init__(self, *, skip: bool = False) -> None:
        self.client = Client()
        self.failures: list[Evidence] = []
        self.updates = Updates("bot", self.client, skip=skip, failed=self.failures.append)
        self.updates.attach(self.client)
        self.updates.inbox.open()

    async def start(self, *rows: UpdateRow, pts: int = 10) -> None:
        self.client.rows = {row.id: row for row in rows}
        self.updates.begin(lambda work, name: asyncio.create_task(work, name=name))
        await self.updates.greeted(state(pts), 1)
        await settle()

    async def stop(self) -> None:
        self.updates.rest()
        await settle()
        await self.updates.close()

    @property
    def handed(self) -> list[Any]:
        """The updates that wait for a handler, in order."""
        return [update for update, _users, _chats in self.updates.inbox.packets()]

    @property
    def ids(self) -> list[int]:
        return [update.message.id for update in self.handed]


# --- Places ---------------------------------------------------------------------------------------------------


async def test_every_update_has_its_place() -> None:
    """Messages of private chats, of channels, and events by qts each have their box; what is not numbered has none."""
    t = types()
    assert place_of(new(1, 11)) == Place(OWN, 11, 1)
    assert place_of(new(1, 11, channel=True)) == Place(KEY, 11, 1)
    deleted = t.UpdateDeleteChannelMessages(channel_id=CHANNEL, messages=[1, 2], pts=9, pts_count=2)
    assert place_of(deleted) == Place(KEY, 9, 2)
    assert place_of(build(t.UpdateReadChannelInbox, channel_id=CHANNEL, pts=9)) is None
    assert place_of(build(t.UpdateBotStopped, user_id=USER, qts=5)) == Place(QTS, 5, 1)
    assert place_of(build(t.UpdateBotStopped, user_id=USER, qts=0)) is None
    assert place_of(new(1, 0)) is None
    assert channel_id(KEY) == CHANNEL


async def test_every_answer_takes_its_places() -> None:
    """What our own queries are answered with counts in the box that it changed."""
    from pyrogram.raw import functions

    t = types()
    channel = t.InputPeerChannel(channel_id=CHANNEL, access_hash=0)
    user = t.InputPeerUser(user_id=USER, access_hash=0)
    in_channel = build(functions.messages.UnpinAllMessages, peer=channel)
    private = build(functions.messages.ReadHistory, peer=user, max_id=0)
    assert (peer_box(in_channel), peer_box(private)) == (KEY, OWN)
    sent = build(t.UpdateShortSentMessage, id=5, pts=12, pts_count=1, date=0)
    assert list(places_in(private, sent)) == [Place(OWN, 12, 1)]
    affected = t.messages.AffectedMessages(pts=20, pts_count=2)
    assert list(places_in(private, affected)) == [Place(OWN, 20, 2)]
    history = t.messages.AffectedHistory(pts=20, pts_count=2, offset=0)
    assert list(places_in(in_channel, history)) == [Place(KEY, 20, 2)]
    both = pushed(new(1, 11), new(2, 5, channel=True), build(t.UpdateConfig))
    assert list(places_in(private, both)) == [Place(OWN, 11, 1), Place(KEY, 5, 1)]
    assert list(places_in(private, t.UpdateShort(update=new(1, 11), date=0))) == [Place(OWN, 11, 1)]
    assert list(places_in(private, state(99))) == []


# --- Gaps -----------------------------------------------------------------------------------------------------


@virtual
async def test_a_gap_that_closes_by_itself_costs_no_query() -> None:
    """Updates out of order reach their handlers in order; nothing is asked for."""
    rig = Rig()
    await rig.start()
    rig.updates.push(pushed(new(2, 12)))
    await asyncio.sleep(0.4)
    rig.updates.push(pushed(new(1, 11)))
    await asyncio.sleep(5)
    assert rig.ids == [1, 2]
    assert rig.client.asked == []
    await rig.stop()


@virtual
async def test_a_gap_is_fetched_after_half_a_second() -> None:
    """What is between is fetched 0.5 s after the gap was seen, and comes before what was kept."""
    rig = Rig()
    await rig.start()
    rig.client.answers.append(difference(12, message(1), message(2)))
    rig.updates.push(pushed(new(3, 13)))
    await asyncio.sleep(0.49)
    assert rig.client.asked == []
    await asyncio.sleep(0.02)
    assert rig.ids == [1, 2, 3]
    assert (rig.client.asked[0][1].pts, rig.client.asked[0][1].date) == (10, 100)
    await rig.stop()


@virtual
async def test_our_own_answers_are_no_gap() -> None:
    """The answer to a sending counts, and reaches no handler."""
    rig = Rig()
    await rig.start()
    rig.updates.push(pushed(new(2, 12)))
    rig.updates.answered(object(), build(types().UpdateShortSentMessage, id=1, pts=11, pts_count=1, date=0))
    await asyncio.sleep(5)
    assert rig.ids == [2]
    assert rig.client.asked == []
    await rig.stop()


@virtual
async def test_a_gap_by_qts_is_in_the_same_difference() -> None:
    """A bot's second row has gaps of its own; the account's difference fills them."""
    rig = Rig()
    await rig.start()
    t = types()
    first, second, third = (
        build(t.UpdateBotStopped, user_id=n, qts=n, date=1, stopped=True) for n in (1, 2, 3)
    )
    rig.updates.push(pushed(first))
    rig.client.answers.append(
        t.updates.Difference(new_messages=[], new_encrypted_messages=[], other_updates=[second], chats=[], users=[],
                             state=state(10, qts=2))
    )  # fmt: skip
    rig.updates.push(pushed(third))
    await asyncio.sleep(1)
    assert [update.user_id for update in rig.handed] == [1, 2, 3]
    assert rig.client.methods == ["GetDifference"]
    await rig.stop()


# --- A new link -----------------------------------------------------------------------------------------------


@virtual
async def test_the_first_greeting_is_the_beginning() -> None:
    """Without a stored state nothing is fetched; with one, what came since is."""
    rig = Rig()
    await rig.start(pts=10)
    assert rig.client.asked == []
    await rig.stop()
    again = Rig()
    again.client.answers.append(difference(12, message(1), message(2)))
    await again.start(UpdateRow(OWN, 10, 0, 90, 1), pts=12)
    assert again.ids == [1, 2]
    query = again.client.asked[0][1]
    assert (query.pts, query.date, query.qts) == (10, 90, 0)
    await again.stop()


@virtual
async def test_what_is_pushed_during_a_difference_comes_once() -> None:
    """A push that a difference on its way may bring as well is handed out once."""
    rig = Rig()
    await rig.start()
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    rig.client.answers.append(answer)
    await rig.updates.greeted(state(12), 1)
    await settle()
    rig.updates.push(pushed(new(1, 11)))
    rig.updates.push(pushed(new(2, 12)))
    rig.updates.push(pushed(new(3, 13)))
    await settle()
    assert rig.ids == []
    answer.set_result(difference(12, message(1), message(2)))
    await settle()
    assert rig.ids == [1, 2, 3]
    await rig.stop()


@virtual
async def test_another_link_meanwhile_asks_again() -> None:
    """An answer that was on its way when the link was lost may be older than the loss."""
    rig = Rig()
    await rig.start()
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    rig.client.answers.extend([answer, difference(12, message(2))])
    await rig.updates.greeted(state(11), 1)
    await settle()
    await rig.updates.greeted(state(12), 1)
    answer.set_result(difference(11, message(1)))
    await settle()
    assert rig.ids == [1, 2]
    assert [query.pts for _, query in rig.client.asked] == [10, 11]
    await rig.stop()


@virtual
async def test_another_user_begins_anew() -> None:
    """Where somebody else is signed in now, nothing of the one before is gone on with."""
    rig = Rig()
    await rig.start(pts=500)
    rig.client.rows.clear()
    await rig.updates.greeted(state(7), 2)
    rig.updates.push(pushed(new(1, 8)))
    await settle()
    assert rig.ids == [1]
    assert rig.client.asked == []
    await rig.stop()


# --- Channels -------------------------------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize(("is_bot", "limit"), [(True, 100_000), (False, 100)])
async def test_a_channel_is_asked_for_what_it_may_be_asked_for(*, is_bot: bool, limit: int) -> None:
    """A bot may ask for 100,000 events of a channel, a user for 100; slices follow until the last."""
    rig = Rig()
    rig.client.is_bot = is_bot
    await rig.start()
    rig.updates.push(pushed(new(1, 5, channel=True)))
    rig.client.answers.extend([
        channel_difference(7, message(2, channel=True), message(3, channel=True), final=False),
        channel_difference(8, message(4, channel=True)),
    ])  # fmt: skip
    rig.updates.push(pushed(build(types().UpdateChannelTooLong, channel_id=CHANNEL, pts=8)))
    rig.updates.push(pushed(new(4, 8, channel=True)))
    await settle()
    assert rig.ids == [1, 2, 3, 4]
    assert [(query.pts, query.limit) for _, query in rig.client.asked] == [(5, limit), (7, limit)]
    rig.updates.push(pushed(build(types().UpdateChannelTooLong, channel_id=CHANNEL, pts=8)))
    await settle()
    assert len(rig.client.asked) == 2
    await rig.stop()


@virtual
async def test_of_an_unknown_channel_only_the_news_is_wanted() -> None:
    """A channel with a long history, heard of for the first time in a difference: only what is new is handed out."""
    rig = Rig()
    await rig.start()
    told = build(types().UpdateChannelTooLong, channel_id=CHANNEL, pts=5000)
    rig.client.answers.extend([
        difference(10, others=[told], date=200),
        channel_too_long(5000),
        channel_difference(5000, message(1, channel=True, date=99), message(2, channel=True, date=150)),
    ])  # fmt: skip
    await rig.updates.greeted(state(10, date=200), 1)
    await settle()
    assert rig.ids == [2]
    assert [query.pts for _, query in rig.client.asked[1:]] == [1, 4000]
    rig.updates.push(pushed(new(3, 5001, channel=True)))
    await settle()
    assert rig.ids == [2, 3]
    await rig.stop()


@virtual
async def test_an_unknown_channel_waits_for_what_was_missed() -> None:
    """A push of a channel that was not known comes after what the difference then tells of it; else at once after it."""
    rig = Rig()
    await rig.start()
    for told in (True, False):
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        rig.client.answers.append(answer)
        await rig.updates.greeted(state(10), 1)
        await settle()
        rig.updates.push(pushed(new(2, 6, channel=True)))
        await settle()
        assert rig.ids == []
        others = [build(types().UpdateChannelTooLong, channel_id=CHANNEL, pts=6)] if told else []
        if told:
            rig.client.answers.append(
                channel_difference(6, message(1, channel=True), message(2, channel=True))
            )
        answer.set_result(difference(10, others=others))
        await settle()
        assert rig.ids == ([1, 2] if told else [2])
        rig.updates._boxes.forget(KEY)
        rig.updates.inbox._waiting.clear()
    await rig.stop()


# --- Failures -------------------------------------------------------------------------------------------------


@virtual
async def test_a_failed_difference_is_tried_again() -> None:
    """1, 2 and 4 s after a failure; a flood wait that the gate would not wait is waited in full."""
    from pyrogram.errors import FloodWait, InternalServerError

    rig = Rig()
    await rig.start()
    failures = [InternalServerError(), InternalServerError(), InternalServerError(), FloodWait(400)]
    rig.client.answers.extend([*failures, difference(11, message(1))])
    rig.updates.push(types().UpdatesTooLong())
    await asyncio.sleep(500)
    assert rig.client.times == [0.0, 1.0, 3.0, 7.0, 407.0]
    assert rig.ids == [1]
    await rig.stop()


@virtual
@pytest.mark.parametrize("channel", [False, True])
async def test_a_difference_that_cannot_be_read_is_passed_over(
    channel: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What was pushed behind it is handed on, the loss is told, and it is asked for once, not for ever."""
    rig = Rig()
    rig.client.answers.append(difference(10))
    await rig.start(UpdateRow(OWN, 10, 0, 100, 1), UpdateRow(KEY, 10))
    unread = AccountUnavailable("bot", "online")
    unread.__cause__ = LinkFailed(Evidence(Source.PROTOCOL, "unknown constructor", UNREADABLE), sent=True)
    rig.client.asked.clear()
    rig.client.answers.append(unread)
    rig.updates.push(pushed(new(2, 12, channel=channel)))
    await asyncio.sleep(100)
    assert rig.ids == [2]
    assert len(rig.client.asked) == 1
    assert "cannot be read" in caplog.text
    assert "1 events are lost" in caplog.text
    rig.updates.push(pushed(new(3, 13, channel=channel)))
    await settle()
    assert rig.ids == [2, 3]
    await rig.stop()


@virtual
async def test_an_update_that_cannot_be_read_is_asked_for() -> None:
    """Once, however many of them come together: what it said, and what came with it, may be readable in the difference."""
    rig = Rig()
    await rig.start()
    rig.client.asked.clear()
    rig.client.answers.append(difference(11, message(1)))
    for _ in range(5):
        rig.updates.push(Unreadable("unknown constructor"))
    await asyncio.sleep(100)
    assert (rig.ids, rig.client.methods) == ([1], ["GetDifference"])
    await rig.stop()


@virtual
async def test_an_account_that_is_off_asks_when_it_is_back() -> None:
    """Refused by its own gate a difference waits for the next greeting."""
    rig = Rig()
    await rig.start()
    rig.client.answers.extend([AccountUnavailable("bot", "suspended"), difference(11, message(1))])
    rig.updates.push(types().UpdatesTooLong())
    await asyncio.sleep(30)
    assert len(rig.client.asked) == 1
    await rig.updates.greeted(state(11), 1)
    await asyncio.sleep(0.1)
    assert rig.ids == [1]
    await rig.stop()


@virtual
async def test_peers_that_cannot_be_learned_cost_no_update() -> None:
    """A broken storage is told of; the update reaches its handlers."""
    rig = Rig()
    await rig.start()
    rig.client.broken = StorageBroken("sessions.db", "is full")
    rig.updates.push(pushed(new(1, 11)))
    await asyncio.sleep(3)
    assert rig.ids == [1]
    assert [failure.step for failure in rig.failures] == ["update"]
    rig.client.broken = None
    await rig.stop()


@virtual
async def test_a_channel_message_of_a_stranger_is_completed() -> None:
    """Of a "min" author whom the account does not know the whole user is fetched; where that fails the rest is handed on."""
    from pyrogram.errors import ChannelPrivate

    rig = Rig()
    await rig.start()
    stranger = build(types().User, id=USER, min=True)
    whole = types().updates.ChannelDifference(
        pts=5, new_messages=[], other_updates=[], chats=[], users=[build(types().User, id=USER)], final=True, timeout=1
    )  # fmt: skip
    rig.client.answers.extend([whole, ChannelPrivate()])
    for number, pts in ((1, 5), (2, 6)):
        rig.updates.push(pushed(new(number, pts, channel=True), users=[stranger]))
    await settle()
    rig.client.peers[USER] = object()
    rig.updates.push(pushed(new(3, 7, channel=True), users=[stranger]))
    rig.updates.push(pushed(new(4, 11), users=[stranger]))
    await settle()
    packets = rig.updates.inbox.packets()
    assert [packet[1][USER].min for packet in packets] == [None, True, True, True]
    assert len(rig.client.asked) == 2
    await rig.stop()


# --- Skipping -------------------------------------------------------------------------------------------------


@virtual
async def test_skipping_calls_off_what_was_asked_for() -> None:
    """A difference on its way when the link is lost brings nothing of before the new one."""
    rig = Rig(skip=True)
    await rig.start()
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    rig.client.answers.append(answer)
    rig.updates.push(types().UpdatesTooLong())
    await settle()
    await rig.updates.greeted(state(20), 1)
    rig.updates.push(pushed(new(3, 21)))
    await settle()
    assert answer.cancelled()
    assert rig.ids == [3]
    await rig.stop()
    assert rig.client.rows[OWN].pts == 20  # nobody has taken the last one yet


@virtual
async def test_a_client_without_updates_asks_for_none() -> None:
    """`no_updates` means no differences either."""
    rig = Rig()
    rig.client.no_updates = True
    await rig.start(UpdateRow(OWN, 10, 0, 90, 1), pts=12)
    rig.updates.push(pushed(new(3, 13)))
    await asyncio.sleep(5)
    assert rig.client.asked == []
    assert rig.handed == []
    await rig.stop()


# --- What is kept ---------------------------------------------------------------------------------------------


@virtual
async def test_only_what_is_finished_is_stored() -> None:
    """The stored state stays before what a handler works on, and is written once a second at most."""
    rig = Rig()
    await rig.start()
    inbox = rig.updates.inbox
    for number in (1, 2):
        rig.updates.push(pushed(new(number, 10 + number)))
    await settle()
    await inbox.get()  # one worker takes the first, and works on it
    await asyncio.sleep(2)
    assert rig.client.rows[OWN].pts == 10
    await inbox.get()
    await asyncio.sleep(0.5)
    assert rig.client.rows[OWN].pts == 10
    await asyncio.sleep(0.6)
    assert rig.client.rows[OWN].pts == 11
    await rig.stop()


@virtual
async def test_what_is_not_fetched_yet_is_not_stored_as_had() -> None:
    """While a channel's difference fails the stored date stays, and a channel that was not known is not stored at all."""
    from pyrogram.errors import InternalServerError

    rig = Rig()
    await rig.start()
    told = build(types().UpdateChannelTooLong, channel_id=CHANNEL, pts=5000)
    failures = [InternalServerError() for _ in range(9)]
    rig.client.answers.extend([difference(10, others=[told], date=200), channel_too_long(5000), *failures])
    await rig.updates.greeted(state(10, date=200), 1)
    await asyncio.sleep(3)
    assert rig.client.rows == {OWN: UpdateRow(OWN, 10, 0, 100, 1)}
    rig.client.answers.clear()
    rig.client.answers.append(channel_difference(5000))
    await asyncio.sleep(100)
    assert rig.client.rows == {OWN: UpdateRow(OWN, 10, 0, 200, 1), KEY: UpdateRow(KEY, 5000)}
    await rig.stop()


@virtual
async def test_updates_that_nobody_keeps_are_lost_with_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Behind handlers that hang, what has no number is dropped in the end, and that is said."""
    monkeypatch.setattr(box_module, "READY", 2)
    monkeypatch.setattr("supervisor.telegram.inbox.WAITING", 1)
    rig = Rig()
    await rig.start()
    with caplog.at_level(logging.WARNING):
        for _ in range(6):
            rig.updates.push(pushed(build(types().UpdateConfig)))
            await settle()
    assert "updates that Telegram keeps nowhere were dropped" in caplog.text
    await rig.stop()


class Workers:
    """Workers as the dispatcher begins them; each packet is worked on until `go_on`."""

    def __init__(self, inbox: Inbox, most: int) -> None:
        self.inbox = inbox
        self.began: list[Any] = []
        self.running: list[asyncio.Task[None]] = []
        self.go_on = asyncio.Event()
        inbox.serve(self.begin, most)

    def begin(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self.work())
        self.running.append(task)
        task.add_done_callback(self.ended)
        return task

    def ended(self, task: asyncio.Task[None]) -> None:
        self.running.remove(task)
        self.inbox.ended(task)

    async def work(self) -> None:
        while (packet := await self.inbox.get()) is not None:
            self.began.append(packet)
            await self.go_on.wait()


@virtual
async def test_workers_are_begun_for_what_waits_and_end_with_it() -> None:
    """As many as updates wait, no more than may be at once, in order; none before `open`, and none for an idle account."""
    inbox = Inbox(lambda: None)
    workers = Workers(inbox, 3)
    for number in range(5):
        inbox.hand(number, None)
    await settle()
    assert (workers.began, workers.running) == ([], [])
    inbox.open()
    await settle()
    assert (workers.began, len(workers.running), inbox.qsize()) == ([0, 1, 2], 3, 2)
    workers.go_on.set()
    await settle()
    assert (workers.began, workers.running) == ([0, 1, 2, 3, 4], [])
    inbox.put_nowait(5)
    assert len(workers.running) == 1
    await settle()
    assert (workers.began[-1], workers.running) == (5, [])


@virtual
async def test_a_worker_that_its_handler_cancelled_holds_nothing_up() -> None:
    """What such a worker had taken counts as finished, or it would bring down the next one as well; another goes on."""
    told: list[int] = []
    inbox = Inbox(lambda: told.append(1))
    box = Rig().updates._boxes.own
    box.jump(10)
    box.release()
    workers = Workers(inbox, 1)
    inbox.open()
    for number in (11, 12):
        ((_, ticket),) = box.take(number, 1, (object(), object()))
        inbox.hand(number, ticket)
    await settle()
    workers.running[0].cancel()
    await settle()
    assert (workers.began, box.finished, told) == ([11, 12], 11, [1])
    inbox.hand("a button", None)
    inbox.hand("m", box.ticket())
    inbox.close()
    assert inbox.packets() == ["a button"]  # nobody brings it again; the message comes with the next start
    inbox.hand("n", box.ticket())
    assert inbox.qsize() == 1
    workers.running[0].cancel()
    await settle()
    assert (box.finished, told) == (11, [1])  # who is cancelled at the end has not finished


# --- Own messages ---------------------------------------------------------------------------------------------


def sending(random_id: int, text: str) -> Any:
    from pyrogram.raw import functions

    peer = types().InputPeerUser(user_id=USER, access_hash=0)
    return build(functions.messages.SendMessage, peer=peer, message=text, random_id=random_id, entities=[])


async def test_messages_alike_are_not_guessed() -> None:
    """Of two sendings of the same words it is not said which made which message; of one it is, once."""
    delivered = Delivered()
    for random_id in (1, 2):
        delivered.sending(sending(random_id, "yes"))
    assert delivered.is_own(message(5, text="yes", out=True), None, [], [])
    found = delivered.find(sending(1, "yes"))
    assert found is not None
    assert [update.random_id for update in found.updates[:1]] == [1]
    assert delivered.find(sending(1, "yes")) is None
    assert delivered.is_own(message(6, text="yes", out=True), None, [], [])
    assert not delivered.is_own(
        message(7, text="yes", out=True), None, [], []
    )  # written by the user elsewhere
    assert not delivered.is_own(message(8, text="yes"), None, [], [])


async def test_what_was_answered_takes_no_room() -> None:
    """Hundreds of messages whose answers have come are in one difference with the one that is looked for."""
    delivered = Delivered()
    for random_id in range(3000):
        delivered.sending(sending(random_id, f"m{random_id}"))
        if random_id != 1500:
            delivered.answered(sending(random_id, f"m{random_id}"), types().Updates(
                updates=[], users=[], chats=[], date=0, seq=0))  # fmt: skip
    for random_id in range(3000):
        assert delivered.is_own(message(random_id, out=True), random_id, [], [])
    assert delivered.find(sending(1, "m1")) is None
    found = delivered.find(sending(1500, "m1500"))
    assert found is not None
    assert found.updates[0].random_id == 1500


async def test_an_album_is_found_in_whole() -> None:
    """A sending with several random_ids is found when all of them are named."""
    from pyrogram.raw import functions

    delivered = Delivered()
    media = [build(types().InputSingleMedia, random_id=number, message="", entities=[]) for number in (1, 2)]
    peer = types().InputPeerUser(user_id=USER, access_hash=0)
    album = build(functions.messages.SendMultiMedia, peer=peer, multi_media=media)
    delivered.sending(album)
    user = build(types().User, id=USER)
    assert delivered.is_own(message(5, out=True), 1, [user], [])
    assert delivered.find(album) is None
    assert delivered.is_own(message(6, out=True), 2, [user], [])
    found = delivered.find(album)
    assert found is not None
    assert [update.message.id for update in found.updates[2:]] == [5, 6]
    assert found.users == [user]


async def test_what_was_answered_is_known_by_its_id() -> None:
    """A message whose answer has come is our own wherever it comes again; one that was refused is nobody's."""
    delivered = Delivered()
    query = sending(1, "yes")
    delivered.sending(query)
    delivered.answered(query, pushed(new(5, 11, out=True)))
    assert delivered.is_own(message(5, out=True), None, [], [])
    assert not delivered.sending(query)
    assert delivered.sending(query), "nobody knows what came of the first"
    delivered.refused(query)
    assert not delivered.is_own(message(6, text="yes", out=True), None, [], [])


@virtual
async def test_a_delivered_message_is_asked_for() -> None:
    """Where no difference has brought it yet, one is asked for; its handlers don't hear of it."""
    rig = Rig()
    await rig.start()
    query = sending(1, "yes")
    rig.updates.delivered.sending(query)
    named = types().UpdateMessageID(id=5, random_id=1)
    rig.client.answers.append(difference(12, message(5, text="yes", out=True), message(6), others=[named]))
    found = await asyncio.wait_for(rig.updates.find_delivered(query), 5)
    assert found is not None
    assert [type(update).__name__ for update in found.updates] == ["UpdateMessageID", "UpdateNewMessage"]
    await settle()
    assert rig.ids == [6]
    await rig.stop()


@virtual
async def test_what_is_nowhere_is_not_found() -> None:
    """A sending of which no difference knows is not made up; a look-up that fails finds nothing either."""
    from pyrogram.errors import InternalServerError

    rig = Rig(skip=True)
    await rig.start()
    query = sending(1, "yes")
    rig.client.answers.append(difference(11, message(5)))
    assert await asyncio.wait_for(rig.updates.find_delivered(query), 5) is None
    await rig.updates.greeted(state(20), 1)
    rig.client.answers.append(InternalServerError())
    assert await asyncio.wait_for(rig.updates.find_delivered(query), 5) is None
    await rig.stop()
