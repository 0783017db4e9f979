"""Nodes that do not play fair: the real node, of which one part answers otherwise than it should.

Each variant puts something in the place of one method of the running node's parts, and takes it away when the injection
is over, so that all other code is shared with honest nodes. Decides what each lie is; what a lie may change is for the
invariants. Liars have valid credentials: they are members, and what members may do is what they can do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from dht import wire
from dht.contact import Contact, pack_contacts
from dht.envelope import Envelope
from dht.errors import DhtError
from dht.identity import NODE_ID_BYTES
from dht.record import seal_record
from dht.routing import K
from dht.walk import PUT
from summaries.forms import to_fields
from summaries.holder import Action
from summaries.messages import AdvertIs, Answer, Digest, Insert, Outline, Row, ZoneUpdate
from summaries.point import Point
from summaries.trie import ROOT, destination, keys_of
from summaries.zone import MAX_HEIGHT_STEPS, Zone
from xenonode.model.advert import Advert
from xenonode.search.kinds import ADVERT, TRIE
from xenonode.server.errors import NotKeptError
from xenonode.simulation.errors import PowerLost
from xenonode.simulation.faults.kinds import Injection
from xenonode.simulation.faults.scene import Scene

Posting = tuple[bytes, Point]
EVERY_S = 5.0
"""How often a liar sends what nobody asked for."""
VICTIMS = 3
FLOOD = 100
"""Records at a time: more than an owner's quota at one holder."""
OLD_MAX = 64
DAY_MS = 86_400_000
BUSY_MS = 1_000
WIDEST = (-32768, -32768, -32768, 32767, 32767, 32767)


class Liar:
    """One node while it misbehaves."""

    def __init__(self, scene: Scene, injection: Injection, name: str) -> None:
        self.scene, self.injection, self.name = scene, injection, name
        self.node: Any = scene.host(name).running
        self.rng: Random = scene.rng(injection)
        self._undo: list[Callable[[], object]] = []

    @property
    def there(self) -> bool:
        """Whether it is still the same life of the node."""
        return self.node is not None and self.scene.host(self.name).running is self.node

    def told(self) -> None:
        """One lie more."""
        self.scene.bit(self.injection)

    def put(self, part: Any, method: str, instead: Callable[..., Any]) -> Any:
        """Let this part's method be another; the honest one is returned."""
        honest = getattr(part, method)
        setattr(part, method, instead)
        self._undo.append(partial(delattr, part, method))
        return honest

    def show_adverts(self, instead: Callable[..., Any]) -> None:
        """Answer otherwise who asks for its advert."""
        handle = self.node.peer.endpoint.handle
        handle(ADVERT, instead)
        self._undo.append(partial(handle, ADVERT, self.node.show_advert))

    def repent(self) -> None:
        """Be honest again."""
        for undo in self._undo:
            undo()
        self._undo.clear()

    def holdings(self) -> Iterator[tuple[str, Any]]:
        """What it holds, by dimension; of each trie where there are several."""
        yield from ((name, holding) for name, _, holding in self.node.peer.held())

    def adverts(self) -> list[Posting]:
        """Other members' adverts that it holds, and what is in them."""
        found: dict[bytes, Point] = {}
        for _, holding in self.holdings():
            for node in holding.holder.nodes().values():
                found.update(zip(node.rows.raw, node.rows.points))
        found.pop(self.own, None)
        return list(found.items())[:OLD_MAX]

    @property
    def own(self) -> bytes:
        """Its own advert; empty while it shows none, as after a restart with a full disk."""
        current = self.node.advertiser.current
        return b"" if current is None else current.raw

    @property
    def credential(self) -> bytes:
        """Its own, as its advert shows it."""
        return Advert.open(self.own, self.scheme)[0].credential

    @property
    def scheme(self) -> Any:
        """The signature scheme."""
        return self.node.env.scheme


Lie = Callable[[Liar], "Callable[[], None] | None"]


async def lie(scene: Scene, injection: Injection) -> None:
    """Let the targets misbehave for as long as it lasts."""

    async def one(name: str) -> None:
        liar = Liar(scene, injection, name)
        if liar.node is None or name in scene.liars:
            return
        scene.liars.add(name)
        again = scene.host(name).node.call(LIES[injection.kind], liar)
        ends_s = scene.loop.time() + injection.for_ms / 1_000
        while liar.there and (left_s := ends_s - scene.loop.time()) > 0:
            if again is not None:
                with contextlib.suppress(PowerLost, NotKeptError):  # its disk fails, as it does to the honest
                    scene.host(name).node.call(again)
            await asyncio.sleep(min(left_s, EVERY_S))
        if liar.there:
            liar.repent()
        scene.liars.discard(name)

    await asyncio.gather(*(one(name) for name in injection.targets))


# -- the DHT


def _silent(liar: Liar) -> None:
    """Hears, acknowledges sessions, and answers nothing."""

    def requested(*request: Any) -> None:
        liar.told()

    liar.put(liar.node.peer.endpoint.answering, "requested", requested)


def _closest(liar: Liar, choose: Callable[[Any, bytes], list[Contact]]) -> None:
    for overlay in liar.node.peer.overlays():

        def packed_nearest(peer: Any, key: bytes, overlay: Any = overlay) -> bytes:
            liar.told()
            return pack_contacts(choose(overlay, key)[:K])

        liar.put(overlay.serving, "_packed_nearest", packed_nearest)


def _closest_wrong(liar: Liar) -> None:
    """Names those who are farthest from what is asked for."""

    def farthest(overlay: Any, key: bytes) -> list[Contact]:
        target = int.from_bytes(key, "big")
        return sorted(overlay.table.by_id.values(), key=lambda contact: -(contact.number ^ target))

    _closest(liar, farthest)


def _closest_colluding(liar: Liar) -> None:
    """Names its accomplices, whatever is asked for."""

    def accomplices(overlay: Any, key: bytes) -> list[Contact]:
        hosts = [liar.scene.host(name).running for name in liar.injection.targets]
        return [host.peer.endpoint.overlay(overlay.dimension).contact for host in hosts if host is not None]

    _closest(liar, accomplices)


def _eclipse(liar: Liar) -> None:
    """Claims to be all of those nearest to whatever is asked for, under ids of its own making."""

    def made_up(overlay: Any, key: bytes) -> list[Contact]:
        target, address = int.from_bytes(key, "big"), liar.node.peer.endpoint.address
        return [Contact((target ^ (1 + place)).to_bytes(NODE_ID_BYTES, "big"), address) for place in range(K)]

    _closest(liar, made_up)


def _store_flood(liar: Liar) -> Callable[[], None]:
    """Stores records by the hundred, under its own key and under keys that it makes up."""
    overlay = next(iter(liar.node.peer.overlays()))
    count = 0

    def flood() -> None:
        nonlocal count
        for contact in overlay.table.nearest(overlay.table.number, VICTIMS):
            for _ in range(FLOOD // VICTIMS):
                count += 1
                own = liar.rng.random() < 0.5
                signer = liar.node.home.signer if own else liar.scheme.generate(liar.rng.randbytes(32))
                key, expires_ms = liar.rng.randbytes(NODE_ID_BYTES), liar.node.env.now_ms() + DAY_MS
                raw = seal_record(signer, overlay.dimension, key, 1, expires_ms, b"flood %d" % count)
                overlay.endpoint.call(contact.address, overlay.tag, PUT, key + raw, _ignore)
                liar.told()

    return flood


# -- adverts


def _sender(liar: Liar, make: Callable[[], Sequence[Posting]]) -> Callable[[], None]:
    """Insert what `make` gives at holders of the tries, under the keys that it would have."""

    def send() -> None:
        peer = liar.node.peer
        for raw, point in make():
            dimension = liar.rng.choice([one.name for one in peer.schema.dimensions])
            key = keys_of(peer.schema, dimension, point)[0]
            placement, root = peer.joined(dimension), peer.holdings[dimension].holder.nodes().get(ROOT)
            where = ROOT if root is None else destination(ROOT, root.splits, key)
            holders = placement.remembered(where) if placement is not None else None
            overlay = peer.endpoint.overlay(dimension)
            for contact in holders or overlay.table.nearest(overlay.table.number, VICTIMS):
                _ask(overlay, contact, Insert(where, key, raw))
                liar.told()

    return send


def _altered(liar: Liar, raw: bytes) -> bytes:
    """Somebody's advert with one byte of its signature another."""
    place = len(raw) - 1 - liar.rng.randrange(8)
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


def _adverts_forged(liar: Liar) -> Callable[[], None]:
    """Shows and inserts adverts with broken signatures, also where its own is asked for."""

    def show(peer: Any, body: bytes, reply: Any) -> None:
        if not liar.own:
            reply.busy(BUSY_MS)
            return
        liar.told()
        reply(_altered(liar, liar.own))

    liar.show_adverts(show)
    _answers(liar, lambda message: replace(message, advert=_altered(liar, message.advert)), AdvertIs)
    return _sender(liar, lambda: [(_altered(liar, raw), point) for raw, point in liar.adverts()])


def _adverts_replayed(liar: Liar) -> Callable[[], None]:
    """Inserts again, and shows, what others have replaced since."""
    old = liar.adverts()
    return _sender(liar, lambda: old)


def _adverts_expired(liar: Liar) -> Callable[[], None]:
    """Inserts its own, well signed, of yesterday, and under tomorrow's sequence numbers."""

    def expired() -> list[Posting]:
        if not liar.own:
            return []
        current, _ = Advert.open(liar.own, liar.scheme)
        then_ms = current.issued_ms - DAY_MS
        life_ms = current.expires_ms - current.issued_ms
        old = replace(current, seq=current.seq + DAY_MS, issued_ms=then_ms, expires_ms=then_ms + life_ms)
        _, point = liar.node.peer.adverts.verify(liar.own, current.issued_ms)
        return [(old.seal(liar.node.home.signer).raw, point)]

    return _sender(liar, expired)


def _equivocation(liar: Liar) -> Callable[[], None]:
    """Signs two adverts with one sequence number and has both published."""

    def publish() -> None:
        if not liar.own:
            return
        advertiser, env = liar.node.advertiser, liar.node.env
        first: Envelope = advertiser.issue(env.now_ms(), liar.node.location(), liar.credential)
        advert, _ = Advert.open(first.raw, liar.scheme)
        second = replace(advert, features=(*advert.features, "contradiction")[:8]).seal(liar.node.home.signer)
        liar.told()
        liar.node.env.spawn(_publish(liar, first.raw), "first of two")
        liar.node.env.spawn(_publish(liar, second.raw), "second of two")

    return publish


async def _publish(liar: Liar, raw: bytes) -> None:
    with contextlib.suppress(DhtError):
        await liar.node.publisher.publish(raw)


# -- summaries


def _answers(liar: Liar, change: Callable[[Any], Any], *kinds: type[Any]) -> None:
    """Change what it answers, and what it tells parents, of these kinds."""
    for _, holding in liar.holdings():

        def perform(actions: Sequence[Action], holding: Any = holding) -> None:
            changed: list[Action] = []
            for action in actions:
                if isinstance(action.message, kinds):
                    liar.told()
                    changed.append(replace(action, message=change(action.message)))
                else:
                    changed.append(action)
            type(holding)._perform(holding, changed)

        liar.put(holding, "_perform", perform)


def _summaries_empty(liar: Liar) -> None:
    """There is nothing here, and nothing below."""
    empty = Zone.empty(liar.node.peer.schema)

    def change(message: Any) -> Any:
        if isinstance(message, Answer):
            return replace(message, children=(), rows=(), matched=0, pruned=0, total=0, digest=0)
        if isinstance(message, Outline):
            return replace(message, children=(), total=0, has_rows=False)
        if isinstance(message, Digest):
            return replace(message, known=False, postings=(), entries=())
        return replace(message, zone=empty)

    _answers(liar, change, Answer, Outline, Digest, ZoneUpdate)


def _summaries_full(liar: Liar) -> None:
    """Everything might be below: bounds that exclude nobody."""

    def change(message: Any) -> Any:
        zone, width = message.zone, len(message.zone.lows)
        widest = replace(
            zone, lows=bytes(width), highs=b"\xff" * width, environments=2**64 - 1, box=WIDEST, height=0, price=0,
            count=max(1, zone.count), leaves=max(1, zone.leaves), words=2**64 - 1,
        )  # fmt: skip
        return replace(message, zone=widest)

    _answers(liar, change, ZoneUpdate)


def _summaries_stale(liar: Liar) -> None:
    """What it said of a trie node first it goes on saying."""
    said: dict[Any, Any] = {}
    _answers(liar, lambda message: said.setdefault((type(message), message.prefix), message), Answer, Digest)


def _summaries_forged(liar: Liar) -> None:
    """Rows of servers that do not exist, and zones that exclude those that do."""

    def change(message: Any) -> Any:
        if isinstance(message, Answer):
            rows = tuple(Row(liar.rng.getrandbits(63), one.seq + 1, 0, one.contact) for one in message.rows)
            return replace(message, rows=rows, digest=liar.rng.getrandbits(63))
        zone = message.zone
        return replace(message, zone=replace(zone, lows=zone.highs, price=zone.price + 1, height=MAX_HEIGHT_STEPS))

    _answers(liar, change, Answer, ZoneUpdate)


def _ask(overlay: Any, contact: Contact, message: Any) -> None:
    def heard(answer: asyncio.Future[bytes]) -> None:
        if not answer.cancelled():
            answer.exception()

    with contextlib.suppress(DhtError):
        overlay.ask(contact, TRIE, wire.pack(to_fields(message))).add_done_callback(heard)


def _ignore(call: Any, error: DhtError | None, body: bytes) -> None:
    pass


LIES: dict[str, Lie] = {
    "silent": _silent,
    "closest_wrong": _closest_wrong,
    "closest_colluding": _closest_colluding,
    "eclipse": _eclipse,
    "adverts_forged": _adverts_forged,
    "adverts_replayed": _adverts_replayed,
    "adverts_expired": _adverts_expired,
    "summaries_empty": _summaries_empty,
    "summaries_full": _summaries_full,
    "summaries_stale": _summaries_stale,
    "summaries_forged": _summaries_forged,
    "equivocation": _equivocation,
    "store_flood": _store_flood,
}

__all__ = ["LIES", "lie"]
