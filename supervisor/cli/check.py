"""`check`: is the configuration right, and what would run."""

from __future__ import annotations

import json

import click

from supervisor import installation
from supervisor.cli.common import ExitCode, Options, options, say
from supervisor.cli.tables import Column, print_table
from supervisor.config.load import load
from supervisor.config.model import DIRECT, Account, Config
from supervisor.errors import ConfigError

_COLUMNS = (Column("ACCOUNT"), Column("KIND"), Column("PATH", wraps=True), Column("CODE", wraps=True))


@click.command()
@options
@click.pass_obj
def check(given: Options) -> int:
    """Validate the configuration and the installation, and show what would run. Nothing is contacted."""
    problems = installation.problems()
    config: Config | None = None
    try:
        config = load(given.config_path)
    except ConfigError as error:
        problems += error.problems
    if given.as_json:
        click.echo(json.dumps(_shape(config, problems), ensure_ascii=False))
    for problem in problems:
        say(problem)
    for warning in installation.warnings():
        say(warning)
    if config is None or problems:
        return ExitCode.CONFIG
    if not given.as_json:
        _show(config, given)
    return ExitCode.OK


def _shape(config: Config | None, problems: list[str]) -> dict[str, object]:
    accounts = [] if config is None else [_account(account) for account in config.accounts.values()]
    return {
        "schema": 1,
        "ok": not problems,
        "problems": problems,
        "state_dir": None if config is None else str(config.settings.state_dir),
        "accounts": accounts,
    }


def _account(account: Account) -> dict[str, object]:
    return {
        "name": account.name,
        "is_bot": account.is_bot,
        "paths": list(account.proxies) or [DIRECT],
        "plugins": account.plugins,
        "main": account.main,
    }


def _show(config: Config, given: Options) -> None:
    if config.accounts:
        print_table(_COLUMNS, (_cells(account) for account in config.accounts.values()), given)
        click.echo()
    server = config.telegram.server
    where = f" at {server.host}:{server.port} instead of Telegram" if server else ""
    count = len(config.accounts)
    click.echo(
        f"{count} account{'s' if count != 1 else ''} would run{where}; state in {config.settings.state_dir}"
    )


def _cells(account: Account) -> list[str | tuple[str, str]]:
    kind = {True: "bot", False: "user", None: "session"}[account.is_bot]
    code = "; ".join(
        filter(
            None, (account.plugins and f"plugins {account.plugins}", account.main and f"main {account.main}")
        )
    )
    return [account.name, kind, ", ".join(account.proxies) or DIRECT, code]
