"""On which line each key of a TOML text stands; `tomllib` tells values only.

The text has passed `tomllib` already, so the scanner may trust its grammar: it finds keys and steps over values.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

KeyPath = tuple[str | int, ...]  # keys, and indexes into arrays
# Keys in one path whose lines are kept; below stands nothing that we know, and a.a.a… would fill the memory.
DEEPEST = 32

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|"((?:[^"\\]|\\.)*)"|'([^']*)')[ \t]*""")
_HEADER = re.compile(r"\s*\[+([^\]#]*)")
_SCALAR = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # the content may end in one or two quotes of its own
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'"
    r"|[^,\]}#\n]+",
    re.DOTALL,
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """Map the path of every table, key and array element in a valid TOML text to its line, counted from 1.

    A table that has a header of its own is at that header, one that only its keys create at the first of them.
    """
    return _Scanner(text).scan()


def salvaged(text: str) -> str | None:
    """Of a text that is no TOML, the lines of ``include`` and of ``supervisor.state_dir``; all others are empty.

    None where one of the two is broken itself, or goes on over more lines.
    """
    kept, wanted, table = [], {"": "include", "supervisor": "state_dir"}, ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        table = header[1].strip() if header else table
        key = wanted.get(table)
        is_it = key is not None and re.match(rf"\s*{key}\s*=", line) is not None
        kept.append(f"{table}.{line.strip()}".lstrip(".") if is_it else "")
        if is_it:
            del wanted[table]
            if not _is_toml(line):
                return None
    return "\n".join(kept)


def _is_toml(line: str) -> bool:
    try:
        tomllib.loads(line)
    except ValueError:
        return False
    return True


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[KeyPath, int] = {}
        self.arrays: dict[KeyPath, int] = {}  # [[arrays]] and the index of their last table

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._blank()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._blank()
        return self.lines

    def _header(self) -> KeyPath:
        line = self._line()
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        *parents, last = self._key()[:DEEPEST]
        self.at += 2 if array else 1
        path: KeyPath = ()
        for part in parents:
            path = self._latest((*path, part))
            self.lines.setdefault(path, line)
        path = (*path, last)
        if array:
            self.arrays[path] = self.arrays.get(path, -1) + 1
            self.lines.setdefault(path, line)
        path = self._latest(path)
        self.lines[path] = line
        return path

    def _latest(self, path: KeyPath) -> KeyPath:
        """The path itself or, if it is an array of tables, its last table, which a header then means."""
        return (*path, self.arrays[path]) if path in self.arrays else path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for part in self._key()[:DEEPEST]:
            path = (*path, part)
            self.lines.setdefault(path, line)
        self.at += 1  # =
        self._spaces()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self.text[self.at]
        if opening not in "[{":
            self._match(_SCALAR)
            return
        self.at += 1
        self._blank()
        index = 0
        while self.text[self.at] not in "]}":
            if opening == "{":
                self._pair(path)
            else:
                self.lines[*path, index] = self._line()
                self._value((*path, index))
                index += 1
            self._blank()
            if self.text[self.at] == ",":
                self.at += 1
                self._blank()
        self.at += 1

    def _key(self) -> list[str]:
        parts = []
        while True:
            part = self._match(_KEY)
            if part[2] is not None and "\\" in part[2]:
                parts.append(str(tomllib.loads(f'key = "{part[2]}"')["key"]))
            else:
                parts.append(next(group for group in part.groups() if group is not None))
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def _blank(self) -> None:
        self._match(_BLANK)

    def _spaces(self) -> None:
        while self.text[self.at] in " \t":
            self.at += 1

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.at)
        assert match is not None, "not the TOML that tomllib accepted"
        self.at = match.end()
        return match

    def _line(self) -> int:
        return bisect_right(self.newlines, self.at) + 1
