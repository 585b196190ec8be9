"""`demo`: its options, its signals, its exit code."""

from __future__ import annotations

import asyncio
import json
import signal

import click

from supervisor import installation
from supervisor.cli.common import ExitCode, Options, options, say
from supervisor.cli.demo.play import Play
from supervisor.cli.demo.report import Report
from supervisor.cli.demo.stage import staged
from supervisor.cli.demo.steps import STEPS
from supervisor.cli.demo.view import show_report, view_for
from supervisor.errors import ConfigError

_SECONDS = 60.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=1, max=86_400),
    default=_SECONDS,
    show_default=True,
    help="How long it is to take, about; what is more than the faults need is calm between them.",
)
@options
@click.pass_obj
def demo(given: Options, seconds: float) -> int:
    """Show the daemon at work against a local Telegram, faults included: no account, no network, nothing is left."""
    problems = installation.problems()
    if problems:
        raise ConfigError(problems)
    report = asyncio.run(_play(given, seconds))
    if isinstance(report, int):
        return report
    if given.as_json:
        click.echo(json.dumps(report.json(), ensure_ascii=False))
    else:
        show_report(report, given)
    for problem in report.problems:
        say(problem)
    return ExitCode.FAILURE if report.problems else ExitCode.OK


async def _play(given: Options, seconds: float) -> Report | int:
    """The report; after a signal, the exit code that goes with it."""
    caught: list[int] = []
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if not caught and task is not None:  # a second one changes nothing: stopping is bounded
            caught.append(number)
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        async with staged() as stage:
            with view_for(given) as view:
                return await Play(stage, STEPS, view, seconds).run()
    except asyncio.CancelledError:
        return 128 + caught[0]
