"""The daemon's notifications: what is overheard becomes troubles, these become messages, and the outboxes send them.

Nothing here waits for anybody, and nothing raises into the recovery: a fault of its own is said in the log.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ParamSpec

from supervisor.config.model import DIRECT, Config, Sink
from supervisor.config.model import Sentry as SentryConfig
from supervisor.core.classify import classify
from supervisor.core.failure import Action, Evidence, Level, Result, Row, Scope, Source
from supervisor.core.notices import Notices, Pace
from supervisor.core.troubles import Happened, News, Troubles
from supervisor.errors import ConfigError
from supervisor.journal import Journal
from supervisor.notify.outbox import Outbox
from supervisor.notify.sentry import Sentry
from supervisor.notify.sinks import Apprise, FindClient, Sender, sender
from supervisor.ports import AccountSnapshot, Clock, IncidentRow, PathSnapshot, Recorder

log = logging.getLogger(__name__)

P = ParamSpec("P")

# How often is looked for what is due, and how long the outboxes have at the end. Seconds.
EVERY, GOODBYE = 0.25, 2.0
SENTRY = "sentry"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What no row tells, and is asked for.

    Args:
        paths: every path, as `status` shows it.
        unrecorded: what is wrong with the recovery log: the name of its number, and what was seen; None if nothing is.
        find: finds a client that is online, of these accounts.
    """

    paths: Callable[[], Sequence[PathSnapshot]]
    unrecorded: Callable[[], tuple[str, str] | None]
    find: FindClient


@dataclass(slots=True)
class _Desk:
    """One sink at work."""

    configured: Sink | SentryConfig
    notices: Notices
    outbox: Outbox
    task: asyncio.Task[None]


def _guarded(take: Callable[P, None]) -> Callable[P, None]:
    """Whatever is wrong with our notifications, nobody else is to suffer by it."""

    @functools.wraps(take)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            take(*args, **kwargs)
        except Exception:
            log.exception("notifications failed; this is a fault of tg-supervisor")

    return guarded


class Notifier:
    """Hears of everything (overheard.Listener); from `start` to `stop` it tells those who are to be told."""

    def __init__(self, config: Config, clock: Clock, pace: Pace | None = None) -> None:
        """Begin; it listens from now on, and sends nothing before its `start`.

        Args:
            config: what is configured.
            clock: both clocks.
            pace: where the default doesn't suit.
        """
        self._clock = clock
        self._pace = pace
        self._config = config
        self._troubles = Troubles()
        self._desks: dict[str, _Desk] = {}
        self._endings: set[asyncio.Task[None]] = set()  # of desks that a reload has taken away
        self._broken: dict[str, str] = {}  # path -> why
        self._ticking: asyncio.Task[None] | None = None
        self._surroundings: Surroundings
        self._journal: Journal

    # --- what is heard --------------------------------------------------------------------------------

    @_guarded
    def row(self, row: Row) -> None:
        """A row of the recovery log."""
        self._take(self._troubles.row(row, self._clock.monotonic()))

    @_guarded
    def incident(self, row: IncidentRow) -> None:
        """An incident; those of paths and of the fleet are news."""
        if row.account is None and row.scope is not Scope.CALL:
            news = self._troubles.outage(
                row.id,
                row.path,
                row.accounts,
                self._clock.monotonic(),
                everywhere=row.scope is Scope.FLEET,
                over=row.closed_at is not None,
            )
            self._take(news)

    @_guarded
    def account(self, snapshot: AccountSnapshot) -> None:
        """An account's state."""
        last, limited = snapshot.last_failure, snapshot.limited
        is_of_now = last is not None and (
            last.outcome.value == snapshot.state.value or last.incident == snapshot.incident is not None
        )
        news = self._troubles.account(
            snapshot.name,
            snapshot.state,
            snapshot.path,
            self._clock.monotonic(),
            last=last if is_of_now else None,
            limited=limited.error_id if limited is not None else None,
            frozen=limited is not None and limited.frozen,
        )
        self._take(news)

    @_guarded
    def misconfigured(self, problems: Sequence[str]) -> None:
        """A changed file is wrong, and not used."""
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        what = f"{problems[0]}{more}" if problems else ""
        self._take(self._troubles.condition("config", "config_invalid", what))

    def reconfigure(self, config: Config) -> None:
        """Another configuration is in force; what was wrong with the file is not any more."""
        self._config = config
        self._take(self._troubles.condition("config", "config_invalid", None, how="the file is right again"))
        self._take(self._troubles.configured(config.accounts, (DIRECT, *config.proxies)))
        if self._ticking is not None:
            self._open(config)

    def fault(self, error: BaseException) -> None:
        """The daemon itself has failed."""
        desk = self._desks.get(SENTRY)
        if desk is not None and isinstance(desk.outbox.sender, Sentry):
            desk.outbox.sender.fault(error)

    # --- at work --------------------------------------------------------------------------------------

    async def start(
        self, surroundings: Surroundings, recorder: Recorder, accounts: Iterable[AccountSnapshot]
    ) -> None:
        """Send, from now on.

        Args:
            surroundings: what is asked for.
            recorder: where a dead sink is recorded.
            accounts: all of them, as an earlier run has left them: what still holds is told again.

        Raises:
            ConfigError: a sink's url is none of apprise's.
        """
        self._surroundings = surroundings
        self._journal = Journal(None, recorder, self._clock, DIRECT)
        await check(self._config.notify.values())
        for account in accounts:
            self.account(account)
        self._open(self._config)
        self._ticking = asyncio.create_task(self._tick(), name="notify")

    async def stop(self) -> None:
        """Send what is due, for a short while; then no more."""
        if self._ticking is None:
            return
        self._ticking.cancel()
        await asyncio.wait([self._ticking])
        self._ticking = None
        self._look()
        desks, self._desks = list(self._desks.values()), {}
        if desks:
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE):
                    await asyncio.gather(*(desk.outbox.emptied() for desk in desks))
        await asyncio.gather(*(_closed(desk) for desk in desks), *self._endings)

    def _open(self, config: Config) -> None:
        """Have a desk for each sink; those of which nothing has changed go on."""
        wanted: dict[str, Sink | SentryConfig] = {
            f"notify.{name}": sink for name, sink in config.notify.items()
        }
        if config.sentry is not None:
            wanted[SENTRY] = config.sentry
        for name in [name for name, desk in self._desks.items() if wanted.get(name) != desk.configured]:
            ending = asyncio.create_task(_closed(self._desks.pop(name)), name=f"{name} ends")
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
        for name, configured in wanted.items():
            if name not in self._desks:
                self._desks[name] = self._desk(name, configured)

    def _desk(self, name: str, configured: Sink | SentryConfig) -> _Desk:
        made: Sender
        if isinstance(configured, SentryConfig):
            level, made = Level.FATAL, Sentry(configured)
        else:
            level, made = configured.level, sender(configured, self._surroundings.find)
        outbox = Outbox(name, made, functools.partial(self._sink_failed, name))
        notices = Notices(level, self._pace)
        for news in self._troubles.present:
            notices.take(news, self._clock.monotonic())
        return _Desk(configured, notices, outbox, asyncio.create_task(outbox.run(), name=name))

    def _take(self, news: Iterable[News]) -> None:
        now = self._clock.monotonic()
        for each in news:
            for name, desk in self._desks.items():
                if not _is_of_itself(name, each):
                    desk.notices.take(each, now)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self._look()

    @_guarded
    def _look(self) -> None:
        """Ask for what no row tells, and hand over what is due."""
        now, surroundings = self._clock.monotonic(), self._surroundings
        self._take(self._troubles.tick(now))
        broken = {
            each.name: each.last_failure or "" for each in surroundings.paths() if each.state == "broken"
        }
        for path in {**self._broken, **broken}:
            if (path in broken) != (path in self._broken):
                self._take(self._troubles.path(path, broken.get(path), now))
        self._broken = broken
        code, what = surroundings.unrecorded() or ("storage_failed", None)
        self._take(self._troubles.condition("record", code, what, how="the recovery log is written again"))
        for desk in self._desks.values():
            for notice in desk.notices.due(now):
                desk.outbox.put(notice, self._clock.now())

    def _sink_failed(self, name: str, why: str) -> None:
        seen = Evidence(Source.CODE, f"{name}: {why}", step=f"notify {name}")
        self._journal.write(self._journal.draft(classify(seen), Result.RAISED, Action.FAIL))


def _is_of_itself(desk: str, news: News) -> bool:
    """Whether it says that this very sink is dead: when it hears of that, it is not any more."""
    return (
        isinstance(news, Happened) and news.code.name == "notify_failed" and news.what.startswith(f"{desk}: ")
    )


async def check(sinks: Iterable[Sink]) -> None:
    """Have apprise look at its urls.

    Raises:
        ConfigError: it does not know all of them.
    """
    problems: list[str] = []
    for sink in sinks:
        if sink.sort == "apprise":
            try:
                await Apprise(sink).prepare()
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(problems)


async def _closed(desk: _Desk) -> None:
    desk.task.cancel()
    await asyncio.wait([desk.task])
    await desk.outbox.sender.close()
