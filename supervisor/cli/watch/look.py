"""One look at everything that the watch shows: the daemon, else its last run, and the log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from supervisor.cli.current import Found, from_daemon, from_last_run
from supervisor.config.load import load_judgement
from supervisor.control.protocol import ControlError
from supervisor.record import queries
from supervisor.record.queries import RecordUnreadable
from supervisor.record.recent import Recent

# Seconds between two looks; and at least so many times the CPU time that the last one took, so that three thousand
# accounts do not cost more than a few percent of a core.
PACE, REST = 1.0, 25.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found.

    Args:
        status: the object of `status --json`; None as long as there has been no answer.
        at: when that was so, Unix time.
        note: what has to be said beside it; empty where a daemon answers.
        stale: a daemon is there but does not answer: `status` is from `at`, not of now.
        failures: of the last minute and the last hour; None where the log cannot be read, or there is none.
        caps: how many attempts in a row there may be, by kind of failure.
    """

    status: Found | None = None
    at: float = 0.0
    note: str = ""
    stale: bool = False
    failures: tuple[int, int] | None = None
    caps: Mapping[str, int] = field(default_factory=dict)


class Looker:
    """Looks again and again.

    Args:
        state_dir: of the daemon.
        config: its accounts.toml, for the caps in ``[recovery]``.
    """

    def __init__(self, state_dir: Path, config: Path) -> None:
        self.state_dir = state_dir
        self._log = state_dir / "recovery.db"
        self._config = config
        self._recent = Recent()
        self._seen = Seen()
        self._caps_of: object = None
        self._last_run: tuple[object, Found, str] | None = None

    def look(self) -> Seen:
        """What there is to see now; where the daemon does not answer, what it last said, marked as stale.

        Raises:
            ConfigError: recovery.db was written by a newer release.
        """
        failures = self._failures()
        try:
            status, note = self._status()
        except (ControlError, RecordUnreadable) as error:
            self._seen = replace(self._seen, note=str(error), stale=True, failures=failures)
        else:
            self._seen = Seen(status, time.time(), note, False, failures, self._caps(status))
        return self._seen

    def _status(self) -> tuple[Found, str]:
        found = from_daemon(self.state_dir)
        if found is not None:
            self._last_run = None
            return found, ""
        # Nobody writes where no daemon runs; a daemon that came and went between two looks has.
        mark = [_mark(path) for path in (self._log, self._log.with_name("recovery.db-wal"))]
        if self._last_run is None or self._last_run[0] != mark:
            self._last_run = (mark, *from_last_run(self._log))
        return self._last_run[1:]

    def _failures(self) -> tuple[int, int] | None:
        try:
            with queries.opened(self._log) as db:
                return None if db is None else self._recent.count(db, time.time())
        except RecordUnreadable:  # shown as such; it comes back with a later look
            return None

    def _caps(self, status: Found) -> Mapping[str, int]:
        """From the file, anew with each daemon and each edit: a daemon reads them then."""
        caps_of = status["pid"], _mark(self._config)
        if caps_of == self._caps_of:
            return self._seen.caps
        self._caps_of = caps_of
        policies = load_judgement(self._config).policies
        return {kind.value: policy.max_retries for kind, policy in policies.items()}


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written or replaced."""
    try:
        found = path.stat()
    except OSError:  # what is wrong with it, reading it says
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
