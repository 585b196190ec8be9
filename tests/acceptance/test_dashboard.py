"""The dashboard of a running daemon, and its page in a real browser."""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import time
import zlib
from collections.abc import AsyncIterator
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from supervisor.datacenter import Datacenter
from tests.acceptance.browser import Page, browsing, found
from tests.acceptance.conftest import API_HASH, SENDER, Process, Site, closed_port, until
from tests.unit.dashboard.made_up import Desk, fill
from tests.unit.dashboard.served import asking

TOKEN = "canary-of-the-dashboard"
PASSWORD = "hunter2-is-my-proxy-password"
FAILING = """
async def main(client):
    raise RuntimeError("this main fails")
"""
OPENAPI = json.loads(resources.files("supervisor.dashboard").joinpath("openapi.json").read_text("utf-8"))
CHROMIUM = found()
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


def is_kurigram() -> bool:
    """Whether this environment's client library is Kurigram."""
    return any(one.metadata["Name"].lower() == "kurigram" for one in metadata.distributions())


class Dashboard:
    """Asks a daemon's dashboard."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.port = closed_port()
        site.tables["dashboard"] = {"listen": f"127.0.0.1:{self.port}", "token": TOKEN}
        self.session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def get(self, path: str, **more: Any) -> tuple[int, str]:
        """An answer's status and text; 0 where nobody listens."""
        try:
            async with self.session.get(f"{self.url}{path}", **more) as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def json(self, path: str) -> Any:
        """What is answered under /api/v1."""
        status, text = await self.get(f"/api/v1/{path}")
        assert status == 200, text
        return json.loads(text)

    async def order(self, action: str, *names: str) -> Any:
        """Command something."""
        async with self.session.post(
            f"{self.url}/api/v1/actions/{action}", json={"accounts": names}
        ) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def first_event(self) -> str:
        """What somebody who watches is told first."""
        async with self.session.get(f"{self.url}/api/v1/events", read_bufsize=2**22) as answer:
            return (await answer.content.readuntil(b"\n\n")).decode()

    async def up(self, daemon: Process) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + 15
        while (await self.get("/healthz"))[0] != 200:
            assert daemon.is_running, daemon.err
            assert time.monotonic() < deadline, daemon.err
            await asyncio.sleep(0.05)


@pytest.fixture
async def dashboard(site: Site) -> AsyncIterator[Dashboard]:
    made = Dashboard(site)
    async with made.session:
        yield made


async def test_no_secret_reaches_the_dashboard(dc: Datacenter, site: Site, dashboard: Dashboard) -> None:
    """Whatever has failed, no response has a token, a hash, a phone number or a proxy's password in it."""
    site.code("sender", SENDER)
    site.code("failing", FAILING)
    site.bot("good", main="sender:main")
    dead = site.bot("dead")
    site.bot("failing", main="failing:main")
    dc.kill_token(dead)
    site.accounts["person"] = {"phone": "+4915112345678", "password": "canary-of-two-factors"}
    site.proxies = {"closed": f"socks5://operator:{PASSWORD}@127.0.0.1:{closed_port()}"}
    site.bot("behind", proxy="closed")
    site.write()
    daemon = site.run("--debug")
    await dashboard.up(daemon)
    await daemon.state("online", "good")
    await daemon.state("failed", "dead")
    dc.reset_links()
    await until(lambda: "recovered" in daemon.err, what="a recovery")
    said = {"events": await dashboard.first_event()}
    for path, methods in OPENAPI["paths"].items():
        if "get" in methods and not path.endswith("/events") and "{" not in path:
            status, said[path] = await dashboard.get(path)
            assert status == 200, path
    for incident in (await dashboard.json("incidents?limit=1000"))["incidents"]:
        said[incident["id"]] = (await dashboard.get(f"/api/v1/incidents/{incident['id']}"))[1]
    said["refused"] = (await dashboard.get("/api/v1/status", headers={"Authorization": "Bearer x"}))[1]
    said["order"] = json.dumps(await dashboard.order("retry", "*"))
    assert "behind" in said["/api/v1/status"]
    assert "this main fails" in "".join(said.values())
    daemon.signal(signal.SIGTERM)
    assert await daemon.ended(10) == 0
    said["stderr"] = daemon.err
    tokens = [bot.token for bot in site.bots.values() if bot.token]
    secrets = [
        *tokens,
        *(token.partition(":")[2] for token in tokens),
        API_HASH,
        PASSWORD,
        TOKEN,
        "4915112345678",
    ]
    for secret in [*secrets, "canary-of-two-factors"]:
        assert [name for name, text in said.items() if secret in text] == []


async def test_it_commands_follows_a_reload_and_ends(site: Site, dashboard: Dashboard) -> None:
    """Commands reach the accounts; a reload moves it; while somebody watches the daemon still stops in time."""
    site.bot("bot-0")
    site.bot("bot-1")
    async with site.online() as daemon:
        await dashboard.up(daemon)
        (told,) = (await dashboard.order("pause", "bot-0"))["accounts"]
        assert (told["name"], told["state"], told["changed"]) == ("bot-0", "paused", True)
        await daemon.state("paused", "bot-0")
        await dashboard.order("resume", "bot-*")
        await daemon.state("online")
        assert 'tg_supervisor_accounts{state="online"} 2.0' in (await dashboard.get("/metrics"))[1]
        before, dashboard.port = dashboard.port, closed_port()
        site.tables["dashboard"]["listen"] = f"127.0.0.1:{dashboard.port}"
        site.write()
        daemon.signal(signal.SIGHUP)
        await dashboard.up(daemon)
        with pytest.raises(aiohttp.ClientConnectionError):
            await dashboard.session.get(f"http://127.0.0.1:{before}/healthz")
        watching = await dashboard.session.get(f"{dashboard.url}/api/v1/events")
        assert (await watching.content.readline()) == b"event: full\n"
        assert await daemon.stop() < 5
        await watching.content.read()  # to its end


# --- In a browser ------------------------------------------------------------------------------------------

ROW = "document.querySelector('[data-name=\"%s\"]')"


def shades(png: bytes) -> int:
    """How many different bytes a picture has: a blank one has two or three."""
    data, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    return len(set(zlib.decompress(data)))


async def fits(page: Page) -> None:
    """Fail if something is wider than the window."""
    wide = (
        "[...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > innerWidth + 1"
        " && !one.closest('.view, .feed, dialog, svg')).map((one) => one.outerHTML.slice(0, 90))"
    )
    assert await page.eval(wide) == []
    assert await page.eval("document.scrollingElement.scrollWidth <= innerWidth")


async def looks(page: Page) -> None:
    """Fail if it is blank, or does not fit, by day, by night or on a phone."""
    for width, height, phone in ((1400, 900, False), (390, 844, True)):
        seen = []
        for dark in (False, True):
            await page.look(width, height, dark=dark, phone=phone)
            await page.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            await fits(page)
            seen.append(await page.picture())
            assert shades(seen[-1]) > 60
        assert seen[0] != seen[1]


def own_alone(page: Page, url: str) -> None:
    """Fail if the page asked anybody else, or complained."""
    assert page.complaints == []
    assert [asked for asked in page.requests if not asked.startswith(url)] == []


@needs_browser
async def test_the_page_shows_and_commands_the_daemon(site: Site, dashboard: Dashboard) -> None:
    """A wrong token opens nothing; the right one shows the accounts, their failures as they come, and obeys."""
    assert CHROMIUM is not None
    site.code("sender", SENDER)
    names = [f"bot-{n}" for n in range(3)]
    for name in names:
        site.bot(name, main="sender:main")
    async with site.online() as daemon, browsing(CHROMIUM) as page:
        await dashboard.up(daemon)
        await page.look(1400, 900)
        await page.goto(f"{dashboard.url}/")
        await page.until("document.getElementById('door')?.hidden === false")
        await page.eval("document.getElementById('token').value = 'not-the-token-of-it'")
        await page.eval("document.querySelector('#door button').click()")
        await page.until("document.getElementById('door-said').textContent === 'This is not the token.'")
        page.complaints.clear()  # the browser says that it was refused
        await page.eval(f"document.getElementById('token').value = '{TOKEN}'")
        await page.eval("document.querySelector('#door button').click()")
        await page.until("document.documentElement.dataset.ready === 'all'")
        assert await page.eval("document.querySelectorAll('.badge.s-online').length") == 3
        site.dc.reset_links(site.bots["bot-1"])
        await page.until("document.getElementById('log').textContent.includes('recovered by reconnect')")
        await page.eval(f"{ROW % 'bot-1'}.click()")
        await page.until("document.querySelector('#panel .line')?.textContent.includes('connection')")
        await page.eval("document.querySelector('#panel .feed .line').click()")
        await page.until("document.querySelectorAll('#panel .step').length >= 2")
        assert "recovered" in await page.eval("document.querySelector('#panel .steps').textContent")
        steps = await page.eval("document.querySelectorAll('#panel .step').length")
        site.dc.reset_links(site.bots["bot-1"])  # within stable_after: the same incident, which is shown
        await page.until(f"document.querySelectorAll('#panel .step').length > {steps}")
        await page.eval("history.back()")
        pause = "[...document.querySelectorAll('#panel .buttons button')].find((one) => one.textContent === 'pause')"
        await page.until(pause)
        await page.eval(f"{pause}.click()")
        await page.until("document.querySelector('#ask button.primary')")
        await page.eval("document.querySelector('#ask button.primary').click()")
        await page.until(f"{ROW % 'bot-1'}.querySelector('.s-paused')")
        await daemon.state("paused", "bot-1")
        await page.eval("document.querySelector('#panel .close').click()")
        await looks(page)
        own_alone(page, dashboard.url)
        await daemon.stop()
        await page.until("document.getElementById('live').className === 'live off'")
        assert "does not answer" in await page.eval("document.getElementById('banners').textContent")


@needs_browser
@pytest.mark.alone
@pytest.mark.skipif(is_kurigram(), reason="no client library is at work here: once is enough")
async def test_a_thousand_accounts_are_there_in_a_second(tmp_path: Path) -> None:
    """With 1,000 accounts and 100,000 incidents the first data shows within 1 s, and the rest soon after; it can be used."""
    assert CHROMIUM is not None
    assert await fill(tmp_path / "recovery.db", 100_200, 1000, time.time()) >= 100_000
    async with asking(Desk(1000), tmp_path) as ask, browsing(CHROMIUM) as page:
        url = ask.url
        await page.look(1400, 900)
        took = []
        for _ in range(
            3
        ):  # the browser has just been started, and the machine may have other work: the best counts
            await page.goto("about:blank")
            await page.until("location.href === 'about:blank'")
            await page.goto(f"{url}#token={ask.token}")
            await page.until("document.documentElement?.dataset.ready")
            took.append(await page.eval("performance.getEntriesByName('first-data')[0].startTime"))
        assert min(took) < 1000, took
        await page.until("document.documentElement.dataset.ready === 'all'", 5)
        assert "token" not in await page.eval("location.href")
        assert await page.eval("document.querySelectorAll('.view .row').length") < 60
        await page.eval("document.querySelector('.view').scrollTop = 1e9")
        await page.until(ROW % "bot-0999")
        await page.eval("document.getElementById('find').value = 'bot-0777'")
        await page.eval("document.getElementById('find').dispatchEvent(new Event('input'))")
        assert await page.eval("document.querySelectorAll('.view .row').length") == 1
        await page.until("document.querySelectorAll('#failures rect').length > 20")
        await page.until("document.querySelectorAll('#recover .curve').length === 2")
        await page.until("document.querySelectorAll('#lanes .mark').length > 20")
        await looks(page)
        own_alone(page, url)
