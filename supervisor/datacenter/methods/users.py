"""users.* and contacts.*: who somebody is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.datacenter.library import build, raw
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.peers import find_user
from supervisor.datacenter.render import render_user

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call


@method("users.GetUsers")
def get_users(call: Call) -> Any:
    """Users as the account sees them; userEmpty for whom it may not know."""
    found: list[Any] = []
    for wanted in call.query.id:
        try:
            found.append(render_user(call.engine.world, find_user(call, wanted), call.account))
        except RpcError:
            found.append(raw.types.UserEmpty(id=getattr(wanted, "user_id", 0)))
    return found


@method("users.GetFullUser")
def get_full_user(call: Call) -> Any:
    """The account itself or somebody it may address."""
    user = find_user(call, call.query.id)
    full = build(
        raw.types.UserFull,
        id=user.user_id,
        settings=build(raw.types.PeerSettings),
        notify_settings=build(raw.types.PeerNotifySettings),
        common_chats_count=0,
    )
    users = [render_user(call.engine.world, user, call.account)]
    return raw.types.users.UserFull(full_user=full, chats=[], users=users)


@method("contacts.ResolveUsername")
def resolve_username(call: Call) -> Any:
    """Who has this username."""
    user = call.engine.world.by_username(call.query.username)
    if user is None:
        raise RpcError(400, "USERNAME_NOT_OCCUPIED")
    users = [render_user(call.engine.world, user, call.account)]
    return raw.types.contacts.ResolvedPeer(
        peer=raw.types.PeerUser(user_id=user.user_id), chats=[], users=users
    )
