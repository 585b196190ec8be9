"""Whoever is to be told is told: once, in time, with what to do, and when it is over."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest

from tests.acceptance.conftest import Site, until
from tests.integration.conftest import ScriptedProxy
from tests.listener import Listener

# Accounts behind the proxy that dies; NOTIFY_ACCOUNTS=300 for a whole fleet of them.
ACCOUNTS = int(os.environ.get("NOTIFY_ACCOUNTS", "30"))

pytestmark = [pytest.mark.timeout(90 + ACCOUNTS), pytest.mark.alone]


async def told(hook: Listener, number: int, within: float = 5.0) -> dict[str, Any]:
    """The newest message, once there are so many."""
    so_far = [body["title"] for body in hook.bodies]
    await until(lambda: len(hook.bodies) >= number, within, f"message {number}, after {so_far}")
    return hook.bodies[number - 1]


async def test_a_dead_proxy_a_dead_token_and_a_broken_file_are_a_message_each(site: Site) -> None:
    """All accounts of a proxy in one, within 5 s, and one when they are back; one fatal with the command; no secret.

    A dead sink delays nobody, and is told of once itself; `notify test` names it, exit 1.
    """
    proxy, hook = ScriptedProxy(), Listener()
    await proxy.start()
    site.proxies["de1"] = f"socks5://127.0.0.1:{proxy.port}"
    names = [f"bot-{n}" for n in range(ACCOUNTS)]
    bots = {name: site.bot(name, proxy="de1") for name in names}
    site.bot("direct")  # so that it is the proxy's trouble and not everybody's
    site.settings |= {"prove_every": 3, "connect_budget": 60, "start_limit": 60, "connect_timeout": 2}
    async with hook:
        site.tables |= {
            "notify.ops": {"url": f"{hook.url}/canary-in-the-url"},
            "notify.dead": {"url": "http://127.0.0.1:9/canary-in-the-url", "level": "fatal"},
        }
        site.write()
        daemon = site.run("--log-format", "json")
        await daemon.state("online", seconds=30 + ACCOUNTS / 5)
        assert hook.bodies == []

        await proxy.kill()
        dead = await told(hook, 1)
        assert (dead["level"], dead["resolved"], dead["schema"]) == ("warning", False, 1)
        assert "de1" in dead["title"]
        assert f"{ACCOUNTS} accounts" in dead["title"]
        assert len(dead["accounts"]) == ACCOUNTS
        await asyncio.sleep(1)
        await proxy.start()
        await daemon.state("online", seconds=20 + ACCOUNTS / 5)
        back = await told(hook, 2, within=20)
        assert (back["resolved"], back["codes"]) == (True, dead["codes"])
        assert back["title"].startswith("Over: ")

        site.dc.kill_token(bots["bot-0"])
        fatal = await told(hook, 3, within=15)
        assert (fatal["level"], fatal["accounts"], fatal["codes"]) == ("fatal", ["bot-0"], [1012])
        assert fatal["title"] == "bot-0: Telegram refuses the bot's token."
        assert "tg-supervisor reload" in fatal["advice"]
        sink = await told(hook, 4, within=15)
        assert (sink["codes"], sink["text"]) == ([5006], "notify.dead: no connection: Connection refused")

        good = site.path.read_text()
        site.path.write_text(good.replace('proxy = "de1"', 'proxy = "de2"', 1))
        wrong = await told(hook, 5, within=10)
        assert (wrong["level"], wrong["codes"]) == ("error", [3001])
        assert 'did you mean "de1"?' in wrong["text"]
        site.path.write_text(good)
        right = await told(hook, 6, within=10)
        assert (right["resolved"], right["codes"]) == (True, [3001])

        tried = await site.command("notify", "test")
        assert tried.code == 1
        assert "ops (webhook): sent" in tried.out
        assert "dead (webhook): failed: no connection: Connection refused" in tried.out
        await daemon.stop()
        assert len(hook.bodies) == 7
    await proxy.kill()
    lines = [json.loads(line) for line in daemon.err.splitlines()]
    assert len([line for line in lines if "notify.dead cannot be sent" in line["message"]]) == 1
    assert len([row for row in await site.log() if row["message"].startswith("notify.dead")]) == 1
    said = json.dumps(hook.bodies) + daemon.err
    assert [bot.token for bot in bots.values() if str(bot.token).partition(":")[2] in said] == []
    assert "canary" not in said
