"""Parts of a network that lost each other find together again: what a node does about peers that fell silent.

A partition that lasts longer than a few time-outs empties the tables of everybody on the other side, and then neither
side has a reason to look there: both go on as networks of their own, for ever. So a node remembers whom it lost, and
asks a few of them now and then, as well as seeds that it does not know any more. One answer is enough: it enters all
overlays through that peer once more, and the lookups of itself make both sides' neighbours known to each other.

Mostly a peer was away for a moment only, and nothing is to be found through it. So it looks around in one overlay, by
turn, and in the others where the peer names somebody near, or where others near were met, here or a moment ago.

Decides whom to ask and when. Leaves joining to `joining`, and what is done where nobody at all is left.
Found by simulated seeds of partitions: half a minute parted eight servers of thirty from the rest for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .aging import Aging
from .answering import PING
from .contact import Address
from .errors import DhtError
from .peers import Call, Peer

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .overlay import Overlay

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
# Whoever met strangers near itself looks for more in all overlays so long: others may have mended those near it in one.
REUNITING_S = 90.0


class Reunion:
    """One endpoint's memory of those who are gone."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._gone: Aging[Address, float] = Aging()  # since when
        self._seeds: dict[Address, None] = {}
        self._seeds_asked_s = self._met_s = float("-inf")
        self._others_met_s = float("-inf")
        self._turn = 0  # of the overlays: in which one a peer that is back is looked around from in any case

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
            peer = endpoint.peer(address)
            if address == endpoint.address:
                self._gone.pop(address, None)
            elif peer is not None and peer.member is not None and self._is_known(peer):
                self._back(peer)
            else:
                endpoint.call(address, endpoint.network_tag, PING, b"", self._answered)

    def _is_known(self, peer: Peer) -> bool:
        """Whether it is in a table at this address; by its ids, since tables have hundreds of contacts."""
        for overlay in self._endpoint.overlays.values():
            held = overlay.table.get(overlay.contact_of(peer))
            if held is not None and held.address == peer.address:
                return True
        return False

    def _answered(self, call: Call, error: DhtError | None, body: bytes) -> None:
        if error is not None or call.peer.is_client:
            return
        address, now_s = call.peer.address, self._endpoint.time()
        if now_s - self._met_s < MEET_EVERY_S or self._is_known(call.peer):
            self._back(call.peer)
            return
        self._gone.pop(address, None)
        self._met_s = now_s
        self._endpoint.counters["reunions"] += 1
        self.meet(address)

    def _back(self, peer: Peer) -> None:
        """Whoever it is leads nowhere new, but near us it belongs into the table."""
        self._gone.pop(peer.address, None)
        for overlay in self._endpoint.overlays.values():
            if overlay.active and overlay.joining.lacks(overlay.contact_of(peer)):
                overlay.joining.enter_through(peer.address, False, self._noted)

    def meet(self, address: Address) -> None:
        """Somebody who was lost is at this address again."""
        active = [overlay for overlay in self._endpoint.overlays.values() if overlay.active]
        if active:
            turn = self._turn % len(active)
            self._turn += 1
            self._enter_through(address, [*active[turn:], *active[:turn]])

    def _enter_through(self, address: Address, overlays: Sequence[Overlay]) -> None:
        """Look around in the first of these in which the peer is, and then in the rest as far as that is worth it."""
        first, rest = overlays[0], overlays[1:]

        def looked(met: bool | None) -> None:
            if not self._endpoint.is_open:  # closing fails what is under way
                return
            if met is None and rest:
                self._enter_through(address, rest)
                return
            self._noted(met)
            everywhere = self._endpoint.time() - self._others_met_s < REUNITING_S
            for overlay in rest:
                overlay.joining.enter_through(address, everywhere, self._noted)

        first.joining.enter_through(address, True, looked)

    def _noted(self, met: bool | None) -> None:
        if met:
            self._others_met_s = self._endpoint.time()
