"""Equivocation: an owner that shows some of the network one record and the rest another, under one sequence number."""

from __future__ import annotations

import asyncio
from typing import Any

from dht.contradictions import Contradiction
from dht.envelope import contradicts, open_envelope
from dht.record import seal_record

from .outcome import Outcome
from .world import DIMENSION, HOUR_MS, World, faults

PUT = -3
HOLDERS = 8


def attack(pairs: int, seed: int = 8) -> Outcome:
    """Half of the pairs meet at a holder, half only in the answers that a reader gets from two holders."""
    with World(seed) as world:
        return world.run(_attack(world, pairs))  # type: ignore[no-any-return]


async def _attack(world: World, pairs: int) -> Outcome:
    holders = [await world.node(f"holder-{number}") for number in range(HOLDERS)]
    reader, liar = await world.node("reader"), await world.node("liar")
    everybody = [*holders, reader, liar]
    contacts = [node.overlay(DIMENSION).contact for node in holders]
    proofs: list[Contradiction] = []
    for node in everybody:
        node.overlay(DIMENSION).warm_start(contacts)
        node.contradictions.listen(proofs.append)
    expires_ms = world.now_ms() + 10 * HOUR_MS
    told = 0
    for number in range(pairs):
        owner, key = world.signer(), world.rng.randbytes(20)
        two = [seal_record(owner, DIMENSION, key, number, expires_ms, text) for text in (b"yes", b"no")]
        before = len(proofs)
        await asyncio.sleep(1)  # a member may bring others' records, but not in such a flood
        if number % 2:
            for raw in two:
                await _put(world, liar, holders[0], key, raw)
        else:
            for place, holder in enumerate(holders):
                await _put(world, liar, holder, key, two[place % 2])
            await world.nodes["reader"].start(reader.overlay(DIMENSION).records.get(key, holders=HOLDERS))
        told += any(_proves(world, proof, owner.public_key) for proof in proofs[before:])
    return Outcome(
        "equivocation",
        "100 % reported",
        f"{100 * told / pairs:.1f} % of {pairs} reported",
        told == pairs and not faults(*everybody),
        {"pairs": pairs, "proofs": len(proofs), "faults": faults(*everybody)},
    )


def _proves(world: World, proof: Contradiction, owner: bytes) -> bool:
    """Whether a third party would be convinced."""
    first, second = open_envelope(proof.first, world.scheme), open_envelope(proof.second, world.scheme)
    return contradicts(first, second) and first.key == owner == proof.owner


async def _put(world: World, liar: Any, holder: Any, key: bytes, raw: bytes) -> None:
    done = asyncio.get_running_loop().create_future()
    overlay = liar.overlay(DIMENSION)
    liar.call(
        holder.address,
        overlay.tag,
        PUT,
        key + raw,
        lambda call, error, body: done.set_result(None),
        contact=holder.overlay(DIMENSION).contact,
    )
    await done
