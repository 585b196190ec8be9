"""`explain`: what would be done about an error, and why."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from supervisor.cli.common import ExitCode, Options, options, say
from supervisor.cli.tables import clean, colored
from supervisor.cli.words import span, when
from supervisor.config.load import load_judgement
from supervisor.errors import ConfigError, SupervisorError
from supervisor.report.explain import explain as judge
from supervisor.report.explain import explain_path

_WIDTH = 78
_LABEL = 11
_COLORS = {
    "flood_wait": "yellow",
    "rate_limit": "yellow",
    "auth": "magenta",
    "permanent": "red",
    "unknown": "red",
}


@click.command(context_settings={"ignore_unknown_options": True})  # -404 is an error, not an option
@click.argument("error", nargs=-1, required=True)
@options
@click.pass_obj
def explain(given: Options, error: tuple[str, ...]) -> int:
    """Say what would be done about an error, and why; or how a path does.

    ERROR is an id (FLOOD_WAIT_35), a code (500, -404), both, or the line in which a client library printed them; or one
    of proxy, socket, silence, protocol, storage, for what has no id; or one of the numbers of docs/errors.md (4011). The
    [recovery] and [classify] tables of the configuration count, where it can be read. An unknown error is no failure of
    this command: exit code 0. The name of a proxy, or direct, tells how that path does: its breaker, how often Telegram
    answered on it, its open incident.
    """
    text = " ".join(error)
    if not any(sign.isalnum() for sign in text):
        raise click.UsageError("ERROR must be an id, as FLOOD_WAIT_35, or a code, as -404")
    judgement = load_judgement(given.config_path)
    found = judge(text, judgement.policies, judgement.overrides)
    if not found["known"] and (path := _find_path(text, given)) is not None:
        _show_path(path, given)
        return ExitCode.OK
    found["config"] = str(given.config_path) if judgement.read else None
    for problem in judgement.problems:
        say(problem if judgement.read else f"{problem}; the defaults are shown")
    if given.as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    elif "says" in found:
        _show_numbered(found, given)
    else:
        _show(found, given)
    return ExitCode.OK


def _find_path(name: str, given: Options) -> dict[str, Any] | None:
    """A path of the running daemon, or of the last run; None where none is called so."""
    from supervisor.cli.current import from_daemon, from_last_run
    from supervisor.record import queries
    from supervisor.record.incidents import incident

    try:
        state_dir = given.state_dir()
        db_path = state_dir / "recovery.db"
        status = from_daemon(state_dir) or from_last_run(db_path)[0]
        path = next((path for path in status["paths"] if path["name"] == name), None)
        if path is None:
            return None
        with queries.opened(db_path) as db:
            found = incident(db, path["incident"]) if db is not None and path["incident"] else None
    except ConfigError:
        return None  # what is wrong with it is said with the judgement
    except SupervisorError as error:
        say(f"whether a path is called so cannot be told: {error}")
        return None
    return explain_path(path, found)


def _show_path(found: Mapping[str, Any], given: Options) -> None:
    if given.as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    path = found["path"]
    title = f"{path['name']}  (a path)"
    click.echo(click.style(title, bold=True) if given.color else title, color=given.color)
    _print_lines(_path_lines(path, found["open_incident"], found["why"]), 2, given)


def _path_lines(
    path: Mapping[str, Any], incident: Mapping[str, Any] | None, why: str
) -> Iterator[tuple[str, str]]:
    yield "state", f"{path['state']}, {path['accounts']:,} accounts on it"
    since = f" since {when(path['since'])}" if path["since"] else ""
    yield "breaker", f"{path['breaker'].replace('_', ' ')}{since}"
    if path["next_probe_at"]:
        yield "next probe", when(path["next_probe_at"])
    tried = path["succeeded"] + path["failed"]
    if tried:
        rate = f"{path['succeeded']:,} of {tried:,} times ({100 * path['success_rate']:.4g} %)"
        yield "answered", rate if path["latency_ms"] is None else f"{rate}, after {path['latency_ms']:.0f} ms"
    if path["last_failure"]:
        yield "last", f"{when(path['last_failure']['at'])} {path['last_failure']['message']}"
    if incident:
        touched = f"{incident['failures']:,} failures, {len(incident['accounts']):,} accounts touched"
        yield (
            "incident",
            f"{incident['id']}: {incident['kind']} since {when(incident['opened_at'])}; {touched}",
        )
    yield "why", why


def _show_numbered(found: Mapping[str, Any], given: Options) -> None:
    title = f"{found['code']}  {found['name']}"
    click.echo(click.style(title, bold=True) if given.color else title, color=given.color)
    told = {
        "category": found["category"],
        "level": found["level"],
        "means": found["says"],
        "do": found["advice"],
    }
    _print_lines(told.items(), 2, given)


def _show(found: Mapping[str, Any], given: Options) -> None:
    title = clean(found["error"])
    named = found["error_id"]
    if named and named != found["error"]:
        title += f"  ({clean(named)})"
    click.echo(click.style(title, bold=True) if given.color else title, color=given.color)
    if not found["known"]:
        hint = f"; did you mean {' or '.join(found['did_you_mean'])}?" if found["did_you_mean"] else ""
        click.echo(f"  this error is in no table{hint}")
    _show_lines(found, 2, given)
    if found["while_signing_in"]:
        click.echo("\n  as a step of signing in:")
        _show_lines(found["while_signing_in"], 4, given)


def _show_lines(found: Mapping[str, Any], indent: int, given: Options) -> None:
    _print_lines(_lines(found), indent, given)


def _print_lines(lines: Iterable[tuple[str, str]], indent: int, given: Options) -> None:
    for label, text in lines:
        first, *more = textwrap.wrap(clean(text), _WIDTH - _LABEL - indent) or [""]
        if label == "kind":
            first = colored(first, _COLORS.get(text, "cyan"), given)
        click.echo(f"{'':{indent}}{label:<{_LABEL}}{first}", color=given.color)
        for line in more:
            click.echo(f"{'':{indent + _LABEL}}{line}")


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "kind", found["kind"]
    yield "reaches", _REACH[found["scope"]]
    yield "action", _action(found)
    if found["delays_s"]:
        yield "delays", _delays(found)
    yield "caller", found["caller"]
    yield "account", found["account"]
    if found["override"]:
        yield "why", f"your configuration says so: [classify] {found['override']}"
    else:
        yield "why", found["why"]
    yield "do", found["advice"]
    yield "number", str(found["code"])


_REACH = {
    "call": "the call (scope call)",
    "session": "the account's link and session (scope session)",
    "account": "the account (scope account)",
    "path": "the proxy, with all accounts on it (scope path)",
    "fleet": "all accounts (scope fleet)",
}


def _action(found: Mapping[str, Any]) -> str:
    cap = found["max_retries"]
    match found["remedy"]:
        case "raise":
            return "none: the error is handed to the caller"
        case "none":
            return "none is needed"
        case "fail":
            return "fail, without another try"
    return f"{found['action']}, at most {cap} time{'s' if cap != 1 else ''} in a row"


def _delays(found: Mapping[str, Any]) -> str:
    if not found["delays_s"][0]:
        return "as many seconds as Telegram says, and up to 1 s more"
    shown = [_between(*delay) for delay in found["delays_s"]]
    if len(shown) > 1 and len(set(shown)) == 1:
        return f"{shown[0]}, each time"
    more = found["max_retries"] - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")


def _between(least: float, most: float) -> str:
    """A delay, with its jitter: ``4-5 s``."""
    if most == 0:
        return "at once"
    if least == most:
        return span(least)
    if most < 600:
        return f"{least:g}-{most:g} s"
    return f"{span(least)} - {span(most)}"
