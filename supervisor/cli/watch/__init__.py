"""`status --watch`: on a terminal a live view with keys; elsewhere all of it, once at each change."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from supervisor.cli.common import Options
from supervisor.cli.watch.look import Looker


def watched(state_dir: Path, given: Options) -> int:
    """Watch until a person or a signal ends it; gives the exit code."""
    looker = Looker(state_dir, given.config_path)
    if not given.as_json and _on_a_terminal():
        from supervisor.cli.watch.live import live

        return live(looker, given)
    from supervisor.cli.watch.plain import plain

    return plain(looker, given)


def _on_a_terminal() -> bool:
    """Whether there is one that can do more than print, and a person at its keys."""
    capable = os.environ.get("TERM", "dumb") != "dumb"
    return capable and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
