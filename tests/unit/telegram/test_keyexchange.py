"""The key exchange without a socket: what it makes, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.telegram import arithmetic, keyexchange
from supervisor.telegram.arithmetic import factorise
from supervisor.telegram.keyexchange import AuthKey, ExchangeError, KeyExchange, PublicKey
from tests.unit.telegram.forged_server import ForgedServer, rsa_key


def exchange(server: ForgedServer, *keys: PublicKey) -> AuthKey:
    """Run an exchange to its end."""
    client = KeyExchange(keys or [rsa_key()[0]])
    answer: bytes | AuthKey = client.start()
    while not isinstance(answer, AuthKey):
        answer = client.feed(server.answer(answer), time.time())
    return answer


async def test_both_sides_have_the_same_key() -> None:
    """The key is the server's, the salt that of the two nonces, the offset that of the clocks."""
    server = ForgedServer()
    made = exchange(server)
    assert made.key == server.key
    assert len(made.key) == 256
    new, theirs = server._bytes(server._new_nonce, 32), server._bytes(server._server_nonce, 16)
    salt = bytes(a ^ b for a, b in zip(new[:8], theirs[:8], strict=True))
    assert made.server_salt == int.from_bytes(salt, "little", signed=True)
    assert abs(made.time_offset - 1000) < 5
    assert made.key.hex() not in repr(made)
    assert str(made.key) not in repr(made)


async def test_the_server_may_ask_for_another_secret_three_times() -> None:
    """After dh_gen_retry comes a new b, with the hash of the key before as retry_id; the fourth retry ends it."""
    server = ForgedServer(ends=("retry", "retry", "retry", "ok"))
    assert exchange(server).key == server.key
    assert server.retry_ids[0] == 0
    assert len(set(server.retry_ids)) == 4
    with pytest.raises(ExchangeError, match=r"^dh_gen_retry 4 times in a row$"):
        exchange(ForgedServer(ends=("retry",) * 4))


async def test_a_server_that_gives_up_is_believed() -> None:
    """dh_gen_fail and server_DH_params_fail end the exchange, by their names."""
    with pytest.raises(ExchangeError, match=r"^dh_gen_fail"):
        exchange(ForgedServer(ends=("fail",)))
    with pytest.raises(ExchangeError, match=r"^server_DH_params_fail"):
        exchange(ForgedServer(lambda name, value: name == "fail" or value))


async def test_another_servers_key_is_said_to_be_another() -> None:
    """No fingerprint in common: both sides' are named."""
    other = PublicKey(rsa_key()[0].n + 2, 65537)
    with pytest.raises(ExchangeError, match=r"^the server's key is not the configured one") as failed:
        exchange(ForgedServer(), other)
    assert f"{rsa_key()[0].fingerprint & (1 << 64) - 1:016x}" in str(failed.value)
    assert f"{other.fingerprint & (1 << 64) - 1:016x}" in str(failed.value)


def changed(field: str, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def forge(obj: Any) -> Any:
        setattr(obj, field, change(getattr(obj, field)))
        return obj

    return forge


def number(value: int) -> Callable[[Any], bytes]:
    return lambda _: value.to_bytes(256, "big")


plus_one = lambda value: value + 1  # noqa: E731
FORGED: list[tuple[str, Callable[[Any], Any], str, tuple[str, ...]]] = [
    ("ResPQ", changed("nonce", plus_one), "nonce does not match", ()),
    ("ResPQ", changed("pq", lambda _: b"\x05"), "pq is not the product of two different primes", ()),
    ("ResPQ", changed("pq", lambda _: (1_000_003**2).to_bytes(8, "big")), "pq is not the product", ()),
    ("ResPQ", changed("pq", lambda _: b"\xff" * 9), "pq is not the product of two different primes", ()),
    ("ResPQ", changed("pq", lambda _: (101 * 103 * 107).to_bytes(8, "big")), "pq is not the product", ()),
    ("ResPQ", changed("pq", lambda _: b""), "pq is not the product of two different primes", ()),
    ("ResPQ", lambda _: b"", "the answer to req_pq_multi cannot be read: it ends early", ()),
    ("ResPQ", lambda obj: obj.write()[:-4], "the answer to req_pq_multi cannot be read: it ends early", ()),
    ("ResPQ", lambda _: bytes(8), "the answer to req_pq_multi is 0x00000000, not ResPQ", ()),
    ("ServerDHParamsOk", changed("nonce", plus_one), "nonce does not match", ()),
    ("ServerDHParamsOk", changed("server_nonce", plus_one), "server_nonce does not match", ()),
    ("ServerDHParamsOk", changed("encrypted_answer", lambda _: b""), "an encrypted answer of 0 bytes", ()),
    ("ServerDHParamsOk", changed("encrypted_answer", lambda v: v[:-1]), "an encrypted answer of 5", ()),
    (
        "ServerDHParamsOk",
        changed("encrypted_answer", lambda v: bytes(16) + v),
        "the answer to req_DH_params",
        (),
    ),
    ("ServerDHParamsOk", lambda obj: obj.write()[:100], "the answer to req_DH_params cannot be read", ()),
    ("plain", lambda value: bytes(20) + value[20:], "the SHA1 of server_DH_inner_data does not match", ()),
    ("plain", lambda value: value + bytes(16), "the SHA1 of server_DH_inner_data does not match", ()),
    ("ServerDHInnerData", changed("nonce", plus_one), "nonce does not match", ()),
    ("ServerDHInnerData", changed("server_nonce", plus_one), "server_nonce does not match", ()),
    ("ServerDHInnerData", changed("dh_prime", lambda v: v[:-1] + b"\x5d"), "dh_prime is not Telegram's", ()),
    ("ServerDHInnerData", changed("g", lambda _: 1), "g = 1 does not generate the group", ()),
    ("ServerDHInnerData", changed("g", lambda _: 2), "g = 2 does not generate the group", ()),
    ("ServerDHInnerData", changed("g", lambda _: 8), "g = 8 does not generate the group", ()),
    ("ServerDHInnerData", changed("g_a", number(0)), "g_a is out of bounds", ()),
    ("ServerDHInnerData", changed("g_a", number(1)), "g_a is out of bounds", ()),
    ("ServerDHInnerData", changed("g_a", number((1 << 1984) - 1)), "g_a is out of bounds", ()),
    ("ServerDHInnerData", changed("g_a", lambda _: b"\xff" * 256), "g_a is out of bounds", ()),
    ("DhGenOk", changed("nonce", plus_one), "nonce does not match", ()),
    ("DhGenOk", changed("server_nonce", plus_one), "server_nonce does not match", ()),
    ("DhGenOk", changed("new_nonce_hash1", plus_one), "new_nonce_hash1 does not match", ()),
    ("DhGenRetry", changed("new_nonce_hash2", plus_one), "new_nonce_hash2 does not match", ("retry",)),
    ("DhGenFail", changed("new_nonce_hash3", plus_one), "new_nonce_hash3 does not match", ("fail",)),
]


@pytest.mark.parametrize(
    ("name", "forge", "message", "ends"), FORGED, ids=[f"{row[0]}: {row[2]}" for row in FORGED]
)
async def test_a_forged_answer_is_refused(
    name: str, forge: Callable[[Any], Any], message: str, ends: tuple[str, ...]
) -> None:
    """Every check of core.telegram.org/mtproto/security_guidelines, by what it says."""
    server = ForgedServer(lambda at, value: forge(value) if at == name else value, ends or ("ok",))
    with pytest.raises(ValueError) as failed:
        exchange(server)
    assert str(failed.value).startswith(message)


@pytest.mark.parametrize(
    ("above", "message"), [(1, "g_a is out of bounds"), (0, "new_nonce_hash1 does not match")]
)
async def test_g_a_near_the_prime_is_refused(above: int, message: str) -> None:
    """The upper bound: p - 2^1984 is the last that is allowed."""
    forge = changed("g_a", number(ForgedServer().prime - (1 << 1984) + above))
    server = ForgedServer(lambda name, obj: forge(obj) if name == "ServerDHInnerData" else obj)
    with pytest.raises(ExchangeError, match=message):
        exchange(server)


async def test_a_forged_count_costs_neither_time_nor_memory() -> None:
    """A vector of 2^31 - 1 fingerprints that are not there: the libraries would count them all."""

    def forge(name: str, value: Any) -> Any:
        if name != "ResPQ":
            return value
        value.server_public_key_fingerprints = []
        return value.write()[:-4] + b"\xff\xff\xff\x7f"

    begun = time.process_time()
    with pytest.raises(ExchangeError, match="ends early"):
        exchange(ForgedServer(forge))
    assert time.process_time() - begun < 5


async def test_fingerprints_are_telegrams() -> None:
    """Computed fingerprints are those by which the library keys its table."""
    from pyrogram.crypto import rsa

    assert {key.fingerprint for key in keyexchange.telegram_public_keys()} == set(rsa.server_public_keys)


async def test_a_secret_g_b_stays_in_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A b whose g^b lies outside is drawn again."""
    prime = ForgedServer().prime
    draws = iter((1, 1024, 123_456_789))
    monkeypatch.setattr("secrets.randbits", lambda _: next(draws))
    g_b, key = arithmetic.dh_client(3, 9, prime)
    assert int.from_bytes(g_b, "big") == pow(3, 123_456_789, prime)
    assert int.from_bytes(key, "big") == pow(9, 123_456_789, prime)


def primes(bits: int) -> st.SearchStrategy[int]:
    return st.integers(1 << (bits - 1), (1 << bits) - 1).map(lambda start: int(gmpy2.next_prime(start)))


@given(st.sets(primes(31) | primes(12) | primes(4), min_size=2, max_size=2))
def test_pq_is_taken_apart(factors: set[int]) -> None:
    """Whatever two primes pq is made of, small ones too, come back in order."""
    p, q = sorted(factors)
    assert factorise(p * q) == (p, q)


def test_a_number_that_the_first_power_does_not_split_falls_to_rho(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where p - 1 finds nothing, or both at once, rho does; where it may take no step, that is said."""
    pq = 1_229_739_323 * 1_402_015_859
    monkeypatch.setattr(arithmetic, "_smooth", lambda: 2)
    assert factorise(pq) == (1_229_739_323, 1_402_015_859)
    monkeypatch.setattr(arithmetic, "_smooth", lambda: 1_229_739_322 * 1_402_015_858)
    assert factorise(pq) == (1_229_739_323, 1_402_015_859)
    monkeypatch.setattr(arithmetic, "MAX_STEPS", 0)
    with pytest.raises(ValueError, match="pq is not the product"):
        factorise(pq)


def test_a_key_of_another_size_is_refused() -> None:
    """MTProto pads to 255 bytes: a smaller modulus cannot carry them."""
    with pytest.raises(ExchangeError, match="an RSA key of 1024 bits"):
        keyexchange._rsa_encrypt(b"x", PublicKey((1 << 1023) + 1, 65537))


def test_a_pem_that_holds_no_key_is_a_value_error() -> None:
    """What the operator gave is named, not a stack of DER."""
    with pytest.raises(ValueError, match="PEM"):
        keyexchange.public_key_from_pem("nothing")
