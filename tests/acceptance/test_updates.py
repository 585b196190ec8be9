"""What is pushed to an account is handled, kill -9 or not."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from supervisor.datacenter import Datacenter
from tests.acceptance.conftest import PERSON, Site, until

pytestmark = pytest.mark.timeout(90)

# Notes what it is told before and after it works on it; works on "cut off" for ever, once.
HANDLER = """
import asyncio, pathlib
from pyrogram.handlers import MessageHandler
notes = pathlib.Path({notes!r})
def note(what):
    with notes.open("a") as file:
        file.write(what + "\\n")
async def main(client):
    async def work(client, message):
        if message.text is None:
            return
        note(f"begun {{message.text}}")
        if "cut off" in message.text and notes.read_text().count(f"begun {{message.text}}") == 1:
            await asyncio.Event().wait()
        note(f"done {{message.text}}")
    client.add_handler(MessageHandler(work))
    await asyncio.Event().wait()
"""


async def test_kill_9_in_the_middle_of_a_handler_loses_no_message(dc: Datacenter, site: Site) -> None:
    """What a killed daemon's handler had not finished comes again, with what came since; what it had finished doesn't."""
    notes = site.folder / "notes"
    notes.write_text("")
    site.code("worker", HANDLER.format(notes=str(notes)))
    bot = site.bot("bot-0", main="worker:main")
    site.write()
    group = dc.add_supergroup("group", [bot, dc.engine.world.people[PERSON]])
    chats = {"private": None, "group": group}

    def say(what: str) -> None:
        for where, chat in chats.items():
            dc.push_message(bot, f"{what} {where}", from_user=PERSON, chat=chat)

    def noted() -> Counter[str]:
        return Counter(notes.read_text().splitlines())

    first = site.run()
    await first.state("online")
    say("finished")
    await until(lambda: noted()["done finished private"] and noted()["done finished group"], 10)
    await asyncio.sleep(1.6)  # how far the handlers are is written once a second
    say("cut off")
    await until(lambda: noted()["begun cut off private"] and noted()["begun cut off group"], 10)
    await asyncio.sleep(1.6)
    await first.kill()
    say("meanwhile")
    second = site.run()
    await second.state("online")
    wanted = {f"done {what} {where}" for what in ("finished", "cut off", "meanwhile") for where in chats}
    await until(lambda: wanted <= set(noted()), 15, "everything is done")
    await asyncio.sleep(1.0)
    await second.stop()
    assert {line: count for line, count in noted().items() if line.startswith("done") and count > 1} == {}
    assert noted()["begun cut off private"] == noted()["begun cut off group"] == 2
