"""Amplification: packets with somebody else's source address, to make a server send that one more than was spent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from dht import datagram
from dht.contact import Contact
from dht.early import Question
from dht.walk import FIND

from .outcome import Outcome
from .world import DIMENSION, World, faults

TYPES = (datagram.HELLO, datagram.WELCOME, datagram.COOKIE, datagram.RESET, datagram.REQUEST, datagram.REPLY)


def attack(packets: int, seed: int = 5) -> Outcome:
    """Spoofed packets of every type, genuine ones replayed from elsewhere among them."""
    with World(seed, profile="public") as world:
        return world.run(_attack(world, packets))  # type: ignore[no-any-return]


async def _attack(world: World, packets: int) -> Outcome:
    victim = await world.node("victim", address="9.0.0.1")
    peer = await world.node("peer", address="9.1.0.1")
    genuine: list[bytes] = []
    world.overheard = lambda data, source, to: genuine.append(data)
    victim.overlay(DIMENSION)
    await world.nodes["peer"].start(peer.overlay(DIMENSION).join([victim.address]))
    await asyncio.sleep(30)

    sent: list[bytes] = []
    # Upkeep of the two members' own session goes on meanwhile; it answers nobody's packet.
    world.overheard = lambda data, source, to: (
        sent.append(data) if source == victim.address and to != peer.address else None
    )
    key = datagram.network_key(b"a network under attack")
    tag = int.from_bytes(key[:4], "big")
    rng = world.rng
    shaker = world.shaker(peer.signer, world.credential(peer.signer))
    # Half of them ask for contacts along with it, of which there are as many as an answer has room for.
    overlay = victim.overlay(DIMENSION)
    overlay.warm_start([Contact(rng.randbytes(20), world.spoofed()) for _ in range(100)])
    question = Question(overlay.tag, FIND, rng.randbytes(20)).packed()
    hellos = [
        shaker.hello_datagram(shaker.hello(rng.getrandbits(64), each)) for each in (b"", question) for _ in range(25)
    ]

    def foreign() -> bytes:
        return rng.randbytes(rng.randrange(0, 1_400))

    def sealed() -> bytes:
        body = rng.randbytes(rng.randrange(0, 1_163))
        return datagram.seal(rng.choice(TYPES), tag, rng.getrandbits(64), rng.getrandbits(64), body, key)

    def cut() -> bytes:
        data = rng.choice(hellos)
        return data[: rng.randrange(len(data))]

    def smallest() -> bytes:
        return datagram.seal(datagram.REQUEST, tag, rng.getrandbits(64), 1, b"", key)

    kinds: list[Callable[[], bytes]] = [
        lambda: rng.choice(hellos),
        lambda: rng.choice(genuine),
        foreign,
        sealed,
        cut,
        smallest,
    ]
    received_bytes = replied_bytes = 0
    worst = 0.0
    answered: Counter[int] = Counter()
    for number in range(packets):
        kind = number % len(kinds)
        data = kinds[kind]()
        sent.clear()
        world.deliver(victim, data, world.spoofed())
        received_bytes += len(data)
        replied = sum(map(len, sent))
        replied_bytes += replied
        answered[kind] += bool(replied)
        worst = max(worst, replied / max(1, len(data)))
        if not number % 100:
            # The limits fill up again meanwhile, so that they do not hide what one packet draws.
            sent.clear()
            await asyncio.sleep(1)
            replied_bytes += sum(map(len, sent))
    sent.clear()
    await asyncio.sleep(30)
    replied_bytes += sum(map(len, sent))
    return Outcome(
        "amplification",
        "<= 1.0x, of each packet and in all",
        f"{worst:.3f}x the worst packet, {replied_bytes / received_bytes:.3f}x in all",
        worst <= 1.0
        and replied_bytes <= received_bytes
        and not faults(victim)
        and victim.counters["early-answers"] > 0,  # the longest replies of all were among them
        {
            "packets": packets,
            "answered_hellos": answered[0],
            "early_answers": victim.counters["early-answers"],
            "answered_strays": answered[1] + answered[3] + answered[5],
            "sessions": victim.session_count(),
            "faults": faults(victim),
        },
    )
