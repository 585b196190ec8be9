"""What a person orders for running accounts: pause, resume, retry, rotate; all of an order's accounts, or none."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
from collections.abc import Callable, Sequence
from typing import Any

from supervisor.account import Account
from supervisor.config.words import did_you_mean
from supervisor.control.protocol import ControlError
from supervisor.core.failure import State
from supervisor.pool import Pool

log = logging.getLogger(__name__)


class Orders:
    """Carries them out, one after another; what each means is told where it is asked for (ports.Control)."""

    def __init__(self, pool: Pool, turn: asyncio.Lock) -> None:
        """Begin.

        Args:
            pool: the accounts.
            turn: whatever else a person wants takes it, too.
        """
        self._pool = pool
        self._turn = turn

    async def pause(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Take accounts offline."""
        return await self._order(accounts, self._pool.pause, lambda state: state is not State.PAUSED)

    async def resume(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Bring paused accounts online again."""
        return await self._order(accounts, self._pool.resume, lambda state: state is State.PAUSED)

    async def retry(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Try accounts now; those that are paused stay so."""
        return await self._order(accounts, self._pool.retry, lambda state: state is not State.PAUSED)

    async def rotate(self, accounts: Sequence[str], to: str | None) -> list[dict[str, Any]]:
        """Move accounts to another proxy of theirs."""
        async with self._turn:
            chosen = [self._pool.accounts[name] for name in self._named(accounts)]
            before = {account.name: account.path for account in chosen}
            for account in chosen:
                _check_way(account, to)
            for account in chosen:
                if account.path != to:
                    account.rotate(to)
                    log.info("%s: moves from %s to %s", account.name, before[account.name], account.path)
            await asyncio.gather(*(account.heeded() for account in chosen))
        return [
            {
                "name": account.name,
                "state": account.state.value,
                "changed": account.path != before[account.name],
                "path": account.path,
                "before": before[account.name],
            }
            for account in chosen
        ]

    async def _order(
        self, asked: Sequence[str], give: Callable[[str], None], concerns: Callable[[State], bool]
    ) -> list[dict[str, Any]]:
        async with self._turn:
            chosen = [self._pool.accounts[name] for name in self._named(asked)]
            told = {account.name for account in chosen if concerns(account.state)}
            for name in told:
                give(name)
            await asyncio.gather(*(account.heeded() for account in chosen))
        return [
            {"name": account.name, "state": account.state.value, "changed": account.name in told}
            for account in chosen
        ]

    def _named(self, asked: Sequence[str]) -> list[str]:
        known = list(self._pool.accounts)
        for pattern in asked:
            if not fnmatch.filter(known, pattern):
                what = "matches" if any(sign in pattern for sign in "*?[") else "is called"
                text = f'no account {what} "{pattern}"{did_you_mean(pattern, known)}'
                raise ControlError("unknown_account", text, context={"account": pattern}, status=404)
        return [name for name in known if any(fnmatch.fnmatchcase(name, pattern) for pattern in asked)]


def _check_way(account: Account, to: str | None) -> None:
    """Refuse to move an account where it may not, or cannot, go."""
    name, own = account.name, account.plan.candidates
    context = {"account": name, "proxies": list(own)}
    if to is not None and to not in own:
        may = f"accounts.{name}.proxy names {', '.join(own)}" if own else f"{name} has no proxy configured"
        text = f'{name} may not use "{to}": {may}{did_you_mean(to, own)}'
        raise ControlError("unknown_proxy", text, context=context, status=409)
    if account.path == to or account.ways(to):
        return
    others = [to] if to is not None else [proxy for proxy in own if proxy != account.path]
    if others:
        text = f"{name}: {', '.join(others)} {'is' if len(others) == 1 else 'are'} broken; it stays on {account.path}"
        raise ControlError("no_other_path", text, retryable=True, context=context, status=409)
    text = f"{name}: there is no other proxy for it than {account.path}; give accounts.{name}.proxy a pool or a list"
    raise ControlError("no_other_path", text, context=context, status=409)
