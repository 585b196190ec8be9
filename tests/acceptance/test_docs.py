"""What the pages in docs/ show is what the program does: their blocks are run, their tables held against the code."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.common import ExitCode
from supervisor.cli.top import COMMANDS
from supervisor.config.load import load
from supervisor.config.model import Settings
from supervisor.config.table import Table
from supervisor.core.failure import DEFAULT_POLICIES
from supervisor.datacenter import Datacenter
from tests.acceptance.conftest import SENDER, Site, environment, until
from tests.acceptance.pages import ROOT, Page, commands, configure, run, until_online
from tests.integration.conftest import ScriptedProxy

DOCS = sorted(path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md"))
PAGES = {str(path): Page(str(path)) for path in DOCS}
GUIDES = [path for path, page in PAGES.items() if page.blocks]
BIN = Path(sys.executable).parent
APPLICATION = '[telegram]\napi_id = 12345\napi_hash = "0123456789abcdef0123456789abcdef"\n'
HOW = "(pip|shell|environment|console|config|python|unit|daemon|completion|containerfile|prometheus|file .+)"


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_somewhere(path: str) -> None:
    """Every relative link of a page names a file that is there."""
    assert PAGES[path].dead_links() == []


def test_every_page_is_linked() -> None:
    """README.md leads to every page of docs/, by itself or over one page that it leads to."""
    reached = set(_linked(Page("README.md")))
    reached |= {there for path in reached & set(PAGES) for there in _linked(PAGES[path])}
    assert set(PAGES) - reached == set()


def _linked(page: Page) -> Iterator[str]:
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.text):
        target = (page.file.parent / link).resolve()
        if target.is_relative_to(ROOT):
            yield str(target.relative_to(ROOT))


@pytest.mark.parametrize("path", GUIDES)
def test_the_blocks_are_right(path: str, tmp_path: Path) -> None:
    """Each block of a page is run, or read by what would run it; what it shows is what is printed."""
    page = PAGES[path]
    assert [block for block in page.blocks if not re.fullmatch(HOW, block.mark)] == []
    env = environment(page.lay_out(tmp_path))
    env |= _accounts(page, tmp_path)
    for text in page.all_marked("shell"):
        script = "\n".join(command + "\n".join(more) for command, more in commands(text))
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
        _are_there(script)
    for text in page.all_marked("python"):
        compile(text, path, "exec")
    for text in page.all_marked("unit"):
        assert set(re.findall(r"LoadCredential=(\S+):", text)) == set(
            re.findall(r"DIRECTORY}/([\w.-]+)", page.text)
        )
    if (tmp_path / "accounts.toml").exists():
        for module in re.findall(r'callbacks = \["(\w+)"\]', page.text):  # `check` does not import them
            subprocess.run([sys.executable, "-c", f"import {module}"], cwd=tmp_path, env=env, check=True)
        printed = run("tg-supervisor check", tmp_path, env)
        for text in page.all_marked("console"):
            for command, lines in commands(text):
                assert command == "tg-supervisor check"
                page.assert_shown(lines, printed)


def _accounts(page: Page, folder: Path) -> dict[str, str]:
    """Put a page's pieces of configuration together, with the files and variables that they name."""
    pieces = page.all_marked("config")
    if not pieces:
        return {}
    text = "".join([APPLICATION, *pieces])
    if "[accounts." not in text:
        text += '[accounts.bot]\nbot_token = "${BOT_TOKEN}"\n'
    (folder / "accounts.toml").write_text(text)
    for name in re.findall(r'session_file = "(.+)"', text):
        (folder / name).parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(folder / name)) as db:
            db.execute("CREATE TABLE version (number)")
    names = re.findall(r"\$\{(\w+)\}", text)
    return {name: _secret(name, number) for number, name in enumerate(names)}


def _secret(name: str, number: int) -> str:
    if name.endswith("TOKEN"):
        return f"{110201543 + number}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsawA"
    return "A" * 362 if name.endswith("SESSION") else "secret"  # 271 bytes in base64


def _are_there(script: str) -> None:
    """Fail if a command names a file of this tree that is not there, or an extra."""
    for word in re.findall(r"packaging/[\w./-]+", script):
        assert (ROOT / word).exists(), word
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\[(\w+)\]", script)) <= set(extras)


async def test_the_quick_start_runs(tmp_path: Path) -> None:
    """The page's accounts.toml and plugin run: the bot comes online and answers, `status` says what is shown."""
    page = PAGES["docs/quick-start.md"]
    env = page.lay_out(tmp_path)
    async with Datacenter() as dc:
        bot = dc.add_bot(env["SUPPORT_TOKEN"])
        configure(tmp_path, dc)
        line = [sys.executable, "-m", "supervisor", "run"]
        daemon = await asyncio.create_subprocess_exec(*line, cwd=tmp_path, env=env)
        try:
            await until_online(tmp_path / "state", 1)
            dc.push_message(bot, "/start", from_user=dc.person)
            await until(lambda: dc.seen.sends[bot.user_id], what="an answer")
            for command, lines in commands(page.marked("daemon")):
                page.assert_shown(lines, await asyncio.to_thread(run, command, tmp_path, env))
        finally:
            daemon.terminate()
            assert await asyncio.wait_for(daemon.wait(), 15) == 0


# --- The reference ---------------------------------------------------------------------------------


def _rows(text: str) -> list[list[str]]:
    """The cells of a page's tables, without their heads."""
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    heads = {number - 1 for number, row in enumerate(rows) if set("".join(row)) <= set("-|")}
    return [row for number, row in enumerate(rows) if number not in heads and number - 1 not in heads]


REFERENCE = _rows(PAGES["docs/reference/config.md"].text)
KEYS = {row[0].strip("`"): row for row in REFERENCE if "." in row[0] or row[0] == "`include`"}


def test_every_key_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has each key that the configuration's reader knows, and no other, and says which are secret."""
    known: dict[str, bool] = {"include": False}
    is_open = {"recovery": "KIND", "classify": "ID", "proxies": "NAME", "accounts": "NAME", "notify": "NAME"}
    know = Table.know

    def noted(table: Table, keys: Iterable[str], secrets: Iterable[str] = ()) -> None:
        names = [str(part) for part in table.path]
        if names[0] in is_open and len(names) > 1:
            names[1] = is_open[names[0]]
        if names not in (["recovery"], ["defaults"]):
            known.update({".".join([*names, key]): False for key in keys if key != "server"})
            known.update({".".join([*names, key]): True for key in secrets})
        know(table, [*keys], [*secrets])

    monkeypatch.setattr(Table, "know", noted)
    with Datacenter().write_public_key(tmp_path / "dc.pem").open():
        pass
    (tmp_path / "accounts.toml").write_text(
        f'{APPLICATION}[telegram.server]\nhost = "127.0.0.1"\nport = 1\ndc_id = 2\npublic_key = "dc.pem"\n'
        "[recovery.proxy]\nmax_retries = 1\n"
        '[classify]\nSOME_ID = { kind = "temporary", action = "retry", scope = "call" }\n'
        '[dashboard]\nlisten = "127.0.0.1:8080"\n'
        '[notify.ops]\nlog = true\n[sentry]\ndsn = "https://key@127.0.0.1/1"\n'
        '[proxies.de1]\nurl = "http://127.0.0.1:1"\n[accounts.user]\nphone = "+4915112345678"\n'
    )
    load(tmp_path / "accounts.toml", env={})
    assert {key: row[2].startswith("*secret*") for key, row in KEYS.items()} == known


def test_the_defaults_are_right() -> None:
    """The table's defaults of [supervisor] and [recovery.KIND] are those of the program."""
    settings = {field.name: field.default for field in fields(Settings)}
    for key, (_, default, _) in KEYS.items():
        section, _, name = key.rpartition(".")
        if section == "supervisor" and name not in {"state_dir", "release_rate", "connect_budget_total"}:
            (value,) = tomllib.loads(f"value = {default.strip('`')}").values()
            assert (tuple(value) if isinstance(value, list) else value) == settings[name], key
    for kind, policy in DEFAULT_POLICIES.items():
        ((_, action, retries, base),) = [row for row in REFERENCE if row[0] == f"`{kind.value}`"]
        assert (action, int(retries)) == (f"`{policy.action.value}`", policy.max_retries)
        assert not base.isdigit() or float(base) == policy.base_delay
        assert (policy.max_delay, policy.jitter) == (300, 0.25)


def test_every_command_and_exit_code_is_described() -> None:
    """The tables have each command and each exit code, and no other."""
    first = [row[0].strip("`") for row in _rows(PAGES["docs/reference/commands.md"].text)]
    assert first == [*COMMANDS, *(str(code.value) for code in ExitCode)]


ONLINE = "check --online"
MAPS = {
    "steps_s": "STEP",
    "by_kind": "KIND",
    "by_action": "ACTION",
    "by_account": "NAME",
    "errors_by_type_7d": "KIND",
}


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    """The keys of an object that lead to something else than another object."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            name = MAPS.get(path.rpartition(".")[2]) or str(key)
            yield from _leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for item in value:
            yield from _leaves(item, f"{path}[]")
    else:
        yield f"{path}[]" if isinstance(value, list) else path


async def test_every_json_key_is_described(site: Site) -> None:
    """What the commands print as JSON of a daemon that has recovered has the keys of docs/reference/json.md, no others.

    The container's health check tells that daemon from none.
    """
    site.code("sender", SENDER)
    proxies = {name: ScriptedProxy() for name in ("de1", "nl3")}
    for proxy in proxies.values():
        await proxy.start()
    site.proxies = {name: f"socks5://127.0.0.1:{proxy.port}" for name, proxy in proxies.items()}
    site.bot("bot", main="sender:main", proxy=[*proxies])
    said: defaultdict[str, set[str]] = defaultdict(set)
    async with site.online() as daemon:
        assert await _is_healthy(site)
        site.dc.reset_links()
        await until(lambda: "recovered" in daemon.err, what="a recovery")
        for name in (
            "pause",
            "resume",
            "retry",
            "rotate",
            "reload",
            "status",
            "log",
            "stats",
            "check",
            ONLINE,
        ):
            arguments = ["bot"] if name in {"pause", "resume", "retry", "rotate"} else []
            ended = await site.command(*name.split(), *arguments, "--json")
            assert ended.code == 0, ended.err
            lines = ended.out.splitlines()
            assert lines
            for line in lines:
                said[name] |= set(_leaves(json.loads(line)))
        said[ONLINE] -= said["check"]
        said[ONLINE] = (said[ONLINE] - {"online.accounts[].steps_s"}) | {"online.accounts[].steps_s.STEP"}
        said["resolve"] = set(_leaves((await site.command("resolve", "1", "--json")).json()))
    for proxy in proxies.values():
        await proxy.kill()
    assert not await _is_healthy(site)
    last_failure = {f"accounts[].last_failure.{key}" for key in said["log"]}
    assert last_failure <= said["status"]
    said["status"] = said["status"] - last_failure | {"accounts[].last_failure"}
    said["status"] = {re.sub(r"^(paths\[\]\.last_failure)\..*", r"\1", key) for key in said["status"]}
    # Of merged rows, of those that a bot's own code has met, and of outages.
    said["log"] |= {"count", "traceback", "accounts[]"}
    for section in PAGES["docs/reference/json.md"].text.split("\n## ")[1:]:
        for name in section.partition("\n")[0].split(", "):
            assert {row[0].strip("`") for row in _rows(section)} == said.pop(name), name
    assert not said


async def _is_healthy(site: Site) -> bool:
    """What the container's health check says of the site's daemon."""
    file = (ROOT / "packaging" / "container" / "Containerfile").read_text()
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (.+)$", file, re.MULTILINE)
    env = environment({"TG_SUPERVISOR_STATE_DIR": str(site.state_dir)})
    env["PATH"] = f"{BIN}:{env['PATH']}"
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", check], env=env, check=False, capture_output=True
    )
    return done.returncode == 0


# --- The manual page and the completion -------------------------------------------------------------


def test_the_manual_page_is_current() -> None:
    """docs/man/tg-supervisor.1 is what `make man` would write now; groff finds no fault with it."""
    line = [sys.executable, str(ROOT / "docs" / "man" / "generate.py")]
    made = subprocess.run(line, env=environment(), capture_output=True, text=True, check=True).stdout
    page = ROOT / "docs" / "man" / "tg-supervisor.1"
    assert page.read_text() == made, "commands have changed: `make man` writes the manual page anew"
    if groff := shutil.which("groff"):
        done = subprocess.run(
            [groff, "-man", "-ww", "-z", str(page)], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_is_there(shell: str) -> None:
    """Each shell's line of the page gives a script, and the script's question is answered with the commands."""
    lines = [command for command, _ in commands(PAGES["docs/reference/commands.md"].marked("completion"))]
    (line,) = [line for line in lines if f"{shell}_source" in line]
    variable = re.findall(r"(\w+)=\w+_source", line)[0]
    env = environment({"PATH": f"{BIN}:/usr/bin:/bin"})
    command = [str(BIN / "tg-supervisor")]
    script = subprocess.run(
        command, env=env | {variable: f"{shell}_source"}, capture_output=True, text=True, check=True
    ).stdout
    assert f"{variable}={shell}_complete" in script
    words = {
        "COMP_WORDS": "st" if shell == "fish" else "tg-supervisor st",
        "COMP_CWORD": "st" if shell == "fish" else "1",
    }
    asked = env | words | {variable: f"{shell}_complete"}
    found = subprocess.run(command, env=asked, capture_output=True, text=True, check=True).stdout
    assert "status" in found
    assert "stats" in found
    assert "pause" not in found


def test_bash_completes() -> None:
    """A bash that has run the page's line completes a command and an option."""
    bash = shutil.which("bash")
    assert bash is not None
    lines = [command for command, _ in commands(PAGES["docs/reference/commands.md"].marked("completion"))]
    own = shlex.split(lines[0])[1]
    ask = '_tg_supervisor_completion tg-supervisor; echo "${COMPREPLY[@]}"; COMPREPLY=()'
    script = (
        f"{own}\nCOMP_WORDS=(tg-supervisor re); COMP_CWORD=1; {ask}\n"
        f"COMP_WORDS=(tg-supervisor log --unr); COMP_CWORD=2; {ask}\n"
    )
    env = environment({"PATH": f"{BIN}:/usr/bin:/bin"})
    done = subprocess.run([bash, "-ec", script], env=env, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert set(first.split()) == {name for name in COMMANDS if name.startswith("re")}
    assert second == "--unresolved"
