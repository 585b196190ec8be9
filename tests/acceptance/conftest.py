"""The command as an operator has it: a process of its own, a real accounts.toml, a datacenter to talk to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from supervisor.control.client import ControlClient
from supervisor.control.protocol import ControlError
from supervisor.datacenter import Account, Datacenter
from supervisor.errors import NotRunning

ROOT = Path(__file__).parents[2]
LATENCY = 0.08
PERSON = 777
API_HASH = "c0ffee00c0ffee00c0ffee00c0ffee00"
# What a daemon says only where something of its own went wrong.
SLIPS = (
    "Traceback",
    "Task was destroyed",
    "never retrieved",
    "never awaited",
    "Exception ignored",
    "unexpected",
)

# Sends a numbered message every 50 ms, for ever.
SENDER = """
import asyncio, itertools
async def main(client):
    for n in itertools.count():
        await client.send_message(777, f"{client.name} {n}")
        await asyncio.sleep(0.05)
"""


async def until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """Wait until `condition` gives something true; fail with its name after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what or condition}")
        await asyncio.sleep(0.02)
    return result


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command: ours, without what would configure it, and with this tree importable."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("TG_SUPERVISOR_") and k != "NO_COLOR"}
    return own | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"} | dict(extra or {})


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its output, one JSON value."""
        return json.loads(self.out)

    def json_lines(self) -> list[dict[str, Any]]:
        """Its output, one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Process:
    """A running `tg-supervisor run`. Its output goes to files, so that no pipe can fill up."""

    def __init__(self, site: Site, args: tuple[str, ...], cwd: Path, number: int) -> None:
        self.site = site
        self.cwd = cwd
        self.before = stray(cwd)
        self._out = site.folder / "output" / f"{number}.out"
        self._err = site.folder / "output" / f"{number}.err"
        self._out.parent.mkdir(exist_ok=True)
        line = [sys.executable, "-m", "supervisor", "run", "-c", str(site.path), *args]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=environment(site.env)
            )
        self.pid = self.popen.pid

    @property
    def out(self) -> str:
        """Its standard output so far."""
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it has said so far."""
        return self._err.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.popen.send_signal(number)

    async def ended(self, seconds: float = 15.0) -> int:
        """Its exit code, once it has ended."""
        await until(lambda: not self.is_running, seconds, f"the daemon ends\n{self.err}")
        return self.popen.wait()

    async def stop(self, seconds: float = 10.0) -> float:
        """SIGTERM; the seconds that it took. Fails unless it ended in time, with 0, and left nothing behind."""
        begun = time.monotonic()
        self.signal(signal.SIGTERM)
        code = await self.ended(seconds)
        took = time.monotonic() - begun
        assert code == 0, self.err
        self.left_nothing()
        return took

    async def kill(self) -> None:
        """Kill -9."""
        self.signal(signal.SIGKILL)
        await self.ended()

    def left_nothing(self) -> None:
        """Fail if it wrote to stdout, complained of itself, or left anything that should not be there."""
        assert self.out == ""
        assert [slip for slip in SLIPS if slip in self.err] == [], self.err
        assert stray(self.cwd) == self.before
        assert not (self.site.state_dir / "control.sock").exists()

    async def accounts(self) -> dict[str, dict[str, Any]]:
        """The accounts' objects of `status`, by name; empty where it does not answer (yet)."""
        with suppress(NotRunning, ControlError):
            found = await asyncio.to_thread(ControlClient(self.site.state_dir).status)
            if found["pid"] == self.pid:
                return {account["name"]: account for account in found["accounts"]}
        return {}

    async def state(self, wanted: str = "online", *names: str, seconds: float = 25.0) -> dict[str, Any]:
        """The accounts, once those named (all, if none is) are in a state."""
        deadline = time.monotonic() + seconds
        while True:
            accounts = await self.accounts()
            if accounts and all(accounts[name]["state"] == wanted for name in names or accounts):
                return accounts
            if not self.is_running or time.monotonic() > deadline:
                states = {name: account["state"] for name, account in accounts.items()}
                pytest.fail(f"not {wanted} within {seconds:g} s: {states}\n{self.err}")
            await asyncio.sleep(0.05)


def stray(folder: Path) -> set[str]:
    """What lies in a working directory, besides Python's own caches."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


@dataclass
class Site:
    """An operator's directory: accounts.toml, the server's key, the bots' code, the state directory."""

    dc: Datacenter
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    proxies: dict[str, str] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)  # any others, by their names
    bots: dict[str, Account] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.etc = self.folder / "etc"
        self.cwd = self.folder / "cwd"
        self.state_dir = self.folder / "state"
        self.etc.mkdir()
        self.cwd.mkdir()
        self.dc.write_public_key(self.etc / "dc.pub.pem")
        if PERSON not in self.dc.engine.world.people:
            self.dc.add_person(PERSON, "Ann")

    @property
    def path(self) -> Path:
        """The configuration file."""
        return self.etc / "accounts.toml"

    def bot(self, name: str, **keys: Any) -> Account:
        """Configure a bot that the datacenter knows."""
        bot = self.bots[name] = self.dc.add_bot(first_name=name)
        self.accounts[name] = {"bot_token": bot.token, **keys}
        return bot

    def code(self, module: str, text: str) -> None:
        """Put a module, such as ``bots/support/hello``, beside the configuration file."""
        path = self.etc / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def write(self) -> Path:
        """Write accounts.toml. Nothing in it leads anywhere but to the local datacenter."""
        server = {
            "host": self.dc.host,
            "port": self.dc.port,
            "dc_id": self.dc.dc_id,
            "public_key": "dc.pub.pem",
        }
        lines = [
            *_table("telegram", {"api_id": 12345, "api_hash": API_HASH}),
            *_table("telegram.server", server),
            *_table("supervisor", {"state_dir": str(self.state_dir), **self.settings}),
        ]
        for name, url in self.proxies.items():
            lines += _table(f"proxies.{name}", {"url": url})
        for name, keys in self.accounts.items():
            lines += _table(f"accounts.{name}", keys)
        for name, keys in self.tables.items():
            lines += _table(name, keys)
        self.path.write_text("\n".join(lines) + "\n")
        self.path.chmod(0o600)
        return self.path

    def run(self, *args: str, cwd: Path | None = None) -> Process:
        """Start `tg-supervisor run`."""
        process = Process(self, args, cwd or self.cwd, len(self.processes))
        self.processes.append(process)
        return process

    @asynccontextmanager
    async def online(self, *args: str, cwd: Path | None = None) -> AsyncIterator[Process]:
        """Write the configuration, start the daemon, wait for its accounts; stop it cleanly at the end."""
        self.write()
        process = self.run(*args, cwd=cwd)
        await process.state("online")
        yield process
        if process.is_running:
            await process.stop()

    async def command(self, *args: str, cwd: Path | None = None) -> Ended:
        """Run another command to its end."""
        return await asyncio.to_thread(
            command, *args, "-c", str(self.path), cwd=cwd or self.cwd, env=self.env
        )

    async def log(self, *args: str) -> list[dict[str, Any]]:
        """The recovery log, by the command."""
        ended = await self.command("log", "--json", *args)
        assert ended.code == 0, ended.err
        return ended.json_lines()

    def kill_all(self) -> None:
        """Leave no process behind, whatever has failed."""
        for process in self.processes:
            if process.is_running:
                process.popen.kill()
            process.popen.wait(10)


def _table(name: str, keys: Mapping[str, Any]) -> list[str]:
    return ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]


def command(*args: str, cwd: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(env),
        timeout=30,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class MuteProxy:
    """Accepts connections and never says a word; counts them."""

    def __init__(self) -> None:
        self.accepted = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.append(writer)


def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def numbered(sent: list[Any]) -> list[int]:
    """The numbers at the ends of sent messages."""
    return [int(found[0]) for message in sent if (found := re.search(r"\d+$", message.text))]


@pytest.fixture
async def dc() -> AsyncIterator[Datacenter]:
    """A datacenter at the latency of the field."""
    async with Datacenter(latency=LATENCY) as datacenter:
        yield datacenter


@pytest.fixture
def new_site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Make operators' directories; no process of theirs outlives the test."""
    sites: list[Site] = []

    def make(dc: Datacenter, **more: Any) -> Site:
        sites.append(Site(dc, tmp_path_factory.mktemp("site"), **more))
        return sites[-1]

    yield make
    for site in sites:
        site.kill_all()


@pytest.fixture
def site(dc: Datacenter, new_site: Callable[..., Site]) -> Site:
    """One operator's directory."""
    return new_site(dc)
