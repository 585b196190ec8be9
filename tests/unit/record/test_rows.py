from __future__ import annotations

import json
from dataclasses import replace

from supervisor.core.failure import Action, Kind, Result, Row, Scope, State
from supervisor.core.standing import Standing
from supervisor.ports import AccountSnapshot, FloodRow, IncidentRow, Limited
from supervisor.record import rows

FULL = Row(
    at=1769868202.125,
    account="support-bot",
    path="de1",
    scope=Scope.CALL,
    kind=Kind.FLOOD_WAIT,
    action=Action.WAIT,
    outcome=Result.RETRYING,
    message="A wait of 35 seconds is required",
    incident="i-1",
    error_id="FLOOD_WAIT_X",
    error_code=420,
    method="messages.SendMessage",
    attempt=1,
    delay=35.4,
    duration=None,
    cause=("FloodWait: 420", "socket: …"),
    traceback="Traceback …",
    context=(("job", "7"),),
    count=3,
)


def test_json_has_the_contracts_keys_in_the_contracts_order() -> None:
    """`log --json` prints the keys of PRODUCT.md, in its order, and nothing else."""
    assert list(rows.row_json(replace(FULL, count=1), 7).items()) == [
        ("id", 7),
        ("incident", "i-1"),
        ("at", "2026-01-31T14:03:22.125Z"),
        ("account", "support-bot"),
        ("path", "de1"),
        ("scope", "call"),
        ("kind", "flood_wait"),
        ("error_id", "FLOOD_WAIT_X"),
        ("error_code", 420),
        ("message", "A wait of 35 seconds is required"),
        ("method", "messages.SendMessage"),
        ("action", "wait"),
        ("attempt", 1),
        ("delay_s", 35.4),
        ("outcome", "retrying"),
        ("duration_s", None),
        ("cause", ["FloodWait: 420", "socket: …"]),
    ]


def test_json_tells_seconds_to_the_millisecond() -> None:
    """Jitter and clocks give seventeen digits; who reads the log needs three."""
    told = rows.row_json(replace(FULL, delay=35.123456789, duration=0.1 + 0.2), 7)
    assert (told["delay_s"], told["duration_s"]) == (35.123, 0.3)


def test_json_tells_a_count_only_of_merged_rows() -> None:
    """`count` is the last key of a merged row and absent from all others."""
    assert list(rows.row_json(FULL, 7).items())[-1] == ("count", 3)


def test_a_row_survives_its_columns() -> None:
    """What is read back from the table equals what was written, field by field."""
    stored = dict(zip(rows.FAILURE_COLUMNS, rows.failure_columns(FULL, 1769868299.0), strict=True))
    assert rows.failure_row(stored | {"id": 9}) == rows.LogRow(9, FULL, 1769868299.0, None)


def test_a_lone_surrogate_is_replaced() -> None:
    """A text that SQLite would refuse, as the name of a file may be, becomes one that it takes."""
    columns = rows.failure_columns(replace(FULL, message="no file \udcff", cause=("\udcff",)), 0.0)
    for value in columns:
        if isinstance(value, str):
            value.encode()


def test_an_account_survives_its_columns() -> None:
    """A snapshot, its limitation and its last failure come back equal."""
    names = "name state since path user_id is_bot limited retry_at incident last_failure standing".split()
    snapshot = AccountSnapshot(
        "support-bot",
        State.SUSPENDED,
        1.5,
        "de1",
        user_id=2**40,
        is_bot=True,
        limited=Limited("PEER_FLOOD", frozen=False, since=3.0),
        retry_at=9.0,
        incident="i-1",
        last_failure=FULL,
        standing=Standing(State.SUSPENDED, 1.5, 2.5, 600.0, 1, Action.RELOGIN, (0.5, 1.0), "mark"),
    )
    for one in (snapshot, AccountSnapshot("b", State.ONLINE, 0.0, "direct")):
        assert rows.account_snapshot(dict(zip(names, rows.account_columns(one), strict=True))) == one


def test_an_account_that_an_older_release_saved_has_no_standing() -> None:
    """`status` reads such a file as it is, before any daemon has brought its tables up to date."""
    names = "name state since path user_id is_bot limited retry_at incident last_failure".split()
    snapshot = AccountSnapshot("b", State.ONLINE, 0.0, "direct")
    assert rows.account_snapshot(dict(zip(names, rows.account_columns(snapshot), strict=False))) == snapshot


def test_an_incident_and_a_flood_survive_their_columns() -> None:
    """Caps, exponents and the peer come back equal, so that a restart forgets none."""
    incident = IncidentRow(
        "i-1",
        None,
        "de1",
        Scope.PATH,
        Kind.PROXY,
        5.0,
        None,
        None,
        Action.ROTATE_PROXY,
        4,
        {"proxy": 2},
        {"proxy": 3},
        ("a", "b"),
    )
    names = (
        "id account path scope kind opened_at closed_at outcome last_action failures attempts backoff accounts"
    ).split()
    assert rows.incident_row(dict(zip(names, rows.incident_columns(incident), strict=True))) == incident
    for peer in ("channel:7", None):
        flood = FloodRow("a", "messages.SendMessage", peer, 5.0, 35.0)
        names = "account method peer seen_at seconds until".split()
        assert rows.flood_row(dict(zip(names, rows.flood_columns(flood), strict=True))) == flood


def test_stored_causes_are_json() -> None:
    """The chain of causes is stored as a JSON array, for whoever reads the file with other tools."""
    columns = dict(zip(rows.FAILURE_COLUMNS, rows.failure_columns(FULL, 0.0), strict=True))
    assert json.loads(columns["cause"]) == list(FULL.cause)
