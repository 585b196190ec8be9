from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.errors import AlreadyRunning, ConfigError
from supervisor.record.lock import StateLock, holder

HOLD = """
import sys, time
from pathlib import Path
from supervisor.record.lock import StateLock
with StateLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(state_dir: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state_dir)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.stdout.close()
    return process


def test_a_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    """A directory held by a daemon is refused with that daemon's pid."""
    with hold(tmp_path / "state") as process:
        try:
            with (
                pytest.raises(AlreadyRunning, match=str(process.pid)) as refused,
                StateLock(tmp_path / "state"),
            ):
                pass
            assert refused.value.pid == process.pid
            assert holder(tmp_path / "state") == process.pid
        finally:
            process.kill()


def test_kill_9_releases_it(tmp_path: Path) -> None:
    """The lock of a daemon that was killed is gone, although its file is still there."""
    with hold(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / "lock").exists()
        with StateLock(tmp_path):
            assert holder(tmp_path) == os.getpid()
    assert holder(tmp_path) is None


def test_the_same_process_may_not_hold_it_twice(tmp_path: Path) -> None:
    """Two supervisors in one process cannot share a directory either."""
    with StateLock(tmp_path), pytest.raises(AlreadyRunning), StateLock(tmp_path):
        pass
    with StateLock(tmp_path):
        pass


def test_nobody_holds_what_is_not_there(tmp_path: Path) -> None:
    """A directory that no daemon has used yet is held by nobody, and looking creates nothing."""
    assert holder(tmp_path / "state") is None
    assert not (tmp_path / "state").exists()


def test_the_directory_is_the_owners_alone(tmp_path: Path) -> None:
    """state_dir is created 0700, and one that was open to others is closed; the lock's file is 0600."""
    for state_dir in (tmp_path / "a" / "state", tmp_path / "open"):
        if state_dir.name == "open":
            state_dir.mkdir(0o755)
        with StateLock(state_dir):
            assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
            assert stat.S_IMODE((state_dir / "lock").stat().st_mode) == 0o600


def test_a_directory_that_cannot_be_made_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    """Where state_dir is a file the message names it."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file"), StateLock(tmp_path / "file"):
        pass
