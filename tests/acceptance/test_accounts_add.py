"""`accounts add`: a person answers, or options do; the file keeps its comments, secrets have files of their own."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.datacenter import Account
from tests.acceptance.conftest import SENDER, Site, closed_port, until
from tests.acceptance.test_login import CODE, PHONE, USER_ID, Terminal

pytestmark = pytest.mark.timeout(120)
COMMENT = "# ours, since 2019 ÄÖ\n"


def prepared(site: Site) -> str:
    """The file as it stands, with a comment and a mode of its own."""
    site.write()
    text = COMMENT + site.path.read_text()
    site.path.write_text(text)
    site.path.chmod(0o640)
    return text


def files(site: Site) -> dict[str, bytes]:
    """Everything that lies beside the configuration."""
    return {path.name: path.read_bytes() for path in site.etc.iterdir() if path.is_file()}


def token_of(bot: Account) -> str:
    assert bot.token is not None
    return bot.token


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_person_adds_a_bot_to_the_running_daemon(site: Site) -> None:
    """The token is asked for and not shown; what is there runs on; an abort, or a wrong token, leaves everything as it was."""
    site.code("sender", SENDER)
    still, new = site.bot("still", main="sender:main"), site.dc.add_bot(first_name="new")
    text = prepared(site)
    daemon = site.run()
    await daemon.state("online")
    connected = len(site.dc.seen.connections)
    terminal = Terminal(site, "accounts", "add", "new-bot")
    await terminal.expect("not shown): ")
    terminal.type(token_of(new))
    await terminal.expect("Telegram answers")
    await terminal.expect("new-bot: added to")
    assert await terminal.ended() == 0
    assert token_of(new) not in terminal.shown
    assert site.path.read_text() == f'{text}\n[accounts.new-bot]\nbot_token_file = "new-bot.token"\n'
    assert (mode(site.path), mode(site.etc / "new-bot.token")) == (0o640, 0o600)
    assert (site.etc / "new-bot.token").read_text() == f"{new.token}\n"
    assert {a["state"] for a in (await daemon.accounts()).values()} == {"online"}
    assert len(site.dc.seen.connections) <= connected + 2  # what was tried, and the new bot
    before = files(site)

    terminal = Terminal(site, "accounts", "add", "other")
    await terminal.expect("not shown): ")
    terminal.type("")
    assert await terminal.ended() == 130
    dead = site.dc.add_bot(first_name="dead")
    site.dc.kill_token(dead)
    terminal = Terminal(site, "accounts", "add", "dead-bot")
    await terminal.expect("not shown): ")
    terminal.type(token_of(dead))
    await terminal.expect("ACCESS_TOKEN_EXPIRED")
    await terminal.expect("everything is as it was")
    assert await terminal.ended() == 1
    assert files(site) == before
    assert list(await daemon.accounts()) == ["still", "new-bot"]
    sent = len(site.dc.seen.sends[still.user_id])
    await until(lambda: len(site.dc.seen.sends[still.user_id]) > sent, what="it goes on sending")
    await daemon.stop()
    assert [site.dc.seen.sign_ins[bot.user_id] for bot in (still, new)] == [1, 1]
    for secret in (token_of(new), token_of(dead)):
        assert secret not in daemon.err


async def test_without_a_daemon_it_signs_in_if_that_is_wanted(site: Site) -> None:
    """A bot by its token, a user by a code; the first account of a file, into an included file; the budget counts."""
    site.write()
    site.path.write_text('include = ["accounts.d/*.toml"]\n' + site.path.read_text())
    (site.etc / "accounts.d").mkdir()
    new = site.dc.add_bot(first_name="new")
    site.dc.add_user(USER_ID, phone=PHONE, code=CODE)
    included = site.etc / "accounts.d" / "more.toml"
    terminal = Terminal(site, "accounts", "add", "new-bot", "--file", str(included))
    await terminal.expect("not shown): ")
    terminal.type(token_of(new))
    await terminal.expect("Sign in now")
    terminal.type("y")
    await terminal.expect(f"as user {new.user_id}")
    assert await terminal.ended() == 0
    assert included.read_text() == '[accounts.new-bot]\nbot_token_file = "new-bot.token"\n'
    with closing(sqlite3.connect(site.state_dir / "recovery.db")) as db:  # it counts
        assert db.execute("SELECT account FROM sign_ins").fetchall() == [("new-bot",)]

    terminal = Terminal(site, "accounts", "add", "sales-user")
    await terminal.expect("not shown): ")
    terminal.type(PHONE)
    await terminal.expect("Sign in now")
    terminal.type("")
    await terminal.expect("Code")
    terminal.type(CODE)
    await terminal.expect(f"as user {USER_ID}")
    assert await terminal.ended() == 0
    assert PHONE not in terminal.shown + site.path.read_text()
    daemon = site.run()
    await daemon.state("online")
    await daemon.stop()
    assert (site.dc.seen.sign_ins[new.user_id], site.dc.seen.max_connections_per_key) == (1, 1)


async def test_options_answer_where_nobody_does(site: Site) -> None:
    """Nothing is asked, and nobody signed in; what does not work changes nothing."""
    site.bot("first")
    site.proxies = {"gone": f"socks5://127.0.0.1:{closed_port()}"}
    text = prepared(site)
    new = site.dc.add_bot(first_name="new")
    site.env = {"NEW_TOKEN": token_of(new)}
    before = files(site)
    ended = await site.command("accounts", "add", "new", "--bot-token-env", "NEW_TOKEN", "--proxy", "gone")
    assert (ended.code, ended.out) == (1, ""), ended.err
    assert "connection refused" in ended.err
    assert files(site) == before
    ended = await site.command("accounts", "add", "new", "--bot-token-env", "NEW_TOKEN", "--json")
    assert (ended.code, ended.json()["state"]) == (0, None), ended.err
    assert site.path.read_text() == f'{text}\n[accounts.new]\nbot_token = "${{NEW_TOKEN}}"\n'
    assert site.dc.seen.sign_ins[new.user_id] == 0
    assert not site.state_dir.exists()
