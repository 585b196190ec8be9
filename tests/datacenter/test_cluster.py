"""Two datacenters with one world: homes, guests, and the way from one to the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from supervisor.datacenter import Account, Cluster
from tests.datacenter.test_files import document, location, upload
from tests.datacenter.wire import Exchange, Link, Peer, TransportError, hello, raw, send_message

HERE, THERE = 2, 4
PHONE = "+4915112345678"


def functions() -> Any:
    return raw().functions


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Datacenters 2 and 4; a test that met an unknown method fails."""
    async with Cluster(HERE, THERE) as running:
        yield running
        assert [dc.seen.unknown_methods for dc in running] == [[], []]


@pytest.fixture
def bot(cluster: Cluster) -> Account:
    return cluster[HERE].add_bot()


def token_of(account: Account) -> Any:
    return functions().auth.ImportBotAuthorization(
        flags=0, api_id=1, api_hash="h", bot_auth_token=account.token
    )


class Peers:
    """Makes peers, which are closed at the end."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.made: list[Peer] = []

    async def guest(self, dc_id: int) -> Peer:
        """A peer with a key of this datacenter on which nobody is signed in."""
        dc = self._cluster[dc_id]
        link = await Link.open(dc)
        exchange = Exchange(dc, link)
        await exchange.run()
        peer = Peer(dc, exchange.key, exchange.salt)
        peer.link = link
        self.made.append(peer)
        await peer.hello()
        return peer

    async def of(self, account: Account) -> Peer:
        """A peer on which the account is signed in, here."""
        peer = await Peer.signed_in(self._cluster[HERE], account)
        self.made.append(peer)
        return peer

    async def transferred(self, account: Account) -> tuple[Peer, Peer]:
        """The account here, and as a guest there."""
        home, away = await self.of(account), await self.guest(THERE)
        exported = await home.ask(functions().auth.ExportAuthorization(dc_id=THERE))
        await away.ask(functions().auth.ImportAuthorization(id=exported.id, bytes=exported.bytes))
        return home, away


@pytest.fixture
async def peers(cluster: Cluster) -> AsyncIterator[Peers]:
    made = Peers(cluster)
    yield made
    for peer in made.made:
        await peer.close()


async def test_the_configuration_names_every_datacenter(cluster: Cluster, bot: Account, peers: Peers) -> None:
    """Each says which it is, and where all of them are."""
    for dc in cluster:
        config = await (await peers.guest(dc.dc_id)).ask(functions().help.GetConfig())
        where = {option.id: (option.ip_address, option.port) for option in config.dc_options}
        assert config.this_dc == dc.dc_id
        assert where == {HERE: ("127.0.0.1", cluster[HERE].port), THERE: ("127.0.0.1", cluster[THERE].port)}


async def test_a_sign_in_elsewhere_is_sent_home(cluster: Cluster, bot: Account, peers: Peers) -> None:
    """USER_MIGRATE_2 for a bot's token, PHONE_MIGRATE_2 for a number; nobody is signed in, no code is sent."""
    user = cluster[HERE].add_user(5, phone=PHONE)
    peer = await peers.guest(THERE)
    assert await peer.error(token_of(bot)) == "303 USER_MIGRATE_2"
    code = functions().auth.SendCode(
        phone_number=PHONE, api_id=1, api_hash="h", settings=raw().types.CodeSettings()
    )
    assert await peer.error(code) == "303 PHONE_MIGRATE_2"
    entered = functions().auth.SignIn(phone_number=PHONE, phone_code_hash="x", phone_code=user.code)
    assert await peer.error(entered) == "303 PHONE_MIGRATE_2"
    assert await peer.error(functions().updates.GetState()) == "401 AUTH_KEY_UNREGISTERED"
    assert cluster[THERE].seen.codes_sent == {}
    at_home = await peers.guest(HERE)
    assert (await at_home.ask(token_of(bot))).user.id == bot.user_id


async def test_keys_are_of_one_datacenter(cluster: Cluster, bot: Account) -> None:
    """A key of the one is unknown to the other: -404."""
    peer = Peer(cluster[THERE], cluster[HERE].issue_key(bot))
    await peer.connect()
    with pytest.raises(TransportError) as error:
        await peer.ask(hello())
    await peer.close()
    assert error.value.code == -404


async def test_an_authorization_is_transferred_once_and_to_one_place(
    cluster: Cluster, bot: Account, peers: Peers
) -> None:
    """Before it a guest is nobody; the bytes are good for that account, that datacenter, and one time."""
    home, away = await peers.of(bot), await peers.guest(THERE)
    get = functions().upload.GetFile(location=location(cluster[THERE].add_file(b"x")), offset=0, limit=4096)
    assert await away.error(get) == "401 AUTH_KEY_UNREGISTERED"
    assert await away.error(functions().auth.ExportAuthorization(dc_id=HERE)) == "401 AUTH_KEY_UNREGISTERED"
    for wrong in (HERE, 3):
        assert await home.error(functions().auth.ExportAuthorization(dc_id=wrong)) == "400 DC_ID_INVALID"
    exported = await home.ask(functions().auth.ExportAuthorization(dc_id=THERE))
    good = {"id": bot.user_id, "bytes": exported.bytes}
    bad: list[dict[str, Any]] = [{"id": 5}, {"bytes": b"other"}]
    for spoilt in bad:
        error = await away.error(functions().auth.ImportAuthorization(**{**good, **spoilt}))
        assert error == "400 AUTH_BYTES_INVALID"
    at_home = await peers.guest(HERE)
    assert await at_home.error(functions().auth.ImportAuthorization(**good)) == "400 AUTH_BYTES_INVALID"
    assert (await away.ask(functions().auth.ImportAuthorization(**good))).user.id == bot.user_id
    assert await away.error(functions().auth.ImportAuthorization(**good)) == "400 AUTH_BYTES_INVALID"
    assert (await away.ask(get)).bytes == b"x"


async def test_a_guest_has_files_and_nothing_else(cluster: Cluster, bot: Account, peers: Peers) -> None:
    """Messages and updates are at home: a guest is sent there, and gets no updates."""
    home, away = await peers.transferred(bot)
    assert await away.error(functions().updates.GetState()) == "303 USER_MIGRATE_2"
    assert await away.error(send_message(cluster[THERE], bot, "hi")) == "303 USER_MIGRATE_2"
    await home.ask(functions().updates.GetState())
    cluster[THERE].push_message(bot, "hello")
    update = (await home.until(lambda message: hasattr(message.body, "updates"))).body
    assert update.updates[0].message.message == "hello"
    assert await away.is_quiet()


async def test_a_file_lies_on_one_datacenter(cluster: Cluster, bot: Account, peers: Peers) -> None:
    """Its message names it, the other sends there (FILE_MIGRATE_2); parts sent to one are missing in the other."""
    home, away = await peers.transferred(bot)
    answer = await home.ask(document(cluster[HERE], await upload(home, b"x" * 100)))
    found = answer.updates[1].message.media.document
    (stored,) = cluster.shared.files.files.values()
    assert found.dc_id == stored.dc_id == HERE
    get = functions().upload.GetFile(location=location(stored), offset=0, limit=4096)
    assert await away.error(get) == "303 FILE_MIGRATE_2"
    assert (await home.ask(get)).bytes == b"x" * 100
    file = await upload(away, b"y" * 100, file_id=9)
    assert await home.error(document(cluster[HERE], file, 4)) == "400 FILE_PART_0_MISSING"


async def test_a_home_that_moved(cluster: Cluster, bot: Account, peers: Peers) -> None:
    """A stored session is sent on with every query and gets no updates; the new home signs the account in."""
    home = await peers.of(bot)
    await home.ask(functions().updates.GetState())
    cluster.move(bot, THERE)
    assert await home.error(functions().updates.GetState()) == "303 USER_MIGRATE_4"
    assert await home.error(token_of(bot)) == "303 USER_MIGRATE_4"
    cluster[HERE].push_message(bot, "hello")
    assert await home.is_quiet()
    there = await peers.guest(THERE)
    assert (await there.ask(token_of(bot))).user.id == bot.user_id
    with pytest.raises(ValueError, match="no datacenter 3"):
        cluster.move(bot, 3)


async def test_what_ends_an_account_ends_its_guests(cluster: Cluster, bot: Account, peers: Peers) -> None:
    """A ban, or a token that was replaced, is the account's and not one datacenter's."""
    state, config = functions().updates.GetState(), functions().help.GetConfig()
    home, away = await peers.transferred(bot)
    cluster[HERE].kill_token(bot)
    assert await home.error(state) == await away.error(config) == "401 SESSION_REVOKED"
    cluster[HERE].ban(bot)
    assert await home.error(state) == await away.error(config) == "401 USER_DEACTIVATED_BAN"


async def test_a_number_is_nobody_elses_and_bots_have_ids_of_their_own(cluster: Cluster) -> None:
    """One world: the default person is there once, and bots of both datacenters differ."""
    assert cluster[HERE].person is cluster[THERE].person
    assert cluster[HERE].add_bot().user_id != cluster[THERE].add_bot().user_id
