"""Scripted faults: what goes wrong, for whom, for which method, how often."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class FaultKind(enum.StrEnum):
    """What a fault does to a call."""

    RPC_ERROR = "rpc_error"
    """The call is answered with `code` and `error` and has no effect."""
    DROP_BEFORE = "drop_before"
    """The connection is reset before the call is executed."""
    DROP_AFTER = "drop_after"
    """The call is executed, then the connection is reset; the answer stays in the session, unacknowledged."""
    SILENCE = "silence"
    """The call is executed and its answer withheld: this delivery of it, or each one while the fault lasts."""
    BAD_MSG = "bad_msg"
    """The message is refused with bad_msg_notification `code`, or with bad_server_salt for 48; not executed."""
    SALT = "salt"
    """A packet, whatever is in it, is refused with bad_server_salt and yet another salt. It names no method."""
    TRANSPORT = "transport"
    """The packet is answered with the transport error `code`, and the connection is closed."""
    CLOSE = "close"
    """The connection is closed in order (FIN) before the call is executed."""
    FORGED = "forged"
    """A step of the key exchange is answered as by an impostor: another RSA key, an answer under another key."""


@dataclass(slots=True)
class Fault:
    """One scripted fault.

    `account` is a user id, or None for everybody, signed in or not. `method` is a name such as
    ``messages.SendMessage``, a wrapper such as ``InitConnection``, or None for every method; `Ping` and the steps of the
    key exchange (``req_pq_multi``, ``req_DH_params``, ``set_client_DH_params``) have to be named. The fault lets `skip`
    calls pass and then happens `count` times; None is for ever. A `FLOOD_WAIT_n` begins a wait, in which further
    calls of the method get what remains of it, whatever the count.
    """

    kind: FaultKind | str
    account: int | None = None
    method: str | None = None
    count: int | None = 1
    code: int = 0
    error: str = ""
    skip: int = 0
    happened: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.kind = FaultKind(self.kind)
        if self.kind is FaultKind.RPC_ERROR and not (self.code and self.error):
            raise ValueError(
                "an rpc_error fault needs code and error, such as code=420, error='FLOOD_WAIT_12'"
            )
        if self.kind is FaultKind.FORGED and not self.method:
            raise ValueError("a forged fault names a step of the key exchange, such as method='req_pq_multi'")
        if self.kind in (FaultKind.BAD_MSG, FaultKind.TRANSPORT) and not self.code:
            raise ValueError(f"a {self.kind} fault needs a code")

    @property
    def is_over(self) -> bool:
        return self.count is not None and self.happened >= self.count

    def concerns(self, user_id: int | None, methods: Collection[str]) -> bool:
        """Whether a call by `user_id` that bears these names (its wrappers' and its own) is meant."""
        return (self.account is None or self.account == user_id) and (
            self.method is None or self.method in methods
        )


class Faults:
    """The faults that are in force, asked in the order in which they were added."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force."""
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Take one fault back. Nothing happens where it is over already."""
        self._faults = [other for other in self._faults if other is not fault]

    def clear(self) -> None:
        """Take all faults back."""
        self._faults.clear()

    def take(
        self, user_id: int | None, methods: Collection[str], *kinds: FaultKind, named: bool = False
    ) -> Fault | None:
        """The first fault of these kinds that happens to this call now, or None; it counts as having happened.

        With `named` only faults that name a method are asked: service messages are nobody's method.
        """
        if not self._faults:
            return None
        for fault in self._faults:
            if (
                fault.kind not in kinds
                or (named and fault.method is None)
                or not fault.concerns(user_id, methods)
            ):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.happened += 1
            if fault.is_over:
                self.remove(fault)
            return fault
        return None
