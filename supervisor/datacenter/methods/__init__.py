"""The RPC methods that the datacenter serves, one file per namespace. Anything else fails loudly."""

from __future__ import annotations

from supervisor.datacenter.methods.registry import ANYWHERE, METHODS, WITHOUT_ACCOUNT, RpcError

from . import account, auth, channels, chats, files, history, login, messages, updates, users

__all__ = [
    "ANYWHERE",
    "METHODS",
    "WITHOUT_ACCOUNT",
    "RpcError",
    "account",
    "auth",
    "channels",
    "chats",
    "files",
    "history",
    "login",
    "messages",
    "updates",
    "users",
]
