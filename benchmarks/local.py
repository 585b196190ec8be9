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
    """A bot that is signed in: whoever has its session file is online with one handshake less."""

    name: str
    user_id: int
    session_file: Path
    token: str


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
            db.execute("UPDATE sessions SET auth_key = ?, user_id = ?", (key, user_id))
        return Bot(name, user_id, path, added["token"])


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


def _bare_client(address: Address, name: str, directory: Path, proxy: int | None = None) -> Any:
    """The library's own client, pointed at the datacenter."""
    import pyrogram
    from pyrogram.connection import Connection, connection

    options: dict[str, Any] = {}
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
    address: Address, bots: Iterable[Bot], at_once: int = 20, proxy: int | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Bare clients, started from their session files, by name.

    Args:
        address: the datacenter.
        bots: whose clients.
        at_once: how many start side by side; with more of them their own two-second limit fails starts.
        proxy: the port of a local SOCKS5 proxy; they know no more than one.
    """
    turn = asyncio.Semaphore(at_once)
    clients = {bot.name: _bare_client(address, bot.name, bot.session_file.parent, proxy) for bot in bots}

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


@asynccontextmanager
async def supervised(
    address: Address, bots: Iterable[Bot], state_dir: Path, proxies: Sequence[int] = ()
) -> AsyncIterator[dict[str, Any]]:
    """Supervised clients of the same bots, online and initialized, by name.

    Args:
        address: the datacenter.
        bots: whose clients.
        state_dir: where the supervisor keeps what it keeps.
        proxies: the ports of local SOCKS5 proxies, the pool of all of them.
    """
    server = Server(address.host, address.port, address.dc_id, address.public_key_pem)
    pool = {f"proxy-{port}": Proxy(f"proxy-{port}", "socks5", "127.0.0.1", port) for port in proxies}
    accounts = {
        bot.name: Account(
            bot.name, bot_token=Secret(bot.token), session_file=bot.session_file, proxies=tuple(pool)
        )
        for bot in bots
    }
    config = Config(
        path=state_dir / "accounts.toml",
        telegram=Telegram(API_ID, Secret(API_HASH), server),
        settings=Settings(state_dir=state_dir, connect_budget=100_000, start_limit=100_000),
        proxies=pool,
        accounts=accounts,
    )
    async with Supervisor(config) as supervisor:
        clients = {name: await supervisor.client(name) for name in accounts}
        while not all(client.is_initialized for client in clients.values()):
            await asyncio.sleep(0.001)
        yield clients


def as_json(address: Address, bots: Iterable[Bot]) -> dict[str, Any]:
    """Address and bots for a worker."""
    return {
        "address": asdict(address),
        "bots": [{**asdict(bot), "session_file": str(bot.session_file)} for bot in bots],
    }


def from_json(given: dict[str, Any]) -> tuple[Address, list[Bot]]:
    """What `as_json` gave."""
    bots = [Bot(**{**bot, "session_file": Path(bot["session_file"])}) for bot in given["bots"]]
    return Address(**given["address"]), bots
