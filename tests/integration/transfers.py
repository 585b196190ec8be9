"""What the tests of transfers share: an account of a cluster of two datacenters, files, and what became of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

from supervisor.config.model import Proxy
from supervisor.core.failure import DEFAULT_POLICIES
from supervisor.datacenter import Cluster, Datacenter, Fault, FaultKind
from supervisor.datacenter.files import StoredFile
from tests.integration.conftest import PERSON, Fleet

HERE, ELSEWHERE = 2, 4
KIB, MIB = 1024, 1024 * 1024
# A fifth of the defaults.
SCALED = {"connect_timeout": 2.0, "answer_timeout": 3.0, "silence_timeout": 1.0}


@dataclass
class Home:
    """An account that is online at its home, with another datacenter beside it. It unpacks into client and home."""

    fleet: Fleet
    cluster: Cluster
    client: Any

    @property
    def here(self) -> Datacenter:
        return self.cluster[HERE]

    @property
    def there(self) -> Datacenter:
        return self.cluster[ELSEWHERE]

    def __iter__(self) -> Any:
        return iter((self.client, self.here))

    @asynccontextmanager
    async def online(self) -> AsyncIterator[Home]:
        """Start the supervisor (again); `client` is the account's as long as the block lasts."""
        async with self.fleet.running() as sup:
            self.client = await sup.client("bot-0")
            yield self


def at_work() -> set[asyncio.Task[Any]]:
    """The tasks that run now, but for those that write the record: they come and go."""
    return {task for task in asyncio.all_tasks() if task.get_name() != "record-write"}


def set_up(cluster: Cluster, directory: Path, proxies: tuple[Proxy, ...] = (), **settings: Any) -> Home:
    """An account that is not started yet; its delays are a tenth of the defaults, its time-outs a fifth."""
    fleet = Fleet(cluster[HERE], directory, 1, proxies, **{**SCALED, **settings})
    quick = {
        kind: replace(policy, base_delay=policy.base_delay / 10) for kind, policy in DEFAULT_POLICIES.items()
    }
    fleet.config = replace(fleet.config, policies=MappingProxyType(quick))
    return Home(fleet, cluster, None)


def check_connections(cluster: Iterable[Datacenter]) -> None:
    """Never were there two connections of one key."""
    for dc in cluster:
        assert (dc.seen.overlaps, dc.seen.max_connections_per_key <= 1) == (0, True)


def content_of(size: int) -> tuple[bytes, BytesIO]:
    """Random bytes, and as a file."""
    content = os.urandom(size)
    file = BytesIO(content)
    file.name = "some.bin"
    return content, file


def only_file(dc: Datacenter) -> StoredFile:
    """The file that the datacenter has."""
    (stored,) = dc.engine.files.files.values()
    return stored


def folder() -> list[str]:
    """What lies in the download folder."""
    return sorted(path.name for path in Path("downloads").glob("*"))


def after(dc: Datacenter, kind: FaultKind, method: str, skip: int, **what: Any) -> None:
    """Script one fault, `skip` calls from now."""
    dc.faults.add(Fault(kind, method=method, skip=skip, **what))


def media_of(stored: StoredFile, dc_id: int | None = None) -> Any:
    """What download_media takes for a file, said to lie in this datacenter."""
    from pyrogram.file_id import FileId, FileType

    file_id = FileId(
        file_type=FileType.DOCUMENT,
        dc_id=stored.dc_id if dc_id is None else dc_id,
        media_id=stored.id,
        access_hash=stored.access_hash,
        file_reference=stored.reference,
    )
    return SimpleNamespace(file_id=file_id.encode(), file_size=len(stored.content), file_name="far.bin")


__all__ = ["PERSON"]
