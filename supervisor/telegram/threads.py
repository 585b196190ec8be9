"""Threads for handlers that are no coroutines: one pool for all clients, with as many threads as such handlers run at once.

A pool for each client, as the library has it, keeps a thread or more for each of a thousand bots for ever.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

# At once, in the whole process; a client has no more than `workers` handlers at work. A stuck one keeps its thread.
MOST = 1000


class HandlerThreads:
    """The pool, while some client uses it."""

    def __init__(self) -> None:
        self._users: set[Any] = set()
        self._pool: ThreadPoolExecutor | None = None

    def pool(self, user: Any) -> ThreadPoolExecutor:
        """The threads, for this client too until it leaves."""
        self._users.add(user)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(MOST, thread_name_prefix="Handler")
        return self._pool

    def leave(self, user: Any) -> None:
        """This client needs none any more; those that nobody needs end."""
        self._users.discard(user)
        if not self._users and self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


shared = HandlerThreads()
