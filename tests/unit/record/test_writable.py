"""Whether the record is written: what the watchdog goes by."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from supervisor.record.store import Store, StoreSettings
from supervisor.record.writing import write


async def test_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that does not come back makes the record unwritable after three signs of life; one that does, mends it."""
    settings = StoreSettings(heartbeat=0.1)
    free = asyncio.Event()
    free.set()

    async def hangs(*args: Any) -> Any:
        await free.wait()
        return await write(*args)

    monkeypatch.setattr("supervisor.record.store.write", hangs)
    async with Store.open(tmp_path / "recovery.db", settings) as store:

        def writable() -> bool:
            return store.is_writable

        assert writable()
        free.clear()
        async with asyncio.timeout(5):
            while writable():
                await asyncio.sleep(0.01)
            free.set()
            while not writable():
                await asyncio.sleep(0.01)
