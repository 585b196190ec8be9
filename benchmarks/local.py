"""Both sides of a benchmark: the datacenter in a process of its own, and clients of either kind on it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import script
from supervisor.config.model import Account, Config, Proxy, Secret, Server, Settings, Telegram
from supervisor.daemon import Supervisor
from supervisor.telegram.keyexchange import public_key_from_pem

API_ID, API_HASH = 12345, "a" * 32


@dataclass(frozen=True, slots=True)
class Address:
    """Where the datacenter is; `person` is somebody whom every bot may write to."""

    host: str
    port: int
    dc_id: int
    public_key_pem: str
    person: int


@dataclass(frozen=True, slots=True)
class Bot:
    """A bot. With a session file it is signed in already; without one its client makes a key and signs in first."""

    name: str
    user_id: int
    token: str
    session_file: Path | None = None


class LocalDatacenter:
    """A running `python -m supervisor.datacenter`."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self.address = Address(**{name: ready[name] for name in Address.__slots__})

    @classmethod
    @asynccontextmanager
    async def running(
        cls, *, latency: float = 0.0, send_limit: int | None = None
    ) -> AsyncIterator[LocalDatacenter]:
        """Start it, and stop it at the end.

        Args:
            latency: round trip in seconds.
            send_limit: messages a second and account; 0 for no limit, None for Telegram's.
        """
        limit = () if send_limit is None else ("--send-limit", str(send_limit))
        command = (
            "-m",
            "supervisor.datacenter",
            "--bots",
            "0",
            "--loose-overlap",
            "--latency",
            str(latency),
            *limit,
        )
        async with script.child(*command, limit=1 << 26) as process:
            assert process.stdout is not None
            yield cls(process, json.loads(await process.stdout.readline()))

    async def do(self, name: str, **arguments: Any) -> Any:
        """Have one command carried out (`supervisor/datacenter/commands.py`)."""
        assert self._process.stdin is not None and self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps({"do": name, **arguments}).encode() + b"\n")
            answer = json.loads(await self._process.stdout.readline())
        if not answer["ok"]:
            raise RuntimeError(f"{name}: {answer['error']}")
        return answer["result"]

    async def bot(self, name: str, directory: Path) -> Bot:
        """Make a bot and a session file for it."""
        added = await self.do("add_bot")
        user_id = added["user_id"]
        key = bytes.fromhex(await self.do("issue_key", account=user_id))
        template, path = directory / "template.session", directory / f"{name}.session"
        if not template.exists():
            await _write_session(self.address, template)
        shutil.copy(template, path)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("PRAGMA synchronous = OFF")
            db.execute("UPDATE sessions SET auth_key = ?, user_id = ?", (key, user_id))
        return Bot(name, user_id, added["token"], path)

    async def new_bot(self, name: str) -> Bot:
        """Make a bot that nobody has signed in yet."""
        added = await self.do("add_bot")
        return Bot(name, added["user_id"], added["token"])


async def _write_session(address: Address, path: Path) -> None:
    """A session file as the installed library itself writes one."""
    storage = _bare_client(address, path.stem, path.parent).storage
    await storage.open()
    values: dict[str, Any] = {
        "dc_id": address.dc_id,
        "server_address": address.host,
        "port": address.port,
        "api_id": API_ID,
        "test_mode": False,
        "auth_key": bytes(256),
        "user_id": 1,
        "is_bot": True,
        "date": 0,
    }
    for field, value in values.items():
        if hasattr(storage, field):  # Pyrogram keeps no address
            await getattr(storage, field)(value)
    await storage.save()
    await storage.close()


def _bare_client(
    address: Address, name: str, directory: Path, proxy: int | None = None, token: str | None = None
) -> Any:
    """The library's own client, pointed at the datacenter, whose key it knows for Telegram's."""
    import pyrogram
    from pyrogram.connection import Connection, connection
    from pyrogram.crypto import rsa

    key = public_key_from_pem(address.public_key_pem)
    rsa.server_public_keys[key.fingerprint] = rsa.PublicKey(key.n, key.e)
    options: dict[str, Any] = {"bot_token": token}
    if proxy is not None:
        options["proxy"] = {"scheme": "socks5", "hostname": "127.0.0.1", "port": proxy}
    if hasattr(connection, "DataCenter"):  # Pyrogram looks addresses up in a table
        connection.DataCenter = lambda *_: (address.host, address.port)
    else:  # Kurigram takes a factory
        options["connection_factory"] = lambda **given: Connection(
            **{**given, "server_address": address.host, "port": address.port}
        )
    return pyrogram.Client(name, api_id=API_ID, api_hash=API_HASH, workdir=str(directory), **options)


@asynccontextmanager
async def bare(
    address: Address,
    bots: Iterable[Bot],
    at_once: int = 20,
    proxy: int | None = None,
    directory: Path = Path(),
) -> AsyncIterator[dict[str, Any]]:
    """Bare clients, started, by name.

    Args:
        address: the datacenter.
        bots: whose clients.
        at_once: how many start side by side; with more of them their own two-second limit fails starts.
        proxy: the port of a local SOCKS5 proxy; they know no more than one.
        directory: where those that have no session file make one.
    """
    turn = asyncio.Semaphore(at_once)

    def client_of(bot: Bot) -> Any:
        where = directory if bot.session_file is None else bot.session_file.parent
        return _bare_client(address, bot.name, where, proxy, bot.token)

    clients = {bot.name: client_of(bot) for bot in bots}

    async def start(client: Any) -> None:
        async with turn:
            await client.start()

    try:
        async with asyncio.TaskGroup() as group:
            for client in clients.values():
                group.create_task(start(client))
        yield clients
    finally:
        # Of what a fault has left of them, stop() may raise what the session once died of.
        stops = (client.stop() for client in clients.values() if client.is_connected)
        await asyncio.gather(*stops, return_exceptions=True)


def configured(
    address: Address, bots: Iterable[Bot], state_dir: Path, proxies: Sequence[int] = (), **settings: Any
) -> Config:
    """What a supervisor of these bots goes by.

    Args:
        address: the datacenter.
        bots: whose clients.
        state_dir: where the supervisor keeps what it keeps.
        proxies: the ports of local SOCKS5 proxies, the pool of all of them.
        settings: `[supervisor]` keys; `connect_budget` and `start_limit` are lifted unless they are among them.
    """
    server = Server(address.host, address.port, address.dc_id, address.public_key_pem)
    pool = {f"proxy-{port}": Proxy(f"proxy-{port}", "socks5", "127.0.0.1", port) for port in proxies}
    accounts = {
        bot.name: Account(
            bot.name, bot_token=Secret(bot.token), session_file=bot.session_file, proxies=tuple(pool)
        )
        for bot in bots
    }
    lifted = {"connect_budget": 100_000, "start_limit": 100_000}
    return Config(
        path=state_dir / "accounts.toml",
        telegram=Telegram(API_ID, Secret(API_HASH), server),
        settings=Settings(state_dir=state_dir, **{**lifted, **settings}),
        proxies=pool,
        accounts=accounts,
    )


@asynccontextmanager
async def supervised(
    address: Address, bots: Iterable[Bot], state_dir: Path, proxies: Sequence[int] = (), **settings: Any
) -> AsyncIterator[dict[str, Any]]:
    """Supervised clients of the same bots, online and initialized, by name; arguments as `configured` takes them."""
    async with Supervisor(configured(address, bots, state_dir, proxies, **settings)) as supervisor:
        yield await online(supervisor)


async def online(supervisor: Supervisor) -> dict[str, Any]:
    """The clients of all accounts, by name, as soon as they are initialized."""
    names = [account["name"] for account in supervisor.status()["accounts"]]
    clients = {name: await supervisor.client(name) for name in names}
    while not all(client.is_initialized for client in clients.values()):
        await asyncio.sleep(0.001)
    return clients


def as_json(address: Address, bots: Iterable[Bot]) -> dict[str, Any]:
    """Address and bots for a worker."""
    return {
        "address": asdict(address),
        "bots": [{**asdict(bot), "session_file": bot.session_file and str(bot.session_file)} for bot in bots],
    }


def from_json(given: dict[str, Any]) -> tuple[Address, list[Bot]]:
    """What `as_json` gave."""
    paths = (bot["session_file"] and Path(bot["session_file"]) for bot in given["bots"])
    bots = [Bot(**{**bot, "session_file": path}) for bot, path in zip(given["bots"], paths, strict=True)]
    return Address(**given["address"]), bots
