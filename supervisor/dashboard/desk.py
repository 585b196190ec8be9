"""What the dashboard needs of the daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from supervisor.core.failure import Row
from supervisor.ports import AccountSnapshot, Control, PathSnapshot


@dataclass(frozen=True, slots=True)
class Live:
    """The daemon at one moment: values only, so that another thread may make of them what is shown.

    Args:
        accounts: in the order of the configuration.
        paths: the same.
        uptime_s: seconds since the daemon was started.
        config: ``config`` of `status --json`.
        is_recording: whether what fails can be written down.
        rows_waiting: rows of the log that are not on disk yet.
    """

    accounts: Sequence[AccountSnapshot]
    paths: Sequence[PathSnapshot]
    uptime_s: float
    config: Mapping[str, Any]
    is_recording: bool
    rows_waiting: int


class Desk(Control, Protocol):
    """The daemon, as whoever watches it sees it."""

    async def live(self) -> Live: ...

    def is_recording(self) -> bool:
        """Whether what fails can be written down."""

    def row_id(self, row: Row) -> int | None:
        """The number of an account's newest failure in the log; None while it has none. From any thread."""
