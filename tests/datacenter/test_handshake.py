"""The key exchange as core.telegram.org/mtproto/auth_key has it, and what becomes of one that isn't."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter
from supervisor.datacenter import handshake as server_side
from tests.datacenter.wire import Exchange, Link, Peer, TransportError, raw


@pytest.fixture
async def exchange(dc: Datacenter) -> AsyncIterator[Exchange]:
    async with await Link.open(dc) as link:
        yield Exchange(dc, link)


@pytest.mark.parametrize("padded", [False, True], ids=["sha1", "rsa_pad"])
async def test_both_rsa_schemes_make_a_key(
    dc: Datacenter, bot: Account, exchange: Exchange, padded: bool
) -> None:
    """A key made by either scheme of encrypting p_q_inner_data, and its first salt, work at once."""
    done = await exchange.run(padded=padded)
    assert isinstance(done, raw().types.DhGenOk)
    peer = Peer(dc, exchange.key, exchange.salt)
    peer.link = exchange.link
    config = await peer.hello()
    assert config.this_dc == dc.dc_id
    assert dc.seen.key_exchanges == 1
    assert not dc.seen.bad_messages


async def test_the_dc_variant_names_this_datacenter(dc: Datacenter, exchange: Exchange) -> None:
    """p_q_inner_data_dc is accepted where its number is this datacenter's."""
    await exchange.start()
    await exchange.prove(data=exchange.inner_data(dc=dc.dc_id).write())
    assert isinstance(await exchange.finish(), raw().types.DhGenOk)


async def test_another_datacenter_is_refused(exchange: Exchange) -> None:
    """p_q_inner_data_dc with another number gets -444."""
    await exchange.start()
    with pytest.raises(TransportError) as caught:
        await exchange.prove(data=exchange.inner_data(dc=4).write())
    assert caught.value.code == -444


async def test_the_prime_is_the_one_clients_know() -> None:
    """The libraries refuse any other prime than Telegram's; 3 generates its subgroup of quadratic residues."""
    from pyrogram.crypto import prime

    assert server_side.PRIME == prime.CURRENT_DH_PRIME
    assert server_side.PRIME % 3 == 2


async def test_pq_is_a_product_of_two_primes_of_31_bits(exchange: Exchange) -> None:
    """pq is below 2**63 and its factors are prime, as clients are told to expect."""
    from supervisor.datacenter.arithmetic import is_prime

    await exchange.start()
    p, q = (int.from_bytes(factor, "big") for factor in exchange.factors())
    assert p < q < 2**31
    assert is_prime(p)
    assert is_prime(q)


SPOILT = {
    "nonce": {"nonce": 5},
    "server nonce": {"server_nonce": 5},
    "factors": {"p": b"\x00\x00\x00\x07"},
    "fingerprint": {"public_key_fingerprint": 5},
    "not whole": {"encrypted_data": b"\x01" * 100},
    "noise": {"encrypted_data": b"\x01" * 256},
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT.keys())
async def test_a_spoilt_proof_is_refused(dc: Datacenter, exchange: Exchange, spoilt: dict[str, Any]) -> None:
    """req_DH_params with any wrong field gets -404, and the connection ends."""
    await exchange.start()
    with pytest.raises(TransportError) as caught:
        await exchange.prove(**spoilt)
    assert caught.value.code == -404
    assert await exchange.link.receive() is None
    assert dc.seen.handshakes_refused == 1


@pytest.mark.parametrize("field", ["pq", "p", "nonce", "server_nonce"])
async def test_spoilt_inner_data_is_refused(exchange: Exchange, field: str) -> None:
    """p_q_inner_data must repeat pq, its factors and both nonces."""
    await exchange.start()
    wrong: Any = 5 if "nonce" in field else b"\x00\x00\x00\x07"
    with pytest.raises(TransportError):
        await exchange.prove(data=exchange.inner_data(**{field: wrong}).write())


async def test_a_wrong_hash_is_refused(dc: Datacenter, exchange: Exchange) -> None:
    """client_DH_inner_data whose SHA1 doesn't fit makes no key."""
    await exchange.start()
    await exchange.prove()
    with pytest.raises(TransportError):
        await exchange.finish(spoil_hash=True)
    assert dc.seen.key_exchanges == 0


@pytest.mark.parametrize("g_b", [1, 2**1983, server_side.PRIME - 1], ids=["one", "small", "minus one"])
async def test_a_weak_g_b_is_refused(exchange: Exchange, g_b: int) -> None:
    """g_b has to keep 2**1984 away from both ends (core.telegram.org/mtproto/security_guidelines)."""
    await exchange.start()
    await exchange.prove()
    with pytest.raises(TransportError):
        await exchange.finish(g_b=g_b)


async def test_a_wrong_retry_id_is_refused(exchange: Exchange) -> None:
    """retry_id is 0 at the first attempt."""
    await exchange.start()
    await exchange.prove()
    with pytest.raises(TransportError):
        await exchange.finish(retry_id=7)


async def test_steps_cannot_be_skipped(exchange: Exchange) -> None:
    """set_client_DH_params without the steps before it is refused."""
    query = raw().functions.SetClientDHParams(nonce=1, server_nonce=1, encrypted_data=os.urandom(16))
    with pytest.raises(TransportError):
        await exchange.ask(query)


async def test_handshakes_can_be_refused(dc: Datacenter, exchange: Exchange) -> None:
    """refuse_handshakes resets whoever begins a key exchange, until it is taken back."""
    dc.refuse_handshakes()
    with pytest.raises(ConnectionError):
        await exchange.start()
    dc.refuse_handshakes(False)
    async with await Link.open(dc) as link:
        assert isinstance(await Exchange(dc, link).run(), raw().types.DhGenOk)
    assert dc.seen.handshakes_refused == 1
