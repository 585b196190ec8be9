"""Signing in as a person: phone, code, password."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter
from tests.datacenter.wire import Peer, raw

PHONE = "+49 151 12345678"


@pytest.fixture
def person(dc: Datacenter) -> Account:
    """A person without a password."""
    return dc.add_user(5_000_010, first_name="Gil", phone=PHONE, code="54321")


@pytest.fixture
async def client(dc: Datacenter, person: Account, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A bare client that is connected and not signed in."""
    import pyrogram
    from pyrogram.crypto import rsa

    from tests.datacenter.conftest import _point_at

    monkeypatch.setitem(rsa.server_public_keys, dc.fingerprint, rsa.PublicKey(dc.rsa_modulus, 65537))
    options = _point_at(dc, monkeypatch)
    made = pyrogram.Client("bare", api_id=1, api_hash="h", in_memory=True, **options)
    await made.connect()
    yield made
    await made.disconnect()


async def test_a_code_signs_in(dc: Datacenter, person: Account, client: Any) -> None:
    """The right code signs the person in, and is counted."""
    sent = await client.send_code(PHONE)
    user = await client.sign_in(PHONE, sent.phone_code_hash, "54321")
    assert (user.id, user.first_name, user.is_bot) == (person.user_id, "Gil", False)
    assert (await client.get_me()).id == person.user_id
    assert (dc.seen.codes_sent[person.user_id], dc.seen.sign_ins[person.user_id]) == (1, 1)


async def test_a_wrong_code_is_refused(client: Any) -> None:
    """A wrong code is refused, the right one is then still good, once."""
    from pyrogram.errors import PhoneCodeExpired, PhoneCodeInvalid

    sent = await client.send_code(PHONE)
    with pytest.raises(PhoneCodeInvalid):
        await client.sign_in(PHONE, sent.phone_code_hash, "11111")
    await client.sign_in(PHONE, sent.phone_code_hash, "54321")
    with pytest.raises(PhoneCodeExpired):
        await client.sign_in(PHONE, sent.phone_code_hash, "54321")


async def test_nobodys_number_is_refused(client: Any) -> None:
    """A number that is no account's is invalid."""
    from pyrogram.errors import PhoneNumberInvalid

    with pytest.raises(PhoneNumberInvalid):
        await client.send_code("+10000000")


async def test_a_banned_number_is_refused(dc: Datacenter, person: Account, client: Any) -> None:
    """A banned person gets no code."""
    from pyrogram.errors import PhoneNumberBanned

    dc.ban(person)
    with pytest.raises(PhoneNumberBanned):
        await client.send_code(PHONE)


async def test_a_password_is_asked_for(dc: Datacenter, client: Any) -> None:
    """After the code the password is needed; a wrong one is refused, the right one signs in."""
    from pyrogram.errors import PasswordHashInvalid, SessionPasswordNeeded

    careful = dc.add_user(5_000_011, first_name="Hal", phone="4915100000001", password="open sesame")
    sent = await client.send_code("4915100000001")
    with pytest.raises(SessionPasswordNeeded):
        await client.sign_in("4915100000001", sent.phone_code_hash, "12345")
    assert not dc.seen.sign_ins
    with pytest.raises(PasswordHashInvalid):
        await client.check_password("open barley")
    user = await client.check_password("open sesame")
    assert user.id == careful.user_id
    assert dc.seen.sign_ins[careful.user_id] == 1


async def test_a_password_alone_is_no_sign_in(dc: Datacenter, person: Account) -> None:
    """Without a code before it there is nothing that a password could belong to."""
    key = dc.issue_key(person)
    dc.revoke(person, "AUTH_KEY_UNREGISTERED")
    peer = Peer(dc, key, dc.engine.keys.of(None)[-1].salt)
    await peer.connect()
    await peer.hello()
    assert await peer.error(raw().functions.account.GetPassword()) == "401 AUTH_KEY_UNREGISTERED"
    await peer.close()
