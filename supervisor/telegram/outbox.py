"""The queries of one MTProto session that have no answer yet, and what may be sent of them, and how.

A query keeps its msg_id, seq_no and bytes for as long as some sending of it may have been accepted: the server
then answers without doing it twice. One that was refused unread gets a new msg_id. What was sent in a session
that is lost is given back as `SessionGone`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from supervisor.core.failure import Evidence, Source
from supervisor.ports import LinkFailed, SessionGone
from supervisor.telegram.messages import Numbers, Pending

# A server refuses a msg_id that is older than this (core.telegram.org/mtproto/description#message-identifier-msg-id).
MSG_ID_LIFETIME = 300.0
# How often the server may refuse one query unread before its caller hears of it.
REFUSALS = 5
# The error table's name for what this version of the library cannot read.
UNREADABLE = "UNREADABLE"


class Outbox:
    """Queries on their way. `write` takes a message that has its numbers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        numbers: Numbers,
        write: Callable[[bytes], None],
        margin: float,
    ) -> None:
        """Begin with nothing.

        Args:
            loop: the event loop.
            numbers: the session's.
            write: puts a message on the present connection, if there is one.
            margin: seconds before a msg_id's end of life in which it is not sent again.
        """
        self._loop = loop
        self._numbers = numbers
        self._write = write
        self._lifetime = MSG_ID_LIFETIME - margin
        self._pending: dict[int, Pending] = {}
        self._unsent: list[Pending] = []
        self._link = 0
        self.resent = 0  # queries that the present link began with

    @property
    def unanswered(self) -> int:
        """How many queries wait for an answer."""
        return len(self._pending) + len(self._unsent)

    @property
    def owed_since(self) -> float | None:
        """When the oldest unanswered query was last sent, on the loop's clock."""
        for pending in self._pending.values():
            return pending.sent_at
        return None

    def __contains__(self, msg_id: object) -> bool:
        return msg_id in self._pending

    # --- in and out -----------------------------------------------------------------------------------

    def make(self, name: str, body: bytes) -> Pending:
        """A query that has not been sent."""
        return Pending(name, body, self._loop.create_future())

    def put_off(self, pending: Pending) -> None:
        """Keep a query for the next link."""
        self._unsent.append(pending)

    def send(self, pending: Pending) -> None:
        """Give a query its place in the present session and send it."""
        pending.msg_id = self._numbers.msg_id()
        pending.seq_no = self._numbers.seq_no(content=True)
        self._pending[pending.msg_id] = pending
        self._transmit(pending)

    def answered(self, msg_id: int) -> Pending | None:
        """The query that this answers, no longer in here; None if nobody waits for it."""
        pending = self._pending.pop(msg_id, None)
        return None if pending is None or pending.future.done() else pending

    def forget(self, pending: Pending) -> None:
        """Nobody waits for this query any longer."""
        if self._pending.get(pending.msg_id) is pending:
            del self._pending[pending.msg_id]
        if not pending.future.done():
            pending.future.cancel()
        elif not pending.future.cancelled():
            pending.future.exception()  # where nobody has waited to the end

    # --- a new link -----------------------------------------------------------------------------------

    def begin_link(self) -> None:
        """Whatever is sent from now on goes over another connection."""
        self._link += 1

    def send_again(self) -> None:
        """Send what is unanswered over the new link, in order, then what was never sent."""
        self.resent = self.unanswered
        oldest = self._numbers.oldest(self._lifetime)
        old = [p for p in self._pending.values() if p.link != self._link]
        self._abandon(p for p in old if p.msg_id < oldest)
        for pending in sorted(old, key=lambda p: p.msg_id):
            if pending.msg_id >= oldest:
                self._transmit(pending)
        while self._unsent:
            pending = self._unsent.pop(0)
            if not pending.future.done():
                self.send(pending)

    def repeat(self, before: float) -> None:
        """The link lives, but what was sent before this time has no answer: send the same again."""
        oldest = self._numbers.oldest(self._lifetime)
        late = [p for p in self._pending.values() if p.sent_at <= before]
        self._abandon(p for p in late if p.msg_id < oldest)
        for pending in late:
            if pending.msg_id >= oldest:
                self._transmit(pending)

    # --- refused and lost -----------------------------------------------------------------------------

    def refused(self, msg_id: int, why: str) -> bool:
        """The server refused a message unread: send it again; False if it was no query of ours.

        Under a new msg_id, unless an earlier sending may have been accepted: the same one keeps it single.

        Args:
            msg_id: the message.
            why: what the server said.
        """
        pending = self._pending.get(msg_id)
        if pending is None:
            return False
        pending.refusals += 1
        if pending.refusals > REFUSALS:
            self._give_back(pending, why)
        elif pending.may_be_done:
            self._transmit(pending)
        else:
            self._send_anew(pending)
        return True

    def _give_back(self, pending: Pending, why: str) -> None:
        self._pending.pop(pending.msg_id, None)
        if not pending.future.done():
            message = f"the server refused {pending.name} {pending.refusals} times: {why}"
            seen = Evidence(Source.PROTOCOL, message, step="session")
            pending.future.set_exception(LinkFailed(seen, sent=pending.may_be_done))

    def unknown(self, msg_id: int) -> None:
        """The server cannot tell what became of a message."""
        pending = self._pending.get(msg_id)
        if pending is not None:
            self._abandon([pending])

    def gone_before(self, first_msg_id: int) -> None:
        """The server's session began with this message: it remembers nothing of what it did before."""
        self._abandon(p for p in self._pending.values() if p.msg_id < first_msg_id)

    def renew(self, refused_msg_id: int | None = None) -> None:
        """Another session begins; only a message that the server has just refused is known not to be done.

        Args:
            refused_msg_id: that message.
        """
        refused = self._pending.get(refused_msg_id) if refused_msg_id is not None else None
        if refused is not None:
            refused.refusals += 1
            if not refused.may_be_done and refused.refusals <= REFUSALS:
                del self._pending[refused.msg_id]
            else:
                refused = None
        self._abandon(self._pending.values())
        self._numbers.renew()
        if refused is not None and not refused.future.done():
            self.send(refused)

    def give_up(self) -> None:
        """Give everything back."""
        self._abandon([*self._pending.values(), *self._unsent])
        self._unsent.clear()

    # --- one query ------------------------------------------------------------------------------------

    def _transmit(self, pending: Pending) -> None:
        pending.link = self._link
        pending.sends += 1
        pending.sent_at = self._loop.time()
        self._pending[pending.msg_id] = self._pending.pop(pending.msg_id)  # in the order of the last sendings
        self._write(pending.write())

    def _send_anew(self, pending: Pending) -> None:
        """Send a query that the server knows nothing of, under a new msg_id."""
        self._pending.pop(pending.msg_id, None)
        if not pending.future.done():
            self.send(pending)

    def _abandon(self, pendings: Iterable[Pending]) -> None:
        for pending in list(pendings):
            self._pending.pop(pending.msg_id, None)
            if not pending.future.done():
                pending.future.set_exception(SessionGone(sent=pending.may_be_done))
                pending.future.exception()  # whoever waits for it still gets it; nobody waiting is no fault


def unreadable(pending: Pending, why: str) -> LinkFailed:
    """What the caller gets whose query was answered with something that cannot be read."""
    message = f"the answer to {pending.name} cannot be read: {why}"
    seen = Evidence(Source.PROTOCOL, message, UNREADABLE, method=pending.name, step="answer")
    return LinkFailed(seen, sent=True)
