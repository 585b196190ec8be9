from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from supervisor.cli.top import tg_supervisor
from supervisor.core.failure import Action, Kind, Row, Scope, State
from supervisor.core.failure import Result as Outcome
from supervisor.ports import AccountSnapshot, IncidentRow, PathSnapshot
from supervisor.record.store import Store

ROOT = Path(__file__).parents[3]
NOW = time.time()
CONFIG = """
[telegram]
api_id = 12345
api_hash = "0123456789abcdef0123456789abcdef"

[accounts.support-bot]
bot_token = "123456:abcdefghijklmnopqrstuvwxyzABCDEFGHI"
"""

Cli = Callable[..., Result]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TG_SUPERVISOR_") or name in {"NO_COLOR", "COLUMNS", "FORCE_COLOR"}:
            monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "accounts.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def cli(config: Path) -> Cli:
    """Runs a command in this process; `accounts.toml` is in the working directory."""

    def run(*args: str) -> Result:
        return CliRunner().invoke(tg_supervisor, args)

    return run


def keep(state_dir: Path, path: PathSnapshot, incident: IncidentRow) -> None:
    """Write what a daemon keeps of a path and its outage."""

    async def write() -> None:
        state_dir.mkdir(exist_ok=True)
        async with Store.open(state_dir / "recovery.db") as store:
            store.path(path)
            store.incident(incident)

    asyncio.run(write())


def command(args: Sequence[str], cwd: Path, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command as its own process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "supervisor", *args]
    return subprocess.run(
        line,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=30,
        check=False,
        **more,  # type: ignore[call-overload]
    )


def row(
    at: float = NOW, account: str | None = "support-bot", outcome: Outcome = Outcome.RETRYING, **more: object
) -> Row:
    values = {
        "at": at,
        "account": account,
        "path": "direct",
        "scope": Scope.CALL,
        "kind": Kind.FLOOD_WAIT,
        "action": Action.WAIT,
        "outcome": outcome,
        "message": "[420 FLOOD_WAIT_35] messages.SendMessage",
        "incident": "i-1",
        "error_id": "FLOOD_WAIT_X",
        "error_code": 420,
        "method": "messages.SendMessage",
        "attempt": 1,
        "delay": 35.0,
    }
    return Row(**(values | more))  # type: ignore[arg-type]


def account(name: str, state: State = State.ONLINE, **more: object) -> AccountSnapshot:
    return AccountSnapshot(name, state, NOW - 60, "direct", **more)  # type: ignore[arg-type]


def fill(state_dir: Path, rows: Sequence[Row] = (), accounts: Sequence[AccountSnapshot] = ()) -> None:
    """Leave behind what a daemon would have, that stopped cleanly."""

    async def write() -> None:
        state_dir.mkdir(exist_ok=True)
        async with Store.open(state_dir / "recovery.db") as store:
            for one in rows:
                store.record(one)
            for snapshot in accounts:
                await store.save_account(snapshot)

    asyncio.run(write())
