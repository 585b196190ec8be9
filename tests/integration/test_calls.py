"""The rule of held calls, branch by branch, against a datacenter that loses answers, sessions and links."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyrogram import raw
from pyrogram.errors import FloodWait, RPCError

from supervisor.core.failure import DEFAULT_POLICIES, Action, Kind, Policy
from supervisor.daemon import Supervisor
from supervisor.datacenter import Datacenter, Fault, FaultKind
from supervisor.errors import AccountUnavailable, DeliveredUnseen, OutcomeUnknown
from tests.integration.conftest import PERSON, Fleet, until

pytestmark = pytest.mark.timeout(60)
SEND, TYPING, CREATE = "messages.SendMessage", "messages.SetTyping", "messages.CreateChat"
OTHERS = (778, 779)


@pytest.fixture
async def dc() -> AsyncIterator[Datacenter]:
    """A datacenter in the same town."""
    async with Datacenter(latency=0.02) as datacenter:
        yield datacenter


class Site(Fleet):
    """One bot, its client, and what its server has seen of it."""

    client: Any

    def __init__(self, dc: Datacenter, directory: Path, **settings: Any) -> None:
        super().__init__(dc, directory, 1, **settings)
        self.bot = self.bots[0]
        for user_id in OTHERS:
            dc.add_person(user_id)

    @asynccontextmanager
    async def online(self) -> AsyncIterator[Site]:
        """Run it, until it has written to everybody once."""
        async with self.running() as sup:
            self.client = await sup.client("bot-0")
            for user_id in (PERSON, *OTHERS):
                await self.client.send_message(user_id, "before")
            yield self

    def fault(self, kind: FaultKind, method: str, count: int | None = 1, **what: Any) -> Fault:
        return self.dc.faults.add(Fault(kind, self.bot.user_id, method, count, **what))

    def typing(self) -> Any:
        """An acting query without a random_id."""
        peer = raw.types.InputPeerUser(user_id=PERSON, access_hash=self.dc.access_hash(self.bot, self.person))
        return raw.functions.messages.SetTyping(peer=peer, action=raw.types.SendMessageTypingAction())

    def create(self, method: str, title: str) -> Any:
        """A query that makes a chat each time it is executed."""
        if method != CREATE:
            return raw.functions.channels.CreateChannel(title=title, about="", megagroup=True)
        user = raw.types.InputUser(user_id=PERSON, access_hash=self.dc.access_hash(self.bot, self.person))
        return raw.functions.messages.CreateChat(users=[user], title=title)

    @property
    def made(self) -> list[str]:
        return [effect.what for effect in self.dc.seen.effects[self.bot.user_id]]

    async def lose_session(self, method: str, call: Any) -> asyncio.Task[Any]:
        """Make a call whose effect takes place, whose answer is lost, and whose MTProto session the server forgets."""
        fault = self.fault(FaultKind.SILENCE, method)
        task = asyncio.create_task(call)
        await until(lambda: fault.happened, what="the call has arrived")
        await asyncio.sleep(0.05)
        self.dc.forget_sessions()
        self.dc.reset_links()
        return task


@pytest.fixture
def site(dc: Datacenter, tmp_path: Path) -> Callable[..., Site]:
    """Make a site; keywords are `[supervisor]` settings."""
    return lambda **settings: Site(dc, tmp_path, **settings)


# --- One sending, or two --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [CREATE, "channels.CreateChannel"])
async def test_in_the_same_session_an_answer_that_was_lost_is_sent_again(
    dc: Datacenter, site: Callable[..., Site], method: str
) -> None:
    """The query goes out under the same msg_id, the kept answer comes back, and the chat is there once."""
    async with site().online() as bot:
        bot.fault(FaultKind.DROP_AFTER, method)
        made = await bot.client.invoke(bot.create(method, "once"))
        assert (bot.made, dc.seen.count(method)) == (["once"], 1)
        assert dc.seen.answers_resent >= 1
        assert getattr(made, "updates", made)
        await until(lambda: bot.state() == "online")


@pytest.mark.parametrize("method", [CREATE, "channels.CreateChannel"])
async def test_in_a_lost_session_nobody_knows(dc: Datacenter, site: Callable[..., Site], method: str) -> None:
    """It took effect, and is not done again: the caller is told that nobody knows; the bot goes on."""
    async with site().online() as bot:
        call = await bot.lose_session(method, bot.client.invoke(bot.create(method, "perhaps")))
        with pytest.raises(OutcomeUnknown, match=f"bot-0: {method} was sent, but its session was lost"):
            await call
        assert await bot.client.invoke(bot.typing())
        assert (bot.made, dc.seen.count(method)) == (["perhaps"], 1)


async def test_in_a_lost_session_what_reads_is_asked_again(dc: Datacenter, site: Callable[..., Site]) -> None:
    """Asking twice is asking once."""
    async with site().online() as bot:
        asked = dc.seen.count("users.GetUsers")
        query = raw.functions.users.GetUsers(id=[raw.types.InputUserSelf()])
        call = await bot.lose_session("users.GetUsers", bot.client.invoke(query))
        (me,) = await call
        assert (me.id, dc.seen.count("users.GetUsers") - asked) == (bot.bot.user_id, 2)


async def test_what_was_never_sent_is_sent_once(dc: Datacenter, site: Callable[..., Site]) -> None:
    """A chat that is asked for during an outage is made when that is over, once."""
    async with site().online() as bot:
        await dc.go_away()
        call = asyncio.create_task(bot.client.invoke(bot.create(CREATE, "held")))
        await until(lambda: bot.state() == "recovering")
        await dc.come_back()
        await call
        assert bot.made == ["held"]


# --- RANDOM_ID_DUPLICATE --------------------------------------------------------------------------------


async def test_a_second_bad_draw_is_the_callers(dc: Datacenter, site: Callable[..., Site]) -> None:
    """Drawn anew once, not for ever; nothing was delivered."""
    async with site().online() as bot:
        sent = dc.seen.count(SEND)
        bot.fault(FaultKind.RPC_ERROR, SEND, count=None, code=500, error="RANDOM_ID_DUPLICATE")
        with pytest.raises(RPCError, match="RANDOM_ID_DUPLICATE"):
            await bot.client.send_message(PERSON, "never")
        assert (dc.seen.count(SEND) - sent, dc.seen.times_delivered("never")) == (2, 0)


async def test_a_message_that_cannot_be_found_again_was_delivered_all_the_same(
    dc: Datacenter, site: Callable[..., Site]
) -> None:
    """No difference is to be had: DeliveredUnseen, which says that it must not be sent again; it was delivered once."""
    async with site(call_timeout=2.0).online() as bot:
        fault = bot.fault(FaultKind.RPC_ERROR, "updates.GetDifference", None, code=500, error="RPC_CALL_FAIL")
        call = await bot.lose_session(SEND, bot.client.send_message(PERSON, "unseen"))
        with pytest.raises(DeliveredUnseen, match="Do not send it again"):
            await call
        assert fault.happened
        assert dc.seen.times_delivered("unseen") == 1


# --- Bounds ---------------------------------------------------------------------------------------------


async def test_no_more_than_max_held_are_held_and_they_leave_at_release_rate(
    dc: Datacenter, site: Callable[..., Site]
) -> None:
    """The eleventh call of an outage is refused; ten leave in order, five in any second."""
    async with site(max_held=10, release_rate=5.0).online() as bot:
        await dc.go_away()
        await until(lambda: bot.state() == "recovering")
        calls = []
        for n in range(10):
            calls.append(asyncio.create_task(bot.client.send_message(PERSON, f"held {n}")))
            await asyncio.sleep(0)
        with pytest.raises(AccountUnavailable, match=r"10 calls are held already \(max_held\)") as refused:
            await bot.client.send_message(PERSON, "one too many")
        assert refused.value.state == "recovering"
        await dc.come_back()
        await asyncio.gather(*calls)
        sent = [sent for sent in dc.seen.sends[bot.bot.user_id] if sent.text.startswith("held")]
        assert [sent.text for sent in sent] == [f"held {n}" for n in range(10)]
        times = [sent.at for sent in sent]
        assert max(sum(at <= other < at + 1.0 for other in times) for at in times) <= 5


async def test_a_call_ends_at_call_timeout(dc: Datacenter, site: Callable[..., Site]) -> None:
    """An answer that never comes over a link that lives: AccountUnavailable, no sooner and not much later."""
    async with site(call_timeout=1.0, silence_timeout=2.0).online() as bot:
        fault = bot.fault(FaultKind.SILENCE, TYPING, count=None)
        begun = time.monotonic()
        with pytest.raises(
            AccountUnavailable, match=r"SetTyping was not answered within 1 s \(call_timeout\)"
        ):
            await bot.client.invoke(bot.typing())
        assert 1.0 <= time.monotonic() - begun <= 1.5
        assert bot.state() == "online"
        dc.faults.remove(fault)
        assert await bot.client.invoke(bot.typing())


async def test_a_wait_over_max_wait_is_the_callers(dc: Datacenter, site: Callable[..., Site]) -> None:
    """Pyrogram's own FloodWait at once; until it is over the next is told what is left, and does not leave."""
    async with site(max_wait=1.0).online() as bot:
        sent = dc.seen.count(SEND)
        bot.fault(FaultKind.RPC_ERROR, SEND, code=420, error="FLOOD_WAIT_30")
        begun = time.monotonic()
        with pytest.raises(FloodWait) as told:
            await bot.client.send_message(PERSON, "too long")
        assert told.value.value == 30
        await asyncio.sleep(1.0)
        with pytest.raises(FloodWait) as again:
            await bot.client.send_message(PERSON, "still too long")
        assert again.value.value == round(30 - (time.monotonic() - begun))
        assert dc.seen.count(SEND) - sent == 1
        assert bot.state() == "online"


async def test_a_query_that_the_server_never_takes_ends_with_an_exception_of_ours(
    dc: Datacenter, site: Callable[..., Site]
) -> None:
    """Refused on the message level, link after link: AccountUnavailable says so, and nothing was done."""
    async with site(stable_after=0.0).online() as bot:
        fault = bot.fault(FaultKind.BAD_MSG, TYPING, count=None, code=48)
        with pytest.raises(AccountUnavailable, match=r"the server refused messages\.SetTyping 6 times"):
            await bot.client.invoke(bot.typing())
        dc.faults.remove(fault)
        assert await bot.client.invoke(bot.typing())
        assert (bot.state(), dc.seen.count(TYPING)) == ("online", 1)


# --- The ledger -----------------------------------------------------------------------------------------


async def test_a_second_flooded_peer_widens_the_wait_to_the_method(
    dc: Datacenter, site: Callable[..., Site]
) -> None:
    """The first holds its peer alone; when another peer is told to wait too, a third is not even asked."""
    async with site().online() as bot:
        sent = dc.seen.count(SEND)
        bot.fault(FaultKind.RPC_ERROR, SEND, code=420, error="FLOOD_WAIT_1")
        begun = time.monotonic()
        calls = []
        for user_id in (PERSON, *OTHERS):
            calls.append(asyncio.create_task(bot.client.send_message(user_id, f"to {user_id}")))
            await asyncio.sleep(0.1)
        assert await bot.client.invoke(bot.typing())  # another method
        assert dc.seen.count(SEND) - sent == 2
        await asyncio.gather(*calls)
        assert 1.0 <= time.monotonic() - begun <= 3.5
        assert not dc.seen.early_calls


async def test_slow_mode_holds_one_chat(dc: Datacenter, site: Callable[..., Site]) -> None:
    """SLOWMODE_WAIT_1 in one chat: others are written to at once, this one in a second."""
    async with site().online() as bot:
        bot.fault(FaultKind.RPC_ERROR, SEND, code=420, error="SLOWMODE_WAIT_1")
        begun = time.monotonic()
        slow = asyncio.create_task(bot.client.send_message(PERSON, "slow"))
        await asyncio.sleep(0.2)
        await asyncio.gather(*(bot.client.send_message(user_id, "quick") for user_id in OTHERS))
        assert time.monotonic() - begun <= 0.9
        await slow
        assert 1.0 <= time.monotonic() - begun <= 3.0
        assert not dc.seen.early_calls


async def test_waits_outlive_a_restart(dc: Datacenter, site: Callable[..., Site]) -> None:
    """What is left of a wait is waited for by the next run, without asking."""
    bot = site(max_wait=1.0)
    async with bot.online():
        bot.fault(FaultKind.RPC_ERROR, SEND, code=420, error="FLOOD_WAIT_2")
        begun = time.monotonic()
        with pytest.raises(FloodWait):
            await bot.client.send_message(PERSON, "before the restart")
    sent = dc.seen.count(SEND)
    config = replace(bot.config, settings=replace(bot.config.settings, max_wait=300.0))
    async with Supervisor(config) as sup:
        await (await sup.client("bot-0")).send_message(PERSON, "after the restart")
        assert 2.0 <= time.monotonic() - begun <= 4.5
    assert dc.seen.count(SEND) - sent == 1
    assert not dc.seen.early_calls


# --- The server failed, or it was done already ----------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error"), [(500, "RPC_CALL_FAIL"), (503, "ApiCallError"), (-503, "NO_NAME")]
)
async def test_a_failing_servers_repeats_are_ours(
    dc: Datacenter, site: Callable[..., Site], code: int, error: str
) -> None:
    """Four sendings, with growing delays between them, instead of the library's ten or eleven."""
    bot = site()
    quick = Policy(Action.RETRY, 3, 0.1)
    bot.config = replace(bot.config, policies={**DEFAULT_POLICIES, Kind.TEMPORARY: quick})
    async with bot.online():
        sent = dc.seen.count(SEND)
        bot.fault(FaultKind.RPC_ERROR, SEND, count=None, code=code, error=error)
        begun = time.monotonic()
        with pytest.raises(RPCError):
            await bot.client.send_message(PERSON, "never")
        assert 0.1 + 0.2 + 0.4 <= time.monotonic() - begun <= 1.25 * 0.7 + 0.6
        assert dc.seen.count(SEND) - sent == 4


async def test_what_was_done_already_is_given_as_if_it_were_done_now(
    dc: Datacenter, site: Callable[..., Site]
) -> None:
    """Both libraries' own methods get what they look for: the message, the chat, the user; and nothing is recorded."""
    async with site().online() as bot:
        client = bot.client
        message = await client.send_message(PERSON, "as it is")
        bot.fault(FaultKind.RPC_ERROR, "messages.EditMessage", code=400, error="MESSAGE_NOT_MODIFIED")
        edited = await client.edit_message_text(PERSON, message.id, "as it is")
        assert (edited.id, edited.text) == (message.id, "as it is")
        group = await client.create_group("a group", [PERSON])
        refused: dict[str, Any] = {"code": 400, "error": "CHAT_NOT_MODIFIED"}
        bot.fault(FaultKind.RPC_ERROR, "messages.EditChatTitle", **refused)
        assert await client.set_chat_title(group.id, "a group") in (True, None)
        bot.fault(FaultKind.RPC_ERROR, "messages.EditChatDefaultBannedRights", **refused)
        permissions = raw.functions.messages.EditChatDefaultBannedRights(
            peer=raw.types.InputPeerChat(chat_id=-group.id),
            banned_rights=raw.types.ChatBannedRights(until_date=0),
        )
        assert (await client.invoke(permissions)).chats[0].title == "a group"
        bot.fault(FaultKind.RPC_ERROR, "messages.AddChatUser", code=400, error="USER_ALREADY_PARTICIPANT")
        assert not isinstance(await client.add_chat_members(group.id, PERSON), Exception)
        bot.fault(FaultKind.RPC_ERROR, "account.UpdateUsername", code=400, error="USERNAME_NOT_MODIFIED")
        assert await client.set_username("the_same") is True
        assert Counter(row["outcome"] for row in await bot.rows()) == Counter()
