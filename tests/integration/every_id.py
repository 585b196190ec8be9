"""The error table as a stranger reads it: code, id, kind, action, scope and the note's own words, and nothing of ours.

`fate` is what becomes of an ordinary call of a healthy account, `fate_in_a_login` of a step of signing a user in. Neither
asks the program under test; its encoding of the notes (the column `when`) is not looked at.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

import supervisor

TABLE = Path(supervisor.__file__).with_name("core") / "errors.tsv"


class Fate(Enum):
    """What becomes of a call, and of the account behind it."""

    RAISED = auto()  # the caller gets it at once; the account is untouched
    LIMITED = auto()  # the same, and the account is flagged
    DONE = auto()  # a success
    DONE_IF_REPEATED = auto()  # a success on a repeat; on a first attempt the caller gets it
    REDRAWN = auto()  # the random_id was a bad draw
    RETRIED = auto()  # sent again, under the cap
    UNKNOWN_OUTCOME = auto()  # sent again only where that cannot do it twice
    WAITED = auto()  # sent again when the time has passed
    RELOGIN = auto()  # a bot signs in again, a user needs a person
    RECONNECTED = auto()  # sent again over a new link
    FAILED = auto()  # the account is stopped until a person acts


@dataclass(frozen=True)
class Line:
    """A row of the table that stands for an id."""

    code: int
    error_id: str
    kind: str
    action: str
    scope: str
    note: str

    @property
    def sent(self) -> str:
        """The id as Telegram sends it: the X that stands for something is a 1, or a word where it is text."""
        if "part of the name" in self.note:
            return self.error_id
        instead = "signup" if "X is text" in self.note else "1"
        return re.sub(r"(?<=_)X(?=_|$|MIN)", instead, self.error_id)

    @property
    def sign_in_only(self) -> bool:
        """Whether the note says that only a sign-in can mean the account by it."""
        said = re.search(r"\b(login|sign-in|sign-up|send-code|auth\.\w+) only\b", self.note)
        return said is not None or "pen sessions" in self.note

    @property
    def callers_own(self) -> bool:
        """Whether an ordinary call means something of its caller's by it: "it is the caller's new number"."""
        return self.sign_in_only or "it is the caller's" in self.note


def lines() -> list[Line]:
    """Every row of an id that Telegram answers."""
    with TABLE.open(encoding="utf-8", newline="") as opened:
        rows = list(
            csv.DictReader(
                (line for line in opened if line[0] != "#"), delimiter="\t", quoting=csv.QUOTE_NONE
            )
        )
    names = ("error_id", "kind", "action", "scope", "note")
    read = [
        Line(int(row["code"]), *(row[name] for name in names))
        for row in rows
        if row["code"].lstrip("-").isdigit()
    ]
    told = [line for line in read if line.error_id != "*"]
    by_id = {line.error_id: line for line in told}
    return [_as_another(line, by_id) for line in told]


def _as_another(line: Line, by_id: dict[str, Line]) -> Line:
    """A note may lean on another row's: "same reach as API_ID_INVALID"."""
    other = re.search(r"same reach as (\w+)", line.note)
    return line if other is None else replace(line, note=f"{line.note}; {by_id[other[1]].note}")


_BY_ACTION = {
    ("raise", "account"): Fate.LIMITED,
    ("fail", "account"): Fate.FAILED,
    ("relogin", "session"): Fate.RELOGIN,
    ("reconnect", "session"): Fate.RECONNECTED,
    ("retry", "call"): Fate.RETRIED,
    ("wait", "call"): Fate.WAITED,
    ("none", "call"): Fate.DONE,
}


def fate(line: Line) -> Fate:
    """What becomes of an ordinary call of a bot that is signed in, and of the bot."""
    if line.error_id == "RANDOM_ID_DUPLICATE":
        return Fate.REDRAWN
    if "on a stored session" in line.note and "sign in again" in line.note:
        return Fate.RELOGIN
    if line.callers_own:
        return Fate.RETRIED if re.search(r"\brepeat the\b", line.note) else Fate.RAISED
    if "first attempt = the caller's matter" in line.note:
        return Fate.DONE_IF_REPEATED
    if "outcome unknown" in line.note:
        return Fate.UNKNOWN_OUTCOME
    return (
        Fate.RAISED if (line.action, line.scope) == ("raise", "call") else _BY_ACTION[line.action, line.scope]
    )


def of_fate(*wanted: Fate) -> list[Line]:
    """The rows whose calls end so."""
    return [line for line in lines() if fate(line) in wanted]


def without_repeats(told: Iterable[Line]) -> list[Line]:
    """One row for each id: those that come under several codes agree."""
    return list({line.error_id: line for line in told}.values())


# What notes of Telegram's rows say of a step of signing in: action and scope instead of the row's own.
SIGNING_IN = {
    **dict.fromkeys(
        ("AUTH_TOKEN_ALREADY_ACCEPTED", "AUTH_TOKEN_EXPIRED", "AUTH_TOKEN_INVALID", "AUTH_TOKEN_INVALID2",
         "AUTH_TOKEN_INVALIDX", "PHONE_CODE_EXPIRED", "PHONE_CODE_HASH_EMPTY", "PHONE_HASH_EXPIRED",
         "WEBAUTH_TOKEN_EXPIRED"),
        ("relogin", "session"),
    ),
    **dict.fromkeys(
        ("PASSWORD_HASH_INVALID", "PHONE_NUMBER_INVALID", "APNS_VERIFY_CHECK_X", "INTEGRITY_CHECK_CLASSIC_X",
         "RECAPTCHA_CHECK_X"),
        ("fail", "account"),
    ),
    **dict.fromkeys(("PHONE_CODE_EMPTY", "PHONE_CODE_INVALID", "SEND_CODE_UNAVAILABLE"), ("raise", "session")),
    "FLOOD_WAIT_X": ("wait", "session"),
}  # fmt: skip


def of_sign_ins(action: str, scope: str) -> list[Line]:
    """The rows that say this of a step of signing in, one for each id."""
    judged = [(line, SIGNING_IN.get(line.error_id, (line.action, line.scope))) for line in lines()]
    return without_repeats(line for line, said in judged if said == (action, scope))
