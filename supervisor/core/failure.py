"""The vocabulary of failure: what was seen, what it is, what is done about it.

Everything here is a value. `Evidence` is what the adapter saw, `Failure` what `classify` made of it,
`Decision` what `decide` orders. The names are the product's contract: code, log, command line and
metrics all use them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What sort of failure it is. The last two need no recovery."""

    FLOOD_WAIT = "flood_wait"
    RATE_LIMIT = "rate_limit"
    PROXY = "proxy"
    CONNECTION = "connection"
    AUTH = "auth"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"
    UNKNOWN = "unknown"
    MIGRATE = "migrate"
    ALREADY_DONE = "already_done"


class Scope(StrEnum):
    """How far a failure reaches."""

    CALL = "call"
    SESSION = "session"
    ACCOUNT = "account"
    PATH = "path"
    FLEET = "fleet"


class Action(StrEnum):
    """The six recovery actions."""

    WAIT = "wait"
    RECONNECT = "reconnect"
    ROTATE_PROXY = "rotate_proxy"
    RELOGIN = "relogin"
    RETRY = "retry"
    FAIL = "fail"


class Remedy(StrEnum):
    """The error table's word for what to do: an action, `raise` (to the caller) or `none` (it succeeded)."""

    WAIT = "wait"
    RECONNECT = "reconnect"
    ROTATE_PROXY = "rotate_proxy"
    RELOGIN = "relogin"
    RETRY = "retry"
    FAIL = "fail"
    RAISE = "raise"
    NONE = "none"

    @property
    def action(self) -> Action:
        """The action that the record shows: `raise` and `none` have no recovery, so they show `fail`."""
        return Action.FAIL if self in (Remedy.RAISE, Remedy.NONE) else Action(self.value)


class Outcome(StrEnum):
    """What a recovery callback says of its attempt."""

    RECOVERED = "recovered"
    RETRY = "retry"
    FAILED = "failed"
    DECLINED = "declined"


class Result(StrEnum):
    """The recovery log's word for how a failure ended."""

    RECOVERED = "recovered"
    RETRYING = "retrying"
    FAILED = "failed"
    SUSPENDED = "suspended"
    NEEDS_LOGIN = "needs_login"
    RAISED = "raised"


class State(StrEnum):
    """The state of an account, as `status` shows it."""

    STARTING = "starting"
    ONLINE = "online"
    RECOVERING = "recovering"
    SUSPENDED = "suspended"
    NEEDS_LOGIN = "needs_login"
    FAILED = "failed"
    PAUSED = "paused"
    STOPPED = "stopped"


class Level(StrEnum):
    """How loudly a person is told."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    FATAL = "fatal"


class Source(StrEnum):
    """Where a piece of evidence comes from; it decides how the evidence is read."""

    RPC = "rpc"  # an rpc_error that Telegram answered
    TRANSPORT = "transport"  # a 4-byte error code instead of a packet
    PROTOCOL = "protocol"  # bad_msg_notification, an undecryptable packet, a failed key exchange
    SOCKET = "socket"  # TCP, TLS or DNS to Telegram itself
    PROXY = "proxy"  # the proxy refused, failed, or went silent
    SILENCE = "silence"  # nothing came from the link in time
    STORAGE = "storage"  # SQLite
    CODE = "code"  # a bot's own code


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of one failure, before anybody judges it.

    `error_id` is spelled as it was sent (``FLOOD_WAIT_35``); `cause` runs from the outermost exception
    to the innermost; `step` names what was being done (``dial``, ``key exchange``, ``sign-in`` …).
    """

    source: Source
    message: str
    error_id: str | None = None
    code: int | None = None
    method: str | None = None
    peer: str | None = None
    step: str | None = None
    path: str = "direct"
    cause: tuple[str, ...] = ()
    traceback: str | None = None
    context: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A classified failure. `error_id` is spelled as the table spells it (``FLOOD_WAIT_X``)."""

    kind: Kind
    scope: Scope
    remedy: Remedy
    evidence: Evidence
    error_id: str | None = None
    wait: float | None = None  # seconds that Telegram demanded
    limited: bool = False  # the account carries on, but is limited (PEER_FLOOD and the like)
    why: str = ""  # the row or rule that decided

    @property
    def action(self) -> Action:
        """The first action for this failure, as the record shows it."""
        return self.remedy.action

    def __str__(self) -> str:
        what = self.evidence.error_id or self.evidence.message
        return f"{self.kind.value}: {what}"


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be done about one kind of failure, and how often. All times in seconds."""

    action: Action
    max_retries: int
    base_delay: float
    max_delay: float = 300.0
    jitter: float = 0.25  # at most this share of the delay is added to it


# PRODUCT "The failure model": first action, cap, base delay.
DEFAULT_POLICIES: dict[Kind, Policy] = {
    Kind.FLOOD_WAIT: Policy(Action.WAIT, 5, 0.0),
    Kind.RATE_LIMIT: Policy(Action.WAIT, 5, 30.0),
    Kind.PROXY: Policy(Action.ROTATE_PROXY, 3, 5.0),
    Kind.CONNECTION: Policy(Action.RECONNECT, 3, 1.0),
    Kind.AUTH: Policy(Action.RELOGIN, 2, 1.0),
    Kind.TEMPORARY: Policy(Action.RETRY, 3, 1.0),
    Kind.PERMANENT: Policy(Action.FAIL, 0, 0.0),
    Kind.UNKNOWN: Policy(Action.RETRY, 2, 1.0),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next about a failure, and after how many seconds."""

    remedy: Remedy
    delay: float
    attempt: int  # 1 is the first action
    of: int  # the cap
    result: Result
    verify: bool = False  # first ask updates.getState, and act only if that fails the same way


@dataclass(frozen=True, slots=True)
class Override:
    """A row of `[classify]`: the operator's own judgement of an error id."""

    kind: Kind
    remedy: Remedy
    scope: Scope


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the recovery log. `at` is a Unix time; `duration` and `delay` are seconds.

    `code` is its number (core/codes.py), which notifications are chosen by, `of` the cap that `attempt` is held against.
    Neither is kept: they are 0 of a row that was read.
    """

    at: float
    account: str | None
    path: str
    scope: Scope
    kind: Kind
    action: Action
    outcome: Result
    message: str
    incident: str | None = None
    error_id: str | None = None
    error_code: int | None = None
    method: str | None = None
    attempt: int = 0
    delay: float = 0.0
    duration: float | None = None
    cause: tuple[str, ...] = ()
    traceback: str | None = None
    context: tuple[tuple[str, str], ...] = field(default=())
    count: int = 1
    code: int = field(default=0, compare=False)
    of: int = field(default=0, compare=False)
