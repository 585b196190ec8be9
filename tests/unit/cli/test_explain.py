from __future__ import annotations

import json
from pathlib import Path

import pytest

from supervisor.core.failure import Kind, Scope
from supervisor.ports import IncidentRow
from tests.unit.cli.conftest import NOW, Cli, account, keep
from tests.unit.cli.daemon import BROKEN, Daemon


def test_an_error_is_explained_in_words(cli: Cli) -> None:
    """What it is, what is done, what the caller sees, what the account does, and why; 80 columns at most."""
    result = cli("explain", "FLOOD_WAIT_35")
    assert (result.exit_code, result.stderr) == (0, "")
    for text in (
        "FLOOD_WAIT_X",
        "flood_wait",
        "35-36 s, each time",
        "sent again",
        "stays online",
        "error table: 420",
    ):
        assert text in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("code", ["-404", "-429"])
def test_a_negative_code_is_no_option(cli: Cli, code: str) -> None:
    """With the common options on either side."""
    for line in (("explain", code, "--json"), ("--json", "explain", code), ("explain", "--json", code)):
        result = cli(*line)
        assert result.exit_code == 0
        assert json.loads(result.stdout)["error_code"] == int(code)


def test_an_unknown_error_is_no_failure(cli: Cli) -> None:
    """It is said, with what is done all the same and what was perhaps meant: exit 0."""
    result = cli("explain", "FLOD_WAIT_3")
    assert result.exit_code == 0
    assert "in no table; did you mean FLOOD_WAIT_X" in result.stdout
    assert "retry, at most 2 times" in result.stdout
    assert json.loads(cli("explain", "--json", "4102").stdout)["known"] is False


def test_nothing_to_explain_is_a_usage_error(cli: Cli) -> None:
    """No error at all, or only signs: exit 2."""
    for line in (("explain",), ("explain", "[]"), ("explain", "  ")):
        assert cli(*line).exit_code == 2


def test_it_works_without_a_configuration(cli: Cli, config: Path) -> None:
    """The defaults are shown, and that is said."""
    config.unlink()
    result = cli("explain", "500", "--json")
    assert result.exit_code == 0
    assert "the defaults are shown" in result.stderr
    assert json.loads(result.stdout)["config"] is None


def test_the_configurations_own_rules_count(cli: Cli, config: Path) -> None:
    """[recovery] and [classify] are read, secrets and other mistakes are not looked at."""
    config.write_text(
        """
        nonsense = 1
        [telegram]
        api_hash = "${SURELY_NOT_SET}"
        [recovery.temporary]
        max_retries = 1
        [classify]
        PEER_ID_INVALID = { kind = "temporary", action = "retry", scope = "call" }
        """
    )
    result = cli("explain", "PEER_ID_INVALID")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "retry, at most 1 time in a row" in result.stdout
    assert "[classify] PEER_ID_INVALID" in result.stdout


def test_a_mistake_in_these_rules_is_said(cli: Cli, config: Path) -> None:
    """With its line; the default holds in its place."""
    config.write_text(config.read_text() + "\n[recovery.temporary]\nmax_retries = 'many'\n")
    result = cli("explain", "500")
    assert result.exit_code == 0
    assert "recovery.temporary.max_retries" in result.stderr
    assert "retry, at most 3 times" in result.stdout


def test_a_file_that_is_no_toml_is_said(cli: Cli, config: Path) -> None:
    """The explanation comes all the same."""
    config.write_text("[")
    result = cli("explain", "500")
    assert result.exit_code == 0
    assert "accounts.toml:1" in result.stderr
    assert "temporary" in result.stdout


def test_a_number_is_explained(cli: Cli) -> None:
    """A number of docs/errors.md is printed with its words; an error names its number."""
    shown = cli("explain", "1012").stdout
    assert "token_refused" in shown
    assert "@BotFather" in shown
    assert "number     1001" in cli("explain", "FLOOD_WAIT_35").stdout


def test_a_path_is_explained(cli: Cli, tmp_path: Path) -> None:
    """A proxy's name tells its breaker, its health and the open incident, from the daemon, then from the last run."""
    row = IncidentRow(
        "i-1", None, "de1", Scope.PATH, Kind.PROXY, NOW - 60, failures=12, accounts=("support-bot", "sales")
    )
    keep(tmp_path / "state", BROKEN, row)
    with Daemon([account("support-bot")]).running(tmp_path / "state"):
        text = cli("explain", "de1").stdout
        assert "de1  (a path)" in text
        assert "broken, 0 accounts on it" in text
        assert "90 of 100 times (90 %), after 62 ms" in text
        assert "12 failures, 2 accounts touched" in text
        assert "next probe" in text
        found = json.loads(cli("explain", "--json", "direct").stdout)
        assert (found["path"]["state"], found["open_incident"]) == ("ok", None)
        assert "in no table" in cli("explain", "de2").stdout
    found = json.loads(cli("explain", "--json", "de1").stdout)
    assert found["path"]["breaker"] == "half_open"
    assert found["open_incident"]["accounts"] == ["support-bot", "sales"]
    assert found["why"]


def test_what_cannot_be_told_of_a_path_is_said(cli: Cli, tmp_path: Path) -> None:
    """A daemon that does not answer, or a log that cannot be read, keeps no error from being explained."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "recovery.db").write_text("no database, " * 100)
    result = cli("explain", "de1")
    assert result.exit_code == 0
    assert "in no table" in result.stdout
    assert "whether a path is called so cannot be told" in result.stderr
