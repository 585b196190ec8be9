"""What a configuration was read from: every file with its content, so that a change of any of them is noticed.

A file is known by the names on the way to it, too: an editor puts a new file in its place, Kubernetes turns a link
(``accounts.toml -> ..data/accounts.toml``, ``..data -> ..2026_11_22``).
"""

from __future__ import annotations

import fnmatch
import glob
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Links that are followed on the way to one file; the kernel's own limit.
_LINKS = 40


@dataclass(slots=True)
class Footprint:
    """The files that were read, or could not be, and the patterns by which others were looked for.

    Args:
        files: absolute paths, with a hash of what was in each, good for this process; None where it could not be read.
        patterns: absolute patterns of included files.
    """

    files: dict[Path, int | None] = field(default_factory=dict)
    patterns: dict[str, None] = field(default_factory=dict)

    def note(self, path: Path, content: bytes | None) -> None:
        """A file was read; None: it could not be."""
        self.files[path] = None if content is None else hash(content)

    def note_pattern(self, pattern: Path) -> None:
        """Files were looked for by a pattern."""
        self.patterns[str(pattern)] = None

    def changed(self) -> Path | None:
        """The first file that is not as it was read, or that a pattern now finds besides; None if all is as it was."""
        for path, before in self.files.items():
            if _present(path) != before:
                return path
        found = (Path(name) for pattern in self.patterns for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 - as they were looked for
        return next((path for path in found if path not in self.files and path.is_file()), None)

    def names(self) -> set[str]:
        """The names of which a change may change what is read: of the files and of every link on the way to them."""
        paths = [*self.files, *(_base(pattern) for pattern in self.patterns)]
        return {str(name) for path in paths for name in _way(path)}

    def concerns(self, name: str, names: set[str]) -> bool:
        """Whether a change of this name may change what is read.

        Args:
            name: of a file or a directory, absolute.
            names: what `names` gave.
        """
        return name in names or any(fnmatch.fnmatch(name, pattern) for pattern in self.patterns)

    def directories(self) -> frozenset[str]:
        """The directories to be watched, all of which are there."""
        found = {str(Path(name).parent) for name in self.names()}
        for pattern in self.patterns:
            inside = glob.glob(str(Path(pattern).parent), recursive=True)  # noqa: PTH207
            found |= {name for name in (*inside, str(_base(pattern))) if Path(name).is_dir()}
        return frozenset(found)


def _present(path: Path) -> int | None:
    try:
        return hash(path.read_bytes())
    except OSError:
        return None


def _base(pattern: str) -> Path:
    """The directory below which a pattern looks."""
    base = Path("/")
    for part in Path(pattern).parts[1:-1]:
        if glob.has_magic(part):
            break
        base /= part
    return base


def _way(path: Path) -> Iterator[Path]:
    """Each link on the way to a path, and where the way ends: at the path itself, or at what is missing of it."""
    left, at, links = deque(path.parts[1:]), Path("/"), 0
    while left:
        part = left.popleft()
        if part == "..":
            at = at.parent
            continue
        at /= part
        if at.is_symlink() and links < _LINKS:
            links += 1
            yield at
            target = at.readlink()
            at = Path("/") if target.is_absolute() else at.parent
            left.extendleft(reversed(target.parts[1:] if target.is_absolute() else target.parts))
        elif not at.exists():
            break
    yield at
