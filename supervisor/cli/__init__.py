"""The command line. Each command is a module that is imported only when it is called: `main` is all there is here."""

from __future__ import annotations

from supervisor.cli.top import tg_supervisor

__all__ = ["main"]


def main() -> None:
    """Run ``tg-supervisor`` with the arguments of this process, and end it with the command's exit code."""
    tg_supervisor.main(prog_name="tg-supervisor")
