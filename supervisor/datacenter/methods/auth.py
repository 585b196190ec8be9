"""auth.*: signing in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.datacenter.library import build, raw
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.render import render_user

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call


@method("auth.ImportBotAuthorization", without_account=True)
def import_bot_authorization(call: Call) -> Any:
    """Sign a bot in by its token."""
    account = call.engine.world.by_token(call.query.bot_auth_token)
    if account is None:
        raise RpcError(400, "ACCESS_TOKEN_INVALID")
    if account.sign_in_error is not None:
        raise RpcError(*account.sign_in_error)
    call.key.sign_in(account)
    call.session.wants_updates = True
    call.engine.seen.sign_ins[account.user_id] += 1
    return build(raw.types.auth.Authorization, user=render_user(call.engine.world, account, account))


@method("auth.LogOut")
def log_out(call: Call) -> Any:
    """Nobody is signed in on this key any more."""
    call.key.sign_out()
    return build(raw.types.auth.LoggedOut)
