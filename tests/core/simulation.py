"""A fleet without a loop: accounts driven as `account` drives them, a network that breaks, and a Telegram that keeps count.

Time is one number that the test moves on. What Telegram would not forgive fails the test where it happens: a call
under a flood wait, a second link of a session, a sign-in too many.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, cast

from supervisor.attempts import PROOF, SIGN_IN
from supervisor.core.breaker import BROKEN_PATH, REFUSING_PATH, Breaker, Position
from supervisor.core.budget import SignInBudget, TokenBucket
from supervisor.core.classify import classify
from supervisor.core.decide import for_call
from supervisor.core.events import (
    Attempt,
    AwaitPath,
    CloseLink,
    Delay,
    DelayOver,
    Effect,
    Event,
    Failed,
    GiveUp,
    HoldCalls,
    Log,
    PathBack,
    Proved,
    RefuseCalls,
    ReleaseCalls,
    Retry,
    Start,
    Stop,
)
from supervisor.core.failure import (
    DEFAULT_POLICIES,
    Action,
    Evidence,
    Failure,
    Kind,
    Remedy,
    Result,
    Scope,
    Source,
    State,
)
from supervisor.core.incident import Incident
from supervisor.core.ledger import SENDING_METHODS, Flood, Ledger, restore
from supervisor.core.lifecycle import Life, Moment, Rules, step
from supervisor.core.standing import Standing, standing, taken_up
from supervisor.ports import LinkFailed, Recorder, SignIn
from supervisor.rations import SignInRation, as_failure

HOUR, DAY = 3600.0, 86400.0
EPSILON = 1e-3  # Unix times are large: a float of one is good to a fraction of a microsecond
BUDGET = SignInBudget(per_hour=3, per_day=10)
CONNECTS = TokenBucket(rate=2.0, burst=1.0)
ATTEMPT_TAKES = 10.0  # at most, where nothing answers
CALLS_OWN = frozenset(  # the account is healthy, whatever a call is told (PRODUCT "The failure model")
    {"PEER_ID_INVALID", "FLOOD_WAIT_X", "FLOOD_PREMIUM_WAIT_X", "SLOWMODE_WAIT_X", "INTERNAL_SERVER_ERROR"}
)
LEAVES_AFTER = 3  # a call that meets the same wide failure so often is wrong itself


@dataclass(slots=True)
class World:
    """The clocks, the paths and the accounts. `t` is the time that really passes."""

    t: float = 0.0
    wall_off: float = 1_700_000_000.0
    mono_off: float = 1000.0
    jumped_forward: float = 0.0
    jitter: float = 0.0
    ids: int = 0
    paths: dict[str, Path] = field(default_factory=dict)
    accounts: list[Account] = field(default_factory=list)

    def now(self) -> float:
        return self.t + self.wall_off

    def monotonic(self) -> float:
        return self.t + self.mono_off

    def moment(self) -> Moment:
        self.ids += 1
        return Moment(self.now(), self.monotonic(), self.jitter, f"i{self.ids}")

    def set_clock(self, by: float) -> None:
        """Somebody sets the wall clock."""
        self.wall_off += by
        self.jumped_forward += max(by, 0.0)

    @property
    def timed(self) -> list[Path | Account]:
        """Whatever has its times."""
        return [*self.paths.values(), *self.accounts]

    def settle(self) -> None:
        """Let out every call that may leave."""
        for account in self.accounts:
            account.pump()

    def advance(self, seconds: float) -> None:
        """Let time pass; all that falls due happens at its time."""
        until = self.t + seconds
        for _ in range(100_000):
            self.settle()
            due = min(each.due() for each in self.timed)
            if due > until:
                break
            self.t = max(self.t, due)
            for each in self.timed:
                if each.due() <= self.t:
                    each.act()
        else:
            raise AssertionError("time stands still: something is due again and again")
        self.t = until
        self.settle()


@dataclass(slots=True, eq=False)
class Path:
    """One way to Telegram. `up` and `refuses` are the truth, the breaker is what is known of it."""

    world: World
    name: str
    up: bool = True
    refuses: bool = False
    breaker: Breaker = field(default_factory=lambda: Breaker(BROKEN_PATH, failures_to_open=1))
    bucket: TokenBucket = CONNECTS
    connects: deque[float] = field(default_factory=lambda: deque(maxlen=40))
    probes: list[float] = field(default_factory=list)  # since it broke, in time that really passes
    refused: int = 0  # probes in a row

    @property
    def broken(self) -> bool:
        return self.breaker.position is not Position.CLOSED

    def slot(self) -> float:
        """When a connection may be opened; it is, then."""
        self.bucket, wait = self.bucket.take(self.world.monotonic())
        at = self.world.t + wait
        self.connects.append(at)
        for n, earlier in enumerate(reversed(self.connects), 1):
            allowed = CONNECTS.burst + CONNECTS.rate * (at - earlier)
            assert n <= allowed + EPSILON, f"{self.name}: {n} connects within {at - earlier:.2f} s"
        return at

    def is_broken(self) -> bool:
        """Whether it is known to be broken, or is found to be now that somebody asks."""
        if not self.broken and not self.up:
            self.probes, self.refused = [self.world.t], 0
            self.breaker = self.breaker.trip(self.world.monotonic(), self._schedule)
        return self.broken

    def due(self) -> float:
        at = self.breaker.probe_at
        return float("inf") if at is None else at - self.world.mono_off

    def act(self) -> None:
        """Probe it; who waits for it is told when it answers."""
        mono = max(self.world.monotonic(), self.breaker.probe_at or 0.0)
        self.breaker = self.breaker.try_out(mono)
        self._keeps_the_pace()
        if not self.up:
            self.breaker = self.breaker.failed(mono, self._schedule)
            return
        self.breaker = self.breaker.succeeded()
        for account in self.world.accounts:
            account.path_answers(self.name)

    @property
    def _schedule(self) -> Any:
        return REFUSING_PATH if self.refuses else BROKEN_PATH

    def _keeps_the_pace(self) -> None:
        """A broken path is asked once a second, after five minutes every 5 s; one that refuses us after 60 s at least."""
        gap, patient = self.world.t - self.probes[-1], self.probes[-1] - self.probes[0] - 300.0
        if self.breaker.in_force is REFUSING_PATH:
            due, self.refused = min(60.0 * 2**self.refused, 300.0), self.refused + 1
        elif abs(patient) < EPSILON:
            due, self.refused = gap, 0  # on the very edge, either
        else:
            due, self.refused = 1.0 if patient < 0.0 else 5.0, 0
        assert abs(gap - due) < EPSILON, f"{self.name} was asked after {gap:.3f} s instead of {due:g} s"
        self.probes.append(self.world.t)


@dataclass(slots=True, eq=False)
class Call:
    """A call at the gate. `answers` are what Telegram says to its sendings, then it is done."""

    method: str
    peer: str | None
    answers: list[Evidence]
    ready: float = 0.0  # time that really passes
    resends: Counter[Kind] = field(default_factory=Counter)
    reported: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """A wait as it was told: of what, at which Unix time, for how long."""

    ends: dict[Any, float]
    key: Any
    at: float
    seconds: float

    def remaining(self, now: float) -> float:
        return self.seconds if now < self.at else max(0.0, self.at + self.seconds - now)


@dataclass(slots=True)
class Telegram:
    """What Telegram knows of one account, and holds it to."""

    world: World
    revoked: bool = False  # the key is no longer accepted
    banned: bool = False
    unknown_key: int = 0  # how often in a row it said -404
    flooded: dict[tuple[str, str | None], float] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    told: dict[tuple[int, Any], Told] = field(default_factory=dict)
    sign_ins: list[float] = field(default_factory=list)  # in time that the wall clock can at most have shown

    def demands(self, method: str, peer: str | None, seconds: float) -> None:
        """A flood wait; of a second peer meanwhile, it is the method that is meant."""
        end = self.world.t + seconds
        places = [key for key, at in self.flooded.items() if key[0] == method and at > self.world.t]
        others = [self.flooded[key] for key in places if key[1] != peer]
        if peer is not None and others:
            peer, end = None, max(end, *others)
        self._holds(self.flooded, (method, peer), end)

    def slows(self, peer: str, seconds: float) -> None:
        """Slow mode: of one chat, and for whatever sends."""
        self._holds(self.slow, peer, self.world.t + seconds)

    def _holds(self, ends: dict[Any, float], key: Any, end: float) -> None:
        ends[key] = max(end, ends.get(key, end))
        self.told[id(ends), key] = Told(ends, key, self.world.now(), ends[key] - self.world.t)

    def is_told_by_the_wall_clock(self) -> None:
        """Over a restart only that clock goes on (PRODUCT "Flood waits"): a wait may be over early if it was set forward."""
        for told in self.told.values():
            end = self.world.t + told.remaining(self.world.now())
            told.ends[told.key] = min(told.ends[told.key], end)

    def receives(self, method: str, peer: str | None) -> None:
        """Never a call under a flood wait."""
        ends = [self.flooded.get((method, None), 0.0), self.flooded.get((method, peer), 0.0)]
        if peer is not None and method.rpartition(".")[2].lower() in SENDING_METHODS:
            ends.append(self.slow.get(peer, 0.0))
        early = max(ends) - self.world.t
        assert early <= EPSILON, f"{method} to {peer} left {early:.3f} s early"

    def signs_in(self) -> None:
        """Never a sign-in beyond the budget, nor under its own flood wait."""
        self.receives(SIGN_IN, None)
        now = self.world.t + self.world.jumped_forward
        self.sign_ins.append(now)
        for window, most in ((HOUR, BUDGET.per_hour), (DAY, BUDGET.per_day)):
            recent = [at for at in self.sign_ins if now - at < window - EPSILON]
            assert len(recent) <= most, f"{len(recent)} sign-ins within {window:.0f} s"
        self.revoked = False


@dataclass(slots=True)
class Disk:
    """What the daemon leaves to the next."""

    incidents: dict[str, Incident] = field(default_factory=dict)
    floods: dict[tuple[str, str | None], Flood] = field(default_factory=dict)
    sign_ins: list[SignIn] = field(default_factory=list)
    standing: Standing | None = None

    @property
    def open(self) -> list[Incident]:
        return [incident for incident in self.incidents.values() if incident.is_open]

    async def save_sign_in(self, sign_in: SignIn) -> None:
        self.sign_ins.append(sign_in)


@dataclass(slots=True)
class Work:
    """What the account does at present. `due` is time that really passes; an attempt is `connected` when it had its slot."""

    order: Attempt | Delay | AwaitPath
    due: float = float("inf")
    slotted: bool = False


Witness = Callable[["Account", Life, Event, tuple[Effect, ...]], None]


class Account:
    """One account: the simulated driver of its state table."""

    def __init__(self, world: World, name: str, candidates: tuple[str, ...], *, is_bot: bool) -> None:
        self.world, self.name, self.candidates, self.is_bot = world, name, candidates, is_bot
        self.telegram, self.disk = Telegram(world), Disk()
        self.signed_in = True
        self.path = candidates[0] if candidates else "direct"
        self.configured = "as it was"
        self.saved_wall = 0.0
        self.calls: list[Call] = []
        self.witness: Witness = lambda *_: None
        self.boot()

    def boot(self) -> None:
        """A process begins; `start` comes next."""
        now, mono = self.world.now(), self.world.monotonic()
        incident = self.disk.open[-1] if self.disk.open else None
        if incident is not None:  # as `assembly` makes it of its row
            began = mono - max(0.0, now - incident.opened_at)
            incident = replace(incident, began=began)
        rules = Rules(DEFAULT_POLICIES, can_relogin=self.is_bot)
        self.life = Life(rules, path=self.path, incident=incident)
        if self.disk.standing is not None:
            self.life = taken_up(self.life, self.disk.standing, self.configured, now, mono)
        self.ledger = restore(self.disk.floods.values(), now, mono)
        past = [sign_in.at for sign_in in self.disk.sign_ins]
        self.ration = SignInRation(self.name, BUDGET, past, cast("Recorder", self.disk), self.world)
        self.met: Counter[tuple[Source, str | int | None]] = Counter()
        self.work: Work | None = None
        self.link, self.proved = False, False
        self.door: type[Effect] = HoldCalls
        self.telegram.unknown_key = 0
        self.telegram.is_told_by_the_wall_clock()
        self.calls.clear()

    def start(self) -> None:
        self.tell(Start())

    # --- events and effects ---------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        before = self.life
        self.life, effects = step(before, event, self.world.moment())
        if isinstance(event, Start | Stop) or _matters(self.life) != _matters(before):
            self._save(before if isinstance(event, Stop) else self.life)
        for effect in effects:
            self._perform(effect, event)
        self.witness(self, before, event, effects)

    def _save(self, life: Life) -> None:
        self.disk.standing = standing(life, self.world.now(), self.world.monotonic(), self.configured)
        self.saved_wall = self.world.wall_off

    def _perform(self, effect: Effect, event: Event) -> None:
        match effect:
            case Attempt() | Delay() | AwaitPath():
                self._begin(effect, event)
            case CloseLink():
                self.work, self.link, self.proved = None, False, False
            case HoldCalls() | ReleaseCalls():
                self.door = type(effect)
            case RefuseCalls():
                self.door = RefuseCalls
                self.calls.clear()
            case Log(incident=incident) | GiveUp(incident=incident):
                self.disk.incidents[incident.id] = incident
        if isinstance(event, Proved):
            self.work, self.proved = None, self.link

    def _begin(self, order: Attempt | Delay | AwaitPath, event: Event) -> None:
        self.work = Work(order)
        match order:
            case Delay(seconds):
                self.work.due = self.world.t + seconds
            case AwaitPath():
                if self.life.path in self.candidates:
                    self.path = self.life.path
                assert self.world.paths[self.path].broken, "it waits for a path that works"
            case Attempt(verify=verify):
                # A person's word may come while a link is being verified: `link.open` closes that one itself.
                alone = not self.link or verify or isinstance(event, Retry)
                assert alone, f"{self.name}: a second link of the session"
                self.work.due = self.world.t + ATTEMPT_TAKES

    def due(self) -> float:
        """When time alone makes something happen."""
        work = self.work.due if self.work is not None else float("inf")
        waits = [self._leaves_at(call) for call in self.calls] if self.door is ReleaseCalls else []
        return min(work, *(at for at in waits if at > self.world.t), float("inf"))

    def act(self) -> None:
        """Time has come for the present work."""
        if self.work is None or self.work.due > self.world.t:
            return
        if isinstance(self.work.order, Delay):
            self.work = None
            self.tell(DelayOver())
        else:
            self.attempt_ends()

    def path_answers(self, name: str) -> None:
        waits = self.work is not None and isinstance(self.work.order, AwaitPath)
        if waits and name in (self.path, *self.candidates):
            self.work = None
            self.tell(PathBack(elsewhere=self.world.paths[self.path].broken))

    # --- an attempt, as `attempts` makes it -----------------------------------------------------------

    def attempt_ends(self, trouble: Evidence | None = None, flood: float | None = None) -> None:
        """The attempt meets this trouble, or what is true of the account; a sign-in meets this flood wait."""
        work = self.work
        assert work is not None
        assert isinstance(work.order, Attempt)
        flooded = self.ledger.remaining(PROOF, None, self.world.monotonic())
        if flooded > EPSILON:
            self.link = self.proved = False
            self.tell(Failed(replace(classify(told_to_wait(flooded, self.path)), wait=flooded)))
            return
        try:
            if not work.slotted:
                if work.order.verify and self._still_good():
                    self._is_proved(Action.RETRY)
                    return
                self._act(work.order.action)
                work.slotted, work.due = True, self.world.paths[self.path].slot()
            if work.due > self.world.t + EPSILON:
                return
            self._open(trouble, flood)
        except LinkFailed as failed:
            self.link = self.proved = False
            self.tell(self._judge(failed.evidence))
            return
        self._is_proved()

    def _is_proved(self, by: Action | None = None) -> None:
        self.met.clear()
        self.telegram.unknown_key = 0
        self.tell(Proved(self.path, by))

    def _still_good(self) -> bool:
        if not self.world.paths[self.path].up or not self.link:
            raise LinkFailed(Evidence(Source.SOCKET, "reset", path=self.path))
        self.telegram.receives(PROOF, None)
        if not self.telegram.revoked:
            return True
        if not self.is_bot:
            raise LinkFailed(refusal("AUTH_KEY_UNREGISTERED", self.path))
        return False

    def _act(self, action: Action) -> None:
        if self.life.incident is None or not self.life.incident.is_open:
            return
        others = [name for name in self.candidates if name != self.path]
        if action is Action.ROTATE_PROXY:
            self.path = next((name for name in others if not self.world.paths[name].broken), self.path)
        if action is Action.RELOGIN:
            lost = self.telegram.revoked or self.telegram.unknown_key >= 3
            assert self.is_bot, f"{self.name}: only a person could sign it in again"
            assert lost or not self.signed_in, f"{self.name}: a session that is good was given up"
            self.link = self.proved = self.signed_in = False

    def _open(self, trouble: Evidence | None, flood: float | None) -> None:
        self.link = self.proved = False  # `link.open` closes the one before
        path = self.world.paths[self.path]
        if not path.up:
            source = Source.SOCKET if self.path == "direct" or trouble is not None else Source.PROXY
            raise LinkFailed(Evidence(source, "no answer", path=self.path))
        if trouble is not None:
            self._troubled(replace(trouble, path=self.path))
        self.link = True
        self.telegram.receives(PROOF, None)
        if self.telegram.banned:
            raise LinkFailed(refusal("USER_DEACTIVATED_BAN", self.path))
        if self.signed_in and self.telegram.revoked:
            raise LinkFailed(refusal("AUTH_KEY_UNREGISTERED", self.path))
        if not self.signed_in:
            self._sign_in(flood)

    def _troubled(self, trouble: Evidence) -> None:
        wait = classify(trouble).wait
        if trouble.source is Source.RPC and wait is not None:
            self.telegram.receives(PROOF, None)
            self.telegram.demands(PROOF, None, wait)
        raise LinkFailed(trouble)

    def _sign_in(self, flood: float | None) -> None:
        path = self.world.paths[self.path]
        flooded = self.ledger.remaining(SIGN_IN, None, self.world.monotonic())
        _at_once(self.ration.take(self.path, flooded))
        assert path.up, f"a sign-in over {self.path}, which is down"
        self.telegram.signs_in()
        if flood is not None:
            self.telegram.demands(SIGN_IN, None, flood)
            told = f"FLOOD_WAIT_{flood:.0f}"
            seen = Evidence(Source.RPC, told, told, 420, method=SIGN_IN, step="sign-in", path=self.path)
            raise LinkFailed(seen)
        self.signed_in = True

    def _judge(self, evidence: Evidence) -> Failed:
        refused = as_failure(evidence)
        if refused is not None:
            return Failed(refused)
        failure = self._met(evidence)
        if failure.kind is Kind.FLOOD_WAIT and failure.wait is not None:
            self._keep(self.ledger.flooded(evidence.method or SIGN_IN, None, failure.wait, *self._clocks))
        if failure.kind not in (Kind.PROXY, Kind.CONNECTION):
            return Failed(failure)
        broken = self.world.paths[self.path].is_broken()
        others = [self.world.paths[name] for name in self.candidates if name != self.path]
        elsewhere = broken and any(not path.broken and not path.is_broken() for path in others)
        return Failed(failure, path_broken=broken, elsewhere=elsewhere)

    def _met(self, evidence: Evidence) -> Failure:
        what = evidence.source, evidence.error_id or evidence.code
        self.met[what] += 1
        if evidence.source is Source.TRANSPORT and evidence.code == -404:
            self.telegram.unknown_key += 1
        signing_in = evidence.step == "sign-in"
        return classify(evidence, signing_in=signing_in, in_a_row=self.met[what])

    # --- a link ---------------------------------------------------------------------------------------

    def link_lost(self, evidence: Evidence) -> None:
        """The link ends by itself."""
        self.link = self.proved = False
        self.tell(Failed(classify(replace(evidence, path=self.path), in_a_row=1)))

    def is_asked_for_proof(self) -> None:
        """After a long silence the driver asks updates.getState."""
        if self.ledger.remaining(PROOF, None, self.world.monotonic()) > 0:
            return
        self.telegram.receives(PROOF, None)
        if self.telegram.banned or self.telegram.revoked:
            error_id = "USER_DEACTIVATED_BAN" if self.telegram.banned else "AUTH_KEY_UNREGISTERED"
            self.tell(Failed(classify(refusal(error_id, self.path))))
        elif not self.world.paths[self.path].up:
            self.link_lost(Evidence(Source.SILENCE, "no answer"))

    # --- calls, as `calls` and `gate` make them -------------------------------------------------------

    def call(self, method: str, peer: str | None, answers: list[Evidence]) -> None:
        if self.door is not RefuseCalls:
            self.calls.append(Call(method, peer, answers, ready=self.world.t))

    def pump(self) -> None:
        """Send what may leave."""
        for _ in range(1000):
            ready = [call for call in self.calls if self._leaves_at(call) <= self.world.t]
            if self.door is not ReleaseCalls or not ready:
                return
            for call in ready:  # all are on their way before the first is answered
                assert self.link, f"{self.name}: a call leaves over no link"
                self.telegram.receives(call.method, call.peer)
            for call in ready:
                self._answered(call)
        raise AssertionError(f"{self.name}: a call is sent again and again")

    def _leaves_at(self, call: Call) -> float:
        wait = self.ledger.remaining(call.method, call.peer, self.world.monotonic())
        return max(call.ready, self.world.t + wait if wait > EPSILON / 10 else self.world.t)

    def _answered(self, call: Call) -> None:
        if call not in self.calls:
            return  # refused meanwhile
        if not call.answers:
            self.calls.remove(call)
            return
        before = self.life
        failure = classify(replace(call.answers.pop(0), method=call.method, peer=call.peer, path=self.path))
        if failure.wait is not None and failure.kind is Kind.FLOOD_WAIT:
            self._is_flooded(call, failure)
        if failure.scope is not Scope.CALL and failure.remedy is not Remedy.RAISE:
            self._reaches_further(call, failure)
            return
        self._decide(call, failure)
        assert self.life is before, f"{failure} of one call changed the account"

    def _is_flooded(self, call: Call, failure: Failure) -> None:
        assert failure.wait is not None
        if failure.error_id != "SLOWMODE_WAIT_X":
            if failure.remedy is Remedy.WAIT:
                self.telegram.demands(call.method, call.peer, failure.wait)
        elif call.peer is not None:
            self.telegram.slows(call.peer, failure.wait)

    def _reaches_further(self, call: Call, failure: Failure) -> None:
        assert failure.error_id not in CALLS_OWN, f"{failure} is its call's affair, and reaches the account"
        call.reported += 1
        if call.reported > LEAVES_AFTER:
            self.calls.remove(call)
            return
        if failure.error_id == "USER_DEACTIVATED_BAN":
            self.telegram.banned = True
        if self.life.state is State.ONLINE:
            self.tell(Failed(self._met(failure.evidence)))

    def _decide(self, call: Call, failure: Failure) -> None:
        policies = self.life.rules.policies
        policy = policies.get(failure.kind, policies[Kind.UNKNOWN])
        sent = call.resends[failure.kind]
        decision = for_call(failure, sent, policy, self.world.jitter)
        demands = failure.remedy is Remedy.WAIT and failure.kind is Kind.FLOOD_WAIT
        if demands and failure.wait is not None:
            again = decision.result is Result.RETRYING
            self._keep_demand(call, failure, decision.delay if again else failure.wait)
        if decision.result is not Result.RETRYING:
            self.calls.remove(call)
            return
        call.resends[failure.kind] += 1
        assert call.resends[failure.kind] <= policy.max_retries, f"{failure}: too many sendings of one call"
        call.ready = self.world.t + decision.delay

    def _keep_demand(self, call: Call, failure: Failure, seconds: float) -> None:
        if failure.error_id != "SLOWMODE_WAIT_X":
            self._keep(self.ledger.flooded(call.method, call.peer, seconds, *self._clocks))
        elif call.peer is not None:
            self._keep(self.ledger.slowed(call.peer, seconds, *self._clocks))

    def _keep(self, kept: tuple[Ledger, Flood]) -> None:
        self.ledger, flood = kept
        self.disk.floods[flood.method, flood.peer] = flood

    @property
    def _clocks(self) -> tuple[float, float]:
        return self.world.now(), self.world.monotonic()


def _matters(life: Life) -> tuple[Any, ...]:
    return life.state, life.retry_at, life.losses


def told_to_wait(seconds: float, path: str) -> Evidence:
    error_id = f"FLOOD_WAIT_{math.ceil(seconds)}"
    return Evidence(Source.RPC, error_id, error_id, 420, method=PROOF, path=path)


def refusal(error_id: str, path: str) -> Evidence:
    return Evidence(Source.RPC, error_id, error_id, 401, method="updates.GetState", path=path)


def _at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run what waits for nothing here."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")
