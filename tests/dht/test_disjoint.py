"""Two disjoint paths through a network with colluders, over the real endpoints: one captured path decides nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from dht.contact import Contact, pack_contacts
from dht.reading import HELD, NEARER
from dht.record import seal_record
from dht.walk import FIND, GET
from dht.wire import pack
from xenonode.simulation.overlays import HOUR_MS, OverlayNode, OverlayWorld

OVERLAY = "cores"


def collude(world: OverlayWorld, colluders: list[OverlayNode], key: bytes, old: bytes | None) -> None:
    """They name only one another, and show an outdated record where they are asked for one."""
    contacts = [node.contact(OVERLAY) for node in colluders]
    target = int.from_bytes(key, "big")
    contacts.sort(key=lambda contact: contact.number ^ target)
    for node in colluders:
        overlay, vitals = node.overlay(OVERLAY), node.endpoint.vitals

        def requested(peer: Any, kind: int, body: bytes, reply: Any, vitals: Any = vitals) -> None:
            if kind == GET and old is not None:
                reply(HELD + pack([0, old]))
            elif kind in (FIND, GET):
                reply((NEARER if kind == GET else b"") + vitals() + pack_contacts(contacts[:20]))
            else:
                reply.refuse("no")

        overlay.requested = requested  # type: ignore[method-assign]


def honest_near(world: OverlayWorld, colluders: list[OverlayNode], key: bytes) -> set[bytes]:
    bad = {node.contact(OVERLAY).node_id for node in colluders}
    return {contact.node_id for contact in world.nearest(OVERLAY, key, 20) if contact.node_id not in bad}


async def ask(node: OverlayNode, work: Any) -> Any:
    return await node.node.start(work, "work")


def test_a_find_on_two_paths_reaches_the_honest_in_spite_of_a_fifth_that_colludes() -> None:
    with OverlayWorld(11, 120) as world:
        world.begin()
        colluders = world.rng.sample(world.nodes, 24)
        honest = [node for node in world.nodes if node not in colluders]
        key = world.random_key()
        collude(world, colluders, key, None)
        for asker in honest[::6]:
            found: list[Contact] = world.simulation.run(ask(asker, asker.overlay(OVERLAY).find(key, disjoint=2)))
            assert len({each.node_id for each in found} & honest_near(world, colluders, key)) >= 8


def test_a_read_on_two_paths_is_not_over_with_one_colluders_outdated_record() -> None:
    with OverlayWorld(12, 120) as world:
        world.begin()
        writer, key = world.nodes[0], world.random_key()
        expires_ms = writer.node.env.now_ms() + HOUR_MS
        old, new = (
            seal_record(writer.endpoint.signer, OVERLAY, key, seq, expires_ms, bytes([seq])) for seq in (1, 2)
        )
        world.simulation.run(ask(writer, writer.overlay(OVERLAY).records.put(key, new, expires_ms)))
        # Two of the eight that hold it show what they should have forgotten.
        near = [contact.node_id for contact in world.nearest(OVERLAY, key, 8)]
        colluders = [node for node in world.nodes[1:] if node.contact(OVERLAY).node_id in near[1:3]]
        others = [node for node in world.nodes[1:] if node.contact(OVERLAY).node_id not in near]
        collude(world, colluders, key, old)
        one_path = two_paths = 0
        readers = others[:60]
        for reader in readers:
            overlay = reader.overlay(OVERLAY)
            one_path += world.simulation.run(ask(reader, overlay.records.get(key))) == [new]
            two_paths += world.simulation.run(ask(reader, overlay.records.get(key, disjoint=2))) == [new]
        assert two_paths > one_path and two_paths >= 0.9 * len(readers)


def test_a_read_on_two_paths_ends_when_nothing_is_there() -> None:
    with OverlayWorld(13, 40) as world:
        world.begin()
        reader = world.nodes[3]
        work = asyncio.wait_for(reader.overlay(OVERLAY).records.get(world.random_key(), disjoint=2), 30)
        assert world.simulation.run(ask(reader, work)) == []
