"""Everything that can go wrong, as Evidence: exceptions of both libraries, of proxies, sockets and SQLite.

Foreign exceptions are recognised by the module and the name of their classes, so that nothing is imported
here only to be compared with: Pyrogram takes seconds, PySocks is not in every environment.
"""

from __future__ import annotations

import errno
import re
import resource
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from supervisor import frames
from supervisor.core.failure import Evidence, Source
from supervisor.core.scrub import scrub
from supervisor.ports import LinkFailed

MAX_MESSAGE = 600  # characters; an id of Telegram's is at most 64
MAX_CAUSES = 10
MAX_CAUSE_TEXT = 300
MAX_TRACEBACK = 8_000  # characters; the end, which names the error, is kept
MAX_FRAMES = 20  # of each exception in the chain, the innermost

# What a failed proxy wants from the operator and a retry cannot give: found in Evidence.context.
AUTHENTICATION = ("proxy", "authentication")
CLOSED = "closed the connection in the handshake"


@dataclass(frozen=True, slots=True)
class _Reading:
    source: Source
    message: str
    error_id: str | None = None
    code: int | None = None
    method: str | None = None
    context: tuple[tuple[str, str], ...] = ()


def from_rpc(
    code: int,
    text: str,
    *,
    method: str | None = None,
    path: str = "direct",
    peer: str | None = None,
    step: str | None = None,
) -> Evidence:
    """Evidence of an rpc_error.

    Args:
        code: error_code as sent; a few are negative (-503).
        text: error_message as sent; it becomes `error_id` unchanged (``FLOOD_WAIT_35``).
        method: the method that was called, as ``messages.SendMessage``.
        path: the path that was used.
        peer: whom the call was about.
        step: what was being done.
    """
    return _evidence(_rpc_reading(code, text, method), None, step=step, path=path, peer=peer)


def from_pyrogram(exc: BaseException, *, path: str = "direct", step: str | None = None) -> Evidence:
    """Evidence of a `pyrogram.errors.RPCError`, with the id and the code that Telegram sent.

    Neither library keeps them in one place: an id that it does not know stands only in `value`
    (``[420 FLOOD_PREMIUM_WAIT_5]``), a code that it does not know is 520 everywhere else.
    """
    return from_exception(exc, path=path, step=step)


def from_exception(
    exc: BaseException,
    *,
    step: str | None = None,
    path: str = "direct",
    where: str | None = None,
    through: bool = False,
) -> Evidence:
    """Evidence of any exception that the way to Telegram may raise.

    Args:
        exc: the exception; a `LinkFailed` gives the evidence that it carries.
        step: what was being done (``dial``, ``key exchange``, ``sign-in`` …).
        path: the path that was used.
        where: host, or host and port, that the exception is about: its text seldom says.
        through: the proxy of `path` itself failed, not Telegram behind it.
    """
    if isinstance(exc, LinkFailed):
        return exc.evidence
    reading = _read(exc, where, path)
    if through and reading.source in (Source.SOCKET, Source.SILENCE, Source.CODE) and not _is_ours(exc):
        said = f"{_proxy(path)}: {reading.message}"
        reading = _Reading(Source.PROXY, said, code=reading.code, context=reading.context)
    return _evidence(reading, exc, step=step, path=path)


def from_code(exc: BaseException, *, step: str | None = None, path: str = "direct") -> Evidence:
    """Evidence of an exception out of a bot's own code.

    Only what Telegram itself answered, or a link of ours that failed, is read as such: a bot's refused
    connection to its own database says nothing of the way to Telegram.
    """
    if isinstance(exc, LinkFailed):
        return exc.evidence
    reading = _read(exc, None, path)
    if reading.source is not Source.RPC:
        reading = _code(exc)
    seen = _evidence(reading, exc, step=step, path=path)
    return replace(seen, cause=(*seen.cause, *_places(exc)), traceback=_traceback(exc))


def causes(exc: BaseException) -> tuple[str, ...]:
    """The chain of an exception, outermost first, each as ``Type: text``; scrubbed and bounded."""
    return tuple(_told(_titled(link), MAX_CAUSE_TEXT) for link in _chain(exc))


def _chain(exc: BaseException) -> list[BaseException]:
    chain: dict[int, BaseException] = {}
    link: BaseException | None = exc
    while link is not None and id(link) not in chain and len(chain) < MAX_CAUSES:
        chain[id(link)] = link
        link = _behind(link)
    return list(chain.values())


def _places(exc: BaseException) -> tuple[str, ...]:
    """Where in the bot's own code it came from, outermost first; of the chain, as near to the first cause as it goes."""
    return next((tuple(places) for link in reversed(_chain(exc)) if (places := frames.of(link))), ())


# --- putting it together -----------------------------------------------------------------------------------


def _evidence(
    reading: _Reading, exc: BaseException | None, *, step: str | None, path: str, peer: str | None = None
) -> Evidence:
    # A traceback of our own dialling explains nothing and costs a disk read for each of a thousand accounts.
    wanted = exc is not None and reading.source in (Source.CODE, Source.STORAGE)
    return Evidence(
        source=reading.source,
        message=_told(reading.message, MAX_MESSAGE),
        error_id=None if reading.error_id is None else _told(reading.error_id, MAX_CAUSE_TEXT),
        code=reading.code,
        method=reading.method,
        peer=peer,
        step=step,
        path=path,
        cause=causes(exc) if exc is not None else (),
        traceback=_traceback(exc) if wanted and exc is not None else None,
        context=reading.context,
    )


def _traceback(exc: BaseException) -> str:
    text = "".join(traceback.TracebackException.from_exception(exc, limit=-MAX_FRAMES, compact=True).format())
    return _told(text, MAX_TRACEBACK, keep_end=True)


# The longest form of a secret, an auth key as Python shows bytes.
_LONGEST_SECRET = 4 * 256


def _told(text: str, limit: int, *, keep_end: bool = False) -> str:
    """The text as it is kept: scrubbed, of bounded length, and such as can be written down.

    What is far too long is cut before it is looked at, and again by what the first cut may have halved: half a
    secret is not recognised.
    """
    most = 4 * limit + 2 * _LONGEST_SECRET
    is_cut = len(text) > most
    if is_cut:
        text = text[-most:] if keep_end else text[:most]
    text = scrub(text.encode("utf-8", "backslashreplace").decode("utf-8"))
    if is_cut:
        text = text[_LONGEST_SECRET:] if keep_end else text[:-_LONGEST_SECRET]
    elif len(text) <= limit:
        return text
    return "…" + text[1 - limit :] if keep_end else text[: limit - 1] + "…"


def _titled(exc: BaseException) -> str:
    text = _text(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - a foreign __str__ must not hide the failure it stands for
        return "(its text cannot be read)"


def _behind(exc: BaseException) -> BaseException | None:
    if exc.__cause__ is not None:
        return exc.__cause__
    if isinstance(exc, BaseExceptionGroup):
        first: BaseException = exc.exceptions[0]
        return first
    inner = getattr(exc, "socket_err", None)  # PySocks' GeneralProxyError
    if isinstance(inner, BaseException):
        return inner
    return None if exc.__suppress_context__ else exc.__context__


def _proxy(path: str) -> str:
    return "proxy" if path == "direct" else f"proxy {path}"


# --- reading one kind of exception -------------------------------------------------------------------------


def _read(exc: BaseException, where: str | None, path: str) -> _Reading:
    for cls in type(exc).__mro__:
        reader = _READERS.get((cls.__module__.partition(".")[0], cls.__name__))
        if reader is not None:
            return reader(exc, where, path)
    return _code(exc)


def _code(exc: BaseException, *_: object) -> _Reading:
    return _Reading(Source.CODE, _told(_titled(exc), MAX_CAUSE_TEXT))


_QUOTED = re.compile(
    r"\[(-?\d{1,10}) (.*)\]", re.DOTALL
)  # how both libraries hold an id that is not in their tables
_CAUSED_BY = re.compile(r'\(caused by "([^"]*)"\)$')


def _rpc_reading(code: int | None, text: str | None, method: str | None) -> _Reading:
    said = " ".join(str(part) for part in (code, text) if part is not None)
    message = f"[{said}]" if said else "an RPC error without code or id"
    return _Reading(Source.RPC, f"{message} from {method}" if method else message, text, code, method)


def _read_rpc(exc: Any, *_: object) -> _Reading:
    shown = _text(exc)
    caller = _CAUSED_BY.search(shown)
    code: int | None = getattr(exc, "CODE", None)
    error_id: str | None = getattr(exc, "ID", None)
    value = getattr(exc, "value", None)
    quoted = _QUOTED.fullmatch(value) if isinstance(value, str) else None
    if quoted is not None:
        code, error_id = int(quoted[1]), quoted[2]
    elif error_id is not None and value is not None:
        error_id = re.sub(r"(?<=_)X(?=_|$)", lambda _: str(value), error_id, count=1)
    if code is not None and code > 0 and shown.startswith("Telegram says: [-"):
        code = -code  # both libraries keep the sign in the text alone
    return _rpc_reading(code, error_id, caller[1] if caller else None)


def _read_protocol(exc: BaseException, *_: object) -> _Reading:
    return _Reading(Source.PROTOCOL, _titled(exc))


def _read_storage(exc: BaseException, *_: object) -> _Reading:
    name = getattr(exc, "sqlite_errorname", None)
    code = getattr(exc, "sqlite_errorcode", None)
    return _Reading(
        Source.STORAGE, f"storage: {_text(exc)}" + (f" ({name})" if name else ""), error_id=name, code=code
    )


_WORDS = {
    errno.ECONNREFUSED: "connection refused {}",
    errno.ECONNRESET: "connection reset by {}",
    errno.ECONNABORTED: "connection aborted: {}",
    errno.EPIPE: "connection closed by {}",
    errno.ESHUTDOWN: "connection closed by {}",
    errno.ETIMEDOUT: "timed out: TCP to {}",
    errno.ENETUNREACH: "network unreachable {}",
    errno.EHOSTUNREACH: "host unreachable {}",
    errno.ENETDOWN: "network down {}",
    errno.ENETRESET: "connection reset by the network {}",
    errno.EHOSTDOWN: "host down {}",
    errno.EADDRNOTAVAIL: "no local address or port left for {}",
    errno.ENOTCONN: "not connected {}",
    errno.EAFNOSUPPORT: "address family not supported {}",
}
OUT_OF_FILES = "OUT_OF_FILES"
_FILES = {
    errno.EMFILE: "no more files can be opened: this process may have {} (LimitNOFILE=, ulimit -n)",
    errno.ENFILE: "no more files can be opened: this machine has as many open as it may (fs.file-max)",
}
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})  # nothing to do with any peer


def _is_ours(exc: BaseException) -> bool:
    return isinstance(exc, OSError) and _number(exc.errno) in _OURS


def _number(found: object) -> int | None:
    """A code as exceptions carry it; anybody may raise them with anything instead."""
    return int(found) if isinstance(found, int) else None


def _read_os(exc: Any, where: str | None, _path: str) -> _Reading:
    number = _number(exc.errno) or 0
    if number in _FILES:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return _Reading(Source.CODE, _FILES[number].format(limit), OUT_OF_FILES)
    words = _WORDS.get(number)
    if words is not None:
        return _Reading(Source.SOCKET, words.format(where or "the peer"))
    if isinstance(exc, ConnectionError):
        return _Reading(Source.SOCKET, f"{_titled(exc)} {where or ''}".rstrip())
    return _code(exc)


def _read_timeout(exc: Any, where: str | None, path: str) -> _Reading:
    if exc.errno is not None:
        return _read_os(exc, where, path)
    about = where or _text(exc)
    return _Reading(Source.SILENCE, f"timed out: {about}" if about else "timed out")


def _read_name(exc: Any, where: str | None, _path: str) -> _Reading:
    detail = exc.strerror or _text(exc)
    return _Reading(Source.SOCKET, f"name not known: {where or 'the host'} ({detail})")


def _read_tls(exc: BaseException, where: str | None, _path: str) -> _Reading:
    return _Reading(Source.SOCKET, f"TLS with {where or 'the peer'}: {_text(exc)}")


# What python-socks and PySocks say where SOCKS has no reply code, and how we put it.
_REFUSALS = {
    "Username and password authentication failure": "wrong user or password",
    "SOCKS5 authentication failed": "wrong user or password",
    "No acceptable authentication methods were offered": "no acceptable authentication method",
    "All offered SOCKS5 authentication methods were rejected": "no acceptable authentication method",
    "Connection closed unexpectedly": CLOSED,
}
_AUTHENTICATION_CODES = (0x5C, 0x5D, 407)  # SOCKS4: identd; HTTP
_AUTHENTICATION_TEXTS = ("wrong user or password", "no acceptable authentication method")
_FOREIGN_METHOD = re.compile(r"Unexpected SOCKS authentication method: (\d+)")


def proxy_reply(
    path: str, scheme: str, code: int | None, text: str
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The message and the context of a proxy's refusal.

    Args:
        path: the proxy's name.
        scheme: ``socks`` or ``http``.
        code: the SOCKS reply or HTTP status, where there was one.
        text: what the proxy, or the library that spoke to it, said.
    """
    if code is None:
        foreign = _FOREIGN_METHOD.fullmatch(text)
        said = f"wants authentication method {foreign[1]}" if foreign else _REFUSALS.get(text, text)
        refused_us = foreign is not None or said in _AUTHENTICATION_TEXTS
        return f"{_proxy(path)}: {said}", (AUTHENTICATION,) if refused_us else ()
    said = text[:1].lower() + text[1:] if scheme == "socks" else text
    message = f"{scheme} reply {code} ({said})" if said else f"{scheme} reply {code}"
    return f"{_proxy(path)}: {message}", (AUTHENTICATION,) if code in _AUTHENTICATION_CODES else ()


_REPLY = re.compile(r"(?:Invalid reply code: )?(0[xX][0-9A-Fa-f]+|\d{3})(?::? (.*))?")


def _split_reply(text: str) -> tuple[int | None, str]:
    """The code in a proxy library's text: ``0x05: Connection refused``, ``Invalid reply code: 0XF1``."""
    found = _REPLY.fullmatch(text)
    return (int(found[1], 0), found[2] or "") if found else (None, text)


def _read_python_socks(exc: Any, _where: str | None, path: str) -> _Reading:
    text = _text(exc)
    if isinstance(exc, OSError):  # its timeout and its failed connect to the proxy
        return _Reading(Source.PROXY, f"{_proxy(path)}: {text}")
    code = _number(getattr(exc, "error_code", None))
    if code is None:
        code, text = _split_reply(text)
        return _refusal(path, "socks", code, text)
    words = text.removeprefix(f"{code} ")  # "407 Proxy Authentication Required"; SOCKS replies come without
    return _refusal(path, "socks" if words == text else "http", code, words)


def _read_pysocks(exc: Any, where: str | None, path: str) -> _Reading:
    inner = getattr(exc, "socket_err", None)
    if isinstance(inner, OSError) and inner.errno is not None:
        return _Reading(Source.PROXY, f"{_proxy(path)}: {_read(inner, where, path).message}")
    failed = inner if isinstance(inner, BaseException) else exc
    return _refusal(
        path, "http" if type(failed).__name__ == "HTTPError" else "socks", *_split_reply(_text(failed))
    )


def _refusal(path: str, scheme: str, code: int | None, text: str) -> _Reading:
    message, context = proxy_reply(path, scheme, code, text)
    return _Reading(Source.PROXY, message, code=code, context=context)


_READERS: dict[tuple[str, str], Callable[[Any, str | None, str], _Reading]] = {
    ("pyrogram", "RPCError"): _read_rpc,
    ("pyrogram", "SecurityError"): _read_protocol,
    ("pyrogram", "SecurityCheckMismatch"): _read_protocol,
    ("pyrogram", "BadMsgNotification"): _read_protocol,
    ("sqlite3", "Error"): _read_storage,
    ("sqlite3", "Warning"): _read_storage,
    ("python_socks", "ProxyError"): _read_python_socks,
    ("python_socks", "ProxyTimeoutError"): _read_python_socks,
    ("python_socks", "ProxyConnectionError"): _read_python_socks,
    ("socks", "ProxyError"): _read_pysocks,
    ("socket", "gaierror"): _read_name,
    ("ssl", "SSLError"): _read_tls,
    ("builtins", "TimeoutError"): _read_timeout,
    ("builtins", "OSError"): _read_os,
}
