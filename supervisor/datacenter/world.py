"""What the datacenter knows: accounts, people, chats, messages. Pure state: no I/O, no clock."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .box import Box, NewMessage

if TYPE_CHECKING:
    from .keys import AuthKey
    from .srp import Password

_HASH_BITS = 63
_CHANNELS_FROM = 10**12
_FIRST_CHANNEL = 1_600_000_001


def marked(channel_id: int) -> int:
    """The id by which a channel is told from users (above zero) and basic groups (just below)."""
    return -_CHANNELS_FROM - channel_id


def unmarked(peer_id: int) -> int:
    """A channel's own id, of the marked one."""
    return -_CHANNELS_FROM - peer_id


def is_channel(peer_id: int) -> bool:
    """Whether a marked id is a channel's."""
    return peer_id < -_CHANNELS_FROM


@dataclass(slots=True, eq=False)
class Person:
    """Somebody who can be written to. `talked_to` is None for somebody who has talked to every bot."""

    user_id: int
    first_name: str
    username: str | None = None
    talked_to: set[int] | None = None


@dataclass(slots=True, eq=False)
class Chat:
    """A basic group."""

    chat_id: int
    title: str
    creator_id: int
    members: list[int]
    date: int

    @property
    def peer_id(self) -> int:
        return -self.chat_id


@dataclass(slots=True, eq=False)
class Channel(Box):
    """A supergroup, or with `is_broadcast` a channel: one box for all members.

    Bots that are members have their privacy mode off: they get what people write, and nothing of other bots.
    """

    channel_id: int
    title: str
    creator_id: int
    members: dict[int, None]
    date: int
    about: str = ""
    is_broadcast: bool = False

    @property
    def peer_id(self) -> int:
        return marked(self.channel_id)


@dataclass(slots=True, eq=False)
class Account(Box):
    """An account that can sign in: a bot by its token, a user by a key made for it. `home` is its datacenter.

    `sign_in_error` is what auth.importBotAuthorization and auth.sendCode answer instead of signing in.
    `code_by_sms_after` is after how many seconds a code that was not entered may be had by SMS; None is never.
    """

    user_id: int
    first_name: str
    username: str | None
    token: str | None
    home: int = 2
    phone: str | None = None
    code: str = "12345"
    code_hash: str = ""
    code_by_sms_after: int | None = None
    password: Password | None = None
    sign_in_error: tuple[int, str] | None = None
    seq: int = 1
    random_ids: dict[int, int] = field(default_factory=dict)
    peers: set[int] = field(default_factory=set)
    read_up_to: dict[int, int] = field(default_factory=dict)
    keys: set[AuthKey] = field(default_factory=set)
    commands: list[Any] = field(default_factory=list)

    @property
    def is_bot(self) -> bool:
        return self.token is not None

    def add_message(self, **fields: Any) -> NewMessage:
        """Put a message into the box; whoever it is from can be addressed from now on."""
        event = Box.add_message(
            self, **fields
        )  # a class with slots is made twice: super() would mean the first
        self.peers.add(event.message.peer_id)
        if event.message.random_id:
            self.random_ids[event.message.random_id] = event.message.id
        return event


class World:
    """All accounts, people and chats, by id."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._hashes: dict[tuple[int, int], int] = {}
        self._next_chat = 1000
        self.accounts: dict[int, Account] = {}
        self.people: dict[int, Person] = {}
        self.chats: dict[int, Chat] = {}
        self.channels: dict[int, Channel] = {}

    def add_account(self, account: Account) -> Account:
        if account.user_id in self.accounts or account.user_id in self.people:
            raise ValueError(f"{account.user_id} exists already")
        self.accounts[account.user_id] = account
        return account

    def add_person(self, person: Person) -> Person:
        if person.user_id in self.accounts or person.user_id in self.people:
            raise ValueError(f"{person.user_id} exists already")
        self.people[person.user_id] = person
        return person

    def by_token(self, token: str) -> Account | None:
        user_id = token.partition(":")[0]
        account = self.accounts.get(int(user_id)) if user_id.isdecimal() else None
        return account if account is not None and account.token == token else None

    def by_phone(self, phone: str) -> Account | None:
        """The account with this number, however it is spelled."""
        digits = "".join(filter(str.isdecimal, phone))
        return next(
            (account for account in self.accounts.values() if digits and account.phone == digits), None
        )

    def find_user(self, user_id: int) -> Account | Person | None:
        return self.accounts.get(user_id) or self.people.get(user_id)

    def by_username(self, username: str) -> Account | Person | None:
        wanted = username.lower()
        users: list[Account | Person] = [*self.people.values(), *self.accounts.values()]
        for user in users:
            if user.username is not None and user.username.lower() == wanted:
                return user
        return None

    def knows(self, account: Account, user_id: int) -> bool:
        """Whether `account` may address a user without an access hash: itself, or one who has talked to it."""
        person = self.people.get(user_id)
        if person is None:
            return user_id == account.user_id or user_id in account.peers
        return person.talked_to is None or account.user_id in person.talked_to

    def access_hash(self, viewer_id: int, peer_id: int) -> int:
        """The hash by which one account addresses a user or a channel; every account has another one."""
        pair = viewer_id, peer_id
        if pair not in self._hashes:
            self._hashes[pair] = self._source.getrandbits(_HASH_BITS) | 1
        return self._hashes[pair]

    def add_chat(self, title: str, creator_id: int, members: list[int], date: int) -> Chat:
        self._next_chat += 1
        chat = Chat(self._next_chat, title, creator_id, members, date)
        self.chats[chat.chat_id] = chat
        return chat

    def add_channel(
        self, title: str, creator_id: int, members: list[int], date: int, **about: Any
    ) -> Channel:
        channel_id = _FIRST_CHANNEL + len(self.channels)
        everybody = dict.fromkeys([creator_id, *members])
        channel = Channel(channel_id, title, creator_id, everybody, date, **about)
        self.channels[channel_id] = channel
        return channel

    def channel(self, peer_id: int) -> Channel:
        """The channel of a marked id."""
        return self.channels[unmarked(peer_id)]

    def box(self, account: Account, peer_id: int) -> Box:
        """The box in which an account finds its messages with a peer."""
        return self.channel(peer_id) if is_channel(peer_id) else account
