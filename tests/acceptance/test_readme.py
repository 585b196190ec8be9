"""What README.md shows is what the program does. Its blocks are run as they stand; see `<!-- test: … -->` in it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from aiohttp import ClientSession

from supervisor.cli.common import Options
from supervisor.cli.demo.play import Play
from supervisor.cli.demo.relay import Relay
from supervisor.cli.demo.stage import staged
from supervisor.cli.demo.steps import STEPS
from supervisor.cli.demo.view import show_report, view_for
from supervisor.cli.top import COMMANDS
from supervisor.datacenter import Datacenter
from tests.acceptance.conftest import closed_port
from tests.acceptance.pages import ROOT, Page, commands, configure, run, until_online

pytestmark = pytest.mark.timeout(120)
README = Page("README.md")
marked = README.marked
assert_shown = README.assert_shown


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment after README's `export` lines, in which its files stand in the working directory."""
    return README.lay_out(tmp_path)


def test_every_block_is_tested() -> None:
    """No fenced block in README.md goes untested."""
    assert [block for block in README.blocks if not block.mark] == []


def test_links_lead_somewhere() -> None:
    """Every relative link in README.md names a file that is there."""
    assert README.dead_links() == []


def test_the_commands_that_are_there() -> None:
    """README.md names exactly the commands that there are, and as missing none of them."""
    there, _, missing = README.text.partition("There are `")[2].partition("Not there yet: ")
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


async def test_the_way_of_a_newcomer(tmp_path: Path, environment: dict[str, str]) -> None:
    """README's files as they stand: they are tried, and run; both bots come online, one answers, one writes by itself.

    Their links break: `log`, `stats` and `status` say so, and that they are back. A changed file is gone by; `status --watch` and
    the dashboard show both online.
    """
    async with Datacenter() as dc:
        support = dc.add_bot(environment["SUPPORT_TOKEN"])
        news = dc.add_bot((tmp_path / "news-bot.token").read_text().strip())
        configure(tmp_path, dc)
        for command, lines in commands(marked("online")):
            assert_shown(lines, await asyncio.to_thread(run, command, tmp_path, environment))
        assert not dc.seen.sign_ins
        [(command, _)] = commands(marked("run"))
        line = [sys.executable, "-m", "supervisor", *command.split()[1:]]

        async def tell(asked: str) -> str:
            return await asyncio.to_thread(run, f"tg-supervisor {asked}", tmp_path, environment)

        daemon = await asyncio.create_subprocess_exec(*line, cwd=tmp_path, env=environment)
        try:
            await until_online(tmp_path / "state", 2)
            dc.push_message(support, "good morning", from_user=dc.person)
            async with asyncio.timeout(10):
                while not (dc.seen.sends[support.user_id] and dc.seen.sends[news.user_id]):
                    await asyncio.sleep(0.1)
            dc.reset_links()
            async with asyncio.timeout(20):
                while (await tell("log")).count("recovered") < 2:
                    await asyncio.sleep(0.1)
            assert "reconnect" in await tell("log --account support-bot")
            assert "2 incidents, 2 recovered" in await tell("stats")
            assert "2 accounts: 2 online" in await tell("status")
            with (tmp_path / "accounts.toml").open("a") as file:
                listen = f"127.0.0.1:{closed_port()}"
                file.write(f'[supervisor]\nmax_wait = 100\n[dashboard]\nlisten = "{listen}"\n')
            async with asyncio.timeout(20):
                while "2 adapted" not in (tmp_path / "state/logs/supervisor.log").read_text():
                    await asyncio.sleep(0.1)
                assert re.search(
                    r"^support-bot +online", await first_view(tmp_path, environment), re.MULTILINE
                )
                token = (tmp_path / "state/dashboard.token").read_text().strip()
                async with ClientSession(
                    f"http://{listen}", headers={"Authorization": f"Bearer {token}"}
                ) as desk:
                    page = await (await desk.get("/")).text()
                    status = await (await desk.get("/api/v1/status")).json()
            assert "<title>tg-supervisor" in page
            assert [account["state"] for account in status["accounts"]] == ["online", "online"]
        finally:
            daemon.terminate()
            assert await asyncio.wait_for(daemon.wait(), 15) == 0
        assert dc.seen.sends[support.user_id][0].text == "You wrote: good morning"
        assert dc.seen.sends[news.user_id][0].text == "nothing new"


async def first_view(folder: Path, environment: dict[str, str]) -> str:
    """What `status --watch` shows at first where it is piped on."""
    line = [sys.executable, "-m", "supervisor", "status", "--watch"]
    watching = await asyncio.create_subprocess_exec(
        *line, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert watching.stdout is not None
        shown = ""
        while "online" not in shown:
            shown += (await watching.stdout.readline()).decode()
        return shown
    finally:
        watching.terminate()
        await watching.wait()


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
