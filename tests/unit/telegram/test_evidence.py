"""Exceptions of every origin as evidence, and what never stands in it."""

from __future__ import annotations

import errno
import resource
import socket
import sqlite3
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from python_socks import ProxyError, ProxyTimeoutError

from supervisor.core.failure import Evidence, Source
from supervisor.ports import LinkFailed
from supervisor.telegram import evidence
from supervisor.telegram.evidence import (
    AUTHENTICATION,
    from_code,
    from_exception,
    from_pyrogram,
    from_rpc,
)


def raised(exc: BaseException, cause: BaseException | None = None) -> BaseException:
    """The exception with a traceback."""
    try:
        raise exc from cause
    except BaseException as caught:
        return caught


# --- RPC errors ----------------------------------------------------------------------------------------------------


def test_an_rpc_error_is_kept_as_it_was_sent() -> None:
    """The id is not touched; the code keeps its sign."""
    seen = from_rpc(-503, "Timeout", method="messages.GetHistory", path="de1", peer="4711")
    assert (seen.source, seen.error_id, seen.code) == (Source.RPC, "Timeout", -503)
    assert seen.message == "[-503 Timeout] from messages.GetHistory"
    assert (seen.method, seen.path, seen.peer) == ("messages.GetHistory", "de1", "4711")


RPC = [
    (420, "FLOOD_WAIT_35"),
    (420, "FLOOD_PREMIUM_WAIT_5"),
    (420, "SLOWMODE_WAIT_12"),
    (400, "FILE_PART_7_MISSING"),
    (400, "A_BRAND_NEW_ID"),
    (303, "PHONE_MIGRATE_4"),
    (401, "AUTH_KEY_UNREGISTERED"),
    (403, "CHAT_WRITE_FORBIDDEN"),
    (404, "METHOD_INVALID"),
    (406, "AUTH_KEY_DUPLICATED"),
    (429, "TOO_MANY_REQUESTS_9"),
    (500, "RANDOM_ID_DUPLICATE"),
    (502, "BAD_GATEWAY"),
    (504, "GATEWAY_TIMEOUT"),
    (-503, "Timeout"),
    (-500, "No workers running"),
]


@pytest.mark.parametrize(("code", "text"), RPC)
async def test_whatever_the_library_made_of_an_error_it_is_what_telegram_sent(code: int, text: str) -> None:
    """Known, unknown, of an unknown code, negative: id and code are those of the rpc_error, the method too."""
    from pyrogram import raw
    from pyrogram.errors import RPCError

    sent = raw.types.RpcError(error_code=code, error_message=text)
    with pytest.raises(RPCError) as failed:
        RPCError.raise_it(sent, raw.functions.messages.SendMessage)
    seen = from_pyrogram(failed.value, path="de1")
    assert (seen.source, seen.code, seen.error_id) == (Source.RPC, code, text)
    assert (seen.method, seen.path, seen.traceback) == ("messages.SendMessage", "de1", None)
    assert from_rpc(code, text, method="messages.SendMessage").message == seen.message


async def test_an_id_is_right_even_where_the_library_gives_it_another_code() -> None:
    """Pyrogram has one class for 400 and 406 PHONE_NUMBER_INVALID; the id decides, and that is kept."""
    from pyrogram import raw
    from pyrogram.errors import RPCError

    sent = raw.types.RpcError(error_code=400, error_message="PHONE_NUMBER_INVALID")
    with pytest.raises(RPCError) as failed:
        RPCError.raise_it(sent, raw.functions.auth.SendCode)
    assert from_pyrogram(failed.value).error_id == "PHONE_NUMBER_INVALID"


async def test_an_rpc_error_that_code_raised_itself_is_read_too() -> None:
    """FloodWait(12) out of a handler, and one without a number."""
    from pyrogram.errors import FloodWait, Unauthorized

    assert (from_code(FloodWait(12)).error_id, from_code(FloodWait(12)).code) == ("FLOOD_WAIT_12", 420)
    assert from_code(FloodWait()).error_id == "FLOOD_WAIT_X"
    bare = from_code(Unauthorized("pay first"))
    assert (bare.source, bare.code, bare.error_id) == (Source.RPC, 401, None)


# --- the network ---------------------------------------------------------------------------------------------------


NETWORK: list[tuple[BaseException, Source, str]] = [
    (ConnectionRefusedError(errno.ECONNREFUSED, "x"), Source.SOCKET, "connection refused h:1"),
    (ConnectionResetError(errno.ECONNRESET, "x"), Source.SOCKET, "connection reset by h:1"),
    (BrokenPipeError(errno.EPIPE, "x"), Source.SOCKET, "connection closed by h:1"),
    (OSError(errno.EHOSTUNREACH, "x"), Source.SOCKET, "host unreachable h:1"),
    (OSError(errno.ENETUNREACH, "x"), Source.SOCKET, "network unreachable h:1"),
    (TimeoutError(errno.ETIMEDOUT, "x"), Source.SOCKET, "timed out: TCP to h:1"),
    (ConnectionError("Connection lost"), Source.SOCKET, "ConnectionError: Connection lost h:1"),
    (socket.gaierror(socket.EAI_NONAME, "Name unknown"), Source.SOCKET, "name not known: h:1 (Name unknown)"),
    (ssl.SSLError(1, "handshake failure"), Source.SOCKET, "TLS with h:1: ('handshake failure',)"),
    (TimeoutError(), Source.SILENCE, "timed out: h:1"),
    (TimeoutError(), Source.SILENCE, "timed out: h:1"),
    (
        OSError(errno.EMFILE, "Too many open files"),
        Source.CODE,
        "no more files can be opened: this process may have ",
    ),
    (
        OSError(errno.ENFILE, "Too many open files"),
        Source.CODE,
        "no more files can be opened: this machine has ",
    ),
    (OSError(errno.ENOMEM, "no memory"), Source.CODE, "OSError: [Errno 12] no memory"),
    (FileNotFoundError(2, "No such file"), Source.CODE, "FileNotFoundError: [Errno 2] No such file"),
    (KeyError("x"), Source.CODE, "KeyError: 'x'"),
    (sqlite3.OperationalError("database is locked"), Source.STORAGE, "storage: database is locked"),
]


@pytest.mark.parametrize(("exc", "source", "message"), NETWORK, ids=[row[2] for row in NETWORK])
def test_an_exception_is_what_it_is(exc: BaseException, source: Source, message: str) -> None:
    """Sockets, names, TLS, time-outs, SQLite; a missing file or our own exhausted limit is nobody's network."""
    seen = from_exception(exc, step="dial", path="direct", where="h:1")
    assert (seen.source, seen.step, seen.path) == (source, "dial", "direct")
    assert seen.message.startswith(message.partition("(")[0])
    assert (seen.traceback is not None) == (source in (Source.CODE, Source.STORAGE))


def test_sqlites_own_name_of_an_error_is_kept() -> None:
    """Code and name of the SQLite error, where SQLite gave them."""
    with pytest.raises(sqlite3.OperationalError) as failed:
        sqlite3.connect("/nonexistent/x.db")
    seen = from_exception(failed.value)
    assert (seen.source, seen.code) == (Source.STORAGE, 14)
    assert "SQLITE_CANTOPEN" in seen.message


def test_a_proxys_failure_is_the_proxys() -> None:
    """The same exception, behind a proxy; our own exhausted limit is not its fault."""
    exc = ConnectionRefusedError(errno.ECONNREFUSED, "x")
    seen = from_exception(exc, path="de1", where="h:1", through=True)
    assert (seen.source, seen.message) == (Source.PROXY, "proxy de1: connection refused h:1")
    ours = from_exception(OSError(errno.EMFILE, "Too many open files"), path="de1", where="h:1", through=True)
    assert (ours.source, ours.error_id) == (Source.CODE, "OUT_OF_FILES")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert (
        ours.message
        == f"no more files can be opened: this process may have {limit} (LimitNOFILE=, ulimit -n)"
    )


def test_a_link_that_failed_carries_its_evidence() -> None:
    """Nothing is lost on the way up."""
    found = Evidence(Source.SILENCE, "nothing came")
    assert from_exception(LinkFailed(found)) is found
    assert from_code(LinkFailed(found)) is found


def test_a_bots_own_network_is_not_the_way_to_telegram() -> None:
    """A handler whose database refuses it says nothing of the link."""
    seen = from_code(raised(ConnectionRefusedError(errno.ECONNREFUSED, "my database")), step="handler")
    assert (seen.source, seen.step) == (Source.CODE, "handler")
    assert seen.traceback is not None


# --- proxies' libraries --------------------------------------------------------------------------------------------


SOCKS: list[tuple[BaseException, str, int | None, bool]] = [
    (
        ProxyError("Connection refused by destination host", error_code=5),
        "socks reply 5 (connection",
        5,
        False,
    ),
    (ProxyError("Invalid reply code: 0XF1"), "socks reply 241", 241, False),
    (
        ProxyError("407 Proxy Authentication Required", error_code=407),
        "http reply 407 (Proxy Auth",
        407,
        True,
    ),
    (ProxyError("Username and password authentication failure"), "wrong user or password", None, True),
    (ProxyError("Unexpected SOCKS version number: 72"), "Unexpected SOCKS version", None, False),
    (ProxyTimeoutError("Proxy connection timed out: 3"), "Proxy connection timed out: 3", None, False),
]


@pytest.mark.parametrize(("exc", "message", "code", "refuses_us"), SOCKS, ids=[row[1] for row in SOCKS])
def test_python_socks(exc: BaseException, message: str, code: int | None, refuses_us: bool) -> None:
    """Kurigram's proxy library, and ours."""
    seen = from_exception(exc, path="de1")
    assert (seen.source, seen.code) == (Source.PROXY, code)
    assert seen.message.startswith(f"proxy de1: {message}")
    assert (AUTHENTICATION in seen.context) is refuses_us


def pysocks() -> Any:
    """PySocks where it is, else classes of the same names: evidence goes by name."""
    try:
        import socks
    except ImportError:

        class Failed(OSError):
            def __init__(self, msg: str, socket_err: BaseException | None = None) -> None:
                super().__init__(msg)
                self.msg, self.socket_err = msg, socket_err

            def __str__(self) -> str:
                return self.msg

        base = type("ProxyError", (Failed,), {"__module__": "socks"})
        names = ("GeneralProxyError", "ProxyConnectionError", "SOCKS5AuthError", "SOCKS5Error", "HTTPError")
        return type("socks", (), {name: type(name, (base,), {"__module__": "socks"}) for name in names})
    return socks


@pytest.mark.parametrize(
    ("name", "inner", "message", "code", "refuses_us"),
    [
        ("SOCKS5Error", "0x05: Connection refused", "socks reply 5 (connection refused)", 5, False),
        ("SOCKS5AuthError", "SOCKS5 authentication failed", "wrong user or password", None, True),
        (
            "HTTPError",
            "407: Proxy Authentication Required",
            "http reply 407 (Proxy Authentication Required)",
            407,
            True,
        ),
        (None, ConnectionRefusedError(errno.ECONNREFUSED, "no"), "connection refused the peer", None, False),
    ],
)
def test_pysocks_is_unwrapped(
    name: str | None, inner: Any, message: str, code: int | None, refuses_us: bool
) -> None:
    """Pyrogram's proxy library hides the cause in `socket_err`; it is in the message and in the chain."""
    socks = pysocks()
    cause = inner if name is None else getattr(socks, name)(inner)
    seen = from_exception(socks.GeneralProxyError("Socket error", cause), path="de1")
    assert (seen.source, seen.message, seen.code) == (Source.PROXY, f"proxy de1: {message}", code)
    assert len(seen.cause) == 2
    assert (AUTHENTICATION in seen.context) is refuses_us


# --- chains --------------------------------------------------------------------------------------------------------


def test_the_chain_runs_from_the_outermost_to_the_innermost() -> None:
    """Causes, and what was being handled where there is no cause; `from None` ends it."""
    inner = raised(ValueError("first"), KeyError("root"))
    assert evidence.causes(raised(RuntimeError("second"), inner)) == (
        "RuntimeError: second",
        "ValueError: first",
        "KeyError: 'root'",
    )
    cut = RuntimeError("alone")
    cut.__context__, cut.__suppress_context__ = inner, True
    assert evidence.causes(cut) == ("RuntimeError: alone",)
    cut.__suppress_context__ = False
    assert len(evidence.causes(cut)) == 3
    assert (
        evidence.causes(ExceptionGroup("two", [ValueError("one"), KeyError("two")]))[1] == "ValueError: one"
    )


def test_a_chain_is_bounded() -> None:
    """Ten links of 300 characters, rings and all."""
    exc: BaseException = ValueError("x" * 1000 + "!")
    for _ in range(30):
        exc = raised(RuntimeError("y " * 1000), exc)
    chain = evidence.causes(exc)
    assert len(chain) == 10
    assert {len(line) for line in chain} == {300}
    ring = ValueError("ring")
    ring.__cause__ = other = KeyError("other")
    other.__cause__ = ring
    assert len(evidence.causes(ring)) == 2


def test_a_traceback_is_bounded_and_ends_with_the_error() -> None:
    """A deep recursion leaves its innermost frames."""

    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
        raise LookupError("z " * 6000)

    with pytest.raises(LookupError) as failed:
        deep(100)
    text = from_exception(failed.value).traceback
    assert text is not None
    assert len(text) == evidence.MAX_TRACEBACK
    assert text.startswith("…")
    assert text.endswith("z \n")


def test_an_exception_whose_text_raises_is_evidence_all_the_same() -> None:
    """A foreign __str__ cannot hide a failure."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert from_exception(Broken()).message == "Broken: (its text cannot be read)"


def test_nothing_is_imported_to_be_compared_with() -> None:
    """Evidence costs neither Pyrogram's seconds nor PySocks' presence."""
    code = (
        "import sys; from supervisor.telegram.evidence import from_exception, from_rpc;"
        "from_exception(OSError(5, 'x')); from_exception(KeyError()); from_rpc(420, 'FLOOD_WAIT_1');"
        "print([m for m in ('pyrogram', 'socks', 'python_socks', 'asyncio') if m in sys.modules])"
    )
    root = Path(evidence.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- secrets -------------------------------------------------------------------------------------------------------

TOKEN = "123456789:AAF-abcdefghijklmnopqrstuvwxyz_0123456"


def test_no_field_of_evidence_keeps_a_secret() -> None:
    """Message, cause and traceback alike: a token in the source line of the failing code too."""
    with pytest.raises(ValueError, match="token") as failed:
        raise ValueError("token 123456789:AAF-abcdefghijklmnopqrstuvwxyz_0123456")
    for seen in (from_exception(failed.value), from_code(failed.value), from_rpc(400, "X", method=TOKEN)):
        assert "AAF-abc" not in repr((seen.message, seen.cause, seen.traceback))
