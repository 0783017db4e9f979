"""Where others find a running node: whether they reach it, what its operator is told, and how it follows its address.

Decides when to look, and what a lost or a changed address means: who follows goes on at the address that this machine
has now, who does not says what to do. Leaves to `dht.reaching` what others see, to the endpoint and to each role how
they go on elsewhere (`Mobile`).
"""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_address
from typing import Protocol

from dht.contact import Address, address_text, admits, may_be_translated
from dht.errors import LocalError
from dht.reachability import UNREACHABLE
from dht.udp import host_towards
from hypervisor.errors import HypervisorError
from xenonode.errors import XenoError
from xenonode.peer import Peer

LOGGER = logging.getLogger("xenonode.address")
"""What an operator has to do something about: shown at the terminal, too."""
LOOK_S = 30.0
FOLLOW_LOOK_S = 2.0
"""One socket is bound and closed each time: some 20 us."""
TRANSLATOR_LOOK_S = 6.0
"""Three small datagrams, where the server is behind a translator: an address that nobody answers at loses searches."""
UNREACHABLE_LOOK_S = 120.0
REACHABLE_LOOK_S = 1_800.0
"""How often strangers are asked to call again while nothing seems to have changed: some twenty datagrams."""
WAYS_TRIED = 8


class Mobile(Protocol):
    """A role that goes on elsewhere."""

    async def move(self, host: str) -> None:
        """Do at this host what was done at the former one, which is gone. Raises OSError, XenoError, LocalError."""

    def seen(self, host: str) -> None:
        """Tell others this host from now on."""


class Roaming:
    """One node's address: `look` once, or `watch` for ever. Without a `mobile` it stays where it is."""

    def __init__(self, peer: Peer, mobile: Mobile | None = None) -> None:
        self._peer, self._mobile = peer, mobile
        self._endpoint = peer.endpoint
        self._endpoint.reach.follows = mobile is not None
        self._has_address = True
        self._warned = ""

    async def look(self, logger: logging.Logger) -> str:
        """Whether others reach this node, told where they do not; on loopback nobody is asked."""
        endpoint = self._endpoint
        if ip_address(endpoint.address[0]).is_loopback:
            return endpoint.reachability
        if not self._peer.overlays():
            await self._peer.meet_seeds()
        verdict = await endpoint.examine_reachability()
        self._show()
        if verdict == UNREACHABLE:
            logger.warning("%s", endpoint.reachability_advice)
        return verdict

    @property
    def reachability(self) -> str:
        """In a word or two, for `status`."""
        endpoint = self._endpoint
        if not endpoint.has_address:
            return "no longer an address of this machine"
        return "this machine only" if ip_address(endpoint.address[0]).is_loopback else endpoint.reachability

    async def watch(self) -> None:
        """Look again now and then, and soon after this machine, or a translator, has another address than before."""
        endpoint, loop = self._endpoint, asyncio.get_running_loop()
        if self._mobile is not None:
            await endpoint.reach.learn()  # before the start there was hardly anybody to ask
            self._show()
        seen, looked_s, asked_s = endpoint.observed_address, loop.time(), loop.time()
        while True:
            await asyncio.sleep(LOOK_S if self._mobile is None else FOLLOW_LOOK_S)
            has_address = endpoint.has_address
            if not has_address and await self._follow():
                has_address, seen = True, None  # whatever others see now is news
            if self._has_address != has_address:
                self._has_address = has_address
                self._tell(has_address)
            now_s = loop.time()
            if self._mobile is not None and now_s >= asked_s + TRANSLATOR_LOOK_S:
                asked_s = now_s
                endpoint.reach.look_out()
            self._show()
            now = endpoint.observed_address
            moved = now is not None and now != seen
            again_s = UNREACHABLE_LOOK_S if endpoint.reachability == UNREACHABLE else REACHABLE_LOOK_S
            if moved or now_s >= looked_s + again_s:
                if now is not None and seen is not None and moved:
                    LOGGER.warning(
                        "others see this node at %s now, and no longer at %s", address_text(now), address_text(seen)
                    )
                seen, looked_s = now or seen, now_s
                await self.look(LOGGER)

    async def _follow(self) -> bool:
        """Go on at the address that this machine has now. Whether there is one, and everything runs there."""
        if self._mobile is None:
            return False
        endpoint = self._endpoint
        former = endpoint.own_address
        host = await own_host([*self._peer.seeds, *endpoint.known_addresses(WAYS_TRIED)], self._peer.profile)
        if host is None:
            return False
        try:
            await self._mobile.move(host)
        except (OSError, XenoError, LocalError, HypervisorError) as error:
            if str(error) != self._warned:  # it is tried again at the next look
                self._warned = str(error)
                LOGGER.warning("this machine's address is %s now, and cannot be used yet: %s", host, error)
            return False
        self._warned, self._has_address = "", True
        LOGGER.warning(
            "this machine has the address %s now, and no longer %s: this node goes on there, and says so to others",
            host,
            former[0],
        )
        return True

    def _show(self) -> None:
        """Where a translator's outer address is what others see, that is what they are told."""
        endpoint = self._endpoint
        seen = endpoint.observed_address
        if seen is None and not admits(endpoint.address[0], self._peer.profile):
            seen = endpoint.reach.state.likely  # a private address in a public network: what few say must do
        if self._mobile is None or seen is None or not admits(seen[0], self._peer.profile):
            return
        if seen[0] != endpoint.address[0]:
            endpoint.seen_at(seen[0])
            endpoint.announce()
            self._mobile.seen(seen[0])

    def _tell(self, has_address: bool) -> None:
        address = address_text(self._endpoint.own_address)
        if has_address:
            LOGGER.warning("this machine has the address of %s again", address)
        elif self._mobile is not None:
            LOGGER.warning(
                "this machine no longer has the address of %s, nor another from which the network can be reached; this "
                "node goes on as soon as there is one",
                address,
            )
        else:
            LOGGER.warning(
                "this machine no longer has the address of %s, so nobody is reached from it: give the address back, or "
                "set udp and control to the new one and start again (a server with advertise = auto goes on at a "
                "new address by itself); guests run on, and clients find them by a search",
                address,
            )


async def own_host(towards: list[Address], profile: str) -> str | None:
    """The address from which this machine reaches any of these; None where there is none that the network admits.

    A private one may be behind a translator whose address it does admit.
    """
    for address in dict.fromkeys(towards):
        host = await host_towards(address)
        if host is None or ip_address(host).is_loopback or host == address[0]:
            continue
        if admits(host, profile) or may_be_translated(host):
            return host
    return None
