"""`accounts add` (add.py) and `accounts export`: a session given back, for a plain Pyrogram or Kurigram client."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli.add import add
from supervisor.cli.common import ExitCode, Options, options, say
from supervisor.config.load import load
from supervisor.config.words import did_you_mean

if TYPE_CHECKING:
    from supervisor.config.model import Config

_WARNING = (
    "Keep it as you would a password. Whoever has it is {name}. Never use it while the daemon runs this account too: "
    "Telegram kills a session that is used from two places."
)


@click.group()
@options
def accounts() -> None:
    """Add accounts to the configuration, and give sessions back."""


accounts.add_command(add)


@accounts.command()
@click.argument("name")
@click.option(
    "--file", type=click.Path(path_type=Path), help="Write a .session file, 0600; it must not exist yet."
)
@click.option("--string", is_flag=True, help="Print a session string.")
@options
@click.pass_obj
def export(given: Options, name: str, file: Path | None, string: bool) -> int:
    """Give an account's session back, as both client libraries read it: as a file, or as a string on stdout.

    Only while no daemon runs: a session that two programs use is killed by Telegram.
    """
    if string == (file is not None):
        raise click.UsageError("say how: --file PATH or --string")
    config = load(given.config_path)
    if name not in config.accounts:
        say(f'no account is called "{name}"{did_you_mean(name, config.accounts)}')
        return ExitCode.USAGE
    if not (config.settings.state_dir / "sessions.db").exists():
        say(f"{name} has no session yet: no daemon has run here")
        return ExitCode.FAILURE
    import asyncio

    given_back = asyncio.run(_given_back(config, name, file and file.absolute()))
    say(_WARNING.format(name=name))
    if given_back is not None:
        click.echo(given_back)
    return ExitCode.OK


async def _given_back(config: Config, name: str, file: Path | None) -> str | None:
    from supervisor.record.lock import StateLock
    from supervisor.telegram.storage import SessionsDb
    from supervisor.telegram.storage.export import session_string

    with StateLock(config.settings.state_dir):
        db = await SessionsDb.open(config.settings.state_dir / "sessions.db")
        try:
            storage = db.account(config.accounts[name].identity)
            if file is None:
                return session_string(name, storage.session)
            await storage.export_session_file(file)
            return None
        finally:
            await db.close()
