"""What both ends of the socket agree on: HTTP/1.1, JSON, ``/v1/…``.

An error's body is ``{"error": {"code", "message", "retryable", "context"}}``; codes are words, stable, lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supervisor.errors import SupervisorError

SOCKET = "control.sock"


class ControlError(SupervisorError):
    """The daemon refused a request, or could not be asked.

    Args:
        code: a stable word, as ``unknown_account``.
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

    def body(self) -> dict[str, Any]:
        """The error as it goes over the socket."""
        return {
            "error": {
                "code": self.code,
                "message": str(self),
                "retryable": self.retryable,
                "context": self.context,
            }
        }
