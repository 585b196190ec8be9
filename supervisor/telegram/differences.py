"""Asking Telegram for what was missed: updates.getDifference and updates.getChannelDifference, slice after slice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from supervisor.core.sequence import Box
from supervisor.ports import LinkFailed
from supervisor.telegram import evidence as evidences
from supervisor.telegram.boxes import Boxes
from supervisor.telegram.delivered import Delivered, as_update
from supervisor.telegram.outbox import UNREADABLE
from supervisor.telegram.places import OWN, QTS, channel_id, place_of

log = logging.getLogger(__name__)

# Events in one channel difference: what a bot and what a user may ask for (core.telegram.org/method/updates.getChannelDifference).
BOT_LIMIT, USER_LIMIT = 100_000, 100
# Of a channel of which nothing was known only the news is wanted, not its history: no more events than this.
UNKNOWN_LIMIT = 1000
# Seconds that a message may wait for its author's name.
NAMES = 5.0

# The account has no business in this channel any more.
_LEFT = frozenset({"CHANNEL_PRIVATE", "CHANNEL_INVALID", "CHANNEL_PUBLIC_GROUP_NA"})
# Telegram can do nothing with where we stand.
_NOWHERE = frozenset({"PERSISTENT_TIMESTAMP_INVALID", "PERSISTENT_TIMESTAMP_EMPTY", "DATE_EMPTY"})

_Box = Box[tuple[Any, Any]]


class Differences:
    """Brings what was missed into an account's boxes."""

    def __init__(
        self,
        name: str,
        boxes: Boxes,
        client: Any,
        *,
        delivered: Delivered,
        learn: Callable[[Any], Awaitable[Any]],
        room: Callable[[], Awaitable[None]],
    ) -> None:
        """Prepare; nothing is asked.

        Args:
            name: the account's name, for messages.
            boxes: the account's.
            client: the supervised client; what it asks goes through the account's gate.
            delivered: knows the account's own messages.
            learn: learns the peers that a difference names.
            room: returns when the handlers are not too far behind for more.
        """
        self._name = name
        self._boxes = boxes
        self._client = client
        self._delivered = delivered
        self._learn = learn
        self._room = room

    async def fetch(self, box: _Box) -> None:
        """Bring a box up to date; it keeps what is pushed meanwhile, and is to be released afterwards.

        Raises:
            pyrogram.errors.RPCError: Telegram refused, and asking again may help.
            AccountUnavailable: the account is off.
        """
        boxes = self._boxes
        one = self._own if box.key == OWN else self._channel
        boxes.hold(box)
        if box.key == OWN:
            boxes.since = boxes.date
        while box.stale:
            box.stale = False
            await self._room()
            try:
                await one(box)
            except Exception as error:
                if not await self._is_over(box, error):
                    raise

    async def _is_over(self, box: _Box, error: Exception) -> bool:
        """Whether a refusal says that there is nothing to be fetched."""
        error_id = evidences.from_exception(error).error_id
        if _is_unreadable(error):
            log.warning("%s: what it has missed in box %d cannot be read: it goes on with what was pushed, "
                        "%d events are lost", self._name, box.key, self._boxes.pass_over(box))  # fmt: skip
            return True
        if error_id in _LEFT and box.key < OWN:
            log.info("%s: channel %d is closed to it (%s)", self._name, box.key, error_id)
            self._boxes.forget(box.key)
            await self._client.storage.drop_update_state(box.key)
            return True
        if error_id not in _NOWHERE:
            return False
        if box.key < OWN:
            self._boxes.forget(box.key)
            await self._client.storage.drop_update_state(box.key)
        else:
            self._boxes.stand_at(await self._ask_state())
        log.warning("%s: where box %d of its updates stood means nothing to Telegram (%s): "
                    "it goes on with the present, what was missed is lost", self._name, box.key, error_id)  # fmt: skip
        return True

    async def _ask(self, query: Any) -> Any:
        return await self._client.session.invoke(query)

    async def _ask_state(self) -> Any:
        from pyrogram.raw import functions

        return await self._ask(functions.updates.GetState())

    # --- the account's own box ------------------------------------------------------------------------

    async def _own(self, box: _Box) -> None:
        from pyrogram.raw import functions

        boxes = self._boxes
        found = await self._ask(functions.updates.GetDifference(pts=box.pts, date=boxes.date, qts=boxes.qts))
        kind = type(found).__name__
        if kind == "DifferenceEmpty":
            boxes.told(found.date, found.seq)
        elif kind == "DifferenceTooLong":
            log.warning("%s: more was missed than Telegram tells: events %d to %d of its own box are skipped",
                        self._name, box.pts, found.pts)  # fmt: skip
            box.stale = found.pts != box.pts
            box.jump(found.pts)
        else:
            state = getattr(found, "state", None) or found.intermediate_state
            before = box.pts, boxes.qts
            await self._bring(found, box)
            boxes.stand_at(state)
            if kind == "DifferenceSlice" and (state.pts, state.qts) != before:
                box.stale = True

    # --- a channel's ----------------------------------------------------------------------------------

    async def _channel(self, box: _Box) -> None:
        from pyrogram.raw import functions, types

        since, limit = self._boxes.since_of(box.key), BOT_LIMIT if self._is_bot else USER_LIMIT
        if since is not None:
            limit = min(limit, UNKNOWN_LIMIT)
        found = await self._ask(
            functions.updates.GetChannelDifference(
                channel=await self._input_channel(box.key),
                filter=types.ChannelMessagesFilterEmpty(),
                pts=box.pts or 1,
                limit=limit,
            )
        )
        kind = type(found).__name__
        if kind == "ChannelDifferenceTooLong":
            self._too_long(found.dialog.pts, box, limit)
            return
        if kind == "ChannelDifference":
            await self._bring(found, box, since)
            box.stale = box.stale or (not found.final and found.pts != box.pts)
        box.jump(found.pts)
        if not box.stale:
            self._boxes.known(box.key)

    @property
    def _is_bot(self) -> bool:
        return bool(self._client.storage.session.is_bot)

    async def _input_channel(self, key: int) -> Any:
        from pyrogram.raw import types

        try:
            access_hash = (await self._client.storage.get_peer_by_id(key)).access_hash
        except KeyError:
            access_hash = 0  # bots need none
        return types.InputChannel(channel_id=channel_id(key), access_hash=access_hash)

    def _too_long(self, pts: int, box: _Box, limit: int) -> None:
        """More happened in a channel than Telegram tells at once."""
        if self._boxes.since_of(box.key) is not None and box.pts is None:
            box.jump(max(1, pts - limit))  # its history is long: the last of it is where the news is
            box.stale = True
            return
        log.warning("%s: more was missed in channel %d than Telegram tells: events %d to %d are skipped",
                    self._name, box.key, box.pts, pts)  # fmt: skip
        box.jump(pts)

    async def name(self, update: Any, users: dict[int, Any], chats: dict[int, Any]) -> None:
        """Fetch those whom a channel's message names by their "min" objects alone, and whom the account does not know.

        Without them a handler could not write to its message's author (core.telegram.org/api/min). Both libraries ask
        so as well, for every such message. Where it fails the handlers get what there is.
        """
        from pyrogram.raw import functions, types

        place = place_of(update)
        if place is None or place.box >= OWN or not await self._has_strangers(users):
            return
        only = types.MessageRange(min_id=update.message.id, max_id=update.message.id)
        try:
            async with asyncio.timeout(NAMES):
                found = await self._ask(
                    functions.updates.GetChannelDifference(
                        channel=await self._input_channel(place.box),
                        filter=types.ChannelMessagesFilter(ranges=[only]),
                        pts=place.pts - place.events,
                        limit=USER_LIMIT,
                    )
                )
        except Exception:
            log.debug("%s: the author of a message was not fetched", self._name, exc_info=True)
            return
        await self._learn(found)
        users.update({user.id: user for user in getattr(found, "users", ())})
        chats.update({chat.id: chat for chat in getattr(found, "chats", ())})

    async def _has_strangers(self, users: dict[int, Any]) -> bool:
        for user in users.values():
            if getattr(user, "min", False):
                try:
                    await self._client.storage.get_peer_by_id(user.id)
                except KeyError:
                    return True
        return False

    # --- both -----------------------------------------------------------------------------------------

    async def _bring(self, found: Any, box: _Box, since: int | None = None) -> None:
        """Hand on what a difference of this box has brought, but no message that is older than `since`."""
        await self._learn(found)
        named = {
            update.id: update.random_id
            for update in found.other_updates
            if type(update).__name__ == "UpdateMessageID"
        }
        for message in found.new_messages:
            if since is None or getattr(message, "date", 0) >= since:
                self._message(message, found, box, named)
        for message in getattr(found, "new_encrypted_messages", ()):
            self._boxes.bring(_encrypted(message), found, self._boxes[QTS])
        for update in found.other_updates:
            if type(update).__name__ != "UpdateMessageID":
                self._other(update, found, box)

    def _message(self, message: Any, found: Any, box: _Box, named: dict[int, int]) -> None:
        if not self._delivered.is_own(message, named.get(message.id), found.users, found.chats):
            self._boxes.bring(as_update(message), found, box)

    def _other(self, update: Any, found: Any, box: _Box) -> None:
        """Anything but a message: what is of another box goes through that, the rest is part of the difference."""
        place = place_of(update)
        of_another = place is not None and place.box < OWN and place.box != box.key
        if of_another or type(update).__name__ == "UpdateChannelTooLong":
            self._boxes.take([update], found)
        else:
            self._boxes.bring(update, found, box)


def _is_unreadable(error: Exception) -> bool:
    """Whether an answer came that the library cannot read: asking again brings the same."""
    cause = error.__cause__
    return isinstance(cause, LinkFailed) and cause.evidence.error_id == UNREADABLE


def _encrypted(message: Any) -> Any:
    from pyrogram.raw import types

    return types.UpdateNewEncryptedMessage(message=message, qts=0)
