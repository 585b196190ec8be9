"""Kill -9 at any moment, and a new start."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing

import pytest

from supervisor.datacenter import Datacenter, Fault, FaultKind
from tests.acceptance.conftest import SENDER, Site, numbered, until

pytestmark = pytest.mark.timeout(150)


def is_whole(site: Site) -> None:
    """Fail unless SQLite finds nothing wrong with the files that a killed daemon left."""
    for name in ("recovery.db", "sessions.db"):
        path = site.state_dir / name
        if path.exists():
            with closing(sqlite3.connect(path)) as db:
                assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], name


async def test_kill_9_signs_nobody_in_anew_and_loses_no_log(dc: Datacenter, site: Site) -> None:
    """After kill -9 no bot signs in or makes a key again, the files are whole, and the log holds the last second."""
    site.code("sender", SENDER)
    for n in range(5):
        site.bot(f"bot-{n}", main="sender:main")
    site.write()
    first = site.run()
    await first.state("online")
    sign_ins, keys = sum(dc.seen.sign_ins.values()), dc.seen.key_exchanges
    assert (sign_ins, keys) == (5, 5)
    dc.reset_links()
    await asyncio.sleep(1.2)
    await first.kill()
    is_whole(site)
    rows = await site.log()
    assert [row["outcome"] for row in rows].count("recovered") == 5
    status = await site.command("status", "--json")
    assert status.code == 0
    assert not status.json()["running"]
    assert "killed" in status.err
    second = site.run()
    await second.state("online")
    assert (sum(dc.seen.sign_ins.values()), dc.seen.key_exchanges) == (sign_ins, keys)
    assert [row["id"] for row in await site.log()][: len(rows)] == [row["id"] for row in rows]
    await second.stop()
    assert dc.seen.max_connections_per_key == 1
    is_whole(site)


async def test_kill_9_during_an_outage_resumes_its_incidents(dc: Datacenter, site: Site) -> None:
    """A daemon killed while its server was away comes back online and closes the incidents that it had opened."""
    site.bot("bot-0")
    site.write()
    first = site.run()
    await first.state("online")
    await dc.go_away()
    await first.state("recovering")
    await asyncio.sleep(1.2)
    await first.kill()
    incident = (await site.log())[-1]["incident"]
    await dc.come_back()
    second = site.run()
    await second.state("online")
    await asyncio.sleep(0.5)
    last = (await site.log())[-1]
    assert (last["incident"], last["outcome"]) == (incident, "recovered")
    assert last["duration_s"] > 1.2
    assert sum(dc.seen.sign_ins.values()) == 1
    await second.stop()


async def test_a_flood_wait_outlives_kill_9(dc: Datacenter, site: Site) -> None:
    """A running FLOOD_WAIT_15 is honoured in full after kill -9: nothing leaves early, and the call is answered."""
    site.code("sender", SENDER)
    bot = site.bot("bot-0", main="sender:main")
    site.write()
    first = site.run()
    await until(lambda: len(dc.seen.sends[bot.user_id]) > 5, 25, "main sends")
    dc.faults.add(
        Fault(FaultKind.RPC_ERROR, bot.user_id, "messages.SendMessage", code=420, error="FLOOD_WAIT_15")
    )
    told = asyncio.get_running_loop().time()
    await until(lambda: dc.seen.faults, 5, "the wait is demanded")
    await asyncio.sleep(0.6)
    await first.kill()
    before = len(dc.seen.sends[bot.user_id])
    second = site.run()
    await second.state("online")
    await until(lambda: len(dc.seen.sends[bot.user_id]) > before, 27, "main is answered after the wait")
    assert asyncio.get_running_loop().time() - told >= 15.0
    assert not dc.seen.early_calls
    assert numbered(dc.seen.sends[bot.user_id][before:])[0] == 0
    await second.stop()


async def test_kill_9_while_starting(dc: Datacenter, site: Site) -> None:
    """Killed at ten moments of its start and of its sign-ins, a daemon still comes online, each time."""
    for n in range(3):
        site.bot(f"bot-{n}")
    site.settings["sign_ins_per_hour"] = 20
    site.settings["sign_ins_per_day"] = 20
    site.write()
    for moment in range(10):
        process = site.run()
        if moment % 2:  # later than the import, which takes long: while keys are made and tokens shown
            await until((site.state_dir / "control.sock").exists, 20, "the control socket")
            await asyncio.sleep(random.uniform(0.0, 0.6))
        else:
            await asyncio.sleep(random.uniform(0.1, 2.0))
        await process.kill()
        is_whole(site)
    last = site.run()
    await last.state("online")
    # A kill between the answer and the disk costs a sign-in, and each is remembered before it leaves.
    with closing(sqlite3.connect(site.state_dir / "recovery.db")) as db:
        remembered = db.execute("SELECT count(*) FROM sign_ins").fetchone()[0]
    assert remembered >= sum(dc.seen.sign_ins.values()) >= 3
    keys = dc.seen.key_exchanges
    await last.stop()
    again = site.run()
    await again.state("online")
    assert dc.seen.key_exchanges == keys
    await again.stop()


async def test_kill_9_during_the_sign_in_keeps_the_key(dc: Datacenter, site: Site) -> None:
    """Killed while its sign-in is unanswered, a bot uses the key that it had made, and signs in once more at most."""
    bot = site.bot("bot-0")
    site.write()
    fault = dc.faults.add(Fault(FaultKind.SILENCE, None, "auth.ImportBotAuthorization", count=None))
    first = site.run()
    await until(lambda: dc.seen.count("auth.ImportBotAuthorization"), 20, "the sign-in")
    await asyncio.sleep(0.5)
    await first.kill()
    is_whole(site)
    dc.faults.remove(fault)
    second = site.run()
    await second.state("online")
    assert dc.seen.key_exchanges == 1
    assert dc.seen.sign_ins[bot.user_id] <= 2
    await second.stop()
