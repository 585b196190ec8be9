"""Every id of the error table, answered over the wire: the caller, the account's state and the record as the table says."""

from __future__ import annotations

import asyncio
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from struct import pack

import pytest
from pyrogram import raw

from supervisor.config.model import Account, Secret
from supervisor.datacenter import Datacenter, Fault, FaultKind
from supervisor.errors import OutcomeUnknown
from tests.integration.conftest import PERSON, until
from tests.integration.every_id import Fate, Line, fate, lines, of_fate, without_repeats
from tests.integration.id_bench import (
    SEND,
    TYPING,
    Bench,
    Row,
    compare,
    is_the_librarys,
    outcome,
    shown,
    told,
)

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def dc() -> AsyncIterator[Datacenter]:
    """A datacenter next door."""
    async with Datacenter() as datacenter:
        yield datacenter


def test_the_table_has_every_id() -> None:
    """938 rows of the two libraries' ids, 12 besides, and each has one fate."""
    assert len(lines()) == 938 + 12
    assert sum(len(of_fate(one)) for one in Fate) == len(lines())
    assert {one: len(of_fate(one)) for one in Fate if one is not Fate.RAISED} == {
        Fate.LIMITED: 7,
        Fate.DONE: 29,
        Fate.DONE_IF_REPEATED: 1,
        Fate.REDRAWN: 2,
        Fate.RETRIED: 69,
        Fate.UNKNOWN_OUTCOME: 3,
        Fate.WAITED: 6,
        Fate.RELOGIN: 9,
        Fate.RECONNECTED: 2,
        Fate.FAILED: 8,
    }


async def test_ids_that_concern_a_call_alone(dc: Datacenter, tmp_path: Path) -> None:
    """Raised once, flagged, a success, or sent again under our cap: each caller gets what its row says; the bot is online."""
    bench = Bench(dc, tmp_path)
    expected: list[Row] = []
    async with bench.running():
        await bench.type()
        for line in lines():
            expected += await _one_call(bench, line, fate(line))
            bench.check(line, "state", bench.fleet.state(), "online")
        rows = await bench.rows("bot-0")
        assert dc.seen.sign_ins.total() == 1
        assert len(dc.seen.connections) == 1
    compare(shown(rows), expected)
    assert all(row["method"] == TYPING or row["error_id"] == "BOT_SCORE_NOT_MODIFIED" for row in rows)
    assert all((row["incident"] is None) == (row["outcome"] == "raised") for row in rows)


async def _one_call(bench: Bench, line: Line, expected: Fate) -> list[Row]:
    judge = {
        Fate.RAISED: _raised,
        Fate.LIMITED: _limited,
        Fate.DONE: _done,
        Fate.RETRIED: _retried,
        Fate.UNKNOWN_OUTCOME: _unknown,
    }.get(expected)
    return [] if judge is None else await judge(bench, line)


async def _raised(bench: Bench, line: Line) -> list[Row]:
    before = bench.calls()
    bench.fault(line)
    bench.check(line, "raised", is_the_librarys(line, await bench.type()), True)
    bench.check(line, "sendings", bench.calls() - before, 1)
    bench.check(line, "limited", bench.fleet.account()["limited"], None)
    kind = "permanent" if line.error_id == "PHONE_NUMBER_BANNED" else line.kind  # the number is the caller's
    return [told(line, kind=kind, scope="call")("fail", "raised")]


async def _limited(bench: Bench, line: Line) -> list[Row]:
    bench.fault(line)
    bench.check(line, "raised", is_the_librarys(line, await bench.type()), True)
    limited = bench.fleet.account()["limited"] or {}
    flag = limited.get("error_id"), limited.get("frozen")
    bench.check(line, "limited", flag, (line.error_id, "frozen" in line.note))
    await bench.fleet.sup.retry(["bot-0"])
    return [told(line)("fail", "raised")]


async def _done(bench: Bench, line: Line) -> list[Row]:
    bench.fault(line)
    bench.check(line, "result", await bench.type(), True)
    return []


async def _retried(bench: Bench, line: Line) -> list[Row]:
    row = told(line, scope="call")
    bench.fault(line)
    before = bench.calls()
    bench.check(line, "result", await bench.type(), True)
    bench.check(line, "sendings", bench.calls() - before, 2)
    fault = bench.fault(line, count=None)
    before = bench.calls()
    bench.check(line, "raised at the cap", is_the_librarys(line, await bench.type()), True)
    bench.check(line, "sendings at the cap", bench.calls() - before, 1 + 3)
    bench.dc.faults.remove(fault)
    again = row("retry", "retrying")
    return [again, row("retry", "recovered"), again, again, again, row("fail", "failed")]


async def _unknown(bench: Bench, line: Line) -> list[Row]:
    bench.fault(line)
    before = bench.calls()
    bench.check(line, "raised", type(await bench.type()), OutcomeUnknown)
    bench.check(line, "sendings", bench.calls() - before, 1)
    return [told(line)("retry", "raised")]


# --- What a repeat of the same call means ----------------------------------------------------------------


async def test_ids_that_speak_of_an_earlier_try(dc: Datacenter, tmp_path: Path) -> None:
    """A bad draw is drawn anew; a score that is not modified is the caller's matter at first, and a success on a repeat."""
    bench = Bench(dc, tmp_path)
    async with bench.running():
        client = await bench.client()
        for line in of_fate(Fate.REDRAWN):
            bench.fault(line, SEND)
            message = await client.send_message(PERSON, f"drawn anew {line.code}")
            bench.check(line, "delivered", dc.seen.times_delivered(message.text), 1)
        (line,) = of_fate(Fate.DONE_IF_REPEATED)
        score = raw.functions.messages.SetGameScore(
            peer=await client.resolve_peer(PERSON), id=1, user_id=raw.types.InputUserSelf(), score=3
        )
        bench.fault(line, "messages.SetGameScore")
        bench.check(line, "first", is_the_librarys(line, await outcome(client.invoke(score))), True)
        dc.faults.add(
            Fault(FaultKind.RPC_ERROR, None, "messages.SetGameScore", code=500, error="RPC_CALL_FAIL")
        )
        bench.fault(line, "messages.SetGameScore")
        bench.check(line, "repeated", (await client.invoke(score)).updates, [])
        for line in of_fate(Fate.UNKNOWN_OUTCOME):
            bench.fault(line, SEND)
            message = await client.send_message(PERSON, f"once {line.sent}")
            bench.check(line, "delivered", dc.seen.times_delivered(message.text), 1)
            bench.fault(line, "messages.GetBotCallbackAnswer")
            press = raw.functions.messages.GetBotCallbackAnswer(peer=score.peer, msg_id=1, data=b"x")
            bench.check(line, "pressed", is_the_librarys(line, await outcome(client.invoke(press))), True)
        bench.check(line, "presses", bench.calls("messages.GetBotCallbackAnswer"), 3)


# --- Waits ----------------------------------------------------------------------------------------------


async def test_ids_that_demand_a_wait(dc: Datacenter, tmp_path: Path) -> None:
    """Each is waited out and answered, nothing of that method leaves early, the bot stays online; a minute is a minute."""
    waits = of_fate(Fate.WAITED)
    bench = Bench(dc, tmp_path, len(waits))
    async with bench.running():
        await asyncio.gather(*(_waited(bench, line, n) for n, line in enumerate(waits)))
        rows = {line: await bench.rows(f"bot-{n}") for n, line in enumerate(waits)}
    for line, found in rows.items():
        row = told(line)
        over_the_cap = "MINUTES" in line.note
        assert shown(found) == (
            [row("fail", "raised")] if over_the_cap else [row("wait", "retrying"), row("wait", "recovered")]
        )
    assert not dc.seen.early_calls


async def _waited(bench: Bench, line: Line, bot: int) -> None:
    name, method = f"bot-{bot}", SEND if line.error_id.startswith("SLOWMODE") else TYPING
    client = await bench.client(name)
    await outcome(client.send_message(PERSON, "before"))
    bench.fault(line, method, bot)
    begun = time.monotonic()
    call = client.send_message(PERSON, "waited") if method == SEND else bench.type(name)
    result = await outcome(call)
    took = time.monotonic() - begun
    if "MINUTES" in line.note:
        bench.check(line, "raised", is_the_librarys(line, result), True)
        later = await bench.type(name)
        bench.check(line, "still to wait", 58 <= getattr(later, "value", 0) <= 60, True)
    else:
        bench.check(line, "result", isinstance(result, Exception), False)
        bench.check(line, "waited", 1.0 <= took <= 4.0, True)
    bench.check(line, "state", bench.fleet.state(name), "online")


# --- The session, the link, the account -----------------------------------------------------------------


async def test_ids_that_end_a_bots_session(dc: Datacenter, tmp_path: Path) -> None:
    """The bot signs in again by its token, once, the call is answered, and the record names the id."""
    bench = Bench(dc, tmp_path)
    bot, expected = bench.fleet.bots[0], []
    async with bench.running():
        for n, line in enumerate(of_fate(Fate.RELOGIN), 2):
            dc.revoke(bot, line.sent, line.code)
            bench.check(line, "result", await bench.type(), True)
            bench.check(line, "state", bench.fleet.state(), "online")
            bench.check(line, "sign-ins", dc.seen.sign_ins[bot.user_id], n)
            row = told(line, kind="auth")
            if "reconnect once" in line.note:
                expected += [told(line, kind="connection")("reconnect", "retrying")]
            expected += [row("relogin", "retrying"), row("relogin", "recovered")]
        rows = await bench.rows("bot-0")
    compare(
        [row for row in shown(rows) if row[5] == "recovered"],
        [row for row in expected if row[5] == "recovered"],
    )
    assert set(shown(rows)) == set(expected)


async def test_ids_that_end_a_users_session(dc: Datacenter, tmp_path: Path) -> None:
    """A user needs a person: the call is refused, the account is `needs_login`, no code is asked for."""
    told_so = without_repeats(of_fate(Fate.RELOGIN))
    bench = Bench(dc, tmp_path, 0)
    users = [dc.add_user(5_000_000 + n) for n in range(len(told_so))]
    names = [f"user-{n}" for n in range(len(users))]
    strings = [Secret(session_string(dc, user.user_id, dc.issue_key(user))) for user in users]
    accounts = {
        name: Account(name, session_string=string) for name, string in zip(names, strings, strict=True)
    }
    bench.fleet.config = replace(bench.fleet.config, accounts=accounts)
    bench.fleet.names = names
    async with bench.running():
        for name, user, line in zip(names, users, told_so, strict=True):
            client = await bench.client(name)
            dc.revoke(user, line.sent, line.code)
            error = await outcome(client.invoke(raw.functions.users.GetUsers(id=[raw.types.InputUserSelf()])))
            bench.check(line, "raised", getattr(error, "state", error), "needs_login")
            bench.check(line, "state", bench.fleet.state(name), "needs_login")
        rows = await bench.fleet.rows()
        for name, line in zip(names, told_so, strict=True):
            (*_, last) = (row for row in rows if row["account"] == name)
            bench.check(line, "last row", shown([last]), [told(line, kind="auth")("fail", "needs_login")])
        assert not dc.seen.codes_sent


def session_string(dc: Datacenter, user_id: int, key: bytes) -> str:
    """A key as both libraries carry it about."""
    packed = pack(">BI?256sQ?", dc.dc_id, 12345, False, key, user_id, False)
    return urlsafe_b64encode(packed).decode().rstrip("=")


async def test_ids_that_end_an_account_or_its_link(dc: Datacenter, tmp_path: Path) -> None:
    """`fail`: the account is failed until a person says retry. `reconnect`: the call goes out over another link."""
    bench = Bench(dc, tmp_path)
    expected: list[Row] = []
    async with bench.running():
        for line in of_fate(Fate.FAILED):
            bench.fault(line)
            error = await bench.type()
            bench.check(line, "raised", getattr(error, "state", error), "failed")
            bench.check(line, "state", bench.fleet.state(), "failed")
            await bench.fleet.sup.retry(["bot-0"])
            expected.append(told(line)("fail", "failed"))
        for line in of_fate(Fate.RECONNECTED):
            links = len(dc.seen.connections)
            bench.fault(line)
            bench.check(line, "result", await bench.type(), True)
            bench.check(line, "new links", len(dc.seen.connections) - links, 1)
            expected += [told(line)("reconnect", "retrying"), told(line)("reconnect", "recovered")]
        rows = await bench.rows("bot-0")
        assert dc.seen.sign_ins.total() == 1
    compare(shown(rows), expected)


async def test_a_layer_that_is_refused_three_times_in_a_row_is_too_old(
    dc: Datacenter, tmp_path: Path
) -> None:
    """CONNECTION_LAYER_INVALID on two fresh links is retried, on the third the account is failed."""
    (line,) = (line for line in lines() if "three in a row" in line.note)
    bench = Bench(dc, tmp_path)
    async with bench.running():
        fault = bench.fault(line, "InitConnection", count=None)
        dc.reset_links()
        await until(lambda: bench.fleet.state() == "failed", 10)
        assert fault.happened == 3
        rows = [row for row in shown(await bench.rows("bot-0")) if row[0] == line.error_id]
        again = told(line)("reconnect", "retrying")
        assert rows == [again, again, told(line, kind="permanent", scope="account")("fail", "failed")]
        dc.faults.remove(fault)
        await bench.fleet.sup.retry(["bot-0"])
        assert await bench.type() is True


# --- Ids in no table ------------------------------------------------------------------------------------

# What telegram-errors-defaults says of a code alone; 401 and 429 are the session's.
DEFAULTS = {
    303: Fate.RAISED, 400: Fate.RAISED, 403: Fate.RAISED, 404: Fate.RAISED, 406: Fate.RAISED,
    500: Fate.RETRIED, 502: Fate.RETRIED, 503: Fate.RETRIED, 504: Fate.RETRIED, -503: Fate.UNKNOWN_OUTCOME,
}  # fmt: skip
KINDS = {
    303: "migrate",
    500: "temporary",
    502: "temporary",
    503: "temporary",
    504: "temporary",
    -503: "temporary",
}


async def test_ids_in_no_table(dc: Datacenter, tmp_path: Path) -> None:
    """The code decides: raised, sent again, waited for as long as the id says, or asked of updates.getState first."""
    bench = Bench(dc, tmp_path, 2)
    expected: list[Row] = []
    async with bench.running():
        for code, meant in DEFAULTS.items():
            line = Line(code, "NEVER_HEARD_OF", KINDS.get(code, "permanent"), "raise", "call", "")
            expected += await _one_call(bench, line, meant)
        for code, kind, action in ((401, "auth", "relogin"), (429, "rate_limit", "wait")):
            line = Line(code, "NEVER_HEARD_OF", kind, action, "session", "")
            bench.fault(line)
            bench.check(line, "result", await bench.type(), True)
            ended = "retry" if code == 401 else action  # nothing was to be done: the session was good
            expected += [told(line)(action, "retrying"), told(line)(ended, "recovered")]
        for sent in ("FLOOD_NEVER_HEARD_OF", f"FLOOD_UNTIL_{2 * 10**9}"):
            line = Line(420, sent, "flood_wait", "raise", "call", "")
            bench.fault(line)
            bench.check(line, "raised", is_the_librarys(line, await bench.type()), True)
        line = Line(420, "NEVER_HEARD_OF_1", "flood_wait", "wait", "call", "")
        bench.fault(line, bot=1)
        begun = time.monotonic()
        bench.check(line, "result", await bench.type("bot-1"), True)
        bench.check(line, "waited", 1.0 <= time.monotonic() - begun <= 3.5, True)
        assert dc.seen.sign_ins.total() == 2
        rows = await bench.rows("bot-0")
        compare(shown(rows[:-2]), expected)
        assert [row["kind"] for row in rows[-2:]] == ["flood_wait"] * 2
        (waited, _) = await bench.rows("bot-1")
        assert waited["error_id"] == "NEVER_HEARD_OF_X"
