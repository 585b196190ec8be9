"""What would be done about an error, and why: the object of `explain --json`, made by the code that would do it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from supervisor.core import incident as incidents
from supervisor.core.classify import classify, is_frozen, known_ids, lookup
from supervisor.core.codes import CODES, Code, code_of
from supervisor.core.decide import for_call, for_incident
from supervisor.core.failure import (
    Action,
    Decision,
    Evidence,
    Failure,
    Kind,
    Override,
    Policy,
    Remedy,
    Result,
    Scope,
    Source,
)
from supervisor.ports import IncidentRow
from supervisor.record.rows import rfc3339

SCHEMA = 1

_SHOWN = 5  # delays
_PRINTED = re.compile(r"\[(-?\d+) ([A-Za-z][A-Za-z0-9_]*)\]")  # as the client libraries print an error
_LIKELY = 0.75  # how like a known id a misspelt one must be

_WORDS = {
    source.value: source for source in Source if source not in (Source.RPC, Source.TRANSPORT, Source.CODE)
}


def explain(text: str, policies: Mapping[Kind, Policy], overrides: Mapping[str, Override]) -> dict[str, Any]:
    """Say what would be done about an error.

    Args:
        text: an id, a code, a line in which a client library printed both, or a word for what has neither: ``proxy``
            (or what it replied, ``SOCKS5 …``), ``socket``, ``silence``, ``protocol``, ``storage``; or one of our own
            numbers (``4011``).
        policies: what may be done about each kind.
        overrides: the operator's own judgements.
    """
    name = asked_name(text)
    numbered = CODES.get(int(name)) if name.isascii() and name.isdecimal() else None
    if numbered is not None:
        return {"schema": SCHEMA, "error": name, "known": True, **_numbered(numbered)}
    source = _source(name)
    if source is not None:
        failure = signing_in = classify(Evidence(source, name), overrides=overrides)
    else:
        failure = lookup(name, overrides=overrides)
        signing_in = lookup(name, overrides=overrides, signing_in=True)
    known = failure.error_id in known_ids() or _is_named(failure)
    shape = _judged(failure, policies)
    return {
        "schema": SCHEMA,
        "error": name,
        "known": known,
        "did_you_mean": [] if known else _alike(name),
        **shape,
        "while_signing_in": None if _same(failure, signing_in) else _judged(signing_in, policies),
    }


def explain_path(path: Mapping[str, Any], incident: IncidentRow | None) -> dict[str, Any]:
    """Say how a path does, and what its accounts do about it.

    Args:
        path: as `status` shows it.
        incident: its open incident, if there is one.
    """
    told = None
    if incident is not None:
        told = {
            "id": incident.id,
            "kind": incident.kind.value,
            "opened_at": rfc3339(incident.opened_at),
            "failures": incident.failures,
            "accounts": list(incident.accounts),
        }
    return {
        "schema": SCHEMA,
        "path": dict(path),
        "open_incident": told,
        "why": _BREAKERS.get(path["breaker"], ""),
    }


_BREAKERS = {
    "closed": "Accounts may connect over it.",
    "open": (
        "Nobody connects over it: it is asked by itself, once for all its accounts, until Telegram answers. "
        "Accounts with another proxy in their pool use that one; the others wait, and no attempt of theirs counts."
    ),
    "half_open": "It is being asked just now; when Telegram answers, its accounts come back, a few at a time.",
}


def _numbered(code: Code) -> dict[str, Any]:
    return {
        "code": code.number,
        "name": code.name,
        "category": code.category.value,
        "level": code.level.value,
        "says": code.says,
        "advice": code.advice,
    }


def asked_name(text: str) -> str:
    """The error's name in what was asked: the id as the table spells it, also where it was typed in small letters."""
    printed = _PRINTED.search(text)
    name = f"{printed[1]} {printed[2]}" if printed else " ".join(text.strip(" []\t\r\n").split())
    if (
        _source(name) is None
        and lookup(name).kind is Kind.UNKNOWN
        and lookup(name.upper()).kind is not Kind.UNKNOWN
    ):
        return name.upper()
    return name


def _source(name: str) -> Source | None:
    """Where a failure comes from that has no id and no code of Telegram's."""
    word = name.lower()
    if word.startswith("socks"):
        return Source.PROXY
    return _WORDS.get(word)


def _judged(failure: Failure, policies: Mapping[Kind, Policy]) -> dict[str, Any]:
    policy = policies.get(failure.kind, policies[Kind.UNKNOWN])
    steps, last = _course(failure, policy)
    return {
        "error_id": failure.error_id,
        "error_code": failure.evidence.code,
        "kind": failure.kind.value,
        "scope": failure.scope.value,
        "action": failure.action.value,
        "remedy": failure.remedy.value,
        "max_retries": policy.max_retries if steps else 0,
        "delays_s": steps[:_SHOWN],
        "limited": failure.limited,
        "caller": _caller(failure, policy, tries=bool(steps)),
        "account": _account(failure, last, tries=bool(steps)),
        "why": failure.why,
        "override": _override(failure),
        "code": code_of(failure).number,
        "advice": code_of(failure).advice,
    }


def _override(failure: Failure) -> str | None:
    """The row of [classify] that decided."""
    found = re.match(r"\[classify\] (\S+)", failure.why)
    return found[1] if found else None


def _same(one: Failure, other: Failure) -> bool:
    return (one.kind, one.remedy, one.scope) == (other.kind, other.remedy, other.scope)


# --- What happens, one attempt after the other --------------------------------------------------------------


def _course(failure: Failure, policy: Policy) -> tuple[list[list[float]], Result]:
    """The delay before each attempt, without and with all of its jitter, and what comes of it when all have failed.

    An attempt that waits for what is not known (FLOOD_WAIT_X) has no delay: an empty list.
    """
    if failure.remedy in (Remedy.RAISE, Remedy.NONE):
        return [], Result.RAISED
    decide = _for_call if failure.scope is Scope.CALL else _for_incident
    steps: list[list[float]] = []
    for _ in range(policy.max_retries + 1):
        least, most = (decide(failure, policy, len(steps), jitter) for jitter in (0.0, 1.0))
        if least.result is not Result.RETRYING:
            return steps, least.result
        told = failure.wait is None and failure.kind is Kind.FLOOD_WAIT and failure.remedy is Remedy.WAIT
        steps.append([] if told else [round(least.delay, 3), round(most.delay, 3)])
    return steps, Result.RAISED


def _for_call(failure: Failure, policy: Policy, before: int, jitter: float) -> Decision:
    return for_call(failure, before, policy, jitter)


def _for_incident(failure: Failure, policy: Policy, before: int, jitter: float) -> Decision:
    """The decision after so many attempts that failed in the same way."""
    incident = incidents.opened("", failure, "direct", 0.0, 0.0).seen()
    for _ in range(before):
        incident = incident.acted(failure.kind, failure.action).seen().delayed(failure.kind)
    return for_incident(failure, incident, policy, jitter)


# --- In words ----------------------------------------------------------------------------------------------


def _caller(failure: Failure, policy: Policy, *, tries: bool) -> str:
    """What the caller of the failed call sees."""
    if failure.remedy is Remedy.NONE:
        done = failure.kind is Kind.ALREADY_DONE
        return (
            "the error; what was asked for is so already"
            if done
            else "nothing: the library follows it by itself"
        )
    if failure.scope is not Scope.CALL and failure.remedy is Remedy.FAIL:
        return "AccountUnavailable, for this call and all that wait"
    if not tries:
        return "the error at once, as pyrogram's exception"
    if failure.scope is not Scope.CALL:
        return "nothing, if it recovers in time: its calls are held and go out again; else AccountUnavailable"
    if failure.kind is Kind.FLOOD_WAIT:
        return (
            f"nothing: the call waits and is sent again, up to {policy.max_retries} times; a wait longer than max_wait "
            "raises pyrogram's FloodWait at once"
        )
    return f"nothing, if one of {policy.max_retries} more tries succeeds; else the error, as pyrogram's exception"


def _account(failure: Failure, last: Result, *, tries: bool) -> str:
    """What becomes of the account."""
    if failure.limited:
        return "keeps running, and is marked as limited: " + (
            "until `tg-supervisor retry NAME`"
            if is_frozen(failure.error_id)
            else "until 24 h have passed without another"
        )
    if failure.scope is Scope.CALL and failure.kind is Kind.FLOOD_WAIT and tries:
        return "stays online; what would meet the same wait is held, everything else leaves"
    if failure.scope is Scope.CALL:
        return "stays online: this is about the one call"
    if failure.remedy in (Remedy.RAISE, Remedy.NONE):
        return "carries on; while it is connecting, it tries again"
    return _recovering(failure, last)


def _recovering(failure: Failure, last: Result) -> str:
    if failure.remedy is Remedy.FAIL:
        return "fails, and stays so until a person acts: mend the cause, then `tg-supervisor retry NAME`"
    if failure.action is Action.RELOGIN:
        asked = failure.evidence.source is Source.RPC
        first = "once updates.getState has failed in the same way, " if asked else ""
        return f"{first}a bot signs in again with its token (or fails); a user's needs `tg-supervisor login NAME`"
    if last is Result.SUSPENDED:
        return f"{_DOING[failure.action]}; when all tries have failed, suspended: tried again after 60 s, doubling to 300 s"
    return _DOING[failure.action]


_DOING = {
    Action.WAIT: "recovering: waits, then connects again",
    Action.RECONNECT: "recovering: connects again, at once the first time",
    Action.ROTATE_PROXY: "recovering: moves to another proxy of its pool, or waits until its only one answers",
    Action.RETRY: "recovering: tries again",
}


# --- What the table knows ------------------------------------------------------------------------------------


def _is_named(failure: Failure) -> bool:
    """Whether a row of its own, by id or code, or the operator's, decided; not the one for all the rest."""
    if failure.evidence.source is not Source.RPC:
        return True
    return failure.why.startswith("[classify]") or (
        failure.evidence.error_id is None and "rpc *" not in failure.why
    )


def _alike(name: str) -> list[str]:
    """Known ids that were perhaps meant."""
    wanted = re.sub(r"\d+", "X", name.upper().rpartition(" ")[2])
    return get_close_matches(wanted, known_ids(), n=3, cutoff=_LIKELY) if wanted else []
