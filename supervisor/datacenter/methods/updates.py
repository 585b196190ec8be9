"""updates.*: the state of the boxes and what was missed of them (core.telegram.org/api/updates)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.datacenter.box import NewMessage
from supervisor.datacenter.library import build, method_name, raw
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.peers import find_channel
from supervisor.datacenter.render import is_visible, mentioned, render_event, render_message, render_peer

if TYPE_CHECKING:
    from supervisor.datacenter.box import Box, Event, Message
    from supervisor.datacenter.dispatch import Call
    from supervisor.datacenter.world import Channel

_MOST_OF_A_CHANNEL = 100_000  # events that one difference may ask for
_REFETCH = 30  # seconds: "timeout", after which somebody who looks at the channel asks again
_LATEST = 10  # messages that come with channelDifferenceTooLong


@method("updates.GetState")
def get_state(call: Call) -> Any:
    """Where the account's box stands."""
    call.engine.losses.asked(call.account.user_id)
    return _state(call, call.account.pts)


def _state(call: Call, pts: int) -> Any:
    return raw.types.updates.State(pts=pts, qts=0, date=call.date, seq=call.account.seq, unread_count=0)


def _check_pts(box: Box, pts: int) -> None:
    if pts <= 0:
        raise RpcError(400, "PERSISTENT_TIMESTAMP_EMPTY")
    if pts > box.pts:
        raise RpcError(400, "PERSISTENT_TIMESTAMP_INVALID")


@method("updates.GetDifference")
def get_difference(call: Call) -> Any:
    """What came into the account's box after a pts, a slice at a time, and which channels changed since a date."""
    account, query, settings = call.account, call.query, call.engine.settings
    call.engine.losses.asked(account.user_id)
    _check_pts(account, query.pts)
    if query.date <= 0:
        raise RpcError(400, "DATE_EMPTY")
    if account.pts - query.pts > min(
        settings.difference_too_long, query.pts_total_limit or settings.difference_too_long
    ):
        return raw.types.updates.DifferenceTooLong(pts=account.pts)
    missed = account.since(query.pts)
    slice_size = min(
        settings.difference_slice, getattr(query, "pts_limit", None) or settings.difference_slice
    )
    part = missed[:slice_size]
    changed = _changed_channels(call, query.date)
    if not part and not changed:
        return raw.types.updates.DifferenceEmpty(date=call.date, seq=account.seq)
    contents = _contents(call, account, part, *(channel.peer_id for channel in changed))
    contents["other_updates"] += [
        raw.types.UpdateChannelTooLong(channel_id=channel.channel_id, pts=channel.pts) for channel in changed
    ]
    contents["new_encrypted_messages"] = []
    if len(part) < len(missed):
        state = _state(call, part[-1].pts)
        return build(raw.types.updates.DifferenceSlice, intermediate_state=state, **contents)
    return build(raw.types.updates.Difference, state=_state(call, account.pts), **contents)


def _changed_channels(call: Call, date: int) -> list[Channel]:
    """The account's channels in which something happened since a date, its own second included.

    Nothing of what happened is told: for that there is updates.getChannelDifference.
    """
    account, world = call.account, call.engine.world
    return [
        channel
        for channel in world.channels.values()
        if account.user_id in channel.members and _changed(call, channel, date)
    ]


def _changed(call: Call, channel: Channel, date: int) -> bool:
    for event in reversed(channel.events):
        if event.date < date:
            return False
        if is_visible(event, call.account, call.engine.world):
            return True
    return False


def _contents(
    call: Call, box: Box, events: list[Event], *peer_ids: int, channel: Channel | None = None
) -> dict[str, Any]:
    """Events as a difference tells them: new messages as they are now, without those that are gone, then the rest."""
    account = call.account
    new = [
        event.message
        for event in events
        if isinstance(event, NewMessage) and event.message.id in box.messages
    ]
    users, chats = mentioned(call.engine.world, new, account, *peer_ids)
    # A session learns from updateMessageID which of its sends became which message.
    own = [
        raw.types.UpdateMessageID(id=message.id, random_id=message.random_id)
        for message in new
        if message.random_id and message.key_id == call.key.id
    ]
    others = [render_event(event, account, channel) for event in events if not isinstance(event, NewMessage)]
    return {
        "new_messages": [render_message(message, account) for message in new],
        "other_updates": own + others,
        "chats": chats,
        "users": users,
    }


@method("updates.GetChannelDifference")
def get_channel_difference(call: Call) -> Any:
    """What came into a channel's box after a pts, a slice at a time."""
    channel, query, settings = find_channel(call, call.query.channel), call.query, call.engine.settings
    _check_pts(channel, query.pts)
    if query.limit <= 0:
        raise RpcError(400, "LIMIT_INVALID")
    reach = min(query.limit, _MOST_OF_A_CHANNEL, settings.difference_too_long)
    if query.pts + reach < channel.pts:
        return _channel_too_long(call, channel)
    missed = [
        event
        for event in channel.since(query.pts)
        if is_visible(event, call.account, call.engine.world) and _is_wanted(query.filter, event)
    ]
    if not missed:
        return raw.types.updates.ChannelDifferenceEmpty(final=True, pts=channel.pts, timeout=_REFETCH)
    part = missed[: settings.difference_slice]
    is_final = len(part) == len(missed)
    return raw.types.updates.ChannelDifference(
        final=is_final or None,
        pts=channel.pts if is_final else part[-1].pts,
        timeout=_REFETCH,
        **_contents(call, channel, part, channel.peer_id, channel=channel),
    )


def _is_wanted(wanted: Any, event: Event) -> bool:
    """Whether an event passes a ChannelMessagesFilter."""
    if method_name(wanted) == "ChannelMessagesFilterEmpty" or not isinstance(event, NewMessage):
        return True
    if any(part.min_id > part.max_id for part in wanted.ranges):
        raise RpcError(400, "RANGES_INVALID")
    return not wanted.exclude_new_messages and any(
        part.min_id <= event.message.id <= part.max_id for part in wanted.ranges
    )


def _channel_too_long(call: Call, channel: Channel) -> Any:
    latest = _visible(call, channel)[:_LATEST]
    users, chats = mentioned(call.engine.world, latest, call.account, channel.peer_id)
    return raw.types.updates.ChannelDifferenceTooLong(
        final=True,
        timeout=_REFETCH,
        dialog=render_dialog(call, channel.peer_id, latest, pts=channel.pts),
        messages=[render_message(message, call.account) for message in latest],
        chats=chats,
        users=users,
    )


def _visible(call: Call, channel: Channel) -> list[Message]:
    """The channel's messages that the account may see, newest first."""
    events = [event for event in reversed(channel.events) if isinstance(event, NewMessage)]
    return [
        event.message
        for event in events
        if event.message.id in channel.messages and is_visible(event, call.account, call.engine.world)
    ]


def render_dialog(call: Call, peer_id: int, newest: list[Message], pts: int | None = None) -> Any:
    """The dialog with a peer, of which these are the newest messages."""
    account = call.account
    read = account.read_up_to.get(peer_id, 0)
    unread = [message for message in newest if message.id > read and message.from_id != account.user_id]
    return build(
        raw.types.Dialog,
        peer=render_peer(peer_id),
        top_message=newest[0].id if newest else 0,
        read_inbox_max_id=read,
        read_outbox_max_id=0,
        unread_count=len(unread),
        unread_mentions_count=0,
        unread_reactions_count=0,
        unread_poll_votes_count=0,
        notify_settings=build(raw.types.PeerNotifySettings),
        pts=pts,
    )
