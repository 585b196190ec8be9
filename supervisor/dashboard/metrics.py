"""`/metrics`, for Prometheus. Counters begin at 0 with the dashboard, as Prometheus expects, and count rows of the log.

No account has a label of its own unless that was asked for: a thousand accounts in eight states would be eight
thousand series, for what the dashboard shows better.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections import Counter as Counts
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from supervisor.control.protocol import ControlError
from supervisor.core.failure import Action, Kind, Result, State
from supervisor.dashboard.desk import Desk, Live
from supervisor.dashboard.pulse import Pulse
from supervisor.dashboard.reads import Reads
from supervisor.record import incidents, queries

PREFIX = "tg_supervisor"
PATH_STATES = ("ok", "broken", "unused")
# Seconds: a reconnect, a rotation, a wait or a sign-in, an outage.
BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21_600)

_KINDS = tuple(kind.value for kind in Kind if kind not in {Kind.MIGRATE, Kind.ALREADY_DONE})
_OUTCOMES = tuple(result.value for result in Result if result is not Result.RECOVERED)


class Metrics:
    """The figures of one daemon.

    Args:
        desk: the daemon.
        reads: the recovery log.
        pulse: how late the loop is.
        about: version, client, client_version.
        labels: whether accounts and paths are told one by one.
    """

    def __init__(
        self, desk: Desk, reads: Reads, pulse: Pulse, about: Mapping[str, str], *, labels: bool
    ) -> None:
        self._desk = desk
        self._reads = reads
        self._pulse = pulse
        self._about = {**about, "python": platform.python_version()}
        self._labels = labels
        self._alone = asyncio.Lock()  # a row is counted once, however many ask
        self._newest: int | None = None
        self._live: Live | None = None
        self._open: dict[str, int] | None = None
        self._registry = CollectorRegistry()
        self._seen = Counter(
            f"{PREFIX}_failures",
            "Failures seen, by kind and by what became of each.",
            ("kind", "outcome"),
            registry=self._registry,
        )
        self._recoveries = Counter(
            f"{PREFIX}_recoveries",
            "Incidents recovered, by kind and by the action that closed them.",
            ("kind", "action"),
            registry=self._registry,
        )
        self._took = Histogram(
            f"{PREFIX}_recovery_seconds",
            "From an incident's first failure to the proof of its recovery.",
            buckets=BUCKETS,
            registry=self._registry,
        )
        for kind in _KINDS:  # from the start: what appears with its first failure has no rate
            for outcome in _OUTCOMES:
                self._seen.labels(kind, outcome)
            for action in Action:
                if action is not Action.FAIL:
                    self._recoveries.labels(kind, action.value)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    async def begin(self) -> None:
        """Count from here on."""
        try:
            self._newest = await self._reads.ask(queries.newest_id)
        except ControlError:
            self._newest = None  # from the first row on that can be read

    async def text(self) -> bytes:
        """The figures, as Prometheus reads them."""
        async with self._alone:
            self._live = await self._desk.live()
            try:
                await self._reads.ask(self._count)
            except ControlError:
                self._open = None  # left out: what is not known is not shown as 0
            return await self._reads.work(lambda: generate_latest(self._registry))

    def _count(self, db: Any) -> None:
        self._open = incidents.open_incidents(db)
        newest = queries.newest_id(db)
        if self._newest is None or newest < self._newest:  # the file was begun anew
            self._newest = newest if self._newest is None else 0
        found = incidents.gained(db, self._newest, newest)
        self._newest = newest
        for (kind, outcome), count in found.seen.items():
            self._seen.labels(kind, outcome).inc(count)
        for kind, action, duration, count in found.recovered:
            self._recoveries.labels(kind, action).inc(count)
            for _ in range(count if duration is not None else 0):
                self._took.observe(duration or 0.0)

    def collect(self) -> Iterator[Metric]:
        """What is looked up rather than counted (prometheus_client calls this)."""
        live = self._live
        if live is None:
            return
        yield InfoMetricFamily(f"{PREFIX}_build", "The programs at work.", value=self._about)
        yield _gauge(
            "start_time_seconds", "When the daemon was started, Unix time.", time.time() - live.uptime_s
        )
        states = Counts(account.state.value for account in live.accounts)
        yield _by("accounts", "Accounts, by state.", "state", {s.value: states[s.value] for s in State})
        limited = sum(account.limited is not None for account in live.accounts)
        yield _gauge("accounts_limited", "Accounts that Telegram limits; they keep running.", limited)
        paths = Counts(path.state for path in live.paths)
        yield _by(
            "paths", "Paths (proxies and direct), by state.", "state", {s: paths[s] for s in PATH_STATES}
        )
        if self._open is not None:
            found = {kind: self._open.get(kind, 0) for kind in _KINDS}
            yield _by("incidents_open", "Incidents that nothing has ended yet, by kind.", "kind", found)
        yield _gauge(
            "loop_lag_seconds", "The latest that the event loop was in the last minute.", self._pulse.lag
        )
        yield _gauge("record_writable", "Whether the recovery log can be written: 1 or 0.", live.is_recording)
        yield _gauge(
            "record_rows_waiting", "Rows of the recovery log that are not on disk yet.", live.rows_waiting
        )
        valid = live.config.get("error") is None
        yield _gauge("config_valid", "0 while a newer configuration is refused; else 1.", valid)
        if self._labels:
            yield from _one_by_one(live)


def _one_by_one(live: Live) -> Iterator[Metric]:
    online = {account.name: account.state is State.ONLINE for account in live.accounts}
    yield _by("account_online", "Whether an account is online: 1 or 0.", "account", online)
    yield _by(
        "path_accounts", "Accounts on a path.", "path", {path.name: path.accounts for path in live.paths}
    )
    works = {path.name: path.state != "broken" for path in live.paths}
    yield _by("path_works", "Whether a path works, as far as is known: 1 or 0.", "path", works)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=float(value))


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=(label,))
    for value, number in values.items():
        family.add_metric((value,), float(number))
    return family
