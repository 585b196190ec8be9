"""`status --watch` as it is used: the command on a terminal of its own, beside a daemon's socket."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from supervisor.core.failure import State
from tests.unit.cli.conftest import ROOT, account, fill, row
from tests.unit.cli.daemon import Daemon

_WITHIN = 20.0  # s; it takes one at most, on a machine that has time
_CODES = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|\x1b[^\[]?|\r|\n|[^\x1b\r\n]+")
# A shell in small: a session whose terminal it is, and the command in its foreground. Ctrl-C and Ctrl-Z come from there.
_SHELL = """
import fcntl, os, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
command = subprocess.Popen(sys.argv[1:], process_group=0)
os.tcsetpgrp(0, command.pid)
sys.exit(command.wait())
"""


class Screen:
    """A terminal, as far as the watch uses one: what is on it, and the command that runs there."""

    def __init__(self, cwd: Path, *args: str, size: tuple[int, int] = (100, 24), **env: str) -> None:
        self._mine, theirs = os.openpty()
        self._size = size
        self._resize(size)
        self.before = termios.tcgetattr(theirs)
        self.raw = ""
        self.alternate = False
        self.cursor = True
        self.lines: list[str] = []
        self._x = self._y = 0
        self._clear()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | env
        line = [sys.executable, "-c", _SHELL, sys.executable, "-m", "supervisor"]
        self.process = subprocess.Popen(
            [*line, "status", "--watch", *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=environment,
            start_new_session=True,
        )
        self._theirs = theirs

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._mine)
        os.close(self._theirs)

    @property
    def restored(self) -> bool:
        """Whether the terminal is as the command found it."""
        return not self.alternate and self.cursor and termios.tcgetattr(self._theirs) == self.before

    def type(self, text: str) -> None:
        os.write(self._mine, text.encode())

    def signal(self, number: int) -> None:
        """To the command in the foreground."""
        os.killpg(os.tcgetpgrp(self._mine), number)

    def resize(self, size: tuple[int, int]) -> None:
        self._size = size
        self._clear()
        self._resize(size)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _WITHIN
        while not condition():
            assert time.monotonic() < deadline, (
                f"not within {_WITHIN:g} s: {what}\n{self.text}\n{self.raw[-2000:]!r}"
            )
            self._read(0.05)

    def shows(self, *texts: str) -> None:
        def shown() -> bool:
            assert self.process.poll() is None, self.raw[-2000:]
            return all(text in self.text for text in texts)

        self.until(shown, f"shows {texts}")

    def ends(self) -> int:
        self.until(lambda: self.process.poll() is not None, "it ends")
        self._read(0.0)
        return self.process.wait()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def _read(self, timeout: float) -> None:
        while select.select([self._mine], [], [], timeout)[0]:
            text = os.read(self._mine, 65536).decode(errors="replace")
            self.raw += text
            for code in _CODES.finditer(text):
                self._obey(code)
            timeout = 0.0

    def _obey(self, code: re.Match[str]) -> None:
        private, numbers, letter = code.groups()
        if letter is None:
            if code[0][0] not in "\x1b\r\n":
                line = self.lines[self._y].ljust(self._x)
                self.lines[self._y] = line[: self._x] + code[0] + line[self._x + len(code[0]) :]
                self._x += len(code[0])
        elif private and numbers == "1049":
            self.alternate = letter == "h"
        elif private and numbers == "25":
            self.cursor = letter == "h"
        elif letter == "H":
            self._y, self._x = (int(number) - 1 for number in numbers.split(";"))
        elif letter == "K":
            self.lines[self._y] = ""
        elif letter == "J":
            self._clear()

    def _clear(self) -> None:
        self.lines = [""] * 200
        self._x = self._y = 0

    def _resize(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self._mine, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))


Start = Callable[..., Screen]


@pytest.fixture
def watch(config: Path) -> Iterator[Start]:
    """Starts `status --watch` on a terminal."""
    screens: list[Screen] = []

    def start(*args: str, **more: Any) -> Screen:
        screens.append(Screen(config.parent, *args, **more))
        return screens[-1]

    yield start
    for screen in screens:
        screen.close()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    fill(tmp_path / "state", [row(time.time() - 1)], [account("sales"), account("support-bot")])
    return tmp_path / "state"


def test_a_person_looks_and_acts(watch: Start, state_dir: Path) -> None:
    """Accounts are shown, found, and told what to do once that is confirmed; what came of it is said; q leaves no trace."""
    daemon = Daemon([account("sales"), account("support-bot"), account("news-bot", State.FAILED)])
    with daemon.running(state_dir):
        screen = watch()
        screen.shows(
            "> news-bot",
            "3 accounts: 1 failed, 2 online",
            "de1 broken (0, 90 % answered, probe",
            "failures: 1 in 1 min",
        )
        assert screen.alternate
        assert not screen.cursor
        assert "\x1b[32m" in screen.raw
        screen.type("p")
        screen.shows("pause news-bot? y")
        screen.type("n")
        screen.shows("nothing done")
        screen.type("\x1b[Bp")
        screen.shows("pause sales? y")
        screen.type("y")
        screen.shows("sales: paused", "1 failed, 1 paused, 1 online")
        assert daemon.told == [("pause", ["sales"])]
        screen.type("ry")
        screen.shows("retry sales: no account is called sales")
        screen.type("/supp\r")
        screen.shows("> support-bot", '1 of 3: "supp"')
        assert "news-bot" not in screen.text
        screen.type("q")
        assert screen.ends() == 0
        assert screen.restored


@pytest.mark.parametrize(("how", "code"), [("Ctrl-C", 130), ("SIGTERM", 143)])
def test_signals_leave_the_terminal_as_it_was(watch: Start, state_dir: Path, how: str, code: int) -> None:
    """Ctrl-C and SIGTERM: the first screen, the cursor, echo and lines are back, nothing is said, and the exit code tells."""
    screen = watch()
    screen.shows("no daemon is running", "> sales")
    if how == "Ctrl-C":
        screen.type("\x03")
    else:
        screen.signal(signal.SIGTERM)
    assert screen.ends() == code
    assert screen.restored
    assert screen.raw.rpartition("\x1b[?1049l")[2].strip() == ""


def test_what_cannot_go_on_is_told_on_the_first_screen(watch: Start, state_dir: Path) -> None:
    """A log of a newer release ends it: the terminal is given back before that is said."""
    screen = watch()
    screen.shows("> sales")
    with sqlite3.connect(state_dir / "recovery.db") as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    assert screen.ends() == 78
    assert screen.restored
    assert "written by a newer tg-supervisor" in screen.raw.partition("\x1b[?1049l")[2]


def test_a_stopped_job_gives_the_terminal_back_for_a_while(watch: Start, state_dir: Path) -> None:
    """Ctrl-Z: the shell has its terminal as it was; `fg` brings the whole screen back."""
    screen = watch()
    screen.shows("> sales")
    screen.type("\x1a")
    screen.until(lambda: screen.restored, "the terminal is given back")
    assert screen.process.poll() is None
    screen.signal(signal.SIGCONT)
    screen.until(lambda: screen.alternate, "it is taken again")
    screen.shows("> sales", "q quit")
    screen.type("q")
    assert screen.ends() == 0
    assert screen.restored


def test_it_goes_on_through_the_daemons_life(watch: Start, state_dir: Path) -> None:
    """No daemon: the last run; one starts: it is shown; it stops: that is said. Resized meanwhile, on 40 columns, colourless."""
    screen = watch(size=(40, 20), NO_COLOR="1")
    screen.shows("no daemon is running", "stopped    ", "> sales")
    with Daemon([account("sales", State.NEEDS_LOGIN)]).running(state_dir):
        screen.shows("daemon: pid 4711", "needs_login")
        assert "no daemon" not in screen.text
        screen.resize((80, 12))
        screen.shows("daemon: pid 4711", "u resume  ? keys")
        assert sum(map(bool, screen.lines)) <= 12
        assert all(len(line) <= 80 for line in screen.lines)
    screen.shows("no daemon is running")
    screen.type("q")
    assert screen.ends() == 0
    assert set(re.findall(r"\x1b\[[^A-Za-z]*([A-Za-z])", screen.raw)) <= set("hlHKJm")
    assert set(re.findall(r"\x1b\[([0-9;]*)m", screen.raw)) <= {"0"}


def test_a_silent_daemon_does_not_hold_up_the_keys(watch: Start, state_dir: Path) -> None:
    """While an answer is awaited, keys are: q ends it at once."""
    asked, over = Event(), Event()

    class Hanging(Daemon):
        def status(self) -> dict[str, Any]:
            asked.set()
            over.wait(_WITHIN)
            return super().status()

    with Hanging([account("sales")]).running(state_dir):
        screen = watch()
        screen.shows("asking the daemon")
        assert asked.wait(_WITHIN)
        screen.type("q")
        assert screen.ends() == 0
        assert screen.restored
        over.set()


@contextmanager
def piped(cwd: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "supervisor", "status", "--watch", *args]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_pipe_gets_a_block_at_each_change(config: Path, state_dir: Path) -> None:
    """Plain text, anew only when something has changed; Ctrl-C ends it with 130, without a word."""
    daemon = Daemon([account("sales")])

    def a_block(process: subprocess.Popen[str]) -> list[str]:
        assert process.stdout is not None
        return [line.rstrip("\n") for line in iter(process.stdout.readline, "\n")]

    with daemon.running(state_dir), piped(config.parent) as process:
        assert [line.split()[:2] for line in a_block(process)[1:3]] == [
            ["ACCOUNT", "STATE"],
            ["sales", "online"],
        ]
        assert process.stdout is not None
        assert not select.select([process.stdout], [], [], 1.5)[0]
        daemon.accounts = [account("sales", State.FAILED)]
        changed = a_block(process)
        assert changed[2].split()[:2] == ["sales", "failed"]
        assert all(line.isprintable() for line in changed)
        process.send_signal(signal.SIGINT)
        assert process.wait(_WITHIN) == 130
        assert process.stdout.read() == ""
        assert process.stderr is not None
        assert process.stderr.read().strip() == ""


def test_a_closed_pipe_ends_it_without_a_change(config: Path, state_dir: Path) -> None:
    """Nobody reads any more: it ends at once, quietly, exit 141, though nothing has happened; JSON is one object a line."""
    with piped(config.parent, "--json") as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        assert (found["running"], len(found["accounts"])) == (False, 2)
        process.stdout.close()
        assert process.wait(_WITHIN) == 141
        assert process.stderr is not None
        assert process.stderr.read().count("\n") == 1
