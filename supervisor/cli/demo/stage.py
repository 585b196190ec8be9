"""Where the demo plays: a temporary directory, a datacenter in this process, the daemon as a process of its own."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import supervisor
from supervisor.cli.demo import chatter
from supervisor.cli.demo.cast import CAST, POOL, PROXIES, Role
from supervisor.cli.demo.relay import Relay
from supervisor.control.client import ControlClient
from supervisor.control.protocol import ControlError
from supervisor.datacenter import Account, Datacenter, library
from supervisor.errors import NotRunning, SupervisorError
from supervisor.record import queries
from supervisor.record.queries import LogFilter

_LATENCY = 0.08  # s, there and back: a round trip to Telegram in the field
_SIGNS_IN_WITHIN = 30.0  # s, of a slow machine
_STOPS_WITHIN = 12.0  # s; the daemon promises ten

_CONFIG = """\
[telegram]
api_id   = {api_id}
api_hash = "0123456789abcdef0123456789abcdef"

[telegram.server]                 # not Telegram: the demo's own datacenter
host       = "{host}"
port       = {port}
dc_id      = {dc_id}
public_key = "datacenter.pem"

[supervisor]
stable_after = 0.5                # the demo breaks things seconds apart: each is to be an incident of its own

[defaults]
main = "chatter:main"
"""
_PROXY = """
[proxies.{name}]
url  = "socks5://127.0.0.1:{port}"
pool = "{pool}"
"""
_USER, _OPERATOR = 500_000_001, 500_000_002  # ids
_SESSION_STRING = ">BI?256sQ?"  # both libraries' storage/storage.py
_API_ID = 12345


class DemoBroken(SupervisorError):
    """The demo itself could not go on: the daemon did not start, or ended."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an account's code: the caller's side of the story. `asked` is monotonic; `outcome` may be ``asked`` still."""

    asked: float
    outcome: str
    took: float | None = None
    error: str | None = None


class Stage:
    """The directory, the datacenter, the daemon; use `staged`."""

    def __init__(self, folder: Path, dc: Datacenter) -> None:
        self.folder = folder
        self.dc = dc
        self.cast = {role.name: self._account(role) for role in CAST}
        dc.add_person(_OPERATOR, "Operator", username=chatter.PERSON)
        self.logins = 0
        self._relays = {name: Relay() for name in PROXIES}
        self.config = folder / "accounts.toml"
        self._daemon: asyncio.subprocess.Process | None = None
        self._control = ControlClient(folder / "state")
        self._accounts: dict[str, dict[str, Any]] = {}  # as last seen
        self._row = 0

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the proxies, write the configuration and start the daemon on it."""
        for relay in self._relays.values():
            await relay.start()
        self._furnish()
        with (self.folder / "daemon.log").open("wb") as log:
            self._daemon = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "supervisor", "run", "-c", str(self.config)),
                cwd=self.folder,
                env=_environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the demo, which stops the daemon when it is done with it
            )
        _ = library.raw.functions  # loaded while the daemon loads it, too: it takes two seconds

    def _furnish(self) -> None:
        dc = self.dc
        dc.write_public_key(self.folder / "datacenter.pem")
        text = _CONFIG.format(api_id=_API_ID, host=dc.host, port=dc.port, dc_id=dc.dc_id)
        for name, relay in self._relays.items():
            text += _PROXY.format(name=name, port=relay.port, pool=POOL)
        text += "".join(map(self._configured, CAST))
        self.config.write_text(text, encoding="utf-8")
        code = Path(chatter.__file__)
        (self.folder / code.name).write_text(code.read_text(encoding="utf-8"), encoding="utf-8")

    def _account(self, role: Role) -> Account:
        if role.phone is None:
            return self.dc.add_bot(first_name=role.name)
        return self.dc.add_user(_USER, first_name=role.name, phone=role.phone)

    def _configured(self, role: Role) -> str:
        account = self.cast[role.name]
        keys = {"bot_token": account.token, "phone": role.phone, "proxy": role.proxy}
        if not account.is_bot:
            keys["session_string"] = self._session_string(account)
        lines = (f'{key} = "{value}"\n' for key, value in keys.items() if value is not None)
        return f"\n[accounts.{role.name}]\n{''.join(lines)}"

    def _session_string(self, user: Account) -> str:
        """A session on which a user is signed in, as one brings it along from Pyrogram."""
        fields = self.dc.dc_id, _API_ID, False, self.dc.issue_key(user), user.user_id, False
        packed = struct.pack(_SESSION_STRING, *fields)
        return base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")

    async def stop(self) -> int | None:
        """Stop the daemon as a service manager would; give its exit code."""
        if self._daemon is None:
            return None
        if self._daemon.returncode is None:
            self._daemon.terminate()
        try:
            return await asyncio.wait_for(self._daemon.wait(), _STOPS_WITHIN)
        except TimeoutError:
            self._daemon.kill()
            return await self._daemon.wait()

    # --- what is done ---------------------------------------------------------------------------------

    async def kill_proxy_of(self, name: str) -> None:
        """Kill the proxy that an account goes through."""
        await self._relays[self._accounts[name]["path"]].kill()

    async def kill_proxies(self) -> None:
        """Kill all of them: nothing of them is left."""
        for relay in self._relays.values():
            await relay.kill()

    async def revive_proxies(self) -> None:
        """Start what `kill_proxy_of` has killed."""
        for relay in self._relays.values():
            await relay.start()

    async def login(self, user: Account) -> None:
        """Sign a user account in, as a person does: by the command, with the code."""
        self.logins += 1
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "supervisor", "login", user.first_name, "-c", str(self.config)),
            cwd=self.folder,
            env=_environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_SIGNS_IN_WITHIN):
                _, said = await command.communicate(f"{user.code}\n".encode())
        except TimeoutError as error:
            raise DemoBroken(f"the login did not end within {_SIGNS_IN_WITHIN:g} s") from error
        finally:
            if command.returncode is None:
                command.kill()
                await command.wait()
        if command.returncode:
            text = said.decode(errors="replace").strip()
            raise DemoBroken(f"the login ended with exit code {command.returncode}:\n{text}")

    def enough(self) -> None:
        """Have the accounts' code ask for nothing more."""
        (self.folder / "enough").touch()

    # --- what is seen ---------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The daemon's process."""
        return None if self._daemon is None else self._daemon.pid

    def check_daemon(self) -> None:
        """Raise DemoBroken where the daemon has ended."""
        if self._daemon is not None and self._daemon.returncode is not None:
            raise DemoBroken(
                f"the daemon ended with exit code {self._daemon.returncode}:\n{self.last_words()}"
            )

    def last_words(self, lines: int = 15) -> str:
        """The end of the daemon's log."""
        text = (self.folder / "daemon.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    async def accounts(self) -> dict[str, dict[str, Any]]:
        """What `status` says of the accounts, by name; nothing while the daemon cannot be asked."""
        try:
            found = await asyncio.to_thread(self._control.status)
        except (NotRunning, ControlError):
            return {}
        self._accounts = {account["name"]: account for account in found["accounts"]}
        return self._accounts

    async def new_rows(self) -> list[dict[str, Any]]:
        """What `log` shows that it has not shown before."""
        return await asyncio.to_thread(self._new_rows)

    def _new_rows(self) -> list[dict[str, Any]]:
        with queries.opened(self.folder / "state" / "recovery.db") as db:
            if db is None:
                return []
            found = queries.log_rows(db, LogFilter(after_id=self._row), limit=-1)
        if found:
            self._row = found[-1].id
        return [row.json() for row in found]

    def calls(self) -> dict[str, list[Call]]:
        """What the accounts' code noted of its calls, by account."""
        return {name: self._calls(name) for name in self.cast}

    def _calls(self, name: str) -> list[Call]:
        path = self.folder / f"{name}.calls"
        if not path.exists():
            return []
        found: dict[str, Call] = {}
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):  # it is being written
                break
            number, asked, outcome, *rest = line.rstrip("\n").split(" ", 4)
            took = float(rest[0]) if rest else None
            found[number] = Call(float(asked), outcome, took, rest[1] if len(rest) > 1 else None)
        return list(found.values())


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """A stage with everything on it running; whatever happens, nothing of it is left behind."""
    with tempfile.TemporaryDirectory(prefix="tg-supervisor-demo-", ignore_cleanup_errors=True) as folder:
        async with Datacenter(latency=_LATENCY) as dc:
            stage = Stage(Path(folder), dc)
            try:
                await stage.start()
                yield stage
            finally:
                await stage.stop()
                await stage.kill_proxies()


def _environment() -> dict[str, str]:
    """This process's own, but for what would change the demo's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TG_SUPERVISOR_")}
    ours = str(Path(supervisor.__file__).parents[1])
    if ours == str(Path.cwd()):  # `python -m supervisor` in the tree itself; the daemon stands elsewhere
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (ours, kept.get("PYTHONPATH"))))
    return kept | {"DEMO_PID": str(os.getpid())}
