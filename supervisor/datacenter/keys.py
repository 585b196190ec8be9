"""Authorization keys and what hangs on them: salt, account, sessions, connections."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .envelope import key_id

if TYPE_CHECKING:
    from .connection import Connection
    from .session import Session
    from .srp import Challenge
    from .world import Account


@dataclass(slots=True, eq=False)
class AuthKey:
    """One authorization key.

    `pending` is the account whose password is asked for, with the `challenge` that was put.
    `rejection` is what every query of the key gets instead of an answer (a revoked session, a dead key).
    """

    key: bytes
    salt: bytes
    id: bytes = b""
    account: Account | None = None
    layer: int = 0
    is_inited: bool = False
    pending: Account | None = None
    challenge: Challenge | None = None
    rejection: tuple[int, str] | None = None
    overlapped_tick: int = 0
    sessions: dict[bytes, Session] = field(default_factory=dict)
    connections: set[Connection] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.id = key_id(self.key)

    @property
    def user_id(self) -> int | None:
        return None if self.account is None else self.account.user_id

    def sign_in(self, account: Account) -> None:
        """The account uses this key from now on."""
        self.sign_out()
        self.account = account
        account.keys.add(self)

    def sign_out(self) -> None:
        """Nobody is signed in with this key any more."""
        if self.account is not None:
            self.account.keys.discard(self)
            self.account = None
        for session in self.sessions.values():
            session.wants_updates = False

    def new_salt(self) -> bytes:
        """Replace the salt: messages under the old one are refused from now on."""
        self.salt = os.urandom(8)
        return self.salt


class KeyRing:
    """All keys of the datacenter, by their id."""

    def __init__(self) -> None:
        self._keys: dict[bytes, AuthKey] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: AuthKey) -> None:
        self._keys[key.id] = key

    def find(self, identifier: bytes) -> AuthKey | None:
        return self._keys.get(identifier)

    def forget(self, key: AuthKey) -> None:
        self._keys.pop(key.id, None)
        if key.account is not None:
            key.account.keys.discard(key)

    def of(self, user_id: int | None) -> list[AuthKey]:
        """The keys of an account, or all keys for None."""
        return [key for key in self._keys.values() if user_id is None or key.user_id == user_id]
