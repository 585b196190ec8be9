"""What one account knows, in memory: peers by id, by username and by phone, and its update state.

Each change hands what must be written to `put`: the row's key and the statements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from supervisor.telegram.storage import schema
from supervisor.telegram.storage.rows import Peer, UpdateRow
from supervisor.telegram.storage.writer import Statement

PEER_FRESH = 15 * 60  # seconds within which a peer that is seen again unchanged is not written again

Put = Callable[[tuple[int | str | None, ...], tuple[Statement, ...]], None]


class Known:
    """Peers and update state of one account.

    Args:
        number: the number under which the account's rows are kept.
        peers: its peers by id; no username stands at two of them.
        states: its update state by id.
        put: queues what must be written.
    """

    __slots__ = ("_number", "_put", "names", "peers", "phones", "states")

    def __init__(self, number: int, peers: dict[int, Peer], states: dict[int, UpdateRow], put: Put) -> None:
        self._number = number
        self._put = put
        self.peers = peers
        self.states = states
        self.names = {name: peer_id for peer_id, peer in peers.items() for name in peer.names}
        self.phones = {peer.phone: peer_id for peer_id, peer in peers.items() if peer.phone}

    def see(self, peer_id: int, new: Peer) -> None:
        """Note a peer, unless it is known just so and was seen a moment ago."""
        old = self.peers.get(peer_id)
        if (
            old is None
            or old[:3] != new[:3]
            or old.names != new.names
            or not 0 <= new.seen - old.seen < PEER_FRESH
        ):
            self.put_peer(peer_id, new)

    def put_peer(self, peer_id: int, peer: Peer) -> None:
        """Note a peer; its usernames are no other peer's from now on."""
        old = self.peers.get(peer_id)
        if old is not None:
            self._unlink(peer_id, old)
        self.peers[peer_id] = peer
        if peer.phone:
            self.phones[peer.phone] = peer_id
        for name in peer.names:
            self._claim(name, peer_id)
        row = (self._number, peer_id, peer.access_hash, peer.kind, peer.phone, peer.seen)
        self._put(("peer", peer_id), ((schema.PUT_PEER, row),))
        if peer.names or (old is not None and old.names):
            self._put(("names", peer_id), self._name_statements(peer_id, peer.names))

    def put_state(self, row: UpdateRow) -> None:
        """Note an update state; what is None in it stays as it is."""
        old = self.states.get(row.id)
        if old is not None:
            row = UpdateRow(
                row.id,
                old.pts if row.pts is None else row.pts,
                old.qts if row.qts is None else row.qts,
                old.date if row.date is None else row.date,
                old.seq if row.seq is None else row.seq,
            )
        if row != old:
            self.states[row.id] = row
            self._put(("state", row.id), ((schema.PUT_STATE, (self._number, *row)),))

    def drop_state(self, state_id: int) -> None:
        """Forget an update state."""
        if self.states.pop(state_id, None) is not None:
            self._put(("state", state_id), ((schema.DROP_STATE, (self._number, state_id)),))

    def _name_statements(self, peer_id: int, names: Iterable[str]) -> tuple[Statement, ...]:
        drop: Statement = (schema.DROP_NAMES, (self._number, peer_id))
        rows = ((schema.PUT_NAME, (self._number, name, peer_id, i)) for i, name in enumerate(names))
        return (drop, *rows)

    def _claim(self, name: str, peer_id: int) -> None:
        holder = self.names.get(name)
        if holder is not None and holder != peer_id:
            other = self.peers[holder]
            self.peers[holder] = other._replace(names=tuple(kept for kept in other.names if kept != name))
        self.names[name] = peer_id

    def _unlink(self, peer_id: int, peer: Peer) -> None:
        for name in peer.names:
            self.names.pop(name, None)
        if peer.phone and self.phones.get(peer.phone) == peer_id:
            del self.phones[peer.phone]
