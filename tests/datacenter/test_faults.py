"""Scripted faults: each kind does what it says, to whom it says, as often as it says."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter, Fault, FaultKind
from tests.datacenter.conftest import Dial
from tests.datacenter.wire import Peer, TransportError, hello, raw, send_message


def state() -> Any:
    return raw().functions.updates.GetState()


async def again(peer: Peer) -> None:
    """Reconnect and speak, so that the session's answers come again."""
    await peer.close()
    await peer.connect()
    await peer.ask(raw().functions.Ping(ping_id=1), content=False)


async def test_an_rpc_error_is_given_and_nothing_done(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """The call gets the scripted error and has no effect; the next one is well."""
    dc.faults.add(Fault("rpc_error", method="messages.SendMessage", code=500, error="RPC_CALL_FAIL"))
    assert await peer.error(send_message(dc, bot, "x")) == "500 RPC_CALL_FAIL"
    assert not dc.seen.sends
    assert isinstance(await peer.ask(send_message(dc, bot, "x")), raw().types.UpdateShortSentMessage)
    assert dc.seen.errors[bot.user_id, "messages.SendMessage", "RPC_CALL_FAIL"] == 1


async def test_a_call_is_dropped_before_it_is_executed(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """drop_before resets the connection; the call has no effect, and its msg_id is still free to be used."""
    dc.faults.add(Fault("drop_before", method="messages.SendMessage"))
    query, msg_id, seq_no = send_message(dc, bot, "x"), peer.next_id(), peer.next_seq()
    peer.say(query, msg_id=msg_id, seq_no=seq_no)
    assert peer.link is not None
    assert await peer.link.is_reset()
    assert not dc.seen.sends
    await again(peer)
    answer = await peer.answer(peer.say(query, msg_id=msg_id, seq_no=seq_no))
    assert isinstance(answer, raw().types.UpdateShortSentMessage)
    assert dc.seen.times_delivered("x") == 1


async def test_an_answer_is_lost_after_the_call_was_executed(
    dc: Datacenter, bot: Account, peer: Peer
) -> None:
    """drop_after resets the connection after the effect; the answer comes on the session's next connection."""
    dc.faults.add(Fault("drop_after", method="messages.SendMessage"))
    msg_id = peer.say(send_message(dc, bot, "x"))
    assert peer.link is not None
    assert await peer.link.is_reset()
    assert dc.seen.times_delivered("x") == 1
    await again(peer)
    assert isinstance(await peer.answer(msg_id), raw().types.UpdateShortSentMessage)
    assert dc.seen.times_delivered("x") == 1


async def test_a_lost_answer_is_given_again_for_the_same_msg_id(
    dc: Datacenter, bot: Account, peer: Peer
) -> None:
    """After silence the same msg_id gets the answer, and the call is executed once."""
    dc.faults.add(Fault("silence", method="messages.SendMessage"))
    query, msg_id, seq_no = send_message(dc, bot, "x"), peer.next_id(), peer.next_seq()
    peer.say(query, msg_id=msg_id, seq_no=seq_no)
    assert await peer.is_quiet()
    assert dc.seen.times_delivered("x") == 1
    answer = await peer.answer(peer.say(query, msg_id=msg_id, seq_no=seq_no))
    assert isinstance(answer, raw().types.UpdateShortSentMessage)
    assert dc.seen.times_delivered("x") == 1


async def test_silence_lasts_as_long_as_the_fault(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """Silence without a count withholds every repetition too, on new connections as well."""
    fault = dc.faults.add(Fault("silence", method="messages.SendMessage", count=None))
    query, msg_id, seq_no = send_message(dc, bot, "x"), peer.next_id(), peer.next_seq()
    for _ in range(2):
        peer.say(query, msg_id=msg_id, seq_no=seq_no)
        assert await peer.is_quiet()
    await again(peer)
    assert all(getattr(message.body, "req_msg_id", None) != msg_id for message in peer.received)
    dc.faults.remove(fault)
    answer = await peer.answer(peer.say(query, msg_id=msg_id, seq_no=seq_no))
    assert isinstance(answer, raw().types.UpdateShortSentMessage)


@pytest.mark.parametrize("code", [16, 17, 20, 32, 64])
async def test_bad_msg_codes(dc: Datacenter, bot: Account, peer: Peer, code: int) -> None:
    """A bad_msg fault refuses a good message with its code; it isn't executed."""
    dc.faults.add(Fault("bad_msg", method="messages.SendMessage", code=code))
    answer = await peer.ask(send_message(dc, bot, "x"))
    assert answer.error_code == code
    assert not dc.seen.sends


async def test_a_transport_error_for_one_method(dc: Datacenter, peer: Peer) -> None:
    """A transport fault that names a method spares the others."""
    dc.faults.add(Fault("transport", method="help.GetNearestDc", code=-429))
    assert isinstance(await peer.ask(state()), raw().types.updates.State)
    peer.say(raw().functions.help.GetNearestDc())
    with pytest.raises(TransportError) as caught:
        await peer.packet()
    assert caught.value.code == -429


async def test_a_wrapper_can_be_named(dc: Datacenter, peer: Peer) -> None:
    """A fault for InitConnection meets whatever query is wrapped in it, and no other."""
    dc.faults.add(Fault("rpc_error", method="InitConnection", code=401, error="SESSION_EXPIRED"))
    assert isinstance(await peer.ask(state()), raw().types.updates.State)
    assert await peer.error(hello()) == "401 SESSION_EXPIRED"


async def test_a_fault_is_for_its_account(dc: Datacenter, dial: Dial) -> None:
    """With an account the others' calls are well."""
    other = dc.add_bot()
    mine, theirs = await dial(), await dial(other)
    dc.faults.add(Fault("rpc_error", other.user_id, count=None, code=503, error="TIMEOUT"))
    assert isinstance(await mine.ask(state()), raw().types.updates.State)
    assert await theirs.error(state()) == "503 TIMEOUT"


async def test_a_fault_can_meet_a_sign_in(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """A sign-in counts as a call of the account whose token it is."""
    dc.revoke(bot, "AUTH_KEY_UNREGISTERED")
    dc.faults.add(Fault("rpc_error", bot.user_id, code=420, error="FLOOD_WAIT_1800"))
    query = raw().functions.auth.ImportBotAuthorization(
        flags=0, api_id=1, api_hash="h", bot_auth_token=bot.token
    )
    assert await peer.error(query) == "420 FLOOD_WAIT_1800"


async def test_count_and_skip(dc: Datacenter, peer: Peer) -> None:
    """A fault lets `skip` calls pass, happens `count` times, and is gone."""
    fault = dc.faults.add(Fault("rpc_error", count=2, skip=1, code=500, error="INTERNAL"))
    answers = [await peer.ask(state()) for _ in range(4)]
    assert [type(answer).__name__ for answer in answers] == ["State", "RpcError", "RpcError", "State"]
    assert fault.is_over
    assert len(dc.faults) == 0
    assert dc.seen.faults["rpc_error"] == 2


async def test_faults_come_in_the_order_of_their_adding(dc: Datacenter, peer: Peer) -> None:
    """Of two faults for the same call the first one added happens first; clear takes back the rest."""
    for error in ("FIRST", "SECOND", "THIRD"):
        dc.faults.add(Fault("rpc_error", code=500, error=error))
    assert [await peer.error(state()) for _ in range(2)] == ["500 FIRST", "500 SECOND"]
    dc.faults.clear()
    assert isinstance(await peer.ask(state()), raw().types.updates.State)


@pytest.mark.parametrize(
    ("kind", "what"),
    [("rpc_error", "code"), ("bad_msg", "code"), ("transport", "code"), ("forged", "step")],
)
def test_a_fault_that_says_too_little_is_refused(kind: str, what: str) -> None:
    """An error without a code, or a forgery of nothing, is a mistake in the script."""
    with pytest.raises(ValueError, match=what):
        Fault(kind)


def test_an_unknown_kind_is_refused() -> None:
    """A kind that there isn't is a mistake in the script; a known one may be given as text."""
    with pytest.raises(ValueError, match="nonsense"):
        Fault("nonsense")
    assert Fault("silence").kind is FaultKind.SILENCE


async def test_a_dropped_batch_is_dropped_whole(dc: Datacenter, bot: Account, peer: Peer) -> None:
    """What follows a dropped call in the same container is lost with the connection."""
    from pyrogram.raw.core import MsgContainer

    dc.faults.add(Fault("drop_before", method="help.GetNearestDc"))
    nearest = peer.message(raw().functions.help.GetNearestDc(), peer.next_id(), peer.next_seq())
    after = peer.message(send_message(dc, bot, "after"), peer.next_id(), peer.next_seq())
    peer.say(MsgContainer([nearest, after]), content=False)
    assert peer.link is not None
    assert await peer.link.is_reset()
    assert not dc.seen.sends
