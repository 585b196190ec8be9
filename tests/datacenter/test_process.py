"""The datacenter as a process of its own, driven by lines of JSON; and its small parts."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.datacenter import Datacenter, arithmetic, rsa
from supervisor.datacenter.arithmetic import is_prime, powmod
from supervisor.datacenter.commands import COMMANDS, Commands
from tests.datacenter.process import Process
from tests.datacenter.wire import Link


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    async with Process.running("--bots", "2", "--latency", "0.01") as running:
        yield running


async def test_the_first_line_says_where_it_is(process: Process) -> None:
    """Address, key and bots are told in one line, and connections are accepted from then on."""
    ready = process.ready
    assert ready["public_key_pem"].startswith("-----BEGIN RSA PUBLIC KEY-----")
    assert [int(bot["token"].partition(":")[0]) for bot in ready["bots"]] == [
        bot["user_id"] for bot in ready["bots"]
    ]
    _, writer = await asyncio.open_connection(ready["host"], ready["port"])
    writer.close()
    await writer.wait_closed()


async def test_commands_are_carried_out(process: Process) -> None:
    """Each command gets one line: its result, or what was wrong with it."""
    bot = process.ready["bots"][0]["user_id"]
    assert await process.do("push", account=bot, text="hi") == {"ok": True, "result": 1}
    fault = await process.do("fault", kind="rpc_error", account=bot, code=500, error="X", count=None)
    assert fault == {"ok": True, "result": None}
    assert (await process.do("settings", latency=0.5))["result"]["latency"] == 0.5
    assert (await process.do("silent"))["ok"]
    assert (await process.do("speak"))["ok"]
    assert (await process.do("add_bot"))["result"]["token"]
    assert (await process.do("seen"))["result"]["connections"] == 0
    for wrong in (
        {"name": "nonsense"},
        {"name": "push", "account": 1, "text": "x"},
        {"name": "fault", "kind": "?"},
    ):
        answer = await process.do(**wrong)
        assert not answer["ok"]
        assert answer["error"]


async def test_it_goes_away_and_comes_back(process: Process) -> None:
    """go_away refuses connections, come_back accepts them on the same port."""
    address = process.ready["host"], process.ready["port"]
    assert (await process.do("go_away"))["ok"]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    assert (await process.do("come_back"))["ok"]
    _, writer = await asyncio.open_connection(*address)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("how", ["end of stdin", "SIGTERM"])
async def test_it_stops(process: Process, how: str) -> None:
    """The end of stdin and SIGTERM both end it with exit code 0."""
    if how == "SIGTERM":
        process.process.send_signal(signal.SIGTERM)
    else:
        assert process.process.stdin is not None
        process.process.stdin.close()
    assert await asyncio.wait_for(process.process.wait(), 10) == 0


ALL: dict[str, dict[str, Any]] = {
    "add_bot": {},
    "add_supergroup": {"title": "Team", "members": [21]},
    "ban": {"account": 21},
    "channel_too_long": {"account": 21, "chat": -1001600000001},
    "clear_faults": {},
    "close_links": {"account": 21},
    "come_back": {},
    "connections": {},
    "delete_messages": {"account": 21, "ids": [7]},
    "drop_updates": {"count": 1, "account": 21},
    "edit_message": {"account": 21, "message_id": 1, "text": "hi again"},
    "endless_salts": {"account": 21},
    "expire": {"account": 21},
    "fault": {"kind": "silence"},
    "forget_keys": {"account": 21},
    "forget_sessions": {},
    "forget_updates": {"account": 21},
    "go_away": {},
    "issue_key": {"account": 21},
    "kill_token": {"account": 21, "revoke": False},
    "push": {"account": 21, "text": "hi", "form": "short"},
    "push_undecryptable": {"account": 21},
    "push_unknown": {"account": 21},
    "pushed": {"account": 21},
    "read_again": {},
    "receive_new": {"how": "serve"},
    "refuse_handshakes": {"refuse": False},
    "reset_links": {},
    "reset_seen": {},
    "resume_updates": {},
    "revoke": {"account": 21, "error": "SESSION_EXPIRED"},
    "rotate_salts": {},
    "seen": {},
    "sends": {"account": 21},
    "settings": {"send_limit": 5},
    "silent": {"swallow": True},
    "stop_reading": {},
    "stop_updates": {"account": 21},
    "updates_too_long": {"account": 21},
    "speak": {},
    "transport_error": {"code": -429},
}


def test_every_command_is_tried() -> None:
    """The list above is the list of commands."""
    assert sorted(ALL) == sorted(COMMANDS)


@pytest.mark.parametrize("name", ALL)
async def test_each_command_works(dc: Datacenter, name: str) -> None:
    """Each command is carried out with its arguments, and refuses others."""
    bot = dc.add_bot("21:a")
    dc.push_message(bot, "the first")
    assert dc.add_supergroup("The first", [bot]).peer_id == -1001600000001
    commands = Commands(dc)
    answer = json.loads(await commands.line(json.dumps({"do": name, **ALL[name]})))
    assert answer["ok"], answer
    wrong = json.loads(await commands.line(json.dumps({"do": name, **ALL[name], "nonsense": 1})))
    assert not wrong["ok"]


@pytest.mark.parametrize("line", ["", "[]", "{", '{"do": 1}', '{"do": "ban", "account": 404}'])
async def test_a_line_that_is_no_command_is_answered(dc: Datacenter, line: str) -> None:
    """Whatever comes, its sender is told what was wrong."""
    answer = json.loads(await Commands(dc).line(line))
    assert not answer["ok"]
    assert answer["error"]


# -- the RSA key ----------------------------------------------------------------------------------------------------


def test_a_key_is_made_fast_and_right() -> None:
    """A key takes well under a second; its primes are prime and its modulus has 2048 bits."""
    started = time.perf_counter()
    key = rsa.generate(random.SystemRandom())
    assert time.perf_counter() - started < 3
    assert is_prime(key.p)
    assert is_prime(key.q)
    assert key.modulus.bit_length() == 2048


def test_without_gmpy2_the_results_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain integers find the same primes and powers."""
    source = random.Random(3)
    numbers = [source.getrandbits(64) for _ in range(300)] + [0, 1, 2, 4, 71, 561, 2**61 - 1]
    with_gmp = [is_prime(number) for number in numbers], powmod(3, 12345, 2**127 - 1)
    monkeypatch.setattr(arithmetic, "_gmp", None)
    assert ([is_prime(number) for number in numbers], powmod(3, 12345, 2**127 - 1)) == with_gmp
    assert any(with_gmp[0][:300])


def test_decryption_undoes_encryption() -> None:
    """What was raised to 65537 comes back; a number above the modulus is refused."""
    key = rsa.generate(random.Random(1))
    secret = bytes(1) + random.Random(2).randbytes(255)
    encrypted = pow(int.from_bytes(secret, "big"), 65537, key.modulus).to_bytes(256, "big")
    assert key.decrypt(encrypted) == secret
    for wrong in (b"\xff" * 256, encrypted[1:]):
        with pytest.raises(ValueError, match="not encrypted"):
            key.decrypt(wrong)


def test_the_fingerprint_is_telegrams() -> None:
    """The fingerprint of one of Telegram's own keys comes out as the libraries list it."""
    modulus = int(
        "E8BB3305C0B52C6CF2AFDF7637313489E63E05268E5BADB601AF417786472E5F"
        "93B85438968E20E6729A301C0AFC121BF7151F834436F7FDA680847A66BF64AC"
        "CEC78EE21C0B316F0EDAFE2F41908DA7BD1F4A5107638EEB67040ACE472A14F9"
        "0D9F7C2B7DEF99688BA3073ADB5750BB02964902A359FE745D8170E36876D4FD"
        "8A5D41B2A76CBFF9A13267EB9580B2D06D10357448D20D9DA2191CB5D8C93982"
        "961CDFDEDA629E37F1FB09A0722027696032FE61ED663DB7A37F6F263D370F69"
        "DB53A0DC0A1748BDAAFF6209D5645485E6E001D1953255757E4B8E42813347B1"
        "1DA6AB500FD0ACE7E6DFA3736199CCAF9397ED0745A427DCFA6CD67BCB1ACFF3",
        16,
    )
    assert rsa.RsaKey(modulus, 1).fingerprint == 0xD09D1D85DE64FD85 - 2**64


def test_the_pem_is_pkcs1() -> None:
    """The PEM is a DER sequence of the modulus and 65537."""
    key = rsa.generate(random.Random(1))
    lines = key.pem.splitlines()
    assert lines[0] == "-----BEGIN RSA PUBLIC KEY-----"
    der = base64.b64decode("".join(lines[1:-1]))
    modulus = key.modulus.to_bytes(257, "big")
    assert der == b"\x30\x82\x01\x0a\x02\x82\x01\x01" + modulus + b"\x02\x03\x01\x00\x01"


# -- the object -----------------------------------------------------------------------------------------------------


async def test_a_seed_repeats_tokens_and_hashes() -> None:
    """Two datacenters of one seed give the same tokens and access hashes, those of another seed don't."""
    made = [Datacenter(seed=seed) for seed in (1, 1, 2)]
    bots = [dc.add_bot() for dc in made]
    hashes = [dc.access_hash(bot, dc.person) for dc, bot in zip(made, bots, strict=True)]
    assert bots[0].token == bots[1].token != bots[2].token
    assert hashes[0] == hashes[1] != hashes[2]


async def test_the_public_key_can_be_written(dc: Datacenter, tmp_path: Path) -> None:
    """write_public_key makes the file that a configuration names."""
    assert dc.write_public_key(tmp_path / "dc.pem").read_text() == dc.public_key_pem


async def test_counting_can_begin_anew(dc: Datacenter) -> None:
    """After reset only what is open is counted."""
    async with await Link.open(dc) as first:
        async with await Link.open(dc) as closed:
            await asyncio.sleep(0.05)
            assert len(dc.seen.connections) == 2
            closed.write(b"")
        async with asyncio.timeout(5):
            while dc.seen.open_connections != 1:
                await asyncio.sleep(0.01)
        dc.seen.reset()
        assert (len(dc.seen.connections), dc.seen.open_connections) == (1, 1)
        assert first is not None
    json.dumps(dc.seen.summary())


async def test_two_accounts_cannot_have_one_id(dc: Datacenter) -> None:
    """An id is a bot's, a user's or a person's, once."""
    dc.add_bot("11:a")
    for add in (dc.add_user, dc.add_person):
        with pytest.raises(ValueError, match="exists"):
            add(11)
