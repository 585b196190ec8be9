"""How many files this process may have open: one socket an account is most of them."""

from __future__ import annotations

import resource

# Beside those sockets: databases, logs, the control socket and who asks there, name lookups, other datacenters' links.
MARGIN = 100
# Where the system sets no hard limit.
PLENTY = 65_536


def raise_limit() -> None:
    """Raise the soft limit on open files to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = PLENTY if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def problems(accounts: int, proxies: int) -> list[str]:
    """What keeps so many accounts from being online at once, with its repair; empty where nothing does.

    Args:
        accounts: how many there are.
        proxies: how many there are: each is probed over a connection of its own.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = accounts + proxies + MARGIN
    if hard == resource.RLIM_INFINITY or needed <= hard:
        return []
    what = f"{accounts:,} account{'s' if accounts != 1 else ''} need{'s' if accounts == 1 else ''}"
    return [
        f"{what} about {needed:,} open files, this process may open {hard:,}: raise LimitNOFILE= (systemd) or ulimit -Hn"
    ]
