"""tg-supervisor keeps a pool of Telegram accounts online.

The public names; each is imported when it is first used, because the commands that only read must not pay
for a client library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.actions import on_recovery
    from supervisor.core.failure import Action, Kind, Outcome, Scope, State
    from supervisor.daemon import Supervisor
    from supervisor.errors import (
        AccountUnavailable,
        AlreadyRunning,
        ConfigError,
        DeliveredUnseen,
        NotRunning,
        OutcomeUnknown,
        SupervisorError,
    )
    from supervisor.ports import RecoveryContext

_HOME = {
    "Action": "core.failure",
    "Kind": "core.failure",
    "Outcome": "core.failure",
    "Scope": "core.failure",
    "State": "core.failure",
    "RecoveryContext": "ports",
    "Supervisor": "daemon",
    "on_recovery": "actions",
    "AccountUnavailable": "errors",
    "AlreadyRunning": "errors",
    "ConfigError": "errors",
    "DeliveredUnseen": "errors",
    "NotRunning": "errors",
    "OutcomeUnknown": "errors",
    "SupervisorError": "errors",
}

__all__ = [
    "AccountUnavailable",
    "Action",
    "AlreadyRunning",
    "ConfigError",
    "DeliveredUnseen",
    "Kind",
    "NotRunning",
    "Outcome",
    "OutcomeUnknown",
    "RecoveryContext",
    "Scope",
    "State",
    "Supervisor",
    "SupervisorError",
    "on_recovery",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
