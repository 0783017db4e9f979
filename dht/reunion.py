"""Parts of a network that lost each other find together again: what a node does about peers that fell silent.

A partition that lasts longer than a few time-outs empties the tables of everybody on the other side, and then neither
side has a reason to look there: both go on as networks of their own, for ever. So a node remembers whom it lost, and
asks a few of them now and then, as well as seeds that it does not know any more. One answer is enough: it enters all
overlays through that peer once more, and the lookups of itself make both sides' neighbours known to each other.

Decides whom to ask and when. Leaves joining to `joining`, and what is done where nobody at all is left.
Found by simulated seeds of partitions: half a minute parted eight servers of thirty from the rest for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .aging import Aging
from .answering import PING
from .contact import Address
from .errors import DhtError
from .peers import Call

if TYPE_CHECKING:
    from .endpoint import Endpoint

# Whom a node remembers as lost; in a partition of a large network any few of those are enough.
MAX_GONE = 256
# Of them so many are asked at each upkeep, four times a minute: a dead peer costs four small datagrams.
ASKED_AT_ONCE = 2
# Who was away for longer comes back by itself.
GONE_S = 86_400.0
# Seeds serve everybody: ten thousand nodes that do not know one ask it 33 times a second.
SEEDS_EVERY_S = 300.0
# A whole other side that answers is one event: whoever enters it once meets the others there by lookups.
MEET_EVERY_S = 30.0


class Reunion:
    """One endpoint's memory of those who are gone."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._gone: Aging[Address, float] = Aging()  # since when
        self._seeds: dict[Address, None] = {}
        self._seeds_asked_s = self._met_s = float("-inf")

    def knows(self, seeds: Iterable[Address]) -> None:
        """These lead into the network."""
        self._seeds.update(dict.fromkeys(seeds))

    def lost(self, address: Address) -> None:
        """Nobody answers there any more."""
        self._gone.pop(address, None)
        self._gone[address] = self._endpoint.time()
        if len(self._gone) > MAX_GONE:
            self._gone.pop_oldest()

    def tick(self) -> None:
        """Ask a few of those who are not known to be back."""
        endpoint, now_s = self._endpoint, self._endpoint.time()
        while self._gone and next(iter(self._gone.values())) < now_s - GONE_S:
            self._gone.pop_oldest()
        some = endpoint.rng.sample(sorted(self._gone), min(ASKED_AT_ONCE, len(self._gone)))
        if now_s - self._seeds_asked_s >= SEEDS_EVERY_S:
            self._seeds_asked_s = now_s
            some += list(self._seeds)
        for address in dict.fromkeys(some):
            if address == endpoint.address or self._is_known(address):
                self._gone.pop(address, None)
            else:
                endpoint.call(address, endpoint.network_tag, PING, b"", self._answered)

    def _is_known(self, address: Address) -> bool:
        return any(overlay.table.at(address) for overlay in self._endpoint.overlays.values())

    def _answered(self, call: Call, error: DhtError | None, body: bytes) -> None:
        if error is not None or call.peer.is_client:
            return
        address, now_s = call.peer.address, self._endpoint.time()
        self._gone.pop(address, None)
        if now_s - self._met_s < MEET_EVERY_S or self._is_known(address):
            return
        self._met_s = now_s
        self._endpoint.counters["reunions"] += 1
        for overlay in self._endpoint.overlays.values():
            if overlay.active:
                overlay.joining.enter_through(address)
