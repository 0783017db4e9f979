"""Conversations of the wire, recorded: the same bytes at the same virtual time, at each run of the same code.

A transcript is text, one datagram or stream segment a line: the virtual time in microseconds, from whom to whom, what
it is, and its bytes in hex, with runs of zeros (HELLO's padding) as `(00*N)`. Real signatures and keys, from seeds.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dht import datagram, wire
from dht.endpoint import Endpoint
from dht.identity import ED25519
from dht.record import seal_record
from summaries.filter import Filter
from summaries.forms import to_fields
from summaries.messages import Insert, Read
from summaries.rank import Order
from summaries.trie import ROOT
from tests.corp.world import World as CorpWorld
from tests.dht.threats.world import DIMENSION, HOUR_MS, World
from tests.fuzz.live_node import hold
from xenonode.control.client import connect
from xenonode.control.hello import HelloTransport
from xenonode.control.server import serve
from xenonode.search.kinds import TRIE

GOLDEN = Path(__file__).parent / "golden"
VERSION = datagram.VERSION
TYPES = {
    datagram.HELLO: "HELLO",
    datagram.WELCOME: "WELCOME",
    datagram.COOKIE: "COOKIE",
    datagram.RESET: "RESET",
    datagram.REQUEST: "REQUEST",
    datagram.REPLY: "REPLY",
}
_ZEROS = re.compile(r"(?:00){16,}")
_DATAGRAM = struct.Struct("<8sH8sHq")
_STREAM = struct.Struct("<8sH8sHq?")
KEY = bytes(range(20))
CONTROL_PORT = 4_001


class Recorder:
    """Notes what a world's two hosts say to one another."""

    def __init__(self, world: World) -> None:
        self.lines: list[str] = []
        self._world = world
        world.simulation.trace.listener = self._note

    def _note(self, now_ns: int, kind: str, head: bytes, body: bytes) -> None:
        names = {host.identity: host.name for host in self._world.simulation.network._by_name.values()}
        if kind == "datagram":
            source, _, to, _, _ = _DATAGRAM.unpack(head)
            what = TYPES.get(body[0], "unknown")
        elif kind == "stream":
            source, _, to, _, _, end = _STREAM.unpack(head)
            what = "END" if end else "SEGMENT"
        else:
            return
        self.lines.append(f"{now_ns // 1_000:>9} {names[source]} {names[to]} {what} {compressed(body)}")


def compressed(data: bytes) -> str:
    """Hex with runs of zeros shortened."""
    return _ZEROS.sub(lambda match: f"(00*{len(match[0]) // 2})", data.hex()) or "-"


def expanded(text: str) -> bytes:
    """What `compressed` was given."""
    return bytes.fromhex("" if text == "-" else re.sub(r"\(00\*(\d+)\)", lambda match: "00" * int(match[1]), text))


Talk = Callable[[World, Endpoint, Endpoint], Awaitable[None]]


async def _handshake(world: World, alice: Endpoint, bob: Endpoint) -> None:
    await alice.ping(bob.address)


async def _find(world: World, alice: Endpoint, bob: Endpoint) -> None:
    await alice.overlay(DIMENSION).join([bob.address])
    await alice.overlay(DIMENSION).find(KEY)


async def _put_get(world: World, alice: Endpoint, bob: Endpoint) -> None:
    overlay = alice.overlay(DIMENSION)
    await overlay.join([bob.address])
    expires_ms = world.now_ms() + HOUR_MS
    raw = seal_record(alice.signer, DIMENSION, KEY, 1, expires_ms, b"value")
    await overlay.records.put(KEY, raw, expires_ms, republish=False)
    await overlay.records.get(KEY, holders=2)


async def _ask(world: World, alice: Endpoint, bob: Endpoint) -> None:
    bob.overlay(DIMENSION).handle(9, lambda contact, body, reply: reply(body[::-1]))
    await alice.ask(bob.address, 7, b"node level")
    await alice.overlay(DIMENSION).ask(bob.overlay(DIMENSION).contact, 9, b"overlay level")


async def _trie(world: World, alice: Endpoint, bob: Endpoint) -> None:
    holding = hold(world, bob, "bob")
    overlay, contact = alice.overlay(DIMENSION), bob.overlay(DIMENSION).contact
    for message in (Insert(ROOT, 7, b"A\1\1"), Read(ROOT, Filter(), Order("cost", True, "USD"), 5)):
        await overlay.ask(contact, TRIE, wire.pack(to_fields(message)), timeout_ms=5_000)
    holding.stop()


TALKS: dict[str, Talk] = {
    "handshake": _handshake,
    "find": _find,
    "put-get": _put_get,
    "ask": _ask,
    "trie": _trie,
}
CONTROL = "control"
NAMES = (*TALKS, CONTROL)


def record(name: str) -> str:
    """The transcript of one conversation."""
    with World(17, scheme=ED25519) as world:
        recorder = Recorder(world)
        world.run(_control(world) if name == CONTROL else _talk(world, TALKS[name]))
        world.simulation.trace.listener = None
        lines = list(recorder.lines)
    head = f"# Wire version {VERSION}: {name}. Rewritten on purpose only, by scripts/record_golden."
    return "\n".join([head, *lines]) + "\n"


async def _talk(world: World, talk: Talk) -> None:
    alice, bob = await world.node("alice"), await world.node("bob")
    bob.overlay(DIMENSION)
    bob.handle(7, lambda peer, body, reply: reply(body.upper()))
    await world.nodes["alice"].start(_awaited(talk(world, alice, bob)))
    for name, endpoint in (("alice", alice), ("bob", bob)):
        await world.nodes[name].start(endpoint.close())


async def _awaited(talk: Awaitable[None]) -> None:
    await talk


async def _control(world: World) -> None:
    """Register, and order: a client's first two questions to XenoCorp, and one it has no right to."""
    corp = CorpWorld()
    places = {name: world.simulation.add_node(name) for name in ("alice", "corp")}
    alice = ED25519.generate(bytes(range(32)))

    async def serving() -> Any:
        transport = HelloTransport(ED25519, corp.keys.node, random.Random(1))
        return await serve(
            places["corp"].host.address,
            CONTROL_PORT,
            corp.service.handlers,
            transport=transport,
            anonymous=("info", "register"),
        )

    async def asking() -> None:
        transport = HelloTransport(ED25519, alice, random.Random(2))
        address = places["corp"].host.address
        connection = await connect(address, CONTROL_PORT, corp.keys.node.public_key, transport=transport)
        registration = corp.registration("alice", "client").seal(alice).raw
        await connection.call("register", {"registration": registration})
        corp.credit(alice, 10_000_000_000)
        await connection.call("order.create", {"order": corp.order().seal(alice).raw})
        await connection.close()

    server = await places["corp"].start(serving())
    await places["alice"].start(asking())
    await places["corp"].start(server.close())
    await corp.store.close()


def path_of(name: str, version: int = VERSION) -> Path:
    """Where a conversation is kept."""
    return GOLDEN / f"v{version}-{name}.txt"


def read(path: Path) -> list[tuple[int, str, str, str, bytes]]:
    """A transcript's lines: time in microseconds, from, to, what, bytes."""
    found = []
    for line in path.read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            time_us, source, to, what, text = line.split()
            found.append((int(time_us), source, to, what, expanded(text)))
    return found
