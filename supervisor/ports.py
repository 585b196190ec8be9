"""What the parts know of each other: Protocols and the values that cross them.

`daemon` wires the real parts together; the unit tests wire fakes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from supervisor.core.failure import Action, Evidence, Failure, Kind, Outcome, Result, Row, Scope, State
from supervisor.core.standing import Standing


class Clock(Protocol):
    """Both clocks: `now` for people (Unix time), `monotonic` for waiting. Seconds."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...


# PRODUCT "Account states": clears after 24 h without a repeat. Seconds.
_LIMITED_FOR = 86_400.0


@dataclass(frozen=True, slots=True)
class Limited:
    """An account that Telegram limits, and that keeps running. `seen_at`: when it last said so, if not `since`."""

    error_id: str
    frozen: bool
    since: float
    seen_at: float | None = None

    def holds(self, now: float) -> bool:
        """Whether it still counts: 24 h after the last time it is over; a frozen account is until a person acts."""
        return self.frozen or now - (self.seen_at or self.since) < _LIMITED_FOR

    def again(self, error_id: str, now: float, *, frozen: bool) -> Limited:
        """Telegram has said so once more: a frozen account stays one, whatever else it is told."""
        if frozen and not self.frozen:
            return Limited(error_id, frozen, now)
        return Limited(self.error_id if self.frozen else error_id, self.frozen, self.since, now)


@dataclass(frozen=True, slots=True)
class AccountSnapshot:
    """What `status` shows of one account. Times are Unix times."""

    name: str
    state: State
    since: float
    path: str
    user_id: int | None = None
    is_bot: bool | None = None
    limited: Limited | None = None
    retry_at: float | None = None
    incident: str | None = None
    last_failure: Row | None = None
    standing: Standing | None = None  # what the next run goes on from; None: it begins anew, unless paused


@dataclass(frozen=True, slots=True)
class PathSnapshot:
    """What `status` shows of one path, a proxy or "direct", and what is kept of it over restarts. Times are Unix times.

    Args:
        name: the proxy's name, or "direct".
        state: "ok", "broken" or "unused".
        accounts: how many are on it.
        breaker: "closed", "open" or "half_open".
        since: when the breaker came to stand there; None if it always has.
        probe_at: when the path is asked next; None while its breaker is closed.
        succeeded: how many connections and probes Telegram has answered on it.
        failed: how many it has not.
        latency: seconds from the first packet to Telegram's answer, smoothed.
        last_failure: what the last failure was.
        failed_at: when that was.
        incident: the path's open incident.
    """

    name: str
    state: str
    accounts: int
    breaker: str = "closed"
    since: float | None = None
    probe_at: float | None = None
    succeeded: int = 0
    failed: int = 0
    latency: float | None = None
    last_failure: str | None = None
    failed_at: float | None = None
    incident: str | None = None


@dataclass(frozen=True, slots=True)
class FloodRow:
    """A wait that Telegram demanded. `peer` None stands for the whole method."""

    account: str
    method: str
    peer: str | None
    seen_at: float  # Unix time
    seconds: float

    @property
    def until(self) -> float:
        """The Unix time at which the wait ends."""
        return self.seen_at + self.seconds


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident as it is kept: open while `closed_at` is None."""

    id: str
    account: str | None
    path: str
    scope: Scope
    kind: Kind
    opened_at: float
    closed_at: float | None = None
    outcome: Result | None = None
    last_action: Action | None = None
    failures: int = 0
    attempts: Mapping[str, int] = field(default_factory=dict)  # kind -> actions in a row, against the cap
    backoff: Mapping[str, int] = field(default_factory=dict)  # kind -> exponent of the next delay
    accounts: tuple[str, ...] = ()  # those that it touched, where it is a path's or the fleet's


@dataclass(frozen=True, slots=True)
class SignIn:
    """One sign-in, for the budget. `at` is a Unix time."""

    account: str
    at: float


@dataclass(frozen=True, slots=True)
class Saved:
    """What the last run left behind."""

    accounts: Mapping[str, AccountSnapshot] = field(default_factory=dict)
    floods: Sequence[FloodRow] = ()
    incidents: Sequence[IncidentRow] = ()
    sign_ins: Sequence[SignIn] = ()
    paths: Mapping[str, PathSnapshot] = field(default_factory=dict)


class Recorder(Protocol):
    """The recovery log's writing side.

    The plain methods never block and never raise: they queue, and what does not fit is merged into rows
    with a `count`. The coroutines return when what they were given is on disk, or when it cannot be
    brought there (tried 3 times, then kept in memory and said in the log): recovery never stops for them.
    """

    def record(self, row: Row) -> None: ...

    def incident(self, row: IncidentRow) -> None: ...

    def path(self, snapshot: PathSnapshot) -> None: ...

    async def save_account(self, snapshot: AccountSnapshot) -> None: ...

    async def save_flood(self, row: FloodRow) -> None: ...

    async def save_sign_in(self, sign_in: SignIn) -> None: ...


class LinkEvents(Protocol):
    """What a link tells its owner, from the event loop."""

    def link_lost(self, evidence: Evidence) -> None:
        """The link is gone; told once for each link. Unanswered calls stay pending in the link."""

    def link_overdue(self) -> None:
        """Answers are overdue and nothing at all comes; nothing more should be sent for now."""

    def link_answers(self, outstanding: int) -> None:
        """The overdue link moves again; so many queries are unanswered."""


class AccountLink(Protocol):
    """What an account needs of its link to Telegram."""

    @property
    def client(self) -> Any: ...

    @property
    def user_id(self) -> int | None: ...

    @property
    def is_bot(self) -> bool | None: ...

    @property
    def can_sign_in(self) -> bool: ...

    @property
    def resent(self) -> int: ...

    @property
    def quiet_since(self) -> float: ...

    @property
    def dc(self) -> int | None: ...

    async def prepare(
        self, call: Callable[..., Awaitable[Any]], turn: Callable[[str], Awaitable[None]]
    ) -> None: ...

    def begin(self, spawn: Callable[[Coroutine[Any, Any, None], str], Any]) -> None: ...

    def rest(self) -> None: ...

    async def open(self, path: str, before_sign_in: Callable[[], Awaitable[None]]) -> None: ...

    async def prove(self, path: str) -> None: ...

    async def retire(self, reason: str) -> None: ...

    def close(self) -> None: ...

    def give_up(self) -> None: ...

    async def shutdown(self) -> None: ...


class Traveller(Protocol):
    """An account, as the paths know it."""

    @property
    def name(self) -> str: ...

    @property
    def candidates(self) -> Sequence[str]:
        """The proxies that it may use; none means direct."""

    @property
    def dc(self) -> int | None:
        """The datacenter where it is at home; None as long as nobody knows."""

    @property
    def is_urgent(self) -> bool:
        """Whether calls wait for it."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a failed attempt says of its path.

    Args:
        broken: whether Telegram does not answer on it.
        elsewhere: whether it does on another one of the account's.
        retry_in: seconds until the path is asked next, where that is not soon.
    """

    broken: bool
    elsewhere: bool = False
    retry_in: float = 0.0


class AccountPaths(Protocol):
    """What an account needs of the paths."""

    def assign(self, account: str, candidates: Sequence[str], before: str | None) -> str: ...

    def rotate(self, account: str, candidates: Sequence[str], current: str) -> str: ...

    def use(self, account: str, proxy: str) -> str: ...

    def leave(self, account: str) -> None: ...

    async def slot(self, who: Traveller, name: str) -> None: ...

    async def turn(self, who: Traveller, name: str) -> None: ...

    def answered(self, who: Traveller, name: str) -> None: ...

    def lost(self, who: Traveller, name: str, evidence: Evidence) -> Diagnosis: ...

    async def diagnose(self, who: Traveller, name: str, failure: Failure) -> Diagnosis: ...

    async def back(self, who: Traveller, current: str) -> None: ...

    def works(self, who: Traveller, name: str) -> bool: ...


class LinkFailed(Exception):
    """An attempt to bring a link up failed, or one query could not be taken over it.

    `sent`: that query may have taken effect all the same.
    """

    def __init__(self, evidence: Evidence, *, sent: bool = False) -> None:
        super().__init__(evidence.message)
        self.evidence = evidence
        self.sent = sent


class RpcFailed(Exception):
    """Telegram answered a query with an error. `sends`: how often the query had been sent by then."""

    def __init__(self, code: int, text: str, method: str, sends: int = 1) -> None:
        super().__init__(f"[{code} {text}] {method}")
        self.code = code
        self.text = text
        self.method = method
        self.sends = sends


class SessionGone(Exception):
    """The MTProto session that a query was sent in is lost. `sent`: the query may have taken effect."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the MTProto session of this query is gone")
        self.sent = sent


class Queries(Protocol):
    """What can be known of a raw query by looking at it, and the installed library's exceptions."""

    def method_name(self, query: Any) -> str: ...

    def peer_key(self, query: Any) -> str | None: ...

    def has_random_id(self, query: Any) -> bool: ...

    def is_read_only(self, query: Any) -> bool: ...

    def redraw_random_id(self, query: Any) -> None: ...

    def rpc_evidence(self, code: int, text: str, query: Any, path: str) -> Evidence: ...

    def rpc_exception(self, code: int, text: str, method: str) -> Exception: ...


class Sender(Protocol):
    """Where an admitted call goes."""

    async def send(self, query: Any) -> Any:
        """Send a query and wait for its answer, over as many links as that takes.

        Raises:
            RpcFailed: Telegram answered with an error.
            SessionGone: the MTProto session was lost before the answer came.
            LinkFailed: the server would not take the query, or its answer cannot be read.
        """

    async def find_delivered(self, query: Any) -> Any | None:
        """The updates of a message that was delivered while its answer was lost; None if not found."""

    async def find_done(self, query: Any, *, repeated: bool) -> Any | None:
        """What a query would have given that Telegram calls done already; None where nothing can honestly be given.

        Args:
            query: the query.
            repeated: whether it had been sent before, so that it was probably this very query that did it.
        """


class Elsewhere(Protocol):
    """One call's way to another datacenter than the account's own; what fails there concerns that call alone."""

    @property
    def dc_id(self) -> int: ...

    @property
    def is_ready(self) -> bool:
        """Whether the datacenter can be asked now."""

    async def ready(self) -> None:
        """Return when the datacenter can be asked; bounded by itself, and it may include waits that Telegram demands.

        Raises:
            LinkFailed: one attempt to reach it failed.
        """

    async def send(self, query: Any) -> Any:
        """As `Sender.send`, over one link: LinkFailed where it is lost. The same query may then be sent again."""


@dataclass(frozen=True, slots=True)
class RecoveryContext:
    """What a recovery callback is given: one failure, and the means to do something about it.

    `attempt` is 1 for the first action against this kind of failure. The methods may be awaited in
    coroutine callbacks; what they change holds from the next link on.
    """

    account: str
    kind: Kind
    action: Action
    scope: Scope
    message: str
    error_id: str | None
    attempt: int
    incident: str | None
    path: str
    client: Any = field(repr=False)
    _means: RecoveryMeans = field(repr=False)

    async def use_proxy(self, proxy: str) -> None:
        """Move the account to a proxy: a configured one's name, or a url.

        Raises:
            ValueError: it is neither.
        """
        self._means.use_proxy(proxy)

    async def rotate_proxy(self) -> None:
        """Move the account to the least loaded other proxy of its pool that is not broken."""
        self._means.rotate_proxy()

    async def retire_session(self) -> None:
        """Keep the present key aside; the next link makes a new one and signs in."""
        await self._means.retire_session(self.message)


class RecoveryMeans(Protocol):
    """What an account lets a recovery callback do."""

    def use_proxy(self, proxy: str) -> None: ...

    def rotate_proxy(self) -> None: ...

    async def retire_session(self, reason: str) -> None: ...


class Dispatcher(Protocol):
    """Asks the recovery callbacks."""

    async def dispatch(self, ctx: RecoveryContext) -> Outcome: ...

    def is_overridden(self, ctx: RecoveryContext) -> bool: ...


class Reloaded(Protocol):
    """What a reload did."""

    def json(self) -> dict[str, Any]: ...


class Control(Protocol):
    """What the control socket may ask of the daemon."""

    async def status_json(self) -> str:
        """What `status --json` prints."""

    async def pause(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Take accounts (names, or patterns as ``support-*``) offline; give name, state and whether it changed."""

    async def resume(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Bring paused accounts online again; the same."""

    async def retry(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Try accounts now, and forget that they were limited; the same."""

    async def rotate(self, accounts: Sequence[str], to: str | None = None) -> list[dict[str, Any]]:
        """Move accounts to another proxy of theirs; give name, state, the path and the one of `before`."""

    async def reload(self) -> Reloaded:
        """Read the configuration again and go by it; raises ConfigError."""

    async def login(self, account: str, step: str, text: str) -> Mapping[str, Any]:
        """Take one step of signing a user account in; raises LoginRefused."""
