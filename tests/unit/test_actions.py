"""Recovery callbacks: who is asked, in which order, and what a bad one costs."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from supervisor.actions import Dispatcher, Registry, builtin, load
from supervisor.core.failure import Action, Kind, Outcome, Scope
from supervisor.errors import ConfigError
from supervisor.ports import RecoveryContext


class Means:
    """What a callback may do, noted."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def use_proxy(self, proxy: str) -> None:
        self.done.append(f"use {proxy}")

    def rotate_proxy(self) -> None:
        self.done.append("rotate")

    async def retire_session(self, reason: str) -> None:
        self.done.append(f"retire: {reason}")


def context(
    action: Action = Action.RECONNECT,
    *,
    account: str = "support-1",
    kind: Kind = Kind.CONNECTION,
    means: Any = None,
) -> RecoveryContext:
    return RecoveryContext(
        account, kind, action, Scope.SESSION, "reset", None, 1, "i1", "direct", None, means or Means()
    )


class Asked:
    """A registry whose callbacks note that they were asked."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.order: list[str] = []
        self.broken: list[str] = []

    def add(
        self, name: str, outcome: Outcome = Outcome.DECLINED, action: Action = Action.RECONNECT, **only: Any
    ) -> None:
        async def callback(_ctx: RecoveryContext) -> Outcome:
            self.order.append(name)
            return outcome

        self.registry.register(action, callback, **only)

    async def dispatch(self, ctx: RecoveryContext) -> Outcome:
        told = Dispatcher(self.registry, lambda _ctx, _name, error: self.broken.append(str(error)))
        return await told.dispatch(ctx)


async def test_the_most_specific_is_asked_first_and_the_builtin_last() -> None:
    """Kind and account, then one of them with a name before a pattern, then any, in order of registration."""
    asked = Asked()
    asked.add("builtin", builtin=True)
    asked.add("any 1")
    asked.add("any 2")
    asked.add("pattern", account="support-*")
    asked.add("name", account="support-1")
    asked.add("both", account="support-*", kind=Kind.CONNECTION)
    asked.add("other account", account="sales-*")
    asked.add("other kind", kind=Kind.PROXY)
    asked.add("other action", action=Action.RELOGIN)
    assert await asked.dispatch(context()) is Outcome.DECLINED
    assert asked.order == ["both", "name", "pattern", "any 1", "any 2", "builtin"]


@pytest.mark.parametrize("outcome", [Outcome.RECOVERED, Outcome.RETRY, Outcome.FAILED])
async def test_who_does_not_decline_has_the_word(outcome: Outcome) -> None:
    """The first answer that is not DECLINED is the answer."""
    asked = Asked()
    asked.add("first")
    asked.add("second", outcome)
    asked.add("third", Outcome.FAILED)
    assert await asked.dispatch(context()) is outcome
    assert asked.order == ["first", "second"]


async def test_one_that_raises_costs_a_plain_retry() -> None:
    """It is told of by name, nobody else is asked, and the link is tried as it is."""
    asked = Asked()

    async def explodes(_ctx: RecoveryContext) -> Outcome:
        raise RuntimeError("lease refused")

    asked.registry.register(Action.RECONNECT, explodes)
    asked.add("builtin", Outcome.FAILED, builtin=True)
    assert await asked.dispatch(context()) is Outcome.RECOVERED
    assert (asked.broken, asked.order) == (["lease refused"], [])


@pytest.mark.parametrize("synchronous", [False, True])
async def test_one_that_hangs_is_left_after_its_timeout(synchronous: bool) -> None:
    """A coroutine is cancelled, a thread is left behind; neither holds the loop."""
    asked, release = Asked(), threading.Event()

    async def hangs(_ctx: RecoveryContext) -> Outcome:
        await asyncio.Event().wait()
        return Outcome.RECOVERED

    def blocks(_ctx: RecoveryContext) -> Outcome:
        release.wait(10)
        return Outcome.RECOVERED

    asked.registry.register(Action.RECONNECT, blocks if synchronous else hangs, timeout=0.05)
    begun = time.monotonic()
    assert await asked.dispatch(context()) is Outcome.RECOVERED
    assert time.monotonic() - begun < 5
    release.set()
    assert "took more than 0.05 s" in asked.broken[0]


async def test_one_that_answers_nonsense_is_told_of() -> None:
    """An answer that is no Outcome counts as a fault of the callback."""
    asked = Asked()
    asked.registry.register(Action.RECONNECT, lambda _ctx: "yes")  # type: ignore[arg-type] # the fault
    assert await asked.dispatch(context()) is Outcome.RECOVERED
    assert "not an Outcome" in asked.broken[0]


async def test_a_time_out_of_the_callbacks_own_is_its_own() -> None:
    """A TimeoutError raised inside is told as it is, not as our limit."""
    asked = Asked()

    def times_out(_ctx: RecoveryContext) -> Outcome:
        raise TimeoutError("provider")

    asked.registry.register(Action.RECONNECT, times_out)
    await asked.dispatch(context())
    assert asked.broken == ["provider"]


async def test_synchronous_callbacks_run_beside_the_loop() -> None:
    """They run in a thread of their own, and their answer counts."""
    asked, threads = Asked(), []

    def where(_ctx: RecoveryContext) -> Outcome:
        threads.append(threading.current_thread())
        return Outcome.RETRY

    asked.registry.register(Action.RECONNECT, where)
    assert await asked.dispatch(context()) is Outcome.RETRY
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize(
    ("action", "done", "outcome"),
    [
        (Action.WAIT, [], Outcome.RECOVERED),
        (Action.RETRY, [], Outcome.RECOVERED),
        (Action.RECONNECT, [], Outcome.RECOVERED),
        (Action.ROTATE_PROXY, ["rotate"], Outcome.RECOVERED),
        (Action.RELOGIN, ["retire: reset"], Outcome.RECOVERED),
        (Action.FAIL, [], Outcome.FAILED),
    ],
)
async def test_the_builtin_actions(action: Action, done: list[str], outcome: Outcome) -> None:
    """Each of the six is a callback registered like any other."""
    means = Means()
    dispatcher = Dispatcher(builtin(), lambda *_: None)
    assert await dispatcher.dispatch(context(action, means=means)) is outcome
    assert means.done == done


async def test_a_callback_may_choose_the_proxy() -> None:
    """`use_proxy` reaches the account."""
    means = Means()
    await context(means=means).use_proxy("socks5://127.0.0.1:1080")
    assert means.done == ["use socks5://127.0.0.1:1080"]


def test_modules_that_cannot_be_imported_are_told_all_at_once(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its exception, as a fault of the configuration."""
    (tmp_path / "explodes_on_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError) as told:
        load(["no_such_module_here", "explodes_on_import"])
    assert len(told.value.problems) == 2
    assert "ZeroDivisionError" in told.value.problems[1]


async def test_registries_merge_in_order_of_registration() -> None:
    """What was registered first is asked first, the built-in of the other last."""
    asked = Asked()
    asked.add("mine")
    other = Asked()
    other.order = asked.order
    other.add("builtin", builtin=True)
    merged = asked.registry.merged(other.registry)
    assert await Dispatcher(merged, lambda *_: None).dispatch(context()) is Outcome.DECLINED
    assert asked.order == ["mine", "builtin"]


async def test_what_was_cancelled_elsewhere_or_exits_costs_a_plain_retry() -> None:
    """A callback that ends in CancelledError or SystemExit ends neither the attempt nor the process."""
    asked = Asked()

    async def cancelled(_ctx: RecoveryContext) -> Outcome:
        other = asyncio.create_task(asyncio.sleep(60))
        other.cancel()
        await other
        return Outcome.RECOVERED

    def exits(_ctx: RecoveryContext) -> Outcome:
        raise SystemExit(3)

    asked.registry.register(Action.RECONNECT, cancelled, kind=Kind.CONNECTION)
    assert await asked.dispatch(context()) is Outcome.RECOVERED
    asked.registry.clear()
    asked.registry.register(Action.RECONNECT, exits)
    assert await asked.dispatch(context()) is Outcome.RECOVERED
    assert len(asked.broken) == 2


async def test_an_attempt_that_is_called_off_stays_called_off() -> None:
    """Cancelling the dispatch itself cancels it."""
    asked = Asked()

    async def waits(_ctx: RecoveryContext) -> Outcome:
        await asyncio.Event().wait()
        return Outcome.RECOVERED

    asked.registry.register(Action.RECONNECT, waits)
    task = asyncio.create_task(asked.dispatch(context()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
