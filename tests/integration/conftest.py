"""A whole supervisor against a local datacenter, in one process and over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.model import Account, Config, Proxy, Secret, Server, Settings, Telegram
from supervisor.daemon import Supervisor
from supervisor.datacenter import Datacenter
from supervisor.record import queries

LATENCY = 0.08
PERSON = 777
TOKENS = [f"11020154{n}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDs{n:03}" for n in range(60)]


async def until(
    condition: Callable[[], Any], seconds: float = 15.0, what: str | Callable[[], str] = ""
) -> Any:
    """Wait until `condition` gives something true; fail with its name, or what is said then, after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {(what() if callable(what) else what) or condition}")
        await asyncio.sleep(0.01)
    return result


@dataclass
class Call:
    """One call of the load: when it was made, how long it took, what came of it."""

    at: float
    took: float
    text: str
    error: BaseException | None = None


class Fleet:
    """Supervised bots on a datacenter of their own."""

    def __init__(
        self, dc: Datacenter, directory: Path, bots: int, proxies: tuple[Proxy, ...] = (), **settings: Any
    ) -> None:
        self.dc = dc
        self.bots = [dc.add_bot(TOKENS[n], first_name=f"Bot {n}") for n in range(bots)]
        self.names = [f"bot-{n}" for n in range(bots)]
        self.person = dc.add_person(PERSON, "Ann")
        server = Server(dc.host, dc.port, dc.dc_id, dc.public_key_pem)
        accounts = {
            name: Account(name, bot_token=Secret(TOKENS[n]), proxies=tuple(p.name for p in proxies))
            for n, name in enumerate(self.names)
        }
        self.config = Config(
            path=directory / "accounts.toml",
            telegram=Telegram(12345, Secret("a" * 32), server),
            settings=Settings(state_dir=directory / "state", **settings),
            proxies={proxy.name: proxy for proxy in proxies},
            accounts=accounts,
        )
        self.sup: Supervisor

    def change(self, name: str, **changes: Any) -> None:
        """Configure one account differently, before the start."""
        accounts = {**self.config.accounts, name: replace(self.config.accounts[name], **changes)}
        self.config = replace(self.config, accounts=accounts)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        """Start the supervisor, wait until every account is online, stop it at the end."""
        async with Supervisor(self.config) as sup:
            self.sup = sup
            async with asyncio.timeout(20):
                for name in self.names:
                    await sup.client(name)
            yield sup

    def account(self, name: str = "bot-0") -> dict[str, Any]:
        """One account's object of `status --json`."""
        return next(a for a in self.sup.status()["accounts"] if a["name"] == name)

    def state(self, name: str = "bot-0") -> str:
        """One account's state."""
        return str(self.account(name)["state"])

    async def load(self, seconds: float, every: float, name: str = "bot-0", tag: str = "m") -> list[Call]:
        """Send one message each `every` seconds for so long; wait for all answers."""
        client = await self.sup.client(name)
        calls: list[Call] = []

        async def one(text: str) -> None:
            begun = time.monotonic()
            error: BaseException | None = None
            try:
                await client.send_message(PERSON, text)
            except Exception as raised:
                error = raised
            calls.append(Call(begun, time.monotonic() - begun, text, error))

        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            n = 0
            while time.monotonic() - begun < seconds:
                group.create_task(one(f"{tag}-{n}"))
                n += 1
                await asyncio.sleep(max(0.0, begun + n * every - time.monotonic()))
        return calls

    async def rows(self, *, stalls: bool = False) -> list[dict[str, Any]]:
        """The recovery log so far, as `log --json` gives it; without this busy machine's stalls, unless asked for."""
        await asyncio.sleep(0.4)  # what has just come must be judged
        await self.sup._store._written()
        with queries.opened(self.config.settings.state_dir / "recovery.db") as db:
            assert db is not None
            rows = [row.json() for row in queries.log_rows(db, queries.LogFilter(), 10_000)]
        return [row for row in rows if stalls or row["error_id"] != "LOOP_STALLED"]


class ScriptedProxy:
    """A SOCKS5 proxy without a password that can be killed, hung and revived, and counts what it relays."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flow = asyncio.Event()
        self._flow.set()

    async def start(self) -> None:
        """Listen, again on the same port after `kill`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Stop listening and reset every connection."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    def hang(self) -> None:
        """Accept, and pass nothing on any longer."""
        self._flow.clear()

    def resume(self) -> None:
        """Pass on again, beginning with what was kept."""
        self._flow.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        self._writers.add(writer)
        try:
            await self._flow.wait()
            _, methods = await reader.readexactly(2)
            await reader.readexactly(methods)
            writer.write(b"\x05\x00")
            await reader.readexactly(3)
            kind = (await reader.readexactly(1))[0]
            assert kind == 1, "only IPv4 addresses are dialled in these tests"
            host = ".".join(str(byte) for byte in await reader.readexactly(4))
            port = int.from_bytes(await reader.readexactly(2), "big")
            there, out = await asyncio.open_connection(host, port)
            ends.append(out)
            self._writers.add(out)
            writer.write(b"\x05\x00\x00\x01" + bytes(6))
            self.connections += 1
            await asyncio.gather(self._pipe(reader, out), self._pipe(there, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # a client that leaves, or a killed proxy: what is counted is counted
        finally:
            for end in ends:
                end.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flow.wait()
            writer.write(data)
        writer.transport.abort()


@pytest.fixture
async def two_proxies() -> AsyncIterator[dict[str, ScriptedProxy]]:
    """Two running SOCKS5 proxies, by name."""
    proxies = {"de1": ScriptedProxy(), "nl3": ScriptedProxy()}
    for proxy in proxies.values():
        await proxy.start()
    yield proxies
    for proxy in proxies.values():
        await proxy.kill()


@pytest.fixture
async def dc() -> AsyncIterator[Datacenter]:
    """A datacenter at the latency of the field."""
    async with Datacenter(latency=LATENCY) as datacenter:
        yield datacenter


@pytest.fixture
def fleet(dc: Datacenter, tmp_path: Path) -> Callable[..., Fleet]:
    """Make a fleet of so many bots; keywords are `[supervisor]` settings."""
    return lambda bots=1, **options: Fleet(dc, tmp_path, bots, **options)
