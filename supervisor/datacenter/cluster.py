"""Several datacenters with one world between them, as Telegram's own are (core.telegram.org/api/datacenter).

An account's home is the datacenter on which it was added:

    async with Cluster(2, 4) as cluster:
        bot = cluster[4].add_bot()
        ...  # point a client at cluster[2]: it is sent to 4, where help.getConfig says that it is
        cluster.move(bot, 2)
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from .server import Datacenter
from .shared import Shared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from .world import Account


class Cluster:
    """Datacenters by their number.

    Arguments:
        dc_ids: their numbers.
        seed, options: as `Datacenter` takes them; they hold for each.
    """

    def __init__(self, *dc_ids: int, seed: int | None = None, **options: Any) -> None:
        self.shared = Shared(random.SystemRandom() if seed is None else random.Random(seed))
        self._datacenters = {
            dc_id: Datacenter(dc_id=dc_id, seed=seed, shared=self.shared, **options) for dc_id in dc_ids
        }

    def __getitem__(self, dc_id: int) -> Datacenter:
        return self._datacenters[dc_id]

    def __iter__(self) -> Iterator[Datacenter]:
        return iter(self._datacenters.values())

    async def __aenter__(self) -> Cluster:
        try:
            for datacenter in self:
                await datacenter.start()
        except OSError:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        for datacenter in self:
            await datacenter.stop()

    def move(self, account: Account, dc_id: int) -> None:
        """Make another datacenter the account's home: the keys on the old one are only a guest's from now on."""
        if dc_id not in self._datacenters:
            raise ValueError(f"there is no datacenter {dc_id}")
        account.home = dc_id
        for key in account.keys:
            for session in key.sessions.values():
                session.wants_updates = False
