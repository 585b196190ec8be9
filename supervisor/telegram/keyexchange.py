"""The auth key: MTProto's Diffie-Hellman exchange, with every check that Telegram demands of a client.

https://core.telegram.org/mtproto/auth_key and https://core.telegram.org/mtproto/security_guidelines. `KeyExchange`
does no I/O: packets in, packets out. Its arithmetic (a factorisation, two 2048-bit powers; gmpy2) takes
some 15 ms, so `create_auth_key` runs it in the threads of `arithmetic.workshop`, where gmpy2 lets go of the GIL.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha1
from types import SimpleNamespace
from typing import Any

import gmpy2

from supervisor.config.rsakey import public_numbers
from supervisor.core.decide import KEY_NOT_FOUND
from supervisor.core.failure import Evidence, Source
from supervisor.ports import LinkFailed
from supervisor.telegram.arithmetic import MARGIN, dh_client, factorise, workshop
from supervisor.telegram.evidence import causes, from_exception
from supervisor.telegram.packets import BadObject, Reader, read_object
from supervisor.telegram.plain import Answers, message_id, plain_body, plain_packet
from supervisor.telegram.wire import Wire, WireClosed

STEP = "key exchange"
MAX_GENERATIONS = 4  # of b: the first, and three times dh_gen_retry
_RSA_BYTES = 255


class ExchangeError(ValueError):
    """The server's part of the exchange is wrong; the text says what, `error_id` (core/errors.tsv) which wrong."""

    def __init__(self, text: str, error_id: str | None = None) -> None:
        super().__init__(text)
        self.error_id = error_id


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An RSA key of the server's."""

    n: int
    e: int

    @property
    def fingerprint(self) -> int:
        """The lower 64 bits of the SHA1 of the bare rsa_public_key, signed, as resPQ gives it."""
        bare = _tl_bytes(_to_bytes(self.n)) + _tl_bytes(_to_bytes(self.e))
        return int.from_bytes(sha1(bare, usedforsecurity=False).digest()[-8:], "little", signed=True)


@dataclass(frozen=True, slots=True)
class AuthKey:
    """What the exchange gives. `time_offset` is the server's clock minus ours, in seconds."""

    key: bytes = field(repr=False)
    server_salt: int
    time_offset: float


def telegram_public_keys() -> list[PublicKey]:
    """The keys of Telegram's own servers, as the installed client library carries them."""
    from pyrogram.crypto import rsa

    return [PublicKey(key.m, key.e) for key in rsa.server_public_keys.values()]


def public_key_from_pem(text: str) -> PublicKey:
    """A key out of PEM text, PKCS#1 or SubjectPublicKeyInfo.

    Raises:
        ValueError: there is no RSA public key in it.
    """
    return PublicKey(*public_numbers(text))


# --- the exchange ------------------------------------------------------------------------------------------


class KeyExchange:
    """One exchange, seen from the client. `start` it, `feed` it each answer; no I/O, and no clock.

    `feed` does the heavy arithmetic: call it off the event loop. `asked` names the request that waits for its answer.
    """

    def __init__(self, public_keys: Sequence[PublicKey]) -> None:
        """Prepare an exchange.

        Args:
            public_keys: those that the server may have.
        """
        self._keys = {key.fingerprint: key for key in public_keys}
        self._tl = _library()
        self._nonce = _random_int(16)
        self._new_nonce = _random_int(32)
        self._server_nonce = 0
        self._aes = (b"", b"")
        self._server: Any = None  # server_DH_inner_data
        self._offset = 0.0
        self._key = b""
        self._generation = 0
        self._next: Callable[[bytes, float], bytes | AuthKey] = self._on_res_pq
        self.asked = "req_pq_multi"

    def start(self) -> bytes:
        """The first request."""
        return self._write(self._tl.ReqPqMulti(nonce=self._nonce))

    def feed(self, body: bytes, now: float) -> bytes | AuthKey:
        """Take an answer and give the next request, or the key.

        Args:
            body: the answer, without its envelope.
            now: our Unix time when it came.

        Raises:
            ValueError: it is not what it has to be; mostly an `ExchangeError`.
        """
        return self._next(body, now)

    # The server has proved nothing yet; what we answer, only the holder of its RSA key can read.

    def _on_res_pq(self, body: bytes, _now: float) -> bytes:
        answer = self._read(body, self._tl.ResPQ)
        self._server_nonce = answer.server_nonce
        fingerprints = answer.server_public_key_fingerprints
        found = next((number for number in fingerprints if number in self._keys), None)
        if found is None:
            theirs = ", ".join(f"{number & _U64:016x}" for number in fingerprints[:8]) or "none"
            ours = ", ".join(f"{number & _U64:016x}" for number in self._keys) or "none"
            raise ExchangeError(
                f"the server's key is not the configured one (it has {theirs}; configured: {ours})",
                "SERVER_KEY_UNKNOWN",
            )
        p, q = (_to_bytes(factor, 4) for factor in factorise(int.from_bytes(answer.pq, "big")))
        inner = self._tl.PQInnerData(
            pq=answer.pq,
            p=p,
            q=q,
            nonce=self._nonce,
            server_nonce=self._server_nonce,
            new_nonce=self._new_nonce,
        )
        self._next, self.asked = self._on_dh_params, "req_DH_params"
        return self._write(
            self._tl.ReqDHParams(
                nonce=self._nonce,
                server_nonce=self._server_nonce,
                p=p,
                q=q,
                public_key_fingerprint=found,
                encrypted_data=_rsa_encrypt(self._write(inner), self._keys[found]),
            )
        )

    # The server could read new_nonce: it is the one.

    def _on_dh_params(self, body: bytes, now: float) -> bytes:
        answer = self._read(body, self._tl.ServerDHParamsOk, self._tl.ServerDHParamsFail)
        new_nonce = self._new_nonce.to_bytes(32, "little", signed=True)
        if isinstance(answer, self._tl.ServerDHParamsFail):
            self._same("new_nonce_hash", answer.new_nonce_hash, _low_128(new_nonce))
            raise ExchangeError("server_DH_params_fail: the server refused our req_DH_params")
        self._aes = _temporary_aes(new_nonce, self._server_nonce.to_bytes(16, "little", signed=True))
        self._server = self._decrypt(answer.encrypted_answer)
        self._offset = self._server.server_time - now
        _check_group(self._server, self._tl.PRIME)
        return self._generate(retry_id=0)

    def _decrypt(self, encrypted: bytes) -> Any:
        if not encrypted or len(encrypted) % 16:
            raise ExchangeError(f"an encrypted answer of {len(encrypted)} bytes")
        plain = self._tl.decrypt(encrypted, *self._aes)
        stream = Reader(plain[20:])
        inner = self._read_stream(stream, self._tl.ServerDHInnerData)
        size = stream.tell()
        if (
            len(plain) - 20 - size > 15
            or sha1(plain[20 : 20 + size], usedforsecurity=False).digest() != plain[:20]
        ):
            raise ExchangeError("the SHA1 of server_DH_inner_data does not match")
        return inner

    # Our half, and the server's word that it has the same key.

    def _generate(self, retry_id: int) -> bytes:
        self._generation += 1
        g_b, key = dh_client(self._server.g, int.from_bytes(self._server.g_a, "big"), self._tl.PRIME)
        self._key = key
        inner = self._write(
            self._tl.ClientDHInnerData(
                nonce=self._nonce, server_nonce=self._server_nonce, retry_id=retry_id, g_b=g_b
            )
        )
        plain = sha1(inner, usedforsecurity=False).digest() + inner
        plain += os.urandom(-len(plain) % 16)
        self._next, self.asked = self._on_dh_gen, "set_client_DH_params"
        return self._write(
            self._tl.SetClientDHParams(
                nonce=self._nonce,
                server_nonce=self._server_nonce,
                encrypted_data=self._tl.encrypt(plain, *self._aes),
            )
        )

    def _on_dh_gen(self, body: bytes, _now: float) -> bytes | AuthKey:
        tl = self._tl
        answer = self._read(body, tl.DhGenOk, tl.DhGenRetry, tl.DhGenFail)
        number = {tl.DhGenOk: 1, tl.DhGenRetry: 2, tl.DhGenFail: 3}[type(answer)]
        new_nonce = self._new_nonce.to_bytes(32, "little", signed=True)
        aux_hash = sha1(self._key, usedforsecurity=False).digest()[:8]
        name = f"new_nonce_hash{number}"
        self._same(name, getattr(answer, name), _low_128(new_nonce + bytes((number,)) + aux_hash))
        if number == 1:
            server_nonce = self._server_nonce.to_bytes(16, "little", signed=True)
            salt = bytes(a ^ b for a, b in zip(new_nonce[:8], server_nonce[:8], strict=True))
            return AuthKey(self._key, int.from_bytes(salt, "little", signed=True), self._offset)
        if number == 3:
            raise ExchangeError("dh_gen_fail: the server gave the exchange up")
        if self._generation >= MAX_GENERATIONS:
            raise ExchangeError(f"dh_gen_retry {MAX_GENERATIONS} times in a row")
        return self._generate(retry_id=int.from_bytes(aux_hash, "little", signed=True))

    # TL, and what is compared in every answer

    @staticmethod
    def _write(obj: Any) -> bytes:
        return bytes(obj.write())

    def _read(self, body: bytes, *allowed: type[Any]) -> Any:
        return self._read_stream(Reader(body), *allowed)

    def _read_stream(self, stream: Reader, *allowed: type[Any]) -> Any:
        try:
            number = int.from_bytes(stream.read(4), "little")
            found = next((cls for cls in allowed if number == cls.ID), None)
            if found is None:
                names = " or ".join(cls.__name__ for cls in allowed)
                raise ExchangeError(f"the answer to {self.asked} is {number:#010x}, not {names}")
            answer = read_object(found.read, stream)
        except BadObject as error:
            raise ExchangeError(f"the answer to {self.asked} cannot be read: {error}") from error
        self._same("nonce", answer.nonce, self._nonce)
        if self._server_nonce:
            self._same("server_nonce", answer.server_nonce, self._server_nonce)
        return answer

    @staticmethod
    def _same(name: str, got: int, expected: int) -> None:
        if got != expected:
            raise ExchangeError(f"{name} does not match")


async def create_auth_key(wire: Wire, *, public_keys: Sequence[PublicKey], timeout: float) -> AuthKey:
    """Make an auth key over a fresh connection, which then carries the session.

    The wire's callbacks are borrowed meanwhile and given back with the key; on any failure the wire is closed
    and nobody else is told.

    Args:
        wire: a dialled connection, over which nothing was sent.
        public_keys: the RSA keys that the server may have.
        timeout: seconds that the server may take for each of its answers (three, and one for each dh_gen_retry):
            a link that is slow is no link that is silent. Our arithmetic does not count.

    Raises:
        LinkFailed: no key was made; with the evidence.
    """
    answers = Answers()
    owner = wire.on_packet, wire.on_lost
    wire.on_packet = wire.on_lost = answers.put
    try:
        key = await _exchange(wire, answers, public_keys, timeout)
    except BaseException:
        wire.abort()
        raise
    wire.on_packet, wire.on_lost = owner
    if (lost := answers.loss()) is not None:  # after the last answer: the key is good, the wire is not
        asyncio.get_running_loop().call_soon(wire.on_lost, lost)
    return key


async def _exchange(
    wire: Wire, answers: Answers, public_keys: Sequence[PublicKey], timeout: float
) -> AuthKey:
    loop = asyncio.get_running_loop()
    path = wire.route.path
    exchange = KeyExchange(public_keys)
    answer: bytes | AuthKey = exchange.start()
    sent_id = 0
    try:
        while not isinstance(answer, AuthKey):
            sent_id = message_id(time.time(), sent_id)
            wire.send(plain_packet(answer, sent_id))
            packet = await answers.get(timeout)
            answer = await loop.run_in_executor(workshop(), exchange.feed, plain_body(packet), time.time())
    except LinkFailed as exc:
        raise _lost(exc.evidence, exchange.asked) from exc
    except WireClosed as exc:  # lost during our arithmetic: the cause lies in the queue
        found = answers.loss() or Evidence(Source.SOCKET, str(exc), path=path)
        raise _lost(found, exchange.asked) from exc
    except TimeoutError as exc:
        raise _failed(Source.SILENCE, f"no answer to {exchange.asked} in {timeout:g} s", path, exc) from exc
    except ValueError as exc:
        raise _failed(Source.PROTOCOL, str(exc), path, exc) from exc
    except Exception as exc:
        raise LinkFailed(from_exception(exc, step=STEP, path=path)) from exc
    return answer


def _lost(found: Evidence, asked: str) -> LinkFailed:
    if found.source is Source.TRANSPORT and found.code == KEY_NOT_FOUND:
        # Elsewhere it says that our key is unknown. Here there is none yet: it is this exchange that is not known.
        found = replace(found, source=Source.PROTOCOL)
    return LinkFailed(replace(found, step=STEP, context=(*found.context, ("asked", asked))))


def _failed(source: Source, message: str, path: str, exc: Exception) -> LinkFailed:
    error_id = getattr(exc, "error_id", None)
    text = f"{STEP}: {message}"
    return LinkFailed(Evidence(source, text, error_id, step=STEP, path=path, cause=causes(exc)))


# --- small things ----------------------------------------------------------------------------------------------

_U64 = (1 << 64) - 1


def _check_group(inner: Any, prime: int) -> None:
    """https://core.telegram.org/mtproto/security_guidelines#validation-of-dh-parameters."""
    if int.from_bytes(inner.dh_prime, "big") != prime:
        raise ExchangeError("dh_prime is not Telegram's")
    # A generator of the subgroup of prime order (p - 1) / 2: that is what a quadratic residue is here.
    if not 2 <= inner.g <= 7 or gmpy2.jacobi(inner.g, prime) != 1:
        raise ExchangeError(f"g = {inner.g} does not generate the group")
    if not MARGIN <= int.from_bytes(inner.g_a, "big") <= prime - MARGIN:
        raise ExchangeError("g_a is out of bounds")


def _rsa_encrypt(data: bytes, key: PublicKey) -> bytes:
    """SHA1, data, random bytes, to 255 in all; as both libraries do it."""
    if key.n.bit_length() != 2048:
        raise ExchangeError(f"an RSA key of {key.n.bit_length()} bits; MTProto's have 2048")
    plain = sha1(data, usedforsecurity=False).digest() + data
    plain += os.urandom(_RSA_BYTES - len(plain))
    return int(gmpy2.powmod(int.from_bytes(plain, "big"), key.e, key.n)).to_bytes(256, "big")


def _temporary_aes(new_nonce: bytes, server_nonce: bytes) -> tuple[bytes, bytes]:
    """Key and initialisation vector for step 5: https://core.telegram.org/mtproto/auth_key."""
    new_server, server_new, new_new = (
        sha1(pair, usedforsecurity=False).digest()
        for pair in (new_nonce + server_nonce, server_nonce + new_nonce, new_nonce + new_nonce)
    )
    return new_server + server_new[:12], server_new[12:] + new_new + new_nonce[:4]


def _low_128(data: bytes) -> int:
    return int.from_bytes(sha1(data, usedforsecurity=False).digest()[4:], "little", signed=True)


def _random_int(size: int) -> int:
    return int.from_bytes(os.urandom(size), "little", signed=True)


def _to_bytes(number: int, at_least: int = 1) -> bytes:
    return number.to_bytes(max(at_least, (number.bit_length() + 7) // 8), "big")


def _tl_bytes(data: bytes) -> bytes:
    size = len(data)
    head = bytes((size,)) if size < 254 else b"\xfe" + size.to_bytes(3, "little")
    return head + data + bytes(-(len(head) + size) % 4)


# --- the library's part ------------------------------------------------------------------------------------


@cache
def _library() -> SimpleNamespace:
    """TL classes, AES and the prime of the installed library; imported on first use, inside a running loop."""
    from pyrogram import raw
    from pyrogram.crypto import aes, prime

    names = "ResPQ ServerDHParamsOk ServerDHParamsFail ServerDHInnerData DhGenOk DhGenRetry DhGenFail"
    names += " PQInnerData ClientDHInnerData"
    types = {name: getattr(raw.types, name) for name in names.split()}
    functions = {
        name: getattr(raw.functions, name) for name in ("ReqPqMulti", "ReqDHParams", "SetClientDHParams")
    }
    return SimpleNamespace(
        **types,
        **functions,
        encrypt=aes.ige256_encrypt,
        decrypt=aes.ige256_decrypt,
        PRIME=prime.CURRENT_DH_PRIME,
    )
