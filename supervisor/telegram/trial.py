"""One trial of one way to Telegram, step by step and timed. Nobody is signed in, and nothing is stored.

    dns -> tcp -> proxy -> key -> rpc

A path is tried with a key that is made for it and thrown away; a session with its own key, and then there is no `key`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from supervisor.core.failure import Evidence, Source
from supervisor.ports import LinkEvents, LinkFailed
from supervisor.telegram import client as clients
from supervisor.telegram.dial import Route
from supervisor.telegram.keyexchange import create_auth_key, telegram_public_keys
from supervisor.telegram.session import Credentials, MtprotoSession
from supervisor.telegram.spec import LinkSpec
from supervisor.telegram.storage import Session
from supervisor.telegram.wire import Wire

STEPS = ("dns", "tcp", "proxy", "key", "rpc")


class Stopwatch:
    """The seconds that each step took, in the order in which they were done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = asyncio.get_running_loop().time()

    def reached(self, step: str) -> None:
        """A step is done."""
        now = asyncio.get_running_loop().time()
        self.seconds[step] = now - self._last
        self._last = now


async def tried(spec: LinkSpec, route: Route, watch: Stopwatch, session: Session | None = None) -> None:
    """Connect, have one RPC answered, and leave.

    Args:
        spec: the account's, or that of no account in particular.
        route: the way.
        watch: is told of the steps.
        session: whose key to use, with somebody signed in: its updates.getState is asked for. None: a fresh key.

    Raises:
        LinkFailed: one step failed.
        TypeError: the installed library does not know one of the operator's client keys.
    """
    timings = spec.timings
    init = clients.init_connection(_client(spec))
    mtproto = MtprotoSession(_Deaf(), _ignore, init, timings)
    wire = await Wire.dial(
        route,
        timeout=timings.connect_timeout,
        on_packet=mtproto.packet_received,
        on_lost=mtproto.wire_lost,
        reached=watch.reached,
    )
    try:
        await mtproto.open(wire, route, await _credentials(spec, session, wire, watch))
        watch.reached("rpc")
    finally:
        mtproto.close()
        mtproto.give_up()
        wire.abort()


async def _credentials(spec: LinkSpec, session: Session | None, wire: Wire, watch: Stopwatch) -> Credentials:
    if session is not None:
        assert session.auth_key is not None
        api_id, salt = session.api_id or spec.api_id, session.server_salt or 0
        return Credentials(session.auth_key, api_id, authorized=True, salt=salt)
    keys = [spec.server.public_key] if spec.server is not None else telegram_public_keys()
    made = await create_auth_key(wire, public_keys=keys, timeout=spec.timings.connect_timeout)
    watch.reached("key")
    return Credentials(made.key, spec.api_id, authorized=False, salt=made.server_salt)


def _client(spec: LinkSpec) -> Any:
    """The library's client, for what it tells Telegram of this device; nothing in it is begun."""
    options = clients.client_options(
        spec.options, api_id=spec.api_id, api_hash=spec.api_hash, plugins=spec.plugins
    )
    return clients.client_class()(
        spec.name,
        storage=None,
        call=_no_call,
        message_cache=spec.message_cache,
        bases=(),
        options=options,
        told=_ignore,
    )


class _Deaf(LinkEvents):
    """Nobody is to be told: the trial ends by itself with what went wrong."""

    def link_lost(self, evidence: Evidence) -> None: ...

    def link_overdue(self) -> None: ...

    def link_answers(self, outstanding: int) -> None: ...


def _ignore(_told: Any) -> None: ...


async def _no_call(_query: Any, _elsewhere: Any = None) -> Any:
    raise LinkFailed(Evidence(Source.CODE, "no call is made in a trial"))
