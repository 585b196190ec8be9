"""Every way in which a running client's link fails: the true cause in the record, the right action, in bounded time.

The catalogue of how the bare clients fail is the table's second column. All bounds are a fifth of the defaults, three
rows excepted. The rows of a group run side by side, each with a datacenter of its own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyrogram import raw

from supervisor.datacenter import Fault as Scripted
from supervisor.datacenter import FaultKind
from tests.integration.conftest import PERSON, until
from tests.integration.struck import FIFTH, Fault, Site, prepare
from tests.integration.watch import watched

pytestmark = pytest.mark.timeout(90)

SEND = "messages.SendMessage"
NOTHING = None
CUT = "RST, EOF, half-open"
GONE = "server gone, invoke"
BAD_MSG = "bad_msg 16/17/32/20/48"
CLOCK = "clock off >30 s behind / >300 s ahead"

# --- what happens ------------------------------------------------------------------------------------------------


async def reset(site: Site) -> None:
    site.dc.reset_links()


async def close(site: Site) -> None:
    site.dc.close_links()


async def half_open(site: Site) -> None:
    """What is open carries nothing any more; a new connection works."""
    site.down = True
    site.dc.silent(swallow=True)
    site.dc.speak()
    await site.leaves(seconds=20)
    site.down = False


async def drop_in_flight(site: Site) -> None:
    """Two messages and a group take effect, and the connection is cut before the answers."""
    site.dc.faults.add(Scripted(FaultKind.DROP_AFTER, site.bot.user_id, SEND))
    site.dc.faults.add(Scripted(FaultKind.DROP_AFTER, site.bot.user_id, "messages.CreateChat"))
    user = raw.types.InputUser(user_id=PERSON, access_hash=site.dc.access_hash(site.bot, site.fleet.person))
    begun = time.monotonic()
    await site.invoke(raw.functions.messages.CreateChat(users=[user], title="once"))
    assert time.monotonic() - begun <= 2.0
    assert [effect.what for effect in site.dc.seen.effects[site.bot.user_id]] == ["once"]


async def away(site: Site) -> None:
    site.down = True
    await site.dc.go_away()
    await site.idle(2.0)
    assert site.fleet.sup.status()["paths"][0]["state"] == "broken"
    await site.dc.come_back()
    site.down = False


async def silence(site: Site) -> None:
    site.down = True
    site.dc.silent()
    await site.idle(3.0)
    assert site.state == "recovering"
    site.dc.speak()
    site.down = False


def unknown_key(count: int) -> Callable[[Site], Any]:
    async def strike(site: Site) -> None:
        site.dc.transport_error(-404, site.bot, count=count)
        await site.leaves(seconds=FIFTH["silence_timeout"])

    return strike


async def forget_key(site: Site) -> None:
    site.dc.forget_keys(site.bot)
    await site.leaves(seconds=FIFTH["silence_timeout"])


async def revoke(site: Site) -> None:
    site.dc.revoke(site.bot, "SESSION_REVOKED")
    await site.leaves(seconds=5.0)


def bad_message(code: int, count: int = 1) -> Callable[[Site], Any]:
    async def strike(site: Site) -> None:
        fault = Scripted(FaultKind.BAD_MSG, site.bot.user_id, SEND, code=code, count=count)
        site.dc.faults.add(fault)
        await until(lambda: fault.is_over, 5, f"bad_msg {code}")
        await site.idle(0.2)

    return strike


def clock(seconds: float) -> Callable[[Site], Any]:
    async def strike(site: Site) -> None:
        site.dc.clock_offset += seconds
        await site.idle(1.0)

    return strike


async def endless_salts(site: Site) -> None:
    site.down = True
    fault = site.dc.endless_salts()
    await site.idle(1.5)
    site.dc.faults.remove(fault)
    site.down = False


async def undecryptable(site: Site) -> None:
    (link,) = (c for c in site.dc.engine.connections if c.is_open)
    assert link.key is not None
    link.send(link.key.id + os.urandom(16 + 96))
    await site.leaves(seconds=1.0)


async def unknown_constructor(site: Site) -> None:
    site.dc.engine.push(site.bot.user_id, bytes.fromhex("efbeadde") + os.urandom(32))
    await site.idle(0.5)


async def duplicated_key(site: Site) -> None:
    fault = Scripted(
        FaultKind.RPC_ERROR, site.bot.user_id, "InitConnection", code=406, error="AUTH_KEY_DUPLICATED"
    )
    site.dc.faults.add(fault)
    site.dc.reset_links()
    await site.leaves(seconds=2.0)


async def deaf(site: Site) -> None:
    """The peer reads nothing while 8 MiB are sent to it; then it does, and every part is answered."""
    site.down = True
    site.dc.silent(site.bot)
    file_id = int.from_bytes(os.urandom(7), "little")
    parts = [
        asyncio.create_task(
            site.invoke(
                raw.functions.upload.SaveBigFilePart(
                    file_id=file_id, file_part=n, file_total_parts=16, bytes=bytes(512 * 1024)
                )
            ),
            name=f"part {n}",
        )
        for n in range(16)
    ]
    await site.leaves(seconds=15)
    site.dc.speak(site.bot)
    site.down = False
    assert await asyncio.gather(*parts) == [True] * 16


# --- the table ---------------------------------------------------------------------------------------------------

MATRIX = (
    (
        Fault("reset", CUT, reset, "connection reset by 127.0.0.1:"),
        Fault("end of file", CUT, close, "connection closed by 127.0.0.1:"),
        Fault("half-open", CUT, half_open, "nothing came from the link for", slowest=3.0, lie=2.0),
        Fault(
            "drop in flight", "drop with a call in flight", drop_in_flight, "connection reset by", slowest=2.0
        ),
        Fault("away", GONE, away, "connection reset by", ("connection refused 127.0.0.1:",), slowest=4.5),
        Fault("silent", "silent server, invoke", silence, "nothing came from the link", slowest=5.0, lie=2.0),
    ),
    (
        Fault("-404 once", "-404 while idle", unknown_key(1), "transport -404", idle=True),
        Fault(
            "-404 for good", "-404 while idle", forget_key, "transport -404", idle=True, back=6.0, sign_ins=2
        ),
        Fault(
            "revoked",
            "key revoked, idle",
            revoke,
            "SESSION_REVOKED",
            kind="auth",
            action="relogin",
            idle=True,
            sign_ins=2,
            settings={"prove_every": 1.0},
        ),
        Fault(
            "AUTH_KEY_DUPLICATED",
            "background reconnect meets AuthKeyDuplicated",
            duplicated_key,
            "connection reset by",
            ("AUTH_KEY_DUPLICATED",),
            idle=True,
            sign_ins=2,
        ),
        Fault("undecryptable", "undecryptable packet", undecryptable, "undecryptable packet: its msg_key"),
        Fault(
            "unknown constructor",
            "undecryptable packet",
            unknown_constructor,
            NOTHING,
            ("an update cannot be read: unknown constructor 0xdeadbeef",),
        ),
    ),
    (
        Fault("bad_msg 16", BAD_MSG, bad_message(16), NOTHING),
        Fault("bad_msg 17", BAD_MSG, bad_message(17), r"bad_msg_notification 17 \(msg_id too high"),
        Fault("bad_msg 20", BAD_MSG, bad_message(20), NOTHING),
        Fault("bad_msg 32", BAD_MSG, bad_message(32), r"bad_msg_notification 32 \(msg_seqno too low"),
        Fault("bad_msg 33", BAD_MSG, bad_message(33), r"bad_msg_notification 33 \(msg_seqno too high"),
        Fault("bad_msg 48", BAD_MSG, bad_message(48, 3), NOTHING),
        Fault("bad_msg 64", BAD_MSG, bad_message(64), NOTHING),
    ),
    (
        Fault("clock 60 s behind", CLOCK, clock(60), NOTHING),
        Fault("clock 400 s behind", CLOCK, clock(400), NOTHING),
        Fault("clock 60 s ahead", CLOCK, clock(-60), r"bad_msg_notification 17 \(.*our clock is ahead"),
        Fault("clock 400 s ahead", CLOCK, clock(-400), r"bad_msg_notification 17 \(.*our clock is ahead"),
        Fault(
            "endless salts", "salt", endless_salts, "refused .* times: bad_server_salt", slowest=6.0, lie=1.0
        ),
        Fault(
            "deaf",
            "peer stops reading",
            deaf,
            "nothing came from the link",
            slowest=5.0,
            lie=2.2,
            back=6.0,
            links=2,
        ),
    ),
)


async def side_by_side(faults: tuple[Fault, ...], directory: Path) -> None:
    """Run rows of the table at once; begin one after the other, for key exchanges in a row are no fault."""

    async def one(fault: Fault, n: int) -> None:
        await asyncio.sleep(0.3 * n)
        try:
            await fault.run(directory / str(n))
        except Exception as error:
            error.add_note(f"the row: {fault.name} ({fault.entry})")
            raise

    prepare()
    async with watched():
        ends = await asyncio.gather(*(one(f, n) for n, f in enumerate(faults)), return_exceptions=True)
    failed = [end for end in ends if isinstance(end, Exception)]
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(faults)} rows", failed)


@pytest.mark.parametrize("faults", MATRIX, ids=lambda faults: ", ".join(fault.name for fault in faults))
async def test_each_fault_is_told_and_mended(faults: tuple[Fault, ...], tmp_path: Path) -> None:
    """One incident that names the cause; no call fails, is lost or doubled; no storm, no leak, no stall, no lie."""
    await side_by_side(faults, tmp_path)


WHOLE = {
    "connect_timeout": 10.0,
    "answer_timeout": 15.0,
    "silence_timeout": 10.0,
    "stable_after": 60.0,
    "call_timeout": 60.0,
}
FULL_SCALE = (
    Fault("half-open", CUT, half_open, "nothing came from the link", slowest=10.5, lie=10.0, settings=WHOLE),
    Fault("clock 60 s ahead", CLOCK, clock(-60), "bad_msg_notification 17", settings=WHOLE),
    Fault(
        "deaf",
        "peer stops reading",
        deaf,
        "nothing came from the link",
        slowest=15.0,
        lie=10.0,
        back=6.0,
        links=2,
        settings=WHOLE,
    ),
)


async def test_at_full_scale(tmp_path: Path) -> None:
    """The same with the default bounds, where a bound is what the row is about."""
    await side_by_side(FULL_SCALE, tmp_path)
