"""The files of a configuration as one document in which every value knows its file and line.

Included files are merged in two levels: a table may be spread over files, the same key in it (an account, a proxy,
a setting) may not.
"""

from __future__ import annotations

import glob
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from supervisor.config.footprint import Footprint
from supervisor.config.lines import KeyPath, key_lines, salvaged
from supervisor.config.words import FromVariable, did_you_mean, dotted, shown, type_name
from supervisor.errors import ConfigError

TABLES = (
    "telegram",
    "supervisor",
    "recovery",
    "classify",
    "proxies",
    "defaults",
    "accounts",
    "dashboard",
    "notify",
    "sentry",
    "logging",
)

_NONE: Mapping[Path, str] = MappingProxyType({})
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Unresolved(Exception):
    """A value could not be had; why is in the document's problems already."""


class NotToml(ConfigError):
    """A file is no TOML."""


class Source:
    """One file."""

    def __init__(self, path: Path, label: str, text: str) -> None:
        self.path = path  # absolute
        self.label = label  # as the user named it
        self.text = text
        self.data: dict[str, object] = tomllib.loads(text)

    @cached_property
    def lines(self) -> dict[KeyPath, int]:
        """Every key's line; found only when there is something to report."""
        return key_lines(self.text)

    def place(self, path: KeyPath) -> str:
        """``accounts.toml:12`` for a key or, where it is absent, for the table that misses it."""
        return f"{self.label}:{self.line(path)}"

    def line(self, path: KeyPath) -> int:
        """The line of a key or of the nearest table around it."""
        return next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 1)


class Document:
    """The main file and, if `follow`, what it includes; and the problems found in them.

    Args:
        path: the main file, as the user named it.
        env: the variables for ``${VARIABLE}``.
        follow: whether to read the included files.
        footprint: is told of everything that is read.
        salvage: of a file that is no TOML, take the lines that lead to the state directory.
        instead: texts that stand for those of files, which need not be there: what would be, were they written.
    """

    def __init__(
        self,
        path: Path | str,
        env: Mapping[str, str],
        *,
        follow: bool = True,
        footprint: Footprint | None = None,
        salvage: bool = False,
        instead: Mapping[Path, str] = _NONE,
    ) -> None:
        self.env = env
        self.follow = follow
        self.footprint = footprint or Footprint()
        self.salvage = salvage
        self.instead = instead
        self.has_no_toml = False
        self.sources: list[Source] = []
        self.complete = True  # every file was read, so what is not found is really missing
        self.tables: dict[str, dict[str, object]] = {name: {} for name in TABLES}
        self._owners: dict[KeyPath, Source] = {}
        self._problems: list[tuple[int, int, str]] = []
        self._seen: set[Path] = set()
        self._read(_absolute(Path(path)), os.fspath(path), None)

    # problems

    def problem(self, path: KeyPath, text: str) -> None:
        """Note what is wrong with a key."""
        self._note(self.owner(path), path, text)

    def problem_elsewhere(self, place: str, text: str) -> None:
        """Note what is wrong outside the files: a variable, the command line."""
        self._problems.append((-1, 0, f"{place}: {text}"))

    def problems(self) -> list[str]:
        """All of them, in the order of the files and their lines, each once."""
        return list(dict.fromkeys(text for _, _, text in sorted(self._problems, key=lambda item: item[:2])))

    def _note(self, source: Source, path: KeyPath, text: str) -> None:
        message = f"{source.place(path)}: {dotted(path)}: {text}"
        self._problems.append((self.sources.index(source), source.line(path), message))

    # places

    def owner(self, path: KeyPath) -> Source:
        """The file a key stands in, or its table, or else the main file (which must have been read)."""
        return self._owners.get(path[:2]) or self._owners.get(path[:1]) or self.sources[0]

    def place(self, path: KeyPath) -> str:
        """Where a key stands: ``accounts.toml:12``."""
        return self.owner(path).place(path)

    def base(self, path: KeyPath) -> Path:
        """The directory that a relative path in this key starts from."""
        return self.owner(path).path.parent

    # values

    def resolve(self, path: KeyPath, value: object, *, url: bool = False) -> object:
        """The value with its variables filled in, in nested lists and tables too.

        Args:
            path: where it stands.
            value: as it was read.
            url: it is a url: a variable in a part of it stands for itself, whatever characters it has.

        Raises:
            Unresolved: a variable is not set; that is noted.
        """
        if isinstance(value, str):
            return self._expand(path, value, url=url) if "${" in value else value
        if isinstance(value, list):
            return self._resolve_all([((*path, n), item) for n, item in enumerate(value)])
        if isinstance(value, dict):
            return dict(
                zip(value, self._resolve_all([((*path, k), v) for k, v in value.items()]), strict=True)
            )
        return value

    def _resolve_all(self, items: list[tuple[KeyPath, object]]) -> list[object]:
        resolved, failed = [], False
        for path, value in items:
            try:
                resolved.append(self.resolve(path, value))
            except Unresolved:
                failed = True
        if failed:
            raise Unresolved
        return resolved

    def _expand(self, path: KeyPath, text: str, *, url: bool) -> str:
        wrong: list[str] = []

        def fill(match: re.Match[str]) -> str:
            name = match[1]
            if name is None:
                return "${"
            if not match[2] or not _NAME.fullmatch(name):
                wrong.append(
                    '"${" begins no variable\'s name with a "}" after it; write "$${" for the characters'
                )
                return ""
            if name not in self.env:
                wrong.append(f"the variable {name} is not set")
                return ""
            return quote(self.env[name], safe=":[]") if url and "://" in text else self.env[name]

        expanded = _VARIABLE.sub(fill, text)
        for problem in dict.fromkeys(wrong):
            self.problem(path, problem)
        if wrong:
            raise Unresolved
        return FromVariable(expanded)

    # files

    def _read(self, path: Path, label: str, cited: tuple[Source, int, str] | None) -> None:
        if path in self._seen:
            return
        self._seen.add(path)
        try:
            source = self._parse(path, label)
        except ConfigError as broken:
            self.complete = False
            self.has_no_toml |= isinstance(broken, NotToml)
            self._problems += [(len(self.sources), 0, problem) for problem in broken.problems]
        except (OSError, ValueError) as error:
            self.complete = False
            reason = getattr(error, "strerror", None) or "no such path"
            if cited is None:
                self.problem_elsewhere(label, f"the configuration file cannot be read: {reason}")
            else:
                self._note(cited[0], ("include", cited[1]), f"{cited[2]} cannot be read: {reason}")
        else:
            self.sources.append(source)
            self._merge(source)
            for file, file_label, index, name in self._included(source):
                self._read(file, file_label, (source, index, name))

    def _parse(self, path: Path, label: str) -> Source:
        try:
            text = self.instead.get(path)
            raw = path.read_bytes() if text is None else text.encode()
            self.footprint.note(path, raw)
            return _parse(path, label, raw)
        except OSError:
            self.footprint.note(path, None)
            raise
        except NotToml:
            kept = salvaged(path.read_text(encoding="utf-8-sig")) if self.salvage else None
            if kept is None:
                raise
            return Source(path, label, kept)

    def _merge(self, source: Source) -> None:
        for name, table in source.data.items():
            if name == "include":
                continue
            if name not in TABLES:
                self._note(source, (name,), "unknown" + did_you_mean(name, ("include", *TABLES)))
            elif not isinstance(table, dict):
                self._note(source, (name,), f"must be a table, not {type_name(table)}")
            else:
                self._owners.setdefault((name,), source)
                for key, value in table.items():
                    self._add(source, name, key, value)

    def _add(self, source: Source, name: str, key: str, value: object) -> None:
        other = self._owners.setdefault((name, key), source)
        if other is source:
            self.tables[name][key] = value
        else:
            self._note(source, (name, key), f"is given already, in {other.place((name, key))}")

    def _included(self, source: Source) -> Iterator[tuple[Path, str, int, str]]:
        patterns = source.data.get("include", []) if self.follow else []
        if not isinstance(patterns, list):
            self._note(source, ("include",), f"must be a list of paths, not {type_name(patterns)}")
            return
        for index, raw in enumerate(patterns):
            pattern = self._pattern(source, index, raw)
            if pattern is not None:
                full = source.path.parent / expand_user(pattern)
                self.footprint.note_pattern(full)
                written = [str(path) for path in self.instead if fnmatch(str(path), str(full))]
                for match in dict.fromkeys((*_matches(source.path.parent, pattern), *written)):
                    label = str(Path(source.label).parent / match)
                    yield _absolute(source.path.parent / match), label, index, shown(pattern)

    def _pattern(self, source: Source, index: int, raw: object) -> str | None:
        path: KeyPath = ("include", index)
        self._owners[path] = source  # where `resolve`, now, shall say that a variable is missing
        if not isinstance(raw, str):
            self._note(source, path, f"must be a path, not {type_name(raw)}")
            return None
        try:
            pattern = str(self.resolve(path, raw))
        except Unresolved:
            self.complete = False
            return None
        if not pattern or "\0" in pattern:
            self._note(source, path, "is no path")
            return None
        return FromVariable(pattern) if pattern != raw else pattern


def expand_user(path: str) -> str:
    """The path with its ``~`` filled in; one that names no user stays as it is."""
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises for an unknown user


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - a link's own directory is meant: resolve() would follow it


def _matches(folder: Path, pattern: str) -> list[str]:
    pattern = expand_user(pattern)
    if not glob.has_magic(pattern):
        return [pattern]
    found = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    return [match for match in sorted(found) if not (folder / match).is_dir()]


def _parse(path: Path, label: str, raw: bytes) -> Source:
    """Make sense of one file.

    Raises:
        ConfigError: it is not TOML; the one problem has the line.
    """
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{label}:{line}: it is not UTF-8 text"]) from None
    try:
        return Source(path, label, text)
    except RecursionError:
        raise ConfigError([f"{label}:1: it is nested too deeply"]) from None
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else text.rstrip("\n").count("\n") + 1
        reason = _TOML_PLACE.sub("", str(error))
        raise NotToml([f"{label}:{line}: it is not TOML: {reason}"]) from None
    except ValueError:  # a number or a date that Python cannot hold
        raise ConfigError([f"{label}:1: it is not TOML: a number or a date is out of range"]) from None
