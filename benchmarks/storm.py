"""Storm: many accounts, and the way to Telegram fails for all of them, or for a quarter of them, at once.

Each kind meets each storm in a fresh process, with a datacenter of its own. Somebody waits for an answer on every account
from the moment of the fault; what is shown is how long until half, nearly all, and all of them had one, counted from the
fault itself or, for an outage, from its end. Connects are what the process's own sockets were told to connect to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import signal
import sys
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import script
from benchmarks.faults import proxy
from benchmarks.local import Address, Bot, LocalDatacenter, bare, configured, online
from benchmarks.table import Row, Table
from supervisor.config.model import Config
from supervisor.daemon import Supervisor

# Bare clients knock alone: what they do is proportional to their number, and a thousand of them take minutes to start.
BARE = 150
PROXIES = 4
KINDS = "bare", "supervised"

PACE = 2.0  # seconds between the calls of an account that nothing has happened to
AGAIN = 0.1  # seconds after which a call that failed is made again
TICK = 0.002  # seconds that the loop is asked to sleep, to see how much longer it takes
UNDER_WAY = 1.0  # seconds in which all calls have left
CHUNK = 20  # calls that begin in one pass of the loop: a thousand at once would be a stall of our own


@dataclass(frozen=True)
class Size:
    """How many supervised accounts, how long the outage lasts, and after how long without an answer nobody waits; seconds."""

    accounts: int = 1000
    seconds: float = 60.0
    patience: float = 30.0


QUICK = Size(200, 5.0, 20.0)


class Connects:
    """When this process told a socket to connect: Python says so itself, whichever library it is that does."""

    def __init__(self) -> None:
        self._at: list[float] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            self._at.append(time.monotonic())

    def between(self, start: float, end: float) -> int:
        """How many there were."""
        return bisect_left(self._at, end) - bisect_left(self._at, start)

    def peak(self, start: float, end: float) -> int:
        """The most within any one second."""
        first, last = bisect_left(self._at, start), bisect_left(self._at, end)
        return max(
            (bisect_left(self._at, self._at[n] + 1.0, hi=last) - n for n in range(first, last)), default=0
        )


@dataclass
class Calls:
    """Whoever waits for answers: `answered` is when an account had its first one, `slowest` and `failed` are all calls'."""

    answered: dict[str, float] = field(default_factory=dict)
    slowest: float = 0.0
    failed: int = 0

    async def _one(self, name: str, client: Any) -> None:
        from pyrogram import raw

        begun = time.monotonic()
        try:
            await client.invoke(raw.functions.updates.GetState())
        except Exception:
            self.failed += 1
            await asyncio.sleep(AGAIN)
        else:
            self.answered.setdefault(name, time.monotonic())
        finally:
            self.slowest = max(self.slowest, time.monotonic() - begun)

    async def first(self, clients: dict[str, Any], not_before: Callable[[], float]) -> None:
        """Have each account answer one call; who has an answer from before `not_before` asks again."""

        async def until_answered(name: str, client: Any) -> None:
            while self.answered.get(name, -math.inf) < not_before():
                self.answered.pop(name, None)
                await self._one(name, client)

        async with asyncio.TaskGroup() as group:
            for number, (name, client) in enumerate(clients.items(), 1):
                group.create_task(until_answered(name, client))
                if number % CHUNK == 0:
                    await asyncio.sleep(0)

    async def steady(self, clients: dict[str, Any]) -> None:
        """Call on every account again and again, until cancelled."""

        async def pace(name: str, client: Any, begin: float) -> None:
            await asyncio.sleep(begin)
            while True:
                begun = time.monotonic()
                await self._one(name, client)
                await asyncio.sleep(max(0.0, begun + PACE - time.monotonic()))

        async with asyncio.TaskGroup() as group:
            for number, (name, client) in enumerate(clients.items()):
                group.create_task(pace(name, client, PACE * number / len(clients)))

    def after(self, start: float, share: float, of: int) -> float:
        """Seconds from `start` until this share of the accounts had an answer; infinite where they never had."""
        took = sorted(at - start for at in self.answered.values())
        needed = math.ceil(of * share)
        return took[needed - 1] if len(took) >= needed else math.inf


class Lag:
    """How much longer than asked for the loop sleeps, in milliseconds."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK)
            self.seen.append((time.perf_counter() - begun - TICK) * 1000)

    def figures(self) -> dict[str, float]:
        """The 99th percentile and the longest."""
        ordered = sorted(self.seen) or [0.0]
        return {"lag_p99": ordered[int(len(ordered) * 0.99)], "lag": ordered[-1]}


@dataclass
class Scene:
    """What a storm befalls: clients by name, the datacenter they are on, and proxies with the accounts on each."""

    dc: LocalDatacenter
    clients: dict[str, Any]
    size: Size
    connects: Connects
    proxies: Sequence[tuple[asyncio.subprocess.Process, Sequence[str]]] = ()


def percentiles(calls: Calls, start: float, accounts: int) -> dict[str, float]:
    return {f"answered_{share}": calls.after(start, share / 100, accounts) for share in (50, 99, 100)}


async def given_up(waiting: Awaitable[None], seconds: float) -> None:
    """Wait, but not for ever."""
    with suppress(TimeoutError):
        await asyncio.wait_for(waiting, seconds)


async def reset(scene: Scene) -> dict[str, float]:
    """Every link is reset at the same moment, with a call under way on each."""
    calls, begun = Calls(), math.inf
    await scene.dc.do("silent")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(calls.first(scene.clients, lambda: begun))
        await asyncio.sleep(UNDER_WAY)
        begun = time.monotonic()
        await scene.dc.do("reset_links")
        await scene.dc.do("speak")
        await given_up(waiting, scene.size.patience)
    return percentiles(calls, begun, len(scene.clients))


async def outage(scene: Scene) -> dict[str, float]:
    """Telegram refuses every connect for so many seconds."""
    calls, came_back = Calls(), math.inf
    begun = time.monotonic()
    cpu = time.process_time()
    await scene.dc.do("go_away")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(calls.first(scene.clients, lambda: came_back))
        await asyncio.sleep(begun + scene.size.seconds - time.monotonic())
        cpu = time.process_time() - cpu
        came_back = time.monotonic()
        await scene.dc.do("come_back")
        await given_up(waiting, scene.size.patience)
    ended = time.monotonic()
    connects = scene.connects
    return {
        "connects": connects.between(begun, came_back) / (came_back - begun),
        "connects_peak": connects.peak(begun, came_back),
        "return_peak": connects.peak(came_back, ended),
        "cpu_outage": cpu,
        **percentiles(calls, came_back, len(scene.clients)),
    }


def one_proxy_gets(number: signal.Signals) -> Callable[[Scene], Awaitable[dict[str, float]]]:
    async def befall(scene: Scene) -> dict[str, float]:
        """One of the proxies fails, with the accounts that are on it."""
        process, names = scene.proxies[0]
        struck = {name: scene.clients[name] for name in names}
        others = Calls()
        steady = asyncio.create_task(
            others.steady({name: client for name, client in scene.clients.items() if name not in struck})
        )
        await asyncio.sleep(PACE)  # all have called once
        others.slowest = 0.0
        calls, begun = Calls(), time.monotonic()
        process.send_signal(number)
        await given_up(calls.first(struck, lambda: begun), scene.size.patience)
        await asyncio.sleep(max(0.0, begun + 2 * PACE - time.monotonic()))
        ended = time.monotonic()
        steady.cancel()
        await asyncio.wait([steady])
        return {
            "struck": len(struck),
            "return_peak": scene.connects.peak(begun, ended),
            "others_slowest": others.slowest,
            "others_failed": others.failed,
            **percentiles(calls, begun, len(struck)),
        }

    return befall


@dataclass(frozen=True)
class Storm:
    """What happens, and under which `[supervisor]` settings."""

    title: str
    befall: Callable[[Scene], Awaitable[dict[str, float]]]
    settings: dict[str, float] = field(default_factory=dict)
    proxied: bool = False
    shows: Sequence[tuple[str, str, str]] = ()
    paced: bool = False  # the budget, not the client, decides how soon answers come


ANSWERED = tuple((f"answered_{share}", f"  until {share} % are answered", "s") for share in (50, 99, 100))
LAG = ("lag_p99", "  loop lag, 99th percentile", "ms"), ("lag", "  loop lag, longest", "ms")
CPU = (("cpu", "  CPU used", "s"),)
STRUCK = (
    ("struck", "  accounts on it", ""),
    *ANSWERED,
    ("return_peak", "  connects in the worst second", ""),
    ("others_slowest", "  slowest call of the others", "s"),
    ("others_failed", "  failed calls of the others", ""),
    *LAG,
    *CPU,
)
# The default budget; not the one for starts, which would take longer than all the rest.
BUDGET = {"start_limit": 100_000}
STORMS: dict[str, Storm] = {
    "reset": Storm("all links reset at once, budget lifted", reset, shows=(*ANSWERED, *LAG, *CPU)),
    "outage": Storm(
        "Telegram away for {seconds:g} s, connect_budget = 100",
        outage,
        {**BUDGET, "connect_budget": 100, "connect_budget_total": 100},
        shows=(
            ("connects", "  connects a second meanwhile", ""),
            ("connects_peak", "  the same, worst second", ""),
            ("cpu_outage", "  CPU used meanwhile", "s"),
            ("return_peak", "  connects in the worst second after it", ""),
            *ANSWERED,
            *LAG,
            *CPU,
        ),
        paced=True,
    ),
    "dies": Storm(
        "one of 4 proxies killed",
        one_proxy_gets(signal.SIGKILL),
        {**BUDGET, "connect_budget": 20},
        True,
        STRUCK,
    ),
    "hangs": Storm(
        "one of 4 proxies hangs",
        one_proxy_gets(signal.SIGSTOP),
        {**BUDGET, "connect_budget": 20},
        True,
        STRUCK,
    ),
}


# Clients by name, and the names of the accounts on each proxy.
Online = tuple[dict[str, Any], list[list[str]]]


@asynccontextmanager
async def bare_clients(address: Address, bots: Sequence[Bot], ports: Sequence[int]) -> AsyncIterator[Online]:
    """Bare clients; of several proxies each has one."""
    clients: dict[str, Any] = {}
    groups = []
    async with AsyncExitStack() as stack:
        for number, port in enumerate(ports or (None,)):
            some = bots[number :: len(ports) or 1]
            group = await stack.enter_async_context(bare(address, some, proxy=port))
            clients.update(group)
            groups.append(list(group))
        yield clients, groups


@asynccontextmanager
async def supervised_clients(config: Config, ports: Sequence[int]) -> AsyncIterator[Online]:
    """Supervised clients; the supervisor has spread them over the proxies."""
    async with Supervisor(config) as supervisor:
        clients = await online(supervisor)
        paths = {account["name"]: account["path"] for account in supervisor.status()["accounts"]}
        yield clients, [[name for name in paths if paths[name] == f"proxy-{port}"] for port in ports]


async def measure(storm: str, kind: str, size: Size, directory: Path) -> dict[str, float]:
    """One storm, one kind."""
    plan, connects, lag = STORMS[storm], Connects(), Lag()
    accounts = min(size.accounts, BARE) if kind == "bare" else size.accounts
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        dc = await enter(LocalDatacenter.running())
        bots = [await dc.bot(f"bot-{n}", directory) for n in range(accounts)]
        proxies = [await enter(proxy()) for _ in range(PROXIES * plan.proxied)]
        ports = [port for port, _ in proxies]
        if kind == "bare":
            clients, groups = await enter(bare_clients(dc.address, bots, ports))
        else:
            config = configured(dc.address, bots, directory / "state", ports, **plan.settings)
            clients, groups = await enter(supervised_clients(config, ports))
        await asyncio.sleep(2.0)  # acknowledgements and commits of the start are over
        on_proxies = [(process, group) for (_, process), group in zip(proxies, groups, strict=False)]
        scene = Scene(dc, clients, size, connects, on_proxies)
        watching = asyncio.create_task(lag.watch())
        cpu = time.process_time()
        found = await plan.befall(scene)
        cpu = time.process_time() - cpu
        watching.cancel()
        return {"accounts": accounts, **found, **lag.figures(), "cpu": cpu}


def rows(storm: Storm, seconds: float, found: dict[str, dict[str, float]]) -> Iterable[Row]:
    """The figures of one storm; accounts and counts are not compared, for the bare ones are fewer."""
    mine, theirs = found["supervised"], found["bare"]
    title = storm.title.format(seconds=seconds)
    yield Row(f"{title}: accounts", int(theirs["accounts"]), int(mine["accounts"]), "", None)
    for name, what, unit in storm.shows:
        is_paced = storm.paced and name.startswith("answered")
        compared = unit in {"s", "ms"} and not name.startswith("cpu") and not is_paced
        yield Row(what, theirs[name], mine[name], unit, False if compared else None)


async def main(size: Size, only: Sequence[str] = (), *, quick: bool = False) -> None:
    names = only or tuple(STORMS)

    async def meet(name: str, kind: str) -> Any:
        return await script.worker("storm", storm=name, kind=kind, size=asdict(size))

    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    if quick:  # most of what the bare ones do is wait: side by side
        every = await asyncio.gather(*(meet(name, "bare") for name in names))
        found = {name: {"bare": figures} for name, figures in zip(names, every, strict=True)}
    table = Table(f"Storms, {size.accounts:,} accounts; given up after {size.patience:g} s")
    for name in names:
        for kind in KINDS:
            if kind not in found[name]:
                found[name][kind] = await meet(name, kind)
        table.rows += rows(STORMS[name], size.seconds, found[name])
    print(table, flush=True)


async def work(storm: str, kind: str, size: dict[str, Any]) -> None:
    logging.disable(logging.CRITICAL)
    with TemporaryDirectory(prefix="bench-") as directory:
        print(json.dumps(await measure(storm, kind, Size(**size), Path(directory))))


if __name__ == "__main__":
    parser = script.arguments(__doc__)
    parser.add_argument("--accounts", type=int, help=f"supervised ones; {Size.accounts} unless told")
    parser.add_argument(
        "--seconds", type=float, help=f"how long the outage lasts; {Size.seconds:g} unless told"
    )
    parser.add_argument("--only", nargs="+", choices=STORMS, default=(), help="these storms alone")
    options = parser.parse_args()
    told = {name: value for name in ("accounts", "seconds") if (value := getattr(options, name)) is not None}
    chosen = replace(QUICK if options.quick else Size(), **told)
    script.run(
        lambda: work(**options.worker) if options.worker else main(chosen, options.only, quick=options.quick)
    )
