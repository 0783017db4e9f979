"""The client in the overlays: a light query peer, which joins when a question first needs it.

Decides what such a peer remembers from one run to the next, whom it shuns by XenoCorp's word, and which contradictions
it brings there. It keeps no listening state and serves nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from dht import wire
from dht.contact import Contact, address_text
from dht.contradictions import Contradiction
from dht.errors import RemoteError
from dht.routing import K
from dht.tracing import Hop, trace
from dht.udp import any_host
from xenonode.client.member import Member
from xenonode.config import ClientConfig
from xenonode.control.errors import ControlError
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.home import Home
from xenonode.known_peers import known_peers, remember_peers, remember_silent, silent_peers
from xenonode.peer import EXTENSIONS_FILE, Peer
from xenonode.search.looking import members_of

LOGGER = logging.getLogger("xenonode.client")
REPORTS_MAX = 16
"""Proofs of contradictions that one client brings to XenoCorp: servers, who meet all adverts, bring more."""
PLACES_FILE = "places"
"""In the client's state: where hosts that are no members are, as servers measured it within the last hour."""
SHUNNED_FILE = "shunned"
"""In the client's state: whom XenoCorp had all members shun, when it was last asked."""


class Presence:
    """See the module."""

    def __init__(self, config: ClientConfig, env: Env, home: Home, member: Member) -> None:
        self._config, self._env, self._home, self._member = config, env, home, member
        self._peer: Peer | None = None
        self._reports = 0
        self._silent: dict[tuple[str, int], int] = {}
        member.on_renewal = self._renewed

    async def joined(self) -> Peer:
        """Our peer on the network. Raises XenoError where no seed answers."""
        if self._peer is None:
            held = self._member.held
            peer = Peer(self._env, self._home.signer, held.papers.credential, held.trust, held.published, client=True)
            peer.endpoint.contradictions.listen(self._contradicted)
            known = known_peers(self._home)
            self._silent = silent_peers(self._home, self._env.now_ms())
            peer.endpoint.sessions.suspects = self._silent
            udp = self._config.udp
            seeds = [seed.pair for seed in held.network.seeds]
            await peer.start((any_host([*seeds, *known]), 0) if udp is None else udp.pair, known)
            now_ms = self._env.now_ms()
            peer.growth.restore(self._home.disk.read(EXTENSIONS_FILE), now_ms)
            peer.on_growth = lambda: self._home.disk.replace(EXTENSIONS_FILE, peer.growth.stored())
            landmarks = peer.searcher.landmarks
            landmarks.restore(self._home.disk.read(PLACES_FILE))
            landmarks.on_change = lambda: self._home.disk.replace(PLACES_FILE, landmarks.stored())
            await peer.ask_for_news()
            self._peer = peer
            self._env.spawn(self._learn_whom_to_shun(peer), "whom to shun")
        return self._peer

    async def close(self) -> None:
        """Leave, and remember whom we met."""
        if self._peer is not None:
            remember_peers(self._home, self._peer)
            remember_silent(self._home, self._peer, self._silent, self._env.now_ms())
            await self._peer.close()

    async def peers(self) -> list[dict[str, object]]:
        """Join the overlays of all dimensions, and list whom that meets."""
        peer = await self.joined()
        await asyncio.gather(*(peer.placement(dimension.name) for dimension in peer.schema.dimensions))
        rows: list[dict[str, object]] = []
        for overlay in peer.overlays():
            for info in overlay.peers():
                rtt = None if info.rtt_ms is None else round(info.rtt_ms, 2)
                rows.append(
                    {
                        "dimension": overlay.dimension,
                        "address": address_text(info.contact.address),
                        "entity": info.entity,
                        "rtt_ms": rtt,
                        "node_id": info.contact.node_id.hex(),
                    }
                )
        return rows

    async def lookup(self, key: bytes, dimension: str = "") -> tuple[list[Hop], list[Contact]]:
        """Look up who is nearest to a key in one dimension's overlay: every question on the way, and what was found."""
        peer = await self.joined()
        names = [each.name for each in peer.schema.dimensions]
        if (dimension or names[0]) not in names:
            raise XenoError(f"there is no dimension {dimension!r}", f"take one of {', '.join(names)}", "bad_request")
        placement = await peer.placement(dimension or names[0])
        return await trace(placement.overlay, key, K)

    def _renewed(self, credential: bytes) -> None:
        if self._peer is not None:
            self._peer.endpoint.renew(credential)

    def _contradicted(self, proof: Contradiction) -> None:
        """A server signed two adverts with one number: XenoCorp keeps the proof, if it can be reached."""
        if self._reports < REPORTS_MAX:
            self._reports += 1
            LOGGER.warning("server %s contradicts itself in advert %d", proof.owner.hex(), proof.seq)
            self._env.spawn(self._report(proof), "report a contradiction")

    async def _report(self, proof: Contradiction) -> None:
        try:
            await self._member.call_corp("fraud.report", {"first": proof.first, "second": proof.second})
        except (XenoError, ControlError) as error:
            LOGGER.warning("the proof against %s was not taken: %s", proof.owner.hex(), error)

    async def _learn_whom_to_shun(self, peer: Peer) -> None:
        """Take over whom XenoCorp found to hide adverts; until it is reached, what it said when it last was."""
        raw = self._home.disk.read(SHUNNED_FILE)
        with contextlib.suppress(RemoteError):  # what is damaged is learnt anew
            peer.endpoint.shun(members_of({"shunned": wire.unpack(raw or b"\x90")}))
        try:
            members = members_of(await self._member.call_corp("holders.shunned", {}))
            peer.endpoint.shun(members)
            packed = wire.pack([list(one) for one in members])
            if packed != raw:
                self._home.disk.replace(SHUNNED_FILE, packed)
        except (XenoError, ControlError, OSError) as error:
            LOGGER.info("XenoCorp did not tell whom to shun, or it cannot be kept: %s", error)
