"""Kill -9 at any moment, and a new start."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from datetime import datetime
from typing import Any

import pytest

from supervisor.datacenter import Datacenter, Fault, FaultKind
from tests.acceptance.conftest import SENDER, Process, Site, numbered, until

pytestmark = pytest.mark.timeout(150)

# Sends a numbered message after the other, as fast as it is let; notes what Telegram wants it to wait.
IMPATIENT = """
import asyncio, itertools, pathlib
from pyrogram.errors import FloodWait
async def main(client):
    for n in itertools.count():
        try:
            await client.send_message(777, f"{client.name} {n}")
        except FloodWait as told:
            (pathlib.Path(__file__).parent / "told").write_text(str(told.value))
        await asyncio.sleep(0.05)
"""


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
    dc.reset_links(site.bots["bot-0"])
    await asyncio.sleep(1.2)
    await first.kill()
    is_whole(site)
    rows = await site.log()
    assert [row["outcome"] for row in rows].count("recovered") == 1
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


async def test_flood_waits_outlive_kill_9(dc: Datacenter, site: Site) -> None:
    """Killed in the middle of them: no call leaves early in the next process, nor does an attempt that has a wait of its own.

    A short one is waited out in full, and the call answered; of a long one whoever may not wait so long is told what is
    left. A flood wait of updates.getState, by which a link is proved, lets nobody connect, whoever orders it.
    """
    site.code("sender", SENDER)
    site.code("impatient", IMPATIENT)
    site.settings["max_wait"] = 60
    short, long = site.bot("short", main="sender:main"), site.bot("long", main="impatient:main")
    own = site.bot("own")
    site.write()
    first = site.run()
    await first.state("online")
    await until(lambda: min(len(dc.seen.sends[bot.user_id]) for bot in (short, long)) > 2, 25, "both send")
    for bot, method, seconds in (
        (short, "messages.SendMessage", 10),
        (long, "messages.SendMessage", 120),
        (own, "updates.GetState", 10),
    ):
        dc.faults.add(
            Fault(FaultKind.RPC_ERROR, bot.user_id, method, code=420, error=f"FLOOD_WAIT_{seconds}")
        )
    dc.reset_links(own)
    await until(lambda: sum(dc.seen.faults.values()) == 3, 5, "the waits are demanded")
    demanded = asyncio.get_running_loop().time()
    await asyncio.sleep(0.6)
    was = (await first.state("recovering", "own"))["own"]
    await first.kill()
    is_whole(site)
    told, connections = site.etc / "told", len(dc.seen.connections)
    told.unlink(missing_ok=True)
    sent = {bot.user_id: len(dc.seen.sends[bot.user_id]) for bot in (short, long)}

    second = site.run()
    now = (await second.state("recovering", "own"))["own"]
    assert now["incident"] == was["incident"]
    assert abs(seconds_of(now["retry_at"]) - seconds_of(was["retry_at"])) < 0.5
    assert (await site.command("retry", "own")).code == 0
    await until(told.exists, 10, "main is told how long to wait")
    left = 120.0 - (asyncio.get_running_loop().time() - demanded)
    assert left - 1.0 <= float(told.read_text()) <= left + 4.0
    assert len(dc.seen.connections) == connections + 2
    await until(lambda: len(dc.seen.sends[short.user_id]) > sent[short.user_id], 20, "the wait is over")
    assert asyncio.get_running_loop().time() - demanded >= 10.0
    assert numbered(dc.seen.sends[short.user_id][sent[short.user_id] :])[0] == 0
    await second.state("online")
    assert len(dc.seen.sends[long.user_id]) == sent[long.user_id]
    assert not dc.seen.early_calls
    assert {row["incident"] for row in await site.log("--account", "own")} == {was["incident"]}
    await second.stop()


def seconds_of(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339).timestamp()


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


async def stands(process: Process, as_before: dict[str, dict[str, Any]]) -> None:
    """Fail unless a new process leaves every account where the one before did."""
    facts = ("state", "since", "incident", "retry_at", "user_id")
    now = await until_answered(process)
    for name, before in as_before.items():
        assert {fact: now[name][fact] for fact in facts} == {fact: before[fact] for fact in facts}, name


async def until_answered(process: Process) -> dict[str, dict[str, Any]]:
    for _ in range(400):
        if accounts := await process.accounts():
            return accounts
        await asyncio.sleep(0.05)
    pytest.fail(f"status does not answer\n{process.err}")


async def test_trouble_survives_kill_9_and_a_stop(dc: Datacenter, site: Site) -> None:
    """Suspended, failed and needs_login stay so, with their times and their incidents, and nothing is connected for them.

    The log says so at each start. A changed token, and a person's word, try them.
    """
    site.settings["flap_limit"] = 1
    dead, flapping = site.bot("dead"), site.bot("flapping")
    site.accounts["person"] = {"phone": "+4915112345678"}
    dc.kill_token(dead)
    site.write()
    daemon = site.run()
    await daemon.state("online", "flapping")
    await daemon.state("failed", "dead")
    await daemon.state("needs_login", "person")
    for _ in range(2):
        await daemon.state("online", "flapping")
        dc.reset_links(flapping)
        await asyncio.sleep(0.3)
    was = await daemon.state("suspended", "flapping")
    assert was["flapping"]["last_failure"]["error_id"] == "FLAPPING"
    assert was["flapping"]["last_failure"]["message"].startswith("flapping: 2 losses in 10 minutes")
    await asyncio.sleep(0.6)
    await daemon.kill()
    is_whole(site)
    connections, rows = len(dc.seen.connections), await site.log()
    for _ in range(2):  # after kill -9, and after a stop
        daemon = site.run()
        await stands(daemon, was)
        await asyncio.sleep(0.5)
        for line in (
            f"dead is failed since {plain(was['dead']['since'])}",
            "`tg-supervisor retry dead` tries it again",
            f"person is needs_login since {plain(was['person']['since'])}",
            "`tg-supervisor login person` signs it in",
            f"it is tried again at {plain(was['flapping']['retry_at'])}",
        ):
            assert daemon.err.count(line) == 1, daemon.err
        await daemon.stop()
        last = {
            account["name"]: account
            for account in (await site.command("status", "--json")).json()["accounts"]
        }
        assert {name: last[name]["state"] for name in was} == {name: was[name]["state"] for name in was}
    assert len(dc.seen.connections) == connections
    assert await site.log() == rows
    site.accounts["dead"]["bot_token"] = dc.add_bot(first_name="alive").token
    site.write()
    daemon = site.run()
    await daemon.state("online", "dead")
    assert (await site.command("retry", "flapping")).code == 0
    await daemon.state("online", "flapping")
    await asyncio.sleep(0.3)
    recovered = (await site.log())[-1]
    assert (recovered["outcome"], recovered["incident"]) == ("recovered", was["flapping"]["incident"])
    assert recovered["duration_s"] > 1.0
    await daemon.stop()


def plain(rfc3339: str) -> str:
    return f"{datetime.fromisoformat(rfc3339):%Y-%m-%d %H:%M:%S} UTC"


async def test_kill_9_in_the_middle_of_trouble(dc: Datacenter, site: Site) -> None:
    """Killed three times while links are reset and waits demanded: both files stay whole, no wait is forgotten, nothing is
    older than the last second and lost, and each incident that was left open is the one that is closed.
    """
    site.code("sender", SENDER)
    for n in range(3):
        site.bot(f"bot-{n}", main="sender:main")
    site.settings |= {"flap_limit": 1000, "stable_after": 0.2}
    site.write()
    for _ in range(3):
        process = site.run()
        await process.state("online")
        met = 0
        ends = asyncio.get_running_loop().time() + random.uniform(1.2, 2.2)
        while asyncio.get_running_loop().time() < ends:
            bot = random.choice(list(site.bots.values()))
            if met % 2:
                dc.reset_links(bot)
            else:
                dc.faults.add(
                    Fault(
                        FaultKind.RPC_ERROR,
                        bot.user_id,
                        "messages.SendMessage",
                        code=420,
                        error="FLOOD_WAIT_1",
                    )
                )
            met += 1
            await asyncio.sleep(0.1)
        said = len([line for line in process.err.splitlines() if "attempt " in line])
        await asyncio.sleep(1.0)
        await process.kill()
        is_whole(site)
        with closing(sqlite3.connect(site.state_dir / "recovery.db")) as db:
            started = db.execute("SELECT value FROM meta WHERE key = 'started_at'").fetchone()
            kept = db.execute(
                "SELECT sum(count) FROM failures WHERE outcome = 'retrying' AND at >= ?", started
            ).fetchone()[0]
        assert kept >= said > 0
    last = site.run()
    await last.state("online")
    await until(lambda: not left_open(site), 10, f"every incident ends: {left_open(site)}")
    assert not dc.seen.early_calls
    await last.stop()
    is_whole(site)


def left_open(site: Site) -> list[tuple[Any, ...]]:
    """The incidents that have not ended."""
    with closing(sqlite3.connect(site.state_dir / "recovery.db")) as db:
        return db.execute("SELECT id, account, scope, kind FROM incidents WHERE closed_at IS NULL").fetchall()
