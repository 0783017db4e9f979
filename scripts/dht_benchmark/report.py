"""The run of the benchmark: contenders take turns, then the trials in virtual time, then the table.

Decides sizes, turns and how figures become ratios: CPU time of the whole process of a contender, so what its answering
nodes cost counts too; the median over all operations of all rounds, since other work on the machine only adds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scripts.dht_benchmark import latency
from scripts.dht_benchmark.pylibp2p import MOST_NODES as PYTHONS_MOST
from scripts.dht_benchmark.rivals import IN_FLIGHT, MOST_NODES
from xenonode.simulation.overlay_trials import HOUR_MS, churn, idle_hour, place, read
from xenonode.simulation.overlays import OverlayWorld

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("get", "find", "set")
OURS, SHIPPED, PATCHED = "ours", "shipped", "patched"
SMALL = "ours, small"
RIVALS = ("libtorrent", "opendht", "libp2p")
PARTS = ("live", "memory", "dead", "simulator", "idle", "churn")
# One batch of a round; operations follow one another, so that none hides behind another.
BATCH = 15
BATCH_SECONDS = 10.0
MEMORY_NODES, MEMORY_OVERLAYS = 100, 8
# Nodes in the trial of churn, of which half are replaced in an hour.
CHURN_SHARE, CHURN_HOURS = 0.5, 1.0


class ContenderError(Exception):
    """A contender's process ended before its time."""


class Worker:
    """One contender in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "scripts.dht_benchmark.worker"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Have one command carried out."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise ContenderError(f"a contender ended with status {self.process.wait()} instead of an answer to {do!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Tally:
    """What one contender did of one kind."""

    def __init__(self) -> None:
        self.cpu_s: list[float] = []
        self.achieved: list[float] = []
        self.questions = 0

    def add(self, answer: dict[str, Any]) -> None:
        self.cpu_s += answer["cpu_s"]
        self.achieved += answer["achieved"]
        self.questions += answer["questions"]

    @property
    def median_ms(self) -> float:
        return 1_000 * statistics.median(self.cpu_s)

    @property
    def questions_each(self) -> float:
        return self.questions / len(self.cpu_s)

    @property
    def cpu_per_question_us(self) -> float:
        """Of an operation of median cost: what else runs on the machine, and a node's upkeep, only add."""
        return 1_000 * self.median_ms / max(1e-9, self.questions_each)


def live(nodes: int, keys: int, rounds: int, seed: int, result: dict[str, Any]) -> None:
    """Gets, finds and sets of all contenders on loopback, in turns."""
    workers = _built(nodes, keys, seed)
    tallies = _measured(workers, rounds)
    for worker in workers.values():
        worker.close()
    print(f"{'median CPU ms':>16}{'get':>9}{'find':>9}{'set':>9}   questions a get / find / set   recall@20   found")
    for name in (OURS, SHIPPED, PATCHED):
        medians = "".join(f"{tallies[name, kind].median_ms:9.3f}" for kind in KINDS)
        asked = " / ".join(f"{tallies[name, kind].questions_each:.1f}" for kind in KINDS)
        recall, found = (statistics.mean(tallies[name, kind].achieved) for kind in ("find", "get"))
        print(f"{name:>16}{medians}   {asked:>28}   {recall:9.4f}   {found:.4f}")
    for kind in KINDS:
        mine = tallies[OURS, kind].median_ms
        result[kind] = {
            "vs_shipped": round(tallies[SHIPPED, kind].median_ms / mine, 2),
            "vs_patched": round(tallies[PATCHED, kind].median_ms / mine, 2),
        }
    result["failed_gets"] += tallies[OURS, "get"].achieved.count(0.0)
    result["recall20"] = min(result["recall20"], statistics.mean(tallies[OURS, "find"].achieved))
    result["rpcs_per_get"] = round(tallies[OURS, "get"].questions_each, 2)
    # A lookup is nothing but questions and answers; a read also verifies a signature, which is no RPC.
    result["cpu_us_per_rpc"] = round(tallies[OURS, "find"].cpu_per_question_us, 1)
    _compare_rivals([name for name in RIVALS if name in workers], tallies, nodes, keys, result)


def _built(nodes: int, keys: int, seed: int) -> dict[str, Worker]:
    """A process for each contender, with its network up; rivals that are not installed are told, and left out."""
    rivals = [name for name in RIVALS if _installed(name)]
    for name in sorted(set(RIVALS).difference(rivals)):
        print(f"  {name} is not installed (pip install 'xenonode[bench]' has it): null in the figures", flush=True)
    # libtorrent has a thread a node, so it is built small; what an RPC costs is compared among as many of ours.
    small = [SMALL] if "libtorrent" in rivals else []
    workers = {name: Worker() for name in (OURS, SHIPPED, PATCHED, *small, *rivals)}
    for name, worker in list(workers.items()):
        try:
            size = min(nodes, MOST_NODES) if name == SMALL else nodes
            built = worker.ask("build", name=OURS if name == SMALL else name, nodes=size, keys=keys, seed=seed)
        except ContenderError as error:
            if name not in rivals:
                raise
            # Another version of a library that is only here for comparison: told, and left out.
            print(f"  {name} is left out: {error}", flush=True)
            workers.pop(name).close()
            continue
        idle_ms = worker.ask("idle", seconds=1.0)["cpu_s"] * 1e3
        print(f"  built {name}: {built['cpu_s']:.1f} CPU s; idle: {idle_ms:.1f} CPU ms a second", flush=True)
    return workers


def _measured(workers: dict[str, Worker], rounds: int) -> dict[tuple[str, str], Tally]:
    """What each operation of each contender took; their batches take turns, so that all meet the same machine."""
    tallies = {(name, kind): Tally() for name in workers for kind in KINDS}
    for turn in range(rounds + 1):
        for kind in KINDS:
            for name, worker in workers.items():
                if (name in RIVALS and kind != "get") or (name == SMALL and kind != "find"):
                    continue
                count = 1 if name in RIVALS else BATCH
                answer = worker.ask("batch", kind=kind, count=count, seconds=BATCH_SECONDS)
                if turn:
                    # The first round only warms up.
                    tallies[name, kind].add(answer)
    for name in (SHIPPED, PATCHED):
        workers[name].ask("count")
        for kind in KINDS:
            counted = workers[name].ask("batch", kind=kind, count=BATCH, seconds=BATCH_SECONDS)
            tally = tallies[name, kind]
            tally.questions = counted["questions"] * len(tally.cpu_s) // len(counted["cpu_s"])
    return tallies


def _compare_rivals(
    rivals: list[str], tallies: dict[tuple[str, str], Tally], nodes: int, keys: int, result: dict[str, Any]
) -> None:
    result["cpu_per_rpc_vs_libtorrent"] = None
    result["get_vs"] = dict.fromkeys(RIVALS)
    for name in rivals:
        tally = tallies[name, "get"]
        gets, size = (1, PYTHONS_MOST) if name == "libp2p" else (min(keys, IN_FLIGHT), MOST_NODES)
        each_ms = tally.median_ms / gets
        found = statistics.mean(tally.achieved)
        print(f"{name:>16}{each_ms:9.3f}  (of {gets} gets in flight in {size} nodes; found {found:.2f})")
        result["get_vs"][name] = round(each_ms / tallies[OURS, "get"].median_ms, 2)
        if name == "libtorrent":
            mine_us, small_us = (tallies[one, "find"].cpu_per_question_us for one in (OURS, SMALL))
            theirs_us = tally.cpu_per_question_us
            print(f"    CPU us a question and its answer: libtorrent {theirs_us:.1f}, ours {small_us:.1f} "
                  f"({MOST_NODES} nodes each; ours with {nodes} nodes {mine_us:.1f})")  # fmt: skip
            result["cpu_per_rpc_vs_libtorrent"] = round(small_us / theirs_us, 2)


def dead_peers(nodes: int, seed: int, result: dict[str, Any]) -> None:
    """Latency of gets with a share of dead peers, in virtual time."""
    found = {name: latency.measure(name, nodes, seed) for name in (OURS, SHIPPED, PATCHED)}
    for per_cent in latency.DEAD_PER_CENT:
        print(f"{per_cent:>3} % dead  " + "   ".join(
            f"{name}: mean {each[per_cent].mean_ms:.0f} ms, p90 {each[per_cent].p90_ms:.0f} ms, failed "
            f"{each[per_cent].failed} of {each[per_cent].gets}"
            for name, each in found.items()
        ))  # fmt: skip
        mine, shipped = found[OURS][per_cent], found[SHIPPED][per_cent]
        result["failed_gets"] += mine.failed
        result[f"dead{per_cent}"] = {
            "mean_ratio": round(shipped.mean_ms / mine.mean_ms, 2),
            "p90_ratio": round(shipped.p90_ms / mine.p90_ms, 2),
        }


def scale(nodes: int, keys: int, seed: int, result: dict[str, Any]) -> None:
    """Idle traffic and reads in virtual time."""
    with OverlayWorld(seed, nodes, wide_area=True) as world:
        world.begin()
        run = world.simulation.run
        placed = run(place(world, keys, 3 * HOUR_MS))
        before_s, before = time.process_time(), world.questions()
        idle = run(idle_hour(world, placed))
        rate = (world.questions() - before) / (time.process_time() - before_s)
        due = f"{nodes} nodes, {idle.buckets} buckets due, {idle.republished} records stored again"
        word = "met" if idle.questions <= idle.bound else "MISSED"
        print(f"idle hour: {idle.questions:,} questions, bound {idle.bound:,}: {word} ({due})")
        print(f"  {rate:,.0f} RPC/s of CPU, with handshakes and upkeep")
        reading = run(read(world, placed, 200))
        print(f"reads: {reading.failed_gets} of {reading.gets} failed; recall@20 {reading.recall20:.4f}")
        print(f"trace of seed {seed}: {world.simulation.trace.hexdigest()}", flush=True)
    result["idle_rpcs"], result["idle_bound"] = idle.questions, idle.bound
    result["failed_gets"] += reading.failed_gets
    result["recall20"] = round(min(result["recall20"], reading.recall20), 4)


def churn_hour(nodes: int, keys: int, seed: int, result: dict[str, Any]) -> None:
    """Half of the nodes vanish and are replaced in a virtual hour, at the moments of a Poisson process."""
    began_s = time.process_time()
    with OverlayWorld(seed, nodes, wide_area=True) as world:
        world.begin()
        run = world.simulation.run
        placed = run(place(world, keys, 3 * HOUR_MS))
        before = world.questions()
        lost = run(churn(world, placed, share=CHURN_SHARE, hours=CHURN_HOURS))
        took_s = time.process_time() - began_s
        asked = world.questions() - before
        digest = world.simulation.trace.hexdigest()
    print(f"churn: {lost.replaced} of {nodes} nodes replaced in an hour; of {len(placed)} records acknowledged, "
          f"{lost.owed} unexpired with a living publisher, {lost.lost} lost")  # fmt: skip
    print(f"  {asked:,} questions, {took_s:.0f} CPU s; trace of seed {seed}: {digest}", flush=True)
    result["churn"] = {
        "nodes": nodes,
        "replaced": lost.replaced,
        "acknowledged": len(placed),
        "owed": lost.owed,
        "lost": lost.lost,
        "questions": asked,
        "cpu_s": round(took_s, 1),
    }


def simulator(nodes: int, seed: int, result: dict[str, Any]) -> None:
    """RPC a second of CPU with wire and trace: lookups among nodes that know one another."""
    with OverlayWorld(seed, nodes) as world:
        world.begin()

        async def lookups(count: int) -> None:
            for number in range(count):
                await world.nodes[number % 8].find("cores", world.random_key())

        world.simulation.run(lookups(200))
        best = 0.0
        for _ in range(5):
            before_s, before = time.process_time(), world.questions()
            world.simulation.run(lookups(200))
            best = max(best, (world.questions() - before) / (time.process_time() - before_s))
    print(f"simulator: {best:,.0f} RPC/s a core (the best of five, {nodes} nodes, wire and trace on)")
    result["simulator_rpc_per_s"] = round(best)


def memory(seed: int, result: dict[str, Any]) -> None:
    """Growth of a process by its nodes."""
    worker = Worker()
    answer = worker.ask("memory", nodes=MEMORY_NODES, overlays=MEMORY_OVERLAYS, seed=seed)
    worker.close()
    result["kib_per_overlay"] = round(answer["kib_per_overlay"], 1)
    print(f"memory: {answer['kib_per_overlay']:.1f} KiB a node and overlay ({MEMORY_NODES} nodes x {MEMORY_OVERLAYS} "
          f"overlays, {answer['sessions']:.0f} sessions a node, {answer['contacts']:.0f} contacts a table)")


def main() -> int:
    """Run everything; with `--json` the last line is one object."""
    parser = argparse.ArgumentParser(prog="bench_dht", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=500, help="nodes of each contender (default 500)")
    parser.add_argument("--keys", type=int, default=100, help="keys stored by each contender (default 100)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of turns (default 6)")
    parser.add_argument("--scale-nodes", type=int, default=1000, help="nodes in virtual time (default 1000)")
    parser.add_argument("--scale-keys", type=int, default=500, help="keys in virtual time (default 500)")
    parser.add_argument("--seed", type=int, default=1, help="of everything (default 1)")
    parser.add_argument("--churn", action="store_true", help="the hour of churn and nothing else")
    parser.add_argument("--part", action="append", choices=PARTS, help="this part and no other; may be repeated")
    parser.add_argument("--json", action="store_true", help="print all figures as one object in the last line")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    parts = ["churn"] if options.churn else options.part or PARTS
    result: dict[str, Any] = {"failed_gets": 0, "recall20": 1.0}
    print(f"Python {platform.python_version()}, {_processor()}, {os.cpu_count()} cores, seed {options.seed}")
    large = f"virtual time, {options.scale_nodes} nodes, {options.scale_keys} keys:"
    if "live" in parts:
        print(f"live, {options.nodes} nodes each, {options.keys} keys, {options.rounds} rounds of {BATCH}:", flush=True)
        live(options.nodes, options.keys, options.rounds, options.seed, result)
    if "memory" in parts:
        memory(options.seed, result)
    if "dead" in parts:
        print(f"virtual time, {options.nodes} nodes on a wide-area network:", flush=True)
        dead_peers(options.nodes, options.seed, result)
    if "simulator" in parts:
        simulator(200, options.seed, result)
    if "idle" in parts:
        print(large, flush=True)
        scale(options.scale_nodes, options.scale_keys, options.seed, result)
    if "churn" in parts:
        print(large, flush=True)
        churn_hour(options.scale_nodes, options.scale_keys, options.seed, result)
    if options.json:
        print(json.dumps(result))
    return 0


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
