"""What is overheard reaches a webhook of this machine: how much of it, when, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.model import Account, Config, Secret, Settings, Sink, Telegram
from supervisor.config.model import Sentry as SentryConfig
from supervisor.core.codes import NAMES
from supervisor.core.failure import Action, Kind, Level, Result, Row, Scope, State
from supervisor.core.notices import Pace
from supervisor.notify import notifier as module
from supervisor.notify.notifier import Notifier, Surroundings
from supervisor.notify.overheard import Overheard
from supervisor.ports import AccountSnapshot, FloodRow, IncidentRow, Limited, PathSnapshot, SignIn
from tests.listener import Answer, Listener
from tests.unit.fakes import FakeRecorder

PACE = Pace(window=0.1, per=60.0)
NAMES_OF = [f"bot-{n}" for n in range(50)]


class Clock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class Desk:
    """A notifier with a webhook, the recorder that it overhears, and what it is told of its surroundings."""

    def __init__(self, *sinks: Sink, pace: Pace = PACE) -> None:
        self.config = Config(
            path=Path("/x/accounts.toml"),
            telegram=Telegram(1, Secret("h")),
            settings=Settings(Path("/x/state")),
            accounts={name: Account(name) for name in NAMES_OF},
            notify={sink.name: sink for sink in sinks},
        )
        self.paths: list[PathSnapshot] = []
        self.unrecorded: tuple[str, str] | None = None
        self.notifier = Notifier(self.config, Clock(), pace)
        self.kept = FakeRecorder()
        self.recorder = Overheard(self.kept, self.notifier)

    @asynccontextmanager
    async def at_work(self, *before: AccountSnapshot) -> AsyncIterator[None]:
        around = Surroundings(lambda: self.paths, lambda: self.unrecorded, lambda _: None)
        await self.notifier.start(around, self.recorder, before)
        try:
            yield
        finally:
            await self.notifier.stop()

    async def state(self, name: str, state: State, **more: Any) -> None:
        await self.recorder.save_account(
            AccountSnapshot(name, state, 0.0, more.pop("path", "direct"), **more)
        )

    async def fail(self, name: str, code: str, state: State, outcome: Result = Result.FAILED) -> None:
        self.recorder.record(row(name, code, outcome))
        await self.state(name, state)


def row(name: str | None, code: str, outcome: Result, **more: Any) -> Row:
    values: dict[str, Any] = {
        "account": name,
        "path": "direct",
        "scope": Scope.ACCOUNT,
        "kind": Kind.AUTH,
        "incident": f"i-{name}",
        "message": f"seen: {code}",
    }
    return Row(at=0.0, action=Action.FAIL, outcome=outcome, code=NAMES[code].number, **values | more)


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.02)


def to(hook: Listener, name: str = "ops", level: Level = Level.WARNING) -> Sink:
    return Sink(name, level=level, url=Secret(f"{hook.url}/{name}"))


async def test_what_is_overheard_is_recorded_all_the_same() -> None:
    """Rows, incidents, accounts, floods, sign-ins and paths go on as they came."""
    desk = Desk()
    seen, flood = row("bot-1", "token_refused", Result.FAILED), FloodRow("bot-1", "x", None, 0.0, 1.0)
    incident = IncidentRow("i", "bot-1", "direct", Scope.SESSION, Kind.AUTH, 0.0)
    desk.recorder.record(seen)
    desk.recorder.incident(incident)
    desk.recorder.path(PathSnapshot("de1", "ok", 1))
    await desk.recorder.save_flood(flood)
    await desk.recorder.save_sign_in(SignIn("bot-1", 1.0))
    await desk.state("bot-1", State.FAILED)
    kept = desk.kept
    assert (kept.rows, kept.incidents, kept.floods, kept.sign_ins) == (
        [seen],
        [incident],
        [flood],
        [SignIn("bot-1", 1.0)],
    )
    assert [snapshot.state for snapshot in kept.accounts] == [State.FAILED]


async def test_a_dead_token_is_one_fatal_and_one_resolved() -> None:
    """A sink that takes only what is fatal hears of it, and of nothing else."""
    async with Listener() as hook:
        desk = Desk(to(hook), to(hook, "night", Level.FATAL))
        async with desk.at_work():
            await desk.fail("bot-1", "token_refused", State.FAILED)
            await desk.fail("bot-2", "login_needed", State.NEEDS_LOGIN, Result.NEEDS_LOGIN)
            await until(lambda: len(hook.bodies) == 3)
            assert hook.paths.count("/night") == 1
            await desk.state("bot-1", State.STARTING)
            await desk.state("bot-1", State.ONLINE)
            await desk.state("bot-2", State.ONLINE)
            await until(lambda: len(hook.bodies) == 6)
    assert sorted(body["level"] for body in hook.bodies[:3]) == ["error", "fatal", "fatal"]
    assert all(body["resolved"] for body in hook.bodies[3:])
    assert hook.paths.count("/night") == 2


async def test_a_thousand_failures_in_a_minute_are_ten_messages() -> None:
    """Of every sort at once, half of them over again: at most ten, and their counts are those of the storm."""
    sorts = ["token_refused", "account_banned", "suspended", "login_needed", "session_lost", "server_error"]
    async with Listener() as hook:
        desk = Desk(to(hook, level=Level.INFO))
        async with desk.at_work():
            begun = time.monotonic()
            for n in range(1000):
                name, code = NAMES_OF[n % 50], sorts[n % len(sorts)]
                if n % 3 == 0:
                    desk.recorder.record(
                        row(name, "code_failed", Result.RAISED, scope=Scope.CALL, message="ValueError")
                    )
                else:
                    await desk.fail(name, code, State.FAILED)
                if n % 7 == 0:
                    await desk.state(name, State.ONLINE)
                if n % 10 == 0:
                    await asyncio.sleep(0.01)
            assert time.monotonic() - begun < 20
            await asyncio.sleep(0.5)
    assert 3 <= len(hook.bodies) <= 10
    assert len(json.dumps(hook.bodies)) < 100_000


async def test_a_sink_that_hangs_delays_neither_the_recorder_nor_another_sink() -> None:
    """Nobody waits for it, not even the end of the daemon for long."""
    async with Listener() as hook, Listener(answers=[Answer(delay=30.0)] * 5) as stuck:
        desk = Desk(to(hook), to(stuck, "stuck"))
        async with desk.at_work():
            begun = time.monotonic()
            await desk.fail("bot-1", "token_refused", State.FAILED)
            assert time.monotonic() - begun < 0.1
            await until(lambda: hook.bodies and stuck.paths)
            assert time.monotonic() - begun < 2
            begun = time.monotonic()
        assert time.monotonic() - begun < module.GOODBYE + 1


async def test_a_dead_sink_is_recorded_and_the_others_are_told() -> None:
    """Not itself: when it hears of that, it is no longer so."""
    async with Listener() as hook, Listener(answers=[Answer(404)]) as dead:
        desk = Desk(to(hook), to(dead, "dead"))
        async with desk.at_work():
            await desk.fail("bot-1", "token_refused", State.FAILED)
            await until(lambda: len(hook.bodies) == 2)
        assert [body["codes"] for body in hook.bodies] == [[1012], [5006]]
        assert hook.bodies[1]["text"] == "notify.dead: HTTP 404"
    failed = [row for row in desk.kept.rows if row.code == NAMES["notify_failed"].number]
    assert [(row.account, row.scope, row.outcome) for row in failed] == [
        (None, failed[0].scope, Result.RAISED)
    ]
    assert len(dead.bodies) == 1


async def test_paths_the_record_and_the_file_are_told_too() -> None:
    """Each once, and once when it is over."""
    async with Listener() as hook:
        desk = Desk(to(hook))
        async with desk.at_work():
            desk.paths = [
                PathSnapshot("de1", "broken", 0, last_failure="refused"),
                PathSnapshot("d", "ok", 1),
            ]
            desk.unrecorded = ("storage_full", "/x/state/recovery.db cannot be written")
            desk.notifier.misconfigured(["accounts.toml:3: accounts.a: is wrong", "accounts.toml:4: b"])
            await until(lambda: len(hook.bodies) == 3)
            desk.paths, desk.unrecorded = [], None
            desk.notifier.reconfigure(desk.config)
            await until(lambda: len(hook.bodies) == 6)
    told = {body["codes"][0]: body for body in hook.bodies[:3]}
    assert set(told) == {4010, 2002, 3001}
    assert told[4010]["title"] == "path de1: The proxy refused, failed or fell silent."
    assert told[3001]["text"] == "accounts.toml:3: accounts.a: is wrong and 1 more"
    assert told[2002]["level"] == "error"
    assert {body["codes"][0] for body in hook.bodies[3:] if body["resolved"]} == set(told)


async def test_an_outage_is_one_message_with_its_accounts() -> None:
    """An account's own incident, and a call's, is none."""
    async with Listener() as hook:
        desk = Desk(to(hook))
        outage = IncidentRow(
            "i-9", None, "de1", Scope.PATH, Kind.PROXY, 0.0, accounts=("bot-1", "bot-2", "bot-3")
        )
        async with desk.at_work():
            desk.recorder.record(row(None, "proxy_failed", Result.RETRYING, incident="i-9", path="de1"))
            desk.recorder.incident(outage)
            desk.recorder.incident(replace(outage, id="i-1", account="bot-1"))
            desk.recorder.incident(replace(outage, id="i-2", scope=Scope.CALL))
            for name in outage.accounts:
                await desk.state(name, State.RECOVERING, path="de1")
            await until(lambda: len(hook.bodies) == 1)
            for name in outage.accounts:
                await desk.state(name, State.ONLINE, path="nl3")
            desk.recorder.incident(replace(outage, closed_at=1.0, outcome=Result.RECOVERED))
            await until(lambda: len(hook.bodies) == 2)
    assert hook.bodies[0]["accounts"] == ["bot-1", "bot-2", "bot-3"]
    assert hook.bodies[1]["resolved"]


async def test_limits_and_old_failures_of_an_account_are_read_for_what_they_are() -> None:
    """A limited account is told; a failure of another incident does not explain the present one."""
    async with Listener() as hook:
        desk = Desk(to(hook))
        async with desk.at_work():
            frozen = Limited("FROZEN_METHOD_INVALID", frozen=True, since=0.0)
            await desk.state("bot-1", State.ONLINE, limited=frozen)
            old = row("bot-2", "server_error", Result.RETRYING, incident="old")
            await desk.state("bot-2", State.RECOVERING, last_failure=old, incident="new")
            present = replace(old, account="bot-3", incident="new")
            await desk.state("bot-3", State.RECOVERING, last_failure=present, incident="new")
            await until(lambda: len(hook.bodies) == 3)
    told = {body["accounts"][0]: body["codes"] for body in hook.bodies}
    assert told == {"bot-1": [1021], "bot-2": [4001], "bot-3": [1030]}


async def test_what_an_earlier_run_has_left_is_told_again() -> None:
    """By its number, though a row that was read has none; and when it is over."""
    read = replace(row("bot-1", "token_refused", Result.FAILED, error_id="ACCESS_TOKEN_EXPIRED"), code=0)
    before = AccountSnapshot("bot-1", State.FAILED, 0.0, "direct", last_failure=read)
    async with Listener() as hook:
        desk = Desk(to(hook))
        async with desk.at_work(before, AccountSnapshot("bot-2", State.STOPPED, 0.0, "direct")):
            await until(lambda: len(hook.bodies) == 1)
            await desk.state("bot-1", State.STARTING)
            await desk.state("bot-1", State.ONLINE)
            await until(lambda: len(hook.bodies) == 2)
    assert [(body["codes"], body["accounts"]) for body in hook.bodies] == [([1012], ["bot-1"])] * 2
    assert hook.bodies[1]["resolved"]


async def test_a_reload_opens_and_closes_sinks_and_leaves_the_others() -> None:
    """A new one is told what is wrong now; one that has not changed goes on where it was."""
    async with Listener() as hook:
        desk = Desk(to(hook), to(hook, "gone"))
        async with desk.at_work():
            await desk.fail("bot-1", "token_refused", State.FAILED)
            await until(lambda: len(hook.bodies) == 2)
            changed = {
                "ops": to(hook),
                "new": to(hook, "new"),
                "bad": Sink("bad", url=Secret("nonsense://x")),
            }
            desk.notifier.reconfigure(replace(desk.config, notify=changed))
            await until(lambda: len(hook.bodies) == 3)
            await desk.fail("bot-2", "login_needed", State.NEEDS_LOGIN, Result.NEEDS_LOGIN)
            await until(lambda: len(hook.bodies) >= 5)
            desk.notifier.reconfigure(replace(desk.config, accounts={}))
            await asyncio.sleep(0.2)
    assert hook.paths[:2] in (["/ops", "/gone"], ["/gone", "/ops"])
    assert sorted(hook.paths[2:5]) == ["/new", "/new", "/ops"]
    assert "/gone" not in hook.paths[2:5]


async def test_sentry_is_told_what_is_fatal_and_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the sinks, and by its own level."""
    async with Listener() as service:
        desk = Desk()
        dsn = Secret(f"http://public@127.0.0.1:{service.port}/42")
        config = replace(desk.config, sentry=SentryConfig(dsn))
        desk.notifier = Notifier(config, Clock(), PACE)
        desk.recorder = Overheard(desk.kept, desk.notifier)
        async with desk.at_work():
            await desk.fail("bot-1", "login_needed", State.NEEDS_LOGIN, Result.NEEDS_LOGIN)
            await desk.fail("bot-2", "token_refused", State.FAILED)
            await until(lambda: len(service.raw) == 1)
            desk.notifier.fault(RuntimeError("a fault"))
            await until(lambda: len(service.raw) == 2)
    assert service.paths == ["/api/42/envelope/"] * 2


async def test_a_fault_of_the_notifications_is_said_and_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The row is recorded all the same."""
    desk = Desk()

    def broken(*_: object) -> list[Any]:
        raise RuntimeError("a fault")

    monkeypatch.setattr(desk.notifier._troubles, "row", broken)
    desk.recorder.record(row("bot-1", "token_refused", Result.FAILED))
    assert len(desk.kept.rows) == 1
    assert "notifications failed; this is a fault of tg-supervisor" in caplog.text
    await desk.notifier.stop()
    desk.notifier.fault(RuntimeError("no Sentry is told"))
