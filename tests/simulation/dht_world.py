"""Real `dht` endpoints and overlays on the virtual loop; prints the trace hash. Run as a program by the tests."""

from __future__ import annotations

import hashlib
import sys

from dht.endpoint import Endpoint, Member
from dht.record import seal_record
from dht.wire import decode, encode
from xenonode.simulation.network import Conditions
from xenonode.simulation.run import SimulatedNode, Simulation
from xenonode.simulation.scheme import SimulatedKeyExchange

NODES = 12
HOUR_MS = 3_600_000
PORT = 4_000


def check(credential: bytes, now_ms: int) -> Member:
    key, nonce, entity, expires_ms = decode(credential)  # type: ignore[misc]
    return Member(key, nonce, entity, expires_ms, True)  # type: ignore[arg-type]


def run(seed: int, loss_ppm: int = 10_000) -> tuple[str, int]:
    """Join, put on each node, crash one, get everything from another; return the trace hash and how many were found."""
    conditions = Conditions(latency_us=10_000, jitter_us=5_000, loss_ppm=loss_ppm)
    with Simulation(seed, conditions=conditions) as simulation:
        nodes = [simulation.add_node(f"node-{number}") for number in range(NODES)]
        endpoints: dict[str, Endpoint] = {}

        async def live(node: SimulatedNode) -> None:
            env = node.env
            signer = env.scheme.generate(env.seed("key"))
            expires_ms = env.now_ms() + 24 * HOUR_MS
            credential = encode([signer.public_key, env.seed("nonce")[:16], node.host.name, expires_ms])
            endpoint = endpoints[node.host.name] = Endpoint(
                signer,
                credential,
                check,
                env.scheme,
                network_id=bytes(16),
                now_ms=env.now_ms,
                rng=env.rng("dht"),
                exchange=SimulatedKeyExchange(),
            )
            await endpoint.open(node.host.address, PORT)
            seeds = [] if node is nodes[0] else [(nodes[0].host.address, PORT)]
            await endpoint.overlay("cores").join(seeds)

        async def put(node: SimulatedNode) -> int:
            endpoint, expires_ms = endpoints[node.host.name], node.env.now_ms() + HOUR_MS
            key = hashlib.sha256(node.host.name.encode()).digest()[:20]
            raw = seal_record(endpoint.signer, "cores", key, 1, expires_ms, node.host.name.encode())
            return await endpoint.overlay("cores").records.put(key, raw, expires_ms)

        async def get(node: SimulatedNode) -> int:
            keys = [hashlib.sha256(other.host.name.encode()).digest()[:20] for other in nodes]
            found = [await endpoints[node.host.name].overlay("cores").records.get(key) for key in keys]
            return sum(1 for records in found if records)

        async def main() -> int:
            for node in nodes:
                await node.start(live(node))
            for node in nodes:
                assert await node.start(put(node)) > 1
            nodes[1].crash()
            return await nodes[5].start(get(nodes[5]))

        found = simulation.run(main())
        return simulation.trace.hexdigest(), found


if __name__ == "__main__":
    print(*run(int(sys.argv[1])))
