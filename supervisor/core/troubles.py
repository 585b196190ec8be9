"""What is wrong at present, and with whom: the log's rows and the accounts' states, read as troubles.

An account's state says whether it is in trouble, its last row says why. A trouble begins, may turn into another, and
ends; what has no end, as an exception of a bot's own code, only happens. Troubles that are told together share a group:
those of one broken path, and else those with one number. Times are monotonic seconds.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from supervisor.core.codes import CODES, NAMES, Code, code_of_row
from supervisor.core.failure import Kind, Level, Result, Row, Scope, State

# So many falls within so many seconds are flapping, until none has come for so long.
FLAPS, WITHIN, CALM = 6, 600.0, 300.0

DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Began:
    """A trouble has begun, or an old one has turned into this.

    Args:
        subject: whose and which it is, as ``account:support-bot``; each has one trouble at a time.
        group: what is told as one.
        code: its number.
        who: the account or path; empty for the daemon itself.
        what: what was seen.
        accounts: whom it touches, of a path's or the fleet's.
    """

    subject: str
    group: str
    code: Code
    who: str
    what: str
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """A trouble is over; `how`, in two or three words."""

    subject: str
    how: str


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that has no end; so many times."""

    code: Code
    who: str
    what: str
    count: int = 1


News = Began | Ended | Happened

_OVER = {State.ONLINE: "online again", State.PAUSED: "paused by a person"}
_STEADY = "steady again"
_COMES_BACK = frozenset({State.RECOVERING, State.SUSPENDED})
_IN_TROUBLE = _COMES_BACK | {State.NEEDS_LOGIN, State.FAILED}
# Told by the state of their account, which also knows when they are over.
_BY_STATE = frozenset({"limited", "frozen"})
_WAYS = (Kind.PROXY, Kind.CONNECTION)


@dataclass(slots=True)
class _Falls:
    """When something fell of late, and since when it is up: whether it flaps."""

    at: deque[float] = field(default_factory=lambda: deque(maxlen=FLAPS))
    is_up: bool = False
    up_since: float = 0.0
    flapping: bool = False

    def turn(self, now: float, *, up: bool) -> None:
        if self.is_up and not up:
            self.at.append(now)
        elif up and not self.is_up:
            self.up_since = now
        self.is_up = up

    def judge(self, now: float) -> bool:
        if not self.flapping:
            self.flapping = len(self.at) == FLAPS and now - self.at[0] < WITHIN
        elif self.is_up and now - self.up_since >= CALM:
            self.flapping = False
            self.at.clear()
        return self.flapping


@dataclass(slots=True)
class _Account:
    state: State | None = None
    path: str = DIRECT
    cause: Row | None = None  # the last row that tells of the account itself, since it was online
    falls: _Falls = field(default_factory=_Falls)


@dataclass(slots=True)
class _Path:
    why: str | None = None  # what is wrong with it
    falls: _Falls = field(default_factory=lambda: _Falls(is_up=True))
    row: Row | None = None  # the last that tells of an outage on it


class Troubles:
    """All of one daemon's. Each method takes something that was seen, and gives what is new."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._paths: defaultdict[str, _Path] = defaultdict(_Path)
        self._present: dict[str, Began] = {}
        self._fleet: str | None = None  # the outage that is everybody's

    @property
    def present(self) -> list[Began]:
        """All that there are now."""
        return list(self._present.values())

    # --- what is seen ---------------------------------------------------------------------------------

    def row(self, row: Row, now: float) -> list[News]:
        """A row of the recovery log."""
        code = CODES.get(row.code)
        if code is None or row.outcome is Result.RECOVERED or code.name in _BY_STATE:
            return []
        if row.account is None and row.incident is not None:
            self._paths[
                row.path
            ].row = row  # of an outage: `outage` tells that it is one, and when it is over
            return []
        if row.account is not None and _tells_of_the_account(row):
            self._known(row.account).cause = row
            return self._place(row.account, now)
        if row.outcome is Result.RETRYING:  # a call's: so far nobody has noticed
            code = replace(code, level=Level.INFO)
        return [Happened(code, row.account or "", row.message, row.count)]

    def account(
        self,
        name: str,
        state: State,
        path: str,
        now: float,
        *,
        last: Row | None = None,
        limited: str | None = None,
        frozen: bool = False,
    ) -> list[News]:
        """The state of an account.

        Args:
            name: the account's.
            state: its state, as `status` shows it.
            path: the path that it is on.
            now: monotonic seconds.
            last: the failure that brought it there.
            limited: the error id by which Telegram said that it limits the account; None if it doesn't.
            frozen: whether it may do nothing but read.
        """
        known = self._known(name)
        known.state, known.path = state, path
        known.cause = None if state is State.ONLINE else known.cause or last
        if state is State.ONLINE or state in _COMES_BACK:
            known.falls.turn(now, up=state is State.ONLINE)
        elif state is not State.STARTING:
            known.falls = _Falls()  # a person has come in between, or will have to
        code = "frozen" if frozen else "limited"
        return [
            *self._place(name, now),
            *self.condition(f"limited:{name}", code, limited, who=name, how="no longer limited"),
        ]

    def path(self, name: str, why: str | None, now: float) -> list[News]:
        """A path is broken, and why; or it works, if `why` is None."""
        known = self._paths[name]
        known.why = why
        known.falls.turn(now, up=why is None)
        return self._place_path(name, now)

    def outage(
        self, outage: str, path: str, accounts: tuple[str, ...], now: float, *, everywhere: bool, over: bool
    ) -> list[News]:
        """Many accounts have the same trouble, or had it.

        Args:
            outage: its incident.
            path: the path that they are on, or one of them.
            accounts: whom it touches.
            now: monotonic seconds.
            everywhere: whether it is everybody's, on whatever path.
            over: whether it is over.
        """
        subject = f"outage:{outage}"
        before = self._fleet
        # Where all go through one proxy, it is the proxy that is asked about first.
        everywhere = everywhere and (
            path == DIRECT or len({each.path for each in self._accounts.values()}) > 1
        )
        if over:
            self._fleet = None if before == outage else before
        elif everywhere:
            self._fleet = outage
        news = self._regrouped(now) if self._fleet != before else []
        if over:
            return [*self._turn(subject, None, "its accounts are back"), *news]
        seen = self._paths[path].row
        code = NAMES["unreachable"] if everywhere else self._code(path)
        what = seen.message if seen is not None else ""
        return [*self._turn(subject, Began(subject, self._shared(path), code, path, what, accounts)), *news]

    def _regrouped(self, now: float) -> list[News]:
        """What is told together is another, now that the trouble is everybody's or is not any more."""
        news = [each for name in self._accounts for each in self._place(name, now)]
        return [*news, *(each for name in self._paths for each in self._place_path(name, now))]

    def _shared(self, path: str) -> str:
        return "fleet" if self._fleet is not None else f"path:{path}"

    def _code(self, path: str) -> Code:
        row = self._paths[path].row
        if row is not None:
            return code_of_row(row)
        return NAMES["connection_failed" if path == DIRECT else "proxy_failed"]

    def condition(
        self, subject: str, code: str, what: str | None, *, who: str = "", how: str = "over"
    ) -> list[News]:
        """Something else that holds, or not if `what` is None.

        Args:
            subject: whose and which.
            code: the name of its number.
            what: what was seen.
            who: the account, if it is one's.
            how: how it ended, where it did.
        """
        began = None if what is None else Began(subject, f"code:{NAMES[code].number}", NAMES[code], who, what)
        return self._turn(subject, began, how)

    def configured(self, accounts: Collection[str], paths: Collection[str]) -> list[News]:
        """These are the accounts and the paths from now on: others have been removed."""
        gone = [name for name in self._accounts if name not in accounts]
        closed = [name for name in self._paths if name not in paths]
        for name in gone:
            del self._accounts[name]
        for name in closed:
            del self._paths[name]
        subjects = [f"{sort}:{name}" for name in gone for sort in ("account", "limited")]
        subjects += [f"path:{name}" for name in closed]
        return [news for subject in subjects for news in self._turn(subject, None, "removed")]

    def tick(self, now: float) -> list[News]:
        """Time has passed: what has flapped may have become steady."""
        accounts = [name for name, known in self._accounts.items() if known.falls.flapping]
        paths = [name for name, known in self._paths.items() if known.falls.flapping]
        news = [each for name in accounts for each in self._place(name, now)]
        return [*news, *(each for name in paths for each in self._place_path(name, now))]

    # --- what it is -----------------------------------------------------------------------------------

    def _known(self, name: str) -> _Account:
        return self._accounts.setdefault(name, _Account())

    def _place(self, name: str, now: float) -> list[News]:
        known, subject = self._accounts[name], f"account:{name}"
        flapped = known.falls.flapping
        flaps = known.falls.judge(now) and (known.state is State.ONLINE or known.state in _COMES_BACK)
        if flaps:
            return self._turn(subject, _flapping(subject, f"flapping:{known.path}", name))
        if known.state in _OVER:
            return self._turn(subject, None, _STEADY if flapped else _OVER[known.state])
        if known.state not in _IN_TROUBLE:
            return []  # it starts, or the daemon stops: nobody knows
        return self._turn(subject, self._trouble(name, known))

    def _place_path(self, name: str, now: float) -> list[News]:
        known, subject, group = self._paths[name], f"path:{name}", self._shared(name)
        flapped = known.falls.flapping
        if known.falls.judge(now):
            return self._turn(subject, _flapping(subject, group, name))
        if known.why is None:
            return self._turn(subject, None, _STEADY if flapped else "it answers again")
        return self._turn(subject, Began(subject, group, self._code(name), name, known.why))

    def _trouble(self, name: str, known: _Account) -> Began:
        cause = known.cause
        path = cause.path if cause is not None else known.path
        code = code_of_row(cause) if cause is not None else self._code(path)
        is_shared = cause is None or cause.kind in _WAYS or f"path:{path}" in self._present
        group = f"code:{code.number}"
        if known.state is State.RECOVERING and is_shared:
            group = self._shared(path)
        return Began(f"account:{name}", group, code, name, cause.message if cause is not None else "")

    def _turn(self, subject: str, began: Began | None, how: str = "") -> list[News]:
        """What is new about a subject: nothing where it is in the same trouble as before, or in none."""
        before = self._present.get(subject)
        if began is None:
            if before is None:
                return []
            del self._present[subject]
            return [Ended(subject, how)]
        self._present[subject] = began
        if before is not None and _is_same(before, began):
            return []
        return [began]


def _flapping(subject: str, group: str, who: str) -> Began:
    what = f"lost {FLAPS} times within {WITHIN / 60:.0f} minutes"
    return Began(subject, group, NAMES["flapping"], who, what)


def _is_same(one: Began, other: Began) -> bool:
    return (one.group, one.code, one.accounts) == (other.group, other.code, other.accounts)


def _tells_of_the_account(row: Row) -> bool:
    if row.outcome in (Result.SUSPENDED, Result.NEEDS_LOGIN):
        return True
    return row.scope is not Scope.CALL and row.outcome is not Result.RAISED
