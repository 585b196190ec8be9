"""The ways to Telegram: who takes which, who finds one broken, who tells that it is back. Virtual time, in seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from supervisor.core.classify import classify
from supervisor.core.failure import Failure, Source
from supervisor.paths import Limits, Paths
from supervisor.ports import LinkFailed, PathSnapshot
from supervisor.turns import USED
from tests.unit.fakes import (
    FakeClock,
    FakeRecorder,
    FakeTraveller,
    VirtualLoop,
    failed,
    settle,
    virtual,
)

POOL = ("de1", "nl3", "us2")
SILENT = failed(Source.SOCKET, "refused")
WRONG_PASSWORD = failed(Source.PROXY, "password refused", context=(("proxy", "authentication"),))
TOO_MANY = failed(Source.TRANSPORT, "-429", code=-429)
TARGET_REFUSED = failed(Source.PROXY, "socks reply 5 (connection refused by destination host)", code=5)

# What an attempt met.
LOST = classify(SILENT.evidence)
REFUSED = classify(TARGET_REFUSED.evidence)


@dataclass
class Probes:
    """Telegram, as far as a probe sees it."""

    dead: dict[str, LinkFailed] = field(default_factory=dict)
    asked: list[tuple[float, str]] = field(default_factory=list)
    takes: float = 0.0
    slow: dict[str, float] = field(default_factory=dict)
    away: set[tuple[str, int]] = field(default_factory=set)

    async def __call__(self, name: str, dc: int) -> float:
        self.asked.append((asyncio.get_running_loop().time() - 1000.0, name))
        await asyncio.sleep(self.slow.get(name, self.takes))
        if (name, dc) in self.away:
            raise SILENT
        if name in self.dead:
            raise self.dead[name]
        return 0.25

    def times(self, name: str = "de1") -> list[float]:
        return [at for at, asked in self.asked if asked == name]


@pytest.fixture
def probes() -> Probes:
    return Probes()


@pytest.fixture
def make(probes: Probes, clock: FakeClock, recorder: FakeRecorder) -> Callable[..., Paths]:
    def make_paths(saved: Mapping[str, PathSnapshot] | None = None, **limits: Any) -> Paths:
        return Paths(
            POOL,
            probes,
            clock,
            Limits(**limits),
            lambda url: url,
            recorder=recorder,
            jitter=lambda: 0.0,
            saved=saved,
        )

    return make_paths


@pytest.fixture
def paths(make: Callable[..., Paths]) -> Paths:
    return make()


def bot(name: str = "bot", candidates: Sequence[str] = POOL, dc: int | None = None) -> FakeTraveller:
    return FakeTraveller(name, candidates, dc)


async def is_broken(paths: Paths, name: str) -> bool:
    """Whether a path is found broken by an account that has failed on it."""
    return (await paths.diagnose(bot(candidates=(name,)), name, LOST)).broken


async def returns(paths: Paths, home: str, pool: Sequence[str] = POOL, name: str = "bot") -> str:
    """An account waits for its path, and is answered on the one that it goes on with."""
    who = bot(name, pool)
    await paths.back(who, home)
    path = home if paths.works(who, home) else paths.rotate(name, pool, home)
    paths.answered(who, path)
    return path


async def diagnosed(
    paths: Paths, failure: Failure, name: str = "de1", pool: Sequence[str] = POOL
) -> tuple[bool, bool]:
    found = await paths.diagnose(bot(candidates=pool), name, failure)
    return found.broken, found.elsewhere


@asynccontextmanager
async def running(paths: Paths) -> AsyncIterator[None]:
    task = asyncio.create_task(paths.run())
    await settle()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


# --- Which path -----------------------------------------------------------------------------------------


def test_without_a_proxy_the_path_is_direct(paths: Paths) -> None:
    """And nothing else is ever chosen for it."""
    assert paths.assign("bot", (), None) == "direct"
    assert paths.rotate("bot", (), "direct") == "direct"


def test_a_pool_spreads_its_accounts_evenly(paths: Paths) -> None:
    """Three to each of three, in the order of the file."""
    chosen = [paths.assign(f"bot{n}", POOL, None) for n in range(9)]
    assert chosen == [*POOL] * 3


def test_an_account_keeps_the_path_it_had(paths: Paths) -> None:
    """Over a restart, however full; unless it may no longer use it."""
    for n in range(3):
        paths.assign(f"bot{n}", ("nl3",), None)
    assert paths.assign("old", POOL, "nl3") == "nl3"
    assert paths.assign("moved", ("de1", "us2"), "nl3") == "de1"
    assert paths.assign("proxied", ("us2", "nl3"), "direct") == "us2"


def test_status_shows_every_proxy_and_direct_where_it_is_used(paths: Paths) -> None:
    """With the number of accounts; one that left counts no longer."""
    paths.assign("a", ("de1",), None)
    paths.assign("b", ("de1",), None)
    assert paths.snapshots() == [
        PathSnapshot("de1", "ok", 2),
        PathSnapshot("nl3", "unused", 0),
        PathSnapshot("us2", "unused", 0),
    ]
    paths.assign("c", (), None)
    paths.leave("a")
    assert paths.snapshots()[:2] == [PathSnapshot("direct", "ok", 1), PathSnapshot("de1", "ok", 1)]


def test_a_rotation_goes_to_the_least_loaded_other(paths: Paths) -> None:
    """And the account is counted there."""
    paths.assign("a", ("nl3",), None)
    paths.assign("b", ("de1",), None)
    assert paths.rotate("b", POOL, "de1") == "us2"
    assert [(path.name, path.accounts) for path in paths.snapshots()] == [("de1", 0), ("nl3", 1), ("us2", 1)]


@virtual
async def test_a_broken_path_is_chosen_by_nobody_who_has_another(paths: Paths, probes: Probes) -> None:
    """Neither by a new account nor by a rotation; who has no other stays."""
    probes.dead = {"de1": SILENT, "nl3": SILENT}
    async with running(paths):
        assert await is_broken(paths, "de1")
        assert await is_broken(paths, "nl3")
        assert paths.assign("a", POOL, None) == "us2"
        assert paths.assign("b", POOL, None) == "us2"
        assert paths.assign("kept", POOL, "de1") == "de1"
        assert paths.rotate("a", POOL, "us2") == "us2"
        assert paths.rotate("kept", POOL, "de1") == "us2"
        assert paths.assign("c", ("de1", "nl3"), None) == "de1"
        broken = paths.snapshots()[0]
        assert (broken.name, broken.state, broken.accounts, broken.breaker) == ("de1", "broken", 1, "open")
        assert (broken.last_failure, broken.failed) == ("refused", 2)


# --- Health ---------------------------------------------------------------------------------------------


@virtual
async def test_a_path_that_answers_is_not_broken(paths: Paths, probes: Probes) -> None:
    """It is asked each time, and who waits for it does not wait."""
    async with running(paths):
        assert not await is_broken(paths, "de1")
        assert not await is_broken(paths, "de1")
        await paths.back(bot(candidates=()), "de1")
        assert len(probes.asked) == 2
        assert asyncio.get_running_loop().time() == 1000.0


@virtual
async def test_a_thousand_accounts_ask_once(paths: Paths, probes: Probes) -> None:
    """All get the answer of one probe; afterwards it is known without asking."""
    probes.dead["de1"], probes.takes = SILENT, 0.3
    async with running(paths):
        found = await asyncio.gather(*(is_broken(paths, "de1") for _ in range(1000)))
        assert found == [True] * 1000
        assert probes.times() == [0.0]
        assert await is_broken(paths, "de1")
        assert await diagnosed(paths, REFUSED, pool=POOL[:1]) == (True, False)
        await settle()
        assert probes.times() == [0.0]


@virtual
async def test_an_asker_that_is_called_off_takes_nobody_with_it(paths: Paths, probes: Probes) -> None:
    """The others get their answer."""
    probes.dead["de1"], probes.takes = SILENT, 1.0
    async with running(paths):
        first, second = (asyncio.create_task(is_broken(paths, "de1")) for _ in range(2))
        await settle()
        first.cancel()
        assert await second
        assert probes.times() == [0.0]


# --- What a failed attempt says of its path -------------------------------------------------------------


@virtual
async def test_a_lost_connection_on_a_path_that_answers_is_not_the_paths(
    paths: Paths, probes: Probes
) -> None:
    """The path is asked, nobody else: there is no reason to move."""
    async with running(paths):
        assert await diagnosed(paths, LOST, pool=POOL) == (False, False)
        assert [name for _, name in probes.asked] == ["de1"]


@virtual
async def test_an_account_may_move_where_telegram_answers(paths: Paths, probes: Probes) -> None:
    """Its own path does not answer; the emptiest of the others is asked, and does."""
    probes.dead["de1"] = SILENT
    paths.assign("a", ("nl3",), None)
    async with running(paths):
        for failure in (LOST, REFUSED):
            assert await diagnosed(paths, failure, pool=POOL) == (True, True)
        assert [name for _, name in probes.asked] == ["de1", "us2"]


@virtual
async def test_where_all_break_together_there_is_nowhere_to_move(paths: Paths, probes: Probes) -> None:
    """It is Telegram, or the network: each path is asked once for a hundred accounts, and found broken."""
    probes.dead, probes.takes = dict.fromkeys(POOL, TARGET_REFUSED), 0.2
    async with running(paths):
        found = await asyncio.gather(
            *(diagnosed(paths, (LOST, REFUSED)[n % 2], POOL[n % 3]) for n in range(100))
        )
        assert set(found) == {(True, False)}
        assert sorted(name for at, name in probes.asked if at < 1.0) == sorted(POOL)


@virtual
async def test_who_can_move_does_not_wait_for_a_proxy_that_hangs(paths: Paths, probes: Probes) -> None:
    """Another answers at once: that is enough, though nobody knows yet whether its own is broken."""
    probes.dead["de1"], probes.slow["de1"] = SILENT, 10.0
    async with running(paths):
        assert await diagnosed(paths, REFUSED, pool=POOL) == (False, True)
        assert asyncio.get_running_loop().time() == 1000.0
        await asyncio.sleep(10.1)
        assert paths.snapshots()[0].state == "broken"
        assert probes.times() == [0.0]


@virtual
async def test_one_that_hangs_does_not_hide_the_next(paths: Paths, probes: Probes) -> None:
    """After a second the next path is asked too; and the account goes there, not to the one still in doubt."""
    probes.dead = dict.fromkeys(("de1", "nl3"), SILENT)
    probes.slow["nl3"] = 10.0
    async with running(paths):
        assert await diagnosed(paths, REFUSED, pool=POOL) == (True, True)
        assert (probes.times("nl3"), probes.times("us2")) == ([0.0], [1.0])
        assert paths.rotate("a", POOL, "de1") == "us2"
        assert paths.rotate("b", POOL, "de1") == "us2"


@virtual
async def test_one_that_is_slow_is_waited_for_where_no_other_is_left(paths: Paths, probes: Probes) -> None:
    """Four seconds are slow, not broken."""
    probes.dead, probes.slow["us2"] = dict.fromkeys(("de1", "nl3"), SILENT), 4.0
    async with running(paths):
        assert await diagnosed(paths, REFUSED, pool=POOL) == (True, True)
        assert asyncio.get_running_loop().time() == 1004.0


@virtual
async def test_an_answer_counts_for_a_second(paths: Paths, probes: Probes) -> None:
    """A thousand accounts that leave a proxy are not a thousand probes of the next."""
    probes.dead["de1"] = SILENT
    async with running(paths):
        for _ in range(10):
            await diagnosed(paths, REFUSED, pool=POOL[:2])
            await asyncio.sleep(0.25)
        assert probes.times("nl3") == [0.0, 1.0, 2.0]


@virtual
async def test_an_asker_that_is_called_off_leaves_the_diagnosis_to_the_others(
    paths: Paths, probes: Probes
) -> None:
    """Stopping one account ends no probe of another."""
    probes.dead, probes.takes = dict.fromkeys(POOL, SILENT), 0.5
    async with running(paths):
        first, second = (asyncio.create_task(diagnosed(paths, REFUSED, pool=POOL)) for _ in range(2))
        await settle()
        first.cancel()
        assert await second == (True, False)


@virtual
async def test_all_paths_come_back_together_and_nobody_moves(paths: Paths, probes: Probes) -> None:
    """The first that answers has the others asked at once; each account goes on where it was."""
    probes.dead = dict.fromkeys(POOL, TARGET_REFUSED)
    async with running(paths):
        for n, name in enumerate(POOL):  # their probes are due at different times
            await is_broken(paths, name)
            await asyncio.sleep(0.3 * (n < 2))
        homes = [POOL[n % 3] for n in range(9)]
        waiting = [asyncio.create_task(returns(paths, home)) for home in homes]
        await asyncio.sleep(320.0)  # probed every 5 s by now
        probes.dead.clear()
        probes.takes = 0.1
        await asyncio.gather(*waiting)
        assert all(paths.works(bot(), home) for home in homes)
        last = [probes.times(name)[-1] for name in POOL]
        assert max(last) - min(last) <= 1.0  # as soon as three probes a second allow


@virtual
async def test_who_waits_for_a_path_that_stays_broken_goes_where_another_came_back(
    paths: Paths, probes: Probes
) -> None:
    """Two seconds after it, so that its own has had its chance; those that move are spread evenly."""
    probes.dead = dict.fromkeys(POOL, SILENT)
    accounts = [f"bot{n}" for n in range(9)]
    homes = [paths.assign(name, POOL, None) for name in accounts]
    async with running(paths):
        for name in POOL:
            await is_broken(paths, name)
        waiting = [
            asyncio.create_task(returns(paths, home, POOL, name))
            for name, home in zip(accounts, homes, strict=True)
        ]
        await asyncio.sleep(4.5)
        probes.dead = {"us2": SILENT}
        await asyncio.gather(*waiting)
        assert asyncio.get_running_loop().time() == 1007.0
        assert [(path.name, path.accounts) for path in paths.snapshots()] == [
            ("de1", 5),
            ("nl3", 4),
            ("us2", 0),
        ]


@virtual
async def test_a_proxy_that_refuses_us_is_not_asked_sooner_because_another_came_back(
    paths: Paths, probes: Probes
) -> None:
    """It may ban who keeps trying; its accounts leave it at once."""
    probes.dead = {"de1": WRONG_PASSWORD, "nl3": SILENT}
    async with running(paths):
        for name in POOL[:2]:
            await is_broken(paths, name)
        waiting = asyncio.create_task(paths.back(bot(candidates=POOL[:2]), "de1"))
        await asyncio.sleep(4.5)
        del probes.dead["nl3"]
        await waiting
        assert asyncio.get_running_loop().time() == 1005.0
        await asyncio.sleep(30.0)
        assert probes.times() == [0.0]


# --- The watch on a broken path -------------------------------------------------------------------------


@virtual
async def test_a_broken_path_is_probed_each_second_and_wakes_its_accounts(
    paths: Paths, probes: Probes
) -> None:
    """Not before Telegram answered on it; no other path is asked."""
    probes.dead["de1"] = SILENT
    async with running(paths):
        await is_broken(paths, "de1")
        waiting = [asyncio.create_task(returns(paths, "de1", POOL[:1])) for _ in range(3)]
        await asyncio.sleep(4.5)
        assert probes.times() == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert not any(task.done() for task in waiting)
        del probes.dead["de1"]
        await asyncio.gather(*waiting)
        assert asyncio.get_running_loop().time() == 1005.0
        assert paths.snapshots()[0].state == "unused"
        assert {name for _, name in probes.asked} == {"de1"}
        await asyncio.sleep(100.0)
        assert len(probes.asked) == 6


@virtual
async def test_after_five_minutes_it_is_probed_every_five_seconds(paths: Paths, probes: Probes) -> None:
    """A proxy that is gone for a week costs little."""
    probes.dead["de1"] = SILENT
    async with running(paths):
        await is_broken(paths, "de1")
        await asyncio.sleep(311.0)
        assert probes.times()[-3:] == [300.0, 305.0, 310.0]


@pytest.mark.parametrize(
    ("refusal", "times"),
    [
        (WRONG_PASSWORD, [0.0, 60.0, 180.0, 420.0, 720.0, 1020.0]),
        (TOO_MANY, [0.0, 30.0, 90.0, 210.0, 450.0, 750.0, 1050.0]),
    ],
)
@virtual
async def test_who_refuses_us_is_asked_seldom(
    paths: Paths, probes: Probes, refusal: LinkFailed, times: list[float]
) -> None:
    """A proxy after 60 s, doubling to 300; Telegram's -429 after what [recovery.rate_limit] says, doubling."""
    probes.dead["de1"] = refusal
    async with running(paths):
        await is_broken(paths, "de1")
        await asyncio.sleep(1100.0)
        assert probes.times() == times


@virtual
async def test_a_path_can_break_again(paths: Paths, probes: Probes) -> None:
    """The second time everything is as the first."""
    async with running(paths):
        for start in (0.0, 10.0):
            probes.dead["de1"] = SILENT
            assert await is_broken(paths, "de1")
            await asyncio.sleep(2.5)
            probes.dead.clear()
            await paths.back(bot(candidates=()), "de1")
            assert probes.times()[-4:] == [start, start + 1.0, start + 2.0, start + 3.0]
            await asyncio.sleep(7.0)


def test_a_path_cannot_be_asked_before_there_is_somebody_to_ask(paths: Paths) -> None:
    """`run` owns the probes; without it a question is a fault of the program, not a wait for ever."""
    with pytest.raises(RuntimeError, match=r"Paths\.run\(\) comes first"):
        asyncio.run(is_broken(paths, "de1"))


@virtual
async def test_connections_begin_within_the_paths_budget(make: Callable[..., Paths], probes: Probes) -> None:
    """Two a second on each path; probes are connections too."""
    paths = make(connect_budget=2.0)
    begun: list[float] = []

    async def connect(name: str) -> None:
        await paths.slot(bot(), name)
        begun.append(asyncio.get_running_loop().time() - 1000.0)

    async with running(paths):
        await asyncio.gather(*(connect("de1") for _ in range(6)), connect("nl3"))
        assert begun == pytest.approx([0.0, 0.0, 0.0, *(n / 2 / USED for n in (1, 2, 3, 4))])
        assert not await is_broken(paths, "de1")
        assert probes.times() == pytest.approx([2.0 / USED])  # it waits for nobody, and is charged
        await paths.slot(bot(), "de1")
        assert asyncio.get_running_loop().time() == pytest.approx(1000.0 + 3.0 / USED)


# --- A changed file -------------------------------------------------------------------------------------


@virtual
async def test_a_changed_proxy_is_asked_at_once(paths: Paths, probes: Probes) -> None:
    """What was known of it no longer holds; the others are not asked."""
    probes.dead["de1"] = WRONG_PASSWORD  # asked seldom
    async with running(paths):
        assert await is_broken(paths, "de1")
        asked = len(probes.asked)
        del probes.dead["de1"]
        paths.reconfigure(POOL, ["de1", "nl3"], Limits())
        await settle()
        await asyncio.sleep(0.1)
        assert paths.works(bot(), "de1")
        assert [name for _, name in probes.asked[asked:]] == ["de1"]


@virtual
async def test_a_removed_proxy_is_forgotten_and_a_new_one_can_be_used(paths: Paths, probes: Probes) -> None:
    """It is probed no more; where a callback has put an account there, it stays for that one."""
    paths.assign("a", (), None)
    paths.use("a", "us2")
    probes.dead["de1"] = SILENT
    async with running(paths):
        assert await is_broken(paths, "de1")
        paths.reconfigure(["nl3", "fr1"], [], Limits())
        asked = len(probes.asked)
        await asyncio.sleep(600.0)
        assert len(probes.asked) == asked
    assert [path.name for path in paths.snapshots()] == ["nl3", "us2", "fr1"]
    assert paths.assign("b", ("fr1",), None) == "fr1"


@virtual
async def test_a_changed_connect_budget_holds_at_once(paths: Paths, clock: FakeClock) -> None:
    """For every path."""
    paths.reconfigure(POOL, [], Limits(connect_budget=1.0))
    begun = asyncio.get_running_loop().time()
    for _ in range(3):
        await paths.slot(bot(), "nl3")
    assert asyncio.get_running_loop().time() - begun == pytest.approx(2.0 / USED)


# --- Probes and budgets of all paths together -----------------------------------------------------------


@virtual
async def test_all_probes_together_are_three_a_second(make: Callable[..., Paths], probes: Probes) -> None:
    """Whatever the number of broken paths; each has its turn. Where somebody waits for the answer it goes first."""
    paths = make()
    names = [f"proxy{n}" for n in range(12)]
    paths.reconfigure([*names, "new"], [], Limits())
    probes.dead = dict.fromkeys(names, SILENT)
    async with running(paths):
        await asyncio.gather(*(is_broken(paths, name) for name in names))
        await asyncio.sleep(60.0)
        asked = asyncio.get_running_loop().time()
        assert not await is_broken(paths, "new")
        assert asyncio.get_running_loop().time() - asked <= 1.0
    times = [at for at, _ in probes.asked]
    assert max(sum(at <= each < at + 1.0 for each in times) for at in times) == 3
    assert min(sum(name == each for _, each in probes.asked) for name in names) >= 13


@virtual
async def test_one_budget_bounds_all_paths(make: Callable[..., Paths]) -> None:
    """Three paths of two a second each, and three a second over all."""
    paths = make(connect_budget=2.0, connect_budget_total=3.0)
    begun: list[float] = []

    async def connect(n: int) -> None:
        await paths.slot(bot(f"bot{n}"), POOL[n % 3])
        begun.append(asyncio.get_running_loop().time() - 1000.0)

    async with running(paths):
        await asyncio.gather(*(connect(n) for n in range(30)))
    assert begun[:3] == [0.0, 0.0, 0.0]
    assert begun[-1] == pytest.approx(9.0 / USED)


@virtual
async def test_whose_calls_wait_connects_first(make: Callable[..., Paths]) -> None:
    """Before all that asked earlier and have none."""
    paths = make(connect_budget=1.0)
    order: list[str] = []

    async def connect(name: str, *, urgent: bool) -> None:
        await paths.slot(FakeTraveller(name, POOL, None, urgent), "de1")
        order.append(name)

    async with running(paths), asyncio.TaskGroup() as group:
        for n in range(5):
            group.create_task(connect(f"idle{n}", urgent=False))
            await asyncio.sleep(0.01)
        group.create_task(connect("urgent", urgent=True))
    assert order == ["idle0", "urgent", "idle1", "idle2", "idle3", "idle4"]


@virtual
async def test_turns_that_a_stall_has_held_up_do_not_leave_at_once(make: Callable[..., Paths]) -> None:
    """The loop stands still for a second: after it the budget holds as before it."""
    paths = make(connect_budget=10.0)
    went: list[float] = []

    async def connect(n: int) -> None:
        await paths.slot(bot(f"bot{n}"), "de1")
        went.append(asyncio.get_running_loop().time() - 1000.0)

    def stall(loop: VirtualLoop) -> None:
        loop.now += 1.0

    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    async with running(paths), asyncio.TaskGroup() as group:
        for n in range(40):
            group.create_task(connect(n))
        loop.call_later(0.55, stall, loop)
    times = sorted(went)
    assert times[9] == 0.0  # the burst
    assert max(sum(at <= other < at + 0.95 for other in times) for at in times if at > 0.0) <= 11
    assert times[-1] >= 3.9


@virtual
async def test_no_second_has_more_connects_than_the_budget(make: Callable[..., Paths]) -> None:
    """Also where every timer is late, as on a busy machine, and the connects come up to 5 ms after their turns."""
    paths = make(connect_budget=100.0)
    went: list[float] = []
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)

    async def connect(n: int) -> None:
        await paths.slot(bot(f"bot{n}"), "de1")
        went.append(loop.time() + n % 6 * 0.001)

    def late(n: int) -> None:
        loop.now += n % 4 * 0.003
        loop.call_later(0.007, late, n + 1)

    async with running(paths), asyncio.TaskGroup() as group:
        for n in range(600):
            group.create_task(connect(n))
        late(0)
    times = sorted(went)[100:]  # after the burst
    assert max(sum(at <= other < at + 1.0 for other in times) for at in times) <= 100
    assert times[-1] - times[0] <= 6.5


@virtual
async def test_who_is_called_off_leaves_its_turn_to_the_next(make: Callable[..., Paths]) -> None:
    """Nothing of the budget is lost with it."""
    paths = make(connect_budget=1.0)
    async with running(paths):
        await paths.slot(bot("first"), "de1")
        second, third = (asyncio.create_task(paths.slot(bot(name), "de1")) for name in ("second", "third"))
        await asyncio.sleep(0.1)
        second.cancel()
        await third
        assert asyncio.get_running_loop().time() == pytest.approx(1000.0 + 1.0 / USED)


# --- One account goes first -----------------------------------------------------------------------------


@virtual
async def test_a_canary_goes_first_and_the_others_follow_at_the_budget(
    make: Callable[..., Paths], probes: Probes
) -> None:
    """The one whose calls wait; and when it is answered the rest, without the burst that a lone account may make."""
    paths = make(connect_budget=10.0)
    probes.dead["de1"] = SILENT
    went: list[tuple[str, float]] = []

    async def account(name: str, *, urgent: bool = False) -> None:
        who = FakeTraveller(name, ("de1",), None, urgent)
        await paths.back(who, "de1")
        await paths.slot(who, "de1")
        went.append((name, asyncio.get_running_loop().time() - 1000.0))
        await asyncio.sleep(0.5)
        paths.answered(who, "de1")

    async with running(paths), asyncio.TaskGroup() as group:
        await is_broken(paths, "de1")
        for n in range(30):
            group.create_task(account(f"bot{n}"))
        group.create_task(account("urgent", urgent=True))
        await asyncio.sleep(3.5)
        del probes.dead["de1"]
    assert went[0] == ("urgent", 4.0)
    later = [at for _, at in went[1:]]
    assert [min(later), max(later)] == pytest.approx([4.5, 4.5 + 2.9 / USED])


@virtual
async def test_a_canary_that_fails_keeps_the_others_back(paths: Paths, probes: Probes) -> None:
    """The path answers probes and serves nobody: it is tried after 1, 2, 4 … s, by one account each time."""
    probes.dead["de1"] = SILENT
    tried: list[float] = []

    async def account(name: str) -> None:
        who = bot(name, ("de1",))
        while True:
            await paths.back(who, "de1")
            await paths.slot(who, "de1")
            tried.append(asyncio.get_running_loop().time() - 1000.0)
            assert (await paths.diagnose(who, "de1", LOST)).broken

    async with running(paths):
        await is_broken(paths, "de1")
        accounts = [asyncio.create_task(account(f"bot{n}")) for n in range(20)]
        await asyncio.sleep(0.5)
        probes.dead.clear()
        await asyncio.sleep(40.0)
        for each in accounts:
            each.cancel()
        await asyncio.wait(accounts)
    assert tried == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]


@virtual
async def test_a_canary_that_says_nothing_is_waited_for_five_seconds(paths: Paths, probes: Probes) -> None:
    """Then all go: the probe was answered, after all. One that leaves is waited for no longer."""
    probes.dead["de1"] = SILENT
    async with running(paths):
        for leaves, after in ((False, 5.0), (True, 0.0)):
            probes.dead["de1"] = SILENT
            paths.assign("canary", ("de1",), None)
            await is_broken(paths, "de1")
            begun = asyncio.get_running_loop().time()
            canary = asyncio.create_task(paths.back(bot("canary", ("de1",)), "de1"))
            await settle()
            other = asyncio.create_task(paths.back(bot("other", ("de1",)), "de1"))
            await settle()
            probes.dead.clear()
            await canary
            if leaves:
                paths.leave("canary")
            await other
            assert asyncio.get_running_loop().time() - begun == pytest.approx(1.0 + after)


# --- What breaks a path besides its probes --------------------------------------------------------------


@virtual
async def test_five_connections_in_a_row_break_a_path_that_answers_probes(
    paths: Paths, probes: Probes
) -> None:
    """Of several accounts, with no answer between; nobody connects on it then, and everybody is told why."""
    async with running(paths):
        for n in range(4):
            assert not (await paths.diagnose(bot(f"bot{n % 2}"), "de1", LOST)).broken
        paths.answered(bot("bot0"), "de1")
        for n in range(4):
            assert not (await paths.diagnose(bot(f"bot{n % 2}"), "de1", LOST)).broken
        assert (await paths.diagnose(bot("bot0"), "de1", LOST)).broken
        with pytest.raises(LinkFailed, match="refused"):
            await paths.slot(bot("bot3"), "de1")
        await asyncio.sleep(1.1)
        assert paths.works(bot(), "de1")  # nobody waited: the probe's answer is enough


@virtual
async def test_one_account_alone_breaks_no_path(paths: Paths) -> None:
    """However often it fails: that is its own trouble."""
    async with running(paths):
        for _ in range(20):
            assert not (await paths.diagnose(bot("alone"), "de1", LOST)).broken


@virtual
async def test_many_lost_links_have_the_path_asked_before_anybody_knocks(
    paths: Paths, probes: Probes
) -> None:
    """The first two connect at once; the others wait for one probe, and where that fails for the path."""
    probes.dead["de1"], probes.takes = SILENT, 0.3
    knocked: list[str] = []

    async def account(name: str) -> None:
        who = bot(name, ("de1",))
        assert not paths.lost(who, "de1", SILENT.evidence).broken
        try:
            await paths.slot(who, "de1")
        except LinkFailed:
            return
        knocked.append(name)

    async with running(paths), asyncio.TaskGroup() as group:
        for n in range(100):
            group.create_task(account(f"bot{n}"))
    assert knocked == ["bot0", "bot1"]
    assert probes.times() == [0.0]


@virtual
async def test_too_many_connections_rest_the_path_and_nobody_goes_another_way(
    paths: Paths, probes: Probes
) -> None:
    """-429, whoever meets it: no new connection for 30 s, on this path alone; a limit is never dodged."""
    who = bot("bot", POOL)
    async with running(paths):
        found = await paths.diagnose(who, "de1", classify(TOO_MANY.evidence))
        assert (found.broken, found.elsewhere, found.retry_in) == (True, False, 30.0)
        assert paths.lost(bot("other"), "de1", TOO_MANY.evidence).broken
        await paths.slot(bot("elsewhere"), "nl3")
        with pytest.raises(LinkFailed, match="-429"):
            await paths.slot(bot("new"), "de1")
        await paths.back(who, "de1")
        assert asyncio.get_running_loop().time() == 1030.0
        assert probes.times("nl3") == []


@virtual
async def test_a_path_is_judged_for_each_datacenter(paths: Paths, probes: Probes) -> None:
    """One is away: who is at home there waits, the others on the same path do not notice."""
    probes.away = {("de1", 4)}
    there, here = bot("there", ("de1",), dc=4), bot("here", ("de1",), dc=2)
    async with running(paths):
        assert (await paths.diagnose(there, "de1", LOST)).broken
        assert not (await paths.diagnose(here, "de1", LOST)).broken
        await paths.slot(here, "de1")
        with pytest.raises(LinkFailed):
            await paths.slot(there, "de1")
        assert not paths.works(there, "de1")
        assert paths.works(here, "de1")


# --- Over a restart -------------------------------------------------------------------------------------


@virtual
async def test_health_is_kept(make: Callable[..., Paths], probes: Probes, recorder: FakeRecorder) -> None:
    """Counts, latency and the last failure go on; written once a second, and only what has changed."""
    before = PathSnapshot(
        "de1", "ok", 3, succeeded=10, failed=2, latency=0.5, last_failure="refused", failed_at=5.0
    )
    paths = make(saved={"de1": before, "gone": PathSnapshot("gone", "ok", 0)})
    async with running(paths):
        assert not await is_broken(paths, "de1")
        await asyncio.sleep(5.5)
    (kept,) = [each for each in recorder.paths if each.name == "de1"]
    assert (kept.succeeded, kept.failed, kept.last_failure) == (11, 3, "refused")
    assert kept.latency == pytest.approx(0.45)


@virtual
async def test_a_path_that_was_broken_is_asked_before_anybody_connects(
    make: Callable[..., Paths], probes: Probes, clock: FakeClock
) -> None:
    """At once; one that refused us when it was due anyway, be the clock right or not."""
    now = clock.now()
    saved = {
        "de1": PathSnapshot("de1", "broken", 1, breaker="open", probe_at=now - 3.0, last_failure="refused"),
        "nl3": PathSnapshot("nl3", "broken", 1, breaker="half_open", probe_at=now + 40.0),
        "us2": PathSnapshot("us2", "broken", 1, breaker="open", probe_at=now + 9_999.0),
    }
    paths = make(saved=saved)
    probes.dead = dict.fromkeys(POOL, SILENT)
    async with running(paths):
        with pytest.raises(LinkFailed, match="refused"):
            await paths.slot(bot(), "de1")
        await asyncio.sleep(400.0)
    assert (probes.times("de1")[0], probes.times("nl3")[0], probes.times("us2")[0]) == (0.0, 40.0, 300.0)
