from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.failure import Kind, Result, Row, Scope, State
from supervisor.errors import ConfigError
from supervisor.ports import AccountSnapshot, IncidentRow, Saved
from supervisor.record import queries
from supervisor.record.files import prepare
from supervisor.record.migrations import MIGRATIONS, SCHEMA, migrate
from supervisor.record.queries import LogFilter, RecordUnreadable
from supervisor.record.store import Store, StoreSettings
from tests.unit.record.conftest import NOW, MakeRow


@pytest.fixture
async def filled(db: Path, make_row: MakeRow) -> Path:
    async with Store.open(db) as store:
        for number in range(6):
            store.record(
                make_row(at=NOW + number, account=("support-1", "sales")[number % 2], incident=f"i-{number}")
            )
        store.record(make_row(at=NOW + 6, account="support-2", kind=Kind.PROXY, incident="i-6"))
        store.record(
            make_row(at=NOW + 7, account="support-2", outcome=Result.RECOVERED, incident="i-6", duration=1.0)
        )
        store.record(make_row(at=NOW + 8, account=None, outcome=Result.RAISED))
    return db


def ids(path: Path, wanted: LogFilter, limit: int = 100) -> list[int]:
    with queries.opened(path) as db:
        assert db is not None
        return [found.id for found in queries.log_rows(db, wanted, limit)]


def test_the_newest_rows_come_last(filled: Path) -> None:
    """A limit takes the newest rows, and shows them oldest first."""
    assert ids(filled, LogFilter(), 3) == [7, 8, 9]


def test_rows_are_found_by_account_pattern_kind_and_time(filled: Path) -> None:
    """Each filter narrows what the others leave."""
    assert ids(filled, LogFilter(account="sales")) == [2, 4, 6]
    assert ids(filled, LogFilter(account="support-*")) == [1, 3, 5, 7, 8]
    assert ids(filled, LogFilter(account="support-*", kind=Kind.PROXY)) == [7]
    assert ids(filled, LogFilter(since=NOW + 4)) == [5, 6, 7, 8, 9]
    assert ids(filled, LogFilter(account="s' OR 1=1 --")) == []


def test_a_patterns_rows_are_found_however_old_they_are(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the log's newest rows have too few of them, each account that the pattern stands for is looked through."""
    monkeypatch.setattr(queries, "_NEWEST", 0)
    assert ids(filled, LogFilter(account="support-*")) == [1, 3, 5, 7, 8]
    assert ids(filled, LogFilter(account="support-*"), 2) == [7, 8]
    assert ids(filled, LogFilter(account="s*", since=NOW + 2), 3) == [6, 7, 8]
    assert ids(filled, LogFilter(account="*-1", unresolved=True)) == [1, 3, 5]
    assert ids(filled, LogFilter(account="nobody*")) == []


@pytest.fixture
async def outages(db: Path, make_row: MakeRow) -> Path:
    """Rows 1, 4 and 7 are sales' own; 2 and 5 are of an outage that touched sales, 3 and 6 of one that did not."""

    def outage(number: float, incident: str, outcome: Result = Result.RETRYING) -> Row:
        row = make_row(at=NOW + number, account=None, kind=Kind.PROXY, incident=incident, outcome=outcome)
        return replace(row, scope=Scope.PATH, path="de1")

    async with Store.open(db) as store:
        for number, incident in enumerate(("i-1", "de1-1", "de1-2", "i-2")):
            own = make_row(at=NOW + number, account="sales", incident=incident)
            store.record(outage(number, incident) if incident.startswith("de1") else own)
        store.record(outage(4, "de1-1", Result.RECOVERED))
        store.record(outage(5, "de1-2"))
        store.record(make_row(at=NOW + 6, account="sales", outcome=Result.RAISED))
        for name, closed, touched in (("1", NOW + 4, ("support-1", "sales")), ("2", None, ("sales-2", "s"))):
            store.incident(
                IncidentRow(f"de1-{name}", None, "de1", Scope.PATH, Kind.PROXY, NOW, closed, accounts=touched)
            )
    return db


@pytest.mark.parametrize(
    ("wanted", "limit", "expected"),
    [
        (LogFilter(account="sales"), 100, [1, 2, 4, 5, 7]),
        (LogFilter(account="sales"), 3, [4, 5, 7]),
        (LogFilter(account="sales*"), 100, [1, 2, 3, 4, 5, 6, 7]),
        (LogFilter(account="support-?"), 100, [2, 5]),
        (LogFilter(account="*s"), 100, [1, 2, 3, 4, 5, 6, 7]),
        (LogFilter(account="sale"), 100, []),
        (LogFilter(account="sale?2"), 100, []),
        (LogFilter(account="sales", kind=Kind.PROXY), 100, [2, 5]),
        (LogFilter(account="sales", since=NOW + 3.5), 100, [5, 7]),
        (LogFilter(account="sales", since=NOW + 4.5), 100, [7]),
        (LogFilter(account="sales", unresolved=True), 100, [1, 4, 7]),
        (LogFilter(account="sales-2", unresolved=True), 100, [3, 6]),
        (LogFilter(account="sales", after_id=1), 2, [2, 4]),
        (LogFilter(account="sales", after_id=2), -1, [4, 5, 7]),
        (LogFilter(account="support-*", after_id=0), -1, [2, 5]),
    ],
)  # fmt: skip
def test_outages_are_among_the_rows_of_those_they_touched(
    outages: Path, wanted: LogFilter, limit: int, expected: list[int]
) -> None:
    """What a path's trouble did is found under each account's name that was on it, whatever else is asked for."""
    assert ids(outages, wanted, limit) == expected


def test_an_outages_rows_tell_whom_it_touched(outages: Path) -> None:
    """The names go with each of its rows, and with no others."""
    with queries.opened(outages) as db:
        assert db is not None
        told = [row.json().get("accounts") for row in queries.log_rows(db, LogFilter())]
    first, second = ["support-1", "sales"], ["sales-2", "s"]
    assert told == [None, first, second, None, first, second, None]


def test_a_file_that_no_newer_release_has_touched_can_be_read(outages: Path) -> None:
    """An older release's log is shown before the first start of this one: it knows of no outages and no paths."""
    with closing(sqlite3.connect(outages)) as old:
        old.executescript(
            "DROP INDEX incidents_outage; ALTER TABLE incidents DROP COLUMN accounts; DROP TABLE paths;"
            "PRAGMA user_version = 3"
        )
    assert ids(outages, LogFilter(account="sales")) == [1, 4, 7]
    assert ids(outages, LogFilter()) == [1, 2, 3, 4, 5, 6, 7]
    with queries.opened(outages) as db:
        assert db is not None
        assert queries.paths(db) == []


def test_rows_can_be_followed(filled: Path) -> None:
    """`after_id` gives the next rows, oldest first, also where more than the limit have come."""
    assert ids(filled, LogFilter(after_id=6), 2) == [7, 8]
    with queries.opened(filled) as db:
        assert db is not None
        assert queries.newest_id(db) == 9


def test_unresolved_rows_are_those_that_nobody_dealt_with(filled: Path) -> None:
    """A recovered incident's rows and those that a person marked are left out; the rest stays."""
    assert ids(filled, LogFilter(unresolved=True)) == [1, 2, 3, 4, 5, 6, 9]
    assert queries.resolve(filled, 9, 5.0)
    assert queries.resolve(filled, 9, 6.0)
    assert not queries.resolve(filled, 99, 5.0)
    assert ids(filled, LogFilter(unresolved=True)) == [1, 2, 3, 4, 5, 6]


async def test_resolving_works_beside_a_running_daemon(db: Path, make_row: MakeRow) -> None:
    """A row is marked while the daemon writes, and neither of the two fails."""
    async with Store.open(db, StoreSettings(batch_seconds=0.001)) as store:
        for number in range(100):
            store.record(make_row())
            await store.save_account(AccountSnapshot("a", State.ONLINE, float(number), "direct"))
            assert queries.resolve(db, number + 1, 5.0)
    assert ids(db, LogFilter(unresolved=True)) == []


async def test_accounts_come_with_their_failures_number(db: Path, make_row: MakeRow) -> None:
    """The last run's snapshot tells under which number `log` shows its last failure."""
    failure = make_row(at=NOW + 1)
    async with Store.open(db) as store:
        store.record(make_row(at=NOW))
        store.record(failure)
        await store.save_account(
            AccountSnapshot("support-bot", State.FAILED, 1.0, "de1", last_failure=failure)
        )
        await store.save_account(AccountSnapshot("other", State.ONLINE, 1.0, "direct"))
    with queries.opened(db) as reader:
        assert reader is not None
        other, support = queries.accounts(reader)
    assert (other.snapshot.name, other.failure_id) == ("other", None)
    assert (support.failure_id, support.snapshot.last_failure) == (2, failure)


def test_without_a_file_there_is_nothing(db: Path) -> None:
    """Before the first run reading gives nothing and creates nothing."""
    with queries.opened(db) as reader:
        assert reader is None
    assert queries.saved(db, NOW) == Saved()
    assert not queries.resolve(db, 1, NOW)
    assert not db.exists()


def test_readers_cannot_write(filled: Path) -> None:
    """A reading connection refuses to change the file."""
    with pytest.raises(RecordUnreadable, match="readonly"), queries.opened(filled) as db:
        assert db is not None
        db.execute("DELETE FROM failures")


def test_a_damaged_file_is_said_in_one_sentence(db: Path) -> None:
    """What is no database is reported with its path, not as an sqlite3 exception."""
    db.write_bytes(b"no database" * 1000)
    with pytest.raises(RecordUnreadable, match=r"recovery\.db: file is not a database"), queries.opened(db):
        pass


def test_a_newer_file_is_refused(filled: Path) -> None:
    """Readers, too, refuse a file whose tables they do not know."""
    with closing(sqlite3.connect(filled)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(ConfigError, match="newer"), queries.opened(filled):
        pass


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    """A question mark, a hash or a percent sign in the path does not end the file's name."""
    folder = tmp_path / "a?b#c%20d"
    folder.mkdir()
    prepare(folder / "recovery.db")
    with queries.opened(folder / "recovery.db") as db:
        assert db is not None
        assert queries.newest_id(db) == 0


def test_a_migration_counts_as_a_whole_or_not_at_all(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that fails half-way leaves neither its tables nor its number; those before it stay."""
    monkeypatch.setattr("supervisor.record.migrations.SCHEMA", len(MIGRATIONS) + 1)
    monkeypatch.setattr(
        "supervisor.record.migrations.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE half (x); SELECT nonsense;")
    )
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="nonsense"):
            migrate(connection, "recovery.db")
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchone() is None
        assert not connection.in_transaction


def test_migrating_twice_changes_nothing(filled: Path) -> None:
    """A file that is up to date keeps its rows."""
    prepare(filled)
    assert len(ids(filled, LogFilter())) == 9


def test_reading_imports_no_event_loop() -> None:
    """Importing the reading side loads neither asyncio nor a client library."""
    check = "import sys, supervisor.record.queries; print(*({'asyncio', 'aiosqlite', 'pyrogram'} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=root
    )
    assert found.stdout.strip() == ""


async def test_counts_of_merged_rows_come_back(db: Path, make_row: MakeRow) -> None:
    """A merged row is read back with its count."""
    async with Store.open(db) as store:
        store.record(replace(make_row(), count=7))
    with queries.opened(db) as reader:
        assert reader is not None
        assert [found.row.count for found in queries.log_rows(reader, LogFilter())] == [7]
