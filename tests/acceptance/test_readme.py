"""What README.md shows is what the program does. Its blocks are run as they stand; see `<!-- test: … -->` in it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from supervisor.cli.common import Options
from supervisor.cli.demo.play import Play
from supervisor.cli.demo.relay import Relay
from supervisor.cli.demo.stage import staged
from supervisor.cli.demo.steps import STEPS
from supervisor.cli.demo.view import show_report, view_for
from supervisor.cli.top import COMMANDS
from supervisor.control.client import ControlClient
from supervisor.control.protocol import ControlError
from supervisor.datacenter import Datacenter
from supervisor.errors import NotRunning

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block: what its mark says, its language, its text."""

    mark: str
    language: str
    text: str


BLOCKS = [
    Block(mark, language, text)
    for mark, language, text in re.findall(
        r"(?:<!-- test: (.+?) -->\n)?```(\w+)\n(.*?)```", README, re.DOTALL
    )
]


def marked(mark: str) -> str:
    """The text of the one block with this mark."""
    (text,) = [block.text for block in BLOCKS if block.mark == mark]
    return text


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, and the lines that it is said to print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *lines = part.splitlines()
        yield command, lines


def shape(text: str) -> set[str]:
    """The lines of an output without what differs from run to run: numbers, paths, who was met first."""
    found = set()
    for written in text.splitlines():
        line = re.sub(r"state in \S+", "state in DIRECTORY", written)
        line = re.sub(r"\b(?:de1|nl3)\b", "PROXY", line)
        line = re.sub(r"(?:\d+\.)*\d+", "#", line)
        line = re.sub(r"─+", "─", line)
        line = re.sub(r"[█▉▊▋▌▍▎▏]+", "█", line)
        line = re.sub(r"(# s ).*?: (\w+ re\w+ |recovered)", r"\1WHO: \2", line)
        line = re.sub(r"connection (?:reset|refused)(?: by)?", "connection broken", line)
        found.add(" ".join(line.split()))
    return found


def assert_shown(lines: list[str], printed: str) -> None:
    shown = shape("\n".join(lines)) - {"", "…"}
    assert not shown - shape(printed), f"README.md shows what was not printed; printed was:\n{printed}"


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a `tg-supervisor` line; give what it printed."""
    program, *arguments = command.split()
    assert program == "tg-supervisor"
    line = [sys.executable, "-m", "supervisor", *arguments]
    done = subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment after README's `export` lines, in which its files stand in the working directory."""
    for block in BLOCKS:
        kind, _, name = block.mark.partition(" ")
        if kind == "file":
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    script = "\n".join(command for command, _ in commands(marked("environment")))
    done = subprocess.run(
        ["sh", "-ec", f"{script}\nenv -0"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
    return found | {"PYTHONPATH": str(ROOT)}


def test_every_block_is_tested() -> None:
    """No fenced block in README.md goes untested."""
    assert [block for block in BLOCKS if not block.mark] == []


def test_links_lead_somewhere() -> None:
    """Every relative link in README.md names a file that is there."""
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_commands_that_are_there() -> None:
    """README.md names exactly the commands that there are, and as missing none of them."""
    there, _, missing = README.partition("There are `")[2].partition("Not there yet: ")
    assert set(re.findall(r"`(\w+)`", "`" + there)) == set(COMMANDS)
    assert not set(re.findall(r"`(\w+)`", missing.partition("\n\n")[0])) & set(COMMANDS)


def test_make_knows_the_two_commands() -> None:
    """`make demo` and `make test` are targets of the Makefile."""
    for command, _ in commands(marked("make")):
        subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_pip_knows_the_extras() -> None:
    """What README.md installs are extras of ours."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {
        name
        for command, _ in commands(marked("pip"))
        for name in re.findall(r"tg-supervisor\[(\w+)\]", command)
    }
    assert asked == set(extras)


def test_check_says_what_is_shown(tmp_path: Path, environment: dict[str, str]) -> None:
    """README's accounts.toml is right, and `check` says of it what is shown."""
    for command, lines in commands(marked("console")):
        assert_shown(lines, run(command, tmp_path, environment))


def test_the_proxies_are_right(tmp_path: Path, environment: dict[str, str]) -> None:
    """README's piece about proxies, added to its accounts.toml, is right."""
    with (tmp_path / "accounts.toml").open("a") as file:
        file.write(marked("config"))
    secrets = {"DE1_PASSWORD": "secret", "SHOP_TOKEN": "110201545:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsawC"}
    assert "de1, nl3" in run("tg-supervisor check", tmp_path, environment | secrets)


def test_explain_says_what_is_shown(tmp_path: Path, environment: dict[str, str]) -> None:
    """`explain` says what README shows of it."""
    for command, lines in commands(marked("explain")):
        assert_shown(lines, run(command, tmp_path, environment))


async def test_the_login_goes_as_shown(tmp_path: Path, environment: dict[str, str]) -> None:
    """README's user account signs in as it is shown, with the code that is typed there."""
    [(command, lines)] = commands(marked("login"))
    [code] = re.findall(r"^Code .*: (\d+)$", "\n".join(lines), re.MULTILINE)
    async with Datacenter() as dc:
        dc.add_user(
            5_000_010, phone=tomllib.loads(marked("user"))["accounts"]["sales-user"]["phone"], code=code
        )
        configure(tmp_path, dc, marked("user"))
        line = [sys.executable, "-m", "supervisor", *command.split()[1:]]
        login = await asyncio.create_subprocess_exec(
            *line,
            cwd=tmp_path,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(login.communicate(f"{code}\n".encode()), 30)
    assert login.returncode == 0, said
    assert_shown(lines, said.decode().replace("): \n", f"): {code}\n"))


async def test_the_callback_is_called(tmp_path: Path, environment: dict[str, str]) -> None:
    """README's callback gives an account whose proxy is dead the one that it has leased."""
    relay, dead, as_dead = Relay(), Relay(), Relay()
    for each in (relay, dead, as_dead):
        await each.start()
    for each in (dead, as_dead):
        await each.kill()
    provider = f"async def lease(account):\n    return 'socks5://127.0.0.1:{relay.port}'\n"
    (tmp_path / "my_provider.py").write_text(provider)
    async with Datacenter() as dc:
        bot = dc.add_bot()
        text = (
            f'[proxies.de1]\nurl = "socks5://127.0.0.1:{dead.port}"\n'
            f'[proxies.nl3]\nurl = "socks5://127.0.0.1:{as_dead.port}"\n'
            f'[accounts.shop-bot]\nbot_token = "{bot.token}"\nproxy = ["de1", "nl3"]\n'
        )
        (tmp_path / "accounts.toml").write_text(f'[telegram]\napi_id = 1\napi_hash = "{"0" * 32}"\n')
        configure(tmp_path, dc, marked("callbacks") + text)
        line = [sys.executable, "-m", "supervisor", "run"]
        daemon = await asyncio.create_subprocess_exec(*line, cwd=tmp_path, env=environment)
        try:
            [account] = await until_online(tmp_path / "state", 1)
        finally:
            daemon.terminate()
            assert await asyncio.wait_for(daemon.wait(), 15) == 0
            await relay.kill()
    assert account["path"] not in {"de1", "nl3"}


def configure(folder: Path, dc: Datacenter, more: str = "") -> None:
    """Have accounts.toml say that Telegram is this datacenter, and more."""
    dc.write_public_key(folder / "dc.pem")
    with (folder / "accounts.toml").open("a") as file:
        file.write(
            f'[telegram.server]\nhost = "{dc.host}"\nport = {dc.port}\ndc_id = 2\npublic_key = "dc.pem"\n{more}'
        )


async def test_the_accounts_run(tmp_path: Path, environment: dict[str, str]) -> None:
    """README's accounts.toml, plugin and main run: both bots come online, one answers, one writes by itself."""
    async with Datacenter() as dc:
        support = dc.add_bot(environment["SUPPORT_TOKEN"])
        news = dc.add_bot((tmp_path / "news-bot.token").read_text().strip())
        configure(tmp_path, dc)
        [(command, _)] = commands(marked("run"))
        line = [sys.executable, "-m", "supervisor", *command.split()[1:]]
        daemon = await asyncio.create_subprocess_exec(*line, cwd=tmp_path, env=environment)
        try:
            await until_online(tmp_path / "state", 2)
            dc.push_message(support, "good morning", from_user=dc.person)
            async with asyncio.timeout(10):
                while not (dc.seen.sends[support.user_id] and dc.seen.sends[news.user_id]):
                    await asyncio.sleep(0.1)
        finally:
            daemon.terminate()
            assert await asyncio.wait_for(daemon.wait(), 15) == 0
        assert dc.seen.sends[support.user_id][0].text == "You wrote: good morning"
        assert dc.seen.sends[news.user_id][0].text == "nothing new"


async def until_online(state_dir: Path, number: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        while True:
            try:
                accounts: list[dict[str, Any]] = ControlClient(state_dir).status()["accounts"]
            except (NotRunning, ControlError):
                accounts = []
            if [account["state"] for account in accounts] == ["online"] * number:
                return accounts
            await asyncio.sleep(0.1)


async def test_the_demo_shows_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The demo's lines and tables are README's; so is what the commands print of its daemon."""
    given = Options(no_color=True)
    async with staged() as stage:
        with view_for(given) as view:
            play = Play(stage, STEPS, view, seconds=1)
            await play.start()
            await play.break_things()
            for command, lines in commands(marked("daemon")):
                assert_shown(lines, await asyncio.to_thread(run, command, stage.folder, dict(os.environ)))
            report = await play.finish()
        show_report(report, given)
    assert report.problems == []
    [(_, lines)] = commands(marked("demo"))
    assert_shown(lines, capsys.readouterr().out)
