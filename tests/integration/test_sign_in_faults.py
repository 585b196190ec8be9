"""Sign-in under faults: each step meets each kind of failure. Bounded, budgeted, gone on with, and told truly.

Two tables, `BOTS` and `PEOPLE`, whose rows are played at once and judged one by one. Timings are a fifth of the defaults.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.model import Account, Secret
from supervisor.daemon import Supervisor
from supervisor.datacenter import Cluster, Datacenter, Fault, FaultKind
from supervisor.errors import LoginRefused
from tests.integration.conftest import Fleet, until
from tests.integration.scripted_peers import serving, tolled
from tests.integration.together import FIFTH, POLICIES, Played, asked_for, play_together
from tests.integration.watch import one_incident, watched

pytestmark = pytest.mark.timeout(150)

IMPORT = "auth.ImportBotAuthorization"
PHONE, CODE, PASSWORD, USER_ID = "+4915112345678", "54321", "open sesame", 5_000_010
BOT, USER = "bot-0", "sales-user"


def fleet_of(dc: Datacenter, folder: Path, bots: int, **settings: Any) -> Fleet:
    """A fleet at a fifth of the timings."""
    fleet = Fleet(dc, folder, bots, **(FIFTH | settings))
    fleet.config = replace(fleet.config, policies=POLICIES)
    return fleet


def counted(fleet: Fleet) -> int:
    """How many sign-ins the budget has counted."""
    with closing(sqlite3.connect(fleet.config.settings.state_dir / "recovery.db")) as db:
        (number,) = db.execute("SELECT count(*) FROM sign_ins").fetchone()
    return int(number)


# --- bots: auth.ImportBotAuthorization ------------------------------------------------------------


@dataclass(frozen=True)
class BotRow:
    """One failure of a bot's sign-in.

    `asked`: how often Telegram has executed the request; `spent`: of the budget. `within` 0: it does not come online.
    """

    id: str
    fault: Callable[[Datacenter, Any], object]
    says: str
    kind: str
    action: str
    asked: int = 1
    spent: int = 1
    within: float = 6.0
    not_before: float = 0.0
    state: str = "online"
    error_id: str | None = None


@dataclass
class BotStory:
    """What became of it."""

    took: float = 0.0
    state: str = ""
    retry_at: str | None = None
    asked: int = 0
    signed_in: int = 0
    spent: int = 0
    early: int = 0
    keys: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)


def fails(kind: FaultKind, count: int | None = 1, **what: Any) -> Callable[[Datacenter, Any], object]:
    """A fault of the import; nobody is signed in yet, so it is meant for whoever asks."""
    return lambda dc, _bot: dc.faults.add(Fault(kind, None, IMPORT, count, **what))


def answers(code: int, error: str, count: int | None = 1) -> Callable[[Datacenter, Any], object]:
    """Telegram answers the import with an error."""
    return fails(FaultKind.RPC_ERROR, count, code=code, error=error)


def _slow(dc: Datacenter, _bot: Any) -> None:
    dc.latency = 0.6


BOTS = (
    BotRow(
        "reset-before",
        fails(FaultKind.DROP_BEFORE),
        "connection reset by",
        "connection",
        "reconnect",
        spent=2,
    ),
    BotRow("answer-lost", fails(FaultKind.DROP_AFTER), "connection reset by", "connection", "reconnect"),
    BotRow(
        "answer-withheld",
        fails(FaultKind.SILENCE),
        f"no answer to {IMPORT} in 3 s",
        "connection",
        "reconnect",
        within=8,
    ),
    BotRow(
        "flood-wait",
        answers(420, "FLOOD_WAIT_2"),
        "[420 FLOOD_WAIT_2]",
        "flood_wait",
        "wait",
        asked=2,
        spent=2,
        not_before=2.0,
        within=8,
        error_id="FLOOD_WAIT_X",
    ),
    BotRow(
        "500", answers(500, "RPC_CALL_FAIL", 2), "[500 RPC_CALL_FAIL]", "temporary", "retry", asked=3, spent=3
    ),
    BotRow(
        "500-for-ever",
        answers(500, "RPC_CALL_FAIL", None),
        "[500 RPC_CALL_FAIL]",
        "temporary",
        "retry",
        asked=3,
        spent=3,
        state="suspended",
        within=0,
    ),
    BotRow("-503", answers(-503, "Timeout"), "[-503 Timeout]", "temporary", "retry", asked=2, spent=2),
    BotRow(
        "401", answers(401, "SESSION_REVOKED"), "[401 SESSION_REVOKED]", "auth", "relogin", asked=2, spent=2
    ),
    BotRow(
        "406",
        answers(406, "UPDATE_APP_TO_LOGIN", None),
        "[406 UPDATE_APP_TO_LOGIN]",
        "auth",
        "fail",
        state="failed",
        within=0,
    ),
    BotRow(
        "token-expired",
        lambda dc, bot: dc.kill_token(bot, revoke=False),
        "[400 ACCESS_TOKEN_EXPIRED]",
        "auth",
        "fail",
        state="failed",
        within=0,
    ),
    BotRow(
        "transport-404",
        fails(FaultKind.TRANSPORT, code=-404),
        "transport -404",
        "connection",
        "reconnect",
        spent=2,
    ),
    BotRow(
        "transport-429",
        fails(FaultKind.TRANSPORT, code=-429),
        "transport -429",
        "rate_limit",
        "wait",
        spent=2,
        within=12,
        not_before=5.0,
    ),
    BotRow("slow", _slow, "", "", "", within=16),
)


async def play_bot(row: BotRow, folder: Path) -> BotStory:
    """Let a bot sign in, and wait for what becomes of it."""
    story = BotStory()
    async with Datacenter(latency=0.01) as dc:
        fleet = fleet_of(dc, folder, 1)
        row.fault(dc, fleet.bots[0])
        begun = time.monotonic()
        async with Supervisor(fleet.config) as sup:
            fleet.sup = sup
            await until(lambda: fleet.state() == row.state, (row.within or 8) + 8, f"{row.id}: {row.state}")
            story.took = time.monotonic() - begun
            if not row.within:
                await asyncio.sleep(1.5)  # and it stays at that
            story.state, story.retry_at = fleet.state(), fleet.account()["retry_at"]
            story.rows = await fleet.rows()
        story.asked, story.early = dc.seen.count(IMPORT), len(dc.seen.early_calls)
        story.signed_in = dc.seen.sign_ins[fleet.bots[0].user_id]
        story.keys = dc.seen.key_exchanges
        story.spent = counted(fleet)
    return story


# --- people: the code and the password ------------------------------------------------------------


@dataclass(frozen=True)
class PersonRow:
    """One failure of one step of a person's sign-in.

    `told`: the note beside what comes next, the code of a refusal, or None where the person notices nothing.
    `codes`: how many were sent in all, `spent` counts those that were asked for. `over`: the sign-in cannot be.
    """

    id: str
    method: str
    fault: Callable[[Datacenter, str], object]
    told: str | None = None
    says: str = ""  # of a refusal
    codes: int = 1
    spent: int = 1
    over: bool = False
    within: float = 8.0


@dataclass
class PersonStory:
    """What became of it, as the person saw it and as Telegram did."""

    told: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    took: float = 0.0
    codes: int = 0
    signed_in: int = 0
    spent: int = 0
    early: int = 0
    exchanges: int = 0
    state: str = ""


def meets(kind: FaultKind, count: int | None = 1, **what: Any) -> Callable[[Datacenter, str], object]:
    """The step's method meets a fault."""
    return lambda dc, method: dc.faults.add(Fault(kind, None, method, count, **what))


def gets(code: int, error: str) -> Callable[[Datacenter, str], object]:
    """The step's method is answered with an error, once."""
    return meets(FaultKind.RPC_ERROR, code=code, error=error)


def _answer_and_session_lost(dc: Datacenter, method: str) -> None:
    """The answer is lost with the connection, and the server forgets the session, answers and all."""
    fault = dc.faults.add(Fault(FaultKind.DROP_AFTER, None, method, 1))

    async def forget() -> None:
        while not fault.happened:
            await asyncio.sleep(0.001)
        dc.forget_sessions()

    task = asyncio.ensure_future(forget())
    dc.forgetting = task  # type: ignore[attr-defined] # referenced for as long as the datacenter


def _steps(method: str) -> list[PersonRow]:
    is_first = method == "auth.SendCode"
    name = method.rpartition(".")[2]
    passing: dict[str, Any] = {"told": "failed", "spent": 2} if is_first else {"told": "try_again"}
    lost: dict[str, Any] = (
        {"told": "failed", "says": "the session was reset", "spent": 2, "codes": 2} if is_first else {}
    )
    if method == "account.GetPassword":
        lost = {"told": "try_again"}
    over: dict[str, Any] = {"over": True, "spent": 1, "codes": 0 if is_first else 1}
    return [
        PersonRow(f"{name}-reset-before", method, meets(FaultKind.DROP_BEFORE)),
        PersonRow(f"{name}-answer-lost", method, meets(FaultKind.DROP_AFTER)),
        PersonRow(f"{name}-answer-withheld", method, meets(FaultKind.SILENCE), within=10),
        PersonRow(f"{name}-session-lost", method, _answer_and_session_lost, **lost),
        PersonRow(
            f"{name}-flood-wait",
            method,
            gets(420, "FLOOD_WAIT_2"),
            told="flood",
            spent=2 if is_first else 1,
            within=10,
        ),
        PersonRow(f"{name}-500", method, gets(500, "RPC_CALL_FAIL"), says="RPC_CALL_FAIL", **passing),
        PersonRow(f"{name}--503", method, gets(-503, "Timeout"), says="-503 Timeout", **passing),
        PersonRow(
            f"{name}-401",
            method,
            gets(401, "SESSION_REVOKED"),
            told="failed",
            says="401 SESSION_REVOKED",
            spent=2,
            codes=1 if is_first else 2,
        ),
        PersonRow(
            f"{name}-406",
            method,
            gets(406, "UPDATE_APP_TO_LOGIN"),
            told="configuration",
            says="UPDATE_APP_TO_LOGIN",
            **over,
        ),
        PersonRow(
            f"{name}-banned",
            method,
            gets(400, "PHONE_NUMBER_BANNED"),
            told="banned",
            says="PHONE_NUMBER_BANNED",
            **over,
        ),
        PersonRow(f"{name}-transport-404", method, meets(FaultKind.TRANSPORT, code=-404)),
        PersonRow(f"{name}-transport-429", method, meets(FaultKind.TRANSPORT, code=-429)),
    ]


def _everything_slow(dc: Datacenter, _method: str) -> None:
    dc.latency = 0.6


PEOPLE = (
    *(row for method in ("auth.SendCode", "auth.SignIn") for row in _steps(method)),
    *(row for method in ("account.GetPassword", "auth.CheckPassword") for row in _steps(method)),
    PersonRow("everything-slow", "", _everything_slow, within=25),
)


async def play_person(row: PersonRow, folder: Path) -> PersonStory:
    """Sign in as a person would who does what is said, until it is done or over."""
    story = PersonStory()
    async with Datacenter(latency=0.01) as dc:
        await asyncio.to_thread(dc.add_user, USER_ID, phone=PHONE, code=CODE, password=PASSWORD)
        fleet = fleet_of(dc, folder, 1)
        account = Account(USER, phone=Secret(PHONE))
        fleet.config = replace(fleet.config, accounts={USER: account})
        async with Supervisor(fleet.config) as sup:
            fleet.sup = sup
            await until(lambda: fleet.state(USER) == "needs_login", 5)
            row.fault(dc, row.method)
            begun = time.monotonic()
            await _sign_in(sup, row, story)
            story.took = time.monotonic() - begun
            if not row.over:
                await until(lambda: fleet.state(USER) == "online", 8, f"{row.id}: online")
            story.state = fleet.state(USER)
        story.codes, story.signed_in = dc.seen.codes_sent[USER_ID], dc.seen.sign_ins[USER_ID]
        story.early, story.exchanges = len(dc.seen.early_calls), dc.seen.key_exchanges
        story.spent = counted(fleet)
    return story


async def _sign_in(sup: Supervisor, row: PersonRow, story: PersonStory) -> None:
    step = "begin"
    for _ in range(8):
        typed = {"code": CODE, "password": PASSWORD}.get(step, "")
        try:
            answer = dict(await sup.login(USER, step, typed))
        except LoginRefused as refused:
            story.told.append(refused.code)
            story.said.append(str(refused))
            if row.over:
                return
            answer = {"next": "begin", "wait_s": refused.wait}
        if answer.get("note"):
            story.told.append(answer["note"])
        if answer.get("wait_s"):
            story.waits.append(answer["wait_s"])
            await asyncio.sleep(answer["wait_s"] + 0.05)
        step = answer["next"]
        if step == "done":
            return
    pytest.fail(f"{row.id}: not signed in; told {story.told}, {story.said}")


# --- the run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """What became of the rows that are asked for."""

    def play(row: BotRow | PersonRow) -> Callable[[], Awaitable[Any]]:
        folder = tmp_path_factory.mktemp("row")
        return lambda: play_bot(row, folder) if isinstance(row, BotRow) else play_person(row, folder)

    rows: list[BotRow | PersonRow] = [*BOTS, *PEOPLE]
    return play_together({row.id: play(row) for row in asked_for(request, rows)})


@pytest.mark.parametrize("row", BOTS, ids=lambda row: row.id)
def test_a_bots_sign_in_meets(row: BotRow, played: Played) -> None:
    """Signed in once, asked no oftener than needed, every request counted before it left, the cause in the record."""
    story: BotStory = played.of(row.id)
    assert story.state == row.state
    assert (story.asked, story.spent) == (row.asked, row.spent)
    assert story.signed_in == (row.state == "online")
    assert not story.early
    assert row.not_before <= story.took <= (row.within or 12)
    assert (story.retry_at is not None) == (row.state == "suspended")
    if not row.says:
        assert story.rows == []
        return
    first, *_, last = one_incident(story.rows) if len(story.rows) > 1 else story.rows * 2
    assert row.says in first["message"]
    assert (first["kind"], first["action"]) == (row.kind, row.action)
    assert row.error_id in (None, first["error_id"])
    assert last["outcome"] == {"online": "recovered"}.get(row.state, row.state)


@pytest.mark.parametrize("row", PEOPLE, ids=lambda row: row.id)
def test_a_persons_sign_in_meets(row: PersonRow, played: Played) -> None:
    """The person is told what is true and what to do, gets no second code for a lost link, and is signed in once."""
    story: PersonStory = played.of(row.id)
    assert story.told == ([] if row.told is None else [row.told]), story.said
    assert all(re.search(row.says, said) for said in story.said), story.said
    assert (story.codes, story.spent) == (row.codes, row.spent)
    assert story.signed_in == (not row.over)
    assert story.state == ("needs_login" if row.over else "online")
    assert story.exchanges == 1 + ("failed" in story.told or (row.told == "flood" and row.spent == 2))
    assert not story.early
    assert story.took <= row.within
    assert len(story.waits) == (row.told == "flood")
    assert all(1.0 < wait <= 2.0 for wait in story.waits)


def test_nothing_of_it_stays_and_nothing_blocks(played: Played) -> None:
    """After all of it: no task, thread or file more, no stray exception, no loop iteration above 100 ms of CPU."""
    played.judge_watch()


async def test_a_sign_in_that_a_stop_cut_short_is_not_asked_for_again(tmp_path: Path) -> None:
    """Stopped between the sign-in and its answer, the daemon asks at its next start who is signed in: nobody signs in twice."""
    async with Datacenter(latency=0.01) as dc:
        fleet = fleet_of(dc, tmp_path, 1)
        withheld = dc.faults.add(Fault(FaultKind.SILENCE, None, IMPORT, None))
        async with watched():
            async with Supervisor(fleet.config):
                await until(lambda: dc.seen.count(IMPORT) == 1, 5, "the sign-in")
            dc.faults.remove(withheld)
            async with fleet.running():
                assert fleet.account()["user_id"] == fleet.bots[0].user_id
        assert (dc.seen.count(IMPORT), dc.seen.sign_ins[fleet.bots[0].user_id], counted(fleet)) == (1, 1, 1)


# --- 303: on to another datacenter ----------------------------------------------------------------


@pytest.mark.parametrize("fault", ["none", "reset", "answer-lost", "silent-exchange"])
async def test_a_bot_is_followed_to_its_datacenter(tmp_path: Path, fault: str) -> None:
    """USER_MIGRATE_4, and the new datacenter fails at first: one sign-in, counted as few times as it was asked for."""
    async with Cluster(2, 4, latency=0.01) as cluster:
        fleet = fleet_of(cluster[2], tmp_path, 1)
        bot = fleet.bots[0]
        cluster.move(bot, 4)
        async with watched():
            if fault == "reset":
                cluster[4].faults.add(Fault(FaultKind.DROP_BEFORE, None, IMPORT))
            elif fault == "answer-lost":
                cluster[4].faults.add(Fault(FaultKind.DROP_AFTER, None, IMPORT))
            elif fault == "silent-exchange":
                cluster[4].silent()
            async with Supervisor(fleet.config) as sup:
                fleet.sup = sup
                if fault == "silent-exchange":
                    await until(lambda: fleet.account()["last_failure"], 8, "a failure")
                    cluster[4].speak()
                await until(lambda: fleet.state() == "online", 10, "online")
                client = await sup.client(BOT)
                assert (await client.get_me()).id == bot.user_id
                rows = await fleet.rows()
        assert (cluster[2].seen.sign_ins[bot.user_id], cluster[4].seen.sign_ins[bot.user_id]) == (0, 1)
        assert cluster[2].seen.count(IMPORT) == 1
        spent = counted(fleet)
        again = Supervisor(fleet.config)
        async with again as sup:  # it knows where it is at home
            await sup.client(BOT)
        assert cluster[2].seen.count(IMPORT) == 1
        assert len(cluster[2].seen.connections) <= 2
    assert spent == {"reset": 2, "silent-exchange": 2}.get(fault, 1)
    assert bool(rows) == (fault != "none")


@pytest.mark.parametrize("fault", ["none", "reset", "answer-lost", "lost-at-the-move"])
async def test_a_person_is_followed_to_the_datacenter(tmp_path: Path, fault: str) -> None:
    """PHONE_MIGRATE_4, and the new datacenter fails at first: one code, one sign-in, and the person notices nothing."""
    async with Cluster(2, 4, latency=0.01) as cluster:
        cluster[4].add_user(USER_ID, phone=PHONE, code=CODE)
        fleet = fleet_of(cluster[2], tmp_path, 0)
        fleet.config = replace(fleet.config, accounts={USER: Account(USER, phone=Secret(PHONE))})
        async with watched(), Supervisor(fleet.config) as sup:
            fleet.sup = sup
            await until(lambda: fleet.state(USER) == "needs_login", 5)
            if fault == "reset":
                cluster[4].faults.add(Fault(FaultKind.DROP_BEFORE, None, "auth.SendCode"))
            elif fault == "answer-lost":
                cluster[4].faults.add(Fault(FaultKind.DROP_AFTER, None, "auth.SendCode"))
            elif fault == "lost-at-the-move":
                await cluster[4].go_away()
                asyncio.get_running_loop().call_later(
                    1.2, lambda: asyncio.ensure_future(cluster[4].come_back())
                )
            assert (await sup.login(USER, "begin", ""))["next"] == "code"
            assert (await sup.login(USER, "code", CODE))["next"] == "done"
            await until(lambda: fleet.state(USER) == "online", 5, "online")
        assert (cluster[4].seen.codes_sent[USER_ID], cluster[2].seen.codes_sent[USER_ID]) == (1, 0)
        assert (cluster[4].seen.sign_ins[USER_ID], counted(fleet)) == (1, 1)
        async with Supervisor(fleet.config) as sup:
            await sup.client(USER)
            session = sup._assembly._db.account(f"phone:{PHONE}").session
            assert (session.dc_id, session.server) == (4, (cluster[4].host, cluster[4].port))
            assert cluster[4].seen.open_connections == 1


# --- the key exchange of a person's sign-in -------------------------------------------------------


@pytest.mark.parametrize("then", ["reset", "silent", "-404", "-429"])
@pytest.mark.parametrize("packet", [1, 2, 3])
async def test_a_sign_in_whose_key_exchange_fails_is_told_and_costs_nothing(
    tmp_path: Path, packet: int, then: str
) -> None:
    """No key, no code: the cause is told, nothing is counted, and the next attempt goes through."""
    says = {"reset": "connection reset", "silent": "no answer to", "-404": "-404", "-429": "-429"}
    async with Datacenter(latency=0.01) as dc, serving(tolled(dc.port, packet, then, [1])) as port:
        dc.add_user(USER_ID, phone=PHONE, code=CODE)
        fleet = fleet_of(dc, tmp_path, 0, connect_timeout=0.5)
        server = fleet.config.telegram.server
        assert server is not None
        telegram = replace(fleet.config.telegram, server=replace(server, port=port))
        account = Account(USER, phone=Secret(PHONE))
        fleet.config = replace(fleet.config, telegram=telegram, accounts={USER: account})
        async with Supervisor(fleet.config) as sup:
            fleet.sup = sup
            await until(lambda: fleet.state(USER) == "needs_login", 5)
            with pytest.raises(LoginRefused, match=says[then]) as refused:
                await sup.login(USER, "begin", "")
            assert refused.value.retryable
            assert counted(fleet) == 0
            assert (await sup.login(USER, "begin", ""))["next"] == "code"
            assert (await sup.login(USER, "code", CODE))["next"] == "done"
        assert (dc.seen.codes_sent[USER_ID], counted(fleet)) == (1, 1)
