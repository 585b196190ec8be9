"""Puts together what a configuration describes: the paths, each account with its link and calls, the seats of sign-ins."""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervisor import seats
from supervisor.account import Account, AccountPlan
from supervisor.calls import Calls
from supervisor.config.model import Account as AccountConfig
from supervisor.config.model import Config
from supervisor.core.budget import SignInBudget
from supervisor.core.failure import Kind, State
from supervisor.core.incident import Incident
from supervisor.core.ledger import Flood, Ledger, restore
from supervisor.core.lifecycle import Rules
from supervisor.gate import Gate, Limits
from supervisor.logins import Logins, Seat
from supervisor.paths import Paths
from supervisor.ports import AccountSnapshot, Clock, Dispatcher, FloodRow, IncidentRow, Saved, SignIn
from supervisor.record.store import Store

if TYPE_CHECKING:
    from supervisor.telegram.link import TelegramLink


@dataclass(frozen=True, slots=True)
class _Ended:
    """What an account that has stopped leaves to whoever continues it."""

    plan: AccountPlan
    ledger: Ledger


class Assembly:
    """Everything that is made of one configuration. Build it inside a running loop: it imports pyrogram."""

    def __init__(self, config: Config, saved: Saved, store: Store, db: Any, clock: Clock) -> None:
        """Begin; no account is built yet.

        Args:
            config: what is configured.
            saved: what an earlier run left.
            store: the recovery log.
            db: where sessions are kept.
            clock: both clocks.
        """
        self._config = config
        self._saved = saved
        self._store = store
        self._db = db
        self._clock = clock
        self._server = _server_address(config)
        self._proxies = _proxy_addresses(config)
        self._starting = asyncio.Semaphore(config.settings.start_limit)  # how many accounts start at once
        self._accounts: dict[str, Account] = {}
        self._links: dict[str, TelegramLink] = {}
        self._gates: dict[str, Gate] = {}
        self._identities: dict[str, str] = {}
        self._ended: dict[str, _Ended] = {}  # by identity
        budget = config.settings.connect_budget
        self.paths = Paths(config.proxies, self._probe, clock, budget, self._add_proxy)

    # --- a changed file -------------------------------------------------------------------------------

    def reconfigure(self, config: Config, ended: Iterable[str]) -> None:
        """Go by another configuration from now on; what runs is not touched.

        Args:
            config: what is configured now.
            ended: accounts of before that have stopped. Whoever continues the session of one goes on with its waits,
                sign-ins and incident.
        """
        identities = {account.identity for account in config.accounts.values()}
        for name in ended:
            self._end(name, is_continued=self._identities[name] in identities, stays=name in config.accounts)
        old, self._config = self._config, config
        self._server = _server_address(config)
        if config.settings.start_limit != old.settings.start_limit:
            self._starting = asyncio.Semaphore(config.settings.start_limit)
        # In place: links that run look their proxies up here.
        for gone in old.proxies.keys() - config.proxies.keys():
            del self._proxies[gone]
        self._proxies.update(_proxy_addresses(config))
        changed = [name for name, proxy in config.proxies.items() if old.proxies.get(name, proxy) != proxy]
        self.paths.reconfigure(config.proxies, changed, config.settings.connect_budget)

    def _end(self, name: str, *, is_continued: bool, stays: bool) -> None:
        account, gate = self._accounts.pop(name), self._gates.pop(name)
        del self._links[name]
        left = account.left()
        # What the run before left under this name has been taken up; another session gets what a restart would give it.
        accounts = {other: row for other, row in self._saved.accounts.items() if other != name}
        if stays and left.before is not None:
            accounts[name] = left.before
        incidents = [row for row in self._saved.incidents if row.account != name]
        self._saved = replace(self._saved, accounts=accounts, incidents=incidents)
        if not is_continued:
            if left.incident is not None and left.incident.is_open:
                now, mono = self._clock.now(), self._clock.monotonic()
                account.journal.incident(left.incident.closed(None, now, mono))
            left = replace(left, before=None, incident=None)
        self._ended[self._identities.pop(name)] = _Ended(left, gate.ledger)

    async def rename(self, name: str) -> None:
        """Keep an account's waits and sign-ins under its new name too: a restart looks for them there."""
        for at in self._accounts[name].plan.sign_ins:
            await self._store.save_sign_in(SignIn(name, at))
        ledger = self._gates[name].ledger
        for flood in ledger.rows(self._clock.now(), self._clock.monotonic()):
            await self._store.save_flood(
                FloodRow(name, flood.method, flood.peer, flood.seen_at, flood.seconds)
            )

    # --- paths ----------------------------------------------------------------------------------------

    async def _probe(self, path: str) -> None:
        from supervisor.telegram.spec import probe_path

        await probe_path(path, self._proxies, self._server, self._config.settings.connect_timeout)

    def _add_proxy(self, url: str) -> str:
        from supervisor.telegram.dial import proxy_from_url

        address = proxy_from_url(url)
        name = address.where
        if (
            self._proxies.get(name, address) != address
        ):  # the same place with other credentials is another path
            mark = hashlib.sha256(f"{address.username}:{address.password}".encode()).hexdigest()[:6]
            name = f"{name}#{mark}"
        self._proxies[name] = address
        return name

    # --- accounts -------------------------------------------------------------------------------------

    def account(self, name: str, *, dispatcher: Dispatcher) -> Account:
        """Build an account, its link and its calls; nothing is opened.

        Args:
            name: its name.
            dispatcher: asks the recovery callbacks.
        """
        from supervisor.telegram.evidence import from_code, from_exception
        from supervisor.telegram.link import TelegramLink

        configured = self._config.accounts[name]
        self._identities[name] = configured.identity
        ended = self._ended.pop(configured.identity, None)
        account = self._accounts[name] = Account(
            self._plan(configured, ended),
            self.paths,
            self._store,
            self._clock,
            starting=self._starting,
            jitter=random.random,
            new_id=_new_id,
            evidence_of=from_exception,
            evidence_of_code=from_code,
            dispatcher=dispatcher,
        )
        link = self._links[name] = TelegramLink(
            self._link_spec(configured), self._db, account, account.code_failed
        )
        calls = self._calls(configured, link, account)
        self._gates[name] = calls.gate
        if ended is not None:
            calls.gate.ledger = ended.ledger
        account.wire(link, calls)
        return account

    def _calls(self, configured: AccountConfig, link: TelegramLink, account: Account) -> Calls:
        from supervisor.telegram import queries

        name, config, settings = configured.name, self._config, self._config.settings
        limits = Limits(
            settings.call_timeout,
            settings.max_wait,
            settings.max_held,
            settings.release_rate_of(is_bot=configured.is_bot is not False),
        )
        gate = Gate(name, self._store, self._clock, limits, queries.flood_wait)
        floods = [
            Flood(f.method, f.peer, f.seen_at, f.seconds) for f in self._saved.floods if f.account == name
        ]
        gate.ledger = restore(floods, self._clock.now(), self._clock.monotonic())
        return Calls(
            name,
            gate,
            link,
            queries,
            self._clock,
            journal=account.journal,
            policies=config.policies,
            overrides=config.overrides,
            jitter=random.random,
            new_id=_new_id,
            report=account.call_failed,
        )

    def _plan(self, configured: AccountConfig, ended: _Ended | None) -> AccountPlan:
        name, settings = configured.name, self._config.settings
        can_relogin = configured.bot_token is not None
        opened = [row for row in self._saved.incidents if row.account == name and row.closed_at is None]
        plan = AccountPlan(
            name=name,
            rules=Rules(self._config.policies, settings.stable_after, can_relogin),
            candidates=configured.proxies,
            main=configured.main,
            overrides=self._config.overrides,
            sign_in_budget=self._sign_in_budget,
            prove_every=settings.prove_every,
            sign_ins=tuple(s.at for s in self._saved.sign_ins if s.account == name),
            before=self._saved.accounts.get(name),
            incident=_incident(opened[-1], self._clock) if opened else None,
        )
        if ended is None:
            return plan
        left = ended.plan
        before = replace(left.before, name=name) if left.before is not None else plan.before
        return replace(plan, before=before, incident=left.incident, sign_ins=left.sign_ins)

    @property
    def _sign_in_budget(self) -> SignInBudget:
        settings = self._config.settings
        return SignInBudget(settings.sign_ins_per_hour, settings.sign_ins_per_day)

    def _link_spec(self, configured: AccountConfig) -> Any:
        from supervisor.telegram.session import Timings
        from supervisor.telegram.spec import LinkSpec

        settings, telegram = self._config.settings, self._config.telegram
        return LinkSpec(
            name=configured.name,
            identity=configured.identity,
            api_id=telegram.api_id,
            api_hash=telegram.api_hash.reveal(),
            bot_token=configured.bot_token.reveal() if configured.bot_token else None,
            session_file=configured.session_file,
            session_string=configured.session_string.reveal() if configured.session_string else None,
            server=self._server,
            timings=Timings(settings.connect_timeout, settings.answer_timeout, settings.silence_timeout),
            message_cache=settings.message_cache,
            skip_missed=settings.missed_updates == "skip",
            plugins=configured.plugins,
            bases=(*self._config.search_path, Path.cwd()),
            options=configured.client,
            proxies=self._proxies,
        )

    def reconfigure_logins(self, logins: Logins, renamed: Mapping[str, str]) -> None:
        """Let the sign-ins go by the present configuration too."""
        logins.reconfigure(self._sign_in_budget, self._config.overrides, renamed)

    # --- signing user accounts in ---------------------------------------------------------------------

    def logins(self, *, running: bool) -> Logins:
        """The sign-ins with a code.

        Args:
            running: of the accounts that were built here; else of accounts that no daemon runs.
        """
        seat: Callable[[str], Seat] = self._running_seat if running else self._lone_seat
        return Logins(
            seat,
            self._store,
            self._clock,
            budget=self._sign_in_budget,
            sign_ins=self._saved.sign_ins,
            floods=self._saved.floods,
            overrides=self._config.overrides,
        )

    def _running_seat(self, name: str) -> Seat:
        configured = seats.user(name, self._config.accounts)
        return seats.RunningSeat(configured, self._links[name], self._accounts, self.paths)

    def _lone_seat(self, name: str) -> Seat:
        from supervisor.telegram.link import TelegramLink

        configured = seats.user(name, self._config.accounts)
        link = self._links[name] = TelegramLink(
            self._link_spec(configured), self._db, seats.Deaf(), lambda _evidence: None
        )
        before = self._saved.accounts.get(name)
        return seats.LoneSeat(configured, link, before, self._config.overrides, self._no_longer_needed)

    async def _no_longer_needed(self, before: AccountSnapshot) -> None:
        now = self._clock.now()
        await self._store.save_account(replace(before, state=State.STOPPED, since=now, retry_at=None))

    async def shutdown_links(self) -> None:
        """Close the links of accounts that nobody runs; an account closes its own."""
        for link in self._links.values():
            await link.shutdown()


def _server_address(config: Config) -> Any:
    from supervisor.telegram.keyexchange import public_key_from_pem
    from supervisor.telegram.spec import ServerAddress

    server = config.telegram.server
    if server is None:
        return None
    return ServerAddress(server.host, server.port, server.dc_id, public_key_from_pem(server.public_key))


def _proxy_addresses(config: Config) -> dict[str, Any]:
    from supervisor.telegram.dial import ProxyAddress

    return {
        p.name: ProxyAddress(
            p.scheme, p.host, p.port, p.username, p.password.reveal() if p.password else None
        )
        for p in config.proxies.values()
    }


def _incident(row: IncidentRow, clock: Clock) -> Incident:
    """An incident that an earlier run left open; its duration goes on counting."""
    return Incident(
        id=row.id,
        kind=row.kind,
        scope=row.scope,
        path=row.path,
        opened_at=row.opened_at,
        began=clock.monotonic() - max(0.0, clock.now() - row.opened_at),
        failures=row.failures,
        attempts={Kind(kind): n for kind, n in row.attempts.items()},
        backoff={Kind(kind): n for kind, n in row.backoff.items()},
        last_action=row.last_action,
    )


def _new_id() -> str:
    return secrets.token_hex(6)
