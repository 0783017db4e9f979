"""Sessions that stood before a run began: who is in whose routing table has greeted the other one at some time, and so
has whoever is introduced to another, as holders are to those who advertise.

Decides between whom and until when such a session is there. A contact enters a table only under a session, so that
full tables without any are what no live node has; on the other hand most of them would never be used. So two nodes
agree on theirs, by no datagram, when the first of them needs it, and no later than an idle session would have lasted.
Strangers, clients, newcomers and nodes that came back after a crash greet one another as they do live.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial

from dht.contact import Address
from dht.endpoint import Endpoint
from dht.handshake import SessionKeys
from dht.sessions import SESSION_IDLE_S
from xenonode.simulation.env import derive
from xenonode.simulation.loop import Incarnation
from xenonode.simulation.run import SimulatedNode, Simulation


@dataclass(frozen=True, slots=True)
class _Life:
    """A node that was there from the begin, and has not crashed since if its incarnation is alive."""

    node: SimulatedNode
    incarnation: Incarnation | None
    endpoint: Endpoint
    number: int
    known: bytearray
    """A bit by the number of each whom it had met before the begin, until their session was used. To go through the
    tables themselves for each whom a node meets took a twelfth of a run, and more of a large one; to make the bits from
    full tables, a third of a large one's begin."""

    def has_met(self, other: _Life) -> bool:
        """Whether it had met the other before the begin, and their session was not used yet."""
        place = other.number >> 3
        return place < len(self.known) and bool(self.known[place] & 1 << (other.number & 7))

    def take(self, other: _Life) -> bool:
        """The same; once only."""
        known = self.has_met(other)
        if known:
            self.known[other.number >> 3] ^= 1 << (other.number & 7)
        return known

    def meet(self, other: _Life) -> None:
        """It has met the other, whether that is in its tables or not."""
        place = other.number >> 3
        self.known.extend(bytes(max(0, place + 1 - len(self.known))))
        self.known[place] |= 1 << (other.number & 7)


class Acquaintances:
    """All nodes of a world that began with full tables."""

    def __init__(self, simulation: Simulation) -> None:
        self._secret = derive(simulation.seed, "acquaintances")
        self._loop = simulation.loop
        self._until_s = simulation.loop.time() + SESSION_IDLE_S
        self._lives: dict[Address, _Life] = {}

    def add(self, node: SimulatedNode, endpoint: Endpoint, known: bytearray) -> None:
        """This node's tables are full; `known` has a bit for each who is in any of them, by the order of adding."""
        own = len(self._lives)
        life = self._lives[endpoint.address] = _Life(node, node.host.incarnation, endpoint, own, known)
        endpoint.sessions.known_before = partial(self._session, life)

    def introduce(self, one: Address, other: Address) -> None:
        """These two have met, whoever is in whose tables. Only before anything runs, or a session is used twice."""
        first, second = self._lives.get(one), self._lives.get(other)
        if first is not None and second is not None and first is not second:
            first.meet(second)  # who was not there at the begin is a stranger to all

    def _session(self, before: _Life, address: Address) -> SessionKeys | None:
        life = self._lives.get(address)
        if life is None or life.incarnation is None or not life.incarnation.alive or self._loop.time() > self._until_s:
            return None
        own, other = before.endpoint, life.endpoint
        there = other.sessions.peers.get(own.address)
        if there is not None and there.session is not None:
            return None  # theirs stands and ours is lost: as live, we greet anew
        here, theirs_too = before.take(life), life.take(before)
        if not (here or theirs_too):
            return None
        pair = f"{own.address} {other.address}".encode()
        numbers = hashlib.blake2b(pair, key=self._secret, digest_size=16, person=b"numbers").digest()
        keys = hashlib.blake2b(pair, key=self._secret, digest_size=64, person=b"keys").digest()
        ours, theirs = keys[:32], keys[32:]  # the same objects at both ends, since a large world has a million
        own_session, other_session = int.from_bytes(numbers[:8]), int.from_bytes(numbers[8:])
        answering = SessionKeys(own.member, own.is_client, other_session, own_session, theirs, ours)
        life.node.call(other.sessions.resume, answering, own.address)
        return SessionKeys(other.member, other.is_client, own_session, other_session, ours, theirs)
