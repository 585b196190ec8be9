"""`report`: text, page and JSON."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from supervisor.core.failure import Action, Kind, Scope, State

from .conftest import NOW, Cli, account, fill, row


def filled(config: Path) -> None:
    rows = [
        row(NOW - 60, kind=Kind.PROXY, action=Action.ROTATE_PROXY, path="de1", scope=Scope.PATH, count=8,
            error_id=None, error_code=None, method=None, message="proxy de1: connection refused 198.51.100.7:1080"),
        row(NOW - 30),
    ]  # fmt: skip
    fill(config.parent / "state", rows, [account("support-bot"), account("sales", State.NEEDS_LOGIN)])


def test_text(cli: Cli, config: Path) -> None:
    """Availability, incidents, advice, the worst accounts, the commonest causes."""
    filled(config)
    shown = cli("report")
    assert shown.exit_code == 0
    for part in (
        "2 accounts",
        "proxy de1: 8 of 8 proxy failures; replace it",
        "tg-supervisor login sales",
        "FLOOD_WAIT_X",
    ):
        assert part in shown.stdout


def test_html(cli: Cli, config: Path) -> None:
    """A page in a file of its owner's alone; a second time it is replaced."""
    filled(config)
    target = config.parent / "week.html"
    for _ in range(2):
        shown = cli("report", "--html", str(target))
        assert (shown.exit_code, shown.stdout) == (0, "")
        assert "written to" in shown.stderr
    assert target.read_text().startswith("<!doctype html>")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in config.parent.glob(".week*")] == []
    assert cli("report", "--html", "-").stdout.startswith("<!doctype html>")


def test_json(cli: Cli, config: Path) -> None:
    """The same for a machine, beside a page too."""
    filled(config)
    found = json.loads(cli("report", "--json", "--since", "24h").stdout)
    assert found["schema"] == 1
    assert found["accounts"]["sales"]["state"] == "needs_login"


def test_without_a_log(cli: Cli) -> None:
    """Where nothing was recorded yet that is said: exit 1, and no page is written."""
    shown = cli("report", "--html", "week.html")
    assert shown.exit_code == 1
    assert "nothing has been recorded yet" in shown.stderr
    assert not Path("week.html").exists()


def test_where_it_cannot_be_written(cli: Cli, config: Path) -> None:
    """The reason is said: exit 1."""
    filled(config)
    shown = cli("report", "--html", "nowhere/week.html")
    assert shown.exit_code == 1
    assert "nowhere/week.html: No such file" in shown.stderr
