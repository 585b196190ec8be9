"""The values of this room. None of them shows a key in its repr."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

KEY_SIZE = 256  # bytes of an auth key (core.telegram.org/mtproto/auth_key)

# Kurigram's storage/sqlite_storage.py: where a session goes whose file names no server.
_SERVERS = {
    False: {
        1: "149.154.175.53",
        2: "149.154.167.51",
        3: "149.154.175.100",
        4: "149.154.167.91",
        5: "91.108.56.130",
        203: "91.105.192.100",
    },
    True: {1: "149.154.175.10", 2: "149.154.167.40", 3: "149.154.175.117"},
}

# The kinds of peers that both libraries know, and the kind that Pyrogram 2.0.106 would call each.
PEER_KINDS = {
    "user": "user",
    "bot": "bot",
    "group": "group",
    "channel": "channel",
    "supergroup": "supergroup",
    "direct": "channel",
    "forum": "supergroup",
    "community": "supergroup",
}


def key_id(auth_key: bytes) -> bytes:
    """The auth_key_id: the last 8 bytes of the key's SHA-1."""
    return hashlib.sha1(auth_key, usedforsecurity=False).digest()[-8:]


def default_server(dc_id: int | None, test_mode: bool | None) -> tuple[str | None, int]:
    """Telegram's own address and port of a datacenter; the address is None for an unknown one."""
    test = bool(test_mode)
    return _SERVERS[test].get(dc_id or 0), 80 if test else 443


class Peer(NamedTuple):
    """One peer of one account: what turns an id into an `InputPeer`. Held in the thousands."""

    access_hash: int
    kind: str  # a key of PEER_KINDS
    phone: str | None
    seen: int  # Unix time of the last sight, to PEER_FRESH
    names: tuple[str, ...]  # usernames in lower case

    def __repr__(self) -> str:
        return f"<Peer {self.kind}>"


class UpdateRow(NamedTuple):
    """How far updates were received: id 0 is the account's own box, a channel's id its channel."""

    id: int
    pts: int | None = None
    qts: int | None = None
    date: int | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """One session. `epoch` grows with every new key; peers and update state belong to the user `owner`."""

    dc_id: int | None = 2
    server_address: str | None = None
    port: int | None = None
    api_id: int | None = None
    test_mode: bool | None = None
    auth_key: bytes | None = field(default=None, repr=False)
    date: int = 0
    user_id: int | None = None
    is_bot: bool | None = None
    server_salt: int | None = field(default=None, repr=False)
    time_offset: float | None = None  # seconds to add to our clock to get the server's
    epoch: int = 0
    owner: int | None = None

    @property
    def signed_in(self) -> bool:
        """Whether there is a key, and somebody signed in with it."""
        return self.auth_key is not None and self.user_id is not None

    @property
    def server(self) -> tuple[str | None, int]:
        """Address and port: as stored, otherwise Telegram's own for this datacenter."""
        address, port = default_server(self.dc_id, self.test_mode)
        return self.server_address or address, self.port or port


@dataclass(frozen=True, slots=True)
class ImportedSession:
    """A session that was read from a file or string of Pyrogram's or Kurigram's."""

    dc_id: int
    test_mode: bool
    auth_key: bytes = field(repr=False)
    user_id: int
    is_bot: bool
    api_id: int | None = None
    date: int = 0
    server_address: str | None = None
    port: int | None = None
    peers: dict[int, Peer] = field(default_factory=dict, repr=False)
    states: tuple[UpdateRow, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class OldSession:
    """A session that was replaced and kept aside. `retired_at` is a Unix time."""

    identity: str
    retired_at: float
    reason: str
    session: Session
