from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.dashboard.made_up import Desk, fill
from tests.unit.dashboard.served import Asking, asking


@pytest.fixture
def desk() -> Desk:
    """A daemon of a hundred accounts."""
    return Desk(100)


@pytest.fixture(scope="session")
def made_up_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of some hundred incidents, written once."""
    path = tmp_path_factory.mktemp("log") / "recovery.db"
    asyncio.run(fill(path, 400, 100, time.time()))
    return path


@pytest.fixture
def state_dir(made_up_log: Path, tmp_path: Path) -> Path:
    """A state directory with that log."""
    shutil.copy(made_up_log, tmp_path)
    return tmp_path


@pytest.fixture
async def ask(desk: Desk, state_dir: Path) -> AsyncIterator[Asking]:
    """Somebody who asks the daemon's dashboard."""
    async with asking(desk, state_dir) as found:
        yield found
