"""Who is in a crowd: one host a member, with the real peer; a server also with its machine and the machine's advert.

Decides a member's lives: how it opens, joins, advertises, leaves, crashes and comes back. Leaves who there is, and what
all know of one another at the begin, to `crowd`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from dht.errors import RemoteError
from dht.identity import Signer
from summaries.errors import SummariesError
from summaries.parse import parse
from summaries.publish import Posting
from xenonode.catalogue import REGIONS, ServerShape
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.model.advert import Location
from xenonode.model.entity import Address
from xenonode.peer import SEEDS_MAX, Peer
from xenonode.search.kinds import ADVERT
from xenonode.search.publishing import Published, Publisher
from xenonode.search.searching import SearchAnswer
from xenonode.server.advertising import RETRY_MS
from xenonode.server_node import FAREWELL_S
from xenonode.simulation.disk import SimulatedDisk
from xenonode.simulation.env import derive
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.home import SimulatedHome
from xenonode.simulation.machines import Machine
from xenonode.simulation.node_host import CONTROL_PORT, UDP_PORT, NodeHost
from xenonode.simulation.stage import NOT_BEGUN

if TYPE_CHECKING:
    from xenonode.simulation.crowd import Crowd

T = TypeVar("T")
UNPUBLISHED = (RemoteError, XenoError, OSError)
"""What a publication may end with that the next one may not."""


class CrowdNode:
    """One life of a member: what runs of it, under the names that a server's node has them."""

    __slots__ = ("_machine", "advertiser", "env", "home", "peer", "publisher")

    def __init__(self, env: Env, home: SimulatedHome, peer: Peer, machine: Machine | None = None) -> None:
        self.env, self.home, self.peer, self._machine = env, home, peer, machine
        if machine is not None:
            self.advertiser = machine.advertiser
            self.publisher = Publisher(peer.schema, peer.adverts, peer.asker, env, peer.tries)
            peer.endpoint.handle(ADVERT, self.show_advert)

    def location(self) -> Location:
        """Where its machine stands."""
        assert self._machine is not None
        return self._machine.location

    def show_advert(self, peer: object, body: bytes, reply: Any) -> None:
        """Answer a search that probes it."""
        advert = self.advertiser.current
        if advert is None:
            reply.busy(1_000)
        else:
            reply(advert.raw)


class CrowdHost(NodeHost):
    """One member on a host of its own; server or light client."""

    running: CrowdNode | None

    def __init__(
        self, crowd: Crowd, name: str, role: str, signer: Signer | None = None, disk: SimulatedDisk | None = None
    ) -> None:
        super().__init__(crowd.simulation.nodes[name], disk)
        self.crowd, self.role = crowd, role
        env = self.node.env
        self.signer = signer or env.scheme.generate(env.seed("node key"))
        self.nonce = env.seed("nonce")[:16]
        self.credential = crowd.admit(name, role, self.signer.public_key, self.nonce)
        crowd._hosts[name] = self
        self.life: CrowdNode | None = None  # from its socket's opening; `running` once it has also joined
        self._known: list[tuple[str, int]] = []

    @property
    def peer(self) -> Peer | None:
        """The member's peer, from its socket's opening to its end."""
        return None if self.life is None else self.life.peer

    @property
    def udp(self) -> Address:
        """Where others reach it."""
        return Address(self.node.host.address, UDP_PORT)

    async def open(self) -> CrowdNode:
        """Open its socket, with empty tables. To be run on its own host. Raises XenoError: its clock may be wrong."""
        crowd, env = self.crowd, self.node.env
        home = SimulatedHome(env, self.disk, self.signer)
        try:
            peer = Peer(env, self.signer, self.credential, crowd.trust, crowd.published, client=self.role == "client")
        except RemoteError as error:
            raise XenoError(f"the papers do not hold: {error}", "start it again once its clock is right") from error
        await peer.open(self.udp.pair, self._known)
        self.life = self._furnish(env, home, peer)
        return self.life

    def _furnish(self, env: Env, home: SimulatedHome, peer: Peer) -> CrowdNode:
        return CrowdNode(env, home, peer)

    def crash(self) -> None:
        """Stop where it stands; addresses of others are what is remembered."""
        if self.life is not None:
            self._known = self.life.peer.endpoint.known_addresses(SEEDS_MAX)
        self.life = None
        super().crash()

    async def restart(self) -> None:
        """Come back, and join as a live node does. Raises XenoError."""
        self.node.restart()
        await self.start()

    async def start(self) -> None:
        """Open; a client joins an overlay when a search needs it."""
        self.running = await self.node.start(self.open(), "open")

    async def search(self, text: str, *, strict: bool = True, explain: bool = False) -> SearchAnswer:
        """Search from here. To be run on its own host: see `call`. Raises XenoError."""
        if self.peer is None:
            raise SimulationError(f"{self.node.host.name} is down" if self.crowd.begun else NOT_BEGUN)
        try:
            query = parse(text, currency="USD")
        except SummariesError as error:
            raise XenoError(str(error), "see 'xenonode search --help' for examples", "query") from error
        return await self.peer.searcher.search(query, strict=strict, explain=explain)

    async def call(self, work: Callable[[CrowdHost], Coroutine[Any, Any, T]]) -> T:
        """Do something as this member, on its own host."""
        return await self.node.start(work(self), "call")


class CrowdPeer(CrowdHost):
    """One server of the overlays with one machine, which it advertises."""

    def __init__(self, crowd: Crowd, name: str, shape: ServerShape, rng: Random) -> None:
        self.machine = Machine(crowd.simulation.nodes[name].env, "node key", shape, rng)
        super().__init__(crowd, name, "server", self.machine.signer, self.machine.disk)
        self._again: asyncio.TimerHandle | None = None
        crowd.geography.places[name] = REGIONS[shape.region].location

    def _furnish(self, env: Env, home: SimulatedHome, peer: Peer) -> CrowdNode:
        """Show its machine's advert to whoever asks."""
        self.machine.appear(self.udp, Address(self.udp.host, CONTROL_PORT), peer.schema.epoch, self.crowd.period_ms)
        return CrowdNode(env, home, peer, self.machine)

    async def start(self) -> None:
        """Open, join every overlay, advertise and keep advertised. Raises XenoError."""
        life = await self.node.start(self.open(), "open")
        await self.node.start(life.peer.join(), "join")
        if self.crowd.advertising:
            await self.node.start(self.publish(), "publish")
        self.running = life

    async def stop(self) -> None:
        """Stop in order: withdraw the advert, say goodbye."""
        life, self.running = self.running, None
        if life is not None:
            await self.node.start(self._leave(life), "stop")
        self.crash()

    async def _leave(self, life: CrowdNode) -> None:
        env = self.node.env
        if self._again is not None:
            self._again.cancel()  # or it would advertise once more while it says goodbye
        if life.advertiser.current is not None:
            with contextlib.suppress(*UNPUBLISHED, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    gone = life.advertiser.issue(env.now_ms(), life.location(), self.credential, gone=True)
                    await life.publisher.publish(gone.raw)
        await life.peer.close()

    def move(self) -> None:
        """Take another address, while it is down."""
        self.crowd.simulation.network.move(self.node.host)

    def stand(self, raw: bytes, postings: Mapping[str, tuple[tuple[Posting, ...], ...]]) -> None:
        """Its first advert stands where `postings` say; it is renewed at a moment of chance within a period.

        To be called on its own host.
        """
        assert self.life is not None
        env, name = self.node.env, self.node.host.name
        drawn = int.from_bytes(derive(self.crowd.simulation.seed, "first renewal", name)[:4])
        self.crowd.durable[name] = self.life.publisher.go_on_from(raw, postings)
        self._again = asyncio.get_running_loop().call_later(
            self.crowd.period_ms / 1_000 * drawn / (1 << 32), lambda: env.spawn(self.publish(), "publish")
        )

    async def publish(self) -> Published | None:
        """Advertise as it is now, and again when a period has passed; None where it has to be tried again before.

        To be run on its own host.
        """
        assert self.life is not None
        loop, env = asyncio.get_running_loop(), self.node.env

        def again() -> None:
            env.spawn(self.publish(), "publish")

        if self._again is not None:
            self._again.cancel()
        self._again = loop.call_later(self.crowd.period_ms / 1_000, again)
        try:
            published = await self.life.publisher.publish(self.machine.advert(env.now_ms(), self.credential).raw)
        except UNPUBLISHED:  # a clock that is wrong for a while, a disk that is full
            self._again.cancel()
            self._again = loop.call_later(RETRY_MS / 1_000, again)
            return None
        self.crowd.durable[self.node.host.name] = published
        return published
