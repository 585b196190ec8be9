"""`accounts add`: asks for what is needed, tries it, writes it into the configuration, and has it run.

Nothing secret is shown, or taken from the command line. Whatever ends it before its end leaves everything as it was.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from supervisor import installation
from supervisor.cli.common import ExitCode, Options, ask, options, say
from supervisor.cli.current import from_daemon
from supervisor.cli.login import signed_in
from supervisor.config import edit
from supervisor.config.footprint import Footprint
from supervisor.config.load import load, load_state_dir
from supervisor.config.model import Account, Config
from supervisor.control.client import ControlClient
from supervisor.errors import ConfigError, SupervisorError
from supervisor.record.lock import holder

if TYPE_CHECKING:
    from supervisor.checking import Finding

# How long the running daemon is given to bring the account online. Seconds.
_PATIENCE = 45.0
_KINDS = {
    "bot_token": re.compile(r"\d{1,19}:[A-Za-z0-9_-]{20,}", re.ASCII),
    "phone": re.compile(r"\+?[1-9][\d ()./-]{6,20}", re.ASCII),
    "session_string": re.compile(r"[A-Za-z0-9_=-]{340,}", re.ASCII),
}
_SUFFIXES = {"bot_token": "token", "phone": "phone", "session_string": "session-string"}
_SETTLED = ("online", "failed", "needs_login", "suspended", "paused")


class _NotAdded(SupervisorError):
    """It did not work, or somebody did not want it; everything is as it was."""


@click.command()
@click.argument("name")
@click.option("--bot-token-file", type=click.Path(path_type=Path), help="A bot, by the token in this file.")
@click.option(
    "--bot-token-env", metavar="VARIABLE", help="A bot, by the token in this variable of the environment."
)
@click.option("--phone", metavar="NUMBER", help="A user, by phone number.")
@click.option(
    "--session-file", type=click.Path(path_type=Path), help="An existing .session file of Pyrogram's."
)
@click.option(
    "--session-string-file", type=click.Path(path_type=Path), help="A session string, in this file."
)
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="The two-factor password, in this file."
)
@click.option(
    "--proxy", "proxies", metavar="NAME", multiple=True, help="A proxy or pool; may be given again."
)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="The file to write it into: the configuration, or one that it includes.",
)
@click.option(
    "--sign-in/--no-sign-in",
    default=None,
    help="Whether to sign in now, where no daemon runs; else it is asked.",
)
@click.option("--no-check", is_flag=True, help="Try nothing first.")
@options
@click.pass_obj
def add(
    given: Options, /, name: str, file: Path | None, sign_in: bool | None, no_check: bool, **said: Any
) -> int:
    """Add the account NAME to the configuration: ask for what is needed, try it, write it, sign in where needed.

    Without an option that says who it is, that is asked, and nothing secret is shown. Secrets are kept in files of
    their own, 0600, beside the configuration; its comments stay. A running daemon takes the account over at once.
    """
    problems = installation.problems()
    if problems:
        raise ConfigError(problems)
    asks = not any(
        said[key]
        for key in ("bot_token_file", "bot_token_env", "phone", "session_file", "session_string_file")
    )
    path = Path(os.path.abspath(file or given.config_path))  # noqa: PTH100 - as the configuration's reader names it
    adding = _Adding(given, name, path, asks=asks)
    try:
        with adding.undone_on_failure():
            adding.write_down(**said)
            if not no_check:
                adding.try_out()
            adding.put_in()
            state = adding.bring_online(sign_in=sign_in)
    except _NotAdded as refused:
        say(f"{refused}; {name} was not added, everything is as it was")
        return ExitCode.FAILURE
    if given.as_json:
        click.echo(json.dumps({"schema": 1, "name": name, "file": str(adding.file), "state": state}))
    else:
        click.echo(f"{name}: added to {adding.file}{f'; {state}' if state else ''}")
    return ExitCode.LOGIN_NEEDED if state == "needs_login" else ExitCode.OK


@dataclass(slots=True)
class _Adding:
    """One account on its way into the configuration.

    Args:
        given: the options of every command.
        name: the account's.
        file: the file that it is written into.
        asks: whether a person is there to answer.
    """

    given: Options
    name: str
    file: Path
    asks: bool
    _before: bytes | None = None
    _after: bytes | None = None
    _secrets: tuple[Path, ...] = ()
    _config: Config | None = None
    _is_in: bool = False

    @property
    def _account(self) -> Account:
        assert self._config is not None
        return self._config.accounts[self.name]

    # --- what it is -----------------------------------------------------------------------------------

    def write_down(self, *, password_file: Path | None, proxies: Sequence[str], **said: Any) -> None:
        """Find out what the account is, and that the configuration would be right with it.

        Raises:
            ConfigError: it would not.
        """
        known = _known(self.given.config_path, self.file, self.name)
        keys = self._asked() if self.asks else self._said(**said)
        if password_file is not None:
            keys["password_file"] = self._relative(password_file)
        if self.asks and known and not proxies:
            answer = ask(f"Proxy or pool ({', '.join(known)}; empty: the default, else direct): ")
            proxies = tuple(part.strip() for part in answer.split(",") if part.strip())
        if proxies:
            keys["proxy"] = proxies[0] if len(proxies) == 1 else tuple(proxies)
        self._before = edit.read(self.file)
        text = (self._before or b"").decode("utf-8-sig")
        new = edit.with_account(text, self.name, keys)
        self._after = new.encode()
        self._config = load(self.given.config_path, instead={self.file: new})

    def _asked(self) -> dict[str, Any]:
        text = ask(
            "Bot token, phone number, session string, or path of a .session file (not shown): ", hidden=True
        ).strip()
        if not text:
            raise click.Abort
        for key, pattern in _KINDS.items():
            if pattern.fullmatch(text):
                return {f"{key}_file": self._secret(key, text)}
        return {"session_file": self._relative(Path(text).expanduser())}

    def _said(self, **said: Any) -> dict[str, Any]:
        keys: dict[str, Any] = {
            key: self._relative(said[key])
            for key in ("bot_token_file", "session_file", "session_string_file")
            if said[key] is not None
        }
        if said["bot_token_env"] is not None:
            keys["bot_token"] = f"${{{said['bot_token_env']}}}"
        if said["phone"] is not None:
            keys["phone_file"] = self._secret("phone", said["phone"])
        return keys

    def _secret(self, key: str, text: str) -> str:
        """Keep a secret in a file of its own; give its name."""
        path = self.file.with_name(f"{self.name}.{_SUFFIXES[key]}")
        edit.create_secret(path, text)
        self._secrets = (*self._secrets, path)
        return path.name

    def _relative(self, path: Path) -> str:
        """A path as the file says it: beside it, where it is there."""
        path = path.absolute()
        with suppress(ValueError):
            return str(path.relative_to(self.file.parent))
        return str(path)

    # --- whether it works -----------------------------------------------------------------------------

    def try_out(self) -> None:
        """Try its paths and the session that it brings; ask whether to go on where one does not work.

        Raises:
            _NotAdded: it does not, and nobody wants it all the same.
        """
        import asyncio

        async def tried() -> list[Finding]:
            from supervisor.checking import OnlineCheck

            assert self._config is not None
            return await OnlineCheck(self._config, status).one(self._account)

        status = from_daemon(load_state_dir(self.given.config_path))
        say(f"{self.name}: trying {', '.join(self._account.proxies) or 'the direct way'} …")
        findings = asyncio.run(tried())
        for found in findings:
            say(f"  {found.name}: {found.message}")
        own = [found for found in findings if found.name == self.name]
        paths = [found for found in findings if found.name != self.name]
        if any(found.ok for found in paths) and not any(found.ok is False for found in own):
            return
        if not (self.asks and ask("Add it all the same? [y/N]: ").lower() in ("y", "yes")):
            raise _NotAdded("it does not work")

    # --- in it goes -----------------------------------------------------------------------------------

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Leave everything as it was, unless all goes well."""
        try:
            yield
        except BaseException:
            was_in, self._is_in = self._is_in, False
            if was_in:
                edit.replace(self.file, self._after, self._before)
            for secret in self._secrets:
                secret.unlink(missing_ok=True)
            if was_in:
                with suppress(SupervisorError):
                    self._reload()
            raise

    def put_in(self) -> None:
        """Write the file."""
        edit.replace(self.file, self._before, self._after)
        self._is_in = True

    def bring_online(self, *, sign_in: bool | None) -> str | None:
        """Have the daemon take it over; where none runs, sign it in if that is wanted. Give its state, if it has one.

        Raises:
            _NotAdded: Telegram would not have it.
        """
        if self._reload():
            return self._with_daemon()
        account = self._account
        if account.is_bot is None:  # it brings its session, which was tried
            return None
        if sign_in is None:
            what = (
                "to see whether Telegram takes the token (it counts towards sign_ins_per_hour)"
                if account.is_bot
                else "with the code that Telegram sends"
            )
            sign_in = self.asks and ask(f"Sign in now, {what}? [Y/n]: ").lower() in ("", "y", "yes")
        if not sign_in:
            return None
        if account.is_bot:
            return self._bot()
        return self._user()

    def _user(self) -> str:
        code = signed_in(self.given, self.name)
        if code != ExitCode.OK:
            raise _NotAdded("nobody was signed in")
        return "signed in"

    def _bot(self) -> str:
        import asyncio

        async def sign_in() -> int:
            from supervisor.daemon import bot_signed_in

            assert self._config is not None
            return await bot_signed_in(self._config, self.name)

        try:
            user_id = asyncio.run(sign_in())
        except SupervisorError as refused:
            raise _NotAdded(str(refused)) from refused
        say(f"{self.name} is signed in, as user {user_id}")
        return "signed in"

    def _reload(self) -> bool:
        """Have a running daemon read the configuration; False where none runs."""
        state_dir = load_state_dir(self.given.config_path)
        if holder(state_dir) is None:
            return False
        ControlClient(state_dir, timeout=_PATIENCE).request("POST", "reload", {})
        return True

    def _with_daemon(self) -> str:
        state = self._settled()
        if state["state"] == "needs_login" and self._account.phone is not None and self.asks:
            return self._user()
        if state["state"] in ("failed", "suspended"):
            failure = state["last_failure"]
            raise _NotAdded(
                f"it is {state['state']}: {failure['message'] if failure else 'nobody knows why'}"
            )
        return str(state["state"])

    def _settled(self) -> Mapping[str, Any]:
        """What the daemon says of it, once it has come online or failed; where it takes long, what it is then."""
        state_dir, end = load_state_dir(self.given.config_path), time.monotonic() + _PATIENCE
        while True:
            accounts = {account["name"]: account for account in ControlClient(state_dir).status()["accounts"]}
            found: Mapping[str, Any] | None = accounts.get(self.name)
            if found is None:
                raise _NotAdded(f"the daemon that runs in {state_dir} goes by another configuration")
            if found["state"] in _SETTLED or time.monotonic() > end:
                return found
            time.sleep(0.2)


def _known(config: Path, file: Path, name: str) -> list[str]:
    """The pools and proxies that are configured.

    Raises:
        ConfigError: the configuration is wrong already, does not include the file, or has the account.
    """
    footprint = Footprint()
    try:
        found = load(config, footprint=footprint)
    except ConfigError as error:
        # None is configured yet: this is the first.
        if not all("no account is configured" in problem for problem in error.problems):
            raise
        found = None
    if file not in footprint.files and not footprint.concerns(str(file), set()):
        raise ConfigError([f"{file}: is not read: {config} does not include it"])
    if found is None:
        return []
    if name in found.accounts:
        raise ConfigError([f"{found.path}: accounts.{name}: is there already"])
    return [*found.pools, *found.proxies]
