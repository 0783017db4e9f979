"""Flooding: one member that writes far more than its share to one holder."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Any

from dht.endpoint import Endpoint
from dht.errors import DhtError, PeerBusyError
from dht.identity import Signer
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
    shelf = victim.overlay(DIMENSION).records.shelf
    expires_ms = world.now_ms() + 10 * HOUR_MS
    honest = await _honest(world, victim, expires_ms)
    first = world.rng.randbytes(20)
    by_one, by_self_made, by_crowd = (Flood(world, victim, expires_ms) for _ in range(3))
    for number in range(writes):
        key = first if number % 4 == 3 else world.rng.randbytes(20)
        await by_one.write(flooder, flooder.signer, key, number + 1)
    await asyncio.sleep(3)
    # The same flood under keys of its own making, one for each record: quotas of owners do not help against that.
    for _ in range(writes // 4):
        await by_self_made.write(flooder, world.signer(), world.rng.randbytes(20), 1)
    await asyncio.sleep(3)
    crowd = [await world.node(f"crowd-{number}", entity="crowd") for number in range(CROWD)]
    for number in range(writes // 4):
        member = crowd[number % CROWD]
        await by_crowd.write(member, member.signer, world.rng.randbytes(20), 1)
    await asyncio.sleep(3)
    now_ms = world.now_ms()
    keys = shelf.all_keys()
    kept = sum(record.owner == flooder.signer.public_key for key in keys for record in shelf.get(key, now_ms))
    lost = sum(owner not in {record.owner for record in shelf.get(key, now_ms)} for owner, key in honest)
    answers, crowded = by_one.answers, by_crowd.answers
    return Outcome(
        "flooding",
        "<= 64 kept of an entity, <= 60 a minute, RETRY",
        f"{kept} kept of 1 key, {crowded['kept']} of {CROWD}, {by_one.busiest} a minute, {answers['retry']} RETRY",
        kept <= 64
        and 0 < crowded["kept"] <= 64
        and by_one.busiest <= 60
        and answers["retry"] > 0
        and by_self_made.answers["kept"] <= MAX_BROUGHT
        and by_self_made.answers["retry"] > 0
        and lost == 0
        and not faults(victim, flooder),
        {
            "writes": writes,
            **answers,
            "under_self_made_owners": dict(by_self_made.answers),
            "of_many_keys_of_one_entity": dict(crowded),
            "honest_records_lost": lost,
            "bytes": shelf.used_bytes,
            "entries_that_wait_for_expiry": len(getattr(shelf, "_expiries", ())),
            "faults": faults(victim),
        },
    )


async def _honest(world: World, victim: Endpoint, expires_ms: int) -> list[tuple[bytes, bytes]]:
    """Twenty owners with a record each on the victim's shelf: (owner, key)."""
    ours, honest = victim.overlay(DIMENSION), []
    for _ in range(20):
        owner, key = world.signer(), world.rng.randbytes(20)
        honest.append((owner.public_key, key))
        raw = seal_record(owner, DIMENSION, key, 1, expires_ms, b"x" * 500)
        await ours.records.put(key, raw, expires_ms, republish=False)
    return honest


class Flood:
    """Writes to the victim, so many a second, and counts what it answers; `busiest` is the most kept in a minute."""

    def __init__(self, world: World, victim: Endpoint, expires_ms: int) -> None:
        self._world, self._victim, self._expires_ms = world, victim, expires_ms
        self.answers: Counter[str] = Counter()
        self.busiest = 0
        self._kept_ms: deque[int] = deque()
        self._written = 0

    async def write(self, by: Endpoint, owner: Signer, key: bytes, seq: int) -> None:
        raw = seal_record(owner, DIMENSION, key, seq, self._expires_ms, b"x" * 500)
        contact, tag = self._victim.overlay(DIMENSION).contact, by.overlay(DIMENSION).tag
        by.call(self._victim.address, tag, PUT, key + raw, self._answered, contact=contact)
        if not self._written % PER_S:
            await asyncio.sleep(1)
        self._written += 1

    def _answered(self, call: Any, error: DhtError | None, body: bytes) -> None:
        if error is None:
            self.answers["kept"] += 1
            now_ms = self._world.now_ms()
            self._kept_ms.append(now_ms)
            while self._kept_ms[0] <= now_ms - 60_000:
                self._kept_ms.popleft()
            self.busiest = max(self.busiest, len(self._kept_ms))
        else:
            self.answers["retry" if isinstance(error, PeerBusyError) else "refused"] += 1
