"""Every row of the error table, and every rule that reads it."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core import classify as module
from supervisor.core.classify import TableError, classify, is_frozen, lookup
from supervisor.core.failure import Evidence, Failure, Kind, Override, Remedy, Scope, Source

TABLE = Path(module.__file__).with_name("errors.tsv")

with TABLE.open(encoding="utf-8", newline="") as opened:
    ROWS = list(
        csv.DictReader(
            (line for line in opened if not line.startswith("#")), delimiter="\t", quoting=csv.QUOTE_NONE
        )
    )

# Telegram's own rows: a number for a code, an id.
IDS = [row for row in ROWS if row["code"].isdigit() and row["error_id"] != "*"]


def rpc(error_id: str | None, code: int | None = None, *, method: str | None = None) -> Evidence:
    return Evidence(Source.RPC, f"[{code} {error_id}]", error_id=error_id, code=code, method=method)


def verdict(failure: Failure) -> str:
    return f"{failure.kind.value}/{failure.remedy.value}/{failure.scope.value}"


def listed(row: dict[str, str]) -> str:
    return f"{row['kind']}/{row['action']}/{row['scope']}"


def without_its_number(verdict: str) -> str:
    """What becomes of a flood wait whose id says X instead of a number."""
    return verdict.replace("flood_wait/wait", "flood_wait/raise")


# --- The table ---


def test_the_table_is_complete() -> None:
    """938 ids of the two libraries and 12 in neither's table stand there, none twice under one code."""
    assert len(IDS) == 938 + 12
    assert len({(row["code"], row["error_id"]) for row in IDS}) == len(IDS)
    assert len({row["error_id"] for row in IDS}) == 894 + 11
    assert Counter(row["code"] for row in IDS[:938]) == {
        "303": 5, "400": 745, "401": 9, "403": 68, "406": 42, "420": 10, "500": 56, "503": 3,
    }  # fmt: skip


def test_the_judgements_are_counted() -> None:
    """As many ids have each verdict as the table we started from had."""
    assert Counter(map(listed, IDS[:938])) == {
        "permanent/raise/call": 780,
        "temporary/retry/call": 64,
        "already_done/none/call": 31,
        "auth/fail/account": 11,
        "flood_wait/raise/call": 8,
        "auth/relogin/session": 8,
        "permanent/fail/account": 6,
        "flood_wait/wait/call": 6,
        "rate_limit/raise/account": 5,
        "temporary/retry/session": 5,
        "migrate/raise/call": 3,
        "migrate/none/session": 3,
        "connection/reconnect/session": 2,
        "permanent/raise/account": 2,
        "rate_limit/wait/account": 2,
        "rate_limit/raise/call": 1,
        "already_done/raise/call": 1,
    }


@pytest.mark.parametrize("with_code", [True, False])
def test_every_id_is_judged_as_its_row_says(with_code: bool) -> None:
    """Each id, with its code or without, has its row's verdict and spelling, while the account is signed in."""
    for row in IDS:
        conditions = dict(word.split("=") for word in row["when"].split())
        failure = classify(rpc(row["error_id"], int(row["code"]) if with_code else None))
        assert verdict(failure) == without_its_number(conditions.get("call", listed(row))), row
        assert failure.error_id == row["error_id"]
        assert failure.wait is None
        assert failure.limited == (row["action"] == "raise" and row["scope"] == "account")
        if with_code:
            assert failure.why.startswith(f"error table: {row['code']} {row['error_id']}")
            assert row["note"] in failure.why


def test_every_id_is_judged_as_its_row_says_while_signing_in() -> None:
    """Only the rows that say so are judged otherwise in a step of signing in."""
    for row in IDS:
        conditions = dict(word.split("=") for word in row["when"].split())
        failure = classify(rpc(row["error_id"]), signing_in=True)
        assert verdict(failure) == without_its_number(conditions.get("login", listed(row))), row


def test_the_code_does_not_matter_where_the_id_is_known() -> None:
    """Pyrogram hands out wrong codes (406 for PHONE_NUMBER_INVALID, 520): no id is judged by one."""
    for row in IDS:
        seen = {verdict(classify(rpc(row["error_id"], code))) for code in (None, 400, 406, 420, 500, 520)}
        assert len(seen) == 1, row


def test_every_id_with_a_number_is_found() -> None:
    """Whatever number stands where the table has an X, the row is found, and no row that has no X is."""
    for row in IDS:
        if not row["x"]:
            continue
        for number in ("1", "35", "86400"):
            sent = re.sub(r"(?<=_)X(?=_|$|MIN)", number, row["error_id"])
            assert sent != row["error_id"]
            failure = classify(rpc(sent, int(row["code"])))
            assert failure.error_id == row["error_id"]
            conditions = dict(word.split("=") for word in row["when"].split())
            assert verdict(failure) == conditions.get("call", listed(row))
            unit = {"seconds": 1.0, "minutes": 60.0}.get(row["x"])
            assert failure.wait == (unit and int(number) * unit)


def test_an_x_without_a_meaning_is_part_of_a_name() -> None:
    """Each X that stands alone in an id is said to stand for something; AUTH_TOKEN_INVALIDX's is not one."""
    for row in IDS:
        assert bool(row["x"]) == bool(re.search(r"(^|_)X(_|$|MIN$)", row["error_id"])), row


# --- Judged by hand, from PRODUCT, CLIENTS section 5 and Telegram's own pages ---

BY_HAND = {
    "FLOOD_WAIT_35": "flood_wait/wait/call",
    "FLOOD_PREMIUM_WAIT_5": "flood_wait/wait/call",
    "SLOWMODE_WAIT_10": "flood_wait/wait/call",
    "TAKEOUT_INIT_DELAY_86400": "flood_wait/wait/call",
    "2FA_CONFIRM_WAIT_604800": "flood_wait/raise/call",
    "STORY_SEND_FLOOD_WEEKLY_100": "flood_wait/raise/call",
    "PREMIUM_SUB_ACTIVE_UNTIL_1900000000": "permanent/raise/call",
    "PEER_FLOOD": "rate_limit/raise/account",
    "USER_RESTRICTED": "rate_limit/raise/account",
    "USER_BANNED_IN_CHANNEL": "rate_limit/raise/account",
    "FROZEN_METHOD_INVALID": "permanent/raise/account",
    "FROZEN_PARTICIPANT_MISSING": "permanent/raise/account",
    "AUTH_KEY_UNREGISTERED": "auth/relogin/session",
    "AUTH_KEY_DUPLICATED": "auth/relogin/session",
    "SESSION_REVOKED": "auth/relogin/session",
    "SESSION_EXPIRED": "auth/relogin/session",
    "SESSION_PASSWORD_NEEDED": "auth/relogin/session",
    "USER_DEACTIVATED": "auth/fail/account",
    "USER_DEACTIVATED_BAN": "auth/fail/account",
    "INPUT_USER_DEACTIVATED": "permanent/raise/call",
    "TOKEN_INVALID": "permanent/raise/call",
    "CONNECTION_API_ID_INVALID": "permanent/fail/account",
    "CONNECTION_NOT_INITED": "connection/reconnect/session",
    "CONNECTION_ID_INVALID": "permanent/raise/call",
    "BOT_NOT_CONNECTED_YET": "permanent/raise/call",
    "PEER_ID_INVALID": "permanent/raise/call",
    "CHANNEL_PRIVATE": "permanent/raise/call",
    "CHANNEL_BANNED": "permanent/raise/call",
    "RANDOM_ID_DUPLICATE": "already_done/none/call",
    "MESSAGE_NOT_MODIFIED": "already_done/none/call",
    "USER_ALREADY_PARTICIPANT": "already_done/none/call",
    "INVITE_REQUEST_SENT": "already_done/raise/call",
    "TODO_NOT_MODIFIED": "permanent/raise/call",
    "FILE_MIGRATE_4": "migrate/raise/call",
    "STATS_MIGRATE_4": "migrate/raise/call",
    "FILE_PART_7_MISSING": "temporary/retry/call",
    "FILE_REFERENCE_0_EXPIRED": "permanent/raise/call",
    "INTERDC_2_CALL_RICH_ERROR": "temporary/retry/call",
    "RPC_CALL_FAIL": "temporary/retry/call",
    "WORKER_BUSY_TOO_LONG_RETRY": "temporary/retry/call",
    "No workers running": "temporary/retry/call",
    "Timeout": "temporary/retry/call",
    "Timedout": "temporary/retry/call",
    "TIMEOUT": "temporary/retry/call",
    "ALLOW_PAYMENT_REQUIRED_50": "permanent/raise/call",
    "STORY_LIVE_ALREADY_7": "already_done/none/call",
    "EMAIL_UNCONFIRMED_6": "permanent/raise/call",
    "FLOOD_SKIP_FAILED_WAIT_3": "temporary/retry/call",
    "JOIN_GUARD_TIMEOUT": "already_done/raise/call",
    "MSG_WAIT_TIMEOUT": "temporary/retry/call",
    "PASSKEY_AUTH_RESTART": "auth/relogin/session",
}


@pytest.mark.parametrize(("error_id", "expected"), BY_HAND.items())
def test_known_by_hand(error_id: str, expected: str) -> None:
    """What everybody who runs accounts knows of these ids is what the table says."""
    assert verdict(classify(rpc(error_id))) == expected


# id -> while signing in, in any other call
BY_CONDITION = {
    "AUTH_TOKEN_ALREADY_ACCEPTED": ("auth/relogin/session", "already_done/none/call"),
    "AUTH_TOKEN_EXPIRED": ("auth/relogin/session", "permanent/raise/call"),
    "AUTH_TOKEN_INVALID": ("auth/relogin/session", "permanent/raise/call"),
    "AUTH_TOKEN_INVALID2": ("auth/relogin/session", "permanent/raise/call"),
    "AUTH_TOKEN_INVALIDX": ("auth/relogin/session", "permanent/raise/call"),
    "PHONE_CODE_EXPIRED": ("auth/relogin/session", "permanent/raise/call"),
    "PHONE_CODE_HASH_EMPTY": ("auth/relogin/session", "permanent/raise/call"),
    "PHONE_HASH_EXPIRED": ("auth/relogin/session", "permanent/raise/call"),
    "WEBAUTH_TOKEN_EXPIRED": ("auth/relogin/session", "permanent/raise/call"),
    "PASSWORD_HASH_INVALID": ("permanent/fail/account", "permanent/raise/call"),
    "PHONE_NUMBER_INVALID": ("permanent/fail/account", "permanent/raise/call"),
    "APNS_VERIFY_CHECK_abc": ("permanent/fail/account", "permanent/raise/call"),
    "INTEGRITY_CHECK_CLASSIC_a_b": ("permanent/fail/account", "permanent/raise/call"),
    "RECAPTCHA_CHECK_signup__6Lc-x1": ("permanent/fail/account", "permanent/raise/call"),
    "PHONE_CODE_EMPTY": ("permanent/raise/session", "permanent/raise/call"),
    "PHONE_CODE_INVALID": ("permanent/raise/session", "permanent/raise/call"),
    "SEND_CODE_UNAVAILABLE": ("permanent/raise/session", "permanent/raise/call"),
    "FLOOD_WAIT_1800": ("flood_wait/wait/session", "flood_wait/wait/call"),
    "PHONE_NUMBER_BANNED": ("auth/fail/account", "permanent/raise/call"),
    # Only a sign-in can mean the account by these; in a call of its own it is the caller's number, token or code.
    "ACCESS_TOKEN_INVALID": ("auth/fail/account", "auth/raise/call"),
    "ACCESS_TOKEN_EXPIRED": ("auth/fail/account", "auth/raise/call"),
    "API_ID_INVALID": ("auth/fail/account", "auth/raise/call"),
    "API_ID_PUBLISHED_FLOOD": ("auth/fail/account", "auth/raise/call"),
    "UPDATE_APP_TO_LOGIN": ("auth/fail/account", "auth/raise/call"),
    "PHONE_NUMBER_APP_SIGNUP_FORBIDDEN": ("auth/fail/account", "auth/raise/call"),
    "PHONE_NUMBER_UNOCCUPIED": ("auth/fail/account", "auth/raise/call"),
    "PHONE_PASSWORD_PROTECTED": ("auth/fail/account", "auth/raise/call"),
    "PHONE_NUMBER_FLOOD": ("rate_limit/wait/account", "rate_limit/raise/call"),
    "PHONE_PASSWORD_FLOOD": ("rate_limit/wait/account", "rate_limit/raise/call"),
    "AUTH_RESTART": ("auth/relogin/session", "auth/raise/call"),
    "AUTH_RESTART_5": ("temporary/retry/session", "temporary/retry/call"),
    "AUTH_KEY_UNSYNCHRONIZED": ("temporary/retry/session", "temporary/retry/call"),
    "SMS_CODE_CREATE_FAILED": ("temporary/retry/session", "temporary/raise/call"),
    "REG_ID_GENERATE_FAILED": ("temporary/retry/session", "temporary/raise/call"),
    "SIGN_IN_FAILED": ("temporary/retry/session", "temporary/raise/call"),
    "PHONE_MIGRATE_2": ("migrate/none/session", "migrate/raise/call"),
    "NETWORK_MIGRATE_2": ("migrate/none/session", "migrate/raise/call"),
    "USER_MIGRATE_2": ("migrate/none/session", "auth/relogin/session"),
}


@pytest.mark.parametrize(("error_id", "expected"), BY_CONDITION.items())
def test_signing_in_changes_what_an_id_means(error_id: str, expected: tuple[str, str]) -> None:
    """A step of signing in gives these ids a wider reach than a call of the same account's."""
    signing_in = classify(rpc(error_id), signing_in=True)
    calling = classify(rpc(error_id))
    assert (verdict(signing_in), verdict(calling)) == expected
    assert not signing_in.limited
    assert not calling.limited


def test_the_why_names_the_condition() -> None:
    """Where a row has two verdicts, `why` says which one held."""
    assert "PASSWORD_HASH_INVALID (login):" in classify(rpc("PASSWORD_HASH_INVALID"), signing_in=True).why
    assert "PHONE_NUMBER_BANNED (call):" in classify(rpc("PHONE_NUMBER_BANNED")).why


def test_no_other_row_has_conditions() -> None:
    """The hand-written list above is all of them, but for the silent bots and what is counted."""
    conditional = {row["error_id"] for row in IDS if row["when"]}
    spelled = {
        re.sub(r"_(CHECK|CLASSIC|WAIT|MIGRATE|RESTART)_(?!CLASSIC)[^_].*", r"_\1_X", known)
        for known in BY_CONDITION
    }
    counted = {"AUTH_KEY_PERM_EMPTY", "CONNECTION_LAYER_INVALID"}
    assert conditional == spelled | counted | {"Timeout", "Timedout", "TIMEOUT"}


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (rpc("AUTH_KEY_PERM_EMPTY"), ["connection/reconnect/session", *["auth/relogin/session"] * 3]),
        (
            rpc("CONNECTION_LAYER_INVALID"),
            ["connection/reconnect/session"] * 2 + ["permanent/fail/account"] * 2,
        ),
        (
            Evidence(Source.TRANSPORT, "", code=-404),
            ["connection/reconnect/session"] * 2 + ["auth/relogin/session"] * 2,
        ),
        (rpc("SESSION_REVOKED"), ["auth/relogin/session"] * 4),
    ],
)
def test_how_often_in_a_row_changes_what_it_means(evidence: Evidence, expected: list[str]) -> None:
    """One frontend may be mistaken: a key is not given up, nor a layer called too old, for a single answer."""
    assert [verdict(classify(evidence, in_a_row=n)) for n in (1, 2, 3, 4)] == expected


def test_what_nobody_counts_is_what_the_row_says() -> None:
    """Without a count the row's own verdict stands, as `explain` shows it."""
    assert verdict(classify(rpc("AUTH_KEY_PERM_EMPTY"))) == "auth/relogin/session"
    assert verdict(classify(rpc("CONNECTION_LAYER_INVALID"))) == "connection/reconnect/session"


@pytest.mark.parametrize("method", ["InitConnection", "updates.GetState"])
@pytest.mark.parametrize("error_id", ["API_ID_INVALID", "API_ID_PUBLISHED_FLOOD", "UPDATE_APP_TO_LOGIN"])
def test_a_refused_application_ends_the_account_where_the_link_says_so(error_id: str, method: str) -> None:
    """What a link is greeted and proved with is no caller's: what that is refused with is the configuration's fault."""
    assert verdict(classify(rpc(error_id, method=method))) == "auth/fail/account"


@pytest.mark.parametrize("error_id", ["Timeout", "Timedout", "TIMEOUT"])
@pytest.mark.parametrize("method", ["messages.GetBotCallbackAnswer", "messages.getInlineBotResults"])
def test_another_bots_silence_is_the_callers(error_id: str, method: str) -> None:
    """A time-out of a method that asks another bot is raised: a repeat would press the button again."""
    assert verdict(classify(rpc(error_id, 503, method=method))) == "temporary/raise/call"
    assert verdict(classify(rpc(error_id, 503, method="messages.SendMessage"))) == "temporary/retry/call"


# --- Numbers ---


@pytest.mark.parametrize(
    ("error_id", "spelled", "wait"),
    [
        ("FLOOD_WAIT_0", "FLOOD_WAIT_X", 1.0),
        ("FLOOD_WAIT_1", "FLOOD_WAIT_X", 1.0),
        ("FLOOD_WAIT_35", "FLOOD_WAIT_X", 35.0),
        ("FLOOD_WAIT_1000000000", "FLOOD_WAIT_X", 1e9),
        ("FLOOD_PREMIUM_WAIT_7", "FLOOD_PREMIUM_WAIT_X", 7.0),
        ("FLOOD_TEST_PHONE_WAIT_3", "FLOOD_TEST_PHONE_WAIT_X", 3.0),
        ("SLOWMODE_WAIT_10", "SLOWMODE_WAIT_X", 10.0),
        ("TAKEOUT_INIT_DELAY_86400", "TAKEOUT_INIT_DELAY_X", 86400.0),
        ("PREVIOUS_CHAT_IMPORT_ACTIVE_WAIT_5MIN", "PREVIOUS_CHAT_IMPORT_ACTIVE_WAIT_XMIN", 300.0),
        ("2FA_CONFIRM_WAIT_60", "2FA_CONFIRM_WAIT_X", 60.0),
        ("SESSION_TOO_FRESH_3600", "SESSION_TOO_FRESH_X", 3600.0),
        ("PASSWORD_TOO_FRESH_3600", "PASSWORD_TOO_FRESH_X", 3600.0),
        ("STORY_SEND_FLOOD_60", "STORY_SEND_FLOOD_X", 60.0),
        ("STORY_SEND_FLOOD_1900000000", "STORY_SEND_FLOOD_X", None),
        ("STORY_SEND_FLOOD_MONTHLY_1900000000", "STORY_SEND_FLOOD_MONTHLY_X", None),
        ("PREMIUM_SUB_ACTIVE_UNTIL_1900000000", "PREMIUM_SUB_ACTIVE_UNTIL_X", None),
        ("FLOOD_SKIP_FAILED_WAIT_9", "FLOOD_SKIP_FAILED_WAIT_X", None),
        ("ALLOW_PAYMENT_REQUIRED_50", "ALLOW_PAYMENT_REQUIRED_X", None),
        ("FILE_PART_0_MISSING", "FILE_PART_0_MISSING", None),
        ("RECAPTCHA_CHECK_35", "RECAPTCHA_CHECK_X", None),
    ],
)
def test_the_number_is_the_wait_where_it_is_seconds(error_id: str, spelled: str, wait: float | None) -> None:
    """Seconds and minutes become `wait`, at least 1 s; dates, prices and part numbers don't."""
    failure = classify(rpc(error_id))
    assert (failure.error_id, failure.wait) == (spelled, wait)


@pytest.mark.parametrize("error_id", ["FLOOD_WAIT_1000000001", "FLOOD_WAIT_" + "9" * 5000])
def test_a_wait_of_decades_is_raised(error_id: str) -> None:
    """A number above 10^9 is a date or nonsense, of any length: the caller gets the error."""
    failure = classify(rpc(error_id, 420))
    assert verdict(failure) == "flood_wait/raise/call"
    assert failure.wait is None
    assert failure.why.endswith("(no usable number of seconds)")


def test_an_id_asked_for_with_its_x_is_judged_as_its_row_stands() -> None:
    """`explain FLOOD_WAIT_X` shows the row, in every row."""
    for row in IDS:
        conditions = dict(word.split("=") for word in row["when"].split())
        failure = lookup(row["error_id"])
        assert verdict(failure) == conditions.get("call", listed(row)), row
        assert failure.wait is None


def test_a_flood_wait_that_lost_its_number_is_raised() -> None:
    """Evidence that says X instead of a number is never repeated at once."""
    failure = classify(rpc("FLOOD_WAIT_X", 420))
    assert (verdict(failure), failure.wait) == ("flood_wait/raise/call", None)


def test_a_number_is_not_put_where_x_is_part_of_the_name() -> None:
    """AUTH_TOKEN_INVALID7 is not AUTH_TOKEN_INVALIDX: it is unknown, and judged by its code."""
    failure = classify(rpc("AUTH_TOKEN_INVALID7", 401))
    assert (failure.error_id, verdict(failure)) == ("AUTH_TOKEN_INVALID7", "auth/relogin/session")


# --- Ids in no table ---


@pytest.mark.parametrize(
    ("code", "expected"),
    {
        303: "migrate/raise/call",
        400: "permanent/raise/call",
        401: "auth/relogin/session",
        403: "permanent/raise/call",
        404: "permanent/raise/call",
        406: "permanent/raise/call",
        420: "flood_wait/raise/call",
        429: "rate_limit/wait/session",
        500: "temporary/retry/call",
        502: "temporary/retry/call",
        503: "temporary/retry/call",
        504: "temporary/retry/call",
        -503: "temporary/retry/call",
        520: "unknown/retry/call",
        999: "unknown/retry/call",
        None: "unknown/retry/call",
    }.items(),
)
@pytest.mark.parametrize("error_id", ["SOMETHING_NEW", None])
def test_an_unknown_id_is_judged_by_its_code(code: int | None, expected: str, error_id: str | None) -> None:
    """An id that nobody has seen yet, or none, has its code's verdict; an unknown code is `unknown`."""
    failure = classify(rpc(error_id, code))
    assert verdict(failure) == expected
    assert failure.error_id == error_id
    assert failure.wait is None


@pytest.mark.parametrize(
    ("error_id", "spelled", "remedy", "wait"),
    [
        ("NEW_WAIT_9", "NEW_WAIT_X", Remedy.WAIT, 9.0),
        ("NEW2_WAIT_9_LEFT", "NEW2_WAIT_X_LEFT", Remedy.WAIT, 9.0),
        ("NEW_WAIT_1000000000", "NEW_WAIT_X", Remedy.WAIT, 1e9),
        ("NEW_UNTIL_1900000000", "NEW_UNTIL_X", Remedy.RAISE, None),
        ("NEW_WAIT_0", "NEW_WAIT_X", Remedy.RAISE, None),
        ("NEW_WAIT", "NEW_WAIT", Remedy.RAISE, None),
    ],
)
def test_an_unknown_flood_wait_waits_its_last_number(
    error_id: str, spelled: str, remedy: Remedy, wait: float | None
) -> None:
    """Under 420 the last number is seconds; without one, or with a date, the caller gets the error."""
    failure = classify(rpc(error_id, 420))
    assert failure.kind is Kind.FLOOD_WAIT
    assert (failure.error_id, failure.remedy, failure.wait) == (spelled, remedy, wait)


# --- What no answer of Telegram says ---


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (Evidence(Source.TRANSPORT, "", code=-404), "auth/relogin/session"),
        (Evidence(Source.TRANSPORT, "", code=-429), "rate_limit/wait/session"),
        (Evidence(Source.TRANSPORT, "", code=-444), "permanent/fail/account"),
        (Evidence(Source.TRANSPORT, "", code=-503), "connection/reconnect/session"),
        (Evidence(Source.TRANSPORT, ""), "connection/reconnect/session"),
        (Evidence(Source.SOCKET, "refused"), "connection/reconnect/session"),
        (Evidence(Source.SOCKET, "reset", path="de1"), "connection/reconnect/session"),
        (Evidence(Source.SILENCE, "10 s"), "connection/reconnect/session"),
        (Evidence(Source.SILENCE, "10 s", path="de1"), "proxy/rotate_proxy/path"),
        (Evidence(Source.PROXY, "refused", path="de1"), "proxy/rotate_proxy/path"),
        (Evidence(Source.PROXY, "", "PROXY_AUTH_FAILED", path="de1"), "proxy/rotate_proxy/path"),
        (Evidence(Source.PROTOCOL, "bad_msg", code=17), "connection/reconnect/session"),
        (Evidence(Source.PROTOCOL, "", "SERVER_KEY_UNKNOWN"), "permanent/fail/account"),
        (Evidence(Source.STORAGE, "locked", "SQLITE_BUSY"), "temporary/retry/session"),
        (Evidence(Source.STORAGE, "full"), "temporary/retry/session"),
        (Evidence(Source.STORAGE, "", "SQLITE_CORRUPT"), "permanent/fail/account"),
        (Evidence(Source.STORAGE, "", "SQLITE_CORRUPT_INDEX"), "permanent/fail/account"),
        (Evidence(Source.STORAGE, "", "SQLITE_NOTADB"), "permanent/fail/account"),
        (Evidence(Source.STORAGE, "", "SESSION_INVALID"), "permanent/fail/account"),
        (Evidence(Source.CODE, "KeyError: 7"), "unknown/retry/call"),
        (Evidence(Source.CODE, "", "PEER_FLOOD"), "unknown/retry/call"),
        (Evidence(Source.RPC, "", "SQLITE_CORRUPT"), "unknown/retry/call"),
    ],
)
def test_each_source_has_its_rule(evidence: Evidence, expected: str) -> None:
    """Where it was seen decides what Telegram did not say; ids of one source mean nothing in another."""
    failure = classify(evidence)
    assert verdict(failure) == expected
    assert failure.evidence is evidence
    assert failure.wait is None
    assert failure.why.startswith("error table: ")


def test_every_source_is_judged() -> None:
    """No source is without a row, whatever the evidence carries."""
    for source in Source:
        assert classify(Evidence(source, "?")).why.startswith(f"error table: {source.value} *")


def test_a_row_of_ours_keeps_its_name() -> None:
    """`error_id` is the row's, or what was sent where no row names it; a 4-byte code has none."""
    assert classify(Evidence(Source.STORAGE, "", "SQLITE_CORRUPT_VTAB")).error_id == "SQLITE_CORRUPT"
    assert classify(Evidence(Source.STORAGE, "", "SQLITE_BUSY")).error_id == "SQLITE_BUSY"
    assert classify(Evidence(Source.TRANSPORT, "", code=-404)).error_id is None


# --- The account's flag ---


def test_limited_is_a_raise_that_reaches_the_account() -> None:
    """Exactly these ids flag the account; the frozen ones are told by name."""
    limited = {row["error_id"] for row in IDS if classify(rpc(row["error_id"])).limited}
    assert limited == {
        "PEER_FLOOD", "USER_BANNED_IN_CHANNEL", "USER_RESTRICTED", "FROZEN_METHOD_INVALID",
        "FROZEN_PARTICIPANT_MISSING",
    }  # fmt: skip
    assert {error_id for error_id in limited if is_frozen(error_id)} == {
        "FROZEN_METHOD_INVALID",
        "FROZEN_PARTICIPANT_MISSING",
    }
    assert not is_frozen(None)


# --- Overrides ---

RETRY = Override(Kind.TEMPORARY, Remedy.RETRY, Scope.CALL)
WAIT = Override(Kind.FLOOD_WAIT, Remedy.WAIT, Scope.CALL)
BACK_OFF = Override(Kind.RATE_LIMIT, Remedy.WAIT, Scope.CALL)
FLAG = Override(Kind.RATE_LIMIT, Remedy.RAISE, Scope.ACCOUNT)


@pytest.mark.parametrize(
    ("evidence", "key"),
    [
        (rpc("PEER_ID_INVALID", 400), "PEER_ID_INVALID"),
        (rpc("FLOOD_WAIT_35", 420), "FLOOD_WAIT_X"),
        (rpc("FLOOD_WAIT_35", 420), "FLOOD_WAIT_35"),
        (rpc("SOMETHING_NEW", 400), "SOMETHING_NEW"),
        (rpc("NEW_THING_7", 400), "NEW_THING_X"),
        (rpc("SOMETHING_NEW", 500), "500"),
        (Evidence(Source.TRANSPORT, "", code=-404), "-404"),
        (Evidence(Source.STORAGE, "", "SQLITE_CORRUPT_INDEX"), "SQLITE_CORRUPT"),
    ],
)
def test_an_override_comes_before_the_table(evidence: Evidence, key: str) -> None:
    """`[classify]` is keyed by the id as it was sent, as the table spells it, or by a code."""
    failure = classify(evidence, overrides={"OTHER": FLAG, key: RETRY}, signing_in=True)
    assert verdict(failure) == "temporary/retry/call"
    assert failure.why == f"[classify] {key}"


def test_a_code_overrides_only_what_no_row_names() -> None:
    """`500 = …` changes the default of that code, not the judged ids under it."""
    overrides = {"500": FLAG}
    assert verdict(classify(rpc("RPC_CALL_FAIL", 500), overrides=overrides)) == "temporary/retry/call"
    assert classify(rpc("SOMETHING_NEW", 500), overrides=overrides).limited


def test_an_override_to_wait_takes_the_number() -> None:
    """A row made a flood wait waits its number; without one it is raised, never repeated at once."""
    assert classify(rpc("STORY_SEND_FLOOD_60"), overrides={"STORY_SEND_FLOOD_X": WAIT}).wait == 60.0
    assert classify(rpc("NEW_THING_7", 400), overrides={"NEW_THING_X": WAIT}).wait == 7.0
    without = classify(rpc("PEER_FLOOD", 400), overrides={"PEER_FLOOD": WAIT})
    assert (without.remedy, without.wait) == (Remedy.RAISE, None)


def test_an_override_does_not_hide_a_demanded_wait() -> None:
    """Called a rate limit, FLOOD_WAIT_35 still says 35 s; an id without a number waits the default."""
    assert classify(rpc("FLOOD_WAIT_35"), overrides={"FLOOD_WAIT_X": BACK_OFF}).wait == 35.0
    without = classify(rpc("NEW_WAIT", 420), overrides={"NEW_WAIT": BACK_OFF})
    assert (without.remedy, without.wait) == (Remedy.WAIT, None)


# --- explain ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FLOOD_WAIT_35", "flood_wait/wait/call"),
        ("[420 FLOOD_WAIT_35]", "flood_wait/wait/call"),
        ("420 NEW_WAIT_5", "flood_wait/wait/call"),
        ("420", "flood_wait/raise/call"),
        ("AUTH_KEY_DUPLICATED", "auth/relogin/session"),
        ("No workers running", "temporary/retry/call"),
        ("-404", "auth/relogin/session"),
        ("-999", "connection/reconnect/session"),
        ("-503", "temporary/retry/call"),
        ("-503 Timeout", "temporary/retry/call"),
        ("500", "temporary/retry/call"),
        ("4002", "unknown/retry/call"),
        ("SQLITE_CORRUPT", "permanent/fail/account"),
        ("PROXY_AUTH_FAILED", "proxy/rotate_proxy/path"),
        ("*", "unknown/retry/call"),
        ("", "unknown/retry/call"),
        ("9" * 5000, "unknown/retry/call"),
    ],
)
def test_an_error_is_looked_up_by_its_name(text: str, expected: str) -> None:
    """`explain` judges an id, a code, or both as a client library prints them."""
    assert verdict(lookup(text)) == expected


def test_a_look_up_knows_overrides_and_signing_in() -> None:
    """`explain` says what would be done here, not what the table says in general."""
    assert lookup("PEER_FLOOD", overrides={"PEER_FLOOD": RETRY}).remedy is Remedy.RETRY
    assert lookup("PASSWORD_HASH_INVALID", signing_in=True).remedy is Remedy.FAIL


# --- Whatever comes ---


@given(
    st.sampled_from(Source),
    st.none() | st.text() | st.from_regex(r"[A-Z_]{0,9}[0-9X]{0,12}(_[A-Z0-9]{0,5})?", fullmatch=True),
    st.none() | st.integers(-600, 600),
    st.booleans(),
)
def test_everything_is_judged(
    source: Source, error_id: str | None, code: int | None, signing_in: bool
) -> None:
    """No evidence is beyond judgement, and no wait is without bounds."""
    failure = classify(Evidence(source, "?", error_id=error_id, code=code), signing_in=signing_in)
    assert failure.why
    assert failure.wait is None or 1 <= failure.wait <= 60e9
    assert failure.limited == (failure.remedy is Remedy.RAISE and failure.scope is Scope.ACCOUNT)


# --- A bad table is refused ---

HEAD = "code\terror_id\tkind\taction\tscope\tx\twhen\tnote\n"
SOURCES = "".join(f"{source.value}\t*\tunknown\tretry\tcall\t\t\t\n" for source in Source)
GOOD = "400\tA\tpermanent\traise\tcall\t\t\t\n"


def test_a_good_table_is_read() -> None:
    """A row for an id and one for each source are enough; comments and empty lines are skipped."""
    assert set(module._parse(f"# comment\n\n{HEAD}{GOOD}{SOURCES}").ids) == {"A"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (GOOD.replace("permanent", "fatal") + SOURCES, "errors.tsv:2: 'fatal' is not a valid Kind"),
        (GOOD.replace("raise", "panic") + SOURCES, "errors.tsv:2: 'panic' is not a valid Remedy"),
        (GOOD.replace("call", "galaxy") + SOURCES, "errors.tsv:2: 'galaxy' is not a valid Scope"),
        (GOOD.replace("400", "radio") + SOURCES, "errors.tsv:2: 'radio' is not a valid Source"),
        (GOOD.replace("call\t", "call\tmiles") + SOURCES, "errors.tsv:2: X cannot stand for 'miles'"),
        (GOOD.replace("\t\t\t", "\t\tlogin=auth\t") + SOURCES, "errors.tsv:2: not enough values"),
        (GOOD.rstrip("\n\t") + "\n" + SOURCES, "errors.tsv:2: not enough values"),
        (GOOD + GOOD + SOURCES, "errors.tsv:3: 400 A stands there twice"),
        (
            GOOD + GOOD.replace("400", "406").replace("raise", "retry") + SOURCES,
            "errors.tsv:3: A is judged otherwise under another code",
        ),
        (GOOD + "rpc\t*\tunknown\tretry\tcall\t\t\t\n", "errors.tsv: no row * for transport, protocol"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(rows: str, message: str) -> None:
    """A slip in the data file stops everything at once, and says where it is."""
    with pytest.raises(TableError, match=re.escape(message)):
        module._parse(HEAD + rows)


def test_rows_of_one_id_agree() -> None:
    """43 ids come under several codes, and one more that is in no library's table; each has one verdict."""
    by_id = defaultdict(set)
    for row in IDS:
        by_id[row["error_id"]].add((listed(row), row["x"], row["when"]))
    assert Counter(row["error_id"] for row in IDS).most_common(44)[-1][1] == 2
    assert all(len(verdicts) == 1 for verdicts in by_id.values())
