"""What both ends of the socket agree on: HTTP/1.1, JSON, ``/v1/…``.

An error's body is ``{"error": {"code", "name", "message", "retryable", "context"}}``. The code is the number that
docs/errors.md and `explain` know; the name is a stable word, lower case, and several may stand under one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supervisor.errors import SupervisorError

SOCKET = "control.sock"

# The words that stand under another name in core/codes.py; any other is there as it is.
_NAMED = {
    "timeout": "no_answer",
    # refusals of the dashboard
    "cross_site": "bad_request",
    "wrong_host": "bad_request",
    "unknown_incident": "bad_request",
    # refusals of a sign-in
    "banned": "account_banned",
    "deleted": "account_banned",
    "budget": "sign_in_budget",
    "flood": "sign_in_flood",
    "configuration": "config_invalid",
    "not_a_user": "bad_request",
    "not_begun": "bad_request",
    "busy": "not_ready",
    "paused": "account_unavailable",
    "failed": "login_needed",
    "payment": "login_needed",
    "set_up_email": "login_needed",
    "sign_up": "login_needed",
}


class ControlError(SupervisorError):
    """The daemon refused a request, or could not be asked.

    Args:
        code: a stable word, as ``unknown_account``; over the socket it is the error's name.
        message: what is wrong, in words.
        retryable: whether the same request may succeed later.
        context: what it is about.
        status: the HTTP status that goes with it.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        context: Mapping[str, Any] | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.context = dict(context or {})
        self.status = status

    @property
    def number(self) -> int:
        """The number under which docs/errors.md and `explain` tell more; over the socket it is the error's code."""
        from supervisor.core.codes import NAMES  # every command imports this module, and few are refused

        return NAMES.get(_NAMED.get(self.code, self.code), NAMES["internal"]).number

    def body(self) -> dict[str, Any]:
        """The error as it goes over the socket."""
        return {
            "error": {
                "code": self.number,
                "name": self.code,
                "message": str(self),
                "retryable": self.retryable,
                "context": self.context,
            }
        }
