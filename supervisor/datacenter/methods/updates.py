"""updates.*: the state of an account's box and what was missed (core.telegram.org/api/updates)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.datacenter.library import build, raw
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.render import mentioned, render_message

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call
    from supervisor.datacenter.world import Message

_SLICE = 100  # messages in one answer
_TOO_LONG = 100_000  # messages missed from which the client has to start anew


def _state(call: Call, pts: int) -> Any:
    return raw.types.updates.State(pts=pts, qts=0, date=call.date, seq=1, unread_count=0)


@method("updates.GetState")
def get_state(call: Call) -> Any:
    """Where the account's box stands."""
    return _state(call, call.account.pts)


@method("updates.GetDifference")
def get_difference(call: Call) -> Any:
    """What came after a pts, a slice at a time."""
    account, pts = call.account, call.query.pts
    if pts <= 0:
        raise RpcError(400, "PERSISTENT_TIMESTAMP_EMPTY")
    if pts > account.pts:
        raise RpcError(400, "PERSISTENT_TIMESTAMP_INVALID")
    missed = account.since(pts)
    if not missed:
        return raw.types.updates.DifferenceEmpty(date=call.date, seq=1)
    if len(missed) > _TOO_LONG:
        return raw.types.updates.DifferenceTooLong(pts=account.pts)
    part = missed[: min(_SLICE, call.query.pts_total_limit or _SLICE)]
    state = _state(call, part[-1].pts)
    if len(part) < len(missed):
        return build(raw.types.updates.DifferenceSlice, intermediate_state=state, **_contents(call, part))
    return build(raw.types.updates.Difference, state=state, **_contents(call, part))


def _contents(call: Call, messages: list[Message]) -> dict[str, Any]:
    users, chats = mentioned(call.engine.world, messages, call.account)
    # A session learns from updateMessageID which of its sends became which message.
    own = [
        raw.types.UpdateMessageID(id=message.id, random_id=message.random_id)
        for message in messages
        if message.random_id and message.key_id == call.key.id
    ]
    return {
        "new_messages": [render_message(message) for message in messages],
        "new_encrypted_messages": [],
        "other_updates": own,
        "chats": chats,
        "users": users,
    }
