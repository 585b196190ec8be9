"""`notify test`: each sink once, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.cli.conftest import Cli


def configure(config: Path, *tables: str) -> None:
    with config.open("a") as file:
        file.write("\n".join(("", *tables, "")))


LOG = "[notify.journal]\nlog = true"
OWN = '[notify.own]\nbot = "support-bot"\nchat = 42'


def test_each_sink_is_tried_and_named(cli: Cli, config: Path) -> None:
    """As text, and as JSON; exit 0 where all were taken."""
    configure(config, LOG)
    result = cli("notify", "test")
    assert (result.exit_code, result.stdout) == (0, "journal (log): sent, in 0.0 s\n")
    (sink,) = json.loads(cli("notify", "test", "journal", "--json").stdout)["sinks"]
    assert (sink.pop("duration_s") < 1, sink) == (
        True,
        {"name": "journal", "kind": "log", "ok": True, "error": None},
    )


def test_one_that_fails_is_exit_1_and_says_why(cli: Cli, config: Path) -> None:
    """An account of ours sends only where the daemon runs; no url is shown."""
    configure(config, LOG, OWN)
    result = cli("notify", "test")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1].startswith(
        "own (bot): failed: no daemon is running here, and its bots send this one"
    )


def test_a_name_that_is_none_and_nobody_to_tell(cli: Cli, config: Path) -> None:
    """A slip of the pen is exit 2; nothing configured is no success either."""
    nobody = cli("notify", "test")
    assert nobody.exit_code == 1
    assert "has no [notify.NAME]" in nobody.stderr
    configure(config, LOG)
    result = cli("notify", "test", "jurnal")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == 'no sink is called "jurnal" (did you mean "journal"?)\n'
