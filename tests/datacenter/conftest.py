"""A datacenter, raw peers and bare clients, closed after each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter
from tests.datacenter.wire import Peer

Dial = Callable[..., Awaitable[Peer]]
Bare = Callable[..., Awaitable[Any]]


@pytest.fixture
async def dc() -> AsyncIterator[Datacenter]:
    """A datacenter that serves whoever comes; a test that met an unknown method fails."""
    async with Datacenter() as running:
        yield running
        assert running.seen.unknown_methods == []


@pytest.fixture
def bot(dc: Datacenter) -> Account:
    return dc.add_bot()


@pytest.fixture
async def dial(dc: Datacenter, bot: Account) -> AsyncIterator[Dial]:
    """Make peers: signed in as `bot` unless another account is given."""
    peers: list[Peer] = []

    async def make(account: Account | None = None, *, transport: str = "abridged") -> Peer:
        peer = await Peer.signed_in(dc, account or bot, transport=transport)
        peers.append(peer)
        return peer

    yield make
    for peer in peers:
        await peer.close()


@pytest.fixture
async def peer(dial: Dial) -> Peer:
    return await dial()


@pytest.fixture
async def bare(dc: Datacenter, bot: Account, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bare]:
    """Start bare clients of the installed library, signed in by token."""
    import pyrogram
    from pyrogram.crypto import rsa

    monkeypatch.setitem(rsa.server_public_keys, dc.fingerprint, rsa.PublicKey(dc.rsa_modulus, 65537))
    options = _point_at(dc, monkeypatch)
    started: list[Any] = []

    async def start(account: Account | None = None, **more: Any) -> Any:
        client = pyrogram.Client(
            "bare",
            api_id=1,
            api_hash="h",
            bot_token=(account or bot).token,
            in_memory=True,
            **options,
            **more,
        )
        await client.start()
        started.append(client)
        return client

    yield start
    for client in started:
        if client.is_connected:
            await client.stop()


def _point_at(dc: Datacenter, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Point bare clients at `dc`; the options to make them with."""
    from pyrogram.connection import Connection, connection

    if hasattr(connection, "DataCenter"):  # Pyrogram looks addresses up in a table
        monkeypatch.setattr(connection, "DataCenter", lambda *_: (dc.host, dc.port))
        return {}

    def connect(**options: Any) -> Any:  # Kurigram takes a factory
        return Connection(**{**options, "server_address": dc.host, "port": dc.port})

    return {"connection_factory": connect}
