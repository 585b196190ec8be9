"""AccountStorage: one account's session, peers and update state, behind both libraries' `Storage`.

The session is in memory from the start, peers and update state from their first use. Getters never touch
the disk after that; setters queue a row for the writer. The class is complete without a client library;
`library_class` derives from it and from the installed library's `Storage`, since pyrogram may only be
imported inside a running loop.

Where it differs from the libraries' own storages, on purpose:

- Nothing is ever deleted: a key that is replaced, logged out or moved to another datacenter is kept aside,
  dated.
- A peer that is seen again unchanged within `PEER_FRESH` is not written again; its usernames may thus
  expire that much before `USERNAME_TTL`, never after it.
- A username belongs to one peer at a time: the one last seen with it.
- Every kind of peer is understood under either library, so that a state directory outlives a change of
  library.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervisor.telegram.storage import export, schema
from supervisor.telegram.storage.errors import shown
from supervisor.telegram.storage.known import Known
from supervisor.telegram.storage.rows import PEER_KINDS, ImportedSession, Peer, Session, UpdateRow
from supervisor.telegram.storage.writer import Statement

if TYPE_CHECKING:
    from supervisor.telegram.storage.db import SessionsDb

USERNAME_TTL = 8 * 60 * 60  # seconds, as both libraries' storage/sqlite_storage.py


class AccountStorage:
    """One account's rows. Made by `SessionsDb.account`."""

    __slots__ = (
        "_db",
        "_dirty",
        "_in_use",
        "_kept_aside",
        "_known",
        "_n",
        "_session",
        "identity",
        "name",
    )

    # What `get_update_states` returns: Kurigram's UpdateState where there is one.
    _state_type: Any = UpdateRow

    def __init__(self, db: SessionsDb, identity: str, number: int, session: Session) -> None:
        self.name = self.identity = identity
        self._db = db
        self._n = number
        self._session = session
        self._known: Known | None = None  # None: not read yet
        self._in_use: bytes | None = None  # the claimed key, while open
        self._kept_aside = False  # the present key stands in old_sessions already
        self._dirty = False  # changed since `unload` last looked

    def __repr__(self) -> str:
        state = "signed in" if self._session.signed_in else "empty"
        return f"<AccountStorage {shown(self.identity)} {state}>"

    # -- ours ---------------------------------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The session as it stands: a frozen value, for reading without an await."""
        return self._session

    @property
    def epoch(self) -> int:
        """How many keys this account has had."""
        return self._session.epoch

    @property
    def server_salt(self) -> int | None:
        """The last salt that the server gave for this key."""
        return self._session.server_salt

    @server_salt.setter
    def server_salt(self, value: int | None) -> None:
        self._change(server_salt=value)

    @property
    def time_offset(self) -> float | None:
        """Seconds to add to our clock to get the server's."""
        return self._session.time_offset

    @time_offset.setter
    def time_offset(self, value: float | None) -> None:
        self._change(time_offset=value)

    async def persist(self) -> None:
        """Return when every change so far is on disk.

        Raises:
            StorageBroken: it could not be written; it stays in memory and is tried again.
        """
        await self._db.flush()

    async def retire(self, reason: str) -> None:
        """Keep the present session aside, dated, and leave an empty one for a new sign-in.

        Peers and update state stay: they belong to the user, not to the key. Datacenter, server and api_id stay too.

        Args:
            reason: why, for people.

        Raises:
            StorageBroken: as `persist`.
        """
        if self._session.auth_key is not None:
            self._keep_aside(reason)
        self._change_key(None, reason, user_id=None, is_bot=None, date=0)
        await self.persist()

    async def take_over(self, imported: ImportedSession) -> bool:
        """Fill this account with a session from elsewhere, unless it has one: ours is newer then, and stays.

        Args:
            imported: from `read_session_file` or `read_session_string`.

        Returns:
            Whether it was taken over; it is on disk then.

        Raises:
            SessionInUse: another open account uses this key.
            StorageBroken: as `persist`.
        """
        await self._load()
        if self._session.auth_key is not None:
            return False
        self._db.claim(imported.auth_key, self.identity)
        if self._in_use is None:  # to be refused now rather than at `open`
            self._db.release(imported.auth_key, self.identity)
        self._change_key(
            imported.auth_key,
            "replaced",
            dc_id=imported.dc_id,
            server_address=imported.server_address,
            port=imported.port,
            api_id=imported.api_id,
            test_mode=imported.test_mode,
            date=imported.date,
            is_bot=imported.is_bot,
        )
        self._set_user(imported.user_id)
        known = await self._load()
        for peer_id, peer in imported.peers.items():
            known.put_peer(peer_id, peer)
        for row in imported.states:
            known.put_state(row)
        await self.persist()
        return True

    async def peers(self) -> dict[int, Peer]:
        """All peers by id, a copy."""
        return dict((await self._load()).peers)

    async def update_state(self, state_id: int = 0) -> UpdateRow | None:
        """How far updates were received.

        Args:
            state_id: 0 for the account's own box, otherwise the channel's id (as ``-1001234567890``).
        """
        return (await self._load()).states.get(state_id)

    async def update_states(self) -> list[UpdateRow]:
        """All update states, in no order."""
        return list((await self._load()).states.values())

    async def put_update_state(self, row: UpdateRow) -> None:
        """Note how far updates were received; what is None in `row` stays as it is."""
        (await self._load()).put_state(row)

    async def drop_update_state(self, state_id: int) -> None:
        """Forget one update state, as of a channel that was left."""
        (await self._load()).drop_state(state_id)

    async def foreign_key(self, dc_id: int, *, media: bool) -> bytes | None:
        """The key for another datacenter, on which this account's present key has authorized it.

        Args:
            dc_id: the datacenter.
            media: whether it is the one for its media servers.
        """
        read = functools.partial(
            schema.read_foreign_key, account=self._n, dc_id=dc_id, media=media, epoch=self.epoch
        )
        return await self._db.writer.read(read)

    def keep_foreign_key(self, dc_id: int, key: bytes, *, media: bool) -> None:
        """Keep a key for another datacenter; it replaces the one of before, which was found dead."""
        row = (self._n, dc_id, media, key, self.epoch)
        self._put(("foreign key", dc_id, media), ((schema.PUT_FOREIGN_KEY, row),))

    async def unload(self) -> None:
        """Write what is queued and drop peers and update state from memory; their next use reads them again.

        Raises:
            StorageBroken: as `persist`; nothing is dropped then.
        """
        self._dirty = True
        while self._dirty:
            self._dirty = False
            await self.persist()
        self._known = None

    async def export_session_file(self, path: Path) -> None:
        """Write the session and its peers as a .session file that both libraries read.

        Args:
            path: must not exist.

        Raises:
            SessionUnreadable: nobody is signed in.
            StorageBroken: the file exists, or cannot be written.
        """
        session, peers = self._session, await self.peers()
        export.session_string(shown(self.identity), session)  # refuses what cannot be given back
        await self._db.writer.read(lambda _: export.write_session_file(path, session, peers))

    # -- the libraries': life -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Mark the session as in use.

        Raises:
            SessionInUse: another open account has the same key.
        """
        key = self._session.auth_key
        if key is not None and self._in_use is None:
            self._db.claim(key, self.identity)
        self._in_use = key or b""

    async def save(self) -> None:
        """Date the session; it is written with the next tick (`persist` waits for that)."""
        self._change(date=int(self._db.now()))

    async def close(self) -> None:
        """Mark the session as not in use. Its rows stay in memory, so that late calls do no harm."""
        if self._in_use:
            self._db.release(self._in_use, self.identity)
        self._in_use = None

    async def delete(self) -> None:
        """What the libraries call after logging out. Nothing is deleted: see `retire`."""
        await self.retire("logged out")

    # -- the libraries': the session ----------------------------------------------------------------------------
    # `object` (the class) means "no value given", as in both libraries; None is a value.

    async def dc_id(self, value: Any = object) -> Any:
        """Get or set the datacenter. A key belongs to one: setting another keeps a signed-in session aside."""
        if value is object:
            return self._session.dc_id
        if value != self._session.dc_id:
            self._keep_signed_in(f"moved to datacenter {value}")
            self._change(now=True, dc_id=value, server_address=None, port=None)
        return None

    async def server_address(self, value: Any = object) -> Any:
        """Get or set the server's address."""
        return self._session.server[0] if value is object else self._change(now=True, server_address=value)

    async def port(self, value: Any = object) -> Any:
        """Get or set the server's port."""
        return self._session.server[1] if value is object else self._change(now=True, port=value)

    async def api_id(self, value: Any = object) -> Any:
        """Get or set the api_id."""
        return self._session.api_id if value is object else self._change(api_id=value)

    async def test_mode(self, value: Any = object) -> Any:
        """Get or set whether this is a session with the test servers."""
        return self._session.test_mode if value is object else self._change(now=True, test_mode=value)

    async def auth_key(self, value: Any = object) -> Any:
        """Get or set the key. A signed-in session that loses its key is kept aside.

        Raises:
            SessionInUse: another open account has the same key.
        """
        if value is object:
            return self._session.auth_key
        if value != self._session.auth_key:
            self._change_key(value, "replaced")
        return None

    async def date(self, value: Any = object) -> Any:
        """Get or set the Unix time at which the session was last saved."""
        return self._session.date if value is object else self._change(date=value)

    async def user_id(self, value: Any = object) -> Any:
        """Get or set who is signed in. Peers of somebody else are forgotten: their access hashes are void."""
        return self._session.user_id if value is object else self._set_user(value)

    async def is_bot(self, value: Any = object) -> Any:
        """Get or set whether a bot is signed in."""
        return self._session.is_bot if value is object else self._change(now=True, is_bot=value)

    async def export_session_string(self) -> str:
        """The session as a string of 362 characters that both libraries accept.

        Raises:
            SessionUnreadable: nobody is signed in.
        """
        return export.session_string(shown(self.identity), self._session)

    # -- the libraries': peers ----------------------------------------------------------------------------------

    async def update_peers(self, peers: Iterable[tuple[Any, ...]]) -> None:
        """Note peers.

        Args:
            peers: Pyrogram's (id, access_hash, kind, username, phone), or Kurigram's without the username.
        """
        known = self._known or await self._load()
        now = int(self._db.now())
        for peer_id, access_hash, kind, *rest in peers:
            old = known.peers.get(peer_id)
            names: tuple[str, ...] = old.names if old is not None else ()
            if access_hash is None:  # Telegram left it out: what is known stays good
                access_hash = old.access_hash if old is not None else 0  # noqa: PLW2901
            if len(rest) == 2:
                names = (rest[0],) if rest[0] else ()
            known.see(peer_id, Peer(access_hash, kind, rest[-1], now, names))

    async def update_usernames(self, usernames: Iterable[tuple[int, Iterable[str | None]]]) -> None:
        """Note all usernames of peers; those of a peer that is not known are ignored.

        Args:
            usernames: (id, usernames) of each.
        """
        known = self._known or await self._load()
        now = int(self._db.now())
        for peer_id, names in usernames:
            old = known.peers.get(peer_id)
            if old is not None:
                kept = tuple(name for name in names if name)
                known.see(peer_id, old._replace(names=kept, seen=now))

    async def get_peer_by_id(self, peer_id: int) -> Any:
        """The `InputPeer` of an id.

        Raises:
            KeyError: it is not known.
        """
        known = self._known or await self._load()
        peer = known.peers.get(peer_id)
        if peer is None:
            raise KeyError(f"ID not found: {peer_id}")
        return _input_peer(peer_id, peer)

    async def get_peer_by_username(self, username: str) -> Any:
        """The `InputPeer` of a username.

        Raises:
            KeyError: it is not known, or was last seen over `USERNAME_TTL` ago.
        """
        known = self._known or await self._load()
        peer_id = known.names.get(username)
        if peer_id is None:
            raise KeyError(f"Username not found: {username}")
        peer = known.peers[peer_id]
        if abs(self._db.now() - peer.seen) > USERNAME_TTL:
            raise KeyError(f"Username expired: {username}")
        return _input_peer(peer_id, peer)

    async def get_peer_by_phone_number(self, phone_number: str) -> Any:
        """The `InputPeer` of a phone number.

        Raises:
            KeyError: it is not known.
        """
        known = self._known or await self._load()
        peer_id = known.phones.get(phone_number)
        if peer_id is None:
            raise KeyError("Phone number not found")  # the number itself stays out of logs
        return _input_peer(peer_id, known.peers[peer_id])

    # -- Kurigram's: update state -------------------------------------------------------------------------------

    async def get_update_states(self, ids: int | Iterable[int] | None = None) -> list[Any]:
        """The update states of `ids`, or all, oldest first."""
        states = (await self._load()).states
        wanted = states if ids is None else {ids} if isinstance(ids, int) else set(ids)
        rows = [row for row in states.values() if row.id in wanted]
        rows.sort(key=lambda row: (row.date is not None, row.date or 0))  # NULL first, as SQLite sorts
        return [self._state_type(*row) for row in rows]

    async def set_update_state(self, update_state: Any) -> None:
        """Note one update state or several; what is None stays as it is."""
        known = await self._load()
        for state in (update_state,) if hasattr(update_state, "pts") else update_state:
            known.put_state(UpdateRow(state.id, state.pts, state.qts, state.date, state.seq))

    async def delete_update_state(self, state_id: int | Iterable[int]) -> None:
        """Forget one update state or several."""
        for one in (state_id,) if isinstance(state_id, int) else tuple(state_id):
            await self.drop_update_state(one)

    # -- inside -------------------------------------------------------------------------------------------------

    def _put(
        self, key: tuple[int | str | None, ...], statements: tuple[Statement, ...], *, now: bool = False
    ) -> None:
        self._dirty = True
        self._db.writer.put((self._n, *key), statements, now=now)

    def _change(self, *, now: bool = False, **changes: Any) -> None:
        session = replace(self._session, **changes)
        if session != self._session:
            self._session = session
            row = (self._n, self.identity, *schema.session_row(session))
            self._put(("session",), ((schema.PUT_SESSION, row),), now=now)

    def _change_key(self, key: bytes | None, reason: str, **changes: Any) -> None:
        if self._in_use is not None:  # open: claim the new key before the old one is let go
            if key:
                self._db.claim(key, self.identity)
            if self._in_use and self._in_use != key:
                self._db.release(self._in_use, self.identity)
            self._in_use = key or b""
        if self._session.signed_in:
            self._keep_aside(reason)
            changes = {"user_id": None, "is_bot": None, **changes}  # nobody signed in with the new key yet
        self._kept_aside = False
        epoch = self._session.epoch + (key is not None)
        self._change(now=True, auth_key=key, server_salt=None, epoch=epoch, **changes)

    def _set_user(self, user_id: int | None) -> None:
        if user_id != self._session.user_id:
            self._keep_signed_in("signed out")
            self._kept_aside = self._kept_aside and user_id is None
        owner = self._session.owner if user_id is None else user_id
        if self._session.owner not in (None, owner):
            self._known = Known(self._n, {}, {}, self._put)
            self._put(("forget",), tuple((sql, (self._n,)) for sql in schema.FORGET), now=True)
        self._change(now=True, user_id=user_id, owner=owner)

    def _keep_signed_in(self, reason: str) -> None:
        # A key with which nobody ever signed in (sign-in moved it to another datacenter) is worth nothing.
        if self._session.signed_in:
            self._keep_aside(reason)

    def _keep_aside(self, reason: str) -> None:
        if self._kept_aside:
            return
        self._kept_aside = True
        row = (self.identity, self._db.now(), reason, *schema.session_row(self._session))
        self._put(("old", self._session.epoch, self._session.user_id), ((schema.PUT_OLD, row),), now=True)

    async def _load(self) -> Known:
        if self._known is None:
            peers, states = await self._db.writer.read(functools.partial(schema.read_known, account=self._n))
            if self._known is None:  # nobody was faster
                self._known = Known(self._n, peers, states, self._put)
        return self._known


def _input_peer(peer_id: int, peer: Peer) -> Any:
    from pyrogram import raw, utils  # only ever inside a running loop

    kind = PEER_KINDS.get(peer.kind)
    if kind in ("user", "bot"):
        return raw.types.InputPeerUser(user_id=peer_id, access_hash=peer.access_hash)
    if kind == "group":
        return raw.types.InputPeerChat(chat_id=-peer_id)
    if kind in ("channel", "supergroup"):
        channel_id = utils.get_channel_id(peer_id)
        return raw.types.InputPeerChannel(channel_id=channel_id, access_hash=peer.access_hash)
    raise KeyError(f"ID not found: {peer_id} (a peer of an unknown kind, {peer.kind!r})")


@functools.cache
def library_class() -> type[AccountStorage]:
    """`AccountStorage` as a subclass of the installed library's `Storage`. Call it inside a running loop."""
    from pyrogram import storage

    class LibraryStorage(AccountStorage, storage.Storage):
        __slots__ = ()
        _state_type = getattr(storage, "UpdateState", UpdateRow)

    return LibraryStorage
