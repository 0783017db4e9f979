"""The overlays at the scale of a test, in virtual time; `scripts/bench_dht` runs the same trials at full size."""

from __future__ import annotations

import asyncio

from xenonode.simulation.overlay_trials import DIMENSION, HOUR_MS, churn, idle_hour, place, read
from xenonode.simulation.overlays import OverlayWorld

NODES, KEYS = 60, 30
# So many that buckets far from a node are full.
WITH_FAR_BUCKETS = 120


def test_an_idle_hour_costs_no_more_than_refreshes_and_republishing_and_every_key_is_found_after_it() -> None:
    with OverlayWorld(1, NODES, wide_area=True) as world:
        world.begin()
        placed = world.simulation.run(place(world, KEYS, 2 * HOUR_MS))
        idle = world.simulation.run(idle_hour(world, placed))
        reading = world.simulation.run(read(world, placed, 30))
        assert len(placed) == KEYS
        assert 0 < idle.questions <= idle.bound
        assert reading.failed_gets == 0
        assert reading.recall20 >= 0.99


def test_an_idle_hour_looks_into_each_bucket_once_full_far_ones_included() -> None:
    with OverlayWorld(1, WITH_FAR_BUCKETS, wide_area=True) as world:
        world.begin()
        overlays = [node.overlay(DIMENSION) for node in world.nodes]
        far = sum(len(overlay.table.far_buckets()) for overlay in overlays)
        world.simulation.run(asyncio.sleep(HOUR_MS / 1_000))  # whose turns began within it
        before = sum(overlay.measures.lookup_ms.count for overlay in overlays)
        idle = world.simulation.run(idle_hour(world, []))
        lookups = sum(overlay.measures.lookup_ms.count for overlay in overlays) - before
        assert far > WITH_FAR_BUCKETS
        assert 0.95 * idle.buckets < lookups <= 1.02 * idle.buckets


def test_no_record_is_lost_while_half_of_the_nodes_are_replaced_in_an_hour() -> None:
    with OverlayWorld(2, NODES, wide_area=True) as world:
        world.begin()
        placed = world.simulation.run(place(world, KEYS, 2 * HOUR_MS))
        outcome = world.simulation.run(churn(world, placed, share=0.5, hours=1.0))
        assert outcome.replaced > NODES // 4
        assert outcome.owed > 0
        assert outcome.lost == 0


def test_a_world_of_overlays_repeats_exactly() -> None:
    hashes = []
    for _ in range(2):
        with OverlayWorld(3, 20) as world:
            world.begin()
            placed = world.simulation.run(place(world, 5, HOUR_MS))
            world.simulation.run(read(world, placed, 5))
            hashes.append(world.simulation.trace.hexdigest())
    assert hashes[0] == hashes[1]
