"""What Telegram says in the course of a sign-in, as a person has to know it: notes, refusals, where a code was sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from supervisor.core.failure import Failure, Kind, Remedy
from supervisor.errors import LoginRefused
from supervisor.telegram.login import (
    PAYMENT_REQUIRED,
    SEND_CODE,
    SET_UP_EMAIL_REQUIRED,
    SIGN_UP_REQUIRED,
    CodeSent,
)

# error id -> the note beside what comes next: what the person can mend.
_NOTES: Final[Mapping[str, str]] = {
    "PHONE_CODE_INVALID": "wrong_code",
    "PHONE_CODE_EMPTY": "wrong_code",
    "PHONE_CODE_EXPIRED": "code_expired",
    "PHONE_CODE_HASH_EMPTY": "code_expired",
    "PHONE_HASH_EXPIRED": "code_expired",
    "PASSWORD_HASH_INVALID": "wrong_password",
    "SEND_CODE_UNAVAILABLE": "no_other_way",
}

# error id -> the refusal's code and what to do. What is in no row is told as Telegram spelled it.
_REFUSALS: Final[Mapping[str, tuple[str, str]]] = {
    "PHONE_NUMBER_BANNED": ("banned", "Telegram has banned this number; only Telegram can lift that"),
    "USER_DEACTIVATED_BAN": ("banned", "Telegram has banned this account; only Telegram can lift that"),
    "USER_DEACTIVATED": ("deleted", "this account was deleted"),
    "PHONE_NUMBER_UNOCCUPIED": ("sign_up", "no Telegram account has this number; sign up in one of Telegram's apps"),
    SIGN_UP_REQUIRED: ("sign_up", "no Telegram account has this number; sign up in one of Telegram's apps"),
    "PHONE_NUMBER_APP_SIGNUP_FORBIDDEN": (
        "sign_up",
        "no Telegram account has this number; sign up in one of Telegram's apps",
    ),
    SET_UP_EMAIL_REQUIRED: (
        "set_up_email",
        "Telegram wants this account to have a sign-in e-mail address; set it up in one of Telegram's apps",
    ),
    PAYMENT_REQUIRED: ("payment", "Telegram wants to be paid for this code; sign in with one of its own apps first"),
    "PHONE_NUMBER_FLOOD": ("flood", "too many sign-ins of this number; Telegram names no time, it is about a day"),
    "PHONE_PASSWORD_FLOOD": ("flood", "too many wrong passwords; Telegram names no time, it is about a day"),
    "PHONE_NUMBER_INVALID": ("configuration", "Telegram takes the configured phone for no number"),
    "API_ID_INVALID": ("configuration", "Telegram does not know api_id and api_hash together; see my.telegram.org"),
    "API_ID_PUBLISHED_FLOOD": ("configuration", "this api_id is public and may not be used; get one at my.telegram.org"),
    "UPDATE_APP_TO_LOGIN": ("configuration", "Telegram wants a newer client library for signing in"),
    "PHONE_PASSWORD_PROTECTED": ("configuration", "Telegram wants a newer client library for signing in"),
}  # fmt: skip


def note(failure: Failure) -> tuple[str | None, float | None]:
    """What to tell the person in the middle of a sign-in, and the seconds to wait.

    None where there is nothing that the person, or time, can mend: the sign-in is over.
    """
    known = _NOTES.get(failure.error_id or "")
    if known is not None:
        return known, None
    if failure.wait is not None and failure.remedy is Remedy.WAIT:
        return "flood", failure.wait
    if failure.error_id in _REFUSALS:  # such as PHONE_PASSWORD_FLOOD: each further try makes it longer
        return None, None
    passing = failure.kind in (Kind.CONNECTION, Kind.PROXY, Kind.TEMPORARY, Kind.RATE_LIMIT)
    return ("try_again" if passing else None), None


def refusal(name: str, failure: Failure) -> LoginRefused:
    """What ends a sign-in.

    Args:
        name: the account.
        failure: what happened.
    """
    evidence = failure.evidence
    if failure.wait is not None and failure.remedy is Remedy.WAIT:
        return flooded(name, evidence.method or SEND_CODE, failure.wait)
    known = _REFUSALS.get(failure.error_id or "")
    if known is not None:
        code, words = known
        return LoginRefused(code, f"{name}: {words} ({failure.error_id})", retryable=code == "flood")
    passing = failure.kind not in (Kind.PERMANENT, Kind.AUTH) or failure.error_id == "AUTH_RESTART"
    return LoginRefused("failed", f"{name}: {evidence.message}", retryable=passing)


def flooded(name: str, method: str, wait: float) -> LoginRefused:
    """A wait that Telegram has demanded runs."""
    return LoginRefused("flood", f"{name}: Telegram wants a wait before the next {method}", wait=wait)


def sent_to(code: CodeSent) -> str:
    """Where a code was sent, in words."""
    words = _WAYS.get(code.way, f"wherever Telegram means by {code.way}")
    return f"{words} ({code.detail})" if code.detail else words


_WAYS: Final[Mapping[str, str]] = {
    "app": "the Telegram app, where this account is signed in already",
    "sms": "the phone, by SMS",
    "sms_word": "the phone, as a word in an SMS that begins as given",
    "sms_phrase": "the phone, as a phrase in an SMS that begins as given",
    "firebase_sms": "the phone, by SMS",
    "call": "the phone, in a call that speaks it",
    "flash_call": "the phone: the number of a call that rings once",
    "missed_call": "the phone: the last digits of the number that a missed call comes from",
    "email": "the sign-in e-mail address",
    "fragment_sms": "the number's owner at fragment.com",
}
