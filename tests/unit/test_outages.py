"""Outages: one row for what befalls many, and each account's own for what befalls it alone. Virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from supervisor.core import incident as incidents
from supervisor.core.classify import classify
from supervisor.core.failure import Action, Evidence, Failure, Result, Scope, Source
from supervisor.core.incident import Incident
from supervisor.journal import Draft, Journal
from supervisor.outages import Fleet, Outages
from supervisor.ports import IncidentRow
from tests.unit.fakes import FakeClock, FakeRecorder, virtual

BANNED = Evidence(Source.RPC, "USER_DEACTIVATED_BAN", "USER_DEACTIVATED_BAN", 401)


def refused(path: str = "de1") -> Failure:
    return classify(Evidence(Source.SOCKET, "connection refused", path=path, cause=("refused",)))


@dataclass
class Stage:
    """Accounts that write what befalls them, and what is known of their paths."""

    recorder: FakeRecorder
    clock: FakeClock
    population: dict[str, int]
    down: set[str] = field(default_factory=set)
    excused: list[str] = field(default_factory=list)
    incidents: dict[str, Incident] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = iter(f"o{n}" for n in range(1, 1000))
        fleet = Fleet(lambda: self.population, self.down.__contains__, self.excused.append)
        self.outages = Outages(self.recorder, self.clock, fleet, new_id=lambda: next(ids), stable_after=60.0)

    def fails(self, name: str, failure: Failure | None = None, result: Result = Result.RETRYING) -> None:
        """An account fails, as its driver tells it."""
        failure = failure or refused()
        now, mono = self.clock.now(), self.clock.monotonic()
        incident = self.incidents.get(name)
        if incident is None:
            incident = incidents.opened(f"i-{name}", failure, failure.evidence.path, now, mono)
        elif not incident.is_open:
            incident = incident.reopened(now, mono)
        self._write(name, failure, incident.seen(), result, failure.action)

    def recovers(self, name: str) -> None:
        """And is back."""
        incident = self.incidents[name].closed(Result.RECOVERED, self.clock.now(), self.clock.monotonic())
        self._write(name, refused(incident.path), incident, Result.RECOVERED, Action.RECONNECT)

    def _write(self, name: str, failure: Failure, incident: Incident, result: Result, action: Action) -> None:
        self.incidents[name] = incident
        pen = Journal(name, self.recorder, self.clock, failure.evidence.path)
        row = pen.draft(failure, result, action, incident=incident.id)
        self.outages.log(name, Draft(pen, failure, row, pen.incident_row(incident)))

    @property
    def rows(self) -> list[tuple[str | None, Scope, Result]]:
        return [(row.account, row.scope, row.outcome) for row in self.recorder.rows]

    def last(self, incident: str) -> IncidentRow:
        """An incident as it was written last."""
        return [row for row in self.recorder.incidents if row.id == incident][-1]


@pytest.fixture
def stage(recorder: FakeRecorder, clock: FakeClock) -> Stage:
    return Stage(recorder, clock, {"de1": 10, "nl3": 10})


@virtual
async def test_one_account_has_an_incident_of_its_own(stage: Stage) -> None:
    """Written a second later, with its own time; its recovery too, in order."""
    at = stage.clock.now()
    stage.fails("a")
    await asyncio.sleep(0.2)
    stage.recovers("a")
    assert stage.rows == []
    await asyncio.sleep(0.9)
    own = refused().scope
    assert stage.rows == [("a", own, Result.RETRYING), ("a", own, Result.RECOVERED)]
    assert [row.at for row in stage.recorder.rows] == [at, at + 0.2]
    assert stage.last("i-a").outcome is Result.RECOVERED
    assert stage.outages.of("a") is None


@virtual
async def test_where_there_are_only_two_nobody_waits(recorder: FakeRecorder, clock: FakeClock) -> None:
    """They are never many."""
    stage = Stage(recorder, clock, {"direct": 2})
    stage.fails("a", refused("direct"))
    stage.fails("b", refused("direct"))
    assert [row.account for row in recorder.rows] == ["a", "b"]


@virtual
async def test_many_on_one_path_are_one_incident_of_the_path(stage: Stage) -> None:
    """One row, with the accounts it touched; over when the last is back. None of them has one of its own."""
    for n in range(8):
        stage.fails(f"bot{n}")
        await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)
    assert stage.rows == [(None, Scope.PATH, Result.RETRYING)]
    (row,) = stage.recorder.rows
    assert (row.path, row.message) == ("de1", "8 accounts at once: connection refused")
    assert row.cause == ("refused",)
    names = tuple(f"bot{n}" for n in range(8))
    outage = stage.last("o1")
    assert (outage.account, outage.scope, outage.accounts, outage.closed_at) == (
        None,
        Scope.PATH,
        names,
        None,
    )
    assert {stage.outages.of(name) for name in names} == {stage.outages.on("de1")}
    assert stage.excused == list(names)
    stage.down.add("de1")
    stage.fails("late")  # the path is known to be broken by now
    stage.fails("bot0")
    await asyncio.sleep(1.0)
    assert len(stage.rows) == 1
    assert stage.last("o1").accounts == (*names, "late")
    for name in (*names, "late"):
        assert stage.last("o1").closed_at is None
        stage.recovers(name)
    assert stage.rows[1:] == [(None, Scope.PATH, Result.RECOVERED)]
    assert stage.recorder.rows[-1].duration == pytest.approx(2.4)
    assert (stage.last("o1").outcome, stage.last("o1").failures) == (Result.RECOVERED, 10)
    assert {row.id for row in stage.recorder.incidents} == {"o1"}
    assert stage.outages.of("bot0") is None


@virtual
async def test_some_are_back_before_anybody_knows(stage: Stage) -> None:
    """A reset of all links, over in half a second, is one outage that has recovered."""
    for n in range(9):
        stage.fails(f"bot{n}")
    await asyncio.sleep(0.5)
    for n in range(9):
        stage.recovers(f"bot{n}")
    await asyncio.sleep(0.6)
    assert stage.rows == [(None, Scope.PATH, Result.RETRYING), (None, Scope.PATH, Result.RECOVERED)]
    assert len(stage.last("o1").accounts) == 9


@virtual
async def test_all_paths_together_are_the_fleets(stage: Stage) -> None:
    """One row, no proxy is said to be rotated."""
    for n in range(20):
        stage.fails(f"bot{n}", refused(("de1", "nl3")[n % 2]))
    await asyncio.sleep(1.1)
    assert stage.rows == [(None, Scope.FLEET, Result.RETRYING)]
    assert stage.recorder.rows[0].action is Action.RECONNECT
    assert len(stage.last("o1").accounts) == 20
    assert stage.outages.on("de1") is stage.outages.on("nl3")


@virtual
async def test_a_reset_of_all_paths_is_one_incident_with_its_own_times(stage: Stage) -> None:
    """All are back before it is judged: one row and its end, from the first failure to the last return."""
    at = stage.clock.now()
    for n in range(10):
        stage.fails(f"bot{n}", refused(("de1", "nl3")[n % 2]))
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    for n in range(10):
        stage.recovers(f"bot{n}")
        await asyncio.sleep(0.01)
    await asyncio.sleep(2.0)
    assert stage.rows == [(None, Scope.FLEET, Result.RETRYING), (None, Scope.FLEET, Result.RECOVERED)]
    assert [row.at - at for row in stage.recorder.rows] == pytest.approx([0.0, 0.49], abs=1e-3)
    assert stage.recorder.rows[1].duration == pytest.approx(0.49, abs=1e-3)
    assert stage.last("o1").opened_at == pytest.approx(at, abs=1e-3)


@virtual
async def test_who_stays_away_alone_is_no_longer_everybodys_trouble(
    recorder: FakeRecorder, clock: FakeClock
) -> None:
    """All paths were down, and two proxies stay so: the fleet's incident is over; one account's is its own, and many the path's."""
    stage = Stage(recorder, clock, {"direct": 3, "de1": 1, "nl3": 3}, {"direct", "de1", "nl3"})
    homes = {"a": "direct", "b": "direct", "c": "direct", "d": "de1", "e": "nl3", "f": "nl3", "g": "nl3"}
    for name, path in homes.items():
        stage.fails(name, refused(path))
    await asyncio.sleep(5.0)
    stage.down.remove("direct")
    stage.recovers("a")
    stage.recovers("b")
    await asyncio.sleep(5.0)
    assert len(recorder.rows) == 1
    stage.recovers("c")
    await asyncio.sleep(6.0)
    own = refused().scope
    assert stage.rows[1:] == [
        ("d", own, Result.RETRYING),
        (None, Scope.PATH, Result.RETRYING),
        (None, Scope.FLEET, Result.RECOVERED),
    ]
    assert stage.last("o1").outcome is Result.RECOVERED
    assert recorder.rows[-1].duration == pytest.approx(10.0)
    assert stage.last("o2").accounts == ("e", "f", "g")
    for name in "defg":
        stage.recovers(name)
    assert [row.account for row in recorder.rows[4:]] == ["d", None]
    await asyncio.sleep(60.0)
    assert len(recorder.rows) == 6


@virtual
async def test_who_was_never_part_of_it_does_not_keep_it_open(
    recorder: FakeRecorder, clock: FakeClock
) -> None:
    """Links are reset while one account's proxy is dead anyway: those that are back at once do not wait for that."""
    stage = Stage(recorder, clock, {"direct": 2, "de1": 1}, {"de1"})
    stage.fails("dead", refused("de1"))
    for name in ("a", "b"):
        stage.fails(name, refused("direct"))
        stage.recovers(name)
    await asyncio.sleep(12.0)
    assert stage.last("o1").outcome is Result.RECOVERED
    assert [row.account for row in recorder.rows] == [None, "dead", None]


@virtual
async def test_an_outage_of_a_path_can_become_everybodys(recorder: FakeRecorder, clock: FakeClock) -> None:
    """The other paths follow seconds later: the first outage is widened, the others' are taken into it."""
    stage = Stage(recorder, clock, {"de1": 4, "nl3": 4, "us2": 4})
    for n, path in enumerate(("de1", "nl3", "us2")):
        for m in range(4):
            stage.fails(f"bot{n}{m}", refused(path))
        stage.down.add(path)
        await asyncio.sleep(1.5)
    assert stage.rows == [(None, Scope.PATH, Result.RETRYING)] * 2
    assert (stage.last("o1").scope, len(stage.last("o1").accounts)) == (Scope.FLEET, 12)
    assert stage.last("o2").closed_at is not None
    for n in range(3):
        for m in range(4):
            stage.recovers(f"bot{n}{m}")
    assert stage.rows[2:] == [(None, Scope.FLEET, Result.RECOVERED)]
    assert {row.account for row in recorder.incidents} == {None}


@virtual
async def test_an_accounts_own_trouble_is_not_the_outages(stage: Stage) -> None:
    """It is banned as it comes back: written as its own, and the outage waits for it no longer."""
    for n in range(5):
        stage.fails(f"bot{n}")
    await asyncio.sleep(1.1)
    for n in range(4):
        stage.recovers(f"bot{n}")
    stage.fails("bot4", classify(BANNED), Result.FAILED)
    accounts = [row.account for row in stage.recorder.rows]
    assert accounts == [None, "bot4", None]
    assert stage.last("o1").outcome is Result.RECOVERED
    stage.fails("bot0")  # on a path that is well again: its own
    await asyncio.sleep(10.0)
    assert stage.recorder.rows[-1].account == "bot0"


@virtual
async def test_an_incident_that_was_its_own_stays_so(stage: Stage) -> None:
    """It began before the outage, and is written to its end."""
    stage.fails("early")
    await asyncio.sleep(6.0)
    for n in range(5):
        stage.fails(f"bot{n}")
    await asyncio.sleep(1.1)
    stage.fails("early")
    stage.recovers("early")
    own = [row.outcome for row in stage.recorder.rows if row.account == "early"]
    assert own == [Result.RETRYING, Result.RETRYING, Result.RECOVERED]


@virtual
async def test_an_outage_that_comes_back_soon_is_the_same(stage: Stage) -> None:
    """Within `stable_after`; after that it is another."""
    for wait in (30.0, 100.0, 0.0):
        for n in range(5):
            stage.fails(f"bot{n}")
        await asyncio.sleep(1.1)
        for n in range(5):
            stage.recovers(f"bot{n}")
        await asyncio.sleep(wait)
    assert [row.incident for row in stage.recorder.rows] == ["o1"] * 4 + ["o2"] * 2


@virtual
async def test_who_is_paused_or_removed_is_waited_for_no_longer(stage: Stage) -> None:
    """An outage from which nobody came back has neither recovered nor failed."""
    for n in range(3):
        stage.fails(f"bot{n}")
    stage.down.add("de1")
    await asyncio.sleep(1.1)
    for n in range(3):
        pen = Journal(f"bot{n}", stage.recorder, stage.clock, "de1")
        closed = stage.incidents[f"bot{n}"].closed(None, stage.clock.now(), stage.clock.monotonic())
        stage.outages.given_up(f"bot{n}", pen.incident_row(closed))
    assert (stage.last("o1").outcome, stage.last("o1").closed_at) == (None, stage.clock.now())
    assert {row.account for row in stage.recorder.incidents} == {None}
    stage.fails("own", classify(BANNED), Result.SUSPENDED)
    closed = stage.incidents["own"].closed(None, stage.clock.now(), stage.clock.monotonic())
    stage.outages.given_up("own", Journal("own", stage.recorder, stage.clock, "de1").incident_row(closed))
    assert stage.last("i-own").closed_at is not None


@virtual
async def test_a_restart_goes_on_with_an_outage(stage: Stage) -> None:
    """The same incident, its time counted from its beginning; accounts that are gone are not waited for."""
    now = stage.clock.now()
    left = IncidentRow(
        "o9", None, "de1", Scope.PATH, refused().kind, now - 100.0, failures=3, accounts=("a", "b", "gone")
    )
    over = replace(left, id="o8", accounts=("gone",))
    others = [replace(left, id="o7", account="a"), replace(left, id="o6", closed_at=now)]
    stage.outages.restore([left, over, *others], ["a", "b"])
    assert stage.last("o8").closed_at is not None
    stage.down.add("de1")
    stage.fails("a")
    stage.outages.online("b")  # its path works by now: it had no failure to recover from
    stage.outages.online("somebody")
    stage.recovers("a")
    assert stage.rows == [(None, Scope.PATH, Result.RECOVERED)]
    assert stage.recorder.rows[0].duration == pytest.approx(100.0)
    assert stage.last("o9").accounts == ("a", "b", "gone")


@virtual
async def test_a_stop_writes_what_was_kept_back_and_leaves_outages_open(stage: Stage) -> None:
    """For the next run."""
    for n in range(5):
        stage.fails(f"bot{n}")
    await asyncio.sleep(1.1)
    stage.fails("alone", refused("nl3"))
    stage.outages.close()
    assert [row.account for row in stage.recorder.rows] == [None, "alone"]
    assert stage.last("o1").closed_at is None
    await asyncio.sleep(5.0)
    assert len(stage.recorder.rows) == 2
