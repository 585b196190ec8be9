from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

# For each line it is given it forks a writer, and tells its process. A writer writes as a daemon does: rows without
# waiting, saves that return after their commit. It says after each row and each save when it was.
WRITERS = """
import asyncio, os, sys, time
from pathlib import Path
from supervisor.core.failure import Action, Kind, Result, Row, Scope
from supervisor.ports import IncidentRow, SignIn
from supervisor.record.store import Store

async def main(path, saves):
    async with Store.open(path) as store:
        for number in range(10**9):
            incident = f"{os.getpid()}-{number}"
            for result in (Result.RETRYING, Result.RETRYING, Result.RECOVERED):
                at = time.time()
                store.record(Row(at, f"bot{number % 9}", "direct", Scope.SESSION, Kind.CONNECTION,
                                 Action.RECONNECT, result, "x" * 300, incident=incident, duration=1.0))
                closed = at if result is Result.RECOVERED else None
                store.incident(IncidentRow(incident, "a", "direct", Scope.SESSION, Kind.CONNECTION, at, closed))
                os.write(1, f"row {at}\\n".encode())
            if saves and number % 10 == 9:
                await store.save_sign_in(SignIn("a", at))
                os.write(1, f"saved {at}\\n".encode())
            await asyncio.sleep(0.001)

for line in sys.stdin:
    saves, _, path = line.strip().partition(" ")
    child = os.fork()
    if child == 0:
        asyncio.run(main(Path(path), saves == 'saves'))
    print("writer", child, flush=True)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""
KILLS = 50
LONG = 5  # of them after more than a second, so that there is something older than that


@pytest.mark.timeout(120)
def test_kill_9_loses_the_last_second_at_most_and_nothing_that_was_saved(db: Path) -> None:
    """Killed 50 times at random moments: the file is whole, holds each save that had returned, and rows a second old."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", WRITERS]
    draw = random.Random()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    ) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        for number in range(KILLS):
            print("saves" if number % 2 else "waits", db, file=writers.stdin, flush=True)
            lives = draw.uniform(1.1, 1.4) if number % (KILLS // LONG) == 0 else draw.uniform(0.0, 0.1)
            _check(db, *_kill(writers.stdout, lives))
        writers.stdin.close()


def _kill(said: Iterable[str], lives: float) -> tuple[list[float], float]:
    """Kill a writer after so many seconds; tell when its rows were, and up to when they must be in the file."""
    rows, saved = list[float](), 0.0
    writer = killed_at = begun = 0.0
    for line in said:
        what, *value = line.split()
        if what == "killed":
            break
        if what == "writer":
            writer, begun = float(value[0]), time.monotonic()
        elif what == "row":
            rows.append(float(value[0]))
        else:
            saved = float(value[0])
        if writer and not killed_at and time.monotonic() - begun >= lives:
            killed_at = time.time()
            os.kill(int(writer), signal.SIGKILL)
    return rows, max(saved, killed_at - 1.0)


def _check(path: Path, rows: list[float], safe: float) -> None:
    """The file is whole, has all rows up to then, and nothing in part."""
    if not path.exists():
        assert not rows
        return
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not db.execute("PRAGMA user_version").fetchone()[0]:
            assert not rows
            return
        wanted = [at for at in rows if at <= safe]
        if wanted:
            between = db.execute(
                "SELECT count(*) FROM failures WHERE at BETWEEN ? AND ?", (wanted[0], wanted[-1])
            )
            assert between.fetchone() == (len(wanted),)
        counted = db.execute("SELECT coalesce(sum(count), 0) FROM rollups WHERE step = 3600").fetchone()
        assert counted == db.execute("SELECT count(*) FROM failures").fetchone()
        half_done = (
            "SELECT count(*) FROM failures WHERE resolved_at IS NULL "
            "AND incident IN (SELECT incident FROM failures WHERE outcome = 'recovered')"
        )
        assert db.execute(half_done).fetchone() == (0,)
