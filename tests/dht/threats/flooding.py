"""Flooding: one member that writes far more than its share to one holder."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Any

from dht.errors import DhtError, PeerBusyError
from dht.record import seal_record
from dht.writers import MAX_BROUGHT

from .outcome import Outcome
from .world import DIMENSION, HOUR_MS, World, faults

PUT = -3
PER_S = 50
CROWD = 8


def attack(writes: int, seed: int = 4) -> Outcome:
    """`writes` signed records of one owner, three quarters under new keys, the rest newer versions of the first.

    Then a quarter as many again, each of an owner that the flooder has just made; and as many once more from a crowd:
    eight keys that one entity registered.
    """
    with World(seed) as world:
        return world.run(_attack(world, writes))  # type: ignore[no-any-return]


async def _attack(world: World, writes: int) -> Outcome:
    victim, flooder = await world.node("victim"), await world.node("flooder")
    ours, theirs = victim.overlay(DIMENSION), flooder.overlay(DIMENSION)
    expires_ms = world.now_ms() + 10 * HOUR_MS
    honest = []
    for _ in range(20):
        owner, key = world.signer(), world.rng.randbytes(20)
        honest.append((owner.public_key, key))
        await ours.put(key, seal_record(owner, DIMENSION, key, 1, expires_ms, b"x" * 500), expires_ms, republish=False)
    answers: Counter[str] = Counter()
    taken: deque[int] = deque()
    busiest = 0
    first = world.rng.randbytes(20)

    def answered(call: Any, error: DhtError | None, body: bytes) -> None:
        nonlocal busiest
        if error is None:
            answers["kept"] += 1
            taken.append(world.now_ms())
            while taken[0] <= world.now_ms() - 60_000:
                taken.popleft()
            busiest = max(busiest, len(taken))
        else:
            answers["retry" if isinstance(error, PeerBusyError) else "refused"] += 1

    brought: Counter[str] = Counter()

    def self_made(call: Any, error: DhtError | None, body: bytes) -> None:
        brought["kept" if error is None else "retry" if isinstance(error, PeerBusyError) else "refused"] += 1

    for number in range(writes):
        key = first if number % 4 == 3 else world.rng.randbytes(20)
        raw = seal_record(flooder.signer, DIMENSION, key, number + 1, expires_ms, b"x" * 500)
        flooder.call(victim.address, theirs.tag, PUT, key + raw, answered, contact=ours.contact)
        if not number % PER_S:
            await asyncio.sleep(1)
    await asyncio.sleep(3)
    # The same flood under keys of its own making, one for each record: quotas of owners do not help against that.
    for number in range(writes // 4):
        key = world.rng.randbytes(20)
        raw = seal_record(world.signer(), DIMENSION, key, 1, expires_ms, b"x" * 500)
        flooder.call(victim.address, theirs.tag, PUT, key + raw, self_made, contact=ours.contact)
        if not number % PER_S:
            await asyncio.sleep(1)
    await asyncio.sleep(3)
    crowd = [await world.node(f"crowd-{number}", entity="crowd") for number in range(CROWD)]
    crowded: Counter[str] = Counter()

    def by_crowd(call: Any, error: DhtError | None, body: bytes) -> None:
        crowded["kept" if error is None else "retry" if isinstance(error, PeerBusyError) else "refused"] += 1

    for number in range(writes // 4):
        member, key = crowd[number % CROWD], world.rng.randbytes(20)
        raw = seal_record(member.signer, DIMENSION, key, 1, expires_ms, b"x" * 500)
        tag = member.overlay(DIMENSION).tag
        member.call(victim.address, tag, PUT, key + raw, by_crowd, contact=ours.contact)
        if not number % PER_S:
            await asyncio.sleep(1)
    await asyncio.sleep(3)
    now_ms = world.now_ms()
    keys = ours.shelf.all_keys()
    kept = sum(record.owner == flooder.signer.public_key for key in keys for record in ours.shelf.get(key, now_ms))
    lost = sum(owner not in {record.owner for record in ours.shelf.get(key, now_ms)} for owner, key in honest)
    superseded = len(getattr(ours.shelf, "_expiries", ()))
    return Outcome(
        "flooding",
        "<= 64 kept of an entity, <= 60 a minute, RETRY",
        f"{kept} kept of 1 key, {crowded['kept']} of {CROWD}, {busiest} a minute, {answers['retry']} RETRY",
        kept <= 64
        and 0 < crowded["kept"] <= 64
        and busiest <= 60
        and answers["retry"] > 0
        and brought["kept"] <= MAX_BROUGHT
        and brought["retry"] > 0
        and lost == 0
        and not faults(victim, flooder),
        {
            "writes": writes,
            **answers,
            "under_self_made_owners": dict(brought),
            "of_many_keys_of_one_entity": dict(crowded),
            "honest_records_lost": lost,
            "bytes": ours.shelf.used_bytes,
            "entries_that_wait_for_expiry": superseded,
            "faults": faults(victim),
        },
    )
