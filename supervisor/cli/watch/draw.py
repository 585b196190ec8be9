"""The watch as lines of text, for a terminal of any size: a head, the accounts, the one chosen, the keys. Pure.

Nothing is said by colour alone, and whatever does not fit is cut, least important first.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from supervisor.cli.current import COLORS, PATH_COLORS
from supervisor.cli.tables import clean
from supervisor.cli.watch.look import Seen
from supervisor.cli.watch.tries import Try, in_hand, unix
from supervisor.cli.watch.view import Account, View, rank
from supervisor.cli.words import clock, span, what_failed

Part = tuple[str, str]  # a text and its style
Size = tuple[int, int]  # columns, lines

_DETAILS = 6  # lines about the account chosen
_POOR = 0.95  # a path that answers less often says so
_ROOMY, _CRAMPED = 18, 9  # lines from which on there are details; under which the head is one line
_SEPARATION = 2
_STATE = len("needs_login")
_KEYS: tuple[Part, ...] = (
    ("q", "quit"),
    ("/", "find"),
    ("s", "sort"),
    ("f", "state"),
    ("r", "retry"),
    ("p", "pause"),
    ("u", "resume"),
    ("?", "keys"),
)
_ADVICE = {
    "needs_login": "it waits for you: tg-supervisor login {name}",
    "failed": "it is not tried again by itself; r retries it",
    "paused": "it is paused; u resumes it",
}
_HELP = (
    "up down, k j    move",
    "PgUp PgDn       move by a page",
    "g G, Home End   first, last",
    "s               sort: worst, name, newest, next try",
    "f               show one state, then the next, then all",
    "/               find names: part of one, or a glob",
    "Esc             drop both filters",
    "r p u           retry, pause, resume who is under >",
    "                (asks first; y is yes)",
    "q, Ctrl-C       quit",
)


def room(seen: Seen, size: Size) -> int:
    """How many accounts the screen takes."""
    return max(size[1] - len(_head(seen, size)) - 2 - (_DETAILS if size[1] >= _ROOMY else 0), 1)


def frame(seen: Seen, view: View, accounts: Sequence[Account], size: Size, now: float) -> list[Text]:
    """The screen: exactly as many lines as it has, none wider than it.

    Args:
        seen: what there is to show.
        view: how, placed on `accounts`.
        accounts: those that pass the view's filters, sorted.
        size: columns and lines.
        now: Unix time.
    """
    width, height = size
    head = _head(seen, size)
    lines = [*head, _title(seen, view, accounts, width)]
    if view.help:
        lines += [Text(text) for text in _HELP]
    else:
        lines += _table(seen, view, accounts, size, now)
        if height >= _ROOMY:
            below = height - _DETAILS - 1
            lines += [Text()] * (below - len(lines))
            lines += _details(seen, accounts[view.at], width, now) if accounts else []
    lines = lines[: height - 1]
    lines += [Text()] * (height - 1 - len(lines))
    lines.append(_foot(view, width))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines[-height:]


# --- The head --------------------------------------------------------------------------------------


def _head(seen: Seen, size: Size) -> list[Text]:
    """Whose word it is, how many accounts are how, how the paths are, how much fails."""
    width, height = size
    most = 2 if height >= _ROOMY else 1
    lines = _whose_word(seen, width, 3 if height >= _ROOMY else 1)
    if seen.status is None:
        return lines
    accounts = seen.status["accounts"]
    states = Counter(account["state"] for account in accounts)
    parts = [(f"{states[state]:,} {state}", COLORS.get(state, "")) for state in sorted(states, key=rank)]
    limited = sum(account["limited"] is not None for account in accounts)
    parts += [(f"{limited:,} limited", "yellow")] if limited else []
    counts = _flow(f"{len(accounts):,} account{'s' if len(accounts) != 1 else ''}: ", parts, width, most)
    if height < _CRAMPED:
        return [*lines, *counts] if height > len(lines) + len(counts) + 2 else lines
    lines += counts
    paths = [_path(path) for path in sorted(seen.status["paths"], key=_path_order)]
    lines += _flow("paths: ", paths, width, most) if paths else []
    return [*lines, _rate(seen)]


def _whose_word(seen: Seen, width: int, most: int) -> list[Text]:
    if seen.note:
        old = f"; what follows is of {clock(seen.at)}" if seen.stale and seen.status else ""
        note = clean(f"{seen.note}{old}")
        style = "bold red" if seen.stale else "bold yellow"
        lines = textwrap.wrap(note, width, max_lines=most, placeholder="…") if width > 1 else []
        return [Text(line, style=style) for line in lines] or [Text(note, style=style)]
    if seen.status is None:
        return [Text("asking the daemon …")]
    age = span(seen.status["uptime_s"] or 0.0)
    return [Text(f"daemon: pid {seen.status['pid']}, up {age}; {clock(seen.at)}", style="bold")]


def _path_order(path: Mapping[str, Any]) -> tuple[int, str]:
    return {"broken": 0, "ok": 1}.get(path["state"], 2), path["name"]


def _path(path: Mapping[str, Any]) -> Part:
    rate, probe = path["success_rate"], unix(path["next_probe_at"])
    poor = f", {100 * rate:.0f} % answered" if rate is not None and rate < _POOR else ""
    probed = f", probe {clock(probe)}" if probe else ""
    shown = f"{clean(path['name'])} {path['state']} ({path['accounts']:,}{poor}{probed})"
    return shown, PATH_COLORS.get(path["state"], "")


def _rate(seen: Seen) -> Text:
    if seen.failures is None:
        return Text("failures: there is no log to read")
    minute, hour = seen.failures
    return Text(f"failures: {minute:,} in 1 min, {hour:,} in 1 h", style="yellow" if minute else "")


def _flow(label: str, parts: Sequence[Part], width: int, most: int) -> list[Text]:
    """Parts one after the other, in so many lines at most; what is left out is counted."""
    lines = [Text(label)]
    empty = True
    for number, (text, style) in enumerate(parts):
        left = len(parts) - number - 1
        comma = "" if empty else ", "
        after = cell_len(f", +{left}") if left and len(lines) == most else bool(left)
        if not empty and lines[-1].cell_len + len(comma) + cell_len(text) + after > width:
            if len(lines) == most:
                lines[-1].append(f"{comma}+{left + 1}")
                break
            lines[-1].append(",")
            lines.append(Text("  "))
            comma = ""
        lines[-1].append(comma).append(text, style=style)
        empty = False
    return lines


# --- The accounts ----------------------------------------------------------------------------------


def _title(seen: Seen, view: View, accounts: Sequence[Account], width: int) -> Text:
    """What is shown, of how many, and in which order."""
    text = f"sorted by {view.sort}"
    filters = [part for part in (view.state, f'"{clean(view.pattern)}"' if view.pattern else None) if part]
    total = len(seen.status["accounts"]) if seen.status else 0
    if filters:
        text = f"{len(accounts):,} of {total:,}: {', '.join(filters)}; {text}"
    elif accounts:
        text = f"{view.at + 1:,} of {total:,}; {text}"
    return Text(text[:width].ljust(width), style="reverse")


def _table(seen: Seen, view: View, accounts: Sequence[Account], size: Size, now: float) -> list[Text]:
    """The accounts that are on the screen, and only those."""
    visible = accounts[view.top : view.top + room(seen, size)]
    if not visible:
        return [Text("  none" if seen.status is not None else "")]
    everyone = seen.status["accounts"] if seen.status else ()
    longest = max(len(account["name"]) for account in everyone)
    name = min(longest, max(size[0] // 3, 12))
    columns = _columns(size[0], name)
    broken = _broken(seen)
    return [
        _row(account, columns, seen, broken, now, chosen=view.top + number == view.at)
        for number, account in enumerate(visible)
    ]


def _broken(seen: Seen) -> frozenset[str]:
    paths = seen.status["paths"] if seen.status else ()
    return frozenset(path["name"] for path in paths if path["state"] == "broken")


def _columns(width: int, name: int) -> list[tuple[str, int]]:
    """The columns there is room for, and how wide they are; the last takes what is left."""
    columns = [("name", name), ("state", _STATE)]
    left = width - 2 - name - _STATE - 2 * _SEPARATION
    for column, wide, least in (("try", 15, 35), ("for", 15, 59), ("path", 10, 69)):
        if left >= least:
            columns.append((column, wide))
            left -= wide + _SEPARATION
    columns.append(("what" if len(columns) > 2 else "try", max(left, 0)))
    return columns


def _row(
    account: Account,
    columns: Sequence[tuple[str, int]],
    seen: Seen,
    broken: frozenset[str],
    now: float,
    *,
    chosen: bool,
) -> Text:
    state, found = account["state"], in_hand(account, broken, seen.caps, now)
    line = Text("> " if chosen else "  ", style="dim" if seen.stale else "bold" if chosen else "")
    for number, (column, width) in enumerate(columns):
        text, style = "", ""
        match column:
            case "name":
                text = clean(account["name"])
            case "state":
                text, style = state, COLORS.get(state, "")
            case "try":
                text, style = f"{found.count()} {found.wait(now)}".strip() if found else "", "yellow"
            case "for":
                text = f"for {span(max(now - (unix(account['since']) or now), 0.0))}"
            case "path":
                text = clean(account["path"])
            case _:
                text = _trouble(account, found)
        last = number == len(columns) - 1
        line.append(_fit(text, width), style=style).append("" if last else " " * _SEPARATION)
    return line


def _fit(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return f"{set_cell_size(text, max(width - 1, 0))}…"


def _trouble(account: Account, found: Try | None) -> str:
    """What is wrong with an account, in a few words; of one that is well, nothing."""
    limited, failure = account["limited"], account["last_failure"]
    parts = []
    if limited:
        parts.append(f"{'frozen' if limited['frozen'] else 'limited'}: {clean(limited['error_id'])}")
    if failure and (found or account["state"] != "online" or account["incident"]):
        parts.append(what_failed(failure))
    return "; ".join(parts)


# --- The account chosen, and the keys --------------------------------------------------------------


def _details(seen: Seen, account: Account, width: int, now: float) -> list[Text]:
    broken = _broken(seen)
    failure, limited = account["last_failure"], account["limited"]
    name, since = clean(account["name"]), unix(account["since"]) or now
    lines = [Text(f"── {name} {'─' * max(width - cell_len(name) - 4, 0)}", style="bold")]
    state = f"{account['state']} for {span(max(now - since, 0.0))} on {clean(account['path'])}"
    if limited:
        state += f", {'frozen' if limited['frozen'] else 'limited'} ({clean(limited['error_id'])})"
    lines.append(Text(state, style=COLORS.get(account["state"], "")))
    lines.append(Text(_next_step(seen, account, broken, now)))
    if failure:
        lines.append(Text(f"last failure {clock(unix(failure['at']) or now)}: {what_failed(failure)}"))
        lines.append(Text(f"  {clean(failure['message'])}"))
        if failure["cause"]:
            lines.append(Text(f"  because of {clean(' < '.join(failure['cause']))}"))
    return lines[:_DETAILS]


def _next_step(seen: Seen, account: Account, broken: frozenset[str], now: float) -> str:
    """The incident with its attempt and countdown; where nothing is tried by itself, what a person can do."""
    state, alone = account["state"], not (seen.status and seen.status["running"])
    if state in _ADVICE and (state == "needs_login" or not alone):
        return _ADVICE[state].format(name=clean(account["name"]))
    if alone:
        return "no daemon runs that could try it"
    found = in_hand(account, broken, seen.caps, now)
    incident = f"incident {account['incident']}" if account["incident"] else ""
    if found is None:
        return incident or ("nothing is awaited" if account["state"] == "online" else "r retries it")
    parts = (
        [f"attempt {found.number}{f' of {found.of}' if found.of is not None else ''}"] if found.number else []
    )
    if found.path is not None:
        parts.append(f"it waits until {clean(found.path)} answers again")
    elif found.at is not None and found.at > now:
        parts.append(f"next try {found.wait(now)} ({clock(found.at)})")
    else:
        parts.append("being tried now")
    said = ", ".join(parts)
    return f"{said}; {incident}" if incident else said


def _foot(view: View, width: int) -> Text:
    """The question, the answer, or the keys."""
    if view.asking is not None:
        return Text(f"{view.asking.verb} {clean(view.asking.account)}? y: yes, else: no", style="bold")
    if view.typing is not None:
        return Text(f"names: {clean(view.pattern)}_   Enter: keep, Esc: back")
    if view.said:
        return Text(clean(view.said), style="bold")
    line = Text()
    for key, what in _KEYS:
        word = f"{'  ' if line else ''}{key} {what}"
        if line.cell_len + len(word) <= width:
            line.append(word)
    return line
