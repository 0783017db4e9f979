"""The run of the benchmark: rates first, then a world of each size in a process of its own, then the table.

Decides sizes and what is printed. Leaves what is measured to `rates` and `sizes`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.simulator_benchmark import rates
from summaries.holder import DEFAULT_CAPACITY
from xenonode.simulation import pages

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = 8
NODES_LEAST = 2
GROWN_MAX = 1_000
"""Nodes whose first adverts are published one by one unless asked: ten thousand were not through in twenty minutes."""
LIVED_MAX = 20_000
"""Nodes that advertise at all unless asked; beyond, a node's memory is what matters."""
WORDS = {
    rates.WIRE_TRACE: "wire and trace",
    rates.WIRE: "wire, no trace",
    rates.COLD: "wire and trace, every peer greeted first, simulated signatures",
    rates.COLD_SIGNED: "the same with Ed25519 and X25519",
    rates.STOCK: "stock kademlia on the same loop",
}


def run_one(kind: str, nodes: int, options: argparse.Namespace, hash_seed: str) -> dict[str, Any]:
    """One size, in a process with this hash seed."""
    numbers = (nodes, OVERLAYS, options.seed, options.queries, options.capacity, int(options.strangers))
    arguments = [kind, *map(str, numbers)]
    command = [sys.executable, "-m", "scripts.simulator_benchmark.sizes", *arguments]
    environment = pages.environment(PYTHONHASHSEED=hash_seed)
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def wanted(sizes: str, publish: str, lookups: str) -> list[tuple[str, int]]:
    """Kinds of runs and their nodes, by the options of these names. Raises ValueError."""
    asked, grown, bare = ([int(each) for each in text.split(",") if each] for text in (sizes, publish, lookups))
    if min([*asked, *grown, *bare], default=NODES_LEAST) < NODES_LEAST:
        raise ValueError(f"fewer than {NODES_LEAST} nodes are no network")
    return [
        *(("publish", nodes) for nodes in dict.fromkeys([each for each in asked if each <= GROWN_MAX] + grown)),
        *(("renew", nodes) for nodes in dict.fromkeys(asked) if nodes <= LIVED_MAX),
        *(("lookups", nodes) for nodes in dict.fromkeys([each for each in asked if each > LIVED_MAX] + bare)),
    ]


def row(told: dict[str, Any]) -> str:
    """One size as a line for people."""
    line = (
        f"{told['kind']:>9}{told['nodes']:>8,}{told['overlays']:>4}{told['warm_cpu_s']:>9.1f}{told['cpu_s']:>9.1f}"
        f"{told['wall_s']:>9.1f}{told['rpcs']:>12,}{told['rss_mb']:>9.0f}{told['kb_a_node']:>9.1f}"
    )
    if told["kind"] != "lookups":
        good = f"{told['queries'] - told['partial']} of {told['queries']} queries complete"
        line += f"{told['kb_a_node_with_adverts']:>9.1f}  {good}, {told['not_durable']} adverts not durable"
    else:
        line += f"{'':>9}  {told['nearest_found']} of {told['lookups']} lookups found the nearest"
    return f"{line}\n{'':>21}trace {told['trace']}"


def main(arguments: list[str] | None = None) -> int:
    """Run everything; with `--json` the last line is one object."""
    parser = argparse.ArgumentParser(prog="bench_simulator", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", default="1000,10000,50000",
        help=f"nodes (default 1000,10000,50000). In a network that has lived a while all publish anew, some search: "
        f"'renew'; up to {GROWN_MAX:,} also from nothing: 'publish'; above {LIVED_MAX:,} a warm start and lookups only",
    )  # fmt: skip
    parser.add_argument("--publish", default="", help="further sizes from nothing: first adverts, leaves that split")
    parser.add_argument("--lookups", default="", help="further sizes with lookups only")
    parser.add_argument("--rate-nodes", type=int, default=1000, help="nodes while rates are measured (default 1000)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender (default 7)")
    parser.add_argument("--batch", type=int, default=60, help="lookups a turn (default 60)")
    parser.add_argument("--queries", type=int, default=40, help="of each size (default 40)")
    parser.add_argument("--capacity", type=int, default=DEFAULT_CAPACITY, help=f"rows of a leaf ({DEFAULT_CAPACITY})")
    parser.add_argument("--strangers", action="store_true", help="nobody has greeted those in its tables before")
    parser.add_argument("--repeat", action="store_true", help="run each size again under another hash seed")
    parser.add_argument("--seed", type=int, default=1, help="of everything (default 1)")
    parser.add_argument("--json", action="store_true", help="print all figures as one object in the last line")
    options = parser.parse_args(arguments)
    try:
        planned = wanted(options.sizes, options.publish, options.lookups)
    except ValueError:
        parser.error(f"--sizes, --publish, --lookups: whole numbers from {NODES_LEAST} on, with commas between them")
    least = rates.nodes_least(options.rounds, options.batch)
    if min(options.rounds, options.batch) < 1 or options.rate_nodes < least:
        parser.error(f"--rounds and --batch are 1 or more, and --rate-nodes then {least} or more: each asks once")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, seed {options.seed}; CPU time of one core")
    measured = rates.measure(options.rate_nodes, options.seed, options.rounds, options.batch)
    print(f"RPC/s (request and reply), lookups among {options.rate_nodes:,} nodes, median of {options.rounds} turns:")
    for name, rate in measured.items():
        print(f"{rate:>10,}  {WORDS[name]}", flush=True)
    heads = (("", 9), ("nodes", 8), ("x", 4), ("warm s", 9), ("CPU s", 9), ("wall s", 9), ("RPCs", 12), ("MB", 9))
    print("".join(f"{head:>{width}}" for head, width in (*heads, ("kB/node", 9), ("+adverts", 9))))
    runs, differ = [], False
    for kind, nodes in planned:
        told = run_one(kind, nodes, options, "1")
        runs.append(told)
        print(row(told), flush=True)
        if options.repeat:
            again = run_one(kind, nodes, options, "77")
            same = again["trace"] == told["trace"]
            differ = differ or not same
            print(f"{'':>21}again under another hash seed: {'the same' if same else 'ANOTHER TRACE'}", flush=True)
    if options.json:
        print(json.dumps({"rpcs_per_core_s": measured, "runs": runs}))
    return 1 if differ else 0
