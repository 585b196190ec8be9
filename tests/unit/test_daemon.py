"""What the daemon's own parts do that need no Telegram."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor import garbage
from supervisor.config.load import load
from supervisor.core.failure import Action, Kind, Result, Row, Scope, State
from supervisor.daemon import Supervisor
from supervisor.ports import AccountSnapshot
from supervisor.report.status import Texts

MANY = 5_000
CONFIG = """
[telegram]
api_id = 1
api_hash = "0123456789abcdef0123456789abcdef"
[accounts.bot]
bot_token = "123456:abcdefghijklmnopqrstuvwxyzABCDEFGHI"
"""


class Told:
    """An account, as far as `status` asks it: a new snapshot each time."""

    def __init__(self, snapshot: AccountSnapshot) -> None:
        self.said = snapshot

    def snapshot(self) -> AccountSnapshot:
        return replace(self.said)


def supervisor_of(folder: Path, accounts: dict[str, Told]) -> Any:
    (folder / "accounts.toml").write_text(CONFIG)
    supervisor: Any = Supervisor(load(folder / "accounts.toml", env={}))
    snapshots = lambda: [account.snapshot() for account in accounts.values()]  # noqa: E731
    supervisor._pool = SimpleNamespace(accounts=accounts, snapshots=snapshots)
    supervisor._assembly = SimpleNamespace(path_snapshots=list)
    supervisor._reloading = SimpleNamespace(json=lambda: {"error": None})
    supervisor._store = SimpleNamespace(row_id=lambda _: 7)
    supervisor._texts = Texts(supervisor._store.row_id)
    return supervisor


@pytest.mark.alone
async def test_the_status_of_thousands_holds_nobody_up(tmp_path: Path) -> None:
    """No turn of the event loop takes 20 ms for it, not even the first time; the text is the object's, and stays so."""
    row = Row(
        time.time(), "a", "direct", Scope.SESSION, Kind.CONNECTION, Action.RECONNECT, Result.RETRYING, "reset"
    )
    accounts = {
        f"bot-{n:04}": Told(
            AccountSnapshot(f"bot-{n:04}", State.ONLINE, float(n), "direct", n, True, last_failure=row)
        )
        for n in range(MANY)
    }
    supervisor = supervisor_of(tmp_path, accounts)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)

    with garbage.bounded():  # as in the daemon
        watcher = asyncio.create_task(watch())
        await asyncio.sleep(0)
        first = await supervisor.status_json()
        accounts["bot-0007"].said = replace(accounts["bot-0007"].said, state=State.RECOVERING)
        del accounts["bot-0008"]
        second = await supervisor.status_json()
        watcher.cancel()
    assert longest < 0.02, longest
    assert len(json.loads(first)["accounts"]) == MANY
    assert {**json.loads(second), "uptime_s": 0} == {**supervisor.status(), "uptime_s": 0}
