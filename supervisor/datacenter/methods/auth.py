"""auth.*: signing in and out, and the transfer of an authorization to another datacenter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.datacenter.library import build, raw
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.render import render_user

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call
    from supervisor.datacenter.world import Account


@method("auth.ImportBotAuthorization", without_account=True)
def import_bot_authorization(call: Call) -> Any:
    """Sign a bot in by its token."""
    account = call.engine.world.by_token(call.query.bot_auth_token)
    if account is None:
        raise RpcError(400, "ACCESS_TOKEN_INVALID")
    if account.sign_in_error is not None:
        raise RpcError(*account.sign_in_error)
    check_home(call, account, "USER")
    call.key.sign_in(account)
    call.session.wants_updates = True
    call.engine.seen.sign_ins[account.user_id] += 1
    return _authorization(call, account)


def check_home(call: Call, account: Account, whose: str) -> None:
    """Send whoever signs in elsewhere on to the account's home; `whose` is USER or PHONE."""
    if account.home != call.engine.settings.dc_id:
        raise RpcError(303, f"{whose}_MIGRATE_{account.home}")


@method("auth.ExportAuthorization")
def export_authorization(call: Call) -> Any:
    """Bytes by which another datacenter knows the account."""
    dc_id = call.query.dc_id
    if dc_id == call.engine.settings.dc_id or dc_id not in call.engine.shared.addresses:
        raise RpcError(400, "DC_ID_INVALID")
    token = call.engine.shared.export(call.account, dc_id)
    return build(raw.types.auth.ExportedAuthorization, id=call.account.user_id, bytes=token)


@method("auth.ImportAuthorization", without_account=True)
def import_authorization(call: Call) -> Any:
    """Sign the account in as a guest: what is its own (messages, updates, state) stays at its home."""
    account = call.engine.shared.take_export(call.query.bytes, call.query.id, call.engine.settings.dc_id)
    if account is None:
        raise RpcError(400, "AUTH_BYTES_INVALID")
    call.key.sign_in(account)
    return _authorization(call, account)


def _authorization(call: Call, account: Account) -> Any:
    return build(raw.types.auth.Authorization, user=render_user(call.engine.world, account, account))


@method("auth.LogOut", anywhere=True)
def log_out(call: Call) -> Any:
    """Nobody is signed in on this key any more."""
    call.key.sign_out()
    return build(raw.types.auth.LoggedOut)
