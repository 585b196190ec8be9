"""What nobody may read is taken out of a text, and nothing else."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.scrub import anonymous, scrub

TOKEN = "123456789:AAF-abcdefghijklmnopqrstuvwxyz_0123456"
SESSION = "BQAAAAEAAAAA" + "aB3_-" * 70
SECRETS = [
    (f"bad token {TOKEN}", "bad token 123456789:…"),
    (f"https://api.telegram.org/bot{TOKEN}/getMe", "https://api.telegram.org/bot123456789:…/getMe"),
    ("call +4915112345678 now", "call +49…78 now"),
    ("call +49 151 1234 5678.", "call +49…78."),
    ("'+4915112345678'", "'+49…78'"),
    ("socks5://user:p@ss/word@198.51.100.7:1080", "socks5://…@198.51.100.7:1080"),
    ("socks5://:secret@h:1 and http://h:80/x", "socks5://…@h:1 and http://h:80/x"),
    (f"session={SESSION}", "session=…"),
    (f"key {'0aF9' * 128} end", "key … end"),
    ("key " + repr(bytes(range(128, 256)) * 2), "key b'…'"),
]


@pytest.mark.parametrize(("text", "clean"), SECRETS, ids=[row[1] for row in SECRETS])
def test_a_secret_is_scrubbed_and_the_rest_stays(text: str, clean: str) -> None:
    """Tokens, phones, URL passwords, session strings, keys."""
    assert scrub(text) == clean


@given(st.binary(min_size=256, max_size=256))
def test_an_auth_key_is_scrubbed_in_every_form(key: bytes) -> None:
    """As hex, as a number, as base64: none of it is left."""
    number = int.from_bytes(b"\x01" + key)
    for form in (
        key.hex(),
        str(number),
        base64.b64encode(key).decode(),
        base64.urlsafe_b64encode(key).decode(),
    ):
        assert form[40:80] not in scrub(f"the key {form} is bad")


@pytest.mark.parametrize(
    "text",
    [
        "connection refused 127.0.0.1:4430",
        "[420 FLOOD_WAIT_35] from messages.SendMessage",
        "msg_id 7433923861203456789, salt -3401989127364511",
        "http://example.org/a/b?c=d",
        "at 2026-11-22T03:08:14+00:00",
        "/usr/lib/python3.11/site-packages/pyrogram/session/session.py",
        "channel -1001234567890",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Addresses, ids, dates and paths are what the operator needs."""
    assert scrub(text) == text


@pytest.mark.parametrize("unit", ["1", "a", "+1", "x:", "\\x41", "a://", "+ "])
def test_scrubbing_takes_linear_time(unit: str) -> None:
    """No text makes a pattern run away."""
    begun = time.process_time()
    scrub(unit * 20_000)
    assert time.process_time() - begun < 2


def test_an_anonymous_text_says_what_happened_and_not_to_whom() -> None:
    """What is quoted, names with an @, addresses, paths and long numbers go; the words stay, 500 characters at most."""
    for text, told in (
        ("cannot open '/home/ann/x'", "cannot open '…'"),
        ('"Ann" and @ann_b, ann@example.org', "'…' and @…, …"),
        ("to 198.51.100.7:443 and [2001:db8::1] or dc.example.org:443", "to …:443 and … or …"),
        ("https://example.org/x?y=1 ~/.ssh/id and ./x/y.py", "… /… and /…"),
        ("user 4711000 called +4915112345678", "user … called …"),
        ("attempt 3 of 5 failed: division by zero", "attempt 3 of 5 failed: division by zero"),
    ):
        assert anonymous(text) == told
    assert len(anonymous("word " * 1000)) == 500


@pytest.mark.parametrize("unit", ["1", "a", "'", "a.", "/a", "::", "a@", "@"])
def test_making_anonymous_takes_linear_time(unit: str) -> None:
    """No text makes a pattern run away."""
    begun = time.process_time()
    anonymous(unit * 2_000)
    assert time.process_time() - begun < 2
