"""The ration of one account's sign-ins: each is counted before it leaves, and one too many does not leave."""

from __future__ import annotations

from collections.abc import Iterable

from supervisor.core.budget import DAY, SignInBudget
from supervisor.core.failure import Evidence, Failure, Kind, Remedy, Scope, Source
from supervisor.ports import Clock, LinkFailed, Recorder, SignIn

SIGN_IN_BUDGET = "SIGN_IN_BUDGET"


class SignInRation:
    """What is left of one account's sign-ins."""

    def __init__(
        self, account: str, budget: SignInBudget, past: Iterable[float], recorder: Recorder, clock: Clock
    ) -> None:
        """Go on where an earlier run ended.

        Args:
            account: the account's name.
            budget: how often it may sign in.
            past: Unix times of its earlier sign-ins.
            recorder: the recovery log, which remembers each.
            clock: both clocks.
        """
        self._account = account
        self.budget = budget
        self._past = list(past)
        self._recorder = recorder
        self._clock = clock

    @property
    def past(self) -> tuple[float, ...]:
        """Unix times of its sign-ins."""
        return tuple(self._past)

    async def take(self, path: str, flooded: float) -> None:
        """Allow one sign-in, and have it on disk before it leaves.

        Args:
            path: the path that it would take.
            flooded: seconds for which Telegram wants none.

        Raises:
            LinkFailed: it must wait; `as_failure` tells such a refusal.
        """
        now = self._clock.now()
        if flooded > 0:
            raise _refused(path, flooded, f"Telegram wants no sign-in for {flooded:.0f} s more")
        # A clock that went back would keep sign-ins of the future in the budget for as long as it went.
        self._past = [min(at, now) for at in self._past if now - at < DAY]
        wait = self.budget.wait(self._past, now)
        if wait > 0:
            used_up = "the sign-ins of this account are used up (sign_ins_per_hour/day)"
            raise _refused(path, wait, f"{used_up}; the next in {wait:.0f} s")
        self._past.append(now)
        await self._recorder.save_sign_in(SignIn(self._account, now))


def as_failure(evidence: Evidence) -> Failure | None:
    """What a refused sign-in means for the account; None if the evidence is of something else."""
    if evidence.error_id != SIGN_IN_BUDGET:
        return None
    wait = float(dict(evidence.context)["wait"])
    return Failure(
        Kind.AUTH, Scope.ACCOUNT, Remedy.WAIT, evidence, SIGN_IN_BUDGET, wait, why="the sign-in budget"
    )


def _refused(path: str, wait: float, message: str) -> LinkFailed:
    context = (("wait", f"{wait:.3f}"),)
    return LinkFailed(
        Evidence(Source.RPC, message, SIGN_IN_BUDGET, step="sign-in", path=path, context=context)
    )
