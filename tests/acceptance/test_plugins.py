"""The operator's own code, found beside the configuration file, wherever the daemon was started."""

from __future__ import annotations

import asyncio
from pathlib import Path

from supervisor.datacenter import Datacenter
from tests.acceptance.conftest import Site, stray, until

HANDLERS = """
from pyrogram import Client, filters
from bots.words import answer
@Client.on_message(filters.private & filters.text)
async def reply(client, message):
    await message.reply_text(answer(message.text))
"""
WORDS = """
def answer(text):
    return f"you said: {text}"
"""


async def test_handlers_answer_wherever_the_daemon_was_started(
    dc: Datacenter, site: Site, tmp_path: Path
) -> None:
    """`plugins = "bots/support"` is found from the file's directory; its handlers answer, after a reset as well."""
    site.code("bots/support/replies", HANDLERS)
    site.code("bots/words", WORDS)
    bot = site.bot("support-bot", plugins="bots/support")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = stray(site.etc) | {"accounts.toml"}
    async with site.online(cwd=elsewhere):
        await asyncio.sleep(0.5)
        dc.push_message(bot, "one", from_user=777)
        await until(lambda: dc.seen.times_delivered("you said: one"), 5, "the first answer")
        dc.reset_links()
        await asyncio.sleep(1)
        dc.push_message(bot, "two", from_user=777)
        await until(lambda: dc.seen.times_delivered("you said: two"), 5, "the second answer")
    assert stray(elsewhere) == set()
    assert stray(site.etc) == code
    assert [sent.text for sent in dc.seen.sends[bot.user_id]] == ["you said: one", "you said: two"]


async def test_a_broken_plugin_is_the_bots_own_trouble(dc: Datacenter, site: Site) -> None:
    """A plugin that cannot be imported is in the log; its account is online, and so are the others."""
    site.code("bots/broken/handlers", "import surely_not_there\n")
    site.bot("broken", plugins="bots/broken")
    site.bot("good")
    async with site.online() as daemon:
        await until(lambda: "surely_not_there" in daemon.err, 5, "it is said")
        await asyncio.sleep(0.5)
        accounts = await daemon.state("online")
        assert accounts["broken"]["incident"] is None
        rows = await site.log("--account", "broken")
        assert rows
        assert rows[-1]["outcome"] == "raised"
        assert "surely_not_there" in rows[-1]["message"]
        daemon.left_nothing = lambda: None  # type: ignore[method-assign]  # what it says of the plugin is as it should be
