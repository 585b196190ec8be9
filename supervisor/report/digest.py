"""A span of time at a glance: the object of `report --json`. How available each account was, what failed, and what to do.

An account is down while an incident of it that reaches beyond one call is open, or an outage that touched it, and while
it waits for a person or its next probe. Time in which nothing was recorded yet, or no daemon ran any more, is not counted at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from supervisor.config.model import DIRECT
from supervisor.core.failure import Kind, State
from supervisor.ports import PathSnapshot
from supervisor.record.counting import Asked
from supervisor.record.past import Outage, Past
from supervisor.record.rollups import HOUR
from supervisor.record.rows import rfc3339
from supervisor.report.stats import stats
from supervisor.report.status import path_json

SCHEMA = 1

# How many of the commonest causes and of the outages are told; the longest of them.
CAUSES = 10
OUTAGES = 5_000
# A proxy is advised against from so many failures on, where it has so much of all of them.
_PROXY_FAILURES, _PROXY_SHARE = 5, 0.5
# Flood waits of one account on one method, sign-ins of one account: from so many on they are worth a word.
_FLOODS, _SIGN_INS = 20, 3

_DOWN = frozenset({State.SUSPENDED, State.FAILED, State.NEEDS_LOGIN})


def digest(past: Past, now: float) -> dict[str, Any]:
    """Look back over a span of time.

    Args:
        past: the log of it.
        now: Unix time.
    """
    accounts = {snapshot.name: snapshot for snapshot in past.accounts()}
    begun, until = past.observed(now)
    outages = past.outages(begun, until)
    for name, snapshot in accounts.items():
        if snapshot.state in _DOWN:
            kind = snapshot.last_failure.kind.value if snapshot.last_failure else Kind.UNKNOWN.value
            outages.append(Outage(name, kind, max(begun, snapshot.since), until))
    outages = [outage for outage in outages if outage.seconds > 0]
    states = {name: snapshot.state.value for name, snapshot in accounts.items()}
    shaped = _accounts(states, outages, until - begun)
    paths = _paths(past, past.path_outages(begun, until))
    known = [one["availability"] for one in shaped.values() if one["availability"] is not None]
    return {
        "schema": SCHEMA,
        "since": rfc3339(past.since),
        "until": rfc3339(now),
        "observed_since": rfc3339(begun),
        "observed_until": rfc3339(until),
        "availability": sum(known) / len(known) if known else None,
        "accounts": shaped,
        "stats": stats(past.log, Asked(past.since), now),
        "failures_over_time": {"step_s": HOUR, "by_kind": past.log.by_hour(past.since)},
        "outages": [_outage(one) for one in sorted(outages, key=lambda one: -one.seconds)[:OUTAGES]],
        "paths": paths,
        "causes": past.causes(CAUSES),
        "advice": [*_about_accounts(states), *_about_proxies(paths), *_about_use(past)],
    }


def _accounts(states: Mapping[str, str], outages: Iterable[Outage], seconds: float) -> dict[str, Any]:
    by_account: dict[str, list[Outage]] = defaultdict(list)
    for outage in outages:
        by_account[outage.account].append(outage)
    return {
        name: _account(states.get(name), by_account[name], seconds)
        for name in sorted(states.keys() | by_account.keys())
    }


def _account(state: str | None, outages: Sequence[Outage], seconds: float) -> dict[str, Any]:
    down, longest = 0.0, 0.0
    end = float("-inf")
    for outage in sorted(outages, key=lambda one: one.begun):  # those that overlap count once
        down += max(0.0, outage.ended - max(end, outage.begun))
        end = max(end, outage.ended)
        longest = max(longest, outage.seconds)
    return {
        "state": state,
        "availability": 1 - down / seconds if seconds > 0 else None,
        "down_s": round(down, 3),
        "outages": len(outages),
        "longest_s": round(longest, 3),
    }


def _outage(outage: Outage) -> dict[str, Any]:
    return {
        "account": outage.account,
        "kind": outage.kind,
        "from": rfc3339(outage.begun),
        "until": rfc3339(outage.ended),
        "seconds": round(outage.seconds, 3),
    }


def _paths(past: Past, outages: Iterable[Outage]) -> dict[str, dict[str, Any]]:
    """Each path: how long it was out, what failed on it, and how often it has answered ever; the worst path first."""
    failures: dict[str, dict[str, int]] = defaultdict(dict)
    for name, kind, count in past.by_path():
        failures[name][kind] = count
    out: dict[str, list[Outage]] = defaultdict(list)
    for outage in outages:
        out[outage.account].append(outage)
    known = {path.name: path for path in past.paths()}
    paths = {
        name: _path(known.get(name) or PathSnapshot(name, "unused", 0), failures[name], out[name])
        for name in sorted(failures.keys() | out.keys() | known.keys())
    }
    return dict(
        sorted(
            paths.items(), key=lambda item: (-item[1]["down_s"], -sum(item[1]["failures"].values()), item[0])
        )
    )


def _path(path: PathSnapshot, failures: Mapping[str, int], outages: Sequence[Outage]) -> dict[str, Any]:
    shown = path_json(path)
    return {
        "failures": dict(failures),
        "outages": len(outages),
        "down_s": round(sum(outage.seconds for outage in outages), 3),
        **{key: shown[key] for key in ("breaker", "succeeded", "failed", "success_rate", "latency_ms")},
    }


# --- Advice ----------------------------------------------------------------------------------------------------


def _about_accounts(states: Mapping[str, str]) -> list[str]:
    advice = []
    for name, state in sorted(states.items()):
        if state == State.NEEDS_LOGIN.value:
            advice.append(f"{name} needs a login: tg-supervisor login {name}")
        elif state == State.FAILED.value:
            advice.append(
                f"{name} has failed; mend what `tg-supervisor log --account {name}` names, then: "
                f"tg-supervisor retry {name}"
            )
    return advice


def _about_proxies(paths: Mapping[str, Mapping[str, Any]]) -> list[str]:
    failures = {path: one["failures"].get(Kind.PROXY.value, 0) for path, one in paths.items()}
    total = sum(failures.values())
    advice = []
    for path, one in paths.items():
        count, tried = failures[path], one["succeeded"] + one["failed"]
        if count >= _PROXY_FAILURES and count >= _PROXY_SHARE * total:
            advice.append(f"proxy {path}: {count:,} of {total:,} proxy failures; replace it")
        elif path != DIRECT and one["failed"] >= _PROXY_FAILURES and one["failed"] >= _PROXY_SHARE * tried:
            advice.append(
                f"proxy {path}: Telegram answered on {one['succeeded']:,} of {tried:,} connections; replace it"
            )
    return advice


def _about_use(past: Past) -> list[str]:
    advice = [
        f"{account}: {count:,} flood waits{f' on {method}' if method else ''}; call it less"
        for account, method, count in past.flood_waits(_FLOODS)
    ]
    advice += [
        f"{account} was signed in anew {count:,} times: find out who ends its sessions"
        for account, count in past.sign_ins(_SIGN_INS)
    ]
    advice += [
        f"{account}: another program uses its session; find and stop it"
        for account in past.met("AUTH_KEY_DUPLICATED")
    ]
    return advice
