"""What a service manager is told, as sd_notify(3) has it: that the daemon is up, reads its file, stops; that it lives.

Nothing is said where nobody has asked: without ``NOTIFY_SOCKET`` in the environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

_log = logging.getLogger(__name__)


class Notifier:
    """Speaks to the service manager.

    Args:
        env: the environment that it gave us.
    """

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self._address = env.get("NOTIFY_SOCKET", "")
        self.watchdog = _watchdog(env) if self._address else None
        self._heard = True
        self._is_up = False

    def say(self, message: str) -> None:
        """Send one message; that it cannot be sent is said in the log, once, and is no reason to stop."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)  # a manager that does not read must not hold the loop up
                sock.sendto(message.encode(), address)
            self._heard = True
        except OSError as error:
            if self._heard:
                _log.warning("NOTIFY_SOCKET: the service manager cannot be told %s: %s", message, error)
            self._heard = False

    @contextmanager
    def up(self, is_well: Callable[[], bool]) -> Iterator[None]:
        """The daemon is up inside the ``with``, in a running loop; its watchdog, if it wants one, is fed there.

        Args:
            is_well: whether all that must work does. That the loop is live is proved by its being asked.
        """
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def feed(every: float) -> None:
            nonlocal timer
            if is_well():
                self.say("WATCHDOG=1")
            timer = loop.call_later(every, feed, every)

        self.say("READY=1")
        self._is_up = True
        if self.watchdog is not None:
            feed(self.watchdog / 4)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            self._is_up = False
            self.say("STOPPING=1")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """The configuration is read again inside the ``with``; right or wrong, the daemon is ready afterwards."""
        self.say(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            if self._is_up:  # not where it has been cut short by the end
                self.say("READY=1")


def _watchdog(env: Mapping[str, str]) -> float | None:
    """The seconds after which a silent daemon is ended; None where it may be silent, or another process is meant."""
    whose = env.get("WATCHDOG_PID", "")
    try:
        seconds = int(env.get("WATCHDOG_USEC", "0")) / 1e6
        ours = not whose or int(whose) == os.getpid()
    except ValueError:
        _log.warning("WATCHDOG_USEC, WATCHDOG_PID: not numbers; the watchdog is not fed")
        return None
    return seconds if ours and seconds > 0 else None
