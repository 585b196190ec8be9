"""A key exchange with a server that may answer anything: a key, or a reason why there is none; nothing else."""

from __future__ import annotations

import asyncio
import gzip
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.telegram.keyexchange import AuthKey, ExchangeError, KeyExchange
from tests.unit.telegram.forged_server import ForgedServer, rsa_key
from tests.unit.telegram.sealed import GZIP, tl_bytes

STEPS = ("ResPQ", "ServerDHParamsOk", "ServerDHInnerData", "plain", "DhGenOk")
# What is done to the bytes of one answer: where, how many go, what comes instead.
SPOILT = st.tuples(st.integers(0, 700), st.integers(0, 40), st.binary(max_size=40))
COUNT = bytes.fromhex("15c4b51cffffff7f")  # a vector of two thousand million


@given(st.sampled_from(STEPS), st.one_of(SPOILT, st.binary(max_size=300)), st.booleans())
@settings(max_examples=40, deadline=None)
def test_whatever_a_server_answers(step: str, change: Any, endless: bool) -> None:
    """Any bytes at any step end the exchange with a ValueError that says why, or change nothing that counts."""

    def forge(name: str, value: Any) -> Any:
        if name != step:
            return value
        honest = value if isinstance(value, bytes) else bytes(value.write())
        at, gone, instead = (0, len(honest), change) if isinstance(change, bytes) else change
        at %= len(honest)
        spoilt = honest[:at] + (COUNT if endless else instead) + honest[at + gone :]
        return spoilt + bytes(-len(spoilt) % 16 or 16 * (not spoilt)) if step == "plain" else spoilt

    async def run() -> None:
        server, client = ForgedServer(forge), KeyExchange([rsa_key()[0]])
        answer: bytes | AuthKey = client.start()
        begun = time.process_time()
        try:
            while not isinstance(answer, AuthKey):
                answer = client.feed(server.answer(answer), time.time())
        except ValueError as error:
            text = str(error)
        else:
            assert answer.key == server.key
            text = "a key"
        assert text
        assert time.process_time() - begun <= 5.0

    asyncio.run(run())


async def test_a_bomb_before_anybody_has_proved_anything() -> None:
    """What anybody in between may send, gzip_packed for the list of keys, is not unpacked."""
    bomb = GZIP + tl_bytes(gzip.compress(bytes(1 << 28)))
    server = ForgedServer(lambda name, value: value.write()[:-24] + bomb if name == "ResPQ" else value)
    client = KeyExchange([rsa_key()[0]])
    with pytest.raises(ExchangeError, match="gzip_packed inside an object"):
        client.feed(server.answer(client.start()), time.time())
