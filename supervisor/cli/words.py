"""Times, spans and rows of the log, said as an operator would."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from supervisor.cli.tables import clean

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NUMBER_OF = re.compile(r"_X(?=_|$)")


def parse_since(text: str, now: float) -> float:
    """The Unix time that ``7d``, ``90m`` or an RFC 3339 time stands for; a time without an offset is local.

    Raises:
        ValueError: it is neither.
    """
    span = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if span:
        return now - float(span[1]) * _UNITS[span[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{text!r} is neither a span (90m, 24h, 7d) nor a time (2026-01-31T14:00:00Z)"
        ) from error


def span(seconds: float) -> str:
    """A length of time, in at most two units: ``35 s``, ``4 min``, ``3 h 12 min``, ``5 d 2 h``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def clock(at: float, now: float | None = None) -> str:
    """A time as the local clock shows it; with its date where that is not today."""
    there = time.localtime(at)
    today = time.localtime(now)[:3] == there[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", there)


def when(rfc3339: str, now: float | None = None) -> str:
    """`clock`, of a time as the JSON has it."""
    return clock(datetime.fromisoformat(rfc3339).timestamp(), now)


def error_name(row: Mapping[str, Any]) -> str | None:
    """A row's error as it was sent, ``FLOOD_WAIT_35``, where its message tells; else as the table spells it."""
    error_id: str | None = row["error_id"]
    if error_id is None or not _NUMBER_OF.search(error_id):
        return error_id
    pattern = _NUMBER_OF.sub("_[0-9]+", error_id)
    sent = re.search(rf"\b{pattern}\b", row["message"])
    return sent[0] if sent else error_id


def what_failed(row: Mapping[str, Any]) -> str:
    """Kind, error and method: ``flood_wait FLOOD_WAIT_35 on messages.SendMessage``; without a method, the message."""
    name = error_name(row)
    text = f"{row['kind']} {name}" if name else row["kind"]
    if name is None or (row["outcome"] == "raised" and row["method"] is None):
        text += f" ({row['message']})"
    return clean(f"{text} on {row['method']}" if row["method"] else text)


def what_was_done(row: Mapping[str, Any]) -> str:
    """A row's second half: ``wait 35 s, attempt 1``, ``recovered by reconnect after 2.1 s``."""
    action = row["action"].replace("_", " ")
    match row["outcome"]:
        case "recovered":
            after = f" after {span(row['duration_s'])}" if row["duration_s"] is not None else ""
            return f"recovered by {action}{after}"
        case "retrying":
            return f"{_retrying(action, row['delay_s'])}, attempt {row['attempt']}"
        case "raised":
            return "raised to the caller" if row["method"] else "recorded"
        case "needs_login":
            return f"needs a login: tg-supervisor login {row['account']}"
        case outcome:
            return str(outcome)


def log_line(row: Mapping[str, Any], now: float | None = None) -> str:
    """A row in one line: when, who, what, and what was done; how many, where it stands for several."""
    line = f"{when(row['at'], now)} {clean(who(row))} {what_failed(row)}: {what_was_done(row)}"
    return f"{line} ({row['count']} times)" if row.get("count", 1) > 1 else line


def who(row: Mapping[str, Any]) -> str:
    """Whose failure it is: an account's, or an outage's with so many accounts, ``path de1 (250 accounts)``."""
    if row["account"]:
        return str(row["account"])
    if "accounts" not in row:
        return f"[{row['path']}]"  # merged: many accounts', of one path
    which = "fleet" if row["scope"] == "fleet" else f"path {row['path']}"
    touched = len(row["accounts"])
    return f"{which} ({touched} account{'s' if touched > 1 else ''})" if touched else which


def _retrying(action: str, delay: float) -> str:
    if action == "wait":
        return f"wait {span(delay)}"
    return f"{action} in {span(delay)}" if delay > 0 else f"{action} at once"
