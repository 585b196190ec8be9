"""Key exchange on the connections of a datacenter: unencrypted messages in, unencrypted answers out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import tl
from .faults import FaultKind
from .handshake import NOT_FOUND, STEPS, Handshake, Refused
from .keys import AuthKey

if TYPE_CHECKING:
    from .connection import Connection
    from .engine import Engine

UNENCRYPTED = bytes(8)
_KINDS = (
    FaultKind.DROP_BEFORE,
    FaultKind.CLOSE,
    FaultKind.TRANSPORT,
    FaultKind.FORGED,
    FaultKind.DROP_AFTER,
    FaultKind.SILENCE,
)


def exchange(engine: Engine, connection: Connection, packet: bytes) -> None:
    """Take one unencrypted packet of a client."""
    if engine.refusing_handshakes:
        engine.seen.handshakes_refused += 1
        connection.abort()
        return
    reader = tl.Reader(packet, 8)
    try:
        reader.long()
        _step(engine, connection, reader.take(reader.uint()))
    except (tl.Truncated, Refused) as error:
        engine.seen.handshakes_refused += 1
        engine.fail(connection, error.code if isinstance(error, Refused) else NOT_FOUND)


def _step(engine: Engine, connection: Connection, body: bytes) -> None:
    step = STEPS.get(int.from_bytes(body[:4], "little"), "")
    fault = engine.faults.take(None, (step,), *_KINDS, named=True) if step else None
    kind = None if fault is None else fault.kind
    if fault is not None:
        engine.seen.faults[fault.kind] += 1
        if engine.cut(connection, fault):
            return
    answer = _handshake(engine, connection).receive(body, engine.now(), forge=kind is FaultKind.FORGED)
    if kind is FaultKind.DROP_AFTER:
        connection.abort()
    elif kind is not FaultKind.SILENCE:
        msg_id = int(engine.now() * 2**32) & ~3 | 1
        connection.send(UNENCRYPTED + tl.long(msg_id) + tl.uint(len(answer)) + answer)


def _handshake(engine: Engine, connection: Connection) -> Handshake:
    def finish(key: bytes, salt: bytes) -> None:
        engine.seen.key_exchanges += 1
        engine.keys.add(AuthKey(key, salt))

    if connection.handshake is None:
        connection.handshake = Handshake(
            engine.rsa,
            engine.settings.dc_id,
            engine.source,
            lambda identifier: engine.keys.find(identifier) is not None,
            finish,
        )
    return connection.handshake
