"""Stand-ins for the ports, and a loop whose time passes as fast as nothing happens.

`@virtual` runs a test's coroutine on such a loop: sleeping costs nothing, and times are exact. Where everybody
waits and no timer is left, the test fails instead of hanging.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec

import pytest

from supervisor.core.failure import Evidence, Failure, Result, Row, Source
from supervisor.ports import (
    AccountSnapshot,
    Diagnosis,
    FloodRow,
    IncidentRow,
    LinkFailed,
    PathSnapshot,
    SignIn,
    Traveller,
)
from supervisor.waiting import Spawn

NOW = 1_700_000_000.0  # the wall clock at the loop's time 0

P = ParamSpec("P")


class VirtualLoop(asyncio.SelectorEventLoop):
    """When nothing is ready the clock is put forward to the next timer."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready:
            due = [timer.when() for timer in self._scheduled if not timer.cancelled()]
            if not due:
                pytest.fail("everybody waits, and nothing will happen any more")
            self.now = max(self.now, min(due))
        super()._run_once()  # type: ignore[misc]


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(50):
        await asyncio.sleep(0)


class FakeClock:
    """Both clocks of the running loop. `offset` is what somebody set the wall clock by."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> float:
        return NOW + self.monotonic() + self.offset

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass
class FakeTraveller:
    """An account, as the paths know it."""

    name: str = "bot"
    candidates: Sequence[str] = ()
    dc: int | None = None
    is_urgent: bool = False


class FakeRecorder:
    """Keeps everything it is given."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.incidents: list[IncidentRow] = []
        self.paths: list[PathSnapshot] = []
        self.accounts: list[AccountSnapshot] = []
        self.floods: list[FloodRow] = []
        self.sign_ins: list[SignIn] = []

    def record(self, row: Row) -> None:
        self.rows.append(row)

    def incident(self, row: IncidentRow) -> None:
        self.incidents.append(row)

    def path(self, snapshot: PathSnapshot) -> None:
        self.paths.append(snapshot)

    async def save_account(self, snapshot: AccountSnapshot) -> None:
        self.accounts.append(snapshot)

    async def save_flood(self, row: FloodRow) -> None:
        self.floods.append(row)

    async def save_sign_in(self, sign_in: SignIn) -> None:
        self.sign_ins.append(sign_in)

    @property
    def results(self) -> list[Result]:
        """How the recorded failures ended, in order."""
        return [row.outcome for row in self.rows]


@dataclass(eq=False)
class Query:
    """A raw query, as far as `calls` looks at it."""

    name: str = "messages.SendMessage"
    peer: str | None = "user:42"
    random_id: int | None = None
    read_only: bool = False


class RpcError(Exception):
    """Stands for the installed library's exceptions."""


class FloodWait(Exception):
    """Stands for pyrogram's own."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"wait {seconds:g} s")
        self.seconds = seconds


class FakeQueries:
    """Knows `Query`; each new random_id is the next number."""

    def __init__(self) -> None:
        self.drawn = 100

    def method_name(self, query: Query) -> str:
        return query.name

    def peer_key(self, query: Query) -> str | None:
        return query.peer

    def has_random_id(self, query: Query) -> bool:
        return query.random_id is not None

    def is_read_only(self, query: Query) -> bool:
        return query.read_only

    def redraw_random_id(self, query: Query) -> None:
        self.drawn += 1
        query.random_id = self.drawn

    def rpc_evidence(self, code: int, text: str, query: Query, path: str) -> Evidence:
        return Evidence(
            Source.RPC, text, text, code, query.name, query.peer, path=path, traceback="its traceback"
        )

    def rpc_exception(self, code: int, text: str, method: str) -> Exception:
        return RpcError(f"{code} {text} {method}")

    def flood_wait(self, seconds: float, method: str) -> Exception:
        return FloodWait(seconds)


Answer = Any | Exception | Awaitable[Any]


class FakeSender:
    """Answers each query with what the script holds next, else with "ok"; remembers what left, and when."""

    def __init__(self) -> None:
        self.script: deque[Answer] = deque()
        self.sent: list[tuple[float, Query]] = []
        self.drawn: list[int | None] = []
        self.delivered: Answer = None
        self.done_already: Answer = None
        self.asked_done: list[bool] = []

    def answers(self, *script: Answer) -> None:
        self.script.extend(script)

    async def send(self, query: Query) -> Any:
        self.sent.append((asyncio.get_running_loop().time(), query))
        self.drawn.append(query.random_id)
        return await _given(self.script.popleft() if self.script else "ok")

    async def find_delivered(self, query: Query) -> Any | None:
        return await _given(self.delivered)

    async def find_done(self, query: Query, *, repeated: bool) -> Any | None:
        self.asked_done.append(repeated)
        return await _given(self.done_already)

    @property
    def times(self) -> list[float]:
        """When queries left, from the first test second on."""
        return [at - 1000.0 for at, _ in self.sent]

    @property
    def queries(self) -> list[Query]:
        return [query for _, query in self.sent]


async def _given(answer: Answer) -> Any:
    if isinstance(answer, Exception):
        raise answer
    if isinstance(answer, asyncio.Future):
        return await answer
    return answer


def failed(
    source: Source = Source.SOCKET,
    message: str = "connection reset",
    *,
    error_id: str | None = None,
    code: int | None = None,
    method: str | None = None,
    step: str | None = None,
    path: str = "direct",
    context: tuple[tuple[str, str], ...] = (),
) -> LinkFailed:
    """A failed attempt."""
    return LinkFailed(Evidence(source, message, error_id, code, method, None, step, path, context=context))


class FakeClient:
    """Stands for the pyrogram.Client."""

    def __init__(self) -> None:
        self.begun = 0
        self.unknown: deque[Exception] = deque()

    async def learn_me(self) -> None:
        if self.unknown:
            raise self.unknown.popleft()

    async def begin(self) -> None:
        self.begun += 1


class FakeLink(FakeSender):
    """A link whose attempts and proofs end as scripted: LinkFailed, a wait in seconds, or well."""

    def __init__(self) -> None:
        super().__init__()
        self.client: Any = None
        self.user_id: int | None = 7
        self.is_bot: bool | None = True
        self.can_sign_in = True
        self.resent = 0
        self.quiet_since = 0.0
        self.dc: int | None = None
        self.attempts: deque[Exception | float] = deque()
        self.proofs: deque[Exception] = deque()
        self.unprepared: Exception | None = None
        self.signs_in = False
        self.done: list[str] = []
        self.opened: list[float] = []

    async def prepare(
        self, call: Callable[[Any], Awaitable[Any]], turn: Callable[[str], Awaitable[None]]
    ) -> None:
        if self.unprepared is not None:
            raise self.unprepared
        self.client = FakeClient()

    def begin(self, spawn: Spawn) -> None: ...

    def rest(self) -> None: ...

    async def open(self, path: str, before_sign_in: Callable[[], Awaitable[None]]) -> None:
        self.done.append(f"open {path}")
        self.opened.append(asyncio.get_running_loop().time() - 1000.0)
        if self.signs_in:
            await before_sign_in()
            self.done.append("sign in")
        ends = self.attempts.popleft() if self.attempts else 0.0
        if isinstance(ends, Exception):
            raise ends
        await asyncio.sleep(ends)
        self.quiet_since = asyncio.get_running_loop().time()

    async def prove(self, path: str) -> None:
        self.done.append("prove")
        if self.proofs:
            raise self.proofs.popleft()
        self.quiet_since = asyncio.get_running_loop().time()

    async def retire(self, reason: str) -> None:
        self.done.append("retire")

    def close(self) -> None:
        self.done.append("close")

    def give_up(self) -> None:
        self.done.append("give up")

    async def shutdown(self) -> None:
        self.done.append("shutdown")


@dataclass
class FakePaths:
    """Paths that are broken by being named so."""

    broken: set[str] = field(default_factory=set)
    diagnosed: list[str] = field(default_factory=list)
    used: list[tuple[str, str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    slots: list[str] = field(default_factory=list)
    well: list[str] = field(default_factory=list)
    mended: asyncio.Event = field(default_factory=asyncio.Event)

    def assign(self, account: str, candidates: Sequence[str], before: str | None) -> str:
        return before or next(iter(candidates), "direct")

    def use(self, account: str, proxy: str) -> str:
        self.used.append((account, proxy))
        return proxy

    def rotate(self, account: str, candidates: Sequence[str], current: str) -> str:
        return next((name for name in candidates if name != current and name not in self.broken), current)

    def leave(self, account: str) -> None:
        self.left.append(account)

    async def slot(self, who: Traveller, name: str) -> None:
        self.slots.append(name)

    async def turn(self, who: Traveller, name: str) -> None:
        self.slots.append(name)

    def answered(self, who: Traveller, name: str) -> None:
        self.well.append(name)

    def lost(self, who: Traveller, name: str, evidence: Evidence) -> Diagnosis:
        return Diagnosis(broken=False)

    async def diagnose(self, who: Traveller, name: str, failure: Failure) -> Diagnosis:
        self.diagnosed.append(name)
        others = [other for other in who.candidates if other != name]
        return Diagnosis(name in self.broken, any(other not in self.broken for other in others))

    async def back(self, who: Traveller, current: str) -> None:
        await self.mended.wait()

    def works(self, who: Traveller, name: str) -> bool:
        return True
