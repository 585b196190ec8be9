"""Whole updates over real sockets: what is pushed to an account reaches its handlers once, whatever befalls its link."""

from __future__ import annotations

import asyncio
import base64
import logging
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pyrogram.handlers import MessageHandler, RawUpdateHandler
from pyrogram.raw import functions

from supervisor.config.model import Proxy, Secret
from supervisor.datacenter import Datacenter, Fault, FaultKind, dispatch, library
from supervisor.telegram import boxes as box_module
from tests.integration.conftest import PERSON, Fleet, ScriptedProxy, until
from tests.integration.watch import watched

pytestmark = pytest.mark.timeout(60)
# A fifth of what an operator has.
SCALED = {"silence_timeout": 2.0, "answer_timeout": 3.0, "connect_timeout": 2.0, "stable_after": 5.0}
FleetMaker = Callable[..., Fleet]


@pytest.fixture
async def dc() -> AsyncIterator[Datacenter]:
    """A datacenter nearby: what is whole does not depend on its distance."""
    async with Datacenter(latency=0.02) as datacenter:
        yield datacenter


@dataclass
class Talk:
    """Numbered messages to one account, in private and in a supergroup, and what its handlers saw of them."""

    dc: Datacenter
    account: Any
    name: str = "bot-0"
    group: Any = None
    said: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        person = self.dc.engine.world.people[PERSON]
        self.group = self.dc.add_supergroup(f"of {self.name}", [self.account, person])

    def listen(self, client: Any) -> None:
        """Note every message that a handler gets; its own service messages aside."""

        async def note(_client: Any, message: Any) -> None:
            if message.text is not None:
                self.heard.append(message.text)

        client.add_handler(MessageHandler(note))

    def private(self, count: int = 1, **more: Any) -> None:
        """Somebody writes in private."""
        for _ in range(count):
            self._say("private", **more)

    def in_group(self, count: int = 1, **more: Any) -> None:
        """Somebody writes in the supergroup."""
        for _ in range(count):
            self._say("group", chat=self.group, **more)

    def _say(self, where: str, **more: Any) -> None:
        self.said.append(f"{where} {len(self.said)} to {self.name}")
        self.dc.push_message(self.account, self.said[-1], from_user=PERSON, **more)

    async def all_heard(self, seconds: float = 10.0) -> None:
        """Wait for all that was said; each was heard once, and nothing else was, even a while later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not set(self.said) <= set(self.heard):
                    await asyncio.sleep(0.02)
        await asyncio.sleep(0.7)  # longer than a gap is given to close
        heard = Counter(self.heard)
        assert [text for text in self.said if not heard[text]] == [], f"{self.name} missed them"
        assert [text for text, count in heard.items() if count > 1] == [], f"{self.name} heard them twice"
        assert set(heard) == set(self.said), f"{self.name} heard what nobody said to it"


def link_of(sup: Any, name: str = "bot-0") -> Any:
    """The link of an account."""
    return sup._pool.accounts[name]._link


# --- Faults ---------------------------------------------------------------------------------------------------


async def five_resets(dc: Datacenter, bot: Any) -> None:
    for _ in range(5):
        dc.reset_links(bot)
        await asyncio.sleep(0.4)


async def silent(dc: Datacenter, bot: Any) -> None:
    dc.silent(bot, swallow=True)
    await asyncio.sleep(1.6)
    dc.speak(bot)


async def flood_wait(dc: Datacenter, bot: Any) -> None:
    dc.faults.add(
        Fault(FaultKind.RPC_ERROR, bot.user_id, "messages.SendMessage", code=420, error="FLOOD_WAIT_2")
    )


async def flooded_difference(dc: Datacenter, bot: Any) -> None:
    for method in ("updates.GetDifference", "updates.GetChannelDifference"):
        dc.faults.add(Fault(FaultKind.RPC_ERROR, bot.user_id, method, code=420, error="FLOOD_WAIT_1"))
    dc.reset_links(bot)


async def failing_difference(dc: Datacenter, bot: Any) -> None:
    error = "PERSISTENT_TIMESTAMP_OUTDATED"
    for method in ("updates.GetDifference", "updates.GetChannelDifference"):
        dc.faults.add(Fault(FaultKind.RPC_ERROR, bot.user_id, method, code=500, error=error))
    dc.reset_links(bot)


async def lost_answer(dc: Datacenter, bot: Any) -> None:
    dc.faults.add(Fault(FaultKind.DROP_AFTER, bot.user_id, "messages.SendMessage"))


async def lost_answer_and_session(dc: Datacenter, bot: Any) -> None:
    dc.faults.add(Fault(FaultKind.SILENCE, bot.user_id, "messages.SendMessage"))
    await asyncio.sleep(0.5)
    dc.forget_sessions(bot)
    dc.reset_links(bot)


async def unregistered(dc: Datacenter, bot: Any) -> None:
    dc.revoke(bot, "AUTH_KEY_UNREGISTERED")


async def revoked(dc: Datacenter, bot: Any) -> None:
    dc.revoke(bot, "SESSION_REVOKED")


async def unknown_key(dc: Datacenter, bot: Any) -> None:
    dc.forget_keys(bot)


async def forgotten_session(dc: Datacenter, bot: Any) -> None:
    dc.forget_sessions(bot)


async def lost_pushes(dc: Datacenter, bot: Any) -> None:
    for _ in range(3):
        dc.drop_updates(3, bot)
        await asyncio.sleep(0.3)


ACCOUNT_FAULTS = (
    five_resets, silent, flood_wait, flooded_difference, failing_difference, lost_answer, lost_answer_and_session,
    unregistered, revoked, unknown_key, forgotten_session, lost_pushes,
)  # fmt: skip


async def under_load(fleet: Fleet, talk: Talk, fault: Callable[[], Awaitable[None]]) -> None:
    """Messages come and go before, while and after something happens; each sending is answered."""
    client = await fleet.sup.client(talk.name)
    talk.listen(client)
    over = asyncio.Event()

    async def chatter() -> None:
        while not over.is_set():
            talk.private()
            talk.in_group()
            await asyncio.sleep(0.1)

    async def sending() -> None:
        n = 0
        while not over.is_set():
            await client.send_message(PERSON, f"{talk.name} says {n}")
            await client.send_message(talk.group.peer_id, f"{talk.name} says {n} to the group")
            n += 1
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        group.create_task(chatter())
        group.create_task(sending())
        await asyncio.sleep(0.6)
        await fault()
        await asyncio.sleep(1.0)
        await until(lambda: fleet.state(talk.name) == "online", 20, f"{talk.name} is online again")
        over.set()
    talk.private()
    talk.in_group()


async def test_every_message_is_heard_once_through_every_fault_of_an_account(
    dc: Datacenter, fleet: FleetMaker
) -> None:
    """Resets, silence, flood waits, lost answers, keys and sessions: each bot has its own fault, and misses nothing."""
    bots = fleet(len(ACCOUNT_FAULTS), **SCALED)
    talks = [Talk(dc, bot, name) for bot, name in zip(bots.bots, bots.names, strict=True)]
    async with bots.running(), asyncio.TaskGroup() as group:
        for fault, talk in zip(ACCOUNT_FAULTS, talks, strict=True):
            group.create_task(through(bots, talk, fault))
    assert not dc.seen.early_calls
    assert [key for key, count in dc.seen.delivered.items() if count > 1] == []


async def through(bots: Fleet, talk: Talk, fault: Callable[[Datacenter, Any], Awaitable[None]]) -> None:
    await under_load(bots, talk, lambda: fault(bots.dc, talk.account))
    try:
        await talk.all_heard(15)
    except AssertionError as error:
        raise AssertionError(f"{fault.__name__}: {error}") from error


async def test_what_came_while_the_server_was_away_is_heard_once(dc: Datacenter, fleet: FleetMaker) -> None:
    """Messages before, during and after an outage are heard once, in private and in a group that was never heard of."""
    bots = fleet(1, **SCALED)
    talk = Talk(dc, bots.bots[0])
    unheard_of = Talk(dc, bots.bots[0], "bot-0, unheard of")
    async with watched(), bots.running():

        async def away() -> None:
            async with dc.away():
                unheard_of.in_group(3)
                await asyncio.sleep(1)
            unheard_of.in_group(2)

        await under_load(bots, talk, away)
        talk.said += unheard_of.said
        await talk.all_heard()


async def test_a_killed_proxy_costs_no_message(
    dc: Datacenter, fleet: FleetMaker, two_proxies: dict[str, ScriptedProxy]
) -> None:
    """The proxy dies, another takes over: every message is heard once."""
    proxies = tuple(Proxy(name, "socks5", "127.0.0.1", proxy.port) for name, proxy in two_proxies.items())
    bots = fleet(1, proxies=proxies, **SCALED)
    talk = Talk(dc, bots.bots[0])
    async with bots.running():
        used = bots.account()["path"]
        await under_load(bots, talk, two_proxies[used].kill)
        assert bots.account()["path"] != used
        await talk.all_heard()


# --- On a link that lives -------------------------------------------------------------------------------------


async def test_one_lost_push_is_fetched(dc: Datacenter, fleet: FleetMaker) -> None:
    """A push that is lost while the link lives is fetched within a second of the next, in its place."""
    bots = fleet(1)
    talk = Talk(dc, bots.bots[0])
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        for say in (talk.private, talk.in_group):
            say()
            dc.drop_updates(1, bots.bots[0])
            say(2)
        await talk.all_heard(2.0)
        for where in ("private", "group"):
            assert [text for text in talk.heard if where in text] == [
                text for text in talk.said if where in text
            ]


async def test_telegram_may_say_that_it_was_too_much(dc: Datacenter, fleet: FleetMaker) -> None:
    """updatesTooLong: what was not pushed is fetched."""
    bots = fleet(1)
    talk = Talk(dc, bots.bots[0])
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        talk.private()
        await until(lambda: talk.heard, 5)
        dc.stop_updates(bots.bots[0])
        talk.private(3)
        talk.in_group(3)
        dc.resume_updates(bots.bots[0])
        assert dc.updates_too_long(bots.bots[0]) == 1
        await talk.all_heard(3.0)


async def test_every_form_of_a_push_is_heard(dc: Datacenter, fleet: FleetMaker) -> None:
    """However Telegram wraps a message its handler gets it whole, with its author."""
    bots = fleet(1)
    talk = Talk(dc, bots.bots[0])
    authors: list[Any] = []
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        talk.listen(client)

        async def note(_client: Any, message: Any) -> None:
            if message.text is not None:
                authors.append(message.from_user and message.from_user.first_name)

        client.add_handler(MessageHandler(note), group=1)
        for form in ("short_message", "short", "sequenced", "combined", "updates"):
            talk.private(2, form=form)
            talk.in_group(1, form=form)
        await talk.all_heard(3.0)
    assert set(authors) == {"Ann"}
    assert len(authors) == len(talk.said)


async def test_a_lost_number_of_the_sequence_is_noticed(dc: Datacenter, fleet: FleetMaker) -> None:
    """Where an updates object is missing a difference is asked for, though all that came has its place."""
    bots = fleet(1)
    talk = Talk(dc, bots.bots[0])
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        talk.private(form="sequenced")
        await until(lambda: talk.heard, 5)
        asked = dc.seen.count("updates.GetDifference")
        bots.bots[0].seq += 1
        talk.private(form="sequenced")
        await until(lambda: dc.seen.count("updates.GetDifference") == asked + 1, 3)
        await talk.all_heard(1.0)


async def test_own_messages_are_not_news(dc: Datacenter, fleet: FleetMaker) -> None:
    """No handler, raw ones too, hears of a message that its own client has sent, whatever else is fetched."""
    bots = fleet(1)
    talk = Talk(dc, bots.bots[0])
    own: list[Any] = []
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        talk.listen(client)

        async def note(_client: Any, update: Any, *_: Any) -> None:
            if getattr(getattr(update, "message", None), "out", False):
                own.append(update)

        client.add_handler(RawUpdateHandler(note), group=1)
        talk.in_group()
        await until(lambda: talk.heard, 5)
        for n in range(3):
            dc.drop_updates(2, bots.bots[0])
            talk.private()
            talk.in_group()
            await client.send_message(PERSON, f"mine {n}")
            await client.send_message(talk.group.peer_id, f"mine {n} to all")
            dc.reset_links()
        talk.private()
        await talk.all_heard()
    assert own == []


async def test_a_stall_of_the_updates_is_seen(dc: Datacenter, fleet: FleetMaker) -> None:
    """A state that was asked for tells how many events are missing, and they are fetched."""
    bots = fleet(1)
    talk = Talk(dc, bots.bots[0])
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        talk.listen(client)
        updates = link_of(sup)._updates
        state = functions.updates.GetState()
        assert await updates.check(await client.invoke(state)) == 0
        dc.stop_updates(bots.bots[0])
        talk.private(3)
        assert await updates.check(await client.invoke(state)) == 3
        await talk.all_heard(2.0)


# --- Many, and none -------------------------------------------------------------------------------------------


async def test_more_than_a_slice_is_fetched(dc: Datacenter, fleet: FleetMaker) -> None:
    """What takes several slices to tell is heard in full, in private and in the group, and in order."""
    bots = fleet(1, **SCALED)
    dc.engine.settings.difference_slice = 50
    talk = Talk(dc, bots.bots[0])
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        talk.private()
        talk.in_group()
        await until(lambda: len(talk.heard) == 2, 5)
        async with dc.away():
            talk.private(130)
            talk.in_group(130)
            await asyncio.sleep(0.2)
        await talk.all_heard()
    assert sorted(talk.heard, key=talk.said.index) == talk.said


async def test_what_telegram_does_not_tell_is_said(
    dc: Datacenter, fleet: FleetMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """Where too much was missed the account goes on with the present, and the log says what was skipped."""
    bots = fleet(1, **SCALED)
    talk = Talk(dc, bots.bots[0])
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        talk.private()
        talk.in_group()
        await until(lambda: len(talk.heard) == 2, 5)
        dc.engine.settings.difference_too_long = 5
        heard = list(talk.said)
        with caplog.at_level(logging.WARNING):
            async with dc.away():
                talk.private(8)
                talk.in_group(8)
                await asyncio.sleep(0.2)
            await until(lambda: caplog.text.count("skipped") == 2, 10, "both are said")
        talk.said = heard
        talk.private()
        talk.in_group()
        await talk.all_heard()


async def test_a_channel_that_was_left_is_forgotten(dc: Datacenter, fleet: FleetMaker) -> None:
    """A channel that is closed to the account costs its other updates nothing, and is not asked for again."""
    bots = fleet(1, **SCALED)
    talk = Talk(dc, bots.bots[0])
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        talk.in_group()
        await until(lambda: talk.heard, 5)
        dc.faults.add(
            Fault(
                FaultKind.RPC_ERROR, bots.bots[0].user_id, "updates.GetChannelDifference", code=400, error="CHANNEL_PRIVATE"
            )
        )  # fmt: skip
        async with dc.away():
            dc.push_message(bots.bots[0], "unseen", from_user=PERSON, chat=talk.group)
            talk.private()
        await talk.all_heard()
        assert dc.seen.count("updates.GetChannelDifference") == 1


async def test_a_place_that_means_nothing_to_telegram_is_left(
    dc: Datacenter, fleet: FleetMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """PERSISTENT_TIMESTAMP_INVALID: the account goes on with the present state, and says so."""
    bots = fleet(1, **SCALED)
    talk = Talk(dc, bots.bots[0])
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        talk.private()
        await until(lambda: talk.heard, 5)
        error = "PERSISTENT_TIMESTAMP_EMPTY"
        dc.faults.add(
            Fault(FaultKind.RPC_ERROR, bots.bots[0].user_id, "updates.GetDifference", code=400, error=error)
        )
        with caplog.at_level(logging.WARNING):
            async with dc.away():
                dc.push_message(bots.bots[0], "lost", from_user=PERSON)
            await until(lambda: "goes on with the present" in caplog.text, 10)
        talk.private(2)
        await talk.all_heard()


async def test_slow_handlers_bound_what_is_fetched(
    dc: Datacenter, fleet: FleetMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While handlers are far behind nothing more is taken in than fits; when they are not, all of it is fetched."""
    monkeypatch.setattr("supervisor.telegram.inbox.WAITING", 20)
    monkeypatch.setattr(box_module, "READY", 20)
    bots = fleet(1, **SCALED)
    talk = Talk(dc, bots.bots[0])
    go_on = asyncio.Event()
    async with bots.running() as sup:
        client = await sup.client("bot-0")

        async def slow(_client: Any, message: Any) -> None:
            await go_on.wait()
            if message.text is not None:
                talk.heard.append(message.text)

        client.add_handler(MessageHandler(slow))
        inbox = client.dispatcher.updates_queue
        for _ in range(20):
            talk.private(10)
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        assert inbox.qsize() <= 60
        go_on.set()
        await talk.all_heard()


# --- Restarts -------------------------------------------------------------------------------------------------


async def test_a_restart_fetches_what_came_in_between(dc: Datacenter, fleet: FleetMaker) -> None:
    """After a clean stop and a start handlers that are added at once hear what came in between, once."""
    bots = fleet(1, **SCALED)
    talk = Talk(dc, bots.bots[0])
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        talk.private(2)
        talk.in_group(2)
        await until(lambda: len(talk.heard) == 4, 5)
    for _ in range(2):
        talk.private(2)
        talk.in_group(2)
        async with bots.running() as sup:
            talk.listen(await sup.client("bot-0"))
            await talk.all_heard()


async def test_what_no_handler_had_finished_comes_again(
    dc: Datacenter, fleet: FleetMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop cuts a handler off: its message, and those behind it, come again after the start; those before it don't."""
    monkeypatch.setattr("supervisor.telegram.client.HANDLER_GRACE", 0.3)
    bots = fleet(1, **SCALED)
    bots.change("bot-0", client={"workers": 1})
    talk = Talk(dc, bots.bots[0])
    begun: list[str] = []
    async with bots.running() as sup:
        client = await sup.client("bot-0")

        async def stuck(_client: Any, message: Any) -> None:
            begun.append(message.text)
            if len(begun) == 2:
                await asyncio.Event().wait()

        client.add_handler(MessageHandler(stuck))
        talk.private(3)
        await until(lambda: len(begun) == 2, 5)
    assert begun == talk.said[:2]
    talk.said = talk.said[1:]
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        await talk.all_heard()


async def test_missed_updates_can_be_skipped(
    dc: Datacenter, fleet: FleetMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """`missed_updates = "skip"`: what came during an interruption is passed over, and that is said; the rest is heard."""
    bots = fleet(1, missed_updates="skip", **SCALED)
    talk = Talk(dc, bots.bots[0])
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        talk.private()
        talk.in_group()
        await until(lambda: len(talk.heard) == 2, 5)
        with caplog.at_level(logging.INFO):
            async with dc.away():
                for chat in (None, talk.group):
                    dc.push_message(bots.bots[0], "passed over", from_user=PERSON, chat=chat)
            await until(lambda: "bot-0: 1 events of its own box" in caplog.text, 10)
        talk.private()
        talk.in_group()
        await talk.all_heard()
    dc.push_message(bots.bots[0], "passed over", from_user=PERSON)
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        talk.private()
        await talk.all_heard()


async def with_lost_session(dc: Datacenter, client: Any, peer: int, text: str) -> Any:
    """A message whose sending took effect before its session was lost."""
    call = asyncio.create_task(client.send_message(peer, text))
    await until(lambda: dc.seen.times_delivered(text), 5)
    dc.forget_sessions()
    dc.reset_links()
    return await asyncio.wait_for(call, 10)


async def test_a_delivered_message_is_found_where_updates_are_skipped(
    dc: Datacenter, fleet: FleetMaker
) -> None:
    """The message of a sending whose answer and session were lost is found, in private and in a group."""
    bots = fleet(1, missed_updates="skip", **SCALED)
    talk = Talk(dc, bots.bots[0])
    bot = bots.bots[0]
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        talk.listen(client)
        talk.in_group()
        await until(lambda: talk.heard, 5)
        for peer in (PERSON, talk.group.peer_id):
            dc.faults.add(Fault(FaultKind.SILENCE, bot.user_id, "messages.SendMessage"))
            message = await with_lost_session(dc, client, peer, f"to {peer}")
            assert (message.text, message.chat.id) == (f"to {peer}", peer)
            assert dc.seen.times_delivered(f"to {peer}") == 1
        assert sum(dc.seen.duplicates.values()) == 2


async def test_a_delivered_message_is_found_under_a_new_key(dc: Datacenter, fleet: FleetMaker) -> None:
    """Its answer lost with the key: under the new key the sending is a duplicate, and its message is found."""
    bots = fleet(1, **SCALED)
    talk = Talk(dc, bots.bots[0])
    bot = bots.bots[0]
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        talk.listen(client)
        await client.send_message(PERSON, "first")
        dc.faults.add(Fault(FaultKind.SILENCE, bot.user_id, "messages.SendMessage"))
        call = asyncio.create_task(client.send_message(PERSON, "with the key"))
        await until(lambda: dc.seen.times_delivered("with the key"), 5)
        dc.revoke(bot, "AUTH_KEY_UNREGISTERED")
        dc.reset_links()
        talk.private()
        assert (await asyncio.wait_for(call, 15)).text == "with the key"
        assert dc.seen.times_delivered("with the key") == 1
        await talk.all_heard()


async def test_a_delivered_message_is_found_though_its_repeat_is_refused_first(
    dc: Datacenter, fleet: FleetMaker
) -> None:
    """The repeat has to wait, and meanwhile the difference brings the message, without its random_id: no handler hears it."""
    bots = fleet(1, **SCALED)
    talk = Talk(dc, bots.bots[0])
    bot = bots.bots[0]
    async with bots.running() as sup:
        client = await sup.client("bot-0")
        talk.listen(client)
        await client.send_message(PERSON, "first")
        dc.faults.add(Fault(FaultKind.SILENCE, bot.user_id, "messages.SendMessage"))
        call = asyncio.create_task(client.send_message(PERSON, "with the key"))
        await until(lambda: dc.seen.times_delivered("with the key"), 5)
        for method, error in (
            ("messages.SendMessage", "FLOOD_WAIT_2"),
            ("updates.GetDifference", "FLOOD_WAIT_1"),
        ):
            dc.faults.add(Fault(FaultKind.RPC_ERROR, bot.user_id, method, code=420, error=error))
        dc.forget_sessions(bot)
        dc.revoke(bot, "AUTH_KEY_UNREGISTERED")
        dc.reset_links()
        talk.private()
        assert (await asyncio.wait_for(call, 15)).text == "with the key"
        assert dc.seen.times_delivered("with the key") == 1
        assert not dc.seen.early_calls
        await talk.all_heard()


async def test_what_cannot_be_read_costs_nothing_else(
    dc: Datacenter, fleet: FleetMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message of an unknown form, pushed and in the difference, in private and in a group: the others are heard."""
    bots = fleet(1, **SCALED)
    talk = Talk(dc, bots.bots[0])
    serialize, push, unknown = library.serialize, dc.engine.push, bytes.fromhex("efbeadde") + bytes(12)

    def readable(data: bytes) -> bytes:
        return unknown if b"strange" in data else data

    monkeypatch.setattr(dispatch, "serialize", lambda answer: readable(serialize(answer)))
    monkeypatch.setattr(dc.engine, "push", lambda user_id, data, *more: push(user_id, readable(data), *more))
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        for say, chat in ((talk.private, None), (talk.in_group, talk.group)):
            say()
            dc.push_message(bots.bots[0], "strange", from_user=PERSON, chat=chat)
            say(2)
            await asyncio.sleep(1.2)
            say(2)
        await talk.all_heard(3.0)
        assert {row["error_id"] for row in await bots.rows()} == {"UNREADABLE"}
        assert bots.state() == "online"


# --- Users ----------------------------------------------------------------------------------------------------


async def test_a_user_hears_everything_too(dc: Datacenter, fleet: FleetMaker) -> None:
    """A user's account, whose private texts come short, misses nothing either."""
    bots = fleet(1, **SCALED)
    user = dc.add_user(4242, first_name="Uma")
    packed = struct.pack(">BI?256sQ?", dc.dc_id, 12345, False, dc.issue_key(user), user.user_id, False)
    string = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    bots.config = replace(bots.config, accounts={
        "bot-0": replace(bots.config.accounts["bot-0"], bot_token=None, session_string=Secret(string))
    })  # fmt: skip
    talk = Talk(dc, user)
    async with bots.running() as sup:
        talk.listen(await sup.client("bot-0"))
        talk.private(2, form="short_message")
        talk.in_group(2)
        async with dc.away():
            talk.private(120, form="short_message")
            talk.in_group(80)  # of a channel a user is told no more than 100 events
        talk.private(1, form="short_message")
        await talk.all_heard()
