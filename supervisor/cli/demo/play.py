"""The course of a demo: start, break one thing after the other, look on all the while, count at the end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from supervisor.cli.demo.cast import NAMES, whose
from supervisor.cli.demo.chatter import EVERY
from supervisor.cli.demo.report import Report, StepSeen, Tally, slowest, tally
from supervisor.cli.demo.stage import Call, DemoBroken, Stage
from supervisor.cli.demo.steps import Step

_LOOK = 0.1  # s between two looks
_STARTS_WITHIN = 60.0  # s, of a slow machine
_ANSWERED_WITHIN = 30.0  # s, the last calls
_STOPS_IN = 0.5  # s, about; for planning
_CALM = 0.8  # s, at least


class View(Protocol):
    """Where a demo is seen."""

    def tell(self, at: float, text: str) -> None:
        """Something was done, at so many seconds."""

    def rows(self, at: float, rows: Sequence[dict[str, Any]]) -> None:
        """The daemon recorded this."""

    def look(self, now: Now) -> None:
        """This is how it stands."""


class Now:
    """How it stands at the moment; what a live view shows."""

    def __init__(self) -> None:
        self.at = 0.0
        self.doing = "starting"
        self.accounts: dict[str, dict[str, Any]] = {}
        self.tallies: list[Tally] = []


def calm_for(seconds: float, steps: Sequence[Step]) -> float:
    """How long to leave things alone before each of these steps, and after the last, to be done in so many seconds."""
    busy = _STOPS_IN + sum(step.takes for step in steps)
    return max(_CALM, (seconds - busy) / (len(steps) + 1))


class Play:
    """One demo.

    Args:
        stage: where.
        steps: what is broken, in order.
        view: who looks on.
        seconds: how long it is to take, about.
    """

    def __init__(self, stage: Stage, steps: Sequence[Step], view: View, seconds: float) -> None:
        self._stage = stage
        self._steps = steps
        self._view = view
        self._seconds = seconds
        self._began = time.monotonic()
        self._now = Now()
        self._calls: dict[str, list[Call]] = {}
        self._report = Report()
        self._rows: list[dict[str, Any]] = []  # since the last step began

    async def run(self) -> Report:
        """Play it to its end.

        Raises:
            DemoBroken: the daemon did not start, or ended before its time.
        """
        await self.start()
        await self.break_things()
        return await self.finish()

    # --- the acts -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Wait until the accounts are at work."""
        dc = self._stage.dc
        self._tell(f"a local Telegram datacenter listens at {dc.host}:{dc.port}")
        self._tell(f"the daemon starts, pid {self._stage.pid}: tg-supervisor run -c accounts.toml")
        if not await self._until(lambda: self._online(NAMES) and all(self._calls.values()), _STARTS_WITHIN):
            raise DemoBroken(f"not online within {_STARTS_WITHIN:g} s:\n{self._stage.last_words()}")
        bots = sum(account.is_bot for account in self._stage.cast.values())
        self._tell(f"{bots} bots, {len(NAMES) - bots} user: online, each sends a message every {EVERY:g} s")

    async def break_things(self) -> None:
        """One step after the other, with some calm before and after each."""
        for number, step in enumerate(self._steps):
            await self._rest(self._steps[number:])
            await self._step(step)
        await self._rest(())

    async def _rest(self, ahead: Sequence[Step]) -> None:
        self._now.doing = "nothing is broken"
        await self._until(lambda: False, calm_for(self._seconds - self._at(), ahead))

    async def _step(self, step: Step) -> None:
        seen = StepSeen(step, self._at())
        self._report.steps.append(seen)
        self._rows = seen.rows
        account = self._stage.cast[step.account] if step.account else None
        self._tell(f"{'MENDING ' if step.mends else 'BREAKING'} {whose(step.accounts)}: {step.name}")
        self._now.doing = f"{whose(step.accounts)}: {step.name}"
        await step.begin(self._stage, account)
        if step.end is not None:
            await self._until(lambda: False, step.lasts)
            await step.end(self._stage, account)
            self._tell(f"MENDED   {whose(step.accounts)}: {step.name}")
        self._now.doing = f"{whose(step.accounts)}: after {step.name}"
        seen.expected = await self._until(lambda: self._is_as_expected(seen), step.within)

    async def finish(self) -> Report:
        """Let the accounts have what they asked for, stop the daemon, and count."""
        self._now.doing = "the accounts ask no more, the daemon stops"
        self._stage.enough()
        await self._until(self._is_all_answered, _ANSWERED_WITHIN)
        self._report.daemon_exit = await self._stage.stop()
        await self._look()
        self._tell(f"the daemon has stopped, exit code {self._report.daemon_exit}")
        self._report.tallies = self._now.tallies
        self._find_slowest()
        self._report.errors = [
            f"{name}: {call.error}"
            for name, calls in self._calls.items()
            for call in calls
            if call.outcome == "failed"
        ]
        self._report.early_calls = len(self._stage.dc.seen.early_calls)
        self._report.codes_unasked = self._stage.dc.seen.codes_sent.total() - self._stage.logins
        self._report.took = self._at()
        return self._report

    def _find_slowest(self) -> None:
        ends = [self._began + later.at for later in self._report.steps[1:]] + [math.inf]
        for seen, end in zip(self._report.steps, ends, strict=True):
            calls = (call for name in seen.step.accounts for call in self._calls[name])
            seen.slowest = slowest(calls, self._began + seen.at, end)

    # --- looking on -----------------------------------------------------------------------------------

    def _at(self) -> float:
        return time.monotonic() - self._began

    def _tell(self, text: str) -> None:
        self._view.tell(self._at(), text)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Look on until the condition holds, for so many seconds at most; give whether it does."""
        deadline = time.monotonic() + seconds
        while True:
            self._stage.check_daemon()
            await self._look()
            if condition():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await asyncio.sleep(min(_LOOK, left))

    async def _look(self) -> None:
        stage, now = self._stage, self._now
        now.at = self._at()
        now.accounts = await stage.accounts()
        self._calls = {
            name: [self._judged(name, call) for call in calls] for name, calls in stage.calls().items()
        }
        now.tallies = [
            tally(name, stage.cast[name], calls, stage.dc.seen) for name, calls in self._calls.items()
        ]
        rows = await stage.new_rows()
        self._rows += rows
        self._view.rows(now.at, rows)
        self._view.look(now)

    def _judged(self, name: str, call: Call) -> Call:
        """A refused call has failed, unless the account was to be down."""
        if call.outcome != "refused" or self._report.is_down(
            name, call.asked + (call.took or 0) - self._began
        ):
            return call
        return replace(call, outcome="failed")

    def _online(self, names: Sequence[str]) -> bool:
        return all(self._now.accounts.get(name, {}).get("state") == "online" for name in names)

    def _is_as_expected(self, seen: StepSeen) -> bool:
        step, accounts = seen.step, self._now.accounts
        return len(seen.closing) == len(step.accounts) and all(
            accounts.get(name, {}).get("state") == step.expected.state for name in step.accounts
        )

    def _is_all_answered(self) -> bool:
        return all(call.outcome != "asked" for calls in self._calls.values() for call in calls)
