"""The fault matrix while an account starts: CLIENTS.md 1.1, row by row, over real sockets.

The table is `ROWS`. All rows run at once, each with a daemon and a datacenter of its own, in one event loop that is
watched for leaks and stalls; then each row is judged by itself. Timings are a fifth of the defaults, but for the rows
at full scale.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.model import Account, Secret
from supervisor.daemon import Supervisor
from supervisor.datacenter import Datacenter, Fault, FaultKind
from supervisor.datacenter.rsa import generate
from supervisor.seats import Deaf
from supervisor.telegram.keyexchange import public_key_from_pem
from supervisor.telegram.link import TelegramLink
from supervisor.telegram.session import Timings
from supervisor.telegram.spec import LinkSpec, ServerAddress
from supervisor.telegram.storage import SessionsDb, StorageBroken, export
from supervisor.telegram.storage.rows import Session
from tests.integration.conftest import Fleet, until
from tests.integration.scripted_peers import black_hole, says, serving, tolled
from tests.integration.together import FIFTH, POLICIES, Played, asked_for, play_together
from tests.integration.watch import watched

pytestmark = pytest.mark.timeout(150)

# Most connections within a second; a bare client makes 10 to 1,900.
DIALS = 9
BOT = "bot-0"
HOST = "dc.telegram.test"


# --- the stage ------------------------------------------------------------------------------------


@dataclass
class Story:
    """What became of one row."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    states: set[str] = field(default_factory=set)  # while the fault lasted
    lies: list[dict[str, Any]] = field(default_factory=list)  # looks at `status` that told no truth
    at_end: str = ""  # the state when the fault ended
    retry_in: float | None = None  # and what it said of the next attempt
    back: float | None = None  # seconds from then until online
    dials: int = 0  # most within a second
    imports: int = 0
    early: int = 0


class Stage:
    """A datacenter, one account that starts, and what goes wrong."""

    def __init__(self, row: Row, dc: Datacenter, folder: Path, stack: AsyncExitStack) -> None:
        self.dc = dc
        self.stack = stack
        self.folder = folder
        self.fleet = Fleet(dc, folder, 1, **({} if row.full_scale else FIFTH))
        if not row.full_scale:
            self.fleet.config = replace(self.fleet.config, policies=POLICIES)
        self.bot = self.fleet.bots[0]
        self.port = dc.port
        self.fault = AsyncExitStack()  # closed when the fault ends
        if row.has_session:
            self.fleet.change(BOT, session_string=Secret(self.session()))

    def session(self, key: bytes | None = None) -> str:
        """A session string on which the bot is signed in."""
        kept = Session(
            dc_id=2,
            api_id=12345,
            test_mode=False,
            auth_key=key or self.dc.issue_key(self.bot),
            user_id=self.bot.user_id,
            is_bot=True,
        )
        return export.session_string(BOT, kept)

    def session_file(self) -> Path:
        """The same as a file of Pyrogram's."""
        path = self.folder / "old.session"
        kept = Session(2, None, None, 12345, False, self.dc.issue_key(self.bot), 0, self.bot.user_id, True)
        export.write_session_file(path, kept, {})
        self.fleet.change(BOT, session_file=path)
        return path

    def server(self, **changes: Any) -> None:
        """Configure another server than the datacenter itself."""
        telegram = self.fleet.config.telegram
        assert telegram.server is not None
        server = replace(telegram.server, **changes)
        self.fleet.config = replace(self.fleet.config, telegram=replace(telegram, server=server))
        self.port = server.port

    def breaks(self, kind: FaultKind, method: str, count: int | None = None, **what: Any) -> None:
        """Have a method of the bot's fail."""
        fault = self.dc.faults.add(Fault(kind, self.bot.user_id, method, count, **what))
        self.fault.callback(self.dc.faults.remove, fault)

    @property
    def look(self) -> dict[str, Any]:
        return self.fleet.account(BOT)


class Dials:
    """Every TCP connection that was begun, by port: also those that nobody accepts."""

    def __init__(self) -> None:
        self.at: dict[int, list[float]] = {}

    @contextmanager
    def counted(self) -> Iterator[Dials]:
        """Count, for the length of a block."""
        connect = asyncio.SelectorEventLoop.sock_connect

        async def counting(loop: Any, sock: socket.socket, address: Any) -> None:
            self.at.setdefault(address[1], []).append(time.monotonic())
            await connect(loop, sock, address)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.SelectorEventLoop, "sock_connect", counting)
            yield self

    def peak(self, port: int) -> int:
        """The most within one second."""
        times = self.at.get(port, [])
        return max((sum(at <= other < at + 1.0 for other in times) for at in times), default=0)


# --- the faults -----------------------------------------------------------------------------------

Break = Callable[[Stage], Awaitable[None]]


async def refused(stage: Stage) -> None:
    await stage.dc.go_away()
    stage.fault.push_async_callback(stage.dc.come_back)


async def unknown_name(stage: Stage) -> None:
    """The resolver answers as it does for a name that is not there, then with our address."""
    stage.server(host=HOST)
    lookup = socket.getaddrinfo
    known = False

    def resolver(host: Any, *args: Any, **options: Any) -> Any:
        if host == HOST and not known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return lookup("127.0.0.1" if host == HOST else host, *args, **options)

    def learn() -> None:
        nonlocal known
        known = True

    socket.getaddrinfo = resolver
    stage.fault.callback(learn)
    stage.stack.callback(setattr, socket, "getaddrinfo", lookup)


async def swallowed(stage: Stage) -> None:
    """No SYN-ACK."""
    await stage.dc.go_away()
    stage.fault.push_async_callback(stage.dc.come_back)
    stage.fault.enter_context(black_hole(stage.dc.port))


async def hung_up(stage: Stage) -> None:
    """Accepts, and closes at once."""

    async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    await stage.dc.go_away()
    stage.fault.push_async_callback(stage.dc.come_back)
    await stage.fault.enter_async_context(serving(close, stage.dc.port))


async def silent(stage: Stage) -> None:
    """Accepts, and says nothing."""
    await stage.dc.go_away()
    stage.fault.push_async_callback(stage.dc.come_back)
    await stage.fault.enter_async_context(serving(says(then="hang"), stage.dc.port))


async def slow(stage: Stage) -> None:
    """A round trip takes 3 s."""
    stage.dc.latency = 3.0


async def another_rsa_key(stage: Stage) -> None:
    key = await asyncio.to_thread(generate, random.SystemRandom())
    stage.server(public_key=key.pem)


_HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement)
print("locked", flush=True)
input()
"""


@asynccontextmanager
async def locked_by_another(path: Path, *statements: str) -> AsyncIterator[None]:
    """Another program has the database open, and has executed these."""
    holder = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-c", _HOLDER, str(path), *statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert await asyncio.to_thread(holder.stdout.readline) == b"locked\n"
    try:
        yield
    finally:
        await asyncio.to_thread(holder.communicate, b"\n", 10)


async def session_file_locked(stage: Stage) -> None:
    """A client that runs holds the session file open, with a transaction begun."""
    path = stage.session_file()
    await stage.fault.enter_async_context(locked_by_another(path, "BEGIN IMMEDIATE"))


async def sessions_locked(stage: Stage) -> None:
    """A sqlite3 shell, say, holds a transaction on sessions.db: it can be read, and not be written."""
    path = stage.fleet.config.settings.state_dir / "sessions.db"
    await (await SessionsDb.open(path)).close()
    await stage.fault.enter_async_context(locked_by_another(path, "BEGIN IMMEDIATE"))


def spoiled(content: bytes) -> Break:
    """The session file holds this instead; then it is restored from a backup."""

    async def spoil(stage: Stage) -> None:
        path = stage.session_file()
        good = path.read_bytes()
        path.write_bytes(content if not content or content != b"cut" else good[: len(good) // 2])
        stage.fault.callback(path.write_bytes, good)

    return spoil


async def short_key(stage: Stage) -> None:
    """A session string whose key was shorter, and padded."""
    stage.fleet.change(BOT, session_string=Secret(stage.session(b"k" * 128 + bytes(128))))


async def nobody_signed_in(stage: Stage) -> None:
    stage.fleet.config = replace(
        stage.fleet.config, accounts={BOT: Account(BOT, phone=Secret("+4915112345678"))}
    )


def transport(code: int) -> Break:
    """Every packet is answered with 4 bytes."""

    async def answer(stage: Stage) -> None:
        stage.fault.callback(stage.dc.faults.remove, stage.dc.transport_error(code))

    return answer


async def key_lost(stage: Stage) -> None:
    """The datacenter does not know the key; it does not come to know it again."""
    stage.dc.forget_keys()


def stopped_at(packet: int, then: str, times: int = 2) -> Break:
    """The client's packet of this number does not get through; 1 to 3 are the key exchange."""

    async def stop(stage: Stage) -> None:
        left = [times]
        port = await stage.stack.enter_async_context(serving(tolled(stage.dc.port, packet, then, left)))
        stage.server(port=port)

    return stop


def answered(method: str, code: int, error: str, count: int | None) -> Break:
    """Telegram answers with an error."""

    async def answer(stage: Stage) -> None:
        stage.breaks(FaultKind.RPC_ERROR, method, count, code=code, error=error)

    return answer


def lost(method: str, kind: FaultKind, count: int | None) -> Break:
    """No answer comes, or the connection is lost."""

    async def lose(stage: Stage) -> None:
        stage.breaks(kind, method, count)

    return lose


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One fault. What is expected: the first row of the record, and the states that `status` may tell meanwhile.

    A fault that `passes` ends by itself; else the row ends it after `lasts` seconds of failing. What cannot come back
    by itself is brought back `by_hand`: by `tg-supervisor retry`.
    """

    id: str
    hides: str  # the row of CLIENTS.md, and how it hides the fault
    fault: Break
    says: str = ""  # a pattern; {port} is the server's. Empty: nothing is recorded at all
    kind: str = "connection"
    action: str = "reconnect"
    states: frozenset[str] = frozenset({"starting", "recovering"})
    at_end: str = "recovering"
    error_id: str | None = None
    has_session: bool = False
    passes: bool = False
    lasts: float = 2.2
    by_hand: bool = False
    within: float = (
        6.0  # seconds until it is online: from the end of the fault, or from the start if it passes
    )
    imports: int | None = None  # sign-ins
    full_scale: bool = False
    dials: int = DIALS


_GIVEN_UP = frozenset({"starting", "failed"})
_AT_THE_CAP = frozenset({"starting", "recovering", "suspended"})
_EXCHANGE = ("req_pq_multi", "req_DH_params", "set_client_DH_params")
_START = "1.1 refused, DNS, timeout: the OSError is swallowed, nineteen dials in 25 s"
_CODES = "1.1 -404 / -429, -444: again every 2 s for ever, or True and nothing behind it"
_RPC = "1.1 RPC error to Ping/InitConnection: all but one retried at once for ever, 280-500 a second"
_STATE = "1.1 RPC error to first GetState: disconnects, raises"
_AUTH = "1.1 Auth.create: lost packet, -404, -429 all become KeyError: 0"
_FILES = "1.1 db locked / corrupt / 0 bytes / truncated / bad string"


def _stopped(number: int) -> Iterator[Row]:
    name = _EXCHANGE[number - 1]
    gone = r"connection reset by 127\.0\.0\.1:{port}"
    yield Row(f"{name}-dropped", _AUTH, stopped_at(number, "reset"), gone, passes=True)
    none = f"key exchange: no answer to {name} in 2 s"
    yield Row(f"{name}-silent", _AUTH, stopped_at(number, "silent"), none, passes=True, within=8)
    yield Row(f"{name}-404", _AUTH, stopped_at(number, "-404"), "transport -404", passes=True)


def _refused_with(method: str, hides: str, inside: str | None = None) -> Iterator[Row]:
    """Where `method` is a wrapper the error is that of the query inside it."""

    def row(code: int, error: str, count: int | None, kind: str, action: str, **more: Any) -> Row:
        said = re.escape(f"[{code} {error}] from {inside or method}")
        fault = answered(method, code, error, count)
        return Row(f"{method}-{code}", hides, fault, said, kind, action, has_session=True, **more)

    yield row(
        401, "SESSION_REVOKED", 1, "auth", "relogin", passes=True, imports=1, error_id="SESSION_REVOKED"
    )
    yield row(
        406,
        "AUTH_KEY_DUPLICATED",
        1,
        "auth",
        "relogin",
        passes=True,
        imports=1,
        error_id="AUTH_KEY_DUPLICATED",
    )
    yield row(
        420,
        "FLOOD_WAIT_2",
        1,
        "flood_wait",
        "wait",
        passes=True,
        imports=0,
        error_id="FLOOD_WAIT_X",
        within=6,
    )
    yield row(500, "RPC_CALL_FAIL", 2, "temporary", "retry", passes=True, imports=0, error_id="RPC_CALL_FAIL")
    yield row(
        400,
        "CONNECTION_DEVICE_MODEL_EMPTY",
        None,
        "permanent",
        "fail",
        states=_GIVEN_UP,
        at_end="failed",
        by_hand=True,
        lasts=1.0,
        imports=0,
    )


ROWS: tuple[Row, ...] = (
    Row("refused", _START, refused, r"connection refused 127\.0\.0\.1:{port}"),
    Row("unknown-name", _START, unknown_name, r"name not known: dc\.telegram\.test"),
    Row(
        "black-hole",
        "1.1 black hole: 10 s a dial, then the same",
        swallowed,
        r"timed out after 2 s: TCP to 127\.0\.0\.1:{port}",
        within=6,
    ),
    Row(
        "accepts-and-closes",
        "1.1 accepts, then closes: 960 to 1,900 connects a second",
        hung_up,
        r"connection closed by 127\.0\.0\.1:{port}|connection reset by 127\.0\.0\.1:{port}",
    ),
    Row(
        "accepts-and-stays-silent",
        "1.1 accepts, silent: never starts, ten connects in 20 s",
        silent,
        "key exchange: no answer to req_pq_multi in 2 s",
        within=6,
    ),
    Row("new-key-404", _CODES, transport(-404), "transport -404"),
    Row(
        "new-key-429",
        _CODES,
        transport(-429),
        "transport -429",
        "rate_limit",
        "wait",
        within=8,
    ),
    Row(
        "new-key-444",
        _CODES,
        transport(-444),
        "transport -444",
        "permanent",
        "fail",
        states=_GIVEN_UP,
        at_end="failed",
        by_hand=True,
    ),
    Row(
        "key-lost",
        _CODES,
        key_lost,
        "transport -404",
        has_session=True,
        passes=True,
        imports=1,
        within=6,
    ),
    Row(
        "session-429",
        _CODES,
        transport(-429),
        "transport -429",
        "rate_limit",
        "wait",
        has_session=True,
        within=8,
        imports=0,
    ),
    Row(
        "session-444",
        _CODES,
        transport(-444),
        "transport -444",
        "permanent",
        "fail",
        states=_GIVEN_UP,
        at_end="failed",
        by_hand=True,
        has_session=True,
        imports=0,
    ),
    *(row for number in (1, 2, 3) for row in _stopped(number)),
    *_refused_with("Ping", _RPC),
    *_refused_with("InitConnection", _RPC, "updates.GetState"),
    *_refused_with("updates.GetState", _STATE),
    Row(
        "Ping-silent",
        "1.1 accepts, silent",
        lost("Ping", FaultKind.SILENCE, None),
        "no pong in 2 s",
        has_session=True,
        lasts=1.0,
        within=8,
        imports=0,
    ),
    Row(
        "InitConnection-silent",
        "1.1 accepts, silent",
        lost("InitConnection", FaultKind.SILENCE, 1),
        "no answer to updates.GetState in 3 s",
        has_session=True,
        passes=True,
        within=8,
        imports=0,
    ),
    Row(
        "GetState-lost",
        _STATE,
        lost("updates.GetState", FaultKind.DROP_AFTER, 2),
        r"connection reset by 127\.0\.0\.1:{port}",
        has_session=True,
        passes=True,
        imports=0,
    ),
    Row(
        "wrong-rsa-key",
        "1.1 Auth.create: six tries, then ConnectionError or KeyError: 0",
        another_rsa_key,
        "key exchange: the server's key is not the configured one",
        "permanent",
        "fail",
        states=_GIVEN_UP,
        at_end="failed",
        error_id="SERVER_KEY_UNKNOWN",
        within=0,
        lasts=1.0,
    ),
    Row(
        "session-file-locked",
        _FILES,
        session_file_locked,
        "is locked by another program",
        "temporary",
        "retry",
        error_id="SQLITE_BUSY",
        lasts=0.5,
        imports=0,
    ),
    Row(
        "sessions-db-locked",
        _FILES,
        sessions_locked,
        "is locked by another program",
        "temporary",
        "retry",
        error_id="SQLITE_BUSY",
        lasts=0.5,
        imports=1,
    ),
    Row(
        "session-file-cut",
        _FILES,
        spoiled(b"cut"),
        "is damaged or cut short",
        "permanent",
        "fail",
        states=_GIVEN_UP,
        at_end="failed",
        by_hand=True,
        error_id="SESSION_INVALID",
        imports=0,
    ),
    Row(
        "session-file-empty",
        _FILES,
        spoiled(b""),
        "is empty: it never held a session, or was cut",
        "permanent",
        "fail",
        states=_GIVEN_UP,
        at_end="failed",
        by_hand=True,
        error_id="SESSION_INVALID",
        imports=0,
    ),
    Row(
        "short-auth-key",
        _FILES + "; short auth_key: not noticed, hangs",
        short_key,
        "the session string holds a key of 128 bytes instead of 256",
        "permanent",
        "fail",
        states=_GIVEN_UP,
        at_end="failed",
        error_id="SESSION_INVALID",
        within=0,
        imports=0,
        lasts=0.5,
        dials=0,
    ),
    Row(
        "login-needed",
        "1.1 login needed: input() in authorize(); cancelling freezes the loop until a line arrives",
        nobody_signed_in,
        "nobody is signed in; run: tg-supervisor login bot-0",
        "auth",
        "fail",
        states=frozenset({"starting", "needs_login"}),
        at_end="needs_login",
        error_id="LOGIN_REQUIRED",
        within=0,
        imports=0,
        lasts=0.5,
        dials=0,
    ),
    # at full scale
    Row(
        "refused-at-full-scale",
        _START,
        refused,
        r"connection refused 127\.0\.0\.1:{port}",
        full_scale=True,
        lasts=4.0,
        dials=4,
    ),
    Row(
        "silent-at-full-scale",
        "1.1 accepts, silent",
        silent,
        "key exchange: no answer to req_pq_multi in 10 s",
        full_scale=True,
        lasts=3.0,
        within=14,
        dials=2,
    ),
    Row(
        "latency-of-3-s-at-full-scale",
        "1.1 latency > 2 s: START_TIMEOUT is 2, it never starts",
        slow,
        states=frozenset({"starting"}),
        at_end="starting",
        full_scale=True,
        passes=True,
        within=40,
        dials=1,
        imports=1,
    ),
)


# --- the run --------------------------------------------------------------------------------------


async def play(row: Row, folder: Path, dials: Dials) -> Story:
    """Start an account into a fault, look at it all the time, end the fault, see it come back."""
    story = Story()
    async with Datacenter(latency=0.01) as dc, AsyncExitStack() as stack:
        stage = Stage(row, dc, folder, stack)
        await row.fault(stage)
        stack.push_async_callback(stage.fault.aclose)
        await _run(row, stage, story)
        story.dials = dials.peak(stage.port)
        story.imports = dc.seen.count("auth.ImportBotAuthorization")
        story.early = len(dc.seen.early_calls)
    return story


async def _run(row: Row, stage: Stage, story: Story) -> None:
    async with Supervisor(stage.fleet.config) as sup:
        stage.fleet.sup = sup
        looking = asyncio.create_task(_look(stage, story), name="look")
        try:
            if not row.passes:
                await until(lambda: stage.look["last_failure"], 25, f"{row.id}: a failure")
                await asyncio.sleep(row.lasts)
                story.at_end = stage.look["state"]
                story.retry_in = _ahead(stage.look["retry_at"])
                looking.cancel()
                await stage.fault.aclose()
            if row.by_hand:
                await sup.retry([BOT])
            if row.within:
                begun = time.monotonic()
                await until(lambda: stage.look["state"] == "online", row.within + 10, f"{row.id}: online")
                story.back = time.monotonic() - begun
                client = await sup.client(BOT)
                assert (await client.get_me()).id == stage.bot.user_id
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
        story.rows = await stage.fleet.rows()


async def _look(stage: Stage, story: Story) -> None:
    while True:
        look = stage.look
        story.states.add(look["state"])
        failed = look["last_failure"] is not None
        told = {
            "online": stage.dc.seen.count("updates.GetState") > 0,
            "stopped": not failed,  # for as long as it takes to begin
            "starting": not failed,
            "recovering": failed and look["incident"] is not None,
            "suspended": failed and look["incident"] is not None and look["retry_at"] is not None,
            "failed": failed and look["incident"] is None,
            "needs_login": failed,
        }
        if not told[look["state"]]:
            story.lies.append(look)
        await asyncio.sleep(0.02)


def _ahead(at: str | None) -> float | None:
    return None if at is None else datetime.fromisoformat(at).timestamp() - time.time()


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """What became of the rows that are asked for; those at full scale begin first."""
    dials = Dials()

    def play_row(row: Row) -> Callable[[], Awaitable[Story]]:
        return lambda: play(row, tmp_path_factory.mktemp("row"), dials)

    rows = sorted(asked_for(request, ROWS), key=lambda row: not row.full_scale)
    with dials.counted():
        yield play_together({row.id: play_row(row) for row in rows})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_start_meets(row: Row, played: Played) -> None:
    """The record names the true cause in one incident, `status` is true at every look, and it comes back."""
    story: Story = played.of(row.id)
    assert not story.lies
    assert story.states - {"stopped"} <= row.states | ({"online"} if row.passes else set()), row.hides
    assert row.passes or story.at_end == row.at_end
    assert story.dials <= row.dials
    assert not story.early
    assert row.imports in (None, story.imports)
    if row.within:
        assert story.back is not None
        assert story.back <= row.within + (story.retry_in or 0.0)
    _judge_record(row, story)


def _judge_record(row: Row, story: Story) -> None:
    rows = story.rows
    if not row.says:
        assert rows == []
        return
    first = rows[0]
    pattern = row.says.replace("{port}", r"\d+")
    assert re.search(pattern, first["message"]), first
    assert (first["kind"], first["action"]) == (row.kind, row.action), first
    assert row.error_id in (None, first["error_id"])
    assert len({each["incident"] for each in rows}) == 1, rows
    came_back = bool(row.within and not row.by_hand)
    assert [each["outcome"] for each in rows].count("recovered") == came_back
    assert (rows[-1]["outcome"] == "recovered") == came_back


def test_nothing_of_it_stays_and_nothing_blocks(played: Played) -> None:
    """After all of it: no task, thread or file more, no stray exception, no loop iteration above 100 ms of CPU."""
    played.judge_watch()


# --- the daemon's own database --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"no database at all, but long enough to look at" * 40, "is damaged"), (None, "is locked")],
)
async def test_a_daemon_whose_sessions_cannot_be_read_does_not_start(
    dc: Datacenter, tmp_path: Path, content: bytes | None, says: str
) -> None:
    """sessions.db damaged or locked (CLIENTS.md 1.1, db locked / corrupt): said at once, nothing touched, nothing left."""
    fleet = Fleet(dc, tmp_path, 1)
    path = fleet.config.settings.state_dir / "sessions.db"
    async with watched(), AsyncExitStack() as stack:
        async with Supervisor(fleet.config) as sup:
            await sup.client(BOT)
        good = path.read_bytes()
        if content is None:
            taken = "PRAGMA locking_mode = EXCLUSIVE", "BEGIN IMMEDIATE"
            await stack.enter_async_context(locked_by_another(path, *taken))
        else:
            path.write_bytes(content)
        spoiled_bytes = path.read_bytes()
        begun = time.monotonic()
        with pytest.raises(StorageBroken, match=says):
            async with Supervisor(fleet.config):
                pass
        assert time.monotonic() - begun < 10
        assert path.read_bytes() == spoiled_bytes
        await stack.aclose()
        path.write_bytes(good)
        async with Supervisor(fleet.config) as sup:
            await sup.client(BOT)
    assert dc.seen.sign_ins[fleet.bots[0].user_id] == 1


async def test_an_empty_sessions_file_is_begun_anew(dc: Datacenter, tmp_path: Path) -> None:
    """sessions.db of 0 bytes holds nothing to lose: it is made anew, and the bot signs in (CLIENTS.md 1.1, 0 bytes)."""
    fleet = Fleet(dc, tmp_path, 1)
    path = fleet.config.settings.state_dir / "sessions.db"
    path.parent.mkdir(mode=0o700)
    path.touch()
    async with watched(), fleet.running():
        assert fleet.state() == "online"
    assert dc.seen.sign_ins[fleet.bots[0].user_id] == 1


# --- called off in its middle ---------------------------------------------------------------------


class At:
    """An awaitable that cancels its own task at its n-th wait: before the wait (`late` false), or when it is over."""

    def __init__(self, work: Coroutine[Any, Any, Any], number: int, *, late: bool) -> None:
        self._work = work
        self._number = number
        self._late = late
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        task = asyncio.current_task()
        assert task is not None
        step: Any = functools.partial(next, steps)
        while True:
            try:
                waited_for = step()
            except StopIteration as done:
                return done.value
            self.waits += 1
            if self.waits == self._number:
                if self._late and waited_for is not None:
                    waited_for.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            try:
                yield waited_for
            except BaseException as error:
                step = functools.partial(steps.throw, error)
            else:
                step = functools.partial(next, steps)


class Links:
    """Links of one account, one after another, on a storage of their own."""

    def __init__(self, dc: Datacenter, folder: Path) -> None:
        self.dc = dc
        self.folder = folder
        self.bots = 0

    @asynccontextmanager
    async def one(self, *, has_key: bool) -> AsyncIterator[TelegramLink]:
        """A link that is ready to be opened."""
        self.bots += 1
        bot = self.dc.add_bot()
        db = await SessionsDb.open(self.folder / f"{self.bots}.db")
        session = Session(2, None, None, 12345, False, self.dc.issue_key(bot), 0, bot.user_id, True)
        server = ServerAddress(self.dc.host, self.dc.port, 2, public_key_from_pem(self.dc.public_key_pem))
        spec = LinkSpec(
            f"bot-{self.bots}",
            f"bot:{bot.user_id}",
            12345,
            "a" * 32,
            bot_token=bot.token,
            session_string=export.session_string("bot", session) if has_key else None,
            server=server,
            timings=Timings(2.0, 3.0, 2.0),
        )
        link = TelegramLink(spec, db, Deaf(), lambda _: None)
        try:
            await link.prepare(_no_call)
            yield link
        finally:
            await link.shutdown()
            await db.close()


async def _no_call(_query: Any) -> Any:
    raise AssertionError("no call is made here")


async def _allowed() -> None:
    """A sign-in may leave."""


@pytest.mark.parametrize("late", [False, True], ids=["while-waiting", "with-the-answer"])
@pytest.mark.parametrize("has_key", [False, True], ids=["new-key", "session"])
async def test_a_start_can_be_called_off_at_every_wait(tmp_path: Path, has_key: bool, late: bool) -> None:
    """Cancelled at its first, second … last wait: the socket is closed, nothing is left, and the next one succeeds."""
    heard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: heard.append(str(told)))
    waits = number = 0
    async with Datacenter() as dc:
        links = Links(dc, tmp_path)
        async with links.one(has_key=has_key) as link:  # what is made once in a process is made now
            await link.open("direct", _allowed)
        async with watched():
            while waits >= number:
                number += 1
                async with links.one(has_key=has_key) as link:
                    waits = await _called_off(link, number, late=late)
                    if waits >= number:
                        await until(lambda: dc.seen.open_connections == 0, 2, f"closed, wait {number}")
                    await link.open("direct", _allowed)
                    assert link.user_id is not None
                await until(lambda: dc.seen.open_connections == 0, 2, "closed")
        gc.collect()
        assert max(dc.seen.sign_ins.values(), default=1) == 1
    assert number > (4 if has_key else 15)
    assert not heard


async def _called_off(link: TelegramLink, number: int, *, late: bool) -> int:
    """Open a link, and cancel that at one of its waits; give how many there were."""
    opening = At(link.open("direct", _allowed), number, late=late)
    with suppress(asyncio.CancelledError):
        await asyncio.create_task(_awaited(opening), name="opening")
    return opening.waits


async def _awaited(work: At) -> Any:
    return await work


@pytest.mark.parametrize("has_key", [False, True], ids=["new-key", "session"])
async def test_a_daemon_can_be_stopped_in_the_middle_of_a_start(tmp_path: Path, has_key: bool) -> None:
    """Stopped 0, 15, 30 … ms after its start: it ends within a second, nothing is left, and the next one is online."""
    heard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: heard.append(str(told)))
    async with Datacenter(latency=0.02) as dc, AsyncExitStack() as stack:
        row = Row("stopped", "1.1 start() cancelled: socket and recv task left", slow, has_session=has_key)
        stage = Stage(row, dc, tmp_path, stack)
        async with watched():
            for turn in range(16):
                async with Supervisor(stage.fleet.config):
                    await asyncio.sleep(0.015 * turn)
                    begun = time.monotonic()
                assert time.monotonic() - begun < 1.0, turn
                await until(lambda: dc.seen.open_connections == 0, 2, f"closed, turn {turn}")
            async with stage.fleet.running() as sup:
                assert (await (await sup.client(BOT)).get_me()).id == stage.bot.user_id
        gc.collect()
        assert dc.seen.sign_ins[stage.bot.user_id] == (0 if has_key else 1)
    assert not heard


@pytest.mark.parametrize("has_session", [False, True], ids=["new-key", "session-of-another-number"])
async def test_a_server_of_ones_own_is_all_that_is_dialled(tmp_path: Path, has_session: bool) -> None:
    """With [telegram.server] nothing goes to Telegram's own addresses, whatever its number and the session's are."""
    async with Datacenter(dc_id=4) as dc, AsyncExitStack() as stack:
        stage = Stage(Row("own", "", slow, has_session=has_session), dc, tmp_path, stack)
        with Dials().counted() as dials:
            async with stage.fleet.running():
                assert stage.look["user_id"] == stage.bot.user_id
        assert set(dials.at) == {dc.port}
