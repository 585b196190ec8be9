"""Tells whether what is configured for an account has changed since the last run, and keeps none of it.

What is kept is a keyed hash. The key is drawn once and stays in a file of its own beside recovery.db: without it nobody
can try out phone numbers or passwords on a log that was given away.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from supervisor.config.model import Account, Secret, Telegram

_BYTES = 32


class Marks:
    """Marks of what is configured, of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        """Read the key, or draw one.

        Args:
            state_dir: where it is kept.

        Raises:
            OSError: it can neither be read nor be kept.
        """
        self._key = _key(state_dir / "marks.key")

    def of(self, account: Account, telegram: Telegram) -> str:
        """The mark of what decides whether an account can sign in: its credentials, its session, how it presents itself.

        Proxies are left out: where a path is broken, the account only waits for it.

        Args:
            account: the account.
            telegram: the application, and the server.
        """
        told = [
            telegram.api_id,
            _plain(telegram.api_hash),
            telegram.server and (telegram.server.host, telegram.server.port, telegram.server.public_key),
            account.identity,
            _plain(account.bot_token),
            _plain(account.password),
            _plain(account.session_string),
            _file(account.session_file),
            account.plugins,
            dict(account.client),
        ]
        text = json.dumps(told, sort_keys=True, default=str)
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:32]


def _plain(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def _file(path: Path | None) -> tuple[str, int, int] | None:
    """A file by its place, size and time: another one in its place is told from it."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:  # taken away since the configuration was read: not what it was
        return str(path), 0, 0
    return str(path), found.st_size, found.st_mtime_ns


def _key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) == _BYTES:
        return key
    # None yet, or half of one: a kill came in between. With another key every mark differs, and each account is tried.
    key = secrets.token_bytes(_BYTES)
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    new.replace(path)
    return key
