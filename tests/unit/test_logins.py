"""Sign-ins under way, with a made-up Telegram behind them; the real steps are in integration/test_auth.py."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from supervisor import logins
from supervisor.core.budget import SignInBudget
from supervisor.core.failure import Evidence, Source
from supervisor.errors import LoginRefused
from supervisor.ports import LinkFailed
from supervisor.telegram.login import CodeSent, Login, SignedIn
from tests.unit.fakes import FakeClock, FakeRecorder

CODE = CodeSent("sms", 5)


class FakeLogin:
    """Telegram, as a sign-in meets it."""

    def __init__(self) -> None:
        self.closed = 0
        self.cancelled = 0
        self.codes = 0
        self.answering = asyncio.Event()
        self.answering.set()

    async def send_code(self) -> CodeSent:
        self.codes += 1
        return CODE

    async def sign_in(self, code: str) -> SignedIn:
        await self.answering.wait()
        if code != "1":
            raise LinkFailed(Evidence(Source.RPC, "[400 PHONE_CODE_INVALID]", "PHONE_CODE_INVALID", 400))
        return SignedIn(7)

    async def cancel(self) -> None:
        self.cancelled += 1
        self.close()

    def close(self) -> None:
        self.closed += 1


class FakeSeat:
    """An account that nobody is signed in with."""

    password = None

    def __init__(self, name: str, broken: Sequence[str] = ()) -> None:
        self.name = name
        self.broken = broken
        self.made: list[FakeLogin] = []
        self.tried: list[str] = []
        self.done = 0

    def paths(self) -> Sequence[str]:
        return ["de1", "nl3"]

    async def user_id(self) -> int | None:
        return 7 if self.done else None

    async def login(self, path: str) -> Login:
        self.tried.append(path)
        if path in self.broken:
            raise LinkFailed(Evidence(Source.SOCKET, "connection refused", path=path))
        self.made.append(FakeLogin())
        return cast("Login", self.made[-1])

    async def signed_in(self) -> None:
        self.done += 1


class Desk:
    """Logins over fake seats, one for each name that is asked for."""

    def __init__(self, recorder: FakeRecorder, clock: FakeClock, **seat: Any) -> None:
        self.seats: dict[str, FakeSeat] = {}
        self._options = seat
        self.logins = logins.Logins(self._seat, recorder, clock, budget=SignInBudget(3, 10))

    def _seat(self, name: str) -> FakeSeat:
        return self.seats.setdefault(name, FakeSeat(name, **self._options))

    async def step(self, step: str, text: str = "", name: str = "u") -> dict[str, Any]:
        return await self.logins.step(name, step, text)


async def test_the_sign_in_is_counted_before_the_code_is_asked_for(
    recorder: FakeRecorder, clock: FakeClock
) -> None:
    """Each code is one sign-in of the budget, written down; the fourth within an hour is refused."""
    desk = Desk(recorder, clock)
    for n in range(1, 4):
        await desk.step("begin")
        assert len(recorder.sign_ins) == n
        await desk.step("cancel")
    with pytest.raises(LoginRefused) as refused:
        await desk.step("begin")
    assert refused.value.code == "budget"
    assert refused.value.wait == pytest.approx(3600, abs=5)
    assert len(desk.seats["u"].made) == 3


async def test_a_broken_path_is_passed_by(recorder: FakeRecorder, clock: FakeClock) -> None:
    """Before anything is sent, the account's other paths are tried; it is counted once."""
    desk = Desk(recorder, clock, broken=["de1"])
    assert (await desk.step("begin"))["next"] == "code"
    assert desk.seats["u"].tried == ["de1", "nl3"]
    assert len(recorder.sign_ins) == 1


async def test_no_path_is_no_sign_in(recorder: FakeRecorder, clock: FakeClock) -> None:
    """Where no path leads to Telegram nothing is counted, and nothing stays under way."""
    desk = Desk(recorder, clock, broken=["de1", "nl3"])
    with pytest.raises(LoginRefused) as refused:
        await desk.step("begin")
    assert refused.value.retryable
    assert not recorder.sign_ins
    with pytest.raises(LoginRefused, match="begin it again"):
        await desk.step("code", "1")


async def test_a_granted_sign_in_is_kept_when_nobody_waits_for_it(
    recorder: FakeRecorder, clock: FakeClock
) -> None:
    """The command may die while Telegram answers: the session that is then granted is stored all the same."""
    desk = Desk(recorder, clock)
    await desk.step("begin")
    seat = desk.seats["u"]
    seat.made[0].answering.clear()
    asking = asyncio.create_task(desk.step("code", "1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    seat.made[0].answering.set()
    await asyncio.sleep(0.01)
    assert (seat.done, seat.made[0].closed) == (1, 1)
    assert (await desk.step("begin"))["already"]


async def test_the_connection_is_closed_before_the_account_is_told(
    recorder: FakeRecorder, clock: FakeClock
) -> None:
    """One key is never on two connections: the sign-in's own is closed before the account may open one."""
    desk = Desk(recorder, clock)
    await desk.step("begin")
    seat = desk.seats["u"]
    closed_by_then: list[int] = []

    async def told() -> None:
        closed_by_then.append(seat.made[0].closed)

    seat.signed_in = told  # type: ignore[method-assign]
    await desk.step("code", "1")
    assert closed_by_then == [1]


async def test_a_step_that_hangs_ends(
    recorder: FakeRecorder, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is given up after its time; what is under way is closed and may be begun again."""
    monkeypatch.setattr(logins, "STEP_TIMEOUT", 0.02)
    desk = Desk(recorder, clock)
    await desk.step("begin")
    desk.seats["u"].made[0].answering.clear()
    with pytest.raises(LoginRefused) as refused:
        await desk.step("code", "1")
    assert (refused.value.code, refused.value.retryable) == ("timeout", True)
    assert desk.seats["u"].made[0].closed == 1
    assert (await desk.step("begin"))["next"] == "code"


async def test_there_are_only_so_many_at_once(
    recorder: FakeRecorder, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond `AT_ONCE` waiting sign-ins another one is refused, for now."""
    monkeypatch.setattr(logins, "AT_ONCE", 2)
    desk = Desk(recorder, clock)
    await desk.step("begin", name="a")
    await desk.step("begin", name="b")
    with pytest.raises(LoginRefused) as refused:
        await desk.step("begin", name="c")
    assert (refused.value.code, refused.value.retryable) == ("busy", True)
    await desk.step("code", "1", name="a")
    assert (await desk.step("begin", name="c"))["next"] == "code"
    desk.logins.close()
    assert [desk.seats[name].made[0].closed for name in "abc"] == [1, 1, 1]


async def test_a_changed_budget_holds_at_once_and_a_new_name_gives_no_new_codes(
    recorder: FakeRecorder, clock: FakeClock
) -> None:
    """Who has used up the codes under the old name has none under the new one."""
    desk = Desk(recorder, clock)
    await desk.step("begin")
    await desk.step("cancel")
    desk.logins.reconfigure(SignInBudget(1, 10), {}, {"v": "u"})
    with pytest.raises(LoginRefused) as refused:
        await desk.step("begin", name="v")
    assert refused.value.code == "budget"
    assert (await desk.step("begin"))["next"] == "code"  # the old name is anybody's
