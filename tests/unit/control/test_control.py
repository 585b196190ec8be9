from __future__ import annotations

import asyncio
import json
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from supervisor.control import address, protocol
from supervisor.control.client import ControlClient
from supervisor.control.protocol import SOCKET, ControlError
from supervisor.control.server import ROUTES, ControlServer, Route
from supervisor.core.codes import CODES, NAMES
from supervisor.errors import ConfigError, LoginRefused, NotRunning
from supervisor.ports import Control
from supervisor.reload import Reloaded
from supervisor.telegram.login_words import _REFUSALS


class Daemon:
    """Stands in for the daemon."""

    def __init__(self) -> None:
        self.accounts: list[dict[str, Any]] = [{"name": "support-bot", "state": "online"}]
        self.mistakes: list[str] = []

    def status(self) -> dict[str, Any]:
        return {"schema": 1, "accounts": self.accounts}

    async def status_json(self) -> str:
        return json.dumps(self.status())

    async def pause(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        return [{"name": name, "state": "paused", "changed": True} for name in accounts]

    async def resume(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        return [{"name": name, "state": "starting", "changed": True} for name in accounts]

    retry = resume

    async def rotate(self, accounts: Sequence[str], to: str | None = None) -> list[dict[str, Any]]:
        return [{"name": name, "path": to} for name in accounts]

    async def reload(self) -> Reloaded:
        if self.mistakes:
            raise ConfigError(self.mistakes)
        return Reloaded(added=("new",), untouched=3)

    async def login(self, account: str, step: str, text: str) -> Mapping[str, Any]:
        if text == "no":
            raise LoginRefused("flood", f"{account}: wait", wait=30.0)
        return {"account": account, "next": step}


def refuse(_: Control, body: Mapping[str, Any]) -> Mapping[str, Any]:
    raise ControlError("unknown_account", "no account is called x", retryable=True, context=body, status=404)


async def slow(_: Control, body: Mapping[str, Any]) -> Mapping[str, Any]:
    await asyncio.sleep(body.get("seconds", 0.0))
    return {"slept": True}


def broken(_: Control, __: Mapping[str, Any]) -> Mapping[str, Any]:
    raise RuntimeError("secret 123456:TOKEN")


MORE = (
    *ROUTES,
    Route("POST", "refuse", refuse),
    Route("POST", "slow", slow),
    Route("POST", "broken", broken),
)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def temporary_files() -> int:
    return len(list(Path("/tmp").glob("tgs-*")))


async def ask(client: ControlClient, *args: Any) -> dict[str, Any]:
    return await asyncio.to_thread(client.request, *args)


async def test_status_crosses_the_socket(tmp_path: Path) -> None:
    """The client gets the object that the daemon gave, non-ASCII names included."""
    daemon = Daemon()
    daemon.accounts.append({"name": "поддержка"})
    async with ControlServer(tmp_path / SOCKET, daemon):
        assert await asyncio.to_thread(ControlClient(tmp_path).status) == daemon.status()


@pytest.mark.parametrize("linked", [False, True])
async def test_a_path_longer_than_the_kernel_takes_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    """A state directory 300 bytes deep has its socket in it, with /proc and without, and leaves nothing behind."""
    if linked:
        monkeypatch.setattr(address, "_FDS", Path("/nowhere"))
    state_dir = tmp_path.joinpath(*["a" * 50] * 6)
    state_dir.mkdir(parents=True)
    before = open_files(), temporary_files()
    with address.short(state_dir / SOCKET) as name:
        assert len(name) <= 103
    assert (open_files(), temporary_files()) == before
    async with ControlServer(state_dir / SOCKET, Daemon()):
        assert stat.S_ISSOCK((state_dir / SOCKET).stat().st_mode)
        assert (await ask(ControlClient(state_dir), "GET", "status"))["schema"] == 1
    assert not (state_dir / SOCKET).exists()


async def test_the_socket_is_the_owners_alone(tmp_path: Path) -> None:
    """control.sock is 0600."""
    async with ControlServer(tmp_path / SOCKET, Daemon()):
        assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o600


async def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    """A socket that a killed daemon left is no hindrance, and until then nobody takes it for a running one."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / SOCKET))
        dead.listen()
    with pytest.raises(NotRunning):
        ControlClient(tmp_path).status()
    async with ControlServer(tmp_path / SOCKET, Daemon()):
        assert (await ask(ControlClient(tmp_path), "GET", "status"))["schema"] == 1


async def test_what_is_no_socket_is_not_deleted(tmp_path: Path) -> None:
    """A file in the socket's place is named as a problem, and stays."""
    (tmp_path / SOCKET).write_text("precious")
    with pytest.raises(ConfigError, match="in the way"):
        async with ControlServer(tmp_path / SOCKET, Daemon()):
            pass
    assert (tmp_path / SOCKET).read_text() == "precious"


def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    """No socket, or no directory, is NotRunning with the path that was tried."""
    for state_dir in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotRunning, match=r"control\.sock"):
            ControlClient(state_dir).status()


async def test_a_refusal_arrives_as_it_was_raised(tmp_path: Path) -> None:
    """Code, message, retryable and context of an error are the daemon's own."""
    async with ControlServer(tmp_path / SOCKET, Daemon(), MORE):
        with pytest.raises(ControlError, match="no account is called x") as refused:
            await ask(ControlClient(tmp_path), "POST", "refuse", {"account": "x"})
    error = refused.value
    assert (error.code, error.retryable, error.context) == ("unknown_account", True, {"account": "x"})


@pytest.mark.parametrize(
    ("method", "name", "code"),
    [
        ("POST", "nonsense", "unknown_command"),
        ("POST", "status", "wrong_method"),
        ("POST", "broken", "internal"),
    ],
)
async def test_every_error_is_json(tmp_path: Path, method: str, name: str, code: str) -> None:
    """Unknown commands, wrong methods and the daemon's own faults have a code, and tell nothing of the inside."""
    async with ControlServer(tmp_path / SOCKET, Daemon(), MORE):
        with pytest.raises(ControlError) as refused:
            await ask(ControlClient(tmp_path), method, name)
    assert refused.value.code == code
    assert "TOKEN" not in str(refused.value)


async def test_orders_name_their_accounts(tmp_path: Path) -> None:
    """`pause`, `resume` and `retry` carry the names to the daemon and its answer back."""
    async with ControlServer(tmp_path / SOCKET, Daemon()):
        for verb, state in (("pause", "paused"), ("resume", "starting"), ("retry", "starting")):
            answer = await ask(ControlClient(tmp_path), "POST", verb, {"accounts": ["a", "b-*"]})
            assert answer["schema"] == 1
            assert [(one["name"], one["state"]) for one in answer["accounts"]] == [
                ("a", state),
                ("b-*", state),
            ]


@pytest.mark.parametrize("body", [{}, {"accounts": []}, {"accounts": "a"}, {"accounts": ["a", 1]}])
async def test_orders_without_names_are_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    """No names, or what are none: a bad request, and nobody is told anything."""
    async with ControlServer(tmp_path / SOCKET, Daemon()):
        with pytest.raises(ControlError, match="a list of names or patterns") as refused:
            await ask(ControlClient(tmp_path), "POST", "pause", body)
    assert refused.value.code == "bad_request"


async def test_a_login_crosses_the_socket_step_by_step(tmp_path: Path) -> None:
    """A step's answer comes back; a refusal with its word and its wait; what is no text is refused before."""
    async with ControlServer(tmp_path / SOCKET, Daemon()):
        client = ControlClient(tmp_path)
        step = {"account": "sales-user", "step": "begin"}
        assert await ask(client, "POST", "login", step) == {"account": "sales-user", "next": "begin"}
        with pytest.raises(ControlError) as refused:
            await ask(client, "POST", "login", {**step, "text": "no"})
        assert (refused.value.code, refused.value.retryable, refused.value.status) == ("flood", True, 429)
        assert refused.value.context == {"wait_s": 30.0}
        with pytest.raises(ControlError) as garbled:
            await ask(client, "POST", "login", {**step, "text": 12345})
        assert garbled.value.code == "bad_request"


async def test_a_body_must_be_an_object(tmp_path: Path) -> None:
    """What is no JSON object is refused before the command sees it."""
    async with ControlServer(tmp_path / SOCKET, Daemon(), MORE):
        with pytest.raises(ControlError, match="no JSON object") as refused:
            await ask(ControlClient(tmp_path), "POST", "slow", [1])
    assert refused.value.code == "bad_request"


async def test_a_daemon_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    """After the timeout the client gives up and says that another try may succeed."""
    async with ControlServer(tmp_path / SOCKET, Daemon(), MORE):
        with pytest.raises(ControlError) as late:
            await ask(ControlClient(tmp_path, timeout=0.2), "POST", "slow", {"seconds": 5})
    assert (late.value.code, late.value.retryable) == ("timeout", True)


async def test_stopping_does_not_wait_for_a_slow_request(tmp_path: Path) -> None:
    """A request in flight holds up the daemon's stop by a second or so, not by its own length."""
    async with ControlServer(tmp_path / SOCKET, Daemon(), MORE):
        request = asyncio.create_task(ask(ControlClient(tmp_path, 20.0), "POST", "slow", {"seconds": 15}))
        await asyncio.sleep(0.3)
        began = time.monotonic()
    assert time.monotonic() - began < 4
    with pytest.raises((NotRunning, ControlError)):
        await request


async def test_hundred_clients_at_once_are_answered(tmp_path: Path) -> None:
    """Many commands at the same time each get their answer."""
    async with ControlServer(tmp_path / SOCKET, Daemon()):
        answers = await asyncio.gather(*(ask(ControlClient(tmp_path), "GET", "status") for _ in range(100)))
    assert all(answer["schema"] == 1 for answer in answers)


def test_asking_imports_no_event_loop() -> None:
    """The client's end loads neither asyncio nor aiohttp."""
    check = "import sys, supervisor.control.client; print(*({'asyncio', 'aiohttp', 'pyrogram'} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=root
    )
    assert found.stdout.strip() == ""


async def test_a_reload_tells_what_it_did_or_what_is_wrong(tmp_path: Path) -> None:
    """A broken file is a refusal with every line of it, by itself in the context."""
    daemon = Daemon()
    async with ControlServer(tmp_path / SOCKET, daemon):
        done = await ask(ControlClient(tmp_path), "POST", "reload")
        assert (done["schema"], done["added"], done["untouched"]) == (1, ["new"], 3)
        daemon.mistakes = ["accounts.toml:1: one", "accounts.toml:2: two"]
        with pytest.raises(ControlError, match="one\naccounts") as refused:
            await ask(ControlClient(tmp_path), "POST", "reload")
    assert (refused.value.code, refused.value.status) == ("config_invalid", 422)
    assert refused.value.context == {"problems": daemon.mistakes}


async def test_accounts_are_moved_to_a_path(tmp_path: Path) -> None:
    """`to` is a proxy's name, or left out; anything else is refused."""
    async with ControlServer(tmp_path / SOCKET, Daemon()):
        client = ControlClient(tmp_path)
        for to in ("de1", None):
            answer = await ask(client, "POST", "rotate", {"accounts": ["a"], "to": to})
            assert answer == {"schema": 1, "accounts": [{"name": "a", "path": to}]}
        for body in ({"accounts": ["a"], "to": 7}, {"to": "de1"}):
            with pytest.raises(ControlError) as refused:
                await ask(client, "POST", "rotate", body)
            assert (refused.value.code, refused.value.status) == ("bad_request", 400)


def words_in_use() -> set[str]:
    """The codes of every refusal that stands in the source."""
    files = Path(protocol.__file__).parents[1].rglob("*.py")
    raised = re.compile(r"(?:ControlError|LoginRefused)\(\s*\"(\w+)\"")
    found = {word for file in files for word in raised.findall(file.read_text())}
    return found | {word for word, _ in _REFUSALS.values()}


@pytest.mark.parametrize("word", sorted(words_in_use()))
def test_every_refusal_has_a_number(word: str) -> None:
    """The code that goes with its word, which is its name; only what is our own fault is numbered so."""
    error = ControlError(word, "x", context={"a": 1}).body()["error"]
    assert list(error) == ["code", "name", "message", "retryable", "context"]
    assert error["name"] == word
    assert (error["code"] == NAMES["internal"].number) == (word == "internal")
    assert error["code"] in CODES


def test_the_words_that_are_told_apart_are_in_use() -> None:
    """Nothing is left of a word that nobody says any longer, and numbers are those that `explain` knows."""
    assert set(protocol._NAMED) <= words_in_use()
    assert set(protocol._NAMED.values()) <= set(NAMES)
    assert ControlError("unknown_account", "x").number == 3013
