"""How the watch is being looked at - sorted, filtered, scrolled, asked - and what each key makes of that. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from typing import Any

Account = Mapping[str, Any]

SORTS = ("worst", "name", "newest", "next try")
ORDERS = {"r": "retry", "p": "pause", "u": "resume"}

# The worst state is first.
_STATES = ("failed", "needs_login", "suspended", "recovering", "starting", "paused", "stopped", "online")
_RANKS = {state: rank for rank, state in enumerate(_STATES)}
# An account that Telegram limits is worse than its state says.
_FROZEN, _LIMITED = 1.5, 4.5
_LAST = "9999"  # after every time there is


@dataclass(frozen=True, slots=True)
class Order:
    """What a person wants the daemon to do with an account: retry, pause, resume."""

    verb: str
    account: str


@dataclass(frozen=True, slots=True)
class View:
    """What a person has chosen to see.

    Args:
        sort: one of `SORTS`.
        state: only accounts in this state.
        pattern: only accounts of this name: a glob, or a part of the name.
        chosen: the account under the cursor, wherever it goes; None: whoever comes first.
        at: its place among the accounts shown.
        top: the place of the first account on the screen.
        typing: the pattern was this before it began to be typed; None: it is not being typed.
        asking: an order that waits for its confirmation.
        said: what came of the last one.
        help: the keys are shown, not the accounts.
        over: the watch ends.
    """

    sort: str = SORTS[0]
    state: str | None = None
    pattern: str = ""
    chosen: str | None = None
    at: int = 0
    top: int = 0
    typing: str | None = None
    asking: Order | None = None
    said: str = ""
    help: bool = False
    over: bool = False


def shown(accounts: Sequence[Account], view: View) -> list[Account]:
    """The accounts that pass the filters, sorted."""
    if view.state is not None:
        accounts = [account for account in accounts if account["state"] == view.state]
    if view.pattern:
        glob = view.pattern if any(sign in view.pattern for sign in "*?[") else f"*{view.pattern}*"
        fits = re.compile(translate(glob)).match
        accounts = [account for account in accounts if fits(account["name"])]
    match view.sort:
        case "name":
            return sorted(accounts, key=lambda account: str(account["name"]))
        case "newest":
            return sorted(accounts, key=lambda account: str(account["since"]), reverse=True)
        case "next try":
            return sorted(accounts, key=lambda account: (account["retry_at"] or _LAST, _badness(account)))
        case _:
            return sorted(accounts, key=_badness)


def _badness(account: Account) -> tuple[float, str, str]:
    """The worst is least; among equals, who has been so for longest."""
    how_bad: float = rank(account["state"])
    if account["limited"]:
        how_bad = min(how_bad, _FROZEN if account["limited"]["frozen"] else _LIMITED)
    return how_bad, account["since"], account["name"]


def rank(state: str) -> int:
    """The worst state is least; one that is not known here, as a newer daemon may have, is no better."""
    return _RANKS.get(state, 0)


def placed(view: View, names: Sequence[str], room: int) -> View:
    """The view on these accounts: the cursor on the account chosen, or where it was; and on the screen.

    Args:
        view: as it was before.
        names: of the accounts that are shown now.
        room: how many of them the screen takes.
    """
    at = 0
    if view.chosen is not None:
        at = names.index(view.chosen) if view.chosen in names else max(min(view.at, len(names) - 1), 0)
    room = max(room, 1)
    top = max(min(view.top, at, len(names) - room), at - room + 1, 0)
    chosen = names[at] if view.chosen is not None and names else view.chosen
    return replace(view, chosen=chosen, at=at, top=top)


def pressed(view: View, key: str, accounts: Sequence[Account], states: Sequence[str], room: int) -> View:
    """What a key makes of a view that is placed.

    Args:
        view: as it is.
        key: a character, or a name as ``up``.
        accounts: those that are shown.
        states: those that there are, for the filter.
        room: how many accounts the screen takes.
    """
    if view.typing is not None:
        return _typed(view, key)
    view = replace(view, said="")
    if key == "q":
        return replace(view, over=True)
    if key == "?" or view.help:
        return replace(view, help=not view.help)
    if key in ORDERS:
        return _asked(view, ORDERS[key], accounts)
    if key in {"s", "f", "/", "esc"}:
        return _filtered(view, key, states)
    return _moved(view, key, accounts, room)


def _filtered(view: View, key: str, states: Sequence[str]) -> View:
    """Other accounts are shown, or in another order: the cursor goes to the first."""
    match key:
        case "s":
            return replace(view, sort=_next(SORTS, view.sort), chosen=None)
        case "f":
            return replace(view, state=_next((None, *states), view.state), chosen=None)
        case "/":
            return replace(view, typing=view.pattern)
        case _:
            return replace(view, state=None, pattern="", chosen=None)


def _next(choices: Sequence[Any], present: object) -> Any:
    """The choice after this one; the first where it is none any more."""
    return choices[(choices.index(present) + 1) % len(choices)] if present in choices else choices[0]


def _typed(view: View, key: str) -> View:
    match key:
        case "enter":
            return replace(view, typing=None)
        case "esc":
            return replace(view, typing=None, pattern=view.typing or "")
        case "backspace":
            return replace(view, pattern=view.pattern[:-1])
        case _ if len(key) == 1 and key.isprintable():
            return replace(view, pattern=view.pattern + key, chosen=None)
        case _:
            return view


def _asked(view: View, verb: str, accounts: Sequence[Account]) -> View:
    """The order is about who is under the cursor now, whoever may be there when it is confirmed."""
    if not accounts:
        return view
    return replace(view, asking=Order(verb, accounts[view.at]["name"]))


def _moved(view: View, key: str, accounts: Sequence[Account], room: int) -> View:
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -room, "pgdn": room, "end": len(accounts)}
    if key in {"home", "g"} or not accounts:
        return replace(view, chosen=None, at=0)
    step = steps.get({"G": "end", " ": "pgdn"}.get(key, key))
    if step is None:
        return view
    at = max(min(view.at + step, len(accounts) - 1), 0)
    return replace(view, chosen=accounts[at]["name"], at=at)


def answered(view: View, key: str) -> tuple[View, Order | None]:
    """What a key says to the question whether an order is meant; anything but ``y`` is no."""
    asked = replace(view, asking=None, said="")
    if key == "y":
        return asked, view.asking
    return replace(asked, said="nothing done"), None
