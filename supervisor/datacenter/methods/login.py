"""auth.* and account.* for people: signing in with a code and, where there is one, a password.

core.telegram.org/api/auth. The code is `Account.code`, known beforehand; a number that is nobody's is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.datacenter.handshake import GENERATOR, PRIME
from supervisor.datacenter.library import build, raw
from supervisor.datacenter.methods.auth import check_home
from supervisor.datacenter.methods.registry import RpcError, method
from supervisor.datacenter.render import render_user
from supervisor.datacenter.srp import Challenge, Password

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call
    from supervisor.datacenter.world import Account


@method("auth.SendCode", without_account=True)
def send_code(call: Call) -> Any:
    """Promise a code."""
    account = call.engine.world.by_phone(call.query.phone_number)
    if account is None:
        raise RpcError(400, "PHONE_NUMBER_INVALID")
    if account.sign_in_error is not None:
        raise RpcError(*account.sign_in_error)
    check_home(call, account, "PHONE")
    kind = raw.types.auth.SentCodeTypeApp(length=len(account.code))
    following = raw.types.auth.CodeTypeSms() if account.code_by_sms_after is not None else None
    return _code_sent(call, account, kind, following)


@method("auth.ResendCode", without_account=True)
def resend_code(call: Call) -> Any:
    """Send the code by SMS, once; the hash of before is void."""
    account = _coded(call)
    if account.code_by_sms_after is None:
        raise RpcError(406, "SEND_CODE_UNAVAILABLE")
    return _code_sent(call, account, raw.types.auth.SentCodeTypeSms(length=len(account.code)), None)


@method("auth.CancelCode", without_account=True)
def cancel_code(call: Call) -> Any:
    """Make the code void."""
    _coded(call).code_hash = ""
    return True


@method("auth.SignIn", without_account=True)
def sign_in(call: Call) -> Any:
    """Sign in with the code, or ask for the password."""
    query = call.query
    account = call.engine.world.by_phone(query.phone_number)
    if account is None:
        raise RpcError(400, "PHONE_NUMBER_INVALID")
    check_home(call, account, "PHONE")
    if not query.phone_code:
        raise RpcError(400, "PHONE_CODE_EMPTY")
    if not account.code_hash or query.phone_code_hash != account.code_hash:
        raise RpcError(400, "PHONE_CODE_EXPIRED")
    if query.phone_code != account.code:
        raise RpcError(400, "PHONE_CODE_INVALID")
    account.code_hash = ""
    if account.password is not None:
        call.key.pending = account
        raise RpcError(401, "SESSION_PASSWORD_NEEDED")
    return _signed_in(call, account)


@method("account.GetPassword", without_account=True)
def get_password(call: Call) -> Any:
    """How the password is to be proved."""
    _, password = _asked(call)
    challenge = call.key.challenge = Challenge(password)
    algorithm = raw.types.PasswordKdfAlgoSHA256SHA256PBKDF2HMACSHA512iter100000SHA256ModPow(
        salt1=password.salt1, salt2=password.salt2, g=GENERATOR, p=PRIME.to_bytes(256, "big")
    )
    return build(
        raw.types.account.Password,
        has_password=True,
        new_algo=raw.types.PasswordKdfAlgoUnknown(),
        new_secure_algo=raw.types.SecurePasswordKdfAlgoUnknown(),
        secure_random=b"",
        current_algo=algorithm,
        srp_B=challenge.b,
        srp_id=challenge.id,
    )


@method("auth.CheckPassword", without_account=True)
def check_password(call: Call) -> Any:
    """Sign in with the password, after the code."""
    account, _ = _asked(call)
    answer, challenge = call.query.password, call.key.challenge
    call.key.challenge = None
    if challenge is None or getattr(answer, "srp_id", None) != challenge.id:
        raise RpcError(400, "SRP_ID_INVALID")
    if not challenge.is_met_by(answer.A, answer.M1):
        raise RpcError(400, "PASSWORD_HASH_INVALID")
    return _signed_in(call, account)


def _code_sent(call: Call, account: Account, kind: Any, following: Any) -> Any:
    account.code_hash = f"{call.engine.source.getrandbits(72):018x}"
    call.engine.seen.codes_sent[account.user_id] += 1
    return build(
        raw.types.auth.SentCode,
        type=kind,
        phone_code_hash=account.code_hash,
        next_type=following,
        timeout=60 if account.code_by_sms_after is None else account.code_by_sms_after,
    )


def _coded(call: Call) -> Account:
    account = call.engine.world.by_phone(call.query.phone_number)
    if account is None:
        raise RpcError(400, "PHONE_NUMBER_INVALID")
    check_home(call, account, "PHONE")
    if not account.code_hash or call.query.phone_code_hash != account.code_hash:
        raise RpcError(400, "PHONE_CODE_EXPIRED")
    return account


def _asked(call: Call) -> tuple[Account, Password]:
    account = call.key.pending or call.key.account
    if account is None or account.password is None:
        raise RpcError(401, "AUTH_KEY_UNREGISTERED")
    return account, account.password


def _signed_in(call: Call, account: Account) -> Any:
    call.key.pending = None
    call.key.sign_in(account)
    call.session.wants_updates = True
    call.engine.seen.sign_ins[account.user_id] += 1
    return build(raw.types.auth.Authorization, user=render_user(call.engine.world, account, account))
