"""The state directory: who may see it (0700), and one daemon at a time in it (`StateLock`)."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from supervisor.errors import AlreadyRunning, ConfigError

_log = logging.getLogger(__name__)

_PATIENCE = 0.3  # s: `holder` holds the lock for microseconds while it looks


def prepare_state_dir(state_dir: Path) -> None:
    """Create the state directory, for its owner's eyes only. One that is open to others is closed to them.

    Raises:
        ConfigError: it cannot be created or is no directory.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = state_dir.stat()
        if found.st_mode & 0o077 and found.st_uid == os.geteuid():
            state_dir.chmod(0o700)
            _log.warning("%s was open to other users; its mode is now 0700", state_dir)
    except OSError as error:
        raise ConfigError([f"supervisor.state_dir: {state_dir}: {error.strerror or error}"]) from error


class StateLock:
    """Holds state_dir for one daemon, for as long as its process lives: the kernel releases it even after kill -9.

    Args:
        state_dir: created, 0700, if it is not there.

    Raises:
        AlreadyRunning: (on entering) another process holds it.
        ConfigError: (on entering) the directory cannot be created or locked.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._fd: int | None = None

    def __enter__(self) -> Self:
        prepare_state_dir(self._state_dir)
        path = self._state_dir / "lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError([f"{path}: {error.strerror or error}"]) from error
        try:
            self._acquire(fd, path)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            # The file stays: were it deleted, two processes could lock two files of one name.
            self._fd = None

    def _acquire(self, fd: int, path: Path) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise AlreadyRunning(str(self._state_dir), _pid(fd)) from None
                time.sleep(0.02)
            except OSError as error:
                raise ConfigError([f"{path}: cannot be locked: {error.strerror or error}"]) from error
            else:
                return


def holder(state_dir: Path) -> int | None:
    """The process that holds state_dir; 0 where its number cannot be read, None where nobody does."""
    try:
        fd = os.open(state_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EAGAIN}:
            return _pid(fd) or 0
        raise
    else:
        return None
    finally:
        os.close(fd)


def _pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
