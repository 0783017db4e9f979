"""One simulated node's `Env`: everything from (seed, node, purpose), wall time with this node's skew.

Decides: how streams and key seeds are derived. A key seed outlives a crash (the key file would too); a random stream
does not: each incarnation draws its own, else a restarted node would repeat its nonces.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from dht.identity import X25519_EXCHANGE, KeyExchange, Scheme
from xenonode.env import SEED_BYTES, Tasks
from xenonode.simulation.loop import VirtualLoop
from xenonode.simulation.scheme import SimulatedKeyExchange, SimulatedScheme

T = TypeVar("T")
_EXCHANGE = SimulatedKeyExchange()
EPOCH_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z: where every simulated wall clock starts


def derive(seed: int, *parts: str) -> bytes:
    """Return 32 bytes that depend on the seed and on each part (length-prefixed, so that parts cannot run together)."""
    digest = hashlib.blake2b(str(seed).encode(), digest_size=SEED_BYTES, person=b"xeno-sim-derive")
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return digest.digest()


class SimulatedEnv:
    """The world as a simulated node sees it. `skew_ms` may be changed during a run: a clock that jumps."""

    def __init__(
        self, seed: int, node: str, incarnation: int, loop: VirtualLoop, scheme: Scheme, skew_ms: int = 0
    ) -> None:
        self.scheme = scheme
        # Real keys are agreed on where real signatures are made: both are researchers' to choose, together.
        self.exchange: KeyExchange = _EXCHANGE if isinstance(scheme, SimulatedScheme) else X25519_EXCHANGE
        self.skew_ms = skew_ms
        self._seed, self._node, self._incarnation, self._loop = seed, node, incarnation, loop
        self._streams: dict[str, random.Random] = {}
        self._tasks = Tasks()

    def now_ms(self) -> int:
        """Return this node's wall time."""
        return EPOCH_MS + self._loop.now_ns // 1_000_000 + self.skew_ms

    def rng(self, purpose: str) -> random.Random:
        """Return the stream of `purpose` in this incarnation; asking again goes on where it was."""
        if purpose not in self._streams:
            material = derive(self._seed, "rng", self._node, str(self._incarnation), purpose)
            self._streams[purpose] = random.Random(int.from_bytes(material))
        return self._streams[purpose]

    def seed(self, purpose: str) -> bytes:
        """Return the node's key seed for `purpose`: the same in every incarnation."""
        return derive(self._seed, "key", self._node, purpose)

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a background task; its failure fails the run."""
        return self._tasks.spawn(coroutine, f"{self._node}:{name}")
