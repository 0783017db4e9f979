"""A process with one contender: reads commands, one JSON object a line, and answers each with one.

Its loop stands still between commands, so an idle contender takes no CPU from the one whose turn it is.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from scripts.dht_benchmark import baseline, pylibp2p, rivals
from scripts.dht_benchmark.contender import Contender
from scripts.dht_benchmark.ours import DIMENSION, Ours

# What a node of the memory figure has asked, in each overlay.
FINDS_FOR_MEMORY = 2


def make(name: str) -> Contender:
    """The contender of this name."""
    if name == "ours":
        return Ours()
    if name in ("shipped", "patched"):
        return baseline.Kademlia(mended=name == "patched")
    if name == "libtorrent":
        return rivals.Libtorrent()
    return pylibp2p.PyLibp2p() if name == "libp2p" else rivals.OpenDht()


def resident_bytes() -> int:
    """What this process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


async def batch(contender: Contender, kind: str, count: int, seconds: float) -> dict[str, Any]:
    """So many operations one after the other, or as many as the time allows; CPU seconds of each."""
    cpu_s, achieved, began, asked = [], [], time.monotonic(), contender.questions()
    for _ in range(count):
        before = time.process_time()
        check = await contender.turn(kind)
        cpu_s.append(time.process_time() - before)
        achieved.append(check())
        if time.monotonic() - began > seconds:
            break
    return {"cpu_s": cpu_s, "achieved": achieved, "questions": contender.questions() - asked}


async def idle(contender: Contender, seconds: float) -> dict[str, Any]:
    """CPU of a network that nobody uses."""
    before = time.process_time()
    await asyncio.sleep(seconds)
    return {"cpu_s": time.process_time() - before, "seconds": seconds}


async def memory(nodes: int, overlays: int, seed: int) -> dict[str, Any]:
    """Growth of this process by so many nodes with so many overlays, each of which has asked and was asked."""
    gc.collect()
    before = resident_bytes()
    ours = Ours(overlays)
    await ours.open(nodes, seed)
    for node in ours.nodes:
        for dimension in ours.dimensions:
            for _ in range(FINDS_FOR_MEMORY):
                await node.overlay(dimension).find(ours.rng.randbytes(20))
    gc.collect()
    grown = resident_bytes() - before
    sessions = sum(node.session_count() for node in ours.nodes) / nodes
    contacts = sum(len(node.overlay(DIMENSION).table) for node in ours.nodes) / nodes
    await ours.close()
    return {"kib_per_overlay": grown / 1_024 / nodes / overlays, "sessions": sessions, "contacts": contacts}


def main() -> None:
    """Serve commands until the input ends."""
    logging.disable(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    contender: Contender | None = None
    for line in sys.stdin:
        command = json.loads(line)
        what = command.pop("do")
        answer: dict[str, Any] = {}
        if what == "build":
            contender = make(command.pop("name"))
            before = time.process_time()
            loop.run_until_complete(contender.build(**command))
            answer = {"cpu_s": time.process_time() - before}
            # What is built stays: else the collector walks all nodes of this process in the middle of an operation.
            gc.collect()
            gc.freeze()
        elif what == "memory":
            answer = loop.run_until_complete(memory(**command))
        elif what == "count":
            baseline.count_questions()
        elif contender is None:
            raise SystemExit("build first")
        elif what == "batch":
            answer = loop.run_until_complete(batch(contender, **command))
        elif what == "idle":
            answer = loop.run_until_complete(idle(contender, **command))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
