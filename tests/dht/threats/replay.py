"""Stale replay: genuine datagrams sent once more, and genuine records that a newer one has replaced or that ran out."""

from __future__ import annotations

import asyncio
from typing import Any

from dht.contact import Address
from dht.errors import DhtError
from dht.record import seal_record

from .outcome import Outcome
from .world import DIMENSION, HOUR_MS, World, faults

QUESTION = 7
PUT = -3
OWNERS = 4
SEQUENCES = 10


def attack(replays: int, seed: int = 3) -> Outcome:
    """Half of them are datagrams with their MACs, half are records put by a member."""
    with World(seed) as world:
        return world.run(_attack(world, replays))  # type: ignore[no-any-return]


async def _attack(world: World, replays: int) -> Outcome:
    victim, peer = await world.node("victim"), await world.node("peer")
    ours, theirs = victim.overlay(DIMENSION), peer.overlay(DIMENSION)
    handled = 0

    def handle(contact: Any, body: bytes, reply: Any) -> None:
        nonlocal handled
        handled += 1
        reply(body)

    ours.handle(QUESTION, handle)
    recorded: list[tuple[bytes, Address]] = []
    world.overheard = lambda data, source, to: recorded.append((data, source)) if to == victim.address else None
    for number in range(40):
        await world.nodes["peer"].start(_ask(theirs, ours.contact, number.to_bytes(2, "big")))
    world.overheard = None
    before, replayed_before = handled, victim.counters["replayed"]
    for number in range(replays // 2):
        data, source = recorded[number % len(recorded)]
        world.deliver(victim, data, source if number % 3 else world.spoofed())
    await asyncio.sleep(5)
    accepted_datagrams = handled - before

    # Sequence 1 outlives all that replace it: when they have run out, it must still not come back.
    now_ms = world.now_ms()
    stale: list[tuple[bytes, bytes]] = []
    for _ in range(OWNERS):
        owner, key = world.signer(), world.rng.randbytes(20)
        lives_ms = [10 * HOUR_MS] + [HOUR_MS - number * 60_000 for number in range(1, SEQUENCES)]
        raws = [
            seal_record(owner, DIMENSION, key, sequence + 1, now_ms + life_ms, b"")
            for sequence, life_ms in enumerate(lives_ms)
        ]
        for raw in raws:
            assert await _put(world, theirs, ours, key, raw)
        stale += [(key, raw) for raw in raws[:-1]]
    accepted_records = 0
    for number in range(replays - replays // 2):
        key, raw = stale[number % len(stale)]
        accepted_records += await _put(world, theirs, ours, key, raw)
        if number == replays // 4:
            await asyncio.sleep(HOUR_MS / 1_000)
            live = sum(len(ours.records.shelf.get(key, world.now_ms())) for key, _ in stale)
            assert not live  # the newest have run out
    accepted = accepted_datagrams + accepted_records
    return Outcome(
        "stale replay",
        "0 accepted",
        f"{accepted} of {replays} accepted",
        accepted == 0 and not faults(victim, peer),
        {
            "accepted_datagrams": accepted_datagrams,
            "accepted_records": accepted_records,
            "caught_by_the_window": victim.counters["replayed"] - replayed_before,
            "faults": faults(victim, peer),
        },
    )


async def _ask(overlay: Any, contact: Any, body: bytes) -> bytes:
    answer: bytes = await overlay.ask(contact, QUESTION, body)
    return answer


async def _put(world: World, theirs: Any, ours: Any, key: bytes, raw: bytes) -> bool:
    """Whether the holder took the record in."""
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def answered(call: Any, error: DhtError | None, body: bytes) -> None:
        done.set_result(error is None)

    theirs.endpoint.call(ours.endpoint.address, theirs.tag, PUT, key + raw, answered, contact=ours.contact)
    return await done
