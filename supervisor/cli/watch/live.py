"""The watch on a terminal: one thread looks and gives orders, so that keys are answered whatever the daemon does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Thread

from supervisor.cli.common import ExitCode, Options
from supervisor.cli.control import said, tell
from supervisor.cli.watch.draw import frame, room
from supervisor.cli.watch.look import PACE, REST, Looker, Seen
from supervisor.cli.watch.terminal import Terminal
from supervisor.cli.watch.view import Account, Order, View, answered, placed, pressed, rank, shown
from supervisor.errors import SupervisorError


def live(looker: Looker, given: Options) -> int:
    """Show the watch until a person ends it; gives the exit code."""
    terminal = Terminal(color=given.color)
    with terminal.taken():
        asker = Asker(looker, terminal.wake)
        asker.start()
        Watch(asker, terminal).run()
    return ExitCode.OK


class Asker(Thread):
    """Looks again and again, and passes orders on to the daemon.

    Its thread ends with the process: an order that is under way is the daemon's by then.

    Args:
        looker: does the looking.
        news: told after each look and each order.
    """

    def __init__(self, looker: Looker, news: Callable[[], None]) -> None:
        super().__init__(name="watch", daemon=True)
        self._looker = looker
        self._news = news
        self._orders: SimpleQueue[Order] = SimpleQueue()
        self._seen = Seen()
        self._failed: Exception | None = None
        self.answers: SimpleQueue[str] = SimpleQueue()

    @property
    def seen(self) -> Seen:
        """What the last look found.

        Raises:
            Exception: what ended the looking, if anything did.
        """
        if self._failed is not None:
            raise self._failed
        return self._seen

    def order(self, order: Order) -> None:
        """Have it passed on; what comes of it is among the `answers`."""
        self._orders.put(order)

    def run(self) -> None:
        try:
            while True:
                began = time.thread_time()
                self._seen = self._looker.look()
                self._news()
                self._rest(max(PACE, REST * (time.thread_time() - began)))
        except Exception as error:  # noqa: BLE001 - raised by `seen`, in the thread that owns the terminal
            self._failed = error
            self._news()

    def _rest(self, seconds: float) -> None:
        """Until the next look is due, or an order was given: then the next look shows what came of it."""
        try:
            order = self._orders.get(timeout=seconds)
        except Empty:
            return
        try:
            answer = tell(self._looker.state_dir, order.verb, (order.account,))
            self.answers.put(
                "; ".join(f"{one['name']}: {said(order.verb, one)}" for one in answer["accounts"])
            )
        except SupervisorError as error:
            self.answers.put(f"{order.verb} {order.account}: {error}")


class Watch:
    """What is on the screen, and what keys do to it."""

    def __init__(self, asker: Asker, terminal: Terminal) -> None:
        self._asker = asker
        self._terminal = terminal
        self._view = View()
        self._accounts: Sequence[Account] = ()
        self._names: Sequence[str] = ()
        self._made_of: tuple[object, ...] = ()
        self._status: object = None

    def run(self) -> None:
        """Go on until a key says that it is over."""
        while not self._view.over:
            self._paint()
            # Countdowns go on with the seconds of the clock.
            for key in self._terminal.wait(PACE - time.time() % PACE):
                self._press(key)
            while not self._asker.answers.empty():
                self._view = replace(self._view, said=self._asker.answers.get())

    def _paint(self) -> None:
        seen, size = self._place()
        self._terminal.paint(frame(seen, self._view, self._accounts, size, time.time()))

    def _place(self) -> tuple[Seen, tuple[int, int]]:
        """Bring the view onto what there is to see now."""
        seen, size, view = self._asker.seen, self._terminal.size(), self._view
        made_of = (view.sort, view.state, view.pattern)
        if made_of != self._made_of or seen.status is not self._status:
            self._accounts = shown(seen.status["accounts"], view) if seen.status else ()
            self._names = [account["name"] for account in self._accounts]
            self._made_of, self._status = made_of, seen.status
        self._view = placed(view, self._names, room(seen, size))
        return seen, size

    def _press(self, key: str) -> None:
        seen, size = self._place()
        if key == "redraw":
            self._terminal.forget()
        elif self._view.asking is not None:
            self._view, order = answered(self._view, key)
            if order is not None:
                self._view = replace(self._view, said=f"{order.verb} {order.account} …")
                self._asker.order(order)
        else:
            everyone = seen.status["accounts"] if seen.status else ()
            states = sorted({account["state"] for account in everyone}, key=rank)
            self._view = pressed(self._view, key, self._accounts, states, room(seen, size))
