"""The ways to Telegram: who takes which, who finds one broken, who tells that it is back. Virtual time, in seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from supervisor.core.classify import classify
from supervisor.core.failure import Source
from supervisor.paths import Paths
from supervisor.ports import LinkFailed, PathSnapshot
from tests.unit.fakes import FakeClock, failed, settle, virtual

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

    async def __call__(self, name: str) -> None:
        self.asked.append((asyncio.get_running_loop().time() - 1000.0, name))
        await asyncio.sleep(self.slow.get(name, self.takes))
        if name in self.dead:
            raise self.dead[name]

    def times(self, name: str = "de1") -> list[float]:
        return [at for at, asked in self.asked if asked == name]


@pytest.fixture
def probes() -> Probes:
    return Probes()


@pytest.fixture
def paths(probes: Probes, clock: FakeClock) -> Paths:
    return Paths(POOL, probes, clock, connect_budget=20.0, add=lambda url: url)


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
        assert await paths.is_broken("de1")
        assert await paths.is_broken("nl3")
        assert paths.assign("a", POOL, None) == "us2"
        assert paths.assign("b", POOL, None) == "us2"
        assert paths.assign("kept", POOL, "de1") == "de1"
        assert paths.rotate("a", POOL, "us2") == "us2"
        assert paths.rotate("kept", POOL, "de1") == "us2"
        assert paths.assign("c", ("de1", "nl3"), None) == "de1"
        assert paths.snapshots()[0] == PathSnapshot("de1", "broken", 1)


# --- Health ---------------------------------------------------------------------------------------------


@virtual
async def test_a_path_that_answers_is_not_broken(paths: Paths, probes: Probes) -> None:
    """It is asked each time, and who waits for it does not wait."""
    async with running(paths):
        assert not await paths.is_broken("de1")
        assert not await paths.is_broken("de1")
        await paths.back("de1", ())
        assert len(probes.asked) == 2
        assert asyncio.get_running_loop().time() == 1000.0


@virtual
async def test_a_thousand_accounts_ask_once(paths: Paths, probes: Probes) -> None:
    """All get the answer of one probe; afterwards it is known without asking."""
    probes.dead["de1"], probes.takes = SILENT, 0.3
    async with running(paths):
        found = await asyncio.gather(*(paths.is_broken("de1") for _ in range(1000)))
        assert found == [True] * 1000
        assert probes.times() == [0.0]
        assert await paths.is_broken("de1")
        assert await paths.diagnose("de1", POOL[:1], REFUSED) == (True, False)
        await settle()
        assert probes.times() == [0.0]


@virtual
async def test_an_asker_that_is_called_off_takes_nobody_with_it(paths: Paths, probes: Probes) -> None:
    """The others get their answer."""
    probes.dead["de1"], probes.takes = SILENT, 1.0
    async with running(paths):
        first, second = (asyncio.create_task(paths.is_broken("de1")) for _ in range(2))
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
        assert await paths.diagnose("de1", POOL, LOST) == (False, False)
        assert [name for _, name in probes.asked] == ["de1"]


@virtual
async def test_an_account_may_move_where_telegram_answers(paths: Paths, probes: Probes) -> None:
    """Its own path does not answer; the emptiest of the others is asked, and does."""
    probes.dead["de1"] = SILENT
    paths.assign("a", ("nl3",), None)
    async with running(paths):
        for failure in (LOST, REFUSED):
            assert await paths.diagnose("de1", POOL, failure) == (True, True)
        assert [name for _, name in probes.asked] == ["de1", "us2"]


@virtual
async def test_where_all_break_together_there_is_nowhere_to_move(paths: Paths, probes: Probes) -> None:
    """It is Telegram, or the network: each path is asked once for a hundred accounts, and found broken."""
    probes.dead, probes.takes = dict.fromkeys(POOL, TARGET_REFUSED), 0.2
    async with running(paths):
        found = await asyncio.gather(
            *(paths.diagnose(POOL[n % 3], POOL, (LOST, REFUSED)[n % 2]) for n in range(100))
        )
        assert set(found) == {(True, False)}
        assert sorted(name for at, name in probes.asked if at < 1.0) == sorted(POOL)


@virtual
async def test_who_can_move_does_not_wait_for_a_proxy_that_hangs(paths: Paths, probes: Probes) -> None:
    """Another answers at once: that is enough, though nobody knows yet whether its own is broken."""
    probes.dead["de1"], probes.slow["de1"] = SILENT, 10.0
    async with running(paths):
        assert await paths.diagnose("de1", POOL, REFUSED) == (False, True)
        assert asyncio.get_running_loop().time() == 1000.0
        await asyncio.sleep(10.0)
        assert paths.snapshots()[0].state == "broken"
        assert probes.times() == [0.0]


@virtual
async def test_one_that_hangs_does_not_hide_the_next(paths: Paths, probes: Probes) -> None:
    """After a second the next path is asked too; and the account goes there, not to the one still in doubt."""
    probes.dead = dict.fromkeys(("de1", "nl3"), SILENT)
    probes.slow["nl3"] = 10.0
    async with running(paths):
        assert await paths.diagnose("de1", POOL, REFUSED) == (True, True)
        assert (probes.times("nl3"), probes.times("us2")) == ([0.0], [1.0])
        assert paths.rotate("a", POOL, "de1") == "us2"
        assert paths.rotate("b", POOL, "de1") == "us2"


@virtual
async def test_one_that_is_slow_is_waited_for_where_no_other_is_left(paths: Paths, probes: Probes) -> None:
    """Four seconds are slow, not broken."""
    probes.dead, probes.slow["us2"] = dict.fromkeys(("de1", "nl3"), SILENT), 4.0
    async with running(paths):
        assert await paths.diagnose("de1", POOL, REFUSED) == (True, True)
        assert asyncio.get_running_loop().time() == 1004.0


@virtual
async def test_an_answer_counts_for_a_second(paths: Paths, probes: Probes) -> None:
    """A thousand accounts that leave a proxy are not a thousand probes of the next."""
    probes.dead["de1"] = SILENT
    async with running(paths):
        for _ in range(10):
            await paths.diagnose("de1", POOL[:2], REFUSED)
            await asyncio.sleep(0.25)
        assert probes.times("nl3") == [0.0, 1.0, 2.0]


@virtual
async def test_an_asker_that_is_called_off_leaves_the_diagnosis_to_the_others(
    paths: Paths, probes: Probes
) -> None:
    """Stopping one account ends no probe of another."""
    probes.dead, probes.takes = dict.fromkeys(POOL, SILENT), 0.5
    async with running(paths):
        first, second = (asyncio.create_task(paths.diagnose("de1", POOL, REFUSED)) for _ in range(2))
        await settle()
        first.cancel()
        assert await second == (True, False)


@virtual
async def test_all_paths_come_back_together_and_nobody_moves(paths: Paths, probes: Probes) -> None:
    """The first that answers has the others asked at once; each account goes on where it was."""
    probes.dead = dict.fromkeys(POOL, TARGET_REFUSED)
    async with running(paths):
        for n, name in enumerate(POOL):  # their probes are due at different times
            await paths.is_broken(name)
            await asyncio.sleep(0.3 * (n < 2))
        homes = [POOL[n % 3] for n in range(9)]
        waiting = [asyncio.create_task(paths.back(home, POOL)) for home in homes]
        await asyncio.sleep(320.0)  # probed every 5 s by now
        probes.dead.clear()
        probes.takes = 0.1
        await asyncio.gather(*waiting)
        assert all(paths.works(home) for home in homes)
        last = [probes.times(name)[-1] for name in POOL]
        assert max(last) - min(last) <= 0.2


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
            await paths.is_broken(name)
        waiting = [asyncio.create_task(paths.back(home, POOL)) for home in homes]
        await asyncio.sleep(4.5)
        probes.dead = {"us2": SILENT}
        await asyncio.gather(*waiting)
        assert asyncio.get_running_loop().time() == 1007.0
        for name, home in zip(accounts, homes, strict=True):
            if not paths.works(home):
                paths.rotate(name, POOL, home)
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
            await paths.is_broken(name)
        waiting = asyncio.create_task(paths.back("de1", POOL[:2]))
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
        await paths.is_broken("de1")
        waiting = [asyncio.create_task(paths.back("de1", POOL[:1])) for _ in range(3)]
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
        await paths.is_broken("de1")
        await asyncio.sleep(311.0)
        assert probes.times()[-3:] == [300.0, 305.0, 310.0]


@pytest.mark.parametrize("refusal", [WRONG_PASSWORD, TOO_MANY])
@virtual
async def test_who_refuses_us_is_asked_seldom(paths: Paths, probes: Probes, refusal: LinkFailed) -> None:
    """After 60 s, doubling to 300."""
    probes.dead["de1"] = refusal
    async with running(paths):
        await paths.is_broken("de1")
        await asyncio.sleep(1100.0)
        assert probes.times() == [0.0, 60.0, 180.0, 420.0, 720.0, 1020.0]


@virtual
async def test_a_path_can_break_again(paths: Paths, probes: Probes) -> None:
    """The second time everything is as the first."""
    async with running(paths):
        for start in (0.0, 10.0):
            probes.dead["de1"] = SILENT
            assert await paths.is_broken("de1")
            await asyncio.sleep(2.5)
            probes.dead.clear()
            await paths.back("de1", ())
            assert probes.times()[-4:] == [start, start + 1.0, start + 2.0, start + 3.0]
            await asyncio.sleep(7.0)


def test_a_path_cannot_be_asked_before_there_is_somebody_to_ask(paths: Paths) -> None:
    """`run` owns the probes; without it a question is a fault of the program, not a wait for ever."""
    with pytest.raises(RuntimeError, match=r"Paths\.run\(\) comes first"):
        asyncio.run(paths.is_broken("de1"))


@virtual
async def test_connections_begin_within_the_paths_budget(probes: Probes, clock: FakeClock) -> None:
    """Two a second on each path; probes are connections too."""
    paths = Paths(POOL, probes, clock, connect_budget=2.0, add=lambda url: url)
    begun: list[float] = []

    async def connect(name: str) -> None:
        await paths.slot(name)
        begun.append(asyncio.get_running_loop().time() - 1000.0)

    async with running(paths):
        await asyncio.gather(*(connect("de1") for _ in range(6)), connect("nl3"))
        assert begun == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 2.0]
        assert not await paths.is_broken("de1")
        assert probes.times() == [2.5]


# --- A changed file -------------------------------------------------------------------------------------


@virtual
async def test_a_changed_proxy_is_asked_at_once(paths: Paths, probes: Probes) -> None:
    """What was known of it no longer holds; the others are not asked."""
    probes.dead["de1"] = WRONG_PASSWORD  # asked seldom
    async with running(paths):
        assert await paths.is_broken("de1")
        asked = len(probes.asked)
        del probes.dead["de1"]
        paths.reconfigure(POOL, ["de1", "nl3"], 20.0)
        await settle()
        await asyncio.sleep(0.1)
        assert paths.works("de1")
        assert [name for _, name in probes.asked[asked:]] == ["de1"]


@virtual
async def test_a_removed_proxy_is_forgotten_and_a_new_one_can_be_used(paths: Paths, probes: Probes) -> None:
    """It is probed no more; where a callback has put an account there, it stays for that one."""
    paths.assign("a", (), None)
    paths.use("a", "us2")
    probes.dead["de1"] = SILENT
    async with running(paths):
        assert await paths.is_broken("de1")
        paths.reconfigure(["nl3", "fr1"], [], 20.0)
        asked = len(probes.asked)
        await asyncio.sleep(600.0)
        assert len(probes.asked) == asked
    assert [path.name for path in paths.snapshots()] == ["nl3", "us2", "fr1"]
    assert paths.assign("b", ("fr1",), None) == "fr1"


@virtual
async def test_a_changed_connect_budget_holds_at_once(paths: Paths, clock: FakeClock) -> None:
    """For every path."""
    paths.reconfigure(POOL, [], 1.0)
    begun = asyncio.get_running_loop().time()
    for _ in range(3):
        await paths.slot("nl3")
    assert asyncio.get_running_loop().time() - begun == pytest.approx(2.0)
