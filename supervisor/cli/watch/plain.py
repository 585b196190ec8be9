"""The watch where there is no terminal: all of it, once at each change, without a control code."""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import click

from supervisor.cli.common import Options, say
from supervisor.cli.current import broken_paths, cells, totals
from supervisor.cli.tables import clean
from supervisor.cli.watch.look import PACE, REST, Looker, Seen
from supervisor.cli.words import clock

_OF_PATHS = ("name", "state", "accounts", "breaker", "incident")
_TITLES = ("ACCOUNT", "STATE", "SINCE", "PATH", "LAST FAILURE")


def plain(looker: Looker, given: Options) -> NoReturn:
    """Print what there is to see whenever it has changed, until a signal or a closed pipe ends it."""
    before: object = None
    while True:
        began = time.thread_time()
        seen = looker.look()
        if (changed := what_counts(seen)) != before:
            _show(seen, given)
            before = changed
        _rest(max(PACE, REST * (time.thread_time() - began)))


def what_counts(seen: Seen) -> object:
    """All but what changes always: the daemon's age, and how often each path has answered."""
    if seen.status is None:
        return seen.note, seen.stale, None
    paths = [[path[key] for key in _OF_PATHS] for path in seen.status["paths"]]
    return seen.note, seen.stale, seen.status | {"uptime_s": None, "paths": paths}


def _show(seen: Seen, given: Options) -> None:
    if given.as_json:
        if seen.note:
            say(seen.note)
        if not seen.stale:
            click.echo(json.dumps(seen.status, ensure_ascii=False))
    else:
        click.echo("\n".join(block(seen, time.time())))
    sys.stdout.flush()


def block(seen: Seen, now: float) -> Iterator[str]:
    """One status: when, whose word it is, every account, the totals, an empty line. Pure.

    While the daemon does not answer no state is shown: what was true before may not be now.
    """
    status = seen.status
    if seen.stale or status is None:
        yield from (f"{clock(now)} {clean(seen.note)}", "")
        return
    word = clean(seen.note) or f"daemon: pid {status['pid']}"
    yield f"{clock(seen.at)} {word}"
    if status["accounts"]:
        yield from _table(status)
        yield totals(status)
    elif status["running"]:
        yield "the daemon runs, without any account"
    if broken := broken_paths(status):
        yield clean(broken)
    yield ""


def _table(status: Mapping[str, Any]) -> Iterator[str]:
    texts = [
        [cell if isinstance(cell, str) else cell[0] for cell in cells(one)] for one in status["accounts"]
    ]
    rows = [list(_TITLES), *([clean(text) for text in row] for row in texts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def _rest(seconds: float) -> None:
    """Wait; but not for a reader who is gone.

    Raises:
        BrokenPipeError: nobody reads stdout any more.
    """
    gone = select.poll()
    gone.register(sys.stdout, 0)
    if gone.poll(seconds * 1000):
        raise BrokenPipeError
