"""[dashboard]."""

from __future__ import annotations

import pytest

from supervisor.config.model import Dashboard, Secret
from tests.unit.config.files import LEAST, Files

TOKEN = "0123456789abcdef"


def dashboard(files: Files, text: str) -> Dashboard | None:
    return files.load(f"{LEAST}{text}").dashboard


def test_it_is_off_unless_configured(files: Files) -> None:
    """Without the table there is none."""
    assert dashboard(files, "") is None


def test_all_of_it(files: Files) -> None:
    """Every key reaches the model; the token comes from a file, too."""
    files.write({"token": TOKEN + "\n"})
    text = '[dashboard]\nlisten = "0.0.0.0:80"\nallow_remote = true\nhosts = ["Bots.example.org"]\n'
    found = dashboard(files, f'{text}account_metrics = true\ntoken_file = "token"\n')
    assert found == Dashboard("0.0.0.0", 80, Secret(TOKEN), ("bots.example.org",), account_metrics=True)


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "127.9.9.9:1", "localhost:65535", "[::1]:8080"])
def test_this_machine_alone(files: Files, listen: str) -> None:
    """Whatever only this machine reaches needs no leave."""
    found = dashboard(files, f'[dashboard]\nlisten = "{listen}"\n')
    assert found is not None
    assert found.token is None
    assert str(found.port) == listen.rpartition(":")[2]


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "192.0.2.1:80", "[::]:80", "bots.example.org:80"])
def test_other_machines_need_leave(files: Files, listen: str) -> None:
    """An address that others reach is refused unless that was said."""
    text = f'[dashboard]\nlisten = "{listen}"\n'
    problem = files.problem(f"{LEAST}{text}")
    assert problem.startswith("accounts.toml:7: dashboard.listen: ")
    assert "allow_remote = true" in problem
    assert dashboard(files, f"{text}allow_remote = true\n") is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "dashboard.listen: is missing"),
        ('listen = "8080"', 'dashboard.listen: must be host:port, such as "127.0.0.1:8080"'),
        ('listen = "127.0.0.1:0"', "dashboard.listen: must be host:port"),
        ('listen = "127.0.0.1:65536"', "dashboard.listen: must be host:port"),
        ('listen = "http://127.0.0.1:80"', "dashboard.listen: must be host:port"),
        ("listen = 8080", "dashboard.listen: must be a string"),
        ('listen = "localhost:80"\ntoken = "short"', "dashboard.token: must be 16 to 256 characters"),
        ('listen = "localhost:80"\ntoken = "with spaces in it, too"', "dashboard.token: must be 16 to 256"),
        ('listen = "localhost:80"\nhosts = ["a:80"]', "dashboard.hosts: must be names without a port"),
        ('listen = "localhost:80"\nallow_remote = "yes"', "dashboard.allow_remote: must be true or false"),
        ('listen = "localhost:80"\naccount_metric = true', 'dashboard.account_metric: unknown (did you mean "account_metrics"?)'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(files: Files, text: str, said: str) -> None:
    """Each mistake is told with its line and key; no token is shown."""
    problem = files.problem(f"{LEAST}[dashboard]\n{text}\n")
    place, _, what = problem.partition(": ")
    assert place.startswith("accounts.toml:")
    assert what.startswith(said)
    assert "short" not in problem
