"""Traces of two small worlds, as one file keeps them: each Python, and each machine, has to come to the same.

The catalogue that machines are drawn from is a package of its own: its hash stands beside them.

`scripts/record_golden traces` writes the file anew, after a change of what nodes do that is meant.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from xenonode.catalogue import catalogue_rows
from xenonode.simulation.crowd import Crowd
from xenonode.simulation.world import World

PATH = Path(__file__).with_suffix(".json")
SEED = 17
PLATFORM_S, CROWD_S = 100.0, 60.0


def catalogue() -> str:
    """A hash of what machines are drawn from."""
    return hashlib.blake2b(repr(catalogue_rows()).encode(), digest_size=16).hexdigest()


def record() -> str:
    """Run both; the file's text."""
    with World(SEED, servers=4, leaf_capacity=4) as world:
        world.run(until=PLATFORM_S)
        world.run(world.ask("cores >= 1"))
        traces = {"catalogue": catalogue(), "platform": world.trace.hexdigest()}
    with Crowd(SEED, peers=30, leaf_capacity=8, period_ms=20_000) as crowd:
        crowd.run(until=CROWD_S)
        crowd.run(crowd.ask("cores >= 1"))
        traces["crowd"] = crowd.trace.hexdigest()
    return json.dumps(traces, indent=1) + "\n"
