"""Unix sockets at paths of any length: the kernel takes 107 bytes, a state directory may well need more."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 103  # bytes, without the closing NUL: 107 on Linux, 103 on macOS and the BSDs
_FDS = Path("/proc/self/fd")


@contextmanager
def short(path: Path) -> Iterator[str]:
    """A name for the socket at `path` that is short enough for `bind` and `connect`, valid inside the ``with``.

    A long path is reached through its directory, opened (Linux) or linked to from a temporary one (elsewhere).
    """
    path = path.absolute()
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
    elif _FDS.is_dir():
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"{_FDS}/{folder}/{path.name}"
        finally:
            os.close(folder)
    else:
        with tempfile.TemporaryDirectory(prefix="tgs-", dir="/tmp") as temporary:  # short, and 0700
            link = Path(temporary, "d")
            link.symlink_to(path.parent, target_is_directory=True)
            yield f"{link}/{path.name}"
