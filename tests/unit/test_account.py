"""One account, driven through its troubles. Virtual time, in seconds from its start; jitter is 0."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import ModuleType
from typing import Any

import pytest

from supervisor import actions
from supervisor.account import Account, AccountPlan
from supervisor.calls import Calls
from supervisor.core.budget import SignInBudget
from supervisor.core.events import Pause, Retry, Stop
from supervisor.core.failure import (
    DEFAULT_POLICIES,
    Action,
    Evidence,
    Failure,
    Kind,
    Remedy,
    Result,
    Row,
    Scope,
    Source,
    State,
)
from supervisor.core.incident import Incident
from supervisor.core.lifecycle import Rules
from supervisor.errors import AccountUnavailable
from supervisor.gate import Gate, Limits
from supervisor.outages import Fleet, Outages
from supervisor.ports import AccountSnapshot, Diagnosis, Limited, RpcFailed
from tests.unit.fakes import (
    NOW,
    FakeClient,
    FakeClock,
    FakeLink,
    FakePaths,
    FakeQueries,
    FakeRecorder,
    Query,
    failed,
    settle,
    virtual,
)

START = NOW + 1000.0
USER = Rules(DEFAULT_POLICIES, can_relogin=False)
SEND = "messages.SendMessage"

NOBODY = Fleet(population=dict, is_down=lambda _: False, excuse=lambda _: None)

Make = Callable[..., Account]


@pytest.fixture
def make(
    link: FakeLink, paths: FakePaths, queries: FakeQueries, recorder: FakeRecorder, clock: FakeClock
) -> Make:
    ids = iter(f"i{n}" for n in range(1, 100_000))

    def make_account(starting: AbstractAsyncContextManager[Any] | None = None, **plan: Any) -> Account:
        account = Account(
            AccountPlan("bot", **{"rules": Rules(DEFAULT_POLICIES), **plan}),
            paths,
            Outages(recorder, clock, NOBODY, new_id=lambda: next(ids), stable_after=60.0),
            recorder,
            clock,
            starting=starting,
            jitter=lambda: 0.0,
            new_id=lambda: next(ids),
            evidence_of=evidence_of,
            evidence_of_code=evidence_of,
            dispatcher=actions.Dispatcher(actions.builtin(), lambda *_: None),
        )
        calls = Calls(
            "bot",
            Gate("bot", recorder, clock, Limits(), queries.flood_wait),
            link,
            queries,
            clock,
            journal=account.journal,
            policies=DEFAULT_POLICIES,
            overrides={},
            jitter=lambda: 0.0,
            new_id=lambda: next(ids),
            report=account.call_failed,
        )
        account.wire(link, calls)
        return account

    return make_account


def evidence_of(error: BaseException, *, step: str, path: str) -> Evidence:
    return Evidence(Source.CODE, str(error), step=step, path=path)


@asynccontextmanager
async def running(account: Account) -> AsyncIterator[asyncio.Task[None]]:
    """Run an account; stop it at the end, whatever its state."""
    task = asyncio.create_task(account.run())
    await settle()
    try:
        yield task
    finally:
        account.tell(Stop())
        await task


def call(account: Account, query: Query | None = None) -> asyncio.Task[Any]:
    return asyncio.create_task(account._attempts._calls.call(query or Query()))


LOST = failed()
NO_KEY = failed(Source.TRANSPORT, "-404", code=-404)
REVOKED = failed(
    Source.RPC, "SESSION_REVOKED", error_id="SESSION_REVOKED", code=401, method="updates.GetState"
)
UNREGISTERED = RpcFailed(401, "AUTH_KEY_UNREGISTERED", "upload.GetFile")
DEAD_PROXY = failed(Source.PROXY, "refused", path="de1")


# --- Coming online --------------------------------------------------------------------------------------


@virtual
async def test_an_account_comes_online_by_an_answered_rpc(
    make: Make, link: FakeLink, paths: FakePaths, recorder: FakeRecorder
) -> None:
    """Not before; then its handlers run, its calls leave, and its state is saved."""
    link.attempts.append(2.0)
    account = make()
    async with running(account):
        assert (account.state, account.snapshot().user_id, account.snapshot().is_bot) == (
            State.STARTING,
            7,
            True,
        )
        waiting = call(account)
        await asyncio.sleep(1.9)
        assert (account.state, link.sent) == (State.STARTING, [])
        await account.online()
        assert (account.state, link.times) == (State.ONLINE, [2.0])
        await waiting
        await settle()
        assert account.client is link.client
        assert link.client.begun == 1
        assert (paths.slots, recorder.rows) == (["direct"], [])
        assert [saved.state for saved in recorder.accounts] == [State.STARTING, State.ONLINE]
        assert account.snapshot().since == START + 2.0


@virtual
async def test_only_so_many_accounts_start_at_once(make: Make, link: FakeLink) -> None:
    """The second begins when the first is done; a reconnect later asks nobody."""
    link.attempts.extend([5.0, 5.0])
    starting = asyncio.Semaphore(1)
    first, second = make(starting), make(starting)
    async with running(first), running(second):
        await asyncio.sleep(10.0)
        assert link.opened == [0.0, 5.0]
        async with starting:
            first.link_lost(LOST.evidence)
            await settle()
            assert first.state is State.ONLINE


@virtual
async def test_what_cannot_be_prepared_needs_a_person(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """An unreadable session: failed at once, its cause recorded; after the repair `retry` brings it online."""
    link.unprepared = ValueError("not a session")
    account = make()
    async with running(account):
        assert (account.state, link.opened) == (State.FAILED, [])
        assert (recorder.rows[0].message, recorder.rows[0].outcome) == ("not a session", Result.FAILED)
        link.unprepared = None
        account.tell(Retry())
        await settle()
        await account.online()


@virtual
async def test_an_attempt_that_ends_in_an_unforeseen_way_is_a_failure_like_any(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """A fault of ours is recorded, retried under a cap, and kills no driver."""
    link.attempts.extend([ZeroDivisionError("by zero")] * 2)
    account = make()
    async with running(account):
        await account.online()
        assert link.opened == [0.0, 1.0, 3.0]
        assert recorder.results == [Result.RETRYING, Result.RETRYING, Result.RECOVERED]
        assert (recorder.rows[0].message, recorder.rows[0].kind) == ("by zero", Kind.UNKNOWN)


# --- A lost link ----------------------------------------------------------------------------------------


@virtual
async def test_a_lost_link_is_replaced_at_once_and_calls_wait_for_it(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """The rows tell the incident from its first failure to the proof; the call leaves on the new link."""
    account = make()
    async with running(account):
        link.attempts.extend([LOST, 0.5])
        account.link_lost(LOST.evidence)
        waiting = call(account)
        await asyncio.sleep(1.2)
        assert (account.state, link.sent) == (State.RECOVERING, [])
        await waiting
        assert (link.opened, link.times) == ([0.0, 0.0, 1.0], [1.5])
        assert recorder.results == [Result.RETRYING, Result.RETRYING, Result.RECOVERED]
        assert [row.delay for row in recorder.rows] == [0.0, 1.0, 0.0]
        assert [row.duration for row in recorder.rows] == [None, None, 1.5]
        assert len({row.incident for row in recorder.rows}) == 1
        assert [(row.outcome, row.failures) for row in recorder.incidents] == [
            (None, 1),
            (None, 2),
            (Result.RECOVERED, 2),
        ]
        assert recorder.incidents[1].attempts == {"connection": 2}
        assert recorder.incidents[1].backoff == {"connection": 1}
        last = account.snapshot().last_failure
        assert (last, account.snapshot().incident) == (recorder.rows[1], None)


@virtual
async def test_news_of_a_link_that_is_gone_is_dropped(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """Whoever tells the same loss again counts nothing."""
    account = make()
    async with running(account):
        link.attempts.append(5.0)
        for _ in range(5):
            account.link_lost(LOST.evidence)
        await asyncio.sleep(1.0)
        assert recorder.results == [Result.RETRYING]
        assert link.opened == [0.0, 0.0]


@virtual
async def test_at_the_cap_the_account_is_suspended_and_comes_back_by_itself(
    make: Make, link: FakeLink
) -> None:
    """Calls fail fast meanwhile, with the time of the next try; what was unanswered is given up."""
    account = make()
    async with running(account):
        link.attempts.extend([LOST] * 4)
        account.link_lost(LOST.evidence)
        waiting = call(account)
        await asyncio.sleep(10.0)
        assert account.state is State.SUSPENDED
        assert account.snapshot().retry_at == START + 63.0
        assert account.snapshot().incident is not None
        assert "give up" in link.done
        for refused in (waiting, call(account)):
            with pytest.raises(AccountUnavailable, match="suspended") as caught:
                await refused
            assert caught.value.retry_at is not None
            assert caught.value.retry_at.timestamp() == START + 63.0
        await account.online()
        assert link.opened == [0.0, 0.0, 1.0, 3.0, 63.0, 183.0]
        assert await call(account) == "ok"


@virtual
async def test_an_overdue_link_gets_no_new_calls(make: Make, link: FakeLink) -> None:
    """Until it answers."""
    account = make()
    async with running(account):
        account.link_overdue()
        waiting = call(account)
        await asyncio.sleep(1.0)
        assert link.sent == []
        account.link_answers(0)
        await waiting
        assert account.state is State.ONLINE


# --- Paths ----------------------------------------------------------------------------------------------


@virtual
async def test_on_a_broken_path_nothing_is_tried_and_nothing_spent(
    make: Make, link: FakeLink, paths: FakePaths, recorder: FakeRecorder
) -> None:
    """For an hour: recovering, not suspended; when the path answers, the account comes back."""
    account = make()
    async with running(account):
        link.attempts.append(LOST)
        paths.broken.add("direct")
        account.link_lost(LOST.evidence)
        await asyncio.sleep(3600.0)
        assert (account.state, len(link.opened)) == (State.RECOVERING, 2)
        assert recorder.incidents[-1].attempts == {}
        paths.broken.clear()
        paths.mended.set()
        await account.online()
        assert len(link.opened) == 3


@virtual
async def test_a_failed_proxy_is_left_for_another(
    make: Make, link: FakeLink, paths: FakePaths, recorder: FakeRecorder
) -> None:
    """At once; the path left behind is looked at; status, rows and later calls name the new one."""
    account = make(candidates=("de1", "nl3"))
    async with running(account):
        assert account.snapshot().path == "de1"
        link.attempts.extend([DEAD_PROXY])
        account.link_lost(LOST.evidence)
        await settle()
        assert account.state is State.ONLINE
        assert [word for word in link.done if word.startswith("open")] == ["open de1", "open de1", "open nl3"]
        assert (paths.diagnosed, paths.slots) == (["de1"], ["de1", "de1", "nl3"])
        assert (account.snapshot().path, account.journal.path) == ("nl3", "nl3")
        rows = [(row.path, row.action) for row in recorder.rows]
        assert rows == [("de1", Action.RECONNECT), ("de1", Action.ROTATE_PROXY), ("nl3", Action.ROTATE_PROXY)]


@virtual
async def test_a_broken_path_is_left_where_there_is_another(
    make: Make, link: FakeLink, paths: FakePaths
) -> None:
    """Telegram does not answer behind the proxy: the account moves, and its caps are whole."""
    account = make(candidates=("de1", "nl3"))
    async with running(account):
        link.attempts.append(LOST)
        paths.broken.add("de1")
        account.link_lost(LOST.evidence)
        await settle()
        assert account.state is State.ONLINE
        assert account.snapshot().path == "nl3"


@virtual
async def test_where_every_proxy_is_broken_an_account_waits_on_its_own(
    make: Make, link: FakeLink, paths: FakePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It left it because nothing came any more; the others are silent too, so it was Telegram: it goes back."""

    async def all_broken(*_: object) -> Diagnosis:
        return Diagnosis(broken=True)

    monkeypatch.setattr(paths, "diagnose", all_broken)
    silence = failed(Source.SILENCE, "nothing came", path="de1")
    account = make(candidates=("de1", "nl3"))
    async with running(account):
        link.attempts.append(silence)
        account.link_lost(silence.evidence)
        await settle()
        assert (account.state, account.snapshot().path) == (State.RECOVERING, "de1")
        paths.mended.set()
        await account.online()
        assert [word for word in link.done if word.startswith("open")] == ["open de1", "open nl3", "open de1"]


@virtual
async def test_a_callback_that_knows_no_proxy_is_asked_to_the_cap(
    make: Make, link: FakeLink, paths: FakePaths, recorder: FakeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times, further and further apart; then the account waits for its path, and is not suspended."""
    account = make(candidates=("de1",))
    monkeypatch.setattr(account._means.dispatcher, "is_overridden", lambda _: True)
    async with running(account):
        paths.broken.add("de1")
        link.attempts.extend([DEAD_PROXY] * 5)
        account.link_lost(DEAD_PROXY.evidence)
        await asyncio.sleep(3600.0)
        assert account.state is State.RECOVERING
        assert [row.delay for row in recorder.rows] == [0.0, 5.0, 10.0, 0.0]
        link.attempts.clear()
        paths.mended.set()
        await account.online()


@virtual
async def test_the_only_proxy_is_tried_again_while_it_answers(
    make: Make, link: FakeLink, paths: FakePaths
) -> None:
    """Never direct."""
    account = make(candidates=("de1",))
    async with running(account):
        link.attempts.append(DEAD_PROXY)
        account.link_lost(LOST.evidence)
        await settle()
        assert account.state is State.ONLINE
        assert paths.slots == ["de1"] * 3


@virtual
async def test_an_account_keeps_the_path_it_had(make: Make) -> None:
    """Over a restart."""
    before = AccountSnapshot("bot", State.ONLINE, START, "nl3")
    account = make(candidates=("de1", "nl3"), before=before)
    async with running(account):
        assert account.snapshot().path == "nl3"


# --- Auth -----------------------------------------------------------------------------------------------


@virtual
async def test_a_calls_401_is_checked_by_getstate_first(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """The session is good: the link stays, the call goes again, nobody signs in."""
    account = make()
    async with running(account):
        link.answers(UNREGISTERED)
        assert await call(account) == "ok"
        assert link.done == ["open direct", "prove"]
        assert recorder.results == [Result.RETRYING, Result.RECOVERED]


@virtual
async def test_many_calls_401s_are_one_failure(make: Make, link: FakeLink, recorder: FakeRecorder) -> None:
    """Twenty calls of a revoked session: one relogin, not a spent cap."""
    account = make()
    async with running(account):
        answers = [asyncio.get_running_loop().create_future() for _ in range(20)]
        link.answers(*answers)
        calls = [call(account) for _ in answers]
        await settle()
        link.proofs.append(REVOKED)
        link.attempts.append(3.0)
        for answer in answers:
            answer.set_exception(UNREGISTERED)
            await settle()
        await asyncio.gather(*calls)
        assert account.state is State.ONLINE
        assert link.done.count("retire") == 1
        assert recorder.results == [Result.RETRYING, Result.RECOVERED]


@virtual
async def test_a_bots_lost_session_is_retired_and_signed_in_anew(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """Confirmed by getState; the sign-in is on disk before it leaves."""
    account = make()
    async with running(account):
        link.answers(UNREGISTERED)
        link.proofs.append(REVOKED)
        link.signs_in = True
        assert await call(account) == "ok"
        assert link.done == ["open direct", "prove", "retire", "open direct", "sign in"]
        assert [(saved.account, saved.at) for saved in recorder.sign_ins] == [("bot", START)]


@virtual
async def test_a_users_lost_session_needs_a_login(make: Make, link: FakeLink, recorder: FakeRecorder) -> None:
    """Confirmed by getState; its key is left as it is. A login by a person, and `retry`, end it."""
    account = make(rules=USER)
    async with running(account):
        link.answers(UNREGISTERED)
        link.proofs.append(REVOKED)
        with pytest.raises(AccountUnavailable, match="needs_login"):
            await call(account)
        assert "retire" not in link.done
        assert recorder.results == [Result.RETRYING, Result.NEEDS_LOGIN]
        account.tell(Retry())
        await settle()
        await account.online()
        assert recorder.results[-1] is Result.RECOVERED


@virtual
async def test_a_users_good_session_needs_no_login(make: Make, link: FakeLink) -> None:
    """Another datacenter's key was unknown, not the account's."""
    account = make(rules=USER)
    async with running(account):
        link.answers(UNREGISTERED)
        assert await call(account) == "ok"
        assert account.state is State.ONLINE


@virtual
async def test_a_link_that_fails_while_it_is_asked_is_only_a_lost_link(make: Make, link: FakeLink) -> None:
    """No answer to getState says nothing of the session."""
    account = make()
    async with running(account):
        link.answers(UNREGISTERED)
        link.proofs.append(LOST)
        assert await call(account) == "ok"
        assert link.done == ["open direct", "prove", "close", "open direct"]


@virtual
async def test_a_key_is_given_up_at_the_third_404_in_a_row(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """On fresh connections: until then it is a lost connection."""
    link.attempts.extend([NO_KEY] * 3)
    account = make()
    async with running(account):
        await account.online()
        assert [word for word in link.done if word != "close"] == ["open direct"] * 3 + [
            "retire",
            "open direct",
        ]
        assert [row.kind for row in recorder.rows[:3]] == [Kind.CONNECTION, Kind.CONNECTION, Kind.AUTH]


@virtual
async def test_a_404_on_the_old_link_does_not_count(make: Make, link: FakeLink) -> None:
    """It was no fresh connection; and what came before an answered RPC is forgotten."""
    link.attempts.extend([NO_KEY] * 2)
    account = make(rules=USER)
    async with running(account):
        await account.online()
        link.attempts.extend([NO_KEY] * 2)
        account.link_lost(NO_KEY.evidence)
        await asyncio.sleep(30.0)
        assert account.state is State.ONLINE
        assert "retire" not in link.done


@virtual
async def test_a_users_third_404_needs_a_login(make: Make, link: FakeLink) -> None:
    """Nobody but a person can make another key."""
    link.attempts.extend([NO_KEY] * 3)
    account = make(rules=USER)
    async with running(account):
        await asyncio.sleep(30.0)
        assert (account.state, len(link.opened)) == (State.NEEDS_LOGIN, 3)


@virtual
async def test_sign_ins_have_a_budget(make: Make, link: FakeLink, recorder: FakeRecorder) -> None:
    """Used up, kept from an earlier run: suspended until the hour is over, then signed in."""
    link.signs_in = True
    account = make(sign_in_budget=SignInBudget(2, 10), sign_ins=(START - 600.0, START - 60.0))
    async with running(account):
        assert (account.state, account.snapshot().retry_at) == (State.SUSPENDED, START + 3000.0)
        assert "sign in" not in link.done
        (row,) = recorder.rows
        assert (row.error_id, row.outcome, row.delay) == ("SIGN_IN_BUDGET", Result.SUSPENDED, 3000.0)
        assert "the next in 3000 s" in row.message
        await account.online()
        assert link.opened == [0.0, 3000.0]
        assert [saved.at for saved in recorder.sign_ins] == [START + 3000.0]


@virtual
async def test_a_clock_that_went_back_does_not_stretch_the_budget(
    make: Make, link: FakeLink, clock: FakeClock
) -> None:
    """Sign-ins of the future count as just now: an hour, not a year."""
    link.signs_in = True
    year = 365 * 86400.0
    clock.offset = -year
    account = make(sign_in_budget=SignInBudget(2, 10), sign_ins=(START - 600.0, START - 60.0))
    async with running(account):
        assert account.snapshot().retry_at == START - year + 3600.0
        await account.online()
        assert link.opened == [0.0, 3600.0]


# --- Proof of life --------------------------------------------------------------------------------------


@virtual
async def test_a_flood_wait_on_the_proof_is_waited_out(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """GetState is not asked again before Telegram allows it; the account stays online meanwhile."""
    flooded = "FLOOD_WAIT_500"
    link.proofs.append(failed(Source.RPC, flooded, error_id=flooded, code=420, method="updates.GetState"))
    account = make(prove_every=10.0)
    async with running(account):
        await asyncio.sleep(509.0)
        assert (link.done.count("prove"), account.state) == (1, State.ONLINE)
        await asyncio.sleep(2.0)
        assert link.done.count("prove") == 2
        assert recorder.rows == []


@virtual
async def test_a_pause_closes_the_incident_in_the_record(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """By a person's word, with no outcome; the resume begins without it."""
    account = make()
    async with running(account):
        link.attempts.extend([LOST, 60.0])
        account.link_lost(LOST.evidence)
        await asyncio.sleep(5.0)
        assert account.snapshot().incident is not None
        account.tell(Pause())
        await settle()
        last = recorder.incidents[-1]
        assert (last.closed_at, last.outcome) == (START + 5.0, None)
        assert account.snapshot().incident is None
        await asyncio.sleep(3600.0)
        account.tell(Retry())
        await settle()
        await account.online()
        assert Result.RECOVERED not in recorder.results


@virtual
async def test_a_silent_account_is_asked_for_proof(make: Make, link: FakeLink) -> None:
    """After `prove_every` seconds without an answer, and not before; one that is busy is left alone."""
    account = make(prove_every=300.0)
    async with running(account):
        await asyncio.sleep(299.0)
        assert "prove" not in link.done
        link.quiet_since = 1299.0
        await asyncio.sleep(299.5)
        assert "prove" not in link.done
        await asyncio.sleep(2.0)
        assert link.done.count("prove") == 1


@virtual
async def test_a_revoked_session_is_found_by_it(make: Make, link: FakeLink) -> None:
    """Without any call; it needs no second asking."""
    account = make(prove_every=300.0)
    async with running(account):
        link.proofs.append(REVOKED)
        await asyncio.sleep(301.0)
        assert link.done == ["open direct", "prove", "close", "retire", "open direct"]


@virtual
async def test_a_proof_that_fails_for_itself_harms_nothing(
    make: Make, link: FakeLink, recorder: FakeRecorder
) -> None:
    """A 500 is an answer: the link lives."""
    account = make(prove_every=300.0)
    async with running(account):
        link.proofs.append(failed(Source.RPC, "INTERNAL", error_id="INTERNAL", code=500))
        await asyncio.sleep(301.0)
        assert (account.state, recorder.rows) == (State.ONLINE, [])
        assert link.done == ["open direct", "prove"]


@virtual
async def test_an_account_that_is_off_is_not_asked(make: Make, link: FakeLink) -> None:
    """Nothing of a paused account touches the network."""
    account = make(prove_every=10.0)
    async with running(account):
        account.tell(Pause())
        await asyncio.sleep(100.0)
        assert "prove" not in link.done


# --- A person -------------------------------------------------------------------------------------------


@virtual
async def test_a_paused_account_stays_off_until_it_is_resumed(make: Make, link: FakeLink) -> None:
    """Its attempt is called off; calls are refused; resuming is a start."""
    link.attempts.append(30.0)
    account = make()
    async with running(account):
        await asyncio.sleep(1.0)
        account.tell(Pause())
        await asyncio.sleep(100.0)
        assert (account.state, link.opened, link.done[-2:]) == (State.PAUSED, [0.0], ["close", "give up"])
        with pytest.raises(AccountUnavailable, match="paused"):
            await call(account)
        account.tell(Retry())
        await settle()
        await account.online()
        assert link.opened == [0.0, 101.0]


@virtual
async def test_a_pause_ends_a_delay(make: Make, link: FakeLink) -> None:
    """What was to come after it does not come."""
    link.attempts.extend([LOST] * 2)
    account = make()
    async with running(account):
        await settle()
        assert account.state is State.RECOVERING
        account.tell(Pause())
        await asyncio.sleep(100.0)
        assert (account.state, link.opened) == (State.PAUSED, [0.0, 0.0])


@virtual
async def test_retry_waits_for_no_pause(make: Make, link: FakeLink) -> None:
    """A suspended account is tried now."""
    account = make()
    async with running(account):
        link.attempts.extend([LOST] * 3)
        account.link_lost(LOST.evidence)
        await asyncio.sleep(10.0)
        assert account.state is State.SUSPENDED
        account.tell(Retry())
        await settle()
        assert account.snapshot().state is State.ONLINE
        assert link.opened[-1] == 10.0


@virtual
async def test_a_stop_leaves_nothing_behind(
    make: Make, link: FakeLink, paths: FakePaths, recorder: FakeRecorder
) -> None:
    """Calls end, the path is left, the link is shut down, and the last state is on disk."""
    account = make()
    async with running(account) as task:
        account.link_overdue()
        waiting = call(account)
        await settle()
        account.tell(Stop())
        await task
        with pytest.raises(AccountUnavailable, match="stopped"):
            await waiting
        assert (account.state, recorder.accounts[-1].state) == (State.STOPPED, State.STOPPED)
        assert (paths.left, link.done[-1]) == (["bot"], "shutdown")


# --- The bot's own code ---------------------------------------------------------------------------------


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Awaitable[None]]], str]:
    def install(function: Callable[[Any], Awaitable[None]]) -> str:
        module = ModuleType("a_bot_of_the_tests")
        module.main = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return f"{module.__name__}:main"

    return install


Install = Callable[[Callable[[Any], Awaitable[None]]], str]


@virtual
async def test_main_runs_through_recoveries_and_ends_with_a_pause(
    make: Make, link: FakeLink, main: Install
) -> None:
    """Begun once, not by each online; cancelled by a pause, begun anew by the resume; handlers are begun once."""
    said: list[str] = []

    async def bot(client: Any) -> None:
        assert isinstance(client, FakeClient)
        said.append("begins")
        try:
            await asyncio.Event().wait()
        finally:
            said.append("ends")

    account = make(main=main(bot))
    async with running(account):
        account.link_lost(LOST.evidence)
        await asyncio.sleep(10.0)
        assert (account.state, said) == (State.ONLINE, ["begins"])
        link.attempts.extend([LOST] * 4)
        account.link_lost(LOST.evidence)
        await asyncio.sleep(200.0)
        assert (account.state, said) == (State.ONLINE, ["begins"])
        account.tell(Pause())
        await settle()
        assert said == ["begins", "ends"]
        account.tell(Retry())
        await settle()
        assert said == ["begins", "ends", "begins"]
    assert said[-1] == "ends"
    assert link.client.begun == 1


@virtual
async def test_a_crashing_main_is_given_up_and_the_account_is_not(
    make: Make, recorder: FakeRecorder, main: Install
) -> None:
    """Each crash is a raised row of its own; no recovery begins it again."""
    crashes = 0

    async def bot(client: Any) -> None:
        nonlocal crashes
        crashes += 1
        raise KeyError("what")

    account = make(main=main(bot))
    async with running(account):
        await asyncio.sleep(500.0)
        account.link_lost(LOST.evidence)
        await asyncio.sleep(100.0)
        assert (crashes, account.state) == (6, State.ONLINE)
        crashed = [row for row in recorder.rows if row.message == "'what'"]
        assert [(row.outcome, row.incident, row.action) for row in crashed] == [
            (Result.RAISED, None, Action.FAIL)
        ] * 6


@virtual
async def test_a_suspension_uses_up_no_restarts(make: Make, link: FakeLink, main: Install) -> None:
    """A main that does nothing but call crashes once, and is begun again when the account is back."""
    begun: list[float] = []

    async def bot(client: Any) -> None:
        begun.append(asyncio.get_running_loop().time() - 1000.0)
        while True:
            await account._attempts._calls.call(Query())
            await asyncio.sleep(1.0)

    account = make(main=main(bot))
    async with running(account):
        link.attempts.extend([LOST] * 8)
        account.link_lost(LOST.evidence)
        await asyncio.sleep(3600.0)
        assert account.state is State.ONLINE
        assert begun == [0.0, link.opened[-1]]


@virtual
async def test_handlers_begin_when_the_account_knows_who_it_is(make: Make, link: FakeLink) -> None:
    """A first failure to ask is repeated; then once for all."""
    link.attempts.append(5.0)
    account = make()
    async with running(account):
        link.client.unknown.append(ValueError())
        await asyncio.sleep(5.5)
        assert (account.state, link.client.begun) == (State.ONLINE, 0)
        await asyncio.sleep(1.0)
        account.link_lost(LOST.evidence)
        await asyncio.sleep(1.0)
        assert link.client.begun == 1


@virtual
async def test_a_main_that_is_not_there_is_said_and_harms_nothing(make: Make, recorder: FakeRecorder) -> None:
    """The account is online; its log tells what to mend."""
    account = make(main="no_such_bot:main")
    async with running(account):
        assert account.state is State.ONLINE
        assert "cannot import no_such_bot" in recorder.rows[0].message


@virtual
async def test_a_main_that_will_not_end_does_not_hold_the_stop_up(make: Make, main: Install) -> None:
    """It gets 3 s to tidy up before the account's end goes on; the account is saved as stopped by then."""

    async def bot(client: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5.0)

    account = make(main=main(bot))
    async with running(account) as task:
        account.tell(Stop())
        await asyncio.sleep(3.5)
        assert (account.state, task.done()) == (State.STOPPED, False)
        await task
    assert asyncio.get_running_loop().time() == 1005.0


@virtual
async def test_a_handlers_failure_is_recorded_and_nothing_else(make: Make, recorder: FakeRecorder) -> None:
    """The account stays as it is."""
    account = make()
    async with running(account):
        account.code_failed(Evidence(Source.CODE, "a handler failed", path="direct"))
        await settle()
        assert account.state is State.ONLINE
        assert [(row.outcome, row.kind, row.incident) for row in recorder.rows] == [
            (Result.RAISED, Kind.UNKNOWN, None)
        ]


# --- Limited, and restarted -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "frozen"), [((400, "PEER_FLOOD"), False), ((420, "FROZEN_METHOD_INVALID"), True)]
)
@virtual
async def test_a_limited_account_says_so_and_keeps_running(
    make: Make, link: FakeLink, recorder: FakeRecorder, refusal: tuple[int, str], frozen: bool
) -> None:
    """In status and on disk."""
    account = make()
    async with running(account):
        link.answers(RpcFailed(*refusal, SEND))
        await asyncio.wait([call(account)])
        await settle()
        assert account.state is State.ONLINE
        assert account.snapshot().limited == Limited(refusal[1], frozen, START)
        assert recorder.accounts[-1].limited == Limited(refusal[1], frozen, START)


@virtual
async def test_a_limit_is_over_a_day_after_the_last_time(make: Make, link: FakeLink) -> None:
    """It began when it was first said; `retry` ends it at once."""
    account = make()
    async with running(account):
        for hours in (0.0, 20.0):
            await asyncio.sleep(hours * 3600)
            link.answers(RpcFailed(400, "PEER_FLOOD", SEND))
            await asyncio.wait([call(account)])
        limited = account.snapshot().limited
        assert limited is not None
        assert (limited.since, limited.seen_at) == (START, START + 20 * 3600)
        await asyncio.sleep(23 * 3600)
        assert account.snapshot().limited is not None
        await asyncio.sleep(3601)
        assert account.snapshot().limited is None
        link.answers(RpcFailed(400, "PEER_FLOOD", SEND))
        await asyncio.wait([call(account)])
        assert account.snapshot().limited == Limited("PEER_FLOOD", frozen=False, since=START + 44 * 3600 + 1)
        account.forget_limit()
        assert account.snapshot().limited is None


@virtual
async def test_a_frozen_account_stays_so_until_a_person_acts(make: Make, link: FakeLink) -> None:
    """Whatever else it is told meanwhile, and however long ago that was."""
    account = make()
    async with running(account):
        link.answers(RpcFailed(400, "PEER_FLOOD", SEND), RpcFailed(420, "FROZEN_METHOD_INVALID", SEND))
        for _ in range(2):
            await asyncio.wait([call(account)])
        await asyncio.sleep(1000.0)
        link.answers(RpcFailed(400, "PEER_FLOOD", SEND))
        await asyncio.wait([call(account)])
        await asyncio.sleep(30 * 86_400)
        assert account.snapshot().limited == Limited("FROZEN_METHOD_INVALID", True, START, START + 1000.0)
        account.forget_limit()
        assert account.snapshot().limited is None


@virtual
async def test_a_pause_outlives_a_restart(make: Make, link: FakeLink, recorder: FakeRecorder) -> None:
    """It is saved when the daemon stops, and the next one starts with it: nothing is dialled until the resume."""
    account = make()
    async with running(account):
        account.tell(Pause())
        await account.heeded()
        assert recorder.accounts[-1].state is State.PAUSED
        since = account.snapshot().since
    left = recorder.accounts[-1]
    opened = len(link.opened)
    account = make(before=left)
    async with running(account):
        await asyncio.sleep(1000.0)
        assert (account.state, account.snapshot().since, len(link.opened)) == (State.PAUSED, since, opened)
        with pytest.raises(AccountUnavailable, match="paused"):
            await call(account)
        account.tell(Retry())
        await account.heeded()
        await account.online()
    assert (left.state, recorder.accounts[-1].state) == (State.PAUSED, State.STOPPED)


@virtual
async def test_an_account_whose_driver_has_ended_is_not_waited_for(
    make: Make, recorder: FakeRecorder
) -> None:
    """Whoever told it something goes on, and nothing is saved."""
    account = make()
    async with running(account):
        pass
    saved = len(recorder.accounts)
    account.tell(Pause())
    await account.heeded()
    assert len(recorder.accounts) == saved


def left_behind(**changes: Any) -> Incident:
    facts: dict[str, Any] = {"opened_at": START - 100.0, "began": 900.0, "failures": 2} | changes
    return Incident("i0", Kind.CONNECTION, Scope.SESSION, "direct", **facts)


@pytest.mark.parametrize("known", [True, False])
@virtual
async def test_an_incident_left_by_the_last_run_ends_with_the_first_proof(
    make: Make, recorder: FakeRecorder, known: bool
) -> None:
    """Its duration counts from its beginning; its row and the incident are closed on disk."""
    last = Row(
        START - 100.0, "bot", "direct", Scope.SESSION, Kind.CONNECTION, Action.RECONNECT, Result.RETRYING,
        "connection reset", incident="i0",
    )  # fmt: skip
    before = AccountSnapshot("bot", State.RECOVERING, START, "direct", last_failure=last) if known else None
    account = make(incident=left_behind(), before=before)
    async with running(account):
        await account.online()
        (row,) = recorder.rows
        assert (row.outcome, row.incident, row.duration) == (Result.RECOVERED, "i0", 100.0)
        assert row.message == ("connection reset" if known else "before the restart")
        assert [(saved.id, saved.outcome) for saved in recorder.incidents] == [("i0", Result.RECOVERED)]
        assert account.snapshot().last_failure is (last if known else None)


@virtual
async def test_a_restart_forgets_no_cap(make: Make, link: FakeLink) -> None:
    """Two of three reconnects were spent before: one is left."""
    link.attempts.extend([LOST] * 9)
    account = make(incident=left_behind(attempts={Kind.CONNECTION: 2}, backoff={Kind.CONNECTION: 1}))
    async with running(account):
        await asyncio.sleep(30.0)
        assert (account.state, link.opened) == (State.SUSPENDED, [0.0, 2.0])


@virtual
async def test_a_wider_failure_of_a_call_is_the_accounts(make: Make, link: FakeLink) -> None:
    """Deactivated: failed, finally, and the call is told."""
    account = make()
    async with running(account):
        link.answers(RpcFailed(401, "USER_DEACTIVATED", SEND))
        with pytest.raises(AccountUnavailable, match="bot is failed"):
            await call(account)
        late = Failure(Kind.CONNECTION, Scope.SESSION, Remedy.RECONNECT, LOST.evidence)
        account.call_failed(late)
        await asyncio.sleep(1000.0)
        assert (account.state, len(link.opened)) == (State.FAILED, 1)


@virtual
async def test_a_driver_that_breaks_is_not_called_online(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of this program fails the account visibly: no state is shown that nobody keeps up."""
    account = make()
    task = asyncio.create_task(account.run())
    await account.online()

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(account, "_perform", broken)
    account.link_lost(Evidence(Source.SOCKET, "reset"))
    with pytest.raises(ExceptionGroup):
        await task
    assert account.state is State.FAILED
    with pytest.raises(AccountUnavailable, match="a fault of ours"):
        await call(account)
