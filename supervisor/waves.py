"""Waves of server errors: Telegram answers calls of many accounts with 500 to 504 within seconds.

One such answer is its call's affair, and is tried again a second later. Where many accounts meet them, a thousand calls
that do so at once keep down what is trying to get up: while a wave lasts the calls of its paths come again further and
further apart, no cap is spent on them (their `call_timeout` bounds them), and the record has one row for all.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from supervisor.core.decide import backoff
from supervisor.core.failure import Action, Failure, Policy, Scope
from supervisor.core.outage import TOGETHER, Sight, shared
from supervisor.outages import KEPT_BACK, Outage, Outages
from supervisor.ports import Clock

# From the least of the server's codes on (https://core.telegram.org/api/errors#500-internal).
SERVER_FAILED = 500
# While a wave lasts each call waits 1, 2, 4 … s, at most half a minute, and up to as much again: they shall not come together.
SLOWER = Policy(Action.RETRY, 0, base_delay=1.0, max_delay=30.0, jitter=1.0)
# It is over when so long nobody has met such an answer, and at least twice as long as a call waits. Seconds.
QUIET = 5.0


@dataclass(slots=True)
class _Wave:
    """One wave: what began it, how often its calls have slowed down and since when, and when it was felt last.

    It is written down, as its `outage`, when it is clear whether other paths have it too; `accounts` have met it by then.
    """

    failure: Failure
    since: float
    felt: float
    timer: asyncio.TimerHandle
    level: int = 0
    outage: Outage | None = None
    accounts: list[str] = field(default_factory=list)

    @property
    def pace(self) -> float:
        """How long calls wait at least."""
        return backoff(SLOWER, self.level, 0.0)

    @property
    def over_at(self) -> float:
        return self.felt + max(QUIET, 3 * self.pace)


class Waves:
    """All waves of the daemon, by path."""

    def __init__(
        self,
        outages: Outages,
        clock: Clock,
        population: Callable[[], Mapping[str, int]],
        jitter: Callable[[], float],
    ) -> None:
        """Begin in a calm.

        Args:
            outages: where a wave is written down.
            clock: both clocks.
            population: how many accounts are on each path.
            jitter: draws a number from 0 to 1.
        """
        self._outages = outages
        self._clock = clock
        self._population = population
        self._jitter = jitter
        self._seen: dict[str, dict[str, float]] = defaultdict(
            dict
        )  # by path: accounts, and when they met one last
        self._waves: dict[str, _Wave] = {}

    def met(self, account: str, path: str, failure: Failure) -> float | None:
        """A call was answered with a failure.

        Args:
            account: whose call.
            path: the path it went over.
            failure: what it is.

        Returns:
            In a wave, the seconds after which it is to be sent again; None where it is the call's own affair.
        """
        if (failure.evidence.code or 0) < SERVER_FAILED:
            return None
        now = self._clock.monotonic()
        self._seen[path][account] = now
        wave = self._waves.get(path) or self._begin(path, failure, now)
        if wave is None:
            return None
        wave.felt = now
        if now - wave.since > wave.pace * 2:
            wave.level, wave.since = wave.level + 1, now
        if wave.outage is None:
            wave.accounts.append(account)
        else:
            self._outages.spread(wave.outage, account)
        return backoff(SLOWER, wave.level, self._jitter())

    def close(self) -> None:
        """The daemon stops."""
        for wave in self._waves.values():
            wave.timer.cancel()

    def _begin(self, path: str, failure: Failure, now: float) -> _Wave | None:
        if path not in shared(self._sights(now)):
            return None
        timer = asyncio.get_running_loop().call_later(KEPT_BACK, self._tell, path)
        wave = self._waves[path] = _Wave(failure, now, now, timer)
        wave.accounts += self._seen[path]
        return wave

    def _tell(self, path: str) -> None:
        """Write a wave down: as part of one that everybody has, or as its path's."""
        wave, now = self._waves[path], self._clock.monotonic()
        sights = self._sights(now)
        scope = shared(sights).get(path, Scope.PATH)
        reach = sights.values() if scope is Scope.FLEET else [sights[path]]
        told = [each.outage for each in self._waves.values() if each.outage is not None]
        everybodys = next((each for each in told if each.scope is scope is Scope.FLEET), None)
        failing = sum(sight.failing for sight in reach)
        wave.outage = everybodys or self._outages.surge(path, scope, wave.failure, failing)
        for account in wave.accounts:
            self._outages.spread(wave.outage, account)
        wave.accounts.clear()
        self._calm(path)

    def _sights(self, now: float) -> dict[str, Sight]:
        for seen in self._seen.values():
            for account in [name for name, at in seen.items() if now - at > TOGETHER]:
                del seen[account]
        population = self._population()
        return {
            path: Sight(population.get(path, 0), len(self._seen[path]), path in self._waves)
            for path in {*population, *(path for path, seen in self._seen.items() if seen)}
        }

    def _calm(self, path: str) -> None:
        wave, now = self._waves[path], self._clock.monotonic()
        if now < wave.over_at:
            wave.timer = asyncio.get_running_loop().call_later(wave.over_at - now, self._calm, path)
            return
        del self._waves[path]
        if wave.outage is not None and all(each.outage is not wave.outage for each in self._waves.values()):
            self._outages.subsided(wave.outage)
