"""A small search network for tests: peers with real credentials, on loopback sockets or under virtual time alike."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from dht.identity import Scheme, Signer
from summaries.schema import Schema
from xenonode import catalogue
from xenonode.catalogue import ServerShape
from xenonode.env import Env
from xenonode.model.advert import Advert, Location, OfferedEnvironment
from xenonode.model.entity import Address, Credential, Issuer, Network, Trust
from xenonode.model.resources import Resources
from xenonode.model.schema import PublishedSchema, schema_hash
from xenonode.peer import Peer
from xenonode.search.kinds import ADVERT
from xenonode.search.publishing import Published, Publisher

ENVIRONMENTS = (("os", "linux", "6.1"), ("os", "debian", "12"))
DAY_MS = 86_400_000
LIFE_MS = 450_000  # longer than a live server's by default (180 s), since these are not renewed
LEAF_CAPACITY = 4
PUBLISHED_MOST = 5
"""A server whose advert is accepted but not durable yet (nobody knows all others yet) tries again, as live ones."""


def schema() -> Schema:
    """Breakpoints of a thousand real machines."""
    return Schema.from_sample(catalogue.schema_samples(Random(1), 1_000, ENVIRONMENTS))


@dataclass
class Issuing:
    """The keys and papers of one network."""

    scheme: Scheme
    now_ms: int
    seed: Address
    root: Signer = field(init=False)
    issuing: Signer = field(init=False)
    published: PublishedSchema = field(init=False)
    network: Network = field(init=False)

    def __post_init__(self) -> None:
        self.root, self.issuing = (self.scheme.generate(bytes([number]) * 32) for number in (1, 2))
        self.published = PublishedSchema.of(schema(), LEAF_CAPACITY, self.now_ms)
        raw = self.published.seal(self.issuing).raw
        issuer = Issuer(self.issuing.public_key, self.now_ms - DAY_MS, self.now_ms + DAY_MS).seal(self.root)
        self.network = Network(
            b"n" * 16,
            "local",
            self.root.public_key,
            self.root.public_key,
            self.seed,
            (self.seed,),
            (issuer.raw,),
            schema_hash(raw),
            self.now_ms,
        )

    def peer(self, env: Env, number: int, *, client: bool = False) -> tuple[Peer, Signer, bytes]:
        """A peer that is not started yet, its key, and its credential."""
        signer = self.scheme.generate(env.seed(f"peer-{number}"))
        credential = Credential(
            number + 1,
            f"member-{number}",
            signer.public_key,
            "client" if client else "server",
            bytes([number % 256]) * 16,
            self.now_ms - 1_000,
            self.now_ms + DAY_MS,
            0,
        ).seal(self.issuing)
        trust = Trust(self.network, self.scheme)
        return Peer(env, signer, credential.raw, trust, self.published, client=client), signer, credential.raw


@dataclass
class Advertised:
    """A server of the network: its peer, what it advertises, and how that was published."""

    peer: Peer
    signer: Signer
    credential: bytes
    advert: Advert
    publisher: Publisher
    outcome: Published | None = None

    def answer_probes(self) -> None:
        """Show the current advert to whoever asks."""
        self.peer.endpoint.handle(ADVERT, lambda peer, body, reply: reply(self.advert.seal(self.signer).raw))

    async def publish(self, advert: Advert) -> Published:
        """Put a newer advert in the place of the last one."""
        self.advert = advert
        self.outcome = await self.publisher.publish(advert.seal(self.signer).raw)
        return self.outcome


def advert_of(shape: ServerShape, credential: bytes, peer: Peer, rng: Random, now_ms: int) -> Advert:
    """What a server of this shape would say, partly leased."""
    sampled = catalogue.sample_attributes(rng, shape, "owner", ENVIRONMENTS)
    free = Resources(*(int(sampled[f"{name}.available"]) for name in ("cpu", "memory", "disk", "net")))  # type: ignore[arg-type]
    host, port = peer.endpoint.address
    return Advert(
        seq=now_ms,
        issued_ms=now_ms,
        expires_ms=now_ms + LIFE_MS,
        gone=False,
        credential=credential,
        country=shape.country,
        region=shape.region[:24],
        location=Location(*sampled["location"]),  # type: ignore[misc]
        udp=Address(host, port),
        control=Address(host, port + 1),
        cores=min(shape.cores, 4096),
        total=shape.share,
        available=free,
        prices=shape.prices,
        environments=tuple(OfferedEnvironment(*each) for each in ENVIRONMENTS),
        features=shape.features,
        started_ms=now_ms - DAY_MS,
        schema_epoch=1,
    )


async def acquainted(peers: Sequence[Peer], within_s: float = 5.0) -> None:
    """Wait until all know one another everywhere: what is published before may go to others than its holders."""
    until_s = asyncio.get_running_loop().time() + within_s
    while any(len(overlay.table) < len(peers) - 1 for peer in peers for overlay in peer.overlays()):
        if asyncio.get_running_loop().time() > until_s:
            break
        await asyncio.sleep(0.1)


async def advertise(peers: Sequence[tuple[Peer, Signer, bytes]], rng: Random) -> list[Advertised]:
    """Publish one advert for each peer, all at once."""
    servers = []
    for (peer, signer, credential), shape in zip(peers, catalogue.adverts(rng, len(peers))):
        advert = advert_of(shape, credential, peer, rng, peer.env.now_ms())
        publisher = Publisher(peer.schema, peer.adverts, peer.asker, peer.env, peer.tries)
        server = Advertised(peer, signer, credential, advert, publisher)
        server.answer_probes()
        servers.append(server)
    for _ in range(PUBLISHED_MOST):
        pending = [each for each in servers if each.outcome is None or each.outcome.pending]
        await asyncio.gather(*(each.publish(each.advert) for each in pending))
    return servers
