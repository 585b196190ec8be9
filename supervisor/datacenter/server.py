"""The datacenter as a thing to start, to break and to ask."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .connection import Connection
from .controls import Controls
from .engine import Engine, Settings
from .rsa import RsaKey, generate
from .srp import Password
from .world import Account, Person

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from .counts import Seen
    from .faults import Faults
    from .files import StoredFile
    from .shared import Shared

_BACKLOG = 4096
DEFAULT_PERSON = 700_000_001


@lru_cache(maxsize=1)
def _process_key() -> RsaKey:
    """One RSA key for all datacenters of a process: making one takes a tenth of a second."""
    return generate(random.SystemRandom())


class Datacenter(Controls):
    """A local Telegram datacenter.

    State (keys, accounts, sessions, messages) belongs to the object and survives `go_away` and `come_back`.

    Arguments:
        host, port: where to listen; port 0 takes a free one.
        dc_id: the number that help.getConfig tells.
        latency: round trip in seconds, half of it each way.
        seed: makes access hashes, file ids and pq repeatable; None draws from the system.
        rsa_key: the server's key; None takes one that is made once per process.
        send_limit: messages.send* that one account may call per second, 0 for no limit.
        strict_overlap: whether queries over two connections of one key kill the key even where the MTProto sessions
            differ. False is for bare clients, which open media sessions beside the main one.
        api_id: the only api_id that is accepted, or None.
        shared: what it has in common with other datacenters; made by `Cluster`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        dc_id: int = 2,
        latency: float = 0.0,
        seed: int | None = None,
        *,
        rsa_key: RsaKey | None = None,
        send_limit: int = 30,
        strict_overlap: bool = True,
        api_id: int | None = None,
        shared: Shared | None = None,
    ) -> None:
        settings = Settings(dc_id, send_limit, strict_overlap, api_id)
        super().__init__(Engine(rsa_key or _process_key(), settings, seed, latency, shared))
        self.host, self.port = host, port
        self._server: asyncio.Server | None = None
        self._kept: socket.socket | None = None  # holds the port while away
        known = self.engine.world.people.get(DEFAULT_PERSON)
        self.person = known if known is not None else self.add_person(DEFAULT_PERSON, "Ada")

    # -- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Datacenter:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to listen."""
        await self.come_back()

    async def stop(self) -> None:
        """Stop listening and reset every connection."""
        await self.go_away()
        self._give_up_port()

    async def go_away(self) -> None:
        """Close the listener and reset all links: connects are refused until `come_back`."""
        server, self._server = self._server, None
        self.engine.is_away = True
        if server is not None:
            family = server.sockets[0].family
            server.close()
            # Bound and not listening: connects are refused, and nobody's outgoing connection is given the port meanwhile.
            self._kept = socket.socket(family)
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._kept.bind((self.host, self.port))
        self.reset_links()
        await asyncio.sleep(0)

    def _give_up_port(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    async def come_back(self) -> None:
        """Listen again, on the same port. Nothing happens where it listens already."""
        if self._server is not None:
            return
        self.engine.is_away = False
        self._give_up_port()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self.engine), self.host, self.port, backlog=_BACKLOG, reuse_address=True
        )
        self.host, self.port = self._server.sockets[0].getsockname()[:2]
        self.engine.shared.addresses[self.dc_id] = self.host, self.port

    @contextlib.asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """`go_away` for the length of a block."""
        await self.go_away()
        try:
            yield
        finally:
            await self.come_back()

    # -- what it is -----------------------------------------------------------------------------------------------

    @property
    def dc_id(self) -> int:
        return self.engine.settings.dc_id

    @property
    def public_key_pem(self) -> str:
        """The server's public RSA key, PKCS#1 PEM."""
        return self.engine.rsa.pem

    def write_public_key(self, path: str | Path) -> Path:
        """Write `public_key_pem` to a file."""
        written = Path(path)
        written.write_text(self.public_key_pem, encoding="ascii")
        return written

    @property
    def fingerprint(self) -> int:
        """The RSA key's MTProto fingerprint, signed, as client libraries key their tables."""
        return self.engine.rsa.fingerprint

    @property
    def rsa_modulus(self) -> int:
        return self.engine.rsa.modulus

    @property
    def seen(self) -> Seen:
        """What the server saw."""
        return self.engine.seen

    @property
    def faults(self) -> Faults:
        """The scripted faults in force."""
        return self.engine.faults

    @property
    def latency(self) -> float:
        """Round trip in seconds; may be changed at any time."""
        return self.engine.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self.engine.latency = seconds

    @property
    def clock_offset(self) -> float:
        """Seconds by which the server's clock is ahead of the machine's."""
        return self.engine.clock_offset

    @clock_offset.setter
    def clock_offset(self, seconds: float) -> None:
        self.engine.clock_offset = seconds

    @property
    def send_limit(self) -> int:
        """messages.send* that one account may call per second; 0 for no limit."""
        return self.engine.settings.send_limit

    @send_limit.setter
    def send_limit(self, limit: int) -> None:
        self.engine.settings.send_limit = limit

    # -- who is there ---------------------------------------------------------------------------------------------

    def add_bot(
        self, token: str | None = None, *, first_name: str = "Bot", username: str | None = None
    ) -> Account:
        """A bot that can sign in with `token`, the number before the colon being its user id."""
        if token is None:
            token = f"{next(self.engine.shared.bot_ids)}:{self.engine.source.getrandbits(128):032x}"
        user_id = int(token.partition(":")[0])
        return self.engine.world.add_account(
            Account(user_id, first_name, username or f"bot{user_id}_bot", token, self.dc_id)
        )

    def add_user(
        self,
        user_id: int,
        *,
        first_name: str = "User",
        username: str | None = None,
        phone: str | None = None,
        code: str = "12345",
        password: str | None = None,
    ) -> Account:
        """A user account. It signs in by `phone` with `code` and `password`, or is given a key with `issue_key`."""
        digits = None if phone is None else "".join(filter(str.isdecimal, phone))
        kept = None if password is None else Password.of(password)
        account = Account(
            user_id, first_name, username, None, self.dc_id, phone=digits, code=code, password=kept
        )
        return self.engine.world.add_account(account)

    def add_file(self, content: bytes) -> StoredFile:
        """A file that lies here, as another account may have sent it."""
        return self.engine.files.add(content, self.dc_id)

    def add_person(
        self,
        user_id: int,
        first_name: str = "Ada",
        *,
        username: str | None = None,
        talked_to: set[int] | None = None,
    ) -> Person:
        """Somebody to write to. `talked_to` are the bots who may address them; None is all bots.

        A client with nothing in its storage writes to them by the bare id: ``send_message(person.user_id, …)`` asks
        users.getUsers with access hash 0, as both libraries do. A raw query takes `access_hash`.
        """
        return self.engine.world.add_person(Person(user_id, first_name, username, talked_to))
