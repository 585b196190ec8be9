"""Every id that a step of signing in may be answered with: the bot or the person as the table says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.model import Account, Secret
from supervisor.datacenter import Cluster, Datacenter, Fault, FaultKind
from supervisor.errors import LoginRefused
from tests.integration.conftest import until
from tests.integration.every_id import Line, of_sign_ins
from tests.integration.id_bench import IMPORT, Bench, outcome, shown, told

pytestmark = pytest.mark.timeout(90)
PHONE, CODE, PASSWORD, USER = "+4915112345678", "54321", "open sesame", 5_000_010
# Which step of a user's sign-in Telegram answers so.
AT_THE_CODE = {
    "PHONE_CODE_EMPTY",
    "PHONE_CODE_INVALID",
    "PHONE_CODE_EXPIRED",
    "PHONE_CODE_HASH_EMPTY",
    "PHONE_HASH_EXPIRED",
    "PHONE_NUMBER_UNOCCUPIED",
}
AT_THE_PASSWORD = {"PASSWORD_HASH_INVALID", "PHONE_PASSWORD_FLOOD"}
ELSEWHERE = {
    "SEND_CODE_UNAVAILABLE",
    "ACCESS_TOKEN_EXPIRED",
    "ACCESS_TOKEN_INVALID",
    "SESSION_PASSWORD_NEEDED",
}


@pytest.fixture
async def dc() -> AsyncIterator[Datacenter]:
    """A datacenter next door."""
    async with Datacenter() as datacenter:
        yield datacenter


async def test_ids_that_a_bots_sign_in_meets(dc: Datacenter, tmp_path: Path) -> None:
    """`fail`: the bot is failed, without a second sign-in. `relogin` and `retry`: signed in at the next attempt."""
    bench = Bench(dc, tmp_path)
    bot = bench.fleet.bots[0]
    ends = dict.fromkeys(of_sign_ins("fail", "account"), "failed")
    ends |= dict.fromkeys((*of_sign_ins("relogin", "session"), *of_sign_ins("retry", "session")), "online")
    async with bench.running():
        for line, state in ends.items():
            dc.revoke(bot, "AUTH_KEY_UNREGISTERED")
            bench.fault(line, IMPORT)
            asked = dc.seen.count(IMPORT)
            result = await bench.type()
            bench.check(line, "state", bench.fleet.state(), state)
            bench.check(
                line, "result", getattr(result, "state", result), "failed" if state == "failed" else True
            )
            bench.check(line, "sign-ins", dc.seen.count(IMPORT) - asked, 1 if state == "failed" else 2)
            if state == "failed":
                await bench.fleet.sup.retry(["bot-0"])
                await bench.client()
        rows = await bench.rows("bot-0")
    for line, state in ends.items():
        found = [row for row in shown(rows) if row[0] == line.error_id]
        if state == "failed":
            assert told(line, scope="account")("fail", "failed") in [
                (*row[:2], line.kind, *row[3:]) for row in found
            ]
        else:
            assert [row[5] for row in found][:1] == ["retrying"], found


async def test_a_flood_wait_at_a_bots_sign_in(dc: Datacenter, tmp_path: Path) -> None:
    """FLOOD_WAIT_1 of ImportBotAuthorization holds the sign-in for a second, and there is one more."""
    (line,) = of_sign_ins("wait", "session")
    bench = Bench(dc, tmp_path)
    async with bench.running():
        dc.revoke(bench.fleet.bots[0], "AUTH_KEY_UNREGISTERED")
        bench.fault(line, IMPORT)
        begun = time.monotonic()
        assert await bench.type() is True
        assert 1.0 <= time.monotonic() - begun <= 4.0
        assert dc.seen.count(IMPORT) == 3
        rows = await bench.rows("bot-0")
    waiting = next(row for row in shown(rows) if row[0] == line.error_id)
    assert waiting == told(line, scope="session")("wait", "retrying")


class SignIns:
    """A user account that signs in with a code and a password, as often as is wanted."""

    def __init__(self, dc: Datacenter, directory: Path) -> None:
        self.dc = dc
        self.bench = Bench(dc, directory, 0)
        dc.add_user(USER, phone=PHONE, code=CODE, password=PASSWORD)
        account = Account("user", phone=Secret(PHONE))
        self.bench.fleet.config = replace(self.bench.fleet.config, accounts={"user": account})

    async def step(self, step: str, text: str = "") -> Any:
        """What a step gives, or what it is refused with."""
        return await outcome(self.bench.fleet.sup.login("user", step, text))

    async def answered(self, line: Line) -> Any:
        """Begin a sign-in whose step is answered with this id, and go as far as that step."""
        method, steps = "auth.SendCode", [("begin", "")]
        if line.error_id in AT_THE_CODE:
            method, steps = "auth.SignIn", [("begin", ""), ("code", CODE)]
        elif line.error_id in AT_THE_PASSWORD:
            method, steps = "auth.CheckPassword", [("begin", ""), ("code", CODE), ("password", PASSWORD)]
        fault = Fault(FaultKind.RPC_ERROR, None, method, code=line.code, error=line.sent)
        self.dc.faults.add(fault)
        result: Any = None
        for step in steps:
            result = await self.step(*step)
        self.bench.check(line, "met", fault.happened, 1)
        return result


async def test_ids_that_a_users_sign_in_meets(dc: Datacenter, tmp_path: Path) -> None:
    """What a person can mend is a note; what they cannot ends the sign-in for good; the rest may be begun again."""
    site = SignIns(dc, tmp_path)
    check = site.bench.check
    async with site.bench.running():
        await until(lambda: site.bench.fleet.state("user") == "needs_login")
        for line in of_sign_ins("raise", "session"):
            if line.error_id in ELSEWHERE:
                continue
            answer = await site.answered(line)
            assert isinstance(answer, dict), answer
            check(line, "asked again", (answer["next"], answer["note"]), ("code", "wrong_code"))
            await site.step("cancel")
        for line in of_sign_ins("fail", "account"):
            if line.error_id in ELSEWHERE:
                continue
            answer = await site.answered(line)
            if line.error_id == "PASSWORD_HASH_INVALID":  # the person is there, and may know another
                check(line, "asked again", (answer["next"], answer["note"]), ("password", "wrong_password"))
            else:
                check(
                    line, "refused", (type(answer), getattr(answer, "retryable", None)), (LoginRefused, False)
                )
            await site.step("cancel")
        for line in (*of_sign_ins("relogin", "session"), *of_sign_ins("wait", "account")):
            if line.error_id in ELSEWHERE:
                continue
            answer = await site.answered(line)
            again = answer["next"] == "new_code" if isinstance(answer, dict) else type(answer) is LoginRefused
            check(line, "begun again", again, True)
            if line.action == "wait":
                check(line, "flood", getattr(answer, "code", answer), "flood")
            await site.step("cancel")
        assert site.bench.fleet.state("user") == "needs_login"
        assert not dc.seen.sign_ins
        await site.step("begin")
        await site.step("code", CODE)
        assert (await site.step("password", PASSWORD))["next"] == "done"
        await until(lambda: site.bench.fleet.state("user") == "online")


async def test_a_bot_whose_home_moved_signs_in_there(tmp_path: Path) -> None:
    """USER_MIGRATE_4 to a stored session: a new key, a sign-in that is sent on to datacenter 4, and the call is answered."""
    async with Cluster(2, 4) as cluster:
        bench = Bench(cluster[2], tmp_path)
        async with bench.running():
            assert await bench.type() is True
            cluster.move(bench.fleet.bots[0], 4)
            assert await bench.type() is True
            assert bench.fleet.state() == "online"
            rows = shown(await bench.rows("bot-0"))
        assert [(row[0], row[2], row[4], row[5]) for row in rows] == [
            ("USER_MIGRATE_X", "auth", "relogin", "retrying"),
            ("USER_MIGRATE_X", "auth", "relogin", "recovered"),
        ]
        assert [sum(dc.seen.sign_ins.values()) for dc in cluster] == [1, 1]
