"""One call's way over a foreign link, whose connections come and go (foreign.py)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from supervisor.core.failure import Evidence
from supervisor.ports import LinkFailed, RpcFailed
from supervisor.telegram import evidence as evidences
from supervisor.telegram import queries

if TYPE_CHECKING:
    from supervisor.telegram.foreign import ForeignLink

# The table's word on it: export anew. The same bytes sent again would be refused again.
_EXPORT_ANEW = "AUTH_BYTES_INVALID"


class Errand:
    """One call on its way to a foreign datacenter (ports.Elsewhere), over as many connections as it takes.

    While it is out it keeps its place in the MTProto session: over the next connection the same message goes out again.
    """

    def __init__(self, link: ForeignLink) -> None:
        self.dc_id = link.dc_id
        self._link = link
        self._key = b""
        self._sending: asyncio.Task[Any] | None = None

    @property
    def is_out(self) -> bool:
        """Whether the query was sent, and no answer has come."""
        return self._sending is not None

    @property
    def is_ready(self) -> bool:
        """Whether the link is open."""
        return self._link.is_open

    async def ready(self) -> None:
        """Open the link."""
        await self._link.be_open()

    async def send(self, query: Any) -> Any:
        """Send the query, or wait on where it was sent already."""
        link = self._link
        if self._sending is None:
            self._key = link.auth_key
            name = f"datacenter {self.dc_id}: {queries.method_name(query)}"
            self._sending = asyncio.create_task(link.session.send(query), name=name)
        sending, loss = self._sending, link.loss
        await asyncio.wait({sending, loss}, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            raise LinkFailed(loss.result())
        self._sending = None
        try:
            return sending.result()
        except RpcFailed as error:
            link.refused(error, self._key)
            raise

    def end(self) -> None:
        """Nobody waits for an answer any longer."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending.add_done_callback(retrieve)


class Interrupted(Exception):
    """A link was lost, or refused, while it was being opened."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence.message)
        self.evidence = evidence


class Transfer(Errand):
    """The import of an authorization: a step of opening the link, so that what ends it ends the attempt."""

    @property
    def is_ready(self) -> bool:
        """Whether the connection, which is not open to others yet, still stands."""
        return not self._link.loss.done()

    async def ready(self) -> None:
        """It does not, and is not made anew within this attempt."""
        raise Interrupted(self._link.loss.result())

    async def send(self, query: Any) -> Any:
        """Send the query, once."""
        try:
            return await super().send(query)
        except LinkFailed as failed:
            raise Interrupted(failed.evidence) from failed
        except RpcFailed as error:
            if error.text != _EXPORT_ANEW:
                raise
            raise Interrupted(evidences.from_rpc(error.code, error.text, method=error.method)) from error


def retrieve(task: asyncio.Task[Any]) -> None:
    """Have a task's exception told only to those who wait for it; where nobody does, the next call tries again."""
    if not task.cancelled():
        task.exception()
