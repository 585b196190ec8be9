"""The bare client libraries, as their users run them, against the datacenter."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from supervisor.datacenter import Account, Datacenter, Fault
from tests.datacenter.conftest import Bare


async def test_a_bot_starts(dc: Datacenter, bot: Account, bare: Bare) -> None:
    """A client signs in by token with one key exchange and knows who it is."""
    client = await bare()
    assert client.me.id == bot.user_id
    assert (await client.get_me()).username == bot.username
    assert dc.seen.sign_ins[bot.user_id] == 1
    assert dc.seen.key_exchanges == 1


async def test_a_wrong_token_is_refused(dc: Datacenter, bare: Bare) -> None:
    """The library raises what the datacenter says."""
    from pyrogram.errors import AccessTokenInvalid

    with pytest.raises(AccessTokenInvalid):
        await bare(Account(1, "x", None, "1:x"))


async def test_a_message_to_a_person(dc: Datacenter, bot: Account, bare: Bare) -> None:
    """A client with empty storage writes to a person by the bare id and gets its Message."""
    client = await bare()
    message = await client.send_message(dc.person.user_id, "hello")
    assert (message.id, message.text, message.chat.id) == (1, "hello", dc.person.user_id)
    assert [sent.text for sent in dc.seen.sends[bot.user_id]] == ["hello"]


async def test_a_person_by_username(dc: Datacenter, bare: Bare) -> None:
    """A username is resolved on the way."""
    dc.add_person(704, "Finn", username="finn_1")
    client = await bare()
    message = await client.send_message("finn_1", "hello")
    assert message.chat.id == 704


async def test_a_stranger_cannot_be_written_to(dc: Datacenter, bare: Bare) -> None:
    """PEER_ID_INVALID for somebody the bot has never met."""
    from pyrogram.errors import PeerIdInvalid

    client = await bare()
    with pytest.raises(PeerIdInvalid):
        await client.send_message(999_999, "hello")


async def test_a_chat(dc: Datacenter, bare: Bare) -> None:
    """A basic chat is created and written to."""
    client = await bare()
    chat = await client.create_group("Team", dc.person.user_id)
    message = await client.send_message(chat.id, "all")
    assert (message.chat.title, message.text, message.outgoing) == ("Team", "all", True)


async def test_a_pushed_message_reaches_a_handler(dc: Datacenter, bot: Account, bare: Bare) -> None:
    """What a person writes is handled with text and sender."""
    client = await bare()
    got: asyncio.Queue[Any] = asyncio.Queue()

    @client.on_message()
    async def handle(_: Any, message: Any) -> None:
        await got.put(message)

    await asyncio.sleep(0.2)
    dc.push_message(bot, "hi")
    message = await asyncio.wait_for(got.get(), 10)
    assert (message.text, message.from_user.first_name) == ("hi", "Ada")


async def test_a_message_is_fetched(dc: Datacenter, bot: Account, bare: Bare) -> None:
    """get_messages finds a message by its id."""
    client = await bare()
    message_id = dc.push_message(bot, "hi")
    message = await client.get_messages(dc.person.user_id, message_id)
    assert message.text == "hi"


async def test_bad_salts_are_survived(dc: Datacenter, bare: Bare) -> None:
    """Both libraries follow bad_server_salt."""
    client = await bare()
    dc.rotate_salts()
    assert (await client.send_message(dc.person.user_id, "hello")).id == 1
    assert dc.seen.bad_messages[48] >= 2


async def test_a_short_flood_wait_is_waited(dc: Datacenter, bare: Bare) -> None:
    """The libraries sleep through a FLOOD_WAIT under their threshold; the datacenter then takes the call."""
    client = await bare()
    dc.faults.add(Fault("rpc_error", method="messages.SendMessage", code=420, error="FLOOD_WAIT_1"))
    assert (await client.send_message(dc.person.user_id, "hello")).id == 1
    assert dc.seen.count("messages.SendMessage") == 2


async def test_a_reset_is_survived(dc: Datacenter, bot: Account, bare: Bare) -> None:
    """After a reset the same session goes on: no new key, no new sign-in, no new session."""
    client = await bare()
    dc.reset_links()
    assert (await client.send_message(dc.person.user_id, "hello")).text == "hello"
    assert (dc.seen.key_exchanges, dc.seen.sign_ins[bot.user_id], dc.seen.new_sessions) == (1, 1, 1)
    assert dc.seen.times_delivered("hello") == 1
    assert dc.seen.overlaps == 0


@pytest.mark.parametrize("size", [3_000, 700_000], ids=["one part", "two parts"])
async def test_a_document_goes_up(dc: Datacenter, bare: Bare, tmp_path: Path, size: int) -> None:
    """send_document uploads a file whole, over a media session of its own."""
    dc.engine.settings.strict_overlap = False
    client = await bare()
    path = tmp_path / "a.bin"
    path.write_bytes(os.urandom(size))
    message = await client.send_document(dc.person.user_id, str(path), caption="here")
    assert (message.document.file_size, message.caption) == (size, "here")
    (stored,) = dc.engine.files.files.values()
    assert stored.content == path.read_bytes()


async def test_a_photo_goes_up_and_comes_down(dc: Datacenter, bare: Bare, tmp_path: Path) -> None:
    """A photo is downloaded byte by byte as it was sent."""
    dc.engine.settings.strict_overlap = False
    client = await bare()
    path = tmp_path / "a.jpg"
    path.write_bytes(os.urandom(5_000))
    message = await client.send_photo(dc.person.user_id, str(path))
    down = await client.download_media(message, in_memory=True)
    assert bytes(down.getbuffer()) == path.read_bytes()


async def test_hundreds_of_calls_at_once(dc: Datacenter, bare: Bare) -> None:
    """Calls under way together are all answered, each once."""
    dc.send_limit = 0
    client = await bare()
    sent = await asyncio.gather(
        *(client.send_message(dc.person.user_id, str(number)) for number in range(300))
    )
    assert sorted(message.id for message in sent) == list(range(1, 301))
    assert dc.seen.summary()["delivered_twice"] == 0
