"""Files and inline messages of another datacenter, over real sockets: a link of its own, told of like any other."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.model import Proxy
from supervisor.datacenter import Cluster
from supervisor.datacenter.faults import Fault, FaultKind
from supervisor.datacenter.files import StoredFile
from supervisor.datacenter.library import raw
from supervisor.datacenter.methods import ANYWHERE, METHODS
from supervisor.errors import AccountUnavailable, DatacenterUnreachable, OutcomeUnknown
from supervisor.telegram import foreign
from tests.integration.conftest import ScriptedProxy, until
from tests.integration.transfers import (
    ELSEWHERE,
    HERE,
    MIB,
    Home,
    after,
    at_work,
    check_connections,
    folder,
    media_of,
    set_up,
)
from tests.integration.watch import watched

BOT = 110201540


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Datacenters 2 and 4. Never were there two connections of one key."""
    async with Cluster(HERE, ELSEWHERE) as running:
        yield running
        check_connections(running)


@pytest.fixture
def far(cluster: Cluster) -> StoredFile:
    """A file of a little over 4 MiB that lies on datacenter 4."""
    return cluster[ELSEWHERE].add_file(os.urandom(4 * MIB + 9))


@pytest.fixture
async def home(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Home]:
    """An account that is online on datacenter 2."""
    monkeypatch.setattr(foreign, "APART", 0.1)
    async with set_up(cluster, tmp_path).online() as running:
        yield running


async def fetched(home: Home, stored: StoredFile, dc_id: int | None = None) -> None:
    """The file comes whole."""
    memory = await home.client.download_media(media_of(stored, dc_id), in_memory=True)
    assert memory.getvalue() == stored.content


def made(home: Home) -> tuple[int, int]:
    """How many keys were made with the other datacenter, and authorizations exported to it."""
    return home.there.seen.key_exchanges, home.here.seen.count("auth.ExportAuthorization")


async def test_a_file_comes_over_a_link_of_its_own(home: Home, far: StoredFile) -> None:
    """A key of its own, one authorization transferred, one connection for two downloads at once."""
    home.client.get_file_semaphore = asyncio.Semaphore(2)
    await asyncio.gather(fetched(home, far), fetched(home, far))
    assert len(home.there.seen.connections) == 1
    assert made(home) == (1, 1)
    assert not {k.key for k in home.here.engine.keys.of(None)} & {
        k.key for k in home.there.engine.keys.of(None)
    }
    assert await home.fleet.rows() == []


async def test_a_restart_makes_no_key_and_exports_nothing(
    cluster: Cluster, tmp_path: Path, far: StoredFile
) -> None:
    """The key is kept with the account's session: the next run opens the link with it."""
    account = set_up(cluster, tmp_path)
    for run in (1, 2):
        async with account.online() as home:
            await fetched(home, far)
            assert len(home.there.seen.connections) == run
            assert made(home) == (1, 1)
            assert home.here.seen.key_exchanges == 1


async def test_a_new_session_of_the_account_has_new_keys_elsewhere(home: Home, far: StoredFile) -> None:
    """The account had to sign in again: what its old session was allowed elsewhere is not used any more."""
    await fetched(home, far)
    home.here.revoke(BOT, "SESSION_REVOKED")
    await home.client.get_me()
    assert home.here.seen.sign_ins[BOT] == 2
    await fetched(home, far)
    assert made(home) == (2, 2)


async def test_a_link_closes_when_idle_and_keeps_its_key(
    home: Home, far: StoredFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody uses it: the connection goes. The next use opens it again, without an exchange or a transfer."""
    monkeypatch.setattr(foreign, "IDLE", 0.1)
    await fetched(home, far)
    await until(lambda: home.there.seen.open_connections == 0)
    await fetched(home, far)
    assert len(home.there.seen.connections) == 2
    assert made(home) == (1, 1)


@pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER])
@pytest.mark.parametrize("method", ["upload.GetFile", "auth.ImportAuthorization", "InitConnection"])
async def test_a_download_goes_on_after_a_reset(
    home: Home, far: StoredFile, kind: FaultKind, method: str
) -> None:
    """Wherever the connection is lost, the file comes whole, no piece is read twice, and the record says where."""
    after(home.there, kind, method, 1 if method == "upload.GetFile" else 0)
    await fetched(home, far)
    assert home.there.seen.faults[kind] == 1
    assert home.there.seen.count("upload.GetFile") == 5
    failed, recovered = await home.fleet.rows()
    assert failed["message"] == f"datacenter 4: connection reset by 127.0.0.1:{home.there.port}"
    told = {
        "account": "bot-0",
        "path": "direct",
        "kind": "connection",
        "scope": "call",
        "method": "upload.GetFile",
    }
    for row, outcome in ((failed, "retrying"), (recovered, "recovered")):
        assert {**row, **told, "outcome": outcome} == row
    assert failed["incident"] == recovered["incident"]
    assert home.fleet.state() == "online"


async def test_a_lost_session_costs_only_what_was_under_way(home: Home, far: StoredFile) -> None:
    """The other datacenter forgets the session in the middle: the piece is asked for again, and no other."""
    after(home.there, FaultKind.SILENCE, "upload.GetFile", 2)
    work = asyncio.create_task(fetched(home, far))
    await until(lambda: home.there.seen.count("upload.GetFile") == 3)
    home.there.forget_sessions()
    home.there.reset_links()
    await work
    assert home.there.seen.count("upload.GetFile") == 6


async def test_a_cancelled_download_leaves_nothing(home: Home, far: StoredFile) -> None:
    """No task, no file, nothing that is still waited for; and the next download runs."""
    await fetched(home, far)
    before = at_work()
    home.there.silent()
    where = f"{Path.cwd()}/downloads/"
    work = asyncio.create_task(home.client.download_media(media_of(far), file_name=where))
    session = home.client.media_sessions.get(ELSEWHERE).session
    await until(lambda: session.unanswered)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await until(lambda: not session.unanswered)
    await until(lambda: at_work() == before, what="tasks that stay")
    assert folder() == []
    home.there.speak()
    await fetched(home, far)


async def test_a_silent_datacenter_is_found_out(home: Home, far: StoredFile) -> None:
    """It accepts and answers nothing: the cause is told within `silence_timeout`, the file comes when it speaks."""
    await fetched(home, far)
    home.there.silent(swallow=True)
    work = asyncio.create_task(fetched(home, far))
    rows: list[dict[str, Any]] = []
    while not rows:
        rows = await home.fleet.rows()
    assert rows[0]["message"].startswith("datacenter 4: nothing came from the link for ")
    home.there.speak()
    await work


async def test_a_datacenter_that_is_away_raises_its_cause(home: Home, far: StoredFile) -> None:
    """As often as the policy allows, then an exception that says what refused; the account is as it was, no file left."""
    await home.there.go_away()
    refused = f"datacenter 4 could not be reached: connection refused 127.0.0.1:{home.there.port}"
    with pytest.raises(DatacenterUnreachable, match=refused) as failed:
        await home.client.download_media(media_of(far), file_name=f"{Path.cwd()}/downloads/")
    assert isinstance(failed.value, ConnectionError)
    assert folder() == []
    rows = await home.fleet.rows()
    assert [row["outcome"] for row in rows] == ["retrying"] * 3 + ["failed"]
    assert len({row["incident"] for row in rows}) == 1
    assert home.fleet.state() == "online"
    assert len(home.here.seen.connections) == 1
    await home.there.come_back()
    await fetched(home, far)


async def test_a_datacenter_that_goes_away_in_the_middle_raises(home: Home, far: StoredFile) -> None:
    """A download that has begun fails with the cause, and no half of a file looks like the whole."""

    async def progress(current: int, _total: int) -> None:
        if current == 2 * MIB:
            await home.there.go_away()

    with pytest.raises(DatacenterUnreachable, match="connection refused"):
        await home.client.download_media(
            media_of(far), file_name=f"{Path.cwd()}/downloads/", progress=progress
        )
    assert folder() == []


async def test_file_migrate_is_followed_once(home: Home, far: StoredFile) -> None:
    """Asked at home, FILE_MIGRATE_4 sends the download there, for the whole of it; sent back again, it is raised."""
    from pyrogram.errors import RPCError

    await fetched(home, far, HERE)
    assert home.here.seen.count("upload.GetFile") == 1
    after(home.there, FaultKind.RPC_ERROR, "upload.GetFile", 0, code=303, error="FILE_MIGRATE_2")
    with pytest.raises(RPCError, match="FILE_MIGRATE_X"):
        await fetched(home, far, HERE)


async def test_an_authorization_that_is_refused_is_exported_anew(home: Home, far: StoredFile) -> None:
    """AUTH_BYTES_INVALID: the same bytes are never sent again; where it goes on like that, it is told."""
    refuse = Fault(
        FaultKind.RPC_ERROR, method="auth.ImportAuthorization", code=400, error="AUTH_BYTES_INVALID", count=2
    )
    home.there.faults.add(refuse)
    await fetched(home, far)
    assert made(home) == (1, 3)
    home.there.forget_keys()
    home.there.reset_links()
    home.there.faults.add(
        Fault(
            FaultKind.RPC_ERROR,
            method="auth.ImportAuthorization",
            code=400,
            error="AUTH_BYTES_INVALID",
            count=None,
        )
    )
    with pytest.raises(DatacenterUnreachable, match="AUTH_BYTES_INVALID"):
        await fetched(home, far)


@pytest.mark.parametrize("dead", ["AUTH_KEY_UNREGISTERED", "SESSION_REVOKED", "-404"])
async def test_a_key_that_is_dead_is_replaced(home: Home, far: StoredFile, dead: str) -> None:
    """Another key, another transfer; told with the datacenter's number, and nothing happens to the account's own."""
    await fetched(home, far)
    if dead == "-404":
        home.there.forget_keys()
        home.there.reset_links()
    else:
        home.there.revoke(BOT, dead)
    await fetched(home, far)
    assert made(home) == (2, 2)
    assert (home.here.seen.key_exchanges, home.here.seen.sign_ins[BOT]) == (1, 1)
    assert len(home.here.seen.connections) == 1
    auth = [row for row in await home.fleet.rows() if row["kind"] == "auth"]
    assert [row["outcome"] for row in auth] == ["retrying", "recovered"]
    assert all(row["message"].startswith("datacenter 4: ") and row["scope"] == "call" for row in auth)


WAITS = ["upload.GetFile", "auth.ImportAuthorization", "auth.ExportAuthorization", "InitConnection"]


@pytest.mark.parametrize("method", WAITS)
async def test_a_wait_is_honoured_whoever_demands_it(home: Home, far: StoredFile, method: str) -> None:
    """A flood wait of the other datacenter, or of the transfer to it: waited out in full, and told."""
    dc = home.here if method == "auth.ExportAuthorization" else home.there
    after(dc, FaultKind.RPC_ERROR, method, 0, code=420, error="FLOOD_WAIT_1")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await fetched(home, far)
    assert loop.time() - begun >= 1
    assert dc.seen.early_calls == []
    rows = await home.fleet.rows()
    assert [(row["kind"], row["outcome"]) for row in rows] == [
        ("flood_wait", "retrying"),
        ("flood_wait", "recovered"),
    ]
    assert home.fleet.state() == "online"


async def test_a_wait_is_the_accounts_and_outlives_the_run(
    cluster: Cluster, tmp_path: Path, far: StoredFile
) -> None:
    """FLOOD_WAIT_600 elsewhere: over `max_wait` it is raised; home is not asked for files either, nor after a restart."""
    from pyrogram.errors import FloodWait

    account = set_up(cluster, tmp_path)
    near = cluster[HERE].add_file(b"near")
    async with account.online() as home:
        after(home.there, FaultKind.RPC_ERROR, "upload.GetFile", 0, code=420, error="FLOOD_WAIT_600")
        for stored in (far, near):
            with pytest.raises(FloodWait):
                await fetched(home, stored)
    async with account.online() as home:
        with pytest.raises(FloodWait):
            await fetched(home, far)
        assert home.there.seen.count("upload.GetFile") == 1
        assert home.here.seen.count("upload.GetFile") == 0


async def test_the_servers_own_trouble_is_repeated_and_a_refusal_raised(home: Home, far: StoredFile) -> None:
    """500 is tried again; FILE_REFERENCE_EXPIRED is the library's exception, and told."""
    from pyrogram.errors import FileReferenceExpired

    after(home.there, FaultKind.RPC_ERROR, "upload.GetFile", 2, code=500, error="WORKER_BUSY_TOO_LONG_RETRY")
    await fetched(home, far)
    old = media_of(far)
    far.reference = b"another"
    with pytest.raises(FileReferenceExpired):
        await home.client.download_media(old, in_memory=True)
    rows = await home.fleet.rows()
    assert [row["outcome"] for row in rows] == ["retrying", "recovered", "raised"]
    assert all(row["message"].startswith("datacenter 4: ") for row in rows)


# --- inline messages -----------------------------------------------------------------------------------------------


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The datacenters in which inline messages were edited."""
    where: list[int] = []

    def edit(call: Any) -> Any:
        where.append(call.engine.settings.dc_id)
        return True

    monkeypatch.setitem(METHODS, "messages.EditInlineBotMessage", edit)
    ANYWHERE.add("messages.EditInlineBotMessage")
    yield where
    ANYWHERE.discard("messages.EditInlineBotMessage")


def inline_id(dc_id: int) -> str:
    """An inline message's id, as utils.unpack_inline_message_id reads it."""
    return base64.urlsafe_b64encode(struct.pack("<iqq", dc_id, 7, 8)).rstrip(b"=").decode()


async def test_inline_messages_are_edited_in_their_datacenter(home: Home, edited: list[int]) -> None:
    """The library's three edit_inline methods find our link, where Pyrogram would open a session of its own."""
    from pyrogram.types import InputMediaPhoto

    client = home.client
    for dc_id in (ELSEWHERE, HERE):
        assert await client.edit_inline_text(inline_id(dc_id), "text") is True
        assert await client.edit_inline_reply_markup(inline_id(dc_id)) is True
        assert await client.edit_inline_media(inline_id(dc_id), InputMediaPhoto("https://example.org/x.jpg"))
    assert edited == [ELSEWHERE] * 3 + [HERE] * 3
    assert [len(dc.seen.connections) for dc in home.cluster] == [1, 1]


async def test_an_edit_whose_answer_is_lost_is_done_once(home: Home, edited: list[int]) -> None:
    """The same message goes out again over the next connection, and Telegram answers without doing it twice."""
    after(home.there, FaultKind.DROP_AFTER, "messages.EditInlineBotMessage", 0)
    assert await home.client.edit_inline_text(inline_id(ELSEWHERE), "text") is True
    assert edited == [ELSEWHERE]


@pytest.mark.parametrize("ending", ["forget_sessions", "go_away"])
async def test_an_edit_of_unknown_outcome_is_not_repeated(home: Home, edited: list[int], ending: str) -> None:
    """Sent, and the datacenter then forgot the session, or was gone for good: the caller is told, and decides."""
    after(home.there, FaultKind.SILENCE, "messages.EditInlineBotMessage", 0)
    work = asyncio.create_task(home.client.edit_inline_text(inline_id(ELSEWHERE), "text"))
    await until(lambda: edited)
    if ending == "forget_sessions":
        home.there.forget_sessions()
        home.there.reset_links()
    else:
        await home.there.go_away()
    with pytest.raises(OutcomeUnknown, match=r"messages\.EditInlineBotMessage was sent"):
        await work
    assert edited == [ELSEWHERE]


# --- the account's path, and its end -------------------------------------------------------------------------------


async def test_a_link_takes_the_accounts_proxy_and_no_other_way(
    cluster: Cluster, tmp_path: Path, far: StoredFile
) -> None:
    """Both connections come out of the proxy; where it is gone, nothing is dialled directly."""
    proxy = ScriptedProxy()
    await proxy.start()
    account = set_up(cluster, tmp_path, (Proxy("de1", "socks5", "127.0.0.1", proxy.port),), call_timeout=1.0)
    async with account.online() as home:
        await fetched(home, far)
        assert proxy.connections == 2
        await proxy.kill()
        with pytest.raises(AccountUnavailable):
            await fetched(home, far)
        await proxy.start()
        await until(lambda: home.fleet.state() == "online")
        await fetched(home, far)
        assert proxy.connections == sum(len(dc.seen.connections) for dc in cluster)
    await proxy.kill()


async def test_a_link_follows_the_account_to_another_proxy(
    cluster: Cluster, tmp_path: Path, far: StoredFile, two_proxies: dict[str, ScriptedProxy]
) -> None:
    """The proxy dies in the middle of a download: it goes on over the one that the account moves to."""
    proxies = tuple(
        Proxy(name, "socks5", "127.0.0.1", proxy.port, pool="eu") for name, proxy in two_proxies.items()
    )
    async with set_up(cluster, tmp_path, proxies).online() as home:
        first = home.fleet.account()["path"]

        async def progress(current: int, _total: int) -> None:
            if current == 2 * MIB:
                await two_proxies[first].kill()

        memory = await home.client.download_media(media_of(far), in_memory=True, progress=progress)
        assert memory.getvalue() == far.content
        assert home.there.seen.count("upload.GetFile") == 5
        assert home.fleet.account()["path"] != first
        relayed = sum(proxy.connections for proxy in two_proxies.values())
        assert relayed == sum(len(dc.seen.connections) for dc in cluster)
        failures = [row for row in await home.fleet.rows() if row["outcome"] == "retrying"]
        assert {row["path"] for row in failures} == {first}


async def test_the_accounts_stop_ends_what_is_under_way(
    cluster: Cluster, tmp_path: Path, far: StoredFile
) -> None:
    """A download that waits for the other datacenter fails, its connection is closed, and nothing runs on."""
    account = set_up(cluster, tmp_path)
    async with watched():
        async with account.online() as home:
            home.there.silent()
            work = asyncio.create_task(home.client.download_media(media_of(far), in_memory=True))
            await until(lambda: home.there.seen.connections)
        with pytest.raises(AccountUnavailable):
            await work
        await until(lambda: home.there.seen.open_connections == 0)
        with pytest.raises(AccountUnavailable):
            await home.client.media_sessions.get(ELSEWHERE).invoke(raw.functions.help.GetConfig())


async def test_a_paused_account_has_no_connection_anywhere(home: Home, far: StoredFile) -> None:
    """Taken offline, it closes the foreign link too; it comes back with the next use."""
    await fetched(home, far)
    await home.fleet.sup.pause(["bot-0"])
    await until(lambda: [dc.seen.open_connections for dc in home.cluster] == [0, 0])
    with pytest.raises(AccountUnavailable):
        await fetched(home, far)
    await home.fleet.sup.resume(["bot-0"])
    await until(lambda: home.fleet.state() == "online")
    await fetched(home, far)
    assert made(home) == (1, 1)


async def test_an_unknown_datacenter_raises(home: Home) -> None:
    """Telegram's configuration does not name it: said so."""
    with pytest.raises(
        DatacenterUnreachable,
        match="datacenter 5 could not be reached: the server's configuration names no address",
    ):
        await home.client.media_sessions.get(5).invoke(raw.functions.help.GetConfig())


# --- the account's home --------------------------------------------------------------------------------------------


async def test_an_account_of_another_datacenter_is_sent_home(cluster: Cluster, tmp_path: Path) -> None:
    """Its sign-in is sent on (USER_MIGRATE_4), it stays there over a restart, and home is where its files are not foreign."""
    account = set_up(cluster, tmp_path)
    cluster.move(account.fleet.bots[0], ELSEWHERE)
    near, far = cluster[ELSEWHERE].add_file(b"near"), cluster[HERE].add_file(b"far")
    async with account.online() as home:
        await fetched(home, near)
        assert home.there.seen.count("auth.ExportAuthorization") == 0
        await fetched(home, far)
        assert [dc.seen.sign_ins[BOT] for dc in cluster] == [0, 1]
    before = len(cluster[HERE].seen.connections)
    async with account.online() as home:
        await fetched(home, near)
        assert len(cluster[HERE].seen.connections) == before
        assert home.there.seen.sign_ins[BOT] == 1


async def test_an_account_whose_home_moves_follows(home: Home, far: StoredFile) -> None:
    """USER_MIGRATE_4 on a stored session: it signs in at its new home, once, and no call fails."""
    home.cluster.move(home.fleet.bots[0], ELSEWHERE)
    assert (await home.client.get_me()).id == BOT
    assert [dc.seen.sign_ins[BOT] for dc in home.cluster] == [1, 1]
    assert home.fleet.state() == "online"
    await fetched(home, far)
