"""What may go wrong with a proxy, for each kind of proxy: told truly, left or waited for, never gone around.

Every row of the tables below is an account of its own, with a proxy of its own that fails in one way while the account
sends; once with another proxy in its pool, once without. All rows of a kind run in one supervisor, beside an account
that has nothing to do with any of it. The server is known by a name that only the proxies can look up.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.model import Proxy, Secret
from supervisor.daemon import Supervisor
from supervisor.datacenter import Datacenter
from supervisor.telegram import dial
from tests.integration.conftest import Call, Fleet, until
from tests.integration.scripted_peers import Fault, StagedProxy
from tests.integration.watch import one_incident, watched

pytestmark = pytest.mark.timeout(90)

HOST = "dc.test"  # a name reserved for tests; no resolver knows it
SCHEMES = ("socks5", "socks4", "http")
LOGIN = ("user", "pr0xy-pa55")
FIFTH: dict[str, Any] = {
    "connect_timeout": 2.0,
    "answer_timeout": 3.0,
    "silence_timeout": 2.0,
    "stable_after": 12.0,
}


@dataclass(frozen=True)
class Row:
    """One fault, and what has to be said of it; `{}` stands for host and port of the proxy."""

    fault: Fault | None
    said: str
    refuses: bool = False  # it will not have us: it is asked seldom


def rows_of(scheme: str, **own: Row) -> dict[str, Row]:
    """The rows of one kind of proxy: those that all have, and its own."""
    hangs = f"timed out after 2 s: {scheme} handshake with {{}}"
    closed = "closed the connection in the handshake"
    return {
        "refused": Row(None, "connection refused {}"),
        "closes in greeting": Row(Fault("greeting", "close"), closed),
        "resets in greeting": Row(Fault("greeting", "reset"), "connection reset by {}"),
        "hangs in greeting": Row(Fault("greeting", "hang"), hangs),
        "hangs after the request": Row(Fault("request", "hang"), hangs),
        "closes after the request": Row(Fault("request", "close"), closed),
        "hangs in the tunnel": Row(Fault("tunnel", "hang"), "nothing came from the link"),
        **{name.replace("_", " "): row for name, row in own.items()},
    }


def socks5(code: int) -> Fault:
    return Fault("request", bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0)))


def socks4(code: int) -> Fault:
    return Fault("request", bytes((0, code, 0, 0, 0, 0, 0, 0)))


def http(line: str) -> Fault:
    return Fault("request", f"HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n".encode())


KINDS = {
    "socks5": rows_of(
        "socks5",
        wrong_password=Row(Fault("login", b"\x01\x01"), "wrong user or password", refuses=True),
        no_method=Row(Fault("greeting", b"\x05\xff"), "no acceptable authentication method", refuses=True),
        hangs_after_the_login=Row(Fault("login", "hang"), "timed out after 2 s: socks5 handshake with {}"),
        general_failure=Row(socks5(1), "socks reply 1 (general SOCKS server failure)"),
        ruleset=Row(socks5(2), "socks reply 2 (connection not allowed by ruleset)"),
        network_unreachable=Row(socks5(3), "socks reply 3 (network unreachable)"),
        host_unreachable=Row(socks5(4), "socks reply 4 (host unreachable)"),
        target_refused=Row(socks5(5), "socks reply 5 (connection refused by destination host)"),
        garbage=Row(Fault("greeting", b"\xca\xfe" * 50), "Unexpected SOCKS version number: 202"),
        garbage_later=Row(Fault("request", b"\xca\xfe" * 50), "Unexpected SOCKS version number: 0XCA"),
    ),
    "socks4": rows_of(
        "socks4",
        rejected=Row(socks4(0x5B), "socks reply 91 (request rejected or failed)"),
        no_identd=Row(socks4(0x5C), "socks reply 92 (request rejected because", refuses=True),
        other_identity=Row(socks4(0x5D), "socks reply 93 (request rejected because", refuses=True),
        garbage=Row(Fault("request", b"\xca\xfe" * 50), "Unexpected reply version: 0XCA"),
    ),
    "http": rows_of(
        "http",
        wrong_password=Row(
            http("407 Proxy Authentication Required"),
            "http reply 407 (Proxy Authentication Required)",
            refuses=True,
        ),
        forbidden=Row(http("403 Forbidden"), "http reply 403 (Forbidden)"),
        bad_gateway=Row(http("502 Bad Gateway"), "http reply 502 (Bad Gateway)"),
        unavailable=Row(http("503 Service Unavailable"), "http reply 503 (Service Unavailable)"),
        gateway_timeout=Row(http("504 Gateway Timeout"), "http reply 504 (Gateway Timeout)"),
        garbage=Row(Fault("request", b"\xca\xfe" * 50 + b"\r\n\r\n"), "no HTTP reply"),
        half_a_reply=Row(
            Fault("request", b"HTTP/1.1 200 OK\r\n", "hang"), "timed out after 2 s: http handshake with {}"
        ),
        endless_headers=Row(Fault("request", "flood"), "no HTTP reply"),
    ),
}


@dataclass
class Case:
    """One row on one account."""

    name: str
    row: Row
    account: str
    bad: StagedProxy
    good: StagedProxy | None
    load: asyncio.Task[list[Call]] | None = None
    wrong: list[str] = field(default_factory=list)

    @property
    def home(self) -> str:
        """Its failing proxy's name."""
        return f"{self.account}-bad"

    @property
    def good_name(self) -> str:
        """Its other proxy's name."""
        return f"{self.account}-good"

    @property
    def comes_back(self) -> bool:
        """Whether it is online again within the test: who is refused is asked again after a minute only."""
        return self.good is not None or not self.row.refuses

    def hold(self, true: object, what: object) -> None:
        """Note what is not as it should be."""
        if not true:
            self.wrong.append(f"{self.name}: {what}")

    async def judge_calls(self, struck: float, healed: float) -> None:
        """No call fails; each is answered soon after the fault is gone, or gone around."""
        if self.load is None:
            return
        hangs = self.row.fault is not None and "hang" in (self.row.fault.act, self.row.fault.then)
        moved = struck + (5.0 if hangs else 3.0)  # an attempt at connect_timeout, or silence_timeout
        bound = moved if self.good is not None else healed + 3.0
        calls = await self.load
        self.hold(not [call for call in calls if call.error], [call.error for call in calls if call.error])
        late = max(call.at + call.took for call in calls) - bound
        self.hold(late < 0, f"the last call was answered {late:.1f} s late")

    def judge_rows(self, rows: list[dict[str, Any]], struck: float, healed: float) -> None:
        """One incident, which says what happened, and did the right thing."""
        mine = one_incident(rows, self.account)
        said = self.row.said.format(f"127.0.0.1:{self.bad.port}")
        told = [row for row in mine if row["kind"] == "proxy" and said in row["message"]]
        self.hold(told, [row["message"] for row in mine])
        self.hold({row["action"] for row in told} <= {"rotate_proxy"}, [row["action"] for row in told])
        self.hold({row["path"] for row in told[:1]} == {self.home}, [row["path"] for row in told])
        if self.row.fault is not None and self.row.fault.stage != "tunnel":
            named = [cause for row in told for cause in row["cause"] if said in cause]
            self.hold(named, [row["cause"] for row in told])
        outcomes = [row["outcome"] for row in mine]
        self.hold(outcomes[-1] == ("recovered" if self.comes_back else "retrying"), outcomes)
        self.hold(set(outcomes[:-1]) == {"retrying"}, outcomes)
        knocked = [at for at in self.bad.accepted if struck < at < healed]
        busiest = max((sum(at <= other < at + 1.0 for other in knocked) for at in knocked), default=0)
        self.hold(busiest <= 3, f"{busiest} connections to the proxy within a second")
        if self.row.refuses:
            self.hold(len(knocked) <= 2, f"{len(knocked)} connections to a proxy that will not have us")


def at(name: str, scheme: Any, port: int) -> Proxy:
    return Proxy(name, scheme, "127.0.0.1", port, LOGIN[0], Secret(LOGIN[1]))


def configured(name: str, proxy: StagedProxy) -> Proxy:
    return at(name, proxy.scheme, proxy.port)


class Stage:
    """A fleet of cases and a bystander, each behind proxies of its own."""

    def __init__(self, dc: Datacenter, directory: Path, scheme: str, rows: dict[str, Row]) -> None:
        self.dc, self.scheme = dc, scheme
        # So many proxies break at once that three probes a second would leave each waiting for its turn.
        self.fleet = Fleet(dc, directory, 2 * len(rows) + 1, **FIFTH | {"probe_budget": 60})
        server = self.fleet.config.telegram.server
        assert server is not None
        telegram = replace(self.fleet.config.telegram, server=replace(server, host=HOST))
        self.fleet.config = replace(self.fleet.config, telegram=telegram)
        self.cases: list[Case] = []
        names = iter(self.fleet.names)
        for name, row in rows.items():
            for pool in (True, False):
                good = self.proxy() if pool else None
                told = f"{scheme}, {name}, {'with another' if pool else 'alone'}"
                self.cases.append(Case(told, row, next(names), self.proxy(), good))
        self.bystander, self.quiet = next(names), self.proxy()

    def proxy(self) -> StagedProxy:
        return StagedProxy(self.scheme, {HOST: (self.dc.host, self.dc.port)}, LOGIN)

    @property
    def proxies(self) -> list[StagedProxy]:
        """All of them."""
        good = [case.good for case in self.cases if case.good is not None]
        return [*(case.bad for case in self.cases), *good, self.quiet]

    def configure(self) -> None:
        """Give each account its proxies."""
        known: dict[str, Proxy] = {}
        for case in self.cases:
            mine = {case.home: case.bad} | ({case.good_name: case.good} if case.good else {})
            known |= {name: configured(name, proxy) for name, proxy in mine.items()}
            self.fleet.change(case.account, proxies=tuple(mine))
        known["quiet"] = configured("quiet", self.quiet)
        self.fleet.change(self.bystander, proxies=("quiet",))
        self.fleet.config = replace(self.fleet.config, proxies=known)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the proxies, then the supervisor with every account online; stop them the other way round."""
        async with AsyncExitStack() as stack:
            for proxy in self.proxies:
                await proxy.start()
                stack.push_async_callback(proxy.close)
            self.configure()
            await stack.enter_async_context(self.fleet.running())
            yield


OUTAGE = 4.8  # seconds; enough for an attempt and a probe that both hang


@pytest.mark.parametrize("scheme", KINDS)
async def test_every_fault_of_a_proxy(
    scheme: str,
    dc: Datacenter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each is named truly, in one incident; left for the other proxy or waited for; and harms nobody else."""
    looked_up: list[str] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", _noting(looked_up, loop.getaddrinfo))
    async with watched():
        stage = Stage(dc, tmp_path, scheme, KINDS[scheme])
        fleet, cases = stage.fleet, stage.cases
        async with stage.running():
            bystander = asyncio.create_task(fleet.load(OUTAGE + 3.0, 0.05, stage.bystander, "by"))
            for case in cases:
                if case.comes_back:
                    case.load = asyncio.create_task(fleet.load(1.5, 0.2, case.account, case.account))
            await asyncio.sleep(0.5)
            struck = time.monotonic()
            for case in cases:
                case.bad.break_down(case.row.fault)
            await asyncio.sleep(OUTAGE)
            status = fleet.sup.status()
            for case in cases:
                case.hold(*_where(case, status))
            healed = time.monotonic()
            for case in cases:
                await case.bad.heal()
            for case in cases:
                await case.judge_calls(struck, healed)
            rows = await fleet.rows()
            seen = await bystander
            status = fleet.sup.status()
    for case in cases:
        case.judge_rows(rows, struck, healed)
    assert not any(case.wrong for case in cases), "\n".join(p for case in cases for p in case.wrong)
    assert not [call for call in seen if call.error]
    assert max(call.took for call in seen) < 1.0
    assert not [row for row in rows if row["account"] == stage.bystander]
    # Nobody but a proxy came to the datacenter, and nobody but a proxy looked for it.
    assert len(dc.seen.connections) == sum(proxy.relayed for proxy in stage.proxies)
    assert {asked.kind for proxy in stage.proxies for asked in proxy.asked} == {"name"}
    assert looked_up == []
    told = json.dumps([rows, status]) + caplog.text
    assert LOGIN[1] not in told
    assert b64encode(":".join(LOGIN).encode()).decode() not in told


def _where(case: Case, status: dict[str, Any]) -> tuple[bool, object]:
    """Where an account is during the outage: over the other proxy, or waiting for its own."""
    account = next(each for each in status["accounts"] if each["name"] == case.account)
    state = {path["name"]: path["state"] for path in status["paths"]}[case.home]
    found = account["state"], account["path"], state
    # Of a link that went silent nobody knows whose fault it is: not before a new one has gone the same way.
    states = ("broken", "unused", "ok") if case.row.fault == Fault("tunnel", "hang") else ("broken",)
    wanted = ("online", case.good_name) if case.good is not None else ("recovering", case.home)
    return found in [(*wanted, state) for state in states], found


def _noting(seen: list[str], original: Callable[..., Any]) -> Callable[..., Any]:
    async def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        seen.append(host)
        return await original(host, *args, **options)

    return getaddrinfo


# --- where it is not the proxy -----------------------------------------------------------------------------------


async def test_where_telegram_is_away_nobody_changes_its_proxy(dc: Datacenter, tmp_path: Path) -> None:
    """Every proxy says that its target refuses: all wait on their own, and come back on it; but for those whose own
    proxy has died meanwhile, and they are spread over the others.
    """
    async with watched(), AsyncExitStack() as stack:
        fleet = Fleet(dc, tmp_path, 6, **FIFTH)
        proxies = {f"de-{scheme}": StagedProxy(scheme, login=LOGIN) for scheme in SCHEMES}
        for proxy in proxies.values():
            await proxy.start()
            stack.push_async_callback(proxy.close)
        for account in fleet.names:
            give(fleet, account, *(configured(name, proxy) for name, proxy in proxies.items()))
        async with fleet.running():
            home = {name: fleet.account(name)["path"] for name in fleet.names}
            assert sorted(home.values()) == sorted([*proxies] * 2)
            loads = [asyncio.create_task(fleet.load(2.0, 0.2, name, name)) for name in fleet.names]
            await asyncio.sleep(0.3)
            away = time.monotonic()
            await dc.go_away()
            await asyncio.sleep(3.0)
            assert {path["state"] for path in fleet.sup.status()["paths"]} == {"broken"}
            assert {name: fleet.account(name)["path"] for name in fleet.names} == home
            assert {fleet.state(name) for name in fleet.names} == {"recovering"}
            dead = "de-socks5"
            proxies[dead].kill()
            back = time.monotonic()
            await dc.come_back()
            for name in fleet.names:
                await until(functools.partial(_is_online, fleet, name), 4.0, name)
            now = {name: fleet.account(name)["path"] for name in fleet.names}
            calls = [call for load in await asyncio.gather(*loads) for call in load]
            rows = await fleet.rows()
    moved = [name for name in fleet.names if home[name] == dead]
    assert {name: path for name, path in now.items() if name not in moved} == {
        name: path for name, path in home.items() if name not in moved
    }
    assert sorted(now[name] for name in moved) == ["de-http", "de-socks4"]
    assert not [call for call in calls if call.error]
    # Nobody has an incident of its own, and no proxy has one: it was the same for all.
    assert [(row["account"], row["scope"], row["outcome"]) for row in rows] == [
        (None, "fleet", "retrying"),
        (None, "fleet", "recovered"),
    ]
    assert sorted(rows[0]["accounts"]) == sorted(fleet.names)
    for proxy in proxies.values():
        knocked = [at for at in proxy.accepted if away < at < back]
        assert len(knocked) <= 2 + 1 + 4  # each account once, the diagnosis, then one probe a second
    assert len(dc.seen.connections) == sum(proxy.relayed for proxy in proxies.values())


async def test_accounts_start_behind_proxies_that_fail(dc: Datacenter, tmp_path: Path) -> None:
    """At the start as later: a name that nobody knows, a proxy that hangs, one that is not there yet."""
    nowhere = Proxy("nowhere", "socks5", "nosuchproxy.invalid", 1080)
    async with watched(), AsyncExitStack() as stack:
        fleet = Fleet(dc, tmp_path, 5, **FIFTH)
        proxies = {name: StagedProxy("socks5", login=LOGIN) for name in ("good", "hangs", "late")}
        for proxy in proxies.values():
            await proxy.start()
            stack.push_async_callback(proxy.close)
        good, hangs, late = (configured(name, proxy) for name, proxy in proxies.items())
        proxies["hangs"].break_down(Fault("greeting", "hang"))
        proxies["late"].kill()
        for account, mine in zip(
            fleet.names, [(nowhere, good), (nowhere,), (hangs, good), (hangs,), (late,)], strict=True
        ):
            give(fleet, account, *mine)
        begun = time.monotonic()
        async with Supervisor(fleet.config) as fleet.sup:
            for account, seconds in (("bot-0", 4.0), ("bot-2", 6.0)):
                await until(functools.partial(_is_online, fleet, account), seconds, account)
                assert fleet.account(account)["path"] == "good"
            await asyncio.sleep(max(0.0, begun + 5.0 - time.monotonic()))
            assert [fleet.state(name) for name in ("bot-1", "bot-3", "bot-4")] == ["recovering"] * 3
            broken = [path["name"] for path in fleet.sup.status()["paths"] if path["state"] == "broken"]
            assert sorted(broken) == ["hangs", "late", "nowhere"]
            for name in ("hangs", "late"):
                await proxies[name].heal()
            for account in ("bot-3", "bot-4"):
                await until(functools.partial(_is_online, fleet, account), 4.0, account)
            rows = await fleet.rows()
    for name, said in {
        "bot-0": "proxy nowhere: name not known: nosuchproxy.invalid",
        "bot-1": "proxy nowhere: name not known: nosuchproxy.invalid",
        "bot-2": "proxy hangs: timed out after 2 s: socks5 handshake with 127.0.0.1:",
        "bot-3": "proxy hangs: timed out after 2 s: socks5 handshake with 127.0.0.1:",
        "bot-4": f"proxy late: connection refused 127.0.0.1:{late.port}",
    }.items():
        told = one_incident(rows, name)
        assert told[0]["message"].startswith(said), told
        assert {row["kind"] for row in told} == {"proxy"}
    assert len(dc.seen.connections) == sum(proxy.relayed for proxy in proxies.values())


# --- the same account of it from a proxy that somebody else wrote ------------------------------------------------


class Pproxy:
    """A pproxy process that listens for each kind of proxy."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ports = dict(zip(SCHEMES, _free_ports(len(SCHEMES)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, login: tuple[str, str] = LOGIN, *options: str) -> None:
        """Run it, and wait until it listens; on the same ports after `kill`."""
        users = {"socks5": ":".join(login), "socks4": login[0], "http": ":".join(login)}
        listen = [f"-l{kind}://127.0.0.1:{port}#{users[kind]}" for kind, port in self.ports.items()]
        self._process = subprocess.Popen(
            # Without --auth 0 who was let in once needs no password any more.
            [sys.executable, "-W", "ignore", "-m", "pproxy", "--auth", "0", *listen, *options],
            stdout=subprocess.DEVNULL,
        )
        for port in self.ports.values():
            await _listening(port)

    def hang(self) -> None:
        """Stop the process; the kernel goes on accepting for it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End the process in the middle of whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def configured(self, scheme: str) -> Proxy:
        """It, as an account's proxy of one kind."""
        return at(f"{self.name}-{scheme}", scheme, self.ports[scheme])


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in taken]


async def _listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


@pytest.fixture
async def pproxies() -> AsyncIterator[Callable[..., Any]]:
    """Runs pproxy processes by name, all at once; ends them."""
    async with AsyncExitStack() as stack:

        async def run(**how: tuple[Any, ...]) -> list[Pproxy]:
            made = {Pproxy(name): options for name, options in how.items()}
            for each in made:
                stack.callback(each.kill)
            await asyncio.gather(*(each.start(*options) for each, options in made.items()))
            return [*made]

        yield run


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The port of each connection that the supervisor begins."""
    ports: list[int] = []
    connect = dial._connect

    async def noting(family: Any, address: tuple[Any, ...]) -> socket.socket:
        ports.append(address[1])
        return await connect(family, address)

    monkeypatch.setattr(dial, "_connect", noting)
    return ports


def give(fleet: Fleet, account: str, *proxies: Proxy) -> None:
    """Configure an account's proxies."""
    fleet.config = replace(fleet.config, proxies=dict(fleet.config.proxies) | {p.name: p for p in proxies})
    fleet.change(account, proxies=tuple(proxy.name for proxy in proxies))


async def test_at_full_scale_a_slow_proxy_works_and_a_dead_or_hanging_one_is_left(
    dc: Datacenter, tmp_path: Path, pproxies: Callable[..., Any], dialled: list[int]
) -> None:
    """2 s a step is slow, no failure. Killed under load: over another within 3 s. Hanging: within 10 s. Never direct."""
    killed, hung, other = await pproxies(killed=(), hung=(), other=())
    async with watched(), AsyncExitStack() as stack:
        fleet = Fleet(dc, tmp_path, 10)
        of = iter(fleet.names)
        accounts: dict[str, list[str]] = {"slow": [], "killed": [], "hung": []}
        slow: list[Proxy] = []
        for scheme in SCHEMES:
            crawler = StagedProxy(scheme, login=LOGIN)
            crawler.pace = 2.0
            await crawler.start()
            stack.push_async_callback(crawler.close)
            for group in accounts.values():
                group.append(next(of))
            slow.append(configured(f"slow-{scheme}", crawler))
            give(fleet, accounts["slow"][-1], slow[-1])
            give(fleet, accounts["killed"][-1], killed.configured(scheme), other.configured(scheme))
            give(fleet, accounts["hung"][-1], hung.configured(scheme), other.configured(scheme))
        bystander = next(of)
        give(fleet, bystander, slow[0])  # a path is slow to enter, not to use
        begun = time.monotonic()
        await stack.enter_async_context(fleet.running())
        assert time.monotonic() - begun > 6.0
        victims = [*accounts["killed"], *accounts["hung"]]
        loads = [asyncio.create_task(fleet.load(11.0, 0.05, bystander, "by"))]
        loads += [asyncio.create_task(fleet.load(9.0, 0.2, name, name)) for name in victims]
        await asyncio.sleep(0.5)
        struck = time.monotonic()
        hung.hang()
        killed.kill()
        took = {}
        for name, scheme in zip(victims, SCHEMES * 2, strict=True):
            moved = functools.partial(_is_online_over, fleet, name, f"other-{scheme}")
            await until(moved, 11.0, name)
            took[name] = time.monotonic() - struck
        calls, *others = await asyncio.gather(*loads)
        rows = await fleet.rows()
        hung.kill()  # its tunnels to the datacenter are open as long as it lives
    assert max(took[name] for name in accounts["killed"]) <= 3.0, took
    assert max(took.values()) <= 10.0, took
    assert not [call for load in (calls, *others) for call in load if call.error]
    assert max(call.took for call in calls) < 1.0
    for name in victims:
        mine = one_incident(rows, name)
        assert mine[-1]["outcome"] == "recovered"
        assert ("proxy", "rotate_proxy") in {(row["kind"], row["action"]) for row in mine}
    assert not [row for row in rows if row["account"] in (*accounts["slow"], bystander)]
    assert dc.port not in dialled


def _is_online(fleet: Fleet, name: str) -> bool:
    return fleet.state(name) == "online"


def _is_online_over(fleet: Fleet, name: str, path: str) -> bool:
    return (fleet.state(name), fleet.account(name)["path"]) == ("online", path)


CLOSED = "closed the connection in the handshake"
# What pproxy makes of it: it grants every SOCKS request before it looks at it, and closes then.
PPROXY = {
    "password": {
        "socks5": CLOSED,
        "socks4": CLOSED,
        "http": "http reply 407 (Proxy Authentication Required)",
    },
    "blocked": {
        "socks5": "connection closed by 127.0.0.1:",
        "socks4": "connection closed by 127.0.0.1:",
        "http": CLOSED,
    },
}


async def test_what_pproxy_refuses(
    dc: Datacenter,
    tmp_path: Path,
    pproxies: Callable[..., Any],
    dialled: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another password, a rule against the target: told as far as pproxy tells it; left, or waited for; never direct."""
    password, blocked, other = await pproxies(
        password=(("somebody", "an0ther-pa55"),), blocked=(LOGIN, "-b{127.*}"), other=()
    )
    async with watched():
        fleet = Fleet(dc, tmp_path, 12, **FIFTH)
        of = iter(fleet.names)
        cases: list[tuple[str, str, str, bool]] = []
        for scheme, bad, pool in itertools.product(SCHEMES, (password, blocked), (True, False)):
            cases.append((name := next(of), bad.name, scheme, pool))
            give(fleet, name, bad.configured(scheme), *([other.configured(scheme)] if pool else []))
        async with Supervisor(fleet.config) as fleet.sup:
            await asyncio.sleep(4.0)  # probed each second: whom it lets in would be there by now
            for name, bad_name, scheme, pool in cases:
                wanted = ("online", f"other-{scheme}") if pool else ("recovering", f"{bad_name}-{scheme}")
                assert (fleet.state(name), fleet.account(name)["path"]) == wanted, (name, bad_name, scheme)
            blocked.kill()
            await blocked.start()
            for name, bad_name, scheme, _ in cases:
                if bad_name == "blocked":
                    await until(functools.partial(_is_online, fleet, name), 4.0, scheme)
            rows = await fleet.rows()
    for name, bad_name, scheme, pool in cases:
        mine = one_incident(rows, name)
        over = "recovered" if pool or bad_name == "blocked" else "retrying"
        assert [row["outcome"] for row in mine] == ["retrying"] * (len(mine) - 1) + [over]
        assert PPROXY[bad_name][scheme] in mine[0]["message"], mine
    assert dc.port not in dialled
    assert not [word for word in (LOGIN[1], "an0ther-pa55") if word in json.dumps(rows) + caplog.text]
