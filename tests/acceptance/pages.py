"""Pages with fenced blocks that are run as they stand; ``<!-- test: … -->`` above a block says how."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from supervisor.control.client import ControlClient
from supervisor.control.protocol import ControlError
from supervisor.datacenter import Datacenter
from supervisor.errors import NotRunning

ROOT = Path(__file__).parents[2]


class Block(NamedTuple):
    """A fenced block: what its mark says, its language, its text."""

    mark: str
    language: str
    text: str


class Page:
    """A page of the documentation.

    Args:
        path: of the file, from the root of the tree.
    """

    def __init__(self, path: str) -> None:
        self.file = ROOT / path
        self.text = self.file.read_text(encoding="utf-8")
        found = re.findall(r"(?:<!-- test: (.+?) -->\n)?```(\w*)\n(.*?)```", self.text, re.DOTALL)
        self.blocks = [Block(*parts) for parts in found]

    def all_marked(self, mark: str) -> list[str]:
        """The texts of the blocks with this mark."""
        return [block.text for block in self.blocks if block.mark == mark]

    def marked(self, mark: str) -> str:
        """The text of the one block with this mark."""
        (text,) = self.all_marked(mark)
        return text

    def lay_out(self, folder: Path, mark: str = "environment") -> dict[str, str]:
        """Write the page's files into a folder; give the environment after its `export` lines."""
        for block in self.blocks:
            kind, _, name = block.mark.partition(" ")
            if kind == "file":
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
        script = "\n".join(command for text in self.all_marked(mark) for command, _ in commands(text))
        done = subprocess.run(
            ["sh", "-ec", f"{script}\nenv -0"], cwd=folder, capture_output=True, text=True, check=True
        )
        found = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
        return found | {"PYTHONPATH": str(ROOT)}

    def dead_links(self) -> list[str]:
        """The relative links that name no file."""
        links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", self.text)
        return [link for link in links if not (self.file.parent / link).exists()]

    def assert_shown(self, lines: list[str], printed: str) -> None:
        """Fail if one of the lines that are shown is not among those that were printed, numbers and paths aside."""
        shown = shape("\n".join(lines)) - {"", "…"}
        missing = shown - shape(printed)
        assert not missing, f"{self.file.name} shows what was not printed; printed was:\n{printed}"


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, and the lines that it is said to print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *lines = part.splitlines()
        yield command, lines


def shape(text: str) -> set[str]:
    """The lines of an output without what differs from run to run: numbers, paths, who was met first."""
    found = set()
    for written in text.splitlines():
        line = re.sub(r"state in \S+", "state in DIRECTORY", written)
        line = re.sub(r"\b(?:de1|nl3)\b", "PROXY", line)
        line = re.sub(r"(?:\d+\.)*\d+", "#", line)
        line = re.sub(r"─+", "─", line)
        line = re.sub(r"[█▉▊▋▌▍▎▏]+", "█", line)
        line = re.sub(r"(# s ).*?: (\w+ re\w+ |recovered)", r"\1WHO: \2", line)
        line = re.sub(r"connection (?:reset|refused)(?: by)?", "connection broken", line)
        found.add(" ".join(line.split()))
    return found


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a `tg-supervisor` line; give what it printed."""
    program, *arguments = command.split()
    assert program == "tg-supervisor"
    line = [sys.executable, "-m", "supervisor", *arguments]
    done = subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def configure(folder: Path, dc: Datacenter, more: str = "") -> None:
    """Have accounts.toml say that Telegram is this datacenter, and more."""
    dc.write_public_key(folder / "dc.pem")
    with (folder / "accounts.toml").open("a") as file:
        file.write(
            f'[telegram.server]\nhost = "{dc.host}"\nport = {dc.port}\ndc_id = 2\npublic_key = "dc.pem"\n{more}'
        )


async def until_online(state_dir: Path, number: int) -> list[dict[str, Any]]:
    """The accounts of the daemon's status, once so many are online, and no other is there."""
    async with asyncio.timeout(30):
        while True:
            try:
                accounts: list[dict[str, Any]] = ControlClient(state_dir).status()["accounts"]
            except (NotRunning, ControlError):
                accounts = []
            if [account["state"] for account in accounts] == ["online"] * number:
                return accounts
            await asyncio.sleep(0.1)
