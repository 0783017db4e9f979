"""Sessions that stood before a run began: who is in whose routing table has greeted the other one at some time.

Decides between whom and until when such a session is there. A contact enters a table only under a session, so that
full tables without any are what no live node has; on the other hand most of them would never be used. So two nodes
agree on theirs, by no datagram, when the first of them needs it, and no later than an idle session would have lasted.
Strangers, clients, newcomers and nodes that came back after a crash greet one another as they do live.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial

from dht.contact import Address, pack_address
from dht.endpoint import Endpoint
from dht.handshake import SessionKeys
from dht.identity import NODE_ID_BYTES
from dht.sessions import SESSION_IDLE_S
from xenonode.simulation.env import derive
from xenonode.simulation.loop import Incarnation
from xenonode.simulation.run import SimulatedNode, Simulation

MARKS = 8_191
"""Bits by which a node remembers whom it knew at the begin, a prime: a thousand contacts set an eighth of them."""


@dataclass(frozen=True, slots=True)
class _Life:
    """A node that was there from the begin, and has not crashed since if its incarnation is alive."""

    node: SimulatedNode
    incarnation: Incarnation | None
    endpoint: Endpoint
    mark: int
    marks: bytes  # of all who were in its tables at the begin: whose bit is not set was in none

    def knew(self, other: _Life) -> bool:
        """Whether the other is in any of its tables, and was at the begin.

        Most whom a node of thousands meets are strangers, and going through all their tables took a twelfth of a run.
        """
        return bool(self.marks[other.mark >> 3] >> (other.mark & 7) & 1) and _knows(self.endpoint, other.endpoint)


class Acquaintances:
    """All nodes of a world that began with full tables."""

    def __init__(self, simulation: Simulation) -> None:
        self._secret = derive(simulation.seed, "acquaintances")
        self._loop = simulation.loop
        self._until_s = simulation.loop.time() + SESSION_IDLE_S
        self._lives: dict[Address, _Life] = {}

    def add(self, node: SimulatedNode, endpoint: Endpoint) -> None:
        """This node's tables are full."""
        marks = bytearray(MARKS // 8 + 1)
        for mark in dict.fromkeys(
            _mark(each.packed[NODE_ID_BYTES:]) for overlay in endpoint.overlays.values() for each in overlay.table
        ):
            marks[mark >> 3] |= 1 << (mark & 7)
        own = _mark(pack_address(endpoint.address))
        life = self._lives[endpoint.address] = _Life(node, node.host.incarnation, endpoint, own, bytes(marks))
        endpoint.sessions.known_before = partial(self._session, life)

    def _session(self, before: _Life, address: Address) -> SessionKeys | None:
        life = self._lives.get(address)
        if life is None or life.incarnation is None or not life.incarnation.alive or self._loop.time() > self._until_s:
            return None
        own, other = before.endpoint, life.endpoint
        there = other.sessions.peers.get(own.address)
        if there is not None and there.session is not None:
            return None  # theirs stands and ours is lost: as live, we greet anew
        if not (before.knew(life) or life.knew(before)):
            return None
        pair = f"{own.address} {other.address}".encode()
        numbers = hashlib.blake2b(pair, key=self._secret, digest_size=16, person=b"numbers").digest()
        keys = hashlib.blake2b(pair, key=self._secret, digest_size=64, person=b"keys").digest()
        own_session, other_session = int.from_bytes(numbers[:8]), int.from_bytes(numbers[8:])
        theirs = SessionKeys(own.member, own.is_client, other_session, own_session, keys[32:], keys[:32])
        life.node.call(other.sessions.resume, theirs, own.address)
        return SessionKeys(other.member, other.is_client, own_session, other_session, keys[:32], keys[32:])


def _mark(packed_address: bytes) -> int:
    """The bit of whoever has this address."""
    return int.from_bytes(packed_address) % MARKS


def _knows(one: Endpoint, other: Endpoint) -> bool:
    """Whether the other is in any of the one's tables."""
    return any(
        tag in other.overlays and overlay.table.get(other.overlays[tag].contact) is not None
        for tag, overlay in one.overlays.items()
    )
