"""The lines that an operator reads."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from supervisor.core.codes import NAMES
from supervisor.core.failure import Action, Kind, Result, Row, Scope
from supervisor.core.sentence import sentence

AT = datetime(2026, 1, 31, 14, 2, 47).astimezone().timestamp()


def row(**more: Any) -> Row:
    values: dict[str, Any] = {
        "at": AT,
        "account": "support-bot",
        "path": "direct",
        "scope": Scope.SESSION,
        "kind": Kind.CONNECTION,
        "action": Action.RECONNECT,
        "outcome": Result.RETRYING,
        "message": "connection reset",
    }
    return Row(**values | more)


FLOOD = {
    "kind": Kind.FLOOD_WAIT,
    "scope": Scope.CALL,
    "action": Action.WAIT,
    "message": "[420 FLOOD_WAIT_35] from messages.SendMessage",
    "method": "messages.SendMessage",
    "attempt": 1,
    "of": 5,
    "delay": 35.8,
}
CODE = {"outcome": Result.RAISED, "kind": Kind.UNKNOWN, "message": "ValueError: x", "action": Action.FAIL}


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (FLOOD, "flood wait 35 s on messages.SendMessage, attempt 1 of 5, next 14:03:22"),
        ({}, "connection: connection reset, connects again now"),
        (
            {"attempt": 2, "of": 3, "delay": 1.2},
            "connection: connection reset, attempt 2 of 3, connects again 14:02:48",
        ),
        ({"attempt": 2, "delay": 1.2}, "connection: connection reset, attempt 2, connects again 14:02:48"),
        (
            {"method": "updates.GetState", "action": Action.ROTATE_PROXY, "kind": Kind.PROXY},
            "proxy: connection reset on updates.GetState, changes its proxy now",
        ),
        (
            {"outcome": Result.SUSPENDED, "delay": 60.0},
            "connection: connection reset; suspended, next 14:03:47",
        ),
        (
            {"outcome": Result.RECOVERED, "duration": 1.24},
            "recovered after 1.2 s from connection: connection reset",
        ),
        (FLOOD | {"outcome": Result.RECOVERED}, f"recovered after 0.0 s from flood wait: {FLOOD['message']}"),
        (FLOOD | {"outcome": Result.FAILED}, f"flood wait: {FLOOD['message']}; its caller got the error"),
        (CODE | {"count": 40}, "unknown: ValueError: x (40 times); its caller got the error"),
        (CODE | {"traceback": "…"}, "unknown: ValueError: x; tg-supervisor log --json has its traceback"),
        (
            {"outcome": Result.NEEDS_LOGIN, "kind": Kind.AUTH, "code": NAMES["login_needed"].number},
            "auth: connection reset; it needs a login: tg-supervisor login support-bot",
        ),
        ({"outcome": Result.FAILED, "account": None}, "connection: connection reset; it has failed"),
    ],
)
def test_a_row_is_one_line_that_says_what_is_done(seen: dict[str, Any], said: str) -> None:
    """What happened, on which call, the attempt of how many, when the next one is; what a person has to do."""
    assert sentence(row(**seen)) == said
