from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

# Writes as a daemon does, and says after each save how far the file must have come.
WRITER = """
import asyncio, sys, time
from pathlib import Path
from supervisor.core.failure import Action, Kind, Result, Row, Scope
from supervisor.ports import SignIn
from supervisor.record.store import Store, StoreSettings

async def main(path, first):
    async with Store.open(path, StoreSettings(batch_seconds=0.005)) as store:
        for number in range(first, 10**9):
            for _ in range(20):
                store.record(Row(time.time(), f"bot{number % 9}", "direct", Scope.SESSION, Kind.CONNECTION,
                                 Action.RECONNECT, Result.RETRYING, "x" * 300, incident=f"i-{number}"))
            await store.save_sign_in(SignIn("a", time.time()))
            print(number, flush=True)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.mark.timeout(120)
def test_kill_9_loses_nothing_that_was_saved(db: Path) -> None:
    """Killed at random moments, the file stays whole and holds every save that had returned, with its rows."""
    root = Path(__file__).parents[3]
    saved = 0
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, str(db), str(saved)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(root)}
        ) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            time.sleep(random.uniform(0.0, 0.4))
            writer.send_signal(signal.SIGKILL)
            lines = [
                line
                for line in (first + writer.stdout.read()).splitlines(keepends=True)
                if line.endswith("\n")
            ]
        saved = int(lines[-1]) + 1
        with closing(sqlite3.connect(db)) as reader:
            assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            sign_ins = reader.execute("SELECT count(*) FROM sign_ins").fetchone()[0]
            rows = reader.execute("SELECT count(*) FROM failures").fetchone()[0]
        assert sign_ins >= saved
        assert rows == 20 * sign_ins
