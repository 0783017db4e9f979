"""A simulated network whose members an issuer certified, and a place to send any datagram from.

The endpoints are the real ones; only time, the wire and (unless asked for) the signatures are simulated, so that an
attack of thousands of datagrams takes seconds and is the same at each run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from dht.contact import Address
from dht.endpoint import Endpoint
from dht.envelope import open_envelope, seal
from dht.errors import RemoteError
from dht.handshake import Handshaker, Member
from dht.identity import X25519_EXCHANGE, KeyExchange, Scheme, Signer
from xenonode.simulation.network import Conditions
from xenonode.simulation.run import SimulatedNode, Simulation
from xenonode.simulation.scheme import SimulatedKeyExchange

NETWORK = b"a network under attack"
PORT = 4_000
HOUR_MS = 3_600_000
DIMENSION = "cores"


class World:
    """Use as a context manager; `run(coroutine)` in it."""

    def __init__(
        self, seed: int, *, scheme: Scheme | None = None, profile: str = "local", latency_us: int = 10_000
    ) -> None:
        self.simulation = Simulation(seed, conditions=Conditions(latency_us=latency_us), scheme=scheme)
        self.profile = profile
        self.rng = random.Random(seed)
        self.scheme = self.simulation.scheme
        self.exchange: KeyExchange = SimulatedKeyExchange() if scheme is None else X25519_EXCHANGE
        self.issuer = self.scheme.generate(self.rng.randbytes(32))
        self.nodes: dict[str, SimulatedNode] = {}
        self.overheard: Callable[[bytes, Address, Address], None] | None = None
        send = self.simulation.network.send_datagram

        def overhear(source: Any, source_port: int, data: bytes, to: Address, refused: Any) -> None:
            if self.overheard is not None:
                self.overheard(data, (source.address, source_port), to)
            send(source, source_port, data, to, refused)

        self.simulation.network.send_datagram = overhear  # type: ignore[method-assign]

    def __enter__(self) -> World:
        self.simulation.__enter__()
        return self

    def __exit__(self, *what: Any) -> None:
        self.simulation.__exit__(*what)

    def signer(self) -> Signer:
        """A new key."""
        return self.scheme.generate(self.rng.randbytes(32))

    def now_ms(self) -> int:
        """The time that every member's clock shows."""
        return next(iter(self.nodes.values())).env.now_ms() if self.nodes else 0

    def credential(
        self,
        signer: Signer,
        *,
        issuer: Signer | None = None,
        expires_ms: int | None = None,
        role: str = "server",
        entity: str | None = None,
    ) -> bytes:
        """A credential of this key, by our issuer or by another."""
        body = {
            "key": signer.public_key,
            "nonce": signer.public_key[:8],
            "entity": entity or signer.public_key.hex()[:8],
            "expires_ms": self.now_ms() + 200 * HOUR_MS if expires_ms is None else expires_ms,
        }
        body |= {} if role == "server" else {"role": role}
        return seal(issuer or self.issuer, "credential", body).raw

    def check(self, raw: bytes, now_ms: int) -> Member:
        """The member that a credential of our issuer names."""
        envelope = open_envelope(raw, self.scheme, "credential")
        if envelope.key != self.issuer.public_key:
            raise RemoteError("a credential of another issuer")
        body = envelope.body
        if body["expires_ms"] <= now_ms:
            raise RemoteError("an expired credential")
        return Member(body["key"], body["nonce"], body["entity"], body["expires_ms"], body.get("role") != "client")

    async def node(
        self,
        name: str,
        *,
        address: str | None = None,
        signer: Signer | None = None,
        entity: str | None = None,
        **options: Any,
    ) -> Endpoint:
        """An open endpoint on a host of its own."""
        place = self.nodes[name] = self.simulation.add_node(name, address=address)
        signer = signer or self.signer()
        endpoint = Endpoint(
            signer,
            self.credential(signer, entity=entity),
            self.check,
            self.scheme,
            network_id=NETWORK,
            now_ms=place.env.now_ms,
            rng=random.Random(self.rng.random()),
            exchange=self.exchange,
            profile=self.profile,
            **options,
        )
        await place.start(endpoint.open(place.host.address, PORT))
        return endpoint

    def shaker(self, signer: Signer, credential: bytes) -> Handshaker:
        """One side of handshakes, without a node."""
        return Handshaker(
            signer,
            credential,
            lambda raw, now_ms: Member(signer.public_key, signer.public_key[:8], "", 1 << 62, serves=True),
            self.scheme,
            self.exchange,
            network_id=NETWORK,
            rng=self.rng,
            client=False,
        )

    def deliver(self, endpoint: Endpoint, data: bytes, source: Address) -> None:
        """Hand a datagram over as if it had come from this address, which may be anybody's."""
        host, port = endpoint.address
        transport = self.simulation.network.resolve(host).datagram_ports[port]
        transport.context.copy().run(transport.get_protocol().datagram_received, data, source)

    def spoofed(self) -> Address:
        """Somebody's address."""
        rng = self.rng
        if self.profile == "public":
            return f"8.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}", rng.randrange(1, 65_536)
        return f"10.200.{rng.randrange(256)}.{rng.randrange(1, 255)}", rng.randrange(1, 65_536)

    def run(self, coroutine: Any) -> Any:
        """Run until the coroutine is done."""
        return self.simulation.run(coroutine)


def faults(*endpoints: Endpoint) -> int:
    """Handlers that failed: always a defect."""
    return sum(endpoint.counters["fault"] for endpoint in endpoints)
