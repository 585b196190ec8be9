"""The terminal while it is ours: the alternate screen, single keys, its size; and as it was when we are done."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.text import Text

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"  # the alternate screen, no cursor, empty
_LEAVE = "\x1b[0m\x1b[?25h\x1b[?1049l"
_PIECE = re.compile(r"\x1b(?:\[[0-9;]*[~A-Za-z]|O[A-Za-z])|[\s\S]")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-9;]*|O)?\Z")
_PATIENCE = 0.05  # s for the rest of a key that came in part; a lone Esc has none
_NAMES = {
    **dict.fromkeys(("\x1b[A", "\x1bOA"), "up"),
    **dict.fromkeys(("\x1b[B", "\x1bOB"), "down"),
    **dict.fromkeys(("\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~"), "home"),
    **dict.fromkeys(("\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~"), "end"),
    "\x1b[5~": "pgup",
    "\x1b[6~": "pgdn",
    **dict.fromkeys(("\r", "\n"), "enter"),
    **dict.fromkeys(("\x7f", "\x08"), "backspace"),
    "\x1b": "esc",
    "\x0c": "redraw",
}


def keys(text: str) -> list[str]:
    """What was typed, key by key: characters, and names as ``up``; keys that mean nothing here are left out."""
    found = _PIECE.findall(text)
    return [_NAMES.get(piece, piece) for piece in found if piece in _NAMES or piece.isprintable()]


class Terminal:
    """stdin and stdout as a screen with keys. Used inside `taken`; `wake` may be called from any thread.

    Args:
        color: whether it shows colours.
    """

    def __init__(self, *, color: bool) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._before = termios.tcgetattr(self._in)
        self._shown: list[Text] = []
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._rendered = io.StringIO()
        self._console = Console(
            file=self._rendered,
            force_terminal=True,
            color_system="standard" if color else None,
            legacy_windows=False,
            highlight=False,
            width=10_000,  # lines come cut to size
        )

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take the terminal over, and give it back as it was, however this ends; SIGTERM ends it in good order."""
        ours = (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP, signal.SIGWINCH)
        before = {number: signal.getsignal(number) for number in ours}
        waking = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        try:
            signal.signal(signal.SIGTERM, _end)
            signal.signal(signal.SIGTSTP, lambda *_: self._pause())
            signal.signal(signal.SIGWINCH, lambda *_: self.forget())
            self._enter()
            yield
        finally:
            for number in ours:  # a second Ctrl-C must not leave half of it undone
                signal.signal(number, signal.SIG_IGN)
            self._leave()
            signal.set_wakeup_fd(waking)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._wake.close()
            self._woken.close()

    def wake(self) -> None:
        """End a wait for keys early."""
        with suppress(OSError):  # full: it is being woken; closed: nobody waits any more
            self._wake.send(b"\0")

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        columns, lines = os.get_terminal_size(self._out)
        return columns or 80, lines or 24

    def wait(self, timeout: float) -> list[str]:
        """The keys that are pressed within so many seconds; at once when there is one, or somebody wakes it.

        Raises:
            EOFError: the terminal is gone.
        """
        ready, _, _ = select.select([self._in, self._woken], [], [], timeout)
        if self._woken in ready:
            with suppress(BlockingIOError):
                self._woken.recv(4096)
        return keys(self._read()) if self._in in ready else []

    def paint(self, lines: Sequence[Text]) -> None:
        """Show these lines; only those are written that have changed."""
        parts = []
        for number, line in enumerate(lines):
            if number >= len(self._shown) or self._shown[number] != line:
                parts.append(f"\x1b[{number + 1};1H\x1b[2K{self._render(line)}")
        self._shown = list(lines)
        if parts:
            self._write("".join(parts))

    def forget(self) -> None:
        """Nothing of what was painted can be relied upon: paint all of it the next time."""
        self._shown = []

    def _render(self, line: Text) -> str:
        self._rendered.seek(0)
        self._rendered.truncate()
        self._console.print(line, end="", no_wrap=True, overflow="ignore", crop=False, soft_wrap=True)
        return self._rendered.getvalue()

    def _read(self) -> str:
        text = b""
        while True:
            read = os.read(self._in, 4096)
            if not read:
                raise EOFError("the terminal is gone")
            text += read
            typed = text.decode(errors="ignore")
            if not _UNFINISHED.search(typed) or not select.select([self._in], [], [], _PATIENCE)[0]:
                return typed

    def _enter(self) -> None:
        tty.setcbreak(self._in, termios.TCSANOW)  # Ctrl-C and Ctrl-Z stay signals
        self.forget()
        self._write(_ENTER)

    def _leave(self) -> None:
        with suppress(OSError):  # where the terminal is gone there is nothing to give back
            self._write(_LEAVE)
        with suppress(termios.error):
            termios.tcsetattr(self._in, termios.TCSANOW, self._before)

    def _pause(self) -> None:
        """Ctrl-Z: the shell gets its terminal as it was; `fg` goes on."""
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        self._leave()
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._enter()

    def _write(self, text: str) -> None:
        left = text.encode(errors="replace")
        while left:  # past the buffer of sys.stdout: a signal's handler may write, too
            left = left[os.write(self._out, left) :]


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
