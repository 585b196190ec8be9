"""Evidence of whatever a server says and whatever is raised: always some, never without bounds, never with a secret."""

from __future__ import annotations

import errno
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_socks import ProxyError

from supervisor.core.classify import classify
from supervisor.core.failure import Evidence, Failure, Source
from supervisor.telegram import evidence

QUICK = settings(max_examples=300, deadline=None)
TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
LONGEST = evidence.MAX_MESSAGE
# What stands next to a secret in an exception's text, and is no part of it.
AROUND = st.text(
    alphabet=st.characters(exclude_characters="0123456789", exclude_categories=["Cs"]), max_size=400
)
ANYTHING = st.one_of(
    st.text(max_size=50),
    st.binary(max_size=50),
    st.integers(),
    st.floats(),
    st.none(),
    st.lists(st.integers(), max_size=3),
    st.just(object()),
)


class Unspeakable(Exception):
    """Cannot be put into words."""

    def __str__(self) -> str:
        raise ValueError("no words")


def classes() -> list[type[BaseException]]:
    from pyrogram.errors import FloodWait, InternalServerError, RPCError

    found: list[type[BaseException]] = [
        ValueError, OSError, ConnectionResetError, TimeoutError, KeyError, UnicodeError, ExceptionGroup, ProxyError,
        RPCError, FloodWait, InternalServerError, Unspeakable, SystemExit, MemoryError,
    ]  # fmt: skip
    return found


def made(cls: type[BaseException], args: list[Any]) -> BaseException:
    """An exception of this class, with these arguments where it takes them."""
    try:
        return cls(*args)
    except Exception:
        return ValueError(*args)


def check(seen: Evidence) -> Failure:
    """Hold evidence, and the judgement on it, to what the record can keep."""
    assert seen.message
    assert len(seen.message) <= LONGEST
    assert len(seen.error_id or "") <= LONGEST
    assert len(seen.cause) <= 2 * evidence.MAX_CAUSES
    assert all(len(text) <= LONGEST for text in seen.cause)
    assert len(seen.traceback or "") <= evidence.MAX_TRACEBACK
    for text in (seen.message, seen.error_id or "", *seen.cause, seen.traceback or ""):
        text.encode()  # the record is UTF-8
    failure = classify(seen)
    assert failure.wait is None or 1 <= failure.wait <= 60e9
    return failure


@given(
    st.integers(-(2**31), 2**31 - 1),
    st.one_of(
        st.text(max_size=80),
        st.text(st.characters(), max_size=10),  # halves of surrogates too
        st.from_regex(r"[A-Z_]{1,30}_[0-9]{1,30}(_[A-Z]{1,5})?", fullmatch=True),
        st.integers(1, 5000).map(lambda n: "\U0001f600\udcff" * n),
    ),
    st.one_of(st.none(), st.text(max_size=40)),
)
@QUICK
def test_whatever_telegram_answers(code: int, text: str, method: str | None) -> None:
    """Any code with any text is evidence that can be judged; a short id stays as it was sent."""
    seen = evidence.from_rpc(code, text, method=method)
    check(seen)
    assert (seen.source, seen.code) == (Source.RPC, code)
    if len(text) <= 100 and text.isascii():
        assert seen.error_id == text


@given(st.data())
@QUICK
def test_whatever_is_raised(data: st.DataObject) -> None:
    """Any exception with any arguments, chained to any others, even in a ring or a group, gives evidence."""
    kinds = st.sampled_from(classes())
    chain = data.draw(st.lists(st.tuples(kinds, st.lists(ANYTHING, max_size=3)), min_size=1, max_size=14))
    links = [made(*link) for link in chain]
    for outer, inner in pairwise(links):
        outer.__cause__ = inner
    if data.draw(st.booleans()):
        links[-1].__cause__ = links[0]
    whole = links[0]
    if data.draw(st.booleans()):
        whole = BaseExceptionGroup("a group", [whole, *links[1:2]])
    through = data.draw(st.booleans())
    check(evidence.from_exception(whole, step="dial", path="de1", where="h:1", through=through))
    check(evidence.from_code(whole, step="handler"))


@given(AROUND, AROUND, st.sampled_from(["value", "rpc", "os", "cause"]))
@QUICK
def test_a_token_is_nowhere_in_it(before: str, after: str, how: str) -> None:
    """Wherever a text of any length holds a bot's token, no field of the evidence holds its secret half."""
    text = f"{before} {TOKEN} {after}"
    if how == "rpc":
        seen = evidence.from_rpc(400, text)
        shown = [seen.message]
    else:
        exc: Exception = OSError(errno.ECONNRESET, text) if how == "os" else ValueError(text)
        if how == "cause":
            exc.__cause__, exc = None, RuntimeError("outer")
            exc.__cause__ = ValueError(text)
        seen = evidence.from_code(exc)
        shown = [seen.message, *seen.cause, seen.traceback or ""]
    secret = TOKEN.partition(":")[2]
    for place in shown:
        assert secret not in place
        assert secret[:20] not in place


@pytest.mark.parametrize(
    "text", ["A_1" * 2_000_000, "1:" * 2_000_000, "\\x00" * 1_000_000, "+49 " * 1_000_000]
)
def test_a_very_long_text_takes_no_time(text: str) -> None:
    """Millions of characters, in the answer of a server or an exception, are cut before they are looked at."""
    begun = time.process_time()
    check(evidence.from_rpc(400, text))
    check(evidence.from_exception(ValueError(text)))
    assert time.process_time() - begun <= 1.0
