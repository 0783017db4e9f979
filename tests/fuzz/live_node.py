"""Mutated datagrams into a live node: what reached its handlers, what it answered, what it kept.

The node serves an overlay with records and a trie, and looks things up meanwhile. Half of the datagrams are changed
after they were made, as anybody on the path could; the other half are changed before a valid MAC is put on, as only
a certified member could, so that they reach the handlers and the readers of answers.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dht import contact, datagram, wire
from dht.answering import CALL, CALL_BACK, KNOCK
from dht.calls import MAX_CALLS
from dht.contact import pack_contacts
from dht.early import Question
from dht.endpoint import Endpoint
from dht.identity import Signer
from dht.record import seal_record
from dht.routing import K
from dht.sessions import MAX_HALF_OPEN, MAX_LOST, SESSION_LIMIT
from summaries.filter import Filter
from summaries.forms import to_fields
from summaries.holder import Holder
from summaries.messages import (
    Delete,
    Fetch,
    Insert,
    Locate,
    Marked,
    Offer,
    Posting,
    Pull,
    Read,
    Renew,
    ZoneUpdate,
)
from summaries.point import Point
from summaries.rank import Order
from summaries.renewal import Change
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix, trie_key
from summaries.zone import Zone
from tests.dht.threats.world import DIMENSION, HOUR_MS, NETWORK, World
from xenonode.search.holding import TrieHolding
from xenonode.search.kinds import TRIE
from xenonode.search.placement import Placement

from .mutator import Mutator

NAMES = {
    -1: "ping",
    -2: "find",
    -3: "put",
    -4: "get",
    -5: "leave",
    -6: "part",
    -7: "read",
    -8: "cache",
    CALL_BACK: "call back",
    CALL: "call",
    KNOCK: "knock",
    TRIE: "trie",
}
# Keys that sign records; a new one for each would be remembered by the simulated scheme.
OWNERS = 200
SERVED = (-1, -2, -3, -4, -5, -6, -7, -8, TRIE)
# What is asked of a node and of none of its overlays.
OF_THE_NODE = (CALL_BACK, CALL, KNOCK)
ATTRIBUTES = {
    "cpu.available": 500,
    "cpu.total": 1_000,
    "cores": 2,
    "memory.available": 1 << 30,
    "memory.total": 1 << 30,
    "currency": "USD",
    "price.cpu": 10**7,
}


@dataclass
class Report:
    """What came of it."""

    datagrams: int = 0
    sealed: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    escaped: int = 0
    longest_unproved_ratio: float = 0.0
    rss_half_kib: int = 0
    rss_end_kib: int = 0
    tables: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def complaints(self) -> list[str]:
        """What should not be."""
        found = []
        if self.faults or self.escaped:
            found.append(f"{self.faults} handlers failed, {self.escaped} exceptions escaped")
        if self.longest_unproved_ratio > 1:
            found.append(f"an unproved packet drew {self.longest_unproved_ratio:.2f} times its size")
        found += [f"{name}: {held} of {bound}" for name, (held, bound) in self.tables.items() if held > bound]
        missing = [name for name in NAMES.values() if not self.reached[f"asked {name}"]]
        if missing:
            found.append(f"nothing reached {', '.join(missing)}")
        return found


def run(datagrams: int, seed: int = 11, *, full: bool = False) -> Report:
    """Fuzz one node with that many datagrams; `full`: after what is remembered of addresses is full to its bound."""
    if full:
        _fill_memories()
    with World(seed) as world:
        return world.run(_run(world, datagrams, Mutator(seed)))  # type: ignore[no-any-return]


async def _run(world: World, datagrams: int, mutator: Mutator) -> Report:
    report = Report(datagrams=datagrams)
    node, member = await world.node("node"), await world.node("member")
    holding = hold(world, node, "node")
    genuine: list[bytes] = []
    world.overheard = lambda data, source, to: genuine.append(data)
    await world.nodes["member"].start(member.overlay(DIMENSION).join([node.address]))
    world.overheard = None
    # From here on the member is only a key to us: it reads nothing, and what it is asked we answer.
    sent: list[bytes] = []
    world.simulation.network.send_datagram = (  # type: ignore[method-assign]
        lambda source, source_port, data, to, refused: sent.append(data)
    )
    _count(node, report)
    forger = Forger(world, node, member, mutator, genuine)
    makers = [(forger.request, True), (forger.damaged, False), (forger.reply, True), (forger.shake, False)]
    for number in range(datagrams):
        make, sealed = makers[number % len(makers)]
        data = make()
        sent.clear()
        source = member.address if sealed or world.rng.random() < 0.5 else world.spoofed()
        report.sealed += sealed
        try:
            world.deliver(node, data, source)
        except Exception:
            report.escaped += 1
        if not sealed and data:
            # A greeting that its own lookups begin is no answer to this.
            answers = [each for each in sent if each[0] != datagram.HELLO or each[5:13] == data[5:13]]
            report.longest_unproved_ratio = max(report.longest_unproved_ratio, sum(map(len, answers)) / len(data))
        if not number % 500:
            await asyncio.sleep(0.5)
        if number == datagrams // 2:
            report.rss_half_kib = _rss_kib()
    report.rss_end_kib = _rss_kib()
    report.tables = _tables(node)
    report.faults = node.counters["fault"]
    report.dropped = Counter(
        {name: count for name, count in node.counters.items() if name not in ("received", "sent", "fault")}
    )
    holding.stop()
    await world.nodes["node"].start(node.close())
    return report


def _fill_memories() -> None:
    """Let the process meet as many addresses and contacts as it ever remembers: from then on nothing may grow."""
    for number in range(contact.REMEMBERED):
        host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        contact.admits(host, "local")
        contact.Contact.unpack(number.to_bytes(20, "big") + contact.pack_address((host, 4_000)))


class Forger:
    """Makes the datagrams: what a member may say, mutated before its MAC, and what anybody can send, mutated after."""

    def __init__(self, world: World, node: Endpoint, member: Endpoint, mutator: Mutator, genuine: list[bytes]) -> None:
        self._world, self._node, self._rng, self._mutator = world, node, world.rng, mutator
        self._genuine = genuine
        self._session = member.sessions.peers[node.address].session
        assert self._session is not None
        self._overlay_tag = node.overlay(DIMENSION).tag
        self._key = datagram.network_key(NETWORK)
        self._network_tag = int.from_bytes(self._key[:4], "big")
        self._requests = _requests(world, node)
        self._owners = [world.signer() for _ in range(OWNERS)]
        shaker = world.shaker(member.signer, world.credential(member.signer))
        # Half of them ask something along, reads and what is not answered so.
        bodies = [(kind, body()) for kind in SERVED for body in self._requests[kind]]
        questions = [b"", *(Question(self._overlay_tag, kind, body).packed() for kind, body in bodies)]
        self._hellos = [
            shaker.hello_datagram(shaker.hello(self._rng.getrandbits(64), question))
            for question in (*questions, *[b""] * len(questions))
        ]

    def request(self) -> bytes:
        rng, mutator = self._rng, self._mutator
        kind = rng.choice((*SERVED, *OF_THE_NODE))
        body = rng.choice(self._requests[kind])()
        fields: list[Any] = [rng.getrandbits(32), kind, body]
        choice = rng.randrange(4)
        if choice == 0:
            packed = mutator.fields_of(fields)
        elif choice == 1 and kind == TRIE:
            fields[2] = mutator.fields_of(wire.unpack(body))
            packed = mutator.packed(fields)
        else:
            fields[2] = mutator.bytes_of(body)
            packed = mutator.packed(fields)
        likely, other = self._overlay_tag, self._network_tag
        if kind in OF_THE_NODE:
            likely, other = other, likely
        tag = likely if rng.random() < 0.95 else other
        return _sealed(self._session, datagram.REQUEST, tag, packed)

    def reply(self) -> bytes:
        world, node, rng, mutator = self._world, self._node, self._rng, self._mutator
        if len(node.calls.open) < 50:
            for _ in range(4):
                _ask_something(world, node)
        call = rng.choice(list(node.calls.open.values()))
        fields: list[Any] = [call.request_id, 0, _answer(world, node, call, self._owners)]
        if rng.randrange(4) == 0:
            packed = mutator.fields_of(fields)
        else:
            fields[2] = mutator.bytes_of(fields[2])
            packed = mutator.packed(fields)
        return _sealed(self._session, datagram.REPLY, call.tag, packed)

    def shake(self) -> bytes:
        rng = self._rng
        data = rng.choice(self._hellos)
        body = self._mutator.bytes_of(data[datagram.HEADER_BYTES : -datagram.MAC_BYTES])
        if rng.random() < 0.5:
            body = (body + bytes(1_163))[:1_163]
        kind = rng.choice((datagram.HELLO, datagram.WELCOME, datagram.COOKIE, datagram.RESET))
        # A HELLO's signature covers its session, and not its padding: what is asked along reaches the reader spoiled.
        session = datagram.HEADER.unpack_from(data)[2] if rng.random() < 0.5 else rng.getrandbits(64)
        return datagram.seal(kind, self._network_tag, session, 0, body[:1_163], self._key)

    def damaged(self) -> bytes:
        rng = self._rng
        if rng.random() < 0.3:
            return rng.randbytes(rng.choice((0, 1, 36, 37, 100, 1_200, 1_201, 65_507)))
        return self._mutator.bytes_of(rng.choice(self._genuine))


def _sealed(session: Any, type: int, tag: int, body: bytes) -> bytes:
    session.counter += 1
    return datagram.seal(type, tag, session.send_session, session.counter, body[:1_163], session.send_key)


def hold(world: World, node: Endpoint, name: str) -> TrieHolding:
    """The node's part of a trie, with adverts that are good when they begin with an A."""
    schema = Schema.from_sample([ATTRIBUTES])
    overlay = node.overlay(DIMENSION)

    def verify(raw: bytes, now_ms: int) -> Point | None:
        if not raw.startswith(b"A") or len(raw) < 3:
            return None
        expires_s = now_ms // 1_000 + 600
        return Point.from_attributes(
            schema, id=raw[1], seq=raw[2], expires_s=expires_s, attributes=ATTRIBUTES, contact=bytes(6), gone=False
        )

    placement = Placement(overlay, partial(trie_key, NETWORK, 1, DIMENSION))
    holder = Holder(schema, DIMENSION, overlay.contact.packed, verify, incarnation=world.now_ms())
    return TrieHolding(overlay, lambda overlay, placement, salt: holder, placement, world.nodes[name].env)


def _requests(world: World, node: Endpoint) -> dict[int, list[Callable[[], bytes]]]:
    """Good bodies of each kind of request, to be spoiled."""
    rng = world.rng
    owners = [world.signer() for _ in range(OWNERS)]
    key = rng.randbytes(20)

    def record() -> bytes:
        place = key if rng.random() < 0.5 else rng.randbytes(20)
        expires_ms = world.now_ms() + HOUR_MS
        seq = rng.randrange(1_000)
        return place + seal_record(rng.choice(owners), DIMENSION, place, seq, expires_ms, rng.randbytes(50))

    prefix = Prefix(1, 2)
    trie = [
        Locate(ROOT, 5),
        Insert(ROOT, 7, b"A\1\1"),
        Insert(ROOT, 2**63, b"A\2\1" + bytes(300)),
        Delete(ROOT, 7, b"A\1\1"),
        Renew(ROOT, 7, 1, 1, False, (Change(1, b"\2"),)),
        Read(ROOT, Filter(), Order("cost", True, "USD"), 5),
        Fetch(ROOT, 1),
        Pull(ROOT, (1, 2)),
        ZoneUpdate(prefix, 5, 5, _zone(), 1),
        Marked(prefix, 1),
        Offer(ROOT, (Posting(1, 2, 3),)),
    ]
    packed = [wire.pack(to_fields(message)) for message in trie]
    return {
        -1: [lambda: b""],
        -2: [lambda: rng.randbytes(20)],
        -3: [record],
        -4: [lambda: key + bytes(2), lambda: key + bytes(2) + owners[0].public_key],
        -5: [lambda: b""],
        -6: [record, lambda: rng.randbytes(300)],
        -7: [lambda: key + rng.randbytes(20), lambda: rng.randbytes(60)],
        -8: [record],
        CALL_BACK: [lambda: b""],
        CALL: [lambda: contact.pack_address((f"10.9.{rng.randrange(256)}.{rng.randrange(256)}", 4_000))],
        KNOCK: [lambda: b""],
        TRIE: [lambda each=each: each for each in packed],  # type: ignore[misc]
    }


def _zone() -> Any:
    return Zone(bytes(9), b"\xff" * 9, 2**64 - 1, (-5, -5, -5, 5, 5, 5), 9, 9, 9, 1)


def _ask_something(world: World, node: Endpoint) -> None:
    """Begin a question of the node's own, which only a spoiled reply will answer."""
    overlay, key = node.overlay(DIMENSION), world.rng.randbytes(20)
    place = world.nodes["node"]
    choice = world.rng.randrange(4)
    if choice == 3:
        (peer,) = [each for each in node.sessions.peers.values() if each.member is not None][:1]
        place.call(partial(node.check, peer.address))
    elif choice == 0:
        place.call(partial(overlay.find_then, key, lambda found: None))
    elif choice == 1:
        place.start(overlay.records.get(key))
    else:
        (peer,) = [each for each in node.sessions.peers.values() if each.member is not None][:1]
        place.call(partial(overlay.ask_then, overlay.contact_of(peer), TRIE, b"", lambda answer, error: None))


def _answer(world: World, node: Endpoint, call: Any, owners: list[Signer]) -> bytes:
    """A good answer to a call, to be spoiled."""
    rng = world.rng
    overlay = node.overlay(DIMENSION)
    contacts = node.vitals() + pack_contacts(overlay.known(rng.randbytes(20), K))
    if call.kind == -2 or call.kind == -1:
        return contacts
    if call.kind == -4:
        key = call.body[:20]
        if rng.random() < 0.3:
            return b"\0" + contacts
        records = [
            seal_record(rng.choice(owners), DIMENSION, key, 1, world.now_ms() + HOUR_MS, b"x")
            for _ in range(rng.randrange(1, 3))
        ]
        return b"\1" + wire.pack([rng.choice((0, 1, 2)), *records])
    return rng.randbytes(rng.randrange(40))


def _count(node: Endpoint, report: Report) -> None:
    """Note what reaches the handlers and the readers of answers."""
    handle, settle = node.answering.handle, node.calls.end

    def handled(peer: Any, tag: int, kind: int, body: bytes, reply: Any) -> None:
        report.reached[f"asked {NAMES.get(kind, 'unknown')}"] += 1
        handle(peer, tag, kind, body, reply)

    def ended(call: Any, error: Any, body: bytes) -> None:
        report.reached[f"{'answer to' if error is None else 'refusal of'} {NAMES.get(call.kind, 'unknown')}"] += 1
        settle(call, error, body)

    node.answering.handle = handled  # type: ignore[method-assign]
    node.calls.end = ended  # type: ignore[method-assign]


def _tables(node: Endpoint) -> dict[str, tuple[int, int]]:
    """What the node holds, and how much it may."""
    overlay = node.overlay(DIMENSION)
    return {
        "peers": (len(node.sessions.peers), SESSION_LIMIT),
        "sessions": (len(node.sessions.by_number), 2 * SESSION_LIMIT + MAX_HALF_OPEN),
        "half open": (len(node.sessions._half_open), MAX_HALF_OPEN),
        "lost": (len(node.sessions._lost), MAX_LOST),
        "greetings": (len(node.sessions.greetings), SESSION_LIMIT),
        "calls": (len(node.calls.open), MAX_CALLS),
        "contacts": (len(overlay.table), 160 * K),
        "record bytes": (overlay.records.shelf.used_bytes, overlay.records.shelf.max_bytes),
        "expiries": (len(overlay.records.shelf._expiries), 2 * len(overlay.records.shelf) + 1_024),
        "counters": (len(node.counters), 64),
    }


def _rss_kib() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1_024
