"""Sessions and peers: in memory for the loop, in one file for the next start."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.errors import AlreadyRunning, SupervisorError
from supervisor.telegram.storage import (
    AccountStorage,
    ImportedSession,
    SessionInUse,
    SessionsDb,
    SessionUnreadable,
    StorageBroken,
    UpdateRow,
)
from supervisor.telegram.storage import writer as writer_module
from supervisor.telegram.storage.account import USERNAME_TTL
from supervisor.telegram.storage.known import PEER_FRESH
from supervisor.telegram.storage.rows import key_id

KEY = bytes(range(256))
OTHER_KEY = bytes(reversed(range(256)))
USER = (110, 9_000_000_000_000_000_001, "user", "joe", "4915112345678")
CHANNEL = (-1001234567890, -77, "channel", "news", None)


class Wall:
    """A clock for people that stands still until it is told."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sessions.db"


@pytest.fixture
async def db(path: Path, wall: Wall) -> AsyncIterator[SessionsDb]:
    db = await SessionsDb.open(path, now=wall)
    yield db
    await db.close()


async def sign_in(storage: AccountStorage, key: bytes = KEY, user_id: int = 110201543) -> None:
    """The calls that both libraries make."""
    await storage.api_id(12345)
    await storage.dc_id(4)
    await storage.test_mode(False)
    await storage.auth_key(key)
    await storage.user_id(user_id)
    await storage.is_bot(True)


def disk(path: Path, query: str) -> list[tuple[Any, ...]]:
    """What another program sees of the file, now."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


# --- The libraries' interface --------------------------------------------------------------------


async def test_it_is_the_librarys_storage(db: SessionsDb) -> None:
    """The installed library accepts it as its own: a subclass with no abstract method left."""
    from pyrogram.storage import Storage

    storage = db.account("bot:1")
    assert isinstance(storage, Storage)
    wanted = [name for name, value in vars(Storage).items() if callable(value) and name[0] != "_"]
    assert all(getattr(type(storage), name) is not getattr(Storage, name) for name in wanted)


async def test_a_new_account_is_empty(db: SessionsDb) -> None:
    """A new account looks like a new session of the library's: datacenter 2, nobody signed in."""
    storage = db.account("bot:1")
    await storage.open()
    assert await storage.dc_id() == 2
    assert [await getter() for getter in (storage.auth_key, storage.user_id, storage.is_bot)] == [None] * 3
    assert (await storage.test_mode(), await storage.api_id(), await storage.date()) == (None, None, 0)
    assert (await storage.server_address(), await storage.port()) == ("149.154.167.51", 443)


async def test_the_session_survives_a_restart(path: Path) -> None:
    """Everything that was set is there after closing and opening again, booleans as booleans."""
    db = await SessionsDb.open(path)
    storage = db.account("bot:1")
    await sign_in(storage)
    await storage.server_address("198.51.100.7")
    await storage.port(8443)
    storage.server_salt, storage.time_offset = -(2**63), -1.5
    before = storage.session
    await db.close()
    db = await SessionsDb.open(path)
    assert db.account("bot:1").session == before
    assert await db.account("bot:1").is_bot() is True
    assert await db.account("bot:1").test_mode() is False
    assert (db.account("bot:1").server_salt, db.account("bot:1").time_offset) == (-(2**63), -1.5)
    assert db.account("bot:1").epoch == 1
    await db.close()


async def test_none_is_a_value(db: SessionsDb) -> None:
    """`user_id(None)` signs out, as load_session of both libraries does; only no argument reads."""
    storage = db.account("bot:1")
    await sign_in(storage)
    await storage.user_id(None)
    assert await storage.user_id() is None


async def test_a_datacenter_brings_its_own_server(db: SessionsDb) -> None:
    """A server that was stored for one datacenter is not used for another (Pyrogram sets only dc_id)."""
    storage = db.account("bot:1")
    await storage.server_address("198.51.100.7")
    await storage.port(8443)
    await storage.dc_id(4)
    assert (await storage.server_address(), await storage.port()) == ("149.154.167.91", 443)
    await storage.test_mode(True)
    await storage.dc_id(1)
    assert (await storage.server_address(), await storage.port()) == ("149.154.175.10", 80)


async def test_save_dates_the_session(db: SessionsDb, wall: Wall) -> None:
    """`save` sets the date."""
    storage = db.account("bot:1")
    await storage.save()
    assert await storage.date() == int(wall.time)


# --- Peers ---------------------------------------------------------------------------------------


async def test_peers_of_pyrogram(db: SessionsDb) -> None:
    """Pyrogram's five columns are found by id, username and phone."""
    from pyrogram import raw

    storage = db.account("bot:1")
    await storage.update_peers([USER, CHANNEL, (-55, 0, "group", None, None)])
    user = raw.types.InputPeerUser(user_id=110, access_hash=USER[1])
    assert await storage.get_peer_by_id(110) == user
    assert await storage.get_peer_by_username("joe") == user
    assert await storage.get_peer_by_phone_number("4915112345678") == user
    channel = raw.types.InputPeerChannel(channel_id=1234567890, access_hash=-77)
    assert await storage.get_peer_by_username("news") == channel
    assert await storage.get_peer_by_id(-55) == raw.types.InputPeerChat(chat_id=55)


async def test_peers_of_kurigram(db: SessionsDb) -> None:
    """Kurigram's four columns and separate usernames are found too; new peers keep their usernames."""
    storage = db.account("bot:1")
    await storage.update_peers([(110, 5, "user", "4915112345678")])
    await storage.update_usernames([(110, ["joe", None, "joseph"]), (999, ["nobody"])])
    await storage.update_peers([(110, 6, "user", None)])
    for name in ("joe", "joseph"):
        assert (await storage.get_peer_by_username(name)).access_hash == 6
    for missing in (
        storage.get_peer_by_username("nobody"),
        storage.get_peer_by_phone_number("4915112345678"),
    ):
        with pytest.raises(KeyError):
            await missing


@pytest.mark.parametrize(
    "kind", ["user", "bot", "group", "channel", "supergroup", "direct", "forum", "community"]
)
async def test_every_kind_under_either_library(db: SessionsDb, kind: str) -> None:
    """A kind of peer that only Kurigram stores is understood under Pyrogram too."""
    storage = db.account("bot:1")
    await storage.update_peers([(-1001234567890, 5, kind, None)])
    assert "InputPeer" in type(await storage.get_peer_by_id(-1001234567890)).__name__


async def test_what_is_unknown_is_a_key_error(db: SessionsDb) -> None:
    """Getters raise KeyError, as resolve_peer of both libraries expects; a phone number stays unsaid."""
    storage = db.account("bot:1")
    await storage.update_peers([(1, 5, "planet", None)])
    for peer_id in (1, 2):
        with pytest.raises(KeyError):
            await storage.get_peer_by_id(peer_id)
    with pytest.raises(KeyError):
        await storage.get_peer_by_username("joe")
    with pytest.raises(KeyError) as caught:
        await storage.get_peer_by_phone_number("4915112345678")
    assert "4915" not in str(caught.value)


async def test_usernames_expire(db: SessionsDb, wall: Wall) -> None:
    """A username counts for 8 hours after the peer was last seen, an id for ever."""
    storage = db.account("bot:1")
    await storage.update_peers([USER])
    wall.time += USERNAME_TTL
    await storage.get_peer_by_username("joe")
    wall.time += 1
    with pytest.raises(KeyError, match="expired"):
        await storage.get_peer_by_username("joe")
    await storage.get_peer_by_id(110)
    await storage.update_peers([USER])
    await storage.get_peer_by_username("joe")


async def test_a_username_that_changed_hands(path: Path, db: SessionsDb) -> None:
    """A username belongs to the peer last seen with it, after a restart too, and can come back."""
    storage = db.account("bot:1")
    await storage.update_peers([(1, 5, "user", "joe", None), (2, 6, "user", "joe", None)])
    assert (await storage.get_peer_by_username("joe")).user_id == 2
    await storage.unload()
    assert (await storage.get_peer_by_username("joe")).user_id == 2
    for holder in (1, 2, 1):  # in one tick
        await storage.update_peers([(holder, 4 + holder, "user", "joe", None)])
        assert (await storage.get_peer_by_username("joe")).user_id == holder
    await db.flush()
    assert disk(path, "SELECT username, peer FROM usernames") == [("joe", 1)]


async def test_a_dropped_username_is_gone(db: SessionsDb) -> None:
    """A peer that gave its username up is not found by it, after a restart too."""
    storage = db.account("bot:1")
    await storage.update_peers([USER])
    await storage.update_peers([(110, 5, "user", None, None)])
    for _ in range(2):
        with pytest.raises(KeyError):
            await storage.get_peer_by_username("joe")
        await storage.unload()


async def test_an_access_hash_left_out_keeps_the_known_one(db: SessionsDb) -> None:
    """Telegram may leave the access hash out; the one known is kept, and no row is unwritable."""
    storage = db.account("bot:1")
    await storage.update_peers([USER, (111, None, "user", None, None)])
    await storage.update_peers([(110, None, "user", "joe", None)])
    await storage.unload()
    assert (await storage.get_peer_by_id(110)).access_hash == USER[1]
    assert (await storage.get_peer_by_id(111)).access_hash == 0


async def test_a_peer_seen_again_is_not_written_again(db: SessionsDb, wall: Wall) -> None:
    """A busy chat costs no writing: the same peer is written once per `PEER_FRESH`."""
    storage = db.account("bot:1")
    await storage.update_peers([USER])
    queued = db.writer._queued
    wall.time += PEER_FRESH - 1
    await storage.update_peers([USER])
    assert db.writer._queued == queued
    wall.time += 1
    await storage.update_peers([USER])
    assert db.writer._queued > queued


def in_memory(storage: AccountStorage) -> int:
    return 0 if storage._known is None else len(storage._known.peers)


async def test_peers_are_read_when_first_needed(path: Path) -> None:
    """After a start no peer is in memory until one is asked for; `unload` gives the memory back."""
    db = await SessionsDb.open(path)
    await db.account("bot:1").update_peers([USER])
    await db.close()
    db = await SessionsDb.open(path)
    storage = db.account("bot:1")
    await storage.open()
    assert in_memory(storage) == 0
    await asyncio.gather(storage.get_peer_by_id(110), storage.get_peer_by_username("joe"), storage.peers())
    assert in_memory(storage) == 1
    await storage.unload()
    assert in_memory(storage) == 0
    await db.close()


async def test_unload_waits_for_what_comes_meanwhile(db: SessionsDb) -> None:
    """A peer that arrives while `unload` writes is neither lost from memory nor from disk."""
    storage = db.account("bot:1")
    await storage.update_peers([CHANNEL])
    unloading = asyncio.ensure_future(storage.unload())
    await asyncio.sleep(0)
    await storage.update_peers([USER])
    await unloading
    await storage.get_peer_by_id(110)


peer_rows = st.tuples(
    st.integers(1, 5),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(["user", "bot"]),
    st.booleans(),
    st.booleans(),
)


@given(batches=st.lists(st.one_of(st.lists(peer_rows, max_size=4), st.just("restart")), max_size=8))
@settings(max_examples=40)
async def test_it_answers_as_the_librarys_own(
    batches: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is noted, in whatever order, restarts between: each getter answers as the library's storage."""
    theirs = library_memory_storage()
    await theirs.open()
    db = await SessionsDb.open(tmp_path_factory.mktemp("state") / "sessions.db")
    ours = db.account("bot:1")
    for batch in batches:
        if batch == "restart":
            await ours.unload()
            continue
        for storage in (theirs, ours):
            await note(storage, batch)
    for i in range(1, 6):
        for getter, argument in (
            ("get_peer_by_id", i),
            ("get_peer_by_username", f"name{i}"),
            ("get_peer_by_phone_number", f"49{i}"),
        ):
            assert await answer(ours, getter, argument) == await answer(theirs, getter, argument)
    await theirs.close()
    await db.close()


async def note(storage: Any, batch: list[Any]) -> None:
    """Note peers as the installed library's fetch_peers does."""
    rows = [(i, h, kind, f"name{i}" if n else None, f"49{i}" if p else None) for i, h, kind, n, p in batch]
    if not hasattr(_storage_module(), "UpdateState"):
        await storage.update_peers(rows)
        return
    await storage.update_peers([(row[0], row[1], row[2], row[4]) for row in rows])
    if names := {row[0]: [row[3]] for row in rows if row[3]}:
        await storage.update_usernames(list(names.items()))


async def answer(storage: Any, getter: str, argument: Any) -> Any:
    try:
        return await getattr(storage, getter)(argument)
    except KeyError:
        return KeyError


def _storage_module() -> Any:
    from pyrogram import storage

    return storage


def library_memory_storage(session_string: str | None = None) -> Any:
    """The installed library's own storage, in memory."""
    module = _storage_module()
    if hasattr(module, "MemoryStorage"):
        return module.MemoryStorage("theirs", session_string)
    return module.SQLiteStorage("theirs", Path(), session_string=session_string, in_memory=True)


# --- Update state --------------------------------------------------------------------------------


async def test_update_state_is_kept(db: SessionsDb) -> None:
    """Update state is kept for the account and its channels; what is None stays as it was."""
    storage = db.account("bot:1")
    await storage.put_update_state(UpdateRow(0, 10, 3, 1000, 7))
    await storage.put_update_state(UpdateRow(0, 11))
    await storage.put_update_state(UpdateRow(-1001, 5))
    await storage.put_update_state(UpdateRow(-1002, 6))
    await storage.drop_update_state(-1002)
    await storage.unload()
    assert await storage.update_state() == UpdateRow(0, 11, 3, 1000, 7)
    assert sorted(await storage.update_states()) == [UpdateRow(-1001, 5), UpdateRow(0, 11, 3, 1000, 7)]


async def test_the_librarys_update_state_is_ours(db: SessionsDb) -> None:
    """Kurigram's three methods work on the same rows, with its own UpdateState, oldest first."""
    state_type = getattr(_storage_module(), "UpdateState", UpdateRow)
    storage = db.account("bot:1")
    await storage.set_update_state(state_type(0, 10, None, 1000, 7))
    await storage.set_update_state([state_type(-1001, 5, None, None, None), state_type(-1002, 6, None, 5, 0)])
    states = await storage.get_update_states()
    assert [state.id for state in states] == [-1001, -1002, 0]
    assert all(isinstance(state, state_type) for state in states)
    assert [state.id for state in await storage.get_update_states(0)] == [0]
    assert [state.id for state in await storage.get_update_states([0, -1001])] == [-1001, 0]
    assert await storage.get_update_states([]) == []
    await storage.delete_update_state(-1001)
    await storage.delete_update_state([-1002, 5])
    assert await storage.update_states() == [UpdateRow(0, 10, None, 1000, 7)]


# --- Keys are never deleted ----------------------------------------------------------------------


async def test_a_retired_session_is_kept_aside(db: SessionsDb, wall: Wall) -> None:
    """`retire` leaves an empty account that knows its peers, and the old key stands aside, dated."""
    storage = db.account("bot:1")
    await storage.open()
    await sign_in(storage)
    await storage.update_peers([USER])
    await storage.put_update_state(UpdateRow(0, 10))
    await storage.retire("AUTH_KEY_UNREGISTERED")
    assert (await storage.auth_key(), await storage.user_id(), await storage.is_bot()) == (None, None, None)
    assert (await storage.dc_id(), await storage.api_id(), storage.server_salt) == (4, 12345, None)
    assert (await storage.get_peer_by_id(110)).access_hash == USER[1]
    assert await storage.update_state() == UpdateRow(0, 10)
    (old,) = await db.old_sessions("bot:1")
    assert (old.reason, old.retired_at) == ("AUTH_KEY_UNREGISTERED", wall.time)
    assert (old.session.auth_key, old.session.user_id, old.session.dc_id) == (KEY, 110201543, 4)


async def test_retiring_an_empty_account_keeps_nothing(db: SessionsDb) -> None:
    """There is nothing to keep of an account without a key."""
    await db.account("bot:1").retire("nothing")
    assert await db.old_sessions("bot:1") == []


async def test_log_out_deletes_no_key(db: SessionsDb) -> None:
    """`delete`, which the libraries call after logging out, keeps the key aside."""
    storage = db.account("bot:1")
    await sign_in(storage)
    await storage.close()
    await storage.delete()
    assert [old.session.auth_key for old in await db.old_sessions("bot:1")] == [KEY]


async def test_a_key_that_the_library_replaces_is_kept_aside(db: SessionsDb) -> None:
    """load_session's way of starting anew (dc_id, key, no user) keeps the old key, with its own datacenter, once."""
    storage = db.account("bot:1")
    await sign_in(storage)
    await storage.dc_id(2)
    await storage.auth_key(OTHER_KEY)
    await storage.user_id(None)
    (old,) = await db.old_sessions("bot:1")
    assert (old.session.auth_key, old.session.dc_id) == (KEY, 4)
    assert storage.epoch == 2


async def test_signing_out_keeps_the_key_aside(db: SessionsDb) -> None:
    """A user_id that goes before its key does not open a way to lose the key."""
    storage = db.account("bot:1")
    await sign_in(storage)
    await storage.user_id(None)
    await storage.auth_key(None)
    assert [old.session.user_id for old in await db.old_sessions("bot:1")] == [110201543]


async def test_each_user_of_one_key_is_kept_aside(db: SessionsDb) -> None:
    """Somebody else who signs in with the same key does not take the place of the first."""
    storage = db.account("session:a")
    await sign_in(storage, user_id=1)
    await storage.user_id(None)
    await storage.user_id(2)
    await storage.retire("test")
    assert [old.session.user_id for old in await db.old_sessions("session:a")] == [1, 2]


async def test_a_migration_while_signing_in_leaves_no_rubbish(db: SessionsDb) -> None:
    """A key with which nobody ever signed in is not kept aside when sign-in moves to another datacenter."""
    storage = db.account("bot:1")
    await storage.auth_key(OTHER_KEY)
    await storage.dc_id(4)
    await storage.auth_key(KEY)
    assert await db.old_sessions("bot:1") == []


async def test_another_users_peers_are_forgotten(db: SessionsDb) -> None:
    """Access hashes hold for one user: who signs in as somebody else starts without peers and state."""
    storage = db.account("session:a")
    await sign_in(storage)
    await storage.update_peers([USER])
    await storage.put_update_state(UpdateRow(0, 10))
    await storage.retire("moved")
    await sign_in(storage, OTHER_KEY, user_id=222)
    for _ in range(2):
        assert (await storage.peers(), await storage.update_states()) == ({}, [])
        await storage.unload()


# --- One session, one use ------------------------------------------------------------------------


async def test_keys_for_other_datacenters_belong_to_the_accounts_own(path: Path) -> None:
    """Kept over a restart, by datacenter and kind; with another key of the account's they are good for nothing."""
    db = await SessionsDb.open(path)
    storage = db.account("bot:1")
    await storage.auth_key(b"\1" * 256)
    assert await storage.foreign_key(4, media=True) is None
    storage.keep_foreign_key(4, b"\4" * 256, media=True)
    storage.keep_foreign_key(4, b"\5" * 256, media=True)
    db.account("bot:2").keep_foreign_key(4, b"\6" * 256, media=True)
    await db.close()
    db = await SessionsDb.open(path)
    storage = db.account("bot:1")
    assert await storage.foreign_key(4, media=True) == b"\5" * 256
    assert await storage.foreign_key(4, media=False) is None
    assert await storage.foreign_key(5, media=True) is None
    await storage.auth_key(b"\2" * 256)
    assert await storage.foreign_key(4, media=True) is None
    await db.close()


async def test_a_file_from_before_there_were_such_keys_takes_them(path: Path) -> None:
    """Its table is added when the file is opened; what it holds stays."""
    db = await SessionsDb.open(path)
    await db.account("bot:1").auth_key(b"\1" * 256)
    await db.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE foreign_keys")
    db = await SessionsDb.open(path)
    storage = db.account("bot:1")
    storage.keep_foreign_key(4, b"\4" * 256, media=True)
    await storage.persist()
    assert await storage.foreign_key(4, media=True) == b"\4" * 256
    assert await storage.auth_key() == b"\1" * 256
    await db.close()


async def test_two_accounts_with_one_key_are_refused(db: SessionsDb) -> None:
    """A key that an open account uses is refused to another: at open, when set, when taken over."""
    first, second, third = (db.account(f"session:{name}") for name in "abc")
    await sign_in(first)
    await sign_in(second)
    await first.open()
    with pytest.raises(SessionInUse, match=r"session:b has the same session as session:a"):
        await second.open()
    await third.open()
    with pytest.raises(SessionInUse):
        await third.auth_key(KEY)
    with pytest.raises(SessionInUse):
        await third.take_over(ImportedSession(4, False, KEY, 1, True))
    assert await third.auth_key() is None
    await first.close()
    await second.open()


async def test_a_new_key_frees_the_old_one(db: SessionsDb) -> None:
    """An open account that gets a new key uses that one and no longer the old one."""
    first, second = db.account("session:a"), db.account("session:b")
    await first.open()
    await first.open()
    await sign_in(first)
    await first.auth_key(OTHER_KEY)
    await second.auth_key(KEY)
    await second.open()
    third = db.account("session:c")
    await third.auth_key(OTHER_KEY)
    with pytest.raises(SessionInUse):
        await third.open()
    assert key_id(KEY) != key_id(OTHER_KEY)


async def test_a_second_process_is_refused(path: Path, db: SessionsDb) -> None:
    """The file is opened once at a time; the refusal names the holder's process, and closing lets go."""
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        await SessionsDb.open(path)
    await db.close()
    again = await SessionsDb.open(path)
    await again.close()


# --- On disk -------------------------------------------------------------------------------------


@pytest.fixture
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_open_umask")
async def test_only_the_owner_reads_the_file(path: Path) -> None:
    """Whatever the umask, database, lock and what SQLite adds are of mode 0600, the new directory 0700."""
    db = await SessionsDb.open(path)
    await sign_in(db.account("bot:1"))
    await db.flush()
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    await db.close()


async def test_persist_means_on_disk(path: Path, db: SessionsDb) -> None:
    """After `persist` another program finds the key in the file."""
    storage = db.account("bot:1")
    await sign_in(storage)
    await storage.persist()
    assert disk(path, "SELECT identity, auth_key, user_id FROM accounts") == [("bot:1", KEY, 110201543)]


async def test_changes_reach_the_disk_by_themselves(path: Path, db: SessionsDb) -> None:
    """Nobody has to call anything: peers are written with the next tick, a key at once."""
    storage = db.account("bot:1")
    await storage.update_peers([USER])
    await sign_in(storage)
    deadline = time.monotonic() + 10
    while not disk(path, "SELECT * FROM peers") or not disk(path, "SELECT * FROM accounts"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_waiting_together_is_one_commit(db: SessionsDb, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred accounts that persist at once share a few transactions, not a hundred."""
    commits = 0
    apply = writer_module._apply

    def counted(*arguments: Any) -> None:
        nonlocal commits
        commits += 1
        apply(*arguments)

    monkeypatch.setattr(writer_module, "_apply", counted)

    async def one(n: int) -> None:
        storage = db.account(f"bot:{n}")
        await sign_in(storage, os.urandom(256))
        await storage.persist()

    await asyncio.gather(*(one(n) for n in range(100)))
    assert commits <= 3


async def test_the_loop_is_not_blocked(db: SessionsDb, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is slow the loop goes on, and getters answer from memory."""
    apply = writer_module._apply

    def slow(*arguments: Any) -> None:
        time.sleep(0.3)
        apply(*arguments)

    monkeypatch.setattr(writer_module, "_apply", slow)
    storage = db.account("bot:1")
    await sign_in(storage)
    flushing = asyncio.ensure_future(db.flush())
    await asyncio.sleep(0)
    assert await storage.auth_key() == KEY
    assert not flushing.done()
    turns = 0
    while not flushing.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns >= 5


async def test_a_disk_that_refuses_loses_nothing(
    path: Path, db: SessionsDb, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the disk refuses, `persist` says so, changes stay queued, newest wins, and are written later."""
    apply = writer_module._apply
    full = True

    def refusing(*arguments: Any) -> None:
        if full:
            time.sleep(0.05)
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        apply(*arguments)

    monkeypatch.setattr(writer_module, "_apply", refusing)
    storage = db.account("bot:1")
    await sign_in(storage, OTHER_KEY)
    for _ in range(2):
        with pytest.raises(StorageBroken, match="disk is full: free some space"):
            await storage.persist()
    trying = asyncio.ensure_future(storage.persist())
    await asyncio.sleep(0.01)
    await storage.auth_key(KEY)  # while the old one is being tried
    await storage.update_peers([USER])
    with pytest.raises(StorageBroken):
        await trying
    assert await storage.auth_key() == KEY
    full = False
    deadline = time.monotonic() + 20
    while not disk(path, "SELECT * FROM peers"):  # by itself
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert disk(path, "SELECT auth_key FROM accounts") == [(KEY,)]
    assert [old.session.auth_key for old in await db.old_sessions("bot:1")] == [OTHER_KEY]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


async def test_one_bad_row_does_not_keep_the_others_from_the_disk(
    path: Path, db: SessionsDb, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that SQLite cannot hold is dropped and said; everything else is written."""
    storage = db.account("bot:1")
    await storage.update_peers([USER, (2, 2**70, "user", None, None), CHANNEL])
    await sign_in(storage)
    await db.flush()
    assert {row[0] for row in disk(path, "SELECT id FROM peers")} == {110, CHANNEL[0]}
    assert disk(path, "SELECT auth_key FROM accounts") == [(KEY,)]
    assert "cannot be written" in caplog.text


async def test_a_late_call_does_no_harm(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a library calls after the daemon closed the file is said once, and raises nothing."""
    db = await SessionsDb.open(path)
    storage = db.account("bot:1")
    await storage.update_peers([USER])
    await db.close()
    await db.close()
    await storage.update_peers([CHANNEL])
    await storage.save()
    await storage.close()
    assert caplog.text.count("late changes") == 1
    with pytest.raises(StorageBroken, match="is closed"):
        await db.account("bot:2").get_peer_by_id(1)


async def test_a_cancelled_waiter_harms_nobody(path: Path, db: SessionsDb) -> None:
    """Who stops waiting for a commit stops only their own waiting."""
    storage = db.account("bot:1")
    await sign_in(storage)
    waiting = asyncio.ensure_future(storage.persist())
    await asyncio.sleep(0)
    waiting.cancel()
    await storage.persist()
    assert disk(path, "SELECT auth_key FROM accounts") == [(KEY,)]


async def test_accounts_do_not_mix(path: Path) -> None:
    """Each account has its own session, peers and state, after a restart too; the list names them."""
    db = await SessionsDb.open(path)
    for n in (1, 2, 3):
        storage = db.account(f"bot:{n}")
        await storage.user_id(n)
        await storage.update_peers([(n, n, "user", f"name{n}", None)])
        await storage.put_update_state(UpdateRow(0, n))
    await db.close()
    db = await SessionsDb.open(path)
    assert db.identities() == ["bot:1", "bot:2", "bot:3"]
    for n in (3, 1, 2):
        storage = db.account(f"bot:{n}")
        assert storage is db.account(f"bot:{n}")
        assert (await storage.user_id(), list(await storage.peers())) == (n, [n])
        assert await storage.update_state() == UpdateRow(0, n)
    await db.account("bot:4").user_id(4)
    assert db.identities()[-1] == "bot:4"
    await db.close()
    assert len(disk(path, "SELECT DISTINCT n FROM accounts")) == 4


# --- A file that cannot be used ------------------------------------------------------------------


def not_sqlite(path: Path) -> None:
    path.write_bytes(b"what is this" * 500)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def scribbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:12288] = os.urandom(8192)
    path.write_bytes(data)


def scribbled_deep_inside(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-8192:-4096] = bytes(4096)
    path.write_bytes(data)


def of_another_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE sessions (dc_id INTEGER)")


def of_tomorrow(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 99")


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (not_sqlite, "is damaged"),
        (cut_short, "is damaged"),
        (scribbled, "is damaged"),
        (scribbled_deep_inside, "is damaged"),
        (of_another_program, "of another program"),
        (of_tomorrow, "newer tg-supervisor"),
        (a_directory, "check its owner and permissions"),
    ],
)
async def test_a_file_that_cannot_be_used(path: Path, harm: Callable[[Path], None], words: str) -> None:
    """The message names the file and says what to do; nothing is deleted, and the lock is let go."""
    db = await SessionsDb.open(path)
    await sign_in(db.account("bot:1"))
    await db.account("bot:1").update_peers([(n, n, "user", None, None) for n in range(2000)])
    await db.close()
    harm(path)
    before = path.read_bytes() if path.is_file() else b""
    for _ in range(2):
        with pytest.raises(SupervisorError, match=words) as caught:
            await SessionsDb.open(path)
        assert isinstance(caught.value, StorageBroken)
        assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


async def test_a_locked_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that holds SQLite's lock is named as the trouble."""
    db = await SessionsDb.open(path)
    await db.close()
    monkeypatch.setattr("supervisor.telegram.storage.schema.BUSY_TIMEOUT", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageBroken, match="locked by another program"):
            await SessionsDb.open(path)


# --- Given back ----------------------------------------------------------------------------------


async def test_the_session_string_is_accepted_by_the_library(db: SessionsDb) -> None:
    """`export_session_string` gives 362 characters from which the bare library has the same session."""
    storage = db.account("bot:1")
    await sign_in(storage)
    text = await storage.export_session_string()
    assert len(text) == 362
    theirs = library_memory_storage(text)
    await theirs.open()
    values = [await getattr(theirs, name)() for name in ("dc_id", "api_id", "auth_key", "user_id", "is_bot")]
    await theirs.close()
    assert values == [4, 12345, KEY, 110201543, True]


async def test_a_string_without_api_id_is_accepted(db: SessionsDb) -> None:
    """A session taken over without an api_id still gives a string; 0 makes the library ask its client."""
    storage = db.account("bot:1")
    await storage.take_over(ImportedSession(4, False, KEY, 7, False))
    text = await storage.export_session_string()
    unpacked = struct.unpack(">BI?256sQ?", base64.urlsafe_b64decode(text + "=="))
    assert unpacked == (4, 0, False, KEY, 7, False)


async def test_nothing_to_give_back(db: SessionsDb, tmp_path: Path) -> None:
    """An account with nobody signed in says so, and writes no file."""
    storage = db.account("phone:+4915112345678")
    with pytest.raises(SessionUnreadable, match="nobody is signed in") as caught:
        await storage.export_session_string()
    assert "5112345" not in str(caught.value)
    with pytest.raises(SessionUnreadable):
        await storage.export_session_file(tmp_path / "a.session")
    assert not (tmp_path / "a.session").exists()


async def test_the_session_file_is_used_by_the_library(db: SessionsDb, tmp_path: Path) -> None:
    """`export_session_file` writes a file that the bare library opens, reads, migrates and writes."""
    storage = db.account("bot:1")
    await sign_in(storage)
    now = int(time.time())
    db.now = lambda: now
    await storage.update_peers([USER, (-1002, 5, "forum", None)])
    file = tmp_path / "given.session"
    await storage.export_session_file(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert disk(file, "SELECT number FROM version") == [(3,)]
    module = _storage_module()
    theirs = (getattr(module, "FileStorage", None) or module.SQLiteStorage)("given", tmp_path)
    await theirs.open()
    assert await theirs.auth_key() == KEY
    assert (await theirs.get_peer_by_id(110)).access_hash == USER[1]
    assert (await theirs.get_peer_by_id(-1002)).access_hash == 5
    if hasattr(module, "FileStorage"):  # Kurigram's migration leaves usernames behind, and asks for them anew
        assert (await theirs.get_peer_by_username("joe")).user_id == 110
    await theirs.save()
    await theirs.close()


async def test_no_file_is_overwritten(db: SessionsDb, tmp_path: Path) -> None:
    """A file that exists is left as it is; a directory that does not exist is named."""
    storage = db.account("bot:1")
    await sign_in(storage)
    (tmp_path / "a.session").write_text("precious")
    with pytest.raises(StorageBroken, match="exists already"):
        await storage.export_session_file(tmp_path / "a.session")
    assert (tmp_path / "a.session").read_text() == "precious"
    with pytest.raises(StorageBroken, match="No such file"):
        await storage.export_session_file(tmp_path / "nowhere" / "a.session")


# --- Secrets -------------------------------------------------------------------------------------


async def test_no_repr_shows_a_secret(db: SessionsDb) -> None:
    """No repr shows a key, a salt, an access hash or a phone number."""
    storage = db.account("phone:+4915112345678")
    await sign_in(storage)
    storage.server_salt = 987654321987654321
    await storage.update_peers([USER])
    await storage.retire("test")
    (old,) = await db.old_sessions(storage.identity)
    imported = ImportedSession(4, False, KEY, 7, False, peers=await storage.peers())
    shown = repr([db, storage, storage.session, old, old.session, imported, await storage.peers()])
    for secret in (repr(KEY)[2:40], "987654321", "9000000000", "15112345"):
        assert secret not in shown.replace("identity='phone:+4915112345678'", "")


# --- kill -9 -------------------------------------------------------------------------------------

VICTIM = """
import asyncio, pathlib, sys
from supervisor.telegram.storage import SessionsDb, UpdateRow

async def main():
    db = await SessionsDb.open(pathlib.Path(sys.argv[1]))
    storage = db.account("bot:1")
    n = max((await storage.update_state() or UpdateRow(0, 0)).pts or 0, 0)
    while True:
        n += 1
        await storage.update_peers([(n, n, "user", f"name{n}", None)])
        await storage.put_update_state(UpdateRow(0, n))
        if n % 7 == 0:
            await storage.auth_key(n.to_bytes(256, "big"))
            await storage.user_id(5)
        if n % 3 == 0:
            await storage.persist()
            print(n, flush=True)

asyncio.run(main())
"""


@pytest.mark.timeout(120)
async def test_kill_9_loses_nothing_that_was_said_to_be_on_disk(path: Path) -> None:
    """Killed at any moment, the file is whole, what `persist` promised is in it, and no key is lost."""
    root = Path(__file__).parents[3]
    for i in range(6):
        victim = subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        assert victim.stdout is not None
        promised = int(victim.stdout.readline())
        time.sleep(0.01 + 0.037 * i)
        victim.send_signal(signal.SIGKILL)
        promised = max([promised, *map(int, victim.stdout.read().split(b"\n")[:-1])])
        victim.stdout.close()
        victim.wait()
        db = await SessionsDb.open(path)
        storage = db.account("bot:1")
        state = await storage.update_state()
        assert state is not None
        assert (state.pts or 0) >= promised
        assert len(await storage.peers()) >= promised
        keys = [old.session.auth_key for old in await db.old_sessions("bot:1")]
        key = await storage.auth_key()
        last = promised // 7 * 7
        wanted = [n.to_bytes(256, "big") for n in range(7, last + 1, 7)]
        assert set(wanted) <= {*keys, key}
        await db.close()
        assert disk(path, "PRAGMA integrity_check") == [("ok",)]


# --- reads that come together ---------------------------------------------------------------------------


async def test_reads_that_come_together_share_a_turn_of_the_thread(db: SessionsDb) -> None:
    """Each gets what it wanted, or what it has met; a thousand accounts that start are not a thousand turns."""
    turns = 0
    executor = db.writer._executor

    class Counting:
        def submit(self, *given: Any) -> Any:
            nonlocal turns
            turns += 1
            return executor.submit(*given)

    def numbered(n: int) -> Callable[[sqlite3.Connection], int]:
        def read(connection: sqlite3.Connection) -> int:
            if n % 10 == 3:
                raise ValueError(n)
            return int(connection.execute("SELECT ?", (n,)).fetchone()[0])

        return read

    db.writer._executor = Counting()  # type: ignore[assignment]
    try:
        found = await asyncio.gather(
            *(db.writer.read(numbered(n)) for n in range(100)), return_exceptions=True
        )
    finally:
        db.writer._executor = executor
    assert turns <= 3
    for n, each in enumerate(found):
        assert isinstance(each, ValueError) if n % 10 == 3 else each == n


async def test_a_read_that_sqlite_refuses_is_told_to_its_reader_alone(db: SessionsDb) -> None:
    """The others of its turn notice nothing."""

    def selecting(what: str) -> Callable[[sqlite3.Connection], Any]:
        return lambda connection: connection.execute(f"SELECT {what}").fetchone()

    reads = (db.writer.read(selecting(what)) for what in ("nothing", "1"))
    wrong, right = await asyncio.gather(*reads, return_exceptions=True)
    assert isinstance(wrong, StorageBroken)
    assert right == (1,)


async def test_a_reader_that_is_called_off_holds_nobody_up(db: SessionsDb) -> None:
    """Its turn is used by the others."""
    gone = asyncio.create_task(db.writer.read(lambda connection: connection.execute("SELECT 1").fetchone()))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(db.writer.read(lambda connection: 2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await waiting == 2
    assert await db.writer.read(lambda _connection: 3) == 3


async def test_reads_that_wait_at_the_end_are_refused(path: Path) -> None:
    """Nobody waits for ever for a file that is closed."""
    db = await SessionsDb.open(path)
    first = asyncio.create_task(db.writer.read(lambda _connection: time.sleep(0.1)))
    await asyncio.sleep(0)
    late = asyncio.create_task(db.writer.read(lambda _connection: 1))
    await asyncio.sleep(0)
    await db.close()
    await first
    with pytest.raises(StorageBroken, match="is closed"):
        await late
