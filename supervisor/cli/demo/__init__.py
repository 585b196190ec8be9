"""`demo`: the real daemon against a local Telegram datacenter, and what comes of it when things break.

steps    what is broken, one small value each           stage   the datacenter, the daemon, a directory for both
chatter  the code of the demo's bots                    play    breaks one thing after the other, and looks on
report   what came of it, as records and as JSON        view    what is seen of it, live and in the end
"""

from __future__ import annotations

from supervisor.cli.demo.command import demo

__all__ = ["demo"]
