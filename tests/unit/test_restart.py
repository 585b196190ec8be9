"""An account over a restart, and under the waits of its own attempts. Virtual time; jitter is 0."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

import pytest

from supervisor.account import Account
from supervisor.core.events import Pause, Retry
from supervisor.core.failure import DEFAULT_POLICIES, Action, Kind, Result, Row, Scope, Source, State
from supervisor.core.lifecycle import Rules
from supervisor.core.standing import Standing
from supervisor.errors import AccountUnavailable
from supervisor.ports import AccountSnapshot, FloodRow
from tests.unit.fakes import FakeClock, FakeLink, FakeRecorder, failed, settle, virtual
from tests.unit.test_account import LOST, START, USER, Make, call, make, running

__all__ = ["make"]  # the fixture

BANNED = failed(Source.RPC, "USER_DEACTIVATED_BAN", error_id="USER_DEACTIVATED_BAN", code=401)
NOBODY = failed(Source.RPC, "nobody is signed in", error_id="LOGIN_REQUIRED", code=401, step="sign-in")
FLOODED = failed(Source.RPC, "FLOOD_WAIT_120", error_id="FLOOD_WAIT_120", code=420, method="updates.GetState")


Case = tuple[Exception, Rules, State, str]


def goes_on(make: Make, recorder: FakeRecorder, account: Account, **plan: object) -> Account:
    """The account in the next process, of what is on the disk."""
    left, incident = recorder.accounts[-1], account.left().incident
    plan = {
        "before": left,
        "incident": incident if incident is not None and incident.is_open else None,
        **plan,
    }
    return make(rules=account.plan.rules, **plan)


@virtual
async def test_a_suspended_account_waits_out_its_pause_in_the_next_process(
    make: Make, link: FakeLink, recorder: FakeRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped 20 s after it was suspended: the probe comes 40 s later, in the same incident, and the next after 120 s."""
    link.attempts.extend([LOST] * 9)
    account = make(configured="x")
    async with running(account):
        while account.state is not State.SUSPENDED:
            await asyncio.sleep(1.0)
        retry_at = account.snapshot().retry_at
        await asyncio.sleep(20.0)
    assert (recorder.accounts[-1].state, recorder.accounts[-1].retry_at) == (State.SUSPENDED, retry_at)
    caplog.set_level(logging.WARNING)
    opened, rows = len(link.opened), len(recorder.rows)
    account = goes_on(make, recorder, account, configured="x")
    async with running(account):
        with pytest.raises(AccountUnavailable, match=r"suspended.*connection reset"):
            await call(account)
        assert account.snapshot().retry_at == retry_at
        assert "bot is suspended since " in caplog.text
        assert "connection: connection reset; it is tried again at 2023-11-14 " in caplog.text
        await asyncio.sleep(38.0)
        assert len(link.opened) == opened
        await asyncio.sleep(3.0)
        assert len(link.opened) == opened + 1
        probe = recorder.rows[rows]
        assert (probe.outcome, probe.delay) == (Result.SUSPENDED, 120.0)
    assert len({row.incident for row in recorder.rows}) == 1


@pytest.mark.parametrize(
    "case",
    [
        (BANNED, Rules(DEFAULT_POLICIES), State.FAILED, "`tg-supervisor retry bot` tries it again"),
        (NOBODY, USER, State.NEEDS_LOGIN, "`tg-supervisor login bot` signs it in"),
    ],
)
@virtual
async def test_what_awaits_a_person_is_not_tried_by_a_restart(
    make: Make, link: FakeLink, recorder: FakeRecorder, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    """Not once, and through two restarts; the log says so, once, and how to go on. A person's word tries it."""
    trouble, rules, state, way_on = case
    link.attempts.append(trouble)
    account = make(rules=rules)
    async with running(account):
        await settle()
        assert account.state is state
        since = account.snapshot().since
    caplog.set_level(logging.WARNING)
    opened = len(link.opened)
    for _ in range(2):
        caplog.clear()
        account = goes_on(make, recorder, account)
        async with running(account):
            await asyncio.sleep(1e6)
            assert (account.state, account.snapshot().since, len(link.opened)) == (state, since, opened)
            (told,) = [record.getMessage() for record in caplog.records]
            assert told.startswith(f"bot is {state.value} since 2023-11-14 22:30:00 UTC: auth: ")
            assert told.endswith(f"; {way_on}")
            with pytest.raises(AccountUnavailable, match=state.value):
                await account.online()
    account = goes_on(make, recorder, account)
    async with running(account):
        await settle()
        account.tell(Retry())
        await account.heeded()
        await account.online()
        assert len(link.opened) == opened + 1


@virtual
async def test_what_is_configured_otherwise_is_tried(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """Another token, say; but whoever was paused stays so."""
    link.attempts.append(BANNED)
    account = make(configured="one token")
    async with running(account):
        await settle()
    account = goes_on(make, recorder, account, configured="another")
    async with running(account):
        await account.online()
        account.tell(Pause())
        await account.heeded()
    account = goes_on(make, recorder, account, configured="a third")
    async with running(account):
        await asyncio.sleep(1e6)
        assert (account.state, len(link.opened)) == (State.PAUSED, 2)


@virtual
async def test_whoever_is_put_in_its_place_goes_on_where_it_stood(make: Make, link: FakeLink) -> None:
    """A reload that replaces a failed account does not try it, and knows who it is."""
    link.attempts.append(BANNED)
    account = make()
    async with running(account):
        await settle()
    left = account.left()
    assert left.before is not None
    assert left.before.state is State.FAILED
    link.user_id = None  # not opened any more
    account = make(before=left.before)
    async with running(account):
        await asyncio.sleep(1e6)
        assert (account.state, len(link.opened), account.snapshot().user_id) == (State.FAILED, 1, 7)


@virtual
async def test_a_fault_of_this_program_keeps_nobody_off(
    make: Make, link: FakeLink, recorder: FakeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No order of a person could mend a driver that broke: the next process begins anew."""
    account = make()
    task = asyncio.create_task(account.run())
    await account.online()
    monkeypatch.setattr(account, "_perform", None)
    account.link_lost(LOST.evidence)
    with pytest.raises(ExceptionGroup):
        await task
    monkeypatch.undo()
    assert recorder.accounts[-1].state is State.FAILED
    account = goes_on(make, recorder, account)
    async with running(account):
        await account.online()


@virtual
async def test_what_an_older_release_has_left_begins_anew_unless_it_is_paused(
    make: Make, link: FakeLink
) -> None:
    """It saved no standing."""
    for state, opened in ((State.FAILED, 1), (State.PAUSED, 1)):
        account = make(before=AccountSnapshot("bot", state, START, "direct"))
        async with running(account):
            await settle()
        assert len(link.opened) == opened


@virtual
async def test_the_cause_is_remembered_as_that_of_the_incident(make: Make, recorder: FakeRecorder) -> None:
    """A row of the bot's own code that came last does not make it the account's trouble."""
    code = Row(
        START, "bot", "direct", Scope.CALL, Kind.UNKNOWN, Action.FAIL, Result.RAISED, "KeyError: 'x'"
    )  # fmt: skip
    account = make()
    async with running(account):
        account.link_lost(LOST.evidence)
        await settle()
        incident = replace(account.left().incident, closed_at=None, ended=None)  # type: ignore[type-var]
    before = AccountSnapshot(
        "bot", State.SUSPENDED, START, "direct", last_failure=code, standing=Standing(State.SUSPENDED, START)
    )
    account = make(before=before, incident=incident)
    async with running(account):
        await account.online()
    assert (recorder.rows[-1].outcome, recorder.rows[-1].kind) == (Result.RECOVERED, Kind.CONNECTION)


# --- Flood waits of attempts ----------------------------------------------------------------------------


def floods(recorder: FakeRecorder) -> Mapping[tuple[str, str | None], float]:
    return {(row.method, row.peer): row.seconds for row in recorder.floods}


@virtual
async def test_a_flood_wait_of_an_attempt_holds_for_all_to_come(
    make: Make, link: FakeLink, recorder: FakeRecorder, clock: FakeClock
) -> None:
    """It is on the disk; an impatient person changes nothing, and no connection is opened before its end."""
    link.attempts.append(FLOODED)
    account = make()
    async with running(account):
        await asyncio.sleep(10.0)
        assert floods(recorder) == {("updates.GetState", None): 120.0}
        for _ in range(3):
            account.tell(Retry())
            await asyncio.sleep(10.0)
        assert (account.state, link.opened) == (State.RECOVERING, [0.0])
        again = recorder.rows[-1]
        assert (again.kind, again.error_id) == (Kind.FLOOD_WAIT, "FLOOD_WAIT_X")
        assert again.message == "Telegram wants no updates.GetState for 90 s more"
        assert floods(recorder) == {("updates.GetState", None): 120.0}
        await account.online()
        assert 120.0 <= link.opened[1] <= 121.0


@virtual
async def test_a_flood_wait_of_a_proof_holds_for_attempts_too(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """A link that is lost under it is not replaced before its end; nor is a proof asked for."""
    link.proofs.append(FLOODED)
    account = make(prove_every=10.0)
    async with running(account):
        await asyncio.sleep(15.0)
        assert isinstance(recorder.floods[-1], FloodRow)
        assert floods(recorder) == {("updates.GetState", None): 120.0}
        account.link_lost(LOST.evidence)
        await asyncio.sleep(60.0)
        assert (account.state, link.done.count("prove"), len(link.opened)) == (State.RECOVERING, 1, 1)
        await account.online()
        assert link.opened[1] >= 130.0
