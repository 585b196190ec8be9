"""Many accounts in a process of their own, so that what it holds is theirs: the other end of test_density.

Its input is one line of JSON, then a line for each step; its output a line of JSON for each.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from supervisor.config.model import Account, Config, Secret, Server, Settings, Telegram
from supervisor.daemon import Supervisor


def figures() -> dict[str, Any]:
    """What this process holds, the accounts' tasks by their kind."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    named = (task.get_name().partition(":") for task in asyncio.all_tasks())
    return {
        "mib": pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20),
        "threads": threading.active_count(),
        "tasks": dict(Counter(kind for kind, mark, _ in named if mark)),
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }


def config(given: dict[str, Any], state: str, accounts: dict[str, str]) -> Config:
    """What is configured for these accounts, by their session strings; the budget is lifted."""
    return Config(
        path=Path(given["directory"], "accounts.toml"),
        telegram=Telegram(12345, Secret("a" * 32), Server(*given["server"])),
        settings=Settings(state_dir=Path(given["directory"], state), connect_budget=100_000),
        accounts={
            name: Account(name, session_string=Secret(string), client={"workers": given["workers"]})
            for name, string in accounts.items()
        },
    )


async def initialized(supervisor: Supervisor, names: list[str]) -> list[Any]:
    """The clients, as soon as their handlers may run."""
    clients = [await supervisor.client(name) for name in names]
    while not all(client.is_initialized for client in clients):
        await asyncio.sleep(0.01)
    return clients


class Steps:
    """What the test has done here, a step a line."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.names = list(given["accounts"])
        self.stack = AsyncExitStack()
        self.clients: list[Any] = []
        self.begun: list[str] = []
        self.heard: list[str] = []
        self.go_on = asyncio.Event()

    async def base(self) -> dict[str, Any]:
        """What is held when one account has started and stopped."""
        name = self.names[0]
        async with Supervisor(config(self.given, "first", {name: self.given["accounts"][name]})) as one:
            await initialized(one, [name])
        return figures()

    async def start(self) -> dict[str, Any]:
        """All of them online, and what came with it settled."""
        supervisor = Supervisor(config(self.given, "state", self.given["accounts"]))
        await self.stack.enter_async_context(supervisor)
        self.clients = await initialized(supervisor, self.names)
        await asyncio.sleep(2)
        return figures()

    async def listen(self) -> dict[str, Any]:
        """The first takes its time with what it hears; the others have handlers that are no coroutines."""
        from pyrogram.handlers import MessageHandler

        async def slow(_client: Any, message: Any) -> None:
            self.begun.append(message.text)
            await self.go_on.wait()
            self.heard.append(message.text)

        def blocking(client: Any, _message: Any) -> None:
            self.heard.append(client.name)

        first, *others = self.clients
        first.add_handler(MessageHandler(slow))
        for client in others:
            client.add_handler(MessageHandler(blocking))
        await asyncio.sleep(1)  # the looks at whether there are handlers
        return {}

    async def begun_by(self, count: str) -> dict[str, Any]:
        """So many handlers of the first are at work; nothing more happens for a while."""
        while len(self.begun) < int(count):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        return {**figures(), "begun": self.begun}

    async def heard_by(self, count: str) -> dict[str, Any]:
        """The handlers may end, and so many have."""
        self.go_on.set()
        while len(self.heard) < int(count):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return {**figures(), "begun": self.begun, "heard": self.heard}

    async def stop(self) -> dict[str, Any]:
        """Stop all of them."""
        begun = asyncio.get_running_loop().time()
        await self.stack.aclose()
        return {**figures(), "seconds": asyncio.get_running_loop().time() - begun}


async def main() -> None:
    steps = Steps(json.loads(sys.stdin.readline()))
    while line := (await asyncio.to_thread(sys.stdin.readline)).split():
        print(json.dumps(await getattr(steps, line[0])(*line[1:])), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
