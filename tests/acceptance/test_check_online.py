"""`check --online`: what works is proved, what does not is named with its cause, and nobody is signed in."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from supervisor.telegram.storage import Session
from supervisor.telegram.storage.export import session_string
from tests.acceptance.conftest import SENDER, Site, closed_port
from tests.acceptance.test_login import Terminal
from tests.integration.conftest import ScriptedProxy

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def proxy() -> AsyncIterator[ScriptedProxy]:
    """A proxy that works."""
    proxy = ScriptedProxy()
    await proxy.start()
    yield proxy
    await proxy.kill()


async def checked(site: Site, code: int) -> dict[str, Any]:
    """What `check --online --json` finds, by name."""
    ended = await site.command("check", "--online", "--json")
    assert ended.code == code, ended.err
    assert ended.out, ended.err
    found = ended.json()["online"]
    assert found["ok"] == (code == 0)
    return {"daemon": found["daemon"]} | {one["name"]: one for one in (*found["paths"], *found["accounts"])}


async def test_everything_is_tried_once_and_nobody_is_signed_in(site: Site, proxy: ScriptedProxy) -> None:
    """Each with its steps' times; what cannot be tried without signing in is not, and says so.

    Beside a running daemon no session is used a second time. Nothing that is stored changes.
    """
    site.code("sender", SENDER)
    site.proxies = {
        "works": f"socks5://127.0.0.1:{proxy.port}",
        "gone": f"socks5://127.0.0.1:{closed_port()}",
    }
    good = site.bot("good", main="sender:main", proxy="works")
    direct, revoked = site.bot("direct"), site.bot("revoked")
    async with site.online() as daemon:
        beside = await checked(site, 1)
        assert beside["daemon"] == daemon.pid
        assert beside["good"]["message"].startswith("online, says the daemon")
        assert (beside["good"]["ok"], beside["good"]["steps_s"], beside["good"]["path"]) == (
            True,
            {},
            "works",
        )
        assert beside["works"]["ok"]
        assert not beside["gone"]["ok"]
    site.accounts["lost"] = site.accounts.pop("good") | {"proxy": "gone"}
    site.dc.revoke(revoked)
    new, brought = site.bot("new"), site.dc.add_bot(first_name="brought")
    session = Session(2, None, None, 12345, False, site.dc.issue_key(brought), 0, brought.user_id, True)
    site.accounts["brought"] = {"session_string": session_string("brought", session)}
    site.accounts["person"] = {"phone": "+4915112345678"}
    (site.etc / "bad.session").write_bytes(b"SQLite format 3\0" + bytes(100))
    site.accounts["bad"] = {"session_file": "bad.session"}
    site.write()
    stored = site.state_dir / "sessions.db"
    before = hashlib.sha256(stored.read_bytes()).digest()
    found = await checked(site, 1)
    assert {name: one["ok"] for name, one in found.items() if name != "daemon"} == {
        "works": True,
        "gone": False,
        "direct": True,
        "lost": False,
        "revoked": False,
        "new": None,
        "brought": True,
        "person": None,
        "bad": False,
    }
    assert list(found["works"]["steps_s"]) == ["dns", "tcp", "proxy", "key", "rpc"]
    assert found["works"]["steps_s"]["rpc"] >= 0.08
    assert "connection refused" in found["gone"]["message"]
    assert found["gone"]["code"] == 4010
    assert found["revoked"]["code"] == 1010
    assert "SESSION_REVOKED" in found["revoked"]["message"]
    assert "would sign in" in found["new"]["message"]
    assert "tg-supervisor login person" in found["person"]["message"]
    assert found["bad"]["code"] == 2004
    assert hashlib.sha256(stored.read_bytes()).digest() == before
    terminal = Terminal(site, "check", "--online")
    await terminal.expect("trying")  # the progress, which goes
    await terminal.expect("4 work, 4 do not, 2 not tried")
    assert await terminal.ended() == 1
    bots = good, direct, revoked, new, brought
    assert [site.dc.seen.sign_ins[bot.user_id] for bot in bots] == [1, 1, 1, 0, 0]
    assert site.dc.seen.max_connections_per_key == 1
    for secret in (str(new.token), site.accounts["person"]["phone"]):
        assert secret not in terminal.shown
