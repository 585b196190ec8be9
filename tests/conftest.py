"""What every test gets: its folder's marker, a scratch working directory, one way of drawing examples."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from supervisor import installation

HERE = Path(__file__).parent

# Two noisy cores: a slow example is no failure. CI draws the same examples in every run.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


# A job in the background of a shell has SIGINT ignored, and so would have every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Say which client library this run is about."""
    name, version = installation.client_library()
    return f"client library: {name} {version}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the folder they lie in: `-m "not acceptance"`."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in {"integration", "acceptance"}:
            item.add_marker(folder)


@pytest.fixture(autouse=True)
def _scratch_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pyrogram writes unknown_errors.txt and sessions where it stands: not into the tree."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep coverage out of this test's subprocesses: it imports sqlite3 and socket there, and slows them down.

    For the tests of what a command imports and how long it takes.
    """
    for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS_")]:
        monkeypatch.delenv(name)
