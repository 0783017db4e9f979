"""Sybil: identities that nobody certified, shown in handshakes and named in answers."""

from __future__ import annotations

import asyncio
import random

from dht.contact import Contact, pack_contacts
from dht.identity import ED25519, Signer

from .outcome import Outcome
from .world import DIMENSION, PORT, World, faults

FIND = -2


def attack(ids: int, seed: int = 1) -> Outcome:
    """Half of the ids greet a server themselves, half are named by a certified liar; the real signatures are used."""
    with World(seed, scheme=ED25519) as world:
        return world.run(_attack(world, ids))  # type: ignore[no-any-return]


async def _attack(world: World, ids: int) -> Outcome:
    victim = await world.node("victim")
    liar = await world.node("liar")
    overlay, other = victim.overlay(DIMENSION), liar.overlay(DIMENSION)
    await world.nodes["liar"].start(other.join([victim.address]))
    known = set(overlay.table.by_id)
    real, issuer = world.credential(liar.signer), world.signer()
    for number in range(ids // 2):
        signer = world.signer()
        credential = _flawed(world, number, signer, issuer, real)
        shaker = world.shaker(signer, credential)
        world.deliver(victim, shaker.hello_datagram(shaker.hello(number + 1)), (_place(number), PORT))
        if not number % 200:
            await asyncio.sleep(1)  # so that no limit answers in the place of the check
    limited = victim.counters["hello-limited"]

    named = 0
    rng = random.Random(5)

    def lie(reply: object, key: bytes) -> bytes:
        nonlocal named
        invented = [
            Contact(key[:18] + rng.randbytes(2), (_place(100_000 + named + number), PORT)) for number in range(10)
        ] + [Contact(key[:18] + rng.randbytes(2), liar.address) for _ in range(5)]
        named += len(invented)
        return liar.vitals() + pack_contacts(invented)

    answer = other.requested

    def requested(peer: object, kind: int, body: bytes, reply: object) -> None:
        if kind == FIND:
            reply(lie(reply, body))  # type: ignore[operator]
        else:
            answer(peer, kind, body, reply)  # type: ignore[arg-type]

    other.requested = requested  # type: ignore[assignment]
    while named < ids - ids // 2:
        key = world.rng.randbytes(20)
        await world.nodes["victim"].start(overlay.find(key))
    admitted = len(set(overlay.table.by_id) - known - {other.node_id})
    admitted += sum(peer.member is not None and peer.address != liar.address for peer in victim.sessions.peers.values())
    return Outcome(
        "sybil",
        "0 admitted",
        f"{admitted} of {ids // 2 + named} admitted",
        admitted == 0 and limited == 0 and not faults(victim, liar),
        {"greeted": ids // 2, "named": named, "admitted": admitted, "limited": limited, "faults": faults(victim)},
    )


def _flawed(world: World, number: int, signer: Signer, issuer: Signer, real: bytes) -> bytes:
    """A credential that is worth nothing to this signer; `real` is somebody else's."""
    if number % 5 == 0:
        return world.credential(signer, issuer=issuer)
    if number % 5 == 1:
        return world.credential(signer, issuer=signer)
    if number % 5 == 2:
        return world.credential(signer, expires_ms=world.now_ms() - 1)
    return real if number % 5 == 3 else world.rng.randbytes(300)


def _place(number: int) -> str:
    return f"10.{100 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
