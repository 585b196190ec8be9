"""The public names do what they promise, to a type checker and to a program."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import supervisor
from supervisor import actions
from supervisor.datacenter import Datacenter
from supervisor.record import queries

USER_CODE = Path(__file__).parent / "user_code.py"
TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"


@pytest.mark.timeout(180)
def test_a_users_code_type_checks() -> None:
    """mypy --strict accepts the code of a user, and the names are typed, not Any."""
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", str(USER_CODE)],
        cwd=USER_CODE.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_every_public_name_is_there() -> None:
    """What `__all__` lists can be imported, and nothing else is offered."""
    for name in supervisor.__all__:
        assert getattr(supervisor, name) is not None
    with pytest.raises(AttributeError):
        _ = supervisor.no_such_name


async def test_a_users_code_runs(tmp_path: Path) -> None:
    """from_config, client and handle_error work together; the reported failure stands in the log with its context."""
    async with Datacenter() as dc:
        dc.add_bot(TOKEN, first_name="Support")
        dc.write_public_key(tmp_path / "dc.pem")
        (tmp_path / "accounts.toml").write_text(
            f"""
            [telegram]
            api_id = 12345
            api_hash = "0123456789abcdef0123456789abcdef"
            [telegram.server]
            host = "{dc.host}"
            port = {dc.port}
            dc_id = {dc.dc_id}
            public_key = "dc.pem"
            [accounts.support-bot]
            bot_token = "{TOKEN}"
            """
        )
        try:
            work = runpy.run_path(str(USER_CODE))["work"]
            assert await work(str(tmp_path / "accounts.toml")) == "Support unknown"
        finally:
            actions.registered.clear()
    with queries.opened(tmp_path / "state" / "recovery.db") as db:
        assert db is not None
        row = queries.log_rows(db, queries.LogFilter(account="support-bot"), 10)[-1].row
    assert "a job of mine failed" in row.message
    assert ("job", "7") in row.context
    assert row.outcome == "raised"
    assert row.traceback is not None
    assert "RuntimeError" in row.traceback


async def test_an_unknown_account_is_told_by_name(tmp_path: Path) -> None:
    """client() names the accounts that there are."""
    async with Datacenter() as dc:
        dc.add_bot(TOKEN)
        server = supervisor.Supervisor  # the class itself is public
        dc.write_public_key(tmp_path / "dc.pem")
        (tmp_path / "accounts.toml").write_text(
            f'[telegram]\napi_id = 1\napi_hash = "{"a" * 32}"\n[telegram.server]\nhost = "{dc.host}"\n'
            f'port = {dc.port}\ndc_id = {dc.dc_id}\npublic_key = "dc.pem"\n[accounts.bot]\nbot_token = "{TOKEN}"\n'
        )
        async with server.from_config(tmp_path / "accounts.toml") as sup:
            with pytest.raises(KeyError, match="there are bot"):
                await sup.client("boot")
