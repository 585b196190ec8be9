"""Writing an account into a configuration file: nothing else in it changes, and nobody ever finds the half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from supervisor.errors import ConfigError


def with_account(text: str, name: str, keys: Mapping[str, str | Sequence[str]]) -> str:
    """A file's text with one more account at its end.

    Args:
        text: the file's own, with its comments; it stays as it is, letter by letter.
        name: the account's.
        keys: of the account, and their values.
    """
    import tomlkit

    account = tomlkit.table()
    for key, value in keys.items():
        account.add(key, value if isinstance(value, str) else list(value))
    accounts = tomlkit.table(is_super_table=True)
    accounts.add(name, account)
    added = tomlkit.dumps({"accounts": accounts})
    if "\r\n" in text:
        added = added.replace("\n", "\r\n")
    end = "\r\n" if "\r\n" in text else "\n"
    before = text if not text or text.endswith("\n") else text + end
    return f"{before}{end if before else ''}{added}"


def create_secret(path: Path, secret: str) -> None:
    """Write a secret into a file of its own, for its owner's eyes only from its first moment on.

    Raises:
        ConfigError: there is one already, or it cannot be written.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(fd)
    except FileExistsError as error:
        raise ConfigError(
            [f"{path}: is there already; move it elsewhere, or name it as the account's"]
        ) from error
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written: {error.strerror or error}"]) from error


def read(path: Path) -> bytes | None:
    """What is in a file; None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror or error}"]) from error


def replace(path: Path, before: bytes | None, after: bytes | None) -> None:
    """Put a new content in the place of the one that was read, all at once; owner and mode stay.

    Args:
        path: the file; of a link, what it leads to is replaced.
        before: what was read; None: there was no file.
        after: what is to be there; None: no file.

    Raises:
        ConfigError: it was changed meanwhile, or cannot be written; it is as it was.
    """
    path = Path(os.path.realpath(path))
    if read(path) != before:
        raise ConfigError([f"{path}: was changed meanwhile; nothing was written, try again"])
    try:
        if after is None:
            path.unlink()
            return
        _replace(path, after)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written: {error.strerror or error}"]) from error


def _replace(path: Path, content: bytes) -> None:
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(fd, "wb") as file:
            with suppress(FileNotFoundError):
                found = path.stat()
                os.fchown(fd, found.st_uid, found.st_gid)
                os.fchmod(fd, found.st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(fd)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
