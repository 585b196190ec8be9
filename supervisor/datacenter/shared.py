"""What the datacenters of one cluster have in common: the world, the files, and each other's addresses."""

from __future__ import annotations

import itertools
import os
import random
from dataclasses import dataclass

from .files import FileStore
from .world import Account, World

_EXPORTS_KEPT = 256
FIRST_BOT = 6_000_000_001


@dataclass(frozen=True, slots=True)
class _Export:
    """An authorization on its way to another datacenter (core.telegram.org/api/datacenter#authorization-transfer)."""

    account: Account
    dc_id: int


class Shared:
    """Keys, MTProto sessions, faults and counts are each datacenter's own; this is not."""

    def __init__(self, source: random.Random) -> None:
        self.world = World(source)
        self.files = FileStore(source)
        self.addresses: dict[int, tuple[str, int]] = {}
        self.bot_ids = itertools.count(FIRST_BOT)
        self._exports: dict[bytes, _Export] = {}

    def export(self, account: Account, dc_id: int) -> bytes:
        """Let the account be taken over by a datacenter; what is given is good once, and there alone."""
        token = os.urandom(128)
        self._exports[token] = _Export(account, dc_id)
        if len(self._exports) > _EXPORTS_KEPT:
            del self._exports[next(iter(self._exports))]
        return token

    def take_export(self, token: bytes, user_id: int, dc_id: int) -> Account | None:
        """The account that was exported; None where these bytes are not good, used already, or another's."""
        export = self._exports.get(token)
        if export is None or (export.account.user_id, export.dc_id) != (user_id, dc_id):
            return None
        del self._exports[token]
        return export.account
