"""Every failure has a number, and every number its words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.classify import classify, known_ids, lookup
from supervisor.core.codes import _IDS, CODES, GROUPS, NAMES, Category, Code, code_of, code_of_row
from supervisor.core.failure import (
    Action,
    Evidence,
    Failure,
    Kind,
    Level,
    Override,
    Remedy,
    Result,
    Row,
    Scope,
    Source,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"
# Ids of ours that no row judges: they are made where the account stands, not seen.
OURS = {"SIGN_IN_BUDGET", "LOGIN_REQUIRED", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL"}


def named(source: Source, error_id: str | None = None, **seen: object) -> str:
    evidence = replace(Evidence(source, "it failed", error_id), **seen)  # type: ignore[arg-type]
    return code_of(classify(evidence)).name


def test_numbers_and_names_are_unique_and_grouped() -> None:
    """No number stands twice, and each begins with the digit of its group."""
    assert len(CODES) == len(NAMES)
    assert {number // 1000 for number in CODES} == set(GROUPS)
    assert list(CODES) == sorted(CODES)


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.name)
def test_each_code_has_its_words(code: Code) -> None:
    """Each says in whole sentences what happened and what to do; a fatal one is told as fatally."""
    assert code.says.endswith(".")
    assert code.advice
    assert (code.category is Category.FATAL) <= (code.level is Level.FATAL)


@pytest.mark.parametrize(
    ("source", "seen", "name"),
    [
        (Source.RPC, {"error_id": "FLOOD_WAIT_35"}, "flood_wait"),
        (Source.RPC, {"error_id": "FLOOD_WAIT_35", "step": "sign-in"}, "sign_in_flood"),
        (Source.RPC, {"error_id": "SLOWMODE_WAIT_9"}, "slow_mode"),
        (Source.RPC, {"error_id": "AUTH_KEY_UNREGISTERED"}, "session_lost"),
        (Source.RPC, {"error_id": "AUTH_KEY_DUPLICATED"}, "key_duplicated"),
        (Source.RPC, {"error_id": "ACCESS_TOKEN_EXPIRED"}, "token_refused"),
        (Source.RPC, {"error_id": "USER_DEACTIVATED_BAN"}, "account_banned"),
        (Source.RPC, {"error_id": "PEER_FLOOD"}, "limited"),
        (Source.RPC, {"error_id": "FROZEN_METHOD_INVALID"}, "frozen"),
        (Source.RPC, {"error_id": "PEER_ID_INVALID"}, "request_refused"),
        (Source.RPC, {"error_id": "CONNECTION_DEVICE_MODEL_EMPTY"}, "account_refused"),
        (Source.RPC, {"error_id": "MSG_WAIT_FAILED"}, "server_error"),
        (Source.RPC, {"error_id": "MESSAGE_NOT_MODIFIED"}, "already_done"),
        (Source.RPC, {"error_id": "FILE_MIGRATE_4"}, "migrate"),
        (Source.RPC, {"error_id": "NEVER_SEEN", "code": 999}, "unknown_answer"),
        (Source.TRANSPORT, {"code": -404}, "key_unknown"),
        (Source.TRANSPORT, {"code": -429}, "transport_flood"),
        (Source.TRANSPORT, {"code": -444}, "wrong_datacenter"),
        (Source.TRANSPORT, {"code": -1}, "connection_lost"),
        (Source.PROTOCOL, {}, "protocol"),
        (Source.PROTOCOL, {"error_id": "SERVER_KEY_UNKNOWN"}, "server_key_unknown"),
        (Source.SOCKET, {"step": "dial"}, "connection_failed"),
        (Source.SOCKET, {}, "connection_lost"),
        (Source.PROXY, {}, "proxy_failed"),
        (Source.PROXY, {"error_id": "PROXY_AUTH_FAILED"}, "proxy_refused_us"),
        (Source.SILENCE, {}, "link_silent"),
        (Source.SILENCE, {"path": "de1"}, "proxy_failed"),
        (Source.STORAGE, {"error_id": "SQLITE_FULL"}, "storage_full"),
        (Source.STORAGE, {}, "storage_failed"),
        (Source.CODE, {"step": "main"}, "code_failed"),
        (Source.CODE, {}, "code_failed"),
        (Source.CODE, {"step": "callback mine.rotate"}, "callback_failed"),
        (Source.CODE, {"step": "driver"}, "internal"),
        (Source.CODE, {"error_id": "LOOP_STALLED"}, "loop_stalled"),
        (Source.CODE, {"error_id": "HANDLER_STUCK"}, "handler_stuck"),
        (Source.PROTOCOL, {"error_id": "UPDATES_STOPPED"}, "updates_stopped"),
        (Source.PROTOCOL, {"error_id": "UNREADABLE"}, "unreadable"),
    ],
)
def test_a_failure_finds_its_number(source: Source, seen: dict[str, object], name: str) -> None:
    """What was seen decides the number."""
    assert named(source, **seen) == name  # type: ignore[arg-type]


def test_what_came_of_it_may_say_more() -> None:
    """An account that was suspended, or needs a person, is numbered as that."""
    failure = lookup("AUTH_KEY_UNREGISTERED")
    assert code_of(failure, Result.NEEDS_LOGIN).name == "login_needed"
    assert code_of(failure, Result.SUSPENDED).name == "suspended"
    assert code_of(failure, Result.RETRYING).name == "session_lost"
    budget = Evidence(Source.RPC, "the sign-ins are used up", "SIGN_IN_BUDGET")
    refused = Failure(Kind.AUTH, Scope.ACCOUNT, Remedy.WAIT, budget, "SIGN_IN_BUDGET", 60.0)
    assert code_of(refused, Result.SUSPENDED).name == "sign_in_budget"


def test_a_row_that_was_read_finds_its_number_too() -> None:
    """As far as what is kept of it tells; one that is new has it."""
    row = Row(0.0, "bot", "direct", Scope.ACCOUNT, Kind.AUTH, Action.FAIL, Result.FAILED, "x")
    for changes, name in (
        ({"code": 1012}, "token_refused"),
        ({"error_id": "ACCESS_TOKEN_EXPIRED"}, "token_refused"),
        ({"outcome": Result.NEEDS_LOGIN, "error_id": "SESSION_REVOKED"}, "login_needed"),
        ({"outcome": Result.SUSPENDED, "kind": Kind.CONNECTION}, "suspended"),
        ({"outcome": Result.SUSPENDED, "error_id": "SIGN_IN_BUDGET"}, "sign_in_budget"),
        ({}, "account_refused"),
        ({"outcome": Result.RETRYING}, "session_lost"),
        ({"scope": Scope.PATH, "kind": Kind.PROXY}, "proxy_failed"),
    ):
        assert code_of_row(replace(row, **changes)).name == name


def test_every_known_error_has_a_number() -> None:
    """Whatever the error table holds is numbered, and so is what the operator has judged otherwise."""
    for error_id in known_ids():
        assert code_of(lookup(error_id)).number in CODES
    for judged in Kind:
        failure = lookup("SOME_ID", overrides={"SOME_ID": Override(judged, Remedy.RAISE, Scope.CALL)})
        assert code_of(failure).number in CODES


def test_ids_that_are_singled_out_exist() -> None:
    """No id is misspelt: each is in the error table, or one of ours."""
    assert set(_IDS) <= known_ids() | OURS


def test_the_document_lists_every_number() -> None:
    """docs/errors.md has one row for each code, word for word, and none besides."""
    text = DOCUMENT.read_text()
    rows = re.findall(r"^\| (\d{4}) \| `(\w+)` \| (\w+) \| (\w+) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert [(int(number), *rest) for number, *rest in rows] == [
        (
            code.number,
            code.name,
            code.category.value,
            code.level.value,
            code.says,
            code.advice.replace("|", "\\|"),
        )
        for code in CODES.values()
    ]
    for digit, group in GROUPS.items():
        assert f"## {digit}xxx: {group}" in text
