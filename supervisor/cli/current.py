"""Where the accounts' state is found, and how it is said: what `status` and its watch share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supervisor.cli.common import not_ready
from supervisor.cli.words import clock, what_failed, when
from supervisor.control.client import ControlClient
from supervisor.errors import NotRunning
from supervisor.record import queries
from supervisor.record.lock import holder
from supervisor.report.status import last_status

Found = dict[str, Any]

COLORS = {
    "starting": "cyan",
    "online": "green",
    "recovering": "yellow",
    "suspended": "red",
    "needs_login": "magenta",
    "failed": "red",
    "paused": "blue",
    "stopped": "bright_black",
}
PATH_COLORS = {"ok": "green", "broken": "red"}


def from_daemon(state_dir: Path) -> Found | None:
    """The status that the running daemon gives; None where none runs.

    Raises:
        ControlError: a daemon runs but does not answer: then its accounts' state is not known.
    """
    try:
        return ControlClient(state_dir).status()
    except NotRunning:
        pid = holder(state_dir)
        if pid is not None:
            raise not_ready(pid) from None
        return None


def from_last_run(path: Path) -> tuple[Found, str]:
    """The status that the last run left in recovery.db, and what has to be said beside it.

    Raises:
        ConfigError: the file was written by a newer release.
        RecordUnreadable: it cannot be read.
    """
    with queries.opened(path) as db:
        if db is None:
            return last_status(
                [], [], None
            ), f"no daemon is running, and none has run yet: there is no {path}"
        run = queries.last_run(db)
        found = last_status(queries.accounts(db), queries.paths(db), run)
    if run is None:
        return found, "no daemon is running"
    if run.stopped_at is not None:
        return found, f"no daemon is running; the last one stopped at {clock(run.stopped_at)}"
    return (
        found,
        f"no daemon is running; the last one was killed, its last sign of life was at {clock(run.heartbeat_at)}",
    )


def totals(found: Mapping[str, Any]) -> str:
    """How many accounts there are, and in which states."""
    accounts = found["accounts"]
    total = f"{len(accounts)} account{'s' if len(accounts) != 1 else ''}"
    states = Counter(account["state"] for account in accounts)
    return f"{total}: {', '.join(f'{number} {state}' for state, number in states.most_common())}"


def broken_paths(found: Mapping[str, Any]) -> str:
    """The paths that do not work; empty where all do."""
    broken = [path["name"] for path in found["paths"] if path["state"] == "broken"]
    return f"broken paths: {', '.join(broken)}" if broken else ""


def path_cells(path: Mapping[str, Any]) -> list[str | tuple[str, str]]:
    """A path as a row of the table: name, state and breaker, accounts, how often and how fast Telegram answered, its last trouble."""
    said = path["state"] if path["breaker"] == "closed" else f"{path['state']}, breaker {path['breaker']}"
    rate, latency, failure = path["success_rate"], path["latency_ms"], path["last_failure"]
    last = f"{when(failure['at'])} {failure['message']}" if failure else ""
    if path["next_probe_at"]:
        probe = f"next probe {when(path['next_probe_at'])}"
        last = f"{probe}; {last}" if last else probe
    return [
        path["name"],
        (said.replace("_", " "), PATH_COLORS.get(path["state"], "")),
        f"{path['accounts']:,}",
        "" if rate is None else f"{100 * rate:.4g} %",
        "" if latency is None else f"{latency:.0f} ms",
        last,
    ]


def cells(account: Mapping[str, Any]) -> list[str | tuple[str, str]]:
    """An account as a row of the table: name, state and its colour, since when, path, what last went wrong."""
    state = account["state"]
    said = f"{state}, limited" if account["limited"] else state
    failure = account["last_failure"]
    last = f"{when(failure['at'])} {what_failed(failure)}" if failure else ""
    if account["retry_at"]:
        next_try = f"next try {when(account['retry_at'])}"
        last = f"{next_try}; {last}" if last else next_try
    return [account["name"], (said, COLORS.get(state, "")), when(account["since"]), account["path"], last]
