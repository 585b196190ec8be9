"""Sessions that an operator brings along, made by the bare client library of this environment."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pyrogram import Client

from supervisor.datacenter import Account, Datacenter
from tests.acceptance.conftest import Site, environment

# The library's own way: it makes its file, and is given a key that is signed in.
MAKE = """
import asyncio, sys
from pathlib import Path
async def make():
    from pyrogram import Client
    app = Client(sys.argv[1], api_id=12345, api_hash="0" * 32, workdir=".")
    storage = app.storage
    await storage.open()
    await storage.dc_id(2)
    await storage.api_id(12345)
    await storage.test_mode(False)
    await storage.auth_key(bytes.fromhex(sys.argv[2]))
    await storage.user_id(int(sys.argv[3]))
    await storage.is_bot(sys.argv[4] == "bot")
    await storage.date(0)
    await storage.save()
    print(await storage.export_session_string())
    await storage.close()
asyncio.run(make())
"""


def made_by_the_library(site: Site, account: Account) -> tuple[Path, str]:
    """A session file and string, as the bare library of this environment writes them."""
    folder = site.etc / "old"
    folder.mkdir(exist_ok=True)
    key = site.dc.issue_key(account)
    kind = "bot" if account.is_bot else "user"
    args = [sys.executable, "-c", MAKE, f"a{account.user_id}", key.hex(), str(account.user_id), kind]
    done = subprocess.run(
        args, capture_output=True, text=True, cwd=folder, env=environment(), timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / f"a{account.user_id}.session", done.stdout.strip()


def traces(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


async def test_existing_sessions_are_taken_over(dc: Datacenter, site: Site) -> None:
    """From a session file or string an account is online without a sign-in or a key; the file stays as it was."""
    user, other, bot = dc.add_user(501), dc.add_user(502), dc.add_bot()
    file, _ = made_by_the_library(site, user)
    _, string = made_by_the_library(site, other)
    bot_file, _ = made_by_the_library(site, bot)
    (site.etc / "old" / "a502.session").unlink()
    site.accounts["by-file"] = {"session_file": str(file.relative_to(site.etc))}
    site.accounts["by-string"] = {"session_string": string}
    site.accounts["bot-by-file"] = {"session_file": str(bot_file)}
    before = traces(site.etc / "old")
    async with site.online() as daemon:
        accounts = await daemon.accounts()
        assert [account["user_id"] for account in accounts.values()] == [501, 502, bot.user_id]
        assert [account["is_bot"] for account in accounts.values()] == [False, False, True]
        dc.reset_links()
        await asyncio.sleep(1)
        await daemon.state("online")
    assert traces(site.etc / "old") == before
    # The next run has its own copy: it asks for neither file nor string.
    async with site.online():
        pass
    assert traces(site.etc / "old") == before
    assert not dc.seen.sign_ins
    assert dc.seen.key_exchanges == 0
    assert dc.seen.max_connections_per_key == 1


@pytest.mark.skipif(not hasattr(Client, "restart"), reason="another client library")
async def test_a_session_file_in_use_is_read_as_it_is(dc: Datacenter, site: Site) -> None:
    """A session file that the bare library has still open, with changes in its journal, is taken over and not touched."""
    user = dc.add_user(503)
    file, _ = made_by_the_library(site, user)
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("UPDATE sessions SET date = 1")
        other.commit()
        site.accounts["by-file"] = {"session_file": str(file)}
        before: dict[str, Any] = traces(site.etc / "old")
        async with site.online() as daemon:
            assert (await daemon.accounts())["by-file"]["user_id"] == 503
        assert traces(site.etc / "old") == before
    assert not dc.seen.sign_ins
