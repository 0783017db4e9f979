"""What XenoCorp and XenoServers share: a peer of every dimension's overlay, a control server, and an orderly end.

corp_node.py and server_node.py make the two roles of it; these three are where the parts are joined, from a
configuration to a running node, and they leave every decision to the parts. A start that fails half-way undoes what it
began, and so does `close`; guests live on.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Any

from dht.contact import address_text
from dht.contradictions import Contradiction
from dht.metrics import republish_alarm
from xenonode.control.errors import ControlError
from xenonode.control.server import Caller, Server, serve
from xenonode.control.stream import Transport
from xenonode.corp.errors import RefusedError
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.home import Home
from xenonode.known_peers import known_peers, remember_peers
from xenonode.membership import Membership
from xenonode.model.entity import Address
from xenonode.peer import EXTENSIONS_FILE, Peer
from xenonode.roaming import LOGGER as ADDRESS_LOGGER
from xenonode.roaming import Mobile, Roaming

LOGGER = logging.getLogger("xenonode.node")
REPORTS_MAX = 256
"""Contradictions that one node brings to XenoCorp while it runs: XenoCorp keeps 16 of each liar's."""
REMEMBER_PEERS_S = 30.0


class Node:
    """What XenoCorp and XenoServers share: a peer, a control server, and an orderly end."""

    role: str

    def __init__(self, env: Env, home: Home) -> None:
        self.env, self.home = env, home
        self.peer: Peer
        self.control: Server
        self._ending = AsyncExitStack()
        self._reports = 0

    async def close(self) -> None:
        """Stop in order. Guests go on running."""
        await self._ending.aclose()

    async def _open(
        self, held: Membership, udp: Address, advertise: str = "", mobile: Mobile | None = None
    ) -> None:
        peer = self.peer = Peer(
            self.env, self.home.signer, held.papers.credential, held.trust, held.published, client=False
        )
        self.roaming = Roaming(peer, mobile)
        self._ending.push_async_callback(peer.close)
        peer.growth.restore(self.home.disk.read(EXTENSIONS_FILE), self.env.now_ms())
        peer.on_growth = self._grown
        peer.endpoint.contradictions.listen(self._contradicted)
        await peer.open(udp.pair, known_peers(self.home), advertise)

    def _grown(self) -> None:
        """The schema has a new dimension: remember it for the next start."""
        self.home.disk.replace(EXTENSIONS_FILE, self.peer.growth.stored())

    def _contradicted(self, proof: Contradiction) -> None:
        """Somebody signed two records with one sequence number: XenoCorp keeps the proof."""
        if self._reports < REPORTS_MAX:
            self._reports += 1
            LOGGER.warning("key %s contradicts itself in record %d", proof.owner.hex(), proof.seq)
            self.env.spawn(self._report(proof), "report a contradiction")

    async def _report(self, proof: Contradiction) -> None:
        """Bring a proof to XenoCorp; one that it does not want is dropped."""
        try:
            await self._bring(proof)
        except (ControlError, RefusedError) as error:
            LOGGER.warning("the proof against %s was not taken: %s", proof.owner.hex(), error)

    async def _bring(self, proof: Contradiction) -> None:
        """Hand a proof to XenoCorp, as each role can."""

    async def _join(self) -> None:
        await self._check_reachable()
        await self.peer.join()
        self._ending.callback(remember_peers, self.home, self.peer)
        self._ending.callback(self.env.spawn(self._stay_in_touch(), "remember peers").cancel)
        self._ending.callback(self.env.spawn(self.roaming.watch(), "look whether others reach us").cancel)

    async def _check_reachable(self) -> None:
        """Raise XenoError where others cannot reach this node, as far as a role may not be so.

        Before it joins: in a small network there are no strangers left afterwards.
        """
        await self.roaming.look(ADDRESS_LOGGER)

    async def _stay_in_touch(self) -> None:
        """A seed that came back from a crash without these addresses would begin a network of its own."""
        while True:
            await asyncio.sleep(REMEMBER_PEERS_S)
            remember_peers(self.home, self.peer)

    async def _serve(self, address: Address, transport: Transport, handlers: Any, anonymous: tuple[str, ...]) -> None:
        methods = {**handlers, "metrics": self._metrics}
        try:
            self.control = await serve(*address.pair, methods, transport=transport, anonymous=anonymous)
        except OSError as error:
            raise XenoError(
                f"control port {address} cannot be opened: {error.strerror}",
                "another program may use it: stop it, or set another control = \"...\" in the configuration",
                "port_in_use",
            ) from error
        self._ending.push_async_callback(self.control.close)

    async def _metrics(self, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        """For any member: counts and times of this node's network, which name nobody."""
        endpoint = self.peer.endpoint
        return {"text": endpoint.metrics(), "alarm": republish_alarm(endpoint)}

    def _status(self) -> dict[str, object]:
        return {
            "republish_alarm": republish_alarm(self.peer.endpoint),
            "role": self.role,
            "udp": address_text(self.peer.endpoint.address),
            "reachability": self.roaming.reachability,
            "control": address_text(self.control.address),
            "dimensions": len(self.peer.holdings),
        }
