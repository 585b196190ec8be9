"""The page of `report --html`: one file, no script, nothing from anywhere else; plots are SVG, made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from supervisor.core.failure import Kind

# One colour for each kind, the same in every plot; distinguishable for colour-blind eyes (Okabe and Ito).
_COLORS = {
    Kind.FLOOD_WAIT.value: "#e69f00",
    Kind.RATE_LIMIT.value: "#b58900",
    Kind.PROXY.value: "#cc79a7",
    Kind.CONNECTION.value: "#0072b2",
    Kind.AUTH.value: "#d55e00",
    Kind.TEMPORARY.value: "#56b4e9",
    Kind.PERMANENT.value: "#7a7a7a",
    Kind.UNKNOWN.value: "#009e73",
}
_OTHER = "#999999"
_WIDTH, _HEIGHT = 960, 180
_BARS = 84  # at most, in the plot of failures over time
_LANES, _LANE = 40, 18  # accounts in the timeline, and the height of each
_NAMES = 180  # px for their names
_ROWS = 50

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --soft: #666; --line: #ddd; --paper: #fff; --card: #f7f7f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --soft: #a0a0a0; --line: #3a3a3a; --paper: #161616; --card: #202020; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 1000px; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; } p { margin: .3rem 0; }
.soft { color: var(--soft); } .cards { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: 1rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1rem; min-width: 8rem; }
.card b { display: block; font-size: 1.4rem; }
table { border-collapse: collapse; width: 100%; } .scroll { overflow-x: auto; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; } td.wrap { white-space: normal; overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.advice li { margin: .2rem 0; } .key { display: inline-block; width: .8em; height: .8em; border-radius: .15em; }
"""


def page(found: Mapping[str, Any]) -> str:
    """The page.

    Args:
        found: what `digest` gave.
    """
    parts = [
        _cards(found),
        _advice(found["advice"]),
        "<h2>Failures over time</h2>",
        _over_time(found),
        _legend(found["failures_over_time"]["by_kind"]),
        "<h2>When accounts were not online</h2>",
        _timeline(found),
        "<h2>Accounts</h2>",
        _accounts(found["accounts"]),
        "<h2>Commonest causes</h2>",
        _causes(found["causes"]),
        "<h2>Proxies and paths</h2>",
        _paths(found["paths"]),
        "<h2>Recovery actions</h2>",
        _actions(found["stats"]["by_action"]),
    ]
    span = f"{_day(found['since'])} to {_day(found['until'])} UTC"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>tg-supervisor: {escape(span)}</title><style>{_STYLE}</style></head>\n<body>"
        f'<h1>tg-supervisor</h1><p class="soft">{escape(span)}</p>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


# --- What stands at the top ------------------------------------------------------------------------------------


def _cards(found: Mapping[str, Any]) -> str:
    incidents, took = found["stats"]["incidents"], found["stats"]["time_to_recover_s"]
    shown = [
        ("available", _share(found["availability"])),
        ("accounts", f"{len(found['accounts']):,}"),
        ("incidents", f"{incidents['total']:,}"),
        ("recovered", _share(found["stats"]["success_rate"])),
        ("open now", f"{incidents['open']:,}"),
        ("time to recover, p50 / p99", f"{_seconds(took['p50'])} / {_seconds(took['p99'])}"),
    ]
    cards = (f'<div class="card"><b>{escape(value)}</b>{escape(label)}</div>' for label, value in shown)
    return f'<div class="cards">{"".join(cards)}</div>'


def _advice(advice: Sequence[str]) -> str:
    if not advice:
        return "<h2>What to change</h2><p>Nothing stands out.</p>"
    return f'<h2>What to change</h2><ul class="advice">{"".join(f"<li>{escape(one)}</li>" for one in advice)}</ul>'


# --- Plots -----------------------------------------------------------------------------------------------------


def _over_time(found: Mapping[str, Any]) -> str:
    """Stacked bars: a bar is as many hours as it takes for at most `_BARS` of them."""
    since, until = _unix(found["since"]), _unix(found["until"])
    step = found["failures_over_time"]["step_s"]
    wide = step * max(1, -(-int(until - since) // (step * _BARS)))
    first = int(since // step * step)
    stacks: dict[int, dict[str, int]] = {}
    for kind, counts in found["failures_over_time"]["by_kind"].items():
        for start, count in counts:
            stack = stacks.setdefault((start - first) // wide, {})
            stack[kind] = stack.get(kind, 0) + count
    if not stacks:
        return "<p>None.</p>"
    most = max(sum(stack.values()) for stack in stacks.values())
    bars = max(1, -(-int(until - first) // wide))
    width = _WIDTH / bars
    drawn = [
        _bar(index * width, width, stack, most, _day(first + index * wide)) for index, stack in stacks.items()
    ]
    axis = (
        f'<line x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}" stroke="currentColor" stroke-opacity=".3"/>'
        f'<text x="0" y="{_HEIGHT + 15}">{_day(first)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 15}" text-anchor="end">{_day(until)}</text>'
        f'<text x="0" y="11">{most:,} in {wide // 3600} h</text>'
    )
    return _svg(_HEIGHT + 20, "".join(drawn) + axis, "failures over time, by kind")


def _bar(x: float, width: float, stack: Mapping[str, int], most: int, when: str) -> str:
    drawn, top = [], float(_HEIGHT)
    for kind, count in sorted(stack.items()):
        height = (_HEIGHT - 16) * count / most
        top -= height
        drawn.append(
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{max(1.0, width - 1):.1f}" height="{height:.1f}"'
            f' fill="{_color(kind)}"><title>{when}: {count:,} {escape(kind)}</title></rect>'
        )
    return "".join(drawn)


def _timeline(found: Mapping[str, Any]) -> str:
    """A lane for each of the accounts that were away longest, a mark for each time."""
    down = [name for name, one in found["accounts"].items() if one["down_s"]]
    names = sorted(down, key=lambda name: (-found["accounts"][name]["down_s"], name))[:_LANES]
    if not names:
        return "<p>Never.</p>"
    lanes = {name: index for index, name in enumerate(names)}
    begun, until = _unix(found["since"]), _unix(found["until"])
    scale = (_WIDTH - _NAMES) / max(1.0, until - begun)
    drawn = [
        f'<text x="0" y="{_LANE * index + 13}">{escape(_short(name))}</text>'
        f'<line x1="{_NAMES}" x2="{_WIDTH}" y1="{_LANE * (index + 1)}" y2="{_LANE * (index + 1)}"'
        ' stroke="currentColor" stroke-opacity=".12"/>'
        for name, index in lanes.items()
    ]
    for outage in found["outages"]:
        if outage["account"] in lanes:
            x = _NAMES + (_unix(outage["from"]) - begun) * scale
            told = f"{outage['account']}: {outage['kind']}, {_day(outage['from'])}, {_seconds(outage['seconds'])}"
            drawn.append(
                f'<rect x="{x:.1f}" y="{_LANE * lanes[outage["account"]] + 3}"'
                f' width="{max(1.5, outage["seconds"] * scale):.1f}" height="{_LANE - 5}" fill="{_color(outage["kind"])}">'
                f"<title>{escape(told)}</title></rect>"
            )
    more = len(down) - len(names)
    note = f'<p class="soft">and {more:,} more accounts</p>' if more else ""
    return _svg(_LANE * len(names) + 4, "".join(drawn), "outages by account") + note


def _legend(kinds: Iterable[str]) -> str:
    keys = (f'<span class="key" style="background:{_color(kind)}"></span> {escape(kind)}' for kind in kinds)
    return f'<p class="soft">{" &nbsp; ".join(keys)}</p>'


def _svg(height: int, content: str, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img"'
        f' aria-label="{escape(label)}">{content}</svg>'
    )


# --- Tables ----------------------------------------------------------------------------------------------------


def _accounts(accounts: Mapping[str, Any]) -> str:
    worst = sorted(accounts.items(), key=lambda item: (item[1]["availability"] or 0.0, item[0]))
    rows = [
        (name, one["state"] or "", _share(one["availability"]), f"{one['outages']:,}", _seconds(one["down_s"]),
         _seconds(one["longest_s"]))
        for name, one in worst[:_ROWS]
    ]  # fmt: skip
    more = f'<p class="soft">and {len(accounts) - _ROWS:,} more</p>' if len(accounts) > _ROWS else ""
    return _table(("account", "state now", "available", "outages", "away", "longest"), rows, 2) + more


def _causes(causes: Sequence[Mapping[str, Any]]) -> str:
    rows = [(one["kind"], one["what"], f"{one['count']:,}", f"{one['accounts']:,}") for one in causes]
    return _table(("kind", "what failed", "times", "accounts"), rows, 2, wrapped=1)


def _paths(paths: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            path,
            ", ".join(f"{count:,} {kind}" for kind, count in sorted(one["failures"].items())),
            f"{one['outages']:,}",
            _seconds(one["down_s"]),
            _share(one["success_rate"]),
            "-" if one["latency_ms"] is None else f"{one['latency_ms']:.0f} ms",
        )
        for path, one in list(paths.items())[:_ROWS]
    ]
    return _table(("path", "failures", "outages", "away", "answered", "latency"), rows, 2, wrapped=1)


def _actions(actions: Mapping[str, Mapping[str, int]]) -> str:
    rows = [
        (name.replace("_", " "), f"{one['used']:,}", f"{one['succeeded']:,}") for name, one in actions.items()
    ]
    return _table(("action", "used", "succeeded"), rows, 1)


def _table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int, wrapped: int | None = None
) -> str:
    """A table whose columns from `numbers_from` on are numbers; the text of column `wrapped` may go on in a second line."""
    if not rows:
        return "<p>None.</p>"

    def marked(index: int) -> str:
        return ' class="n"' if index >= numbers_from else ' class="wrap"' if index == wrapped else ""

    marks = [marked(n) if n >= numbers_from else "" for n in range(len(titles))]
    head = "".join(f"<th{mark}>{escape(title)}</th>" for mark, title in zip(marks, titles, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{marked(n)}>{escape(cell)}</td>' for n, cell in enumerate(row))}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


# --- Words -----------------------------------------------------------------------------------------------------


def _color(kind: str) -> str:
    return _COLORS.get(kind, _OTHER)


def _unix(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339).timestamp()


def _day(at: str | float) -> str:
    when = datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at, UTC)
    return when.strftime("%Y-%m-%d %H:%M")


def _share(share: float | None) -> str:
    """A share; 100 % only where it is all of it."""
    if share is None:
        return "-"
    shown = f"{100 * share:.2f}".rstrip("0").rstrip(".")
    return "> 99.99 %" if shown == "100" and share < 1 else f"{shown} %"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
