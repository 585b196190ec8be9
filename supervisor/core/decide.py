"""What to do about a failure: one decision, made in one place, as a value.

Two ways lead here. A call's own failure (`for_call`) is held against the sends of that call; everything
else (`for_incident`) against the incident. Time and jitter are arguments.
"""

from __future__ import annotations

from dataclasses import replace

from supervisor.core.failure import (
    Action,
    Decision,
    Evidence,
    Failure,
    Kind,
    Policy,
    Remedy,
    Result,
    Scope,
    Source,
)
from supervisor.core.incident import Incident

# The first of these in an incident starts at once (PRODUCT "Delays").
_AT_ONCE = frozenset({Action.RECONNECT, Action.ROTATE_PROXY, Action.RELOGIN})

# Telegram's 4-byte code for a key that it does not know, and how often in a row, on fresh connections, it must say so
# before the key is given up (TDLib).
KEY_NOT_FOUND, KEY_LOST_AFTER = -404, 3

# Telegram's 4-byte code for too many connections from one address.
TRANSPORT_FLOOD = -429

# Up to this many seconds are added to a wait that Telegram demanded, so that nothing leaves a moment early.
FLOOD_MARGIN = 1.0


def backoff(policy: Policy, n: int, jitter: float) -> float:
    """Seconds to wait after failure `n` (from 0): base x 2^n, at most the ceiling, plus jitter.

    Args:
        policy: the kind's policy.
        n: how many failures came before.
        jitter: a number from 0 to 1, drawn by the caller.
    """
    delay = min(policy.base_delay * 2 ** min(n, 32), policy.max_delay)
    return float(delay * (1 + policy.jitter * jitter))


def for_call(failure: Failure, resends: int, policy: Policy, jitter: float) -> Decision:
    """Decide about a failure whose scope is the call.

    Args:
        failure: what happened.
        resends: how often this call has been sent again for this kind already.
        policy: the kind's policy.
        jitter: a number from 0 to 1.
    """
    remedy = failure.remedy
    if remedy in (Remedy.RAISE, Remedy.NONE, Remedy.FAIL):
        return Decision(remedy, 0.0, resends, policy.max_retries, Result.RAISED)
    if resends >= policy.max_retries:
        return Decision(Remedy.RAISE, 0.0, resends, policy.max_retries, Result.RAISED)
    if failure.kind is Kind.FLOOD_WAIT and failure.wait is not None:
        delay = failure.wait + FLOOD_MARGIN * jitter
    else:
        delay = backoff(policy, resends, jitter)
    return Decision(remedy, delay, resends + 1, policy.max_retries, Result.RETRYING)


def confined(failure: Failure) -> Failure:
    """The failure as one that concerns its call alone: the account's own link and session are not what failed."""
    if failure.scope is Scope.CALL:
        return failure
    remedy = failure.remedy
    if remedy.action in _AT_ONCE:
        remedy = Remedy.RETRY  # the call's next sending makes what it needs anew: a connection, another key
    elif remedy is Remedy.FAIL:
        remedy = Remedy.RAISE
    return replace(failure, scope=Scope.CALL, remedy=remedy)


def for_incident(
    failure: Failure,
    incident: Incident,
    policy: Policy,
    jitter: float,
    *,
    path_broken: bool = False,
    verify: bool = False,
) -> Decision:
    """Decide about a failure that reaches further than one call.

    Args:
        failure: what happened.
        incident: the incident it belongs to, this failure already counted.
        policy: the kind's policy.
        jitter: a number from 0 to 1.
        path_broken: the path itself does not answer, so the attempt is not held against the account.
        verify: act only if updates.getState fails in the same way (`needs_proof`).
    """
    spent = incident.spent(failure.kind)
    # `raise` and `none` are for callers; nobody called here, so what is left is to try again.
    remedy = Remedy.RETRY if failure.remedy in (Remedy.RAISE, Remedy.NONE) else failure.remedy
    if failure.remedy is Remedy.FAIL:
        return Decision(Remedy.FAIL, 0.0, spent, policy.max_retries, Result.FAILED)
    if failure.kind is Kind.AUTH and failure.remedy is Remedy.WAIT and failure.wait is not None:
        return Decision(
            Remedy.WAIT, failure.wait, spent, policy.max_retries, Result.SUSPENDED
        )  # sign-in budget
    if path_broken:
        return Decision(remedy, 0.0, spent, policy.max_retries, Result.RETRYING)
    if spent >= policy.max_retries:
        return Decision(Remedy.FAIL, 0.0, spent, policy.max_retries, _at_the_cap(failure))
    return Decision(
        remedy,
        _delay(failure, incident, policy, jitter),
        spent + 1,
        policy.max_retries,
        Result.RETRYING,
        verify=verify,
    )


def _at_the_cap(failure: Failure) -> Result:
    return Result.FAILED if failure.kind is Kind.AUTH else Result.SUSPENDED


def _delay(failure: Failure, incident: Incident, policy: Policy, jitter: float) -> float:
    if failure.wait is not None:
        return failure.wait + FLOOD_MARGIN * jitter
    failed = incident.backoff.get(failure.kind, 0)
    if failure.action not in _AT_ONCE:
        return backoff(policy, failed, jitter)
    if not incident.spent(failure.kind):
        return 0.0
    return backoff(policy, max(failed - 1, 0), jitter)


def is_limit(evidence: Evidence) -> bool:
    """Whether Telegram says that too many connections come this way: that slows the path, not the account."""
    return evidence.source is Source.TRANSPORT and evidence.code == TRANSPORT_FLOOD


def needs_proof(failure: Failure) -> bool:
    """Whether updates.getState must fail in the same way before the session is given up for a call's failure.

    A 401 is also what another datacenter's key answers, so a call's word is not enough (CLIENTS section 5).
    """
    evidence = failure.evidence
    proved = evidence.source is Source.TRANSPORT or evidence.method == "updates.GetState"
    return failure.remedy is Remedy.RELOGIN and not proved
