"""`/api/v1`: what openapi.json describes, route by route."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from importlib import resources
from typing import Any, TypeVar

from aiohttp import web

from supervisor.control.protocol import ControlError
from supervisor.control.server import ROUTES, read_body
from supervisor.core.failure import Kind, State
from supervisor.dashboard import shapes
from supervisor.dashboard.desk import Desk
from supervisor.dashboard.reads import Reads
from supervisor.dashboard.shapes import SCHEMA, dumps
from supervisor.ports import IncidentRow
from supervisor.record import incidents, queries
from supervisor.record.counting import Asked, Log
from supervisor.record.incidents import Before, IncidentFilter
from supervisor.record.past import Past
from supervisor.record.queries import LogFilter
from supervisor.record.rows import rfc3339
from supervisor.report.digest import digest
from supervisor.report.page import page
from supervisor.report.stats import stats

V1 = "/api/v1"
_CALLS = {route.name: route.call for route in ROUTES}
ACTIONS = {name: _CALLS[name] for name in ("retry", "pause", "resume", "rotate")}

E = TypeVar("E", bound=StrEnum)

_CURSOR = re.compile(r"(open|closed):(\d+(?:\.\d+)?):(.+)")
_DAY = 86_400
_YEAR = 366 * _DAY
_WEEK = 7 * _DAY

Answer = Callable[[web.Request], Awaitable[web.Response]]


class Api:
    """The answers.

    Args:
        desk: the daemon.
        reads: the recovery log.
        about: what is told of the daemon's program.
    """

    def __init__(self, desk: Desk, reads: Reads, about: Mapping[str, Any]) -> None:
        self._desk = desk
        self._reads = reads
        self._about = {"schema": SCHEMA, **about, "actions": list(ACTIONS)}
        self._openapi = resources.files("supervisor.dashboard").joinpath("openapi.json").read_text("utf-8")

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        asked: dict[str, Answer] = {
            "about": self._tell_about,
            "openapi.json": self._describe,
            "status": self._status,
            "accounts": self._accounts,
            "paths": self._paths,
            "incidents": self._incidents,
            "incidents/{id}": self._incident,
            "timeline": self._timeline,
            "failures": self._failures,
            "stats": self._stats,
            "log": self._log,
            "report": self._digest,
            "report.html": self._page,
        }
        return [
            *(web.get(f"{V1}/{name}", answer) for name, answer in asked.items()),
            *(web.post(f"{V1}/actions/{name}", self._command(call)) for name, call in ACTIONS.items()),
        ]

    # --- the daemon now -------------------------------------------------------------------------

    async def _tell_about(self, request: web.Request) -> web.Response:
        _Query(request)
        return _json(dumps(self._about))

    async def _describe(self, request: web.Request) -> web.Response:
        _Query(request)
        return _json(self._openapi)

    async def _status(self, request: web.Request) -> web.Response:
        _Query(request)
        live = await self._desk.live()
        return _json(await self._reads.work(lambda: dumps(shapes.status_json(self._desk, live))))

    async def _accounts(self, request: web.Request) -> web.Response:
        query = _Query(request, "state", "account", "limit", "offset")
        state, pattern = query.member("state", State), query.text("account")
        limit, offset = query.whole("limit", 10_000, 1, 100_000), query.whole("offset", 0, 0, 10**9)
        live = await self._desk.live()

        def shape() -> str:
            found = shapes.chosen(live.accounts, state=state and state.value, pattern=pattern)
            shown = shapes.accounts_json(self._desk, found[offset : offset + limit])
            return dumps({"schema": SCHEMA, "total": len(found), "accounts": shown})

        return _json(await self._reads.work(shape))

    async def _paths(self, request: web.Request) -> web.Response:
        last = _Query(request, "last").seconds(_DAY)
        since = time.time() - last
        failures = await self._reads.ask_seldom(("paths", last), lambda db: Past(db, since).by_path())
        live = await self._desk.live()
        shown = shapes.paths_json(live.paths, failures)
        return _json(dumps({"schema": SCHEMA, "paths": shown}))

    # --- the recovery log -----------------------------------------------------------------------

    async def _incidents(self, request: web.Request) -> web.Response:
        query = _Query(request, "account", "kind", "state", "last", "before", "limit")
        state = query.word("state", ("open", "closed"))
        wanted = IncidentFilter(
            account=query.text("account"),
            kind=query.member("kind", Kind),
            is_open=None if state is None else state == "open",
            since=query.since(None),
            before=query.cursor("before"),
        )
        limit = query.whole("limit", 50, 1, 1_000)

        def shape(db: Any) -> str:
            found = incidents.incidents(db, wanted, limit)
            following = _cursor(found[-1]) if len(found) == limit else None
            shown = [shapes.incident_json(one) for one in found]
            return dumps({"schema": SCHEMA, "incidents": shown, "next": following})

        return _json(await self._reads.ask(shape))

    async def _incident(self, request: web.Request) -> web.Response:
        _Query(request)
        name = request.match_info["id"]
        found = await self._reads.ask(lambda db: shapes.drill_down(db, name))
        if found is None:
            text = "the log has no such incident; it may be older than retention_days"
            raise ControlError("unknown_incident", text, context={"incident": name[:64]}, status=404)
        return _json(dumps(found))

    async def _timeline(self, request: web.Request) -> web.Response:
        query = _Query(request, "last", "limit", "account")
        last, now = query.seconds(_DAY), time.time()
        since = now - last
        most, account = query.whole("limit", 30, 1, 500), query.text("account")

        def shape(db: Any) -> str:
            accounts = () if account is None else (account,)
            found = incidents.lanes(db, since, now, most=most, accounts=accounts)
            return dumps(shapes.timeline_json(found, since, now))

        return _json(await self._reads.ask_seldom(("timeline", last, most, account), shape))

    async def _failures(self, request: web.Request) -> web.Response:
        last, now = _Query(request, "last").seconds(_DAY), time.time()
        key = "failures", last
        return _json(
            await self._reads.ask_seldom(key, lambda db: dumps(shapes.failures_json(db, now - last, now)))
        )

    async def _stats(self, request: web.Request) -> web.Response:
        query = _Query(request, "last", "account", "kind")
        last, now = query.seconds(_WEEK), time.time()
        asked = Asked(now - last, query.text("account"), query.member("kind", Kind))
        key = "stats", last, asked.account, asked.kind
        return _json(await self._reads.ask_seldom(key, lambda db: dumps(stats(Log(db), asked, now))))

    async def _log(self, request: web.Request) -> web.Response:
        query = _Query(request, "account", "kind", "last", "unresolved", "after_id", "limit")
        wanted = LogFilter(
            account=query.text("account"),
            kind=query.member("kind", Kind),
            since=query.since(None),
            unresolved=query.word("unresolved", ("true", "false")) == "true",
            after_id=query.whole("after_id", None, 0, 2**62),
        )
        limit = query.whole("limit", 100, 1, 1_000)

        def shape(db: Any) -> str:
            newest = queries.newest_id(db)
            found = [shapes.log_json(row) for row in queries.log_rows(db, wanted, limit)]
            return dumps({"schema": SCHEMA, "newest_id": newest, "rows": found})

        return _json(await self._reads.ask(shape))

    async def _digest(self, request: web.Request) -> web.Response:
        found = await self._looked_back(request)
        return _json(await self._reads.work(lambda: dumps(found)))

    async def _page(self, request: web.Request) -> web.Response:
        found = await self._looked_back(request)
        text = await self._reads.work(lambda: page(found))
        name = f"tg-supervisor-{rfc3339(time.time())[:10]}.html"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _looked_back(self, request: web.Request) -> dict[str, Any]:
        last = _Query(request, "last").seconds(_WEEK)
        now = time.time()
        return await self._reads.ask_seldom(("report", last), lambda db: digest(Past(db, now - last), now))

    # --- commands -------------------------------------------------------------------------------

    def _command(self, call: Callable[..., Any]) -> Answer:
        async def command(request: web.Request) -> web.Response:
            _Query(request)
            answer = call(self._desk, await read_body(request))
            if inspect.isawaitable(answer):
                answer = await answer
            return _json(dumps(answer))

        return command


class _Query:
    """A request's parameters. One that is not known is refused: it would be thought to have had its effect."""

    def __init__(self, request: web.Request, *known: str) -> None:
        self._given = request.query
        for name in self._given:
            if name not in known:
                raise _wrong(name, f"unknown; there is {', '.join(known) or 'none'}")

    def text(self, name: str) -> str | None:
        """As it is; None where it is absent or empty."""
        return self._given.get(name) or None

    def word(self, name: str, known: tuple[str, ...]) -> str | None:
        """One of some words."""
        value = self.text(name)
        if value is not None and value not in known:
            raise _wrong(name, f"must be one of {', '.join(known)}")
        return value

    def member(self, name: str, kind: type[E]) -> E | None:
        """A member of an enumeration."""
        value = self.word(name, tuple(item.value for item in kind))
        return None if value is None else kind(value)

    def whole(self, name: str, default: Any, least: int, most: int) -> Any:
        """A whole number; `default` where it is absent."""
        value = self.text(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 20 and least <= int(value) <= most):
            raise _wrong(name, f"must be a whole number from {least} to {most}")
        return int(value)

    def seconds(self, default: int) -> int:
        """``last``: how many seconds back."""
        return int(self.whole("last", default, 60, _YEAR))

    def since(self, default: int | None) -> Any:
        """``last`` as a Unix time."""
        last = self.whole("last", default, 60, _YEAR)
        return None if last is None else time.time() - last

    def cursor(self, name: str) -> Before | None:
        """``next`` of an earlier answer."""
        value = self.text(name)
        if value is None:
            return None
        match = _CURSOR.fullmatch(value)
        if match is None:
            raise _wrong(name, "must be next of an earlier answer")
        return Before(match[1] == "open", float(match[2]), match[3])


def _cursor(found: IncidentRow) -> str:
    place = Before.of(found)
    return f"{'open' if place.is_open else 'closed'}:{place.at!r}:{place.id}"


def _wrong(name: str, what: str) -> ControlError:
    return ControlError("bad_request", f"{name}: {what}", context={"parameter": name})


def _json(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")
