"""`run`: the daemon in the foreground; a service manager puts it into the background."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from supervisor import installation
from supervisor.cli.common import Options, options
from supervisor.config.load import load
from supervisor.errors import AlreadyRunning, ConfigError
from supervisor.record.lock import holder, prepare_state_dir

if TYPE_CHECKING:
    from supervisor.config.model import Config


@click.command()
@options
@click.pass_obj
def run(given: Options) -> int:
    """Run the daemon: start every account, keep it online, until SIGTERM or Ctrl-C."""
    problems = installation.problems()
    if problems:
        raise ConfigError(problems)
    config = load(given.config_path)
    state_dir = config.settings.state_dir
    prepare_state_dir(state_dir)
    # The daemon takes the lock. This look comes before pyrogram's import, and before another daemon's logs are touched.
    pid = holder(state_dir)
    if pid is not None:
        raise AlreadyRunning(str(state_dir), pid or None)
    return _run(config, given)


def _run(config: Config, given: Options) -> int:
    import asyncio

    from supervisor import daemon
    from supervisor.cli.logs import logging_to

    with logging_to(config.settings.state_dir / "logs", debug=given.debug):
        for warning in installation.warnings():
            logging.getLogger(__name__).warning("%s", warning)
        return asyncio.run(daemon.run(config))
