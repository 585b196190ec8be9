"""How many messages a person gets, and what they say. Times are monotonic seconds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.codes import NAMES, Code
from supervisor.core.failure import Level
from supervisor.core.notices import Notice, Notices, Pace
from supervisor.core.troubles import Began, Ended, Happened, News

PACE = Pace()
WINDOW = PACE.window


def trouble(who: str, code: str = "token_refused", group: str | None = None, what: str = "seen") -> Began:
    """An account's trouble."""
    return Began(f"account:{who}", group or f"code:{NAMES[code].number}", NAMES[code], who, what)


def over(who: str) -> Ended:
    return Ended(f"account:{who}", "online again")


def tell(notices: Notices, now: float, *news: News) -> None:
    for each in news:
        notices.take(each, now)


def one(notices: Notices, now: float) -> Notice:
    """The only message that is due."""
    (notice,) = notices.due(now)
    return notice


# --- one account ---


def test_a_refused_token_is_one_message_with_the_command_and_one_when_it_is_over() -> None:
    """Within the window, once; then nothing until it is mended."""
    notices = Notices(Level.WARNING)
    tell(notices, 0.0, trouble("bot", what="[400 ACCESS_TOKEN_INVALID]"))
    assert notices.due(WINDOW - 0.1) == []
    said = one(notices, WINDOW)
    assert (said.level, said.accounts, said.codes, said.count, said.resolved) == (
        Level.FATAL,
        ("bot",),
        (1012,),
        1,
        False,
    )
    assert said.title == "bot: Telegram refuses the bot's token."
    assert said.text == "[400 ACCESS_TOKEN_INVALID]"
    assert "tg-supervisor reload" in said.advice
    assert notices.due(3600.0) == []
    tell(notices, 4000.0, over("bot"))
    assert notices.due(4000.0) == []
    done = one(notices, 4000.0 + WINDOW)
    assert (done.level, done.resolved, done.seconds) == (Level.INFO, True, 4000.0)
    assert done.title == "Over: bot: Telegram refuses the bot's token."
    assert done.text == "After 1 h 6 min: online again."
    assert done.advice == ""
    assert notices.due(9000.0) == []


def test_the_advice_names_the_account() -> None:
    """It can be copied."""
    notices = Notices(Level.WARNING)
    tell(notices, 0.0, trouble("sales-user", "login_needed"))
    assert one(notices, WINDOW).advice == "tg-supervisor login sales-user"


def test_what_is_over_within_the_window_is_not_told() -> None:
    """A link that was made again at once is no news, nor is its end."""
    notices = Notices(Level.WARNING)
    tell(notices, 0.0, trouble("bot", "connection_lost", "path:direct"))
    tell(notices, 1.0, over("bot"))
    assert notices.due(60.0) == []


def test_what_turns_into_something_worse_is_told_as_that() -> None:
    """One message, where it turns within the window; nothing of it is over."""
    notices = Notices(Level.WARNING)
    tell(notices, 0.0, trouble("bot", "session_lost"), trouble("bot", "token_refused"))
    assert one(notices, WINDOW).codes == (1012,)
    tell(notices, 10.0, trouble("other", "session_lost"))
    assert one(notices, 20.0).codes == (1010,)
    tell(notices, 30.0, trouble("other", "token_refused"))
    assert [notice.codes for notice in notices.due(40.0)] == [(1012,)]


def test_what_a_sink_does_not_want_is_not_told() -> None:
    """Nor is the end of what it was not told; what has become harmless is nothing more to it."""
    notices = Notices(Level.ERROR)
    tell(notices, 0.0, trouble("a", "connection_lost"), over("a"))
    tell(notices, 0.0, Happened(NAMES["code_failed"], "a", "x"), over("unknown"))
    assert notices.due(60.0) == []
    tell(notices, 60.0, trouble("a", "suspended"), trouble("a", "connection_lost"))
    assert notices.due(120.0) == []


def test_it_is_not_over_when_it_comes_back_at_once() -> None:
    """Neither the end nor the return is told."""
    notices = Notices(Level.WARNING)
    tell(notices, 0.0, trouble("bot"))
    one(notices, WINDOW)
    tell(notices, 10.0, over("bot"))
    tell(notices, 11.0, trouble("bot"))
    assert notices.due(100.0) == []
    tell(notices, 200.0, over("bot"))
    assert one(notices, 210.0).resolved


# --- many accounts ---


def test_three_hundred_accounts_on_a_dead_proxy_are_one_message() -> None:
    """And one when the last is online again, however long that takes; what comes in between is part of it."""
    notices = Notices(Level.WARNING)
    names = [f"bot-{n}" for n in range(300)]
    for n, name in enumerate(names):
        tell(notices, n / 100, trouble(name, "proxy_failed", "path:de1"))
    said = one(notices, 3.0)
    assert said.title == "300 accounts on de1: The proxy refused, failed or fell silent."
    assert said.text == "bot-0, bot-1, bot-2, bot-3, bot-4 and 295 more\nseen"
    assert (said.count, len(said.accounts)) == (300, 300)
    tell(notices, 5.0, trouble("late", "connection_lost", "path:de1"))
    told: list[Notice] = []
    for n, name in enumerate([*names, "late"]):
        tell(notices, 100 + n / 10, over(name))
        told += notices.due(100 + n / 10)
    assert told == []
    done = one(notices, 140.0)
    assert (done.title, done.resolved) == (
        "Over: 300 accounts on de1: The proxy refused, failed or fell silent.",
        True,
    )
    assert notices.due(1000.0) == []


def test_a_broken_path_says_its_name_and_how_many_it_touches() -> None:
    """Also when nobody waits for it, for all have moved to another."""
    notices = Notices(Level.WARNING)
    tell(notices, 0.0, Began("path:de1", "path:de1", NAMES["proxy_failed"], "de1", "refused"))
    tell(notices, 0.0, Began("outage:1", "path:de1", NAMES["proxy_failed"], "de1", "refused", ("a", "b")))
    tell(notices, 0.0, trouble("a", "proxy_failed", "path:de1"))
    assert one(notices, WINDOW).title == "path de1, a, b: The proxy refused, failed or fell silent."
    tell(notices, 10.0, over("a"), Ended("outage:1", "its accounts are back"))
    assert notices.due(20.0) == [], "the path is still broken"
    tell(notices, 20.0, Ended("path:de1", "it answers again"))
    assert one(notices, 30.0).text == "After 20 s: it answers again."
    tell(notices, 40.0, Began("path:nl3", "path:nl3", NAMES["proxy_failed"], "nl3", "refused"))
    assert one(notices, 50.0).title == "path nl3: The proxy refused, failed or fell silent."


def test_the_fleet_is_told_as_a_whole() -> None:
    """Nobody is named twice."""
    notices = Notices(Level.WARNING)
    tell(notices, 0.0, Began("outage:1", "fleet", NAMES["unreachable"], "de1", "no path works", ("a", "b")))
    tell(notices, 0.0, trouble("a", "connection_lost", "fleet"))
    assert one(notices, WINDOW).title == "a, b: Telegram cannot be reached on any path."
    tell(notices, 3.0, Began("config", "code:3001", NAMES["config_invalid"], "", "line 3"))
    assert one(notices, 10.0).title.startswith("The configuration is wrong")


def test_others_with_the_same_trouble_are_told_soon_and_by_name() -> None:
    """What is fatal within seconds; that some of them are over, within half a minute."""
    notices = Notices(Level.WARNING)
    tell(notices, 0.0, trouble("a"))
    one(notices, WINDOW)
    tell(notices, 20.0, trouble("b"))
    assert one(notices, 20.0 + WINDOW).accounts == ("b",)
    tell(notices, 100.0, over("a"))
    assert notices.due(100.0 + WINDOW) == []
    done = one(notices, 130.0)
    assert (done.accounts, done.resolved) == (("a",), True)
    tell(notices, 200.0, trouble("a"))
    assert one(notices, 210.0).accounts == ("a",), "it is back"
    tell(notices, 300.0, over("a"))
    tell(notices, 304.0, over("b"))
    assert one(notices, 310.0).accounts == ("a", "b")


def test_a_warning_that_grows_is_told_again_after_ten_minutes() -> None:
    """At once, where it gets worse."""
    notices = Notices(Level.WARNING)
    tell(notices, 0.0, trouble("a", "connection_lost", "path:direct"))
    one(notices, WINDOW)
    tell(notices, 10.0, trouble("b", "connection_lost", "path:direct"))
    assert notices.due(WINDOW + 599.0) == []
    assert one(notices, WINDOW + 600.0).accounts == ("a", "b")
    tell(notices, 700.0, trouble("b", "proxy_refused_us", "path:direct"))
    worse = one(notices, 710.0)
    assert (worse.level, worse.count) == (Level.ERROR, 2)
    assert worse.codes == (4002, 4011)


# --- what has no end ---


def test_what_only_happens_is_told_once_and_then_summed_up() -> None:
    """A thousand exceptions of one bot are a message, and one more each ten minutes while they go on."""
    notices = Notices(Level.WARNING)
    for n in range(1000):
        tell(notices, n / 1000, Happened(NAMES["code_failed"], "bot", f"ValueError: {n}"))
    said = one(notices, 3.0)
    assert said.title == "bot: The bot's own code raised an exception (1,000 times)."
    assert (said.text, said.count, said.accounts) == ("ValueError: 0", 1000, ("bot",))
    tell(notices, 10.0, Happened(NAMES["code_failed"], "bot", "again"))
    assert notices.due(600.0) == []
    assert one(notices, 603.0).title == "bot: The bot's own code raised an exception."
    assert notices.due(1203.0) == []
    tell(notices, 1300.0, Happened(NAMES["loop_stalled"], "", "2 s"))
    assert one(notices, 1310.0).title == "Blocking code held up every account."


def test_an_error_of_another_account_is_told_soon() -> None:
    """Of the same one, after ten minutes."""
    notices = Notices(Level.ERROR)
    tell(notices, 0.0, Happened(NAMES["handler_stuck"], "a", "x"))
    one(notices, WINDOW)
    tell(notices, 10.0, Happened(NAMES["handler_stuck"], "a", "x"))
    assert notices.due(599.0) == []
    tell(notices, 599.0, Happened(NAMES["handler_stuck"], "b", "x"))
    said = one(notices, 602.0)
    assert (said.accounts, said.count) == (("a", "b"), 2)


# --- how many ---

CODES = [code for code in NAMES.values() if code.level is not Level.INFO]


def test_at_most_ten_a_minute_and_the_rest_is_summed_up() -> None:
    """Three of them are kept for what is grave; the last that may leave stands for all that wait."""
    notices = Notices(Level.INFO)
    warnings = [code for code in CODES if code.level is Level.WARNING]
    tell(notices, 0.0, *(Began(code.name, code.name, code, "bot", "") for code in warnings))
    said = notices.due(WINDOW)
    assert len(said) == PACE.limit - PACE.kept
    last = said[-1]
    assert last.title == f"{len(warnings) - 6} more, kept back because there are so many"
    assert last.count == len(warnings) - 6
    assert last.accounts == ("bot",)
    assert len(last.codes) == len(warnings) - 6
    assert last.text.count("\n") == min(len(warnings) - 6, 16) - 1
    tell(notices, 3.0, Happened(NAMES["code_failed"], "b", ""), trouble("a"), trouble("c", "login_needed"))
    assert [notice.codes for notice in notices.due(10.0)] == [(1012,), (1011,)]
    assert notices.due(WINDOW + 59.0) == []
    assert one(notices, WINDOW + 60.0).codes == (5001,)


def test_a_long_summary_is_cut() -> None:
    """Fifteen lines, and how many more; a short one has a line each."""
    notices = Notices(Level.INFO)
    tell(notices, 0.0, *(trouble(f"b{n}", "token_refused", f"code:{n}") for n in range(12)))
    *_, short = notices.due(WINDOW)
    assert short.text.splitlines() == [f"b{n}: Telegram refuses the bot's token." for n in (9, 10, 11)]
    notices = Notices(Level.INFO)
    code = NAMES["connection_lost"]
    tell(notices, 0.0, *(trouble(f"b{n}", code.name, f"code:{n}") for n in range(40)))
    *_, last = notices.due(WINDOW)
    assert last.text.splitlines()[-1] == "and 19 more"
    assert len(last.text.splitlines()) == 16


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 3.0),
            st.sampled_from(CODES),
            st.integers(0, 9),
            st.sampled_from(["begin", "end", "happen"]),
        ),
        max_size=300,
    )
)
def test_no_storm_is_more_than_ten_messages_a_minute_and_all_ends_well(
    storm: list[tuple[float, Code, int, str]],
) -> None:
    """Whatever comes in whatever order; and when all is over and some time has passed, nothing is left."""
    notices, now, sent = Notices(Level.INFO), 0.0, []
    open_ones: set[str] = set()
    for pause, code, n, what in storm:
        now += pause
        who = f"bot-{n}"
        if what == "begin":
            notices.take(trouble(who, code.name), now)
            open_ones.add(who)
        elif what == "end" and who in open_ones:
            notices.take(over(who), now)
            open_ones.remove(who)
        else:
            notices.take(Happened(code, who, "x"), now)
        sent += [now] * len(notices.due(now))
    for at in sent:
        assert sum(at <= other < at + PACE.per for other in sent) <= PACE.limit
    for who in sorted(open_ones):
        notices.take(over(who), now)
    for minute in range(40):
        notices.due(now + 60.0 * minute)
    assert not (notices._groups or notices._events or notices._where)
