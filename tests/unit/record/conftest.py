from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.failure import Action, Kind, Result, Row, Scope

MakeRow = Callable[..., Row]
NOW = time.time()  # retention deletes what is old


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "recovery.db"


@pytest.fixture
def make_row() -> MakeRow:
    def make(
        at: float = NOW,
        account: str | None = "support-bot",
        outcome: Result = Result.RETRYING,
        *,
        kind: Kind = Kind.CONNECTION,
        action: Action = Action.RECONNECT,
        incident: str | None = None,
        error_id: str | None = None,
        message: str = "connection reset",
        duration: float | None = None,
        count: int = 1,
    ) -> Row:
        return Row(
            at=at,
            account=account,
            path="direct",
            scope=Scope.SESSION,
            kind=kind,
            action=action,
            outcome=outcome,
            message=message,
            incident=incident,
            error_id=error_id,
            duration=duration,
            count=count,
        )

    return make
