"""What becomes of a running account whose fault has no end, that is stopped, paused or called off meanwhile, or whose code fails."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyrogram import raw

from supervisor.datacenter import Datacenter, dispatch, library
from supervisor.errors import AccountUnavailable, SupervisorError
from supervisor.telegram.outbox import Outbox
from tests.integration.conftest import PERSON, Fleet, until
from tests.integration.struck import FIFTH, LATENCY, prepare, struck
from tests.integration.watch import one_incident, peak_connects, watched

pytestmark = pytest.mark.timeout(60)


async def test_salts_without_end_suspend(tmp_path: Path) -> None:
    """A server that takes no salt at all: the caps hold, calls are refused with the reason, `retry` brings it back."""
    async with struck(tmp_path) as site:
        client = await site.fleet.sup.client("bot-0")
        await client.send_message(PERSON, "before")
        begun = time.monotonic()
        site.dc.endless_salts()
        with pytest.raises(AccountUnavailable, match="bad_server_salt"):
            await client.send_message(PERSON, "never")
        assert time.monotonic() - begun <= 8.0
        assert site.state == "suspended"
        assert site.fleet.account()["retry_at"] is not None
        assert (
            len(site.dc.seen.connections) <= 8
        )  # the first, three attempts, and a probe of the path for each
        site.dc.faults.clear()
        await site.fleet.sup.retry(["bot-0"])
        await client.send_message(PERSON, "after")
        assert site.state == "online"
        rows = await site.fleet.rows()
    incident = one_incident(row for row in rows if row["scope"] != "call")
    assert [row["outcome"] for row in incident][-2:] == ["suspended", "recovered"]
    assert {row["kind"] for row in incident} == {"connection"}
    assert site.dc.seen.times_delivered("never") == 0


async def test_a_stop_does_not_wait_for_a_deaf_peer(tmp_path: Path) -> None:
    """With megabytes unsent and nobody reading, the stop takes no longer than any other, and its calls are told."""
    async with struck(tmp_path) as site:
        site.dc.silent(site.bot)
        part = raw.functions.upload.SaveBigFilePart(
            file_id=1, file_part=0, file_total_parts=9, bytes=bytes(512 * 1024)
        )
        calls = [asyncio.create_task(site.invoke(part), name="part") for _ in range(16)]
        await asyncio.sleep(0.5)
        begun = time.monotonic()
    assert time.monotonic() - begun <= 3.0
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(end) for end in ends} == {AccountUnavailable}


async def test_a_stop_during_a_reconnect_is_final(tmp_path: Path) -> None:
    """A stop while the server is gone takes under 2 s, tells the held call, and nothing connects afterwards."""
    async with struck(tmp_path) as site:
        client = await site.fleet.sup.client("bot-0")
        await site.dc.go_away()
        await site.leaves()
        held = asyncio.create_task(client.send_message(PERSON, "held"), name="held")
        await asyncio.sleep(0.5)
        begun = time.monotonic()
        await site.fleet.sup.__aexit__(None, None, None)
        assert time.monotonic() - begun <= 2.0
        with pytest.raises(AccountUnavailable, match="bot-0 is stopped"):
            await held
        await site.dc.come_back()
        connections = len(site.dc.seen.connections)
        await asyncio.sleep(1.5)
        assert len(site.dc.seen.connections) == connections


async def test_a_pause_during_a_reconnect_is_heeded(tmp_path: Path) -> None:
    """Paused while the server is gone: the incident is over, and nothing connects until `resume`."""
    async with struck(tmp_path) as site:
        await site.dc.go_away()
        await site.leaves()
        await site.fleet.sup.pause(["bot-0"])
        assert (site.state, site.fleet.account()["incident"]) == ("paused", None)
        await site.dc.come_back()
        await asyncio.sleep(1.5)
        # One probe may find the path well again; the account itself stays away.
        assert site.state == "paused"
        assert not [c for c in site.dc.seen.connections if c.closed_at is None and c.user_id is not None]
        await site.fleet.sup.resume(["bot-0"])
        await site.online()
        rows = await site.fleet.rows()
    assert one_incident(rows)[0]["kind"] == "connection"
    assert peak_connects(site.dc) <= 5


async def test_a_main_that_raises_is_told_and_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exception is in the record with the traceback and the account's name; the account stays online throughout."""
    (tmp_path / "raisingmain.py").write_text(
        "runs = []\n"
        "async def main(client):\n"
        "    runs.append(client.name)\n"
        "    if len(runs) == 1:\n"
        "        raise LookupError('the larder is empty')\n"
        "    await client.send_message(777, 'second')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    prepare()
    async with watched(), Datacenter(latency=LATENCY) as dc:
        fleet = Fleet(dc, tmp_path, 1, **FIFTH)
        fleet.change("bot-0", main="raisingmain:main")
        async with fleet.running():
            await until(lambda: dc.seen.times_delivered("second"), 5, "the second run")
            assert (fleet.state(), fleet.account()["incident"]) == ("online", None)
            rows = await fleet.rows()
    (row,) = rows
    assert (row["account"], row["outcome"], row["incident"]) == ("bot-0", "raised", None)
    assert "LookupError: the larder is empty" in row["message"]
    assert len(dc.seen.connections) == 1


def unanswered() -> int:
    """The queries that any session in this process still waits for."""
    return sum(found.unanswered for found in gc.get_objects() if isinstance(found, Outbox))


async def test_a_call_may_be_cancelled_at_every_await(tmp_path: Path) -> None:
    """However far a call has come, held or sent, its cancellation leaves nothing and harms no other."""
    async with struck(tmp_path) as site:
        client = await site.fleet.sup.client("bot-0")
        await client.send_message(PERSON, "before")

        async def cut_off(steps: int, text: str) -> None:
            task = asyncio.create_task(client.send_message(PERSON, text), name="cut off")
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

        async def beside(text: str) -> None:
            message = await client.send_message(PERSON, text)
            assert message.text == text

        for n in range(25):  # no call takes more steps before it waits for its answer
            await asyncio.gather(cut_off(n, f"cut-{n}"), beside(f"whole-{n}"))
        site.dc.reset_links()
        await site.leaves()
        await asyncio.gather(*(cut_off(n, f"held-{n}") for n in range(25)), beside("held"))
        for n in range(5):  # while the answer is on its way
            task = asyncio.create_task(beside(f"late-{n}"), name="late")
            await asyncio.sleep(LATENCY * n / 4)
            task.cancel()
            await asyncio.wait([task])
        await beside("after")
        assert unanswered() == 0
        assert (site.state, site.fleet.account()["incident"]) == ("online", None)
    delivered = site.dc.seen.delivered
    assert all(count == 1 for count in delivered.values())
    assert all(site.dc.seen.times_delivered(f"whole-{n}") for n in range(25))


async def test_an_answer_of_an_unknown_form_is_its_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told what was found instead of an answer; the link and the other calls go on, the call is not repeated."""
    original = library.serialize

    def newer(answer: Any) -> bytes:
        created = type(answer).__name__ in ("Updates", "InvitedUsers")  # the libraries' layers differ
        return bytes.fromhex("efbeadde") if created else original(answer)

    async with struck(tmp_path) as site:
        client = await site.fleet.sup.client("bot-0")
        await client.send_message(PERSON, "before")
        monkeypatch.setattr(dispatch, "serialize", newer)
        user = raw.types.InputUser(
            user_id=PERSON, access_hash=site.dc.access_hash(site.bot, site.fleet.person)
        )
        query = raw.functions.messages.CreateChat(users=[user], title="new")
        begun = time.monotonic()
        with pytest.raises(SupervisorError, match=r"cannot be read: unknown constructor 0xdeadbeef"):
            await site.invoke(query)
        assert time.monotonic() - begun <= 1.0
        monkeypatch.undo()
        await client.send_message(PERSON, "after")
        rows = await site.fleet.rows()
    assert len(site.dc.seen.effects[site.bot.user_id]) == 1
    assert len(site.dc.seen.connections) == 1
    (row,) = rows
    assert (row["outcome"], row["error_id"], row["method"]) == ("raised", "UNREADABLE", "messages.CreateChat")


@pytest.mark.parametrize("whose", ["ours", "the server's"])
async def test_a_wrong_clock_at_the_start(
    tmp_path: Path, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 s or 400 s off, either way: online at once, without an incident, by the server's clock from then on."""

    async def one(n: int, seconds: float) -> None:
        async with Datacenter(latency=LATENCY) as dc:
            if whose == "ours":
                wrong = SimpleNamespace(time=lambda: time.time() + seconds)
                monkeypatch.setattr("supervisor.telegram.messages.time", wrong)
            else:
                dc.clock_offset = -seconds
            fleet = Fleet(dc, tmp_path / str(n), 1, **FIFTH)
            begun = time.monotonic()
            async with fleet.running() as sup:
                assert time.monotonic() - begun <= 3.0
                client = await sup.client("bot-0")
                await client.send_message(PERSON, "now")
                assert await fleet.rows() == []
            assert len(dc.seen.connections) == 1

    prepare()
    async with watched():
        if whose == "ours":  # one clock in this process
            for n, seconds in enumerate((60, -60, 400, -400)):
                await one(n, seconds)
        else:
            async with asyncio.TaskGroup() as group:
                for n, seconds in enumerate((60, -60, 400, -400)):
                    group.create_task(one(n, seconds), name=f"clock {seconds}")
