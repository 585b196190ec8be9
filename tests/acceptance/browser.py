"""A real Chromium, driven by its own protocol (DevTools) over a websocket: nothing to install beside the browser."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # the tests may run as root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--mute-audio",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
)


def found() -> str | None:
    """The browser's path; None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One page; it notes what it asks for, and what it complains of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []

    async def begin(self) -> None:
        """Open an empty page."""
        target = await self.send("Target.createTarget", url="about:blank")
        attached = await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")

    async def read(self) -> None:
        """Take what the browser says, until it is gone."""
        async for message in self._socket:
            told = json.loads(message.data)
            waiting = self._answers.pop(told.get("id", 0), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(told)
            elif "method" in told:
                self._note(told["method"], told["params"])

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
            self.complaints.append(str(told["args"]))

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Give the browser a command, and have its answer."""
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": params}
        await self._socket.send_json(command | ({"sessionId": self._session} if self._session else {}))
        told = await asyncio.wait_for(answer, 20)
        assert "error" not in told, (method, told)
        return dict(told["result"])

    async def goto(self, url: str) -> None:
        """Go to an address; what the page before has complained of is forgotten."""
        self.complaints.clear()
        self.requests.clear()
        await self.send("Page.navigate", url=url)

    async def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Give the page a size, and its user a taste."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        taste = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[taste])

    async def eval(self, expression: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        told = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, expression: str, seconds: float = 15.0) -> Any:
        """Wait until an expression gives something true."""
        deadline = time.monotonic() + seconds
        while not (value := await self.eval(f"!!({expression})")):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {expression}; {self.complaints}"
            await asyncio.sleep(0.05)
        return value

    async def picture(self) -> bytes:
        """What is to be seen, as PNG."""
        told = await self.send("Page.captureScreenshot", format="png")
        return base64.b64decode(told["data"])


@asynccontextmanager
async def browsing(program: str) -> AsyncIterator[Page]:
    """A browser with one page; it is gone afterwards, and all that it has written.

    Args:
        program: the browser.
    """
    home = Path(tempfile.mkdtemp(prefix="browser-"))
    # It reads nobody's configuration, and looks for no desktop.
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "TZ": "UTC"}
    process = await asyncio.create_subprocess_exec(
        program,
        *FLAGS,
        f"--user-data-dir={home}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=env,
        start_new_session=True,
    )
    try:
        port, path = await _listening(home / "DevToolsActivePort", process)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
        ):
            page = Page(socket)
            reading = asyncio.create_task(page.read())
            try:
                await page.begin()
                yield page
            finally:
                reading.cancel()
                await asyncio.wait([reading])
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)


async def _listening(file: Path, process: asyncio.subprocess.Process) -> tuple[str, str]:
    deadline = time.monotonic() + 30
    while True:
        with suppress(FileNotFoundError, ValueError):
            port, path = file.read_text().split()
            return port, path
        assert process.returncode is None, f"the browser has ended: {process.returncode}"
        assert time.monotonic() < deadline, "the browser does not come up"
        await asyncio.sleep(0.05)
