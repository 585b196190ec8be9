"""The supervised client: a `pyrogram.Client` whose every query goes through its account's call gate.

Few overrides and no module attribute rebound. `client.session` is a `CallSession`: the library's own
`Client.invoke` wraps, sends and learns peers as ever, and knows nothing of links that come and go. What the
library would do by itself - connect, prompt, watch, restart - is the account's business and inert here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from supervisor.core.failure import Evidence
from supervisor.errors import SupervisorError
from supervisor.telegram import foreign, media, threads
from supervisor.telegram.dispatcher import dispatcher_class
from supervisor.telegram.handlers import HandlerWatch
from supervisor.telegram.queries import new_random_id

# How long a handler may go on after its account was told to stop. Seconds.
HANDLER_GRACE = 3.0
# How long updates wait for more handlers after the first, and how long for the first. Seconds.
MORE_COME, FIRST_COMES = 0.3, 3.0


class SupervisedElsewhere(SupervisorError):
    """The library's own start, stop or sign-in was called on a client that an account drives."""

    def __init__(self, name: str, method: str) -> None:
        super().__init__(
            f"{name}: client.{method}() is tg-supervisor's business; it keeps the account online by itself"
            f" (tg-supervisor pause {name} takes it offline)"
        )


class CallSession:
    """What the library sees as `client.session`: queries in, answers out, whatever the link does."""

    def __init__(self, storage: Any, call: Callable[[Any], Awaitable[Any]], is_media: bool = False) -> None:
        self._storage = storage
        self._call = call
        self.is_media = is_media
        self.is_cdn = False
        self.is_started = _started()

    async def invoke(self, query: Any, *_retries: Any, **_options: Any) -> Any:
        """Make a call. The library's own retries, time-out and sleep threshold don't apply: the gate's do."""
        return await self._call(query)

    async def start(self) -> None:
        """Nothing to do: the account's link is the account's business."""

    async def stop(self) -> None:
        """Nothing to do: the account's link is the account's business."""

    @property
    def dc_id(self) -> int:
        """The account's home datacenter."""
        return int(self._storage.session.dc_id or 0)

    @property
    def auth_key(self) -> bytes:
        """The account's key."""
        return self._storage.session.auth_key or b""

    @property
    def server_address(self) -> str | None:
        """The address of the account's datacenter."""
        address: str | None = self._storage.session.server[0]
        return address

    @property
    def port(self) -> int:
        """Its port."""
        port: int = self._storage.session.server[1]
        return port


class Supervised:
    """What is ours in a supervised client; the rest is the installed library's `pyrogram.Client`."""

    # The library's own, as far as it is used here.
    name: str
    plugins: dict[str, Any] | None
    dispatcher: Any
    _executor: Any  # that somebody set
    me: Any
    get_me: Callable[[], Awaitable[Any]]

    def __init__(
        self,
        name: str,
        *,
        storage: Any,
        call: Callable[[Any], Awaitable[Any]],
        message_cache: int,
        bases: Iterable[Path],
        options: Mapping[str, Any],
        told: Callable[[Evidence], None],
    ) -> None:
        super().__init__(name, workdir=".", in_memory=True, **options)  # type: ignore[call-arg]
        self.dispatcher = dispatcher_class()(self)
        self.handler_watch = HandlerWatch(name, self.dispatcher, told)
        self.updates_watchdog_event = None  # inert, as is who would wait for it
        self._executor = None
        self.storage = storage
        self.session = CallSession(storage, call)
        self.rnd_id = new_random_id
        self.upload_window = media.Window()
        self.remember(message_cache)
        self.is_connected = True
        self._bases = tuple(bases)
        self._opening: asyncio.TimerHandle | None = None

    def remember(self, messages: int) -> None:
        """Remember so many messages from now on; those of before are forgotten."""
        cache = type(self.__dict__["message_cache"])
        self.message_cache = cache(messages)

    @property
    def executor(self) -> Any:
        """Where handlers that are no coroutines run: threads that all clients share, unless somebody set others."""
        return self._executor or threads.shared.pool(self)

    @executor.setter
    def executor(self, value: Any) -> None:
        self._executor = value

    # --- the account drives these -----------------------------------------------------------------

    async def connect(self) -> bool:
        raise SupervisedElsewhere(self.name, "connect")

    async def disconnect(self) -> None:
        raise SupervisedElsewhere(self.name, "disconnect")

    async def start(self, *_: Any, **__: Any) -> Any:
        raise SupervisedElsewhere(self.name, "start")

    async def stop(self, *_: Any, **__: Any) -> Any:
        raise SupervisedElsewhere(self.name, "stop")

    async def restart(self, *_: Any, **__: Any) -> Any:
        raise SupervisedElsewhere(self.name, "restart")

    async def authorize(self) -> Any:
        raise SupervisedElsewhere(self.name, "authorize")

    async def load_session(self) -> None:
        raise SupervisedElsewhere(self.name, "load_session")

    async def updates_watchdog(self) -> None:
        """Inert: the account proves its link by itself."""

    async def recover_gaps(self, *_: Any, **__: Any) -> tuple[int, int]:
        """Inert (Kurigram's): what was missed is fetched without being asked for (updates.py)."""
        return 0, 0

    async def __aenter__(self) -> Any:
        raise SupervisedElsewhere(self.name, "__aenter__")

    # --- what the library would open a second connection for --------------------------------------

    # Pyrogram's inline_session.get_session asks `media_sessions`, which the link provides (foreign.py).
    save_file = media.save_file
    get_file = media.get_file
    handle_download = media.handle_download
    get_session = foreign.get_session

    # --- plugins and handlers ---------------------------------------------------------------------

    def add_handler(self, handler: Any, group: int = 0) -> Any:
        """Add a handler as the library does; what it raises stays inside its account (handlers.py)."""
        super().add_handler(self.handler_watch.contained(handler), group)  # type: ignore[misc]
        if self._opening is not None:
            self._open_within(MORE_COME)
        return handler, group

    def remove_handler(self, handler: Any, group: int = 0) -> None:
        """Remove a handler as the library does."""
        super().remove_handler(handler, group)  # type: ignore[misc]

    def load_plugins(self) -> None:
        """Load plugins as the library does, looked up from the configuration's directory too."""
        if not self.plugins:
            return
        root = Path(str(self.plugins.get("root", "")).replace(".", "/"))
        base = next((b for b in self._bases if (b / root).is_dir()), None)
        with contextlib.chdir(base) if base is not None else contextlib.nullcontext():
            super().load_plugins()  # type: ignore[misc]

    async def learn_me(self) -> None:
        """Learn who is signed in; handlers' filters ask for it."""
        self.me = await self.get_me()

    async def begin(self) -> None:
        """Load plugins and let handlers run. Once in a client's life, when `me` is known."""
        self.load_plugins()
        await self.dispatcher.start()
        self.is_initialized = True
        self._open_within(MORE_COME if any(self.dispatcher.groups.values()) else FIRST_COMES)

    def _open_within(self, seconds: float) -> None:
        """Let in what was missed while the account was away, once somebody is there to handle it.

        `main` adds its handlers with its first steps, and a library's user after `await supervisor.client(…)`.
        """
        loop = asyncio.get_running_loop()
        if self._opening is not None:
            seconds = min(seconds, self._opening.when() - loop.time())
            self._opening.cancel()
        self._opening = loop.call_later(seconds, self._open_inbox)

    def _open_inbox(self) -> None:
        self._opening = None
        self.dispatcher.updates_queue.open()

    async def end(self) -> None:
        """Let handlers finish for `HANDLER_GRACE` seconds, then cancel them; free the threads."""
        self.is_connected = False
        self.is_initialized = False
        self.handler_watch.end()
        if self._opening is not None:
            self._opening.cancel()
        await _finish(self.dispatcher.end(), HANDLER_GRACE)
        self.dispatcher.groups.clear()
        threads.shared.leave(self)


@functools.cache
def _started() -> asyncio.Event:
    """An event that has happened; nobody ever waits for it, so one does for all."""
    event = asyncio.Event()
    event.set()
    return event


@functools.cache
def client_class() -> type[Any]:
    """`pyrogram.Client`, supervised. Call it inside a running loop: only there may pyrogram be imported."""
    import pyrogram

    return type("SupervisedClient", (Supervised, pyrogram.Client), {})


async def _finish(tasks: list[asyncio.Task[Any]], grace: float) -> None:
    if not tasks:
        return
    _, running = await asyncio.wait(tasks, timeout=grace)
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=1.0)


def client_options(
    options: Mapping[str, Any], *, api_id: int, api_hash: str, plugins: str | None
) -> dict[str, Any]:
    """The constructor's keywords: the operator's own, and what the supervisor sets for every client.

    Raises:
        TypeError: the installed library does not know one of the operator's keys.
    """
    known = _known_options()
    unknown = sorted(set(options) - known)
    if unknown:
        raise TypeError(f"pyrogram.Client does not know {', '.join(unknown)}")
    merged = {**options, "api_id": api_id, "api_hash": api_hash}
    if plugins is not None:
        merged["plugins"] = {"root": plugins}
    if "skip_updates" in known:
        merged.setdefault("skip_updates", True)
    return merged


@functools.cache
def _known_options() -> frozenset[str]:
    """The keywords of the installed library's constructor; to ask Python takes longer than to call it."""
    import pyrogram

    return frozenset(inspect.signature(pyrogram.Client.__init__).parameters)


def init_connection(client: Any) -> Callable[[Any, int, Any], Any]:
    """Wrap a query into invokeWithLayer and initConnection, with this client's device."""
    from pyrogram import raw
    from pyrogram.raw.all import layer

    def wrap(query: Any, api_id: int, _path: Any) -> Any:
        inner = raw.functions.InitConnection(
            api_id=api_id,
            device_model=client.device_model,
            system_version=client.system_version,
            app_version=client.app_version,
            system_lang_code=getattr(client, "system_lang_code", client.lang_code),
            lang_pack=getattr(client, "lang_pack", ""),
            lang_code=client.lang_code,
            query=query,
            params=_params(client),
        )
        return raw.functions.InvokeWithLayer(layer=layer, query=inner)

    return wrap


def _params(client: Any) -> Any:
    params = getattr(client, "init_connection_params", None)
    if isinstance(params, dict):
        from pyrogram import utils

        return utils.obj_to_jsonvalue(params)
    return params
