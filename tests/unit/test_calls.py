"""One call's way, through whatever befalls its account. Virtual time, in seconds; jitter is 0."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from supervisor.calls import Calls
from supervisor.core.failure import (
    DEFAULT_POLICIES,
    Action,
    Evidence,
    Failure,
    Kind,
    Override,
    Remedy,
    Result,
    Scope,
    Source,
)
from supervisor.errors import AccountUnavailable, DeliveredUnseen, OutcomeUnknown
from supervisor.gate import Gate, Limits
from supervisor.journal import Journal
from supervisor.ports import LinkFailed, RpcFailed, SessionGone
from tests.unit.fakes import (
    NOW,
    FakeClock,
    FakeQueries,
    FakeRecorder,
    FakeSender,
    FloodWait,
    Query,
    RpcError,
    failed,
    settle,
    virtual,
)

SEND = "messages.SendMessage"


@dataclass
class Door:
    """A gate, and what it stands between."""

    gate: Gate
    call: Callable[[Query], Coroutine[Any, Any, Any]]
    sender: FakeSender
    recorder: FakeRecorder
    journal: Journal
    reported: list[Failure] = field(default_factory=list)

    def calls(self, *queries: Query) -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(self.call(query)) for query in queries]


MakeDoor = Callable[..., Door]


@pytest.fixture
def make(sender: FakeSender, queries: FakeQueries, recorder: FakeRecorder, clock: FakeClock) -> MakeDoor:
    def make_door(
        *, opened: bool = True, overrides: dict[str, Override] | None = None, **limits: Any
    ) -> Door:
        reported: list[Failure] = []
        ids = iter(f"i{n}" for n in range(1, 1000))
        journal = Journal("bot", recorder, clock, "direct")
        gate = Gate("bot", recorder, clock, Limits(**limits), queries.flood_wait)
        calls = Calls(
            "bot",
            gate,
            sender,
            queries,
            clock,
            journal=journal,
            policies=DEFAULT_POLICIES,
            overrides=overrides or {},
            jitter=lambda: 0.0,
            new_id=lambda: next(ids),
            report=reported.append,
        )
        if opened:
            gate.release()
        return Door(gate, calls.call, sender, recorder, journal, reported)

    return make_door


def refused(code: int, text: str, sends: int = 1) -> RpcFailed:
    return RpcFailed(code, text, SEND, sends)


def flood(seconds: int) -> RpcFailed:
    return refused(420, f"FLOOD_WAIT_{seconds}")


DUPLICATE = "RANDOM_ID_DUPLICATE"
SERVER_DOWN = (500, "INTERNAL")


# --- An ordinary call -----------------------------------------------------------------------------------


@virtual
async def test_an_online_accounts_call_leaves_at_once(make: MakeDoor) -> None:
    """Its answer is the caller's; nothing is recorded."""
    door = make()
    door.sender.answers("a message")
    assert await door.call(Query()) == "a message"
    assert door.sender.times == [0.0]
    assert (door.recorder.rows, door.recorder.incidents) == ([], [])


@virtual
async def test_a_wrong_request_is_its_callers_affair(make: MakeDoor) -> None:
    """Raised at once as the library's own exception; a `raised` row without an incident; nobody else is told."""
    door = make()
    door.journal.path = "de1"
    door.sender.answers(refused(400, "PEER_ID_INVALID"))
    with pytest.raises(RpcError, match=f"400 PEER_ID_INVALID {SEND}"):
        await door.call(Query())
    (row,) = door.recorder.rows
    assert (row.outcome, row.incident, row.action, row.attempt) == (Result.RAISED, None, Action.FAIL, 0)
    assert (row.account, row.path, row.scope, row.kind) == ("bot", "de1", Scope.CALL, Kind.PERMANENT)
    assert (row.error_id, row.error_code, row.method) == ("PEER_ID_INVALID", 400, SEND)
    assert (row.at, row.traceback) == (NOW + 1000.0, "its traceback")
    assert (door.recorder.incidents, door.reported, len(door.sender.sent)) == ([], [], 1)


@virtual
async def test_what_was_done_already_is_raised_and_not_recorded(make: MakeDoor) -> None:
    """MESSAGE_NOT_MODIFIED: the caller may want to know, the recovery log does not."""
    door = make()
    door.sender.answers(refused(400, "MESSAGE_NOT_MODIFIED"))
    with pytest.raises(RpcError, match="MESSAGE_NOT_MODIFIED"):
        await door.call(Query())
    assert door.recorder.rows == []


@virtual
async def test_a_kind_without_a_policy_reaches_the_caller_too(make: MakeDoor) -> None:
    """FILE_MIGRATE_X is for whoever downloads."""
    door = make()
    door.sender.answers(refused(303, "FILE_MIGRATE_4"))
    with pytest.raises(RpcError, match="FILE_MIGRATE_4"):
        await door.call(Query("upload.GetFile", None, read_only=True))
    assert door.recorder.results == [Result.RAISED]


@virtual
async def test_a_limited_account_keeps_running(make: MakeDoor) -> None:
    """PEER_FLOOD: the caller gets it, the account is told, and the next call leaves."""
    door = make()
    door.sender.answers(refused(400, "PEER_FLOOD"))
    with pytest.raises(RpcError, match="PEER_FLOOD"):
        await door.call(Query())
    (told,) = door.reported
    assert (told.limited, told.error_id) == (True, "PEER_FLOOD")
    assert door.recorder.results == [Result.RAISED]
    assert await door.call(Query()) == "ok"


@virtual
async def test_the_operators_own_judgement_decides(make: MakeDoor) -> None:
    """`[classify]` comes before the table."""
    door = make(overrides={"PEER_ID_INVALID": Override(Kind.TEMPORARY, Remedy.RETRY, Scope.CALL)})
    door.sender.answers(refused(400, "PEER_ID_INVALID"))
    assert await door.call(Query()) == "ok"
    assert door.sender.times == [0.0, 1.0]


# --- A failing server -----------------------------------------------------------------------------------


@virtual
async def test_a_500_is_sent_again_and_its_incident_closes_as_recovered(make: MakeDoor) -> None:
    """After 1 and 2 s, as the same query; the rows and the incident tell of it."""
    door = make()
    door.sender.answers(refused(*SERVER_DOWN), refused(*SERVER_DOWN), "a message")
    query = Query()
    assert await door.call(query) == "a message"
    assert door.sender.times == [0.0, 1.0, 3.0]
    assert door.sender.queries == [query] * 3
    first, second, closing = door.recorder.rows
    assert door.recorder.results == [Result.RETRYING, Result.RETRYING, Result.RECOVERED]
    assert [row.incident for row in door.recorder.rows] == ["i1"] * 3
    assert [(row.attempt, row.delay) for row in (first, second)] == [(1, 1.0), (2, 2.0)]
    assert (first.duration, first.action) == (None, Action.RETRY)
    assert (closing.duration, closing.action, closing.traceback) == (3.0, Action.RETRY, None)
    (incident,) = door.recorder.incidents
    assert (incident.id, incident.account, incident.outcome) == ("i1", "bot", Result.RECOVERED)
    assert (incident.opened_at, incident.closed_at) == (NOW + 1000.0, NOW + 1003.0)
    assert (incident.failures, incident.last_action, incident.kind) == (2, Action.RETRY, Kind.TEMPORARY)


@virtual
async def test_at_the_cap_the_caller_gets_the_error(make: MakeDoor) -> None:
    """Three repeats of a 500; the incident ends as failed, and the account is not told."""
    door = make()
    door.sender.answers(*[refused(*SERVER_DOWN)] * 9)
    with pytest.raises(RpcError, match="500 INTERNAL"):
        await door.call(Query())
    assert door.sender.times == [0.0, 1.0, 3.0, 7.0]
    assert door.recorder.results == [Result.RETRYING] * 3 + [Result.FAILED]
    assert {row.incident for row in door.recorder.rows} == {"i1"}
    assert [row.outcome for row in door.recorder.incidents] == [Result.FAILED]
    assert door.reported == []


@virtual
async def test_each_kind_of_failure_has_its_own_cap(make: MakeDoor) -> None:
    """A flood wait between 500s spends none of theirs."""
    door = make()
    door.sender.answers(*[refused(*SERVER_DOWN)] * 3, flood(5), "ok")
    assert await door.call(Query()) == "ok"
    assert len(door.sender.sent) == 5
    assert door.recorder.results[-1] is Result.RECOVERED
    assert {row.incident for row in door.recorder.rows} == {"i1"}


@virtual
async def test_repeats_count_towards_the_calls_time(make: MakeDoor) -> None:
    """A call that would be repeated after its time is up ends then; its incident ends with it."""
    door = make(call_timeout=2.0)
    door.sender.answers(*[refused(*SERVER_DOWN)] * 9)
    with pytest.raises(AccountUnavailable, match=r"was not answered within 2 s \(call_timeout\)"):
        await door.call(Query())
    assert door.sender.times == [0.0, 1.0]
    assert door.recorder.results == [Result.RETRYING, Result.RETRYING, Result.FAILED]
    assert door.recorder.rows[-1].duration is None
    assert [row.outcome for row in door.recorder.incidents] == [Result.FAILED]


@virtual
async def test_an_incident_of_a_call_that_is_called_off_ends_too(make: MakeDoor) -> None:
    """Its caller lost interest: nothing is left open in the log."""
    door = make()
    door.sender.answers(refused(*SERVER_DOWN))
    (call,) = door.calls(Query())
    await settle()
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    assert [row.outcome for row in door.recorder.incidents] == [Result.FAILED]


# --- Flood waits ----------------------------------------------------------------------------------------


@virtual
async def test_a_flood_wait_is_waited_out_and_kept(make: MakeDoor) -> None:
    """The same query goes again when it is over; the wait is on disk before."""
    door = make(call_timeout=5.0)
    door.sender.answers(flood(35))
    assert await door.call(Query()) == "ok"
    assert door.sender.times == [0.0, 35.0]
    (kept,) = door.recorder.floods
    assert (kept.account, kept.method, kept.peer) == ("bot", SEND, "user:42")
    assert (kept.seen_at, kept.seconds) == (NOW + 1000.0, 35.0)
    assert door.recorder.results == [Result.RETRYING, Result.RECOVERED]
    assert door.recorder.rows[0].action is Action.WAIT


@virtual
async def test_flood_waits_dont_count_towards_call_timeout(make: MakeDoor) -> None:
    """Four waits of 50 s in a call that may take 5; the time it took otherwise does count."""
    door = make(call_timeout=5.0)
    door.sender.answers(*[flood(50)] * 4)
    assert await door.call(Query()) == "ok"
    assert door.sender.times == [0.0, 50.0, 100.0, 150.0, 200.0]
    slow: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    door.sender.answers(refused(*SERVER_DOWN), refused(*SERVER_DOWN), flood(50), slow)
    with pytest.raises(AccountUnavailable, match="was not answered within 5 s"):
        await door.call(Query())
    assert asyncio.get_running_loop().time() == 1200.0 + 5.0 + 50.0


@virtual
async def test_only_calls_of_the_same_method_and_peer_wait(make: MakeDoor) -> None:
    """Others pass."""
    door = make()
    door.sender.answers(flood(35))
    waits = Query()
    door.calls(waits)
    await settle()
    passing = [Query(peer="user:43"), Query("messages.GetHistory"), Query(peer=None)]
    assert await asyncio.gather(*door.calls(*passing)) == ["ok"] * 3
    assert door.sender.times == [0.0] * 4
    same = await asyncio.gather(*door.calls(Query()))
    assert (same, door.sender.times[4:]) == (["ok"], [35.0, 35.0])
    assert door.sender.queries[4] is waits


@virtual
async def test_those_who_wait_for_the_same_leave_in_order(make: MakeDoor) -> None:
    """However often the first of them is flooded again."""
    door = make()
    door.sender.answers(flood(10))
    queries = [Query() for _ in range(6)]
    calls = door.calls(queries[0])
    await settle()
    calls += door.calls(*queries[1:])
    await asyncio.gather(*calls)
    assert door.sender.queries == [queries[0], *queries]
    assert set(door.sender.times[1:]) == {10.0}


@virtual
async def test_slow_mode_holds_one_chat(make: MakeDoor) -> None:
    """Every sending method in it, and no other chat."""
    door = make()
    door.sender.answers(refused(420, "SLOWMODE_WAIT_20"))
    slowed, media, other = Query(), Query("messages.SendMedia"), Query("messages.SendMedia", "user:43")
    calls = door.calls(slowed)
    await settle()
    await asyncio.gather(*calls, *door.calls(media, other))
    assert door.sender.queries[1:] == [other, slowed, media]
    assert door.sender.times == [0.0, 0.0, 20.0, 20.0]
    assert door.recorder.floods[0].method == "*"


@virtual
async def test_slow_mode_of_an_unknown_chat_holds_the_call_alone(make: MakeDoor) -> None:
    """Other chats must not wait for it; it is honoured, and in no ledger."""
    door = make(call_timeout=5.0)
    door.sender.answers(refused(420, "SLOWMODE_WAIT_20"))
    first, second = door.calls(Query(peer=None), Query(peer=None))
    await settle()
    assert second.done()
    assert await first == "ok"
    assert door.sender.times == [0.0, 0.0, 20.0]
    assert door.recorder.floods == []


@virtual
async def test_a_wait_longer_than_max_wait_is_the_callers(make: MakeDoor) -> None:
    """FLOOD_WAIT_301 is raised at once; until it is over no such call leaves, and none is told another number."""
    door = make(max_wait=300.0)
    door.sender.answers(flood(301))
    with pytest.raises(RpcError, match="FLOOD_WAIT_301"):
        await door.call(Query())
    assert door.recorder.results == [Result.RAISED]
    assert [row.seconds for row in door.recorder.floods] == [301.0]
    await asyncio.sleep(0.5)
    with pytest.raises(FloodWait, match=r"wait 300\.5 s"):
        await door.call(Query())
    await asyncio.sleep(100.5)
    assert await door.call(Query()) == "ok"
    assert door.sender.times == [0.0, 301.0]


@virtual
async def test_what_remains_of_max_wait_counts(make: MakeDoor) -> None:
    """200 s are waited, another 200 are not: the caller gets the error, the incident fails."""
    door = make(max_wait=300.0)
    door.sender.answers(flood(200), flood(200))
    with pytest.raises(RpcError, match="FLOOD_WAIT_200"):
        await door.call(Query())
    assert door.sender.times == [0.0, 200.0]
    assert door.recorder.results == [Result.RETRYING, Result.FAILED]
    assert [row.seconds for row in door.recorder.floods] == [200.0, 200.0]


@virtual
async def test_a_wait_that_grows_meanwhile_ends_with_flood_wait(make: MakeDoor) -> None:
    """Others of the same method are flooded: what this one waits for is now too long. Its incident ends too."""
    door = make(max_wait=300.0)
    door.sender.answers(flood(100), flood(400))
    calls = door.calls(Query())
    await settle()
    calls += door.calls(Query(peer="user:43"))
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(errors[0], FloodWait)
    assert errors[0].seconds == 300.0
    assert isinstance(errors[1], RpcError)
    assert len(door.sender.sent) == 2
    assert [row.outcome for row in door.recorder.incidents] == [Result.FAILED]


@virtual
async def test_waiting_behind_another_uses_up_max_wait_too(make: MakeDoor) -> None:
    """Two wait for the same; the first is flooded anew, and what the second has left is not enough."""
    door = make(max_wait=300.0)
    door.sender.answers(flood(200))
    calls = door.calls(Query())
    await settle()
    calls += door.calls(Query())
    await asyncio.sleep(199.0)
    door.gate.ledger, _ = door.gate.ledger.flooded(SEND, "user:42", 150.0, NOW, 1199.0)
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, FloodWait) for error in errors)
    assert len(door.sender.sent) == 1


@virtual
async def test_a_call_that_cannot_wait_so_long_does_not_queue_for_it(make: MakeDoor) -> None:
    """It learns at once, though another of the same is waiting."""
    door = make(max_wait=300.0)
    door.sender.answers(flood(250))
    calls = door.calls(Query())
    await settle()
    door.gate.ledger, _ = door.gate.ledger.flooded(SEND, "user:42", 400.0, NOW, 1000.0)
    with pytest.raises(FloodWait, match="wait 400 s"):
        await door.call(Query())
    assert asyncio.get_running_loop().time() == 1000.0
    await asyncio.wait(calls)


@virtual
async def test_a_flood_waits_cap_is_the_calls(make: MakeDoor) -> None:
    """Five repeats, and it is raised; the wait is kept even so."""
    door = make()
    door.sender.answers(*[flood(3)] * 6)
    with pytest.raises(RpcError, match="FLOOD_WAIT_3"):
        await door.call(Query())
    assert door.sender.times == [0.0, 3.0, 6.0, 9.0, 12.0, 15.0]
    assert await door.call(Query()) == "ok"
    assert door.sender.times[6] == 18.0


@virtual
async def test_a_guard_that_names_a_time_holds_nobody(make: MakeDoor) -> None:
    """SESSION_TOO_FRESH_X is raised; it is no flow control."""
    door = make()
    door.sender.answers(refused(400, "SESSION_TOO_FRESH_86400"))
    with pytest.raises(RpcError):
        await door.call(Query())
    assert (await door.call(Query()), door.recorder.floods) == ("ok", [])


@virtual
async def test_a_limit_without_a_number_waits_the_default(make: MakeDoor) -> None:
    """30, 60 and 120 s, which don't count towards call_timeout and do towards max_wait."""
    limit = {"NO_NUMBER": Override(Kind.RATE_LIMIT, Remedy.WAIT, Scope.CALL)}
    door = make(call_timeout=5.0, max_wait=300.0, overrides=limit)
    door.sender.answers(*[refused(400, "NO_NUMBER")] * 9)
    with pytest.raises(RpcError, match="NO_NUMBER"):
        await door.call(Query())
    assert door.sender.times == [0.0, 30.0, 90.0, 210.0]
    assert door.recorder.floods == []


# --- Held calls -----------------------------------------------------------------------------------------


@virtual
async def test_calls_of_an_account_that_starts_are_held(make: MakeDoor) -> None:
    """They leave when it is online."""
    door = make(opened=False)
    calls = door.calls(Query(), Query())
    await asyncio.sleep(5.0)
    assert (door.gate.held, door.sender.sent) == (2, [])
    door.gate.release()
    await asyncio.gather(*calls)
    assert (door.gate.held, door.sender.times) == (0, [5.0, 5.0])


@virtual
async def test_held_calls_leave_in_order_and_no_faster_than_the_rate(make: MakeDoor) -> None:
    """At most `release_rate` in any second, a new call behind them; and not slower than it must be."""
    door = make(opened=False, release_rate=10.0)
    queries = [Query() for _ in range(35)]
    calls = door.calls(*queries)
    await settle()
    door.gate.release()
    await asyncio.sleep(0.01)
    late = Query()
    await asyncio.gather(*calls, *door.calls(late))
    assert door.sender.queries == [*queries, late]
    times = door.sender.times
    assert all(sum(at <= other < at + 1.0 for other in times) <= 10 for at in times)
    assert times[-1] <= 4.0


@virtual
async def test_those_whom_the_pacing_held_are_paced_too(make: MakeDoor) -> None:
    """20 a second through a release of 19: whom the first burst holds up make a second one, which counts as well."""
    door = make(opened=False, release_rate=30.0)
    calls: list[asyncio.Task[Any]] = []
    for n in range(140):
        calls += door.calls(Query())
        await asyncio.sleep(0.05)
        if n == 18:
            door.gate.release()
    await asyncio.gather(*calls)
    times = door.sender.times
    assert len(times) == 140
    assert max(sum(at <= other < at + 1.0 for other in times) for at in times) <= 30
    late = [at for at in times if at > 5.0]
    assert max(sum(at <= other < at + 0.049 for other in late) for at in late) == 1  # it has an end


@virtual
async def test_calls_that_went_out_again_by_themselves_count_against_the_rate(make: MakeDoor) -> None:
    """What the new link has just sent again is traffic too."""
    door = make(opened=False, release_rate=10.0)
    calls = door.calls(*[Query() for _ in range(4)])
    await settle()
    door.gate.release(8)
    await asyncio.gather(*calls)
    assert door.sender.times[:2] == [0.0, 0.0]
    assert all(at >= 1.0 for at in door.sender.times[2:])


@virtual
async def test_a_second_hold_stops_the_release(make: MakeDoor) -> None:
    """The link was lost again while calls were leaving: the rest stay, in order."""
    door = make(opened=False, release_rate=10.0)
    queries = [Query() for _ in range(15)]
    calls = door.calls(*queries)
    await settle()
    door.gate.release()
    await settle()
    door.gate.hold()
    await asyncio.sleep(10.0)
    assert (len(door.sender.sent), door.gate.held) == (10, 5)
    door.gate.release()
    await asyncio.gather(*calls)
    assert door.sender.queries == queries


@virtual
async def test_an_overdue_link_holds_new_calls_back(make: MakeDoor) -> None:
    """Nothing more goes into a link that stands still; what waits leaves when it moves, or on the next link."""
    door = make()
    door.gate.hold_back()
    calls = door.calls(Query())
    await asyncio.sleep(2.0)
    assert door.sender.sent == []
    door.gate.carry_on()
    assert await calls[0] == "ok"
    door.gate.hold_back()
    calls = door.calls(Query())
    await asyncio.sleep(2.0)
    door.gate.hold()
    door.gate.release()
    assert await calls[0] == "ok"
    assert door.sender.times == [2.0, 4.0]


@virtual
async def test_what_was_missed_is_asked_for_before_held_calls_leave(make: MakeDoor) -> None:
    """A difference goes before those that are held, however many they are."""
    door = make(opened=False, max_held=3, release_rate=1.0)
    held, difference = [Query() for _ in range(3)], Query(name="updates.GetDifference", read_only=True)
    calls = door.calls(*held)
    await settle()
    calls += door.calls(difference)
    await settle()
    door.gate.release()
    await asyncio.gather(*calls)
    assert door.sender.queries == [difference, *held]


@virtual
async def test_no_more_than_max_held_are_held(make: MakeDoor) -> None:
    """The next is refused at once, and says why."""
    door = make(opened=False, max_held=3)
    calls = door.calls(*[Query() for _ in range(3)])
    await settle()
    with pytest.raises(AccountUnavailable, match=r"3 calls are held already \(max_held\)"):
        await door.call(Query())
    door.gate.release()
    assert await asyncio.gather(*calls) == ["ok"] * 3


@virtual
async def test_calls_that_gave_up_are_held_no_longer(make: MakeDoor) -> None:
    """Timed out or called off, they leave their place to others, however long the outage."""
    door = make(opened=False, max_held=3, call_timeout=5.0)
    calls = door.calls(*[Query() for _ in range(3)])
    await asyncio.sleep(1.0)
    calls[0].cancel()
    await settle()
    assert door.gate.held == 2
    errors = await asyncio.gather(*calls[1:], return_exceptions=True)
    assert all(isinstance(error, AccountUnavailable) for error in errors)
    assert (door.gate.held, door.sender.sent) == (0, [])
    last = door.calls(Query())
    await settle()
    door.gate.release()
    assert await last[0] == "ok"


@virtual
async def test_a_call_called_off_as_it_is_released_harms_no_other(make: MakeDoor) -> None:
    """The one behind it takes its place."""
    door = make(opened=False)
    first, second = Query(), Query()
    calls = door.calls(first, second)
    await settle()
    calls[0].cancel()
    door.gate.release()
    assert await calls[1] == "ok"
    assert door.sender.queries == [second]


@virtual
async def test_holding_counts_towards_the_calls_time(make: MakeDoor) -> None:
    """AccountUnavailable with the state, and what went wrong."""
    door = make(opened=False, call_timeout=60.0)
    door.gate.hold("recovering", "connection: reset")
    with pytest.raises(
        AccountUnavailable, match=r"SendMessage was held within 60 s \(call_timeout\)"
    ) as caught:
        await door.call(Query())
    error = caught.value
    assert (error.account, error.state, error.failure, error.retry_at) == (
        "bot",
        "recovering",
        "connection: reset",
        None,
    )
    assert asyncio.get_running_loop().time() == 1060.0


@virtual
async def test_an_answer_that_never_comes_says_online(make: MakeDoor) -> None:
    """The state is the present one, not that of the last outage."""
    door = make(call_timeout=5.0)
    door.gate.hold("recovering", "connection: reset")
    door.gate.release()
    door.sender.answers(asyncio.get_running_loop().create_future())
    with pytest.raises(AccountUnavailable, match="was not answered") as caught:
        await door.call(Query())
    assert (caught.value.state, caught.value.failure) == ("online", None)


# --- Refused --------------------------------------------------------------------------------------------


@virtual
async def test_a_suspended_accounts_calls_fail_at_once(make: MakeDoor) -> None:
    """New ones with the state, the failure, and when it will be tried again."""
    door = make()
    door.gate.refuse("suspended", "proxy: refused", NOW + 60.0)
    with pytest.raises(AccountUnavailable, match=f"bot is suspended; {SEND} was not sent") as caught:
        await door.call(Query())
    assert (caught.value.state, caught.value.failure) == ("suspended", "proxy: refused")
    assert caught.value.retry_at == datetime.fromtimestamp(NOW + 60.0, UTC)
    assert door.sender.sent == []


@virtual
async def test_a_refusal_wakes_everybody(make: MakeDoor) -> None:
    """Held, waiting for a flood to end, in line behind one who does, or for a repeat: each learns it at once."""
    door = make()
    door.sender.answers(flood(200), refused(*SERVER_DOWN), refused(400, "NO_NUMBER"))
    waiting = door.calls(Query())
    await settle()
    waiting += door.calls(Query("messages.GetHistory"))
    await settle()
    waiting += door.calls(Query(), Query())
    door.gate.hold()
    waiting += door.calls(Query("help.GetConfig", None))
    await asyncio.sleep(0.1)
    door.gate.refuse("paused", None, None)
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert asyncio.get_running_loop().time() == 1000.1
    assert [type(error) for error in errors] == [AccountUnavailable] * 5
    assert (door.gate.held, len(door.sender.sent)) == (0, 2)


@virtual
async def test_a_refusal_may_come_at_any_moment(make: MakeDoor) -> None:
    """At the very moment of a repeat, or of a caller's losing interest: once, and nothing is sent."""
    door = make()
    asyncio.get_running_loop().call_later(1.0, door.gate.refuse, "paused", None, None)
    door.sender.answers(refused(*SERVER_DOWN))
    with pytest.raises(AccountUnavailable, match="the call was waiting"):
        await door.call(Query())
    door.gate.hold()
    calls = door.calls(Query())
    await settle()
    calls[0].cancel()
    door.gate.refuse("paused", None, None)
    await asyncio.wait(calls)
    assert calls[0].cancelled()
    assert door.sender.times == [0.0]


@virtual
async def test_a_link_that_answers_opens_no_closed_gate(make: MakeDoor) -> None:
    """It is the account that says when it is online."""
    door = make(opened=False)
    calls = door.calls(Query())
    await settle()
    door.gate.carry_on()
    await asyncio.sleep(1.0)
    assert door.sender.sent == []
    door.gate.release()
    assert await calls[0] == "ok"


@virtual
async def test_after_a_refusal_calls_are_held_and_released_as_before(make: MakeDoor) -> None:
    """A person resumed it."""
    door = make()
    door.gate.refuse("paused", None, None)
    door.gate.hold("starting")
    calls = door.calls(Query())
    await settle()
    door.gate.release()
    assert await calls[0] == "ok"


# --- A failure that reaches further ---------------------------------------------------------------------


@virtual
async def test_a_wider_failure_is_reported_and_the_call_held(make: MakeDoor) -> None:
    """401: the account decides; the call goes again when it is online. The rows are the account's."""
    door = make()
    door.sender.answers(refused(401, "AUTH_KEY_UNREGISTERED"))
    calls = door.calls(Query())
    await asyncio.sleep(1.0)
    (told,) = door.reported
    assert (told.kind, told.remedy, told.evidence.method) == (Kind.AUTH, Remedy.RELOGIN, SEND)
    assert door.gate.held == 1
    door.gate.release()
    assert await calls[0] == "ok"
    assert (door.sender.times, door.recorder.rows) == ([0.0, 1.0], [])


@virtual
async def test_a_late_wider_failure_opens_no_closed_door(make: MakeDoor) -> None:
    """The account was paused while the answer was on its way: calls are refused, not held."""
    door = make()
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    door.sender.answers(answer)
    calls = door.calls(Query())
    await settle()
    answer.set_exception(refused(401, "AUTH_KEY_UNREGISTERED"))
    door.gate.refuse("paused", None, None)
    with pytest.raises(AccountUnavailable, match="bot is paused"):
        await calls[0]
    with pytest.raises(AccountUnavailable, match="bot is paused"):
        await door.call(Query())


@virtual
async def test_a_query_that_the_server_would_not_take_is_judged_like_any_failure(make: MakeDoor) -> None:
    """A protocol failure is the session's."""
    door = make()
    door.sender.answers(failed(Source.PROTOCOL, "refused 5 times"))
    calls = door.calls(Query())
    await settle()
    assert [told.kind for told in door.reported] == [Kind.CONNECTION]
    door.gate.release()
    assert await calls[0] == "ok"


# --- The session is gone --------------------------------------------------------------------------------


@virtual
async def test_what_was_never_sent_is_sent(make: MakeDoor) -> None:
    """Whatever it does."""
    door = make()
    door.sender.answers(SessionGone(sent=False), "created")
    query = Query("messages.CreateChat")
    assert await door.call(query) == "created"
    assert door.sender.queries == [query, query]


@virtual
async def test_what_only_reads_is_sent_again(make: MakeDoor) -> None:
    """Asking twice is asking once."""
    door = make()
    door.sender.answers(SessionGone(sent=True), "history")
    query = Query("messages.GetHistory", read_only=True)
    assert await door.call(query) == "history"
    assert door.sender.queries == [query, query]


@virtual
async def test_what_carries_a_random_id_is_sent_again_as_it_is(make: MakeDoor) -> None:
    """The same query with the same random_id: Telegram knows it."""
    door = make()
    door.sender.answers(SessionGone(sent=True), "a message")
    query = Query(random_id=7)
    assert await door.call(query) == "a message"
    assert (door.sender.queries, door.sender.drawn) == ([query, query], [7, 7])


@virtual
async def test_anything_else_is_unknown(make: MakeDoor) -> None:
    """It might be done twice: the caller decides. It is sent once, and says so."""
    door = make()
    door.sender.answers(SessionGone(sent=True))
    with pytest.raises(OutcomeUnknown, match=r"bot: messages\.CreateChat was sent") as caught:
        await door.call(Query("messages.CreateChat"))
    assert (caught.value.account, caught.value.method, len(door.sender.sent)) == (
        "bot",
        "messages.CreateChat",
        1,
    )


@virtual
async def test_what_is_sent_again_waits_for_the_new_link(make: MakeDoor) -> None:
    """The account is recovering: the repeat is held like any call."""
    door = make()
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    door.sender.answers(gone)
    calls = door.calls(Query(random_id=7))
    await settle()
    door.gate.hold()
    gone.set_exception(SessionGone(sent=True))
    await asyncio.sleep(3.0)
    assert len(door.sender.sent) == 1
    door.gate.release()
    assert await calls[0] == "ok"
    assert door.sender.times == [0.0, 3.0]


# --- RANDOM_ID_DUPLICATE --------------------------------------------------------------------------------


@virtual
async def test_a_bad_draw_is_drawn_anew_once(make: MakeDoor) -> None:
    """On a first send the number was somebody else's; nothing was delivered, nothing is recorded."""
    door = make()
    door.sender.answers(refused(400, DUPLICATE), "a message")
    assert await door.call(Query(random_id=7)) == "a message"
    assert (door.sender.drawn, door.recorder.rows) == ([7, 101], [])


@virtual
async def test_a_second_bad_draw_is_the_callers(make: MakeDoor) -> None:
    """Once, not for ever."""
    door = make()
    door.sender.answers(*[refused(400, DUPLICATE)] * 5)
    with pytest.raises(RpcError, match=DUPLICATE):
        await door.call(Query(random_id=7))
    assert door.sender.drawn == [7, 101]


@virtual
async def test_after_a_lost_session_it_means_delivered(make: MakeDoor) -> None:
    """The message is fetched; the random_id stays what it was."""
    door = make()
    door.sender.answers(SessionGone(sent=True), refused(400, DUPLICATE))
    door.sender.delivered = "its message"
    assert await door.call(Query(random_id=7)) == "its message"
    assert door.sender.drawn == [7, 7]


@virtual
async def test_after_the_link_sent_it_twice_it_means_delivered(make: MakeDoor) -> None:
    """Repeated over a new connection below us: `sends` tells."""
    door = make()
    door.sender.answers(refused(500, DUPLICATE, sends=2))
    door.sender.delivered = "its message"
    assert await door.call(Query(random_id=7)) == "its message"


@virtual
async def test_after_a_500_it_means_delivered(make: MakeDoor) -> None:
    """The server did it before it failed: drawing anew would send the message twice."""
    door = make()
    door.sender.answers(refused(*SERVER_DOWN), refused(500, DUPLICATE))
    door.sender.delivered = "its message"
    assert await door.call(Query(random_id=7)) == "its message"
    assert door.sender.drawn == [7, 7]
    assert door.recorder.results == [Result.RETRYING, Result.RECOVERED]


@pytest.mark.parametrize(
    "found",
    [None, refused(400, "PERSISTENT_TIMESTAMP_INVALID"), SessionGone(sent=True), failed(), "nothing comes"],
)
@virtual
async def test_a_delivered_message_that_cannot_be_found_is_said_to_be_delivered(
    make: MakeDoor, found: Any
) -> None:
    """DeliveredUnseen, whatever kept us from finding it: the caller must not send it again."""
    door = make()
    door.sender.answers(refused(*SERVER_DOWN), refused(400, DUPLICATE))
    never = asyncio.get_running_loop().create_future()
    door.sender.delivered = never if found == "nothing comes" else found
    with pytest.raises(DeliveredUnseen, match="was delivered"):
        await door.call(Query(random_id=7))
    assert door.recorder.results == [Result.RETRYING, Result.RECOVERED]


# --- Done already ---------------------------------------------------------------------------------------


@virtual
async def test_what_was_done_already_is_a_success(make: MakeDoor) -> None:
    """CHAT_NOT_MODIFIED: the caller gets what the call would have given, and nothing is recorded."""
    door = make()
    door.sender.answers(refused(400, "CHAT_NOT_MODIFIED"))
    door.sender.done_already = "nothing new"
    assert await door.call(Query("messages.EditChatTitle")) == "nothing new"
    assert (door.sender.asked_done, door.recorder.rows) == ([False], [])


@pytest.mark.parametrize("first", [refused(*SERVER_DOWN), SessionGone(sent=True)])
@virtual
async def test_it_is_said_that_the_call_itself_may_have_done_it(make: MakeDoor, first: Exception) -> None:
    """After a repeat, what was done already was most likely done by this call."""
    door = make()
    door.sender.answers(first, refused(400, "BOT_SCORE_NOT_MODIFIED"))
    door.sender.done_already = "the score"
    assert await door.call(Query("messages.SetGameScore", random_id=1)) == "the score"
    assert door.sender.asked_done == [True]


@virtual
async def test_a_repeat_by_the_link_counts_too(make: MakeDoor) -> None:
    """Sent twice below us: `sends` tells."""
    door = make()
    door.sender.answers(refused(400, "CHAT_NOT_MODIFIED", sends=2))
    door.sender.done_already = "nothing new"
    await door.call(Query("messages.EditChatTitle"))
    assert door.sender.asked_done == [True]


@pytest.mark.parametrize(
    "found", [None, refused(400, "MESSAGE_ID_INVALID"), SessionGone(sent=True), failed()]
)
@virtual
async def test_where_nothing_honest_can_be_given_the_caller_gets_the_error(
    make: MakeDoor, found: Any
) -> None:
    """Its incident, if it has one, ends well all the same: it is done."""
    door = make()
    door.sender.answers(refused(*SERVER_DOWN), refused(400, "MESSAGE_NOT_MODIFIED"))
    door.sender.done_already = found
    with pytest.raises(RpcError, match="MESSAGE_NOT_MODIFIED"):
        await door.call(Query("messages.EditMessage"))
    assert door.recorder.results == [Result.RETRYING, Result.RECOVERED]


# --- What nobody knows ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "text"), [(503, "Timeout"), (-503, "MSG_WAIT_TIMEOUT"), (500, "TIMEOUT")])
@virtual
async def test_telegrams_own_time_out_tells_nothing(make: MakeDoor, code: int, text: str) -> None:
    """An acting call without a random_id is not repeated; one with it, and one that reads, are."""
    door = make()
    door.sender.answers(refused(code, text))
    with pytest.raises(OutcomeUnknown, match=f"CreateChat was sent, but Telegram answered {text}"):
        await door.call(Query("messages.CreateChat"))
    assert (len(door.sender.sent), door.recorder.results) == (1, [Result.RAISED])
    for query in (Query(random_id=7), Query("messages.GetHistory", read_only=True)):
        door.sender.answers(refused(code, text))
        assert await door.call(query) == "ok"


def untaken(*, sent: bool, error_id: str | None = None) -> LinkFailed:
    return LinkFailed(Evidence(Source.PROTOCOL, "refused 6 times: bad salt", error_id), sent=sent)


@virtual
async def test_a_query_that_is_never_taken_ends_as_unavailable(make: MakeDoor) -> None:
    """At the cap its caller gets an exception of ours that says why, and the record has it; not the link's own."""
    door = make()
    door.sender.answers(*[untaken(sent=False)] * 9)
    calls = door.calls(Query("messages.CreateChat"))
    for _ in range(4):
        await settle()
        door.gate.release()
    with pytest.raises(AccountUnavailable, match="bot is online; refused 6 times: bad salt"):
        await calls[0]
    assert (len(door.sender.sent), len(door.reported)) == (4, 3)
    assert door.recorder.results == [Result.RAISED]


@virtual
async def test_what_was_not_taken_again_but_may_be_done_is_unknown(make: MakeDoor) -> None:
    """An earlier sending may have been accepted: only what Telegram knows again by its random_id goes once more."""
    door = make()
    door.sender.answers(untaken(sent=True))
    with pytest.raises(OutcomeUnknown, match="CreateChat was sent, but refused 6 times"):
        await door.call(Query("messages.CreateChat"))
    assert len(door.sender.sent) == 1
    door.sender.answers(untaken(sent=True))
    calls = door.calls(Query(random_id=7))
    await settle()
    door.gate.release()
    assert await calls[0] == "ok"


@virtual
async def test_an_answer_that_cannot_be_read_is_not_asked_for_again(make: MakeDoor) -> None:
    """Sending again brings the same; whether it was done the caller has to look up, if it did anything at all."""
    door = make()
    door.sender.answers(*[untaken(sent=True, error_id="UNREADABLE")] * 2)
    with pytest.raises(OutcomeUnknown, match="SendMessage"):
        await door.call(Query(random_id=7))
    with pytest.raises(AccountUnavailable, match="bot is online"):
        await door.call(Query("messages.GetHistory", read_only=True))
    assert (len(door.sender.sent), door.reported) == (2, [])


@virtual
async def test_a_failure_that_only_one_call_meets_is_that_calls(make: MakeDoor) -> None:
    """The account proves itself well each time; at the cap of the kind the caller gets the error."""
    door = make()
    door.sender.answers(*[refused(400, "CONNECTION_NOT_INITED")] * 9)
    calls = door.calls(Query())
    for _ in range(4):
        await settle()
        door.gate.release()
    with pytest.raises(RpcError, match="CONNECTION_NOT_INITED"):
        await calls[0]
    assert (len(door.sender.sent), len(door.reported)) == (4, 3)
