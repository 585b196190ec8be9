"""Whatever befalls a fleet, in any order: what must hold of every account, held by one state machine over the core.

A run of CI draws the same few hundred lives. For a long one: ``MACHINE_EXAMPLES=20000 pytest tests/core/test_machine.py
--timeout=0``, without CI set.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisor.core.classify import classify, known_ids
from supervisor.core.decide import needs_proof
from supervisor.core.events import (
    Attempt,
    AwaitPath,
    Delay,
    DelayOver,
    Effect,
    Event,
    Failed,
    GiveUp,
    HoldCalls,
    Log,
    PathBack,
    Pause,
    Proved,
    RefuseCalls,
    ReleaseCalls,
    Retry,
    Rotate,
    Start,
    Stop,
)
from supervisor.core.failure import (
    DEFAULT_POLICIES,
    Action,
    Evidence,
    Kind,
    Remedy,
    Result,
    Source,
    State,
)
from supervisor.core.lifecycle import Life
from tests.core.simulation import DAY, EPSILON, Account, Path, World

AT_ONCE = (Action.RECONNECT, Action.ROTATE_PROXY, Action.RELOGIN)
FLAPS, FLAP_WINDOW = 5, 600.0
OFF = (State.STOPPED, State.PAUSED, State.FAILED, State.NEEDS_LOGIN)
DOORS = {
    State.STARTING: HoldCalls,
    State.RECOVERING: HoldCalls,
    State.ONLINE: ReleaseCalls,
    State.SUSPENDED: RefuseCalls,
    **dict.fromkeys(OFF, RefuseCalls),
}


@dataclass(slots=True)
class Counts:
    """What the machine counts by itself of one account."""

    incident: str = ""
    spent: Counter[Kind] = field(default_factory=Counter)  # actions in a row that no answered RPC followed
    failed: Counter[Kind] = field(default_factory=Counter)  # failed attempts of the incident
    suspensions: int = 0  # in a row
    losses: list[float] = field(default_factory=list)  # in time that really passes, pauses left out
    pauses: float = 0.0
    doubtful: bool = False  # the last loss may be its path's
    wall: float = 0.0  # how the wall clock went when this was saved

    def copy(self) -> Counts:
        return replace(self, spent=self.spent.copy(), failed=self.failed.copy(), losses=self.losses.copy())

    def lost(self, now: float) -> None:
        """The account has lost a link that it had, by its own fault."""
        now -= self.pauses
        self.losses = [at for at in self.losses if now - at < FLAP_WINDOW]
        self.losses.append(now)
        self.doubtful = True


class Promises:
    """What every step of an account must keep to, by counts of its own. Each failing check has the promise for its name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.counts: dict[str, Counts] = defaultdict(Counts)
        self.saved: dict[str, Counts] = defaultdict(Counts)
        self.awaits_path: set[str] = set()
        self.paused: set[str] = set()

    def restarted(self, account: Account, before: Life, *, same: bool) -> None:
        """What was logged outlives the process, and so does what an account waited for, unless it is configured otherwise."""
        name, was = account.name, self.counts[account.name]
        counts = self.counts[name] = self.saved[name].copy() if account.disk.open else Counts()
        counts.losses, counts.pauses, counts.doubtful = was.losses if same else [], was.pauses, False
        if was.wall != self.world.wall_off:  # they are told by a clock that somebody has set
            ago = self.world.t - counts.pauses - self.world.monotonic()
            counts.losses = [at + ago for at in account.life.losses]
        kept = same or before.state is State.PAUSED
        counts.suspensions = was.suspensions if same and before.state is State.SUSPENDED else 0
        self.awaits_path.discard(name)
        if before.state in (State.PAUSED, State.FAILED, State.NEEDS_LOGIN, State.SUSPENDED) and kept:
            self.what_awaits_a_person_or_a_time_still_does(account, before)
        if same and before.retry_at is not None and before.delay:
            self.no_delay_is_cut_short_or_drawn_out(account, before)

    @staticmethod
    def what_awaits_a_person_or_a_time_still_does(account: Account, before: Life) -> None:
        life = account.life
        assert (life.state, life.since) == (before.state, before.since), f"{account.name} is {life.state}"
        assert before.state is State.SUSPENDED or account.work is None, f"{account.name} is tried"

    def no_delay_is_cut_short_or_drawn_out(self, account: Account, before: Life) -> None:
        """By the wall clock, the only one that goes on."""
        assert before.retry_at is not None
        left, work = before.retry_at - self.world.now(), account.work
        left = min(left, before.delay)  # all of it where the clock went back behind its beginning
        if left <= EPSILON or work is None or before.state in OFF:
            return
        assert isinstance(work.order, Delay), f"{account.name} is tried {left:.3f} s early"
        assert abs(work.due - self.world.t - left) < EPSILON, f"{account.name} waits {work.order.seconds} s"

    def witness(self, account: Account, before: Life, event: Event, effects: tuple[Effect, ...]) -> None:
        """See one step of an account."""
        counts, life = self.counts[account.name], account.life
        self.only_a_person_ends_failed_and_needs_login(before, event, life)
        self.only_a_person_ends_a_pause(account.name, event, life)
        self.while_its_path_is_broken_it_does_not_try(account.name, before, event, effects)
        if isinstance(event, Proved | Retry | Rotate | Pause | Start) and before.state is not life.state:
            counts.suspensions = 0
        if isinstance(event, Proved | Retry | Rotate) and effects:
            counts.spent.clear()
            counts.doubtful = False
        if isinstance(event, Retry | Rotate) and effects:
            counts.losses.clear()
        if isinstance(event, Failed) and before.state not in OFF:
            self._failed(counts, before, event, effects, life)
        counts.wall = account.saved_wall
        if any(isinstance(effect, Log | GiveUp) for effect in effects):
            self.saved[account.name] = counts.copy()

    def _failed(
        self, counts: Counts, before: Life, event: Failed, effects: tuple[Effect, ...], life: Life
    ) -> None:
        (log,) = (effect for effect in effects if isinstance(effect, Log))
        kind = event.failure.kind
        if log.incident.id != counts.incident:
            counts.incident = log.incident.id
            counts.spent.clear()
            counts.failed.clear()
        elif before.incident is not None and not before.incident.is_open:
            counts.spent.clear()
        tried = before.state in (State.STARTING, State.RECOVERING) and not event.path_broken
        if tried and counts.spent[kind]:
            counts.failed[kind] += 1
        delay = next((effect.seconds for effect in effects if isinstance(effect, Delay)), 0.0)
        flaps = self._flaps(counts, before, event)
        if kind is Kind.AUTH and event.failure.remedy is Remedy.WAIT:
            self.a_rationed_sign_in_is_waited_for(event, log, delay)
        if log.result is Result.SUSPENDED:
            if flaps:
                self.who_flaps_longer_pauses_longer(counts, log)
            else:
                self.nobody_gives_up_before_the_cap(counts, before, event)
            self.a_suspended_account_is_probed_after_60_to_300_s(counts, event, delay, flaps=flaps)
            counts.suspensions += 1
            counts.pauses += delay
        elif log.result is Result.RETRYING and event.path_broken:
            counts.spent.clear()
            self.a_broken_path_costs_no_attempt(log)
        elif log.result is Result.RETRYING:
            assert not flaps, f"{log.incident.id}: {len(counts.losses)} losses, and tried again in {delay} s"
            self.delays_are_within_bounds(counts, event, log, delay)
            counts.spent[kind] += 1
            self.caps_are_never_exceeded(counts, kind, log)
        assert (life.retry_at is None) == (delay == 0.0)

    def _flaps(self, counts: Counts, before: Life, event: Failed) -> bool:
        """Whether this is a loss too many, as far as that is known."""
        if before.state is not State.ONLINE:
            if event.path_broken and before.state is not State.SUSPENDED and counts.doubtful:
                counts.losses.pop()
                counts.doubtful = False
            return False
        counts.doubtful = False
        if event.path_broken or needs_proof(event.failure):
            return False
        counts.lost(self.world.t)
        return len(counts.losses) > FLAPS

    # --- the promises ---------------------------------------------------------------------------------

    @staticmethod
    def only_a_person_ends_failed_and_needs_login(before: Life, event: Event, life: Life) -> None:
        if before.state in (State.FAILED, State.NEEDS_LOGIN) and not isinstance(event, Retry | Pause | Stop):
            before = replace(before, path=life.path) if isinstance(event, Rotate) else before
            assert life == before, f"{type(event).__name__} ended {before.state}"

    def only_a_person_ends_a_pause(self, name: str, event: Event, life: Life) -> None:
        if isinstance(event, Pause):
            self.paused.add(name)
        elif isinstance(event, Retry):
            self.paused.discard(name)
        assert (name in self.paused) == (life.state is State.PAUSED), f"{name} is {life.state}"

    def while_its_path_is_broken_it_does_not_try(
        self, name: str, before: Life, event: Event, effects: tuple[Effect, ...]
    ) -> None:
        probe = isinstance(event, DelayOver) and before.state is State.SUSPENDED
        if isinstance(event, PathBack | Retry | Rotate | Start | Pause | Stop) or probe:
            self.awaits_path.discard(name)
        tries = any(isinstance(effect, Attempt) for effect in effects)
        assert not (tries and name in self.awaits_path), f"{name} tries while its path is broken"
        stuck = isinstance(event, Failed) and event.path_broken and not event.elsewhere
        if stuck and before.state not in OFF:
            self.awaits_path.add(name)
            assert not tries, f"{name} tries at once over a path that is broken"
        elif isinstance(event, Failed) and event.path_broken:
            tried = [effect.action for effect in effects if isinstance(effect, Attempt)]
            assert tried in ([], [Action.ROTATE_PROXY]), f"{name} stays on a broken path: {tried}"

    @staticmethod
    def a_broken_path_costs_no_attempt(log: Log) -> None:
        assert not any(log.incident.attempts.values()), "a cap was spent on a broken path"

    @staticmethod
    def caps_are_never_exceeded(counts: Counts, kind: Kind, log: Log) -> None:
        cap = DEFAULT_POLICIES.get(kind, DEFAULT_POLICIES[Kind.UNKNOWN]).max_retries
        assert counts.spent[kind] <= cap, f"{kind}: {counts.spent[kind]} actions in a row, the cap is {cap}"
        assert log.attempt == counts.spent[kind], (
            f"{kind}: action {counts.spent[kind]} counted as {log.attempt}"
        )

    @staticmethod
    def nobody_gives_up_before_the_cap(counts: Counts, before: Life, event: Failed) -> None:
        kind = event.failure.kind
        rationed = kind is Kind.AUTH and event.failure.remedy is Remedy.WAIT
        if before.state is not State.SUSPENDED and not rationed:
            cap = DEFAULT_POLICIES.get(kind, DEFAULT_POLICIES[Kind.UNKNOWN]).max_retries
            assert counts.spent[kind] == cap, f"{kind}: suspended after {counts.spent[kind]} of {cap}"

    @staticmethod
    def a_rationed_sign_in_is_waited_for(event: Failed, log: Log, delay: float) -> None:
        assert log.result is Result.SUSPENDED
        assert event.failure.wait is not None
        assert delay >= event.failure.wait, (
            f"{delay} s for a sign-in that may be made in {event.failure.wait} s"
        )

    @staticmethod
    def who_flaps_longer_pauses_longer(counts: Counts, log: Log) -> None:
        assert log.failure is not None
        n = len(counts.losses)
        assert f"flapping: {n} losses in 10 minutes" in log.failure.evidence.message
        counts.suspensions = n - FLAPS - 1

    @staticmethod
    def a_suspended_account_is_probed_after_60_to_300_s(
        counts: Counts, event: Failed, delay: float, *, flaps: bool
    ) -> None:
        least, wait = min(60.0 * 2**counts.suspensions, 300.0), event.failure.wait
        if wait is None and flaps:  # what would have been waited for without that may be longer
            assert least <= delay <= 1.25 * 300.0, f"{len(counts.losses)} losses, a pause of {delay} s"
        elif wait is None:
            assert least <= delay <= 1.25 * least, f"probe {counts.suspensions} after {delay} s"
        else:
            assert wait <= delay <= max(wait + 1.0, 1.25 * 300.0), f"{delay} s for a wait of {wait} s"

    @staticmethod
    def delays_are_within_bounds(counts: Counts, event: Failed, log: Log, delay: float) -> None:
        failure = event.failure
        unnamed = failure.kind is Kind.FLOOD_WAIT and failure.wait is None  # "limited without a number"
        kind = Kind.RATE_LIMIT if unnamed else failure.kind
        policy = DEFAULT_POLICIES.get(kind, DEFAULT_POLICIES[Kind.UNKNOWN])
        failed = counts.failed[failure.kind]
        assert delay == log.delay
        if failure.wait is not None:
            assert failure.wait <= delay <= failure.wait + 1.0, f"{delay} s for a wait of {failure.wait} s"
            return
        if failure.action in AT_ONCE and not counts.spent[failure.kind]:
            least = 0.0
        else:
            least = policy.base_delay * 2 ** max(failed - (failure.action in AT_ONCE), 0)
            assert delay > 0.0, f"{failure}: tried again at once"
        least = min(least, 300.0)
        assert least <= delay <= 1.25 * least, f"{failure}: {delay} s, failures before: {failed}"


# --- What befalls them ----------------------------------------------------------------------------------


def rpc(error_id: str) -> Evidence:
    return Evidence(Source.RPC, error_id, error_id)


LONG_FLOOD = Evidence(Source.RPC, "", "FLOOD_WAIT_500", 420, method="updates.GetState")
seconds = st.integers(1, 90)
waits = st.sampled_from(["FLOOD_WAIT_X", "FLOOD_PREMIUM_WAIT_X", "SLOWMODE_WAIT_X", "BRAND_NEW_WAIT_X"])
demands = st.builds(
    lambda spelled, n: Evidence(Source.RPC, spelled, spelled.replace("X", str(n)), 420), waits, seconds
)
table = st.sampled_from(sorted(known_ids())).map(lambda spelled: rpc(spelled.replace("X", "7")))
codes = st.sampled_from([400, 401, 403, 406, 420, 500, 503, 999]).map(
    lambda code: Evidence(Source.RPC, "NEVER_SEEN", "NEVER_SEEN", code)
)
answers = st.one_of(
    demands,
    demands,
    st.sampled_from(["PEER_ID_INVALID", "INTERNAL_SERVER_ERROR", "CONNECTION_NOT_INITED", "PEER_FLOOD"]).map(
        rpc
    ),
    st.just(rpc("AUTH_KEY_UNREGISTERED")),  # as another datacenter's key is answered
    table,
    codes,
)
troubles = st.one_of(
    st.sampled_from(
        [
            Evidence(Source.SOCKET, "reset"),
            Evidence(Source.SOCKET, "reset"),
            Evidence(Source.SILENCE, "silence"),
            Evidence(Source.PROTOCOL, "bad_msg_notification"),
            Evidence(Source.PROXY, "refused"),
            Evidence(Source.STORAGE, "locked", "SQLITE_BUSY"),
            Evidence(Source.STORAGE, "damaged", "SQLITE_CORRUPT"),
            Evidence(Source.CODE, "a fault"),
            *(Evidence(Source.TRANSPORT, str(code), code=code) for code in (-404, -429, -444, -1)),
        ]
    ),
    st.sampled_from(["INTERNAL_SERVER_ERROR", "CONNECTION_LAYER_INVALID"]).map(
        lambda error_id: replace(rpc(error_id), method="updates.GetState")
    ),
    st.sampled_from(["FLOOD_WAIT", "FLOOD_WAIT_12", "FLOOD_WAIT_500", "FLOOD_WAIT_1700000000"]).map(
        lambda error_id: Evidence(Source.RPC, error_id, error_id, 420, method="updates.GetState")
    ),
)
says = st.one_of(
    st.lists(answers, max_size=3), st.builds(lambda seen, n: [seen] * n, answers, st.integers(1, 7))
)
methods = st.sampled_from(
    ["messages.SendMessage", "messages.SendMedia", "messages.GetHistory", "help.GetConfig"]
)
peers = st.sampled_from(["a", "b", None])
which = st.integers(0, 2)


class Fleet(RuleBasedStateMachine):
    """Three accounts: a bot on two proxies, a bot and a user on the direct path and a proxy."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.paths = {name: Path(self.world, name) for name in ("direct", "de1", "nl3")}
        self.promises = Promises(self.world)
        self.world.accounts = [
            Account(self.world, "bot", ("de1", "nl3"), is_bot=True),
            Account(self.world, "direct-bot", (), is_bot=True),
            Account(self.world, "user", ("de1",), is_bot=False),
        ]
        for account in self.world.accounts:
            account.witness = self.promises.witness

    @initialize()
    def the_daemon_starts(self) -> None:
        for account in self.world.accounts:
            account.start()

    # --- the world ------------------------------------------------------------------------------------

    @rule(passes=st.one_of(st.floats(0, 5), st.floats(0, 70), st.floats(0, 4000)), jitter=st.floats(0, 1))
    def time_passes(self, passes: float, jitter: float) -> None:
        self.world.jitter = jitter
        self.world.advance(passes)

    @rule(by=st.floats(-7200, 7200))
    def the_wall_clock_is_set(self, by: float) -> None:
        self.world.set_clock(by)

    @rule(name=st.sampled_from(["direct", "de1", "nl3"]), refuses=st.booleans())
    def a_path_breaks(self, name: str, refuses: bool) -> None:
        path = self.world.paths[name]
        path.up, path.refuses = False, refuses
        for account in self.world.accounts:
            if account.link and account.path == name:
                account.link_lost(Evidence(Source.SOCKET if name == "direct" else Source.PROXY, "reset"))

    @rule(name=st.sampled_from(["direct", "de1", "nl3"]))
    def a_path_answers_again(self, name: str) -> None:
        self.world.paths[name].up = True

    @rule(n=which, seen=troubles)
    def a_link_is_lost(self, n: int, seen: Evidence) -> None:
        account = self.world.accounts[n]
        if account.link:
            account.link_lost(seen)

    @rule(n=which, seen=st.none() | troubles, flood=st.none() | st.none() | st.integers(1, 5000))
    def an_attempt_ends(self, n: int, seen: Evidence | None, flood: int | None) -> None:
        account = self.world.accounts[n]
        if account.work is not None and isinstance(account.work.order, Attempt):
            account.attempt_ends(seen, flood)

    @rule(n=which, seen=st.just(LONG_FLOOD) | troubles, times=st.integers(2, 9))
    def attempts_fail_in_a_row(self, n: int, seen: Evidence, times: int) -> None:
        account = self.world.accounts[n]
        if account.link:
            account.link_lost(seen)
        for _ in range(times):
            if account.work is not None and isinstance(account.work.order, Attempt):
                account.attempt_ends(seen)
            elif account.work is not None and isinstance(account.work.order, Delay):
                self.world.advance(account.work.due - self.world.t + EPSILON)

    @rule(n=which, times=st.integers(2, 9), apart=st.sampled_from([12.0, 12.0, 70.0, 130.0]))
    def a_link_flaps(self, n: int, times: int, apart: float) -> None:
        account = self.world.accounts[n]
        for _ in range(times):
            if account.link:
                account.link_lost(Evidence(Source.SOCKET, "reset"))
            self.world.advance(apart)

    @rule(name=st.sampled_from(["direct", "de1"]), times=st.integers(2, 9))
    def a_path_flaps(self, name: str, times: int) -> None:
        for _ in range(times):
            self.a_path_breaks(name, refuses=False)
            self.world.advance(3.0)
            self.world.paths[name].up = True
            self.world.advance(12.0)

    @rule(n=which, restart=st.booleans(), changed=st.booleans())
    def an_impatient_person_acts_under_a_flood_wait(self, n: int, restart: bool, changed: bool) -> None:
        """What Telegram wants not to be asked is not asked sooner for that."""
        account = self.world.accounts[n]
        if account.link:
            account.link_lost(Evidence(Source.SOCKET, "reset"))
        if account.work is not None and isinstance(account.work.order, Attempt):
            account.attempt_ends(LONG_FLOOD)
        if restart:
            self.restart(killed=True, down=1.0, base=5000.0, changed=n if changed else None)
        else:
            account.tell(Retry())
        self.world.advance(12.0)

    @rule(n=which, banned=st.integers(0, 9).map(lambda n: n == 0))
    def a_session_ends(self, n: int, banned: bool) -> None:
        telegram = self.world.accounts[n].telegram
        telegram.revoked, telegram.banned = True, telegram.banned or banned

    @rule(
        n=st.sampled_from([0, 1, 1, 2]),
        often=st.sampled_from([(5, 15.0), (5, 15.0), (6, 700.0), (4, 3000.0), (14, 1300.0)]),
    )
    def a_session_is_revoked_again_and_again(self, n: int, often: tuple[int, float]) -> None:
        account, (times, apart) = self.world.accounts[n], often
        for _ in range(times):
            account.telegram.revoked = True
            if account.life.state is State.ONLINE:
                account.is_asked_for_proof()
            self.world.advance(apart)

    @rule(
        n=which,
        method=methods,
        spelled=st.sampled_from(["FLOOD_WAIT_", "FLOOD_WAIT_", "SLOWMODE_WAIT_"]),
        told=st.lists(st.tuples(peers, seconds), min_size=2, max_size=3),
        restart=st.none() | st.floats(-7200, 7200),
    )
    def a_method_is_flooded(
        self,
        n: int,
        method: str,
        spelled: str,
        told: list[tuple[str | None, int]],
        restart: float | None,
    ) -> None:
        """Some calls are told to wait, and others of the method follow; perhaps in the next process."""
        account = self.world.accounts[n]
        for peer, wait in told:
            account.call(method, peer, [Evidence(Source.RPC, "", f"{spelled}{wait}", 420)])
        self.world.settle()
        if restart is not None:
            self.world.set_clock(restart)
            self.restart(killed=True, down=1.0, base=5000.0)
            self.world.advance(12.0)
        for each in ("messages.SendMessage", method):
            for peer in ("a", "b", None):
                account.call(each, peer, [])
        self.world.settle()

    @rule(n=which, calls=st.lists(st.tuples(methods, peers, says), min_size=2, max_size=6))
    def calls_are_made(self, n: int, calls: list[tuple[str, str | None, list[Evidence]]]) -> None:
        for method, peer, says in calls:
            self.world.accounts[n].call(method, peer, says)
            self.world.settle()

    @rule(n=which)
    def a_proof_is_asked_for(self, n: int) -> None:
        account = self.world.accounts[n]
        if account.life.state is State.ONLINE:
            account.is_asked_for_proof()

    @rule()
    def news_comes_late(self) -> None:
        """Of what was called off: where an account is off, all of it."""
        for account in self.world.accounts:
            for event in (DelayOver(), PathBack()):
                if account.life.state in (*OFF, State.ONLINE):
                    account.tell(event)
            if account.life.state in OFF:
                account.tell(Failed(classify(Evidence(Source.SOCKET, "reset"))))
                account.tell(Proved(account.path))

    # --- people, and the daemon -----------------------------------------------------------------------

    @rule(n=which, event=st.sampled_from([Pause(), Retry(), Retry()]))
    def a_person_acts(self, n: int, event: Event) -> None:
        self.world.accounts[n].tell(event)

    @rule(n=which)
    def a_person_moves_it(self, n: int) -> None:
        """As `tg-supervisor rotate` does: to a path that is not known to be broken."""
        account = self.world.accounts[n]
        others = [name for name in account.candidates if name != account.path]
        working = [name for name in others if not self.world.paths[name].broken]
        if working:
            account.path = working[0]
            account.tell(Rotate(working[0]))

    @rule(n=which)
    def a_person_signs_in(self, n: int) -> None:
        account = self.world.accounts[n]
        if not account.is_bot and account.life.state is State.NEEDS_LOGIN:
            account.telegram.revoked = False
            account.tell(Retry())

    @rule(
        killed=st.booleans(),
        down=st.one_of(st.floats(0, 90), st.floats(0, 4000)),
        base=st.floats(0, 1e6),
        changed=st.none() | st.none() | which,
    )
    def the_daemon_restarts(self, killed: bool, down: float, base: float, changed: int | None) -> None:
        """Perhaps with another token, or whatever else decides about one account."""
        self.restart(killed=killed, down=down, base=base, changed=changed)

    def restart(self, *, killed: bool, down: float, base: float, changed: int | None = None) -> None:
        lives = [account.life for account in self.world.accounts]
        for account in self.world.accounts:
            if not killed:
                account.tell(Stop())
        if changed is not None:
            self.world.accounts[changed].configured += " and otherwise"
        self.world.t += down
        self.world.mono_off = base - self.world.t
        self.world.paths.update(
            {name: Path(self.world, name, path.up, path.refuses) for name, path in self.world.paths.items()}
        )
        for n, (account, before) in enumerate(zip(self.world.accounts, lives, strict=True)):
            account.boot()
            account.witness = lambda *_: None
            account.start()
            account.witness = self.promises.witness
            self.promises.restarted(account, before, same=n != changed)

    @precondition(lambda self: self.world.t > 0)
    @rule()
    def every_incident_ends_once_nothing_is_wrong(self) -> None:
        """Within the waits that are running, and without a person where none is needed."""
        for path in self.world.paths.values():
            path.up = True
        slow = []
        for account in self.world.accounts:
            account.telegram.banned = False
            account.telegram.revoked &= account.is_bot
            if account.life.state in (State.PAUSED, State.FAILED, State.NEEDS_LOGIN):
                account.tell(Retry())
            failure = account.life.last_failure
            told = failure is not None and failure.wait is not None
            if told or account.telegram.revoked or not account.signed_in:
                slow.append(account)
        self.world.advance(300.0 + 375.0 + 60.0)
        for account in self.world.accounts:
            if account not in slow:
                assert account.life.state is State.ONLINE, f"{account.name} is still {account.life.state}"
            elif account.life.state is State.FAILED:  # its sign-ins were called off too often
                account.tell(Retry())
        if slow:
            self.world.advance(DAY + 7200.0 + 1000.0)
        for account in self.world.accounts:
            assert account.life.state is State.ONLINE, f"{account.name} is still {account.life.state}"
            assert not account.disk.open, f"{account.name} is online, and {account.disk.open} is open"

    # --- at any moment --------------------------------------------------------------------------------

    @invariant()
    def online_is_proved_on_the_link_of_now(self) -> None:
        for account in self.world.accounts:
            if account.life.state is State.ONLINE:
                assert account.link and account.proved, f"{account.name} is said to be online"

    @invariant()
    def there_is_no_link_where_the_state_has_none(self) -> None:
        for account in self.world.accounts:
            if account.life.state in (*OFF, State.SUSPENDED):
                assert not account.link, f"{account.name} is {account.life.state} and on the network"

    @invariant()
    def calls_are_held_let_out_or_refused_as_the_state_says(self) -> None:
        for account in self.world.accounts:
            assert account.door is DOORS[account.life.state], f"{account.name} is {account.life.state}"

    @invariant()
    def what_is_not_online_waits_for_something_that_comes(self) -> None:
        for account in self.world.accounts:
            if account.life.state in (State.STARTING, State.RECOVERING, State.SUSPENDED):
                assert account.work is not None, f"{account.name} waits for nothing"
                awaited = isinstance(account.work.order, AwaitPath)
                assert not awaited or self.world.paths[account.path].broken
            elif account.life.state in OFF:
                assert account.work is None

    @invariant()
    def an_incident_is_open_only_while_there_is_trouble(self) -> None:
        for account in self.world.accounts:
            state, left_open = account.life.state, account.disk.open
            assert len(left_open) <= 1, f"{account.name}: {len(left_open)} open incidents"
            if state in (State.ONLINE, State.PAUSED, State.FAILED):
                assert not left_open, f"{account.name} is {state}, its incident is open"
            elif state in (State.RECOVERING, State.SUSPENDED, State.NEEDS_LOGIN):
                assert left_open, f"{account.name} is {state} without an incident"


TestFleet = pytest.mark.timeout(600)(Fleet.TestCase)  # a failure is made small before it is told
TestFleet.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "200")),
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
