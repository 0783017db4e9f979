"""How a node enters one overlay, settles in it, leaves it, and comes back after everybody was gone.

Decides whom to ask first and when to look again. Leaves lookups to `walk` and the table to `routing`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from .contact import Address, Contact, address_text, plain_host, unpack_contacts
from .errors import DhtError, JoinError, WireError
from .patience import until_answered
from .peers import Call
from .routing import K
from .vitals import VITALS_BYTES
from .walk import FIND, LEAVE

if TYPE_CHECKING:
    from .overlay import Overlay

# A network that starts all at once needs a few seconds until its seeds answer.
JOIN_ATTEMPTS = 6
JOIN_BACKOFF_S = 0.5
MAX_JOIN_BACKOFF_S = 4.0
# Former peers that are asked at each upkeep while everybody is gone, besides the seeds.
REMEMBERED_AT_ONCE = 8
# Nodes that join at the same moment cannot know one another: look again a little later.
SETTLE_S = (1.0, 5.0, 20.0)
# Whoever only wants to meet its neighbours, or a few nodes of a distant range, need not ask all twenty.
ACQUAINTANCES = 8
# Who fell silent in these last seconds may have been heard no more because it was us who were away.
ANNOUNCED_S = 120.0
# By then whoever was told has answered, and leads on to others.
ANNOUNCED_LOOK_S = 1.0


class Joining:
    """One overlay's way in."""

    __slots__ = ("_endpoint", "_overlay", "_seeds", "_settled_among", "_settling")

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._endpoint = overlay.endpoint
        self._seeds: Sequence[Address] = ()
        self._settling: Sequence[asyncio.TimerHandle] = ()
        self._settled_among: Sequence[bytes] = ()

    async def join(self, seeds: Sequence[Address]) -> None:
        """Enter through any of the seeds; JoinError when none answers, no seeds begin a new overlay.

        One that answers is enough: the others are waited for as a lookup waits, and known when they answer later.
        """
        overlay, endpoint = self._overlay, self._endpoint
        named = dict.fromkeys((plain_host(host), port) for host, port in seeds)
        self._seeds = [seed for seed in named if seed != endpoint.address]
        if not self._seeds:
            return
        endpoint.reunion.knows(self._seeds)
        backoff_s = JOIN_BACKOFF_S
        for attempt in range(JOIN_ATTEMPTS):
            if attempt:
                await asyncio.sleep(backoff_s * endpoint.rng.uniform(0.8, 1.2))
                backoff_s = min(2 * backoff_s, MAX_JOIN_BACKOFF_S)
            asked = {seed: self._ask_seed(seed) for seed in self._seeds}
            # Whoever was silent in another overlay a moment ago is not waited for in this one.
            expected = [each for seed, each in asked.items() if not endpoint.sessions.is_lost(seed)]
            await until_answered(expected, _let_in)
            if not any(map(_has_let_in, asked.values())):
                await until_answered(list(asked.values()), _let_in)
            if any(map(_has_let_in, asked.values())):
                break
        else:
            tried = "; ".join(f"{address_text(seed)}: {each.result()}" for seed, each in asked.items())
            raise JoinError(f"no seed of {overlay.dimension!r} let us in ({tried}); is one of them running?")
        await overlay.find(overlay.node_id)
        table = overlay.table
        own_bucket = table.index_of(table.number)
        distant = [table.range_of(bucket) for index, bucket in enumerate(table.buckets) if index != own_bucket]
        await asyncio.gather(*(overlay.find(overlay.random_id(low, high), ACQUAINTANCES) for low, high in distant))
        loop = endpoint.loop
        self._settling = [
            loop.call_later(delay_s * endpoint.rng.uniform(0.7, 1.3), self._settle) for delay_s in SETTLE_S
        ]

    async def leave(self) -> None:
        """Say goodbye to the neighbours, so that they need no time-out."""
        overlay = self._overlay
        self.goodbye(overlay.table.nearest(overlay.table.number, K))
        self.close()
        self._seeds = ()
        await asyncio.sleep(0)

    def goodbye(self, contacts: Iterable[Contact]) -> None:
        """Tell these that we take no part any more."""
        for contact in contacts:
            self._endpoint.call(
                contact.address, self._overlay.tag, LEAVE, b"", ignore, contact=contact, timeout_ms=500
            )  # fmt: skip

    def close(self) -> None:
        """No timer may outlive the endpoint."""
        for timer in self._settling:
            timer.cancel()
        self._settling = ()

    def announce(self) -> None:
        """Our address is another one: who is near us, was a moment ago, or leads in, learns it by a question from here.

        Whoever else has the former one finds it silent once, and meets us in a lookup.
        """
        overlay = self._overlay
        near = overlay.table.nearest(overlay.table.number, K) + overlay.missed(ANNOUNCED_S)
        for address in dict.fromkeys([*(contact.address for contact in near), *self._seeds]):
            self._endpoint.call(address, overlay.tag, FIND, overlay.node_id, ignore)
        later = self._endpoint.loop.call_later(ANNOUNCED_LOOK_S, self._look_around)
        self._settling = [*self._settling, later]

    def _look_around(self) -> None:
        self._overlay.find_then(self._overlay.node_id, ignore_contacts)

    def feel_for_seeds(self) -> None:
        """Everybody is gone: perhaps a seed is back, or one of those who were there before."""

        def answered(call: Call, error: DhtError | None, body: bytes) -> None:
            if error is None:
                self._settle()

        remembered = self._endpoint.remembered
        some = self._endpoint.rng.sample(remembered, min(REMEMBERED_AT_ONCE, len(remembered)))
        for address in dict.fromkeys([*self._seeds, *some]):
            self._endpoint.call(address, self._overlay.tag, FIND, self._overlay.node_id, answered)

    def enter_through(self, address: Address, look: bool, then: Callable[[bool | None], None]) -> None:
        """Somebody who was lost is back: its answer puts it into the table. Strangers near us are another network.

        In a network larger than a table everybody names strangers further off: these make us look around only where the
        caller wishes it. `then` is told whether others near us were met, or None where the peer did not let us in.
        """
        overlay = self._overlay
        if not overlay.active:
            then(None)
            return

        def answered(call: Call, error: DhtError | None, body: bytes) -> None:
            if error is not None or not overlay.active:
                then(None)
                return
            try:
                named = unpack_contacts(body[VITALS_BYTES:], K)
            except WireError:
                self._endpoint.counters["hostile-answer"] += 1
                then(None)
                return
            before = self._neighbours()

            def looked(_: list[Contact]) -> None:
                then(any(each not in before and each.address != address for each in self._neighbours()))

            strangers = [contact for contact in named if overlay.table.get(contact) is None]
            if (look and strangers) or any(self._is_neighbour(contact, before) for contact in strangers):
                overlay.find_then(overlay.node_id, looked, ACQUAINTANCES)
            else:
                then(False)

        self._endpoint.call(address, overlay.tag, FIND, overlay.node_id, answered)

    def lacks(self, contact: Contact) -> bool:
        """Whether it is not in the table, and would be among those nearest to us."""
        return self._overlay.table.get(contact) is None and self._is_neighbour(contact, self._neighbours())

    def _neighbours(self) -> list[Contact]:
        return self._overlay.table.nearest(self._overlay.table.number, ACQUAINTANCES)

    def _is_neighbour(self, contact: Contact, known: list[Contact]) -> bool:
        """Whether it would be among those nearest to us that we know."""
        own = self._overlay.table.number
        if contact.number == own or contact.node_id in self._overlay.shunned:
            return False
        return len(known) < ACQUAINTANCES or contact.number ^ own < known[-1].number ^ own

    def _ask_seed(self, seed: Address) -> asyncio.Future[DhtError | None]:
        future: asyncio.Future[DhtError | None] = self._endpoint.loop.create_future()

        def answered(call: Call, error: DhtError | None, body: bytes) -> None:
            if not future.done():
                # The endpoint has put a seed that answered into the table; the lookup of ourselves begins there.
                future.set_result(error)

        self._endpoint.call(seed, self._overlay.tag, FIND, self._overlay.node_id, answered)
        return future

    def _settle(self) -> None:
        table = self._overlay.table
        near = [contact.node_id for contact in table.nearest(table.number, ACQUAINTANCES)]
        if near != self._settled_among:  # else nobody has come near since we looked last
            self._settled_among = near
            self._overlay.find_then(self._overlay.node_id, ignore_contacts, ACQUAINTANCES)


def _let_in(error: DhtError | None) -> bool:
    return error is None


def _has_let_in(asked: asyncio.Future[DhtError | None]) -> bool:
    return asked.done() and asked.result() is None


def ignore(call: Call, error: DhtError | None, body: bytes) -> None:
    """For calls whose effect is on the table, or none."""


def ignore_contacts(contacts: list[Contact]) -> None:
    """For lookups that only refresh the table."""
