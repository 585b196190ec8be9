from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import stat
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.failure import Action, Kind, Result, Scope, State
from supervisor.errors import ConfigError
from supervisor.ports import AccountSnapshot, FloodRow, IncidentRow, Limited, PathSnapshot, Recorder, SignIn
from supervisor.record import queries
from supervisor.record.files import prepare
from supervisor.record.migrations import SCHEMA
from supervisor.record.store import Store, StoreSettings
from tests.unit.record.conftest import NOW, MakeRow

FAST = StoreSettings(batch_seconds=0.01, retry_seconds=0.05)


def query(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(statement).fetchall()


def account(name: str, state: State = State.ONLINE) -> AccountSnapshot:
    return AccountSnapshot(name, state, 1.0, "direct")


async def until(path: Path, statement: str, wanted: object) -> None:
    async with asyncio.timeout(10):
        while query(path, statement)[0][0] != wanted:
            await asyncio.sleep(0.01)


async def test_it_is_a_recorder(db: Path) -> None:
    """The store offers what `ports.Recorder` asks for."""
    recorder: Recorder = Store.open(db)
    assert recorder is not None


async def test_rows_are_written_within_the_batchs_time(db: Path, make_row: MakeRow) -> None:
    """A row stands in the file a tenth of a second later, without anybody waiting for it."""
    async with Store.open(db) as store:
        store.record(make_row())
        store.incident(IncidentRow("i-1", "a", "direct", Scope.CALL, Kind.PROXY, 1.0))
        await asyncio.sleep(0.5)
        assert query(db, "SELECT (SELECT count(*) FROM failures) + (SELECT count(*) FROM incidents)") == [
            (2,)
        ]


async def test_a_save_returns_after_its_commit(db: Path) -> None:
    """Once a save has returned another process finds it in the file."""
    async with Store.open(db, StoreSettings(batch_seconds=60.0)) as store:
        await store.save_account(account("a"))
        assert query(db, "SELECT name, state FROM accounts") == [("a", "online")]
        await store.save_flood(FloodRow("a", "messages.SendMessage", None, 1.0, 35.0))
        assert query(db, "SELECT until FROM floods") == [(36.0,)]
        await store.save_sign_in(SignIn("a", 5.0))
        assert query(db, "SELECT account, at FROM sign_ins") == [("a", 5.0)]
        await store.forget_account("a")
        assert query(db, "SELECT count(*) FROM accounts") == [(0,)]


async def test_saves_at_once_share_transactions(db: Path) -> None:
    """A thousand accounts that change together are written in far fewer transactions, hence within a second."""
    async with Store.open(db) as store:
        began = time.monotonic()
        await asyncio.gather(*(store.save_account(account(f"bot{number}")) for number in range(1000)))
        assert time.monotonic() - began < 1.0
    assert query(db, "SELECT count(*) FROM accounts") == [(1000,)]


async def test_what_is_queued_is_written_at_the_end(db: Path, make_row: MakeRow) -> None:
    """Leaving the store writes all that waits, and says in the file that the run ended cleanly."""
    async with Store.open(db, StoreSettings(batch_seconds=60.0)) as store:
        for _ in range(100):
            store.record(make_row())
    assert query(db, "SELECT count(*) FROM failures") == [(100,)]
    with queries.opened(db) as reader:
        assert reader is not None
        run = queries.last_run(reader)
        assert run is not None
        assert run.stopped_at is not None


async def test_the_final_write_survives_cancellation(db: Path, make_row: MakeRow) -> None:
    """A task cancelled twice, once in its work and once in its farewell, still leaves its rows on disk."""

    async def work(store: Store) -> None:
        async with store:
            store.record(make_row())
            await asyncio.sleep(60)

    with closing(_prepared(db)) as other:
        other.execute("BEGIN IMMEDIATE")  # the farewell has to wait
        task = asyncio.create_task(work(Store.open(db, StoreSettings(batch_seconds=60.0))))
        await asyncio.sleep(2.2)  # the locked file costs the start its three tries
        task.cancel()
        await asyncio.sleep(0.1)
        task.cancel()
        other.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await task
    assert query(db, "SELECT count(*) FROM failures") == [(1,)]


async def test_nothing_is_left_running(db: Path) -> None:
    """After the store is left no task of it lives."""
    async with Store.open(db):
        assert any(task.get_name() == "record-writer" for task in asyncio.all_tasks())
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_locked_file_stops_nobody(
    db: Path, make_row: MakeRow, caplog: pytest.LogCaptureFixture
) -> None:
    """While another process locks the file saves return, rows wait, one line says so; then all is written."""
    async with Store.open(db, FAST) as store:
        await store.save_account(account("a"))
        with closing(sqlite3.connect(db, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(50):
                store.record(make_row())
            began = time.monotonic()
            await store.save_account(account("a", State.RECOVERING))
            assert time.monotonic() - began < 5
            began = time.monotonic()
            for _ in range(20):
                await store.save_account(account("a", State.SUSPENDED))
            assert time.monotonic() - began < 0.5
            await asyncio.sleep(0.5)
            other.execute("ROLLBACK")
        await until(db, "SELECT count(*) FROM failures", 50)
        await until(db, "SELECT state FROM accounts", "suspended")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "cannot be written" in errors[0].message
    assert "locked" in errors[0].message


async def test_a_full_disk_stops_nobody(db: Path, make_row: MakeRow) -> None:
    """Where there is no room rows wait in memory, merged past the bound; with room again none is missing."""
    async with Store.open(db, StoreSettings(batch_seconds=0.01, retry_seconds=0.05, max_rows=100)) as store:
        await store.save_account(account("a"))
        assert store._db is not None
        pages = (await (await store._db.execute("PRAGMA page_count")).fetchone())[0]  # type: ignore[index]
        await store._db.execute(f"PRAGMA max_page_count = {pages}")
        for _ in range(2000):
            store.record(make_row(message="x" * 500))
        await store.save_account(account("b"))
        await until(db, "SELECT sum(count) FROM failures", 2000)
        await until(db, "SELECT count(*) FROM accounts", 2)
    assert query(db, "SELECT count(*) < 300 FROM failures") == [(1,)]


async def test_a_start_with_a_locked_file_succeeds(db: Path, make_row: MakeRow) -> None:
    """The daemon starts although the file is locked, and what it recorded is written once the lock is gone."""
    with closing(_prepared(db)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with Store.open(db, FAST) as store:
            store.record(make_row())
            other.execute("ROLLBACK")
            await until(db, "SELECT count(*) FROM failures", 1)


async def test_a_damaged_file_is_set_aside(
    db: Path, make_row: MakeRow, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is no database is kept under another name, said so, and a new log begun."""
    db.write_bytes(b"no database" * 1000)
    async with Store.open(db) as store:
        store.record(make_row())
    assert query(db, "SELECT count(*) FROM failures") == [(1,)]
    (kept,) = db.parent.glob("recovery.db.damaged-*")
    assert kept.read_bytes().startswith(b"no database")
    assert kept.name in caplog.text


async def test_a_deleted_file_is_begun_anew(db: Path, make_row: MakeRow) -> None:
    """Rows are not written to a file that somebody has deleted: a new one takes them."""
    async with Store.open(db, FAST) as store:
        store.record(make_row())
        await until(db, "SELECT count(*) FROM failures", 1)
        db.unlink()
        await store.save_account(account("a"))
        store.record(make_row())
    assert query(db, "SELECT count(*) FROM failures") == [(1,)]
    assert query(db, "PRAGMA integrity_check") == [("ok",)]


async def test_a_row_that_sqlite_refuses_takes_none_along(
    db: Path, make_row: MakeRow, caplog: pytest.LogCaptureFixture
) -> None:
    """One impossible value costs its own row and a line in the log, nothing else."""
    async with Store.open(db, FAST) as store:
        for message in ("one", "two", "three"):
            store.record(make_row(message=message))
        store.record(make_row(at=object()))
        await store.save_account(account("a"))
        assert query(db, "SELECT message FROM failures") == [("one",), ("two",), ("three",)]
        store.record(make_row(message="four"))
    assert query(db, "SELECT count(*) FROM failures") == [(4,)]
    assert "left out" in caplog.text


async def test_a_newer_file_is_refused(db: Path) -> None:
    """A file of a later release is left alone; the message names it and says what to do."""
    with closing(_prepared(db)) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(ConfigError, match="newer tg-supervisor"):
        async with Store.open(db):
            pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_its_files_are_the_owners_alone(db: Path, make_row: MakeRow) -> None:
    """recovery.db, -wal and -shm are 0600, also where the file was open to others before."""
    db.touch(0o644)
    async with Store.open(db) as store:
        store.record(make_row())
        await store.save_account(account("a"))
        names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in db.parent.glob("recovery.db*")}
    assert names == {"recovery.db": 0o600, "recovery.db-wal": 0o600, "recovery.db-shm": 0o600}


async def test_a_recovery_resolves_its_incidents_rows(db: Path, make_row: MakeRow) -> None:
    """The row that closes an incident marks the earlier ones as dealt with, in the same batch or a later one."""
    async with Store.open(db, FAST) as store:
        store.record(make_row(incident="i-1"))
        store.record(make_row(incident="i-2"))
        await store.save_account(account("a"))
        store.record(make_row(incident="i-1"))
        store.record(make_row(at=NOW + 9, incident="i-1", outcome=Result.RECOVERED, duration=9.0))
    assert query(db, "SELECT incident, resolved_at FROM failures ORDER BY id") == [
        ("i-1", NOW + 9),
        ("i-2", None),
        ("i-1", NOW + 9),
        ("i-1", NOW + 9),
    ]


async def test_numbers_are_never_used_twice(db: Path, make_row: MakeRow) -> None:
    """Rows go on counting after a restart, even where retention has deleted all rows before."""
    async with Store.open(db) as store:
        store.record(make_row())
        store.record(make_row())
    query_write(db, "DELETE FROM failures")
    async with Store.open(db) as store:
        store.record(make_row())
    assert query(db, "SELECT id FROM failures") == [(3,)]


async def test_a_failures_number_is_known_once_it_is_written(db: Path, make_row: MakeRow) -> None:
    """`row_id` gives the number of an account's newest failure, and None before the commit."""
    async with Store.open(db, StoreSettings(batch_seconds=60.0)) as store:
        first, second = make_row(at=NOW), make_row(at=NOW + 1)
        store.record(first)
        store.record(second)
        assert store.row_id(second) is None
        await store.save_account(account("a"))
        assert store.row_id(second) == 2
        assert store.row_id(make_row(at=NOW + 2)) is None


async def test_what_the_last_run_left_is_read_back(db: Path, make_row: MakeRow) -> None:
    """Open incidents, running waits, accounts and the last day's sign-ins come back equal; what is over does not."""
    now = 1_000_000.0
    opened = IncidentRow(
        "i-1", "a", "de1", Scope.SESSION, Kind.AUTH, now, attempts={"auth": 1}, backoff={"auth": 2}
    )
    async with Store.open(db, FAST, now=lambda: now) as store:
        snapshot = AccountSnapshot("a", State.RECOVERING, now, "de1", last_failure=make_row())
        store.incident(opened)
        store.incident(
            IncidentRow("i-0", "a", "de1", Scope.CALL, Kind.AUTH, 1.0, now, Result.RECOVERED, Action.RETRY)
        )
        await store.save_account(snapshot)
        await store.save_flood(FloodRow("a", "m", None, now, 35.0))
        await store.save_flood(FloodRow("a", "m", "user:1", now - 60, 35.0))
        await store.save_sign_in(SignIn("a", now - 100))
        await store.save_sign_in(SignIn("a", now - 90_000))
    async with Store.open(db, FAST, now=lambda: now) as store:
        saved = await store.saved()
    assert saved.accounts == {"a": snapshot}
    assert saved.incidents == [opened]
    assert saved.floods == [FloodRow("a", "m", None, now, 35.0)]
    assert saved.sign_ins == [SignIn("a", now - 100)]


async def test_outages_and_paths_are_read_back(db: Path) -> None:
    """A path's breaker and health come back as they were last, an outage with the accounts it touched."""
    outage = IncidentRow(
        "i-1",
        None,
        "de1",
        Scope.PATH,
        Kind.PROXY,
        NOW,
        failures=3,
        accounts=("a", "b", "c"),
        backoff={"proxy": 1},
    )
    broken = PathSnapshot(
        "de1", "broken", 3, "open", NOW, NOW + 10, 90, 5, 0.0625, "connection refused", NOW + 1, "i-1"
    )
    direct = PathSnapshot("direct", "unused", 0)
    async with Store.open(db, FAST) as store:
        store.incident(replace(outage, accounts=("a",)))
        for path in (PathSnapshot("de1", "ok", 3), direct, broken):
            store.path(path)
        store.incident(outage)
    saved = queries.saved(db, NOW)
    assert saved.incidents == [outage]
    assert saved.paths == {"de1": broken, "direct": direct}
    async with Store.open(db, FAST) as store:
        store.forget_path("de1")
    assert queries.saved(db, NOW).paths == {"direct": direct}


async def test_the_file_stops_growing(db: Path, make_row: MakeRow) -> None:
    """Days of failures come and go: with what is too old deleted, the file is as large after twelve days as after four."""
    days, rows, now = [NOW - (12 - day) * 86_400 for day in range(12)], 2_000, NOW
    sizes = []
    async with Store.open(db, StoreSettings(retention_days=2, batch_seconds=0.001), lambda: now) as store:
        for now in days:
            for number in range(rows):
                at = now - 43_200 + number * 43_200 / rows
                store.record(
                    make_row(at, f"bot{number % 10}", message=f"connection reset {number}", incident="i")
                )
            await store.save_account(account("a"))
            soon = 0.0
            while soon < 100:  # it comes back in an hour when there is nothing more
                store._trim_at = 0.0
                await store._trim()
                soon = store._trim_at - time.monotonic()
            with closing(sqlite3.connect(db)) as reader:
                reader.execute("PRAGMA wal_checkpoint(PASSIVE)")
            sizes.append(db.stat().st_size)
    assert sizes[-1] <= 1.1 * sizes[3]
    with closing(sqlite3.connect(db)) as reader:
        kept = reader.execute("SELECT count(*) FROM failures").fetchone()[0]
    assert 2 * rows <= kept <= 3 * rows
    assert sizes[-1] / kept < 600  # bytes; docs/state.md says 360 for a row, its counts come on top


async def test_every_states_retry_time_survives(db: Path, make_row: MakeRow) -> None:
    """Suspended, failed and needs_login come back with their incident, their limitation, their last failure and when to try."""
    accounts = {
        state.value: AccountSnapshot(
            state.value,
            state,
            NOW,
            "de1",
            user_id=7,
            is_bot=False,
            limited=Limited("PEER_FLOOD", frozen=True, since=NOW, seen_at=NOW + 1),
            retry_at=NOW + 600,
            incident=f"i-{state.value}",
            last_failure=make_row(account=state.value, incident=f"i-{state.value}"),
        )
        for state in (State.SUSPENDED, State.FAILED, State.NEEDS_LOGIN)
    }
    used = IncidentRow(
        "i-suspended", "suspended", "de1", Scope.ACCOUNT, Kind.AUTH, NOW, None, Result.SUSPENDED, Action.RELOGIN, 9,
        {"auth": 2, "connection": 3}, {"auth": 5},
    )  # fmt: skip
    async with Store.open(db, FAST) as store:
        for snapshot in accounts.values():
            await store.save_account(snapshot)
        store.incident(used)
    saved = queries.saved(db, NOW)
    assert (saved.accounts, saved.incidents) == (accounts, [used])


async def test_writing_does_not_stall_the_loop(db: Path, make_row: MakeRow) -> None:
    """While twenty thousand rows are written no turn of the event loop takes 0.1 s of its thread's own time."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.thread_time() - began)

    async with Store.open(db) as store:
        watcher = asyncio.create_task(watch())
        for number in range(20_000):
            store.record(make_row(account=f"bot{number % 100}", message="x" * 200))
            if number % 100 == 0:
                await asyncio.sleep(0)
        await store.save_account(account("a"))
        watcher.cancel()
    assert longest < (
        0.3 if "coverage" in sys.modules else 0.1
    )  # measured code takes about three times as long


async def test_old_rows_are_deleted_and_new_ones_kept(db: Path, make_row: MakeRow) -> None:
    """Rows and closed incidents older than retention_days go; newer ones, and open incidents, stay."""
    day, now = 86_400.0, 100 * 86_400.0
    async with Store.open(db, StoreSettings(retention_days=7, batch_seconds=0.01), now=lambda: now) as store:
        for number in range(1200):
            store.record(make_row(at=now - 8 * day + number))
        store.record(make_row(at=now - 6 * day))
        store.incident(IncidentRow("old", "a", "p", Scope.CALL, Kind.PROXY, 1.0, 2.0))
        store.incident(IncidentRow("open", "a", "p", Scope.CALL, Kind.PROXY, 1.0))
        await store.save_sign_in(SignIn("a", now - 8 * day))
        await until(db, "SELECT count(*) FROM failures", 1)
        await until(db, "SELECT group_concat(id) FROM incidents", "open")
        await until(db, "SELECT count(*) FROM sign_ins", 0)


async def test_a_run_tells_that_it_lives(db: Path) -> None:
    """The sign of life in the file is renewed although nothing happens."""
    async with Store.open(db, StoreSettings(heartbeat=0.05)):
        statement = "SELECT value FROM meta WHERE key = 'heartbeat_at'"
        ((first,),) = query(db, statement)
        await asyncio.sleep(0.3)
        assert query(db, statement) > [(first,)]


async def test_a_vanished_directory_stops_nobody(tmp_path: Path, make_row: MakeRow) -> None:
    """Even where the state directory itself is deleted, saves return and the store can be left."""
    folder = tmp_path / "state"
    folder.mkdir()
    async with Store.open(folder / "recovery.db", FAST) as store:
        shutil.rmtree(folder)
        store.record(make_row())
        await store.save_account(account("a"))
        folder.mkdir()
        await asyncio.sleep(0.3)
        assert query(folder / "recovery.db", "SELECT count(*) FROM failures") == [(1,)]


def _prepared(path: Path) -> sqlite3.Connection:
    prepare(path)
    return sqlite3.connect(path, isolation_level=None)


def query_write(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement)


async def test_many_who_save_at_once_share_transactions(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that starts saves thousands of times within seconds: no more often than every 20 ms."""
    transactions = 0
    write = Store._write

    async def counted(self: Store, batch: Any) -> None:
        nonlocal transactions
        transactions += 1
        await write(self, batch)

    monkeypatch.setattr(Store, "_write", counted)
    async with Store.open(db) as store:
        await asyncio.sleep(0.05)
        begun, transactions = time.monotonic(), 0

        async def save(number: int) -> None:
            for state in (State.STARTING, State.ONLINE):
                await asyncio.sleep(number * 0.005)
                await store.save_account(account(f"bot{number}", state))

        await asyncio.gather(*(save(number) for number in range(100)))
        took = time.monotonic() - begun
    assert transactions <= took / 0.02 + 2
    assert query(db, "SELECT count(*) FROM accounts") == [(100,)]
