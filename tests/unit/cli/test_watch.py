from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.watch.draw import frame, room
from supervisor.cli.watch.look import Looker, Seen
from supervisor.cli.watch.plain import block, what_counts
from supervisor.cli.watch.terminal import keys
from supervisor.cli.watch.tries import Try, in_hand
from supervisor.cli.watch.view import SORTS, Account, Order, View, answered, placed, pressed, shown
from supervisor.cli.words import clock
from supervisor.core.failure import DEFAULT_POLICIES, Result, State
from supervisor.ports import AccountSnapshot, Limited, PathSnapshot
from supervisor.record import queries
from supervisor.record.recent import Recent
from supervisor.report.status import status
from tests.unit.cli.conftest import NOW, ROOT, account, fill, row

CAPS = {kind.value: policy.max_retries for kind, policy in DEFAULT_POLICIES.items()}
STATES = [state.value for state in State]
_PLAIN = View()
SIZES = [(120, 40), (80, 24), (40, 24), (40, 8), (20, 5), (3, 3)]


def seen(*accounts: AccountSnapshot, broken: str = "de1", **more: Any) -> Seen:
    paths = [PathSnapshot("direct", "ok", len(accounts)), PathSnapshot(broken, "broken", 1)]
    found = status(accounts, paths, running=True, pid=4711, uptime_s=3700.0, row_id=lambda _: 42)
    return replace(Seen(found, NOW, failures=(3, 1234), caps=CAPS), **more)


def many(number: int) -> list[AccountSnapshot]:
    return [account(f"bot-{one:04}") for one in range(number)]


def names(found: Seen, view: View) -> list[str]:
    assert found.status is not None
    return [one["name"] for one in shown(found.status["accounts"], view)]


def screen(
    found: Seen, view: View = _PLAIN, size: tuple[int, int] = (100, 24), now: float = NOW
) -> list[str]:
    accounts = shown(found.status["accounts"], view) if found.status else []
    view = placed(view, [one["name"] for one in accounts], room(found, size))
    return [line.plain for line in frame(found, view, accounts, size, now)]


def press(found: Seen, view: View, *typed: str, size: tuple[int, int] = (100, 24)) -> View:
    """What keys make of a view, as on the screen: placed before each."""
    for key in typed:
        assert found.status is not None
        accounts = shown(found.status["accounts"], view)
        view = placed(view, [one["name"] for one in accounts], room(found, size))
        view = pressed(view, key, accounts, STATES, room(found, size))
    accounts = shown(found.status["accounts"], view) if found.status else []
    return placed(view, [one["name"] for one in accounts], room(found, size))


def test_the_worst_come_first() -> None:
    """What waits for a person is above what recovers by itself; limited and frozen accounts are not among the well."""
    limited, frozen = Limited("PEER_FLOOD", False, 0.0), Limited("FROZEN_METHOD_INVALID", True, 0.0)
    found = seen(
        *(account(state.value, state) for state in State),
        account("limited", limited=limited),
        account("frozen", limited=frozen),
    )
    assert names(found, View()) == [
        *("failed", "needs_login", "frozen", "suspended", "recovering", "starting"),
        *("limited", "paused", "stopped", "online"),
    ]


def test_every_order_has_all_accounts() -> None:
    """Whatever they are sorted by, none is lost; by name, by newest change and by next try, as the names say."""
    old = replace(account("a", State.SUSPENDED, retry_at=NOW + 60), since=NOW - 500)
    found = seen(account("c"), account("b", State.SUSPENDED, retry_at=NOW + 5), old)
    orders = {sort: names(found, View(sort=sort)) for sort in SORTS}
    assert all(sorted(order) == ["a", "b", "c"] for order in orders.values())
    assert orders["name"] == ["a", "b", "c"]
    assert orders["newest"][-1] == "a"
    assert orders["next try"] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("sale", ["sales", "wholesale"]), ("sale*", ["sales"]), ("*[1]", ["bot-1"]), ("[", [])],
)
def test_names_are_found_by_part_or_pattern(pattern: str, expected: list[str]) -> None:
    """Without a glob's signs any part of a name fits; with them all of it has to; half a pattern is no error."""
    found = seen(*map(account, ("sales", "wholesale", "bot-1")))
    assert names(found, View(sort="name", pattern=pattern)) == expected


def test_the_state_filter_goes_round() -> None:
    """`f` shows each state in turn, and then all again; Esc drops every filter."""
    found = seen(account("a"), account("b", State.FAILED))
    view = View()
    for state in STATES:
        view = press(found, view, "f")
        assert view.state == state
    assert press(found, view, "f").state is None
    filtered = press(found, View(), "f", "/", "x", "enter")
    assert (filtered.state, filtered.pattern) == ("starting", "x")
    assert press(found, filtered, "esc") == View()


def test_typing_filters_at_once_and_can_be_taken_back() -> None:
    """Each letter narrows, letters that are keys elsewhere too; Esc brings back what was before."""
    found = seen(account("quick"), account("slow"))
    view = press(found, View(pattern="s"), "/", "backspace", "q", "up")
    assert (view.pattern, names(found, view), view.over) == ("q", ["quick"], False)
    assert press(found, view, "enter").pattern == "q"
    assert press(found, view, "esc").pattern == "s"


def test_the_cursor_stays_with_its_account() -> None:
    """It follows the account that was chosen when others pass it; where nobody was chosen it stays with the worst."""
    before = seen(account("a"), account("b"), account("c"))
    after = seen(account("a"), account("b"), account("c", State.FAILED))
    moved = press(before, View(), "down")
    assert moved.chosen == "b"
    assert press(after, moved).at == 2
    assert names(after, View())[press(after, View()).at] == "c"
    gone = press(seen(account("a"), account("c")), moved)
    assert (gone.at, gone.chosen) == (1, "c")
    assert press(seen(), moved).at == 0


def test_moving_scrolls() -> None:
    """The cursor is always on the screen, from the first to the last of three thousand; never beyond."""
    found, size = seen(*many(3000)), (80, 24)
    page = room(found, size)
    at = {
        ("down",) * 40: 40,
        ("j", "k", "k"): 0,
        ("end",): 2999,
        ("G", "pgup"): 2999 - page,
        ("pgdn", " ", "up"): 2 * page - 1,
        ("end", "down", "home"): 0,
        ("x",): 0,
    }
    for typed, expected in at.items():
        view = press(found, View(), *typed, size=size)
        assert view.at == expected
        assert 0 <= view.top <= view.at < view.top + page
        assert any(line.startswith(f"> bot-{view.at:04}") for line in screen(found, view, size))


def test_an_order_is_for_who_was_chosen() -> None:
    """The account asked about is the one that was under the cursor, wherever it is when `y` is pressed; else nothing."""
    found = seen(account("a"), account("b"))
    for key, verb in (("r", "retry"), ("p", "pause"), ("u", "resume")):
        view = press(found, View(), "down", key)
        assert f"{verb} b? y: yes, else: no" in screen(found, view)[-1]
        assert answered(view, "y") == (replace(view, asking=None), Order(verb, "b"))
        refused, order = answered(view, "x")
        assert (refused.asking, refused.said, order) == (None, "nothing done", None)
    assert press(seen(), View(), "p").asking is None


def test_help_tells_the_keys_and_goes() -> None:
    """`?` shows what keys there are; any key brings the accounts back, and `q` quits here too."""
    found = seen(account("a"))
    view = press(found, View(), "?")
    assert any("retry, pause, resume" in line for line in screen(found, view))
    assert press(found, view, "p") == View()
    assert press(found, view, "q").over


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("number", [0, 1, 3, 3000])
def test_the_frame_fits(size: tuple[int, int], number: int) -> None:
    """On any terminal: as many lines as it has, none too wide, and the accounts are seen wherever there is a line for one."""
    found = seen(
        *many(number), account("a-name-much-longer-than-any-column-" * 3, State.FAILED, last_failure=row())
    )
    for view in (
        View(),
        View(help=True),
        View(typing=""),
        View(asking=Order("pause", "x" * 200)),
        View(said="ö" * 99),
    ):
        lines = screen(found, view, size)
        assert len(lines) == size[1]
        assert all(len(line) <= size[0] for line in lines)
    assert size[1] < 5 or any(line.startswith("> a-name"[: size[0]]) for line in screen(found, View(), size))
    silent = replace(Seen(), note="the daemon (pid 4711) does not answer yet; try again", stale=True)
    assert len(screen(silent, View(), size)) == size[1]


def test_only_what_is_visible_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three thousand accounts as many are looked at closely as there are lines."""
    drawn: list[str] = []

    def trouble(one: Account, _: object) -> str:
        drawn.append(one["name"])
        return ""

    monkeypatch.setattr("supervisor.cli.watch.draw._trouble", trouble)
    screen(seen(*many(3000)), View(), (120, 30))
    assert 0 < len(drawn) < 30


def test_the_incident_in_hand() -> None:
    """Attempt n of m and the countdown, in the row and in words below it, with the cause."""
    failure = row(NOW - 1, attempt=2, cause=("OSError: no route",))
    trouble = account("sales", State.RECOVERING, incident="i-1", retry_at=NOW + 34, last_failure=failure)
    text = screen(seen(trouble))
    assert any("> sales" in line and "2/5 in 34 s" in line for line in text)
    assert any(
        line.startswith("attempt 2 of 5, next try in 34 s (") and "incident i-1" in line for line in text
    )
    assert any("FLOOD_WAIT_35 on messages.SendMessage" in line for line in text)
    assert any("because of OSError: no route" in line for line in text)
    assert any("2/5 in 4 s" in line for line in screen(seen(trouble), now=NOW + 30))
    assert any("2/5 now" in line for line in screen(seen(trouble), now=NOW + 34))


def one(snapshot: AccountSnapshot) -> dict[str, Any]:
    found = seen(snapshot).status
    assert found is not None
    account_shown: dict[str, Any] = found["accounts"][0]
    return account_shown


@pytest.mark.parametrize(
    ("snapshot", "expected"),
    [
        (account("a"), None),
        (account("a", last_failure=row(NOW - 10, incident="i-9")), Try(1, 5, NOW + 25)),
        (account("a", last_failure=row(NOW - 50, incident="i-9")), None),
        (account("a", last_failure=row(NOW - 10, outcome=Result.RAISED)), None),
        (account("a", State.RECOVERING, incident="i-1", last_failure=row(NOW - 50)), Try(1, 5, None)),
        (account("a", State.RECOVERING, incident="i-2", last_failure=row(NOW - 50)), Try(0, None, None)),
        (account("a", State.SUSPENDED, retry_at=NOW + 9, last_failure=row(NOW)), Try(0, None, NOW + 9)),
        (account("a", State.STOPPED, incident="i-1", last_failure=row(NOW)), None),
        (account("a", State.FAILED, incident="i-1", last_failure=row(NOW)), None),
    ],
    ids=[
        "well",
        "a call waits",
        "waited",
        "raised",
        "being tried",
        "another's row",
        "suspended",
        "stopped",
        "failed",
    ],
)
def test_what_is_tried_next(snapshot: AccountSnapshot, expected: Try | None) -> None:
    """A count is told of the incident's own row alone, a time only where something will be tried by itself."""
    found = in_hand(one(snapshot), frozenset(), CAPS, NOW)
    if expected is None or expected.at is None:
        assert found == expected
    else:
        assert found is not None
        assert replace(found, at=expected.at) == expected
        assert found.at == pytest.approx(expected.at, abs=0.01)


def test_a_broken_path_is_what_is_waited_for() -> None:
    """Where the account's path is down its own attempts are not what it waits for."""
    waiting = replace(account("a", State.RECOVERING, incident="i-1", last_failure=row(delay=0.0)), path="de1")
    text = screen(seen(waiting))
    assert any("path down" in line for line in text)
    assert any("it waits until de1 answers again" in line for line in text)


def test_without_a_daemon_nothing_is_promised() -> None:
    """No key is advised that only a daemon would heed."""
    found = seen(account("sales", State.STOPPED))
    assert found.status is not None
    text = "\n".join(screen(replace(found, status=found.status | {"running": False})))
    assert "no daemon runs that could try it" in text


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        (State.NEEDS_LOGIN, "tg-supervisor login sales"),
        (State.FAILED, "r retries it"),
        (State.PAUSED, "u resumes it"),
        (State.SUSPENDED, "r retries it"),
        (State.ONLINE, "nothing is awaited"),
    ],
)
def test_what_a_person_can_do_is_said(state: State, advice: str) -> None:
    """Where nothing is tried by itself, the line below the account says what would be."""
    assert any(advice in line for line in screen(seen(account("sales", state))))


def test_the_head_counts() -> None:
    """Accounts by state, paths with the broken first, failures of the last minute and hour; what is cut is counted."""
    found = seen(*many(2990), *(account(f"f-{n}", State.FAILED) for n in range(10)))
    text = "\n".join(screen(found))
    assert "daemon: pid 4711, up 1 h 2 min" in text
    assert "3,000 accounts: 10 failed, 2,990 online" in text
    assert "paths: de1 broken (1), direct ok (3,000)" in text
    assert "failures: 3 in 1 min, 1,234 in 1 h" in text
    paths = [PathSnapshot(f"proxy-{n:02}", "ok", 1) for n in range(50)]
    crowded = status([], paths, running=True, pid=1, uptime_s=1.0, row_id=lambda _: None)
    (line,) = [line for line in screen(Seen(crowded, NOW), size=(80, 12)) if line.startswith("paths")]
    left_out = 50 - line.count("ok")
    assert left_out > 0
    assert line.endswith(f", +{left_out}")


def test_a_path_that_answers_seldom_says_so() -> None:
    """How often it did, and of a broken one when it is asked next; a good one is named alone."""
    paths = [
        PathSnapshot("direct", "ok", 2, succeeded=99, failed=1),
        PathSnapshot("de1", "broken", 3, "open", NOW - 9, NOW + 10, 1, 3),
        PathSnapshot("nl3", "ok", 4, succeeded=3, failed=1),
    ]
    found = status([], paths, running=True, pid=1, uptime_s=1.0, row_id=lambda _: None)
    text = "\n".join(screen(Seen(found, NOW)))
    assert (
        f"de1 broken (3, 25 % answered, probe {clock(NOW + 10)}), direct ok (2), nl3 ok (4, 75 % answered)"
        in text
    )


def test_a_plain_watch_does_not_tell_of_every_connection() -> None:
    """What is counted up all the time is no news; a breaker that opens is."""

    def seen_with(**more: Any) -> Seen:
        paths = [PathSnapshot("de1", "ok", 2, **more)]
        return Seen(status([], paths, running=True, pid=1, uptime_s=1.0, row_id=lambda _: None), NOW)

    before = what_counts(seen_with())
    assert what_counts(seen_with(succeeded=5, failed=1, latency=0.5)) == before
    assert what_counts(seen_with(breaker="open", probe_at=NOW)) != before


def test_what_is_not_known_is_not_shown_as_known() -> None:
    """A daemon that is silent, or gone, is said so on top; what it said before is called that."""
    silent = seen(account("a"), note="the daemon did not answer within 5 s", stale=True)
    assert "did not answer within 5 s; what follows is of " in screen(silent)[0]
    gone = seen(account("a", State.STOPPED), note="no daemon is running; the last one stopped at 12:00:00")
    assert screen(gone)[0].startswith("no daemon is running")
    assert screen(Seen())[0] == "asking the daemon …"
    assert "no log to read" in "\n".join(screen(seen(failures=None)))


def test_nothing_steers_the_terminal() -> None:
    """What servers and other people's code say is shown without its control characters."""
    nasty = account(
        "a", State.FAILED, last_failure=row(message="\x1b[2Jgone\r\n", cause=("\x07bell",), error_id=None)
    )
    assert all(line.isprintable() for line in screen(seen(nasty, broken="\x1b[31m")))
    assert all(line.isprintable() for line in block(seen(nasty, broken="\x1b[31m"), NOW))


def test_a_plain_block_has_every_account() -> None:
    """Where there is no terminal: a line each, the totals, the broken paths; of a silent daemon its silence alone."""
    found = seen(account("sales", State.NEEDS_LOGIN, last_failure=row()), account("support-bot"))
    lines = list(block(found, NOW))
    assert lines[0].endswith("daemon: pid 4711")
    assert [line.split()[0] for line in lines[1:4]] == ["ACCOUNT", "sales", "support-bot"]
    assert lines[4:] == ["2 accounts: 1 needs_login, 1 online", "broken paths: de1", ""]
    silent = list(block(replace(found, note="the daemon did not answer", stale=True), NOW))
    assert len(silent) == 2
    assert "did not answer" in silent[0]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("\x1b[A\x1bOBk", ["up", "down", "k"]),
        ("\x1b", ["esc"]),
        ("\x1b[5~\x1b[6~\x1b[H\x1b[4~", ["pgup", "pgdn", "home", "end"]),
        ("\x1b[15~\x1b[1;5Cq", ["q"]),
        ("\x7fä\r\x00", ["backspace", "ä", "enter"]),
    ],
)
def test_keys_are_told_apart(typed: str, expected: list[str]) -> None:
    """Sequences of any terminal are one key each; what means nothing here is not taken for letters."""
    assert keys(typed) == expected


def test_failures_are_counted_as_they_come(tmp_path: Path) -> None:
    """The last minute and hour, recoveries not among them; new rows are added, old ones leave, a new file begins anew."""
    recent, path = Recent(), tmp_path / "state" / "recovery.db"
    now = NOW + 1
    old, hour = row(now - 4000), row(now - 1800, count=7)
    fill(path.parent, [old, hour, row(now - 5, None), row(now - 4, outcome=Result.RECOVERED)])

    def count(at: float) -> tuple[int, int]:
        with queries.opened(path) as db:
            assert db is not None
            return recent.count(db, at)

    assert count(now) == (1, 8)
    fill(path.parent, [row(now, count=2)])
    assert count(now + 2) == count(now + 2) == (3, 10)
    assert count(now + 58) == (2, 10)
    assert count(now + 1802) == (0, 3)
    for file in path.parent.iterdir():
        file.unlink()
    fill(path.parent, [row(now + 1801)])
    assert count(now + 1802) == (1, 1)


def test_looking_without_a_daemon(tmp_path: Path, config: Path) -> None:
    """The last run is shown and said to be that; read once as long as nobody writes; the caps are those of the file."""
    config.write_text(config.read_text() + "\n[recovery.flood_wait]\nmax_retries = 9\n")
    looker = Looker(tmp_path / "state", config)
    assert "none has run yet" in looker.look().note
    fill(tmp_path / "state", [row(time.time())], [account("a", State.SUSPENDED)])
    first = looker.look()
    assert first.note.startswith("no daemon is running; the last one stopped at")
    assert first.failures == (1, 1)
    assert first.caps["flood_wait"] == 9
    assert looker.look().status is first.status
    config.write_text(config.read_text().replace("max_retries = 9", "max_retries = 11"))
    assert looker.look().caps["flood_wait"] == 11
    fill(tmp_path / "state", [], [account("b")])
    found = looker.look().status
    assert found is not None
    assert [one["name"] for one in found["accounts"]] == ["a", "b"]


def test_a_waiting_call_is_named() -> None:
    """An account that is online while one of its calls waits shows which, at which attempt, and for how long."""
    waiting = account("sales", last_failure=row(NOW - 5, incident="i-9"))
    (line,) = [line for line in screen(seen(waiting)) if line.startswith("> sales")]
    assert "1/5 in 30 s" in line
    assert "flood_wait FLOOD_WAIT_35" in line
    later = "\n".join(screen(seen(waiting), now=NOW + 31))
    assert "1/5" not in later


def test_a_newer_daemons_words_are_shown() -> None:
    """A state or kind that this release does not know is shown as it is, among the worst, not stumbled over."""
    found = seen(account("a"), account("b", State.RECOVERING, last_failure=row(), incident="i-1"))
    assert found.status is not None
    found.status["accounts"][0]["state"] = "hibernating"
    found.status["accounts"][1]["last_failure"]["kind"] = "eclipse"
    text = screen(found)
    assert any(line.startswith("> a") and "hibernating" in line for line in text)
    assert any("1 in " in line and "eclipse" in line for line in text)


def test_the_watch_needs_no_event_loop() -> None:
    """It imports neither asyncio nor a client library, on a terminal or not."""
    script = (
        "import sys, supervisor.cli.watch.live, supervisor.cli.watch.plain; "
        "print(sorted({'asyncio', 'pyrogram', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"
