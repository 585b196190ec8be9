from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.failure import Kind, Result, Scope
from supervisor.ports import IncidentRow, PathSnapshot
from tests.unit.cli.conftest import NOW, ROOT, Cli, command, fill, keep, row


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    now = time.time()  # not when this was imported: `--since` counts from the moment of its test
    fill(
        tmp_path / "state",
        [
            row(now - 100, incident="i-1"),
            row(now - 60, incident="i-1", outcome=Result.RECOVERED, duration=40.0),
            row(now - 50, "sales", kind=Kind.AUTH, incident="i-2", outcome=Result.NEEDS_LOGIN),
        ],
    )
    return tmp_path / "state"


def test_the_newest_row_is_last(cli: Cli, state_dir: Path) -> None:
    """People read a line a row, in words."""
    result = cli("log")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert [line.split()[1] for line in lines] == ["support-bot", "support-bot", "sales"]
    assert "recovered by wait after 40 s" in lines[1]
    assert "tg-supervisor login sales" in lines[2]


def test_json_is_one_object_a_line(cli: Cli, state_dir: Path) -> None:
    """Programs read the contract's object, oldest first, with rising ids; the option may stand on either side."""
    for result in (cli("log", "--json"), cli("--json", "log")):
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        assert [found["id"] for found in rows] == [1, 2, 3]
        assert rows[1]["outcome"] == "recovered"
        assert rows[1]["duration_s"] == 40.0


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["--account", "s*-bot"], [1, 2]),
        (["--kind", "auth"], [3]),
        (["--since", "55s"], [3]),
        (["--limit", "2"], [2, 3]),
        (["--unresolved"], [3]),
    ],
)
def test_filters_narrow(cli: Cli, state_dir: Path, filters: list[str], ids: list[int]) -> None:
    """Each filter shows what it says."""
    result = cli("log", "--json", *filters)
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ids


def test_a_wrong_filter_is_a_usage_error(cli: Cli, state_dir: Path) -> None:
    """An unknown kind, a time that is none and a limit of nothing: exit 2, and what would be right."""
    for wrong in (["--kind", "nonsense"], ["--since", "soon"], ["--limit", "0"]):
        result = cli("log", *wrong)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert wrong[0] in result.stderr


def test_before_the_first_run_the_log_is_empty(cli: Cli, tmp_path: Path) -> None:
    """No recovery.db is no error: nothing on stdout, a sentence on stderr, exit 0, nothing created."""
    result = cli("log", "--json")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing has been recorded yet" in result.stderr
    assert not (tmp_path / "state").exists()


def test_resolving_takes_rows_off_the_list(cli: Cli, state_dir: Path) -> None:
    """A resolved row is gone from `log --unresolved`, and one that does not exist is exit 1 with its number."""
    assert cli("resolve", "3").exit_code == 0
    assert cli("log", "--unresolved").stdout == ""
    result = cli("resolve", "3", "77", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"schema": 1, "resolved": [3]}
    assert "no row 77" in result.stderr


def test_following_shows_what_comes(config: Path, state_dir: Path) -> None:
    """`log --follow` prints a row within seconds of its being written, and ends quietly at Ctrl-C, exit 130."""
    line = [sys.executable, "-m", "supervisor", "log", "--follow", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=config.parent, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [json.loads(process.stdout.readline())["id"] for _ in range(3)] == [1, 2, 3]
        fill(state_dir, [row(NOW)])
        assert json.loads(process.stdout.readline())["id"] == 4
        process.send_signal(2)
        assert process.wait(10) == 130
        assert process.stderr.read().strip() == ""


def test_a_closed_pipe_is_quiet(config: Path, tmp_path: Path) -> None:
    """`log | head -1` prints one line and no complaint, whether the log is long or short."""
    fill(tmp_path / "state", [row(NOW + number) for number in range(5000)])
    for limit in ("5000", "5"):
        pipeline = f"{sys.executable} -m supervisor log --limit {limit} | head -1"
        done = subprocess.run(
            ["bash", "-c", pipeline],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=True,
        )
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) == 1


def test_reading_needs_neither_an_event_loop_nor_a_client(config: Path, state_dir: Path) -> None:
    """`log` and `status` import neither asyncio nor pyrogram, and take well under half a second of the processor's time."""
    for name in ("log", "status", "check"):
        check = (
            "import sys\n"
            "from supervisor.cli.top import tg_supervisor\n"
            "try:\n"
            f"    tg_supervisor.main(['{name}'])\n"
            "finally:\n"
            "    print(sorted({'asyncio', 'aiosqlite', 'pyrogram', 'aiohttp'} & set(sys.modules)), file=sys.stderr)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", check],
            capture_output=True,
            text=True,
            cwd=config.parent,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=True,
        )
        assert done.stderr.splitlines()[-1] == "[]"
        times = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command([name], config.parent)
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime)
        assert min(times) < 0.5


def test_a_traceback_is_shown_to_programs(cli: Cli, tmp_path: Path) -> None:
    """What a bot's own code has raised is told with its traceback; the line for people has no room for it."""
    fill(tmp_path / "state", [row(outcome=Result.RAISED, traceback="Traceback …\nKeyError: 'x'")])
    assert json.loads(cli("log", "--json").stdout)["traceback"].endswith("KeyError: 'x'")
    assert "KeyError" not in cli("log").stdout


def test_an_outage_is_shown_to_those_it_touched(cli: Cli, tmp_path: Path) -> None:
    """One row for all: with the path and how many they are for people, with their names in the JSON."""
    now = time.time()
    touched = ("support-bot", "sales")
    outage = IncidentRow("o", None, "de1", Scope.PATH, Kind.PROXY, now - 60, accounts=touched)
    keep(tmp_path / "state", PathSnapshot("de1", "broken", 2), outage)
    lost = row(
        now - 60,
        None,
        kind=Kind.PROXY,
        scope=Scope.PATH,
        path="de1",
        incident="o",
        error_id=None,
        message="gone",
    )
    fill(tmp_path / "state", [replace(lost, method=None), row(now - 50, "news", incident="i")])
    (line,) = cli("log", "--account", "sales").stdout.splitlines()
    assert " path de1 (2 accounts) proxy (gone): " in line
    outages, own = [json.loads(line) for line in cli("log", "--json").stdout.splitlines()]
    assert (outages["account"], outages["accounts"]) == (None, list(touched))
    assert "accounts" not in own
    assert [
        json.loads(line)["id"]
        for line in cli("log", "--json", "--unresolved", "--account", "s*").stdout.splitlines()
    ] == [1]
    assert cli("resolve", "1").exit_code == 0
    assert cli("log", "--unresolved", "--account", "sales").stdout == ""


def test_what_an_older_release_has_left_is_said(cli: Cli, state_dir: Path) -> None:
    """As long as its rows are not all in the log, those who read it are told from when on it is complete."""
    with closing(sqlite3.connect(state_dir / "recovery.db")) as db:
        db.execute("CREATE TABLE failures_v2 AS SELECT * FROM failures WHERE id = 1")
        db.commit()
    for name in ("log", "stats", "report"):
        result = cli(name)
        assert "incomplete: what an older release recorded up to " in result.stderr
        assert result.exit_code == 0
