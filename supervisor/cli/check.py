"""`check`: is the configuration right, what would run, and (`--online`) does each path, session and token work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from supervisor import installation, openfiles
from supervisor.cli.common import ExitCode, Options, options, say
from supervisor.cli.tables import Column, clean, print_table
from supervisor.config.load import load
from supervisor.config.model import DIRECT, Account, Config
from supervisor.errors import ConfigError

if TYPE_CHECKING:
    from supervisor.checking import Finding, Findings

_STEPS = ("dns", "tcp", "proxy", "key", "rpc")
_COLUMNS = (Column("ACCOUNT"), Column("KIND"), Column("PATH", wraps=True), Column("CODE", wraps=True))


_PATHS = (Column("PATH"), Column("WORKS"), *(Column(step.upper()) for step in _STEPS), Column("", wraps=True))
_ACCOUNTS = (Column("ACCOUNT"), Column("WORKS"), Column("PATH"), Column("TIME"), Column("", wraps=True))
_WORKS = {True: ("yes", "green"), False: ("no", "red"), None: ("not tried", "yellow")}


@click.command()
@click.option(
    "--online", is_flag=True, help="Try every proxy, path, session and token once; signs nobody in."
)
@options
@click.pass_obj
def check(given: Options, online: bool) -> int:
    """Validate the configuration and the installation, and show what would run. Without --online nothing is contacted.

    With --online each path is tried once, with a key that is thrown away, and each account with its own session. Where
    the daemon runs, it is asked for its accounts' state instead: a session must not be used from two places. A token
    without a session is not tried, for that would sign in. Exit code 1 if something that was tried does not work.
    """
    problems = installation.problems()
    config: Config | None = None
    try:
        config = load(given.config_path)
        problems += openfiles.problems(len(config.accounts), len(config.proxies))
    except ConfigError as error:
        problems += error.problems
    found = _tried(config) if online and config is not None and not problems else None
    if given.as_json:
        shown = _shape(config, problems) | ({} if found is None else {"online": found.json()})
        click.echo(json.dumps(shown, ensure_ascii=False))
    for problem in problems:
        say(problem)
    for warning in installation.warnings():
        say(warning)
    if config is None or problems:
        return ExitCode.CONFIG
    if not given.as_json:
        _show(config, given) if found is None else _show_online(found, given)
    return ExitCode.OK if found is None or found.ok else ExitCode.FAILURE


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


# --- online ---------------------------------------------------------------------------------------


def _tried(config: Config) -> Findings:
    """Try everything, with a progress bar where somebody sees it."""
    import asyncio

    from supervisor.cli.current import from_daemon

    status = from_daemon(config.settings.state_dir)

    async def run(tried: Callable[[], None]) -> Findings:
        from supervisor.checking import OnlineCheck  # in the loop: it may import pyrogram

        return await OnlineCheck(config, status, tried).run()

    with _progress(config) as tried:
        return asyncio.run(run(tried))


@contextmanager
def _progress(config: Config) -> Iterator[Callable[[], None]]:
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    paths = len(config.proxies) + any(not account.proxies for account in config.accounts.values())
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("trying", total=paths + len(config.accounts))
        yield lambda: progress.advance(task)


def _show_online(found: Findings, given: Options) -> None:
    print_table(_PATHS, (_path_cells(path) for path in found.paths), given)
    click.echo()
    print_table(_ACCOUNTS, (_account_cells(account) for account in found.accounts), given)
    click.echo()
    if found.pid is not None:
        click.echo(
            f"the daemon runs (pid {found.pid}): its accounts are as it says, for no session is used from two places"
        )
    every = [*found.paths, *found.accounts]
    for bad in every:
        if bad.ok is False and bad.advice:
            click.echo(clean(f"{bad.name}: {bad.advice} (tg-supervisor explain {bad.code})"))
    counts = {
        "work": sum(one.ok is True for one in every),
        "do not": sum(one.ok is False for one in every),
        "not tried": sum(one.ok is None for one in every),
    }
    click.echo(", ".join(f"{count} {what}" for what, count in counts.items() if count))


def _path_cells(path: Finding) -> list[str | tuple[str, str]]:
    times = [_took(path.steps[step]) if step in path.steps else "" for step in _STEPS]
    return [path.name, _WORKS[path.ok], *times, path.message]


def _account_cells(account: Finding) -> list[str | tuple[str, str]]:
    took = _took(sum(account.steps.values())) if account.steps else ""
    return [account.name, _WORKS[account.ok], account.path or "", took, account.message]


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
