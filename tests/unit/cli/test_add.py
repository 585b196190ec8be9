"""`accounts add`, as far as nothing is contacted: what is written, and what is refused before that."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.unit.cli.conftest import CONFIG, Cli

TOKEN = "110201544:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsawB"
PROXIES = '[proxies.gone]\nurl = "http://127.0.0.1:1"\npool = "eu"\n'


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("support-bot", "--bot-token-env", "TOKEN"), "accounts.support-bot: is there already"),
        (("new", "--bot-token-env", "NO_SUCH"), "the variable NO_SUCH is not set"),
        (("new", "--bot-token-env", "TOKEN", "--proxy", "gome"), 'did you mean "gone"?'),
        (("new", "--phone", "12"), "must be a number in international form"),
        (("new", "--bot-token-env", "TOKEN", "--file", "elsewhere.toml"), "does not include it"),
        (("bad name", "--bot-token-env", "TOKEN"), "its name must be letters"),
        (("new", "--session-file", "none.session"), "no such file"),
        (("new", "--bot-token-file", "none.token"), "no such file"),
        (("new", "--bot-token-env", "TOKEN", "--phone", "+4915112345678"), "phone"),
    ],
)
def test_what_is_wrong_changes_nothing(
    cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], says: str
) -> None:
    """Each is told with its line, as `check` would; no file is written, none is left."""
    monkeypatch.setenv("TOKEN", TOKEN)
    monkeypatch.chdir(config.parent)
    config.write_text(CONFIG + PROXIES)
    result = cli("accounts", "add", *args)
    assert (result.exit_code, result.stdout) == (78, ""), result.stderr
    assert says in result.stderr
    assert config.read_text() == CONFIG + PROXIES
    assert [path.name for path in config.parent.iterdir()] == ["accounts.toml"]
    assert TOKEN not in result.output


def test_what_is_said_is_written(cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files by their names beside the configuration; a phone number into a file of its own; proxies and password, too."""
    monkeypatch.chdir(config.parent)
    config.write_text(CONFIG + PROXIES)
    (config.parent / "a.token").write_text(TOKEN)
    (config.parent / "2fa").write_text("open sesame")
    assert (
        cli("accounts", "add", "a", "--no-check", "--bot-token-file", "a.token", "--proxy", "eu").exit_code
        == 0
    )
    more = "--phone", "+49 151 12345678", "--password-file", "2fa", "--proxy", "gone"
    result = cli("accounts", "add", "b", "--no-check", *more)
    assert (result.exit_code, result.stdout) == (0, f"b: added to {config}\n"), result.stderr
    assert config.read_text() == CONFIG + PROXIES + (
        '\n[accounts.a]\nbot_token_file = "a.token"\nproxy = "eu"\n'
        '\n[accounts.b]\nphone_file = "b.phone"\npassword_file = "2fa"\nproxy = "gone"\n'
    )
    phone = config.parent / "b.phone"
    assert (phone.read_text(), stat.S_IMODE(phone.stat().st_mode)) == ("+49 151 12345678\n", 0o600)
    assert cli("check").exit_code == 0
    assert not (config.parent / "state").exists()


def test_the_first_account_of_a_file(cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration without one is wrong, but not for whoever adds it."""
    monkeypatch.chdir(config.parent)
    monkeypatch.setenv("TOKEN", TOKEN)
    head = CONFIG.partition("[accounts")[0]
    config.write_text(head)
    assert cli("check").exit_code == 78
    assert cli("accounts", "add", "a", "--no-check", "--bot-token-env", "TOKEN").exit_code == 0
    assert cli("check").exit_code == 0
    config.write_text(head + "[nonsense]\n")
    result = cli("accounts", "add", "b", "--no-check", "--bot-token-env", "TOKEN")
    assert (result.exit_code, config.read_text()) == (78, head + "[nonsense]\n")
