"""`login` as a person has it: a terminal, a code to type, a password that is not shown; with a daemon and without one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter, Fault, FaultKind
from tests.acceptance.conftest import Ended, Site, environment, until

pytestmark = pytest.mark.timeout(120)
PHONE, CODE, PASSWORD = "+4915112345678", "54321", "open sesame"
USER_ID = 5_000_010


class Terminal:
    """A command on a terminal of its own: what is shown there can be awaited, and lines typed."""

    def __init__(self, site: Site, *args: str) -> None:
        self._master, slave = os.openpty()
        self.shown = ""
        self._read_so_far = 0
        line = [sys.executable, "-m", "supervisor", *args, "-c", str(site.path)]
        self.popen = subprocess.Popen(
            line,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=site.cwd,
            env=environment(site.env),
            start_new_session=True,
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._master, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # nobody has it open any longer
            data = b""
        if data:
            self.shown += data.decode(errors="replace")
        else:
            self._loop.remove_reader(self._master)

    async def expect(self, text: str, seconds: float = 20.0) -> None:
        """Wait until a text is shown, after all that was awaited before."""
        await until(
            lambda: text in self.shown[self._read_so_far :] or self.popen.poll() is not None,
            seconds,
            f"{text!r} on the terminal; there is:\n{self.shown}",
        )
        at = self.shown.find(text, self._read_so_far)
        assert at >= 0, f"{text!r} is not in:\n{self.shown}"
        self._read_so_far = at + len(text)

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._master, f"{line}\n".encode())

    async def ended(self, seconds: float = 20.0) -> int:
        """The exit code, once it has ended."""
        await until(lambda: self.popen.poll() is not None, seconds, f"an end of:\n{self.shown}")
        await asyncio.sleep(0.05)
        self._loop.remove_reader(self._master)
        os.close(self._master)
        assert "Traceback" not in self.shown
        return int(self.popen.returncode)


def add_user(site: Site, **keys: Any) -> Account:
    """Configure `sales-user`; `password` is what Telegram asks for, the rest is configured."""
    password = keys.pop("password", None)
    user = site.dc.add_user(USER_ID, phone=PHONE, code=CODE, password=password)
    site.accounts["sales-user"] = {"phone": PHONE, **keys}
    site.write()
    return user


async def piped(site: Site, typed: str, name: str = "sales-user", *args: str) -> Ended:
    """`login` with its answers piped in."""

    def run() -> Ended:
        line = [sys.executable, "-m", "supervisor", "login", name, "-c", str(site.path), *args]
        done = subprocess.run(
            line,
            input=typed,
            capture_output=True,
            text=True,
            cwd=site.cwd,
            env=environment(site.env),
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    ended = await asyncio.to_thread(run)
    assert "Traceback" not in ended.err
    return ended


def secrets_on_disk(site: Site, *secrets: str) -> list[str]:
    """Which of these stand in the log files, the record or the daemon's output."""
    folders = (site.state_dir / "logs", site.folder / "output")
    files = [path for folder in folders for path in folder.glob("*")] + list(
        site.state_dir.glob("recovery.db*")
    )
    text = b"".join(path.read_bytes() for path in files)
    return [secret for secret in secrets if secret.encode() in text]


async def test_a_person_signs_in_without_a_daemon(dc: Datacenter, site: Site) -> None:
    """Wrong code, right code, wrong password, right password; then the daemon starts online without a question."""
    user = add_user(site, password=PASSWORD)
    terminal = Terminal(site, "login", "sales-user")
    await terminal.expect("the code of 5 characters was sent to the Telegram app")
    await terminal.expect("empty: cancel")
    terminal.type("11111")
    await terminal.expect("that is not the code")
    terminal.type(CODE)
    await terminal.expect("Two-factor password")
    terminal.type("open barley")
    await terminal.expect("that is not the password")
    await terminal.expect("Two-factor password")
    terminal.type(PASSWORD)
    await terminal.expect(f"sales-user is signed in, as user {USER_ID}")
    assert await terminal.ended() == 0
    assert "barley" not in terminal.shown
    assert PASSWORD not in terminal.shown
    assert dc.seen.codes_sent[USER_ID] == 1
    assert dc.seen.open_connections == 0
    assert (site.state_dir / "sessions.db").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in site.cwd.iterdir()} == set()

    async with site.online():
        again = await piped(site, "")
        assert (again.code, again.err.strip()) == (0, f"sales-user is signed in already, as user {USER_ID}")
    again = await piped(site, "")
    assert (again.code, again.err.strip()) == (0, f"sales-user is signed in already, as user {USER_ID}")
    assert len(user.keys) == 1
    assert dc.seen.codes_sent[USER_ID] == 1
    assert secrets_on_disk(site, PHONE[1:], CODE, PASSWORD, "barley") == []


async def test_a_person_signs_in_while_the_daemon_runs(dc: Datacenter, site: Site) -> None:
    """The account comes online in the running daemon, which has asked for no code by itself and is not restarted."""
    site.bot("support-bot")
    add_user(site, password=PASSWORD)
    daemon = site.run()
    await daemon.state("needs_login", "sales-user")
    await daemon.state("online", "support-bot")
    assert dc.seen.codes_sent[USER_ID] == 0
    terminal = Terminal(site, "login", "sales-user")
    await terminal.expect("the code of 5 characters was sent to the Telegram app")
    await terminal.expect("empty: cancel")
    terminal.type(CODE)
    await terminal.expect("Two-factor password")
    terminal.type(PASSWORD)
    await terminal.expect("sales-user is signed in")
    assert await terminal.ended() == 0
    accounts = await daemon.state("online", seconds=5)
    assert accounts["sales-user"]["user_id"] == USER_ID
    assert accounts["sales-user"]["is_bot"] is False
    assert dc.seen.codes_sent[USER_ID] == 1
    assert dc.seen.max_connections_per_key == 1
    assert PASSWORD not in terminal.shown
    await daemon.stop()
    assert secrets_on_disk(site, PHONE[1:], CODE, PASSWORD) == []
    assert [row["outcome"] for row in await site.log("--account", "sales-user")] == [
        "needs_login",
        "recovered",
    ]


@pytest.mark.parametrize("with_daemon", [True, False])
async def test_a_revoked_session_is_signed_in_anew(dc: Datacenter, site: Site, with_daemon: bool) -> None:
    """After SESSION_REVOKED `login` asks for a code again, either way, and the account comes back.

    The daemon is another one by then, which has connected nothing for an account that needs a login.
    """
    user = add_user(site)
    assert (await piped(site, f"{CODE}\n")).code == 0
    daemon = site.run()
    await daemon.state("online", "sales-user")
    dc.revoke(user)
    dc.reset_links(user)
    await daemon.state("needs_login", "sales-user")
    if with_daemon:
        await daemon.kill()
        connections = len(dc.seen.connections)
        daemon = site.run()
        await daemon.state("needs_login", "sales-user")
        assert len(dc.seen.connections) == connections
    else:
        await daemon.stop()
        assert (await site.command("status", "--json")).json()["accounts"][0]["state"] == "needs_login"
    assert (await piped(site, f"{CODE}\n")).code == 0
    assert dc.seen.codes_sent[USER_ID] == 2
    if not with_daemon:
        status = await site.command("status", "--json")
        assert (status.json()["running"], status.json()["accounts"][0]["state"]) == (False, "stopped")
        daemon = site.run()
    await daemon.state("online", "sales-user")
    await daemon.stop()


@pytest.mark.parametrize("with_daemon", [True, False])
async def test_a_cancelled_login_is_still_needed(dc: Datacenter, site: Site, with_daemon: bool) -> None:
    """An empty answer and the end of the input cancel with exit code 77, Ctrl-C with 130; the code is void then."""
    user = add_user(site)
    daemon = site.run() if with_daemon else None
    if daemon is not None:
        await daemon.state("needs_login")
    for typed in ("\n", ""):
        cancelled = await piped(site, typed)
        assert (cancelled.code, "was not signed in" in cancelled.err) == (77, True)
        assert user.code_hash == ""
    terminal = Terminal(site, "login", "sales-user")
    await terminal.expect("empty: cancel")
    terminal.popen.send_signal(signal.SIGINT)
    assert await terminal.ended() == 130
    assert user.code_hash == ""
    assert dc.seen.open_connections == 0
    if daemon is not None:
        await daemon.state("needs_login")
        await daemon.stop()
    spent = await piped(site, f"{CODE}\n")  # the fourth within an hour
    assert (spent.code, "sign_ins_per_hour" in spent.err) == (75, True)
    assert dc.seen.codes_sent[USER_ID] == 3


async def test_a_stored_password_needs_no_question(dc: Datacenter, site: Site) -> None:
    """With `password_file` only the code is asked for."""
    (site.etc / "sales-user.2fa").write_text(f"{PASSWORD}\n")
    (site.etc / "sales-user.2fa").chmod(0o600)
    add_user(site, password=PASSWORD, password_file="sales-user.2fa")
    ended = await piped(site, f"{CODE}\n")
    assert ended.code == 0
    assert "password" not in ended.err


async def test_a_code_is_sent_another_way_and_anew(dc: Datacenter, site: Site) -> None:
    """``r`` has the code sent by SMS; an expired code is replaced when the person says so."""
    user = add_user(site)
    user.code_by_sms_after = 0
    terminal = Terminal(site, "login", "sales-user")
    await terminal.expect("r: send it another way, sms")
    terminal.type("r")
    await terminal.expect("was sent to the phone, by SMS")
    await terminal.expect("empty: cancel")
    user.code_hash = ""
    terminal.type(CODE)
    await terminal.expect("this code has expired")
    await terminal.expect("Have a new one sent?")
    terminal.type("y")
    await terminal.expect("was sent to the Telegram app")
    terminal.type(CODE)
    assert await terminal.ended() == 0
    assert dc.seen.codes_sent[USER_ID] == 3


async def test_refusals_have_exit_codes(dc: Datacenter, site: Site) -> None:
    """2 for what is no user account, 78 for the configuration, 75 for later, 77 where only a person can help."""
    site.bot("support-bot")
    add_user(site)
    bot = await piped(site, "", "support-bot")
    assert (bot.code, "needs no login" in bot.err) == (2, True)
    unknown = await piped(site, "", "sales-usr")
    assert (unknown.code, "sales-user" in unknown.err) == (2, True)
    assert not (site.state_dir / "sessions.db").exists()

    dc.faults.add(Fault(FaultKind.RPC_ERROR, None, "auth.SendCode", code=420, error="FLOOD_WAIT_7200"))
    for _ in range(2):
        flooded = await piped(site, "")
        assert (flooded.code, "again in 2 h" in flooded.err) == (75, True), flooded.err
    assert dc.seen.count("auth.SendCode") == 1


async def test_a_banned_number_is_final(dc: Datacenter, site: Site) -> None:
    """PHONE_NUMBER_BANNED is told as what it is, exit code 77, and stands in the log."""
    user = add_user(site)
    dc.ban(user)
    banned = await piped(site, "")
    assert (banned.code, "banned" in banned.err, "PHONE_NUMBER_BANNED" in banned.err) == (77, True, True)
    user.sign_in_error = (406, "PHONE_NUMBER_INVALID")
    assert (await piped(site, "")).code == 78
    assert [row["error_id"] for row in await site.log()] == ["PHONE_NUMBER_BANNED", "PHONE_NUMBER_INVALID"]


async def test_no_server_is_no_login(dc: Datacenter, site: Site, tmp_path: Path) -> None:
    """Where Telegram is not reached the command says so and ends with 75."""
    add_user(site)
    await dc.go_away()
    ended = await piped(site, "")
    assert (ended.code, "refused" in ended.err) == (75, True)
