from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.core.failure import Action, Kind
from supervisor.core.failure import Result as Outcome
from tests.unit.cli.conftest import NOW, ROOT, Cli, fill, row


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    rows = []
    for n in range(20):
        rows += [row(NOW - 100 - n), row(NOW - 90 - n, outcome=Outcome.RECOVERED, duration=10.0 + n)]
    rows += [row(NOW - 9, "sales", Outcome.FAILED, kind=Kind.TEMPORARY, action=Action.FAIL)]
    rows += [row(NOW - 8 * 86_400, outcome=Outcome.RECOVERED, duration=500.0)]
    fill(tmp_path / "state", rows)
    return tmp_path / "state"


def test_people_read_a_page_of_eighty_columns(cli: Cli, state_dir: Path) -> None:
    """Totals, kinds, actions, accounts; no line wider than a terminal, no colour where there is none."""
    result = cli("stats")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "21 incidents, 20 recovered, 1 failed" in result.stdout
    assert "95.2 %" in result.stdout
    for word in (
        "KIND",
        "flood_wait",
        "ACTION",
        "wait",
        "ACCOUNT",
        "support-bot",
        "sales",
        "FAILURES SEEN IN 7 DAYS",
    ):
        assert word in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\x1b" not in result.stdout
    assert all(line == line.rstrip() for line in result.stdout.splitlines())


def test_json_is_the_contracts_object(cli: Cli, state_dir: Path) -> None:
    """Seven days where nothing else is asked for; filters narrow."""
    found = json.loads(cli("stats", "--json").stdout)
    assert found["schema"] == 1
    assert found["incidents"] == {"total": 21, "recovered": 20, "failed": 1, "open": 0}
    found = json.loads(cli("stats", "--json", "--since", "30d").stdout)
    assert (found["incidents"]["recovered"], found["time_to_recover_s"]["max"]) == (21, 500.0)
    found = json.loads(cli("stats", "--json", "--account", "s*s").stdout)
    assert (list(found["by_account"]), found["success_rate"]) == (["sales"], 0.0)
    found = json.loads(cli("stats", "--json", "--kind", "flood_wait").stdout)
    assert list(found["by_kind"]) == ["flood_wait"]


def test_filters_that_leave_nothing_are_no_error(cli: Cli, state_dir: Path) -> None:
    """No incidents, and nothing about a rate that there is not."""
    result = cli("stats", "--account", "nobody")
    assert result.exit_code == 0
    assert "0 incidents" in result.stdout
    assert "success rate" not in result.stdout


def test_a_wrong_filter_is_a_usage_error(cli: Cli, state_dir: Path) -> None:
    """An unknown kind, and a time that is none: exit 2."""
    for wrong in (["--kind", "nonsense"], ["--since", "soon"]):
        result = cli("stats", *wrong)
        assert (result.exit_code, result.stdout) == (2, "")


def test_before_the_first_run_there_is_nothing(cli: Cli, tmp_path: Path) -> None:
    """No recovery.db is no error; as JSON every key is there."""
    result = cli("stats")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing has been recorded yet" in result.stderr
    assert json.loads(cli("stats", "--json").stdout)["incidents"]["total"] == 0
    assert not (tmp_path / "state").exists()


def test_where_only_ascii_is_understood_bars_are_ascii(config: Path, state_dir: Path) -> None:
    """A terminal of the last century, or LC_ALL=C in a mail, breaks nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "stats"],
        capture_output=True,
        text=True,
        cwd=config.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert done.stdout.isascii()
    assert "####" in done.stdout


@pytest.mark.parametrize("line", [["stats"], ["explain", "FLOOD_WAIT_35"]])
def test_reading_needs_neither_an_event_loop_nor_a_client(
    config: Path, state_dir: Path, line: list[str]
) -> None:
    """Neither asyncio nor pyrogram is imported, nor what draws other commands' tables."""
    check = (
        "import sys\n"
        "from supervisor.cli.top import tg_supervisor\n"
        "try:\n"
        f"    tg_supervisor.main({line})\n"
        "finally:\n"
        "    print(sorted({'asyncio', 'aiosqlite', 'pyrogram', 'aiohttp', 'rich'} & set(sys.modules)), file=sys.stderr)\n"
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
