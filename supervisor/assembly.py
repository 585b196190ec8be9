"""Puts together what a configuration describes: the paths, each account with its link and calls, the seats of sign-ins."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from supervisor import randomness, seats, specs
from supervisor.account import Account, AccountPlan
from supervisor.attempts import SIGN_IN
from supervisor.calls import Calls
from supervisor.config.model import Account as AccountConfig
from supervisor.config.model import Config
from supervisor.core.budget import SignInBudget
from supervisor.core.classify import known_ids
from supervisor.core.events import Excused
from supervisor.core.failure import Kind, State
from supervisor.core.incident import Incident
from supervisor.core.ledger import Flood, Ledger, restore
from supervisor.core.lifecycle import Rules
from supervisor.gate import Gate, Limits
from supervisor.logins import Logins, Seat
from supervisor.marks import Marks
from supervisor.outages import Fleet, Outages
from supervisor.paths import HOME_DC, Paths
from supervisor.paths import Limits as PathLimits
from supervisor.ports import (
    AccountSnapshot,
    Clock,
    Dispatcher,
    FloodRow,
    IncidentRow,
    PathSnapshot,
    Recorder,
    Saved,
    SignIn,
)
from supervisor.rations import SignInRation
from supervisor.waves import Waves

if TYPE_CHECKING:
    from supervisor.telegram.link import TelegramLink

_OfAccount = TypeVar("_OfAccount", FloodRow, IncidentRow, SignIn)


@dataclass(frozen=True, slots=True)
class _Ended:
    """What an account that has stopped leaves to whoever continues it."""

    plan: AccountPlan
    ledger: Ledger


class Assembly:
    """Everything that is made of one configuration. Build it inside a running loop: it imports pyrogram."""

    def __init__(self, config: Config, saved: Saved, store: Recorder, db: Any, clock: Clock) -> None:
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
        self._sign_ins = _by_account(saved.sign_ins)
        self._floods = _by_account(saved.floods)
        self._incidents = _by_account(saved.incidents)
        self._store = store
        self._db = db
        self._clock = clock
        self._server = specs.server(config)
        self._proxies = specs.proxies(config)
        self._leaving: set[str] = set()  # proxies that are gone, as long as somebody may be on them
        self._starting = asyncio.Semaphore(config.settings.start_limit)  # how many accounts start at once
        self._accounts: dict[str, Account] = {}
        self._links: dict[str, TelegramLink] = {}
        self._calls: dict[str, Calls] = {}
        self._identities: dict[str, str] = {}
        self._ended: dict[str, _Ended] = {}  # by identity
        self._marks = Marks(config.settings.state_dir)
        known_ids()  # the error table is read now: where something fails there may be no file left to be opened
        server = config.telegram.server
        self.paths = Paths(
            config.proxies,
            self._probe,
            clock,
            _path_limits(config),
            self._add_proxy,
            recorder=store,
            jitter=random.random,
            home=server.dc_id if server is not None else HOME_DC,
            saved=saved.paths,
        )
        self.outages = Outages(
            store,
            clock,
            Fleet(self.paths.population, self.paths.is_down, self._excuse),
            new_id=_new_id,
            stable_after=config.settings.stable_after,
        )
        self.outages.restore(saved.incidents, config.accounts)
        self.waves = Waves(self.outages, clock, self.paths.population, random.random)

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
        self._server = specs.server(config)
        if config.settings.start_limit != old.settings.start_limit:
            self._starting = asyncio.Semaphore(config.settings.start_limit)
        self._leaving = (self._leaving | old.proxies.keys()) - config.proxies.keys()
        self._proxies.update(specs.proxies(config))  # in place: links that run look their proxies up here
        changed = [name for name, proxy in config.proxies.items() if old.proxies.get(name, proxy) != proxy]
        self.paths.reconfigure(config.proxies, changed, _path_limits(config))
        self.outages.stable_after = config.settings.stable_after

    def adapted(self) -> None:
        """All have taken over what has changed: nobody is on a proxy any longer that is gone."""
        for gone in self._leaving:
            self._proxies.pop(gone, None)
        self._leaving = set()
        self.paths.reconfigure(self._config.proxies, (), _path_limits(self._config))

    def adapt(self, name: str) -> None:
        """Let an account that runs go by the present configuration; nothing of it is stopped.

        Args:
            name: its name.
        """
        configured, account, config = self._config.accounts[name], self._accounts[name], self._config
        account.reconfigure(replace(account.plan, **self._rules(configured)), self._starting)
        self._calls[name].reconfigure(self._limits(configured), config.policies, config.overrides)
        self._links[name].reconfigure(self._link_spec(configured))

    def _end(self, name: str, *, is_continued: bool, stays: bool) -> None:
        account, gate = self._accounts.pop(name), self._calls.pop(name).gate
        del self._links[name]
        left = account.left()
        # What the run before left under this name has been taken up; another session gets what a restart would give it.
        accounts = {other: row for other, row in self._saved.accounts.items() if other != name}
        if stays and left.before is not None:
            accounts[name] = left.before
        self._incidents.pop(name, None)
        self._saved = replace(self._saved, accounts=accounts)
        if not is_continued:
            if left.incident is not None and left.incident.is_open:
                now, mono = self._clock.now(), self._clock.monotonic()
                closed = left.incident.closed(None, now, mono)
                self.outages.given_up(name, account.journal.incident_row(closed))
            self.outages.left(name)
            left = replace(left, before=None, incident=None)
        self._ended[self._identities.pop(name)] = _Ended(left, gate.ledger)

    async def rename(self, name: str) -> None:
        """Keep an account's waits and sign-ins under its new name too: a restart looks for them there."""
        for at in self._accounts[name].plan.sign_ins:
            await self._store.save_sign_in(SignIn(name, at))
        ledger = self._calls[name].gate.ledger
        for flood in ledger.rows(self._clock.now(), self._clock.monotonic()):
            await self._store.save_flood(
                FloodRow(name, flood.method, flood.peer, flood.seen_at, flood.seconds)
            )

    # --- paths ----------------------------------------------------------------------------------------

    def path_snapshots(self) -> list[PathSnapshot]:
        """What `status` shows of the paths, their outages included."""
        shown = ((path, self.outages.on(path.name)) for path in self.paths.snapshots())
        return [replace(path, incident=outage.id) if outage else path for path, outage in shown]

    async def _probe(self, path: str, dc: int) -> float:
        """Ask whether Telegram answers on a path to a datacenter, as an account that is at home there reaches it."""
        from supervisor.telegram.plain import probe
        from supervisor.telegram.spec import home_route

        there = next((link for link in self._links.values() if link.dc == dc), None)
        route = there.route(path) if there is not None else home_route(path, self._proxies, self._server)
        return await probe(route, timeout=self._config.settings.connect_timeout)

    def _excuse(self, name: str) -> None:
        account = self._accounts.get(name)
        if account is not None:
            account.tell(Excused())

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
            self.outages,
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
        calls = self._calls[name] = self._new_calls(configured, link, account)
        if ended is not None:
            calls.gate.ledger = ended.ledger
        account.wire(link, calls)
        return account

    def _new_calls(self, configured: AccountConfig, link: TelegramLink, account: Account) -> Calls:
        from supervisor.telegram import queries

        name, config = configured.name, self._config
        gate = Gate(name, self._store, self._clock, self._limits(configured), queries.flood_wait)
        gate.ledger = self._restored(name)
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
            wave=functools.partial(self.waves.met, name),
        )

    def _limits(self, configured: AccountConfig) -> Limits:
        settings = self._config.settings
        return Limits(
            settings.call_timeout,
            settings.max_wait,
            settings.max_held,
            settings.release_rate_of(is_bot=configured.is_bot is not False),
        )

    def _rules(self, configured: AccountConfig) -> dict[str, Any]:
        """What of an account's plan may change while it runs."""
        config, can_relogin = self._config, configured.bot_token is not None
        return {
            "rules": Rules(
                config.policies,
                config.settings.stable_after,
                can_relogin,
                config.settings.flap_limit,
                config.settings.flap_window,
            ),
            "candidates": configured.proxies,
            "overrides": config.overrides,
            "sign_in_budget": self._sign_in_budget,
            "prove_every": config.settings.prove_every,
            "configured": self._marks.of(configured, config.telegram),
        }

    def _plan(self, configured: AccountConfig, ended: _Ended | None) -> AccountPlan:
        name = configured.name
        opened = [row for row in self._incidents.get(name, ()) if row.closed_at is None]
        plan = AccountPlan(
            name=name,
            main=configured.main,
            sign_ins=self._past_sign_ins(name),
            before=self._saved.accounts.get(name),
            incident=_incident(opened[-1], self._clock) if opened else None,
            **self._rules(configured),
        )
        if ended is None:
            return plan
        left = ended.plan
        before = replace(left.before, name=name) if left.before is not None else plan.before
        return replace(plan, before=before, incident=left.incident, sign_ins=left.sign_ins)

    def _past_sign_ins(self, name: str) -> tuple[float, ...]:
        return tuple(sign_in.at for sign_in in self._sign_ins.get(name, ()))

    def _restored(self, name: str) -> Ledger:
        """The waits that Telegram has demanded of an account in earlier runs."""
        rows = self._floods.get(name, ())
        floods = [Flood(row.method, row.peer, row.seen_at, row.seconds) for row in rows]
        return restore(floods, self._clock.now(), self._clock.monotonic())

    @property
    def _sign_in_budget(self) -> SignInBudget:
        settings = self._config.settings
        return SignInBudget(settings.sign_ins_per_hour, settings.sign_ins_per_day)

    def _link_spec(self, configured: AccountConfig) -> Any:
        return specs.link(self._config, configured, self._server, self._proxies)

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

    def lone_bot(self, name: str) -> seats.LoneBot:
        """A bot that no daemon runs, as a sign-in needs it."""
        configured, mono = self._config.accounts[name], self._clock.monotonic()
        link = self._lone_link(configured)
        past = self._past_sign_ins(name)
        ration = SignInRation(name, self._sign_in_budget, past, self._store, self._clock)
        return seats.LoneBot(configured, link, ration, self._restored(name).remaining(SIGN_IN, None, mono))

    def _lone_link(self, configured: AccountConfig) -> TelegramLink:
        from supervisor.telegram.link import TelegramLink

        link = self._links[configured.name] = TelegramLink(
            self._link_spec(configured), self._db, seats.Deaf(), lambda _evidence: None
        )
        return link

    def _lone_seat(self, name: str) -> Seat:
        configured = seats.user(name, self._config.accounts)
        link = self._lone_link(configured)
        before = self._saved.accounts.get(name)
        return seats.LoneSeat(configured, link, before, self._config.overrides, self._no_longer_needed)

    async def _no_longer_needed(self, before: AccountSnapshot) -> None:
        now = self._clock.now()
        await self._store.save_account(
            replace(before, state=State.STOPPED, since=now, retry_at=None, standing=None)
        )

    async def shutdown_links(self) -> None:
        """Close the links of accounts that nobody runs; an account closes its own."""
        for link in self._links.values():
            await link.shutdown()


def _by_account(rows: Iterable[_OfAccount]) -> dict[str | None, list[_OfAccount]]:
    found: dict[str | None, list[_OfAccount]] = defaultdict(list)
    for row in rows:
        found[row.account].append(row)
    return dict(found)


def _path_limits(config: Config) -> PathLimits:
    settings = config.settings
    rate_limit = config.policies[Kind.RATE_LIMIT]
    return PathLimits(
        settings.connect_budget,
        settings.connect_total,
        settings.probe_budget,
        settings.breaker_failures,
        rate_limit,
    )


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
    return randomness.take(6).hex()
