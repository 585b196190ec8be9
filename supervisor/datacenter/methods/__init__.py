"""The RPC methods that the datacenter serves, one file per namespace. Anything else fails loudly."""

from __future__ import annotations

from supervisor.datacenter.methods.registry import METHODS, WITHOUT_ACCOUNT, RpcError

from . import account, auth, chats, files, login, messages, updates, users

__all__ = [
    "METHODS",
    "WITHOUT_ACCOUNT",
    "RpcError",
    "account",
    "auth",
    "chats",
    "files",
    "login",
    "messages",
    "updates",
    "users",
]
