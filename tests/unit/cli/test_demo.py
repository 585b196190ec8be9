from __future__ import annotations

import asyncio
import os
import re
import signal
from dataclasses import replace
from typing import Any

import pytest

from supervisor.cli.common import ExitCode, Options
from supervisor.cli.demo import command
from supervisor.cli.demo.cast import NAMES, whose
from supervisor.cli.demo.play import Now, Play, calm_for
from supervisor.cli.demo.relay import Relay
from supervisor.cli.demo.report import Report, StepSeen, slowest, tally
from supervisor.cli.demo.stage import Call, DemoBroken, staged
from supervisor.cli.demo.steps import STEPS, Expected, Place, Step
from supervisor.cli.demo.view import Lines, show_report
from supervisor.core.failure import Action, Kind, Result, State
from supervisor.datacenter import Account, Datacenter
from tests.unit.cli.conftest import Cli

PLAIN = Options(no_color=True)


async def nothing(_: Place, __: Account | None) -> None:
    """Break nothing."""


def row(account: str, outcome: str = "recovered", **more: Any) -> dict[str, Any]:
    values = {
        "account": account,
        "path": "direct",
        "kind": "connection",
        "action": "reconnect",
        "outcome": outcome,
        "error_id": None,
        "message": "connection reset by 127.0.0.1:45619",
        "delay_s": 0.0,
        "attempt": 1,
        "duration_s": 0.25,
    }
    return values | more


def report_of(*outcomes: str) -> Report:
    """A report of two steps for everybody and one bot's calls."""
    steps = [
        StepSeen(step, at=float(at), expected=True, rows=[row(name) for name in NAMES])
        for at, step in enumerate(STEPS[:2])
    ]
    with_calls = Report(steps)
    dc = Datacenter()
    bot = dc.add_bot()
    calls = [
        Call(1.0, outcome, 0.2, "TimeoutError()" if outcome == "failed" else None) for outcome in outcomes
    ]
    for number in range(outcomes.count("answered")):
        dc.seen.delivered[bot.user_id, f"message {number}"] += 1
    with_calls.tallies = [tally("support-bot", bot, calls, dc.seen)]
    with_calls.errors = [f"support-bot: {call.error}" for call in calls if call.error]
    return with_calls


def test_a_good_demo_has_no_problems() -> None:
    """Where all recovered and was answered once, nothing is said against it."""
    report = report_of("answered", "answered")
    assert report.problems == []
    assert report.json()["ok"] is True
    assert report.steps[0].recovered_in == 0.25


def test_whatever_is_wrong_is_a_problem() -> None:
    """A failed call, one without an answer, an early one, a missing recovery, a bad exit: each is told."""
    report = report_of("answered", "failed", "asked")
    report.steps[0].expected, report.steps[0].rows = False, [row(name) for name in NAMES[1:]]
    report.early_calls, report.codes_unasked, report.daemon_exit = 2, 3, 1
    report.tallies[0] = replace(report.tallies[0], delivered_twice=1)
    told = "\n".join(report.problems)
    assert "connections reset: support-bot did not recover" in told
    assert "TimeoutError" in told
    assert "1 calls were not answered" in told
    assert "delivered twice" in told
    assert "2 calls were made before" in told
    assert "3 login codes" in told
    assert "exit code 1" in told
    assert report.json()["ok"] is False


@pytest.mark.parametrize("outcome", ["answered", "failed"])
def test_the_tables_fit(capsys: pytest.CaptureFixture[str], outcome: str) -> None:
    """The final tables fit into 80 columns, without colour where there is no terminal."""
    report = report_of("answered", outcome)
    report.steps[1].expected = outcome == "answered"
    show_report(report, PLAIN)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "\x1b" not in printed
    assert ("NOT BACK" in printed) == (outcome == "failed")
    assert ("All went as it should: 2 of 2 calls answered" in printed) == (outcome == "answered")


def test_the_lines_fit() -> None:
    """A failure's line is cut to 80 columns; the same thing met by several accounts is one line."""
    lines: list[str] = []
    view = Lines(lines.append, PLAIN)
    long = "connection failed: " + "the certificate of the proxy is not of this world " * 2
    view.rows(100.0, [row(name, "retrying", message=long) for name in NAMES[1:3]])
    view.rows(101.0, [row(name) for name in NAMES])
    view.rows(102.0, [row("news-bot", "retrying", kind="flood_wait", error_id="FLOOD_WAIT_X", action="wait", delay_s=3.2,
                          message="[420 FLOOD_WAIT_3] from messages.SendMessage")])  # fmt: skip
    view.look(Now())
    assert len(lines[0]) == 80
    assert lines[0].startswith("100.0 s  news-bot, orders-bot: connection failed")
    assert lines[0].endswith("…; reconnect at once")
    assert lines[1:] == [
        "101.0 s  all 6: recovered by reconnect after 0.25 s",
        "102.0 s  news-bot: flood_wait FLOOD_WAIT_3; wait 3.2 s",
    ]


def test_seconds_are_calm() -> None:
    """A longer demo is longer in its calm, evenly; there is some in the shortest."""
    assert calm_for(0, STEPS) == calm_for(-5, ()) == 0.8
    busy = sum(step.takes for step in STEPS)
    assert calm_for(busy + 0.5 + 12, STEPS) == pytest.approx(12 / (len(STEPS) + 1))


def test_names_are_short() -> None:
    """All accounts are said so; many by those that are missing, a few by their names."""
    assert whose(NAMES) == "all 6"
    assert whose([*NAMES[1:], NAMES[1]]) == "all but support-bot"
    assert whose(["news-bot", "news-bot"]) == "news-bot"
    assert whose(NAMES[:3]) == "3 accounts"


def test_the_slowest_is_of_an_interval() -> None:
    """A call counts for the interval in which it was answered; one without an answer does not."""
    calls = [
        Call(1.0, "answered", 5.0),
        Call(7.0, "answered", 0.1),
        Call(7.0, "failed", 9.0),
        Call(7.0, "asked"),
    ]
    assert slowest(calls) == 5.0
    assert slowest(calls, since=6.5) == 0.1
    assert slowest(calls, until=6.0) is None


def test_accounts_are_down_where_they_should_be() -> None:
    """An account is down from the step that is to leave it so to the one that brings it back; nobody else is."""
    by_name = {step.name: step for step in STEPS}
    report = Report(
        [StepSeen(by_name["session revoked"], 10.0), StepSeen(by_name["login by a person"], 20.0)]
    )
    told = [report.is_down("sales-user", at) for at in (9.9, 10.0, 19.9, 20.0)]
    assert told == [False, True, True, False]
    assert not report.is_down("news-bot", 15.0)


def test_what_stays_down_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A step that is to leave its account down says so, and how it was left; where it did not, too."""
    step = next(step for step in STEPS if step.expected.state is State.NEEDS_LOGIN)
    ended = row("sales-user", "needs_login", kind="auth", action="fail", duration_s=None)
    show_report(Report([StepSeen(step, 1.0, expected=True, rows=[ended]), StepSeen(step, 2.0)]), PLAIN)
    printed = capsys.readouterr().out
    assert re.search(r"session revoked +sales-user +auth +needs login +- *\n", printed)
    assert "NOT SO" in printed


def test_the_same_error_is_told_once() -> None:
    """Calls that failed alike are one line with their number."""
    assert "2 calls failed: support-bot: TimeoutError()" in report_of("failed", "failed").problems


async def test_a_proxy_is_killed_and_comes_back() -> None:
    """The demo's proxy relays; killed, it resets and refuses; started again it is the same proxy."""
    relay = Relay()
    async with Datacenter() as dc:
        await relay.start()
        assert await asked_through(relay, dc.port) == 0
        port = relay.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
        await relay.kill()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asked_through(relay, dc.port)
        await relay.start()
        assert relay.port == port
        await dc.go_away()
        assert await asked_through(relay, dc.port) == 5
        await dc.come_back()
        await relay.kill()


async def asked_through(relay: Relay, port: int) -> int:
    """The proxy's reply to a wish for a connection to this port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(b"\x05\x01\x00")
    assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2))
    reply = await reader.readexactly(10)
    writer.close()
    await writer.wait_closed()
    return reply[1]


@pytest.mark.timeout(90)
async def test_what_does_not_come_is_told() -> None:
    """A step whose recovery is not seen within its time is a problem; the demo goes on and ends cleanly."""
    never = Expected(Kind.PROXY, Action.ROTATE_PROXY)
    still = Expected(Kind.AUTH, Action.FAIL, Result.FAILED, State.FAILED)
    steps = [
        Step("nothing at all", nothing, never, account="news-bot", within=0.3),
        Step("nothing again", nothing, still, account="promo-bot", within=0.3),
    ]
    async with staged() as stage:
        report = await Play(stage, steps, Lines(lambda _: None, PLAIN), seconds=1).run()
    assert report.problems == [
        "nothing at all: news-bot did not recover within 0.3 s",
        "nothing again: promo-bot did not become failed within 0.3 s",
    ]
    assert report.daemon_exit == 0
    assert not stage.folder.exists()


@pytest.mark.timeout(90)
async def test_a_dead_daemon_is_told() -> None:
    """Where the daemon ends before its time, the demo says so, with the end of its log."""
    async with staged() as stage:
        play = Play(stage, STEPS, Lines(lambda _: None, PLAIN), seconds=1)
        await play.start()
        assert stage.pid is not None
        os.kill(stage.pid, signal.SIGKILL)
        with pytest.raises(DemoBroken, match=r"exit code -9:\n(?s:.*)running, pid"):
            await play.break_things()
    assert not stage.folder.exists()


def test_a_broken_installation_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a client library: exit 78 and the repair, before anything is started."""
    monkeypatch.setattr(
        "supervisor.installation.problems", lambda: ["No Telegram client library is installed."]
    )
    result = cli("demo")
    assert result.exit_code == ExitCode.CONFIG
    assert "No Telegram client" in result.stderr


@pytest.mark.parametrize("good", [True, False])
def test_the_exit_code_tells(cli: Cli, monkeypatch: pytest.MonkeyPatch, good: bool) -> None:
    """0 where all recovered; 1, and why on stderr, where something did not."""

    async def play(_: Options, __: float) -> Report:
        return report_of("answered" if good else "failed")

    monkeypatch.setattr(command, "_play", play)
    result = cli("demo", "--no-color")
    assert result.exit_code == (ExitCode.OK if good else ExitCode.FAILURE)
    assert ("a call failed: support-bot: TimeoutError()" in result.stderr) != good
