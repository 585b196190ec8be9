"""`notify test`: whether those who are to be told can be."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli.common import ExitCode, Options, options, say
from supervisor.cli.tables import clean
from supervisor.config.load import load
from supervisor.config.words import did_you_mean
from supervisor.control.client import ControlClient
from supervisor.control.protocol import ControlError
from supervisor.errors import NotRunning

if TYPE_CHECKING:
    from supervisor.config.model import Sink

# Longer than a sink is tried. Seconds.
_PATIENCE = 40.0


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one sink's message: `failed` says why not."""

    name: str
    sort: str
    failed: str | None
    seconds: float


@click.group()
@options
def notify() -> None:
    """Try the notifications."""


@notify.command()
@click.argument("sinks", metavar="[SINK]...", nargs=-1)
@options
@click.pass_obj
def test(given: Options, sinks: tuple[str, ...]) -> int:
    """Send a message to each sink of [notify], or to those named, and say what came of it.

    Those of `bot` are sent by the running daemon, as its notifications are; all others from here. Exit code 1 if one fails.
    """
    import asyncio

    config = load(given.config_path)
    unknown = [name for name in sinks if name not in config.notify]
    for name in unknown:
        say(f'no sink is called "{clean(name)}"{did_you_mean(name, config.notify)}')
    if unknown:
        return ExitCode.USAGE
    if not config.notify:
        say(f"nobody is told anything: {given.config_path} has no [notify.NAME]")
        return ExitCode.FAILURE
    chosen = [config.notify[name] for name in dict.fromkeys(sinks or config.notify)]
    tried = asyncio.run(_tried(chosen, config.settings.state_dir))
    if given.as_json:
        shape = {"schema": 1, "sinks": [_shape(each) for each in tried]}
        click.echo(json.dumps(shape, ensure_ascii=False))
    else:
        for line in _lines(tried):
            click.echo(line)
    return ExitCode.FAILURE if any(each.failed for each in tried) else ExitCode.OK


def _shape(tried: Tried) -> dict[str, object]:
    return {
        "name": tried.name,
        "kind": tried.sort,
        "ok": tried.failed is None,
        "error": tried.failed,
        "duration_s": round(tried.seconds, 3),
    }


def _lines(tried: Iterable[Tried]) -> Iterator[str]:
    for each in tried:
        came = "sent" if each.failed is None else f"failed: {clean(each.failed)}"
        yield f"{each.name} ({each.sort}): {came}, in {each.seconds:.1f} s"


async def _tried(sinks: Iterable[Sink], state_dir: Path) -> list[Tried]:
    import asyncio

    return list(await asyncio.gather(*(_try(sink, state_dir) for sink in sinks)))


async def _try(sink: Sink, state_dir: Path) -> Tried:
    """Send one message."""
    import asyncio

    from supervisor.notify.trial import try_out

    began = time.monotonic()
    if sink.sort == "bot":
        failed = await asyncio.to_thread(_asked, sink.name, state_dir)
    else:
        failed = await try_out(sink, lambda _: None)
    return Tried(sink.name, sink.sort, failed, time.monotonic() - began)


def _asked(name: str, state_dir: Path) -> str | None:
    """Have the daemon send it: the bots are online there."""
    try:
        answer = ControlClient(state_dir, timeout=_PATIENCE).request("POST", "notify", {"sink": name})
    except NotRunning:
        return "no daemon is running here, and its bots send this one"
    except ControlError as refused:
        return str(refused)
    error = answer["error"]
    return None if error is None else str(error)
