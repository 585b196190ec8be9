"""The set of accounts, with stand-ins for its members. Virtual time, in seconds."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from supervisor.account import Account
from supervisor.core.events import Event, Pause, Retry, Stop
from supervisor.core.failure import State
from supervisor.pool import Pool
from supervisor.ports import AccountSnapshot
from tests.unit.fakes import settle, virtual


class Member:
    """An account that does as it is told: takes `slow` seconds to stop, ignores `deaf` cancellations."""

    def __init__(self, name: str, *, slow: float = 0.0, deaf: float = 0.0, fails: bool = False) -> None:
        self.name = name
        self.state = State.ONLINE
        self.client = f"client of {name}"
        self.told: list[Event] = []
        self.forgiven = 0
        self.cancelled = False
        self.path = "direct"
        self.moves = 0
        self._slow, self._deaf, self._fails = slow, deaf, fails
        self._stopped = asyncio.Event()
        self._online = asyncio.Event()

    async def run(self) -> None:
        if self._fails:
            raise ZeroDivisionError
        try:
            await self._stopped.wait()
            await asyncio.sleep(self._slow)
        except asyncio.CancelledError:
            self.cancelled = True
            await asyncio.sleep(self._deaf)
            raise

    def tell(self, event: Event) -> None:
        self.told.append(event)
        if isinstance(event, Stop):
            self._stopped.set()

    def forget_limit(self) -> None:
        self.forgiven += 1

    def take_path(self) -> None:
        self.moves += 1

    async def heeded(self) -> None:
        return

    def come_online(self) -> None:
        self._online.set()

    async def online(self) -> None:
        await self._online.wait()

    def snapshot(self) -> AccountSnapshot:
        return AccountSnapshot(self.name, self.state, 0.0, "direct")


def pool_of(*members: Member) -> Pool:
    by_name = {member.name: member for member in members}
    return Pool(lambda name: cast("Account", by_name[name]), by_name)


def time() -> float:
    return asyncio.get_running_loop().time() - 1000.0


@virtual
async def test_all_run_until_all_are_stopped() -> None:
    """The pool's run ends with its last account."""
    pool = pool_of(Member("a"), Member("b", slow=2.0))
    task = asyncio.create_task(pool.run())
    await asyncio.sleep(10.0)
    assert not task.done()
    await pool.stop()
    await task
    assert time() == 12.0


@virtual
async def test_an_account_whose_driver_fails_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """It is said, with the traceback; the others go on."""
    pool = pool_of(Member("a", fails=True), Member("b"))
    task = asyncio.create_task(pool.run())
    await asyncio.sleep(10.0)
    assert not task.done()
    (record,) = caplog.records
    assert record.getMessage() == "a: the account's driver failed; this is a fault of tg-supervisor"
    assert record.exc_info is not None
    await pool.stop()
    await task


@virtual
async def test_an_account_that_will_not_stop_is_cancelled() -> None:
    """After 5 s; the others were not."""
    slow, quick = Member("slow", slow=3600.0), Member("quick")
    pool = pool_of(slow, quick)
    task = asyncio.create_task(pool.run())
    await settle()
    await pool.stop()
    assert (time(), slow.cancelled, quick.cancelled) == (5.0, True, False)
    await asyncio.wait([task])


@virtual
async def test_a_stop_ends_even_where_an_account_does_not() -> None:
    """So that the daemon's own end comes within 10 s."""
    pool = pool_of(Member("deaf", slow=3600.0, deaf=3600.0))
    task = asyncio.create_task(pool.run())
    await settle()
    await pool.stop()
    assert time() == 6.5
    assert not task.done()
    task.cancel()


@virtual
async def test_a_pool_that_never_ran_stops_at_once() -> None:
    """There is nothing to wait for."""
    member = Member("a")
    await pool_of(member).stop()
    assert (time(), member.told) == (0.0, [Stop()])


@virtual
async def test_what_a_person_wants_is_told_to_the_account() -> None:
    """To the one that is named, and only `retry` forgets that it was limited; an unknown name is a KeyError."""
    a, b = Member("a"), Member("b")
    pool = pool_of(a, b)
    pool.pause("a")
    pool.resume("a")
    assert (a.told, a.forgiven) == ([Pause(), Retry()], 0)
    pool.retry("a")
    assert (a.told, a.forgiven) == ([Pause(), Retry(), Retry()], 1)
    assert (b.told, b.forgiven) == ([], 0)
    for verb in (pool.pause, pool.resume, pool.retry):
        with pytest.raises(KeyError):
            verb("c")


@virtual
async def test_a_client_is_given_when_it_is_online() -> None:
    """Not before: everything can then be called on it."""
    member = Member("a")
    pool = pool_of(member)
    wanted: asyncio.Task[Any] = asyncio.create_task(pool.client("a"))
    await asyncio.sleep(5.0)
    assert not wanted.done()
    member.come_online()
    assert await wanted == "client of a"


@virtual
async def test_status_is_every_accounts() -> None:
    """In the order of the file."""
    members = [Member("b"), Member("a"), Member("c")]
    members[1].state = State.FAILED
    pool = pool_of(*members)
    assert [(shown.name, shown.state) for shown in pool.snapshots()] == [
        ("b", State.ONLINE),
        ("a", State.FAILED),
        ("c", State.ONLINE),
    ]
