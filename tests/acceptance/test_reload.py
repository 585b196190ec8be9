"""The file is edited while the daemon works: what is said of it, what is done, and who does not notice."""

from __future__ import annotations

import asyncio
import functools
import json
import signal
from typing import Any

import pytest

from supervisor.control.client import ControlClient
from tests.acceptance.conftest import SENDER, Process, Site, until
from tests.integration.conftest import ScriptedProxy

pytestmark = pytest.mark.timeout(90)

# Asks something every 20 ms, and writes down what took long or failed.
LOAD = """
import asyncio, json, pathlib, time
from pyrogram import raw
async def main(client):
    ended = pathlib.Path(__file__).with_name(f"{client.name}.calls")
    async def one(number):
        begun, error = time.monotonic(), None
        try:
            await client.send_message(777, f"{client.name} {number}")
        except Exception as raised:
            error = repr(raised)
        with ended.open("a") as out:
            out.write(json.dumps([number, time.monotonic() - begun, error]) + "\\n")
    number = 0
    while True:
        number += 1
        asyncio.get_running_loop().create_task(one(number))
        await asyncio.sleep(0.05)
"""

SENDS = 'main = "sender:main"'
BROKEN = (
    ("= 12345", '= "twelve"'),
    ("[accounts.still]", "[accounts.still"),
    ("[accounts.moved]", "[acounts.moved]"),
    (SENDS, SENDS + '\nproxy = "de2"'),
    ("dc.pub.pem", "nowhere.pem"),
    ("main =", "mian ="),
    ("api_hash = ", "api_hash = 7 # "),
    ("[supervisor]", "[supervisor]\nmax_held = -1"),
    ("bot_token = ", 'bot_token = "${NO_SUCH_VARIABLE}" # '),
    ("[accounts.still]", "[accounts.moved]"),
)


async def config_of(site: Site) -> dict[str, Any]:
    status = await asyncio.to_thread(ControlClient(site.state_dir).status)
    config: dict[str, Any] = status["config"]
    return config


def calls(site: Site, name: str) -> list[tuple[int, float, str | None]]:
    found = (site.etc / f"{name}.calls").read_text().splitlines()
    return [tuple(json.loads(line)) for line in found]


async def sends_more(site: Site, user_id: int) -> None:
    sent = len(site.dc.seen.sends[user_id])
    await until(lambda: len(site.dc.seen.sends[user_id]) > sent + 3, what="it goes on sending")


async def reloaded(site: Site) -> dict[str, Any]:
    ended = await site.command("reload", "--json")
    assert ended.code == 0, ended.err
    done: dict[str, Any] = ended.json()
    return done


@pytest.mark.alone
async def test_accounts_come_go_and_change_while_the_others_work(site: Site) -> None:
    """An account is added, moved to a proxy, renamed and removed, by SIGHUP and the command, and nobody signs in twice.

    The account of which nothing changed keeps its one connection; none of its calls fails, or takes 100 ms more. No call
    of the one that moves fails, and its main runs on.
    """
    site.settings = {"watch": False}
    site.code("load", LOAD)
    site.code("sender", SENDER)
    proxies = [ScriptedProxy(), ScriptedProxy()]
    for proxy in proxies:
        await proxy.start()
    site.proxies = {"de1": f"socks5://127.0.0.1:{proxies[0].port}"}
    still, moved = site.bot("still", main="load:main"), site.bot("moved", main="load:main")
    old = site.bot("old", main="sender:main")
    try:
        async with site.online() as daemon:
            connected = len(site.dc.seen.connections)
            loaded_at = (await config_of(site))["loaded_at"]

            new = site.bot("new", main="sender:main")
            site.accounts["moved"]["proxy"] = "de1"
            site.write()
            daemon.signal(signal.SIGHUP)
            await until(lambda: site.dc.seen.sends[new.user_id], what="the new bot sends")
            await until(lambda: proxies[0].connections, what="the proxy is used")
            accounts = await daemon.state("online")
            assert (list(accounts), accounts["moved"]["path"]) == (["still", "moved", "old", "new"], "de1")
            assert (await config_of(site))["error"] is None
            assert (await config_of(site))["loaded_at"] > loaded_at

            site.proxies["de1"] = f"socks5://127.0.0.1:{proxies[1].port}"
            site.accounts["renamed"] = site.accounts.pop("old")
            del site.accounts["new"]
            site.write()
            assert await reloaded(site) == {
                "schema": 1,
                "added": [],
                "removed": ["new"],
                "replaced": [],
                "adapted": ["moved"],
                "renamed": {"renamed": "old"},
                "untouched": 1,
                "needs_restart": [],
                "stuck": [],
            }
            accounts = await daemon.state("online")
            assert list(accounts) == ["still", "moved", "renamed"]
            assert proxies[1].connections
            for bot in (moved, old):
                await sends_more(site, bot.user_id)
            sent = len(site.dc.seen.sends[new.user_id])
            untouched = await reloaded(site)
            assert (untouched["untouched"], untouched["adapted"]) == (3, [])
            assert len(site.dc.seen.sends[new.user_id]) == sent
            assert len(site.dc.seen.connections) == connected + 4  # new, moved; moved, renamed
            made = calls(site, "still")  # before the stop, which cuts the last ones off
            others = calls(site, "moved")
    finally:
        for proxy in proxies:
            await proxy.kill()
    did_not_notice(made)
    assert [call for call in others if call[2] is not None] == []
    assert [number for number, *_ in sorted(others)] == list(range(1, len(others) + 1))
    assert [site.dc.seen.sign_ins[bot.user_id] for bot in (still, moved, old, new)] == [1, 1, 1, 1]
    assert site.dc.seen.max_connections_per_key == 1


def did_not_notice(made: list[tuple[int, float, str | None]]) -> None:
    """Fail if one of these calls failed, or took 100 ms more than the others."""
    assert len(made) > 20
    assert [call for call in made if call[2] is not None] == []
    times = sorted(took for _, took, _ in made)
    assert times[-1] - times[len(times) // 2] < 0.1, times[-5:]


def refused_more(daemon: Process, times: int) -> bool:
    """Whether the daemon has said more than so often that it does not use a file."""
    return daemon.err.count("is not used") > times


@pytest.mark.alone
async def test_saving_a_file_is_enough(site: Site) -> None:
    """Included files come, change and go; ten broken edits in a row change nothing, and each is told, once.

    However it is saved: written anew, or put in the old one's place. Who is not concerned does not notice.
    """
    site.code("load", LOAD)
    site.code("sender", SENDER)
    still = site.bot("still", main="load:main")
    moved = site.bot("moved", main="sender:main")
    more, new = site.etc / "accounts.d" / "more.toml", site.dc.add_bot(first_name="new")
    async with site.online() as daemon:
        site.path.write_text(f'include = ["accounts.d/*.toml"]\n{site.path.read_text()}')
        await until(lambda: "has changed" in daemon.err, what="the include is read")
        connected = len(site.dc.seen.connections)
        more.parent.mkdir()
        more.write_text(f'[accounts.new]\nbot_token = "{new.token}"\n{SENDS}\n')
        await until(lambda: site.dc.seen.sends[new.user_id], what="the new bot sends")
        good = site.path.read_text()
        for number, (find, put) in enumerate(BROKEN):
            assert find in good
            saved = site.etc / f"{number}.tmp"
            saved.write_text(good.replace(find, put))
            saved.replace(site.path)
            await until(functools.partial(refused_more, daemon, number), what=f"{put} is told")
            problems = (await config_of(site))["error"]
            assert problems
            assert all(line.startswith(f"{site.path}:") for line in problems), problems
        assert daemon.err.count("is not used") == len(BROKEN)
        site.path.write_text(good)
        more.unlink()
        told = daemon.err.count("1 removed")
        await until(lambda: daemon.err.count("1 removed") > told, what="the new bot goes")
        await sends_more(site, moved.user_id)
        assert list(await daemon.accounts()) == ["still", "moved"]
        assert (await config_of(site))["error"] is None
        assert len(site.dc.seen.connections) == connected + 1
        made = calls(site, "still")
    did_not_notice(made)
    assert [site.dc.seen.sign_ins[bot.user_id] for bot in (still, moved, new)] == [1, 1, 1]


async def test_ten_broken_edits_change_nothing(site: Site) -> None:
    """Each is told by the command line by line, by the log and by `status`, until a good file is loaded."""
    site.code("sender", SENDER)
    bots = [site.bot(name, main="sender:main") for name in ("still", "moved")]
    site.settings = {"watch": False}
    async with site.online() as daemon:
        good = site.path.read_text()
        connected, before = len(site.dc.seen.connections), await daemon.accounts()
        loaded_at = (await config_of(site))["loaded_at"]
        problems: list[str] = []
        for find, put in BROKEN:
            assert find in good
            site.path.write_text(good.replace(find, put))
            refused = await site.command("reload")
            problems = refused.err.splitlines()
            assert (refused.code, refused.out) == (78, ""), put
            assert problems
            assert all(line.startswith(f"{site.path}:") for line in problems), problems
            assert await config_of(site) == {
                "path": str(site.path),
                "loaded_at": loaded_at,
                "error": problems,
            }
            assert all(line in daemon.err for line in problems)
        shown = await site.command("status")
        assert problems[-1] in shown.err
        site.path.write_text(good.replace("main =", "man ="))
        daemon.signal(signal.SIGHUP)
        await until(lambda: "man" in daemon.err, what="SIGHUP says it too")
        assert [(account["state"], account["since"]) for account in (await daemon.accounts()).values()] == [
            ("online", account["since"]) for account in before.values()
        ]
        for bot in bots:
            await sends_more(site, bot.user_id)
        assert len(site.dc.seen.connections) == connected
        site.path.write_text(good)
        assert (await reloaded(site))["untouched"] == 2
        assert (await config_of(site))["error"] is None
        assert len(site.dc.seen.connections) == connected
