"""Trials of a DHT at scale in virtual time: what an idle hour costs, what reads miss, what churn loses.

Decides how each is measured and against which bound. Leaves the world to `overlays` and what is good enough to tests
and benchmarks.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dht.lookup import ALPHA
from dht.publishing import REPLICAS
from dht.routing import K
from xenonode.simulation.overlays import HOUR_MS, OverlayNode, OverlayWorld

# What one lookup may cost: the k nearest, and two rounds of alpha that lead to them.
QUESTIONS_PER_LOOKUP = K + 2 * ALPHA
DIMENSION = "cores"


@dataclass(frozen=True, slots=True)
class Idle:
    """Questions in a virtual hour without work, and the most that upkeep explains."""

    questions: int
    bound: int
    buckets: int
    republished: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads of live keys that found nothing, and lookups held against brute force."""

    gets: int
    failed_gets: int
    recall20: float


@dataclass(frozen=True, slots=True)
class Churn:
    """What became of the records while nodes were replaced."""

    replaced: int
    owed: int
    lost: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A record that was acknowledged."""

    key: bytes
    publisher: OverlayNode
    expires_ms: int


async def place(world: OverlayWorld, keys: int, life_ms: int) -> list[Placed]:
    """Let publishers of chance store keys of chance."""
    placed = []
    for _ in range(keys):
        publisher, key = world.rng.choice(world.nodes), world.random_key()
        expires_ms = publisher.node.env.now_ms() + life_ms
        if await publisher.put(DIMENSION, key, b"v" * 100, life_ms):
            placed.append(Placed(key, publisher, expires_ms))
    return placed


async def idle_hour(world: OverlayWorld, placed: list[Placed]) -> Idle:
    """An hour in which nobody asks for anything; the bound counts each bucket once and each republished record."""
    before, republished_before = world.questions(), _republished(world)
    await asyncio.sleep(3_600)
    questions = world.questions() - before
    buckets = sum(len(node.overlay(DIMENSION).table.buckets) for node in world.living())
    republished = _republished(world) - republished_before
    bound = buckets * QUESTIONS_PER_LOOKUP + republished * (QUESTIONS_PER_LOOKUP + REPLICAS)
    return Idle(questions, bound, buckets, republished)


async def read(world: OverlayWorld, placed: list[Placed], finds: int) -> Reading:
    """Read each key once and look for keys of chance, from nodes of chance."""
    living, failed = world.living(), 0
    for record in placed:
        failed += not await world.rng.choice(living).get(DIMENSION, record.key)
    hits = 0
    for _ in range(finds):
        key = world.random_key()
        found = {contact.node_id for contact in await world.rng.choice(living).find(DIMENSION, key)}
        hits += len(found.intersection(contact.node_id for contact in world.nearest(DIMENSION, key)))
    return Reading(len(placed), failed, hits / (K * finds) if finds else 1.0)


async def churn(world: OverlayWorld, placed: list[Placed], *, share: float, hours: float) -> Churn:
    """Replace a share of the nodes an hour, at the moments of a Poisson process; then read what must be there."""
    until_s, time = hours * 3_600, 0.0
    rate_per_s = len(world.nodes) * share / 3_600
    replaced, joins = 0, []
    while True:
        wait_s = world.rng.expovariate(rate_per_s)
        time += wait_s
        if time > until_s:
            break
        await asyncio.sleep(wait_s)
        living = world.living()
        world.rng.choice(living).crash()
        replaced += 1
        seeds = world.rng.sample([node for node in living if node.alive], 3)
        joins.append(asyncio.ensure_future(world.join(world.add(), seeds)))
    await asyncio.gather(*joins, return_exceptions=True)
    living, lost, owed = world.living(), 0, 0
    for record in placed:
        if not record.publisher.alive or record.expires_ms <= record.publisher.node.env.now_ms():
            continue
        owed += 1
        lost += not await world.rng.choice(living).get(DIMENSION, record.key)
    return Churn(replaced, owed, lost)


def _republished(world: OverlayWorld) -> int:
    return sum(node.endpoint.counters["records-stored-again"] for node in world.nodes)


__all__ = ["DIMENSION", "HOUR_MS", "Churn", "Idle", "Placed", "Reading", "churn", "idle_hour", "place", "read"]
