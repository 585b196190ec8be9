"""Whole updates: every one reaches the handlers, once and in its order, whatever befalls the link.

What is pushed, and what our own queries are answered with, is numbered by Telegram and put in order in boxes
(core/sequence.py). Where something is missing - after each new link, behind a gap that does not close by itself within
`GAP_WAIT`, when Telegram says so - a difference is asked for, through the account's gate: it waits with the account,
honours flood waits over restarts, and a lost key is met there as by any call.

The library's own `Client.handle_updates` is not used: beside us it would ask for differences of its own (for each
updateShortMessage, for each message of a channel with a "min" user) and drop the update where that fails. What it does
besides is done here: peers are learned, and the packet goes to the dispatcher, which parses it and calls the handlers.

How far the handlers have finished is stored at most once in `SAVE_EVERY`: after a kill what they had not finished
comes again. updates.channelDifference.timeout is for those who look at a channel that they are not pushed; not for us.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from supervisor.core.failure import Evidence
from supervisor.core.sequence import Box
from supervisor.errors import AccountUnavailable
from supervisor.telegram import evidence as evidences
from supervisor.telegram.boxes import Batch, Boxes
from supervisor.telegram.delivered import Delivered
from supervisor.telegram.differences import Differences
from supervisor.telegram.inbox import Inbox
from supervisor.telegram.places import OWN, peer_box, place_of, places_in
from supervisor.telegram.storage import StorageBroken
from supervisor.telegram.storage.rows import UpdateRow
from supervisor.waiting import Spawn

log = logging.getLogger(__name__)

# "It may be useful to wait up to 0.5 seconds" (core.telegram.org/api/updates#recovering-gaps).
GAP_WAIT = 0.5
# Seconds between two writings of how far the handlers have finished.
SAVE_EVERY = 1.0
# Seconds before a difference that failed is asked for again: doubling, up to the second.
RETRY, MAX_RETRY = 1.0, 60.0
# Differences of one account that are asked for at once.
AT_ONCE = 4


class _Nobody:
    """The source of updates that came without users and chats."""

    users: tuple[Any, ...] = ()
    chats: tuple[Any, ...] = ()


_NOBODY = _Nobody()
_CONTAINERS = frozenset({"Updates", "UpdatesCombined"})
# A text alone, without the users that its handlers would ask for: the difference has the whole message.
_SHORT_MESSAGES = frozenset({"UpdateShortMessage", "UpdateShortChatMessage"})
# The server says that something was, or may have been, missed.
_SOMETHING_MISSED = frozenset({"UpdatesTooLong", "NewSessionCreated"})
_UNREADABLE = "Unreadable"


class Updates:
    """One account's updates, on their way from the link to the handlers."""

    __slots__ = (
        "_boxes",
        "_client",
        "_failed",
        "_failures",
        "_fetching",
        "_name",
        "_not_before",
        "_passed_over",
        "_save_due",
        "_spawn",
        "_storage",
        "_timers",
        "_user",
        "_waiters",
        "_worker",
        "delivered",
        "inbox",
        "skip",
    )

    def __init__(self, name: str, storage: Any, *, skip: bool, failed: Callable[[Evidence], None]) -> None:
        """Begin with nothing; `attach` gives the client.

        Args:
            name: the account's name, for messages.
            storage: where the update state is kept.
            skip: after an interruption go on with the present state instead of fetching what was missed.
            failed: is told when an update could not be handed on.
        """
        self._name = name
        self._storage = storage
        self.skip = skip
        self._failed = failed
        self._client: Any = None
        self._user: int | None = None  # whose boxes these are
        self._boxes = Boxes()
        self.delivered = Delivered()
        self.inbox = Inbox(self._save_soon)
        self._spawn: Spawn | None = None
        self._worker: asyncio.Task[None] | None = None
        self._fetching: dict[int, asyncio.Task[None]] = {}
        self._failures: dict[int, int] = {}  # in a row
        self._not_before: dict[int, float] = {}  # on the loop's clock
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._save_due = False
        self._waiters: list[tuple[asyncio.Future[None], tuple[int, ...]]] = []  # each for some boxes
        self._passed_over: list[UpdateRow] = []

    def attach(self, client: Any) -> None:
        """Give the client that handles updates; its dispatcher takes them from our inbox."""
        self._client = client
        client.dispatcher.updates_queue = self.inbox

    # --- what happens ---------------------------------------------------------------------------------

    def push(self, pushed: Any) -> None:
        """Take what the server sent of its own accord: an updates object, or news of the session."""
        boxes, kind = self._boxes, type(pushed).__name__
        if self._client.no_updates:
            return
        if kind in _CONTAINERS:
            if not boxes.in_sequence(getattr(pushed, "seq_start", pushed.seq), pushed.seq):
                self._later("sequence", GAP_WAIT, self._missed)
            boxes.take(pushed.updates, pushed)
        elif kind == "UpdateShort":
            self._take_short(pushed.update)
        elif kind in _SHORT_MESSAGES:
            boxes.miss(OWN, pushed.pts)
        elif kind in _SOMETHING_MISSED:
            boxes.miss(OWN)
        elif (
            kind == _UNREADABLE
        ):  # the difference may have it in a form that can be read, and what came with it
            self._later("unreadable", GAP_WAIT, self._missed)
        self._look()

    def _take_short(self, update: Any) -> None:
        place = place_of(update)
        if place is None or getattr(update, "message", None) is None:
            self._boxes.take([update], _NOBODY)
        else:
            self._boxes.miss(place.box, place.pts)

    def answered(self, query: Any, answer: Any) -> None:
        """Take the answer to a query of our own: it counts, and reaches no handler."""
        self.delivered.answered(query, answer)
        places = list(places_in(query, answer))
        for place in places:
            self._boxes.count(place)
        if places:
            self._look()

    async def greeted(self, state: Any, user_id: int | None) -> None:
        """A link has greeted: fetch what was missed before it.

        That is asked for even where `state` is ours: channels have rows of their own, which it does not tell of.

        Args:
            state: the updates.state that the greeting was told.
            user_id: who is signed in.
        """
        if state is None or self._client.no_updates:
            return
        if user_id != self._user:
            await self._begin(user_id, state)
        boxes = self._boxes
        if boxes.own.pts is None:
            self._stand_at(state)
        elif self.skip:
            self._skip_to(state)
        else:
            boxes.miss(OWN)
        self._not_before.clear()
        self._look()

    async def check(self, state: Any) -> int:
        """How many events are missing although the link lives, by a state asked for just now; they are fetched."""
        own = self._boxes.own
        if own.pts is None or own.is_held or own.stale:
            return 0
        if state.pts > own.pts:
            await asyncio.sleep(GAP_WAIT)  # they may be on their way
        behind = max(0, state.pts - (own.pts or 0))
        if behind or any(box.key < OWN for box in self._boxes):
            self._missed()
            self._look()
        return behind

    async def caught_up(self, query: Any) -> None:
        """Return when the differences that this query's outcome would be in have been read."""
        keys = (OWN, peer_box(query))
        for key in keys:
            self._boxes.miss(key)
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((waiter, keys))
        self._look()
        await waiter

    async def find_delivered(self, query: Any) -> Any | None:
        """The updates of a message that was delivered while its answer was lost; see `ports.Sender`."""
        found = self.delivered.find(query)
        if found is None:
            await (self._search(query) if self._passed_over else self.caught_up(query))
            found = self.delivered.find(query)
        return found

    async def _search(self, query: Any) -> None:
        """Read what was passed over, for messages of our own alone."""
        boxes = Boxes()
        boxes.restore(self._passed_over, self._boxes.date)
        try:
            for key in dict.fromkeys((OWN, peer_box(query))):
                boxes.miss(key)
                await self._differences(boxes).fetch(boxes[key])
        except Exception as error:  # noqa: BLE001 - it was delivered, whatever keeps us from seeing it
            log.warning("%s: a delivered message could not be looked up: %s", self._name, error)

    # --- the worker -----------------------------------------------------------------------------------

    def begin(self, spawn: Spawn) -> None:
        """Fetch what is missing and hand on what is ready, in tasks that there are while something is to be done.

        Args:
            spawn: starts them.
        """
        self._spawn = spawn
        self._wake()

    def rest(self) -> None:
        """Begin nothing any more, and call off what is under way."""
        self._spawn = None
        self._cancel_timers()
        for task in (self._worker, *self._fetching.values()):
            if task is not None:
                task.cancel()

    def _wake(self) -> None:
        if self._worker is None and self._spawn is not None and self._is_work():
            self._worker = self._spawn(self._work(), "updates")

    def _is_work(self) -> bool:
        return bool(self._boxes.ready) or self._save_due or next(self._due(), None) is not None

    async def _work(self) -> None:
        try:
            while self._is_work():
                self._fetch()
                while self._boxes.ready:
                    await self._hand_on(self._boxes.ready.pop(0))
                await self._save_if_due()
        finally:
            self._worker = None

    async def close(self) -> None:
        """Store how far the handlers have finished."""
        await self._save()
        self._cancel_timers()

    async def _hand_on(self, batch: Batch) -> None:
        await self.inbox.room()
        source = batch.source
        is_min = await self._learn(source)
        users = {user.id: user for user in source.users}
        chats = {chat.id: chat for chat in source.chats}
        for update, ticket in batch.updates:
            if is_min and type(update).__name__ == "UpdateNewChannelMessage":
                await self._differences(self._boxes).name(update, users, chats)
            self.inbox.hand((update, users, chats), ticket)
        await self._save_if_due()

    async def _learn(self, source: Any) -> bool:
        """Learn the peers that came with updates, as the library's own `handle_updates` does.

        Returns:
            Whether some of them are only "min".
        """
        try:
            users = await self._client.fetch_peers(source.users)
            return await self._client.fetch_peers(source.chats) or users
        except Exception as error:
            # The update itself is whole: its handlers get it all the same.
            log.debug("%s: peers were not learned", self._name, exc_info=True)
            self._failed(evidences.from_code(error, step="update"))
            return False

    # --- differences ----------------------------------------------------------------------------------

    def _due(self) -> Iterator[Box[tuple[Any, Any]]]:
        """The boxes that a difference is to be asked for now, as far as more may be asked for at once."""
        if len(self._fetching) >= AT_ONCE:
            return
        now = asyncio.get_running_loop().time()
        for box in self._boxes:
            is_known = box.key != OWN or box.pts is not None
            is_due = self._not_before.get(box.key, 0.0) <= now
            if box.stale and is_known and is_due and box.key not in self._fetching:
                yield box

    def _fetch(self) -> None:
        """Ask for the differences that are due, a few at a time."""
        assert self._spawn is not None
        for box in islice(list(self._due()), AT_ONCE - len(self._fetching)):
            self._fetching[box.key] = self._spawn(self._difference(box), "difference")

    async def _difference(self, box: Box[tuple[Any, Any]]) -> None:
        boxes = self._boxes
        try:
            await self._differences(boxes).fetch(box)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again or said
            self._not_fetched(box, error)
        else:
            self._failures.pop(box.key, None)
            if box.key == OWN:
                boxes.release_channels(self._fetching)
        finally:
            self._fetching.pop(box.key, None)
            boxes.release(box)
            self._look()

    def _differences(self, boxes: Boxes) -> Differences:
        return Differences(
            self._name,
            boxes,
            self._client,
            delivered=self.delivered,
            learn=self._learn,
            room=self.inbox.room,
        )

    def _not_fetched(self, box: Box[tuple[Any, Any]], error: Exception) -> None:
        box.stale = True
        failures = self._failures[box.key] = self._failures.get(box.key, 0) + 1
        wait = min(RETRY * 2 ** (failures - 1), MAX_RETRY)
        if isinstance(error, AccountUnavailable):
            wait = MAX_RETRY  # the next greeting asks at once
        else:
            told = getattr(error, "value", None)  # of a flood wait longer than the gate may wait
            wait = max(wait, told) if isinstance(told, int) else wait
            seen = evidences.from_exception(error, step="difference")
            log.warning("%s: missed updates could not be fetched, again in %g s: %s",
                        self._name, wait, seen.message)  # fmt: skip
        self._not_before[box.key] = asyncio.get_running_loop().time() + wait
        self._cancel_timers(f"retry {box.key}")
        self._later(f"retry {box.key}", wait, self._look)

    # --- going on with the present --------------------------------------------------------------------

    def _stand_at(self, state: Any) -> None:
        boxes = self._boxes
        self._call_off()
        boxes.begin(state)
        boxes.release(boxes.own)
        boxes.release_channels(self._fetching)

    def _skip_to(self, state: Any) -> None:
        boxes = self._boxes
        self._passed_over = list(boxes.rows())
        passed = max(0, state.pts - (boxes.own.pts or 0))
        for box in [box for box in boxes if box.key < OWN]:
            boxes.forget(box.key)
        self._stand_at(state)
        log.info('%s: %d events of its own box, and whatever happened in its channels, were passed over'
                 ' (missed_updates = "skip")', self._name, passed)  # fmt: skip

    def _call_off(self) -> None:
        """Ask for nothing that would be news of before."""
        for task in self._fetching.values():
            task.cancel()

    async def _begin(self, user_id: int | None, state: Any) -> None:
        """Take up the boxes of whoever is signed in now, where an earlier run left them."""
        if self._user is not None:
            self._call_off()
            self._boxes, self.delivered = Boxes(), Delivered()
        self._user = user_id
        self._boxes.restore(await self._storage.update_states(), state.date)

    # --- small things ---------------------------------------------------------------------------------

    def _missed(self) -> None:
        self._boxes.miss(OWN)
        self._look()

    def _look(self) -> None:
        """Something has changed: see what is to be done."""
        boxes = self._boxes
        if boxes.lost:
            log.warning("%s: the handlers are too far behind: %d updates that Telegram keeps nowhere were dropped",
                        self._name, boxes.lost)  # fmt: skip
            boxes.lost = 0
        if any(box.has_gap and not box.stale for box in boxes):
            self._later("gap", GAP_WAIT, self._gaps)
        if self._waiters:
            self._waiters = [waiting for waiting in self._waiters if not self._is_over(*waiting)]
        self._save_soon()
        self._wake()

    def _is_over(self, waiter: asyncio.Future[None], keys: tuple[int, ...]) -> bool:
        """Whether nobody waits any longer for these boxes to be read; where they are, that is said."""
        if not waiter.done() and not any(key in self._fetching or self._boxes[key].stale for key in keys):
            waiter.set_result(None)
        return waiter.done()

    def _gaps(self) -> None:
        for box in list(self._boxes):
            if box.has_gap:
                self._boxes.miss(box.key)
        self._look()

    def _later(self, what: str, seconds: float, do: Callable[[], None]) -> None:
        """Do something once, so many seconds from now, unless it is to be done already."""
        if what not in self._timers:
            self._timers[what] = asyncio.get_running_loop().call_later(seconds, self._now, what, do)

    def _now(self, what: str, do: Callable[[], None]) -> None:
        del self._timers[what]
        do()

    def _cancel_timers(self, *names: str) -> None:
        for name in names or tuple(self._timers):
            if name in self._timers:
                self._timers.pop(name).cancel()

    def _save_soon(self) -> None:
        self._later("save", SAVE_EVERY, self._time_to_save)

    def _time_to_save(self) -> None:
        self._save_due = True
        self._wake()

    async def _save_if_due(self) -> None:
        if self._save_due:
            await self._save()

    async def _save(self) -> None:
        self._save_due = False
        try:
            for row in list(self._boxes.rows()):
                await self._storage.put_update_state(row)
        except StorageBroken as error:
            log.warning("%s: how far its updates were handled is not stored: %s", self._name, error)
