"""Recovery callbacks: who is asked what to do, in which order, and what becomes of the answer.

    @on_recovery(Action.ROTATE_PROXY, account="support-*")
    async def fresh_proxy(ctx: RecoveryContext) -> Outcome: ...

The built-in actions are callbacks registered the same way, and come last. Most specific first, then in order
of registration. Synchronous callbacks run in a thread. One that raises or outlives its timeout is told of,
and the attempt falls back to a plain retry: it harms nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from supervisor.core.failure import Action, Kind, Outcome
from supervisor.errors import ConfigError
from supervisor.ports import RecoveryContext

# PRODUCT "Callbacks".
TIMEOUT = 30.0

Callback = Callable[[RecoveryContext], Awaitable[Outcome]] | Callable[[RecoveryContext], Outcome]
Broken = Callable[[RecoveryContext, str, BaseException], None]
_C = TypeVar("_C", bound=Callback)


@dataclass(frozen=True, slots=True)
class Registration:
    """One callback and what it is for; None stands for any."""

    action: Action
    callback: Callback
    kind: Kind | None = None
    account: str | None = None
    timeout: float = TIMEOUT
    builtin: bool = False
    order: int = 0

    @property
    def name(self) -> str:
        """The callback's name, for messages."""
        function = self.callback
        return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"

    def concerns(self, ctx: RecoveryContext) -> bool:
        """Whether this callback is to be asked."""
        return (
            self.action is ctx.action
            and self.kind in (None, ctx.kind)
            and (self.account is None or fnmatchcase(ctx.account, self.account))
        )

    @property
    def precedence(self) -> tuple[bool, int, bool, int]:
        """Sorts the most specific first, a name before a pattern, the built-in last."""
        specific = (self.kind is not None) + (self.account is not None)
        pattern = self.account is not None and any(sign in self.account for sign in "*?[")
        return self.builtin, -specific, pattern, self.order


class Registry:
    """The callbacks of a supervisor."""

    def __init__(self) -> None:
        self._registered: list[Registration] = []
        self._order = itertools.count()

    def register(
        self,
        action: Action,
        callback: Callback,
        *,
        kind: Kind | None = None,
        account: str | None = None,
        timeout: float = TIMEOUT,
        builtin: bool = False,
    ) -> None:
        """Add a callback.

        Args:
            action: the action that it performs.
            callback: asked for an `Outcome`.
            kind: only for failures of this kind.
            account: only for accounts of this name or pattern, as ``support-*``.
            timeout: seconds it may take.
            builtin: asked after all others.
        """
        registration = Registration(action, callback, kind, account, timeout, builtin, next(self._order))
        self._registered.append(registration)
        self._registered.sort(key=lambda each: each.precedence)

    def matching(self, ctx: RecoveryContext) -> list[Registration]:
        """Those to ask, in order."""
        return [each for each in self._registered if each.concerns(ctx)]

    def clear(self) -> None:
        """Forget every callback."""
        self._registered.clear()

    def merged(self, other: Registry) -> Registry:
        """A registry with the callbacks of both, those of `self` registered first."""
        merged = Registry()
        for each in sorted([*self._registered, *other._registered], key=lambda one: one.order):
            merged.register(
                each.action,
                each.callback,
                kind=each.kind,
                account=each.account,
                timeout=each.timeout,
                builtin=each.builtin,
            )
        return merged


# What `on_recovery` adds to; a supervisor takes what is there when it starts.
registered = Registry()


def on_recovery(
    action: Action, *, kind: Kind | None = None, account: str | None = None, timeout: float = TIMEOUT
) -> Callable[[_C], _C]:
    """Register the decorated function as a recovery callback.

    It is given a `RecoveryContext` and returns an `Outcome`: RECOVERED (then proved by an RPC), RETRY (this
    attempt failed), FAILED (the incident is over, the account failed), DECLINED (ask the next).

    Args:
        action: the action that it performs.
        kind: only for failures of this kind.
        account: only for accounts of this name or pattern, as ``support-*``.
        timeout: seconds it may take.
    """

    def register(callback: _C) -> _C:
        registered.register(action, callback, kind=kind, account=account, timeout=timeout)
        return callback

    return register


def load(modules: Iterable[str]) -> None:
    """Import the modules that `callbacks` names; their decorators register.

    Raises:
        ConfigError: one cannot be imported.
    """
    problems = []
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever an operator's module raises is a fault of the configuration
            problems.append(f'supervisor.callbacks: cannot import "{name}": {type(error).__name__}: {error}')
    if problems:
        raise ConfigError(problems)


class Dispatcher:
    """Asks the callbacks of a registry (ports.Dispatcher)."""

    def __init__(self, registry: Registry, broken: Broken) -> None:
        """Build a dispatcher.

        Args:
            registry: whom to ask.
            broken: is told of a callback that raised or took too long, with its name.
        """
        self._registry = registry
        self._broken = broken

    def is_overridden(self, ctx: RecoveryContext) -> bool:
        """Whether somebody besides the built-in action would be asked."""
        return any(not each.builtin for each in self._registry.matching(ctx))

    async def dispatch(self, ctx: RecoveryContext) -> Outcome:
        """Ask one after another until one does not decline; DECLINED if all do.

        A callback that raises, outlives its timeout or returns no `Outcome` counts as `RECOVERED` unproved,
        which is a plain retry: the link is tried as it is.
        """
        for each in self._registry.matching(ctx):
            outcome = await self._ask(each, ctx)
            if outcome is not Outcome.DECLINED:
                return outcome
        return Outcome.DECLINED

    async def _ask(self, each: Registration, ctx: RecoveryContext) -> Outcome:
        limit = asyncio.timeout(each.timeout)
        try:
            async with limit:
                outcome = await _run(each.callback, ctx)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the attempt itself is called off
            self._broken(ctx, each.name, error)  # something that the callback awaited was cancelled elsewhere
            return Outcome.RECOVERED
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a callback must harm nobody, whatever it raises
            late = TimeoutError(f"{each.name} took more than {each.timeout:g} s")
            self._broken(ctx, each.name, late if limit.expired() else error)
            return Outcome.RECOVERED
        if isinstance(outcome, Outcome):
            return outcome
        self._broken(ctx, each.name, TypeError(f"{each.name} returned {outcome!r}, not an Outcome"))
        return Outcome.RECOVERED


async def _run(callback: Callback, ctx: RecoveryContext) -> object:
    if inspect.iscoroutinefunction(callback):
        return await callback(ctx)
    return await _in_thread(callback, ctx)


async def _in_thread(callback: Callback, ctx: RecoveryContext) -> object:
    """Run a synchronous callback in a thread of its own: one that hangs holds up neither others nor the exit."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[object] = loop.create_future()

    def tell(result: object, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)

    def work() -> None:
        result: object = None
        failed: BaseException | None = None
        try:
            result = callback(ctx)
        except BaseException as error:  # noqa: BLE001 - raised where the callback is awaited
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any longer
            loop.call_soon_threadsafe(tell, result, failed)

    threading.Thread(target=work, name="recovery-callback", daemon=True).start()
    return await done


# --- the built-in actions -------------------------------------------------------------------------------


async def _as_it_is(_ctx: RecoveryContext) -> Outcome:
    """Wait, reconnect, retry: the delay has passed; what is left is to try the link as it is."""
    return Outcome.RECOVERED


async def _rotate(ctx: RecoveryContext) -> Outcome:
    """Move to another proxy of the account's pool."""
    await ctx.rotate_proxy()
    return Outcome.RECOVERED


async def _relogin(ctx: RecoveryContext) -> Outcome:
    """Keep the present key aside; the next link makes a new one and signs in."""
    await ctx.retire_session()
    return Outcome.RECOVERED


async def _give_up(_ctx: RecoveryContext) -> Outcome:
    return Outcome.FAILED


def builtin() -> Registry:
    """The six built-in actions, registered like any callback."""
    registry = Registry()
    for action, callback in {
        Action.WAIT: _as_it_is,
        Action.RECONNECT: _as_it_is,
        Action.RETRY: _as_it_is,
        Action.ROTATE_PROXY: _rotate,
        Action.RELOGIN: _relogin,
        Action.FAIL: _give_up,
    }.items():
        registry.register(action, callback, builtin=True)
    return registry
