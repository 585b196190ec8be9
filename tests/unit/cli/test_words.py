from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.cli.words import clock, log_line, parse_since, span
from supervisor.core.failure import Action, Kind, Result, Scope
from supervisor.record.rows import LogRow, row_json
from tests.unit.cli.conftest import NOW, row


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", 1_000_000 - 5400),
        ("7d", 1_000_000 - 604_800),
        ("1.5h", 994_600),
        ("2026-01-31T14:03:22Z", 1769868202),
    ],
)
def test_since_is_a_span_or_a_time(text: str, expected: float) -> None:
    """Spans count back from now, RFC 3339 times stand for themselves."""
    assert parse_since(text, 1_000_000) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "7", "7 days", "-3d"])
def test_since_refuses_the_rest(text: str) -> None:
    """What is neither is said with an example of each."""
    with pytest.raises(ValueError, match="90m, 24h, 7d"):
        parse_since(text, 0.0)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.25, "0.25 s"),
        (2.1, "2.1 s"),
        (35.4, "35 s"),
        (240, "4 min"),
        (11_520, "3 h 12 min"),
        (439_200, "5 d 2 h"),
    ],
)
def test_spans_have_two_units_at_most(seconds: float, expected: str) -> None:
    """A length of time is as exact as a person needs it."""
    assert span(seconds) == expected


def test_a_flood_wait_reads_as_a_sentence() -> None:
    """Who, what, on what, what is done, and which attempt, with the seconds that Telegram sent."""
    line = log_line(row_json(row(), 1), NOW)
    assert line == (
        f"{clock(NOW, NOW)} support-bot flood_wait FLOOD_WAIT_35 on messages.SendMessage: wait 35 s, attempt 1"
    )


def test_a_recovery_tells_what_helped_and_how_long_it_took() -> None:
    """The closing row says the action that worked and the incident's duration."""
    closing = row(
        outcome=Result.RECOVERED,
        kind=Kind.PROXY,
        action=Action.ROTATE_PROXY,
        error_id=None,
        method=None,
        message="proxy refused the password",
        duration=2.1,
    )
    line = log_line(row_json(closing, 1), NOW)
    assert line.endswith("proxy (proxy refused the password): recovered by rotate proxy after 2.1 s")


def test_a_paths_failure_names_the_path() -> None:
    """A row without an account says which path it is about, and a merged one how many it stands for."""
    line = log_line(row_json(row(account=None, path="de1", count=500), 1), NOW)
    assert " [de1] " in line
    assert line.endswith("(500 times)")


@pytest.mark.parametrize(
    ("scope", "accounts", "who"),
    [
        (Scope.PATH, ("a", "b"), "path de1 (2 accounts)"),
        (Scope.PATH, ("a",), "path de1 (1 account)"),
        (Scope.FLEET, ("a", "b"), "fleet (2 accounts)"),
        (Scope.PATH, (), "path de1"),
    ],
)
def test_an_outage_tells_whom_it_touched(scope: Scope, accounts: tuple[str, ...], who: str) -> None:
    """In the place of the account stand the path, or the fleet, and how many accounts it took along."""
    outage = row(
        account=None, path="de1", scope=scope, kind=Kind.PROXY, error_id=None, method=None, message="gone"
    )
    line = log_line(LogRow(1, outage, NOW, accounts=accounts).json(), NOW)
    assert f" {who} proxy (gone)" in line


def test_a_failure_of_the_fleet_names_the_fleet() -> None:
    """A row without an account, a path or a caller: the event loop's own."""
    stall = row(account=None, scope=Scope.FLEET, kind=Kind.UNKNOWN, error_id="LOOP_STALLED", method=None)
    line = log_line(
        LogRow(1, replace(stall, outcome=Result.RAISED, message="bot.py:5 in hello"), NOW).json(), NOW
    )
    assert line.endswith(" fleet unknown LOOP_STALLED (bot.py:5 in hello): recorded")


def test_what_came_from_outside_cannot_steer_the_terminal() -> None:
    """Line ends and escape sequences in a message stay on their line, harmless."""
    line = log_line(row_json(row(error_id=None, message="a\nb\x1b[2Jc"), 1), NOW)
    assert "\n" not in line
    assert "\x1b" not in line


def test_another_days_time_has_its_date() -> None:
    """Today's rows show the time alone."""
    assert len(clock(NOW, NOW)) == 8
    assert len(clock(NOW - 3 * 86_400, NOW)) == 19
