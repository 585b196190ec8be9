"""Two connections of one key: when Telegram gives the key up.

core.telegram.org/api/errors#406-not-acceptable, AUTH_KEY_DUPLICATED: the same session sends over two TCP connections in
parallel, "from the same or different IP addresses". Here both must send queries after the newer one was opened, while
both are open; acknowledgements and pings are harmless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .methods import RpcError

if TYPE_CHECKING:
    from .connection import Connection
    from .engine import Engine
    from .session import Session

DUPLICATED = 406, "AUTH_KEY_DUPLICATED"
AFTERWARDS = 401, "AUTH_KEY_UNREGISTERED"


def check(engine: Engine, connection: Connection, session: Session, tick: int) -> None:
    """Take note of a query that was received at `tick`; raise where it makes an overlap, which kills the key."""
    key = session.key
    connection.query_tick = max(connection.query_tick, tick)
    connection.query_session = session.id
    for other in key.connections:
        if other is connection or not other.is_open:
            continue
        if not engine.settings.strict_overlap and other.query_session != session.id:
            continue
        newest = max(connection.opened_tick, other.opened_tick)
        if connection.query_tick > newest and other.query_tick > newest and not key.overlapped_tick:
            key.overlapped_tick = engine.next_tick()
            engine.seen.overlaps += 1
            raise RpcError(*DUPLICATED)
