"""Eclipse: a few certified members who try to fill a routing table, late from thousands of addresses, or early.

Who is there before everybody else has the whole table, and nobody is evicted for those who come later. What brings the
attackers down to their share then are the exchanges that a node makes by lookups of its own.
"""

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
        places = [group(contact.address, "public") for contact in bucket.nodes]
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


def early(credentials: int, honest: int, hours: int, seed: int = 3) -> Outcome:
    """Attackers from `BLOCKS` blocks fill a new server's table, then honest nodes come; after some hours of upkeep."""
    with World(seed, profile="public") as world:
        return world.run(_early(world, credentials, honest, hours))  # type: ignore[no-any-return]


async def _early(world: World, credentials: int, honest: int, hours: int) -> Outcome:
    victim = await world.node("victim", address="9.0.0.1")
    overlay = victim.overlay(DIMENSION)
    endpoints = []
    for number in range(credentials + honest):
        hostile = number < credentials
        address = f"12.{number % BLOCKS}.0.{number // BLOCKS + 1}" if hostile else f"11.{number >> 8}.{number & 255}.1"
        endpoint = await world.node(f"n{number}", address=address)
        await world.nodes[f"n{number}"].start(endpoint.overlay(DIMENSION).join([victim.address]))
        endpoints.append(endpoint)
        if number == credentials - 1:
            first = len(overlay.table)
        # They answer as ever; what they would look after themselves is not what is attacked here.
        assert endpoint._tick_timer is not None
        endpoint._tick_timer.cancel()
        for timer in endpoint.overlay(DIMENSION).joining._settling:
            timer.cancel()

    def share() -> float:
        held = list(overlay.table)
        return sum(contact.address[0].startswith("12.") for contact in held) / len(held)

    before = share()
    await asyncio.sleep(hours * 3_600)
    after = share()
    return Outcome(
        "eclipse, early",
        "<= 10 % of slots",
        f"{100 * after:.1f} % of {len(overlay.table)} slots ({100 * before:.1f} % before)",
        after <= 0.10 and before > 0.10 and not faults(victim),
        {
            "credentials": credentials,
            "honest": honest,
            "first": first,
            "hours": hours,
            "share_before": round(before, 3),
            "share_after": round(after, 3),
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
