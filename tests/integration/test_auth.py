"""Sessions that are no longer accepted: bots sign in again by themselves, user accounts when a person does it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyrogram.errors import PeerFlood

from supervisor.config.model import Account, Secret
from supervisor.daemon import Supervisor, logins_alone
from supervisor.datacenter import Account as ServerAccount
from supervisor.datacenter import Datacenter, Fault, FaultKind
from supervisor.errors import AccountUnavailable, LoginRefused
from tests.integration.conftest import LATENCY, Fleet, until

pytestmark = pytest.mark.timeout(90)
IMPORT = "auth.ImportBotAuthorization"
PHONE, CODE, PASSWORD = "+4915112345678", "54321", "open sesame"
USER_ID = 5_000_010


def failed(calls: list[Any]) -> list[str]:
    return [f"{call.text}: {call.error!r}" for call in calls if call.error is not None]


# --- bots -----------------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("error", ["AUTH_KEY_UNREGISTERED", "SESSION_REVOKED"])
async def test_a_bot_whose_session_ended_is_back_within_3_s(
    dc: Datacenter, fleet: Callable[..., Any], error: str
) -> None:
    """A bot under load signs in again once, is back within 3 s, and no call fails or takes effect twice."""
    bots = fleet(1)
    async with bots.running():
        bot = bots.bots[0]
        load = asyncio.create_task(bots.load(5, 0.05))
        await asyncio.sleep(1)
        dc.revoke(bot, error)
        begun = time.monotonic()
        calls = await load
        assert not failed(calls)
        assert max(call.took for call in calls if call.at < begun + 3) <= 3.0
        assert max(call.took for call in calls) <= 3.0
        assert dc.seen.sign_ins[bot.user_id] == 2
        assert dc.seen.count(IMPORT) == 2
        assert not [text for (_, text), count in dc.seen.delivered.items() if count > 1]
        assert bots.state() == "online"
        rows = await bots.rows()
    assert [row["outcome"] for row in rows][-1] == "recovered"
    assert {row["kind"] for row in rows} == {"auth"}
    assert {row["error_id"] for row in rows} == {error}
    assert not dc.seen.overlaps


async def test_a_bot_whose_key_is_unknown_is_back_within_6_s(
    dc: Datacenter, fleet: Callable[..., Any]
) -> None:
    """-404 on the transport: after the third time in a row a new key is made, within 6 s, and no call fails."""
    bots = fleet(1)
    async with bots.running():
        bot = bots.bots[0]
        load = asyncio.create_task(
            bots.load(8, 0.2)
        )  # slower than release_rate: what was held has left at once
        await asyncio.sleep(1)
        dc.forget_keys(bot)
        calls = await load
        assert not failed(calls)
        assert max(call.took for call in calls) <= 6.0
        assert dc.seen.sign_ins[bot.user_id] == 2
        assert bots.state() == "online"


async def test_one_unknown_key_is_no_lost_key(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """A single -404 is one frontend's mistake: the bot comes back with its key, without a sign-in."""
    bots = fleet(1)
    async with bots.running():
        bot = bots.bots[0]
        dc.transport_error(-404, bot, count=1)
        exchanges = dc.seen.key_exchanges
        calls = await bots.load(2, 0.05)
        assert not failed(calls)
        assert (dc.seen.sign_ins[bot.user_id], dc.seen.key_exchanges) == (1, exchanges)


async def test_a_dead_token_fails_its_bot_alone(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """A bot whose token was replaced is failed after at most two sign-ins; the others go on undisturbed."""
    bots = fleet(3)
    async with bots.running():
        dead = bots.bots[0]
        load = asyncio.create_task(bots.load(4, 0.1, "bot-1"))
        await asyncio.sleep(0.5)
        tried = dc.seen.count(IMPORT)
        dc.kill_token(dead)
        await asyncio.sleep(0.1)
        with pytest.raises(AccountUnavailable):
            await (await bots.sup.client("bot-0")).send_message(777, "to nobody")
        await until(lambda: bots.state() == "failed", 5)
        assert dc.seen.count(IMPORT) - tried <= 2
        calls = await load
        assert not failed(calls)
        assert max(call.took for call in calls) <= 0.5
        assert [bots.state(name) for name in bots.names] == ["failed", "online", "online"]
        assert bots.account()["last_failure"]["error_id"] == "ACCESS_TOKEN_EXPIRED"
        tried = dc.seen.count(IMPORT)
        await asyncio.sleep(1.5)
        assert dc.seen.count(IMPORT) == tried  # and it stays at that


async def test_a_duplicated_key_is_given_up(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """AUTH_KEY_DUPLICATED on a bot: the dead key is kept aside and never used again, the bot signs in once."""
    bots = fleet(1)
    async with bots.running() as sup:
        bot = bots.bots[0]
        load = asyncio.create_task(bots.load(4, 0.1))
        await asyncio.sleep(0.5)
        (key,) = bot.keys
        dc.revoke(bot, "AUTH_KEY_DUPLICATED", 406)
        calls = await load
        assert not failed(calls)
        assert bots.state() == "online"
        assert dc.seen.sign_ins[bot.user_id] == 2
        (old,) = await sup._assembly._db.old_sessions(f"bot:{bot.user_id}")
        assert old.session.auth_key == key.key
        rows = await bots.rows()
    assert "AUTH_KEY_DUPLICATED" in {row["error_id"] for row in rows}


async def test_a_flood_wait_at_the_sign_in_is_waited_out_once(
    dc: Datacenter, fleet: Callable[..., Any]
) -> None:
    """FLOOD_WAIT at ImportBotAuthorization is waited out in full; then there is one more sign-in, not a storm."""
    bots = fleet(2)
    dc.faults.add(Fault(FaultKind.RPC_ERROR, bots.bots[0].user_id, IMPORT, code=420, error="FLOOD_WAIT_4"))
    begun = time.monotonic()
    async with bots.running():
        assert 4.0 <= time.monotonic() - begun <= 8.0
        assert dc.seen.count(IMPORT, bots.bots[0].user_id) == 2
        assert dc.seen.count(IMPORT, bots.bots[1].user_id) == 1
        assert not dc.seen.early_calls
        rows = await bots.rows()
    assert (rows[0]["kind"], rows[0]["action"]) == ("flood_wait", "wait")
    assert rows[0]["delay_s"] >= 4


async def test_a_spent_sign_in_budget_suspends(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """Beyond sign_ins_per_hour there is no sign-in: the account is suspended until another one is allowed."""
    bots = fleet(1, sign_ins_per_hour=2)
    async with bots.running() as sup:
        bot, client = bots.bots[0], await sup.client("bot-0")
        dc.revoke(bot)
        await client.send_message(777, "through the second")
        assert dc.seen.sign_ins[bot.user_id] == 2
        dc.revoke(bot)
        with pytest.raises(AccountUnavailable) as refused:
            await client.send_message(777, "not through a third")
        assert refused.value.state == "suspended"
        assert refused.value.retry_at is not None
        wait = refused.value.retry_at.timestamp() - time.time()
        assert 3500 < wait <= 3600
        assert bots.account()["retry_at"] is not None
        assert dc.seen.count(IMPORT) == 2
    async with Supervisor(bots.config) as sup:  # a restart does not forget it
        bots.sup = sup
        await until(lambda: bots.state() == "suspended", 5)
    assert dc.seen.count(IMPORT) == 2


async def test_a_spam_limit_is_raised_and_shown(dc: Datacenter, fleet: Callable[..., Any]) -> None:
    """PEER_FLOOD reaches its caller at once and is never repeated; the account runs on, and is shown as limited."""
    bots = fleet(1)
    async with bots.running() as sup:
        bot, client = bots.bots[0], await sup.client("bot-0")
        await client.send_message(777, "before")
        calls = dc.seen.count("messages.SendMessage")
        dc.faults.add(
            Fault(FaultKind.RPC_ERROR, bot.user_id, "messages.SendMessage", code=400, error="PEER_FLOOD")
        )
        with pytest.raises(PeerFlood):
            await client.send_message(777, "spam")
        assert dc.seen.count("messages.SendMessage") == calls + 1
        assert bots.state() == "online"
        assert bots.account()["limited"]["error_id"] == "PEER_FLOOD"
        assert not bots.account()["limited"]["frozen"]
        await client.send_message(777, "all else works")
        rows = await bots.rows()
    assert [(row["error_id"], row["outcome"], row["incident"]) for row in rows] == [
        ("PEER_FLOOD", "raised", None)
    ]


# --- user accounts --------------------------------------------------------------------------------


class Site:
    """A supervisor with one user account, `sales-user`, and one bot beside it."""

    def __init__(self, dc: Datacenter, folder: Path, **keys: Any) -> None:
        self.dc = dc
        self.server: ServerAccount = dc.add_user(USER_ID, phone=PHONE, code=CODE, **keys)
        self.fleet = Fleet(dc, folder, 1)
        self.configure()

    def configure(self, **keys: Any) -> None:
        """Configure the user account."""
        account = Account("sales-user", phone=Secret(PHONE), **keys)
        config = self.fleet.config
        self.fleet.config = replace(config, accounts={**config.accounts, "sales-user": account})

    def settings(self, **settings: Any) -> None:
        """Change `[supervisor]`."""
        config = self.fleet.config
        self.fleet.config = replace(config, settings=replace(config.settings, **settings))

    @property
    def state(self) -> str:
        return self.fleet.state("sales-user")

    async def step(self, step: str, text: str = "") -> Any:
        """One step through the daemon."""
        return await self.fleet.sup.login("sales-user", step, text)

    async def online(self, seconds: float = 5.0) -> None:
        await until(lambda: self.state == "online", seconds, "sales-user online")

    @property
    def codes_sent(self) -> int:
        return self.dc.seen.codes_sent[USER_ID]


@pytest.fixture
def site(dc: Datacenter, tmp_path: Path) -> Site:
    return Site(dc, tmp_path)


@pytest.fixture
async def running(site: Site) -> AsyncIterator[Site]:
    """It runs, and the user account has asked for its login."""
    async with site.fleet.running():
        await until(lambda: site.state == "needs_login", 5)
        yield site


async def signed_in(site: Site) -> None:
    assert (await site.step("begin"))["next"] == "code"
    assert (await site.step("code", CODE))["next"] == "done"
    await site.online()


async def test_the_daemon_never_asks_for_a_code(dc: Datacenter, running: Site) -> None:
    """A user account without a session is `needs_login`: no code is sent, no connection opened, a retry changes nothing."""
    assert running.codes_sent == 0
    connections = len(dc.seen.connections)
    running.fleet.sup._pool.retry("sales-user")
    await asyncio.sleep(0.5)
    assert running.state == "needs_login"
    assert running.codes_sent == 0
    assert len(dc.seen.connections) == connections
    with pytest.raises(AccountUnavailable):
        await running.fleet.sup.client("sales-user")
    rows = await running.fleet.rows()
    assert {(row["error_id"], row["outcome"]) for row in rows} == {("LOGIN_REQUIRED", "needs_login")}


async def test_a_code_brings_the_account_online(dc: Datacenter, running: Site) -> None:
    """begin, code: the account comes online without a restart, with the key that it signed in with."""
    begun = await running.step("begin")
    assert (begun["next"], begun["type"], begun["length"], begun["timeout"]) == ("code", "app", 5, 60)
    assert "Telegram app" in begun["sent_to"]
    done = await running.step("code", CODE)
    assert (done["next"], done["user_id"], done["already"]) == ("done", USER_ID, False)
    await running.online()
    client = await running.fleet.sup.client("sales-user")
    assert (await client.get_me()).id == USER_ID
    assert running.fleet.account("sales-user")["is_bot"] is False
    assert (await running.step("begin"))["already"]
    assert (running.codes_sent, dc.seen.sign_ins[USER_ID]) == (1, 1)
    assert dc.seen.max_connections_per_key == 1
    assert not dc.seen.overlaps
    rows = await running.fleet.rows()
    assert [row["outcome"] for row in rows] == ["needs_login", "recovered"]


async def test_the_session_outlives_a_restart(dc: Datacenter, running: Site) -> None:
    """After a restart the account is online by the session that the login stored."""
    await signed_in(running)
    await running.fleet.sup.__aexit__(None, None, None)
    async with Supervisor(running.fleet.config) as sup:
        running.fleet.sup = sup
        await running.online()
    assert (running.codes_sent, dc.seen.sign_ins[USER_ID]) == (1, 1)


async def test_what_is_typed_wrong_is_asked_again(dc: Datacenter, tmp_path: Path) -> None:
    """A wrong code and a wrong password are asked for again, with the same code; the right ones sign in."""
    site = Site(dc, tmp_path, password=PASSWORD)
    async with site.fleet.running():
        await site.step("begin")
        for wrong in ("11111", "", "x y"):
            answer = await site.step("code", wrong)
            assert (answer["next"], answer["note"]) == ("code", "wrong_code")
        assert (await site.step("code", "5 43 21"))["next"] == "password"
        answer = await site.step("password", "open barley")
        assert (answer["next"], answer["note"]) == ("password", "wrong_password")
        assert (await site.step("password", PASSWORD))["next"] == "done"
        await site.online()
    assert (site.codes_sent, dc.seen.count("auth.CheckPassword")) == (1, 2)


@pytest.mark.parametrize(("stored", "then"), [(PASSWORD, "done"), ("open barley", "password")])
async def test_a_stored_password_is_tried_once(
    dc: Datacenter, tmp_path: Path, stored: str, then: str
) -> None:
    """The configured password is proved without a question; a wrong one once only, then the person is asked."""
    site = Site(dc, tmp_path, password=PASSWORD)
    site.configure(password=Secret(stored))
    async with site.fleet.running():
        await site.step("begin")
        answer = await site.step("code", CODE)
        assert answer["next"] == then
        assert dc.seen.count("auth.CheckPassword") == 1
        if then == "password":
            assert answer["note"] == "wrong_stored_password"
            assert (await site.step("password", PASSWORD))["next"] == "done"
            assert dc.seen.count("auth.CheckPassword") == 2
        await site.online()


async def test_a_sign_in_keeps_its_key_over_lost_connections(dc: Datacenter, tmp_path: Path) -> None:
    """Connections lost between and during the steps are dialled again with the same key; each step is done once."""
    site = Site(dc, tmp_path, password=PASSWORD)
    async with site.fleet.running():
        await site.step("begin")
        exchanges = dc.seen.key_exchanges
        dc.reset_links()
        code = asyncio.create_task(site.step("code", CODE))
        await asyncio.sleep(LATENCY * 2.7)  # it is on its way, or answered
        dc.reset_links()
        assert (await code)["next"] == "password"
        await dc.go_away()
        password = asyncio.create_task(site.step("password", PASSWORD))
        await asyncio.sleep(1.5)
        await dc.come_back()
        assert (await password)["next"] == "done"
        await site.online()
    assert dc.seen.key_exchanges == exchanges
    assert (site.codes_sent, dc.seen.sign_ins[USER_ID]) == (1, 1)


async def test_a_code_may_come_another_way(dc: Datacenter, running: Site) -> None:
    """A resend is refused before its time, sends the code by SMS after it, and there is no third way."""
    running.server.code_by_sms_after = 1
    begun = await running.step("begin")
    assert begun["resend"] == "sms"
    early = await running.step("resend")
    assert (early["next"], early["note"], running.codes_sent) == ("code", "too_early", 1)
    assert 0 < early["wait_s"] <= 1
    await asyncio.sleep(1.0)
    resent = await running.step("resend")
    assert (resent["next"], resent["type"], resent["note"]) == ("code", "sms", None)
    assert (await running.step("resend"))["note"] == "no_other_way"
    assert running.codes_sent == 2
    assert (await running.step("code", CODE))["next"] == "done"


async def test_an_expired_code_is_replaced_when_the_person_wants_it(dc: Datacenter, running: Site) -> None:
    """An expired code is said to be one; a new one is sent only when asked for, and counts in the budget."""
    await running.step("begin")
    running.server.code_hash = ""
    answer = await running.step("code", CODE)
    assert (answer["next"], answer["note"], running.codes_sent) == ("new_code", "code_expired", 1)
    assert (await running.step("new_code"))["next"] == "code"
    assert running.codes_sent == 2
    assert (await running.step("code", CODE))["next"] == "done"


async def test_a_cancelled_sign_in_leaves_nothing(dc: Datacenter, running: Site) -> None:
    """After cancel the code is void, the connection closed, and the account as it was."""
    await running.step("begin")
    open_before = dc.seen.open_connections
    assert (await running.step("cancel"))["next"] == "cancelled"
    await until(lambda: dc.seen.open_connections == open_before - 1, 2)
    assert running.server.code_hash == ""
    with pytest.raises(LoginRefused) as refused:
        await running.step("code", CODE)
    assert refused.value.code == "not_begun"
    assert (await running.step("cancel"))["next"] == "cancelled"
    assert running.state == "needs_login"


async def test_a_sign_in_is_taken_up_again(dc: Datacenter, running: Site) -> None:
    """Who begins again while a code is under way is not sent another one: the first is still good."""
    await running.step("begin")
    again = await running.step("begin")
    assert (again["next"], again["note"], running.codes_sent) == ("code", "pending", 1)
    assert (await running.step("code", CODE))["next"] == "done"


async def test_a_sign_in_that_nobody_goes_on_with_is_given_up(
    dc: Datacenter, running: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time limit the connection is closed and the step refused; another sign-in may begin."""
    monkeypatch.setattr("supervisor.logins.IDLE", 0.6)
    await running.step("begin")
    open_before = dc.seen.open_connections
    await until(lambda: dc.seen.open_connections == open_before - 1, 3)
    with pytest.raises(LoginRefused):
        await running.step("code", CODE)
    monkeypatch.setattr("supervisor.logins.IDLE", 60)
    await signed_in(running)


async def test_a_flood_wait_before_the_code_is_told_and_kept(dc: Datacenter, running: Site) -> None:
    """FLOOD_WAIT at sendCode is told with its length; until it is over nothing is sent, after a restart neither."""
    dc.faults.add(Fault(FaultKind.RPC_ERROR, None, "auth.SendCode", code=420, error="FLOOD_WAIT_120"))
    for _ in range(2):
        with pytest.raises(LoginRefused) as refused:
            await running.step("begin")
        assert (refused.value.code, refused.value.retryable) == ("flood", True)
        assert refused.value.wait == pytest.approx(120, abs=3)
    assert dc.seen.count("auth.SendCode") == 1
    await running.fleet.sup.__aexit__(None, None, None)
    async with logins_alone(running.fleet.config) as logins:
        with pytest.raises(LoginRefused) as refused:
            await logins.step("sales-user", "begin")
        assert refused.value.wait == pytest.approx(118, abs=5)
    assert dc.seen.count("auth.SendCode") == 1
    rows = await running.fleet.rows()
    assert ("FLOOD_WAIT_X", "raised") in {(row["error_id"], row["outcome"]) for row in rows}


async def test_a_flood_wait_in_the_middle_does_not_end_the_sign_in(dc: Datacenter, running: Site) -> None:
    """FLOOD_WAIT at signIn is told, and kept; then the same code signs in."""
    await running.step("begin")
    dc.faults.add(Fault(FaultKind.RPC_ERROR, None, "auth.SignIn", code=420, error="FLOOD_WAIT_2"))
    for _ in range(2):
        answer = await running.step("code", CODE)
        assert (answer["next"], answer["note"]) == ("code", "flood")
    assert dc.seen.count("auth.SignIn") == 1
    await asyncio.sleep(2.1)
    assert (await running.step("code", CODE))["next"] == "done"


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        ((400, "PHONE_NUMBER_BANNED"), "banned", False),
        ((400, "PHONE_NUMBER_FLOOD"), "flood", True),
        ((406, "PHONE_NUMBER_INVALID"), "configuration", False),
        ((400, "API_ID_INVALID"), "configuration", False),
        ((500, "AUTH_RESTART"), "failed", True),
    ],
)
async def test_a_refused_number_is_told_truly(
    dc: Datacenter, running: Site, error: tuple[int, str], code: str, retryable: bool
) -> None:
    """What Telegram says against a number is said, written down, and not tried again by itself."""
    running.server.sign_in_error = error
    with pytest.raises(LoginRefused) as refused:
        await running.step("begin")
    assert (refused.value.code, refused.value.retryable) == (code, retryable)
    assert error[1] in str(refused.value)
    assert dc.seen.count("auth.SendCode") == 1
    rows = await running.fleet.rows()
    assert (error[1], "raised", "auth.SendCode") in {(r["error_id"], r["outcome"], r["method"]) for r in rows}
    assert running.state == "needs_login"


async def test_codes_have_a_budget(dc: Datacenter, site: Site) -> None:
    """Beyond sign_ins_per_hour no code is asked for; when the next may be is told."""
    site.settings(sign_ins_per_hour=2)
    async with site.fleet.running():
        for _ in range(2):
            await site.step("begin")
            await site.step("cancel")
        with pytest.raises(LoginRefused) as refused:
            await site.step("begin")
        assert refused.value.code == "budget"
        assert refused.value.wait is not None
        assert 3500 < refused.value.wait <= 3600
    assert site.codes_sent == 2


async def test_only_user_accounts_are_signed_in(running: Site) -> None:
    """A bot needs no login, an unknown account has none, and there is no such step as "guess"."""
    for args, code in (
        (("bot-0", "begin", ""), "not_a_user"),
        (("nobody", "begin", ""), "unknown_account"),
        (("sales-user", "guess", ""), "bad_request"),
        (("sales-user", "code", CODE), "not_begun"),
    ):
        with pytest.raises(LoginRefused) as refused:
            await running.fleet.sup.login(*args)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("error", "number"),
    [("SESSION_REVOKED", 401), ("AUTH_KEY_UNREGISTERED", 401), ("AUTH_KEY_DUPLICATED", 406)],
)
async def test_a_user_whose_session_ended_needs_a_login(
    dc: Datacenter, running: Site, error: str, number: int
) -> None:
    """A session that ended is confirmed and given up; no code is asked for; its key is kept, aside after the login."""
    await signed_in(running)
    sup = running.fleet.sup
    client = await sup.client("sales-user")
    (key,) = running.server.keys
    dc.revoke(running.server, error, number)
    with pytest.raises(AccountUnavailable) as refused:
        await client.get_me()
    assert refused.value.state == "needs_login"
    assert running.state == "needs_login"
    assert running.codes_sent == 1
    identity = f"phone:{PHONE}"
    assert sup._assembly._db.account(identity).session.auth_key == key.key
    assert await sup._assembly._db.old_sessions(identity) == []
    await signed_in(running)
    (old,) = await sup._assembly._db.old_sessions(identity)
    assert old.session.auth_key == key.key
    assert sup._assembly._db.account(identity).session.auth_key != key.key
    assert (await client.get_me()).id == USER_ID  # the client of before goes on
    assert running.codes_sent == 2
    rows = await running.fleet.rows()
    assert error in {row["error_id"] for row in rows}


async def test_a_foreign_401_is_no_lost_session(dc: Datacenter, running: Site) -> None:
    """A call's 401 that updates.getState does not confirm costs a user account nothing but that attempt."""
    await signed_in(running)
    client = await running.fleet.sup.client("sales-user")
    await asyncio.sleep(0.5)  # it has learned who it is
    dc.faults.add(
        Fault(FaultKind.RPC_ERROR, USER_ID, "users.GetFullUser", code=401, error="AUTH_KEY_UNREGISTERED")
    )
    assert (await client.get_me()).id == USER_ID
    assert running.state == "online"
    assert (running.codes_sent, dc.seen.sign_ins[USER_ID]) == (1, 1)


async def test_a_user_whose_key_is_unknown_needs_a_login(dc: Datacenter, running: Site) -> None:
    """-404 three times in a row: the key is gone, and only a person can bring the account back."""
    await signed_in(running)
    dc.forget_keys(running.server)
    dc.reset_links()
    await until(lambda: running.state == "needs_login", 10)
    assert running.codes_sent == 1
    await signed_in(running)


async def test_nothing_private_is_written_down(
    dc: Datacenter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Number, code and password are in no log line, no row, no file but the storage, no answer, no repr."""
    caplog.set_level(logging.DEBUG)
    site = Site(dc, tmp_path, password=PASSWORD)
    site.configure(password=Secret("open barley"))
    answers: list[Any] = []
    async with site.fleet.running() as sup:
        answers.append(await site.step("begin"))
        answers += [repr(half) + repr(half.login) for half in sup._logins._halves.values()]
        answers.append(await site.step("code", "99887"))
        answers.append(await site.step("code", CODE))
        answers.append(await site.step("password", "open caraway"))
        answers.append(await site.step("password", PASSWORD))
        await site.online()
        running_rows = await site.fleet.rows()
    dc.ban(site.server)
    async with logins_alone(site.fleet.config) as logins:
        with pytest.raises(LoginRefused) as refused:
            await logins.step("sales-user", "begin")
    answers += [running_rows, await site.fleet.rows(), str(refused.value), repr(refused.value)]
    state = site.fleet.config.settings.state_dir
    recorded = b"".join(path.read_bytes() for path in state.glob("recovery.db*"))
    for secret in (PHONE.lstrip("+"), "99887", CODE, PASSWORD, "open barley", "open caraway"):
        assert secret not in repr(answers)
        assert secret not in caplog.text
        assert secret.encode() not in recorded


# --- where no daemon runs -------------------------------------------------------------------------


async def test_a_login_without_a_daemon_is_the_daemons_session(dc: Datacenter, site: Site) -> None:
    """The session that is made without a daemon is stored for it: begin, code, and the daemon starts online."""
    async with logins_alone(site.fleet.config) as logins:
        assert (await logins.step("sales-user", "begin"))["next"] == "code"
        assert (await logins.step("sales-user", "code", CODE))["next"] == "done"
        again = await logins.step("sales-user", "begin")
        assert (again["next"], again["already"], again["user_id"]) == ("done", True, USER_ID)
    assert dc.seen.open_connections == 0
    async with site.fleet.running():
        await site.online()
    assert (site.codes_sent, dc.seen.sign_ins[USER_ID], dc.seen.overlaps) == (1, 1, 0)


@pytest.mark.parametrize("how", ["revoked", "forgotten"])
async def test_a_dead_session_is_found_out_without_a_daemon(dc: Datacenter, site: Site, how: str) -> None:
    """Before "signed in already" is said, Telegram is asked: a dead session leads to a new sign-in."""
    async with logins_alone(site.fleet.config) as logins:
        await logins.step("sales-user", "begin")
        await logins.step("sales-user", "code", CODE)
    dc.revoke(site.server) if how == "revoked" else dc.forget_keys(site.server)
    async with logins_alone(site.fleet.config) as logins:
        assert (await logins.step("sales-user", "begin"))["next"] == "code"
        assert (await logins.step("sales-user", "code", CODE))["next"] == "done"
    async with site.fleet.running():
        await site.online()
    assert site.codes_sent == 2


async def test_an_unreachable_server_is_told_as_such(dc: Datacenter, site: Site) -> None:
    """Where Telegram is not reached the sign-in is refused for now, and no sign-in is counted."""
    await dc.go_away()
    async with logins_alone(site.fleet.config) as logins:
        for _ in range(5):
            with pytest.raises(LoginRefused) as refused:
                await logins.step("sales-user", "begin")
            assert refused.value.retryable
            assert "refused" in str(refused.value)
        await dc.come_back()
        assert (await logins.step("sales-user", "begin"))["next"] == "code"
