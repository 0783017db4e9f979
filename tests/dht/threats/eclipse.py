"""Eclipse: a few certified members who try to fill a routing table from thousands of addresses."""

from __future__ import annotations

import asyncio

from dht.contact import group

from .outcome import Outcome
from .world import DIMENSION, World, faults

BLOCKS = 20


def attack(contacts: int, credentials: int, honest: int, seed: int = 2) -> Outcome:
    """Inbound contacts from `BLOCKS` blocks /24 on a server that knows honest nodes, in a network of profile public."""
    with World(seed, profile="public") as world:
        return world.run(_attack(world, contacts, credentials, honest))  # type: ignore[no-any-return]


async def _attack(world: World, contacts: int, credentials: int, honest: int) -> Outcome:
    victim = await world.node("victim", address="9.0.0.1")
    overlay = victim.overlay(DIMENSION)
    for number in range(honest):
        endpoint = await world.node(f"honest-{number}", address=f"11.{number >> 8}.{number & 255}.1")
        await world.nodes[f"honest-{number}"].start(_meet(endpoint, victim.address))
        if not number % 10:
            await asyncio.sleep(1)
    signers = [world.signer() for _ in range(credentials)]
    hostile = {signer.public_key for signer in signers}
    bound = {overlay.node_id}
    for number in range(contacts):
        signer = signers[number % credentials]
        address = f"12.{number % BLOCKS}.{number // BLOCKS >> 8 & 255}.{number // BLOCKS & 255}"
        name = f"hostile-{number}"
        endpoint = await world.node(name, address=address, signer=signer)
        await world.nodes[name].start(_meet(endpoint, victim.address))
        await world.nodes[name].start(endpoint.close())
        world.simulation.network.crash(world.nodes.pop(name).host)
        if not number % 20:
            await asyncio.sleep(1)
    held = list(overlay.table.by_id.values())
    theirs = [contact for contact in held if contact.address[0].startswith("12.")]
    known = [peer for peer in victim.sessions.peers.values() if peer.member and peer.member.public_key in hostile]
    blocks: dict[object, int] = {}
    in_bucket = 0
    for contact in held:
        place = group(contact.address, "public")
        blocks[place] = blocks.get(place, 0) + 1
    for bucket in overlay.table.buckets:
        places = [group(contact.address, "public") for contact in bucket.nodes.values()]
        in_bucket = max([in_bucket, *(places.count(place) for place in places)])
    share = len(theirs) / len(held)
    del bound
    return Outcome(
        "eclipse",
        "<= 10 % of slots",
        f"{100 * share:.1f} % of {len(held)} slots",
        share <= 0.10 and max(blocks.values()) <= 10 and in_bucket <= 2 and not faults(victim),
        {
            "inbound": contacts,
            "credentials": credentials,
            "slots": len(held),
            "hostile_slots": len(theirs),
            "most_in_a_block": max(blocks.values()),
            "most_of_a_block_in_a_bucket": in_bucket,
            "hostile_peers_remembered": len(known),
            "faults": faults(victim),
        },
    )


async def _meet(endpoint: object, address: tuple[str, int]) -> None:
    overlay = endpoint.overlay(DIMENSION)  # type: ignore[attr-defined]
    done = asyncio.get_running_loop().create_future()
    endpoint.call(  # type: ignore[attr-defined]
        address, overlay.tag, -2, overlay.node_id, lambda call, error, body: done.done() or done.set_result(None)
    )
    await done


