"""The hand on the datacenter: what a test, a demo or a benchmark does to it while it runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .engine import Reception
from .faults import Fault, FaultKind
from .forms import Form
from .keys import AuthKey
from .library import raw, serialize
from .post import delete, edit, found_supergroup, post
from .render import updates
from .world import Account, Person

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .connection import Connection
    from .engine import Engine
    from .world import Channel, Chat

_REVOKED = 401, "SESSION_REVOKED"
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

    def receive_new(self, how: Reception | str) -> None:
        """What is done to connections that come in from now on: "serve", "close", "reset", or "silent" for ever."""
        self.engine.reception = Reception(how)

    def stop_reading(self, account: Account | int | None = None) -> None:
        """Read nothing more of the connections: the client's sends block as soon as the buffers between are full."""
        self.engine.unread.add(_id(account))
        for connection in self._links(account):
            connection.pause()

    def read_again(self, account: Account | int | None = None) -> None:
        """End `stop_reading` for the same account (for everybody with None)."""
        if account is None:
            self.engine.unread.clear()
        self.engine.unread.discard(_id(account))
        for connection in self._links(account):
            connection.resume()

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
        for key in account.keys:  # of every datacenter
            key.rejection = _BANNED

    def kill_token(self, account: Account, *, revoke: bool = True) -> None:
        """The bot's token was replaced: signing in with it fails, and (with `revoke`) so do its sessions."""
        account.sign_in_error = _EXPIRED
        for key in account.keys if revoke else ():
            key.rejection = _REVOKED

    def issue_key(self, account: Account) -> bytes:
        """A fresh authorization key on which the account is signed in: 256 bytes, for a session string or storage."""
        key = AuthKey(os.urandom(256), os.urandom(8))
        key.sign_in(account)
        self.engine.keys.add(key)
        return key.key

    def access_hash(self, account: Account, peer: Account | Person | Channel) -> int:
        """The hash by which `account` addresses a user or a supergroup."""
        peer_id = peer.user_id if isinstance(peer, Account | Person) else peer.peer_id
        return self.engine.world.access_hash(account.user_id, peer_id)

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

    def add_supergroup(
        self, title: str, members: Iterable[Account | Person], *, creator: Account | Person | None = None
    ) -> Channel:
        """A supergroup with these members and its creator (the default person); they are told of it."""
        made_by = creator if creator is not None else next(iter(self.engine.world.people.values()))
        return found_supergroup(self.engine, title, made_by.user_id, [user.user_id for user in members])

    def push_message(
        self,
        account: Account,
        text: str,
        from_user: Account | Person | int | None = None,
        *,
        chat: Chat | Channel | None = None,
        form: Form | str = Form.UPDATES,
    ) -> int:
        """Somebody (the default person) writes to the account in private, or with `chat` in a group of which both
        are members; give the message's id, in the account's box or the supergroup's.

        Sessions that are connected get the update, wrapped as `form` says; the others find it in the difference.
        """
        people = self.engine.world.people
        author = from_user if from_user is not None else next(iter(people))
        author_id = author if isinstance(author, int) else author.user_id
        if chat is not None and not {account.user_id, author_id} <= set(chat.members):
            raise ValueError(f"{account.user_id} and {author_id} are not both members of {chat.title}")
        if author_id in people and (person := people[author_id]).talked_to is not None:
            person.talked_to.add(account.user_id)
        peer_id = account.user_id if chat is None else chat.peer_id
        made = post(self.engine, author_id, peer_id, text=text, form=Form(form))
        in_reach = self.engine.world.box(account, peer_id)
        return next(event.message.id for event in made if event.message.id in in_reach.messages)

    def edit_message(self, account: Account, message_id: int, text: str, chat: Channel | None = None) -> None:
        """The author of a message in the account's box, or in a supergroup, changes it."""
        message = (account if chat is None else chat).messages.get(message_id)
        if message is None:
            raise ValueError(f"there is no message {message_id}")
        edit(self.engine, message, text=text)

    def delete_messages(self, account: Account, ids: list[int], chat: Channel | None = None) -> None:
        """Messages in the account's box, or in a supergroup, are deleted for everybody."""
        delete(self.engine, account if chat is None else chat, ids, everywhere=True)

    def updates_too_long(self, account: Account) -> int:
        """Push updatesTooLong: the client has to ask for the difference. Give how many sessions got it."""
        return self.engine.push(account.user_id, serialize(raw.types.UpdatesTooLong()))

    def channel_too_long(self, account: Account, channel: Channel) -> int:
        """Push updateChannelTooLong: the client has to ask for the channel's difference. Give how many got it."""
        told = raw.types.UpdateChannelTooLong(channel_id=channel.channel_id, pts=channel.pts)
        update = updates(self.engine.world, account, [told], [], self.engine.date(), channel.peer_id)
        return self.engine.push(account.user_id, serialize(update))

    def push_undecryptable(self, account: Account) -> int:
        """Send the account's sessions a packet that no key opens; give how many got it."""
        return self.engine.disturb(account.user_id, None)

    def push_unknown(self, account: Account, constructor: int = 0xDEADBEEF) -> int:
        """Send the account's sessions a message that begins with a number of no known layer; give how many got it."""
        return self.engine.disturb(account.user_id, constructor.to_bytes(4, "little") + bytes(12))

    def stop_updates(self, account: Account | int | None = None) -> None:
        """Push nothing any more until `resume_updates`, while queries are answered; what is lost lies in the
        difference only.
        """
        self.engine.losses.stop(_id(account))

    def forget_updates(self, account: Account) -> None:
        """Push nothing to the account until it calls updates.getState or getDifference: the server takes it for one
        that sleeps, as it does with clients that have long asked nothing.
        """
        self.engine.losses.stop_until_asked(account.user_id)

    def resume_updates(self, account: Account | int | None = None) -> None:
        """Push again; with None to everybody, whatever else was said."""
        self.engine.losses.resume(_id(account))

    def drop_updates(self, count: int, account: Account | int | None = None) -> None:
        """Lose the next pushes that would reach a session."""
        self.engine.losses.drop(_id(account), count)
