"""Keys and accounts: who may call, what ends an authorization, what limits there are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter, Fault
from tests.datacenter.conftest import Dial
from tests.datacenter.wire import Peer, TransportError, hello, raw, send_message


def state() -> Any:
    return raw().functions.updates.GetState()


def sign_in(account: Account, token: str | None = None) -> Any:
    return raw().functions.auth.ImportBotAuthorization(
        flags=0, api_id=1, api_hash="h", bot_auth_token=token or account.token
    )


@pytest.fixture
async def stranger(dc: Datacenter, bot: Account) -> Any:
    """A peer whose key nobody is signed in on, and which hasn't said hello."""
    key = dc.issue_key(bot)
    dc.revoke(bot, "AUTH_KEY_UNREGISTERED")
    (found,) = dc.engine.keys.of(None)
    peer = Peer(dc, key, found.salt)
    await peer.connect()
    yield peer
    await peer.close()


# -- before anybody is signed in ----------------------------------------------------------------------------------


async def test_a_key_has_to_say_hello_first(stranger: Peer) -> None:
    """The first query of a key without InitConnection gets 400 CONNECTION_NOT_INITED; once inited it stays so."""
    config = raw().functions.help.GetConfig()
    assert await stranger.error(config) == "400 CONNECTION_NOT_INITED"
    assert isinstance(await stranger.hello(), raw().types.Config)
    assert isinstance(await stranger.ask(config), raw().types.Config)


async def test_hello_needs_a_layer(stranger: Peer) -> None:
    """InitConnection outside InvokeWithLayer gets 400 CONNECTION_LAYER_INVALID."""
    assert await stranger.error(hello().query) == "400 CONNECTION_LAYER_INVALID"


async def test_config_points_at_the_datacenter(dc: Datacenter, stranger: Peer) -> None:
    """help.getConfig names one datacenter: this one, where it listens."""
    config = await stranger.hello()
    (option,) = config.dc_options
    assert (option.ip_address, option.port, option.id) == (dc.host, dc.port, dc.dc_id)
    nearest = await stranger.ask(raw().functions.help.GetNearestDc())
    assert nearest.nearest_dc == dc.dc_id


async def test_a_key_without_an_account_may_not_call(stranger: Peer) -> None:
    """Methods that need an account get 401 AUTH_KEY_UNREGISTERED."""
    await stranger.hello()
    assert await stranger.error(state()) == "401 AUTH_KEY_UNREGISTERED"


async def test_wrappers_and_the_call_inside_are_counted(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A wrapped query counts under its wrappers' names and its own."""
    await peer.hello(state())
    calls = dc.seen.calls
    assert calls[bot.user_id, "InitConnection"] == 2
    assert calls[bot.user_id, "InvokeWithLayer"] == 2
    assert calls[bot.user_id, "updates.GetState"] == dc.seen.state_calls() == 1


# -- signing in and out -------------------------------------------------------------------------------------------


async def test_signing_in_by_token(dc: Datacenter, bot: Account, stranger: Peer) -> None:
    """A known token signs in, and is counted as a sign-in."""
    authorization = await stranger.hello(sign_in(bot))
    assert authorization.user.id == bot.user_id
    assert authorization.user.is_self
    assert isinstance(await stranger.ask(state()), raw().types.updates.State)
    assert dc.seen.sign_ins[bot.user_id] == 1


@pytest.mark.parametrize("token", ["6000000001:wrong", "1:a", "none"])
async def test_a_wrong_token_is_refused(dc: Datacenter, bot: Account, stranger: Peer, token: str) -> None:
    """An unknown token gets 400 ACCESS_TOKEN_INVALID and is no sign-in."""
    await stranger.hello()
    assert await stranger.error(sign_in(bot, token)) == "400 ACCESS_TOKEN_INVALID"
    assert not dc.seen.sign_ins


async def test_a_killed_token_is_refused(dc: Datacenter, bot: Account, stranger: Peer, peer: Peer) -> None:
    """After kill_token sessions are revoked and signing in gets 400 ACCESS_TOKEN_EXPIRED."""
    await stranger.hello()
    dc.kill_token(bot)
    assert await peer.error(state()) == "401 SESSION_REVOKED"
    assert await stranger.error(sign_in(bot)) == "400 ACCESS_TOKEN_EXPIRED"


async def test_a_banned_account_is_refused_everywhere(
    dc: Datacenter, bot: Account, stranger: Peer, peer: Peer
) -> None:
    """After ban both the sessions and a sign-in get 401 USER_DEACTIVATED_BAN."""
    await stranger.hello()
    dc.ban(bot)
    assert await peer.error(state()) == "401 USER_DEACTIVATED_BAN"
    assert await stranger.error(sign_in(bot)) == "401 USER_DEACTIVATED_BAN"


async def test_logging_out_unregisters_the_key(peer: Peer) -> None:
    """After auth.logOut the key is as if nobody had signed in."""
    assert isinstance(await peer.ask(raw().functions.auth.LogOut()), raw().types.auth.LoggedOut)
    assert await peer.error(state()) == "401 AUTH_KEY_UNREGISTERED"


@pytest.mark.parametrize("error", ["SESSION_REVOKED", "SESSION_EXPIRED", "USER_DEACTIVATED"])
async def test_a_revoked_session_stays_revoked(dc: Datacenter, bot: Account, dial: Dial, error: str) -> None:
    """Every query of the old keys gets the error, InitConnection included; a key made later works."""
    old = await dial()
    dc.revoke(bot, error)
    assert await old.error(state()) == f"401 {error}"
    assert await old.error(hello()) == f"401 {error}"
    assert isinstance(await (await dial()).ask(state()), raw().types.updates.State)


async def test_a_revoked_bot_can_sign_in_on_a_key_that_is_only_unregistered(
    dc: Datacenter, bot: Account, peer: Peer
) -> None:
    """AUTH_KEY_UNREGISTERED leaves the key good: help.getConfig is answered, and the token signs in again."""
    dc.revoke(bot, "AUTH_KEY_UNREGISTERED")
    assert await peer.error(state()) == "401 AUTH_KEY_UNREGISTERED"
    assert isinstance(await peer.hello(), raw().types.Config)
    await peer.ask(sign_in(bot))
    assert isinstance(await peer.ask(state()), raw().types.updates.State)


async def test_forgotten_keys_get_404(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """After forget_keys the next packet gets -404."""
    dc.forget_keys(bot)
    peer.say(state())
    with pytest.raises(TransportError) as caught:
        while await peer.packet():
            pass
    assert caught.value.code == -404


async def test_an_api_id_can_be_demanded() -> None:
    """With api_id another one gets 400 API_ID_INVALID."""
    async with Datacenter(api_id=99) as dc:
        peer = Peer(dc, dc.issue_key(dc.add_bot()), dc.engine.keys.of(None)[0].salt)
        await peer.connect()
        assert await peer.error(hello()) == "400 API_ID_INVALID"
        await peer.close()


# -- overlap ------------------------------------------------------------------------------------------------------


async def second(peer: Peer, *, same_session: bool = False) -> Peer:
    """Another connection of the same key."""
    other = Peer(peer.dc, peer.key, peer.salt, peer.session_id if same_session else None)
    if same_session:
        other._content, other._last = 1000, peer._last
    await other.connect()
    return other


async def test_queries_over_two_connections_kill_the_key(dc: Datacenter, peer: Peer) -> None:
    """Once both have sent queries the key gets 406 AUTH_KEY_DUPLICATED, later connections 401."""
    other = await second(peer)
    assert isinstance(await other.ask(state()), raw().types.updates.State)
    assert await peer.error(state()) == "406 AUTH_KEY_DUPLICATED"
    assert await other.error(state()) == "406 AUTH_KEY_DUPLICATED"
    await other.close()
    await other.connect()
    assert await other.error(hello()) == "401 AUTH_KEY_UNREGISTERED"
    await other.close()
    assert dc.seen.overlaps == 1
    assert dc.seen.max_connections_per_key == 2


async def test_pings_and_acknowledgements_are_no_overlap(dc: Datacenter, peer: Peer) -> None:
    """The older connection may still ping and acknowledge while the newer one asks."""
    answer = await peer.answer_message(peer.say(state()))
    other = await second(peer)
    await other.ask(state())
    await peer.ask(raw().functions.Ping(ping_id=1), content=False)
    peer.ack(answer)
    assert isinstance(await other.ask(state()), raw().types.updates.State)
    assert dc.seen.overlaps == 0
    await other.close()


async def test_one_connection_after_the_other_is_no_overlap(dc: Datacenter, peer: Peer) -> None:
    """A connection that is closed before the next one opens harms nobody."""
    for _ in range(3):
        await peer.close()
        await peer.connect()
        assert isinstance(await peer.ask(state()), raw().types.updates.State)
    assert dc.seen.overlaps == 0


async def test_overlap_can_be_judged_loosely(dc: Datacenter, peer: Peer) -> None:
    """Without strict_overlap another MTProto session may run beside, the same one still may not."""
    dc.engine.settings.strict_overlap = False
    media = await second(peer)
    await media.ask(state())
    assert isinstance(await peer.ask(state()), raw().types.updates.State)
    twin = await second(peer, same_session=True)
    await twin.ask(state())
    peer._content = 2000
    assert await peer.error(state()) == "406 AUTH_KEY_DUPLICATED"
    await media.close()
    await twin.close()


# -- limits -------------------------------------------------------------------------------------------------------


async def test_more_sends_than_the_limit_are_flood_waited(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """Of 40 sends at once 30 take effect and 10 get FLOOD_WAIT; having been under way they are not early."""
    dc.latency = 0.2
    asked = [peer.say(send_message(dc, bot, str(number))) for number in range(40)]
    answers = [await peer.answer(msg_id) for msg_id in asked]
    errors = [answer for answer in answers if isinstance(answer, raw().types.RpcError)]
    assert len(dc.seen.sends[bot.user_id]) == 30
    assert len(errors) == 10
    assert all(error.error_message.startswith("FLOOD_WAIT_") for error in errors)
    assert dc.seen.early_calls == []


async def test_the_limit_can_be_lifted(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """send_limit 0 lets 100 sends at once pass."""
    dc.send_limit = 0
    asked = [peer.say(send_message(dc, bot, str(number))) for number in range(100)]
    for msg_id in asked:
        await peer.answer(msg_id)
    assert len(dc.seen.sends[bot.user_id]) == 100


async def test_other_methods_have_no_limit(peer: Peer) -> None:
    """100 updates.getState at once are all answered."""
    asked = [peer.say(state()) for _ in range(100)]
    answers = [await peer.answer(msg_id) for msg_id in asked]
    assert all(isinstance(answer, raw().types.updates.State) for answer in answers)


async def test_a_wait_lasts_until_it_is_over(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A flood-waited method gets what remains of the wait, other methods are answered, and after it all is well."""
    dc.faults.add(Fault("rpc_error", bot.user_id, "messages.SendMessage", code=420, error="FLOOD_WAIT_2"))
    assert await peer.error(send_message(dc, bot, "a")) == "420 FLOOD_WAIT_2"
    await asyncio.sleep(1.1)
    assert await peer.error(send_message(dc, bot, "b")) == "420 FLOOD_WAIT_1"
    assert isinstance(await peer.ask(state()), raw().types.updates.State)
    assert len(dc.seen.early_calls) == 1
    await asyncio.sleep(1)
    assert isinstance(await peer.ask(send_message(dc, bot, "c")), raw().types.UpdateShortSentMessage)
    assert len(dc.seen.early_calls) == 1


async def test_a_call_to_a_peer_that_was_not_told_to_wait_is_not_early(
    dc: Datacenter, bot: Account, peer: Peer
) -> None:
    """A caller that keeps waits by peer gets the rest of the wait too, but is not blamed at the first time."""
    dc.add_person(701, "Bea")
    other = raw().types.InputPeerUser(user_id=701, access_hash=0)
    dc.faults.add(Fault("rpc_error", method="messages.SendMessage", code=420, error="FLOOD_WAIT_30"))
    await peer.ask(send_message(dc, bot, "a"))
    await asyncio.sleep(0.1)
    assert (await peer.error(send_message(dc, bot, "b", peer=other))).startswith("420 FLOOD_WAIT_")
    assert dc.seen.early_calls == []
    await asyncio.sleep(0.25)
    await peer.ask(send_message(dc, bot, "c", peer=other))
    assert [(who, what) for _, who, what in dc.seen.early_calls] == [(bot.user_id, "messages.SendMessage")]


async def test_a_random_key_of_a_user_account_works(dc: Datacenter, dial: Dial) -> None:
    """A user account has no token; a key issued for it is signed in."""
    user = dc.add_user(5_000_001, first_name="Cleo")
    peer = await dial(user)
    (me,) = await peer.ask(raw().functions.users.GetUsers(id=[raw().types.InputUserSelf()]))
    assert (me.id, me.first_name, bool(me.bot)) == (5_000_001, "Cleo", False)
