"""Tarpit: members that never answer, that answer everything but lookups, or that answer as late as they can.

The bar is on reads and on finds, although a find has to hear of all of the k nearest: once somebody is silent it asks
the others at once, and some beyond them, so that all who are silent cost one wait.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from dht.endpoint import Endpoint
from dht.record import seal_record
from xenonode.simulation.network import Host

from .outcome import Outcome
from .world import DIMENSION, HOUR_MS, World, faults

LATE_US = 1_800_000  # just within the hard time-out of a question
FIND, GET = -2, -4
MODES = ("silent", "mute", "late")
OPERATIONS = ("get", "find")
Times = dict[str, list[float]]


def attack(nodes: int, lookups: int, share: float = 0.2, seed: int = 6) -> Outcome:
    """p95 of gets and of finds while a share of all members misbehaves, over the same ones before; virtual time."""
    ratios: dict[str, float] = {}
    detail: dict[str, object] = {"nodes": nodes, "lookups": lookups}
    failed = broken = 0
    for mode in MODES:
        with World(seed) as world:
            before, after, misses, fault_count = world.run(_attack(world, nodes, lookups, share, mode))
        for operation in OPERATIONS:
            clean, spoiled = _p95(before[operation]), _p95(after[operation])
            ratios[f"{operation} {mode}"] = spoiled / clean
            detail[f"{operation}_{mode}_p95_ms"] = [round(clean), round(spoiled)]
        failed += misses
        broken += fault_count
    return Outcome(
        "tarpit",
        "p95 <= 2x clean",
        ", ".join(f"{ratio:.2f}x {name}" for name, ratio in ratios.items()),
        max(ratios.values()) <= 2.0 and not failed and not broken,
        {**detail, "failed_gets": failed, "faults": broken},
    )


async def _attack(
    world: World, count: int, lookups: int, share: float, mode: str
) -> tuple[Times, Times, int, int]:
    # One way 10 to 60 ms by place: a continent.
    places: dict[str, int] = {}

    def latency_us(one: Host, other: Host) -> int:
        pair = random.Random(f"{min(one.name, other.name)} {max(one.name, other.name)}")
        return places.setdefault(f"{one.name} {other.name}", pair.randrange(10_000, 60_000))

    world.simulation.network.latency_us = latency_us
    nodes = [await world.node(f"n{number}") for number in range(count)]
    names = [f"n{number}" for number in range(count)]
    overlays = [node.overlay(DIMENSION) for node in nodes]
    contacts = [overlay.contact for overlay in overlays]
    for overlay in overlays:
        world.rng.shuffle(contacts)
        overlay.warm_start(contacts)
    bad = set(world.rng.sample(range(count), int(count * share)))
    good = [number for number in range(count) if number not in bad]
    expires_ms = world.now_ms() + 5 * HOUR_MS
    keys = []
    for number in range(lookups):
        publisher = good[number % len(good)]
        key = world.rng.randbytes(20)
        raw = seal_record(nodes[publisher].signer, DIMENSION, key, 1, expires_ms, b"value")
        put = overlays[publisher].records.put(key, raw, expires_ms, republish=False)
        await world.nodes[names[publisher]].start(put)
        keys.append(key)
    askers = [world.rng.choice(good) for _ in keys]
    before, missed_before = await _look_up(world, nodes, names, askers, keys)
    for number in sorted(bad):
        _spoil(world, nodes[number], names[number], mode)
    if mode == "late":
        spoiled = {names[number] for number in bad}
        world.simulation.network.latency_us = lambda one, other: (
            latency_us(one, other) + (LATE_US if one.name in spoiled else 0)
        )
    after, missed_after = await _look_up(world, nodes, names, askers, keys)
    return before, after, missed_before + missed_after, faults(*nodes)


def _spoil(world: World, node: Endpoint, name: str, mode: str) -> None:
    if mode == "silent":
        world.nodes[name].crash()
    elif mode == "mute":
        overlay = node.overlay(DIMENSION)
        honest = overlay.requested

        def requested(peer: Any, kind: int, body: bytes, reply: Any) -> None:
            if kind not in (FIND, GET):
                honest(peer, kind, body, reply)

        overlay.requested = requested  # type: ignore[method-assign]


async def _look_up(
    world: World, nodes: list[Endpoint], names: list[str], askers: list[int], keys: list[bytes]
) -> tuple[Times, int]:
    loop = asyncio.get_running_loop()
    took_ms: Times = {operation: [] for operation in OPERATIONS}
    missed = 0
    for number, (asker, key) in enumerate(zip(askers, keys, strict=True)):
        operation = OPERATIONS[number % len(OPERATIONS)]
        overlay = nodes[asker].overlay(DIMENSION)
        if overlay.records.shelf.get(key, world.now_ms()):
            continue  # it holds the record itself
        began_s = loop.time()
        if operation == "find":
            found: object = await world.nodes[names[asker]].start(overlay.find(key))
        else:
            found = await world.nodes[names[asker]].start(overlay.records.get(key))
        took_ms[operation].append((loop.time() - began_s) * 1_000)
        missed += not found
    return took_ms, missed


def _p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


