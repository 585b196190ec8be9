"""The sign-ins under way: one for each user account at most, step by step, for whoever asks the person.

A step is asked for by name and answered with an object that says what comes next:

    begin ----> code ----> password ----> done
       |       /    |  resend, new_code
       +------+     +--> cancel

What the person can mend (a wrong code, a wrong password) is a `note` beside `next`; what ends the sign-in is raised
as `LoginRefused`. A sign-in that nobody goes on with is given up after `IDLE` seconds. Codes, passwords and numbers
are in no answer, no message and no row of the record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from supervisor.core.budget import DAY, SignInBudget
from supervisor.core.classify import classify
from supervisor.core.failure import Action, Failure, Kind, Override, Remedy, Result
from supervisor.core.ledger import Flood, Ledger, restore
from supervisor.errors import LoginRefused
from supervisor.journal import Journal
from supervisor.ports import Clock, FloodRow, LinkFailed, Recorder, SignIn
from supervisor.telegram import login_words as words
from supervisor.telegram.login import SEND_CODE, CodeSent, Login, PasswordNeeded, SignedIn

log = logging.getLogger(__name__)

# How long a sign-in waits for its person. Seconds.
IDLE = 600.0
# How many may wait at once.
AT_ONCE = 20
# How long one step may take, whatever it meets. Seconds.
STEP_TIMEOUT = 90.0


class Seat(Protocol):
    """What a sign-in needs of the account that it is for."""

    @property
    def name(self) -> str: ...

    @property
    def password(self) -> str | None: ...

    def paths(self) -> Sequence[str]:
        """The paths that the account may take, the one to begin with first."""

    async def user_id(self) -> int | None:
        """Who is signed in, if the session is good as far as is known; raises LinkFailed where that is not known."""

    async def login(self, path: str) -> Login:
        """A sign-in whose first connection is open; raises LinkFailed where it could not be."""

    async def signed_in(self) -> None:
        """There is a new session in the storage."""


@dataclass(slots=True, repr=False)
class _Half:
    """A sign-in under way."""

    seat: Seat
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    login: Login | None = None
    next: str = "code"
    code: CodeSent | None = None
    sent_at: float = 0.0  # monotonic
    tried_stored: bool = False
    giving_up: asyncio.TimerHandle | None = None


class Logins:
    """All sign-ins of this process."""

    def __init__(
        self,
        seat: Callable[[str], Seat],
        recorder: Recorder,
        clock: Clock,
        *,
        budget: SignInBudget,
        sign_ins: Iterable[SignIn] = (),
        floods: Iterable[FloodRow] = (),
        overrides: Mapping[str, Override] | None = None,
    ) -> None:
        """Begin without any.

        Args:
            seat: gives the account of a name; raises LoginRefused for one that cannot be signed in.
            recorder: the recovery log.
            clock: both clocks.
            budget: how often an account may be sent a code.
            sign_ins: those of before.
            floods: the waits that Telegram has demanded before.
            overrides: the operator's own judgement of error ids.
        """
        self._seat = seat
        self._recorder = recorder
        self._clock = clock
        self._budget = budget
        self._overrides = overrides or {}
        self._sign_ins: dict[str, list[float]] = {}
        for sign_in in sign_ins:
            self._sign_ins.setdefault(sign_in.account, []).append(sign_in.at)
        self._floods = tuple(floods)
        self._ledgers: dict[str, Ledger] = {}
        self._halves: dict[str, _Half] = {}
        self._working: set[asyncio.Task[Any]] = set()

    async def step(self, name: str, step: str, text: str = "") -> dict[str, Any]:
        """Take one step.

        Args:
            name: the account.
            step: ``begin``, ``code``, ``password``, ``resend``, ``new_code`` or ``cancel``.
            text: the code or the password.

        Returns:
            `next`: what to do now: ``code``, ``new_code``, ``password``, ``done`` or ``cancelled``, and what goes with it.

        Raises:
            LoginRefused: the sign-in cannot go on.
        """
        if step not in _STEPS:
            raise LoginRefused("bad_request", f"there is no step {step!r} in a sign-in")
        half = self._halves.get(name)
        if half is None:
            half = self._new(name, step)
        if half is None:
            return {"account": name, "next": "cancelled"}
        # Whoever asked may go away meanwhile; a sign-in that Telegram has granted must still be kept.
        work = asyncio.create_task(self._locked(half, step, text), name=f"login:{name}")
        self._working.add(work)
        work.add_done_callback(self._worked)
        return await asyncio.shield(work)

    async def _locked(self, half: _Half, step: str, text: str) -> dict[str, Any]:
        name = half.seat.name
        self._wait_no_longer(half)
        try:
            async with asyncio.timeout(STEP_TIMEOUT), half.lock:
                if self._halves.get(name) is not half:
                    raise _not_begun(name)
                return {"account": name, **await _STEPS[step](self, half, text)}
        except TimeoutError:
            self._drop(half)
            text = f"{name}: {step} did not come to an end in {STEP_TIMEOUT:g} s"
            raise LoginRefused("timeout", text, retryable=True) from None
        finally:
            if half.login is None:  # it has not come to anything
                self._drop(half)
            elif self._halves.get(name) is half:
                self._wait_no_longer(half)
                half.giving_up = asyncio.get_running_loop().call_later(IDLE, self._give_up, half)

    def _worked(self, work: asyncio.Task[Any]) -> None:
        self._working.discard(work)
        if not work.cancelled():
            work.exception()  # told to whoever asked, if they are still there

    def reconfigure(
        self, budget: SignInBudget, overrides: Mapping[str, Override], renamed: Mapping[str, str]
    ) -> None:
        """Go by a changed file; an account that is renamed (new name to old) has been sent no fewer codes by that."""
        self._budget, self._overrides = budget, overrides
        for new, old in renamed.items():
            self._sign_ins[new] = [*self._sign_ins.get(new, ()), *self._sign_ins.pop(old, ())]
            self._ledgers[new] = self._ledger(old)

    def close(self) -> None:
        """Give all of them up."""
        for work in self._working:
            work.cancel()
        for half in list(self._halves.values()):
            self._drop(half)

    # --- which are under way --------------------------------------------------------------------------

    def _new(self, name: str, step: str) -> _Half | None:
        seat = self._seat(name)
        if step == "cancel":
            return None
        if step != "begin":
            raise _not_begun(name)
        if len(self._halves) >= AT_ONCE:
            text = f"{AT_ONCE} sign-ins wait for their codes already; finish one of them first"
            raise LoginRefused("busy", text, retryable=True)
        half = self._halves[name] = _Half(seat)
        return half

    def _give_up(self, half: _Half) -> None:
        log.info(
            "%s: nobody went on with the sign-in for %.0f min; it is given up", half.seat.name, IDLE / 60
        )
        self._drop(half)

    @staticmethod
    def _wait_no_longer(half: _Half) -> None:
        if half.giving_up is not None:
            half.giving_up.cancel()

    def _drop(self, half: _Half) -> None:
        self._wait_no_longer(half)
        if half.login is not None:
            half.login.close()
        if self._halves.get(half.seat.name) is half:
            del self._halves[half.seat.name]

    # --- the steps ------------------------------------------------------------------------------------

    async def _begin(self, half: _Half, _text: str) -> dict[str, Any]:
        if half.login is not None:  # whoever began it has left; the code that was sent is still good
            return self._now(half, note="pending")
        try:
            user_id = await half.seat.user_id()
        except LinkFailed as failed:
            raise self._refused(half, failed) from None
        if user_id is not None:
            self._drop(half)
            return {"next": "done", "user_id": user_id, "already": True}
        self._check_flood(half, SEND_CODE)
        self._check_budget(half)
        half.login = await self._connected(half)
        try:
            return await self._send_code(half, half.login)
        except BaseException:
            self._drop(half)
            raise

    async def _connected(self, half: _Half) -> Login:
        """Open a connection, by another path where the first one is broken: nothing has been sent yet."""
        refusal = LoginRefused("failed", f"{half.seat.name} has no path to Telegram")
        for path in half.seat.paths():
            try:
                return await half.seat.login(path)
            except LinkFailed as failed:
                refusal = self._refused(half, failed)
                if self._judged(failed).kind not in (Kind.PROXY, Kind.CONNECTION):
                    break
        raise refusal from None

    async def _send_code(self, half: _Half, login: Login) -> dict[str, Any]:
        now = self._clock.now()
        self._sign_ins.setdefault(half.seat.name, []).append(now)
        await self._recorder.save_sign_in(SignIn(half.seat.name, now))
        try:
            sent = await login.send_code()
        except LinkFailed as failed:
            await self._keep_flood(half, failed)
            raise self._refused(half, failed) from None
        return await self._after_sending(half, sent)

    async def _after_sending(self, half: _Half, sent: CodeSent | SignedIn) -> dict[str, Any]:
        if isinstance(sent, SignedIn):
            return await self._done(half, sent)
        half.code, half.next, half.sent_at = sent, "code", self._clock.monotonic()
        return self._now(half)

    async def _resend(self, half: _Half, _text: str) -> dict[str, Any]:
        if half.next != "code" or half.code is None or half.login is None:
            raise _not_begun(half.seat.name)
        if half.code.next_way is None:
            return self._now(half, note="no_other_way")
        wait = half.sent_at + (half.code.timeout or 0) - self._clock.monotonic()
        if wait > 0:
            return self._now(half, note="too_early", wait=wait)
        return await self._asked(half, "auth.ResendCode", self._resent)

    async def _resent(self, half: _Half, login: Login) -> dict[str, Any]:
        return await self._after_sending(half, await login.resend())

    async def _new_code(self, half: _Half, _text: str) -> dict[str, Any]:
        if half.next != "new_code" or half.login is None:
            raise _not_begun(half.seat.name)
        self._check_flood(half, SEND_CODE)
        self._check_budget(half)
        try:
            return await self._send_code(half, half.login)
        except BaseException:
            self._drop(half)
            raise

    async def _enter_code(self, half: _Half, text: str) -> dict[str, Any]:
        if half.next != "code" or half.login is None:
            raise _not_begun(half.seat.name)

        async def enter(half: _Half, login: Login) -> dict[str, Any]:
            result = await login.sign_in("".join(text.split()))
            if isinstance(result, PasswordNeeded):
                return await self._password_needed(half)
            return await self._done(half, result)

        return await self._asked(half, "auth.SignIn", enter)

    async def _password_needed(self, half: _Half) -> dict[str, Any]:
        """Prove the stored password, once: each wrong one counts towards PHONE_PASSWORD_FLOOD."""
        half.next = "password"
        stored = half.seat.password
        if stored is None or half.tried_stored:
            return self._now(half)
        half.tried_stored = True
        answer = await self._enter_password(half, stored)
        if answer.get("note") == "wrong_password":
            answer["note"] = "wrong_stored_password"
        return answer

    async def _enter_password(self, half: _Half, text: str) -> dict[str, Any]:
        if half.next != "password" or half.login is None:
            raise _not_begun(half.seat.name)

        async def enter(half: _Half, login: Login) -> dict[str, Any]:
            return await self._done(half, await login.check_password(text))

        return await self._asked(half, "auth.CheckPassword", enter)

    async def _cancel(self, half: _Half, _text: str) -> dict[str, Any]:
        if half.login is not None:
            await half.login.cancel()
        self._drop(half)
        return {"next": "cancelled"}

    async def _done(self, half: _Half, result: SignedIn) -> dict[str, Any]:
        self._drop(half)  # its connection first: one key on two connections is a dead key
        log.info("%s: signed in as %d", half.seat.name, result.user_id)
        await half.seat.signed_in()
        return {"next": "done", "user_id": result.user_id, "already": False}

    def _now(self, half: _Half, note: str | None = None, wait: float | None = None) -> dict[str, Any]:
        """What the person is to be asked now."""
        answer: dict[str, Any] = {
            "next": half.next,
            "note": note,
            "wait_s": None if wait is None else round(wait, 1),
        }
        if half.code is not None:
            code = half.code
            answer |= {
                "sent_to": words.sent_to(code),
                "type": code.way,
                "length": code.length,
                "resend": code.next_way,
                "timeout": code.timeout,
                "sent_s_ago": round(self._clock.monotonic() - half.sent_at, 1),
            }
        return answer

    # --- refusals -------------------------------------------------------------------------------------

    async def _asked(self, half: _Half, method: str, ask: Callable[[_Half, Login], Any]) -> dict[str, Any]:
        """Ask Telegram in the middle of a sign-in: what the person can mend does not end it."""
        assert half.login is not None
        left = self._flooded(half, method)
        if left > 0:
            return self._now(half, note="flood", wait=left)
        try:
            answer: dict[str, Any] = await ask(half, half.login)
        except LinkFailed as failed:
            note, wait = await self._note(half, failed)
            if note is None:
                self._drop(half)
                raise self._refused(half, failed) from None
            answer = self._now(half, note, wait)
        return answer

    async def _note(self, half: _Half, failed: LinkFailed) -> tuple[str | None, float | None]:
        """What to tell the person, and the seconds to wait; None where the sign-in cannot go on."""
        failure = self._judged(failed)
        note, wait = words.note(failure)
        if note == "code_expired":
            half.next = "new_code"
        if wait is not None:
            self._record(half, failure)
            await self._keep_flood(half, failed)
        return note, wait

    def _judged(self, failed: LinkFailed) -> Failure:
        return classify(failed.evidence, overrides=self._overrides, signing_in=True)

    def _refused(self, half: _Half, failed: LinkFailed) -> LoginRefused:
        """What ends a sign-in; it is in the recovery log too."""
        failure = self._judged(failed)
        self._record(half, failure)
        return words.refusal(half.seat.name, failure)

    def _record(self, half: _Half, failure: Failure) -> None:
        journal = Journal(half.seat.name, self._recorder, self._clock, failure.evidence.path)
        journal.write(journal.draft(failure, Result.RAISED, Action.FAIL))

    # --- waits and the budget -------------------------------------------------------------------------

    def _ledger(self, name: str) -> Ledger:
        if name not in self._ledgers:
            rows = [Flood(f.method, f.peer, f.seen_at, f.seconds) for f in self._floods if f.account == name]
            self._ledgers[name] = restore(rows, self._clock.now(), self._clock.monotonic())
        return self._ledgers[name]

    def _flooded(self, half: _Half, method: str) -> float:
        return self._ledger(half.seat.name).remaining(method, None, self._clock.monotonic())

    def _check_flood(self, half: _Half, method: str) -> None:
        wait = self._flooded(half, method)
        if wait > 0:
            raise words.flooded(half.seat.name, method, wait)

    async def _keep_flood(self, half: _Half, failed: LinkFailed) -> None:
        """A wait that Telegram demanded holds for the next `login` too."""
        failure, name = self._judged(failed), half.seat.name
        if failure.wait is None or failure.remedy is not Remedy.WAIT:
            return
        method = failed.evidence.method or SEND_CODE
        now, mono = self._clock.now(), self._clock.monotonic()
        self._ledgers[name], flood = self._ledger(name).flooded(method, None, failure.wait, now, mono)
        await self._recorder.save_flood(
            FloodRow(name, flood.method, flood.peer, flood.seen_at, flood.seconds)
        )

    def _check_budget(self, half: _Half) -> None:
        name, now = half.seat.name, self._clock.now()
        # A clock that went back would keep sign-ins of the future in the budget for as long as it went.
        self._sign_ins[name] = [min(at, now) for at in self._sign_ins.get(name, ()) if now - at < DAY]
        wait = self._budget.wait(self._sign_ins[name], now)
        if wait > 0:
            text = f"{name}: its codes are used up (sign_ins_per_hour, sign_ins_per_day), to keep it from a flood wait"
            raise LoginRefused("budget", text, wait=wait)


def _not_begun(name: str) -> LoginRefused:
    return LoginRefused(
        "not_begun", f"{name}: this sign-in was given up, or never begun; begin it again", retryable=True
    )


_STEPS: Final[Mapping[str, Callable[[Logins, _Half, str], Any]]] = {
    "begin": Logins._begin,  # noqa: SLF001 - the table of this class
    "code": Logins._enter_code,  # noqa: SLF001
    "password": Logins._enter_password,  # noqa: SLF001
    "resend": Logins._resend,  # noqa: SLF001
    "new_code": Logins._new_code,  # noqa: SLF001
    "cancel": Logins._cancel,  # noqa: SLF001
}
