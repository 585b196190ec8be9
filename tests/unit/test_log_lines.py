"""What a failure and a recovery look like in the daemon's log, and how loud they are there."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from supervisor.core.classify import classify
from supervisor.core.codes import NAMES
from supervisor.core.failure import Action, Evidence, Result, Source
from supervisor.journal import Journal
from tests.unit.fakes import FakeClock, FakeRecorder, virtual

LOST = Evidence(Source.SOCKET, "connection reset", cause=("ConnectionResetError: [104]", "OSError: x"))


def failed(result: Result, evidence: Evidence = LOST, **more: Any) -> FakeRecorder:
    recorder = FakeRecorder()
    journal = Journal("bot", recorder, FakeClock(), "direct")
    journal.write(journal.draft(classify(evidence), result, Action.RECONNECT, **more))
    return recorder


@virtual
async def test_one_line_a_failure_and_one_a_recovery(caplog: pytest.LogCaptureFixture) -> None:
    """With the attempt of how many; the row knows its number and the cap, too."""
    caplog.set_level(logging.INFO)
    (row,) = failed(Result.RETRYING, attempt=1, of=3).rows
    failed(Result.RECOVERED, duration=0.42)
    assert (row.code, row.of) == (NAMES["connection_lost"].number, 3)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "bot: connection: connection reset, attempt 1 of 3, connects again now"),
        ("INFO", "bot: recovered after 0.4 s from connection: connection reset"),
    ]
    assert {record.account for record in caplog.records} == {"bot"}  # type: ignore[attr-defined]


@virtual
async def test_debug_adds_the_causes_and_the_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """A line each, and of a recovery none."""
    caplog.set_level(logging.DEBUG)
    failed(Result.RETRYING)
    failed(Result.RECOVERED)
    seen = Evidence(Source.CODE, "ValueError: x", step="main", traceback="Traceback …\nValueError: x\n")
    failed(Result.RAISED, seen)
    debugged = [record.getMessage() for record in caplog.records if record.levelname == "DEBUG"]
    assert debugged == [
        "bot:   caused by ConnectionResetError: [104]",
        "bot:   caused by OSError: x",
        "bot: Traceback …\nValueError: x",
    ]


@virtual
@pytest.mark.parametrize(
    ("result", "evidence", "level"),
    [
        (Result.FAILED, Evidence(Source.RPC, "x", "USER_DEACTIVATED_BAN", 401), "ERROR"),
        (Result.NEEDS_LOGIN, Evidence(Source.RPC, "x", "SESSION_REVOKED", 401), "ERROR"),
        (Result.SUSPENDED, LOST, "WARNING"),
        (Result.FAILED, Evidence(Source.RPC, "x", "INTERNAL_SERVER_ERROR", 500), "WARNING"),
        (Result.RAISED, Evidence(Source.RPC, "x", "PEER_ID_INVALID", 400), "INFO"),
        (Result.RETRYING, Evidence(Source.RPC, "x", "FLOOD_WAIT_3", 420), "INFO"),
        (Result.RAISED, Evidence(Source.CODE, "x", traceback="…"), "ERROR"),
    ],
)
async def test_what_needs_a_person_is_an_error(
    result: Result, evidence: Evidence, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """So that errors.log has it; a call's own end is not."""
    caplog.set_level(logging.INFO)
    failed(result, evidence)
    assert [record.levelname for record in caplog.records] == [level]
