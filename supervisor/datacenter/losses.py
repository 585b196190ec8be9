"""Pushes that get lost on Telegram's side: the client's link is well, and no update comes over it."""

from __future__ import annotations

from collections import Counter


class Losses:
    """Whose updates are lost now. A user id of None means everybody's."""

    def __init__(self) -> None:
        self._stopped: set[int | None] = set()
        self._until_asked: set[int] = set()
        self._next: Counter[int | None] = Counter()

    def stop(self, user_id: int | None) -> None:
        """Lose every push until `resume`."""
        self._stopped.add(user_id)

    def stop_until_asked(self, user_id: int) -> None:
        """Lose every push until the account asks where its updates stand."""
        self._until_asked.add(user_id)

    def asked(self, user_id: int) -> None:
        """The account asked for its state or a difference."""
        self._until_asked.discard(user_id)

    def resume(self, user_id: int | None) -> None:
        """Push again; None ends every loss."""
        if user_id is None:
            self._stopped.clear()
            self._until_asked.clear()
            self._next.clear()
        else:
            self._stopped.discard(user_id)
            self._until_asked.discard(user_id)
            del self._next[user_id]

    def drop(self, user_id: int | None, count: int) -> None:
        """Lose the next `count` pushes."""
        self._next[user_id] += count

    def take(self, user_id: int) -> bool:
        """Whether the push that is to be made to this account now is lost."""
        if None in self._stopped or user_id in self._stopped or user_id in self._until_asked:
            return True
        for whose in (user_id, None):
            if self._next[whose] > 0:
                self._next[whose] -= 1
                return True
        return False
