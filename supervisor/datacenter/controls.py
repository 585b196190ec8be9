"""The hand on the datacenter: what a test, a demo or a benchmark does to it while it runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .faults import Fault, FaultKind
from .keys import AuthKey
from .post import receive

if TYPE_CHECKING:
    from .connection import Connection
    from .engine import Engine
    from .world import Account, Person

_EXPIRED = 400, "ACCESS_TOKEN_EXPIRED"
_BANNED = 401, "USER_DEACTIVATED_BAN"
_NUMBER_BANNED = 400, "PHONE_NUMBER_BANNED"


def _id(account: Account | int | None) -> int | None:
    return account if account is None or isinstance(account, int) else account.user_id


class Controls:
    """Everything that can be done to a running datacenter. `account` is an Account, a user id, or None for all."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    # -- links ----------------------------------------------------------------------------------------------------

    def _links(self, account: Account | int | None) -> list[Connection]:
        wanted = _id(account)
        return [
            connection
            for connection in self.engine.connections
            if wanted is None or (connection.key is not None and connection.key.user_id == wanted)
        ]

    def reset_links(self, account: Account | int | None = None) -> int:
        """Reset (RST) the open connections; give their number."""
        links = [connection for connection in self._links(account) if connection.is_open]
        for connection in links:
            connection.abort()
        return len(links)

    def close_links(self, account: Account | int | None = None) -> int:
        """Close (FIN) the open connections after what has been sent; give their number."""
        links = [connection for connection in self._links(account) if connection.is_open]
        for connection in links:
            connection.close()
        return len(links)

    def silent(self, account: Account | int | None = None, *, swallow: bool = False) -> None:
        """Answer nothing until `speak`: connections are accepted, and what arrives is kept unread.

        With `swallow` it is thrown away, and the connections that lost something stay dead after `speak`, as behind a
        router that forgot them: TCP cannot go on where bytes are missing.
        """
        self.engine.silenced[_id(account)] = swallow
        for connection in self._links(account):
            self.engine.mute(connection, swallow=swallow)

    def speak(self, account: Account | int | None = None) -> None:
        """End `silent` for the same account (for everybody with None); what was kept is read now, in order."""
        if account is None:
            self.engine.silenced.clear()
        else:
            self.engine.silenced.pop(_id(account), None)
        for connection in sorted(self.engine.connections, key=lambda link: link.opened_tick):
            user_id = connection.key.user_id if connection.key is not None else None
            if not self.engine.is_silenced(user_id):
                connection.speak()
                if not connection.is_open:
                    self.engine.closed(connection)

    def refuse_handshakes(self, refuse: bool = True) -> None:
        """Reset every connection that begins a key exchange."""
        self.engine.refusing_handshakes = refuse

    def transport_error(
        self, code: int, account: Account | int | None = None, count: int | None = None
    ) -> Fault:
        """Answer every packet (or the next `count`) with a transport error such as -404, -429 or -444."""
        return self.engine.faults.add(Fault(FaultKind.TRANSPORT, _id(account), count=count, code=code))

    # -- accounts -------------------------------------------------------------------------------------------------

    def revoke(self, account: Account | int | None, error: str = "SESSION_REVOKED", code: int = 401) -> None:
        """Every query of the account's keys as they are now gets this error; keys made later are not concerned.

        AUTH_KEY_UNREGISTERED leaves the keys good, with nobody signed in on them: that is what it means.
        """
        for key in self.engine.keys.of(_id(account)):
            if error == "AUTH_KEY_UNREGISTERED":
                key.sign_out()
            else:
                key.rejection = code, error

    def expire(self, account: Account | int | None) -> None:
        """The account's sessions have expired."""
        self.revoke(account, "SESSION_EXPIRED")

    def forget_keys(self, account: Account | int | None = None) -> None:
        """The server knows the account's keys no more: -404 on the transport."""
        for key in self.engine.keys.of(_id(account)):
            self.engine.keys.forget(key)

    def ban(self, account: Account) -> None:
        """The account is banned: no session of it is accepted, and no sign-in."""
        account.sign_in_error = _BANNED if account.is_bot else _NUMBER_BANNED
        self.revoke(account, _BANNED[1])

    def kill_token(self, account: Account, *, revoke: bool = True) -> None:
        """The bot's token was replaced: signing in with it fails, and (with `revoke`) so do its sessions."""
        account.sign_in_error = _EXPIRED
        if revoke:
            self.revoke(account, "SESSION_REVOKED")

    def issue_key(self, account: Account) -> bytes:
        """A fresh authorization key on which the account is signed in: 256 bytes, for a session string or storage."""
        key = AuthKey(os.urandom(256), os.urandom(8))
        key.sign_in(account)
        self.engine.keys.add(key)
        return key.key

    def access_hash(self, account: Account, user: Account | Person) -> int:
        """The hash by which `account` addresses `user`."""
        return self.engine.world.access_hash(account.user_id, user.user_id)

    # -- MTProto --------------------------------------------------------------------------------------------------

    def rotate_salts(self, account: Account | int | None = None) -> None:
        """Replace the server salts: the next message under an old one gets bad_server_salt."""
        for key in self.engine.keys.of(_id(account)):
            key.new_salt()

    def endless_salts(self, account: Account | int | None = None) -> Fault:
        """Answer every packet with bad_server_salt and yet another salt, until the fault is removed."""
        return self.engine.faults.add(Fault(FaultKind.SALT, _id(account), count=None))

    def forget_sessions(self, account: Account | int | None = None) -> None:
        """Lose the MTProto sessions with their unacknowledged answers: new_session_created comes again."""
        for key in self.engine.keys.of(_id(account)):
            key.sessions.clear()

    # -- messages -------------------------------------------------------------------------------------------------

    def push_message(
        self, account: Account, text: str, from_user: Account | Person | int | None = None
    ) -> int:
        """Somebody (the default person) writes to the account in private; give the message's id.

        Sessions that are connected get the update; the others find it in the difference.
        """
        people = self.engine.world.people
        author = from_user if from_user is not None else next(iter(people))
        author_id = author if isinstance(author, int) else author.user_id
        if author_id in people and (person := people[author_id]).talked_to is not None:
            person.talked_to.add(account.user_id)
        return receive(self.engine, account, author_id, text).id
