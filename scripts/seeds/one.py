"""One seed, in this process; prints an outcome as JSON.

`pool` runs it as a program: python -m scripts.seeds.one SEED SIZE [INJECTIONS].
"""

from __future__ import annotations

import json
import sys
import time

from scripts.seeds import pool
from xenonode.simulation.faults import Injection
from xenonode.simulation.seeds import SIZES, run_seed


def outcome_of(seed: int, size: str, injections: list[Injection] | None = None) -> pool.Outcome:
    """Run it, and measure what it cost."""
    began_s = time.process_time()
    result = run_seed(seed, injections, SIZES[size])
    return pool.Outcome(
        seed,
        result.trace,
        result.virtual_s,
        round(time.process_time() - began_s, 2),
        result.datagrams,
        result.searches,
        result.broken,
        result.bites,
        [one.to_fields() for one in result.injections],
    )


if __name__ == "__main__":
    chosen = None
    if len(sys.argv) > 3:
        chosen = [Injection.from_fields(fields) for fields in json.loads(sys.argv[3])]
    print(outcome_of(int(sys.argv[1]), sys.argv[2], chosen).text)
