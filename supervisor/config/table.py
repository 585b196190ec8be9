"""One table of the document while it is being read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from supervisor.config.checks import Wrong, text
from supervisor.config.footprint import Footprint
from supervisor.config.lines import KeyPath
from supervisor.config.model import Secret
from supervisor.config.source import Document, Unresolved, expand_user
from supervisor.config.words import did_you_mean, type_name

T = TypeVar("T")

_LONGEST = 65_536  # bytes of a file that holds one value


class Table:
    """Reads values by key. What is wrong goes to the document's problems, and the value is then None.

    Args:
        document: where it stands.
        path: its keys.
        data: its content.
    """

    def __init__(self, document: Document, path: KeyPath, data: dict[str, object]) -> None:
        self.document = document
        self.path = path
        self.data = data

    def problem(self, key: str | None, what: str) -> None:
        """Note what is wrong with a key, or with the table."""
        self.document.problem(self.path if key is None else (*self.path, key), what)

    def given(self, key: str) -> bool:
        """Whether the key, or its ``_file``, is there, be its value right or wrong."""
        return key in self.data or f"{key}_file" in self.data

    def written(self, key: str) -> str:
        """A secret's key as it stands there: itself or ``KEY_file``."""
        return key if key in self.data else f"{key}_file"

    def know(self, keys: Iterable[str], secrets: Iterable[str] = ()) -> None:
        """Refuse every other key; a secret may also be given as ``_file``."""
        known = [*keys, *secrets, *(f"{key}_file" for key in secrets)]
        for key in self.data:
            if key not in known:
                self.problem(key, "unknown" + did_you_mean(key, known))

    def require(self, *keys: str) -> None:
        """Refuse to be without these keys."""
        for key in keys:
            if not self.given(key):
                self.problem(key, "is missing")

    def read(self, key: str, check: Callable[[object], T], *, url: bool = False) -> T | None:
        """The value, checked; None if it is absent or wrong."""
        if key not in self.data:
            return None
        path = (*self.path, key)
        try:
            return check(self.document.resolve(path, self.data[key], url=url))
        except Wrong as wrong:
            self.document.problem(path, str(wrong))
        except Unresolved:
            pass  # and said why
        except RecursionError:  # dotted keys may be nested deeper than tomllib's own limit
            self.document.problem(path, "is nested too deeply")
        return None

    def secret(self, key: str, check: Callable[[object], str] = text, *, url: bool = False) -> Secret | None:
        """The value of a secret key, its own or that of the file which ``KEY_file`` names."""
        file_key = f"{key}_file"
        if key in self.data and file_key in self.data:
            self.problem(file_key, f"{key} is given too; give one of them")
            return None
        if file_key in self.data:
            value = self.read(file_key, lambda path: check(self._content(file_key, path)))
        else:
            value = self.read(key, check, url=url)
        return None if value is None else Secret(value)

    def _content(self, key: str, value: object) -> str:
        content = self.file(key, value).rstrip("\r\n")
        if not content:
            raise Wrong("the file is empty")
        return content

    def file(self, key: str, value: object) -> str:
        """The text of a small file that a key names; raises Wrong as `read_file`."""
        return read_file(self.base(key), value, self.document.footprint)

    def base(self, key: str) -> Path:
        """The directory that a relative path starts from."""
        return self.document.base((*self.path, key))

    def tables(self) -> Iterator[Table]:
        """The tables in this one, one a key; any other value is refused."""
        for key, value in self.data.items():
            if isinstance(value, dict):
                yield Table(self.document, (*self.path, key), value)
            else:
                self.problem(key, f"must be a table, not {type_name(value)}")

    def table(self, key: str) -> Table | None:
        """The table under one key."""
        value = self.data.get(key)
        return (
            next(Table(self.document, self.path, {key: value}).tables(), None) if key in self.data else None
        )


def file_path(value: object) -> Path:
    """A path as it is given; ``~`` stands for the home directory."""
    return Path(expand_user(text(value)))


def missing(base: Path, what: str = "file") -> Wrong:
    """That a file is not there. Its path is not shown: it may be the secret itself, put there by mistake."""
    return Wrong(f"no such {what}; a relative path starts from {base}")


def read_file(base: Path, value: object, footprint: Footprint) -> str:
    """The text of a small file that a key names; the footprint is told of it.

    Raises:
        Wrong: it is not there, not readable, too large, or no text.
    """
    path = base / file_path(value)
    footprint.note(path, None)
    try:
        if not path.is_file():
            raise missing(base) if not path.exists() else Wrong("is not a file")
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        footprint.note(path, content)
        if len(content) > _LONGEST:
            raise Wrong(f"the file is larger than {_LONGEST} bytes")
        return content.decode()
    except OSError as error:
        raise Wrong(f"the file cannot be read: {error.strerror or 'unknown error'}") from None
    except ValueError:
        raise Wrong("the file is not UTF-8 text") from None
