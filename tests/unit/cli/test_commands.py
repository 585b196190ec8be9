from __future__ import annotations

import json
import logging
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest

from supervisor.cli.logs import logging_to
from supervisor.cli.top import COMMANDS, tg_supervisor
from supervisor.config.model import Config
from supervisor.errors import NotRunning
from supervisor.record.lock import StateLock
from tests.unit.cli.conftest import Cli, command


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a daemon of the test's own in the real one's place."""

    def replace(run: Callable[[Config], object]) -> None:
        module = ModuleType("supervisor.daemon")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "supervisor.daemon", module)
        monkeypatch.setattr("supervisor.daemon", module, raising=False)

    return replace


def test_check_shows_what_would_run(cli: Cli) -> None:
    """A good file: a table, exit 0; as JSON the same, without any secret."""
    result = cli("check")
    assert result.exit_code == 0
    assert "support-bot" in result.stdout
    assert "1 account would run" in result.stdout
    result = cli("check", "--json")
    found = json.loads(result.stdout)
    assert (found["ok"], found["problems"]) == (True, [])
    assert found["accounts"][0] == {
        "name": "support-bot",
        "is_bot": True,
        "paths": ["direct"],
        "plugins": None,
        "main": None,
    }
    assert "abcdef" not in result.output


def test_check_reports_every_problem(cli: Cli, config: Path) -> None:
    """A bad file: each problem on a line of stderr, and in the JSON; exit 78."""
    config.write_text(config.read_text() + 'proxy = "n13"\nnonsense = 1\n')
    result = cli("check")
    assert (result.exit_code, result.stdout) == (78, "")
    assert len(result.stderr.splitlines()) == 2
    assert "n13" in result.stderr
    found = json.loads(cli("check", "--json").stdout)
    assert (found["ok"], len(found["problems"])) == (False, 2)


def test_check_touches_nothing(cli: Cli, tmp_path: Path) -> None:
    """Neither the state directory nor anything else comes into being."""
    cli("check")
    assert [path.name for path in tmp_path.iterdir()] == ["accounts.toml"]


def test_the_configuration_is_found(cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config, on either side of the command, is stronger than $TG_SUPERVISOR_CONFIG, and that than ./accounts.toml."""
    other = config.with_name("other.toml")
    other.write_text(config.read_text().replace("support-bot", "other-bot"))
    monkeypatch.setenv("TG_SUPERVISOR_CONFIG", str(other))
    assert "other-bot" in cli("check").stdout
    assert "support-bot" in cli("check", "-c", str(config)).stdout
    assert "support-bot" in cli("-c", str(config), "check").stdout


def test_a_missing_configuration_is_exit_78(cli: Cli) -> None:
    """Each command says which file it looked for."""
    for name in ("run", "status", "log", "check"):
        result = cli(name, "-c", "missing.toml")
        assert (result.exit_code, result.stdout) == (78, "")
        assert "missing.toml" in result.stderr


def test_run_gives_the_daemons_exit_code(cli: Cli, daemon: Callable[..., None], tmp_path: Path) -> None:
    """The daemon gets the loaded configuration; what it returns is the exit code."""
    seen: list[Config] = []

    async def run(config: Config) -> int:
        seen.append(config)
        return 77

    daemon(run)
    assert cli("run").exit_code == 77
    assert list(seen[0].accounts) == ["support-bot"]
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_run_refuses_a_held_directory(cli: Cli, daemon: Callable[..., None], tmp_path: Path) -> None:
    """Another daemon in state_dir: exit 75 and its pid, before anything is touched."""
    daemon(None)
    with StateLock(tmp_path / "state"):
        result = cli("run")
    assert result.exit_code == 75
    assert str(os.getpid()) in result.stderr
    assert not (tmp_path / "state" / "logs").exists()


def test_run_refuses_a_broken_installation(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What supervisor.installation finds is exit 78, with the repair."""
    monkeypatch.setattr(
        "supervisor.installation.problems", lambda: ["both installed. Repair: `pip uninstall x`"]
    )
    result = cli("run")
    assert result.exit_code == 78
    assert "pip uninstall x" in result.stderr


def test_the_unexpected_is_one_line(cli: Cli, daemon: Callable[..., None]) -> None:
    """A fault of our own: one line and exit 1; the traceback only with --debug."""

    async def run(_: Config) -> int:
        raise RuntimeError("boom")

    daemon(run)
    result = cli("run")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.strip() == "unexpected RuntimeError: boom (--debug shows where)"
    assert "Traceback" in cli("run", "--debug").stderr


def test_no_daemon_is_exit_69(cli: Cli, daemon: Callable[..., None]) -> None:
    """A command that needs the daemon ends with 69 where none runs."""

    async def run(_: Config) -> int:
        raise NotRunning("no daemon is running here")

    daemon(run)
    assert cli("run").exit_code == 69


def test_every_command_is_there(cli: Cli) -> None:
    """`--help` lists every command, each has the text that the list gives it, and takes the common options."""
    listed = cli("--help").stdout
    context = click.Context(tg_supervisor)
    for name in COMMANDS:
        assert f"\n  {name} " in listed
        found = tg_supervisor.get_command(context, name)
        assert found is not None
        assert {"config", "as_json", "no_color", "debug"} <= {param.name for param in found.params}
    assert cli("nonsense").exit_code == 2
    assert cli().exit_code == 2


def test_version(tmp_path: Path) -> None:
    """`--version` prints the name and the installed version."""
    done = command(["--version"], tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (0, "tg-supervisor,")


def test_logs_are_private_and_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """stderr and supervisor.log have every line with its account, errors.log the errors; all 0600 in 0700."""
    log = logging.getLogger("supervisor.test")
    with logging_to(tmp_path / "logs", debug=False):
        log.debug("hidden")
        log.info("started", extra={"account": "support-bot"})
        log.error("broken %s", "pipe")
    err = capsys.readouterr().err
    assert (tmp_path / "logs" / "supervisor.log").read_text() == err
    first, second = err.splitlines()
    assert first.endswith("INFO support-bot: started")
    assert second.endswith("ERROR test: broken pipe")
    assert (tmp_path / "logs" / "errors.log").read_text() == second + "\n"
    assert stat.S_IMODE((tmp_path / "logs").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "logs").iterdir()} == {0o600}
    assert logging.getLogger().handlers != []


def test_a_terminal_that_hangs_does_not_stop_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stderr blocked, logging goes on at once, the files are complete, and the end takes seconds, not for ever."""
    read, write = os.pipe()
    with os.fdopen(write, "w", encoding="utf-8", buffering=1) as stuck, os.fdopen(read, "rb") as screen:
        monkeypatch.setattr("sys.stderr", stuck)
        began = time.monotonic()
        with logging_to(tmp_path / "logs", debug=False):
            for number in range(5000):
                logging.getLogger("supervisor.test").info("line %d %s", number, "x" * 100)
            assert time.monotonic() - began < 2
        assert time.monotonic() - began < 6
        assert len((tmp_path / "logs" / "supervisor.log").read_text().splitlines()) == 5000
        assert [screen.readline() for _ in range(5000)][-1]  # it scrolls again: the thread comes to its end
