"""`tg-supervisor demo`, as a newcomer runs it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.demo.cast import NAMES
from supervisor.cli.demo.steps import STEPS

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "supervisor", "demo"]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose temporary directory is the test's; it is empty again when the demo has ended."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    # Set for somebody's own daemon, it must not reach the demo's.
    own = {
        "TG_SUPERVISOR_STATE_DIR": str(tmp_path / "mine"),
        "TG_SUPERVISOR_CONFIG": str(tmp_path / "my.toml"),
    }
    yield os.environ | own | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    assert not list(tmp_path.glob("mine*"))


def left_in(environment: dict[str, str]) -> list[Path]:
    return list(Path(environment["TMPDIR"]).iterdir())


def daemon_of(line: str) -> int:
    """The daemon's pid, as the demo tells it."""
    found = re.search(r"the daemon starts, pid (\d+)", line)
    assert found is not None, line
    return int(found[1])


def is_there(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def begun(environment: dict[str, str]) -> tuple[subprocess.Popen[str], int]:
    """A demo whose bots are at work, and its daemon's pid."""
    demo = subprocess.Popen(
        COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert demo.stdout is not None
    pid = 0
    for line in demo.stdout:
        if "pid" in line:
            pid = daemon_of(line)
        if ": online" in line:
            return demo, pid
    pytest.fail("the demo did not begin")


def test_everything_goes_as_it_should(environment: dict[str, str]) -> None:
    """Each fault ends as it should, no call fails, nothing is done twice, nothing is left behind."""
    done = subprocess.run(
        [*COMMAND, "--json", "--seconds", "1"], env=environment, capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"], found["problems"]) == (0, True, []), done.stderr
    assert [step["name"] for step in found["steps"]] == [step.name for step in STEPS]
    for step in found["steps"]:
        assert step["as_expected"]
    ends = {step["name"]: step["log"][-1]["outcome"] for step in found["steps"]}
    assert (ends.pop("token replaced"), ends.pop("session revoked")) == ("failed", "needs_login")
    assert set(ends.values()) == {"recovered"}
    back = {step["name"]: step["recovered_in_s"] for step in found["steps"]}
    assert back["proxy dead"] < 3
    assert back["key lost"] < 6
    assert [account["name"] for account in found["accounts"]] == list(NAMES)
    for account in found["accounts"]:
        assert account["answered"] > 100
        assert account["answered"] == account["delivered"] == account["asked"] - account["refused"]
        assert account["failed"] == account["delivered_twice"] == 0
        assert not account["refused"] or account["name"] in {"promo-bot", "sales-user"}
    assert (found["early_calls"], found["codes_unasked"], found["daemon_exit"]) == (0, 0, 0)
    lines = done.stderr.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stderr + done.stdout
    assert not is_there(daemon_of(done.stderr))
    assert left_in(environment) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(environment: dict[str, str], number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM ends the demo and its daemon within 12 s; nothing is left behind."""
    demo, pid = begun(environment)
    demo.send_signal(number)
    rest, _ = demo.communicate(timeout=12)
    assert demo.returncode == 128 + number
    assert "Traceback" not in rest
    assert not is_there(pid)
    assert left_in(environment) == []


def test_a_closed_pipe_ends_it(environment: dict[str, str]) -> None:
    """`demo | head` ends the demo and its daemon, quietly."""
    demo, pid = begun(environment)
    assert demo.stdout is not None
    demo.stdout.close()
    assert demo.wait(timeout=20) == 141
    assert not is_there(pid)
    assert left_in(environment) == []


def test_a_killed_demo_leaves_no_daemon(environment: dict[str, str]) -> None:
    """Where the demo is killed, its daemon stops by itself."""
    demo, pid = begun(environment)
    demo.kill()
    demo.communicate()
    deadline = time.monotonic() + 12
    while is_there(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_terminal_gets_a_live_view(environment: dict[str, str]) -> None:
    """On a terminal a table of the accounts is kept up to date below the lines."""
    ours, theirs = pty.openpty()
    demo = subprocess.Popen(
        COMMAND,
        env=environment | {"TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while chunk := os.read(ours, 65536):
            written += chunk
            if b"BREAKING" in written:
                demo.send_signal(signal.SIGINT)
    os.close(ours)
    assert demo.wait(timeout=12) == 130
    text = written.decode()
    assert "now: nothing is broken" in text
    assert re.search(r"news-bot +online +\d+ +\d+ +\d+ +0 +0", text)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text)  # no colour was asked for
    assert left_in(environment) == []
