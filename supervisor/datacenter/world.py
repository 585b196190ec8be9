"""What the datacenter knows: accounts, people, chats, messages. Pure state: no I/O, no clock."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .keys import AuthKey
    from .srp import Password

_HASH_BITS = 63


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


@dataclass(slots=True, eq=False)
class Message:
    """A message in one account's box. `peer_id` is a user's id, or a chat's with a minus; `action` makes it a service
    message. `key_id` is the key that sent it with `random_id`.
    """

    id: int
    pts: int
    peer_id: int
    from_id: int
    date: int
    text: str = ""
    out: bool = False
    random_id: int = 0
    key_id: bytes = b""
    media: Any = None
    action: Any = None


@dataclass(slots=True, eq=False)
class Account:
    """An account that can sign in: a bot by its token, a user by a key made for it.

    `sign_in_error` is what auth.importBotAuthorization and auth.sendCode answer instead of signing in.
    `code_by_sms_after` is after how many seconds a code that was not entered may be had by SMS; None is never.
    """

    user_id: int
    first_name: str
    username: str | None
    token: str | None
    phone: str | None = None
    code: str = "12345"
    code_hash: str = ""
    code_by_sms_after: int | None = None
    password: Password | None = None
    sign_in_error: tuple[int, str] | None = None
    pts: int = 1
    messages: list[Message] = field(default_factory=list)
    by_id: dict[int, Message] = field(default_factory=dict)
    random_ids: dict[int, int] = field(default_factory=dict)
    peers: set[int] = field(default_factory=set)
    keys: set[AuthKey] = field(default_factory=set)
    commands: list[Any] = field(default_factory=list)

    @property
    def is_bot(self) -> bool:
        return self.token is not None

    def add_message(self, **fields: Any) -> Message:
        """Put a message into the box: it takes the next message id and the next pts."""
        self.pts += 1
        message = Message(id=len(self.messages) + 1, pts=self.pts, **fields)
        self.messages.append(message)
        self.by_id[message.id] = message
        self.peers.add(message.peer_id)
        if message.random_id:
            self.random_ids[message.random_id] = message.id
        return message

    def since(self, pts: int) -> list[Message]:
        """The messages after a pts, oldest first. Each message took one pts, the first of them 2."""
        return self.messages[max(0, pts - 1) :]


class World:
    """All accounts, people and chats, by id."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._hashes: dict[tuple[int, int], int] = {}
        self._next_chat = 1000
        self.accounts: dict[int, Account] = {}
        self.people: dict[int, Person] = {}
        self.chats: dict[int, Chat] = {}

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

    def access_hash(self, viewer_id: int, user_id: int) -> int:
        """The hash by which one account addresses a user; every account has another one."""
        pair = viewer_id, user_id
        if pair not in self._hashes:
            self._hashes[pair] = self._source.getrandbits(_HASH_BITS) | 1
        return self._hashes[pair]

    def add_chat(self, title: str, creator_id: int, members: list[int], date: int) -> Chat:
        self._next_chat += 1
        chat = Chat(self._next_chat, title, creator_id, members, date)
        self.chats[chat.chat_id] = chat
        return chat
