"""Makes the pictures of this folder: `make pictures`. All of them show a real daemon, on a local Telegram datacenter.

Twelve accounts run, some of them into trouble; the month before is made up. Needs Chromium.
"""  # noqa: INP001 - a script

from __future__ import annotations

import asyncio
import importlib.util
import io
import os
import re
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from supervisor.cli.watch.draw import frame, room  # noqa: E402 - from this tree
from supervisor.cli.watch.look import Looker  # noqa: E402
from supervisor.cli.watch.view import View, placed, shown  # noqa: E402
from supervisor.control.client import ControlClient  # noqa: E402
from supervisor.control.protocol import ControlError  # noqa: E402
from supervisor.datacenter import Datacenter, Fault, FaultKind  # noqa: E402
from supervisor.errors import NotRunning  # noqa: E402

HERE = Path(__file__).parent
BOTS = (
    "support-bot", "news-bot", "orders-bot", "shop-bot", "promo-bot", "alerts-bot", "poll-bot", "quiz-bot",
    "weather-bot", "archive-bot", "jobs-bot",
)  # fmt: skip
USER = "sales-user"
SIZE = (108, 24)  # of the terminal
TOKEN = "the-token-of-the-pictures"  # noqa: S105 - it opens nothing but these
CODE = """
import asyncio, itertools
async def main(client):
    for n in itertools.count():
        await client.send_message(777, f"{client.name} {n}")
        await asyncio.sleep(0.4)
"""
_MOVED = """
UPDATE failures SET path = CASE kind WHEN 'proxy' THEN 'nl3' ELSE 'de1' END;
UPDATE incidents SET path = CASE kind WHEN 'proxy' THEN 'nl3' ELSE 'de1' END;
UPDATE incidents SET closed_at = opened_at + 300, outcome = 'recovered' WHERE closed_at IS NULL;
"""


def part(path: str) -> Any:
    """A module of the tests, by its file: `tests` is no package that can be imported."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def history(path: Path) -> None:
    """A month of failures, of these accounts."""
    await part("tests/unit/dashboard/made_up.py").fill(path, 1400, len(BOTS) + 1, time.time() - 120)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(_MOVED)
        for number, name in enumerate((*BOTS, USER)):
            for table in ("failures", "incidents", "totals"):
                db.execute(f"UPDATE {table} SET account = ? WHERE account = ?", (name, f"bot-{number:04}"))  # noqa: S608
        db.commit()


def configure(dc: Datacenter, folder: Path, port: int, closed: int) -> dict[str, Any]:
    """Write accounts.toml; give the bots by name."""
    dc.write_public_key(folder / "dc.pub.pem")
    (folder / "sender.py").write_text(CODE)
    lines = [
        "[telegram]", "api_id = 12345", f'api_hash = "{"0" * 32}"', "[telegram.server]", f'host = "{dc.host}"',
        f"port = {dc.port}", f"dc_id = {dc.dc_id}", 'public_key = "dc.pub.pem"', "[dashboard]",
        f'listen = "127.0.0.1:{port}"', f'token = "{TOKEN}"', "[proxies.nl3]", f'url = "socks5://127.0.0.1:{closed}"',
    ]  # fmt: skip
    bots = {name: dc.add_bot(first_name=name) for name in BOTS}
    for name, bot in bots.items():
        lines += [f"[accounts.{name}]", f'bot_token = "{bot.token}"', 'main = "sender:main"']
    lines += ["[accounts.jobs-user]", f'bot_token = "{dc.add_bot().token}"', 'proxy = "nl3"']
    lines += [f"[accounts.{USER}]", 'phone = "+4915112345678"']
    (folder / "accounts.toml").write_text("\n".join(lines) + "\n")
    return bots


async def states(client: ControlClient) -> list[str]:
    """The accounts' states; none where no daemon answers yet."""
    with suppress(NotRunning, ControlError):
        return [account["state"] for account in (await asyncio.to_thread(client.status))["accounts"]]
    return []


async def come(client: ControlClient, online: int) -> None:
    """Wait until so many accounts are online."""
    async with asyncio.timeout(60):
        while (await states(client)).count("online") < online:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


def terminal(state_dir: Path, config: Path) -> None:
    """What `status --watch` shows, as SVG."""
    looker = Looker(state_dir, config)
    seen = looker.look()
    assert seen.status is not None
    view = View()
    accounts = shown(seen.status["accounts"], view)
    view = placed(view, [account["name"] for account in accounts], room(seen, SIZE))
    console = Console(
        record=True, width=SIZE[0], file=io.StringIO(), force_terminal=True, color_system="truecolor", legacy_windows=False
    )  # fmt: skip
    for line in frame(seen, view, accounts, SIZE, time.time()):
        console.print(line, no_wrap=True, overflow="crop")
    drawn = console.export_svg(title="tg-supervisor status --watch", unique_id="watch")
    # Its font would come from elsewhere; every system has one of its own.
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    (HERE / "watch.svg").write_text(
        "\n".join(line.rstrip() for line in drawn.splitlines() if line.strip()) + "\n"
    )


async def browse(browser: Any, url: str) -> None:
    """The dashboard by day, by night with an incident, and on a phone."""
    program = browser.found()
    assert program is not None, "there is no Chromium on this machine"
    async with browser.browsing(program) as page:
        await page.send("Emulation.setScrollbarsHidden", hidden=True)
        await page.look(1280, 1330)
        await page.goto(f"{url}#token={TOKEN}")
        await page.until("document.documentElement?.dataset.ready === 'all'")
        await asyncio.sleep(2.5)
        (HERE / "dashboard.png").write_bytes(await page.picture())
        await page.look(1280, 800, dark=True)
        await page.until("document.querySelector('#incidents .line')")
        await page.eval(
            "[...document.querySelectorAll('#incidents .line')].find((one) => one.textContent.includes('connection')).click()"
        )
        await page.until("document.querySelectorAll('#panel .step').length > 1")
        await asyncio.sleep(0.5)
        (HERE / "incident.png").write_bytes(await page.picture())
        await page.eval("document.querySelector('#panel .close').click()")
        await page.look(390, 760, phone=True)
        await page.eval("document.querySelector('.cards').scrollIntoView()")
        await asyncio.sleep(0.5)
        (HERE / "phone.png").write_bytes(await page.picture())
        assert page.complaints == []


async def main() -> None:
    """Make all of them."""
    browser = part("tests/acceptance/browser.py")
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        folder = Path(name)
        state_dir = folder / "state"
        state_dir.mkdir(0o700)
        await history(state_dir / "recovery.db")
        async with Datacenter(latency=0.03) as dc:
            dc.add_person(777, "Ann")
            port, closed = _free_port(), _free_port()
            bots = configure(dc, folder, port, closed)
            env = {key: value for key, value in os.environ.items() if not key.startswith("TG_SUPERVISOR_")}
            daemon = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "supervisor", "run", cwd=folder, env=env | {"PYTHONPATH": str(ROOT)}
            )
            try:
                client = ControlClient(state_dir)
                await come(client, len(BOTS))
                dc.kill_token(bots["promo-bot"])
                dc.forget_keys(bots["promo-bot"])
                for bot in ("news-bot", "weather-bot"):
                    dc.reset_links(bots[bot])
                    await asyncio.sleep(1)
                dc.faults.add(
                    Fault(
                        FaultKind.RPC_ERROR,
                        bots["orders-bot"].user_id,
                        "messages.SendMessage",
                        code=420,
                        error="FLOOD_WAIT_4",
                    )
                )
                dc.faults.add(
                    Fault(
                        FaultKind.RPC_ERROR,
                        bots["shop-bot"].user_id,
                        "messages.SendMessage",
                        code=500,
                        error="RPC_CALL_FAIL",
                    )
                )
                await asyncio.to_thread(client.request, "POST", "pause", {"accounts": ["archive-bot"]})
                await asyncio.sleep(6)
                terminal(state_dir, folder / "accounts.toml")
                await browse(browser, f"http://127.0.0.1:{port}/")
            finally:
                daemon.send_signal(signal.SIGTERM)
                await daemon.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    asyncio.run(main())
