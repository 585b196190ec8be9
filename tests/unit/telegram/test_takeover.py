"""Existing sessions are taken over as copies; the original is never touched."""

from __future__ import annotations

import base64
import os
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import SupervisorError
from supervisor.telegram.storage import (
    ImportedSession,
    Peer,
    SessionsDb,
    SessionUnreadable,
    UpdateRow,
    read_session_file,
    read_session_string,
)

KEY = bytes(range(256))
LONG_AGO = 1_700_000_000

PEERS = "CREATE TABLE peers (id INTEGER PRIMARY KEY, access_hash INTEGER, type INTEGER NOT NULL, "
SEEN = "phone_number TEXT, last_update_on INTEGER NOT NULL)"
USERNAMES = "CREATE TABLE usernames (id INTEGER, username TEXT)"
STATE = (
    "CREATE TABLE update_state (id INTEGER PRIMARY KEY, pts INTEGER, qts INTEGER, date INTEGER, seq INTEGER)"
)
SESSION_7 = "dc_id, server_address, port, api_id, test_mode, auth_key, date, user_id, is_bot"


def schema(version: int) -> list[str]:
    """The tables of one schema as its library creates them: 2 and 3 Pyrogram's, 4 to 7 Kurigram's."""
    columns = ["dc_id INTEGER PRIMARY KEY", "test_mode INTEGER", "auth_key BLOB", "date INTEGER NOT NULL"]
    columns += ["user_id INTEGER", "is_bot INTEGER"]
    columns += ["api_id INTEGER"] if version >= 3 else []
    columns += ["server_address TEXT", "port INTEGER"] if version >= 7 else []
    tables = [f"CREATE TABLE sessions ({', '.join(columns)})"]
    tables.append(PEERS + ("" if version >= 7 else "username TEXT, ") + SEEN)
    tables += [USERNAMES] if version >= 4 else []
    tables += [STATE] if version >= 5 else []
    return [
        *tables,
        "CREATE TABLE version (number INTEGER PRIMARY KEY)",
        f"INSERT INTO version VALUES ({version})",
    ]


def write(path: Path, version: int, **changes: Any) -> None:
    """A session file of that schema, with a peer and an update state where it has room for one."""
    row = {"dc_id": 4, "test_mode": 0, "auth_key": KEY, "date": LONG_AGO, "user_id": 77, "is_bot": 1}
    row |= {"api_id": 12345} if version >= 3 else {}
    row |= {"server_address": "198.51.100.7", "port": 8443} if version >= 7 else {}
    row |= changes
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in schema(version):
            connection.execute(statement)
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO sessions ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
        connection.execute(
            "INSERT INTO peers (id, access_hash, type, phone_number, last_update_on) VALUES (?, ?, ?, ?, ?)",
            (110, -5, "user", "4915112345678", LONG_AGO),
        )
        if version < 7:
            connection.execute("UPDATE peers SET username = 'joe'")
        if version >= 4:
            connection.executemany("INSERT INTO usernames VALUES (110, ?)", [("joe",), ("joseph",)])
        if version >= 5:
            connection.execute("INSERT INTO update_state VALUES (0, 10, 2, 1000, 7)")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "old" / "sales.session"


@pytest.fixture(autouse=True)
def _directory(file: Path) -> None:
    file.parent.mkdir()


# --- Files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6, 7])
def test_every_schema_is_read(file: Path, version: int) -> None:
    """Every schema of either library gives all that it holds, whichever library is installed."""
    write(file, version)
    assert read_session_file(file) == ImportedSession(
        dc_id=4,
        test_mode=False,
        auth_key=KEY,
        user_id=77,
        is_bot=True,
        api_id=12345 if version >= 3 else None,
        date=LONG_AGO,
        server_address="198.51.100.7" if version >= 7 else None,
        port=8443 if version >= 7 else None,
        peers={
            110: Peer(-5, "user", "4915112345678", LONG_AGO, ("joe", "joseph") if version >= 4 else ("joe",))
        },
        states=(UpdateRow(0, 10, 2, 1000, 7),) if version >= 5 else (),
    )


async def test_the_installed_librarys_own_file(file: Path) -> None:
    """A file that the installed library itself created and filled is read."""
    from pyrogram import storage

    theirs: Any = (getattr(storage, "FileStorage", None) or storage.SQLiteStorage)("sales", file.parent)
    await theirs.open()
    await theirs.dc_id(4)
    await theirs.test_mode(False)
    await theirs.auth_key(KEY)
    await theirs.user_id(77)
    await theirs.is_bot(False)
    await theirs.api_id(5)
    kurigram = hasattr(storage, "UpdateState")
    await theirs.update_peers([(110, -5, "user", None) if kurigram else (110, -5, "user", "joe", None)])
    if kurigram:
        await theirs.update_usernames([(110, ["joe"])])
    await theirs.save()
    await theirs.close()
    imported = read_session_file(file)
    assert (imported.dc_id, imported.auth_key, imported.user_id, imported.is_bot) == (4, KEY, 77, False)
    assert imported.peers[110][:3] == (-5, "user", None)
    assert imported.peers[110].names == ("joe",)


def test_the_original_is_untouched(file: Path) -> None:
    """Neither the file, nor its times, nor what lies beside it changes; a read-only file is enough."""
    write(file, 3)
    file.chmod(0o400)
    file.parent.chmod(0o500)
    before = (file.read_bytes(), file.stat().st_mtime_ns, sorted(file.parent.iterdir()))
    read_session_file(file)
    assert (file.read_bytes(), file.stat().st_mtime_ns, sorted(file.parent.iterdir())) == before
    file.parent.chmod(0o700)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_file_in_use_is_read_as_committed(file: Path, mode: str) -> None:
    """What another program committed is read, from its WAL too; its open transaction is not."""
    write(file, 3)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute(f"PRAGMA journal_mode = {mode}")
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("UPDATE sessions SET user_id = 78")
        other.execute("PRAGMA cache_size = 1")
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE sessions SET user_id = 79")
        for n in range(2000):  # spills into the file, beside its journal
            other.execute(
                "INSERT INTO peers (id, access_hash, type, last_update_on) VALUES (?, 1, 'user', 1)",
                (n + 500,),
            )
        imported = read_session_file(file)
        assert (imported.user_id, len(imported.peers)) == (78, 1)
        other.execute("ROLLBACK")


def test_the_copy_is_nobody_elses(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy lies in a directory of mode 0700, and is gone afterwards."""
    seen: list[Path] = []
    connect = sqlite3.connect

    def spy(path: Path, *arguments: Any) -> sqlite3.Connection:
        seen.append(path)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        return connect(path, *arguments)

    write(file, 3)
    monkeypatch.setattr("supervisor.telegram.storage.takeover.sqlite3.connect", spy)
    read_session_file(file)
    (copy,) = seen
    assert file.parent not in copy.parents
    assert not copy.parent.exists()


def test_odd_peers_are_left_out(file: Path) -> None:
    """Peers of an unknown kind or without an access hash are left out; the others are taken."""
    write(file, 3)
    with closing(sqlite3.connect(file)) as connection, connection:
        rows = [(1, 5, "planet"), (2, None, "user"), (3, 5, "channel")]
        connection.executemany(
            "INSERT INTO peers (id, access_hash, type, last_update_on) VALUES (?, ?, ?, 1)", rows
        )
    assert set(read_session_file(file).peers) == {110, 3}


def missing(file: Path) -> None:
    pass


def empty(file: Path) -> None:
    file.touch()


def not_sqlite(file: Path) -> None:
    file.write_bytes(b"api_id = 12345\n" * 100)


def short_text(file: Path) -> None:
    file.write_bytes(b"x")


def directory(file: Path) -> None:
    file.mkdir()


def cut_short(file: Path) -> None:
    write(file, 3)
    file.write_bytes(file.read_bytes()[:5000])


def header_only(file: Path) -> None:
    write(file, 3)
    file.write_bytes(file.read_bytes()[:50])


def scribbled(file: Path) -> None:
    write(file, 3)
    data = bytearray(file.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    file.write_bytes(data)


def no_tables(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE something (else_ INTEGER)")


def telethon(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        columns = (
            "dc_id INTEGER PRIMARY KEY, server_address TEXT, port INTEGER, auth_key BLOB, takeout_id INTEGER"
        )
        connection.execute(f"CREATE TABLE sessions ({columns})")


def no_row(file: Path) -> None:
    write(file, 3)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM sessions")


def changed(**changes: Any) -> Callable[[Path], None]:
    def harm(file: Path) -> None:
        write(file, 3, **changes)

    return harm


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (missing, "does not exist"),
        (empty, "is empty"),
        (not_sqlite, "is not an SQLite database"),
        (short_text, "is not an SQLite database"),
        (directory, "is a directory"),
        (cut_short, "damaged or cut short"),
        (header_only, "damaged or cut short"),
        (scribbled, "damaged or cut short"),
        (no_tables, "no table of sessions"),
        (telethon, "Telethon"),
        (no_row, "login NAME"),
        (changed(user_id=None), "login NAME"),
        (changed(is_bot=None), "login NAME"),
        (changed(auth_key=None), "login NAME"),
        (changed(auth_key=KEY[:255]), "key of 255 bytes instead of 256"),
        (changed(auth_key="text"), "key of no bytes instead of 256"),
        (changed(user_id="text"), "is damaged"),
        (changed(dc_id=0), "no datacenter"),
    ],
)
def test_what_cannot_be_read_is_told(file: Path, make: Callable[[Path], None], words: str) -> None:
    """Each way in which a file is no session is told by itself, with the file's path, and leaves it there."""
    make(file)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(SessionUnreadable, match=words) as caught:
        read_session_file(file)
    assert isinstance(caught.value, SupervisorError)
    assert str(caught.value).startswith(str(file))
    assert (file.read_bytes() if file.is_file() else None) == before


def test_a_file_that_never_rests(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes during each attempt to copy it is refused: a torn copy would be worse."""
    write(file, 3)
    copyfile = __import__("shutil").copyfile

    def while_written(source: Path, target: Path) -> None:
        copyfile(source, target)
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))

    monkeypatch.setattr("supervisor.telegram.storage.takeover.shutil.copyfile", while_written)
    with pytest.raises(SessionUnreadable, match="stop that program"):
        read_session_file(file)


def test_a_session_with_the_test_servers(file: Path) -> None:
    """test_mode is taken over; a file in which it was never set is a session with the real ones."""
    write(file, 3, test_mode=1)
    assert read_session_file(file).test_mode is True
    file.unlink()
    write(file, 3, test_mode=None)
    assert read_session_file(file).test_mode is False


# --- Strings -------------------------------------------------------------------------------------


def text(layout: str, *values: Any) -> str:
    return base64.urlsafe_b64encode(struct.pack(layout, *values)).decode().rstrip("=")


def test_the_three_formats() -> None:
    """All three formats that Pyrogram ever wrote are read; line breaks and padding do no harm."""
    new = text(">BI?256sQ?", 4, 12345, False, KEY, 2**40, True)
    old_64 = text(">B?256sQ?", 4, True, KEY, 2**40, False)
    old = text(">B?256sI?", 4, False, KEY, 77, True)
    assert (len(new), len(old_64), len(old)) == (362, 356, 351)
    assert read_session_string(new) == ImportedSession(4, False, KEY, 2**40, True, 12345)
    assert read_session_string(old_64) == ImportedSession(4, True, KEY, 2**40, False)
    assert read_session_string(old) == ImportedSession(4, False, KEY, 77, True)
    assert read_session_string(f" {new[:100]}\n{new[100:]}==\n") == read_session_string(new)


async def test_a_string_of_the_librarys_own() -> None:
    """A string that the installed library itself exports is read."""
    from pyrogram.storage import Storage

    class Theirs(Storage):
        pass

    values = {"dc_id": 4, "api_id": 5, "test_mode": False, "auth_key": KEY, "user_id": 77, "is_bot": False}

    def getter(value: Any) -> Callable[..., Any]:
        async def get(_self: Any) -> Any:
            return value

        return get

    for name, value in values.items():
        setattr(Theirs, name, getter(value))
    Theirs.__abstractmethods__ = frozenset()
    theirs: Any = Theirs.__new__(Theirs)
    imported = read_session_string(await theirs.export_session_string())
    assert imported == ImportedSession(4, False, KEY, 77, False, 5)


@given(st.text() | st.text("ABCxyz019-_=", min_size=345, max_size=365))
def test_any_other_text_is_refused(rubbish: str) -> None:
    """Whatever is pasted instead of a session string is refused with our own exception."""
    with suppress(SessionUnreadable):
        read_session_string(rubbish)
        assert len("".join(rubbish.split()).rstrip("=")) in {351, 356, 362}


def test_the_message_never_repeats_the_string() -> None:
    """A damaged string still holds most of a key: no part of it is in the message."""
    good = text(">BI?256sQ?", 4, 12345, False, KEY, 77, True)
    for damaged in (good[:-1], "!" + good[1:], "ä" + good[1:]):
        with pytest.raises(SessionUnreadable) as caught:
            read_session_string(damaged)
        chain = (caught.value, caught.value.__cause__)
        assert not any(damaged[i : i + 12] in str(error) for error in chain for i in range(0, 340, 6))


@pytest.mark.parametrize(
    "harm", [lambda good: good[:-1], lambda good: "!" + good[1:], lambda good: "ä" + good[1:]]
)
def test_a_damaged_string(harm: Callable[[str], str]) -> None:
    """A string that was cut or mistyped is refused with what to do."""
    good = text(">BI?256sQ?", 4, 12345, False, KEY, 77, True)
    with pytest.raises(SessionUnreadable, match="copy it whole"):
        read_session_string(harm(good))


def test_a_string_of_nobody() -> None:
    """A string with user 0 or datacenter 0 is refused."""
    for dc_id, user_id in ((0, 77), (4, 0)):
        with pytest.raises(SessionUnreadable, match="no datacenter or no user"):
            read_session_string(text(">BI?256sQ?", dc_id, 1, False, KEY, user_id, True))


# --- Taken over ----------------------------------------------------------------------------------


async def test_a_file_fills_an_empty_account(file: Path, tmp_path: Path) -> None:
    """`take_over` brings session, peers, usernames and update state into an empty account, and onto the disk."""
    write(file, 7)
    db = await SessionsDb.open(tmp_path / "sessions.db")
    storage = db.account("session:sales")
    await storage.open()
    assert await storage.take_over(read_session_file(file)) is True
    await db.close()
    db = await SessionsDb.open(tmp_path / "sessions.db")
    storage = db.account("session:sales")
    assert (await storage.auth_key(), await storage.user_id(), await storage.is_bot()) == (KEY, 77, True)
    assert (await storage.server_address(), await storage.port()) == ("198.51.100.7", 8443)
    assert await storage.peers() == read_session_file(file).peers
    assert await storage.update_states() == [UpdateRow(0, 10, 2, 1000, 7)]
    assert storage.epoch == 1
    await db.close()


async def test_a_session_of_ours_wins(tmp_path: Path) -> None:
    """An account that has a session keeps it: it is newer than any file. A retired one may be filled again."""
    db = await SessionsDb.open(tmp_path / "sessions.db")
    storage = db.account("session:sales")
    await storage.auth_key(KEY[::-1])
    await storage.user_id(77)
    imported = ImportedSession(4, False, KEY, 77, False)
    assert await storage.take_over(imported) is False
    assert await storage.auth_key() == KEY[::-1]
    await storage.retire("revoked")
    assert await storage.take_over(imported) is True
    assert await storage.auth_key() == KEY
    await db.close()


async def test_there_and_back(file: Path, tmp_path: Path) -> None:
    """A session given back as a file or a string is read as the same session."""
    write(file, 6)
    first = read_session_file(file)
    db = await SessionsDb.open(tmp_path / "sessions.db")
    storage = db.account("session:sales")
    await storage.take_over(first)
    await storage.export_session_file(tmp_path / "back.session")
    back = read_session_file(tmp_path / "back.session")
    names = {110: first.peers[110]._replace(names=("joe",))}  # Pyrogram's file has room for one
    assert (back.auth_key, back.user_id, back.api_id, back.peers) == (KEY, 77, 12345, names)
    again = read_session_string(await storage.export_session_string())
    assert (again.auth_key, again.user_id, again.dc_id, again.is_bot) == (KEY, 77, 4, True)
    await db.close()
