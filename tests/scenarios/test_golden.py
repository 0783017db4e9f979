"""The wire today is the wire of the golden conversations; what one end said then, the other understands now."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dht import datagram
from dht.identity import ED25519
from tests.dht.threats.world import DIMENSION, World
from tests.fuzz.live_node import hold

from .recording import GOLDEN, NAMES, TALKS, TYPES, VERSION, path_of, read, record

# Of every version: what is added here later is replayed against the code of that day.
KEPT = sorted(GOLDEN.glob("v*-*.txt"))
OVERLAYS = [path for path in KEPT if path.stem.split("-", 1)[1] in TALKS]


@pytest.mark.parametrize("name", NAMES)
def test_a_conversation_is_what_it_was_byte_for_byte(name: str) -> None:
    kept = path_of(name).read_text(encoding="ascii")
    assert record(name) == kept, "the wire has changed: read the difference; if it is meant, scripts/record_golden"


def test_each_kind_of_datagram_and_both_transports_are_in_the_files() -> None:
    said = {what for path in KEPT for _, _, _, what, _ in read(path)}
    assert {"HELLO", "WELCOME", "REQUEST", "REPLY", "SEGMENT"} <= said


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_what_was_said_then_is_answered_now(path: Path) -> None:
    """A responder with the key and the randomness that it had then is given only the other side's datagrams."""
    lines = read(path)
    with World(17, scheme=ED25519) as world:
        answered = world.run(_replay(world, lines, path.stem.endswith("trie")))
    expected = [what for _, source, _, what, _ in lines if source == "bob" and what != "REQUEST"]
    assert answered == expected


async def _replay(world: World, lines: list[tuple[int, str, str, str, bytes]], trie: bool) -> list[str]:
    alice, bob = await world.node("alice"), await world.node("bob")
    bob.overlay(DIMENSION).handle(9, lambda contact, body, reply: reply(body[::-1]))
    bob.handle(7, lambda peer, body, reply: reply(body.upper()))
    holding = hold(world, bob, "bob") if trie else None
    await alice.close()
    said: list[str] = []

    def overhear(data: bytes, source: object, to: object) -> None:
        if source == bob.address and data[0] != datagram.REQUEST:
            said.append(TYPES[data[0]])

    world.overheard = overhear
    loop = asyncio.get_running_loop()
    latency_s = 0.01
    for time_us, source, _, _, data in lines:
        if source == "alice":
            await asyncio.sleep(max(0.0, time_us / 1e6 + latency_s - loop.time()))
            world.deliver(bob, data, alice.address)
    await asyncio.sleep(1)
    world.overheard = None
    if holding is not None:
        holding.stop()
    await world.nodes["bob"].start(bob.close())
    assert not bob.counters["fault"] and not bob.counters["bad-mac"]
    return said


def test_the_wire_names_its_version() -> None:
    assert VERSION == 1 and all(type >> 4 == VERSION for type in TYPES)
